//! Policy files that mean harm: always an error that names the file, and the line where there is one; never a panic,
//! and never a wait without an end.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bailiwick::config;
use bailiwick::domain::document::{Problem, Problems, Severity};
use bailiwick::domain::policy;

use super::engine;

/// Far more than any of these takes, also on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs something that must come to an end.
fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn read(what: &str, text: &str) -> Vec<Problem> {
    let text = text.to_owned();
    in_time(what, move || {
        let problems = Problems::default();
        policy::read(&engine::sources([("hostile.toml".to_owned(), text)]), &problems);
        problems.into_vec()
    })
}

/// The errors; there is one at least, and each names the file.
fn errors(what: &str, text: &str) -> Vec<Problem> {
    let mut problems = read(what, text);
    problems.retain(|problem| problem.severity == Severity::Error);
    assert!(!problems.is_empty(), "{what} is taken");
    for problem in &problems {
        assert_eq!(problem.place.file.path, "hostile.toml");
        assert!(!problem.message.is_empty());
    }
    problems
}

fn is_error_at(what: &str, text: &str, line: usize) {
    let errors = errors(what, text);
    let lines: Vec<usize> = errors.iter().map(|problem| problem.place.line()).collect();
    assert!(lines.contains(&line), "{what}: {lines:?}");
}

const SCHEMA: &str = "schema = \"bailiwick.policy/1\"\n";
const CLASSES: &str = "schema = \"bailiwick.classes/1\"\n";

#[test]
fn what_is_nested_deeply_is_refused() {
    const DEEP: usize = 10_000;
    let arrays = format!("{SCHEMA}x = {}{}\n", "[".repeat(DEEP), "]".repeat(DEEP));
    is_error_at("arrays", &arrays, 2);
    let inline = format!("{SCHEMA}x = {}1{}\n", "{ a = ".repeat(DEEP), " }".repeat(DEEP));
    is_error_at("inline tables", &inline, 2);
    let tables = format!("{SCHEMA}[{}a]\n", "a.".repeat(DEEP));
    errors("tables", &tables);
    let keys = format!("{SCHEMA}{}a = 1\n", "a.".repeat(DEEP));
    errors("dotted keys", &keys);
    let unclosed = format!("{SCHEMA}x = {}\n", "[".repeat(DEEP));
    errors("unclosed arrays", &unclosed);
    // Not deeper than TOML is read, and yet not what is asked for.
    let many = format!("{SCHEMA}x = {}{}\n", "[".repeat(60), "]".repeat(60));
    is_error_at("sixty arrays", &many, 2);
    let headers: String = (0..10_000).map(|number| format!("[a.t{number}.b.c]\nd = 1\n")).collect();
    errors("ten thousand tables", &format!("{SCHEMA}{headers}"));
    let elements = "[[a]]\nb = 1\n".repeat(10_000);
    errors("ten thousand elements", &format!("{SCHEMA}{elements}"));
}

#[test]
fn what_is_declared_twice_is_refused() {
    is_error_at("a key", "schema = \"bailiwick.policy/1\"\nschema = \"bailiwick.policy/1\"\n", 2);
    is_error_at("a table", &format!("{SCHEMA}[facts]\n[review]\n[facts]\n"), 4);
    is_error_at("an inline key", &format!("{SCHEMA}[facts]\nx = {{ a = 1, a = 2 }}\n"), 3);
    is_error_at("a dotted key", &format!("{SCHEMA}facts.min_strength = 1\nfacts.min_strength = 2\n"), 3);
    is_error_at(
        "quoted and bare",
        &format!("{SCHEMA}[facts]\nunknown = \"refuse\"\n\"unknown\" = \"quarantine\"\n"),
        4,
    );
    is_error_at(
        "an escaped key",
        &format!("{SCHEMA}[facts]\nunknown = \"refuse\"\n\"unkno\\u0077n\" = \"quarantine\"\n"),
        4,
    );
}

#[test]
fn a_key_that_only_looks_like_one_is_pointed_at() {
    for (what, key) in [
        ("Cyrillic", "min_strеngth"),
        ("Greek", "min_strεngth"),
        ("a zero-width space", "min_\u{200b}strength"),
        ("a zero-width joiner", "min_strength\u{200d}"),
        ("full width", "ｍin_strength"),
        ("right to left", "\u{202e}htgnerts_nim"),
        ("combining", "min_strength\u{301}"),
        ("a soft hyphen", "min\u{ad}_strength"),
        ("a tag", "min_strength\u{e0041}"),
        ("a case", "Min_Strength"),
        ("a blank", "min_strength "),
        ("an escape", "min_strength\u{1b}[2J"),
    ] {
        let quoted: String = key
            .chars()
            .map(|char| match char {
                '\u{1b}' => "\\u001b".to_owned(),
                other => other.to_string(),
            })
            .collect();
        let text = format!("{SCHEMA}\n[facts]\n\"{quoted}\" = 99\n");
        let errors = errors(what, &text);
        let error =
            errors.iter().find(|problem| problem.place.line() == 4).unwrap_or_else(|| panic!("{what}: {errors:?}"));
        assert!(text[error.place.span.clone()].contains("99") || error.place.key.contains(key), "{what}: {error:?}");
        assert!(!error.message.chars().any(char::is_control), "{what}: the message moves the cursor");
        if !key.is_ascii() && what != "right to left" {
            let invisible = ['\u{200b}', '\u{200d}', '\u{ad}', '\u{e0041}', '\u{202e}'];
            assert!(!error.message.contains(invisible), "{what}: the message hides what is wrong: {:?}", error.message);
        }
    }
    // Names that are not keys: a class by another script is another class.
    let text = format!(
        "{CLASSES}[classes.personal]\nabout = \"x\"\n[classes.child]\nabout = \"x\"\nparents = [\"pеrsonal\"]\n"
    );
    is_error_at("a Cyrillic class", &text, 6);
}

#[test]
fn what_is_no_text_is_refused() {
    is_error_at("a NUL", &format!("{SCHEMA}\n[facts]\0\n"), 3);
    is_error_at("a NUL in a text", &format!("{SCHEMA}x = \"a\0b\"\n"), 2);
    is_error_at("a NUL that is escaped", &format!("{SCHEMA}[facts]\nunknown = \"refuse\\u0000\"\n"), 3);
    is_error_at("a lone surrogate", &format!("{SCHEMA}x = \"\\ud800\"\n"), 2);
    is_error_at("a bare carriage return", &format!("{SCHEMA}x = 1\ry = 2\n"), 2);
    errors("nothing", "");
    errors("no schema", "\n\n");
    errors("another format", "{\"schema\": \"bailiwick.policy/1\"}");
    errors("an end too early", "schema = \"bailiwick.pol");
}

#[test]
fn a_byte_order_mark_and_carriage_returns_move_no_line() {
    let text = format!("\u{feff}{SCHEMA}[facts]\nmin_strength = 101\n");
    is_error_at("a mark", &text, 3);
    let text = text.replace('\n', "\r\n");
    is_error_at("carriage returns", &text, 3);
    let good = format!("\u{feff}{SCHEMA}[facts]\nmin_strength = 50\n").replace('\n', "\r\n");
    assert!(read("what is good", &good).is_empty());
    is_error_at("a mark in the middle", &format!("{SCHEMA}\u{feff}[facts]\n"), 2);
}

#[test]
fn numbers_and_days_out_of_range_are_refused() {
    for number in [
        "101",
        "-1",
        "18446744073709551615",
        "9223372036854775807",
        "-9223372036854775809",
        "1e400",
        "nan",
        "inf",
        "0.5",
        "60.0",
        "0x7fffffffffffffffffff",
        "\"60\"",
        "true",
        "[60]",
        "{}",
        "1979-05-27",
    ] {
        is_error_at(number, &format!("{SCHEMA}[facts]\nmin_strength = {number}\n"), 3);
    }
    is_error_at("many digits", &format!("{SCHEMA}[facts]\nmin_strength = {}\n", "9".repeat(500_000)), 3);
    let regime = |day: &str| {
        format!(
            "schema = \"bailiwick.regime/1\"\nid = \"a\"\nname = \"a\"\nnotice = \"a\"\nas_of = 2026-01-01\n\
             review_by = {day}\nconfidence = \"high\"\nsources = [\"a\"]\nclasses = []\nlocalisation = \"none\"\n\
             misroute = \"refuse\"\n[[applies]]\nfact = \"gateway.country\"\nin = [\"DE\"]\n"
        )
    };
    assert!(read("a day", &regime("2027-01-01")).is_empty());
    for day in [
        "2026-02-30",
        "2026-13-01",
        "2026-00-01",
        "2026-01-00",
        "10000-01-01",
        "99999999999-01-01",
        "-0001-01-01",
        "2025-12-31",
        "2027-01-01T00:00:00Z",
        "2027-01-01T00:00:00",
        "12:00:00",
        "\"2027-01-01\"",
        "20270101",
        "2026-2-3",
    ] {
        is_error_at(day, &regime(day), 6);
    }
    let least = |number: &str| {
        let law = regime("2027-01-01");
        assert!(law.contains("[[applies]]"), "{law}");
        law.replace("[[applies]]", &format!("min_contributors = {number}\n[[applies]]"))
    };
    assert!(read("the most contributors", &least("1000")).is_empty());
    for number in ["1001", "4", "0", "-5", "9223372036854775807"] {
        is_error_at(number, &least(number), 12);
    }
    for hold in ["\"P1Y\"", "\"-PT1S\"", "\"PT99999999999999999999S\"", "\"10 parsecs\"", "600"] {
        is_error_at(hold, &format!("{SCHEMA}[quarantine]\nhold = {hold}\n"), 3);
    }
}

#[test]
fn classes_that_are_their_own_ancestors_are_refused() {
    let class = |name: &str, parent: &str| format!("[classes.{name}]\nabout = \"x\"\nparents = [\"{parent}\"]\n");
    is_error_at("of itself", &format!("{CLASSES}{}", class("a", "a")), 2);
    is_error_at("in a circle", &format!("{CLASSES}{}{}{}", class("a", "b"), class("b", "c"), class("c", "a")), 2);
    let circle: String =
        (0..300).map(|number| class(&format!("c{number}"), &format!("c{}", (number + 1) % 300))).collect();
    assert_eq!(errors("a large circle", &format!("{CLASSES}{circle}")).len(), 300);
    // As long a line of ancestors as a file can hold.
    let line: String = (1..18_000).map(|number| class(&format!("c{number}"), &format!("c{}", number - 1))).collect();
    let line = format!("{CLASSES}[classes.c0]\nabout = \"x\"\n{line}");
    assert!(line.len() < 1 << 20, "{}", line.len());
    assert!(read("a long line", &line).is_empty());
    // Every class has every one before it as a parent: as many ways to the first as there are subsets.
    let mut dense = format!("{CLASSES}[classes.c0]\nabout = \"x\"\n");
    for number in 1..300 {
        let parents: Vec<String> = (0..number).map(|parent| format!("\"c{parent}\"")).collect();
        dense += &format!("[classes.c{number}]\nabout = \"x\"\nparents = [{}]\n", parents.join(", "));
    }
    assert!(read("a dense family", &dense).is_empty());
}

fn regime(id: &str) -> String {
    format!(
        "schema = \"bailiwick.regime/1\"\nid = \"{id}\"\nname = \"a\"\nnotice = \"a\"\nas_of = 2026-01-01\n\
         review_by = 2027-01-01\nconfidence = \"high\"\nsources = [\"a\"]\nclasses = []\nlocalisation = \"none\"\n\
         misroute = \"refuse\"\n[[applies]]\nfact = \"gateway.country\"\nin = [\"DE\"]\n"
    )
}

#[test]
fn more_regimes_than_a_set_can_hold_are_refused_at_the_first_one_too_many() {
    let files =
        |count: usize| (0..count).map(|number| (format!("law-{number}.toml"), regime(&format!("law-{number}"))));
    let read = |count: usize| {
        let problems = Problems::default();
        let set = policy::read(&engine::sources(files(count)), &problems);
        (set.regimes.len(), problems.into_vec())
    };
    let (regimes, problems) = read(128);
    assert!(problems.is_empty() && regimes == 128);
    let (_, problems) = read(129);
    assert_eq!(engine::errors(&problems).len(), 1);
    assert!(engine::errors(&problems)[0].starts_with("law-128.toml:2: "), "{problems:?}");
    let (_, problems) = read(1_000);
    assert_eq!(engine::errors(&problems).len(), 1_000 - 128);
}

#[test]
fn names_as_long_as_a_file_are_refused_in_good_time() {
    let long = "a".repeat(500_000);
    let other = format!("{}b", "a".repeat(499_999));
    is_error_at("a key", &format!("{SCHEMA}{long} = 1\n"), 2);
    is_error_at("a stream", &format!("{SCHEMA}[streams.{long}]\n"), 2);
    is_error_at("an unknown word", &format!("{SCHEMA}[facts]\nunknown = \"{long}\"\n"), 3);
    // Two of them, to be compared.
    let classes =
        format!("{CLASSES}[classes.{long}]\nabout = \"x\"\n[classes.child]\nabout = \"x\"\nparents = [\"{other}\"]\n");
    is_error_at("a parent", &classes, 6);
    is_error_at("a schema", &format!("schema = \"{long}\"\n"), 1);
    let many: String = (0..1_500).map(|number| format!("name_that_is_not_known_{number:05} = {{ a = 1 }}\n")).collect();
    assert_eq!(errors("many unknown keys", &format!("{SCHEMA}[facts]\n{many}")).len(), 1_500);
    let parents: Vec<String> = (0..1_500).map(|number| format!("\"no_such_class_{number:05}\"")).collect();
    let classes: String = (0..1_500).map(|number| format!("[classes.class_{number:05}]\nabout = \"x\"\n")).collect();
    let text = format!("{CLASSES}{classes}[classes.child]\nabout = \"x\"\nparents = [{}]\n", parents.join(", "));
    assert_eq!(errors("many unknown parents", &text).len(), 1_500);
    // What is said of a long name is not as long.
    for error in errors("a long name", &format!("{SCHEMA}[facts]\nunknown = \"{long}\"\n")) {
        assert!(error.message.len() < 1_000, "a message of {} bytes", error.message.len());
        assert!(error.help.is_none_or(|help| help.len() < 10_000));
    }
}

/// What `load` says of a gateway with these policies.
fn load(directory: &Path, policies: &str) -> Vec<Problem> {
    let main = directory.join("gateway.toml");
    fs::write(&main, format!("[gateway]\nid = \"a\"\ncountry = \"DE\"\nserves = []\npolicies = [{policies:?}]\n"))
        .unwrap();
    let loaded = in_time(policies, move || {
        config::load(&main).map(|loaded| (loaded.config.is_some(), loaded.problems)).map_err(|error| error.to_string())
    });
    let (is_taken, mut problems) = loaded.unwrap();
    assert!(!is_taken, "{policies} is taken");
    problems.retain(|problem| problem.severity == Severity::Error);
    problems
}

/// The one error about a path, at the line that names it.
fn refused(directory: &Path, policies: &str, wanted: &str) {
    let problems = load(directory, policies);
    let of_path = problems.iter().find(|problem| problem.message.contains(wanted));
    let problem = of_path.unwrap_or_else(|| panic!("{policies}: {:?}", engine::errors(&problems)));
    assert!(problem.place.file.path.ends_with("gateway.toml"));
    assert_eq!(problem.place.line(), 5);
}

#[test]
fn what_is_no_ordinary_file_of_policies_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    assert!(Command::new("mkfifo").arg(at("pipe.toml")).status().unwrap().success());
    refused(directory.path(), "pipe.toml", "pipe.toml");
    symlink("/dev/zero", at("zero.toml")).unwrap();
    refused(directory.path(), "zero.toml", "zero.toml");
    symlink("nowhere", at("dangling.toml")).unwrap();
    refused(directory.path(), "dangling.toml", "dangling.toml");
    symlink("loop.toml", at("loop.toml")).unwrap();
    refused(directory.path(), "loop.toml", "loop.toml");
    refused(directory.path(), "missing.toml", "missing.toml");
    refused(directory.path(), "missing\u{0}.toml", "missing");
    fs::create_dir(at("empty")).unwrap();
    refused(directory.path(), "empty", "empty");
    fs::create_dir(at("round")).unwrap();
    symlink(".", at("round/again")).unwrap();
    symlink("..", at("round/up")).unwrap();
    refused(directory.path(), "round", "round");
    // Six directories, and 12^6 ways through them.
    for level in 0..6 {
        fs::create_dir(at(&format!("many{level}"))).unwrap();
        for number in 0..12 {
            symlink(format!("../many{}", level + 1), at(&format!("many{level}/{number}"))).unwrap();
        }
    }
    fs::create_dir(at("many6")).unwrap();
    refused(directory.path(), "many0", "entries of directories");
    fs::create_dir(at("large")).unwrap();
    for number in 0..33 {
        fs::write(at(&format!("large/{number}.toml")), format!("# {}", "x".repeat((1 << 20) - 2))).unwrap();
    }
    refused(directory.path(), "large", "together");
    // What stands in a directory among others.
    fs::create_dir(at("mixed")).unwrap();
    fs::write(at("mixed/good.toml"), SCHEMA).unwrap();
    symlink("nowhere", at("mixed/bad.toml")).unwrap();
    refused(directory.path(), "mixed", "bad.toml");
    fs::create_dir_all(at("named/policy.toml")).unwrap();
    refused(directory.path(), "named", "named");
    fs::create_dir_all(at("deep/1/2/3/4/5/6/7/8/9")).unwrap();
    refused(directory.path(), "deep", "deep");
}

#[test]
fn a_file_that_is_too_large_is_refused_by_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let file = fs::File::create(at("large.toml")).unwrap();
    file.set_len(100 << 20).unwrap();
    refused(directory.path(), "large.toml", "large.toml");
    // As large as the whole disk: nobody reads that to see that it is too large.
    file.set_len(1 << 40).unwrap();
    refused(directory.path(), "large.toml", "large.toml");
    let mut text = format!("{SCHEMA}unknown = 1\n");
    text += &"#".repeat((1 << 20) - text.len());
    fs::write(at("just.toml"), &text).unwrap();
    // It is read: there is something else the matter with it.
    let errors = engine::errors(&load(directory.path(), "just.toml"));
    assert!(errors.iter().any(|error| error.contains("just.toml:2: unknown")), "{errors:?}");
    fs::write(at("just.toml"), text + "#").unwrap();
    refused(directory.path(), "just.toml", "just.toml");
}

#[test]
fn a_file_that_is_no_utf_8_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("latin.toml", b"schema = \"\xe9\"\n".as_slice()),
        ("cut.toml", b"schema = \"\xe2\x82".as_slice()),
        ("overlong.toml", b"schema = \"\xc0\x80\"\n".as_slice()),
        ("surrogate.toml", b"schema = \"\xed\xa0\x80\"\n".as_slice()),
        ("wide.toml", b"\xff\xfes\0c\0h\0e\0m\0a\0".as_slice()),
    ] {
        fs::write(directory.path().join(name), bytes).unwrap();
        refused(directory.path(), name, name);
    }
}

#[test]
fn more_files_than_are_read_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let many = directory.path().join("many");
    fs::create_dir(&many).unwrap();
    (0..1_001).for_each(|number| fs::write(many.join(format!("{number}.toml")), SCHEMA).unwrap());
    refused(directory.path(), "many", "many");
}

/// What is said of a gateway with these keys beside the required ones, and of a deployment in this directory.
fn gateway(directory: &Path, more: &str) -> Vec<String> {
    let main = directory.join("gateway.toml");
    let text = format!(
        "[gateway]\nid = \"g-1\"\ncountry = \"DE\"\nserves = []\npolicies = [\"policy.toml\"]\n[listen]\ngrpc = \
         \"127.0.0.1:7400\"\n{more}\n"
    );
    fs::write(directory.join("policy.toml"), SCHEMA).unwrap();
    fs::write(&main, text).unwrap();
    let problems = in_time(more, move || config::load(&main).map(|loaded| loaded.problems).unwrap());
    engine::errors(&problems)
}

fn says(errors: &[String], wanted: &str) -> bool {
    errors.iter().any(|error| error.contains(wanted))
}

#[test]
fn what_is_written_has_a_directory_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("real/inner")).unwrap();
    symlink("real", at("link")).unwrap();
    let file = |name: &str, path: &str| format!("[destinations.{name}]\nkind = \"file\"\ndirectory = \"{path}\"\n");
    let journal = |path: &str| format!("[journal]\ndirectory = \"{path}\"\n");
    let both = |one: &str, two: &str| gateway(directory.path(), &(journal(one) + &file("desk", two)));
    for (one, two) in [
        ("released/journal", "released"),
        ("journal", "journal/released"),
        ("a", "a"),
        ("a", "./b/../a"),
        ("real/journal", "link"),
        ("link/inner/journal", "real/inner"),
        ("link/none/../journal", "real"),
    ] {
        let errors = both(one, two);
        assert!(says(&errors, "lies in that of") || says(&errors, "is also that of"), "{one}, {two}: {errors:?}");
    }
    for (one, two) in [("journal", "released"), ("a", "ab"), ("a/b", "a/c"), ("real/journal", "link/released")] {
        let errors = both(one, two);
        assert!(!says(&errors, "that of"), "{one}, {two}: {errors:?}");
    }
    let errors = gateway(directory.path(), &(file("desk", "released") + &file("archive", "released/")));
    assert!(says(&errors, "is also that of destination `desk`"), "{errors:?}");
    let files = "[models]\na = \"a.onnx\"\nb = \"./a.onnx\"\nc = \"journal/c.onnx\"\n[registries]\nr = \"a.onnx\"\n";
    let errors = gateway(directory.path(), files);
    for wanted in
        ["model `b` is also that of model `a`", "model `c` lies in that of the journal", "registry `r` is also"]
    {
        assert!(says(&errors, wanted), "{wanted}: {errors:?}");
    }
}

#[test]
fn keys_and_policies_lie_where_nothing_is_written_and_are_no_other_files() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("next")).unwrap();
    fs::create_dir_all(at("journal")).unwrap();
    for path in ["journal/aa.key", "next/aa.key", "aa.key"] {
        fs::write(at(path), [7; 32]).unwrap();
        fs::set_permissions(at(path), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let shadow = |policies: &str| format!("[shadow]\npolicies = [{policies}]\n");
    let key = |path: &str| format!("[journal.keys]\naa = \"{path}\"\n");
    for (more, wanted) in [
        (key("journal/aa.key"), "the key of `aa` lies in that of the journal"),
        (key("policy.toml"), "is also that of"),
        (key("aa.key") + "[models]\nm = \"aa.key\"\n", "is also that of"),
        (shadow("\"journal/next\""), "policies lies in that of the journal"),
        (shadow("\"next\"") + "[journal]\ndirectory = \"next/journal\"\n", "the journal lies in that of policies"),
        ("[models]\nm = \"policy.toml\"\n".to_owned(), "is also that of"),
    ] {
        let errors = gateway(directory.path(), &more);
        assert!(says(&errors, wanted), "{more}: {errors:?}");
    }
    // A set in the shadow has files in common with the one in force, and other files may lie beside policies.
    for more in [shadow("\"policy.toml\", \"next\""), shadow("\"next\"") + &key("next/aa.key")] {
        let errors = gateway(directory.path(), &more);
        assert!(!says(&errors, "that of"), "{more}: {errors:?}");
    }
}

#[test]
fn a_peer_is_another_gateway_at_an_address_that_can_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let peer = |id: &str, endpoint: &str| {
        format!("[[peers]]\nid = \"{id}\"\ncountry = \"FR\"\nserves = []\nendpoint = \"{endpoint}\"\n")
    };
    for (peers, wanted) in [
        (peer("g-1", "http://10.0.0.1:7400"), "a gateway is called `g-1` already"),
        (peer("b", "http://10.0.0.1:1") + &peer("b", "http://10.0.0.2:1"), "a gateway is called `b` already"),
        (peer("b", "http://10.0.0.1:1") + &peer("c", "http://10.0.0.1:1/"), "another peer is at"),
        (peer("b", "http://127.0.0.1:7400"), "is where this gateway itself listens"),
        (peer("b", "https://127.0.0.1:7400"), "is where this gateway itself listens"),
        (peer("b", "http://localhost:7400/"), "is where this gateway itself listens"),
        (peer("b", "https://10.0.0.1:1") + &peer("c", "http://10.0.0.1:1"), "another peer is at"),
        (peer("b", "10.0.0.1:7400"), "is no URI like https://"),
        (peer("b", "b.example"), "is no URI like https://"),
        (peer("b", "ftp://b.example:7400"), "is no URI like https://"),
        (peer("../b", "http://10.0.0.1:7400"), "is no gateway name"),
    ] {
        let errors = gateway(directory.path(), &peers);
        assert!(says(&errors, wanted), "{wanted}: {errors:?}");
    }
    assert!(
        gateway(directory.path(), &(peer("b", "http://b.example:7400") + &peer("c", "http://10.0.0.1:7400")))
            .is_empty()
    );
}

#[test]
fn of_policies_that_cannot_be_read_only_that_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("gateway.toml");
    fs::write(directory.path().join("policy.toml"), format!("{SCHEMA}[streams.s]\nmodel = \"m\"\n")).unwrap();
    for (policies, shadow) in
        [("[\"policy.toml\", \"gone.toml\"]", ""), ("[]", "[shadow]\npolicies = [\"gone.toml\"]\n")]
    {
        let text = format!("[gateway]\nid = \"g-1\"\ncountry = \"DE\"\nserves = []\npolicies = {policies}\n{shadow}");
        fs::write(&main, text).unwrap();
        let errors = engine::errors(&config::load(&main).unwrap().problems);
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert!(error.contains("cannot read") && error.contains("gone.toml"), "{error}");
    }
}

#[test]
fn names_that_become_files_columns_or_messages_are_of_a_closed_alphabet() {
    for name in ["../../x", "", ".", "..", "a/b", "/etc", "a b", "ä", "a\\u0000", "_a"] {
        for what in ["streams", "datasets", "models", "registries", "destinations"] {
            let thing = format!("{SCHEMA}[{what}.\"{name}\"]\n");
            let errors = errors(what, &thing);
            assert!(errors.iter().any(|error| error.message.contains("is no ")), "{what} {name}: {errors:?}");
        }
    }
}

#[test]
fn what_is_one_in_json_or_a_release_is_declared_once() {
    let stream = "[streams.s]\nevent_time = \"at\"\ncontributor = \"who\"\nuntested = []\n[streams.s.facts]\n\
                  [streams.s.fields]\nat = { type = \"timestamp\", class = \"c\" }\nwho = { type = \"string\", class = \"c\" }\n\
                  n = { type = \"int64\", class = \"c\" }\nword = { type = \"string\", class = \"c\" }\n";
    let dataset = |keys: &str, metrics: &str| {
        format!(
            "{SCHEMA}{stream}[datasets.d]\nstream = \"s\"\nwindow = {{ size = \"PT1M\" }}\ngroup_by = [{keys}]\nmetrics = \
             [{metrics}]\n"
        )
    };
    let count = "{ name = \"records\", fn = \"count\" }";
    for (text, wanted) in [
        (format!("{SCHEMA}{stream}Word = {{ type = \"string\", class = \"c\" }}\n"), "by capitals or underscores only"),
        (
            format!("{SCHEMA}{stream}wo_rd = {{ type = \"string\", class = \"c\" }}\n"),
            "by capitals or underscores only",
        ),
        (dataset("{ field = \"word\", domain = [\"a\", \"b\", \"a\"] }", count), "in the domain twice"),
        (dataset("{ field = \"n\", domain = [1, 2, 1] }", count), "in the domain twice"),
        (dataset("{ field = \"word\", domain = [\"a\", \"other\"] }", count), "stands for what is not in the domain"),
        (
            dataset("{ field = \"word\", domain = [\"a\"] }", "{ name = \"Word\", fn = \"count\" }"),
            "already has a column `Word`",
        ),
        (dataset("", "{ name = \"Policy\", fn = \"count\" }"), "already has a column `Policy`"),
        (dataset("", "{ name = \"window_start\", fn = \"count\" }"), "already has a column `window_start`"),
        (dataset("", "{ name = \"a/b\", fn = \"count\" }"), "is no metric name"),
        (
            dataset(
                "",
                &format!(
                    "{{ name = \"h\", fn = \"histogram\", field = \"n\", edges = {:?} }}",
                    (0..1_002).collect::<Vec<_>>()
                ),
            ),
            "there are 1002 `edges`",
        ),
    ] {
        let errors = errors(wanted, &text);
        assert!(errors.iter().any(|error| error.message.contains(wanted)), "{wanted}: {errors:?}");
    }
}
