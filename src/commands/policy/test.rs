//! `bailiwick policy test`: runs the tests that stand beside the policies.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use crate::config;
use crate::domain::document::{Problem, Problems, Severity, Source};
use crate::domain::policy::{self, Case, PolicySet, newest_as_of, read_cases};

use super::POLICIES;
use crate::commands::sets::{named, unusable};
use crate::commands::{Failure, diagnostics, json as machine};

/// Which policies are tested.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration whose policies they are.
    pub config: Option<PathBuf>,
    /// Files and directories; they are one set.
    pub paths: Vec<PathBuf>,
    /// Files and directories that the set needs, and whose tests are not run: classes and regions, say.
    pub beside: Vec<PathBuf>,
    /// The report is one JSON object.
    pub json: bool,
}

/// Runs the tests. The report for stdout.
///
/// # Errors
/// [`Failure::Config`] or [`Failure::Unusable`] when policies or tests cannot be used, [`Failure::Found`] when a case
/// failed, another one when there is no case.
pub fn test(options: &Options) -> Result<String, Failure> {
    let paths = super::paths(options.config.as_deref(), &options.paths)?;
    let problems = Problems::default();
    let Some((files, tests)) = find(&paths, &options.beside, &problems)? else {
        return Err(unusable(problems, None, POLICIES, options.json));
    };
    let policy = policy::read(&files, &problems);
    if problems.any_error() {
        return Err(unusable(problems, Some(&files), POLICIES, options.json));
    }
    // What is only a warning says `check`.
    let problems = Problems::default();
    let tests: Vec<(Arc<Source>, Vec<Case>)> =
        tests.into_iter().map(|file| (Arc::clone(&file), read_cases(&file, &policy, &problems))).collect();
    if problems.any_error() {
        // The policies could be read: people are told what is wrong with the tests.
        return Err(unusable(problems, options.json.then_some(&*files), POLICIES, options.json));
    }
    if tests.is_empty() {
        let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(anyhow!("there is no test in {}: no *.test.toml file", shown.join(", ")).into());
    }
    let day = newest_as_of(&files).context("no regime and no region has an `as_of`: there is nothing to test")?;
    let tested: Vec<Tested<'_>> = tests.iter().map(|(file, cases)| Tested::run(file, cases, &policy, day)).collect();
    let report = match options.json {
        true => machine::print(&for_machines(&tested, &policy)),
        false => for_people(&tested, &policy),
    };
    if tested.iter().any(|file| !file.failures.is_empty()) { Err(Failure::Found(report)) } else { Ok(report) }
}

/// What came of the cases of one file.
struct Tested<'t> {
    file: &'t Source,
    passed: usize,
    failed: usize,
    /// The expectations that were not met, each with its case.
    failures: Vec<(&'t str, policy::Failed)>,
}

impl<'t> Tested<'t> {
    fn run(file: &'t Source, cases: &'t [Case], policy: &PolicySet, day: jiff::civil::Date) -> Self {
        let mut tested = Self { file, passed: 0, failed: 0, failures: Vec::new() };
        for case in cases {
            let failures = case.run(policy, day);
            *if failures.is_empty() { &mut tested.passed } else { &mut tested.failed } += 1;
            tested.failures.extend(failures.into_iter().map(|failure| (case.name.value.as_str(), failure)));
        }
        tested
    }
}

/// The sums of passed and failed cases.
fn sums(tested: &[Tested<'_>]) -> (usize, usize) {
    (tested.iter().map(|file| file.passed).sum(), tested.iter().map(|file| file.failed).sum())
}

fn for_people(tested: &[Tested<'_>], policy: &PolicySet) -> String {
    let mut report = String::new();
    for file in tested {
        let problems = file.failures.iter().map(|(case, failure)| Problem {
            severity: Severity::Error,
            place: failure.place.clone(),
            message: format!("{case}: expected {}, found {}", failure.expected, failure.found),
            help: None,
        });
        diagnostics::print(&problems.collect::<Vec<_>>());
        // Writing to a string does not fail.
        let _ = writeln!(report, "{}: {} passed, {} failed", file.file.path, file.passed, file.failed);
    }
    let (passed, failed) = sums(tested);
    let _ = writeln!(report, "\n{} files: {passed} passed, {failed} failed; policy {}", tested.len(), policy.digest);
    report
}

fn for_machines(tested: &[Tested<'_>], policy: &PolicySet) -> Value {
    let failure = |(case, failure): &(&str, policy::Failed)| {
        json!({
            "case": case,
            "line": failure.place.line(),
            "key": failure.place.key,
            "expected": failure.expected,
            "found": failure.found,
        })
    };
    let files = tested.iter().map(|file| {
        json!({
            "file": file.file.path,
            "passed": file.passed,
            "failed": file.failed,
            "failures": file.failures.iter().map(failure).collect::<Value>(),
        })
    });
    let (passed, failed) = sums(tested);
    json!({
        "problems": [],
        "policy": policy.digest.to_string(),
        "passed": passed,
        "failed": failed,
        "files": files.collect::<Value>(),
    })
}

type Sources = Vec<Arc<Source>>;

/// The policy files of paths and of those beside them, and the tests of the former. `None`: a policy file cannot be read.
fn find(paths: &[PathBuf], beside: &[PathBuf], problems: &Problems) -> anyhow::Result<Option<(Sources, Sources)>> {
    let mut tests = Vec::new();
    let mut policies = Vec::new();
    for path in paths {
        let found = config::tests(path)?;
        if path.is_dir() || found.is_empty() {
            policies.push(path.clone());
        }
        tests.extend(found);
    }
    let files = config::policies(&named(&policies, "PATH"), problems);
    let more = config::policies(&named(beside, "--policies"), problems);
    let (Some(mut files), Some(more)) = (files, more) else { return Ok(None) };
    // A file that is named in both is one.
    let is_there = |file: &Arc<Source>| files.iter().any(|known| is_same(&known.path, &file.path));
    let more: Vec<Arc<Source>> = more.into_iter().filter(|file| !is_there(file)).collect();
    files.extend(more);
    Ok(Some((files, tests)))
}

fn is_same(one: &str, other: &str) -> bool {
    let whole = |path: &str| Path::new(path).canonicalize().ok();
    whole(one).is_some_and(|one| Some(one) == whole(other))
}
