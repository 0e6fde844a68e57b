//! The deadline of a run of a model. One thread for the process looks at all runs, some twenty times per deadline, and
//! tells ONNX Runtime to end those that take too long. ONNX Runtime ends a run between two operators, and between two
//! rounds of a loop.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use ort::session::{NoSelectedOutputs, RunOptions};

/// How often a run is looked at until its deadline.
const LOOKS: u32 = 20;

/// Looks at the runs of the scorers of a gateway.
pub struct Watch {
    deadline: Duration,
    watched: Arc<Mutex<Vec<Weak<Watched>>>>,
}

/// The runs of one scorer, one after the other.
pub(super) struct Watched {
    /// What every run is started with.
    pub(super) options: RunOptions<NoSelectedOutputs>,
    state: Mutex<State>,
    /// The thread ends with the last who holds this.
    _watched: Arc<Mutex<Vec<Weak<Watched>>>>,
}

#[derive(Default)]
struct State {
    is_running: bool,
    /// How often this run was looked at.
    looks: u32,
    /// Whether it was told to end.
    is_late: bool,
}

impl Watch {
    /// Starts the thread. It ends when nothing is watched by this any more.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(deadline: Duration) -> std::io::Result<Self> {
        let watched: Arc<Mutex<Vec<Weak<Watched>>>> = Arc::default();
        let seen = Arc::downgrade(&watched);
        let pause = (deadline / LOOKS).max(Duration::from_millis(1));
        thread::Builder::new().name("model-deadline".to_owned()).spawn(move || {
            loop {
                thread::sleep(pause);
                let Some(watched) = seen.upgrade() else { return };
                let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
                watched.retain(|watched| watched.upgrade().map(|watched| watched.look()).is_some());
            }
        })?;
        Ok(Self { deadline, watched })
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Another scorer's runs.
    pub(super) fn over(&self) -> ort::Result<Arc<Watched>> {
        let watched = Arc::new(Watched {
            options: RunOptions::new()?,
            state: Mutex::default(),
            _watched: Arc::clone(&self.watched),
        });
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&watched));
        Ok(watched)
    }
}

impl Watched {
    /// Runs something with the options. Whether it was told to end stands beside what came of it.
    pub(super) fn run<T>(&self, run: impl FnOnce(&RunOptions<NoSelectedOutputs>) -> T) -> (T, bool) {
        *self.state() = State { is_running: true, ..State::default() };
        let done = run(&self.options);
        let ended = std::mem::take(&mut *self.state());
        if ended.is_late {
            // Without it the next run would end at once. That it fails is seen then.
            let _ = self.options.unterminate();
        }
        (done, ended.is_late)
    }

    fn look(&self) {
        let mut state = self.state();
        if !state.is_running || state.is_late {
            return;
        }
        state.looks += 1;
        // The first look comes at any time after the start.
        if state.looks > LOOKS {
            state.is_late = self.options.terminate().is_ok();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
