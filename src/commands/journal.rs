//! `bailiwick journal`: what is on disk, for whoever has to know at three in the morning. `inspect` and
//! `verify` only read, also beside a gateway that runs; `repair` sets aside and never deletes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use indicatif::{HumanBytes, HumanCount, HumanDuration};

use crate::adapters::journal::{self, FileSystem, RealFileSystem, Report, Wrong};
use crate::delivery::Cursor;
use crate::domain::policy::RegimeSet;
use crate::domain::printable;
use crate::domain::producer::Lsn;
use crate::durable::checkpoint::Checkpoint;
use crate::durable::entry::Entry;
use crate::durable::outbox::Closing;
use crate::encode::rfc3339;
use crate::intake::wall_clock;

use super::Failure;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Say what is there.
    Inspect,
    /// Say it, and fail if something is damaged.
    Verify,
    /// Set aside what is damaged, and go on with the rest.
    Repair,
}

/// Looks at the directory that `[journal] directory` names. The report for stdout.
///
/// # Errors
/// When it cannot be read, or is damaged and was only to be verified.
pub fn journal(task: Task, directory: &Path) -> Result<String, Failure> {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let checkpoint = Checkpoint::newest(&*fs, &directory.join("checkpoints"))
        .with_context(|| format!("no journal in {}", directory.display()))?;
    let counted = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.lsn);
    let mut text = String::new();
    let mut is_sound = true;
    for (name, kind) in [("log", Kind::Journal { counted }), ("outbox", Kind::Outbox)] {
        let of = directory.join(name);
        let cannot = || format!("cannot read {}", of.display());
        let found = match task {
            Task::Repair => journal::repair(&*fs, &of).with_context(|| format!("cannot repair {}", of.display()))?,
            Task::Inspect | Task::Verify => journal::inspect(&*fs, &of).with_context(cannot)?,
        };
        is_sound &= found.is_sound();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} in {}", kind.title(), of.display());
        segments(&mut text, &found, &kind);
        let mut entries = journal::entries(Arc::clone(&fs), &of).with_context(cannot)?;
        let held = match kind {
            Kind::Journal { counted } => accepted(&mut entries, counted),
            Kind::Outbox => releases(&mut entries, &*fs, &directory.join("cursors")),
        };
        text.push_str(&held.with_context(cannot)?);
    }
    match &checkpoint {
        Some(checkpoint) => {
            let (windows, lsn) = (checkpoint.windows.len(), checkpoint.lsn);
            let _ = writeln!(text, "checkpoint: everything through {lsn}; parts of open windows: {windows}");
        }
        None => text.push_str("checkpoint: none\n"),
    }
    if !is_sound && task == Task::Verify {
        return Err(anyhow::anyhow!("{text}\ndamaged").into());
    }
    let _ = writeln!(text, "{}", if is_sound { "sound" } else { "damaged: see above" });
    Ok(text)
}

enum Kind {
    /// What a checkpoint has counted is not lost when the entry is.
    Journal {
        counted: Lsn,
    },
    Outbox,
}

impl Kind {
    fn title(&self) -> &'static str {
        match self {
            Self::Journal { .. } => "journal",
            Self::Outbox => "outbox",
        }
    }

    fn lost(&self, (first, last): (Lsn, Lsn)) -> String {
        match self {
            Self::Journal { counted } if last <= *counted => "nothing is lost: the checkpoint has counted them".into(),
            Self::Journal { counted } => format!("lost: up to {} entries", last - first.max(counted + 1) + 1),
            Self::Outbox => format!("lost, unless they were sent: up to {} entries", last - first + 1),
        }
    }
}

fn segments(text: &mut String, found: &Report, kind: &Kind) {
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
    for damage in &found.damage {
        let what = match damage.what {
            Wrong::Header => "the header cannot be read",
            Wrong::Frames => "frames cannot be read",
            Wrong::Missing => "entries are missing",
        };
        let (first, last) = damage.lsns;
        let (from, to) = (damage.bytes.start, damage.bytes.end);
        let lost = kind.lost(damage.lsns);
        let _ = writeln!(text, "  DAMAGE in {}, bytes {from} to {to}: {what}, {first} to {last}; {lost}", damage.file);
    }
}

#[derive(Default)]
struct Held {
    records: u64,
    to_count: u64,
    since: Option<i64>,
}

/// What the journal holds: records by stream and producer, how old, and how many no checkpoint has.
fn accepted(entries: &mut journal::Reader, counted: Lsn) -> anyhow::Result<String> {
    let mut held: BTreeMap<(String, String), Held> = BTreeMap::new();
    let mut sealed: BTreeMap<RegimeSet, u64> = BTreeMap::new();
    let (mut closed, mut unknown) = (0_u64, 0_u64);
    while let Some(entry) = entries.next()? {
        match Entry::decode(&entry.payload) {
            Some(Entry::Batch(batch)) => {
                for request in &batch.requests {
                    let held = held.entry((batch.head.stream.to_owned(), request.producer.to_owned())).or_default();
                    held.records += u64::from(request.rows);
                    held.to_count += if entry.lsn > counted { u64::from(request.rows) } else { 0 };
                    held.since = Some(held.since.map_or(batch.head.at, |since| since.min(batch.head.at)));
                }
                if !batch.head.regimes.is_empty() {
                    let rows = u64::from(batch.rows());
                    *sealed.entry(batch.head.regimes).or_default() += rows;
                }
            }
            Some(Entry::Closed { .. } | Entry::Flushed { .. }) => closed += 1,
            Some(Entry::Heard { .. } | Entry::Spent { .. }) => {}
            None => unknown += 1,
        }
    }
    let mut text = String::new();
    for ((stream, producer), held) in held {
        let (stream, producer) = (printable::line(&stream), printable::line(&producer));
        let since = held.since.map(age).unwrap_or_default();
        let _ = writeln!(
            text,
            "  stream {stream}, producer {producer}: {} records, the oldest accepted {since}; no checkpoint has {} of them",
            HumanCount(held.records),
            HumanCount(held.to_count)
        );
    }
    for (regimes, records) in sealed {
        let keys = if regimes.len() == 1 { "the key of" } else { "all the keys of" };
        let regimes = regimes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "  sealed under {keys} {regimes}: {} records", HumanCount(records));
    }
    let _ = writeln!(text, "  closings: {}", HumanCount(closed));
    if unknown > 0 {
        let _ = writeln!(text, "  entries of no known kind, perhaps of a newer version: {}", HumanCount(unknown));
    }
    Ok(text)
}

/// What the outbox holds: releases by destination, and how many it has not confirmed.
fn releases(entries: &mut journal::Reader, fs: &dyn FileSystem, cursors: &Path) -> anyhow::Result<String> {
    let mut cursor: BTreeMap<String, Cursor> = BTreeMap::new();
    let mut held: BTreeMap<String, (u64, u64, Option<i64>)> = BTreeMap::new();
    while let Some(entry) = entries.next()? {
        let Some(closing) = Closing::decode(&entry.payload) else {
            bail!("entry {} is of no known kind", entry.lsn);
        };
        for released in &closing.releases {
            let destination = released.destination();
            if !cursor.contains_key(destination) {
                cursor.insert(destination.to_owned(), Cursor::peek(fs, cursors, destination)?);
            }
            let confirmed = cursor.get(destination).is_some_and(|cursor| cursor.has(released.dataset(), entry.lsn));
            let (all, waiting, oldest) = held.entry(destination.to_owned()).or_default();
            *all += 1;
            if !confirmed {
                *waiting += 1;
                let end = released.window_end();
                *oldest = Some(oldest.map_or(end, |oldest: i64| oldest.min(end)));
            }
        }
    }
    let mut text = String::new();
    for (destination, (all, waiting, oldest)) in held {
        let oldest = oldest.map(|end| format!(", the oldest of a window that ended {}", rfc3339(end)));
        let _ = writeln!(
            text,
            "  destination {destination}: {} releases, not confirmed {}{}",
            HumanCount(all),
            HumanCount(waiting),
            oldest.unwrap_or_default()
        );
    }
    Ok(text)
}

fn age(at: i64) -> String {
    let micros = wall_clock().as_microsecond().saturating_sub(at);
    let age = std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    format!("{} ago ({})", HumanDuration(age), rfc3339(at))
}
