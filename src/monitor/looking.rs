//! Who looks at the gateway's parts: a thread of ordinary priority.
//!
//! The port's own thread has a low one, so that whoever floods the port takes no time from records. But a part takes its
//! lock to say how it is. On a busy machine a thread of low priority could be left waiting for its turn while it holds the
//! lock, and the workers with it. So it asks this thread, which does nothing else.

use std::io;

use crossbeam_channel::{Sender, bounded, unbounded};

use crate::engine::supervision::Supervisor;

/// Asks the thread to look. It ends when this is dropped.
pub(super) struct Looking(Sender<Look>);

type Look = Box<dyn FnOnce() + Send>;

impl Looking {
    /// Starts the thread. It has the priority of the thread that calls this.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(supervisor: &Supervisor) -> io::Result<Self> {
        let (asked, looks) = unbounded::<Look>();
        supervisor.spawn("looking", move || looks.into_iter().for_each(|look| look()))?;
        Ok(Self(asked))
    }

    /// What a look gives; waits for it. `None`: the thread has panicked, and the supervisor knows it.
    pub(super) fn at<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (tell, told) = bounded(1);
        // Who asks is waiting for it.
        self.0.send(Box::new(move || drop(tell.send(look())))).ok()?;
        told.recv().ok()
    }
}
