//! What `bailiwick` can be told to do: one file each.

pub mod bench;
pub mod certs;
pub mod check;
pub mod demo;
mod diagnostics;
pub mod dial;
pub mod explain;
pub mod health;
pub mod init;
pub mod journal;
mod json;
pub mod ledger;
pub mod policy;
pub mod proto;
mod records;
pub mod replay;
pub mod report;
pub mod run;
pub mod schema;
pub mod send;
mod sets;
mod table;
pub mod terminal;
pub mod version;

use std::path::Path;

use crate::app;
use crate::config::{self, Config, Loaded, Unreadable};
use crate::domain::document::Problem;

/// The configuration cannot be used (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;
/// A part of the gateway could not go on, and it stopped: start it again (`EX_SOFTWARE`).
pub const EXIT_INTERNAL: u8 = 70;
/// Releases wait for a destination, or a second signal ended the stop (`EX_TEMPFAIL`): the next start goes on.
pub const EXIT_LEFT: u8 = 75;

/// Everything was done, but part of what was to be taken in was not.
pub const EXIT_PARTLY: u8 = 3;

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// The configuration or the policies cannot be used; what is wrong was printed.
    Config,
    /// The same, with a report for stdout that says what is wrong.
    Unusable(String),
    /// The same, with a message for stderr that says more than what was printed.
    Said(String),
    /// The command did what it was told, and what it found is a failure: the report for stdout.
    Found(String),
    /// The gateway stopped as it was told, and left something to its next start: what, for stderr.
    Left(String),
    /// A part of the gateway could not go on: which one, and why.
    Internal(String),
    /// The gateway could not start with what is in its journal's directory: what, and what to do.
    Unopened(String),
    /// The command did what it was told, and part of it did not succeed: the report for stdout.
    Partly(String),
    /// Something else went wrong.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Loads a configuration and prints every problem to stderr.
fn load(path: &Path) -> Result<Config, Failure> {
    usable(path, config::load(path))
}

/// The same, and looks at all that the configuration names: models, registries, databases.
fn load_whole(path: &Path) -> Result<Config, Failure> {
    usable(path, app::load(path))
}

fn usable(path: &Path, read: Result<Loaded, Unreadable>) -> Result<Config, Failure> {
    let loaded = loaded(path, read);
    diagnostics::print(&loaded.problems);
    loaded.config.ok_or(Failure::Config)
}

/// What was read. That `gateway.toml` cannot be read is a problem like others.
fn loaded(path: &Path, read: Result<Loaded, Unreadable>) -> Loaded {
    read.unwrap_or_else(|error| {
        let problem = Problem::of_file(&path.display().to_string(), format!("{:#}", anyhow::Error::from(error)));
        Loaded { config: None, problems: vec![problem] }
    })
}
