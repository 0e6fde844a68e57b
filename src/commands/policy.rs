//! `bailiwick policy`: what can be done with policies alone, without a gateway.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::{Subcommand, ValueEnum};

use crate::config::{self, today};
use crate::domain::document::{self, Problems, Spot, Table, hint};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::policy::{self, PolicySet, Regime};
use crate::domain::printable;

use super::Failure;
use super::sets::{named, unusable};

mod law;
mod laws;
mod matrix;
mod test;
mod words;

pub use laws::tables;
pub use matrix::Format;
pub use test::{Options, test};

/// What is to be done with policies.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Run the tests beside the policies, `*.test.toml`.
    ///
    /// Each case names a legal statement, and says what must follow from its facts: which regimes apply, whether data
    /// may go somewhere, what a gateway does with a record. The policy files of all given directories are one set.
    /// Every test in and below the directories runs against it. A case runs on its own day (`at`), or on the newest
    /// `as_of` of the set, so tests do not begin to fail as time passes. Exit code 1: a case failed; 64: files are
    /// wrong.
    Test {
        /// Test the policies that this configuration names.
        #[arg(short, long, value_name = "FILE", conflicts_with = "paths")]
        config: Option<PathBuf>,
        /// Directories, or policy files and test files [default: policies]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Policies that the tested ones need, such as classes and regions. Their own tests do not run. You can give
        /// this option several times.
        #[arg(long, value_name = "PATH")]
        policies: Vec<PathBuf>,
        /// Print the report as one JSON object, problems included.
        #[arg(long)]
        json: bool,
    },
    /// Print a law as bailiwick reads it, in sentences that counsel can sign or mark.
    Law {
        /// The regime's id, such as eu-gdpr.
        regime: String,
        /// The policies.
        #[command(flatten)]
        set: Set,
    },
    /// Print which form of which law's data may go where, under which conditions.
    Matrix {
        /// The ids of regimes [default: all].
        #[arg(value_name = "REGIME")]
        regimes: Vec<String>,
        /// Only laws that may apply to data from this place: an ISO 3166 code.
        #[arg(long, value_name = "CODE")]
        from: Option<String>,
        /// Only these destinations, as ISO 3166 codes. You can give this option several times.
        #[arg(long, value_name = "CODE")]
        to: Vec<String>,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t = Printed::Table)]
        format: Printed,
        /// The policies.
        #[command(flatten)]
        set: Set,
    },
}

/// What says where policies are.
const POLICIES: &str = "--policies";

/// Where policies are.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// The policies that this configuration names.
    #[arg(short, long, value_name = "FILE", conflicts_with = "policies")]
    config: Option<PathBuf>,
    /// Policy files, or directories of them [default: policies]. You can give this option several times.
    #[arg(long, value_name = "PATH")]
    policies: Vec<PathBuf>,
}

/// How a matrix is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Printed {
    /// Tables of text.
    Table,
    /// Comma-separated values.
    Csv,
    /// A page for a browser.
    Html,
}

impl From<Printed> for Format {
    fn from(printed: Printed) -> Self {
        match printed {
            Printed::Table => Self::Text,
            Printed::Csv => Self::Csv,
            Printed::Html => Self::Html,
        }
    }
}

/// Does it. The report for stdout.
///
/// # Errors
/// As [`test`] says; [`Failure::Config`] when policies cannot be used, another one when a name is not known.
pub fn run(task: Task) -> Result<String, Failure> {
    match task {
        Task::Test { config, paths, policies: beside, json } => test(&Options { config, paths, beside, json }),
        Task::Law { regime, set } => {
            let policy = read(&set)?;
            Ok(law::law(find(&policy, &regime)?, &policy, today()))
        }
        Task::Matrix { regimes, from, to, format, set } => {
            let policy = read(&set)?;
            let laws: Vec<&Regime> = match regimes.as_slice() {
                [] => policy.regimes.values().collect(),
                some => some.iter().map(|id| find(&policy, id)).collect::<Result<_, Failure>>()?,
            };
            let from = from.map(|from| code(&policy, &from)).transpose()?;
            let to = to.iter().map(|to| code(&policy, to)).collect::<Result<BTreeSet<_>, _>>()?;
            Ok(matrix::matrix(&policy, &laws, from, &to, today(), format.into()))
        }
    }
}

fn find<'p>(policy: &'p PolicySet, id: &str) -> Result<&'p Regime, Failure> {
    let known: Vec<&str> = policy.regimes.keys().map(String::as_str).collect();
    Ok(policy
        .regimes
        .get(id)
        .ok_or_else(|| anyhow!("there is no regime `{}`; {}", printable::line(id), hint(id, &known)))?)
}

fn code(policy: &PolicySet, code: &str) -> Result<Jurisdiction, Failure> {
    let known = policy.codes.parse(code).filter(|code| *code != Jurisdiction::UNKNOWN);
    Ok(known.ok_or_else(|| anyhow!("`{}` is not an ISO 3166-1 alpha-2 or ISO 3166-2 code", printable::line(code)))?)
}

/// The policies, whose problems are printed.
fn read(set: &Set) -> Result<PolicySet, Failure> {
    let problems = Problems::default();
    let files = config::policies(&named(&paths(set.config.as_deref(), &set.policies)?, POLICIES), &problems);
    let Some(files) = files else { return Err(unusable(problems, None, POLICIES, false)) };
    let policy = policy::read(&files, &problems);
    if problems.any_error() {
        return Err(unusable(problems, Some(&files), POLICIES, false));
    }
    Ok(policy)
}

/// The paths of policies: those that are given, or that a configuration names, or `policies`.
fn paths(config: Option<&Path>, given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    match (config, given) {
        (Some(config), []) => of_config(config),
        (None, []) => Ok(vec![PathBuf::from("policies")]),
        (_, paths) => Ok(paths.to_vec()),
    }
}

/// The policies that a configuration names. The rest of it is not looked at: tests need no gateway.
fn of_config(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let main = config::source(path)?;
    let base = path.parent().unwrap_or(Path::new(""));
    // Whatever is wrong with it, `check` says.
    let named = document::read(&main, &Problems::default(), |table| {
        table.get::<Table<'_>>("gateway").and_then(|gateway| gateway.value.get::<Vec<Spot<String>>>("policies"))
    });
    let Some(named) = named.flatten() else {
        bail!("{} has no `policies` in [gateway] that can be read", path.display());
    };
    Ok(named.value.into_iter().map(|policy| base.join(policy.value)).collect())
}
