//! `bailiwick send`: what it says is true, and what is resumed is what was interrupted.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::ops::Deref;
use std::process::{Child, ChildStderr, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use bailiwick::clock::{Clock, wall_clock};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::laws::{CLASSES, regime};
use crate::common::process::{BINARY, Process, run_in_time, text};
use crate::common::{PATIENCE, changed, free_port};

const GATEWAY: &str = r#"
[gateway]
id       = "g-1"
country  = "DE"
serves   = ["aa"]
policies = ["policies"]

[listen]
grpc = "127.0.0.1:PORT"

[journal]
directory = "journal"

[destinations.desk]
kind      = "file"
directory = "released"

[[peers]]
id       = "g-2"
country  = "IN"
endpoint = "http://127.0.0.1:PEER"
serves   = ["bb"]
"#;

const POLICY: &str = r#"
schema = "bailiwick.policy/1"

[streams.t]
event_time  = "at"
contributor = "who"

[streams.t.facts]
"subject.residence" = [{ field = "country", strength = 90 }]

[streams.t.fields]
at      = { type = "timestamp", class = "personal" }
who     = { type = "string", class = "personal", bytes_max = 32768 }
country = { type = "string", class = "personal" }
x       = { type = "float64", class = "personal", range = [0, 1000000], required = false }
n       = { type = "int64", class = "personal", required = false }
flag    = { type = "bool", class = "personal", required = false }
note    = { type = "string", class = "personal", required = false }

[datasets.by_country]
stream           = "t"
window           = { size = "PT1M", grace = "PT1S" }
min_contributors = 10
group_by         = [{ field = "country", domain = ["DE", "IN"] }]
metrics          = [{ name = "records", fn = "count" }]

[destinations.desk]
country = "DE"
accepts = ["by_country"]
"#;

/// A gateway of its own, and files to send to it.
pub(super) struct Place {
    folder: Folder,
    pub(super) port: u16,
}

impl Deref for Place {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl Place {
    pub(super) fn new() -> Self {
        let (port, peer) = (free_port(), free_port());
        let config = changed(&changed(GATEWAY, "PORT", &port.to_string()), "PEER", &peer.to_string());
        let folder = Folder::holding([
            ("gateway.toml", config.as_str()),
            ("policies/policy.toml", POLICY),
            ("policies/classes.toml", CLASSES),
            ("policies/aa.toml", &regime("aa", r#""DE""#, "DE", "redirect")),
            ("policies/bb.toml", &regime("bb", r#""IN""#, "IN", "redirect")),
        ]);
        Self { folder, port }
    }

    pub(super) fn start(&self) -> Process {
        self.spawn()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of("till", arguments)
    }

    fn command_of(&self, producer: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        command.args(["send", "--to", &endpoint, "-s", "t", "-p", producer]).args(arguments);
        command.current_dir(self.root());
        command
    }

    fn send(&self, arguments: &[&str]) -> Sent {
        Sent::of(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    fn send_text(&self, arguments: &[&str], input: &str) -> Sent {
        let mut child = self.piped(arguments);
        // A child that has seen enough does not read the rest.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Sent::of(child.wait_with_output().unwrap())
    }

    fn piped(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// How many records are on disk.
    fn on_disk(&self) -> u64 {
        self.on_disk_of("till")
    }

    /// How many records of a producer are on disk.
    pub(super) fn on_disk_of(&self, producer: &str) -> u64 {
        let inspected = Command::new(BINARY).args(["journal", "inspect"]).current_dir(self.root()).output().unwrap();
        let inspected = text(&inspected.stdout);
        let Some((_, rest)) = inspected.split_once(&format!("stream t, producer {producer}: ")) else { return 0 };
        rest.split_once(" records").unwrap().0.replace(',', "").parse().unwrap()
    }
}

struct Sent {
    code: Option<i32>,
    summary: String,
    said: String,
}

impl Sent {
    fn of(output: Output) -> Self {
        Self { code: output.status.code(), summary: text(&output.stdout), said: text(&output.stderr) }
    }

    fn assert(&self, code: i32, words: &[&str]) {
        let Self { summary, said, .. } = self;
        assert_eq!(self.code, Some(code), "{summary}{said}");
        let all = format!("{summary}{said}");
        words.iter().for_each(|words| assert!(all.contains(words), "no `{words}` in\n{all}"));
    }

    fn token(&self) -> String {
        let (_, rest) = self.summary.split_once("resume token ").unwrap();
        rest.trim().to_owned()
    }
}

fn now() -> String {
    wall_clock().to_string()
}

/// A file of so many good records.
fn csv(rows: usize) -> String {
    let at = now();
    let rows = (0..rows).map(|row| format!("{at},{row},DE\n"));
    format!("at,who,country\n{}", rows.collect::<String>())
}

#[test]
fn exit_code_0_means_that_everything_was_taken_in() {
    let place = Place::new();
    let gateway = place.start();
    place.write("good.csv", csv(3));
    place.send(&["good.csv"]).assert(0, &["3 records read, 3 accepted"]);
    let at = now();
    place.write("some.csv", format!("at,who,country,n\n{at},a,DE,1\n{at},b,DE,1.5\n{at},c,DE,x\n{at},d,DE,2\n"));
    place.send(&["some.csv"]).assert(3, &["2 accepted", "refused, wrong_type, field `n`: 2; the first at some.csv:3"]);
    place.send(&["--allow-refused", "some.csv"]).assert(0, &["refused, wrong_type, field `n`: 2"]);
    place.write("none.csv", format!("at,who,country\n{at},a,XX\n"));
    place.send(&["none.csv"]).assert(3, &["1 records read, 0 accepted", "none.csv:2"]);
    place.write("undeclared.csv", format!("at,who,country,other\n{at},a,DE,1\n{at},b,DE,1\n"));
    place
        .send(&["undeclared.csv"])
        .assert(3, &["refused, undeclared_field, field `other`: 2; the first at undeclared.csv:2"]);
    place.write("cells.csv", format!("at,who,country\n{at},a,DE\n{at},a\n{at},a,DE\n"));
    place
        .send(&["cells.csv"])
        .assert(3, &["2 accepted", "no record, it has 2 cells, and the header has 3: 1; the first at cells.csv:3"]);
    place
        .send_text(&[], "{\"at\": 1, \"who\": true}\nnonsense\n")
        .assert(3, &["malformed_record: 1; the first at stdin:2"]);
    let twice = format!("{{\"at\": \"{at}\", \"who\": \"a\", \"country\": \"DE\", \"country\": \"IN\"}}\n");
    place.send_text(&["-"], &twice).assert(3, &["refused, malformed_record, field `country`: 1; the first at stdin:1"]);
    gateway.kill();
}

#[test]
fn csv_is_read_by_the_declared_types_and_not_by_what_one_request_holds() {
    let place = Place::new();
    let gateway = place.start();
    let micros = wall_clock().as_microsecond();
    let at = now();
    // Ids of digits, empty columns, numbers of every spelling, truth values of every spelling.
    place.write("digits.csv", format!("at,who,country,x,n,flag,note\n{at},1,DE,,,,\n{micros},2,DE,,,,\n"));
    place.write(
        "spellings.csv",
        format!(
            "at,who,country,x,n,flag,note\n{at},00ff12e5,DE,1e5,1.0,True,1\n{micros},true,DE,7,1e3,0,2013-09-02T17:00:00Z\n\
             {at},2013-09-02T17:00:00Z,DE,.5,-0,false,\n"
        ),
    );
    for batch in ["1", "512"] {
        place.send(&["--batch", batch, "digits.csv", "spellings.csv"]).assert(0, &["5 records read, 5 accepted"]);
    }
    assert_eq!(place.on_disk(), 10);
    place.write("twice.csv", "at,who,country,country\n");
    place.send(&["twice.csv"]).assert(1, &["twice.csv, the header", "column `country` stands twice"]);
    gateway.kill();
}

#[test]
fn every_input_is_read_or_refused_by_its_name_before_anything_is_sent() {
    let place = Place::new();
    let gateway = place.start();
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(csv(2).as_bytes()).unwrap();
    let mut packed = packed.finish().unwrap();
    place.write("TAPE.CSV.GZ", [packed.clone(), vec![0; 10_000]].concat());
    place.send(&["TAPE.CSV.GZ"]).assert(0, &["2 records read, 2 accepted"]);
    place.send_text(&["--format", "csv", "-"], &format!("\u{feff}{}", csv(2))).assert(0, &["2 accepted"]);
    place.send_text(&["--format", "csv"], &csv(2)).assert(0, &["2 accepted"]);
    packed.truncate(packed.len() - 9);
    place.write("cut.csv.gz", packed);
    place.write("array.json", "[\n{\"who\": \"a\"}\n]\n");
    place.write("good.csv", csv(2));
    place.write("quote.csv", "at,\"who,country\n");
    place.write("zstd.csv", b"\x28\xb5\x2f\xfd....");
    for (file, words) in [
        ("cut.csv.gz", "cannot read cut.csv.gz"),
        ("array.json", "array.json is a JSON array"),
        ("zstd.csv", "zstd"),
        ("nowhere.csv", "cannot read nowhere.csv"),
        ("quote.csv", "quote.csv, the header: a quote is not closed"),
        ("policies", "it is a directory"),
        ("/dev/zero", "it is a device"),
    ] {
        let sent = place.send(&["good.csv", file]);
        sent.assert(1, &[words]);
        assert!(!sent.said.contains("--resume"), "{}", sent.said);
    }
    // Nothing was sent before these.
    for (text, words) in [
        (csv(1), "stdin does not begin with a JSON object; if it is CSV, add `--format csv`"),
        ("[{\"who\": \"a\"}]".to_owned(), "stdin is a JSON array"),
    ] {
        let sent = place.send_text(&[], &text);
        sent.assert(1, &[words]);
        assert!(!sent.said.contains("everything before this"), "{}", sent.said);
    }
    assert_eq!(place.on_disk(), 6);
    gateway.kill();
}

#[test]
fn a_send_is_resumed_with_the_same_files_in_the_same_batches_or_not_at_all() {
    let place = Place::new();
    let gateway = place.start();
    place.write("a.csv", csv(513));
    place.write("b.csv", csv(3));
    let token = place.send(&["a.csv", "b.csv"]).token();
    assert_eq!(place.on_disk(), 516);
    place.send(&["--resume", &token, "a.csv", "b.csv"]).assert(0, &["0 accepted", "durable already: 516"]);
    place.send(&["--resume", &token, "--batch", "512", "a.csv", "b.csv"]).assert(0, &["durable already: 516"]);
    let other = |arguments: &[&str], words: &str| {
        let sent = place.send(&[&["--resume", &token], arguments].concat());
        sent.assert(1, &[words]);
        assert_eq!(sent.summary, "");
    };
    other(&["--batch", "100", "a.csv", "b.csv"], "the interrupted send had `--batch 512`");
    other(&["b.csv", "a.csv"], "the files are not those of the interrupted send");
    other(&["b.csv"], "the files are not those of the interrupted send");
    let elsewhere = place.command_of("other", &["--resume", &token, "a.csv", "b.csv"]).output().unwrap();
    Sent::of(elsewhere).assert(1, &["another `--to`, `--stream` or `--producer`"]);
    other(&["-"], "stdin and pipes cannot be read again");
    place.write("a.csv", csv(512));
    other(&["a.csv", "b.csv"], "the files are not those of the interrupted send");
    let mistyped = token.replacen('1', "2", 1);
    place.send(&["--resume", &mistyped, "b.csv"]).assert(1, &["no token that `bailiwick send` printed"]);
    place.send(&["--epoch", "7", "b.csv"]).assert(2, &[]);
    assert_eq!(place.on_disk(), 516);
    gateway.kill();
}

#[test]
fn a_gateway_that_takes_nothing_in_is_waited_for_from_the_first_word_on() {
    let place = Place::new();
    let gateway = place.start();
    place.write("a.csv", csv(3));
    let (log, elsewhere) = (place.path("journal/log"), place.path("journal/elsewhere"));
    fs::rename(&log, &elsewhere).unwrap();
    gateway.wait_for("the log cannot be written", 1);
    place.send(&["--patience", "5", "a.csv"]).assert(1, &["was away for 5 s", "the journal cannot be written"]);
    let mut child = place.command(&["a.csv"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    line_with(&mut said, "the journal cannot be written");
    fs::rename(&elsewhere, &log).unwrap();
    let rest = thread::spawn(move || said.map(Result::unwrap).collect::<Vec<_>>().join("\n"));
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    assert!(status.success(), "{}{}", text(&stdout), rest.join().unwrap());
    assert!(text(&stdout).contains("3 records read, 3 accepted"), "{}", text(&stdout));
    gateway.kill();
}

#[test]
fn large_records_are_sent_in_requests_that_are_taken() {
    let place = Place::new();
    let gateway = place.start();
    let at = now();
    let rows = (0..600).map(|row| format!("{at},{row:020000},DE\n"));
    place.write("large.csv", format!("at,who,country\n{}", rows.collect::<String>()));
    place.send(&["large.csv"]).assert(0, &["600 records read, 600 accepted"]);
    assert_eq!(place.on_disk(), 600);
    gateway.kill();
}

/// Reads lines until one holds some words.
fn line_with(lines: &mut impl Iterator<Item = std::io::Result<String>>, words: &str) -> String {
    lines.map(Result::unwrap).find(|line| line.contains(words)).unwrap()
}

/// A sender of 5,000 records, one in a request, whose gateway is stopped by a signal before it has taken all of them.
struct Halfway {
    place: Place,
    gateway: Process,
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
    /// The line that says how to resume it.
    began: String,
}

impl Halfway {
    fn new(more: &[&str]) -> Self {
        // A test that is held up may come when all is sent.
        for _ in 0..20 {
            let place = Place::new();
            let gateway = place.start();
            place.write("a.csv", csv(5000));
            let mut child = place.piped(&[&["--batch", "1"][..], more, &["a.csv"]].concat());
            let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
            // With little patience it may have given up the gateway.
            let Some(began) = said.by_ref().map(Result::unwrap).find(|line| line.contains("--resume")) else {
                let _ = child.wait();
                continue;
            };
            gateway.signal("STOP");
            if place.on_disk() < 5000 {
                return Self { place, gateway, child, said, began };
            }
            let _ = (child.kill(), child.wait());
        }
        panic!("each send was over before its gateway was stopped");
    }
}

#[test]
fn an_interrupted_send_says_how_to_resume_it_and_then_nothing_is_lost_or_twice() {
    for signal in ["INT", "TERM"] {
        let Halfway { place, gateway, child, mut said, began } = Halfway::new(&[]);
        assert!(Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap().success());
        let advice = line_with(&mut said, "to send the rest");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).contains(" records read, "), "{}", text(&output.stdout));
        let token = |line: &str| line.split_once("--resume ").unwrap().1.trim_matches('`').to_owned();
        assert_eq!(token(&began), token(&advice));
        gateway.signal("CONT");
        let resumed = place.send(&["--json", "--resume", &token(&advice), "a.csv"]);
        let summary: Value = serde_json::from_str(&resumed.summary).unwrap();
        let count = |value: &Value| value.as_u64().unwrap();
        let (before, unknown) = (count(&summary["durable_before"]), count(&summary["outcome_not_known"]["count"]));
        assert_eq!(count(&summary["accepted"]) + before + unknown, 5000, "{summary}");
        assert!(before <= 64, "{summary}");
        assert_eq!(resumed.code, Some(if unknown > 0 { 3 } else { 0 }), "{summary}");
        assert_eq!(place.on_disk(), 5000, "{summary}");
        gateway.kill();
    }
}

#[test]
fn what_came_of_the_oldest_requests_is_not_made_up() {
    let place = Place::new();
    let gateway = place.start();
    place.write("a.csv", csv(100));
    let token = place.send(&["--batch", "1", "a.csv"]).token();
    let resumed = place.send(&["--resume", &token, "a.csv"]);
    resumed.assert(3, &["durable already: 64", "answered before, outcome not known: 36; the first at a.csv:2"]);
    place.send(&["--resume", &token, "--allow-refused", "a.csv"]).assert(3, &[]);
    assert_eq!(place.on_disk(), 100);
    gateway.kill();
}

/// A pipe is waited for, and that is said; what reads files for another end refuses it.
#[test]
fn a_pipe_that_nobody_writes_to_is_waited_for_and_that_is_said() {
    let place = Place::new();
    let gateway = place.start();
    let pipe = place.root().join("pipe.csv");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = place.piped(&["pipe.csv"]);
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    line_with(&mut said, "waiting for pipe.csv: it is a pipe, and nothing has come through it yet");
    fs::write(&pipe, csv(2)).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(place.on_disk(), 2);
    for command in [
        &["explain", "-s", "t", "-p", "till", "pipe.csv"][..],
        &["replay", "--against", "policies", "-s", "t", "-p", "till", "pipe.csv"],
        &["bench", "-s", "t", "pipe.csv"],
    ] {
        let refused = run_in_time(place.root(), command);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains("`pipe.csv` is a named pipe; name a regular file"), "{command:?}: {said}");
    }
    gateway.kill();
}

#[test]
fn a_sender_that_was_superseded_is_not_told_to_go_on() {
    let place = Place::new();
    let gateway = place.start();
    place.write("a.csv", csv(3));
    let first = place.send(&["a.csv"]).token();
    place.send(&["a.csv"]).assert(0, &[]);
    let resumed = place.send(&["--resume", &first, "a.csv"]);
    resumed.assert(1, &["another sender uses the name of this producer"]);
    assert!(!resumed.said.contains("run the same command"), "{}", resumed.said);
    assert!(!resumed.summary.contains("resume token"), "{}", resumed.summary);
    let resumed = place.send(&["--json", "--resume", &first, "a.csv"]);
    let summary: Value = serde_json::from_str(&resumed.summary).unwrap();
    assert_eq!(summary["resume"], Value::Null, "{summary}");
    gateway.kill();
    place.send(&["a.csv"]).assert(1, &["no gateway answers at"]);
}

#[test]
fn a_gateway_that_is_away_is_waited_for_and_that_is_said() {
    let place = Place::new();
    let gateway = place.start();
    let mut child = place.piped(&["--batch", "1"]);
    let mut input = child.stdin.take().unwrap();
    let at = now();
    let record = |input: &mut ChildStdin, who: &str| {
        writeln!(input, "{{\"at\": \"{at}\", \"who\": \"{who}\", \"country\": \"DE\"}}").unwrap();
    };
    record(&mut input, "a");
    let began = Clock::start();
    while place.on_disk() < 1 {
        assert!(began.now() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
    gateway.kill();
    // More than what is sent ahead of the answers.
    (0..20).for_each(|_| record(&mut input, "b"));
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let waiting = line_with(&mut said, "waiting for");
    assert!(waiting.contains(&format!("http://127.0.0.1:{}, for at most 60 s: ", place.port)), "{waiting}");
    let gateway = place.start();
    line_with(&mut said, "answers now");
    drop(input);
    let mut summary = String::new();
    child.stdout.take().unwrap().read_to_string(&mut summary).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{summary}");
    assert!(summary.starts_with("21 records read, 21 accepted"), "{summary}");
    assert_eq!(place.on_disk(), 21);
    gateway.kill();
}

#[test]
fn a_gateway_that_stays_away_is_given_up_with_true_advice() {
    let Halfway { place: _place, gateway, child, said, .. } = Halfway::new(&["--patience", "2"]);
    gateway.kill();
    let rest = said.map(Result::unwrap).collect::<Vec<_>>().join("\n");
    assert!(rest.contains("was away for 2 s") && rest.contains("run the same command with `--resume 1-"), "{rest}");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
}

#[test]
fn a_gateway_that_is_frozen_is_noticed_and_given_up() {
    let Halfway { place: _place, gateway, child, mut said, .. } = Halfway::new(&["--patience", "4"]);
    line_with(&mut said, "it is connected and has not answered yet");
    line_with(&mut said, "was away for 4 s");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    gateway.kill();
}

#[test]
fn an_unreachable_gateway_is_mentioned_once_and_its_records_are_counted() {
    let place = Place::new();
    let gateway = place.start();
    let at = now();
    let rows = (0..40).map(|row| format!("{at},{row},{}\n", if row % 2 == 0 { "DE" } else { "IN" }));
    place.write("a.csv", format!("at,who,country\n{}", rows.collect::<String>()));
    let sent = place.send(&["--batch", "4", "a.csv"]);
    sent.assert(3, &["40 records read, 20 accepted", "not sent, g-2 is unreachable: 20; the first at a.csv:3"]);
    assert_eq!(sent.said.matches("g-2 is unreachable").count(), 1, "{}", sent.said);
    place.send(&["--allow-refused", "a.csv"]).assert(3, &[]);
    place.send(&["--no-follow", "a.csv"]).assert(3, &["refused, belongs_elsewhere", ": 20; the first at a.csv:3"]);
    gateway.kill();
}

#[test]
fn the_summary_is_there_for_programs_too() {
    let place = Place::new();
    let gateway = place.start();
    let at = now();
    let name = "a\u{1b}[2J.csv";
    place.write(name, format!("at,who,country,n\n{at},a,DE,1\n{at},b,DE,é\n"));
    let sent = place.send(&["--json", name]);
    sent.assert(3, &[]);
    assert!(sent.summary.is_ascii() && sent.summary.lines().count() == 1, "{}", sent.summary);
    let summary: Value = serde_json::from_str(&sent.summary).unwrap();
    assert_eq!((&summary["read"], &summary["accepted"], &summary["error"]), (&2.into(), &1.into(), &Value::Null));
    let [refused] = summary["refused"].as_array().unwrap().as_slice() else { panic!("{summary}") };
    assert_eq!((&refused["reason"], &refused["field"]), (&"wrong_type".into(), &"n".into()));
    assert_eq!((&refused["count"], &refused["first"]), (&1.into(), &format!("{name}:3").into()));
    assert!(summary["resume"].as_str().unwrap().starts_with("1-"), "{summary}");
    let plain = place.send(&[name]);
    plain.assert(3, &["a\\u{1b}[2J.csv:3"]);
    gateway.kill();
}
