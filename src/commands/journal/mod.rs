//! `bailiwick journal`: what is on disk, for whoever has to know at three in the morning. `inspect` and
//! `verify` only read, also beside a gateway that runs; `repair` sets aside and never deletes.

mod held;
mod report;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::app::losses::Loss;
use crate::durable::checkpoint::Checkpoint;
use crate::durable::{counting, spending};
use crate::storage::{self, FileSystem, Lsn, RealFileSystem, Report, Slots, Stored};

use super::Failure;
use held::{Budgets, Counters, Outbox, Privacy, Records};

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

/// Everything there is to say of a journal's directory.
struct Found<'d> {
    directory: &'d Path,
    log: Report,
    records: Records,
    outbox: Report,
    releases: Outbox,
    checkpoint: Option<Checkpoint>,
    /// The counters of laws, where there are any.
    counters: Option<Counters>,
    /// The budgets of privacy, where there are any.
    privacy: Option<Privacy>,
    /// The budgets of bytes.
    budgets: Budgets,
    /// What is wrong with the journal.
    journal_losses: Vec<Loss>,
    /// What is wrong with the outbox and the cursors.
    outbox_losses: Vec<Loss>,
    /// What is wrong with the checkpoints.
    checkpoint_losses: Vec<Loss>,
}

impl Found<'_> {
    fn losses(&self) -> impl Iterator<Item = &Loss> {
        let of_counters = self.counters.iter().flat_map(|counters| &counters.losses);
        let of_privacy = self.privacy.iter().flat_map(|privacy| &privacy.losses);
        let of_logs = self.journal_losses.iter().chain(&self.outbox_losses);
        of_logs.chain(&self.checkpoint_losses).chain(of_counters).chain(of_privacy).chain(&self.budgets.losses)
    }
}

/// Looks at the directory that `[journal] directory` names. The report for stdout, as text or JSON.
///
/// # Errors
/// When it cannot be read; when something is damaged or missing and it was only to be verified.
pub fn journal(task: Task, directory: &Path, json: bool) -> Result<String, Failure> {
    let found = look(task, directory)?;
    let is_sound = found.losses().next().is_none();
    let report = if json { report::json(&found) } else { report::text(&found) };
    if task == Task::Verify && !is_sound { Err(Failure::Found(report)) } else { Ok(report) }
}

fn look(task: Task, directory: &Path) -> anyhow::Result<Found<'_>> {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let [checkpoints, log, outbox, cursors] =
        ["checkpoints", "log", "outbox", "cursors"].map(|name| directory.join(name));
    let is_there = |path: &Path| fs.kind(path).map(|kind| kind.is_some()).unwrap_or(true);
    if ![&checkpoints, &log, &outbox].into_iter().any(|path| is_there(path)) {
        bail!("no journal in {}", directory.display());
    }
    let names = |of: &Path| -> anyhow::Result<Vec<String>> {
        let names = if is_there(of) { fs.list(of) } else { Ok(Vec::new()) };
        let names = names.with_context(|| format!("cannot read {}", of.display()))?;
        Ok(names.into_iter().map(|(name, _)| name).collect())
    };
    let checkpoint_files = names(&checkpoints)?;
    let checkpoint = if is_there(&checkpoints) {
        Checkpoint::newest(&*fs, &checkpoints).with_context(|| format!("cannot read {}", checkpoints.display()))?
    } else {
        None
    };
    let counted = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.lsn);
    if task == Task::Repair {
        for path in [&log, &outbox].into_iter().filter(|path| is_there(path)) {
            storage::repair(&*fs, path).with_context(|| format!("cannot repair {}", path.display()))?;
        }
    }
    let inspect = |of: &Path, at_least: Lsn| {
        storage::inspect(&*fs, of, at_least).with_context(|| format!("cannot read {}", of.display()))
    };
    // As a start does: what a cursor has come to was in the outbox, what was closed or counted was in the journal.
    let cursor_files = held::slots(names(&cursors)?);
    let reached = held::reached(&*fs, &cursors, &cursor_files)?;
    let emptied =
        |log| Loss::of_emptied(&*fs, directory, log).with_context(|| format!("cannot read {}", directory.display()));
    let found_outbox = inspect(&outbox, reached)?;
    let releases =
        held::releases(&fs, &outbox, &cursors).with_context(|| format!("cannot read {}", outbox.display()))?;
    let found_log = inspect(&log, releases.last_closed.max(counted))?;
    let records =
        held::records(&fs, &log, checkpoint.as_ref()).with_context(|| format!("cannot read {}", log.display()))?;
    let destinations = releases.destinations.keys();
    let mut outbox_losses = Loss::of_outbox(&*fs, &cursors, &found_outbox.damage, found_outbox.first, destinations)?;
    let others = cursor_files.into_iter().filter(|name| !releases.destinations.contains_key(name.as_str()));
    for destination in others {
        if Slots::peek(&*fs, &cursors.join(&destination))? == Stored::Damaged {
            outbox_losses.push(Loss::Cursor { destination });
        }
    }
    outbox_losses.extend(emptied("outbox")?);
    let mut journal_losses = Loss::of_journal(&found_log.damage, found_log.first, counted);
    journal_losses.extend(emptied("log")?);
    let of_counters = directory.join(counting::DIRECTORY);
    let at_least =
        counting::at_least(&*fs, directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let counters = match is_there(&of_counters) || at_least > 0 {
        true => Some(held::counters(&fs, directory, inspect(&of_counters, at_least)?)?),
        false => None,
    };
    let of_privacy = directory.join(spending::DIRECTORY);
    let privacy = match is_there(&of_privacy) {
        true => Some(held::privacy(&fs, directory, inspect(&of_privacy, 0)?)?),
        false => None,
    };
    let of_budgets = directory.join("budgets");
    Ok(Found {
        directory,
        counters,
        privacy,
        budgets: held::budgets(&*fs, &of_budgets, names(&of_budgets)?)?,
        journal_losses,
        outbox_losses,
        checkpoint_losses: Loss::of_checkpoints(checkpoint_files, checkpoint.as_ref().map(|found| found.lsn)),
        log: found_log,
        records,
        outbox: found_outbox,
        releases,
        checkpoint,
    })
}
