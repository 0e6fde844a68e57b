//! The thread that keeps the ledger: opens it, writes notes, publishes, and says how it goes.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::book::Ledger;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often notes are written that no intent took along.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How often tiles are written.
const PUBLISH_EVERY: Duration = Duration::from_secs(10);
/// How often a ledger that cannot be opened is tried again, at most.
const OPEN_EVERY: Duration = Duration::from_secs(1);
/// So many times as long as a try took, the next one waits.
const OPEN_PAUSE: u32 = 10;
/// How often trouble is said again.
const SAID_EVERY: Duration = Duration::from_secs(60);

impl Ledger {
    /// Keeps the ledger until the other end of `until` is gone.
    pub fn tend(&self, now: &dyn Fn() -> Duration, until: &Receiver<()>) {
        let mut keeper = Keeper::default();
        loop {
            keeper.look(self, now);
            if until.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

#[derive(Default)]
struct Keeper {
    /// Since when it cannot be written, and when that was said.
    trouble: Option<(Duration, Duration)>,
    open_at: Duration,
    flush_at: Duration,
    publish_at: Duration,
    unpublished: bool,
}

impl Keeper {
    fn look(&mut self, ledger: &Ledger, clock: &dyn Fn() -> Duration) {
        let now = clock();
        if now >= self.open_at && ledger.open().is_err() {
            // A long ledger takes long to verify: not all of the time is spent on that.
            let after = clock();
            self.open_at = after + OPEN_EVERY.max((after - now).saturating_mul(OPEN_PAUSE));
        }
        if now >= self.flush_at {
            self.flush_at = now + FLUSH_EVERY;
            ledger.flush();
        }
        if now >= self.publish_at {
            self.publish_at = now + PUBLISH_EVERY;
            self.publish(ledger);
        }
        self.say(ledger.trouble(), now);
    }

    fn publish(&mut self, ledger: &Ledger) {
        match ledger.publish() {
            Err(error) if !self.unpublished => {
                self.unpublished = true;
                tracing::warn!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "the ledger's tiles cannot be written; its log holds the entries. It is tried again"
                );
            }
            Err(_) => {}
            Ok(()) => self.unpublished = false,
        }
    }

    fn say(&mut self, trouble: Option<Arc<str>>, now: Duration) {
        match (trouble, self.trouble) {
            (None, None) => {}
            (None, Some((since, _))) => {
                self.trouble = None;
                let lasted = Duration::from_secs(now.saturating_sub(since).as_secs());
                tracing::info!(?lasted, "the ledger can be written; releases leave again");
            }
            (Some(_), Some((_, said))) if now.saturating_sub(said) < SAID_EVERY => {}
            (Some(error), before) => {
                self.trouble = Some((before.map_or(now, |(since, _)| since), now));
                tracing::error!(%error, "the ledger cannot be written: nothing leaves until it can; all else goes on");
            }
        }
    }
}
