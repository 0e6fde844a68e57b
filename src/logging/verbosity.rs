//! How much is written, which can be changed while the program runs.

use std::sync::atomic::{AtomicUsize, Ordering};

use tracing_subscriber::EnvFilter;

/// What more is written, step by step.
const MORE: [&str; 2] = ["bailiwick=debug,info", "trace"];

/// Puts another filter in force. Whether that could be done.
type Replace = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// How much is written.
pub struct Verbosity {
    began: String,
    /// How many steps more than that.
    steps: AtomicUsize,
    replace: Replace,
}

impl Verbosity {
    pub(super) fn new(began: String, replace: Replace) -> Self {
        Self { began, steps: AtomicUsize::new(0), replace }
    }

    /// Writes one step more: details of this program, then everything. What is written then, as a filter.
    pub fn more(&self) -> String {
        self.set((self.steps.load(Ordering::Relaxed) + 1).min(MORE.len()))
    }

    /// Writes what it began with.
    pub fn as_before(&self) -> String {
        self.set(0)
    }

    fn set(&self, steps: usize) -> String {
        let filter = steps.checked_sub(1).and_then(|step| MORE.get(step)).map_or(self.began.as_str(), |filter| filter);
        if (self.replace)(EnvFilter::new(filter)) {
            self.steps.store(steps, Ordering::Relaxed);
        }
        filter.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_more_is_written_and_then_what_was_before() {
        let verbosity = Verbosity::new("warn".to_owned(), Box::new(|_| true));
        assert_eq!([verbosity.more(), verbosity.more(), verbosity.more()], ["bailiwick=debug,info", "trace", "trace"]);
        assert_eq!([verbosity.as_before(), verbosity.more()], ["warn", "bailiwick=debug,info"]);
    }
}
