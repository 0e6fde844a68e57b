//! A panic as one line of the log: the thread and the place in the code. What the panic says is left out: it may hold
//! values of a record.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::io::Write;
use std::panic::{self, UnwindSafe};
use std::thread;
use std::time::Duration;

use super::sink::Sink;

thread_local! {
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// The main thread takes the process with it.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// Runs what may panic on input from outside, such as a library's reader, and is answered with a refusal then. The panic
/// is not an error in the log, only a line at debug level.
///
/// # Errors
/// When it panicked.
pub fn expected<T>(run: impl FnOnce() -> T + UnwindSafe) -> Result<T, Panicked> {
    let before = IS_EXPECTED.replace(true);
    let result = panic::catch_unwind(run);
    IS_EXPECTED.set(before);
    result.map_err(|_| Panicked)
}

/// It panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

pub(super) fn install(sink: Sink) {
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or_else(String::new, |place| format!("{}:{}", place.file(), place.line()));
        let thread = thread::current();
        let thread = thread.name().unwrap_or("without a name");
        if IS_EXPECTED.get() {
            return tracing::debug!(thread, place, "a library panicked on a payload, which is refused");
        }
        tracing::error!(thread, place, "a thread panicked: a fault in bailiwick; please report this line");
        // RUST_BACKTRACE=1 asks for it.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            let _ = (&sink).write_all(format!("{backtrace}\n").as_bytes());
        }
        if thread == "main" {
            sink.flush(LAST_WAIT);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_told_by_its_end() {
        assert_eq!(expected(|| 1), Ok(1));
        assert_eq!(
            expected(|| if IS_EXPECTED.get() {
                panic!("as in a reader")
            }),
            Err(Panicked)
        );
        assert!(!IS_EXPECTED.get());
    }
}
