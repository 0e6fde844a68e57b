//! Registries that are right, wrong, cut off, spoiled.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::knowledge::Reading;

fn columns() -> Columns {
    let facts = [(Fact::CollectionPlace, "site".to_owned()), (Fact::SourceSystem, "system".to_owned())];
    Columns { key: "device".to_owned(), facts: facts.into(), codes: Arc::default() }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Registry, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    load(&path, &columns()).map(|(registry, _)| registry)
}

fn problem(name: &str, bytes: &[u8]) -> (u64, Problem) {
    match parse(name, bytes) {
        Err(error @ Error::Line { .. }) => {
            let text = error.to_string();
            assert!(!text.contains("SECRET") && text.contains(name), "{text}");
            let Error::Line { line, problem, .. } = error else { panic!() };
            (line, problem)
        }
        other => panic!("{other:?}"),
    }
}

fn place(codes: &[&str]) -> Reading {
    let mut codes: Vec<Jurisdiction> = codes.iter().map(|code| Jurisdiction::parse(code).unwrap()).collect();
    codes.sort_unstable();
    Reading::Codes(codes.into())
}

fn check(registry: &Registry) {
    assert_eq!(registry.len(), 3);
    assert_eq!(registry.get("a", Fact::CollectionPlace), place(&["DE"]));
    assert_eq!(registry.get("a", Fact::SourceSystem), Reading::Codes([Jurisdiction::system("crm")].into()));
    assert_eq!(registry.get("b \"1\"", Fact::CollectionPlace), place(&["FR", "US-CA"]));
    assert_eq!(registry.get("b \"1\"", Fact::SourceSystem), Reading::Absent);
    assert_eq!(registry.get("c", Fact::CollectionPlace), Reading::Absent);
    assert_eq!(registry.get("d", Fact::CollectionPlace), Reading::Absent);
    assert_eq!(registry.get("a", Fact::SubjectResidence), Reading::Absent);
}

const CSV: &str = "device,note,site,system\r\na,x,DE,crm\n\n\"b \"\"1\"\"\",\"y,z\",US-CA FR,\nc,,ZZ,erp\n";
const JSON: &str = r#"[{"device": "a", "site": "DE", "system": "crm", "note": [1, {"x": null}]},
 {"system": null, "device": "b \"1\"", "site": "US-CA FR"},
 {"device": "c", "site": "ZZ", "system": "erp"}]"#;

#[test]
fn csv_and_json_say_the_same() {
    check(&parse("a.csv", CSV.as_bytes()).unwrap());
    check(&parse("a.csv", format!("\u{feff}{CSV}").as_bytes()).unwrap());
    check(&parse("a.json", JSON.as_bytes()).unwrap());
    check(&parse("a.JSON", format!("{JSON}\n").as_bytes()).unwrap());
    assert_eq!(parse("a.csv", b"device,site,system\n").unwrap().len(), 0);
    assert_eq!(parse("a.json", b"[]").unwrap().len(), 0);
}

#[test]
fn one_column_may_say_two_facts() {
    let facts = [(Fact::CollectionPlace, "site".to_owned()), (Fact::ControllerEstablishment, "site".to_owned())];
    let columns = Columns { key: "device".to_owned(), facts: facts.into(), codes: Arc::default() };
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("a.csv", "device,site\na,DE\n"), ("a.json", r#"[{"device": "a", "site": "DE"}]"#)] {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        let (registry, _) = load(&path, &columns).unwrap();
        assert_eq!(registry.get("a", Fact::ControllerEstablishment), place(&["DE"]), "{name}");
    }
}

#[test]
fn what_is_wrong_in_csv_is_said_with_its_line() {
    let site = || "site".to_owned();
    let device = || "device".to_owned();
    for (text, line, expected) in [
        ("", 1, Problem::NoHeader),
        ("device,system\na,b\n", 1, Problem::NoColumn(site())),
        ("device,site,site,system\n", 1, Problem::ColumnTwice(site())),
        ("device,site,system\na,DE,x\nb,FR\n", 3, Problem::Width),
        ("device,site,system\na,DE,x\n\nb,FR,x,y\n", 4, Problem::Width),
        ("device,site,system\na,DE,x\nb,FR,y", 3, Problem::CutOff),
        ("device,site,system\na,DE,x\nb,\"FR,y\n", 3, Problem::Width),
        ("device,site,system\na,DE,x\nb,FR,\"y\n", 3, Problem::Misquoted(Misquoted::Open)),
        ("device,site,system\na,DE,\"x\nb,FR,\"y\n", 2, Problem::Misquoted(Misquoted::After)),
        ("device,site,system\na,DE,x\"\n", 2, Problem::Misquoted(Misquoted::Within)),
        ("device,site,system,\"more\"x\na,DE,x,\n", 1, Problem::Misquoted(Misquoted::After)),
        ("device,site,system\nSECRET\0,DE,x\n", 2, Problem::Control(device())),
        ("device,site,system\na,DE,x\n\"\n\n\",DE,x\n", 3, Problem::Control(device())),
        ("device,site,system\n ,DE,x\n", 2, Problem::NoKey(device())),
        ("device,site,system\nSECRET,DE,x\n\n\nSECRET,DE,x\n", 5, Problem::KeyTwice(device())),
        ("device,site,system\na,SECRET,x\n", 2, Problem::NoCode(site())),
        ("device,site,system\na,de,x\n", 2, Problem::NoCode(site())),
        ("device,site,system\na,DE;FR,x\n", 2, Problem::NoCode(site())),
    ] {
        assert_eq!(problem("a.csv", text.as_bytes()), (line, expected), "{text:?}");
    }
    assert_eq!(problem("a.csv", b"device,site,system\na,DE,x\nSECRET\xff,DE,x\n"), (3, Problem::NotText));
    let long = format!("device,site,system\n{},DE,x\n", "SECRET".repeat(200));
    assert_eq!(problem("a.csv", long.as_bytes()), (2, Problem::LongKey(device())));
}

#[test]
fn what_is_wrong_in_json_is_said_with_its_line() {
    let device = || "device".to_owned();
    for (text, line, expected) in [
        ("", 1, Problem::NotJson),
        ("{}", 1, Problem::NotJson),
        ("[1]", 1, Problem::NotJson),
        ("[{\"device\": \"SECRET\",\n \"site\": \"DE", 2, Problem::NotJson),
        ("[{\"device\": \"a\", \"site\": \"DE\", \"system\": \"x\"}\n] SECRET", 2, Problem::NotJson),
        ("[\n{\"device\": \"a\", \"device\": \"SECRET\"}]", 2, Problem::ColumnTwice(device())),
        ("[\n{\"device\": 1}]", 2, Problem::NotAText(device())),
        ("[\n{\"device\": [\"SECRET\"]}]", 2, Problem::NotAText(device())),
        ("[\n{\"site\": \"DE\"}]", 2, Problem::NoKey(device())),
        ("[\n{\"device\": \"\\u0000SECRET\"}]", 2, Problem::Control(device())),
        ("[{\"device\": \"a\"},\n{\"device\": \"a\"}]", 2, Problem::KeyTwice(device())),
        ("[{\"device\": \"a\", \"site\": \"SECRET\"}]", 1, Problem::NoCode("site".to_owned())),
        ("[{\"device\": \"a\", \"site\": \"DE\"}]", 1, Problem::NoColumn("system".to_owned())),
    ] {
        assert_eq!(problem("a.json", text.as_bytes()), (line, expected), "{text:?}");
    }
    assert_eq!(problem("a.json", b"[\n{\"device\": \"\xff\"}]"), (2, Problem::NotText));
    let deep = "[".repeat(100_000);
    assert_eq!(problem("a.json", deep.as_bytes()), (1, Problem::NotJson));
    let deep = format!("[{{\"note\": {}", "[".repeat(100_000));
    assert_eq!(problem("a.json", deep.as_bytes()), (1, Problem::NotJson));
}

#[test]
fn a_registry_with_too_many_entries_is_refused() {
    let columns = columns();
    let mut builder = Builder::new(&columns, 2);
    assert_eq!(read_csv(CSV.as_bytes(), &mut builder), Err((5, Problem::TooMany(2))));
    let mut builder = Builder::new(&columns, 2);
    assert_eq!(json::read(JSON.as_bytes(), &mut builder), Err((3, Problem::TooMany(2))));
}

#[test]
fn no_beginning_of_a_file_is_taken_for_the_whole() {
    let whole_lines: Vec<usize> = CSV.match_indices('\n').map(|(at, _)| at + 1).collect();
    for length in 0..CSV.len() {
        assert_eq!(parse("a.csv", &CSV.as_bytes()[..length]).is_ok(), whole_lines.contains(&length), "{length}");
    }
    for length in 0..JSON.len() {
        assert!(parse("a.json", &JSON.as_bytes()[..length]).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn rubbish_is_an_error_and_no_panic(
        at in 0..200usize, bytes in proptest::collection::vec(any::<u8>(), 0..20), is_json in any::<bool>(),
    ) {
        let (name, text) = if is_json { ("a.json", JSON) } else { ("a.csv", CSV) };
        let mut spoiled = text.as_bytes().to_vec();
        let at = at.min(spoiled.len());
        spoiled.splice(at..(at + bytes.len()).min(spoiled.len()), bytes.iter().copied());
        let _ = parse(name, &spoiled);
        let _ = parse(name, &bytes);
    }
}
