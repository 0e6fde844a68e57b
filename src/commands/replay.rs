//! `bailiwick replay`: the same records under the policies in force and under others, and what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use arrow_array::RecordBatch;
use indicatif::{HumanBytes, HumanCount};

use crate::app;
use crate::config::{self, Config};
use crate::domain::batch::Candidate;
use crate::domain::document::Problems;
use crate::domain::event_time::TimeBounds;
use crate::domain::evidence::Sender;
use crate::domain::policy::{
    self, Count, Counting, Difference, FlowChange, Judged, Outlet, PolicySet, RuleChange, Tally, Version, bytes_of,
};
use crate::domain::refusal::Reason;
use crate::domain::stream::Stream;
use crate::files;

mod cells;
mod left;
mod noised;
mod releasing;

use cells::Counted;

use super::records::{Journal, Step, as_declared, decode, treated};
use super::send::{Batch, Input};
use super::sets::{named, unusable};
use super::table::table;
use super::{Failure, diagnostics, load};

/// What is compared, over which records.
#[derive(Debug, Clone)]
pub struct Options {
    /// The other policies: files and directories.
    pub against: Vec<PathBuf>,
    /// The records.
    pub records: Vec<From>,
    /// The most bytes of memory for the windows of each version.
    pub windows_bytes_max: usize,
    /// Whether a difference is a failure.
    pub fail_on_difference: bool,
}

/// Where records are.
#[derive(Debug, Clone)]
pub enum From {
    /// Files.
    Files {
        /// The files.
        files: Vec<PathBuf>,
        /// The stream they are of.
        stream: String,
        /// Who sends them.
        producer: String,
    },
    /// The directory of a journal.
    Journal(PathBuf),
}

/// The most bytes of memory for the windows of each version, unless it is said.
pub const WINDOWS_BYTES_MAX: usize = 1 << 30;

/// What says where the other policies are.
const AGAINST: &str = "--against";

/// How many records are decoded together.
const TOGETHER: usize = 4_096;

/// Compares two sets of policies. The report for stdout.
///
/// # Errors
/// When the configuration or the policies cannot be used, or the records cannot be read; [`Failure::Found`] when a
/// difference is to be a failure.
pub fn replay(path: &Path, options: &Options) -> Result<String, Failure> {
    let mut config = load(path)?;
    let before = app::version(&config)?;
    config.policy = Arc::new(candidates(&options.against)?);
    // What is known beside the records is read anew: the others may look at other columns of the same registries.
    let after = app::version(&config)?;
    let difference = Difference::between(&before, &after);
    let counted = [(); 2].map(|()| Counted::new(options.windows_bytes_max));
    let mut replay =
        Replay { before, after, difference, counted, records: 0, missing: Vec::new(), notes: BTreeMap::new() };
    replay.note_missing(&config);
    for records in &options.records {
        match records {
            From::Files { files, stream, producer } => {
                for file in files {
                    replay.file(file, stream, producer)?;
                }
            }
            From::Journal(directory) => replay.journal(directory, &config)?,
        }
    }
    let mut report = replay.report();
    let Replay { before, after, difference, counted: [counted, counted_after], .. } = replay;
    let left = counted.left(&before, &config.id)?;
    let left_after = counted_after.left(&after, &config.id)?;
    if !options.records.is_empty() {
        report.push_str(&left::report(&left, &left_after));
    }
    match options.fail_on_difference && !(difference.is_empty() && left == left_after) {
        true => Err(Failure::Found(report)),
        false => Ok(report),
    }
}

/// The policies of paths that were given as arguments. Problems are shown where they stand.
fn candidates(paths: &[PathBuf]) -> Result<PolicySet, Failure> {
    let problems = Problems::default();
    let Some(files) = config::policies(&named(paths, AGAINST), &problems) else {
        return Err(unusable(problems, None, AGAINST, false));
    };
    let policy = policy::read(&files, &problems);
    if problems.any_error() {
        return Err(unusable(problems, Some(&files), AGAINST, false));
    }
    diagnostics::print(&problems.into_vec());
    Ok(policy)
}

struct Replay {
    before: Version,
    after: Version,
    difference: Difference,
    /// What would leave under each of the two.
    counted: [Counted; 2],
    records: u64,
    missing: Vec<String>,
    /// What is to be known of the records, with how many it is about.
    notes: BTreeMap<String, u64>,
}

impl Replay {
    fn file(&mut self, path: &Path, stream: &str, producer: &str) -> anyhow::Result<()> {
        let known: BTreeSet<&str> =
            self.before.policy.streams.keys().chain(self.after.policy.streams.keys()).map(AsRef::as_ref).collect();
        if !known.contains(stream) {
            let known: Vec<&str> = known.into_iter().collect();
            bail!("there is no stream `{stream}`; declared: {}", known.join(", "));
        }
        files::regular(path)?;
        let mut batches = Input::new(path.to_owned(), None).batches(TOGETHER)?;
        while let Some(Batch { records, malformed, name, .. }) = batches.next()? {
            if let Some(found) = malformed.first() {
                bail!("{name}:{} is not a record: {}", found.line, found.what);
            }
            self.add(stream, producer, records.len(), None, |stream| {
                let mut decoded = decode(stream, &records)?.map_err(|undecodable| undecodable.reason);
                if let Ok(candidate) = &mut decoded {
                    // They were in time once.
                    candidate.check(&TimeBounds::ANY);
                }
                Ok(decoded)
            })?;
        }
        Ok(())
    }

    fn journal(&mut self, directory: &Path, config: &Config) -> anyhow::Result<()> {
        let mut journal = Journal::open(directory, config)?;
        while let Some(step) = journal.next_step(0)? {
            let entry = match step {
                Step::Records(entry) => entry,
                Step::Closed(dataset, before) => {
                    self.counted.iter_mut().for_each(|counted| counted.closed(&dataset, before));
                    continue;
                }
                Step::Flushed(dataset) => {
                    self.counted.iter_mut().for_each(|counted| counted.flushed(&dataset));
                    continue;
                }
            };
            match &entry.columns {
                Ok(columns) => {
                    self.note_treated(&entry.stream, entry.rows);
                    let mut first = 0;
                    for (producer, rows) in &entry.requests {
                        let own = columns.slice(first, *rows);
                        first += rows;
                        let read = |stream: &Arc<Stream>| as_declared(stream, &own).map(Ok);
                        self.add(&entry.stream, producer, *rows, Some(&own), read)?;
                    }
                }
                Err(why) => *self.notes.entry(format!("not compared, {why}")).or_default() += u64::from(entry.rows),
            }
        }
        Ok(())
    }

    /// What the other policies would need to be put in force.
    fn note_missing(&mut self, config: &Config) {
        let policy = &self.after.policy;
        let unserved = self.after.here.serves.iter().filter(|regime| !policy.regimes.contains_key(*regime));
        let unserved =
            unserved.map(|regime| format!("regime `{regime}` is served here, but the other policies do not have it"));
        let files = policy.registries.keys().filter(|name| !config.registries.contains_key(*name));
        let files =
            files.map(|name| format!("registry `{name}` has no file in the configuration: it gives no evidence"));
        self.missing = unserved.chain(files).collect();
    }

    fn note_treated(&mut self, stream: &str, rows: u32) {
        let plans = [&self.before, &self.after].map(|version| version.policy.streams.get(stream));
        let treated: BTreeSet<(&str, &str)> = plans.into_iter().flatten().flat_map(treated).collect();
        for (field, became) in treated {
            let note = format!("evidence in `{field}` is {became} in the journal");
            *self.notes.entry(note).or_default() += u64::from(rows);
        }
    }

    /// Adds records, read as each version declares the stream. Those of a journal come with the model's outputs.
    fn add(
        &mut self,
        stream: &str,
        producer: &str,
        rows: usize,
        columns: Option<&RecordBatch>,
        read: impl Fn(&Arc<Stream>) -> anyhow::Result<Result<Candidate, Reason>>,
    ) -> anyhow::Result<()> {
        let from = Sender { producer, address: None };
        let mut bytes = Vec::new();
        let mut classes = BTreeSet::new();
        let mut judge = |version: &Version, counted: &mut Counted| -> anyhow::Result<Judged> {
            let Some(plan) = version.policy.streams.get(stream) else {
                return Ok(Judged::refused(rows, Reason::UnknownStream));
            };
            classes.extend(plan.classes.iter().cloned());
            match read(&plan.stream)? {
                Ok(candidate) => {
                    if bytes.is_empty() {
                        bytes = bytes_of(&candidate);
                    }
                    let judged = version.judge(&candidate, from)?;
                    counted.add(version, candidate, producer, columns)?;
                    Ok(judged)
                }
                Err(reason) => Ok(Judged::refused(rows, reason)),
            }
        };
        let [counted, counted_after] = &mut self.counted;
        let (before, after) = (judge(&self.before, counted)?, judge(&self.after, counted_after)?);
        self.records += rows as u64;
        self.difference.add(&before, &after, &bytes, &classes);
        Ok(())
    }

    fn report(&self) -> String {
        let Difference { unchanged, kept, not_asked, changed, by_rule, by_class, by_counter, flows, rules } =
            &self.difference;
        let (before, after) = (self.before.digest(), self.after.digest());
        let mut report = format!(
            "{} records under policy {before}, in force, and under {after}, as of {}\n\n",
            HumanCount(self.records),
            self.before.day
        );
        let line = |what: &str, count: &Count| [what.to_owned(), records(count), HumanBytes(count.bytes).to_string()];
        let mut rows = vec![["", "records", "bytes in memory"].map(str::to_owned)];
        rows.push(line("newly allowed", &changed.allowed));
        rows.push(line("newly denied", &changed.denied));
        rows.push(line("decided otherwise", &changed.otherwise));
        rows.push(line("unchanged", unchanged));
        rows.push(line("  of them kept", kept));
        rows.push(line("  of them not as declared", not_asked));
        report.push_str(&table(&rows));
        // Writing to a string does not fail.
        let _ = writeln!(
            report,
            "\nA record is allowed if it may stay. Decided otherwise: it stays under other regimes, or is kept away for\n\
             another reason or with another route. Bytes are those of the records' columns in memory."
        );
        for dataset in self.counted.iter().flat_map(Counted::unscored).collect::<BTreeSet<_>>() {
            let _ = writeln!(
                report,
                "{dataset}: metrics of the model's outputs are left out below; a cell with such a key is not counted. Only a \
                 journal has them"
            );
        }
        for missing in &self.missing {
            let _ = writeln!(report, "the other policies: {missing}");
        }
        for (note, records) in &self.notes {
            let _ = writeln!(report, "{} records: {note}", HumanCount(*records));
        }
        tallies(&mut report, "rule", by_rule);
        tallies(&mut report, "class", by_class);
        counters(&mut report, by_counter);
        report.push_str("\nwhat may leave:\n\n");
        if flows.is_empty() {
            report.push_str("  the same\n");
        } else {
            let header = ["dataset", "destination", "change", "k before", "k after", "by"];
            let mut rows = vec![header.map(str::to_owned)];
            rows.extend(flows.iter().map(flow));
            report.push_str(&table(&rows));
        }
        report.push_str("\nwhat is asked of the cells of each dataset:\n\n");
        if rules.is_empty() {
            report.push_str("  the same\n");
        } else {
            let header = ["dataset", "rule", "before", "after", "by"];
            let mut rows = vec![header.map(str::to_owned)];
            rows.extend(rules.iter().map(|change| {
                let RuleChange { dataset, rule, before, after, by } = change;
                [dataset.to_string(), (*rule).to_owned(), before.clone(), after.clone(), by.clone()]
            }));
            report.push_str(&table(&rows));
        }
        report
    }
}

fn records(count: &Count) -> String {
    HumanCount(count.records).to_string()
}

fn cell(count: &Count) -> String {
    match count.records {
        0 => "-".to_owned(),
        _ => format!("{} ({})", records(count), HumanBytes(count.bytes)),
    }
}

fn tallies(report: &mut String, what: &str, tallies: &BTreeMap<String, Tally>) {
    if tallies.is_empty() {
        return;
    }
    let _ = writeln!(report, "\nby {what}:\n");
    let mut rows = vec![[what, "newly allowed", "newly denied", "otherwise"].map(str::to_owned)];
    for (name, tally) in tallies {
        rows.push([name.clone(), cell(&tally.allowed), cell(&tally.denied), cell(&tally.otherwise)]);
    }
    report.push_str(&table(&rows));
}

/// Records of which counters of laws have another say.
fn counters(report: &mut String, by_counter: &BTreeMap<String, Counting>) {
    if by_counter.is_empty() {
        return;
    }
    report.push_str("\nby counter, as long as it has room:\n\n");
    let header = ["counter", "counts now", "counts no more", "may go only by it", "no more only by it"];
    let mut rows = vec![header.map(str::to_owned)];
    for (counter, Counting { counts, counts_no_more, needs, needs_no_more }) in by_counter {
        let cells = [counts, counts_no_more, needs, needs_no_more].map(cell);
        let [counts, counts_no_more, needs, needs_no_more] = cells;
        rows.push([counter.clone(), counts, counts_no_more, needs, needs_no_more]);
    }
    report.push_str(&table(&rows));
}

fn flow(change: &FlowChange) -> [String; 6] {
    let what = match (&change.before, &change.after) {
        (None, _) => "newly allowed",
        (_, None) => "newly denied",
        (Some(before), Some(after)) if before.min_contributors != after.min_contributors => "k changed",
        (Some(before), Some(after)) if before.parts != after.parts => "k of parts changed",
        (Some(before), Some(after)) if before.privacy != after.privacy => "noise changed",
        (Some(before), Some(after)) if before.rounding != after.rounding => {
            match (before.rounding.covers(after.rounding), after.rounding.covers(before.rounding)) {
                (true, _) => "rounding loosened",
                (_, true) => "rounding tightened",
                _ => "rounding changed",
            }
        }
        (Some(before), Some(after)) if before.tells_contributors != after.tells_contributors => "contributors changed",
        _ => "override changed",
    };
    let k = |outlet: &Option<Outlet>| match outlet {
        None => "-".to_owned(),
        Some(Outlet { min_contributors, by_override: Some(id), .. }) => format!("{min_contributors} ({id})"),
        Some(outlet) => outlet.min_contributors.to_string(),
    };
    let (before, after) = (k(&change.before), k(&change.after));
    let (dataset, destination) = (String::from(&change.dataset), String::from(&change.destination));
    [dataset, destination, what.to_owned(), before, after, change.why.join(", ")]
}
