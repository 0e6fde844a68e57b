//! `[destinations.NAME.budget]`: how many bytes may leave, and what becomes of a release that they do not suffice for: it leaves as
//! what has changed, or a dataset with longer windows has its rows, or smaller forms of it leave, or it waits, or is shed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;

use crate::domain::binary::Writer;
use crate::domain::dataset::{CHANGE, CONTRIBUTORS, Dataset, Function, WINDOWS};
use crate::domain::document::{NameOrTable, Place, Problems, Spot, Table, hint};
use crate::domain::name::DatasetName;
use crate::domain::policy::{
    ALL, By, Changes, DEGRADED, ON_CHANGE, PolicySet, ROLL_UP, Reduction, RollUp, SINCE, Step, TOP, Top,
};
use crate::egress::budget::Settings;

/// What `when_short` may name, in the order in which it is tried.
pub(super) const STEPS: [&str; 6] = [ON_CHANGE, WIDEN, ROLL_UP, TOP, "defer", "shed"];

/// The name of the step that leaves a release out because a dataset with longer windows adds up its rows.
const WIDEN: &str = "widen";

/// The fewest bytes: a message with one cell takes some hundred.
const BYTES_LEAST: u64 = 4_096;
/// A bucket that fills sooner is none.
const PER_LEAST: SignedDuration = SignedDuration::from_secs(1);

/// The forms of a budget on disk, at most: a file of 64 KiB holds them, and where each is used.
const FORMS_BYTES_MAX: usize = 48 << 10;
/// The names of datasets whose files were paid for, with what is known of each, at most.
const FILES_BYTES_MAX: usize = 10 << 10;
/// Of each name: its length, a position and which form it is.
const FILE_BYTES: usize = 20;
/// The forms where what has changed is there, too.
const FORMS_BYTES_MAX_BESIDE_CHANGES: usize = 16 << 10;

/// What is declared of a budget.
pub(super) struct Declared {
    pub(super) settings: Settings,
    /// Where it stands.
    place: Place,
    /// Whether releases are left out whose rows a dataset with longer windows adds up.
    widens: bool,
    /// Where the datasets are named that come first.
    first: Vec<Spot<String>>,
    /// Where the keys are named that are given up.
    given_up: Vec<Spot<String>>,
    /// Where it is said by which metrics the largest rows are found.
    by: Vec<Named>,
}

/// A metric that says how large a row is.
struct Named {
    /// Of this dataset; `None`: of each that goes there.
    dataset: Option<Spot<String>>,
    metric: Spot<String>,
}

/// Reads that of a destination.
pub(super) fn read(destination: &Table<'_>) -> Option<Declared> {
    let spot = destination.get::<Table<'_>>("budget")?;
    let (table, problems) = (&spot.value, destination.problems());
    let bytes = table.need::<u64>("bytes");
    if let Some(bytes) = bytes.as_ref().filter(|bytes| bytes.value < BYTES_LEAST) {
        problems.error(&bytes.place, format!("`bytes` is {}, and must be at least {BYTES_LEAST}", bytes.value));
    }
    let per = table.need::<SignedDuration>("per");
    if let Some(per) = per.as_ref().filter(|per| per.value < PER_LEAST) {
        problems.error(&per.place, "`per` must be at least one second");
    }
    let steps = read_steps(table, problems);
    let given_up = table.get::<Vec<Spot<String>>>(ROLL_UP);
    let top = read_top(table, problems);
    let first = table.get::<Vec<Spot<String>>>("priorities");
    table.done();
    let Steps { tells_changes, widens, named, sheds_after } = steps?;
    let top_help = "say how many rows leave and which are the largest, as in `top = { rows = 20, by = \"payments\" }`";
    must_agree(table, TOP, top.as_ref().map(|top| &top.place), &named, top_help, problems);
    let keys_help = "say which keys are given up, one after the other, as in `roll_up = [\"city\"]`";
    must_agree(table, ROLL_UP, given_up.as_ref().map(|keys| &keys.place), &named, keys_help, problems);
    let given_up = given_up.map(|keys| keys.value).unwrap_or_default();
    let changes = tells_changes.then(|| Reduction::on_change(Changes::default()));
    let smaller = smaller(&given_up, top.as_ref().and_then(|top| top.value.top.clone()));
    let smaller = changes.into_iter().chain(smaller).collect();
    let by = top.map(|top| top.value.by).unwrap_or_default();
    if let Some(first) = first.as_ref().filter(|_| sheds_after.is_none() && !widens) {
        problems.error_help(
            &first.place,
            "`priorities` say what is shed last, and nothing is shed here",
            "add \"shed\" to `when_short`, or remove this line",
        );
    }
    let first = first.map(|first| first.value).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for dataset in &first {
        if !seen.insert(&dataset.value) {
            problems.error(&dataset.place, format!("`{}` stands twice", dataset.value));
        }
    }
    // What is no name is none of what the destination accepts: that is checked.
    let names = first.iter().filter_map(|dataset| DatasetName::new(&dataset.value).ok()).collect();
    let (bytes, per, widened) = (bytes?.value, per?.value.unsigned_abs(), BTreeMap::new());
    let settings = Settings { bytes, per, widened, smaller, sheds_after, first: names };
    Some(Declared { settings, place: spot.place.clone(), widens, first, given_up, by })
}

/// The smaller forms of a release, each made of the one before it: a key more is given up, then only the largest rows stay.
fn smaller(keys: &[Spot<String>], top: Option<Top>) -> Vec<Reduction> {
    let names: Vec<String> = keys.iter().map(|key| key.value.clone()).collect();
    let roll_up = |keys: &[String]| Step::RollUp(RollUp { keys: keys.to_vec(), datasets: BTreeMap::new() });
    let given_up = (1..=names.len()).filter_map(|count| names.get(..count)).map(roll_up);
    let mut forms: Vec<Reduction> = given_up.map(|step| Reduction(vec![step])).collect();
    if let Some(top) = top {
        let mut steps = forms.last().map_or_else(Vec::new, |form| form.0.clone());
        steps.push(Step::Top(top));
        forms.push(Reduction(steps));
    }
    forms
}

/// A step that `when_short` names is described, and no other.
fn must_agree(table: &Table<'_>, step: &str, at: Option<&Place>, named: &[String], help: &str, problems: &Problems) {
    let is_named = named.iter().any(|name| name == step);
    match at {
        Some(place) if !is_named => {
            let help = format!("add \"{step}\" to `when_short`, or remove this line");
            problems.error_help(place, format!("`{step}` is no step of `when_short`"), help);
        }
        None if is_named => problems.error_help(&table.place, format!("`{step}` is missing"), help),
        _ => {}
    }
}

/// What `top` says.
struct DeclaredTop {
    /// `None`: something of it is missing.
    top: Option<Top>,
    by: Vec<Named>,
}

/// Reads which rows are the largest, and how many leave.
fn read_top(table: &Table<'_>, problems: &Problems) -> Option<Spot<DeclaredTop>> {
    let spot = table.get::<Table<'_>>(TOP)?;
    let rows = spot.value.need::<u64>("rows");
    let rows = rows.and_then(|rows| {
        let number = u32::try_from(rows.value).ok().filter(|number| *number > 0);
        if number.is_none() {
            problems.error(&rows.place, format!("`rows` is {}, and must be from 1 to {}", rows.value, u32::MAX));
        }
        number
    });
    let (mut named, mut by) = (Vec::new(), None);
    match spot.value.need::<NameOrTable<'_>>("by") {
        Some(Spot { value: NameOrTable::Name(metric), place }) => {
            by = Some(By::Metric(metric.clone()));
            named.push(Named { dataset: None, metric: Spot { value: metric, place } });
        }
        Some(Spot { value: NameOrTable::Table(each), .. }) => {
            for dataset in each.names() {
                let Some(metric) = each.get::<String>(&dataset) else { continue };
                let dataset = Spot { value: dataset, place: metric.place.clone() };
                named.push(Named { dataset: Some(dataset), metric });
            }
            each.done();
            let metrics = named.iter().filter_map(|named| {
                let dataset = named.dataset.as_ref()?;
                Some((DatasetName::new(&dataset.value).ok()?, named.metric.value.clone()))
            });
            by = Some(By::Each(metrics.collect()));
        }
        None => {}
    }
    spot.value.done();
    let top = rows.zip(by).map(|(rows, by)| Top { rows, by });
    Some(Spot { value: DeclaredTop { top, by: named }, place: spot.place })
}

/// What becomes of a release that the bytes do not suffice for.
struct Steps {
    /// Whether it leaves as what has changed since what was told last, before anything else is tried.
    tells_changes: bool,
    /// Whether it is left out if a dataset with longer windows adds up its rows.
    widens: bool,
    /// The steps that make it smaller.
    named: Vec<String>,
    /// After how long it is shed; `None` when it never is.
    sheds_after: Option<Duration>,
}

fn read_steps(table: &Table<'_>, problems: &Problems) -> Option<Steps> {
    let steps = table.get::<Vec<Spot<String>>>("when_short");
    let max_age = table.get::<SignedDuration>("max_age");
    let unknown = steps.iter().flat_map(|steps| &steps.value).find(|step| !STEPS.contains(&step.value.as_str()));
    if let Some(step) = unknown {
        let message = format!("`when_short` cannot have `{}`", step.value);
        problems.error_help(&step.place, message, hint(&step.value, &STEPS));
        return None;
    }
    let named: Vec<&str> = match &steps {
        Some(steps) => steps.value.iter().map(|step| step.value.as_str()).collect(),
        None => vec!["defer"],
    };
    let (tells_changes, named) = match named.as_slice() {
        [ON_CHANGE, rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (widens, named) = match named {
        [WIDEN, rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (smaller, rest) = match named {
        [ROLL_UP, TOP, rest @ ..] => (vec![ROLL_UP, TOP], rest),
        [step @ (ROLL_UP | TOP), rest @ ..] => (vec![*step], rest),
        all => (Vec::new(), all),
    };
    let (sheds_after, takes_age) = match rest {
        ["defer"] => (None, false),
        // The last of the shorter windows leaves together with the longer one, and would be shed with it.
        ["shed"] if widens => {
            let message = "`\"widen\"` needs \"defer\" behind it: the longer windows must be able to wait for bytes";
            problems.error(steps.as_ref().map_or(&table.place, |steps| &steps.place), message);
            return None;
        }
        ["shed"] => (Some(Duration::ZERO), false),
        ["defer", "shed"] => (max_age.as_ref().map(|age| age.value.unsigned_abs()), true),
        _ => {
            let message = "`when_short` is `[\"defer\"]`, `[\"shed\"]` or `[\"defer\", \"shed\"]`, in this order; \
                           \"on_change\", \"widen\", \"roll_up\" and \"top\" may stand before them, in this order";
            problems.error(steps.as_ref().map_or(&table.place, |steps| &steps.place), message);
            return None;
        }
    };
    match max_age {
        Some(max_age) if !takes_age => {
            let help = "add both steps to `when_short`, as in `[\"defer\", \"shed\"]`, or remove this line";
            problems.error_help(&max_age.place, "`max_age` needs `when_short` with both steps", help);
        }
        None if takes_age => {
            let help = "say how long a release may wait for bytes, as in `max_age = \"PT1H\"`";
            problems.error_help(&table.place, "`max_age` is missing", help);
        }
        _ => {}
    }
    let named = smaller.into_iter().map(str::to_owned).collect();
    Some(Steps { tells_changes, widens, named, sheds_after })
}

impl Declared {
    /// What is declared, with what the policies say of the datasets that a destination accepts.
    pub(super) fn settings(&self, destination: &str, policy: &PolicySet) -> Settings {
        let accepts = policy.destinations.get(destination).filter(|_| self.widens).map(|to| &to.accepts[..]);
        let accepted: Vec<&str> = accepts.into_iter().flatten().map(|accepted| accepted.value.as_str()).collect();
        let counted = policy.streams.values().flat_map(|plan| &plan.counted);
        let widened = counted.flat_map(|counted| {
            let is_accepted = |dataset: &&Dataset| accepted.contains(&dataset.name.as_str());
            counted.released_as().filter(is_accepted).filter_map(move |dataset| {
                let wider = counted.wider_than(dataset).filter(is_accepted).min_by_key(|wider| wider.window)?;
                Some((dataset.name.clone(), wider.name.clone()))
            })
        });
        Settings { widened: widened.collect(), ..self.settings.clone() }
    }
}

/// What comes first at a destination must be able to go there. What tells only what has changed is not shed: what is told
/// after it would be taken for all that has.
pub(super) fn check(budgets: &BTreeMap<String, Declared>, policy: &PolicySet, problems: &Problems) {
    for (name, declared) in budgets {
        let Some(destination) = policy.destinations.get(name.as_str()) else { continue };
        let accepted: Vec<&str> = destination.accepts.iter().map(|accepted| accepted.value.as_str()).collect();
        for dataset in declared.first.iter().filter(|dataset| !accepted.contains(&dataset.value.as_str())) {
            let message = format!("destination `{name}` does not accept `{}`", dataset.value);
            problems.error_help(&dataset.place, message, hint(&dataset.value, &accepted));
        }
        let widened = declared.settings(name, policy).widened;
        if declared.widens && widened.is_empty() {
            let message = format!(
                "\"widen\" needs a dataset with longer windows, and destination `{name}` accepts none that adds up the rows of \
                 another one that goes there"
            );
            let help =
                "let it accept one that is `coarser_than` the other with a longer `window.size`, or remove \"widen\"";
            problems.error_help(&declared.place, message, help);
        }
        check_top(name, declared, &accepted, policy, problems);
        check_given_up(name, declared, &accepted, policy, problems);
        check_size(name, declared, policy, problems);
        let tells_changes = |name: &&str| policy.dataset(name).is_some_and(|(_, dataset)| dataset.only_on_change);
        let leaves_out = declared.settings.sheds_after.is_some() || !declared.settings.smaller.is_empty();
        let is_left_out = |name: &&str| leaves_out || widened.contains_key(*name);
        for dataset in accepted.iter().copied().filter(is_left_out).filter(tells_changes) {
            problems.error_help(
                &declared.place,
                format!(
                    "`{dataset}` tells only what has changed (`only_on_change`): of a release that is shed, or of rows that are \
                     left out, destination `{name}` would never hear"
                ),
                "set `when_short = [\"defer\"]`, or remove `only_on_change` of the dataset",
            );
        }
    }
}

/// By which metric the largest rows are found must be clear for each dataset that goes there, and the column that says that
/// rows were left out must have its name to itself.
fn check_top(name: &str, declared: &Declared, accepted: &[&str], policy: &PolicySet, problems: &Problems) {
    let mut steps = declared.settings.smaller.iter().flat_map(|form| &form.0);
    let is_each = steps.any(|step| matches!(step, Step::Top(Top { by: By::Each(_), .. })));
    for dataset in declared.by.iter().filter_map(|named| named.dataset.as_ref()) {
        if !accepted.contains(&dataset.value.as_str()) {
            let message = format!("destination `{name}` does not accept `{}`", dataset.value);
            problems.error_help(&dataset.place, message, hint(&dataset.value, accepted));
        }
    }
    for of_budget in accepted.iter().filter(|_| !declared.settings.smaller.is_empty()) {
        let Some((_, dataset)) = policy.dataset(of_budget) else { continue };
        check_columns(declared, dataset, problems);
        let is_of = |named: &&Named| named.dataset.as_ref().is_none_or(|named| named.value == *of_budget);
        match declared.by.iter().find(is_of) {
            Some(named) => check_metric(dataset, &named.metric, problems),
            None if is_each => {
                let message =
                    format!("`by` of `top` says nothing of `{of_budget}`, which destination `{name}` accepts");
                problems.error_help(&declared.place, message, format!("add `{of_budget} = \"METRIC\"`"));
            }
            None => {}
        }
    }
}

/// The columns that are not the dataset's own have their names to themselves: none is taken for one of them.
fn check_columns(declared: &Declared, dataset: &Dataset, problems: &Problems) {
    let columns = dataset.keys.iter().map(|key| &key.name).chain(dataset.metrics.iter().map(|metric| &metric.name));
    let since = declared.settings.tells_changes().then_some(SINCE);
    let own = || [DEGRADED, CHANGE, WINDOWS, CONTRIBUTORS].into_iter().chain(since);
    for column in columns.filter(|column| own().any(|own| own == column.to_lowercase())) {
        let message =
            format!("`{}` has a column `{column}`: no dataset may whose releases are made smaller", dataset.name);
        problems.error_help(&declared.place, message, "give it another name in the dataset");
    }
}

/// How releases that were paid for are made smaller is on disk, with all metrics that are added up.
fn check_size(name: &str, declared: &Declared, policy: &PolicySet, problems: &Problems) {
    let mut writer = Writer::default();
    declared.settings.smaller.iter().for_each(|form| form.of(policy).encode(&mut writer));
    let bytes = writer.finish().len();
    let most = if declared.settings.tells_changes() { FORMS_BYTES_MAX_BESIDE_CHANGES } else { FORMS_BYTES_MAX };
    if bytes > most {
        let message = format!(
            "how releases for destination `{name}` are made smaller takes {bytes} bytes, and no more than {most} are kept"
        );
        problems.error_help(&declared.place, message, "give up fewer keys, or declare fewer metrics");
    }
    let accepts = policy.destinations.get(name).into_iter().flat_map(|destination| &destination.accepts);
    let bytes: usize = accepts.map(|dataset| FILE_BYTES + dataset.value.len()).sum();
    if bytes > FILES_BYTES_MAX {
        let message = format!(
            "destination `{name}` accepts so many datasets that their names take {bytes} bytes beside its budget, and no more \
             than {FILES_BYTES_MAX} are kept"
        );
        problems.error_help(&declared.place, message, "declare another destination for some of them");
    }
}

/// A key that is given up is one of a dataset that goes there, and no value of it is written as one that was given up.
fn check_given_up(name: &str, declared: &Declared, accepted: &[&str], policy: &PolicySet, problems: &Problems) {
    let datasets: Vec<&Dataset> = accepted.iter().filter_map(|dataset| Some(&**policy.dataset(dataset)?.1)).collect();
    let known: BTreeSet<&str> =
        datasets.iter().flat_map(|dataset| &dataset.keys).map(|key| key.name.as_str()).collect();
    let mut seen = BTreeSet::new();
    for key in &declared.given_up {
        if !known.contains(key.value.as_str()) {
            let known: Vec<&str> = known.iter().copied().collect();
            let message = format!("no dataset that destination `{name}` accepts has a key `{}`", key.value);
            problems.error_help(&key.place, message, hint(&key.value, &known));
        }
        if !seen.insert(&key.value) {
            problems.error(&key.place, format!("`{}` stands twice", key.value));
        }
        for dataset in &datasets {
            let domain = dataset.keys.iter().find(|of_dataset| of_dataset.name == key.value).map(|key| &key.domain);
            if domain.is_some_and(|domain| (0..domain.size()).any(|position| domain.label(position) == ALL)) {
                let message = format!(
                    "`{}` of `{}` has the value `{ALL}`: so a key is written that was given up",
                    key.value, dataset.name
                );
                problems.error_help(&key.place, message, "give up another key, or name the value otherwise");
            }
        }
    }
}

/// A count or a sum says how large a row is.
fn check_metric(dataset: &Dataset, metric: &Spot<String>, problems: &Problems) {
    let is_size = |function: &Function| matches!(function, Function::Count | Function::Sum(_));
    let of_dataset = dataset.metrics.iter().find(|known| known.name == metric.value);
    let of_size = dataset.metrics.iter().filter(|known| is_size(&known.function));
    let names: Vec<&str> = of_size.map(|known| known.name.as_str()).collect();
    match of_dataset {
        None => {
            let message = format!("`{}` has no metric `{}`", dataset.name, metric.value);
            problems.error_help(&metric.place, message, hint(&metric.value, &names));
        }
        Some(known) if !is_size(&known.function) => {
            let message = format!("`{}` of `{}` is neither a count nor a sum", metric.value, dataset.name);
            problems.error_help(&metric.place, message, hint(&metric.value, &names));
        }
        Some(_) => {}
    }
}
