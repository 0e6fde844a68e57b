//! Says in the log which destinations do not take releases: soon, again at a bounded rate while it lasts, and when it
//! is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::domain::name::DestinationName;

use super::status::{Backlog, Board, Trouble};

/// How often the board is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Trouble that passes sooner is not said: a broker's restart, a connection that is made again.
const SAID_AFTER: Duration = Duration::from_secs(2);
/// How often it is said again.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Looks at the board until the other end of `until` is gone.
pub(super) fn run(board: &Board, now: &dyn Fn() -> Duration, until: &Receiver<()>) {
    let mut speakers: BTreeMap<DestinationName, Speaker> = BTreeMap::new();
    while until.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let now = now();
        match board.look(now) {
            Ok(backlogs) => {
                for backlog in backlogs {
                    let speaker = speakers.entry(backlog.destination.clone()).or_default();
                    if let Some(what) = speaker.hear(backlog.trouble.as_ref(), now) {
                        say(&what, &backlog);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "the outbox cannot be read"),
        }
    }
}

fn say(what: &What, backlog: &Backlog) {
    let Backlog { releases, oldest, .. } = backlog;
    let destination = backlog.destination.as_str();
    match what {
        What::Trouble { error, lasted } if *releases == 0 => {
            let lasted = seconds(*lasted);
            tracing::warn!(destination, ?lasted, %error, "the destination does not take releases: repair it; none waits for it now");
        }
        What::Trouble { error, lasted } => {
            let (oldest, lasted) = (seconds(*oldest), seconds(*lasted));
            tracing::warn!(destination, releases, ?oldest, ?lasted, %error, "the destination does not take releases: repair it; what waits is sent then");
        }
        What::Over { lasted } => {
            tracing::info!(destination, releases, lasted = ?seconds(*lasted), "the destination takes releases again");
        }
    }
}

/// Without what is below a second.
fn seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// What is to be said of a destination.
#[derive(Debug, PartialEq, Eq)]
enum What {
    Trouble { error: Arc<str>, lasted: Duration },
    Over { lasted: Duration },
}

/// What was said of one destination.
#[derive(Default)]
struct Speaker {
    /// The trouble that was said last: since when it lasts, and when it was said.
    said: Option<(Duration, Duration)>,
}

impl Speaker {
    fn hear(&mut self, trouble: Option<&Trouble>, now: Duration) -> Option<What> {
        let Some(trouble) = trouble else {
            let (since, _) = self.said.take()?;
            return Some(What::Over { lasted: now.saturating_sub(since) });
        };
        // A delivery that succeeds between two failures does not make each of them news.
        let (since, is_due) = match self.said {
            Some((since, said)) => (since, now.saturating_sub(said) >= SAID_EVERY),
            None => (trouble.since, now.saturating_sub(trouble.since) >= SAID_AFTER),
        };
        if !is_due {
            return None;
        }
        self.said = Some((since, now));
        Some(What::Trouble { error: trouble.error.as_str().into(), lasted: now.saturating_sub(since) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_soon_then_each_minute_and_when_it_is_over() {
        let mut speaker = Speaker::default();
        let mut said = Vec::new();
        for half in 0..400_u64 {
            let now = Duration::from_millis(500 * half);
            // From 10 s to 150 s.
            let trouble = (20..300)
                .contains(&half)
                .then(|| Trouble { since: Duration::from_secs(10), error: "refused".to_owned() });
            said.extend(speaker.hear(trouble.as_ref(), now).map(|what| (now.as_secs(), what)));
        }
        let trouble = |at: u64| {
            let what = What::Trouble { error: "refused".into(), lasted: Duration::from_secs(at - 10) };
            (at, what)
        };
        let over = (150, What::Over { lasted: Duration::from_secs(140) });
        assert_eq!(said, [trouble(12), trouble(72), trouble(132), over]);
    }

    #[test]
    fn a_hiccup_is_not_said() {
        let mut speaker = Speaker::default();
        let trouble = Trouble { since: Duration::from_secs(10), error: "refused".to_owned() };
        assert_eq!(speaker.hear(Some(&trouble), Duration::from_secs(11)), None);
        assert_eq!(speaker.hear(None, Duration::from_secs(12)), None);
    }
}
