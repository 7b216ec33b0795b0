//! Whether a peer has got all that it was sent.
//!
//! A result is forgotten once somebody has read it, but only once its last byte is known to have arrived: the peer's TCP
//! has acknowledged it (`docs/api.md` section 4). A handler makes a [`Delivery`], the body that carries the result
//! begins it with its last piece, and the connection's [`Stream`](super::stream::Stream) sees what is written, flushed
//! and acknowledged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What hears that an answer is on its way, before any of it is, and gives back what hears that it has arrived.
type OnBegun = Box<dyn FnOnce() -> oneshot::Sender<()> + Send>;

/// An answer of which its sender wants to know that it has arrived.
pub(super) struct Delivery {
    connection: Deliveries,
    on_begun: OnBegun,
}

impl Delivery {
    /// The last piece of the answer is on its way to the connection.
    pub(super) fn begin(self) {
        let Self { connection, on_begun } = self;
        let arrived = on_begun();
        connection.lock().push(State::Begun(arrived));
    }
}

enum State {
    /// Its last byte is somewhere between the body and the socket.
    Begun(oneshot::Sender<()>),
    /// The socket has all of it: it ends at this byte of all that was ever written.
    Flushed { end: u64, arrived: oneshot::Sender<()> },
}

/// What is on its way on one connection. A cheap clone.
#[derive(Clone, Default)]
pub(super) struct Deliveries(Arc<Mutex<Vec<State>>>);

impl Deliveries {
    /// Prepares to tell of an answer. `on_begun` is run before the last of it is sent, and what it returns is told when
    /// that has arrived; it is dropped if nobody can know.
    pub(super) fn prepare(&self, on_begun: impl FnOnce() -> oneshot::Sender<()> + Send + 'static) -> Delivery {
        Delivery { connection: self.clone(), on_begun: Box::new(on_begun) }
    }

    /// Whether anybody waits to know.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The socket has all that was begun; so many bytes were ever written to it.
    pub(super) fn flushed(&self, written: u64) {
        let mut states = self.lock();
        let begun: Vec<_> = states.extract_if(.., |state| matches!(state, State::Begun(_))).collect();
        states.extend(begun.into_iter().map(|state| match state {
            State::Begun(arrived) => State::Flushed { end: written, arrived },
            flushed @ State::Flushed { .. } => flushed,
        }));
    }

    /// The peer has acknowledged so many bytes of all that were ever written.
    pub(super) fn acknowledged(&self, bytes: u64) {
        let is_known = |state: &mut State| matches!(state, State::Flushed { end, .. } if *end <= bytes);
        for state in self.lock().extract_if(.., is_known) {
            if let State::Flushed { arrived, .. } = state {
                // Whoever waited for it has ended with the server.
                let _ = arrived.send(());
            }
        }
    }

    /// Nothing more is flushed: what was not will never arrive.
    pub(super) fn give_up_begun(&self) {
        self.lock().retain(|state| matches!(state, State::Flushed { .. }));
    }

    /// The connection is gone: what is not known to have arrived will never be.
    pub(super) fn give_up(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(deliveries: &Deliveries) -> oneshot::Receiver<()> {
        let (arrived, known) = oneshot::channel();
        deliveries.prepare(move || arrived).begin();
        known
    }

    #[test]
    fn what_is_acknowledged_to_its_last_byte_has_arrived() {
        let deliveries = Deliveries::default();
        let mut first = begin(&deliveries);
        deliveries.acknowledged(1000);
        assert!(first.try_recv().is_err(), "nobody has flushed it");
        deliveries.flushed(100);
        let mut second = begin(&deliveries);
        deliveries.flushed(250);
        deliveries.acknowledged(99);
        assert!(first.try_recv().is_err());
        deliveries.acknowledged(100);
        assert_eq!(first.try_recv(), Ok(()));
        assert!(second.try_recv().is_err() && !deliveries.is_empty());
        deliveries.acknowledged(250);
        assert_eq!(second.try_recv(), Ok(()));
        assert!(deliveries.is_empty());
    }

    #[test]
    fn what_was_not_acknowledged_in_time_has_not_arrived() {
        let deliveries = Deliveries::default();
        let mut flushed = begin(&deliveries);
        deliveries.flushed(10);
        let mut begun = begin(&deliveries);
        deliveries.give_up_begun();
        assert_eq!(begun.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(flushed.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        deliveries.give_up();
        assert_eq!(flushed.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
