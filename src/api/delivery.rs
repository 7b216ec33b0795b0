//! Whether a peer has got all that it was sent.
//!
//! A result is forgotten once somebody has read it, but only once its last byte is known to have arrived: the peer's TCP
//! has acknowledged it (`docs/api.md` section 4). A handler makes a [`Delivery`], the body that carries the result
//! begins it with its last piece, and the connection's [`Stream`](super::stream::Stream) sees what is written, flushed
//! and acknowledged.

use crate::service::results::Sending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What hears that an answer is on its way, before any of it is, and gives back what hears how far it is.
type OnBegun = Box<dyn FnOnce() -> watch::Sender<Sending> + Send>;

/// An answer of which its sender wants to know that it has arrived.
pub(super) struct Delivery {
    connection: Deliveries,
    on_begun: OnBegun,
}

impl Delivery {
    /// The last piece of the answer is on its way to the connection.
    pub(super) fn begin(self) {
        let Self { connection, on_begun } = self;
        let sending = on_begun();
        connection.lock().push(Begun { sending, end: None });
    }
}

/// An answer on its way.
struct Begun {
    /// Dropped before it has arrived, it tells that nobody will know.
    sending: watch::Sender<Sending>,
    /// Where it ends among all bytes that were ever written; `None` as long as the socket does not have all of it.
    end: Option<u64>,
}

/// What is on its way on one connection. A cheap clone.
#[derive(Clone, Default)]
pub(super) struct Deliveries(Arc<Mutex<Vec<Begun>>>);

impl Deliveries {
    /// Prepares to tell of an answer. `on_begun` is run before the last of it is sent; what it returns is told how far
    /// that is, and dropped if nobody can know.
    pub(super) fn prepare(&self, on_begun: impl FnOnce() -> watch::Sender<Sending> + Send + 'static) -> Delivery {
        Delivery { connection: self.clone(), on_begun: Box::new(on_begun) }
    }

    /// Whether anybody waits to know.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The socket is about to be given all that there is, and may take all: whoever looks must know before the peer can.
    pub(super) fn writing(&self) {
        self.tell_of_begun(Sending::Written);
    }

    /// It has not taken all.
    pub(super) fn has_more_to_write(&self) {
        self.tell_of_begun(Sending::Begun);
    }

    fn tell_of_begun(&self, sending: Sending) {
        for answer in self.lock().iter().filter(|answer| answer.end.is_none()) {
            answer.sending.send_replace(sending);
        }
    }

    /// The socket has all that was begun; so many bytes were ever written to it.
    pub(super) fn flushed(&self, written: u64) {
        for answer in self.lock().iter_mut().filter(|answer| answer.end.is_none()) {
            answer.end = Some(written);
            answer.sending.send_replace(Sending::Written);
        }
    }

    /// The peer has acknowledged so many bytes of all that were ever written.
    pub(super) fn acknowledged(&self, bytes: u64) {
        for answer in self.lock().extract_if(.., |answer| answer.end.is_some_and(|end| end <= bytes)) {
            answer.sending.send_replace(Sending::Arrived);
        }
    }

    /// Nothing more is flushed: what was not will never arrive.
    pub(super) fn give_up_begun(&self) {
        self.lock().retain(|answer| answer.end.is_some());
    }

    /// The connection is gone: what is not known to have arrived will never be.
    pub(super) fn give_up(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Begun>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(deliveries: &Deliveries) -> watch::Receiver<Sending> {
        let (sending, known) = watch::channel(Sending::Begun);
        deliveries.prepare(move || sending).begin();
        known
    }

    fn is_known_in_vain(known: &watch::Receiver<Sending>) -> bool {
        known.has_changed().is_err() && *known.borrow() != Sending::Arrived
    }

    #[test]
    fn what_is_acknowledged_to_its_last_byte_has_arrived() {
        let deliveries = Deliveries::default();
        let first = begin(&deliveries);
        deliveries.acknowledged(1000);
        assert_eq!(*first.borrow(), Sending::Begun, "nobody has flushed it");
        deliveries.flushed(100);
        let second = begin(&deliveries);
        assert_eq!((*first.borrow(), *second.borrow()), (Sending::Written, Sending::Begun));
        deliveries.writing();
        assert_eq!(*second.borrow(), Sending::Written);
        deliveries.has_more_to_write();
        assert_eq!((*first.borrow(), *second.borrow()), (Sending::Written, Sending::Begun));
        deliveries.flushed(250);
        deliveries.acknowledged(99);
        assert_eq!(*first.borrow(), Sending::Written);
        deliveries.acknowledged(100);
        assert_eq!((*first.borrow(), *second.borrow()), (Sending::Arrived, Sending::Written));
        assert!(!deliveries.is_empty());
        deliveries.acknowledged(250);
        assert_eq!(*second.borrow(), Sending::Arrived);
        assert!(deliveries.is_empty());
    }

    #[test]
    fn what_was_not_acknowledged_in_time_has_not_arrived() {
        let deliveries = Deliveries::default();
        let flushed = begin(&deliveries);
        deliveries.flushed(10);
        let begun = begin(&deliveries);
        deliveries.give_up_begun();
        assert!(is_known_in_vain(&begun) && !is_known_in_vain(&flushed));
        deliveries.give_up();
        assert!(is_known_in_vain(&flushed));
    }
}
