//! `bailiwick bench`: what it reports is what the gateway took in, and a gateway that stalls is not forgiven.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::send::Place;
use crate::common::process::{BINARY, text};
use crate::common::until;

/// Records of a year that a live stream does not take.
const OLD: &str = "at,who,country,x,n,flag,note\n\
                   2013-09-02T17:00:00Z,a,DE,1.5,1,true,\n\
                   2013-09-02T17:00:01Z,b,DE,,-2,false,é\n\
                   2013-09-02T17:00:02Z,c,DE,2,,,x\n\
                   soon,d,DE,2,,,x\n";

fn bench(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["bench", "-s", "t"]).args(arguments).current_dir(place.path("."));
    command
}

/// The exit code, stdout and stderr.
fn ran(place: &Place, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = bench(place, arguments).output().unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn report(place: &Place, code: i32, arguments: &[&str]) -> Value {
    let (found, report, said) = ran(place, &[&["--json"], arguments].concat());
    assert_eq!(found, Some(code), "{report}{said}");
    serde_json::from_str(&report).unwrap()
}

#[test]
fn old_records_are_taken_in_as_of_now_and_each_once() {
    let place = Place::new();
    let gateway = place.start();
    place.write("old.csv", OLD);
    let pid = gateway.id().to_string();
    let mut sent = 0;
    for payload in ["rows", "arrow"] {
        let some = ["--payload", payload, "--records", "7", "--messages", "60", "--warm-up", "0", "--pid", &pid];
        let load = ["--calls", "2", "--producers", "3", "--in-flight", "4", "old.csv"];
        let report = report(&place, 0, &[&some[..], &load].concat());
        assert_eq!(report["messages"], 60, "{report}");
        assert_eq!((&report["records"], &report["accepted"]), (&420.into(), &420.into()), "{report}");
        assert_eq!((&report["left_out"], &report["error"]), (&1.into(), &Value::Null), "{report}");
        assert!(report["process"]["memory_bytes"].as_u64().unwrap() > 1 << 20, "{report}");
        let percentiles = ["p50", "p90", "p99", "p99_9", "max"].map(|key| report["latency_us"][key].as_f64().unwrap());
        assert!(percentiles[0] > 0.0 && percentiles.is_sorted(), "{report}");
        let bars = report["latency_us"]["histogram"].as_array().unwrap();
        assert_eq!(bars.iter().map(|bar| bar["count"].as_u64().unwrap()).sum::<u64>(), 60, "{report}");
        sent += 420;
        let on_disk: u64 = (0..3).map(|producer| place.on_disk_of(&format!("bench-{producer}"))).sum();
        assert_eq!(on_disk, sent);
    }
    gateway.stop();
}

#[test]
fn a_report_for_people_has_a_table_and_a_plot() {
    let place = Place::new();
    let gateway = place.start();
    place.write("old.csv", OLD);
    let (code, report, said) = ran(&place, &["--for", "2", "--warm-up", "0.1", "--scores", "old.csv"]);
    assert_eq!(code, Some(0), "{report}{said}");
    for words in ["records/s", "accepted", "p99.9", "s to ", "█", "1 records that cannot be read"] {
        assert!(report.contains(words), "no `{words}` in\n{report}");
    }
    gateway.stop();
}

#[test]
fn refused_records_are_counted_by_reason_and_say_so_with_the_exit_code() {
    let place = Place::new();
    let gateway = place.start();
    place.write("some.csv", "at,who,country\n1,a,DE\n2,b,IN\n3,c,DE\n4,d,XX\n");
    let load = ["--records", "4", "--messages", "5", "--warm-up", "0", "some.csv"];
    let report = report(&place, 3, &load);
    assert_eq!((&report["records"], &report["accepted"]), (&20.into(), &10.into()), "{report}");
    assert_eq!(report["refused"]["belongs_elsewhere"], 5, "{report}");
    assert_eq!(report["refused"].as_object().unwrap().len(), 2, "{report}");
    assert_eq!(ran(&place, &[&["--allow-refused"], &load[..]].concat()).0, Some(0));
    gateway.stop();
}

#[test]
fn at_a_rate_a_gateway_that_stalls_is_not_forgiven() {
    let place = Place::new();
    let gateway = place.start();
    place.write("old.csv", OLD);
    let load = ["--json", "--rate", "500", "--records", "1", "--in-flight", "1", "--for", "12", "--warm-up", "0"];
    let child = bench(&place, &[&load[..], &["old.csv"]].concat()).stdout(Stdio::piped()).spawn().unwrap();
    until(|| Some(()).filter(|()| place.on_disk_of("bench-0") > 0));
    gateway.signal("STOP");
    thread::sleep(Duration::from_secs(3));
    gateway.signal("CONT");
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!((output.status.code(), &report["accepted"]), (Some(0), &6_000.into()), "{report}");
    // Only one message was on its way during these seconds, and 1,500 were due.
    assert!(report["latency_us"]["p90"].as_f64().unwrap() > 300_000.0, "{report}");
    gateway.stop();
}

#[test]
fn what_cannot_be_measured_is_said_at_once() {
    let place = Place::new();
    place.write("old.csv", OLD);
    place.write("none.csv", "at,who,country\n");
    for (arguments, code, words) in [
        (&["old.csv"][..], 1, "no gateway answers at http://127.0.0.1:"),
        (&["none.csv"], 1, "the files hold no record that stream `t` could take"),
        (&["nowhere.csv"], 1, "cannot read `nowhere.csv`"),
        (&["-c", "nowhere.toml", "old.csv"], 64, "nowhere.toml"),
        (&["--calls", "101", "--connections", "1", "old.csv"], 1, "give more `--connections`"),
        (&[], 2, "<FILES>"),
    ] {
        let (found, report, said) = ran(&place, arguments);
        assert_eq!((found, &*report), (Some(code), ""), "{said}");
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
    let gateway = place.start();
    let (code, report, said) = ran(&place, &["--pid", "4294967295", "old.csv"]);
    assert_eq!((code, &*report), (Some(1), ""), "{said}");
    assert!(said.contains("process 4294967295"), "{said}");
    // More records than a request may hold.
    place.write("large.csv", OLD);
    let (code, report, _) = ran(&place, &["--records", "70000", "--payload", "arrow", "large.csv"]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("ended early: the gateway refuses a message as a whole, too_"), "{report}");
    gateway.stop();
}
