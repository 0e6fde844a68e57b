//! The reader itself: no way of naming a module escapes it.

use super::imports::{arrows, rings};
use super::sources::{Files, Modules};

/// A crate with the modules `a`, `b`, `b::inner`, `c`, of which `a` has this text.
fn crate_with(a: &str) -> Modules {
    let files = [
        ("lib.rs", "mod a;\nmod b;\nmod c;"),
        ("a.rs", a),
        ("b/mod.rs", "pub mod inner;\npub use inner::Thing as Passed;\npub use crate::c::deep;\npub struct Own;"),
        ("b/inner.rs", "pub struct Thing;\npub fn run() {}\npub enum Kind { One }"),
        ("c.rs", "pub mod deep { pub struct Deep; }\npub fn call() {}"),
    ];
    Modules::read(&files.into_iter().map(|(file, text)| (file.to_owned(), text.to_owned())).collect::<Files>())
}

/// What `a` names of the other modules, outside of its tests.
fn named(a: &str) -> Vec<String> {
    let imports = crate_with(a).imports();
    let of_a = imports.iter().filter(|import| import.from.starts_with('a') && !import.is_test);
    of_a.map(|import| import.path()).collect()
}

#[test]
fn every_way_of_naming_a_module_is_seen() {
    for (text, expected) in [
        ("use crate::b::inner::Thing;", "b::inner::Thing"),
        ("use super::b::inner::Thing;", "b::inner::Thing"),
        ("use self::super::b::Own;", "b::Own"),
        ("use crate::{\n    b::{\n        inner::{self},\n    },\n};", "b::inner"),
        ("use crate::b::inner as other;", "b::inner"),
        ("pub(crate) use super::b::Own;", "b::Own"),
        ("use crate::b::*;", "b"),
        ("fn f() { crate::c::call() }", "c::call"),
        ("fn f() { super::c::call() }", "c::call"),
        ("fn f() { use super::c::call; call() }", "c::call"),
        ("fn f(x: &super::b::Own) {}", "b::Own"),
        ("fn f(x: Vec<Option<super::b::Own>>) {}", "b::Own"),
        ("fn f() -> u8 { <super::b::Own as Into<u8>>::into(x) }", "b::Own"),
        ("impl super::b::Own { }", "b::Own"),
        ("fn f() { println!(\"{}\", super::c::call()) }", "c::call"),
        ("fn f() { assert!(x.iter().all(|x| [crate::c::call()] == x)) }", "c::call"),
        ("macro_rules! m { () => { $crate::c::call() } }", "c::call"),
        ("macro_rules! m { () => { use crate::b::{Own}; } }", "b::Own"),
        ("#[serde(with = \"crate::c::deep\")]\nstruct S;", "c::deep"),
        ("struct S { #[arg(value_parser = super::c::call)] x: u8 }", "c::call"),
        ("mod below { fn f() { super::super::c::call() } }", "c::call"),
        // By the name that is passed on, where it is defined.
        ("use crate::b::Passed;", "b::inner::Thing"),
        ("use crate::b::deep::Deep;", "c::deep::Deep"),
        ("fn f() -> crate::b::inner::Kind { crate::b::inner::Kind::One }", "b::inner::Kind"),
        // What the build or a macro makes belongs to the module all the same.
        ("use crate::b::Made;", "b::Made"),
    ] {
        let named = named(text);
        assert!(named.iter().any(|path| path == expected), "{text}: {named:?}");
    }
    let through_a_module = named("use crate::b;\nfn f() { b::inner::run() }");
    assert_eq!(through_a_module, ["b", "b::inner::run"]);
    let through_two = named("use crate::b::{self as x, inner as y};\nfn f() { x::inner::run(); y::run() }");
    assert_eq!(through_two, ["b", "b::inner", "b::inner::run", "b::inner::run"]);
}

#[test]
fn what_names_no_module_is_not_seen() {
    for text in [
        "use std::c::call;",
        "use ::b::Own;",
        "fn f() { ::c::call() }",
        "pub(in crate::b) struct S;",
        "// crate::b::Own\n/// [`crate::b::Own`]\nfn f() {}",
        "fn f() { println!(\"crate::b::Own\") }",
        "fn f(b: &str) { b.len(); }",
        "use self::below::f;\nmod below { pub fn f() {} }",
    ] {
        let named: Vec<String> = named(text).into_iter().filter(|path| !path.starts_with('a')).collect();
        assert_eq!(named, Vec::<String>::new(), "{text}");
    }
}

#[test]
fn what_leads_out_of_the_crate_is_said_in_full() {
    for (text, expected) in [
        ("use std::fs as f;\nfn g() { f::read(x) }", "std::fs::read"),
        ("use std::{fs::{self, File}, io};\nfn g() { File::open(x) }", "std::fs::File::open"),
        ("fn g() { ::std::fs::read(x) }", "std::fs::read"),
        ("fn g() { println!(\"{}\", tokio::spawn(x)) }", "tokio::spawn"),
        ("use tokio as t;", "tokio"),
        ("extern crate tokio as t;\nfn g() { t::spawn(x) }", "tokio::spawn"),
        ("use std::fs::*;", "std::fs"),
    ] {
        let foreign = crate_with(text).foreign("a");
        assert!(foreign.iter().any(|(_, path)| path == expected), "{text}: {foreign:?}");
    }
    let none = "use super::b;\nfn f(x: u8) -> u8 { let std = x; b::Own; std }";
    assert_eq!(crate_with(none).foreign("a").iter().filter(|(_, path)| path != "u8").count(), 0);
}

#[test]
fn tests_are_told_apart() {
    for text in [
        "#[cfg(test)]\nmod tests { use crate::b::Own; }",
        "#[cfg(test)]\nuse crate::b::Own;",
        "#[test]\nfn f() { crate::c::call() }",
        "struct S;\nimpl S { #[cfg(test)]\nfn f() { crate::c::call() } }",
    ] {
        assert_eq!(named(text), Vec::<String>::new(), "{text}");
        assert!(crate_with(text).imports().iter().any(|import| import.from.starts_with('a')), "{text}");
    }
    assert_eq!(named("#[cfg(any(test, feature = \"x\"))]\nuse crate::b::Own;"), ["b::Own"]);
    assert_eq!(named("#[cfg(not(test))]\nuse crate::b::Own;"), ["b::Own"]);
}

#[test]
fn what_cannot_be_followed_is_said() {
    for text in ["#[path = \"b/inner.rs\"]\nmod x;", "mod missing;", "include!(\"b/inner.rs\");"] {
        assert_eq!(crate_with(text).blind_spots.len(), 1, "{text}");
    }
    assert_eq!(crate_with("include!(concat!(env!(\"OUT_DIR\"), \"/x.rs\"));").blind_spots.len(), 0);
}

#[test]
fn rings_are_found_whole() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
        ("a.rs", "use super::b::f;"),
        ("b.rs", "fn f() { crate::c::f(super::e::f()) }"),
        ("c.rs", "pub use super::d::f as passed_on; fn f(x: super::a::T) {}"),
        ("d.rs", "use super::c::g;"),
        ("e.rs", "#[cfg(test)] mod tests { use crate::a::f; }"),
    ];
    let files = files.into_iter().map(|(file, text)| (file.to_owned(), text.to_owned())).collect::<Files>();
    let found = rings(&arrows(&Modules::read(&files).imports(), |module| Some(module.to_owned())));
    let found: Vec<Vec<&str>> = found.iter().map(|ring| ring.iter().map(String::as_str).collect()).collect();
    assert_eq!(found, [["a", "b", "c"]]);
}
