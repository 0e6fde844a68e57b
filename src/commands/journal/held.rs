//! What the entries of the journal and of the outbox hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::app::losses::Loss;
use crate::domain::counting::{Day, Name};
use crate::domain::gateway::Gateway;
use crate::domain::name::{DatasetName, DestinationName, StreamName};
use crate::domain::policy::RegimeSet;
use crate::domain::producer::{Number, Producers};
use crate::durable::checkpoint::Checkpoint;
use crate::durable::entry::Entry;
use crate::durable::outbox::Closing;
use crate::durable::{counting, spending};
use crate::egress::budget::Budget;
use crate::egress::delivery::Cursor;
use crate::storage::{self, FileSystem, Lsn, Report};

/// What the journal holds.
#[derive(Default)]
pub(super) struct Records {
    /// By stream and producer.
    pub(super) streams: BTreeMap<(StreamName, String), Held>,
    /// How far each producer of them is that numbers its requests.
    pub(super) series: BTreeMap<String, Number>,
    /// Records that are sealed, by the regimes whose keys open them.
    pub(super) sealed: BTreeMap<RegimeSet, u64>,
    /// The event time through which the windows of each dataset were closed last.
    pub(super) closed_through: BTreeMap<DatasetName, i64>,
    /// Closings.
    pub(super) closings: u64,
    /// Entries of no known kind.
    pub(super) unknown: u64,
}

/// Records of one stream and producer.
#[derive(Default)]
pub(super) struct Held {
    /// How many.
    pub(super) records: u64,
    /// How many no checkpoint has.
    pub(super) to_count: u64,
    /// When the oldest was accepted.
    pub(super) since: Option<i64>,
}

/// What the outbox holds.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) destinations: BTreeMap<DestinationName, Waiting>,
    /// The greatest position of the journal that a closing in it names.
    pub(super) last_closed: Lsn,
}

/// Releases for one destination.
#[derive(Default)]
pub(super) struct Waiting {
    /// How many.
    pub(super) releases: u64,
    /// How many it has not confirmed.
    pub(super) waiting: u64,
    /// When the window of the oldest of those ended.
    pub(super) oldest: Option<i64>,
}

/// The budgets of bytes of the destinations.
#[derive(Default)]
pub(super) struct Budgets {
    /// What each had left when it was written last, and when, in microseconds since the Unix epoch.
    pub(super) left: BTreeMap<String, (u64, i64)>,
    /// Those that are damaged.
    pub(super) losses: Vec<Loss>,
}

/// Reads budgets of bytes, of these files.
pub(super) fn budgets(fs: &dyn FileSystem, directory: &Path, files: Vec<String>) -> anyhow::Result<Budgets> {
    let mut budgets = Budgets::default();
    for destination in slots(files) {
        match Budget::peek(fs, directory, &destination)? {
            Some(left) => {
                budgets.left.insert(destination, left);
            }
            None => budgets.losses.push(Loss::Budget { destination }),
        }
    }
    Ok(budgets)
}

/// What the counters of laws hold.
pub(super) struct Counters {
    /// Their log.
    pub(super) log: Report,
    /// What is wrong with it.
    pub(super) losses: Vec<Loss>,
    /// Each count, with how many persons are listed, and whether there are others.
    pub(super) counts: Vec<(Arc<Name>, usize, bool)>,
    /// The day before which counts were lost.
    pub(super) lost_before: Option<Day>,
}

/// What the budgets of differential privacy hold.
pub(super) struct Privacy {
    /// Their log.
    pub(super) log: Report,
    /// What is wrong with it.
    pub(super) losses: Vec<Loss>,
    /// How many windows were charged, of the days that are known.
    pub(super) charges: usize,
    /// The day through which nothing is left, because what was spent is not known.
    pub(super) unknown_through: Option<Day>,
}

/// Reads the budgets of privacy, of whose log this was found.
pub(super) fn privacy(fs: &Arc<dyn FileSystem>, journal: &Path, log: Report) -> anyhow::Result<Privacy> {
    let damage = log.damage.iter();
    let mut losses: Vec<Loss> = damage.map(|damage| Loss::Privacy { damage: damage.clone() }).collect();
    let (mut charges, mut unknown_through) = (0, None);
    let mut unknown = |what: String| losses.push(Loss::PrivacyUnknown { what });
    if Loss::of_emptied(&**fs, journal, spending::DIRECTORY)?.is_some() {
        unknown(format!("`{}` holds no segment", spending::DIRECTORY));
    }
    match spending::look(Arc::clone(fs), journal) {
        Ok((spending, has_no_beginning)) => {
            (charges, unknown_through) = (spending.charges().count(), spending.unknown_through());
            if has_no_beginning {
                unknown(format!("the beginning of `{}` is missing", spending::DIRECTORY));
            }
        }
        Err(error @ spending::Error::Unreadable(_)) => unknown(error.to_string()),
        Err(error) => return Err(error).with_context(|| format!("budgets of privacy in {}", journal.display())),
    }
    Ok(Privacy { log, losses, charges, unknown_through })
}

/// Reads the counters of laws, of whose log this was found.
pub(super) fn counters(fs: &Arc<dyn FileSystem>, journal: &Path, log: Report) -> anyhow::Result<Counters> {
    let damage = log.damage.iter();
    let mut losses: Vec<Loss> = damage.map(|damage| Loss::Counters { damage: damage.clone() }).collect();
    let (mut counts, mut lost_before) = (Vec::new(), None);
    if log.segments.is_empty() {
        return Ok(Counters { log, losses, counts, lost_before });
    }
    match counting::look(Arc::clone(fs), journal) {
        Ok((found, is_keyless)) => {
            (counts, lost_before) = (found.counts(), found.lost_before());
            if is_keyless {
                losses.push(Loss::CountersUnknown { what: "the secret of the counters is missing".to_owned() });
            }
        }
        Err(error @ counting::Error::Unreadable(_)) => losses.push(Loss::CountersUnknown { what: error.to_string() }),
        Err(error) => return Err(error).with_context(|| format!("counters in {}", journal.display())),
    }
    Ok(Counters { log, losses, counts, lost_before })
}

/// Reads the journal.
pub(super) fn records(
    fs: &Arc<dyn FileSystem>,
    log: &Path,
    checkpoint: Option<&Checkpoint>,
) -> anyhow::Result<Records> {
    let counted = checkpoint.map_or(0, |checkpoint| checkpoint.lsn);
    let marks = checkpoint.map(marks).unwrap_or_default();
    let mut found = Records::default();
    let mut entries = storage::entries(Arc::clone(fs), log)?;
    while let Some(entry) = entries.next()? {
        match Entry::decode(&entry.payload) {
            Some(Entry::Batch(batch)) => {
                for request in &batch.requests {
                    found.numbered(&marks, request.producer, request.number);
                    if request.rows == 0 {
                        continue;
                    }
                    let of = (batch.head.stream.clone(), request.producer.to_owned());
                    let held = found.streams.entry(of).or_default();
                    held.records += u64::from(request.rows);
                    held.to_count += if entry.lsn > counted { u64::from(request.rows) } else { 0 };
                    held.since = Some(held.since.map_or(batch.head.at, |since| since.min(batch.head.at)));
                }
                if !batch.head.regimes.is_empty() {
                    let rows = u64::from(batch.rows());
                    *found.sealed.entry(batch.head.regimes).or_default() += rows;
                }
            }
            Some(Entry::Closed { dataset, watermark, .. }) => {
                found.closings += 1;
                found.closed_through.insert(dataset, watermark);
            }
            Some(Entry::Flushed { .. }) => found.closings += 1,
            Some(Entry::Spent { producer, number, .. }) => found.numbered(&marks, producer, number),
            Some(Entry::Requests { requests, .. }) => {
                requests.iter().for_each(|request| found.numbered(&marks, request.producer, request.number));
            }
            Some(Entry::Heard { .. }) => {}
            None => found.unknown += 1,
        }
    }
    Ok(found)
}

impl Records {
    fn numbered(&mut self, marks: &Producers, producer: &str, number: Option<Number>) {
        let Some(number) = number else { return };
        let mark = marks.mark(producer);
        let known = self.series.get(producer).copied();
        let newest = [Some(number), known, Some(Number { epoch: mark.epoch, sequence: mark.sequence })];
        if let Some(newest) = newest.into_iter().flatten().max_by_key(|number| (number.epoch, number.sequence)) {
            self.series.insert(producer.to_owned(), newest);
        }
    }
}

/// The producers' marks of a checkpoint; none, when it was written by a newer version.
fn marks(checkpoint: &Checkpoint) -> Producers {
    let mut gateway = Gateway::new(std::iter::empty());
    match checkpoint.restore_gateway(&mut gateway, Duration::ZERO) {
        Some(()) => gateway.producers,
        None => Producers::default(),
    }
}

/// Reads the outbox.
pub(super) fn releases(fs: &Arc<dyn FileSystem>, outbox: &Path, cursors: &Path) -> anyhow::Result<Outbox> {
    let mut found = Outbox::default();
    let mut cursor: BTreeMap<DestinationName, Cursor> = BTreeMap::new();
    let mut entries = storage::entries(Arc::clone(fs), outbox)?;
    while let Some(entry) = entries.next()? {
        let Some(closing) = Closing::decode(&entry.payload) else {
            bail!("entry {} is of an unknown kind", entry.lsn);
        };
        found.last_closed = found.last_closed.max(closing.closed_at);
        for released in &closing.releases {
            let destination = released.destination();
            if !cursor.contains_key(destination) {
                cursor.insert(destination.clone(), Cursor::peek(&**fs, cursors, destination)?);
            }
            let confirmed = cursor.get(destination).is_some_and(|cursor| cursor.has(released.dataset(), entry.lsn));
            let held = found.destinations.entry(destination.clone()).or_default();
            held.releases += 1;
            if !confirmed {
                held.waiting += 1;
                let end = released.window_end();
                held.oldest = Some(held.oldest.map_or(end, |oldest| oldest.min(end)));
            }
        }
    }
    Ok(found)
}

/// Which files hold a value of a destination: its cursor, or its budget.
pub(super) fn slots(files: Vec<String>) -> Vec<String> {
    files.into_iter().filter(|name| !name.starts_with('.') && !name.ends_with(".damaged")).collect()
}

/// The last position of the outbox that any cursor has come to.
pub(super) fn reached(fs: &dyn FileSystem, directory: &Path, cursors: &[String]) -> anyhow::Result<Lsn> {
    let mut reached = 0;
    for name in cursors {
        let cursor =
            Cursor::peek(fs, directory, name).with_context(|| format!("cannot read {}", directory.display()))?;
        reached = reached.max(cursor.reached());
    }
    Ok(reached)
}
