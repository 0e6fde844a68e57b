//! What is looked at to tell whether the gateway is well, one thing after the other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::{counting, noising};
use super::Observer;
use crate::domain::counting::{Name, Tally};
use crate::domain::privacy::day_of;
use crate::egress::delivery::Backlog;
use crate::identity::Expiry;
use crate::monitor::Check;
use crate::storage::{Log, NoRoom, State};

/// When nothing became durable for so long although something waits, the disk hangs.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// A review that is nearer than this is a warning.
const REVIEW_DAYS: i32 = 30;
/// Open windows that take as much of their memory are a warning.
const WINDOWS_PERCENT: usize = 90;
/// How much of a counter is used is shown in steps of so many percent.
const COUNTER_STEP: u64 = 5;
/// A counter of which so much is used is a warning.
const COUNTER_PERCENT: u64 = 90;

impl Observer {
    pub(super) fn of_process(&self) -> Check {
        const NAME: &str = "process";
        match self.supervisor.failure() {
            Some(failure) => Check::not_ready(
                NAME,
                format!("a part of the gateway cannot go on: {failure}"),
                "it stops with exit code 70: start it again, and report the log line about the failure",
            ),
            None if self.intake.is_stopping() => {
                Check::not_ready(NAME, "the gateway is being stopped", "wait for its end, then start it again")
            }
            None => Check::well(NAME, "all parts run"),
        }
    }

    pub(super) fn of_log(name: &'static str, log: &Log, waits: Duration) -> Check {
        let full = "see which destination does not take releases, make room on the disk, or raise `quota_bytes`";
        match log.state() {
            State::Healthy if waits >= HANGS_AFTER => Check::not_ready(
                name,
                format!("the disk of the {name} hangs: a write to it has been under way for {} s", waits.as_secs()),
                "check the disk; when it answers, the gateway goes on by itself",
            ),
            State::Healthy => Check::well(name, format!("the {name} can be written")),
            State::Full => match log.reserve(0) {
                Err(NoRoom::Full) => Check::not_ready(name, format!("the {name}'s quota or its disk is used up"), full),
                _ => Check::warning(name, format!("the {name} has no room for another segment"), full),
            },
            State::Failing { message } => Check::not_ready(
                name,
                format!("the {name} cannot be written: {message}"),
                "check the disk, and put the journal's directory back if it was moved; it is tried again",
            ),
            State::Closed => Check::not_ready(name, format!("the {name} is closed"), "start the gateway again"),
            State::Broken => Check::not_ready(
                name,
                format!("the thread of the {name} has ended by a fault"),
                "start the gateway again, and report the log line about the panic",
            ),
        }
    }

    pub(super) fn of_closings(&self) -> Check {
        const NAME: &str = "closings";
        match self.telemetry.too_large_for_outbox.load(Ordering::Relaxed) {
            0 => Check::well(NAME, "what closings release fits into the outbox"),
            bytes => Check::warning(
                NAME,
                format!(
                    "what a closing releases takes {bytes} bytes and does not fit into a segment of the outbox: nothing more leaves"
                ),
                "raise `segment_bytes` and `quota_bytes` in [journal], and start the gateway again; nothing is lost",
            ),
        }
    }

    pub(super) fn of_ledger(&self) -> Check {
        const NAME: &str = "ledger";
        match self.ledger.trouble() {
            None => match self.ledger.damage() {
                None => Check::well(NAME, "the ledger can be written"),
                Some(damage) => Check::warning(
                    NAME,
                    format!("the ledger is damaged: {damage}"),
                    "put back what was changed or lost, from a copy of the ledger: docs/ledger.md",
                ),
            },
            Some(why) => Check::warning(
                NAME,
                format!("the ledger cannot be written: {why}; nothing leaves until it can, and all else goes on"),
                "check its disk, and put back what was moved or changed: docs/ledger.md; what waits then leaves by itself",
            ),
        }
    }

    pub(super) fn of_witnesses(&self) -> Check {
        const NAME: &str = "witnesses";
        let (away, now) = (self.witnesses.away(), self.clock.now());
        let Some((name, first)) = away.first() else {
            return Check::well(NAME, format!("witnesses that cosign the ledger: {}", self.witnesses.count()));
        };
        let says = format!(
            "witnesses that do not cosign the ledger: {} of {}; {name} has not for {} s: {}; releases leave meanwhile",
            away.len(),
            self.witnesses.count(),
            now.saturating_sub(first.since).as_secs(),
            first.why
        );
        Check::warning(NAME, says, "see that the witness runs and knows the ledger's key: docs/ledger.md#witnesses")
    }

    pub(super) fn of_recovery(&self) -> Check {
        const NAME: &str = "recovery";
        if self.pipeline.has_replayed() {
            return Check::well(NAME, "what the journal held at the start is counted");
        }
        Check::warning(
            NAME,
            "what the journal held at the start is still being counted; no window closes before, so nothing leaves",
            "wait: records are taken meanwhile",
        )
    }

    pub(super) fn of_windows(&self) -> Check {
        const NAME: &str = "windows";
        let (held, most) = (self.open.held(), self.open.max());
        let percent = held.saturating_mul(100) / most.max(1);
        if percent < WINDOWS_PERCENT {
            return Check::well(NAME, format!("open windows take {percent} % of their memory"));
        }
        Check::warning(
            NAME,
            format!(
                "open windows take {percent} % of their memory; when it is full, records are refused as windows_full"
            ),
            "raise `open_windows_bytes_max` of [limits], or make windows and their grace shorter",
        )
    }

    pub(super) fn of_quarantine(&self) -> Check {
        const NAME: &str = "quarantine";
        match self.intake.in_quarantine() {
            0 => Check::well(NAME, "no record waits for a decision"),
            _ => Check::well(NAME, "records wait for a decision, until more is known of them or their time is over"),
        }
    }

    /// The counts of laws that the gateway keeps, each with how much of it is used, in steps.
    pub(super) fn counters(&self) -> Vec<(Tally, u64)> {
        let version = self.versions.current();
        let tallies = version.policy.tallies(&version.here).into_iter();
        let used = |tally: &Tally| match self.counting.used(tally) {
            100 => 100,
            percent => percent / COUNTER_STEP * COUNTER_STEP,
        };
        tallies.map(|tally| (tally.clone(), used(&tally))).collect()
    }

    /// Why nothing can be written now to the log of what the journal's directory holds besides, and what to do.
    pub(super) fn trouble_of(
        log: Option<&Log>,
        is_full: impl Fn() -> bool,
        waits: Duration,
    ) -> Option<(String, &'static str)> {
        Some(match log?.state() {
            State::Failing { message } => (message, "check the disk of the journal's directory; it is tried again"),
            State::Broken => (
                "the thread of their log has ended by a fault".to_owned(),
                "start the gateway again, and report the log line about the panic",
            ),
            State::Closed => ("their log is closed".to_owned(), "start the gateway again"),
            State::Healthy if waits >= HANGS_AFTER => (
                format!("a write has been under way for {} s", waits.as_secs()),
                "check the disk of the journal's directory; when it answers, the gateway goes on by itself",
            ),
            State::Healthy | State::Full if is_full() => (
                "their quota or their disk is used up".to_owned(),
                "make room on the disk of the journal's directory; it is tried again",
            ),
            State::Healthy | State::Full => return None,
        })
    }

    pub(super) fn of_privacy(&self, waits: Duration) -> Check {
        const NAME: &str = noising::LOG;
        let is_full = || self.noising.is_full();
        if let Some((why, help)) = Self::trouble_of(self.noising.log(), is_full, waits) {
            let says = format!(
                "the budgets of privacy cannot be written: {why}; windows of datasets with differential privacy do not leave"
            );
            return Check::warning(NAME, says, help);
        }
        let version = self.versions.current();
        let datasets = version.policy.streams.values().flat_map(|plan| &plan.datasets);
        let today = day_of(self.clock.wall());
        let budgets = datasets.filter_map(|dataset| {
            let per_day = dataset.privacy?.per_day;
            let spent = self.noising.spent(&dataset.stream, &dataset.contributor, today);
            let spent = spent.map_or_else(|| "all".to_owned(), |spent| spent.to_string());
            Some(format!("{spent} of the rho of {per_day} of `{}`", dataset.name))
        });
        let budgets: Vec<String> = budgets.collect();
        if budgets.is_empty() {
            return Check::well(NAME, "no dataset has differential privacy");
        }
        let says = format!("spent of today (UTC): {}", budgets.join(", "));
        match self.telemetry.total_of_datasets(|counts| &counts.windows_without_budget) {
            0 => Check::well(NAME, says),
            windows => Check::warning(
                NAME,
                format!("{windows} windows since the start did not leave, for lack of a budget; {says}"),
                "make `rho_per_window` smaller or windows longer, or restart the gateway less: see docs/egress.md, Differential \
                 privacy",
            ),
        }
    }

    pub(super) fn of_counters(&self, waits: Duration) -> Check {
        const NAME: &str = counting::LOG;
        let help =
            "records of other persons go there by another row of the law, or not at all: see docs/policy.md, Counters";
        let is_full = || self.counting.is_full();
        if let Some((why, help)) = Self::trouble_of(self.counting.log(), is_full, waits) {
            let says =
                format!("what the counters of laws count cannot be written: {why}; what rests on them is refused");
            return Check::warning(NAME, says, help);
        }
        let counters = self.counters();
        let lost = counting::lost(&self.counting, counters.iter().map(|(tally, _)| tally.clone()));
        if let Some((_, day)) = lost.first() {
            let names: Vec<&str> = lost.iter().map(|(counter, _)| &**counter).collect();
            let names = names.join(", ");
            let says = format!("counts before {day} were lost; no room until the period is over: {names}");
            return Check::warning(NAME, says, counting::LOST_HELP);
        }
        let near = counters.iter().filter(|(_, used)| *used >= COUNTER_PERCENT);
        let near: Vec<String> = near
            .map(|(tally, used)| {
                let Name { counter, to } = &*tally.name;
                let used = if *used == 100 { "full".to_owned() } else { format!("{used} % used") };
                format!("{counter} to {to} is {used}")
            })
            .collect();
        match (counters.is_empty(), near.is_empty()) {
            (true, _) => Check::well(NAME, "no policy asks for persons to be counted"),
            (false, true) => Check::well(NAME, format!("below {COUNTER_PERCENT} % of every counter of a law are used")),
            (false, false) => Check::warning(NAME, near.join("; "), help),
        }
    }

    pub(super) fn of_damage(&self) -> Check {
        const NAME: &str = "damage";
        let places: usize = self.logs.always().iter().map(|(_, log)| log.damage().len()).sum();
        match places {
            0 => Check::well(NAME, "no damage is known"),
            places => Check::warning(
                NAME,
                format!("{places} places of the journal or the outbox are damaged"),
                "stop the gateway, run `bailiwick journal verify`, then `repair`, which deletes nothing",
            ),
        }
    }

    pub(super) fn of_destinations(&self, backlogs: &[Backlog]) -> Check {
        const NAME: &str = "destinations";
        let now = self.clock.now();
        let troubles = backlogs.iter().filter_map(|backlog| {
            let trouble = backlog.trouble.as_ref()?;
            let (destination, releases) = (&backlog.destination, backlog.releases);
            let since = now.saturating_sub(trouble.since).as_secs();
            Some(format!("`{destination}` takes no releases since {since} s, {releases} wait: {}", trouble.error))
        });
        let troubles: Vec<String> = troubles.collect();
        let closed = backlogs.iter().filter(|backlog| backlog.is_closed);
        let (held, idle): (Vec<&Backlog>, Vec<_>) = closed.partition(|backlog| backlog.releases > 0);
        if troubles.is_empty() && !held.is_empty() {
            let held = held.iter().map(|backlog| format!("{} for `{}`", backlog.releases, backlog.destination));
            let held = held.collect::<Vec<_>>().join(", ");
            return Check::warning(
                NAME,
                format!("releases wait, and no policy in force lets anything go to their destination any more: {held}"),
                "let a dataset go to the destination until they are sent, or leave them in the outbox",
            );
        }
        if troubles.is_empty() && !idle.is_empty() {
            let idle: Vec<String> = idle.iter().map(|backlog| format!("`{}`", backlog.destination)).collect();
            let idle = idle.join(", ");
            return Check::well(
                NAME,
                format!(
                    "no policy in force lets anything go to {idle}, so it is not connected to; every other one is well"
                ),
            );
        }
        if troubles.is_empty() {
            return Check::well(NAME, "every destination takes releases, or has none to take");
        }
        Check::warning(
            NAME,
            troubles.join("; "),
            "repair the destination; the gateway then sends what waits by itself, and nothing is lost meanwhile",
        )
    }

    pub(super) fn of_cells_aside(&self, backlogs: &[Backlog]) -> Check {
        const NAME: &str = "set_aside";
        let aside = backlogs.iter().filter(|backlog| backlog.set_aside > 0);
        let each: Vec<String> =
            aside.map(|Backlog { destination, set_aside, .. }| format!("{set_aside} of `{destination}`")).collect();
        if each.is_empty() {
            return Check::well(NAME, "no cell is set aside");
        }
        Check::warning(
            NAME,
            format!("cells are set aside, because they are larger than a message may be: {}", each.join(", ")),
            "raise the limit that the log names; send what the files in the folder `aside` of the journal hold yourself, \
             and remove them",
        )
    }

    pub(super) fn of_budgets(backlogs: &[Backlog]) -> Check {
        const NAME: &str = "budgets";
        let short = backlogs.iter().filter(|backlog| backlog.deferred() > 0);
        let each: Vec<String> =
            short.map(|backlog| format!("{} for `{}`", backlog.deferred(), backlog.destination)).collect();
        let shed = backlogs.iter().filter_map(|backlog| {
            let in_a_row = backlog.budget.filter(|budget| budget.shed_in_a_row > 0)?.shed_in_a_row;
            Some(format!("{in_a_row} for `{}`", backlog.destination))
        });
        let shed: Vec<String> = shed.collect();
        let says = [("releases wait", each), ("the last releases were shed", shed)];
        let says = says.into_iter().filter(|(_, each)| !each.is_empty());
        let says: Vec<String> = says.map(|(what, each)| format!("{what}: {}", each.join(", "))).collect();
        if says.is_empty() {
            return Check::well(
                NAME,
                "no release waits for bytes of a budget, and none was shed since the last one that left",
            );
        }
        Check::warning(
            NAME,
            format!("the budget of a destination does not suffice. {}", says.join("; ")),
            "wait, raise `bytes` in [destinations.NAME.budget], or let less leave: another `format`, longer windows",
        )
    }

    pub(super) fn of_policies(&self) -> Check {
        const NAME: &str = "policies";
        match self.outcomes.policies_refused() {
            Some((why, advice)) => Check::warning(
                NAME,
                format!("the last reload was refused, and the policies before it are in force: {why}"),
                advice,
            ),
            None => Check::well(NAME, format!("policies {} are in force", self.versions.current().digest())),
        }
    }

    pub(super) fn of_review(&self) -> Check {
        const NAME: &str = "review";
        let help = "check the facts against the sources, and set `as_of` and `review_by`";
        match self.next_review() {
            Some((days, what)) if days < 0 => {
                Check::warning(NAME, format!("the review of {what} is {} days overdue", -days), help)
            }
            Some((days, what)) if days < REVIEW_DAYS => {
                Check::warning(NAME, format!("{what} is to be reviewed within {days} days"), help)
            }
            Some((days, what)) => Check::well(NAME, format!("the next review is that of {what}, in {days} days")),
            None => Check::well(NAME, "no policy asks for a review"),
        }
    }

    pub(super) fn of_certificate(&self) -> Check {
        const NAME: &str = "certificate";
        let help = "put a new certificate and its key in place; the gateway reads them by itself";
        if self.outcomes.is_tls_stale() {
            let says = "the files of [tls] were replaced and cannot be used together; the set before them is in force";
            return Check::warning(NAME, says, "correct the files that the log names; they are read again");
        }
        let (ends, now) = (self.ends(), self.clock.wall() / 1_000_000);
        if ends.first().is_some_and(|own| own.left(now) < 0) {
            return Check::not_ready(NAME, "the gateway's certificate has ended: no client connects", help);
        }
        let says = |expiry: &Expiry| format!("{} {}", expiry.what, expiry.when(now));
        let brokers = self.brokers.ends();
        match (ends.iter().chain(&brokers).find(|expiry| expiry.is_near(now)), ends.first()) {
            (Some(expiry), _) => Check::warning(NAME, says(expiry), help),
            (None, Some(own)) => Check::well(NAME, says(own)),
            (None, None) => Check::well(NAME, "the gateway speaks plain text, on this machine only"),
        }
    }
}
