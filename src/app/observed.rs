//! What there is to tell of a running gateway: how each part of it is, in plain words, and the values of its metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::domain::aggregate::OpenBytes;
use crate::domain::counting::Name;
use crate::domain::gateway::HowFar;
use crate::domain::name::GatewayId;
use crate::domain::policy::{Denied, Right};
use crate::egress::delivery::{Backlog, Board};
use crate::engine::counting::Counting;
use crate::engine::intake::Intake;
use crate::engine::noising::Noising;
use crate::engine::pipeline::Pipeline;
use crate::engine::supervision::Supervisor;
use crate::engine::versions::Versions;
use crate::identity::{Acceptor, Expiry};
use crate::ledger::Ledger;
use crate::monitor::{Check, Health, Observed};
use crate::storage::{Pace, State};
use crate::telemetry::{Samples, Telemetry, declared};

use super::brokers::Certificates;
use super::logs::Logs;
use super::outcomes::Outcomes;
use super::witnesses::Witnesses;
use super::{counting, noising};

mod checks;

/// The parts that are looked at.
pub(super) struct Observer {
    pub(super) gateway: GatewayId,
    pub(super) intake: Arc<Intake>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) versions: Arc<Versions>,
    pub(super) logs: Logs,
    pub(super) ledger: Arc<Ledger>,
    pub(super) counting: Arc<Counting>,
    pub(super) noising: Arc<Noising>,
    pub(super) witnesses: Arc<Witnesses>,
    pub(super) open: Arc<OpenBytes>,
    pub(super) board: Arc<Board>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) supervisor: Supervisor,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) brokers: Arc<Certificates>,
    /// `None`: plain text.
    pub(super) acceptor: Option<Arc<Acceptor>>,
    pub(super) clock: Clock,
    /// How many models are loaded.
    pub(super) models: usize,
    /// Whether the logs get on, in the order of [`Logs::each`].
    pub(super) paces: [Mutex<Pace>; 4],
}

/// Bytes of open windows are shown in these steps: a contributor more is not seen.
const WINDOW_STEP: usize = 64 << 10;
/// The same for their cells.
const CELLS_STEP: usize = 64;

impl Observer {
    /// How long nothing became durable of each log, by its name, although something waits.
    fn waits(&self) -> BTreeMap<&'static str, Duration> {
        let (logs, now) = (self.logs.each().zip(&self.paces), self.clock.now());
        let look = |log, pace: &Mutex<Pace>| pace.lock().unwrap_or_else(PoisonError::into_inner).look(log, now);
        logs.map(|((name, log), pace)| (name, look(log, pace))).collect()
    }

    /// The days until the next review that the policies in force ask for, and what is to be reviewed.
    fn next_review(&self) -> Option<(i32, String)> {
        let version = self.versions.current();
        let reviews = version.policy.reviews.iter();
        let days = reviews.filter_map(|review| {
            let days = review.day.value.since(version.day).ok()?.get_days();
            Some((days, review.what.clone()))
        });
        days.min()
    }

    /// What of `[tls]` ends, the gateway's certificate first. Empty: plain text.
    fn ends(&self) -> Vec<Expiry> {
        self.acceptor.as_ref().map(|acceptor| acceptor.set().ends().to_vec()).unwrap_or_default()
    }
}

impl Observed for Observer {
    fn is_alive(&self) -> bool {
        self.supervisor.failure().is_none()
    }

    fn health(&self) -> Health {
        let mut checks = vec![self.of_process()];
        let waits = self.waits();
        let waits = |log: &str| waits.get(log).copied().unwrap_or_default();
        checks.extend(self.logs.always().map(|(name, log)| Self::of_log(name, log, waits(name))));
        checks.push(self.of_closings());
        let backlogs = self.board.latest();
        checks.extend([
            Check::well("models", format!("models that are loaded: {}", self.models)),
            self.of_ledger(),
            self.of_witnesses(),
            self.of_recovery(),
            self.of_windows(),
            self.of_quarantine(),
            self.of_counters(waits(counting::LOG)),
            self.of_privacy(waits(noising::LOG)),
            self.of_damage(),
            self.of_destinations(&backlogs),
            self.of_cells_aside(&backlogs),
            Self::of_budgets(&backlogs),
            self.of_policies(),
            self.of_review(),
            self.of_certificate(),
        ]);
        Health { is_alive: self.is_alive(), checks }
    }

    fn about(&self) -> Value {
        let destinations = self.board.latest().into_iter().map(|backlog| {
            let deferred = backlog.deferred();
            let Backlog { destination, releases, oldest, trouble, is_closed, denied, set_aside, budget } = backlog;
            let budget = budget.map(|budget| {
                json!({
                    "left_bytes": budget.left,
                    "deferred_releases": deferred,
                    "shed_releases": budget.shed,
                    "widened_releases": budget.widened,
                    "degraded_releases": budget.degraded,
                    "cells_left_out": budget.left_out,
                    "on_change_releases": budget.on_change,
                })
            });
            json!({
                "destination": destination.as_str(),
                "waiting_releases": releases,
                "oldest_seconds": oldest.as_secs(),
                "cells_set_aside": set_aside,
                "error": trouble.map(|trouble| trouble.error),
                "is_closed": is_closed,
                "denied_releases": denied,
                "budget": budget,
            })
        });
        let logs = self.logs.each().map(|(name, log)| {
            let usage = log.usage();
            json!({ "log": name, "bytes": usage.bytes, "quota_bytes": usage.quota_bytes, "segments": usage.segments })
        });
        json!({
            "gateway": self.gateway.as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "policy": self.versions.current().digest().to_string(),
            "running_seconds": self.clock.now().as_secs(),
            "destinations": destinations.collect::<Vec<_>>(),
            "logs": logs.collect::<Vec<_>>(),
        })
    }

    fn sample(&self, samples: &mut Samples) {
        self.telemetry.sample(samples);
        for (name, log) in self.logs.each() {
            let (usage, state) = (log.usage(), log.state());
            samples.amount(declared::LOG_SIZE, &[name], usage.bytes as f64);
            samples.amount(declared::LOG_QUOTA, &[name], usage.quota_bytes as f64);
            samples.amount(declared::LOG_SEGMENTS, &[name], usage.segments as f64);
            for (declared, count) in [(declared::LOG_COMMITS, usage.commits), (declared::LOG_ENTRIES, usage.committed)]
            {
                samples.count(declared, &[name], self.telemetry.shown(declared, name, count));
            }
            samples.amount(declared::LOG_DAMAGE, &[name], log.damage().len() as f64);
            for known in State::NAMES {
                samples.is(declared::LOG_STATE, &[name, known], state.name() == known);
            }
        }
        for backlog in self.board.latest() {
            let deferred = backlog.deferred();
            let Backlog { destination, releases, oldest, trouble, denied, set_aside, budget, .. } = backlog;
            samples.amount(declared::OUTBOX_WAITING, &[&destination], releases as f64);
            samples.amount(declared::OUTBOX_OLDEST, &[&destination], oldest.as_secs_f64());
            samples.is(declared::DESTINATION_UP, &[&destination], trouble.is_none());
            samples.amount(declared::CELLS_ASIDE, &[&destination], set_aside as f64);
            samples.count(declared::RELEASES_DENIED, &[&destination], denied);
            if let Some(budget) = budget {
                samples.amount(declared::BUDGET_LEFT, &[&destination], budget.left as f64);
                samples.amount(declared::RELEASES_DEFERRED, &[&destination], deferred as f64);
                samples.count(declared::RELEASES_SHED, &[&destination], budget.shed);
                samples.count(declared::RELEASES_WIDENED, &[&destination], budget.widened);
                samples.count(declared::RELEASES_DEGRADED, &[&destination], budget.degraded);
                samples.count(declared::CELLS_LEFT_OUT, &[&destination], budget.left_out);
                samples.count(declared::RELEASES_ON_CHANGE, &[&destination], budget.on_change);
            }
        }
        for (tally, used) in self.counters() {
            let Name { counter, to } = &*tally.name;
            samples.amount(declared::COUNTER_USED, &[counter, to], used as f64 / 100.0);
        }
        for HowFar { dataset, closed, open } in self.pipeline.windows() {
            samples.amount(declared::WINDOWS_CLOSED, &[&dataset], closed.unwrap_or(0) as f64 / 1e6);
            samples.amount(declared::WINDOWS_OPEN, &[&dataset], open as f64);
        }
        let held = self.open.held() / WINDOW_STEP * WINDOW_STEP;
        samples.amount(declared::WINDOWS_SIZE, &[], held as f64);
        let cells = self.open.cells() / CELLS_STEP * CELLS_STEP;
        samples.amount(declared::CELLS_OPEN, &[], cells as f64);
        samples.amount(declared::WINDOWS_LIMIT, &[], self.open.max() as f64);
        for (lane, worker) in self.pipeline.lanes().iter().zip(0..) {
            samples.amount(declared::INBOX_WAITING, &[&format!("{worker}")], lane.inbox.waiting() as f64);
        }
        samples.amount(declared::BUDGET_WAITING, &[], self.intake.budget().waiting() as f64);
        samples.is(declared::POLICY_INFO, &[&self.versions.current().digest().to_string()], true);
        for (outcome, count) in self.outcomes.reloads() {
            samples.count(declared::POLICY_RELOADS, &[outcome], count);
        }
        samples.is(declared::POLICY_STALE, &[], self.outcomes.policies_refused().is_some());
        if let Some((days, _)) = self.next_review() {
            samples.amount(declared::POLICY_REVIEW, &[], f64::from(days));
        }
        if let Some(acceptor) = &self.acceptor {
            if let Some(expiry) = acceptor.set().ends().first() {
                samples.amount(declared::CERTIFICATE_END, &[], expiry.until as f64);
            }
            samples.is(declared::CERTIFICATE_STALE, &[], self.outcomes.is_tls_stale());
        }
        samples.is(declared::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], true);
    }

    fn may_read(&self, identity: &str) -> Result<(), Denied> {
        let (_, granted) = self.versions.granted(identity);
        granted.read(Right::Metrics).map(drop)
    }
}
