//! `bailiwick ledger retire`: sets aside a ledger that cannot continue, so that the next start begins a new one.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::commands::{Failure, load};
use crate::storage::{FileSystem, RealFileSystem, hold};

/// Moves the ledger of a gateway, its key, and what the gateway remembers of it. Nothing is deleted. What was done, for stdout.
pub(super) fn retire(config: &Path) -> Result<String, Failure> {
    let config = load(config)?;
    let settings = config.ledger.settings(&config.journal.directory);
    // No gateway runs, and none starts meanwhile.
    let _held = hold(&RealFileSystem, &config.journal.directory.join("log")).context("stop the gateway first")?;
    Ok(set_aside(&RealFileSystem, &[settings.directory, settings.key, settings.seen])?)
}

/// Gives all of them the same new ending, the first that none of them has.
fn set_aside(fs: &dyn FileSystem, paths: &[PathBuf]) -> anyhow::Result<String> {
    let mut there = Vec::new();
    for path in paths {
        if fs.kind(path).with_context(|| format!("cannot look at {}", path.display()))?.is_some() {
            there.push(path);
        }
    }
    if there.is_empty() {
        bail!(
            "there is no ledger: neither {} nor its key",
            paths.first().map(|path| path.display().to_string()).unwrap_or_default()
        );
    }
    let is_free = |number: &u32| paths.iter().all(|path| matches!(fs.kind(&aside(path, *number)), Ok(None)));
    let number = (1..=NUMBERS).find(is_free).context("too many ledgers were retired here: move them elsewhere")?;
    let mut report = String::from("the ledger was set aside. Keep all of it: it says what left until now\n");
    for path in there {
        let to = aside(path, number);
        rename(path, &to).with_context(|| {
            format!("cannot move {} to {}: do it by hand, and run this again", path.display(), to.display())
        })?;
        let _ = writeln!(report, "  {} is now {}", path.display(), to.display());
    }
    report.push_str(
        "the next start begins a new ledger, with a new key: give its file `verifier` to those who verify it, and tell them why\n",
    );
    Ok(report)
}

/// So many ledgers are kept side by side.
const NUMBERS: u32 = 1_000;

fn aside(path: &Path, number: u32) -> PathBuf {
    let name = path.file_name().unwrap_or_default().display();
    path.with_file_name(format!("{name}.retired-{number}"))
}

fn rename(path: &Path, to: &Path) -> io::Result<()> {
    fs::rename(path, to)?;
    // So that after a crash it is not back under its old name, without what went with it.
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}
