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

use super::batch::TimeBounds;
use super::binary::{Reader, Writer};
use super::dataset::Dataset;
use super::producer::Producers;
use super::stream::Stream;
use super::window::{Closing, Watermark, micros};

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum Input<'i> {
    /// A producer was heard on a stream, and perhaps has come to an event time: by a record or a promise.
    Heard {
        /// The stream's name.
        stream: &'i str,
        /// The producer's name.
        producer: &'i str,
        /// Microseconds since the Unix epoch.
        event_time: Option<i64>,
    },
    /// Time has passed.
    Tick,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Close the windows of a dataset that began before a time. Records that come later for them go into the first window
    /// after it.
    Close {
        /// The dataset's name.
        dataset: String,
        /// Microseconds since the Unix epoch.
        before: i64,
        /// The watermark that closes them.
        watermark: i64,
    },
}

/// The state of all streams and producers.
#[derive(Debug)]
pub struct Gateway {
    /// The producers' series.
    pub producers: Producers,
    streams: BTreeMap<String, StreamState>,
}

#[derive(Debug)]
struct StreamState {
    watermark: Watermark,
    late_max: Duration,
    future_max: Duration,
    datasets: Vec<(String, Closing)>,
}

impl Gateway {
    /// Streams of which nothing was heard yet.
    pub fn new<'s>(streams: impl Iterator<Item = (&'s Stream, &'s [Arc<Dataset>])>) -> Self {
        let streams = streams.map(|(stream, datasets)| {
            let datasets =
                datasets.iter().map(|dataset| (dataset.name.clone(), Closing::new(dataset.window, dataset.grace)));
            let state = StreamState {
                watermark: Watermark::new(stream.idle_after),
                late_max: stream.late_max,
                future_max: stream.future_max,
                datasets: datasets.collect(),
            };
            (stream.name.clone(), state)
        });
        Self { producers: Producers::default(), streams: streams.collect() }
    }

    /// Takes an input at a monotonic time and adds what is to be done to `effects`.
    pub fn handle(&mut self, input: Input<'_>, now: Duration, effects: &mut Vec<Effect>) {
        match input {
            Input::Heard { stream, producer, event_time } => {
                if let Some(state) = self.streams.get_mut(stream) {
                    state.watermark.observe(producer, event_time, now);
                    state.advance(now, effects);
                }
            }
            Input::Tick => self.streams.values_mut().for_each(|state| state.advance(now, effects)),
        }
    }

    /// The event times that a stream takes, given the wall clock in microseconds since the Unix epoch.
    #[must_use]
    pub fn time_bounds(&mut self, stream: &str, now: Duration, wall: i64) -> TimeBounds {
        let Some(state) = self.streams.get_mut(stream) else {
            return TimeBounds { earliest: i64::MAX, latest: i64::MIN };
        };
        let late_max = micros(state.late_max);
        let earliest = state.watermark.at(now).map_or(i64::MIN, |watermark| watermark.saturating_sub(late_max));
        TimeBounds { earliest, latest: wall.saturating_add(micros(state.future_max)) }
    }

    /// The names of all datasets.
    pub fn datasets(&self) -> impl Iterator<Item = &str> {
        self.streams.values().flat_map(|state| &state.datasets).map(|(dataset, _)| dataset.as_str())
    }

    /// Windows of a dataset that began before this time have closed. `None` until one has.
    #[must_use]
    pub fn closed_before(&self, dataset: &str) -> Option<i64> {
        let datasets = self.streams.values().flat_map(|state| &state.datasets);
        datasets.filter(|(name, _)| name == dataset).find_map(|(_, closing)| closing.before())
    }

    /// What the journal holds of a producer that was heard: as [`Gateway::handle`], but closes nothing; the
    /// journal says what was closed.
    pub fn restore_heard(&mut self, stream: &str, producer: &str, event_time: Option<i64>, now: Duration) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.watermark.observe(producer, event_time, now);
        }
    }

    /// What the journal holds of windows that were closed.
    pub fn restore_closed(&mut self, dataset: &str, before: i64, watermark: i64) {
        for state in self.streams.values_mut() {
            for (_, closing) in state.datasets.iter_mut().filter(|(name, _)| name == dataset) {
                closing.restore(Some(before));
                state.watermark.restore(watermark);
            }
        }
    }

    /// Adds the state to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        self.producers.encode(writer);
        writer.count(self.streams.len());
        for (stream, state) in &self.streams {
            writer.text(stream);
            state.watermark.encode(writer);
            writer.count(state.datasets.len());
            for (dataset, closing) in &state.datasets {
                writer.text(dataset).option(closing.before());
            }
        }
    }

    /// Reads the state from a checkpoint into a new gateway. What is no longer declared is passed over.
    pub fn decode(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.producers = Producers::decode(reader)?;
        self.decode_streams(reader, now, Closing::restore)
    }

    /// Reads the state from a checkpoint of version 2, which holds no outcomes and numbers of windows instead of times.
    pub fn decode_v2(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.producers = Producers::decode_v2(reader)?;
        self.decode_streams(reader, now, Closing::restore_window)
    }

    fn decode_streams(
        &mut self,
        reader: &mut Reader<'_>,
        now: Duration,
        restore: impl Fn(&mut Closing, Option<i64>),
    ) -> Option<()> {
        for _ in 0..reader.count(25)? {
            let mut undeclared = StreamState {
                watermark: Watermark::new(Duration::ZERO),
                late_max: Duration::ZERO,
                future_max: Duration::ZERO,
                datasets: Vec::new(),
            };
            let state = self.streams.get_mut(reader.text()?).unwrap_or(&mut undeclared);
            state.watermark.decode(reader, now)?;
            for _ in 0..reader.count(17)? {
                let dataset = reader.text()?;
                let before = reader.option()?;
                for (_, closing) in state.datasets.iter_mut().filter(|(name, _)| name == dataset) {
                    restore(closing, before);
                }
            }
        }
        Some(())
    }
}

impl StreamState {
    fn advance(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let Some(watermark) = self.watermark.at(now) else { return };
        for (dataset, closing) in &mut self.datasets {
            if let Some(before) = closing.advance(watermark) {
                effects.push(Effect::Close { dataset: dataset.clone(), before, watermark });
            }
        }
    }
}
