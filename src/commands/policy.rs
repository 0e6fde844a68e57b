//! `bailiwick policy test`: runs the tests that stand beside the policies.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};

use crate::config;
use crate::domain::document::{self, Problem, Problems, Severity, Source, Spot, Table};
use crate::domain::policy::{self, Case, PolicySet, newest_as_of, read_cases};

use super::replay::named;
use super::{Failure, diagnostics};

/// Which policies are tested.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration whose policies they are.
    pub config: Option<PathBuf>,
    /// Files and directories; they are one set.
    pub paths: Vec<PathBuf>,
}

/// Runs the tests. The report for stdout.
///
/// # Errors
/// [`Failure::Config`] when policies or tests cannot be used, [`Failure::Found`] when a case failed, another one when
/// there is no case.
pub fn test(options: &Options) -> Result<String, Failure> {
    let paths = match (&options.config, options.paths.as_slice()) {
        (Some(config), []) => of_config(config)?,
        (None, []) => vec![PathBuf::from("policies")],
        (_, paths) => paths.to_vec(),
    };
    let problems = Problems::default();
    let (files, tests) = find(&paths, &problems)?;
    let policy = policy::read(&files, &problems);
    if problems.any_error() {
        diagnostics::print(&problems.into_vec());
        return Err(Failure::Config);
    }
    // What is only a warning says `check`.
    let problems = Problems::default();
    let tests: Vec<(Arc<Source>, Vec<Case>)> =
        tests.into_iter().map(|file| (Arc::clone(&file), read_cases(&file, &policy, &problems))).collect();
    if problems.any_error() {
        diagnostics::print(&problems.into_vec());
        return Err(Failure::Config);
    }
    if tests.is_empty() {
        let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(anyhow!("there is no test in {}: no *.test.toml file", shown.join(", ")).into());
    }
    run(&files, &policy, &tests)
}

fn run(files: &[Arc<Source>], policy: &PolicySet, tests: &[(Arc<Source>, Vec<Case>)]) -> Result<String, Failure> {
    let day = newest_as_of(files).context("no regime and no region has an `as_of`: there is nothing to test")?;
    let mut report = String::new();
    let (mut passed, mut failed) = (0, 0);
    for (file, cases) in tests {
        let mut problems = Vec::new();
        let mut failed_here = 0;
        for case in cases {
            let failures = case.run(policy, day);
            failed_here += usize::from(!failures.is_empty());
            problems.extend(failures.into_iter().map(|failure| Problem {
                severity: Severity::Error,
                place: failure.place,
                message: format!("{}: expected {}, found {}", case.name.value, failure.expected, failure.found),
                help: None,
            }));
        }
        diagnostics::print(&problems);
        let passed_here = cases.len() - failed_here;
        passed += passed_here;
        failed += failed_here;
        // Writing to a string does not fail.
        let _ = writeln!(report, "{}: {passed_here} passed, {failed_here} failed", file.path);
    }
    let _ = writeln!(report, "\n{} files: {passed} passed, {failed} failed; policy {}", tests.len(), policy.digest);
    if failed > 0 { Err(Failure::Found(report)) } else { Ok(report) }
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

type Sources = Vec<Arc<Source>>;

/// The policy files of paths, and the tests beside them.
fn find(paths: &[PathBuf], problems: &Problems) -> anyhow::Result<(Sources, Sources)> {
    let mut tests = Vec::new();
    let mut policies = Vec::new();
    for path in paths {
        let found = config::tests(path)?;
        if path.is_dir() || found.is_empty() {
            policies.push(path.clone());
        }
        tests.extend(found);
    }
    Ok((config::policies(&named(&policies, "PATH"), problems), tests))
}
