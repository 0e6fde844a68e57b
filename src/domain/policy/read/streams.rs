//! Streams and their fields.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::codes::Codes;
use crate::domain::dataset::OTHER;
use crate::domain::document::keys::{Key, Kind, Shape, names};
use crate::domain::document::{Problems, Spot, Table, hint};
use crate::domain::name::{StreamName, is_name};
use crate::domain::policy::regime::Classes;
use crate::domain::policy::treat::{Treatment, Treatments};
use crate::domain::pseudonym::Span;
use crate::domain::stream::{Field, FieldType, Stream, Undeclared, ValueRange};

use super::NAMES;
use super::classes::known_class;
use super::deployment::by_fact;
use super::evidence::{self, DeclaredEvidence, EVIDENCE};
use super::words::{choice, choice_if, choice_or, chosen};

const UNDECLARED: [(&str, Undeclared); 2] = [("refuse", Undeclared::Refuse), ("drop", Undeclared::Drop)];

pub(super) const STREAM: Shape = Shape {
    name: "streams.NAME",
    about: "A stream: one kind of record.",
    keys: &[
        Key::required("event_time", Kind::Text, "The field that holds the event time."),
        Key::required(
            "contributor",
            Kind::Text,
            "The field that names the contributor: the person or thing that k counts.",
        ),
        Key::new(
            "contributor_is_person",
            Kind::Bool,
            "Whether each contributor is one person, and never several. Counters of laws count no others. Default: false.",
        ),
        Key::new("untested", NAMES, "The facts that have no evidence here. No regime applies by them."),
        Key::new("model", Kind::Text, "The model that scores its records."),
        Key::new(
            "undeclared",
            Kind::Word(&names(&UNDECLARED)),
            "What becomes of a value that is not declared. Default: refuse.",
        ),
        Key::new("future_max", Kind::Duration, "How far ahead of the clock an event time may be. Default: PT1M."),
        Key::new(
            "late_max",
            Kind::Duration,
            "How far behind the clock, and before the oldest open window, an event time may be. Default: PT1H.",
        ),
        Key::new(
            "history_from",
            Kind::Text,
            "The stream replays history from this time on: an event time may be that far behind the clock.",
        ),
        Key::new(
            "idle_after",
            Kind::Duration,
            "After how long without a record a producer no longer holds the windows open. Default: PT30S.",
        ),
        Key::required("facts", by_fact(&Kind::List(&Kind::Table(&EVIDENCE))), "Where each fact is looked for."),
        Key::new("fields", Kind::Named(&Kind::Table(&FIELD)), "The fields, in the order of their protobuf numbers."),
    ],
};

const TREATMENTS: [(&str, u8); 4] = [("keep", 0), ("drop", 1), ("generalise", 2), ("pseudonymise", 3)];

const FIELD: Shape = Shape {
    name: "streams.NAME.fields.NAME",
    about: "A field of a stream.",
    keys: &[
        Key::required("type", Kind::Word(&names(&FieldType::NAMES)), "Its type."),
        Key::required("class", Kind::Text, "Its data class."),
        Key::new("required", Kind::Bool, "Whether a record without it is refused. Default: true."),
        Key::new("allow_non_finite", Kind::Bool, "Whether NaN and the infinities are accepted. Default: false."),
        Key::new("bytes_max", Kind::Count, "The longest accepted text, in bytes. Default: 256."),
        Key::new("range", RANGE, "Where its values lie. What is summed needs a range."),
        Key::new("number", Kind::Count, "Its protobuf field number. Default: its position, counted from 1."),
        Key::new("treatment", Kind::Word(&names(&TREATMENTS)), "In which form its values are kept. Default: keep."),
        Key::new("edges", Kind::List(&Kind::Number), "For `generalise` of numbers: the edges of the bins."),
        Key::new("truncate", Kind::Duration, "For `generalise` of times: what they are cut to."),
        Key::new("words", NAMES, "For `generalise` of texts: the words that stay; others become `other`."),
        Key::new("scope", Kind::Word(&names(&Span::NAMES)), "For `pseudonymise`: how long a pseudonym stays the same."),
    ],
};

/// `[low, high]`.
pub(super) const RANGE: Kind = Kind::List(&Kind::Number);

/// A stream whose references are names.
pub(super) struct DeclaredStream {
    fields: Vec<(Field, Spot<String>)>,
    treatments: Vec<(usize, Spot<Treatment>)>,
    event_time: Spot<String>,
    contributor: Spot<String>,
    pub(super) contributor_is_person: bool,
    pub(super) evidence: DeclaredEvidence,
    undeclared: Undeclared,
    pub(super) model: Option<Spot<String>>,
    future_max: Duration,
    late_max: Duration,
    history_from: Option<Timestamp>,
    idle_after: Duration,
}

impl DeclaredStream {
    pub(super) fn model_name(&self) -> Option<&str> {
        self.model.as_ref().map(|model| model.value.as_str())
    }
}

/// Protobuf's largest field number, and the numbers it keeps for itself
/// (<https://protobuf.dev/programming-guides/proto3/#assigning>).
const NUMBER_MAX: usize = (1 << 29) - 1;
const NUMBERS_RESERVED: std::ops::RangeInclusive<usize> = 19_000..=19_999;

const BYTES_MAX: usize = 256;

/// Between these, the square of a range and its scale are ordinary floats.
const MAGNITUDE_MIN: f64 = 1e-100;
const MAGNITUDE_MAX: f64 = 1e100;

pub(super) fn read(table: &Table<'_>, codes: &Codes) -> Option<DeclaredStream> {
    let problems = table.problems();
    let event_time = table.need::<String>("event_time");
    let contributor = table.need::<String>("contributor");
    let contributor_is_person = table.or("contributor_is_person", false);
    let model = table.get::<String>("model");
    let undeclared = choice_or(table, "undeclared", &UNDECLARED, Undeclared::Refuse);
    let evidence = evidence::read(table, codes);
    let mut fields: Vec<(Field, Spot<String>)> = Vec::new();
    let mut treatments = Vec::new();
    let mut numbers = BTreeSet::new();
    let mut names = Vec::new();
    for (name, table) in table.named("fields") {
        let position = fields.len() + 1;
        names.push(name.clone());
        if let Some((field, class)) = read_field(&name, &table, position) {
            let treatment = read_treatment(&table, field.field_type);
            treatments.extend(treatment.map(|treatment| (fields.len(), treatment)));
            if !numbers.insert(field.number) {
                problems.error(&name.place, format!("field number {} is already taken", field.number));
            }
            fields.push((field, class));
        }
        table.done();
    }
    if fields.is_empty() {
        problems.error(&table.place, "a stream needs `fields`");
    }
    check_json_names(&names, problems);
    let future_max = duration(table, "future_max", 60);
    let late_max = duration(table, "late_max", 60 * 60);
    let idle_after = duration(table, "idle_after", 30);
    let history_from = table.get::<Timestamp>("history_from").map(|from| from.value);
    Some(DeclaredStream {
        fields,
        treatments,
        event_time: event_time?,
        contributor: contributor?,
        contributor_is_person,
        evidence,
        undeclared,
        model,
        future_max,
        late_max,
        history_from,
        idle_after,
    })
}

/// Reports fields that are one in JSON: protobuf leaves out underscores there, and many programs heed no capitals.
fn check_json_names(names: &[Spot<String>], problems: &Problems) {
    let mut seen = BTreeMap::new();
    for name in names {
        let in_json = name.value.replace('_', "").to_lowercase();
        if let Some(other) = seen.insert(in_json, &name.value) {
            let message = format!("field `{}` differs from `{other}` by capitals or underscores only", name.value);
            problems.error_help(&name.place, message, "both have the same name in protobuf's JSON; rename one of them");
        }
    }
}

/// Reports words that are listed twice, and the one that stands for all others.
pub(super) fn check_words(words: &[Spot<String>], problems: &Problems) {
    let mut seen = BTreeSet::new();
    for word in words {
        if !seen.insert(&word.value) {
            problems.error(&word.place, format!("`{}` is listed twice", word.value));
        }
        if word.value == OTHER {
            problems
                .error(&word.place, format!("`{OTHER}` stands for all words that are not listed and cannot be listed"));
        }
    }
}

fn read_field(name: &Spot<String>, table: &Table<'_>, position: usize) -> Option<(Field, Spot<String>)> {
    let problems = table.problems();
    if !is_name(&name.value)
        || name.value.contains(['-', '.'])
        || name.value.starts_with(|first: char| first.is_ascii_digit())
    {
        problems.error(&name.place, format!("`{}` is not a field name: use letters, digits and `_`", name.value));
    }
    let field_type = choice(table, "type", &FieldType::NAMES);
    let class = table.need::<String>("class");
    let required = table.or("required", true);
    let allow_non_finite = table.or("allow_non_finite", false);
    let bytes_max = table.get::<usize>("bytes_max");
    let range = read_range(table);
    let number = table.get::<usize>("number");
    let (field_type, class) = (field_type?, class?);
    if let Some(bytes_max) = &bytes_max
        && field_type != FieldType::String
    {
        problems.error(&bytes_max.place, format!("`bytes_max` is for strings, and `{}` is a {field_type}", name.value));
    }
    if range.is_some() && !field_type.is_numeric() {
        problems.error(&table.place, format!("`range` is for numbers, and `{}` is a {field_type}", name.value));
    }
    if let Some(number) = &number
        && (number.value == 0 || number.value > NUMBER_MAX || NUMBERS_RESERVED.contains(&number.value))
    {
        problems.error(&number.place, format!("{} cannot be a protobuf field number", number.value));
    }
    let field = Field {
        name: name.value.clone(),
        field_type,
        number: u32::try_from(number.map_or(position, |number| number.value)).unwrap_or(u32::MAX),
        class: class.value.clone(),
        required,
        allow_non_finite,
        bytes_max: bytes_max.map_or(BYTES_MAX, |bytes| bytes.value),
        range,
    };
    Some((field, class))
}

/// `treatment`, and what goes with it.
fn read_treatment(table: &Table<'_>, field_type: FieldType) -> Option<Spot<Treatment>> {
    let problems = table.problems();
    let edges = super::datasets::edges(table);
    let truncate = table.get::<SignedDuration>("truncate");
    let words = table.get::<Vec<Spot<String>>>("words");
    let span = choice_if(table, "scope", &Span::NAMES);
    let named = table.get::<String>("treatment")?;
    let value = match (chosen(&named, &TREATMENTS, problems)?, edges, truncate, words) {
        (0, None, None, None) if span.is_none() => return None,
        (1, None, None, None) if span.is_none() => Treatment::Drop,
        (3, None, None, None) if span.is_some() => Treatment::Pseudonymise(span?),
        (2, Some(edges), None, None) if span.is_none() => Treatment::Edges(edges),
        (2, None, Some(size), None) if size.value.as_micros() > 0 => {
            Treatment::Truncate(i64::try_from(size.value.as_micros()).unwrap_or(i64::MAX))
        }
        (2, None, None, Some(words)) if !words.value.is_empty() => {
            check_words(&words.value, problems);
            Treatment::Words(words.value.into_iter().map(|word| word.value).collect())
        }
        _ => {
            let help = "`generalise` has one of `edges` (numbers), `truncate` (times) and `words` (texts), `pseudonymise` a \
                        `scope`, the others none";
            problems.error_help(&named.place, "the keys beside this treatment do not fit it", help);
            return None;
        }
    };
    if let Treatment::Edges(edges) = &value
        && field_type == FieldType::Int64
        && edges.iter().any(|edge| edge.fract() != 0.0 || edge.abs() > WHOLE_MAX)
    {
        problems.error(&named.place, "the edges of an int64 must be whole numbers");
        return None;
    }
    if !value.fits(field_type) {
        problems.error(&named.place, format!("a {field_type} cannot have this treatment"));
        return None;
    }
    Some(Spot { value, place: named.place })
}

/// Whole floats up to it are exact.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// `range = [low, high]`.
pub(super) fn read_range(table: &Table<'_>) -> Option<ValueRange> {
    let range = table.get::<Vec<Spot<f64>>>("range")?;
    match range.value.as_slice() {
        [low, high]
            if low.value < high.value
                && (MAGNITUDE_MIN..=MAGNITUDE_MAX).contains(&low.value.abs().max(high.value.abs())) =>
        {
            Some(ValueRange { low: low.value, high: high.value })
        }
        _ => {
            table.problems().error(
                &range.place,
                "a range is two numbers, the smaller one first, the larger magnitude between 1e-100 and 1e100",
            );
            None
        }
    }
}

fn duration(table: &Table<'_>, key: &str, default_seconds: u64) -> Duration {
    let value = table.get::<SignedDuration>(key);
    value.map_or(Duration::from_secs(default_seconds), |value| value.value.unsigned_abs())
}

/// A stream, and in which form its fields are kept.
pub(super) fn resolve(
    name: StreamName,
    declared: &DeclaredStream,
    classes: &Classes,
    problems: &Problems,
) -> (Stream, Treatments) {
    let mut fields: Vec<Field> = Vec::new();
    for (field, class) in &declared.fields {
        known_class(class, classes, problems);
        fields.push(field.clone());
    }
    let event_time = find(&declared.event_time, &fields, &[FieldType::Timestamp], "the event time", problems);
    let types = [FieldType::String, FieldType::Int64];
    let contributor = find(&declared.contributor, &fields, &types, "the contributor", problems);
    let (event_time, contributor) = (event_time.unwrap_or(0), contributor.unwrap_or(0));
    if let Some(field) = fields.get_mut(event_time)
        && !field.required
    {
        problems.error(&declared.event_time.place, "the event time cannot be left out: remove `required = false`");
        field.required = true;
    }
    for (position, treatment) in &declared.treatments {
        if *position == contributor || *position == event_time {
            problems.error(&treatment.place, "the contributor and the event time cannot have a treatment");
        }
    }
    let stream = Stream {
        name,
        schema: Stream::schema_of(&fields),
        fields,
        event_time,
        contributor,
        undeclared: declared.undeclared,
        model: declared.model.as_ref().map(|model| model.value.clone()),
        future_max: declared.future_max,
        late_max: declared.late_max,
        history_from: declared.history_from.map(Timestamp::as_microsecond),
        idle_after: declared.idle_after,
    };
    let treatments = declared.treatments.iter().map(|(field, treatment)| (*field, treatment.value.clone()));
    (stream, Treatments(treatments.collect()))
}

/// The position of a field that has a role, if it is of one of these types.
pub(super) fn find(
    wanted: &Spot<String>,
    fields: &[Field],
    types: &[FieldType],
    role: &str,
    problems: &Problems,
) -> Option<usize> {
    let Some(position) = fields.iter().position(|field| field.name == wanted.value) else {
        let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let message = format!("there is no field `{}`", wanted.value);
        problems.error_help(&wanted.place, message, hint(&wanted.value, &known));
        return None;
    };
    let field_type = fields.get(position)?.field_type;
    if !types.contains(&field_type) {
        let names: Vec<String> = types.iter().map(ToString::to_string).collect();
        let message = format!("{role} must be a {}, and `{}` is a {field_type}", names.join(" or "), wanted.value);
        problems.error(&wanted.place, message);
        return None;
    }
    Some(position)
}
