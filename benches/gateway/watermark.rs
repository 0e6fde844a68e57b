//! What a request costs the watermark, by how many producers its stream knows.

use std::hint::black_box;
use std::time::Duration;

use bailiwick::domain::watermark::{ActiveMax, Heard, Watermark};

use super::{figure, per_record};

/// Requests in one round.
const REQUESTS: usize = 10_000;
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// Prints the figures.
pub(crate) fn run() {
    let alone = active(64);
    figure("watermark, a request among 64 active producers", alone, "ns", None);
    for producers in [10_000, 1_000_000] {
        let time = active(producers);
        figure(&format!("watermark, a request among {producers} active producers"), time, "ns", Some(time / alone));
    }
    let time = after_a_flood();
    figure("watermark, a request after 1,000,000 names that came once", time, "ns", Some(time / alone));
}

/// Producers take turns, and each comes further with every request.
fn active(producers: usize) -> f64 {
    let names: Vec<String> = (0..producers).map(|producer| format!("producer-{producer}")).collect();
    let mut watermark = Watermark::new(IDLE_AFTER, ActiveMax::default());
    for name in &names {
        watermark.observe(Heard { producer: name, address: None, identity: None, event_time: Some(0) }, Duration::ZERO);
    }
    let mut turns = names.iter().cycle().zip(1..);
    per_record(REQUESTS, || {
        for (name, event_time) in turns.by_ref().take(REQUESTS) {
            watermark.observe(
                Heard { producer: name, address: None, identity: None, event_time: Some(event_time) },
                Duration::ZERO,
            );
            black_box(watermark.at(Duration::ZERO));
        }
    })
}

fn after_a_flood() -> f64 {
    let mut watermark = Watermark::new(IDLE_AFTER, ActiveMax::default());
    for name in 0..1_000_000 {
        let name = format!("invented-{name}");
        watermark
            .observe(Heard { producer: &name, address: None, identity: None, event_time: Some(0) }, Duration::ZERO);
    }
    let now = IDLE_AFTER * 2;
    let names: Vec<String> = (0..64).map(|producer| format!("producer-{producer}")).collect();
    let mut turns = names.iter().cycle().zip(1..);
    per_record(REQUESTS, || {
        for (name, event_time) in turns.by_ref().take(REQUESTS) {
            watermark
                .observe(Heard { producer: name, address: None, identity: None, event_time: Some(event_time) }, now);
            black_box(watermark.at(now));
        }
    })
}
