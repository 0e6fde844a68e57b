//! Cells as bytes, for checkpoints: what was counted outlives the process. They begin with their version.
//!
//! Version 6: the policies; each cell's number, records and contributors; of each metric what it keeps, cell by cell; if
//! metrics part the records of a cell, each cell's combinations of parts, each with its number, records and contributors,
//! who are then not among those of the cell; if columns are summed, each cell's portions (of each contributor, or of many
//! together), and then what each cell's producers add to its sums. Contributors are a set, or the word that they are
//! enough: at least 1,000; each alone, or each with who brought it.
//!
//! Version 7 is of a dataset that bounds how many records of one contributor count, and of no other: the policies; each
//! contributor, with each record that may count: its cell, its lot, its combination of parts, its producer, its value in
//! each summed column.
//!
//! Older versions are read. Up to version 5 it was not kept who brought a contributor. So such contributors may all be of
//! any one producer: a window that an older version began leaves under a rule that looks at producers only with what came
//! after, and without its sums. Version 4 kept no portions, so it is not known whether a sum says much about one
//! contributor: in a window that it began, all sums, means and variances are null. Versions before kept the counts of a
//! part and not its contributors, so it is not known whether it may leave: in a window that an older version began, every
//! metric that parts the records is null. Version 3 kept who has a value in an optional field and who has none; version 2
//! kept every set whole; version 1 kept squares of 61 bits, of a fraction only the matches, and nobody apart who has no
//! value.

use super::brought::{Brought, Kept, Person, Producer};
use super::contributors::enough_of;
use super::contributors::{Contributors, ENOUGH};
use super::moments::Moments;
use super::off_ends::{Keeps, OffEnds};
use super::parted::{Combination, Parted};
use super::portions::{Portion, Portions, Shared};
use super::producer_sums::{Known, PRODUCERS_MAX, ProducerSums};
use super::state::State;
use super::{Cells, Contributor};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{Dataset, Function, Metric};
use crate::domain::policy::Digest;

const VERSION: u8 = 6;
/// That of a window whose records are kept by their contributors.
const SAMPLED: u8 = 7;
const _: () = assert!(ENOUGH == 1_000, "what is enough is part of the version");

const FEW: u8 = 0;
const MANY: u8 = 1;
const BROUGHT: u8 = 2;
const LED: u8 = 3;
const SETTLED: u8 = 4;

const NOTHING: u8 = 0;
const MOMENTS: u8 = 1;
const HISTOGRAM: u8 = 2;
const SHARES: u8 = 3;

/// What version 1 to 3 said of an optional field.
const WHOLE: u8 = 0;
const SPLIT: u8 = 1;
const UNKNOWN: u8 = 2;

const NOT_KEPT: u8 = 0;
const KEPT: u8 = 1;
const SHARED: u8 = 2;

/// Cells of a checkpoint from before cells had a version, with the version that they are of.
#[must_use]
pub fn as_version_1(cells: &[u8]) -> Vec<u8> {
    [&[1], cells].concat()
}

impl Cells {
    /// Adds the cells to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        let mut columns = Columns::of(self);
        (0..self.units()).for_each(|slot| columns.add(self, slot));
        writer.raw(&columns.finish().bytes());
    }

    /// Reads cells of a dataset of the very same shape.
    pub fn decode(dataset: &Dataset, reader: &mut Reader<'_>) -> Option<Self> {
        Self::decode_up_to(dataset, enough_of(dataset), reader)
    }

    /// The same with sets that end at another number.
    pub(super) fn decode_up_to(dataset: &Dataset, enough: usize, reader: &mut Reader<'_>) -> Option<Self> {
        let version = reader.u8()?;
        let mut cells = Self::up_to(dataset, enough);
        for _ in 0..reader.count(32)? {
            cells.policies.insert(Digest::from_bytes(reader.array()?));
        }
        if version == SAMPLED || cells.sample.is_some() {
            return cells.decode_sample(version, reader);
        }
        for _ in 0..reader.count(4 + 8 + 1)? {
            let number = reader.u32()?;
            if !cells.slots.can_be(number) || cells.slots.get(number).is_some() {
                return None;
            }
            let slot = cells.slot(number);
            cells.records[slot] = reader.u64()?;
            cells.contributors[slot] = decode_set(version, enough, reader)?;
        }
        for (metric, state) in dataset.metrics.iter().zip(&mut cells.metrics) {
            match version {
                4..=VERSION => state.decode(reader)?,
                1..4 => state.decode_before_version_4(version, metric, cells.records.len(), reader)?,
                _ => return None,
            }
        }
        for parted in &mut cells.parted {
            *parted = if version < 4 { Parted::Unknown } else { decode_parted(enough, reader)? };
        }
        let summed = cells.summed;
        for portions in &mut cells.portions {
            *portions = if version < 5 { Portions::Unknown } else { decode_portions(summed, reader)? };
        }
        if version == VERSION {
            for sums in &mut cells.producer_sums {
                *sums = decode_producer_sums(summed, enough, reader)?;
            }
        }
        if matches!(version, 2 | 3) {
            for _ in 0..dataset.optional_fields().len() * cells.len() {
                pass_presence(version, enough, reader)?;
            }
        }
        cells.set_bytes = (0..cells.len()).map(|slot| cells.bytes_of_sets(slot)).sum();
        Some(cells)
    }

    /// Reads what is kept of each contributor. `None`: the dataset has bounds and had none, or the other way round.
    fn decode_sample(mut self, version: u8, reader: &mut Reader<'_>) -> Option<Self> {
        let sample = self.sample.as_mut().filter(|_| version == SAMPLED)?;
        for _ in 0..reader.count(16 + 8)? {
            sample.decode(|cell| self.slots.can_be(cell), reader)?;
        }
        self.set_bytes = sample.bytes();
        Some(self)
    }
}

/// What is written of cells so far. They stand in columns, in any order. Contributors, with what is kept of them, stand
/// where the cells would.
#[derive(Default)]
pub(super) struct Columns {
    /// The version, the policies, and how many cells there are.
    head: Writer,
    /// Each cell's number, records and contributors.
    cells: Writer,
    /// What each metric keeps.
    metrics: Vec<Writer>,
    /// Each cell's combinations of parts.
    parted: Writer,
    /// What each cell's contributors add to its sums.
    portions: Writer,
    /// What each cell's producers add to them.
    producer_sums: Writer,
}

/// About how many bytes a cell takes in its column, without its contributors.
const FIXED_BYTES: usize = 32;

/// Cells as they were at one moment, as bytes.
pub struct Saved(Vec<Writer>);

impl Columns {
    /// Nothing is written yet of these cells.
    pub(super) fn of(cells: &Cells) -> Self {
        let mut head = Writer::default();
        head.u8(if cells.sample.is_some() { SAMPLED } else { VERSION }).count(cells.policies.len());
        for policy in &cells.policies {
            head.raw(policy.bytes());
        }
        head.count(cells.units());
        if cells.sample.is_some() {
            return Self { head, cells: Writer::with_capacity(cells.set_bytes), ..Self::default() };
        }
        // Room for all at once, which takes memory only as it is filled: a column that grows would be copied, and records
        // would wait for that.
        let metrics = cells.metrics.iter().map(|state| {
            let mut writer = Writer::with_capacity(1 + cells.len() * state.bytes_of_a_cell());
            state.encode_kind(&mut writer);
            writer
        });
        let of_portions = cells.portions.iter().map(|portions| portions.bytes(cells.summed)).sum();
        let of_producers = cells.producer_sums.iter().map(|sums| sums.bytes(cells.summed)).sum();
        let of_sets = cells.set_bytes.saturating_sub(of_portions).saturating_sub(of_producers);
        let (of_cells, of_parted) = if cells.is_parted { (0, of_sets) } else { (of_sets, 0) };
        Self {
            head,
            cells: Writer::with_capacity(cells.len() * FIXED_BYTES + of_cells),
            metrics: metrics.collect(),
            parted: Writer::with_capacity(of_parted),
            portions: Writer::with_capacity(of_portions + cells.portions.len()),
            producer_sums: Writer::with_capacity(of_producers + cells.producer_sums.len()),
        }
    }

    /// Adds a slot's cell to each column, or a contributor.
    pub(super) fn add(&mut self, cells: &Cells, slot: usize) {
        if let Some(sample) = &cells.sample {
            return sample.encode(slot, &mut self.cells);
        }
        self.cells.u32(cells.numbers[slot]).u64(cells.records[slot]);
        encode_set(&cells.contributors[slot], &mut self.cells);
        cells.metrics.iter().zip(&mut self.metrics).for_each(|(state, writer)| state.encode_slot(slot, writer));
        if let Some(parted) = cells.parted.get(slot) {
            encode_parted(parted, &mut self.parted);
        }
        if let Some(portions) = cells.portions.get(slot) {
            encode_portions(portions, cells.summed, &mut self.portions);
        }
        if let Some(sums) = cells.producer_sums.get(slot) {
            encode_producer_sums(sums, cells.summed, cells.enough, &mut self.producer_sums);
        }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        let all = [&self.cells, &self.parted, &self.portions, &self.producer_sums].into_iter().chain(&self.metrics);
        all.map(Writer::len).sum()
    }

    /// When each slot's cell was added.
    pub(super) fn finish(self) -> Saved {
        let after = [self.parted, self.portions, self.producer_sums];
        Saved([self.head, self.cells].into_iter().chain(self.metrics).chain(after).collect())
    }
}

impl Saved {
    /// What [`Cells::encode`] gave at that moment, but for the order of the cells.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let mut whole = Writer::with_capacity(self.0.iter().map(Writer::len).sum());
        for column in self.0 {
            whole.raw(&column.finish());
        }
        whole.finish()
    }
}

fn encode_set(contributors: &Contributors, writer: &mut Writer) {
    match contributors {
        Contributors::Few(set) => {
            writer.u8(FEW).count(set.len());
            for contributor in set {
                writer.u128(*contributor);
            }
        }
        Contributors::Enough => {
            writer.u8(MANY);
        }
        Contributors::Settled => {
            writer.u8(SETTLED);
        }
        Contributors::Brought(brought) => encode_brought(brought, writer),
    }
}

/// A person is all of a contributor's hash but its last 16 bits.
fn encode_person(person: Person, producer: Producer, writer: &mut Writer) {
    writer.u128(u128::from(person) | u128::from(producer.number()));
}

fn encode_brought(brought: &Brought, writer: &mut Writer) {
    match &brought.kept {
        Kept::Settled => {
            writer.u8(SETTLED);
        }
        Kept::Each(each) => {
            writer.u8(BROUGHT).u8(brought.is_enough.into()).count(each.by.len());
            each.by.iter().for_each(|(person, producer)| encode_person(*person, *producer, writer));
        }
        Kept::Led { by, others } => {
            writer.u8(LED).u32(by.number().into()).count(others.len());
            others.iter().for_each(|person| encode_person(*person, Producer::SEVERAL, writer));
        }
    }
}

/// Up to version 2 there were only sets; who brought contributors is kept since version 6.
fn decode_set(version: u8, enough: usize, reader: &mut Reader<'_>) -> Option<Contributors> {
    match if version < 3 { FEW } else { reader.u8()? } {
        FEW => {
            let mut contributors = Contributors::default();
            for _ in 0..reader.count(size_of::<Contributor>())? {
                contributors.insert(reader.u128()?, Producer::UNKNOWN, enough);
            }
            Some(contributors)
        }
        MANY => Some(Contributors::Enough),
        BROUGHT if version == VERSION => {
            let is_enough = reader.u8()? != 0;
            decode_brought(Brought { is_enough, ..Brought::default() }, enough, reader)
        }
        LED if version == VERSION => {
            let by = Producer::of_number(u16::try_from(reader.u32()?).ok()?);
            let led = Kept::Led { by, others: super::brought::People::default() };
            decode_brought(Brought { is_enough: true, kept: led }, enough, reader)
        }
        SETTLED if version == VERSION => Some(Contributors::Settled),
        _ => None,
    }
}

/// The contributors that there are, beside what is known of them.
fn decode_brought(mut brought: Brought, enough: usize, reader: &mut Reader<'_>) -> Option<Contributors> {
    for _ in 0..reader.count(size_of::<Contributor>())? {
        let both = reader.u128()?;
        brought.insert(both.into(), Producer::of_number(both as u16), enough);
    }
    Some(Contributors::of(brought))
}

/// Passes over what versions 2 and 3 said of an optional field in a cell.
fn pass_presence(version: u8, enough: usize, reader: &mut Reader<'_>) -> Option<()> {
    match reader.u8()? {
        WHOLE | UNKNOWN => {}
        SPLIT => {
            decode_set(version, enough, reader)?;
            decode_set(version, enough, reader)?;
        }
        _ => return None,
    }
    Some(())
}

fn encode_parted(parted: &Parted, writer: &mut Writer) {
    let Some(combinations) = parted.in_order() else {
        writer.u8(NOT_KEPT);
        return;
    };
    writer.u8(KEPT).count(combinations.len());
    for (number, kept) in combinations {
        writer.u64(number).u64(kept.records);
        encode_set(&kept.contributors, writer);
    }
}

fn decode_parted(enough: usize, reader: &mut Reader<'_>) -> Option<Parted> {
    match reader.u8()? {
        NOT_KEPT => Some(Parted::Unknown),
        KEPT => {
            let combinations = (0..reader.count(8 + 8 + 1)?).map(|_| {
                let (number, records) = (reader.u64()?, reader.u64()?);
                Some((number, Combination { records, contributors: decode_set(VERSION, enough, reader)? }))
            });
            Some(Parted::Known(combinations.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

fn encode_portion(portion: Portion, writer: &mut Writer) {
    writer.u64(portion.above).u64(portion.below);
}

fn decode_portion(reader: &mut Reader<'_>) -> Option<Portion> {
    Some(Portion { above: reader.u64()?, below: reader.u64()? })
}

fn encode_portions(portions: &Portions, summed: usize, writer: &mut Writer) {
    match portions {
        Portions::Unknown => {
            writer.u8(NOT_KEPT);
        }
        Portions::Each { at, portions } => {
            writer.u8(KEPT).count(at.len());
            for (key, known) in at {
                writer.u64(*key);
                let own = portions.iter().skip(known.place as usize).take(summed);
                own.for_each(|portion| encode_portion(*portion, writer));
            }
        }
        Portions::Shared(shared) => {
            writer.u8(SHARED);
            shared.portions.iter().for_each(|portion| encode_portion(*portion, writer));
            for marks in &shared.marks {
                writer.u64(*marks);
            }
        }
    }
}

fn decode_portions(summed: usize, reader: &mut Reader<'_>) -> Option<Portions> {
    match reader.u8()? {
        NOT_KEPT => Some(Portions::Unknown),
        KEPT => {
            let mut portions = Portions::default();
            for _ in 0..reader.count(8 + 16 * summed)? {
                let key = reader.u64()?;
                let (place, _) = portions.place(key, summed);
                for column in 0..summed {
                    portions.add(place, summed, column, decode_portion(reader)?);
                }
            }
            Some(portions)
        }
        SHARED => {
            let mut shared = Shared::new(summed);
            for portion in &mut shared.portions {
                *portion = decode_portion(reader)?;
            }
            for marks in &mut shared.marks {
                *marks = reader.u64()?;
            }
            Some(Portions::Shared(Box::new(shared)))
        }
        _ => None,
    }
}

fn encode_producer_sums(sums: &ProducerSums, summed: usize, enough: usize, writer: &mut Writer) {
    let Some(known) = &sums.0 else {
        writer.u8(NOT_KEPT);
        return;
    };
    writer.u8(if known.is_coarse { SHARED } else { KEPT }).count(known.totals.len());
    for (producer, totals) in &known.totals {
        writer.u32((*producer).into());
        totals.iter().for_each(|total| encode_portion(*total, writer));
    }
    (0..2 * summed).for_each(|end| encode_off_end(&known.off_ends, end, enough, writer));
}

/// As a set of contributors is written.
fn encode_off_end(off_ends: &OffEnds, end: usize, enough: usize, writer: &mut Writer) {
    let known = off_ends.known(end);
    match off_ends.keeps(end) {
        Keeps::Settled => writer.u8(SETTLED),
        Keeps::Led(by) => writer.u8(LED).u32(by.number().into()).count(known),
        Keeps::Each if known == 0 => writer.u8(FEW).count(0),
        Keeps::Each => writer.u8(BROUGHT).u8((known >= enough).into()).count(known),
    };
    off_ends.people(end).for_each(|(person, producer)| encode_person(person, producer, writer));
}

fn decode_producer_sums(summed: usize, enough: usize, reader: &mut Reader<'_>) -> Option<ProducerSums> {
    let is_coarse = match reader.u8()? {
        NOT_KEPT => return Some(ProducerSums::default()),
        KEPT => false,
        SHARED => true,
        _ => return None,
    };
    let mut known = Known { is_coarse, ..Known::new(summed) };
    for _ in 0..reader.count(4 + 16 * summed)? {
        let producer = u16::try_from(reader.u32()?).ok()?;
        let totals = (0..summed).map(|_| decode_portion(reader)).collect::<Option<_>>()?;
        known.totals.insert(producer, totals);
    }
    for end in 0..2 * summed {
        known.off_ends.put(end, &decode_set(VERSION, enough, reader)?, enough);
    }
    known.off_ends.end(enough);
    (known.totals.len() <= PRODUCERS_MAX).then(|| ProducerSums(Some(Box::new(known))))
}

impl State {
    /// What stands before what is kept of the cells.
    fn encode_kind(&self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Count | Self::Parts | Self::Same(_) => NOTHING,
            Self::Moments(_) => MOMENTS,
        });
    }

    /// What is kept of one cell.
    fn encode_slot(&self, slot: usize, writer: &mut Writer) {
        if let Self::Moments(moments) = self {
            moments[slot].encode(writer);
        }
    }

    /// Reads what was kept of the cells that there are.
    fn decode(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        match (reader.u8()?, self) {
            (NOTHING, Self::Count | Self::Parts | Self::Same(_)) => {}
            (MOMENTS, Self::Moments(moments)) => {
                for moments in moments {
                    *moments = Moments::decode(reader)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// The same of versions 1 to 3: the counts of a histogram and of a fraction are passed over.
    fn decode_before_version_4(
        &mut self,
        version: u8,
        metric: &Metric,
        cells: usize,
        reader: &mut Reader<'_>,
    ) -> Option<()> {
        let (counts, moments_of_version_1) = match (&metric.function, version) {
            (Function::Histogram { edges, .. }, _) => (Some((HISTOGRAM, edges.len().saturating_sub(1))), None),
            (Function::Fraction { .. }, 1) => (Some((SHARES, 1)), None),
            (Function::Fraction { .. }, _) => (Some((SHARES, 2)), None),
            (function, 1) => (None, function.measure()),
            _ => (None, None),
        };
        if let Some((kind, each)) = counts {
            if reader.u8()? != kind {
                return None;
            }
            return (0..cells.checked_mul(each)?).try_for_each(|_| reader.u64().map(drop));
        }
        let (Self::Moments(moments), Some(measure)) = (&mut *self, moments_of_version_1) else {
            return self.decode(reader);
        };
        if reader.u8()? != MOMENTS {
            return None;
        }
        for moments in moments {
            let (values, sum, squares) = (reader.u64()?, reader.i128()?, reader.i128()?);
            *moments = Moments::of_version_1(measure, values, sum, squares)?;
        }
        Some(())
    }
}
