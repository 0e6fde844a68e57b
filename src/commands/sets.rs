//! Sets of policies that stand where arguments say: which files they are, and what is wrong with them.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use crate::domain::document::{self, Place, Problems, Source, Spot};

use super::{Failure, diagnostics, json as machine};

/// Arguments as values that stand somewhere.
pub(super) fn named(paths: &[PathBuf], argument: &str) -> Vec<Spot<String>> {
    let path = |path: &PathBuf| {
        let value = path.display().to_string();
        let file = Arc::new(Source::new("(arguments)", value.clone()));
        let place = Place { file, span: 0..value.len(), key: argument.to_owned() };
        Spot { value, place }
    };
    paths.iter().map(path).collect()
}

/// Says what is wrong with the files, or for people only what is missing beside them, if all could be read.
/// `argument` says where files are.
pub(super) fn unusable(problems: Problems, files: Option<&[Arc<Source>]>, argument: &str, is_json: bool) -> Failure {
    let problems = problems.into_vec();
    let missing = files.map(missing).unwrap_or_default();
    if is_json {
        let missing: Vec<&str> = missing.iter().map(|(schema, _)| *schema).collect();
        return Failure::Unusable(machine::print(&json!({
            "problems": machine::problems(&problems),
            "missing_schemas": missing,
        })));
    }
    let what: Vec<&str> = missing.iter().map(|(_, what)| *what).collect();
    if what.is_empty() {
        diagnostics::print(&problems);
        return Failure::Config;
    }
    // Most of what is wrong follows from that.
    let what = what.join(" and no ");
    Failure::Said(format!("there are no {what} among these files; say where they are with {argument} PATH"))
}

/// The schemas that every set of policies needs a file of, and what such a file declares.
const NEEDED: [(&str, &str); 2] = [("bailiwick.classes/1", "classes"), ("bailiwick.regions/1", "regions")];

/// Nothing is known to be missing while a file does not say what it declares.
fn missing(files: &[Arc<Source>]) -> Vec<(&'static str, &'static str)> {
    let schema = |file: &Arc<Source>| {
        let schema = document::read(file, &Problems::default(), |table| table.get::<String>("schema"))??;
        Some(schema.value)
    };
    let Some(declared) = files.iter().map(schema).collect::<Option<Vec<String>>>() else { return Vec::new() };
    NEEDED.into_iter().filter(|(schema, _)| !declared.iter().any(|declared| declared == schema)).collect()
}
