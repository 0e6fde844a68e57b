//! The gateway's order of events as a pure state machine: what was heard and when goes in, windows to be
//! closed come out.
//!
//! It decides nothing about records. Its caller holds it under one lock while it takes an input and hands
//! the effects on in the same order; that is what makes "before the window closed" mean the same to every
//! worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::batch::TimeBounds;
use super::dataset::Dataset;
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
    /// Nothing more will come.
    Stop,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Close the windows of a dataset before `open`; records that come later for them go into `open`.
    Close {
        /// The dataset's name.
        dataset: String,
        /// The oldest window that stays open. [`i64::MAX`]: none does.
        open: i64,
    },
}

/// The state of all streams.
#[derive(Debug)]
pub struct Gateway {
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
        Self { streams: streams.collect() }
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
            Input::Stop => {
                for (dataset, _) in self.streams.values().flat_map(|state| &state.datasets) {
                    effects.push(Effect::Close { dataset: dataset.clone(), open: i64::MAX });
                }
            }
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
}

impl StreamState {
    fn advance(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let Some(watermark) = self.watermark.at(now) else { return };
        for (dataset, closing) in &mut self.datasets {
            if let Some(open) = closing.advance(watermark) {
                effects.push(Effect::Close { dataset: dataset.clone(), open });
            }
        }
    }
}
