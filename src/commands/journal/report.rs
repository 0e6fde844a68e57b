//! The report on a journal, as text and as JSON.

use std::fmt::Write as _;

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use serde_json::{Value, json};

use crate::app::losses::Loss;
use crate::clock::wall_clock;
use crate::domain::counting::{Day, date_of};
use crate::domain::printable;
use crate::egress::encode::rfc3339;
use crate::storage::Report;

use super::Found;
use super::held::{Budgets, Counters, Privacy, Records};

/// The report for a person.
pub(super) fn text(found: &Found<'_>) -> String {
    // Writing to a string does not fail.
    let mut text = String::new();
    let _ = writeln!(text, "journal in {}", found.directory.join("log").display());
    segments(&mut text, &found.log, &found.journal_losses);
    records(&mut text, &found.records);
    let _ = writeln!(text, "outbox in {}", found.directory.join("outbox").display());
    segments(&mut text, &found.outbox, &found.outbox_losses);
    for (destination, held) in &found.releases.destinations {
        let oldest = held.oldest.map(|end| format!(", the oldest of a window that ended {}", rfc3339(end)));
        let _ = writeln!(
            text,
            "  destination {}: {} releases, not confirmed {}{}",
            printable::line(destination),
            HumanCount(held.releases),
            HumanCount(held.waiting),
            oldest.unwrap_or_default()
        );
    }
    match &found.checkpoint {
        Some(checkpoint) => {
            let _ = writeln!(text, "checkpoint: everything through {}", checkpoint.lsn);
            for (dataset, windows) in checkpoint.open_windows() {
                let starts: Vec<String> = windows.into_iter().map(|(number, began)| start(number, began)).collect();
                let which = match starts.as_slice() {
                    [one] => format!("one open window, which began {one}"),
                    [first, .., last] => format!("{} open windows, which began {first} to {last}", starts.len()),
                    [] => continue,
                };
                let _ = writeln!(text, "  dataset {}: {which}", printable::line(dataset));
            }
        }
        None => text.push_str("checkpoint: none\n"),
    }
    losses(&mut text, &found.checkpoint_losses);
    if let Some(found) = &found.counters {
        counters(&mut text, found);
    }
    if let Some(found) = &found.privacy {
        privacy(&mut text, found);
    }
    budgets(&mut text, &found.budgets);
    let is_sound = found.losses().next().is_none();
    let _ = writeln!(text, "{}", if is_sound { "sound" } else { "damaged: see above" });
    text
}

/// When a window began; its number, where the checkpoint does not say how long a window is.
fn start(number: i64, start: Option<i64>) -> String {
    start.map_or_else(|| format!("(window {number})"), rfc3339)
}

fn losses(text: &mut String, losses: &[Loss]) {
    for loss in losses {
        let _ = writeln!(text, "  DAMAGE {loss}");
    }
}

fn segments(text: &mut String, found: &Report, damage: &[Loss]) {
    let (first, last) = (found.first, found.last);
    let _ = writeln!(
        text,
        "  {} segments, {}; {} entries, {first} to {last}; {} bytes at the end were never acked; set aside: {}",
        found.segments.len(),
        HumanBytes(found.bytes),
        HumanCount(found.entries),
        found.torn_bytes,
        found.set_aside
    );
    for segment in &found.segments {
        let state = if segment.is_superseded { ", superseded" } else { "" };
        let _ = writeln!(
            text,
            "    {}: {} entries, {} to {}, {}{state}",
            segment.file,
            HumanCount(segment.entries),
            segment.first,
            segment.last,
            HumanBytes(segment.bytes)
        );
        for (first, last) in &segment.known_gaps {
            let _ = writeln!(text, "      repaired before: {first} to {last} are missing");
        }
    }
    losses(text, damage);
}

fn counters(text: &mut String, found: &Counters) {
    let (counts, lost) = (&found.counts, found.lost_before.map(day));
    let _ = writeln!(text, "counters of laws: {} counts", counts.len());
    segments(text, &found.log, &found.losses);
    for (name, persons, has_others) in counts {
        let others = if *has_others { ", and others that it does not list" } else { "" };
        let (counter, to) = (printable::line(&name.counter), printable::line(&name.to));
        let _ = writeln!(text, "  {counter} to {to}: {} persons{others}", HumanCount(*persons as u64));
    }
    if let Some(day) = lost {
        let _ = writeln!(text, "  counts before {day} were lost; no room until the period is over");
    }
}

fn privacy(text: &mut String, found: &Privacy) {
    let _ = writeln!(text, "budgets of privacy: {} charges", HumanCount(found.charges as u64));
    segments(text, &found.log, &found.losses);
    if let Some(day) = found.unknown_through.map(day) {
        let _ = writeln!(text, "  nothing is left of the days through {day}: what was spent is not known");
    }
}

fn budgets(text: &mut String, found: &Budgets) {
    if found.left.is_empty() && found.losses.is_empty() {
        return;
    }
    text.push_str("budgets of bytes\n");
    for (destination, (left, at)) in &found.left {
        let (destination, at) = (printable::line(destination), rfc3339(*at));
        let _ = writeln!(text, "  destination {destination}: {left} bytes were left at {at}");
    }
    losses(text, &found.losses);
}

fn day(day: Day) -> String {
    date_of(day).map_or_else(|| format!("day {day}"), |date| date.to_string())
}

fn records(text: &mut String, found: &Records) {
    for ((stream, producer), held) in &found.streams {
        let since = held.since.map(age).unwrap_or_default();
        let series =
            found.series.get(producer).map(|number| format!("; epoch {}, sequence {}", number.epoch, number.sequence));
        let _ = writeln!(
            text,
            "  stream {}, producer {}: {} records, the oldest accepted {since}; no checkpoint has {} of them{}",
            printable::line(stream),
            printable::line(producer),
            HumanCount(held.records),
            HumanCount(held.to_count),
            series.unwrap_or_default()
        );
    }
    for (regimes, records) in &found.sealed {
        let keys = if regimes.len() == 1 { "the key of" } else { "all the keys of" };
        let regimes = regimes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "  sealed under {keys} {regimes}: {} records", HumanCount(*records));
    }
    let _ = writeln!(text, "  closings: {}", HumanCount(found.closings));
    for (dataset, through) in &found.closed_through {
        let (dataset, through) = (printable::line(dataset), rfc3339(*through));
        let _ = writeln!(text, "    dataset {dataset}: windows are closed, with their grace, through {through}");
    }
    if found.unknown > 0 {
        let unknown = HumanCount(found.unknown);
        let _ = writeln!(text, "  entries of an unknown kind, perhaps of a newer version: {unknown}");
    }
}

fn age(at: i64) -> String {
    let micros = wall_clock().as_microsecond().saturating_sub(at);
    let age = std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    format!("{} ago ({})", HumanDuration(age), rfc3339(at))
}

/// The report for a program.
pub(super) fn json(found: &Found<'_>) -> String {
    let records = found.records.streams.iter().map(|((stream, producer), held)| {
        let series = found.records.series.get(producer);
        json!({
            "stream": stream.as_str(),
            "producer": producer,
            "records": held.records,
            "in_no_checkpoint": held.to_count,
            "oldest_accepted": held.since.map(rfc3339),
            "epoch": series.map(|number| number.epoch),
            "sequence": series.map(|number| number.sequence),
        })
    });
    let sealed = found
        .records
        .sealed
        .iter()
        .map(|(regimes, records)| json!({ "regimes": regimes.iter().collect::<Vec<_>>(), "records": records }));
    let closed =
        found.records.closed_through.iter().map(|(dataset, through)| (dataset.into(), rfc3339(*through).into()));
    let destinations = found.releases.destinations.iter().map(|(destination, held)| {
        json!({
            "destination": destination.as_str(),
            "releases": held.releases,
            "not_confirmed": held.waiting,
            "oldest_window_end": held.oldest.map(rfc3339),
        })
    });
    let report = json!({
        "directory": found.directory.display().to_string(),
        "is_sound": found.losses().next().is_none(),
        "journal": {
            "log": log(&found.log, &found.journal_losses),
            "records": records.collect::<Vec<_>>(),
            "sealed": sealed.collect::<Vec<_>>(),
            "closings": found.records.closings,
            "closed_through": closed.collect::<serde_json::Map<String, Value>>(),
            "unknown_entries": found.records.unknown,
        },
        "outbox": {
            "log": log(&found.outbox, &found.outbox_losses),
            "destinations": destinations.collect::<Vec<_>>(),
        },
        "checkpoint": found.checkpoint.as_ref().map(|checkpoint| {
            let open = checkpoint.open_windows().into_iter().map(|(dataset, windows)| {
                json!({ "dataset": dataset.as_str(), "starts": windows.into_iter().map(|(number, began)| start(number, began)).collect::<Vec<_>>() })
            });
            json!({
                "through": checkpoint.lsn,
                "parts_of_open_windows": checkpoint.windows.len(),
                "open_windows": open.collect::<Vec<_>>(),
            })
        }),
        "counters": found.counters.as_ref().map(|found| {
            let counts = found.counts.iter().map(|(name, persons, has_others)| {
                json!({ "counter": name.counter, "to": name.to, "persons": persons, "has_others": has_others })
            });
            json!({
                "log": log(&found.log, &found.losses),
                "counts": counts.collect::<Vec<_>>(),
                "lost_before": found.lost_before.map(day),
            })
        }),
        "privacy": found.privacy.as_ref().map(|found| {
            json!({
                "log": log(&found.log, &found.losses),
                "charges": found.charges,
                "unknown_through": found.unknown_through.map(day),
            })
        }),
        "budgets": {
            "destinations": found.budgets.left.iter().map(|(destination, (left, at))| {
                json!({ "destination": destination, "left_bytes": left, "at": rfc3339(*at) })
            }).collect::<Vec<_>>(),
            "damage": found.budgets.losses.iter().map(loss).collect::<Vec<_>>(),
        },
        "damage": found.checkpoint_losses.iter().map(loss).collect::<Vec<_>>(),
    });
    crate::commands::json::print(&report)
}

fn log(found: &Report, losses: &[Loss]) -> Value {
    let segments = found.segments.iter().map(|segment| {
        json!({
            "file": segment.file,
            "first": segment.first,
            "last": segment.last,
            "entries": segment.entries,
            "bytes": segment.bytes,
            "is_superseded": segment.is_superseded,
            "repaired_gaps": segment.known_gaps,
        })
    });
    json!({
        "first": found.first,
        "last": found.last,
        "entries": found.entries,
        "bytes": found.bytes,
        "never_acked_bytes": found.torn_bytes,
        "set_aside": found.set_aside,
        "segments": segments.collect::<Vec<_>>(),
        "damage": losses.iter().map(loss).collect::<Vec<_>>(),
    })
}

fn loss(loss: &Loss) -> Value {
    json!({ "what": loss.to_string(), "entries": loss.lsns() })
}
