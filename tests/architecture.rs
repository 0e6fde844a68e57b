//! The arrows of `ARCHITECTURE.md`: which module may import which. The sources are parsed, and every path that they write
//! is followed: `crate`, `self`, `super`, modules by their name, trees of `use`, names that are passed on by `pub use`,
//! paths in macros and attributes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

mod architecture {
    pub(crate) mod imports;
    pub(crate) mod reader;
    pub(crate) mod sources;
}

use architecture::imports::{Arrows, Import, arrows, rings, shown};
use architecture::sources::{Files, Modules, files, join};

/// A module and those of the crate's modules it may import, besides itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &["planted"]),
    ("clock", &[]),
    ("files", &[]),
    ("planted", &[]),
    ("telemetry", &["domain"]),
    ("logging", &["domain"]),
    ("storage", &["planted"]),
    ("durable", &["domain", "storage", "planted"]),
    ("ledger", &["domain", "storage"]),
    ("scoring", &["domain", "files"]),
    ("knowledge", &["domain", "files"]),
    ("identity", &["domain", "files"]),
    ("engine", &["clock", "decode", "domain", "telemetry", "durable", "ledger", "planted", "scoring", "storage"]),
    ("monitor", &["clock", "domain", "engine::supervision", "identity", "planted", "telemetry"]),
    ("decode", &["domain", "logging", "ingress::proto"]),
    (
        "ingress::grpc",
        &[
            "domain",
            "telemetry",
            "logging",
            "engine::budget",
            "engine::inbox",
            "engine::intake",
            "engine::pipeline",
            "engine::request",
            "engine::supervision",
            "decode",
            "identity",
            "ingress::proto",
            "planted",
        ],
    ),
    ("egress::budget", &["clock::moment", "domain", "storage"]),
    ("egress::encode", &["domain"]),
    ("egress::file", &["domain", "storage", "egress::encode"]),
    ("egress::kafka", &["clock", "domain", "files", "identity", "storage", "egress::encode"]),
    (
        "egress::delivery",
        &[
            "clock::moment",
            "domain",
            "telemetry",
            "durable",
            "planted",
            "storage",
            "engine::supervision",
            "ledger",
            "egress::budget",
            "egress::encode",
            "egress::file",
            "egress::kafka",
        ],
    ),
    (
        "config",
        &[
            "clock",
            "domain",
            "durable::seal",
            "files",
            "identity",
            "ledger",
            "storage",
            "egress::budget",
            "egress::encode",
            "egress::file",
            "egress::kafka",
            "engine::intake",
            "engine::sequencer",
        ],
    ),
];

/// Modules that put everything together and may import all.
const ABOVE_ALL: &[&str] = &["app", "commands"];

/// Rings between modules that stand side by side (each with all that is below it), and why they are there. The list only
/// shrinks: a ring that is no more must go from here. In `storage` there is none, not even between a file and its folder.
const RINGS: &[(&[&str], &str)] = &[(
    &["domain::policy::read::evidence", "domain::policy::read::streams"],
    "evidence stands in a stream's table and names the stream's fields",
)];

/// What the domain may use of other crates: what computes. Neither IO, async, threads, clocks nor wire formats.
const PURE: &[&str] = &[
    "arrow_array",
    "arrow_buffer",
    "arrow_schema",
    "arrow_select",
    "foldhash",
    "hashbrown",
    "jiff",
    "rust_iso3166",
    "sha2",
    "siphasher",
    "std",
    "strsim",
    "thiserror",
    "toml",
    "zeroize",
];

/// No crates: primitive types, and the names of lints.
const PRIMITIVES: &[&str] = &[
    "clippy", "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "str", "u8", "u16", "u32",
    "u64", "u128", "usize",
];

/// What of the standard library touches the world.
const WORLD: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
];

/// An address is a number: no IO.
const NO_IO: &[&str] = &["std::net::IpAddr", "std::net::Ipv4Addr", "std::net::Ipv6Addr"];

struct Sources {
    files: Files,
    modules: Modules,
    imports: Vec<Import>,
}

static SOURCES: LazyLock<Sources> = LazyLock::new(|| {
    let files = files(&root().join("src"));
    let modules = Modules::read(&files);
    let imports = modules.imports();
    Sources { files, modules, imports }
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Whether a path is a module or something in it.
fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The row of the table that a module belongs to.
fn row(module: &str) -> Option<&'static str> {
    ALLOWED.iter().map(|(row, _)| *row).find(|row| is_in(module, row))
}

#[test]
fn everything_is_read() {
    let Sources { files, modules, imports } = &*SOURCES;
    assert_eq!(modules.blind_spots, Vec::<String>::new(), "a path that cannot be followed may lead anywhere");
    // The program is a crate of its own that names this one.
    assert_eq!(modules.unread(files), ["main.rs"], "files that no module is made of");
    let globs = imports.iter().filter(|import| import.is_glob && !import.is_test);
    let globs: Vec<String> = globs.map(|import| format!("{}: {}::*", import.place, import.path())).collect();
    assert_eq!(globs, Vec::<String>::new(), "say which names: a glob brings in what its module imports, too");
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let mut wrong = BTreeSet::new();
    for import in &SOURCES.imports {
        let path = import.path();
        // What a module passes on from its own row is its own to give; not so what is another row's.
        let given = import.passed_on.as_ref().filter(|given| row(given) == row(&path)).unwrap_or(&path);
        let may = match ALLOWED.iter().find(|(row, _)| is_in(&import.from, row)) {
            Some((row, allowed)) => {
                let is_allowed = |path: &str| allowed.iter().any(|allowed| is_in(path, allowed));
                is_in(&path, row) || is_allowed(&path) || is_allowed(given)
            }
            None if ABOVE_ALL.iter().any(|module| is_in(&import.from, module)) => true,
            // A folder of modules that are in the table holds them, and may import what each of them may.
            None => {
                let mut held = ALLOWED.iter().filter(|(row, _)| is_in(row, &import.from)).peekable();
                let each = held.peek().is_some()
                    && held.all(|(_, allowed)| allowed.iter().any(|allowed| is_in(&path, allowed)));
                is_in(&import.to, &import.from) || (each && !import.from.is_empty())
            }
        };
        if !may {
            wrong.insert(format!("{}: {} may not import {path}", import.place, import.from));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_table_is_that_of_the_architecture() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once("## Who may import whom").expect("the section");
    let rows = section.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let mut documented = BTreeMap::new();
    for line in rows {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let allowed: BTreeSet<String> =
            if cells[2] == "nothing" { BTreeSet::new() } else { names(cells[2]).into_iter().collect() };
        for module in names(cells[1]) {
            assert!(documented.insert(module.clone(), allowed.clone()).is_none(), "{module} stands there twice");
        }
    }
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let table: BTreeMap<String, BTreeSet<String>> =
        ALLOWED.iter().map(|(module, allowed)| ((*module).to_owned(), owned(allowed))).collect();
    assert_eq!(documented, table, "ARCHITECTURE.md and ALLOWED");
}

/// The names of a cell: `` `a`, `b::{c, d}` ``.
fn names(cell: &str) -> Vec<String> {
    let mut names = Vec::new();
    for quoted in cell.split('`').skip(1).step_by(2) {
        match quoted.strip_suffix('}').and_then(|tree| tree.split_once("::{")) {
            Some((module, inner)) => names.extend(inner.split(", ").map(|name| join(module, name))),
            None => names.push(quoted.to_owned()),
        }
    }
    names
}

#[test]
fn the_modules_of_the_table_are_there_and_go_round_in_no_circle() {
    let modules = &SOURCES.modules;
    for name in ALLOWED.iter().flat_map(|(row, allowed)| [*row].into_iter().chain(allowed.iter().copied())) {
        assert!(modules.by_path.contains_key(name), "there is no module {name}");
    }
    let mut table = Arrows::new();
    for (from, allowed) in ALLOWED {
        for to in allowed.iter().filter_map(|to| row(to)).filter(|to| to != from) {
            table.entry((*from).to_owned()).or_default().insert(to.to_owned(), "the table".into());
        }
    }
    no_rings(&table);
    no_rings(&arrows(&SOURCES.imports, |module| row(module).map(str::to_owned)));
    no_rings(&arrows(&SOURCES.imports, |module| {
        let top = module.split("::").next().filter(|top| !ABOVE_ALL.contains(top) && !top.is_empty());
        // `ingress` and `egress` have rows of their own for what they hold.
        top.filter(|top| row(top).is_some()).map(str::to_owned)
    }));
}

fn no_rings(arrows: &Arrows) {
    let rings: Vec<String> = rings(arrows).iter().map(|ring| shown(arrows, ring)).collect();
    assert!(rings.is_empty(), "\n{}", rings.join("\n"));
}

#[test]
fn the_files_of_the_storage_go_round_in_no_circle() {
    no_rings(&arrows(&SOURCES.imports, |module| is_in(module, "storage").then(|| module.to_owned())));
}

#[test]
fn modules_side_by_side_go_round_in_no_circle_but_those_that_are_listed() {
    let mut listed: BTreeSet<BTreeSet<String>> =
        RINGS.iter().map(|(ring, _)| ring.iter().map(|module| (*module).to_owned()).collect()).collect();
    assert_eq!(listed.len(), RINGS.len());
    for above in SOURCES.modules.by_path.keys() {
        let below = |module: &str| {
            let rest = if above.is_empty() { module } else { module.strip_prefix(above)?.strip_prefix("::")? };
            let name = rest.split("::").next().filter(|name| !name.is_empty())?;
            Some(join(above, name))
        };
        let arrows = arrows(&SOURCES.imports, below);
        for ring in rings(&arrows) {
            assert!(listed.remove(&ring), "\n{}", shown(&arrows, &ring));
        }
    }
    assert!(listed.is_empty(), "no ring any more, or a smaller one; take it from RINGS: {listed:?}");
}

#[test]
fn the_domain_does_no_io() {
    let mut wrong = Vec::new();
    for (path, module) in SOURCES.modules.by_path.iter().filter(|(path, _)| is_in(path, "domain")) {
        for (line, name) in SOURCES.modules.foreign(path) {
            let first = name.split("::").next().unwrap();
            let is_crate = first.starts_with(|letter: char| letter.is_ascii_lowercase());
            let is_pure = PURE.contains(&first) || PRIMITIVES.contains(&first);
            let is_io = WORLD.iter().any(|io| is_in(&name, io)) && !NO_IO.iter().any(|no| is_in(&name, no));
            if is_io || (is_crate && !is_pure) {
                wrong.push(format!("src/{}:{line}: {name}", module.file));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn releases_are_made_by_the_policy_and_read_back_by_the_outbox_only() {
    let naming: Vec<&str> = SOURCES
        .files
        .iter()
        .filter(|(_, text)| text.split(|letter: char| !is_of_a_name(letter)).any(|word| word == "from_outbox"))
        .map(|(file, _)| file.as_str())
        .collect();
    assert_eq!(naming, ["domain/policy/permit.rs", "durable/outbox.rs"]);
}

/// There is no noise without a charge that is on disk.
#[test]
fn only_who_puts_a_charge_on_disk_says_that_it_is_there() {
    let is_named =
        |text: &str| text.split(|letter: char| !is_of_a_name(letter)).any(|word| word == "charge_is_on_disk");
    let naming: Vec<&str> =
        SOURCES.files.iter().filter(|(_, text)| is_named(text)).map(|(file, _)| file.as_str()).collect();
    let tests = "domain/policy/release/tests/noised.rs";
    assert_eq!(naming, [tests, "domain/privacy/spending.rs", "durable/spending.rs"]);
}

fn is_of_a_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[test]
fn only_one_file_reads_clocks() {
    let texts = SOURCES.files.iter().filter(|(_, text)| text.contains("disallowed_methods"));
    let files: Vec<&str> = texts.map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["clock.rs"], "`clippy.toml` names what reads a clock; the exceptions are in one place");
}

/// Whoever sends records may look at them; what takes them in has to have them decided.
#[test]
fn columns_of_undecided_records_are_for_the_producers_side_only() {
    for (file, text) in SOURCES.files.iter().filter(|(file, _)| !file.starts_with("commands/bench/")) {
        assert!(!text.contains(".into_columns()"), "src/{file}");
    }
}

#[test]
fn no_file_is_longer_than_one_sitting() {
    for (file, text) in &SOURCES.files {
        let lines = text.lines().count();
        assert!(lines <= 600, "src/{file} has {lines} lines");
    }
}
