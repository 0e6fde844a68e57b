//! Supervision: no thread dies in silence.
//!
//! A thread that cannot go on leaves work that others wait for. So its failure is everybody's: the gateway refuses
//! requests, health says that it does not serve, and the process ends with a code of its own, so that whatever started it
//! starts it again. What was acknowledged is on disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task;

/// By how much (`nice`) the priority of threads that give way to records is below that of the others.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// From now on this thread gives way to those that take records in. Where threads have no priority of their own, nothing
/// happens: only Linux has one.
pub fn give_way_to_records() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        let thread = Some(rustix::thread::gettid());
        // A priority that cannot be told or changed is as good as none. The system takes more than the most as the most.
        if let Ok(nice) = getpriority_process(thread) {
            let _ = setpriority_process(thread, nice.saturating_add(NICER));
        }
    }
}

/// Hears of threads that cannot go on. Clones share what they heard.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    failure: OnceLock<String>,
    told: Notify,
}

impl Supervisor {
    /// Starts a thread. When it panics, that is a failure.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let (supervisor, thread) = (self.clone(), name.to_owned());
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                supervisor.fail(&format!("thread `{thread}` panicked"));
            }
        })
    }

    /// Starts a task of the async runtime. When it panics, that is a failure.
    pub fn spawn_task(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> task::JoinHandle<()> {
        let supervisor = self.clone();
        tokio::spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                supervisor.fail(&format!("task `{name}` panicked"));
            }
        })
    }

    /// A part of the gateway cannot go on. The first failure counts.
    pub fn fail(&self, what: &str) {
        if self.inner.failure.set(what.to_owned()).is_ok() {
            tracing::error!(
                failure = what,
                "the gateway cannot go on and stops; start it again. Report it, unless it says what somebody did"
            );
            self.inner.told.notify_waiters();
        }
    }

    /// What failed, if anything did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.inner.failure.get().map(String::as_str)
    }

    /// Waits until something fails. What it was.
    pub async fn failed(&self) -> &str {
        loop {
            let told = self.inner.told.notified();
            if let Some(failure) = self.failure() {
                return failure;
            }
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_everybodys_and_the_first_failure_counts() {
        let supervisor = Supervisor::default();
        let waiting = {
            let supervisor = supervisor.clone();
            tokio::spawn(async move { supervisor.failed().await.to_owned() })
        };
        supervisor.spawn("quiet", || {}).unwrap().join().unwrap();
        assert_eq!(supervisor.failure(), None);
        supervisor.spawn("worker-3", || panic!("of a test")).unwrap().join().unwrap();
        supervisor.fail("another");
        assert_eq!(waiting.await.unwrap(), "thread `worker-3` panicked");
        assert_eq!(supervisor.failed().await, "thread `worker-3` panicked");
    }
}
