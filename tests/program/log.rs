//! The log and other output, when nobody reads them.

use std::fs;
use std::io::{BufRead, BufReader, Read, pipe};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use bailiwick::clock::Clock;
use bailiwick::telemetry::{DatasetCounts, StreamCounts};

use crate::common::process::{BINARY, PATIENCE, Process, copy_of, on_any_day, run, text};
use crate::common::{free_port, until};

use super::send::Place;

/// Waits until a port takes connections.
fn wait_for_port(port: u16) {
    let clock = Clock::start();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(clock.now() < PATIENCE, "the gateway does not listen");
        thread::sleep(Duration::from_millis(5));
    }
}

fn signal(gateway: &Child, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(gateway.id().to_string()).status().unwrap();
    assert!(status.success());
}

/// Sends the example's data to a gateway whose log is lost, and stops it: nothing of that hangs on the log.
fn serves_and_stops(mut gateway: Child, directory: &std::path::Path, port: u16) {
    let endpoint = format!("http://127.0.0.1:{port}");
    let send = ["send", "-s", "payments", "-p", "till-7", "--no-follow", "--to", &endpoint];
    let sent = run(directory, &[&send[..], &["examples/card-fraud/data.csv.gz"]].concat());
    assert!(text(&sent.stdout).contains("8417 accepted"), "{}{}", text(&sent.stdout), text(&sent.stderr));
    signal(&gateway, "TERM");
    assert_eq!(gateway.wait().unwrap().code(), Some(0));
}

#[test]
fn a_gateway_whose_log_is_closed_goes_on() {
    let (directory, port) = copy_of("card-fraud");
    let mut gateway = Command::new(BINARY)
        .args(["run", "-c", "examples/card-fraud/gateway.toml"])
        .current_dir(directory.root())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(gateway.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the gateway ended before it served");
    }
    // As `| head -1` does.
    drop(log);
    for _ in 0..3 {
        signal(&gateway, "HUP");
    }
    serves_and_stops(gateway, directory.root(), port);
}

#[test]
fn a_gateway_whose_log_nobody_reads_goes_on() {
    let (directory, port) = copy_of("card-fraud");
    let (mut log, stderr) = pipe().unwrap();
    // Everything is logged, which is much more than fits into the pipe.
    let gateway = Command::new(BINARY)
        .args(["-vv", "run", "-c", "examples/card-fraud/gateway.toml"])
        .current_dir(directory.root())
        .stderr(stderr)
        .spawn()
        .unwrap();
    wait_for_port(port);
    serves_and_stops(gateway, directory.root(), port);
    let mut read = Vec::new();
    log.read_to_end(&mut read).unwrap();
    assert!(read.len() > 32 << 10, "{} bytes were logged: this test shows nothing", read.len());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (directory, _) = copy_of("card-fraud");
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let checked = Command::new(BINARY)
        .args(["check", "-c", "examples/card-fraud/gateway.toml"])
        .current_dir(directory.root())
        .stdout(writer)
        .output()
        .unwrap();
    let checked = on_any_day(checked);
    assert_eq!((checked.status.code(), text(&checked.stderr).as_str()), (Some(0), ""));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let (directory, _) = copy_of("card-fraud");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let checked = Command::new(BINARY)
        .args(["check", "-c", "examples/card-fraud/gateway.toml"])
        .current_dir(directory.root())
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stderr).contains("stdout could not be written"), "{}", text(&checked.stderr));
}

#[test]
fn names_from_outside_move_no_cursor_and_forge_no_line() {
    let (directory, port) = copy_of("card-fraud");
    let gateway = Process::start_with(directory.root(), &["run", "-c", "examples/card-fraud/gateway.toml"]);
    let endpoint = format!("http://127.0.0.1:{port}");
    let name = "till\u{1b}[2J\nstream payments, producer forged: 1 records";
    let send = ["send", "-s", "payments", "-p", name, "--no-follow", "--to", &endpoint];
    let sent = run(directory.root(), &[&send[..], &["examples/card-fraud/data.csv.gz"]].concat());
    assert!(text(&sent.stdout).contains("8417 accepted"), "{}{}", text(&sent.stdout), text(&sent.stderr));
    gateway.stop();
    let inspected = text(&run(directory.root(), &["journal", "inspect", "examples/card-fraud/journal"]).stdout);
    assert!(inspected.contains("producer till\\u{1b}[2J\\nstream payments, producer forged"), "{inspected}");
    assert!(!inspected.chars().any(|char| char.is_control() && char != '\n'), "{inspected:?}");
}

#[test]
fn every_count_is_explained() {
    let page = fs::read_to_string(crate::common::root().join("docs/operations.md")).unwrap();
    let counts = StreamCounts::default();
    let datasets = DatasetCounts::default();
    for (name, ..) in counts.each().chain(datasets.each()) {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
    }
}

/// The value of `name=value` in a line of the log.
fn field(line: &str, name: &str) -> u64 {
    let rest = line.split(&format!(" {name}=")).nth(1).unwrap_or_else(|| panic!("no {name} in {line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_log_sums_up_what_happened() {
    let (directory, port) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    let config = fs::read_to_string(example.join("gateway.toml")).unwrap();
    fs::write(example.join("gateway.toml"), config + "\n[log]\nevery = \"PT1S\"\n").unwrap();
    let gateway = Process::start(&example);
    let endpoint = format!("http://127.0.0.1:{port}");
    let send = ["send", "-s", "payments", "-p", "till-7", "--no-follow", "--complete", "--to", &endpoint];
    run(directory.root(), &[&send[..], &["examples/card-fraud/data.csv.gz"]].concat());
    let undeclared = ["send", "-s", "nothing", "-p", "till-7", "--to", &endpoint];
    run(directory.root(), &[&undeclared[..], &["examples/card-fraud/data.csv.gz"]].concat());
    gateway.wait_for("stream=(not declared)", 1);
    let log = gateway.stop();
    let of = |message: &str| -> Vec<&String> {
        log.iter().filter(|line| line.contains(message) && line.contains(" stream=payments ")).collect()
    };
    let (intervals, ends) = (of("counted since the last summary"), of("counted since the start"));
    let [end] = ends.as_slice() else { panic!("{}", log.join("\n")) };
    // Counts of records are shown in steps of twice k, as metrics are.
    let is_about = |shown: u64, count: u64| shown.is_multiple_of(20) && shown.abs_diff(count) < 20;
    assert!(is_about(field(end, "records_in"), 16_716) && is_about(field(end, "accepted"), 8_417), "{end}");
    assert!(end.contains("belongs_elsewhere 6305") && end.contains("may_not_be_here 1882"), "{end}");
    assert!(field(end, "cells_released") > 50 && field(end, "cells_withheld") >= 40, "{end}");
    // What came in is in the intervals, once.
    let of_intervals = intervals.iter().map(|line| field(line, "records_in")).sum();
    assert!(is_about(of_intervals, 16_716), "{}", log.join("\n"));
    // Seconds in which nothing happened have no line.
    assert!(intervals.iter().all(|line| !line.contains(
        " records_in=0 accepted=0 refused=[] late=0 releases=0 cells_released=0 cells_withheld=0 others=[]"
    )));
}

#[test]
fn without_a_terminal_the_log_is_json_and_says_more_when_it_is_told_to() {
    let (directory, _) = copy_of("card-fraud");
    let mut gateway = Command::new(BINARY)
        .args(["run", "-c", "examples/card-fraud/gateway.toml"])
        .current_dir(directory.root())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(gateway.stderr.take().unwrap()).lines();
    // Before it there is what `check` would say, for people: on some days, that a day has passed.
    let mut lines = lines.skip_while(|line| line.as_ref().is_ok_and(|line| !line.starts_with('{')));
    // The next line with a message, as an object.
    let mut next = |message: &str| -> serde_json::Value {
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("no `{message}`")).unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let time = line["time"].as_str().unwrap();
            assert!(time.len() == "2027-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{line}");
            if line["message"] == message {
                return line;
            }
        }
    };
    let serving = next("serving");
    assert_eq!((&serving["level"], &serving["gateway"]), (&"INFO".into(), &"eu-fra-1".into()));
    signal(&gateway, "USR1");
    assert_eq!(next("the log says more; SIGUSR2 ends that")["filter"], "bailiwick=debug,info");
    signal(&gateway, "USR1");
    assert_eq!(next("the log says more; SIGUSR2 ends that")["filter"], "trace");
    signal(&gateway, "USR2");
    assert_eq!(next("the log says what it said at the start")["filter"], "info");
    signal(&gateway, "TERM");
    assert_eq!(next("counted since the start")["records_in"], 0);
    next("stopped");
    assert_eq!(gateway.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stop_with_nothing_to_send_does_not_wait_for_a_broker() {
    let place = Place::new();
    let kafka = format!("kind    = \"kafka\"\nbrokers = \"127.0.0.1:{}\"\ntopic   = \"releases\"\n", free_port());
    place.edit("gateway.toml", "kind      = \"file\"\ndirectory = \"released\"\n", &kafka);
    place.edit("gateway.toml", "policies = [\"policies\"]", "policies = [\"policies\"]\nstop_within = \"PT10M\"");
    let gateway = place.start();
    let said = gateway.wait_for("the destination does not take releases: repair it; none waits for it now", 1);
    assert!(!said.contains("oldest") && !said.contains("releases=0"), "{said}");
    gateway.signal("TERM");
    until(|| gateway.ended());
}
