//! `docs/security.md` from beginning to end, with stock clients.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use bailiwick::clock::Clock;

use crate::blocks;
use crate::common::folder::Folder;
use crate::common::process::{BINARY, Process, copy_of, run, text};
use crate::common::{changed, free_port, root};

/// The commands of a block of shell.
fn commands(block: &str) -> Vec<Vec<&str>> {
    let commands = block.lines().filter_map(|line| line.split('#').next()?.trim().strip_prefix("bailiwick "));
    commands.map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_page_on_security_leads_to_a_gateway_that_stock_clients_reach() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let (shell, toml, python) = (blocks(&page, "sh"), blocks(&page, "toml"), blocks(&page, "python"));
    let [make, look, send] = shell.as_slice() else { panic!("{shell:?}") };
    let folder = Folder::new();
    let done = |arguments: &[&str]| {
        let output = run(folder.root(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    commands(make).iter().for_each(|command| drop(done(command)));
    folder.let_laws_hold("mine/policies/policy.toml");
    let port = free_port();
    let config = folder
        .read("mine/gateway.toml")
        .lines()
        .filter(|line| !line.starts_with("plaintext"))
        .collect::<Vec<_>>()
        .join("\n");
    let config = changed(&config, "127.0.0.1:7400", &format!("127.0.0.1:{port}"));
    let config = changed(&config, "127.0.0.1:7401", "127.0.0.1:0");
    folder.write("mine/gateway.toml", format!("{config}\n{}", toml[0]));
    folder.add("mine/policies/policy.toml", &toml[1]);
    let said: String = commands(look).iter().map(|command| done(command)).collect();
    assert!(said.contains("spiffe://bailiwick.test/producers/*"), "{said}");
    assert!(said.contains("speaks as `till-7`") && said.contains("rule producers: may write events"), "{said}");

    let gateway = Process::start(&folder.path("mine"));
    let now = jiff::Timestamp::from_microsecond(Clock::start().wall()).unwrap();
    let record = |user: usize| {
        format!(
            "{{\"at\": \"{now}\", \"user\": \"user-{user}\", \"country\": \"FR\", \"kind\": \"view\", \"value\": 1.5}}\n"
        )
    };
    folder.write("events.jsonl", (0..12).map(record).collect::<String>());
    let here = |block: &str| changed(block, "localhost:7400", &format!("localhost:{port}"));
    let [send] = &commands(&here(send))[..].iter().map(|command| done(command)).collect::<Vec<_>>()[..] else {
        panic!()
    };
    assert!(send.contains("12 accepted"), "{send}");
    let shown = done(&["certs", "show", &format!("localhost:{port}")]);
    assert!(shown.contains("identity    spiffe://bailiwick.test/gateways/gateway-1"), "{shown}");

    symlink(root().join("proto"), folder.path("proto")).unwrap();
    let python_of = |arguments: &[&str]| {
        let output = Command::new(crate::common::python()).args(arguments).current_dir(folder.root()).output().unwrap();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    let stubs = [
        "-Iproto",
        "--python_out=.",
        "--grpc_python_out=.",
        "bailiwick/v1/ingest.proto",
        "bailiwick/v1/cloudevents.proto",
    ];
    python_of(&[&["-m", "grpc_tools.protoc"], &stubs[..]].concat());
    let [grpc, flight] = python.as_slice() else { panic!("{python:?}") };
    folder.write("client.py", here(grpc));
    assert_eq!(python_of(&["client.py"]), "1 accepted\n".repeat(12));
    folder.write("client.py", here(flight));
    let put = python_of(&["client.py"]);
    assert!(put.contains("\"accepted\":12"), "{put}");
    // Without the certificate nothing goes, and another name is not given.
    let bare = run(
        folder.root(),
        &[
            "send",
            "--to",
            &format!("https://localhost:{port}"),
            "--ca",
            "mine/tls/ca.pem",
            "-p",
            "till-7",
            "-s",
            "events",
            "--patience",
            "1",
            "events.jsonl",
        ],
    );
    assert_eq!(bare.status.code(), Some(1), "{}", text(&bare.stderr));
    let key = ["--cert", "mine/tls/till-7.pem", "--key", "mine/tls/till-7.key"];
    let to = ["--to", &format!("https://localhost:{port}"), "--ca", "mine/tls/ca.pem"];
    let theft =
        run(folder.root(), &[&["send", "-s", "events", "-p", "till-8", "events.jsonl"], &to[..], &key[..]].concat());
    assert!(text(&theft.stderr).contains("does not let this identity speak as"), "{}", text(&theft.stderr));
    let explained = {
        folder.write("one.jsonl", record(1));
        done(&[
            "explain",
            "-c",
            "mine/gateway.toml",
            "-s",
            "events",
            "--identity",
            "spiffe://bailiwick.test/producers/till-7",
            "one.jsonl",
        ])
    };
    assert!(explained.contains("may write this as `till-7`, by rule producers"), "{explained}");
    let log = gateway.stop().join("\n");
    assert!(log.contains("no_certificate"), "{log}");
}

/// ONNX Runtime would keep an id of the machine and what it tells its maker in the user's cache, and send it.
#[test]
fn the_runtime_of_models_collects_no_telemetry() {
    let ((directory, _), home) = (copy_of("card-fraud"), Folder::new());
    let checked = Command::new(BINARY)
        .args(["check", "-c", "examples/card-fraud/gateway.toml"])
        .current_dir(directory.root())
        .env("HOME", home.root())
        .env_remove("XDG_CACHE_HOME")
        .env_remove("ORT_DISABLE_TELEMETRY")
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let left: Vec<_> = fs::read_dir(home.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
