//! Clients that are being closed, each on a thread of its own: that can hang while a broker does not answer.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How many are being closed.
static CLOSING: Mutex<usize> = Mutex::new(0);
static CLOSED: Condvar = Condvar::new();

/// Closes a client on a thread of its own.
pub(super) fn close<T: Send + 'static>(client: T) {
    *CLOSING.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    let closing = Closing { client: Some(client) };
    if let Err(error) = thread::Builder::new().name("kafka-close".into()).spawn(move || drop(closing)) {
        tracing::warn!(%error, "no thread to close a kafka client on: raise the limit of threads (ulimit -u)");
    }
}

/// Waits until all clients are closed, so long at most. Whether they are.
///
/// A process that ends meanwhile can end by a signal: its end takes OpenSSL away from the client's threads.
pub fn are_closed(within: Duration) -> bool {
    let closing = CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = CLOSED.wait_timeout_while(closing, within, |closing| *closing > 0);
    *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
}

/// A client until it is closed, which is counted.
struct Closing<T> {
    client: Option<T>,
}

impl<T> Drop for Closing<T> {
    fn drop(&mut self) {
        drop(self.client.take());
        *CLOSING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLOSED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// A client whose end takes until it is told.
    struct Slow(Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    #[test]
    fn a_client_that_is_being_closed_is_waited_for() {
        let (go_on, told) = channel();
        close(Slow(told));
        assert!(!are_closed(Duration::ZERO));
        go_on.send(()).unwrap();
        assert!(are_closed(Duration::from_secs(60)));
    }
}
