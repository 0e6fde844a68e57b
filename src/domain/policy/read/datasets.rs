//! Datasets: group keys over closed domains, metrics that give nobody away.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::aggregate::{COMBINATIONS_MAX, combinations};
use crate::domain::dataset::{
    CELLS_MAX, CHANGE, CONTRIBUTORS, Dataset, Function, GroupKey, KeyDomain, Measure, Metric, OTHER, Source, WINDOWS,
};
use crate::domain::deferral::DEFER_MAX;
use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{Problems, Spot, Table, Word, hint};
use crate::domain::model::OutputKind;
use crate::domain::name;
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::policy::{Profile, RELEASE_COLUMNS, StreamPlan};
use crate::domain::privacy::Privacy;
use crate::domain::stream::{FieldType, ValueRange};

use super::privacy::{self, PRIVACY};
use super::profiles::{self, MIN_CONTRIBUTORS, RELEASE, min_contributors};
use super::windows::{self, DeclaredWindows, WINDOW};
use super::{coarser, roll_up, told};

pub(super) const DATASET: Shape = Shape {
    name: "datasets.NAME",
    about: "A dataset: what is counted of a stream. Several of one stream share their cells.",
    keys: &[
        Key::required("stream", Kind::Text, "The stream."),
        Key::required("window", Kind::Table(&WINDOW), "The windows of event time."),
        Key::new(
            "min_contributors",
            Kind::Count,
            "The fewest contributors of a cell, from 5 to 1000; regimes can raise it. Default: 10.",
        ),
        Key::new(
            "max_defer",
            Kind::Count,
            "For how many windows a cell with too few contributors waits for more, up to 100. Default: 0.",
        ),
        roll_up::ROLL_UP,
        coarser::COARSER_THAN,
        Key::new(
            "only_on_change",
            Kind::Bool,
            "Whether only cells leave whose values are others than those that were told last. Default: false.",
        ),
        told::OF_DATASET,
        RELEASE,
        Key::new("group_by", Kind::List(&Kind::Table(&GROUP_BY)), "The keys of its cells."),
        Key::new("metrics", Kind::List(&Kind::Table(&METRIC)), "What is computed for each cell."),
        Key::new("privacy", Kind::Table(&PRIVACY), "Differential privacy: every number that leaves has noise."),
    ],
};

const WORD: Kind = Kind::OneOf(&[Kind::Text, Kind::Whole]);

const GROUP_BY: Shape = Shape {
    name: "datasets.NAME.group_by",
    about: "A key over a closed domain.",
    keys: &[
        Key::required("field", Kind::Text, "The field."),
        Key::new("domain", Kind::List(&WORD), "For texts and int64: the values; others are counted as `other`."),
        Key::new("edges", Kind::List(&Kind::Number), "For numbers: the edges of the ranges, ascending."),
    ],
};

const METRIC: Shape = Shape {
    name: "datasets.NAME.metrics",
    about: "A number that is computed for each cell.",
    keys: &[
        Key::required("name", Kind::Text, "Its name in the release."),
        Key::required("fn", Kind::Word(&FUNCTIONS), "What is computed."),
        Key::new("field", Kind::Text, "Of which field. `count` needs none."),
        Key::new("edges", Kind::List(&Kind::Number), "For `histogram`: the edges of the ranges, ascending."),
        Key::new("equals", WORD, "For `fraction`: the value whose share is computed."),
        Key::new(
            "digits",
            Kind::Count,
            "To how many significant digits it is rounded, from 1 to 15. Default: not at all.",
        ),
    ],
};

/// A dataset whose fields are names.
pub(super) struct DeclaredDataset {
    pub(super) stream: Spot<String>,
    windows: DeclaredWindows,
    min_contributors: usize,
    max_defer: u64,
    pub(super) roll_up: Vec<Spot<String>>,
    pub(super) coarser_than: Option<Spot<String>>,
    only_on_change: Option<Spot<bool>>,
    tells_contributors: bool,
    release: Option<Spot<String>>,
    keys: Vec<DeclaredKey>,
    metrics: Vec<DeclaredMetric>,
    privacy: Option<Spot<Privacy>>,
}

struct DeclaredKey {
    field: Spot<String>,
    domain: Option<Spot<Vec<Spot<Word>>>>,
    edges: Option<Vec<f64>>,
}

struct DeclaredMetric {
    name: Spot<String>,
    function: Spot<String>,
    field: Option<Spot<String>>,
    edges: Option<Vec<f64>>,
    equals: Option<Spot<Word>>,
    digits: Option<Spot<u64>>,
}

const FUNCTIONS: [&str; 6] = ["count", "sum", "mean", "variance", "histogram", "fraction"];
const GIVES_AWAY: [&str; 11] = [
    "min",
    "max",
    "first",
    "last",
    "median",
    "quantile",
    "quantiles",
    "percentile",
    "distinct",
    "top_values",
    "sample",
];

/// For how many windows the dataset's cells wait.
fn max_defer(table: &Table<'_>) -> u64 {
    let Some(max_defer) = table.get::<u64>("max_defer") else { return 0 };
    if max_defer.value > DEFER_MAX {
        let message = format!("`max_defer` is {}, and must be 0 to {DEFER_MAX}", max_defer.value);
        let help = "make the windows longer: what waits takes memory";
        table.problems().error_help(&max_defer.place, message, help);
    }
    max_defer.value
}

pub(super) fn read(table: &Table<'_>) -> Option<DeclaredDataset> {
    let problems = table.problems();
    let stream = table.need::<String>("stream");
    let min_contributors = min_contributors(table, MIN_CONTRIBUTORS);
    let max_defer = max_defer(table);
    let roll_up = table.or("roll_up", Vec::new());
    let coarser_than = table.get::<String>("coarser_than");
    let only_on_change = table.get::<bool>("only_on_change").filter(|only| only.value);
    let tells_contributors = told::asks(table);
    let release = table.get::<String>("release");
    let windows = windows::read(table);
    let keys = table.array("group_by");
    let keys = keys.iter().filter_map(|key| {
        let field = key.need::<String>("field");
        let domain = key.get::<Vec<Spot<Word>>>("domain");
        let edges = edges(key);
        key.done();
        Some(DeclaredKey { field: field?, domain, edges })
    });
    let keys = keys.collect();
    let metrics: Vec<_> = table.array("metrics").iter().filter_map(read_metric).collect();
    let privacy = privacy::read(table);
    if metrics.is_empty() {
        problems.error(&table.place, "a dataset needs `metrics`");
    }
    Some(DeclaredDataset {
        stream: stream?,
        windows: windows?,
        min_contributors: min_contributors?,
        max_defer,
        roll_up,
        coarser_than,
        only_on_change,
        tells_contributors,
        release,
        keys,
        metrics,
        privacy,
    })
}

impl DeclaredDataset {
    /// Checks the dataset that it became, if it has differential privacy; and that it has, if its windows overlap.
    pub(super) fn check_privacy(&self, dataset: &Dataset, problems: &Problems) {
        self.windows.check_overlap(self.privacy.is_some(), problems);
        if let Some(declared) = &self.privacy {
            privacy::check(dataset, &declared.place, problems);
            if self.tells_contributors {
                told::check_privacy(&declared.place, problems);
            }
            if let Some(only_on_change) = &self.only_on_change {
                problems.error_help(
                    &only_on_change.place,
                    "with differential privacy each release has noise of its own: no cell says again what it said before, and \
                     to leave it out would tell, without noise, that it has not changed",
                    "remove `only_on_change`, or `privacy`",
                );
            }
        }
    }

    /// The release profile that it names, which its windows must be long enough for.
    pub(super) fn profile(&self, profiles: &BTreeMap<String, Spot<Profile>>, problems: &Problems) -> Option<Profile> {
        let name = self.release.as_ref()?;
        let profile = profiles::named(Some(name), profiles, problems);
        if self.privacy.is_none() && profile.rho_per_day.is_some() {
            let message = format!("release profile `{}` asks for differential privacy", profile.name);
            problems.error_help(&name.place, message, "add [datasets.NAME.privacy], or name another profile");
        }
        if self.tells_contributors {
            told::check_profile(name, &profile, problems);
        }
        if let Some(shortest) = profile.min_window {
            self.windows.check_shortest(shortest, name, &profile, problems);
        }
        Some(profile)
    }
}

fn read_metric(table: &Table<'_>) -> Option<DeclaredMetric> {
    let name = table.need::<String>("name");
    let function = table.need::<String>("fn");
    let field = table.get::<String>("field");
    let edges = edges(table);
    let equals = table.get::<Word>("equals");
    let digits = table.get::<u64>("digits");
    table.done();
    Some(DeclaredMetric { name: name?, function: function?, field, edges, equals, digits })
}

/// The most significant digits that a metric may ask for: a float has hardly more.
const DIGITS_MAX: u8 = 15;

fn precision(digits: &Spot<u64>, function: &Function, problems: &Problems) -> Option<u8> {
    if let Function::Histogram { .. } = function {
        let help = "round its records into wider ranges instead: set `edges`";
        problems.error_help(&digits.place, "`digits` is for single numbers; a histogram has counts", help);
        return None;
    }
    let known = u8::try_from(digits.value).ok().filter(|digits| (1..=DIGITS_MAX).contains(digits));
    if known.is_none() {
        problems.error(&digits.place, format!("`digits` is {}, and must be 1 to {DIGITS_MAX}", digits.value));
    }
    known
}

/// The most edges of a histogram, of a key, or of a treatment.
const EDGES_MAX: usize = 1_001;

pub(super) fn edges(table: &Table<'_>) -> Option<Vec<f64>> {
    let edges = table.get::<Vec<Spot<f64>>>("edges")?;
    let numbers: Vec<f64> = edges.value.iter().map(|edge| edge.value).collect();
    if numbers.len() < 2 || !numbers.is_sorted_by(|low, high| low < high) {
        table.problems().error(&edges.place, "`edges` must be at least two numbers, ascending");
        return None;
    }
    if numbers.len() > EDGES_MAX {
        let message = format!("there are {} `edges`; at most {EDGES_MAX} are allowed", numbers.len());
        table.problems().error_help(&edges.place, message, "use wider ranges: narrow ones give single values away");
        return None;
    }
    Some(numbers)
}

/// A column that a dataset may use: a field of the stream or an output of its model.
struct Column {
    position: usize,
    field_type: FieldType,
    range: Option<ValueRange>,
    may_be_missing: bool,
}

fn column(name: &Spot<String>, plan: &StreamPlan, problems: &Problems) -> Option<Column> {
    if let Some(position) = plan.stream.position(&name.value) {
        if plan.treatments.hides(position) {
            let message = format!("the treatment leaves nothing of `{}` to count", name.value);
            problems.error_help(&name.place, message, "give it another `treatment`, or use another field");
            return None;
        }
        let field = plan.stream.fields.get(position)?;
        let may_be_missing = !field.required || field.allow_non_finite;
        return Some(Column { position, field_type: field.field_type, range: field.range, may_be_missing });
    }
    let outputs = plan.model.iter().flat_map(|model| &model.outputs);
    for (output, position) in outputs.clone().zip(plan.stream.fields.len()..) {
        if output.field == name.value {
            let field_type = match output.kind {
                OutputKind::Score => FieldType::Float32,
                OutputKind::Label => FieldType::Int64,
            };
            return Some(Column { position, field_type, range: output.range, may_be_missing: false });
        }
    }
    let fields = plan.stream.fields.iter().map(|field| field.name.as_str());
    let known: Vec<&str> = fields.chain(outputs.map(|output| output.field.as_str())).collect();
    let message = format!("stream `{}` and its model have no field `{}`", plan.stream.name, name.value);
    problems.error_help(&name.place, message, hint(&name.value, &known));
    None
}

pub(super) fn resolve(
    name: &str,
    declared: &DeclaredDataset,
    plan: &StreamPlan,
    problems: &Problems,
) -> Option<Dataset> {
    // Many programs that read releases heed no capitals in the names of columns.
    let mut names: BTreeSet<String> = RELEASE_COLUMNS.map(str::to_owned).into();
    if declared.max_defer > 0 {
        names.insert(WINDOWS.to_owned());
    }
    if declared.only_on_change.is_some() {
        names.insert(CHANGE.to_owned());
    }
    if declared.tells_contributors {
        names.insert(CONTRIBUTORS.to_owned());
    }
    let mut keys = Vec::new();
    for key in &declared.keys {
        if !names.insert(key.field.value.to_lowercase()) {
            problems.error(&key.field.place, format!("a release already has a column `{}`", key.field.value));
        }
        keys.push(group_key(key, plan, problems)?);
    }
    let cells: usize = keys.iter().map(|key| key.domain.size()).product();
    if cells > CELLS_MAX {
        let place = declared.keys.first().map_or(&declared.stream.place, |key| &key.field.place);
        problems.error(place, format!("the keys give {cells} cells per window; the limit is {CELLS_MAX}"));
    }
    let mut metrics = Vec::new();
    for metric in &declared.metrics {
        name::check("metric", &metric.name, problems);
        if !names.insert(metric.name.value.to_lowercase()) {
            problems.error(&metric.name.place, format!("a release already has a column `{}`", metric.name.value));
        }
        let function = function(metric, plan, declared.privacy.is_some(), problems)?;
        let digits = metric.digits.as_ref().and_then(|digits| precision(digits, &function, problems));
        metrics.push(Metric { name: metric.name.value.clone(), function, digits });
    }
    if let Some(only_on_change) = declared.only_on_change.as_ref().filter(|_| !declared.roll_up.is_empty()) {
        let message =
            "a remainder (`roll_up`) is of other cells in each window: that it changed would not say what did";
        problems.error_help(&only_on_change.place, message, "remove `only_on_change`, or `roll_up`");
    }
    let contributor = plan.stream.fields.get(plan.stream.contributor);
    let dataset = Dataset {
        name: DatasetName::new(name).ok()?,
        stream: StreamName::new(&declared.stream.value).ok()?,
        contributor: contributor.map_or_else(String::new, |field| field.name.clone()),
        window: declared.windows.step(),
        overlap: declared.windows.overlap(),
        grace: declared.windows.grace,
        open_max: declared.windows.open_max,
        min_contributors: declared.min_contributors,
        bounds: None,
        keeps_all: false,
        max_defer: declared.max_defer,
        roll_up: roll_up::resolve(&declared.roll_up, &keys, problems),
        only_on_change: declared.only_on_change.is_some(),
        tells_contributors: declared.tells_contributors,
        coarser_than: declared.coarser_than.as_ref().and_then(|finer| DatasetName::new(&finer.value).ok()),
        keys,
        metrics,
        privacy: declared.privacy.as_ref().map(|privacy| privacy.value),
        members: Vec::new(),
    };
    if combinations(&dataset) > COMBINATIONS_MAX {
        let place = declared.metrics.first().map_or(&declared.stream.place, |metric| &metric.name.place);
        let message = "the histograms and fractions part a cell's records into more than 2^64 combinations";
        problems.error_help(place, message, "use fewer of them, or fewer ranges");
    }
    Some(dataset)
}

fn group_key(key: &DeclaredKey, plan: &StreamPlan, problems: &Problems) -> Option<GroupKey> {
    let column = column(&key.field, plan, problems)?;
    if column.position == plan.stream.contributor {
        problems.error(&key.field.place, "the contributor cannot be a group key: every cell would be one person's");
        return None;
    }
    let domain = match (&key.domain, &key.edges, column.field_type) {
        (None, None, FieldType::Bool) => Some(KeyDomain::Bool),
        (None, Some(edges), field_type) if field_type.is_numeric() => Some(KeyDomain::Edges(edges.clone())),
        (Some(domain), None, field_type) => key_domain(&domain.value, field_type, problems),
        _ => None,
    };
    if let Some(KeyDomain::Text { words, .. }) = &domain
        && words.iter().any(|word| word == OTHER)
    {
        problems.error(&key.field.place, format!("`{OTHER}` stands for what is not in the domain and cannot be in it"));
    }
    if domain.is_none() {
        let message = format!("`{}` is a {} and has no closed domain", key.field.value, column.field_type);
        problems.error_help(
            &key.field.place,
            message,
            "give a string or an int64 a `domain` of its own type, and a number `edges`; a rare free-text key is \
             itself a disclosure",
        );
    }
    Some(GroupKey { name: key.field.value.clone(), column: column.position, domain: domain? })
}

fn key_domain(words: &[Spot<Word>], field_type: FieldType, problems: &Problems) -> Option<KeyDomain> {
    let (mut texts, mut integers) = (Vec::new(), Vec::new());
    let (mut seen_texts, mut seen_integers) = (BTreeSet::new(), BTreeSet::new());
    for word in words {
        let is_new = match (&word.value, field_type) {
            (Word::Text(text), FieldType::String) => {
                texts.push(text.clone());
                seen_texts.insert(text)
            }
            (Word::Integer(integer), FieldType::Int64) => {
                integers.push(*integer);
                seen_integers.insert(*integer)
            }
            _ => return None,
        };
        if !is_new {
            problems.error(&word.place, "this is in the domain twice");
        }
    }
    match field_type {
        FieldType::String => Some(KeyDomain::text(texts)),
        FieldType::Int64 => Some(KeyDomain::Integers(integers.into())),
        _ => None,
    }
}

fn function(metric: &DeclaredMetric, plan: &StreamPlan, has_noise: bool, problems: &Problems) -> Option<Function> {
    let name = metric.function.value.as_str();
    let wrong = |message: String, help: &str| {
        problems.error_help(&metric.function.place, message, help);
        None
    };
    if GIVES_AWAY.contains(&name) {
        return wrong(
            format!("`{name}` is the value of a single contributor and is refused as a metric"),
            "use a `histogram` with fixed edges",
        );
    }
    if name == "count" {
        return Some(Function::Count);
    }
    if !FUNCTIONS.contains(&name) {
        return wrong(format!("there is no metric function `{name}`"), &hint(name, &FUNCTIONS));
    }
    let Some(field) = &metric.field else {
        return wrong(format!("`{name}` needs a `field`"), "add field = \"...\"");
    };
    let column = column(field, plan, problems)?;
    if column.position == plan.stream.contributor {
        return wrong("the contributor cannot be a metric".to_owned(), "count people with `min_contributors`");
    }
    let source = Source { column: column.position, field: field.value.clone(), may_be_missing: column.may_be_missing };
    match (name, column.range, &metric.edges, &metric.equals) {
        ("fraction", _, _, Some(equals)) => {
            let word = [Spot { value: equals.value.clone(), place: equals.place.clone() }];
            let equals = key_domain(&word, column.field_type, problems);
            if equals.is_none() {
                return wrong(
                    format!("`equals` is not of the type of `{}`, {}", field.value, column.field_type),
                    "use a string or an int64",
                );
            }
            Some(Function::Fraction { source, equals: equals? })
        }
        ("fraction", ..) => wrong("`fraction` needs `equals`".to_owned(), "add equals = \"...\" or a whole number"),
        _ if !column.field_type.is_numeric() => wrong(
            format!("`{}` is a {}, and `{name}` needs a number", field.value, column.field_type),
            "choose a numeric field",
        ),
        ("histogram", _, Some(edges), _) => Some(Function::Histogram { source, edges: edges.clone() }),
        ("histogram", ..) => wrong("`histogram` needs `edges`".to_owned(), "add edges = [0, 10, 20]"),
        (_, None, ..) => wrong(
            format!("`{}` has no `range`, and without one a single value could dominate a {name}", field.value),
            "give the field a `range = [low, high]`; values outside are moved to the nearer end",
        ),
        (_, Some(range), ..) if !has_noise && whole_values(column.field_type, range) <= 2.0 => wrong(
            format!("`{}` has at most two values, so a {name} of it counts those who have one of them", field.value),
            &format!("use fn = \"fraction\" with equals = {}", range.high.floor()),
        ),
        (_, Some(range), ..) => {
            let values = whole_values(column.field_type, range);
            if !has_noise && values <= FEW_VALUES {
                let what = format!(
                    "`{}` has at most {values} values, and its {name} may tell how often each occurs",
                    field.value
                );
                let help = "use a `histogram`: ranges with too few contributors are merged";
                problems.warn(&metric.function.place, what, help);
            }
            let measure = Measure { source, range };
            Some(match name {
                "sum" => Function::Sum(measure),
                "mean" => Function::Mean(measure),
                _ => Function::Variance(measure),
            })
        }
    }
}

/// Sums of a field with so few values may tell how often each of them occurs.
const FEW_VALUES: f64 = 20.0;

/// How many values a field can have, of one that has only whole numbers.
fn whole_values(field_type: FieldType, range: ValueRange) -> f64 {
    match field_type {
        FieldType::Int64 => range.high.floor() - range.low.ceil() + 1.0,
        _ => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::document::changed_first;
    use crate::domain::policy::explain::tests::STREAM;
    use crate::domain::policy::fixture::tests::{SET, source};
    use crate::domain::policy::read;

    /// What is said of a metric of a field of this type.
    fn said(field: &str, function: &str) -> Vec<String> {
        let problems = Problems::default();
        let fields = "[streams.visits.fields]\n";
        let with_field = format!("{fields}level  = {{ type = \"{field}, class = \"health\" }}\n");
        let metric = format!("{{ name = \"m\", fn = \"{function}\", field = \"level\" }}");
        let stream = changed_first(
            &changed_first(STREAM, fields, &with_field),
            "fn = \"count\" }",
            &format!("fn = \"count\" }}, {metric}"),
        );
        let texts = SET.iter().copied().chain([stream.as_str()]);
        let files: Vec<Arc<_>> = texts.map(|text| source("set.toml", text)).collect();
        read(&files, &problems);
        problems.into_vec().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn a_sum_of_a_field_with_few_values_is_warned_of() {
        let few =
            |function: &str| format!("`level` has at most 5 values, and its {function} may tell how often each occurs");
        for function in ["sum", "mean", "variance"] {
            assert_eq!(said("int64\", range = [0, 4]", function), [few(function)]);
        }
        for field in ["int64\", range = [0, 20]", "float64\", range = [0, 4]", "float64\", range = [0, 1]"] {
            assert_eq!(said(field, "sum"), [""; 0], "{field}");
        }
    }

    #[test]
    fn a_sum_of_a_field_with_two_values_is_refused() {
        for (function, range) in [("sum", "[0, 1]"), ("mean", "[7, 8]"), ("variance", "[0.5, 1.5]")] {
            let message =
                format!("`level` has at most two values, so a {function} of it counts those who have one of them");
            assert_eq!(said(&format!("int64\", range = {range}"), function), [message]);
        }
    }
}
