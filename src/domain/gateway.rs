//! The gateway's order of events as a pure state machine: what was heard and when goes in, windows to be
//! closed come out; and whether a numbered request is the next of its producer.
//!
//! It decides nothing about records. Its caller holds it under one lock while it takes an input and hands
//! the effects on in the same order; that is what makes "before the window closed" mean the same to every
//! worker, and to the journal. What was journaled is told to it again after a crash, and leads to the same
//! state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::binary::{Reader, Writer};
use super::dataset::Dataset;
use super::event_time::TimeBounds;
use super::name::{DatasetName, StreamName};
use super::newcomers::Newcomers;
use super::producer::{self, Producers, RememberedMax, TooMany};
use super::span::WindowSpan;
use super::stream::Stream;
use super::tally::{Tally, Told};
use super::watermark::{self, ActiveMax, Heard, Watermark};
use super::window::{Closing, first_window, micros, window_start};

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Close the windows of a dataset that began before a time. Records that come later for them go into the first window
    /// after it.
    Close {
        /// The dataset's name.
        dataset: DatasetName,
        /// Microseconds since the Unix epoch.
        before: i64,
        /// The watermark that closes them.
        watermark: i64,
        /// What is told of refused records with it.
        refused: Vec<Told>,
    },
}

/// How far the windows of a dataset have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HowFar {
    /// Its name.
    pub dataset: DatasetName,
    /// The end of the last one that has closed, on the grid of windows. `None` until one has.
    pub closed: Option<i64>,
    /// How many there are from the oldest open one that holds records to the newest.
    pub open: u64,
}

/// The state of all streams and producers.
#[derive(Debug)]
pub struct Gateway {
    /// The producers' series.
    pub producers: Producers,
    streams: BTreeMap<StreamName, StreamState>,
}

#[derive(Debug)]
struct StreamState {
    /// `None`: it is not declared any more.
    stream: Option<Arc<Stream>>,
    watermark: Watermark,
    datasets: Vec<DatasetState>,
    /// Refused records that are not told yet.
    refused: Tally,
    /// In steps of so many they are told: the steps of the last checkpoint, so that a replay tells the same.
    step: u64,
    /// The steps from the next checkpoint on.
    next_step: u64,
}

#[derive(Debug)]
struct DatasetState {
    name: DatasetName,
    /// The names of the datasets that share its cells, its own among them.
    names: Vec<DatasetName>,
    /// How far apart its windows begin.
    window: Duration,
    /// For how long a window goes on after the next one has begun.
    overlap: Duration,
    closing: Closing,
    span: WindowSpan,
}

impl DatasetState {
    fn new(dataset: &Dataset) -> Self {
        Self {
            name: dataset.name.clone(),
            names: dataset.released_as().map(|released| released.name.clone()).collect(),
            window: dataset.window,
            overlap: dataset.overlap,
            closing: Closing::new(dataset.window, dataset.overlap, dataset.grace),
            span: WindowSpan::new(dataset.grid(), dataset.open_max),
        }
    }

    /// Whether it is counted for a dataset of this name. One that joined others was written under its own.
    fn is_counted_for(&self, name: &DatasetName) -> bool {
        self.names.contains(name)
    }

    /// Closes what the watermark has passed, but no two windows with records: before which time they began.
    fn close(&mut self, watermark: i64) -> Option<i64> {
        let before = self.span.closes_together(self.closing.passed_by(watermark)?);
        self.restore(|closing| closing.close(before));
        Some(before)
    }

    fn restore(&mut self, closed: impl FnOnce(&mut Closing)) {
        closed(&mut self.closing);
        if let Some(before) = self.closing.before() {
            self.span.close(before);
        }
    }
}

impl Gateway {
    /// Streams of which nothing was heard yet, with the default limits.
    pub fn new<'s>(streams: impl Iterator<Item = (&'s Arc<Stream>, &'s [Arc<Dataset>])>) -> Self {
        Self::with_limits(streams, ActiveMax::default(), RememberedMax::default())
    }

    /// Streams of which nothing was heard yet.
    pub fn with_limits<'s>(
        streams: impl Iterator<Item = (&'s Arc<Stream>, &'s [Arc<Dataset>])>,
        active_max: ActiveMax,
        remembered_max: RememberedMax,
    ) -> Self {
        let streams = streams.map(|(stream, datasets)| {
            let step = datasets.iter().map(|dataset| 2 * dataset.min_contributors as u64).max().unwrap_or(0);
            let state = StreamState {
                stream: Some(Arc::clone(stream)),
                watermark: Watermark::new(stream.idle_after, active_max),
                datasets: datasets.iter().map(|dataset| DatasetState::new(dataset)).collect(),
                refused: Tally::default(),
                step,
                next_step: step,
            };
            (stream.name.clone(), state)
        });
        Self { producers: Producers::new(remembered_max), streams: streams.collect() }
    }

    /// A producer was heard on a stream, and perhaps has come to an event time. Windows close with the next
    /// [`Gateway::advance`]; in a replay the journal says what was closed.
    pub fn hear(&mut self, stream: &StreamName, heard: Heard<'_>, now: Duration) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.watermark.observe(heard, now);
        }
    }

    /// Refused records of a stream are told in steps of so many from the beginning. Without this, the steps are twice the
    /// declared k: the policies may ask for more. A checkpoint that is restored has steps of its own, until the next one.
    pub fn begin_in_steps(&mut self, stream: &StreamName, step: u64) {
        if let Some(state) = self.streams.get_mut(stream) {
            (state.step, state.next_step) = (step, step);
        }
    }

    /// Refused records of a stream are told in steps of so many from the next checkpoint on: what the journal holds after the
    /// last one is replayed with the steps that it was told in.
    pub fn tell_in_steps(&mut self, stream: &StreamName, step: u64) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.next_step = step;
        }
    }

    /// Records of a stream were refused.
    pub fn refused(&mut self, stream: &StreamName, refused: &Tally) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.refused.merge(refused);
        }
    }

    /// Windows of a dataset were closed or released: what is told of its stream's refused records with that. In a replay it
    /// is what was told then, for the journal has the same requests before the same closings.
    pub fn tell_refused(&mut self, dataset: &DatasetName) -> Vec<Told> {
        let is_of = |state: &&mut StreamState| state.datasets.iter().any(|known| known.is_counted_for(dataset));
        self.streams.values_mut().find(is_of).map_or_else(Vec::new, |state| state.refused.tell(state.step))
    }

    /// Moves a stream's watermark on to what was heard of it, and adds what is to be done to `effects`. Of each dataset at most
    /// one window with records closes, so that what leaves together is no more than that: ask again until nothing is added.
    pub fn advance(&mut self, stream: &StreamName, now: Duration, effects: &mut Vec<Effect>) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.advance(now, effects);
        }
    }

    /// Time has passed: moves the watermark of every stream on, and adds what is to be done to `effects`, as
    /// [`Gateway::advance`] does.
    pub fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.streams.values_mut().for_each(|state| state.advance(now, effects));
    }

    /// The event times that a stream takes, given the wall clock in microseconds since the Unix epoch.
    #[must_use]
    pub fn time_bounds(&self, stream: &StreamName, wall: i64) -> TimeBounds {
        let Some(state) = self.streams.get(stream) else { return TimeBounds::NONE };
        let Some(stream) = &state.stream else { return TimeBounds::NONE };
        let bounds = TimeBounds::plausible(stream, wall);
        // A record goes into windows of each set of windows.
        state.datasets.iter().fold(bounds, |bounds, dataset| {
            let bounds = bounds.within(dataset.span);
            match dataset.closing.before() {
                // Where windows overlap, there are none over midnight: the oldest open one begins there.
                Some(before) => {
                    let oldest = dataset.span.grid().begins_after(before);
                    bounds.not_before(oldest.saturating_sub(micros(stream.late_max)))
                }
                None => bounds,
            }
        })
    }

    /// Whether a producer may be heard on a stream beside newcomers that are taken in before it: it is active there or
    /// among them, or one more may be. Says whether it is a newcomer itself.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(
        &mut self,
        stream: &StreamName,
        heard: Heard<'_>,
        now: Duration,
        before: &Newcomers<'_>,
    ) -> Result<bool, TooMany> {
        match self.streams.get_mut(stream) {
            Some(state) => state.watermark.admit(heard, now, before),
            None => Ok(false),
        }
    }

    /// Opens the windows of records that come in, if there may be so many. They were checked against
    /// [`Gateway::time_bounds`], but others may have opened windows since.
    pub fn open_windows(&mut self, stream: &StreamName, oldest: i64, newest: i64) -> bool {
        let Some(state) = self.streams.get_mut(stream) else { return true };
        WindowSpan::open_in_all(state.datasets.iter_mut().map(|dataset| &mut dataset.span), oldest, newest)
    }

    /// The names of what is counted: of datasets that share their cells, that of the first.
    pub fn datasets(&self) -> impl Iterator<Item = &DatasetName> {
        self.streams.values().flat_map(|state| &state.datasets).map(|dataset| &dataset.name)
    }

    /// Windows of a dataset that began before this time have closed. `None` until one has.
    #[must_use]
    pub fn closed_before(&self, dataset: &DatasetName) -> Option<i64> {
        let mut datasets = self.streams.values().flat_map(|state| &state.datasets);
        datasets.find(|state| state.is_counted_for(dataset))?.closing.before()
    }

    /// How far the windows of each dataset have come.
    pub fn windows(&self) -> impl Iterator<Item = HowFar> {
        self.streams.values().flat_map(|state| &state.datasets).flat_map(|dataset| {
            let first = dataset.closing.before().map(|before| first_window(Some(before), dataset.window));
            let closed = first.map(|first| window_start(first, dataset.window).saturating_add(micros(dataset.overlap)));
            let open = dataset.span.windows();
            dataset.names.iter().map(move |name| HowFar { dataset: name.clone(), closed, open })
        })
    }

    /// A window of a dataset is open since before a crash. Those of the checkpoint are known at the start, those of the
    /// journal when it has been counted. Until then, up to twice the limit can be open.
    pub fn restore_window(&mut self, dataset: &DatasetName, window: i64) {
        for state in self.streams.values_mut().flat_map(|state| &mut state.datasets) {
            if state.is_counted_for(dataset) {
                state.span.restore(window);
            }
        }
    }

    /// The journal has records of a stream with this event time, after the checkpoint. Not all are told: others of the same
    /// request can be older.
    pub fn restore_event_time(&mut self, stream: &StreamName, event_time: i64) {
        let datasets = self.streams.get_mut(stream).into_iter().flat_map(|state| &mut state.datasets);
        datasets.for_each(|dataset| dataset.span.restore_event_time(event_time));
    }

    /// What the journal holds of windows that were closed.
    pub fn restore_closed(&mut self, dataset: &DatasetName, before: i64, watermark: i64) {
        for state in self.streams.values_mut() {
            for known in state.datasets.iter_mut().filter(|known| known.is_counted_for(dataset)) {
                known.restore(|closing| closing.restore(Some(before)));
                state.watermark.restore(watermark);
            }
        }
    }

    /// Adds the state to a checkpoint.
    pub fn encode(&mut self, writer: &mut Writer) {
        self.snapshot().encode(writer);
    }

    /// What [`Self::encode`] would write now, to be written later, by another thread: whoever holds the lock around the
    /// gateway need not write a million producers under it. It shares with the gateway what does not change.
    #[must_use]
    pub fn snapshot(&mut self) -> Snapshot {
        let streams = self.streams.iter_mut().map(|(name, state)| {
            state.step = state.next_step;
            // Under each name: one of them may be left alone.
            let closed = state.datasets.iter().flat_map(|dataset| {
                let before = dataset.closing.before();
                dataset.names.iter().map(move |name| (name.clone(), before))
            });
            let closed = closed.collect();
            let (watermark, refused) = (state.watermark.snapshot(), state.refused.clone());
            StreamSnapshot { name: name.clone(), watermark, closed, refused, step: state.step }
        });
        Snapshot { producers: self.producers.snapshot(), streams: streams.collect() }
    }

    /// Reads the state from a checkpoint into a new gateway. What is no longer declared is passed over.
    pub fn decode(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.producers.decode(reader)?;
        let watermark = |watermark: &mut Watermark, reader: &mut Reader<'_>| watermark.decode(reader, now);
        self.decode_streams(reader, watermark, Closing::restore, |state, reader| {
            state.step = reader.varint()?;
            state.refused = Tally::decode(reader)?;
            Some(())
        })
    }

    /// Reads the state from a checkpoint of version 4, which does not say what was refused.
    pub fn decode_v4(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.producers.decode(reader)?;
        self.decode_streams(
            reader,
            |watermark, reader| watermark.decode(reader, now),
            Closing::restore,
            nothing_refused,
        )
    }

    /// Reads the state from a checkpoint of version 3, which does not say when producers were heard.
    pub fn decode_v3(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.producers.decode_v3(reader)?;
        let watermark = |watermark: &mut Watermark, reader: &mut Reader<'_>| watermark.decode_v3(reader, now);
        self.decode_streams(reader, watermark, Closing::restore, nothing_refused)
    }

    /// Reads the state from a checkpoint of version 2, which holds no outcomes either, and numbers of windows instead of
    /// times.
    pub fn decode_v2(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.producers.decode_v2(reader)?;
        let watermark = |watermark: &mut Watermark, reader: &mut Reader<'_>| watermark.decode_v3(reader, now);
        self.decode_streams(reader, watermark, Closing::restore_window, nothing_refused)
    }

    fn decode_streams(
        &mut self,
        reader: &mut Reader<'_>,
        read: impl Fn(&mut Watermark, &mut Reader<'_>) -> Option<()>,
        restore: impl Fn(&mut Closing, Option<i64>),
        refused: impl Fn(&mut StreamState, &mut Reader<'_>) -> Option<()>,
    ) -> Option<()> {
        for _ in 0..reader.count(25)? {
            let watermark = Watermark::new(Duration::ZERO, ActiveMax::default());
            let (datasets, tally) = (Vec::new(), Tally::default());
            let mut undeclared =
                StreamState { stream: None, watermark, datasets, refused: tally, step: 0, next_step: 0 };
            let state = self.streams.get_mut(&StreamName::read(reader)?).unwrap_or(&mut undeclared);
            read(&mut state.watermark, reader)?;
            for _ in 0..reader.count(17)? {
                let dataset = DatasetName::read(reader)?;
                let before = reader.option()?;
                for known in state.datasets.iter_mut().filter(|known| known.is_counted_for(&dataset)) {
                    known.restore(|closing| restore(closing, before));
                }
            }
            refused(state, reader)?;
        }
        Some(())
    }
}

/// A gateway's state as it was at some time.
#[derive(Debug)]
pub struct Snapshot {
    producers: producer::Snapshot,
    streams: Vec<StreamSnapshot>,
}

#[derive(Debug)]
struct StreamSnapshot {
    name: StreamName,
    watermark: watermark::Snapshot,
    /// What has closed of each dataset, with its name.
    closed: Vec<(DatasetName, Option<i64>)>,
    refused: Tally,
    step: u64,
}

/// What checkpoints say of refused records that were written before any was counted.
#[expect(clippy::unnecessary_wraps, reason = "it stands where others read")]
fn nothing_refused(_: &mut StreamState, _: &mut Reader<'_>) -> Option<()> {
    Some(())
}

impl Snapshot {
    /// As [`Gateway::encode`].
    pub fn encode(&self, writer: &mut Writer) {
        self.producers.encode(writer);
        writer.count(self.streams.len());
        for StreamSnapshot { name, watermark, closed, refused, step } in &self.streams {
            writer.text(name);
            watermark.encode(writer);
            writer.count(closed.len());
            for (dataset, before) in closed {
                writer.text(dataset).option(*before);
            }
            writer.varint(*step);
            refused.encode(writer);
        }
    }
}

impl StreamState {
    fn advance(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let Some(watermark) = self.watermark.at(now) else { return };
        for dataset in &mut self.datasets {
            if let Some(before) = dataset.close(watermark) {
                let refused = self.refused.tell(self.step);
                effects.push(Effect::Close { dataset: dataset.name.clone(), before, watermark, refused });
            }
        }
    }
}

#[cfg(test)]
mod tests;
