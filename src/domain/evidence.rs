//! Evidence: where a stream's records say which facts, and what a batch says, column by column.
//!
//! What the columns say is worked out once per distinct value, and the combinations of what several columns say once
//! per distinct combination; a record is then only the number of its combination.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use foldhash::fast::RandomState;

use super::codes::Codes;
use super::fact::{Fact, Kind};
use super::jurisdiction::Jurisdiction;
use super::knowledge::{Addresses, Candidates, Places, Reading, Registry, iban, phone};
use super::producers::Producers;
use super::pseudonym::Pseudonyms;

/// One place where a fact is looked for.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The fact.
    pub fact: Fact,
    /// The place.
    pub source: Source,
    /// How much it is worth, 0 to 100.
    pub strength: u8,
    /// The roles of producers that are trusted with it. `None`: every producer is.
    pub trusted_from: Option<BTreeSet<String>>,
}

/// Where evidence comes from. Fields are positions in the stream.
#[derive(Debug, Clone)]
pub enum Source {
    /// A field that carries the code, or the name.
    Field(usize),
    /// A field that carries a telephone number.
    Phone(usize),
    /// A field that carries a bank account's number.
    Iban(usize),
    /// Fields that carry degrees.
    Position {
        /// Latitude.
        latitude: usize,
        /// Longitude.
        longitude: usize,
        /// How far off they may be, in metres.
        radius_m: f64,
    },
    /// A registry.
    Registry {
        /// Its name.
        name: String,
        /// The field that carries the key; `None`: the producer's name is the key.
        by: Option<usize>,
    },
    /// What is declared of the producer.
    Producer,
    /// The peer's network address.
    GeoIp,
    /// The operator's word.
    Always(Candidates),
}

impl Source {
    /// What kind of evidence it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Field(_) => Kind::Field,
            Self::Phone(_) => Kind::Phone,
            Self::Iban(_) => Kind::Iban,
            Self::Position { .. } => Kind::Position,
            Self::Registry { .. } => Kind::Registry,
            Self::Producer => Kind::Producer,
            Self::GeoIp => Kind::GeoIp,
            Self::Always(_) => Kind::Always,
        }
    }

    /// The fields it reads, by position.
    #[must_use]
    pub fn fields(&self) -> Vec<usize> {
        match self {
            Self::Field(field) | Self::Phone(field) | Self::Iban(field) => vec![*field],
            Self::Position { latitude, longitude, .. } => vec![*latitude, *longitude],
            Self::Registry { by, .. } => by.iter().copied().collect(),
            Self::Producer | Self::GeoIp | Self::Always(_) => Vec::new(),
        }
    }
}

/// What is known beside the records.
#[derive(Clone, Default)]
pub struct Knowledge {
    /// The producers, by name.
    pub producers: Arc<Producers>,
    /// The registries, by name.
    pub registries: BTreeMap<String, Arc<Registry>>,
    /// Places on the earth.
    pub places: Option<Arc<dyn Places>>,
    /// Network addresses.
    pub addresses: Option<Arc<dyn Addresses>>,
    /// The keys of pseudonyms. Without them what is to get one is dropped.
    pub pseudonyms: Option<Arc<Pseudonyms>>,
    /// Codes that several states claim: evidence of one counts for every claimant as well.
    pub disputed: Arc<BTreeMap<Jurisdiction, Vec<Jurisdiction>>>,
    /// The codes that there are.
    pub codes: Arc<Codes>,
}

/// Who sends a batch, and from where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sender<'s> {
    /// The producer's name.
    pub producer: &'s str,
    /// Its network address.
    pub address: Option<IpAddr>,
}

/// Who sent which of a batch's records.
#[derive(Debug, Clone, Default)]
pub struct Senders<'s> {
    /// In the order of the records: a sender, and how many records in a row are its own.
    runs: Vec<(Sender<'s>, usize)>,
}

impl<'s> Senders<'s> {
    /// One sender of all records.
    #[must_use]
    pub fn one(sender: Sender<'s>, rows: usize) -> Self {
        Self { runs: vec![(sender, rows)] }
    }

    /// The next records are of this sender.
    pub fn push(&mut self, sender: Sender<'s>, rows: usize) {
        match self.runs.last_mut() {
            Some((last, known)) if *last == sender => *known += rows,
            _ => self.runs.push((sender, rows)),
        }
    }

    /// The senders, each with how many records in a row are its own.
    #[must_use]
    pub fn runs(&self) -> &[(Sender<'s>, usize)] {
        &self.runs
    }

    /// What is said of each run, as what is said of each record.
    #[must_use]
    pub fn of_records(&self, of_runs: &[u32]) -> Vec<u32> {
        let runs = self.runs.iter().zip(of_runs);
        runs.flat_map(|((_, rows), said)| std::iter::repeat_n(*said, *rows)).collect()
    }
}

/// What a batch says.
pub struct Gathered {
    /// The combination of each record.
    pub of_record: Vec<u32>,
    /// What each combination says: one reading per piece of evidence of the stream, in that order.
    pub combinations: Vec<Vec<Reading>>,
}

/// One column's evidence: the number of a reading for each record, and the readings.
struct Said {
    of_record: Vec<u32>,
    readings: Vec<Reading>,
}

/// What the senders of a batch say of its records.
enum OfSenders {
    /// Nothing: the evidence is in the records.
    Nothing,
    /// The same of every record.
    Same(Reading),
    /// Each something of its own.
    Differ(Said),
}

impl Knowledge {
    /// Reads the evidence of every record of a batch.
    #[must_use]
    pub fn gather(&self, evidence: &[Evidence], columns: &RecordBatch, from: &Senders<'_>) -> Gathered {
        let mut of_record = Vec::new();
        let mut combinations: Vec<Vec<Reading>> = vec![Vec::with_capacity(evidence.len())];
        for evidence in evidence {
            let said = match self.of_senders(evidence, from) {
                OfSenders::Same(reading) => {
                    let reading = self.with_claimants(reading);
                    combinations.iter_mut().for_each(|readings| readings.push(reading.clone()));
                    continue;
                }
                OfSenders::Differ(said) => said,
                OfSenders::Nothing => self.of_columns(evidence, columns),
            };
            let readings = said.readings.into_iter().map(|reading| self.with_claimants(reading));
            let said = Said { readings: readings.collect(), ..said };
            if of_record.is_empty() {
                let before = combinations.pop().unwrap_or_default();
                combinations = said.readings.into_iter().map(|reading| with(&before, reading)).collect();
                of_record = said.of_record;
            } else {
                combine(&mut of_record, &mut combinations, &said);
            }
        }
        if of_record.is_empty() {
            of_record = vec![0; columns.num_rows()];
        }
        Gathered { of_record, combinations }
    }

    /// What who sent the records says of them.
    fn of_senders(&self, evidence: &Evidence, from: &Senders<'_>) -> OfSenders {
        let Some((first, _)) = from.runs.first() else { return OfSenders::Nothing };
        let Some(reading) = self.of_sender(evidence, *first) else { return OfSenders::Nothing };
        if from.runs.len() == 1 || matches!(evidence.source, Source::Always(_)) {
            return OfSenders::Same(reading);
        }
        let sender = |run: usize| from.runs.get(run).map(|(sender, _)| *sender);
        let ask = |sender| self.of_sender(evidence, sender).unwrap_or(Reading::Absent);
        let Said { of_record: of_run, readings } = by_answer(from.runs.len(), sender, ask);
        OfSenders::Differ(Said { of_record: from.of_records(&of_run), readings })
    }

    /// What a sender says of its records. `None`: the evidence is in the records.
    fn of_sender(&self, evidence: &Evidence, from: Sender<'_>) -> Option<Reading> {
        match &evidence.source {
            Source::Always(candidates) => Some(Reading::Codes(Arc::clone(candidates))),
            Source::Producer => {
                let known = self.producers.get(from.producer).and_then(|known| known.facts.get(&evidence.fact));
                Some(known.map_or(Reading::Absent, |candidates| Reading::Codes(Arc::clone(candidates))))
            }
            Source::GeoIp => Some(match (&self.addresses, from.address) {
                (Some(addresses), Some(address)) => addresses.locate(address),
                _ => Reading::Absent,
            }),
            Source::Registry { name, by: None } => {
                let registry = self.registries.get(name);
                Some(registry.map_or(Reading::Absent, |registry| registry.get(from.producer, evidence.fact)))
            }
            _ => None,
        }
    }

    fn of_columns(&self, evidence: &Evidence, columns: &RecordBatch) -> Said {
        let fact = evidence.fact;
        let code = |text: &str| read_code(&self.codes, fact, text);
        match &evidence.source {
            Source::Field(field) if fact == Fact::SourceSystem => by_text(columns.column(*field), code),
            Source::Field(field) => by_code(columns.column(*field), code),
            Source::Phone(field) => by_text(columns.column(*field), phone),
            Source::Iban(field) => by_text(columns.column(*field), iban),
            Source::Registry { name, by: Some(field) } => match self.registries.get(name) {
                Some(registry) => {
                    let of_fact = registry.of(fact);
                    by_answer(columns.num_rows(), text_of(columns.column(*field)), |key| of_fact.get(key))
                }
                None => Said { of_record: vec![0; columns.num_rows()], readings: vec![Reading::Absent] },
            },
            Source::Position { latitude, longitude, radius_m } => {
                let (latitudes, longitudes) = (degrees(columns.column(*latitude)), degrees(columns.column(*longitude)));
                // Half a position is none: NaN cannot be read.
                let both = |row| match (latitudes(row), longitudes(row)) {
                    (None, None) => None,
                    (latitude, longitude) => Some((latitude.unwrap_or(f64::NAN), longitude.unwrap_or(f64::NAN))),
                };
                by_answer(columns.num_rows(), both, |(latitude, longitude)| {
                    self.places.as_ref().map_or(Reading::Absent, |places| places.around(latitude, longitude, *radius_m))
                })
            }
            // The same for every record: not asked here.
            _ => Said { of_record: vec![0; columns.num_rows()], readings: vec![Reading::Absent] },
        }
    }

    /// A reading with the claimants of its disputed codes.
    fn with_claimants(&self, reading: Reading) -> Reading {
        match reading {
            Reading::Codes(codes) if codes.iter().any(|code| self.disputed.contains_key(code)) => {
                let claimants = codes.iter().filter_map(|code| self.disputed.get(code)).flatten();
                let all: BTreeSet<Jurisdiction> = codes.iter().chain(claimants).copied().collect();
                Reading::Codes(all.into_iter().collect())
            }
            other => other,
        }
    }
}

/// What a code or a name says of a fact.
#[must_use]
pub fn read_code(codes: &Codes, fact: Fact, text: &str) -> Reading {
    let code = match fact {
        _ if text.is_empty() => return Reading::Absent,
        Fact::SourceSystem => Some(Jurisdiction::system(text)),
        _ => codes.parse(text),
    };
    match code {
        // Whoever says so says that it is not known.
        Some(Jurisdiction::UNKNOWN) => Reading::Absent,
        Some(code) => Reading::Codes(Arc::new([code])),
        None => Reading::Unreadable,
    }
}

fn with(before: &[Reading], reading: Reading) -> Vec<Reading> {
    before.iter().cloned().chain([reading]).collect()
}

fn combine(of_record: &mut [u32], combinations: &mut Vec<Vec<Reading>>, said: &Said) {
    let mut numbers: HashMap<(u32, u32), u32, RandomState> = HashMap::default();
    let mut joined: Vec<Vec<Reading>> = Vec::new();
    let mut last = None;
    for (before, &reading) in of_record.iter_mut().zip(&said.of_record) {
        let pair = (*before, reading);
        let number = match last {
            Some((known, number)) if known == pair => number,
            _ => *numbers.entry(pair).or_insert_with(|| {
                let readings = combinations.get(pair.0 as usize).map(Vec::as_slice).unwrap_or_default();
                let reading = said.readings.get(pair.1 as usize).cloned().unwrap_or(Reading::Unreadable);
                joined.push(with(readings, reading));
                number_of(joined.len())
            }),
        };
        last = Some((pair, number));
        *before = number;
    }
    *combinations = joined;
}

/// The number of the last of so many.
fn number_of(count: usize) -> u32 {
    u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// A column of codes: what is short enough to be one is compared as a number.
fn by_code(column: &ArrayRef, read: impl Fn(&str) -> Reading) -> Said {
    let texts = column.as_string::<i32>();
    let mut numbers: HashMap<u64, u32, RandomState> = HashMap::default();
    let mut readings: Vec<Reading> = Vec::new();
    let mut last: Option<(u64, u32)> = None;
    // No code packs to either of these.
    const ABSENT: u64 = 0;
    const NO_CODE: u64 = 1;
    let of_record = (0..texts.len()).map(|row| {
        let text = if texts.is_valid(row) { texts.value(row) } else { "" };
        let packed = if text.is_empty() { ABSENT } else { Jurisdiction::pack(text.as_bytes()).unwrap_or(NO_CODE) };
        match last {
            Some((known, number)) if known == packed => number,
            _ => {
                let number = *numbers.entry(packed).or_insert_with(|| {
                    readings.push(read(text));
                    number_of(readings.len())
                });
                last = Some((packed, number));
                number
            }
        }
    });
    Said { of_record: of_record.collect(), readings }
}

/// A column of texts: each distinct one is read once.
fn by_text(column: &ArrayRef, read: impl Fn(&str) -> Reading) -> Said {
    let texts = column.as_string::<i32>();
    let mut numbers: HashMap<&str, u32, RandomState> = HashMap::default();
    let mut readings: Vec<Reading> = Vec::new();
    let of_record = (0..texts.len()).map(|row| {
        let text = if texts.is_valid(row) { texts.value(row) } else { "" };
        *numbers.entry(text).or_insert_with(|| {
            readings.push(if text.is_empty() { Reading::Absent } else { read(text) });
            number_of(readings.len())
        })
    });
    Said { of_record: of_record.collect(), readings }
}

/// Values that are mostly distinct, and answers of which there are few: each value is asked for, and equal answers are
/// one.
fn by_answer<V, R: Borrow<Reading>>(rows: usize, value: impl Fn(usize) -> Option<V>, ask: impl Fn(V) -> R) -> Said {
    let mut numbers: HashMap<usize, u32, RandomState> = HashMap::default();
    let mut readings = vec![Reading::Absent, Reading::Unreadable];
    let mut last = None;
    let of_record = (0..rows).map(|row| {
        let Some(value) = value(row) else { return 0 };
        let answer = ask(value);
        let candidates = match answer.borrow() {
            Reading::Absent => return 0,
            Reading::Unreadable => return 1,
            Reading::Codes(candidates) => candidates,
        };
        let address = Arc::as_ptr(candidates).addr();
        match last {
            Some((known, number)) if known == address => number,
            _ => {
                let number = *numbers.entry(address).or_insert_with(|| {
                    // Kept, so that no other answer can come to have the same address.
                    readings.push(Reading::Codes(Arc::clone(candidates)));
                    number_of(readings.len())
                });
                last = Some((address, number));
                number
            }
        }
    });
    Said { of_record: of_record.collect(), readings }
}

fn text_of<'c>(column: &'c ArrayRef) -> impl Fn(usize) -> Option<&'c str> {
    let texts = column.as_string::<i32>();
    move |row| (texts.is_valid(row) && !texts.value(row).is_empty()).then(|| texts.value(row))
}

/// A column of degrees. The loader lets only floats be positions.
fn degrees(column: &ArrayRef) -> Box<dyn Fn(usize) -> Option<f64> + '_> {
    match column.data_type() {
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            Box::new(move |row| values.is_valid(row).then(|| f64::from(values.value(row))))
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            Box::new(move |row| values.is_valid(row).then(|| values.value(row)))
        }
        _ => Box::new(|_| None),
    }
}
