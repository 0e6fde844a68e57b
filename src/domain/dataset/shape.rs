//! How a dataset counts, as bytes that are stored beside what was counted.
//!
//! Windows of two declarations with the same shape can be counted on and merged; between different ones
//! [`Shape::differences`] says what changed. Fields are known by name, so a field that the dataset does not use
//! changes nothing. Grace, k and destinations are not part of a shape: they do not decide what a record adds.
//!
//! Version 1: the version (one byte); stream; contributor; window in microseconds; the keys, each with its field and
//! its domain; the metrics, each with its name, its function and what that needs. A domain and a function begin with
//! a byte that says which one they are: [`WORDS`] and the like. Version 2 is of a dataset with bounds, and of no other: the
//! same, and then how many records of a contributor count in a cell, and in how many cells (0: in any number). Version 3 is
//! of datasets that share their cells, and of no others: the same as version 2 (0 and 0: no bounds), and then the datasets,
//! each with its name and its metrics: the name that it gives each, and the position of that metric among those before.
//! Version 4 is of those of which one is coarser, and of no others: the same as version 3, and then the coarser ones, each with
//! its name and the positions of its keys. Version 5 is of those of which one has longer windows, and of no others: the same as
//! version 4, and then those with longer windows, each with its name and its window in microseconds. Version 6 is of a dataset
//! whose windows overlap, and of no other: the same as version 2 (0 and 0: no bounds), and then for how long a window goes on
//! after the next one has begun, in microseconds. Its window is how far apart windows begin.

use std::fmt::Display;
use std::time::Duration;

use jiff::SignedDuration;

use super::{Bounds, Dataset, Function, KeyDomain, Measure, Member, Source};
use crate::domain::binary::{Reader, Writer};
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::stream::ValueRange;
use crate::domain::window::micros;

const VERSION: u8 = 1;
const BOUNDED: u8 = 2;
const SHARED: u8 = 3;
const COARSER: u8 = 4;
const LONGER: u8 = 5;
const OVERLAPPING: u8 = 6;

const WORDS: u8 = 0;
const INTEGERS: u8 = 1;
const BOOL: u8 = 2;
const EDGES: u8 = 3;

const COUNT: u8 = 0;
const SUM: u8 = 1;
const MEAN: u8 = 2;
const VARIANCE: u8 = 3;
const HISTOGRAM: u8 = 4;
const FRACTION: u8 = 5;

/// How a dataset counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    stream: StreamName,
    contributor: String,
    /// How far apart windows begin, in microseconds.
    window: i64,
    /// For how long a window goes on after the next one has begun, in microseconds. 0: it ends there.
    overlap: i64,
    keys: Vec<Key>,
    metrics: Vec<Metric>,
    bounds: Option<Bounds>,
    /// The datasets that share the cells, each with the names and positions of its metrics. None: it is one alone.
    members: Named<Vec<(String, u32)>, DatasetName>,
    /// Those that do not have all keys, each with the positions of its keys.
    coarser: Named<Vec<u32>, DatasetName>,
    /// Those with longer windows, each with the length of its own, in microseconds.
    longer: Named<i64, DatasetName>,
}

#[derive(Debug, Clone, PartialEq)]
struct Key {
    field: String,
    domain: KeyDomain,
}

#[derive(Debug, Clone, PartialEq)]
struct Metric {
    name: String,
    computes: Computes,
}

/// What a metric computes, and of which field.
#[derive(Debug, Clone, PartialEq)]
enum Computes {
    Count,
    /// The sum, mean or variance, by the byte that stands for it.
    Moment(u8, Of, ValueRange),
    Histogram(Of, Vec<f64>),
    Fraction(Of, KeyDomain),
}

/// A field that a metric is computed from.
#[derive(Debug, Clone, PartialEq)]
struct Of {
    field: String,
    may_be_missing: bool,
}

impl Of {
    fn new(source: &Source) -> Self {
        Self { field: source.field.clone(), may_be_missing: source.may_be_missing }
    }
}

impl Dataset {
    /// Everything that decides what a record adds, and to which cell.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let moment = |function, measure: &Measure| Computes::Moment(function, Of::new(&measure.source), measure.range);
        let metrics = self.metrics.iter().map(|metric| Metric {
            name: metric.name.clone(),
            computes: match &metric.function {
                Function::Count => Computes::Count,
                Function::Sum(measure) => moment(SUM, measure),
                Function::Mean(measure) => moment(MEAN, measure),
                Function::Variance(measure) => moment(VARIANCE, measure),
                Function::Histogram { source, edges } => Computes::Histogram(Of::new(source), edges.clone()),
                Function::Fraction { source, equals } => Computes::Fraction(Of::new(source), equals.clone()),
            },
        });
        Shape {
            stream: self.stream.clone(),
            contributor: self.contributor.clone(),
            window: micros(self.window),
            overlap: micros(self.overlap),
            keys: self.keys.iter().map(|key| Key { field: key.name.clone(), domain: key.domain.clone() }).collect(),
            metrics: metrics.collect(),
            bounds: self.bounds,
            members: self.members.iter().map(member).collect(),
            coarser: self.members.iter().filter(|member| member.keys.len() < self.keys.len()).map(keys).collect(),
            longer: self.members.iter().filter(|member| member.dataset.window > self.window).map(length).collect(),
        }
    }
}

impl Shape {
    /// How far apart windows begin.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.window).unwrap_or(0))
    }

    /// How long windows are, and how far apart they begin where they overlap.
    fn windows(&self) -> String {
        let length = duration(self.window.saturating_add(self.overlap));
        if self.overlap == 0 { length } else { format!("{length} every {}", duration(self.window)) }
    }

    /// The names of the datasets that share the cells. None: it is one alone.
    pub fn sharing(&self) -> impl Iterator<Item = &DatasetName> {
        self.members.iter().map(|(dataset, _)| dataset)
    }

    /// Adds the shape to bytes under construction.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(match (self.members.is_empty(), self.bounds) {
            (false, _) if !self.longer.is_empty() => LONGER,
            (false, _) if !self.coarser.is_empty() => COARSER,
            (false, _) => SHARED,
            // Datasets whose windows overlap have noise, and those share no cells.
            (true, _) if self.overlap > 0 => OVERLAPPING,
            (true, Some(_)) => BOUNDED,
            (true, None) => VERSION,
        });
        writer.text(&self.stream).text(&self.contributor).i64(self.window);
        writer.count(self.keys.len());
        for key in &self.keys {
            writer.text(&key.field);
            encode_domain(&key.domain, writer);
        }
        writer.count(self.metrics.len());
        for metric in &self.metrics {
            writer.text(&metric.name);
            metric.computes.encode(writer);
        }
        match self.bounds {
            Some(Bounds { records_per_cell, cells_per_window }) => {
                writer.u32(records_per_cell).u32(cells_per_window.unwrap_or(0));
            }
            None if !self.members.is_empty() || self.overlap > 0 => {
                writer.u32(0).u32(0);
            }
            None => {}
        }
        if !self.members.is_empty() {
            writer.count(self.members.len());
        } else if self.overlap > 0 {
            writer.i64(self.overlap);
        }
        for (dataset, metrics) in &self.members {
            writer.text(dataset).count(metrics.len());
            for (name, position) in metrics {
                writer.text(name).u32(*position);
            }
        }
        if !self.coarser.is_empty() || !self.longer.is_empty() {
            writer.count(self.coarser.len());
        }
        for (dataset, keys) in &self.coarser {
            writer.text(dataset).count(keys.len());
            keys.iter().for_each(|key| {
                writer.u32(*key);
            });
        }
        if !self.longer.is_empty() {
            writer.count(self.longer.len());
        }
        for (dataset, window) in &self.longer {
            writer.text(dataset).i64(*window);
        }
    }

    /// Reads what [`Shape::encode`] wrote. `None`: it is none, or one of a newer version.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let version = reader.u8()?;
        if !matches!(version, VERSION | BOUNDED | SHARED | COARSER | LONGER | OVERLAPPING) {
            return None;
        }
        let (stream, contributor, window) = (StreamName::read(reader)?, reader.text()?.to_owned(), reader.i64()?);
        let keys =
            list(reader, 9, |reader| Some(Key { field: reader.text()?.to_owned(), domain: decode_domain(reader)? }))?;
        let metrics = list(reader, 9, |reader| {
            Some(Metric { name: reader.text()?.to_owned(), computes: Computes::decode(reader)? })
        })?;
        let bounds = if version == VERSION {
            None
        } else {
            let (records_per_cell, cells) = (reader.u32()?, reader.u32()?);
            let bounds = Bounds { records_per_cell, cells_per_window: Some(cells).filter(|cells| *cells > 0) };
            Some(bounds).filter(|bounds| version == BOUNDED || bounds.records_per_cell > 0)
        };
        let overlap = if version == OVERLAPPING { reader.i64().filter(|overlap| *overlap > 0)? } else { 0 };
        let is_shared = matches!(version, SHARED | COARSER | LONGER);
        let members = if is_shared { list(reader, 16, decode_member)? } else { Vec::new() };
        let keys_of = |reader: &mut Reader<'_>| Some((DatasetName::read(reader)?, list(reader, 4, Reader::u32)?));
        let coarser = if matches!(version, COARSER | LONGER) { list(reader, 16, keys_of)? } else { Vec::new() };
        let window_of = |reader: &mut Reader<'_>| Some((DatasetName::read(reader)?, reader.i64()?));
        let longer = if version == LONGER { list(reader, 16, window_of)? } else { Vec::new() };
        Some(Self { stream, contributor, window, overlap, keys, metrics, bounds, members, coarser, longer })
    }

    /// What changed between this shape and the present one, each in a few words for a person. Empty when nothing did.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self == now {
            return changes;
        }
        let mut changed = |what: &str, was: &str, is: &str| {
            if was != is {
                changes.push(format!("{what} was {was}, is {is}"));
            }
        };
        changed("stream", &quoted(&self.stream), &quoted(&now.stream));
        changed("contributor", &quoted(&self.contributor), &quoted(&now.contributor));
        changed("window", &self.windows(), &now.windows());
        changed("bounds of a contributor's records", &bounds(self.bounds), &bounds(now.bounds));
        let keys = |shape: &Self| shape.keys.iter().map(|key| (key.field.clone(), key.domain.clone())).collect();
        let (old, new): (Named<KeyDomain>, Named<KeyDomain>) = (keys(self), keys(now));
        compare("key", &old, &new, domain_differences, &mut changes);
        let metrics = |shape: &Self| shape.metrics.iter().map(|one| (one.name.clone(), one.computes.clone())).collect();
        let (old, new): (Named<Computes>, Named<Computes>) = (metrics(self), metrics(now));
        compare("metric", &old, &new, Computes::differences, &mut changes);
        let names = |shape: &Self| {
            let names: Vec<String> = shape.members.iter().map(|(dataset, _)| quoted(dataset)).collect();
            names.join(", ")
        };
        match (self.members.as_slice(), now.members.as_slice()) {
            ([], []) => {}
            ([], _) => changes.push(format!("these datasets share its cells now, and none did: {}", names(now))),
            (_, []) => changes.push(format!("these datasets shared its cells, and none does now: {}", names(self))),
            _ => {
                let said = "it has other metrics, or other names for them".to_owned();
                let differences = |was: &Vec<_>, is: &Vec<_>| if was == is { Vec::new() } else { vec![said.clone()] };
                compare("dataset", &self.members, &now.members, differences, &mut changes);
            }
        }
        let keys = |shape: &Self, name: &DatasetName| {
            shape.coarser.iter().find(|(of, _)| of == name).map(|(_, keys)| keys.clone())
        };
        for (name, _) in self.members.iter().filter(|(name, _)| now.sharing().any(|other| other == name)) {
            if keys(self, name) != keys(now, name) {
                changes.push(format!("dataset `{name}`: it has other keys, so its rows are added up otherwise"));
            }
            let [was, is] = [self, now].map(|shape| shape.longer.iter().find(|(of, _)| of == name));
            if was != is {
                let [was, is] = [(was, self), (is, now)]
                    .map(|(longer, shape)| duration(longer.map_or(shape.window, |(_, window)| *window)));
                changes.push(format!("dataset `{name}`: window was {was}, is {is}"));
            }
        }
        changes
    }
}

/// A dataset that shares its cells, with the names and positions of its metrics.
fn member(Member { dataset, metrics, .. }: &Member) -> (DatasetName, Vec<(String, u32)>) {
    let positions = metrics.iter().map(|position| u32::try_from(*position).unwrap_or(u32::MAX));
    let names = dataset.metrics.iter().map(|metric| metric.name.clone());
    (dataset.name.clone(), names.zip(positions).collect())
}

/// A dataset that shares the cells, with the positions of its keys.
fn keys(Member { dataset, keys, .. }: &Member) -> (DatasetName, Vec<u32>) {
    let positions = keys.iter().map(|position| u32::try_from(*position).unwrap_or(u32::MAX));
    (dataset.name.clone(), positions.collect())
}

/// A dataset that shares the cells, with the length of its windows.
fn length(Member { dataset, .. }: &Member) -> (DatasetName, i64) {
    (dataset.name.clone(), micros(dataset.window))
}

fn decode_member(reader: &mut Reader<'_>) -> Option<(DatasetName, Vec<(String, u32)>)> {
    let dataset = DatasetName::read(reader)?;
    Some((dataset, list(reader, 12, |reader| Some((reader.text()?.to_owned(), reader.u32()?)))?))
}

/// Things with their names, in the order of their declaration.
type Named<T, N = String> = Vec<(N, T)>;

/// Adds what changed between two lists of things.
fn compare<T: PartialEq, N: PartialEq + Display>(
    what: &str,
    old: &Named<T, N>,
    new: &Named<T, N>,
    differences: impl Fn(&T, &T) -> Vec<String>,
    changes: &mut Vec<String>,
) {
    let before = changes.len();
    let has = |list: &Named<T, N>, name: &N| list.iter().any(|(other, _)| other == name);
    for (name, _) in old.iter().filter(|(name, _)| !has(new, name)) {
        changes.push(format!("{what} `{name}` was removed"));
    }
    for (name, is) in new {
        match old.iter().find(|(other, _)| other == name) {
            None => changes.push(format!("{what} `{name}` was added")),
            Some((_, was)) => {
                changes.extend(differences(was, is).into_iter().map(|change| format!("{what} `{name}`: {change}")));
            }
        }
    }
    if changes.len() == before && old != new {
        changes.push(format!("the {what}s are in another order"));
    }
}

impl Computes {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Count => {
                writer.u8(COUNT);
            }
            Self::Moment(function, of, range) => {
                writer.u8(*function).text(&of.field).u8(of.may_be_missing.into()).f64(range.low).f64(range.high);
            }
            Self::Histogram(of, edges) => {
                writer.u8(HISTOGRAM).text(&of.field).u8(of.may_be_missing.into()).count(edges.len());
                edges.iter().for_each(|edge| {
                    writer.f64(*edge);
                });
            }
            Self::Fraction(of, equals) => {
                writer.u8(FRACTION).text(&of.field).u8(of.may_be_missing.into());
                encode_domain(equals, writer);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let function = reader.u8()?;
        if function == COUNT {
            return Some(Self::Count);
        }
        let of = Of { field: reader.text()?.to_owned(), may_be_missing: reader.u8()? != 0 };
        Some(match function {
            SUM | MEAN | VARIANCE => Self::Moment(function, of, ValueRange { low: reader.f64()?, high: reader.f64()? }),
            HISTOGRAM => Self::Histogram(of, list(reader, 8, Reader::f64)?),
            FRACTION => Self::Fraction(of, decode_domain(reader)?),
            _ => return None,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Moment(SUM, ..) => "sum",
            Self::Moment(MEAN, ..) => "mean",
            Self::Moment(..) => "variance",
            Self::Histogram(..) => "histogram",
            Self::Fraction(..) => "fraction",
        }
    }

    fn of(&self) -> Option<&Of> {
        match self {
            Self::Count => None,
            Self::Moment(_, of, _) | Self::Histogram(of, _) | Self::Fraction(of, _) => Some(of),
        }
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.name() != now.name() {
            changes.push(format!("was a {}, is a {}", self.name(), now.name()));
        }
        if let (Some(was), Some(is)) = (self.of(), now.of()) {
            if was.field != is.field {
                changes.push(format!("was of field `{}`, is of `{}`", was.field, is.field));
            }
            if was.may_be_missing != is.may_be_missing {
                let not = if is.may_be_missing { "" } else { "no longer " };
                changes.push(format!("a record may {not}be without a value of field `{}`", is.field));
            }
        }
        match (self, now) {
            (Self::Moment(_, _, was), Self::Moment(_, _, is)) if was != is => {
                let range = |range: &ValueRange| format!("[{}, {}]", range.low, range.high);
                changes.push(format!("the field's range was {}, is {}", range(was), range(is)));
            }
            (Self::Histogram(_, was), Self::Histogram(_, is)) if was != is => changes.push("edges changed".to_owned()),
            (Self::Fraction(_, was), Self::Fraction(_, is)) if was != is => {
                changes.push(format!("equals was `{}`, is `{}`", was.label(0), is.label(0)));
            }
            _ => {}
        }
        changes
    }
}

fn encode_domain(domain: &KeyDomain, writer: &mut Writer) {
    match domain {
        KeyDomain::Text { words, .. } => {
            writer.u8(WORDS).count(words.len());
            words.iter().for_each(|word| {
                writer.text(word);
            });
        }
        KeyDomain::Integers(numbers) => {
            writer.u8(INTEGERS).count(numbers.all().len());
            numbers.all().iter().for_each(|number| {
                writer.i64(*number);
            });
        }
        KeyDomain::Bool => {
            writer.u8(BOOL);
        }
        KeyDomain::Edges(edges) => {
            writer.u8(EDGES).count(edges.len());
            edges.iter().for_each(|edge| {
                writer.f64(*edge);
            });
        }
    }
}

fn decode_domain(reader: &mut Reader<'_>) -> Option<KeyDomain> {
    Some(match reader.u8()? {
        WORDS => KeyDomain::text(list(reader, 8, |reader| reader.text().map(str::to_owned))?),
        INTEGERS => KeyDomain::Integers(list(reader, 8, Reader::i64)?.into()),
        BOOL => KeyDomain::Bool,
        EDGES => KeyDomain::Edges(list(reader, 8, Reader::f64)?),
        _ => return None,
    })
}

/// A list of things of at least `each` bytes.
fn list<'r, T>(
    reader: &mut Reader<'r>,
    each: usize,
    mut read: impl FnMut(&mut Reader<'r>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = reader.count(each)?;
    (0..count).map(|_| read(reader)).collect()
}

fn domain_differences(was: &KeyDomain, is: &KeyDomain) -> Vec<String> {
    let members = match (was, is) {
        _ if was == is => return Vec::new(),
        (KeyDomain::Text { words: was, .. }, KeyDomain::Text { words: is, .. }) => (was.clone(), is.clone()),
        (KeyDomain::Integers(was), KeyDomain::Integers(is)) => {
            let texts = |numbers: &[i64]| numbers.iter().map(ToString::to_string).collect();
            (texts(was.all()), texts(is.all()))
        }
        (KeyDomain::Edges(_), KeyDomain::Edges(_)) => return vec!["edges changed".to_owned()],
        _ => return vec!["its domain is of another kind".to_owned()],
    };
    let (was, is): (Vec<String>, Vec<String>) = members;
    let mut changes = Vec::new();
    for (these, others, what) in [(&was, &is, "removed from"), (&is, &was, "added to")] {
        let only: Vec<&String> = these.iter().filter(|word| !others.contains(word)).collect();
        if !only.is_empty() {
            changes.push(format!("{} {what} its domain", few(&only)));
        }
    }
    if changes.is_empty() {
        changes.push("its domain is in another order".to_owned());
    }
    changes
}

/// The first few words, and how many more there are.
fn few(words: &[&String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = words.iter().take(SHOWN).map(|word| quoted(word)).collect();
    let verb = if words.len() == 1 { "was" } else { "were" };
    match words.len().saturating_sub(SHOWN) {
        0 => format!("{} {verb}", shown.join(", ")),
        more => format!("{} and {more} more {verb}", shown.join(", ")),
    }
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}

fn bounds(bounds: Option<Bounds>) -> String {
    match bounds {
        None => "none".to_owned(),
        Some(Bounds { records_per_cell, cells_per_window: None }) => format!("{records_per_cell} in a cell"),
        Some(Bounds { records_per_cell, cells_per_window: Some(cells) }) => {
            format!("{records_per_cell} in a cell, in {cells} cells of a window")
        }
    }
}

fn duration(micros: i64) -> String {
    SignedDuration::from_micros(micros).to_string()
}

#[cfg(test)]
mod tests;
