//! What a ledger's entries come to, in a span of time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::span::Span;
use super::worked::Worked;
use crate::domain::privacy::Rho;
use crate::ledger::entry::{Entry, Known, Outcome, Paid, Reread, What};

/// What the entries of a span of time come to.
#[derive(Default)]
pub(super) struct Account {
    span: Span,
    /// Entries in the span.
    pub(super) entries: u64,
    /// Entries of a later version, which say nothing to this program.
    pub(super) unread: u64,
    pub(super) runs: Vec<Run>,
    pub(super) policies: Vec<InForce>,
    /// When something left under each of the policies last, by their digests in full.
    pub(super) last_under: BTreeMap<String, String>,
    /// The models of the run that is being heard of, as of before the span, too.
    models_now: BTreeMap<String, String>,
    /// By destination and dataset.
    pub(super) flows: BTreeMap<(String, String), Flow>,
    /// What is known of each release that was about to leave, by destination and id.
    releases: BTreeMap<(String, String), Release>,
    /// Releases that were about to leave before the span and were not confirmed then, by destination and id. They belong to
    /// that time, also if they were about to leave again in the span.
    earlier: BTreeMap<(String, String), Given>,
    /// Bytes that destinations were given.
    pub(super) sent: BTreeMap<String, u64>,
    /// What those bytes were, by destination.
    pub(super) given: BTreeMap<String, BTreeSet<Given>>,
    pub(super) withheld: BTreeMap<String, Withheld>,
    /// Releases that were shed, by destination and id: each once.
    shed: BTreeMap<(String, String), Shed>,
    /// Releases that no policy let go any more, in the same way.
    denied: BTreeMap<(String, String), Shed>,
    /// What windows with noise cost, by dataset.
    pub(super) privacy: BTreeMap<String, Spent>,
    /// By id, dataset and destination.
    pub(super) overrides: BTreeMap<(String, String, String), Used>,
    /// Records that were refused, by what refused them.
    pub(super) refused: BTreeMap<Refused, u64>,
    pub(super) quarantine: Quarantine,
    pub(super) work: Worked,
    pub(super) models: Vec<Model>,
    pub(super) reloads: Vec<Reload>,
    pub(super) damage: Vec<Damage>,
    /// Entries that were not written while the ledger could not be.
    pub(super) missed: u64,
}

/// A start of a gateway, and how it ended.
pub(super) struct Run {
    pub(super) started: String,
    /// `None`: it has not ended, or ended by a crash.
    pub(super) stopped: Option<String>,
    pub(super) gateway: String,
    pub(super) program: String,
    pub(super) dry_run: bool,
    pub(super) models: BTreeMap<String, String>,
}

pub(super) struct InForce {
    pub(super) since: String,
    pub(super) policy: String,
    pub(super) reload: bool,
}

/// What left of a dataset to a destination, or may have.
#[derive(Default)]
pub(super) struct Flow {
    pub(super) releases: u64,
    pub(super) cells: u64,
    /// Releases that left something out, because the budget of the destination did not suffice.
    pub(super) degraded: u64,
    /// The cells that those have less than the whole.
    pub(super) left_out: u64,
    /// Releases that left as what had changed, for the same reason: their receiver can make the whole.
    pub(super) on_change: u64,
    /// Releases that the destination confirmed.
    pub(super) confirmed: u64,
    /// From the start of the first window to the end of the last.
    pub(super) windows: Option<(String, String)>,
    /// The policies that they left under, in full.
    pub(super) policies: BTreeSet<String>,
    /// The models that the gateway had then: the SHA-256 of their files, by name.
    pub(super) models: BTreeMap<String, BTreeSet<String>>,
}

struct Release {
    given: Given,
    is_confirmed: bool,
}

/// A dataset, as the policies of a digest have it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Given {
    pub(super) dataset: String,
    pub(super) policy: String,
}

/// A release that was not sent for lack of bytes in the budget of its destination.
struct Shed {
    dataset: String,
    cells: u64,
    /// The dataset with longer windows that adds up its rows, if that is why.
    widened: Option<String>,
}

/// Releases that were not sent.
#[derive(Default)]
pub(super) struct LeftOut {
    pub(super) releases: u64,
    pub(super) cells: u64,
}

/// What a dataset's windows cost of its budget of differential privacy.
#[derive(Default)]
pub(super) struct Spent {
    /// Windows whose cells got noise.
    pub(super) noised: u64,
    /// Windows that did not leave, because the budget was spent.
    pub(super) spent: u64,
    /// Windows that were paid for and did not leave.
    pub(super) lost: u64,
    /// What all of them cost.
    pub(super) rho: Rho,
}

/// What was withheld of a dataset.
#[derive(Default)]
pub(super) struct Withheld {
    pub(super) windows: u64,
    pub(super) at_least: u64,
}

/// How an override was used.
pub(super) struct Used {
    pub(super) windows: u64,
    pub(super) first: String,
    pub(super) last: String,
}

/// What records were refused for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refused {
    pub(super) stream: String,
    pub(super) reason: String,
    pub(super) rules: Vec<String>,
    /// The gateway that they belong to.
    pub(super) to: Option<String>,
}

/// What came of records in quarantine.
#[derive(Default)]
pub(super) struct Quarantine {
    pub(super) held: u64,
    pub(super) released: u64,
    pub(super) discarded: u64,
}

/// A model that is another one since a start.
pub(super) struct Model {
    pub(super) since: String,
    pub(super) model: String,
    pub(super) before: Option<String>,
    pub(super) now: Option<String>,
}

/// Files that were read again.
pub(super) struct Reload {
    pub(super) at: String,
    pub(super) of: Reread,
    pub(super) outcome: Outcome,
}

pub(super) struct Damage {
    pub(super) found: String,
    pub(super) of: String,
    pub(super) places: u64,
}

/// Releases that were not sent, added up.
fn left_out(all: &BTreeMap<(String, String), Shed>) -> BTreeMap<(&str, &str, Option<&str>), LeftOut> {
    let mut added_up = BTreeMap::<_, LeftOut>::new();
    for ((destination, _), shed) in all {
        let key = (destination.as_str(), shed.dataset.as_str(), shed.widened.as_deref());
        let left_out = added_up.entry(key).or_default();
        left_out.releases += 1;
        left_out.cells += shed.cells;
    }
    added_up
}

impl Account {
    pub(super) fn of(span: Span) -> Self {
        Self { span, ..Self::default() }
    }

    /// Of what left, only the model that its records are scored by stays; `of` names it by the dataset.
    pub(super) fn scored_by(&mut self, of: impl Fn(&str) -> Option<String>) {
        for ((_, dataset), flow) in &mut self.flows {
            let own = of(dataset);
            flow.models.retain(|name, _| Some(name) == own.as_ref());
        }
    }

    /// Bytes that left, to all destinations.
    pub(super) fn bytes(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Hears an entry. What becomes of a release is heard after the span, too.
    pub(super) fn hear(&mut self, _number: u64, entry: Option<&Entry>) {
        let Some(entry) = entry else {
            self.unread += 1;
            return;
        };
        // Every version writes times that can be read.
        let at = entry.time.parse::<Timestamp>().ok();
        if let Some(at) = at {
            self.work.hear(&self.span, at, &entry.what);
        }
        if let What::Start { models, .. } = &entry.what {
            self.models_now.clone_from(models);
            at.into_iter().for_each(|at| self.work.starts(at));
        }
        if !at.is_some_and(|at| self.span.holds(at)) {
            self.hear_of_releases(&entry.what);
            match &entry.what {
                What::Intent { release, destination, dataset, policy, .. } => {
                    let given = Given { dataset: dataset.clone(), policy: policy.clone() };
                    self.earlier.insert((destination.clone(), release.clone()), given);
                }
                What::Sent { destination, releases, .. } => releases.iter().for_each(|release| {
                    self.earlier.remove(&(destination.clone(), release.clone()));
                }),
                _ => {}
            }
            return;
        }
        self.entries += 1;
        let time = || entry.time.clone();
        match &entry.what {
            What::Start { gateway, program, dry_run, models } => self.runs.push(Run {
                started: time(),
                stopped: None,
                gateway: gateway.clone(),
                program: program.clone(),
                dry_run: *dry_run,
                models: models.clone(),
            }),
            What::Stop { .. } => {
                if let Some(run) = self.runs.last_mut() {
                    run.stopped = Some(time());
                }
            }
            What::Policy { policy, reload } => {
                self.policies.push(InForce { since: time(), policy: policy.clone(), reload: *reload });
            }
            What::Intent {
                release, destination, dataset, window_start, window_end, policy, cells, degraded, ..
            } => {
                let key = (destination.clone(), release.clone());
                if self.releases.contains_key(&key) || self.earlier.contains_key(&key) {
                    return;
                }
                let given = Given { dataset: dataset.clone(), policy: policy.clone() };
                self.releases.insert(key, Release { given, is_confirmed: false });
                let flow = self.flows.entry((destination.clone(), dataset.clone())).or_default();
                flow.releases += 1;
                flow.cells += cells;
                match degraded {
                    None => {}
                    Some(whole) if whole.has_all() => flow.on_change += 1,
                    Some(whole) => {
                        flow.degraded += 1;
                        flow.left_out += whole.cells.saturating_sub(*cells);
                    }
                }
                flow.policies.insert(policy.clone());
                for (name, sha256) in &self.models_now {
                    flow.models.entry(name.clone()).or_default().insert(sha256.clone());
                }
                self.last_under.insert(policy.clone(), time());
                let (first, last) = flow.windows.get_or_insert_with(|| (window_start.clone(), window_end.clone()));
                if window_start < first {
                    first.clone_from(window_start);
                }
                if window_end > last {
                    last.clone_from(window_end);
                }
            }
            What::Sent { destination, bytes, releases } => {
                *self.sent.entry(destination.clone()).or_default() += bytes;
                let keys = releases.iter().map(|release| (destination.clone(), release.clone()));
                let of_release =
                    |key| self.releases.get(&key).map(|release| &release.given).or_else(|| self.earlier.get(&key));
                let given = keys.filter_map(of_release).cloned();
                self.given.entry(destination.clone()).or_default().extend(given);
                self.hear_of_releases(&entry.what);
            }
            What::Unsettled { .. } => self.hear_of_releases(&entry.what),
            What::Withheld { dataset, at_least, .. } => {
                let withheld = self.withheld.entry(dataset.clone()).or_default();
                withheld.windows += 1;
                withheld.at_least += at_least;
            }
            What::Shed { release, destination, dataset, cells, widened, .. } => {
                let shed = || Shed { dataset: dataset.clone(), cells: *cells, widened: None };
                let known = self.shed.entry((destination.clone(), release.clone())).or_insert_with(shed);
                // After a crash it is said again, and then not why.
                known.widened = known.widened.take().or_else(|| widened.clone());
            }
            What::Denied { release, destination, dataset, cells, .. } => {
                let denied = Shed { dataset: dataset.clone(), cells: *cells, widened: None };
                self.denied.insert((destination.clone(), release.clone()), denied);
            }
            What::Override { id, dataset, destination, window_start, .. } => {
                let key = (id.clone(), dataset.clone(), destination.clone());
                let start = || window_start.clone();
                let used =
                    self.overrides.entry(key).or_insert_with(|| Used { windows: 0, first: start(), last: start() });
                used.windows += 1;
                used.first = start().min(std::mem::take(&mut used.first));
                used.last = start().max(std::mem::take(&mut used.last));
            }
            What::Privacy { dataset, outcome, rho_billionths, .. } => {
                let budget = self.privacy.entry(dataset.clone()).or_default();
                match outcome {
                    Paid::Noised => budget.noised += 1,
                    Paid::Spent => budget.spent += 1,
                    Paid::Lost => budget.lost += 1,
                }
                budget.rho = budget.rho.and(Rho::from_billionths(*rho_billionths));
            }
            What::Refused { stream, reason, rules, to, records, .. } => {
                let (stream, reason, rules) = (stream.clone(), reason.clone(), rules.clone());
                *self.refused.entry(Refused { stream, reason, rules, to: to.clone() }).or_default() += records;
            }
            What::Quarantine { held, released, discarded } => {
                self.quarantine.held += held;
                self.quarantine.released += released;
                self.quarantine.discarded += discarded;
            }
            What::Model { model, before, now } => {
                let (model, before, now) = (model.clone(), before.clone(), now.clone());
                self.models.push(Model { since: time(), model, before, now });
            }
            What::Reload { of, outcome } => self.reloads.push(Reload { at: time(), of: *of, outcome: *outcome }),
            What::Damage { of, places } => {
                self.damage.push(Damage { found: time(), of: of.clone(), places: *places });
            }
            // It is heard of whatever time it was written at.
            What::Work { .. } => {}
            What::Missed { entries } => self.missed += entries,
        }
    }

    /// Hears that releases were confirmed. Those that were not about to leave in the span are of no account.
    fn hear_of_releases(&mut self, what: &What) {
        match what {
            What::Sent { destination, releases, .. } => {
                releases.iter().for_each(|release| self.confirm(destination, release));
            }
            What::Unsettled { destination, release, known: Known::Confirmed, .. } => self.confirm(destination, release),
            _ => {}
        }
    }

    fn confirm(&mut self, destination: &str, release: &str) {
        let key = (destination.to_owned(), release.to_owned());
        let Some(release) = self.releases.get_mut(&key).filter(|release| !release.is_confirmed) else { return };
        release.is_confirmed = true;
        if let Some(flow) = self.flows.get_mut(&(key.0, release.given.dataset.clone())) {
            flow.confirmed += 1;
        }
    }

    /// What was shed, by destination, dataset and the dataset with longer windows that adds up its rows, if that is why.
    pub(super) fn shed(&self) -> BTreeMap<(&str, &str, Option<&str>), LeftOut> {
        left_out(&self.shed)
    }

    /// What no policy let go any more, by destination and dataset.
    pub(super) fn denied(&self) -> BTreeMap<(&str, &str), LeftOut> {
        let denied = left_out(&self.denied).into_iter();
        denied.map(|((destination, dataset, _), left_out)| ((destination, dataset), left_out)).collect()
    }

    /// All of it, as the report's JSON has it.
    pub(super) fn json(&self) -> Value {
        let runs = self.runs.iter().map(|run| {
            json!({
                "started": run.started, "stopped": run.stopped, "gateway": run.gateway, "program": run.program,
                "dry_run": run.dry_run, "models": run.models,
            })
        });
        let policies = self
            .policies
            .iter()
            .map(|in_force| json!({ "since": in_force.since, "policy": in_force.policy, "reload": in_force.reload }));
        let flows = self.flows.iter().map(|((destination, dataset), flow)| {
            json!({
                "destination": destination, "dataset": dataset, "releases": flow.releases, "cells": flow.cells,
                "degraded": flow.degraded, "cells_left_out": flow.left_out, "on_change": flow.on_change,
                "confirmed": flow.confirmed,
                "may_have_left": flow.releases - flow.confirmed,
                "first_window_start": flow.windows.as_ref().map(|(first, _)| first),
                "last_window_end": flow.windows.as_ref().map(|(_, last)| last),
                "policies": flow.policies, "models": flow.models,
            })
        });
        let withheld = self.withheld.iter().map(|(dataset, withheld)| {
            json!({ "dataset": dataset, "windows": withheld.windows, "at_least": withheld.at_least })
        });
        let shed = self.shed().into_iter().map(|((destination, dataset, widened), LeftOut { releases, cells })| {
            json!({
                "destination": destination, "dataset": dataset, "releases": releases, "cells": cells, "widened": widened,
            })
        });
        let shed = shed.collect::<Value>();
        let denied = self.denied().into_iter().map(|((destination, dataset), LeftOut { releases, cells })| {
            json!({ "destination": destination, "dataset": dataset, "releases": releases, "cells": cells })
        });
        let denied = denied.collect::<Value>();
        let privacy = self.privacy.iter().map(|(dataset, cost)| {
            let Spent { noised, spent, lost, rho } = cost;
            json!({ "dataset": dataset, "noised": noised, "spent": spent, "lost": lost, "rho": rho.value() })
        });
        let overrides = self.overrides.iter().map(|((id, dataset, destination), used)| {
            json!({
                "id": id, "dataset": dataset, "destination": destination, "windows": used.windows,
                "first_window_start": used.first, "last_window_start": used.last,
            })
        });
        let refused = self.refused.iter().map(|(refused, records)| {
            let Refused { stream, reason, rules, to } = refused;
            json!({ "stream": stream, "reason": reason, "rules": rules, "to": to, "records": records })
        });
        let models = self.models.iter().map(|changed| {
            let Model { since, model, before, now } = changed;
            json!({ "since": since, "model": model, "before": before, "now": now })
        });
        let reloads =
            self.reloads.iter().map(|reload| json!({ "at": reload.at, "of": reload.of, "outcome": reload.outcome }));
        let Quarantine { held, released, discarded } = &self.quarantine;
        let damage =
            self.damage.iter().map(|damage| json!({ "found": damage.found, "of": damage.of, "places": damage.places }));
        json!({
            "entries": self.entries,
            "of_later_versions": self.unread,
            "runs": runs.collect::<Value>(),
            "policies": policies.collect::<Value>(),
            "left": flows.collect::<Value>(),
            "bytes": self.sent,
            "withheld": withheld.collect::<Value>(),
            "shed": shed,
            "denied": denied,
            "privacy": privacy.collect::<Value>(),
            "overrides": overrides.collect::<Value>(),
            "refused": refused.collect::<Value>(),
            "quarantine": { "held": held, "released": released, "discarded": discarded },
            "model_changes": models.collect::<Value>(),
            "reloads": reloads.collect::<Value>(),
            "damage": damage.collect::<Value>(),
            "missed": self.missed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::entry::Degraded;

    fn intent(release: &str) -> What {
        What::Intent {
            release: release.to_owned(),
            destination: "hub".to_owned(),
            dataset: "payments".to_owned(),
            window_start: "2026-10-31T23:40:00Z".to_owned(),
            window_end: "2026-10-31T23:50:00Z".to_owned(),
            policy: "cd".to_owned(),
            cells: 12,
            commitment: "ee".to_owned(),
            outbox: 8,
            degraded: None,
        }
    }

    fn sent(release: &str) -> What {
        What::Sent { destination: "hub".to_owned(), releases: vec![release.to_owned()], bytes: 400 }
    }

    #[test]
    fn a_release_that_left_as_what_had_changed_left_nothing_out() {
        let smaller = |release: &str, steps: &[&str]| {
            let mut what = intent(release);
            if let What::Intent { degraded, .. } = &mut what {
                let steps = steps.iter().map(|step| (*step).to_owned()).collect();
                *degraded = Some(Degraded { steps, whole: "ff".to_owned(), cells: 40 });
            }
            what
        };
        let mut account = Account::default();
        for what in
            [intent("a"), smaller("b", &["on_change"]), smaller("c", &["roll_up", "top"]), smaller("d", &["on_change"])]
        {
            account.hear(0, Some(&Entry::new(0, what)));
        }
        let flow = account.flows.values().next().unwrap();
        assert_eq!((flow.releases, flow.cells, flow.on_change, flow.degraded, flow.left_out), (4, 48, 2, 1, 28));
        let told = &account.json()["left"][0];
        assert_eq!(
            (&told["on_change"], &told["degraded"], &told["cells_left_out"]),
            (&2.into(), &1.into(), &28.into())
        );
    }

    /// A release that was about to leave again after a crash, in the next month, belongs to the month before.
    #[test]
    fn a_release_belongs_to_the_time_when_it_was_about_to_leave_first() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let said = [
            ("2026-10-31T23:59:00Z", intent("a")),
            ("2026-11-01T00:01:00Z", intent("a")),
            ("2026-11-01T00:02:00Z", sent("a")),
            ("2026-11-01T00:03:00Z", intent("b")),
            ("2026-11-01T00:04:00Z", sent("b")),
        ];
        let october = (None, Some(time("2026-11-01T00:00:00Z")));
        let november = (Some(time("2026-11-01T00:00:00Z")), None);
        let both = (None, None);
        let counted = [october, november, both].map(|(from, to)| {
            let mut account = Account::of(Span { from, to });
            for (at, what) in &said {
                let entry = Entry::new(time(at).as_microsecond(), what.clone());
                account.hear(0, Some(&entry));
            }
            let flow = account.flows.values().next().unwrap();
            (flow.releases, flow.cells, flow.confirmed, account.bytes())
        });
        assert_eq!(counted, [(1, 12, 1, 0), (1, 12, 1, 800), (2, 24, 2, 800)]);
    }
}
