//! Reports for machines: one JSON object, keys in snake case. docs/json.md says what is in it.

use serde_json::{Value, json};

use crate::domain::document::{Problem, Severity};

/// The object as it is printed.
pub(super) fn print(report: &Value) -> String {
    format!("{report}\n")
}

/// Adds a member to an object.
pub(super) fn add(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), value.into());
    }
}

/// Problems of files, in the order they were found.
pub(super) fn problems(problems: &[Problem]) -> Value {
    problems.iter().map(problem).collect()
}

fn problem(problem: &Problem) -> Value {
    let place = &problem.place;
    json!({
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "file": place.file.path,
        "line": place.line(),
        "key": place.key,
        "message": problem.message,
        "help": problem.help,
    })
}
