//! The difference between two versions of the policies: over the same records, and in what may leave.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType};

use crate::domain::batch::Candidate;
use crate::domain::evidence::{Sender, Senders};
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::refusal::Reason;

mod changed;

pub use changed::RuleChange;

use super::claims;
use super::explain::Flow;
use super::{Outlet, Permission, Ruling, Verdict, Version};

/// What one version makes of the records of a batch.
pub struct Judged {
    /// The ruling on each record, by its position in `rulings`.
    of_record: Vec<u32>,
    rulings: Vec<Ruling>,
    /// From here on: refusals that came before the policies were asked.
    asked: u32,
}

impl Judged {
    /// Every record is refused before the policies are asked.
    #[must_use]
    pub fn refused(rows: usize, reason: Reason) -> Self {
        Self { of_record: vec![0; rows], rulings: vec![refused(reason)], asked: 0 }
    }
}

fn refused(reason: Reason) -> Ruling {
    Ruling::new(Verdict::Refuse(reason), Arc::new([]))
}

impl Version {
    /// Judges every record of a checked batch; nothing is made of them.
    ///
    /// # Errors
    /// When Arrow cannot filter the columns, which no valid batch causes.
    pub fn judge(&self, candidate: &Candidate, from: Sender<'_>) -> Result<Judged, ArrowError> {
        let Some(rules) = self.rules(&candidate.stream().name) else {
            return Ok(Judged::refused(candidate.rows(), Reason::UnknownStream));
        };
        let (mut of_record, mut rulings) = self.rulings(rules, candidate, &Senders::one(from, candidate.rows()));
        let asked = u32::try_from(rulings.len()).unwrap_or(u32::MAX);
        let mut numbers: BTreeMap<Reason, u32> = BTreeMap::new();
        for refusal in candidate.clone().split()?.1 {
            let number = *numbers.entry(refusal.reason).or_insert_with(|| {
                rulings.push(refused(refusal.reason));
                u32::try_from(rulings.len() - 1).unwrap_or(u32::MAX)
            });
            if let Some(of_record) = of_record.get_mut(refusal.index as usize) {
                *of_record = number;
            }
        }
        Ok(Judged { of_record, rulings, asked })
    }
}

/// Records and the bytes of their columns in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many records.
    pub records: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, more: Self) {
        self.records += more.records;
        self.bytes += more.bytes;
    }
}

/// Records that are decided otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// They may stay now.
    pub allowed: Count,
    /// They may not any more.
    pub denied: Count,
    /// They stay under other regimes, or are kept away otherwise: refused instead of redirected, for another reason.
    pub otherwise: Count,
}

/// The difference between two versions.
#[derive(Debug, Clone, Default)]
pub struct Difference {
    /// Records that both decide alike, though perhaps by other rules.
    pub unchanged: Count,
    /// Those of them that both keep.
    pub kept: Count,
    /// Those of them that both refuse before the policies are asked: they cannot be read, or are not what the stream
    /// declares.
    pub not_asked: Count,
    /// The others.
    pub changed: Tally,
    /// By the rule that denies or denied them, or the regime that applies under one version only. A record may count
    /// under several.
    pub by_rule: BTreeMap<String, Tally>,
    /// By data class. A record may count under several.
    pub by_class: BTreeMap<String, Tally>,
    /// By counter: records whose person one version alone counts, or lets go by it alone. How full a counter is nobody asks
    /// here: as long as it has room, they may be decided alike.
    pub by_counter: BTreeMap<String, Counting>,
    /// Datasets and destinations between which not the same may leave.
    pub flows: Vec<FlowChange>,
    /// Rules of datasets that are others.
    pub rules: Vec<RuleChange>,
}

/// Records of which a counter has a say under one version only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counting {
    /// It counts their persons now.
    pub counts: Count,
    /// It does not any more.
    pub counts_no_more: Count,
    /// They may go only while it has room now.
    pub needs: Count,
    /// They may go whether it has room or not now, or not at all.
    pub needs_no_more: Count,
}

/// A dataset and a destination, where something changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowChange {
    /// The dataset.
    pub dataset: DatasetName,
    /// The destination.
    pub destination: DestinationName,
    /// How cells go there before.
    pub before: Option<Outlet>,
    /// How they go there after.
    pub after: Option<Outlet>,
    /// Under the version after: the rules that permit it, or why nothing does.
    pub why: Vec<String>,
}

enum Change {
    None,
    Allowed,
    Denied,
    Otherwise,
}

impl Difference {
    /// The difference in what may leave; records are added.
    #[must_use]
    pub fn between(before: &Version, after: &Version) -> Self {
        let rules = changed::rule_changes(before, after);
        Self { flows: changes(&flows(before), &flows(after)), rules, ..Self::default() }
    }

    /// Adds records of these classes, judged under both versions, each with its bytes.
    pub fn add(&mut self, before: &Judged, after: &Judged, bytes: &[u64], classes: &BTreeSet<String>) {
        let mut pairs: HashMap<(u32, u32), Count> = HashMap::new();
        for (row, pair) in before.of_record.iter().copied().zip(after.of_record.iter().copied()).enumerate() {
            let bytes = bytes.get(row).copied().unwrap_or(0);
            pairs.entry(pair).or_default().add(Count { records: 1, bytes });
        }
        for ((of_before, of_after), count) in pairs {
            let not_asked = of_before >= before.asked && of_after >= after.asked;
            let rulings = before.rulings.get(of_before as usize).zip(after.rulings.get(of_after as usize));
            let Some((of_before, of_after)) = rulings else { continue };
            self.add_counters(of_before, of_after, count);
            let change = change(&of_before.verdict, &of_after.verdict);
            let put = |tally: &mut Tally| match change {
                Change::None => {}
                Change::Allowed => tally.allowed.add(count),
                Change::Denied => tally.denied.add(count),
                Change::Otherwise => tally.otherwise.add(count),
            };
            if let Change::None = change {
                self.unchanged.add(count);
                if not_asked {
                    self.not_asked.add(count);
                } else if let Verdict::Keep(_) = of_after.verdict {
                    self.kept.add(count);
                }
                continue;
            }
            put(&mut self.changed);
            for rule in deciding(of_before, of_after, &change) {
                put(self.by_rule.entry(rule).or_default());
            }
            for class in classes {
                put(self.by_class.entry(class.clone()).or_default());
            }
        }
    }

    /// Adds records of which the counters may not have the same say.
    fn add_counters(&mut self, before: &Ruling, after: &Ruling, count: Count) {
        let ((counting, needed), (counting_now, needed_now)) = (counters_of(before), counters_of(after));
        let mut add = |these: &BTreeSet<String>, than: &BTreeSet<String>, of: fn(&mut Counting) -> &mut Count| {
            for counter in these.difference(than) {
                of(self.by_counter.entry(counter.clone()).or_default()).add(count);
            }
        };
        add(&counting_now, &counting, |change| &mut change.counts);
        add(&counting, &counting_now, |change| &mut change.counts_no_more);
        add(&needed_now, &needed, |change| &mut change.needs);
        add(&needed, &needed_now, |change| &mut change.needs_no_more);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_same = self.flows.is_empty() && self.rules.is_empty();
        is_same && self.changed == Tally::default() && self.by_counter.is_empty()
    }
}

/// The counters that count the person of a record, and those that must have room for the ruling to hold.
fn counters_of(ruling: &Ruling) -> (BTreeSet<String>, BTreeSet<String>) {
    let claims = ruling.counters.iter().flat_map(|on| &on.claims);
    let counted = claims.clone().flat_map(|claim| &claim.counted).map(|tally| tally.name.counter.clone());
    (counted.collect(), claims::needed(claims).into_iter().collect())
}

fn change(before: &Verdict, after: &Verdict) -> Change {
    let is_kept = |verdict: &Verdict| matches!(verdict, Verdict::Keep(_));
    match (is_kept(before), is_kept(after)) {
        (false, true) => Change::Allowed,
        (true, false) => Change::Denied,
        _ if before == after => Change::None,
        _ => Change::Otherwise,
    }
}

/// The rules that make the difference.
fn deciding(before: &Ruling, after: &Ruling, change: &Change) -> BTreeSet<String> {
    let of = |ruling: &Ruling| -> BTreeSet<String> {
        match &ruling.verdict {
            Verdict::Refuse(reason) if ruling.rules.is_empty() => [reason.name().to_owned()].into(),
            _ => ruling.rules.iter().cloned().collect(),
        }
    };
    match change {
        Change::Allowed => of(before),
        Change::Denied => of(after),
        Change::None | Change::Otherwise => {
            let (before, after) = (of(before), of(after));
            let either: BTreeSet<String> = before.symmetric_difference(&after).cloned().collect();
            // The same rules, and another route.
            if either.is_empty() { after } else { either }
        }
    }
}

/// The bytes of each record in columns in memory: values as wide as their type, texts with their offset.
#[must_use]
pub fn bytes_of(candidate: &Candidate) -> Vec<u64> {
    bytes_of_rows(candidate.columns())
}

fn bytes_of_rows(columns: &RecordBatch) -> Vec<u64> {
    let mut bytes = vec![0; columns.num_rows()];
    for column in columns.columns() {
        match column.data_type() {
            DataType::Utf8 => {
                let lengths = column.as_string::<i32>().offsets().lengths();
                bytes.iter_mut().zip(lengths).for_each(|(bytes, length)| *bytes += length as u64 + 4);
            }
            other => {
                let width = other.primitive_width().unwrap_or(1) as u64;
                bytes.iter_mut().for_each(|bytes| *bytes += width);
            }
        }
    }
    bytes
}

fn flows(version: &Version) -> BTreeMap<(DatasetName, DestinationName), Flow> {
    let flows = version.policy.flows(&version.here.serves, version.day);
    flows.into_iter().map(|flow| ((flow.dataset.clone(), flow.destination.clone()), flow)).collect()
}

fn changes(
    before: &BTreeMap<(DatasetName, DestinationName), Flow>,
    after: &BTreeMap<(DatasetName, DestinationName), Flow>,
) -> Vec<FlowChange> {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let changes = keys.into_iter().filter_map(|key| {
        let outlet = |flows: &BTreeMap<_, Flow>| flows.get(key).and_then(|flow| flow.outlet.clone());
        let (was, is) = (outlet(before), outlet(after));
        let (dataset, destination) = key.clone();
        (was != is).then(|| FlowChange { dataset, destination, before: was, after: is, why: why(after.get(key)) })
    });
    changes.collect()
}

fn why(flow: Option<&Flow>) -> Vec<String> {
    let Some(flow) = flow else { return vec!["it is not declared".to_owned()] };
    if flow.answers.is_empty() {
        return vec!["no served regime covers it".to_owned()];
    }
    let mut why: Vec<String> = Vec::new();
    for (regime, permission) in &flow.answers {
        match permission {
            Permission::Allowed { rules, .. } if flow.outlet.is_some() => why.extend(rules.iter().cloned()),
            Permission::Allowed { .. } => {}
            Permission::NotAllowed(country) => why.push(format!("no row of {regime} permits {country}")),
            Permission::TooStrong => why.push("`max_form` of the destination".to_owned()),
            Permission::NeedsNoise => why.push(format!("`rho_per_day` of {regime}")),
            Permission::WindowTooShort(_) => why.push(format!("`min_window` of {regime}")),
        }
    }
    why
}

#[cfg(test)]
mod tests {
    use super::super::explain::tests::{STREAM, version, visits};
    use super::super::fixture::tests::SET;
    use super::super::{Conditions, Here, Own};
    use super::*;
    use crate::domain::document::changed;

    const RECORDS: [(&str, &str); 6] = [("DE", ""), ("DE", ""), ("BR", ""), ("JP", ""), ("Q", ""), ("FR", "")];

    /// The difference over the records, when the policies are changed by replacing a text.
    fn when_changed(what: &str, with: &str) -> Difference {
        let before = [&SET[..], &[STREAM]].concat();
        let after: Vec<String> = before.iter().map(|text| text.replace(what, with)).collect();
        assert!(before.iter().any(|text| text.contains(what)), "{what}");
        let (before, after) = (version(&before), version(&after.iter().map(String::as_str).collect::<Vec<_>>()));
        let mut difference = Difference::between(&before, &after);
        let judge = |version: &Version| version.judge(&visits(version, &RECORDS), Sender::default()).unwrap();
        let bytes = bytes_of(&visits(&before, &RECORDS));
        let classes = ["personal", "health"].map(str::to_owned).into();
        difference.add(&judge(&before), &judge(&after), &bytes, &classes);
        difference
    }

    fn count(records: u64, bytes: u64) -> Count {
        Count { records, bytes }
    }

    fn rules(difference: &Difference) -> Vec<(&str, u64, u64, u64)> {
        let of = |tally: &Tally| (tally.allowed.records, tally.denied.records, tally.otherwise.records);
        let rules = difference.by_rule.iter().map(|(rule, tally)| {
            let (allowed, denied, otherwise) = of(tally);
            (rule.as_str(), allowed, denied, otherwise)
        });
        rules.collect()
    }

    #[test]
    fn the_same_policies_do_not_differ() {
        let difference = when_changed("nobody is in it", "it names nobody");
        assert!(difference.is_empty());
        // 8 bytes of time; "p", a code and nothing, each with its offset. One code has one letter.
        assert_eq!(difference.unchanged, count(6, 6 * (8 + 5 + 6 + 4) - 1));
        assert_eq!((difference.kept.records, difference.not_asked.records), (2, 1));
        assert_eq!(difference.changed, Tally::default());
    }

    #[test]
    fn records_that_are_decided_otherwise_are_counted_by_rule_and_class() {
        let difference = when_changed("strength = 90 }", "strength = 50 }");
        assert_eq!((difference.changed.denied.records, difference.changed.otherwise.records), (2, 2));
        let unknown = "facts/subject.residence/unknown";
        assert_eq!(rules(&difference), [("br-law/misroute", 0, 0, 1), (unknown, 0, 2, 2), ("no_regime", 0, 0, 1)]);
        assert_eq!(difference.by_class["health"], difference.changed);
        assert_eq!(difference.by_class["personal"], difference.changed);

        let difference = when_changed("in = [\"union\"]", "in = [\"union\", \"JP\"]");
        assert_eq!(rules(&difference), [("no_regime", 1, 0, 0)]);
        // A law of its own that would redirect: refused before, with a route now.
        let difference = when_changed("misroute = \"refuse\"", "misroute = \"redirect\"");
        assert_eq!(rules(&difference), [("br-law/misroute", 0, 0, 1)]);
    }

    /// While a counter has room, records stay under both. That it has a say now is told.
    #[test]
    fn records_that_go_only_by_a_counter_now_are_told() {
        let [regions, classes, union, br] = SET;
        let row = "basis = \"inside\"";
        let union = changed(union, row, &format!("{row}\nneeds = [\"data.few\"]"))
            + "\n[counters.\"data.few\"]\nper = \"all\"\nperiod = \"ever\"\nzone = \"+00:00\"\nbelow = 30\n";
        let stream = changed(STREAM, "contributor  = \"who\"", "contributor  = \"who\"\ncontributor_is_person = true");
        let of = |more: &str| {
            let version = version(&[regions, classes, &union, br, &(stream.clone() + more)]);
            let own = Some(Own { id: "de".parse().unwrap(), conditions: Conditions::new() });
            let here = Arc::new(Here { own, ..Here::clone(&version.here) });
            Version::compile(version.policy, here, version.knowledge, version.day)
        };
        let vouched =
            of("[[shown]]\nconditions = [\"data.few\"]\nfor = { stream = \"visits\" }\nby = \"a\"\nref = \"r\"\n");
        let counted = of(
            "[[counted]]\nregime = \"union-law\"\ncondition = \"data.few\"\ngateway = \"de\"\nshare = 9\nalready = 0\n\
                          by = \"a\"\nref = \"r\"\n",
        );
        let judge = |version: &Version| version.judge(&visits(version, &RECORDS), Sender::default()).unwrap();
        let difference = |before: &Version, after: &Version| {
            let mut difference = Difference::between(before, after);
            difference.add(&judge(before), &judge(after), &[], &BTreeSet::new());
            difference
        };
        let (none, some) = (Count::default(), count(2, 0));
        let told = |counting| BTreeMap::from([("union-law/counters/data.few".to_owned(), counting)]);
        let now = difference(&vouched, &counted);
        assert_eq!((now.changed, now.kept.records, now.is_empty()), (Tally::default(), 2, false));
        let counting = Counting { counts: some, needs: some, counts_no_more: none, needs_no_more: none };
        assert_eq!(now.by_counter, told(counting));
        let no_more = difference(&counted, &vouched).by_counter;
        let counting = Counting { counts: none, needs: none, counts_no_more: some, needs_no_more: some };
        assert_eq!(no_more, told(counting));
        assert!(difference(&counted, &counted).is_empty());
    }

    #[test]
    fn a_stream_that_is_gone_is_denied_whole() {
        let before = version(&[&SET[..], &[STREAM]].concat());
        let after = version(&SET);
        let candidate = visits(&before, &RECORDS);
        let judged = [&before, &after].map(|version| version.judge(&candidate, Sender::default()).unwrap());
        let mut difference = Difference::between(&before, &after);
        difference.add(&judged[0], &judged[1], &[], &BTreeSet::new());
        let denied: Vec<_> = rules(&difference).into_iter().filter(|(_, _, denied, _)| *denied > 0).collect();
        assert_eq!(denied, [("unknown_stream", 0, 2, 4)]);
        assert_eq!(difference.flows.iter().map(|flow| flow.why.concat()).collect::<Vec<_>>(), ["it is not declared"]);
    }

    #[test]
    fn each_rule_of_a_dataset_that_is_another_one_is_named() {
        let rules = |what: &str, with: &str| -> Vec<(&'static str, String, String, String)> {
            let rules = when_changed(what, with).rules;
            rules.into_iter().map(|change| (change.rule, change.before, change.after, change.by)).collect()
        };
        let own = "dataset visits_by_home";
        let change =
            |rule, before: &str, after: &str, by: &str| (rule, before.to_owned(), after.to_owned(), by.to_owned());
        assert_eq!(rules("nobody is in it", "it names nobody"), []);
        let waits = ("min_contributors = 10", "min_contributors = 10\nmax_defer = 3");
        assert_eq!(rules(waits.0, waits.1), [change("max_defer", "-", "3", own)]);
        assert_eq!(rules("window           =", "max_defer = 0\nwindow           ="), []);
        let roll_up = "min_contributors = 10\nroll_up = [\"home\"]";
        assert_eq!(rules("min_contributors = 10", roll_up), [change("roll_up", "-", "home", own)]);
        let asks = "min_contributors = 10\ncontributors = \"bucket\"";
        assert_eq!(rules("min_contributors = 10", asks), [change("contributors", "-", "bucket", own)]);
        let metrics = "metrics  = [{ name = \"visits\", fn = \"count\" }]\n";
        let with = |dataset: &str, profile: &str| {
            rules(metrics, &format!("release = \"strict\"\n{metrics}{dataset}[release.strict]\n{profile}"))
        };
        let by = "dataset visits_by_home, by release profile strict";
        assert_eq!(
            with(
                "",
                "min_part = 12\nround_counts_to = 5\np_percent = 20\nmin_producers = 2\nmax_producer_share = 0.25\nmin_window = \"PT2M\"\n"
            ),
            [
                change("min_part", "10", "12", by),
                change("p_percent", "10", "20", by),
                change("min_producers", "1", "2", by),
                change("max_producer_share", "-", "0.25", by),
                change("round_counts_to", "-", "5", by),
                change("min_window", "-", "PT2M", by),
            ]
        );
        let noise = "[datasets.visits_by_home.privacy]\nmechanism = \"discrete_laplace\"\nrho_per_window = 0.01\n\
                     rho_per_day = 0.2\n";
        assert_eq!(
            with(noise, "records_per_contributor = 2\ncells_per_contributor = 1\nrho_per_day = 0.1\n"),
            [
                change("records_per_contributor", "-", "2", by),
                change("cells_per_contributor", "-", "1", by),
                change("mechanism", "-", "discrete_laplace", own),
                change("rho_per_window", "-", "0.01", own),
                change("rho_per_day", "-", "0.1", by),
            ]
        );
    }

    #[test]
    fn what_may_leave_differs_by_dataset_and_destination() {
        let flows = |what: &str, with: &str| -> Vec<(String, Option<usize>, Option<usize>)> {
            let k = |outlet: &Option<Outlet>| outlet.as_ref().map(|outlet| outlet.min_contributors);
            let flows = when_changed(what, with).flows;
            flows.iter().map(|flow| ((&flow.destination).into(), k(&flow.before), k(&flow.after))).collect()
        };
        assert_eq!(flows("except = [\"KP\"]", "except = []"), [("far".to_owned(), None, Some(10))]);
        assert_eq!(flows("except = [\"KP\"]", "except = [\"FR\", \"KP\"]"), []);
        assert_eq!(flows("min_contributors = 10", "min_contributors = 30"), [("desk".to_owned(), Some(10), Some(30))]);
        assert_eq!(flows("country = \"FR\"", "country = \"KP\""), [("desk".to_owned(), Some(10), None)]);
        let denied = when_changed("country = \"FR\"", "country = \"KP\"").flows;
        assert_eq!(denied[0].why, ["no row of union-law permits KP"]);
    }
}
