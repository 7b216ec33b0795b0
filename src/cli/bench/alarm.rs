//! Wakes a task at a moment.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of the kernel's. The runtime's own has ticks of a millisecond, which would be most of what is measured.
pub(super) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// # Errors
    /// When the system has no timer for us.
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: it owns the timer, which is one descriptor for as long as it is there.
        Ok(Self(unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?))
    }

    /// Ready at that moment. May be dropped, and asked anew for another.
    ///
    /// # Errors
    /// When the system fails.
    pub(super) async fn at(&self, moment: Instant) -> io::Result<()> {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: seconds, tv_nsec: wait.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        let rung = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut [0; 8])?);
        self.0.async_io(Interest::READABLE, rung).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_is_never_early_and_can_be_set_anew() {
        let alarm = Alarm::new().unwrap();
        let soon = Instant::now() + Duration::from_micros(300);
        tokio::select! {
            biased;
            _ = alarm.at(Instant::now() + Duration::from_secs(3600)) => panic!("an hour is over"),
            () = tokio::task::yield_now() => {}
        }
        alarm.at(soon).await.unwrap();
        assert!(Instant::now() >= soon);
        alarm.at(soon).await.unwrap();
    }
}
