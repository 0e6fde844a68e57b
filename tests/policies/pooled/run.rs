//! A run of a gateway, as a process: what is sent to it, how it ends and starts again, what changes meanwhile. Each run is
//! drawn from a number.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::deployment::{Deployment, POLICY, Process, Producer, REGIME};
use super::book::{Book, EDGES, Part, Sent, Version};
use super::told::span;
use crate::common::tape::Tape;
use crate::common::{changed, until};

/// The finer dataset, and what is asked of it in a run.
const POLICIES: &str = r#"
schema = "bailiwick.policy/1"

[streams.visits]
event_time  = "at"
idle_after  = "PT10H"
late_max    = "PT2H"
history_from = "2013-01-01T00:00:00Z"
contributor = "person"
contributor_is_person = true

[streams.visits.facts]
"subject.residence" = [{ field = "country", strength = 90 }]

[streams.visits.fields]
at      = { type = "timestamp", class = "personal" }
person  = { type = "string", class = "personal" }
country = { type = "string", class = "personal" }
city    = { type = "string", class = "personal" }
amount  = { type = "float64", class = "operational", range = [0, RANGE], required = false }
channel = { type = "string", class = "operational", required = false }
size    = { type = "int64", class = "operational" }

[datasets.by_city]
stream           = "visits"
window           = { size = "PT1M", grace = "PT1S" }
min_contributors = 5
group_by         = [COUNTRY, CITY]
MORE
METRICS

[destinations.desk]
country = "IE"
accepts = ["by_city"]

[destinations.hub]
country = "US"
accepts = ["by_city"]
"#;
const COUNTRY: &str = r#"{ field = "country", domain = ["DE", "FR", "IN"] }"#;
const CITY: &str = r#"{ field = "city", domain = ["a", "b", "c"] }"#;
/// What amounts are below.
const RANGE: u64 = 1 << 30;
/// Persons of a country.
const PERSONS: usize = 14;
/// More than any policy asks for.
const FILLERS: usize = 10;
const FINER: &str = "by_city";

/// What a run has besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Datasets with longer windows.
    Longer,
    /// Cells wait for so many windows, and a dataset of countries adds them up.
    Defers(u32),
    /// One destination is asked for less.
    Relaxed,
    /// The records are counted twice, in cells of other keys or in other windows too: only a bug lets that be.
    Parted(Other),
}

/// How a dataset parts the records otherwise than the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    Keys,
    Windows,
    /// They overlap.
    Hopping,
}

/// How a life of the gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    /// Right after windows were told to close.
    KillAtOnce,
    /// While a request is on its way.
    KillMeanwhile,
    Stop,
    Flush,
    /// After it, windows are of another size.
    OtherWindows,
}

/// A run, with what is known of it.
pub(super) struct Run {
    pub(super) book: Book,
    pub(super) kind: Kind,
    /// The least number of contributors that anything must be about, and that a part must be about.
    pub(super) k: usize,
    pub(super) part: usize,
    /// The rows of all other datasets than the finer one.
    pub(super) others: Vec<(&'static str, Value)>,
    pub(super) seen: BTreeMap<&'static str, usize>,
    deployment: Deployment,
    tape: Tape,
    sequence: u64,
    /// The last request, and whether nobody knows if it was taken.
    last: Vec<Value>,
    is_unknown: bool,
    /// The last minute that something was sent of, or that was told to be complete.
    minute: u32,
    /// Those of the records.
    sizes: [u64; 7],
    /// A bug that the gateway has.
    bug: &'static str,
}

/// A gateway that runs, who sends to it, and who only says how far it is: both must be, before windows close.
struct Life {
    process: Process,
    producer: Producer,
    slow: Producer,
}

impl Run {
    pub(super) fn new(seed: u64, bug: &'static str) -> Self {
        let mut tape = Tape::new(seed);
        let kinds = match bug {
            "overlaps-let-through" => [Kind::Parted(Other::Hopping); 3],
            "partitions-let-through" => [Other::Keys, Other::Windows, Other::Keys].map(Kind::Parted),
            _ => [Kind::Longer, Kind::Defers(1 + tape.below(3) as u32), Kind::Relaxed],
        };
        let kind = kinds[seed as usize % kinds.len()];
        let k = if kind == Kind::Relaxed { 8 } else { 5 + tape.below(2) };
        let small = tape.below(2) > 0;
        let sizes = tape.of(&[[0, 1, 1, 2, 3, 3, 5], [0, 0, 1, 2, 4, 5, 5]]);
        let version = Version { k, size: 1 };
        let relaxed = (kind == Kind::Relaxed).then_some(5);
        let deployment = deployment(kind, small, &mut tape);
        deployment.set_k(k);
        let (book, least) = (Book::new(version, relaxed), relaxed.unwrap_or(k));
        let part = if small { 3 } else { least };
        let (others, seen, last) = (Vec::new(), BTreeMap::new(), Vec::new());
        let (sequence, is_unknown, minute) = (0, false, 1);
        Self {
            book,
            kind,
            k: least,
            part,
            others,
            seen,
            deployment,
            tape,
            sequence,
            last,
            is_unknown,
            minute,
            sizes,
            bug,
        }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// The run, from beginning to end. What is wrong with it, besides what it tells.
    pub(super) async fn go(&mut self) -> Result<(), String> {
        let others = [End::Kill, End::KillAtOnce, End::KillMeanwhile, End::Stop, End::Flush];
        let mut ends: Vec<End> = (0..3).map(|_| self.tape.of(&others)).collect();
        // Windows of two datasets that part the records otherwise are not in each other any more when their size changes.
        let change = if matches!(self.kind, Kind::Parted(_)) { End::Stop } else { End::OtherWindows };
        ends.extend([change, self.tape.of(&others), End::Flush]);
        for end in ends {
            self.life(end).await?;
        }
        let known: usize = self.book.closings.iter().map(|closing| closing.lines.len()).sum();
        if self.finer_lines().len() != known {
            return Err("something left when nothing closed".to_owned());
        }
        for to in ["desk", "hub"] {
            let lines = self.deployment.released(to).into_iter().filter(|line| line["dataset"] != FINER);
            self.others.extend(lines.map(|line| (to, line)));
        }
        self.seen.insert("late records", self.book.late);
        Ok(())
    }

    async fn life(&mut self, end: End) -> Result<(), String> {
        let is_flush = matches!(end, End::Flush | End::OtherWindows);
        let on_stop = |release: bool| format!("on_stop = \"{}\"", if release { "release" } else { "keep" });
        if self.deployment.read("gateway.toml").contains(&on_stop(!is_flush)) {
            self.deployment.edit("gateway.toml", &on_stop(!is_flush), &on_stop(is_flush));
        }
        let mut life = self.start().await;
        // What closed before a kill, and nobody has seen.
        self.wait();
        for _ in 0..1 + self.tape.below(2) {
            self.send_ahead(&mut life).await;
            self.step(&mut life).await?;
            self.close(&mut life).await;
            self.wait();
            self.step(&mut life).await?;
        }
        self.send_ahead(&mut life).await;
        self.end(life, end).await;
        if is_flush {
            self.book.flush();
            self.wait();
        }
        if end == End::OtherWindows {
            self.saw("changed windows");
            self.other_windows();
        }
        if !matches!(end, End::KillAtOnce | End::KillMeanwhile) && self.tape.below(3) == 0 {
            self.other_k();
            self.saw("starts with other policies");
        }
        Ok(())
    }

    async fn end(&mut self, mut life: Life, end: End) {
        match end {
            End::Kill => blocking(|| life.process.kill()),
            End::KillAtOnce => {
                self.close(&mut life).await;
                blocking(|| life.process.kill());
            }
            End::KillMeanwhile => {
                let records = self.ahead();
                self.sequence += 1;
                let Life { process, mut producer, .. } = life;
                let sending = producer.try_publish_as(self.sequence, &records);
                // To ask another program for the kill leaves the request a moment.
                let is_slow = self.tape.below(2) == 0;
                let kill = async {
                    if is_slow {
                        blocking(|| process.signal("KILL"));
                    }
                    blocking(|| process.kill());
                };
                let (answer, ()) = tokio::join!(sending, kill);
                self.is_unknown = answer.is_err();
            }
            End::Stop | End::Flush | End::OtherWindows => drop(blocking(|| life.process.stop())),
        }
        self.saw(match end {
            End::Kill | End::KillAtOnce | End::KillMeanwhile => "kills",
            End::Stop => "stops",
            End::Flush | End::OtherWindows => "flushes",
        });
    }

    async fn start(&mut self) -> Life {
        let bug = format!("export BAILIWICK_PLANT={}", self.bug);
        let start = || Process::start_under(self.deployment.root(), &bug, &["run", "-c", "gateway.toml"]);
        let process = blocking(start);
        let mut slow = Producer::connect(process.endpoint(), "q").await;
        if self.sequence == 0 {
            slow.close_before(1).await;
        }
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = self.sequence;
        if std::mem::take(&mut self.is_unknown) {
            let again = producer.publish_as(self.sequence, &self.last).await;
            assert!(again.duplicate || again.accepted as usize == self.last.len());
            self.saw(if again.duplicate { "unanswered requests that were taken" } else { "requests that were lost" });
        }
        Life { process, producer, slow }
    }

    /// Something that may happen at any time.
    async fn step(&mut self, life: &mut Life) -> Result<(), String> {
        match self.tape.below(6) {
            0 | 1 => {
                let minutes = (0..1 + self.tape.below(5)).map(|_| 1 + self.tape.below(self.minute as usize) as u32);
                // What is late for one window can be in time for another that overlaps it: then there is none.
                let is_hopping = self.kind == Kind::Parted(Other::Hopping);
                let from = if is_hopping { self.book.closed } else { 0 };
                let minutes: Vec<u32> = minutes.map(|minute| minute.max(from)).collect();
                let records = self.records(&minutes);
                self.send(life, &records).await;
            }
            2 if self.sequence > 0 => {
                let again = life.producer.publish_as(self.sequence, &self.last.clone()).await;
                if !again.duplicate {
                    return Err("a request was taken twice".to_owned());
                }
                self.saw("duplicates");
            }
            3 | 4 => {
                self.other_k();
                let said = tokio::task::block_in_place(|| life.process.reload());
                assert!(said.contains("are in force"), "{said}");
                self.saw("reloads");
            }
            _ => {
                let (policy, size) = (self.deployment.read(POLICY), self.book.version.size);
                let other = format!("\"PT{}M\", grace", 3 - size);
                self.deployment.edit(POLICY, &format!("\"PT{size}M\", grace"), &other);
                let said = tokio::task::block_in_place(|| life.process.reload());
                assert!(said.contains("were not replaced"), "{said}");
                self.deployment.write(POLICY, policy);
                self.saw("reloads that are refused");
            }
        }
        Ok(())
    }

    /// From now on, or from the next start on, the law asks for another number of contributors, or for the same again.
    fn other_k(&mut self) {
        let k = self.k + self.tape.below(3) + if self.kind == Kind::Relaxed { 3 } else { 0 };
        self.deployment.set_k(k);
        self.book.version.k = k;
    }

    /// Records of the minutes that come.
    fn ahead(&mut self) -> Vec<Value> {
        let some = if self.kind == Kind::Relaxed { 24 } else { 14 } + self.tape.below(8);
        let first = self.book.closed;
        let minutes: Vec<u32> = (0..some).map(|_| first + self.tape.of(&[0, 0, 0, 1, 1, 2])).collect();
        self.records(&minutes)
    }

    async fn send_ahead(&mut self, life: &mut Life) {
        let records = self.ahead();
        self.send(life, &records).await;
    }

    async fn send(&mut self, life: &mut Life, records: &[Value]) {
        life.producer.send(records).await;
        self.sequence = life.producer.sequence;
    }

    /// A request with a record of each of these minutes, and what lets a part of a window be told by its release.
    fn records(&mut self, minutes: &[u32]) -> Vec<Value> {
        let before = self.book.sent.len();
        for minute in minutes {
            let part = self.book.part_of(*minute);
            if !self.book.has_filler(part) {
                (0..FILLERS).for_each(|person| self.filler(part, person));
            }
            let record = self.record(*minute, part);
            self.minute = self.minute.max(*minute);
            self.book.take(record);
        }
        self.last = self.book.sent[before..].iter().map(Sent::json).collect();
        self.last.clone()
    }

    fn record(&mut self, minute: u32, part: Part) -> Sent {
        let country = self.tape.of(&["DE", "DE", "DE", "DE", "FR"]);
        let city = self.tape.of(&["a", "a", "a", "b", "b", "b", "c", "x"]);
        // Those who are in the filling are there anyway.
        let city = if (country, city) == ("FR", "c") { "b" } else { city };
        let person = format!("{country}-{}", self.tape.below(PERSONS));
        let size = self.tape.of(&self.sizes);
        // Those of much often come by the web.
        let web = if self.tape.below(4) == 0 { self.tape.below(2) == 0 } else { size > 1 };
        let channel = (self.tape.below(12) > 0).then_some(if web { "web" } else { "shop" });
        let amount = (self.tape.below(6) > 0).then(|| self.amount());
        let version = self.book.version;
        Sent { person, country, city, amount, channel, size, minute, is_filler: false, part, version }
    }

    fn amount(&mut self) -> u64 {
        RANGE / 4 + self.tape.below(RANGE as usize / 2) as u64
    }

    fn filler(&mut self, part: Part, person: usize) {
        let (person, amount, version) = (format!("FR-{person}"), Some(self.amount()), self.book.version);
        let (country, city, channel) = ("FR", "c", Some("web"));
        let (minute, size, is_filler) = (part.from, 1, true);
        self.book.take(Sent { person, country, city, amount, channel, size, minute, is_filler, part, version });
    }

    /// Windows close.
    async fn close(&mut self, life: &mut Life) {
        let size = self.book.version.size;
        let minute = self.book.closed.next_multiple_of(size) + size * (1 + self.tape.below(2) as u32);
        self.minute = self.minute.max(minute);
        life.producer.close_before(minute).await;
        life.slow.close_before(minute).await;
        self.book.close(minute);
    }

    /// After a flush, windows have another size, and so have the longer ones.
    fn other_windows(&mut self) {
        let (size, longer) = (self.book.version.size, ["PT3M", "PT6M"]);
        let policy = self.deployment.read(POLICY);
        let policy = changed(&policy, &format!("\"PT{size}M\", grace"), &format!("\"PT{}M\", grace", 3 - size));
        let policy = if self.kind == Kind::Longer { changed(&policy, longer[0], longer[1]) } else { policy };
        self.deployment.write(POLICY, policy);
        self.book.version.size = 3 - size;
    }

    fn finer_lines(&self) -> Vec<(&'static str, Value)> {
        let of = |to| self.deployment.released(to).into_iter().map(move |line| (to, line));
        ["desk", "hub"].into_iter().flat_map(of).filter(|(_, line)| line["dataset"] == FINER).collect()
    }

    /// Waits until all that has closed has left, to everybody: in each window is a cell that leaves. What is new is of the last
    /// closing.
    fn wait(&mut self) {
        let Some(closing) = self.book.closings.last().filter(|closing| closing.lines.is_empty()) else { return };
        let known: BTreeSet<String> = self
            .book
            .closings
            .iter()
            .flat_map(|closing| &closing.lines)
            .map(|(_, line)| line["release"].to_string())
            .collect();
        let receivers = if self.kind == Kind::Longer { vec!["desk"] } else { vec!["desk", "hub"] };
        let new = || -> Vec<(&str, Value)> {
            let is_new = |(_, line): &(&str, Value)| !known.contains(&line["release"].to_string());
            self.finer_lines().into_iter().filter(is_new).collect()
        };
        let lines = blocking(|| {
            until(|| {
                let lines = new();
                let has = |to: &str, part: &Part| {
                    let is_of = |(of, line): &(&str, Value)| {
                        *of == to
                            && span(line) == (part.from, part.to)
                            && line["country"] == "FR"
                            && line["city"] == "c"
                    };
                    lines.iter().any(is_of)
                };
                let is_all = receivers.iter().all(|to| closing.parts.iter().all(|part| has(to, part)));
                is_all.then_some(lines)
            })
        });
        self.book.closings.last_mut().unwrap().lines = lines;
    }
}

/// Several runs share the threads: what waits for a gateway must not keep the clients from going on.
fn blocking<T>(wait: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(wait)
}

fn deployment(kind: Kind, small: bool, tape: &mut Tape) -> Deployment {
    let deployment = Deployment::new();
    let roll_up = tape.of(&["[\"city\"]", "[\"city\", \"country\"]"]);
    let release = if small { "release = \"small\"\n" } else { "" };
    let defer = if let Kind::Defers(windows) = kind { format!("max_defer = {windows}\n") } else { String::new() };
    // Each metric is told by the finer dataset, by the others, or by all.
    let has_others = matches!(kind, Kind::Longer | Kind::Defers(_));
    let every = [
        r#"{ name = "amount", fn = "sum", field = "amount" }"#.to_owned(),
        r#"{ name = "web", fn = "fraction", field = "channel", equals = "web" }"#.to_owned(),
        format!(r#"{{ name = "sizes", fn = "histogram", field = "size", edges = {EDGES:?} }}"#),
    ];
    let told_by = [(); 3].map(|_| if has_others { tape.below(4) } else { 3 });
    let metrics = |but: usize| {
        let some = every.iter().zip(told_by).filter(|(_, by)| *by != but).map(|(metric, _)| metric.as_str());
        let all: Vec<&str> = std::iter::once(r#"{ name = "visits", fn = "count" }"#).chain(some).collect();
        format!("metrics = [{}]\n", all.join(", "))
    };
    let policy = changed(POLICIES, "MORE", &format!("roll_up = {roll_up}\n{defer}{release}"));
    let policy = changed(&policy, "METRICS", &metrics(0));
    let policy = changed(&changed(&policy, "COUNTRY", COUNTRY), "CITY", CITY);
    let policy = changed(&policy, "RANGE", &RANGE.to_string());
    let sums = |name: &str, size: &str, keys: &str| {
        format!(
            "\n[datasets.{name}]\nstream = \"visits\"\ncoarser_than = \"by_city\"\nwindow = {{ size = \"{size}\", grace = \
             \"PT1S\" }}\nmin_contributors = 5\ngroup_by = [{keys}]\n{defer}{release}{}",
            metrics(1)
        )
    };
    let both = format!("{COUNTRY}, {CITY}");
    let (by_city, of_both) = ("\"by_city\"", "\"by_city\", \"parted\"");
    let parted = |size: &str, keys: &str| changed(&sums("parted", size, keys), "coarser_than = \"by_city\"\n", "");
    let (more, desk, hub) = match kind {
        Kind::Parted(Other::Keys) => (parted("PT1M", CITY), by_city, of_both),
        Kind::Parted(Other::Hopping) => (parted("PT2M\", every = \"PT1M", &both), by_city, of_both),
        Kind::Parted(Other::Windows) => (parted("PT4M", &both), by_city, of_both),
        Kind::Longer => (
            sums("longer", "PT3M", &both) + &sums("longest", "PT3M", COUNTRY),
            "\"by_city\", \"longest\"",
            "\"longer\", \"longest\"",
        ),
        Kind::Defers(_) => (sums("countries", "PT1M", COUNTRY), "\"by_city\"", "\"by_city\", \"countries\""),
        Kind::Relaxed => (
            "\n[[overrides]]\nid = \"OVR-1\"\nrelaxes = \"min_contributors\"\nvalue = 5\nscope = { dataset = \"by_city\", \
             destination = \"hub\" }\nreason = \"a test\"\napproved = [\"one@acme.example\", \"two@acme.example\"]\nuntil = \
             2098-01-01\n"
                .to_owned(),
            "\"by_city\"",
            "\"by_city\"",
        ),
    };
    let accepts = |country: &str, accepted: &str| format!("country = \"{country}\"\naccepts = [{accepted}]");
    let policy = changed(&policy, &accepts("IE", "\"by_city\""), &accepts("IE", desk));
    let policy = changed(&policy, &accepts("US", "\"by_city\""), &accepts("US", hub));
    let profile = if small { "\n[release.small]\nmin_part = 3\n" } else { "" };
    deployment.write(POLICY, policy + &more + profile);
    if small {
        deployment.edit(REGIME, "min_contributors", "release = \"small\"\nmin_contributors");
    }
    // Some have a checkpoint only where they stop.
    let every = tape.of(&["PT1H", "PT1S"]);
    deployment.edit("gateway.toml", "[journal]\n", &format!("[journal]\ncheckpoint_every = \"{every}\"\n"));
    deployment.edit("gateway.toml", "[gateway]\n", "[gateway]\non_stop = \"keep\"\n");
    deployment
}
