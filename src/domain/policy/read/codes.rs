//! `[codes]`: what ISO 3166-2 has added and retired since the program was made. It is read before everything else, whatever
//! the order of the files.

use std::sync::Arc;

use jiff::civil::Date;

use crate::domain::codes::Codes;
use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{self, Problems, Source, Spot, Table};
use crate::domain::jurisdiction::Jurisdiction;

use super::{NAMES, SOURCES};

pub(super) const CODES: Shape = Shape {
    name: "codes",
    about: "A newer list of ISO 3166-2 subdivisions than the program has.",
    keys: &[
        Key::required("as_of", Kind::Date, "The day on which the list was read."),
        SOURCES,
        Key::new("added", NAMES, "Subdivisions that the program does not know."),
        Key::new(
            "retired",
            NAMES,
            "Subdivisions that ISO 3166-2 lists no more. Records may still carry them; policies that name them are warned \
             of.",
        ),
    ],
};

/// The codes that all files bring. What is wrong with them is said when the files are read.
pub(super) fn of(files: &[Arc<Source>]) -> Codes {
    let (unsaid, mut codes) = (Problems::default(), Codes::default());
    for file in files {
        document::read(file, &unsaid, |table| {
            if let Some(section) = table.get::<Table<'_>>("codes") {
                read(&section.value, &mut codes);
            }
        });
    }
    codes
}

/// Reads a section, adds what it brings, and reports what is wrong with it.
pub(super) fn read(table: &Table<'_>, codes: &mut Codes) {
    let problems = table.problems();
    table.need::<Date>("as_of");
    if table.need::<Vec<Spot<String>>>("sources").is_some_and(|sources| sources.value.is_empty()) {
        problems.error(&table.place, "`sources` is empty: say where the list is");
    }
    let list = |key| table.or::<Vec<Spot<String>>>(key, Vec::new());
    let (added, retired) = (list("added"), list("retired"));
    for code in &added {
        add(code, codes, problems);
    }
    for code in &retired {
        if added.iter().any(|added| added.value == code.value) {
            problems.error(&code.place, format!("`{}` is added and retired: keep one of the two", code.value));
        } else {
            retire(code, codes, problems);
        }
    }
    table.done();
}

fn add(code: &Spot<String>, codes: &mut Codes, problems: &Problems) {
    let Some(subdivision) = Jurisdiction::subdivision(&code.value) else {
        let help = "write the ISO 3166-1 alpha-2 code of its country, `-`, and one to three capital letters or digits, \
                    like NO-31; a new country needs a newer version of bailiwick";
        return problems.error_help(&code.place, format!("`{}` is not a code of ISO 3166-2", code.value), help);
    };
    if Jurisdiction::parse(&code.value).is_some() {
        problems.warn(&code.place, format!("`{}` is known without this", code.value), "remove it");
    } else if !codes.add(subdivision) {
        problems.error_help(&code.place, format!("`{}` is added twice", code.value), "name it once in all files");
    }
}

fn retire(code: &Spot<String>, codes: &mut Codes, problems: &Problems) {
    let is_known = Jurisdiction::subdivision(&code.value).is_some() && Jurisdiction::parse(&code.value).is_some();
    if !is_known {
        let message = format!("`{}` is not a subdivision that can be retired", code.value);
        problems.error_help(&code.place, message, "name a code of ISO 3166-2 that was known so far");
    } else if !codes.retire(&code.value) {
        problems.error_help(&code.place, format!("`{}` is retired twice", code.value), "name it once in all files");
    }
}

/// A code of a policy, if there is one of this name. A retired one is warned of.
pub(super) fn named(code: &Spot<String>, codes: &Codes, problems: &Problems) -> Option<Jurisdiction> {
    if codes.is_retired(&code.value) {
        let message = format!("`{}` is retired: ISO 3166-2 lists it no more", code.value);
        problems.warn(&code.place, message, "name what has come in its place as well");
    }
    codes.parse(&code.value)
}

/// An ISO 3166 code that is a jurisdiction a law can name: not `ZZ`.
pub(super) fn code(code: &Spot<String>, codes: &Codes, problems: &Problems) -> Option<Jurisdiction> {
    let known = named(code, codes, problems).filter(|code| *code != Jurisdiction::UNKNOWN);
    if known.is_none() {
        let message = format!("`{}` is not an ISO 3166-1 alpha-2 or ISO 3166-2 code", code.value);
        let help = "a subdivision that is new is brought in `[codes]` of a file of regions (docs/policy.md)";
        match Jurisdiction::subdivision(&code.value) {
            Some(_) => problems.error_help(&code.place, message, help),
            None => problems.error(&code.place, message),
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::{Problem, Severity, changed};
    use crate::domain::evidence::read_code;
    use crate::domain::fact::Fact;
    use crate::domain::knowledge::Reading;
    use crate::domain::policy::PolicySet;

    const NEWER: &str = r#"schema = "bailiwick.regions/1"
[codes]
as_of   = 2026-11-01
sources = ["https://www.iso.org/obp/ui/#iso:code:3166:DE"]
added   = ["DE-X1", "NO-99"]
retired = ["NO-30"]
"#;

    const REGION: &str = r#"schema = "bailiwick.regions/1"
[regions.north]
as_of     = 2026-11-01
review_by = 2027-11-01
sources   = ["a map"]
codes     = ["NO-99", "SE"]
"#;

    fn read(texts: &[&str]) -> (PolicySet, Vec<Problem>) {
        let files = texts.iter().zip(1..).map(|(text, number)| Arc::new(Source::new(format!("{number}.toml"), *text)));
        let problems = Problems::default();
        let set = crate::domain::policy::read(&files.collect::<Vec<_>>(), &problems);
        (set, problems.into_vec())
    }

    fn said(texts: &[&str]) -> Vec<String> {
        let said = |problem: &Problem| {
            let is_error = problem.severity == Severity::Error;
            format!("{}{}: {}", if is_error { "" } else { "warning " }, problem.place, problem.message)
        };
        read(texts).1.iter().map(said).collect()
    }

    #[test]
    fn a_code_that_was_added_is_one_in_policies_and_in_records_whatever_the_order_of_the_files() {
        for files in [[NEWER, REGION], [REGION, NEWER]] {
            let (set, problems) = read(&files);
            assert!(problems.is_empty(), "{problems:?}");
            let Reading::Codes(codes) = read_code(&set.codes, Fact::SubjectResidence, "NO-99") else { panic!() };
            assert_eq!(codes.first().map(|code| code.country()), Jurisdiction::parse("NO"));
            assert!(matches!(read_code(&set.codes, Fact::SubjectResidence, "NO-98"), Reading::Unreadable));
        }
        let (set, problems) = read(&[REGION]);
        assert!(matches!(read_code(&set.codes, Fact::SubjectResidence, "NO-99"), Reading::Unreadable));
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.help.as_deref().is_some_and(|help| help.contains("[codes]")), "{problem:?}");
    }

    #[test]
    fn a_retired_code_is_read_in_records_and_warned_of_in_policies() {
        let region = changed(REGION, "NO-99", "NO-30");
        let expected = "warning 2.toml:6: regions.north.codes[0]: `NO-30` is retired: ISO 3166-2 lists it no more";
        assert_eq!(said(&[NEWER, &region]), [expected]);
        let (set, _) = read(&[NEWER]);
        assert!(matches!(read_code(&set.codes, Fact::SubjectResidence, "NO-30"), Reading::Codes(_)));
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said_where_it_stands() {
        let with = |added: &str| changed(NEWER, "\"DE-X1\"", &format!("\"{added}\""));
        for added in ["DE", "QQ-1", "ZZ-1", "DE-", "DE-ABCD", "DE-a", "de-A", "DE X1", "DE-X1-2", ""] {
            let said = said(&[&with(added)]);
            assert_eq!(said, [format!("1.toml:5: codes.added[0]: `{added}` is not a code of ISO 3166-2")]);
        }
        assert_eq!(said(&[&with("DE-BY")]), ["warning 1.toml:5: codes.added[0]: `DE-BY` is known without this"]);
        for retired in ["DE", "DE-X9", "FR"] {
            let text = changed(NEWER, "NO-30", retired);
            let expected = format!("1.toml:6: codes.retired[0]: `{retired}` is not a subdivision that can be retired");
            assert_eq!(said(&[&text]), [expected]);
        }
        let both = changed(NEWER, "NO-30", "NO-99");
        assert_eq!(said(&[&both]), ["1.toml:6: codes.retired[0]: `NO-99` is added and retired: keep one of the two"]);
        let again = said(&[NEWER, NEWER]);
        assert_eq!(again.len(), 3, "{again:?}");
        assert!(again.iter().all(|said| said.starts_with("2.toml:") && said.ends_with("twice")), "{again:?}");
        let unsaid = changed(&changed(NEWER, "as_of   = 2026-11-01\n", ""), "[\"https", "[] #");
        assert_eq!(said(&[&unsaid]).len(), 2);
    }
}
