//! What is done again and again while a gateway runs: time passes, and it is looked whether the gateway works.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::today;
use crate::engine::intake::Intake;
use crate::engine::pipeline::{Lane, Pipeline};
use crate::engine::supervision::Supervisor;
use crate::engine::versions::Versions;
use crate::ingress::grpc::Health;
use crate::ledger::Ledger;
use crate::telemetry::{Summaries, Telemetry};

use super::logs::Logs;
use super::quarantined::Quarantined;
use super::work::Work;

/// How often windows are looked at without a record coming in.
const TICK: Duration = Duration::from_millis(200);

/// Lets the parts of a gateway know that time passes, and health whether the gateway works.
pub(super) struct Ticker {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) intake: Arc<Intake>,
    pub(super) versions: Arc<Versions>,
    pub(super) quarantined: Arc<Quarantined>,
    pub(super) work: Arc<Work>,
    pub(super) logs: Logs,
    pub(super) ledger: Arc<Ledger>,
    pub(super) supervisor: Supervisor,
    pub(super) health: Health,
    pub(super) clock: Clock,
}

/// What of a gateway works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Works {
    /// Requests are taken in.
    takes: bool,
    /// Releases may leave.
    releases: bool,
}

impl Ticker {
    /// Never ends.
    pub(super) async fn run(self) {
        let mut interval = tokio::time::interval(TICK);
        let mut worked = Works { takes: true, releases: false };
        self.health.set_egress(false).await;
        loop {
            interval.tick().await;
            let today = today();
            self.versions.advance(today);
            self.work.look(self.clock.wall());
            self.pipeline.tick(self.clock.now());
            if self.intake.tick() {
                // Not here: it may wait for the disk.
                if let Some(Lane { inbox, .. }) = self.pipeline.lanes().first().cloned() {
                    let intake = Arc::clone(&self.intake);
                    tokio::spawn(async move { intake.reconsider(&inbox).await });
                }
            }
            self.quarantined.look(self.clock.now());
            let now = self.works();
            if now.takes != worked.takes {
                self.health.set(now.takes).await;
            }
            if now.releases != worked.releases {
                self.health.set_egress(now.releases).await;
            }
            worked = now;
        }
    }

    /// What works now. The supervisor is told of a log whose thread has panicked, or whose files were removed.
    fn works(&self) -> Works {
        if self.ledger.is_broken() {
            self.supervisor.fail("the thread of the ledger's log panicked");
        }
        for (name, log) in self.logs.each() {
            if log.is_broken() {
                self.supervisor.fail(&format!("the thread of the log `{name}` panicked"));
            }
            if log.is_removed() {
                self.supervisor.fail(&format!(
                    "files of the log `{name}` were removed while it ran: what they held and was not counted is lost"
                ));
            }
        }
        let is_failing = self.logs.always().iter().any(|(_, log)| log.is_failing());
        let takes = !is_failing && self.supervisor.failure().is_none();
        Works { takes, releases: takes && self.ledger.trouble().is_none() }
    }
}

/// Logs what has happened, again and again.
pub(super) async fn summarize(telemetry: Arc<Telemetry>, every: Duration) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut summaries = Summaries::default();
    // The first tick is at once.
    interval.tick().await;
    loop {
        interval.tick().await;
        summaries.interval(&telemetry);
    }
}
