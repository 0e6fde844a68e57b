//! The README's producers in Python: made from its commands, run against a gateway.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::blocks;
use crate::common::changed;
use crate::common::process::{Process, copy_of, text};

fn python(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(crate::common::python()).args(arguments).current_dir(directory).output().unwrap()
}

/// The README's blocks of Python, with the port of a gateway that runs.
fn clients(port: u16) -> [String; 2] {
    let blocks = blocks(&crate::readme(), "python");
    let [grpc, flight] = blocks.as_slice() else { panic!("the README's Python changed") };
    [grpc, flight].map(|block| changed(block, "127.0.0.1:7400", &format!("127.0.0.1:{port}")))
}

#[test]
fn the_readmes_grpc_client_sends_and_reads_scores() {
    let (directory, port) = copy_of("card-fraud");
    let root = directory.root();
    symlink(crate::common::root().join("proto"), root.join("proto")).unwrap();
    // PyPI has a package of this name, which our stubs must not need or hide.
    fs::create_dir(root.join("cloudevents")).unwrap();
    fs::write(root.join("cloudevents/__init__.py"), "").unwrap();
    let readme = crate::readme();
    let stubs = readme.lines().find_map(|line| line.strip_prefix("python -m grpc_tools.protoc ")).unwrap();
    let stubs: Vec<&str> = ["-m", "grpc_tools.protoc"].into_iter().chain(stubs.split_whitespace()).collect();
    let made = python(root, &stubs);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let gateway = Process::start_with(root, &["run", "-c", "examples/card-fraud/gateway.toml"]);
    let [grpc, _] = clients(port);
    assert!(grpc.lines().count() <= 17, "{grpc}");
    fs::write(root.join("client.py"), &grpc).unwrap();
    let sent = python(root, &["client.py"]);
    assert!(sent.status.success(), "{}{}", text(&sent.stdout), text(&sent.stderr));
    let said = text(&sent.stdout);
    assert!(
        said.contains("1 accepted") && said.contains("fraud_score") && said.contains("REASON_BELONGS_ELSEWHERE"),
        "{said}"
    );
    gateway.stop();
}

#[test]
fn the_readmes_flight_client_survives_a_refused_table() {
    let (directory, port) = copy_of("card-fraud");
    let root = directory.root();
    let gateway = Process::start_with(root, &["run", "-c", "examples/card-fraud/gateway.toml"]);
    let [_, flight] = clients(port);
    fs::write(root.join("client.py"), &flight).unwrap();
    let sent = python(root, &["client.py"]);
    assert!(sent.status.success(), "{}{}", text(&sent.stdout), text(&sent.stderr));
    let answers = text(&sent.stdout);
    let accepted: u64 = answers
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["accepted"].as_u64().unwrap())
        .sum();
    assert!(answers.lines().count() > 4);
    assert_eq!(accepted, 8_417, "{answers}");
    // A column that is not declared refuses the batch, and with it the call.
    let connect = "client = flight.connect";
    assert!(flight.contains(connect));
    let spoilt = format!("table = table.append_column(\"more\", table[\"v1\"])\n{connect}");
    fs::write(root.join("client.py"), flight.replacen(connect, &spoilt, 1)).unwrap();
    let refused = python(root, &["client.py"]);
    assert!(refused.status.success(), "{}{}", text(&refused.stdout), text(&refused.stderr));
    assert!(text(&refused.stdout).contains("more"), "{}", text(&refused.stdout));
    gateway.stop();
}
