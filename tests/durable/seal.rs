//! The journal, sealed: what is on disk says nothing without the keys, and what is deleted is gone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Schema};
use bailiwick::config::today;
use bailiwick::domain::batch::Candidate;
use bailiwick::domain::counting::NotCounted;
use bailiwick::domain::event_time::TimeBounds;
use bailiwick::domain::evidence::{Knowledge, Sender};
use bailiwick::domain::fact::Fact;
use bailiwick::domain::jurisdiction::Jurisdiction;
use bailiwick::domain::policy::{Here, PolicySet, Regime, Region, Scope, Version};
use bailiwick::durable::entry::{BatchReader, BatchWriter, Catalog, Entry, Sent, Unread};
use bailiwick::durable::seal::{KEY_BYTES, Key, Keys, Sealed, Sealer};
use flate2::read::GzDecoder;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::common;
use crate::common::folder::{Folder, copy, copy_of};
use crate::common::process::{Process, run, text};

const CODES: [&str; 7] = ["DE", "FR", "GB", "US", "US-CA", "IN", "CH"];
const CONFIG: &str = "examples/card-fraud/gateway.toml";
const SERVE: [&str; 3] = ["run", "-c", CONFIG];

/// Keys of regimes, each another one.
fn keys<'r>(regimes: impl Iterator<Item = &'r String>) -> Arc<Keys> {
    let key = |regime: &String| {
        let mut bytes = [7; KEY_BYTES];
        bytes[..regime.len()].copy_from_slice(regime.as_bytes());
        Key::new(Box::new(Zeroizing::new(bytes)))
    };
    Arc::new(Keys::new(regimes.map(|regime| (regime.clone(), key(regime))).collect()))
}

/// Payments from these places; those that are not `sound` are too old.
fn payments(schema: &Arc<Schema>, records: &[(usize, bool)]) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match (field.data_type(), field.name().as_str()) {
            (DataType::Utf8, "country") => {
                Arc::new(records.iter().map(|(code, _)| Some(CODES[*code])).collect::<StringArray>())
            }
            (DataType::Utf8, _) => Arc::new(records.iter().map(|_| Some("card-002284")).collect::<StringArray>()),
            (DataType::Float64, _) => Arc::new(records.iter().map(|_| Some(1.5)).collect::<Float64Array>()),
            (DataType::Timestamp(_, zone), _) => {
                let times = records.iter().map(|(_, sound)| Some(i64::from(*sound)));
                Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone_opt(zone.clone()))
            }
            (other, name) => panic!("{name} is of type {other}"),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

fn sent(producer: &str, rows: usize) -> Sent<'_> {
    Sent { producer, number: None, rows: u32::try_from(rows).unwrap(), newest: None, outcome: None }
}

#[test]
fn without_some_keys_exactly_the_batches_that_touch_their_regimes_are_unreadable() {
    let nowhere = TempDir::new().unwrap();
    let config = common::example("card-fraud/gateway.toml", nowhere.path());
    let mut policy = Arc::into_inner(config.policy).unwrap();
    // Two regimes over the same records.
    let mut second = policy.regimes["eu-gdpr"].clone();
    second.id = "second".into();
    let codes = ["DE", "GB"].iter().filter_map(|code| Jurisdiction::parse(code));
    second.applies =
        vec![Scope { fact: Fact::SubjectResidence, within: Region::of(codes), from: None, source: String::new() }];
    policy.regimes.insert(second.id.clone(), second);
    let serves: Vec<String> = policy.regimes.keys().cloned().collect();
    let stream = Arc::clone(&policy.streams["payments"].stream);
    let here = Here { serves: serves.clone(), peers: Vec::new(), ..Here::clone(&config.here) };
    let by_place = |policy: &PolicySet, code: &str| -> BTreeSet<String> {
        let code = Jurisdiction::parse(code).unwrap();
        let applies = |regime: &&Regime| {
            regime.covers_class(&policy.classes, &policy.streams["payments"].classes)
                && (regime.met(Fact::SubjectResidence, code, today()).next().is_some()
                    || regime.met(Fact::GatewayCountry, here.country, today()).next().is_some())
        };
        policy.regimes.values().filter(applies).map(|regime| regime.id.clone()).collect()
    };
    let version = Version::compile(Arc::new(policy), Arc::new(here.clone()), Knowledge::default(), today());
    let policy = &version.policy;
    let catalog = Catalog::new([(&*stream, Vec::new(), &[][..])].into_iter()).unwrap();
    let writer = RefCell::new(BatchWriter::new(&stream, Vec::new(), keys(serves.iter())));
    let record = (0..CODES.len(), prop::bool::weighted(0.8));
    let deleted = prop::collection::btree_set(prop::sample::select(serves.clone()), 0..4);
    let seen = [Cell::new(0), Cell::new(0)];
    let cases = (prop::collection::vec(record, 1..6), deleted);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) });
    let result = runner.run(&cases, |(records, deleted)| {
        let mut candidate = Candidate::new(Arc::clone(&stream), payments(&stream.schema, &records), Vec::new());
        candidate.check(&TimeBounds::between(1, 1));
        let stay: Vec<usize> = records.iter().filter(|(_, sound)| *sound).map(|(code, _)| *code).collect();
        let Some(resident) = version.decide(candidate, Sender::default(), &mut NotCounted).unwrap().resident else {
            prop_assert!(stay.is_empty());
            return Ok(());
        };
        let applicable: BTreeSet<String> = stay.iter().flat_map(|code| by_place(policy, CODES[*code])).collect();
        prop_assert_eq!(&**resident.regimes(), &applicable);
        let bytes = writer.borrow_mut().encode(&resident, &[], &[sent("till-7", resident.batch().rows())], 0).unwrap();
        prop_assert!(!bytes.windows(11).any(|window| window == b"card-002284"));
        let Some(Entry::Batch(accepted)) = Entry::decode(&bytes) else { panic!("no batch") };
        prop_assert_eq!(&*accepted.head.regimes, &applicable);
        let mut sealer = Sealer::new(keys(serves.iter().filter(|regime| !deleted.contains(*regime))));
        let missing: BTreeSet<String> = applicable.intersection(&deleted).cloned().collect();
        match BatchReader::new(&catalog, &accepted.head.stream).unwrap().columns(&accepted, &mut sealer) {
            Ok(columns) => {
                prop_assert!(missing.is_empty());
                prop_assert_eq!(columns.columns(), resident.batch().columns());
                seen[0].update(|cases| cases + 1);
            }
            Err(Unread::Sealed(Sealed::KeyMissing(regimes))) => {
                prop_assert_eq!(regimes, missing);
                seen[1].update(|cases| cases + 1);
            }
            Err(other) => panic!("{other:?}"),
        }
        Ok(())
    });
    result.unwrap();
    assert!(seen.iter().all(|cases| cases.get() > 20), "{seen:?}");
}

/// A directory with the example, whose gateway makes no checkpoint before it is stopped.
struct Deployment {
    folder: Folder,
    port: u16,
}

impl Deployment {
    fn new() -> Self {
        let (folder, port) = copy_of("card-fraud");
        folder.edit(CONFIG, "country  = \"DE\"", "country  = \"DE\"\non_stop = \"release\"");
        folder.edit(CONFIG, "[journal]\n", "[journal]\ncheckpoint_every = \"PT1H\"\n");
        Self { folder, port }
    }

    fn example(&self) -> PathBuf {
        self.folder.path("examples/card-fraud")
    }

    /// Gives `eu-gdpr` a key of these bytes.
    fn with_key(self, bytes: &[u8], mode: u32) -> Self {
        let path = self.example().join("eu.key");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self.with_keys("eu-gdpr = \"eu.key\"\n")
    }

    fn with_keys(self, lines: &str) -> Self {
        self.folder.add(CONFIG, &format!("\n[journal.keys]\n{lines}"));
        self
    }

    /// With the journal of another.
    fn with_journal_of(self, other: &Self) -> Self {
        copy(&other.example().join("journal"), &self.example().join("journal"));
        self
    }

    /// Takes the example's payments and is killed.
    fn fill(self) -> Self {
        let gateway = Process::start_with(self.folder.root(), &SERVE);
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let data = "examples/card-fraud/data.csv.gz";
        let send = ["send", "--stream", "payments", "--producer", "till-7", "--no-follow", "--to", &endpoint, data];
        let sent = run(self.folder.root(), &send);
        assert!(text(&sent.stdout).starts_with("16716 records read, 8417 accepted"), "{}", text(&sent.stdout));
        gateway.kill();
        self
    }

    /// Starts, stops, and releases all that was counted. What the log says.
    fn restart(&self) -> String {
        Process::start_with(self.folder.root(), &SERVE).stop().join("\n")
    }

    fn inspect(&self) -> String {
        let output = run(&self.example(), &["journal", "inspect", "journal"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// How many releases the outbox holds.
    fn releases(&self) -> u32 {
        let inspected = self.inspect();
        let Some((_, rest)) = inspected.split_once("destination fraud_desk: ") else { return 0 };
        rest.split(' ').next().unwrap().replace(',', "").parse().unwrap()
    }

    fn check(&self) -> (Option<i32>, String) {
        let checked = run(self.folder.root(), &["check", "-c", CONFIG]);
        (checked.status.code(), text(&checked.stderr))
    }
}

/// How many of the example's card numbers stand in the files of a directory.
fn cards_in(directory: &Path) -> usize {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.extend(fs::read(path).unwrap());
        }
    }
    let data = GzDecoder::new(File::open(common::root().join("examples/card-fraud/data.csv.gz")).unwrap());
    let mut lines = csv::Reader::from_reader(data);
    let cards: BTreeSet<String> = lines.records().map(|line| line.unwrap()[1].to_owned()).collect();
    let length = cards.first().unwrap().len();
    assert!(cards.iter().all(|card| card.len() == length) && cards.len() > 1_000);
    let found: BTreeSet<&[u8]> = files.windows(length).filter(|window| window.starts_with(b"card-")).collect();
    cards.iter().filter(|card| found.contains(card.as_bytes())).count()
}

#[test]
fn no_card_number_is_on_disk_and_without_the_key_nothing_of_it_is_counted() {
    let plain = Deployment::new().fill();
    let sealed = Deployment::new().with_key(&[7; 32], 0o600).fill();
    assert!(cards_in(&plain.example().join("journal/log")) > 1_000, "the check finds nothing anywhere");
    assert_eq!(cards_in(&sealed.example().join("journal/log")), 0);
    assert!(!plain.inspect().contains("sealed"));
    assert!(sealed.inspect().contains("sealed under the key of eu-gdpr: 8,417 records"), "{}", sealed.inspect());

    // Copies before anything goes on.
    let without_key = Deployment::new().with_journal_of(&sealed);
    let wrong_key = Deployment::new().with_key(&[8; 32], 0o600).with_journal_of(&sealed);
    let sealed_later = Deployment::new().with_key(&[7; 32], 0o600).with_journal_of(&plain);

    let (released, erased) = ("the key of a regime is missing", "sealed entries do not open");
    for readable in [&plain, &sealed, &sealed_later] {
        let log = readable.restart();
        assert!(!log.contains(released) && !log.contains(erased), "{log}");
    }
    let all = plain.releases();
    assert!(all > 10);
    assert_eq!((sealed.releases(), sealed_later.releases()), (all, all));

    for (deployment, message) in [(&without_key, released), (&wrong_key, erased)] {
        let before = deployment.releases();
        let log = deployment.restart();
        assert_eq!(log.matches(message).count(), 1, "{log}");
        let line = log.lines().find(|line| line.contains(message)).unwrap();
        assert!(line.contains("eu-gdpr") && line.contains("payments") && !line.contains("8417"), "{line}");
        assert_eq!(deployment.releases(), before, "{log}");
        assert!(before < all);
    }
}

#[test]
fn check_says_what_is_wrong_with_a_key() {
    let (code, _) = Deployment::new().with_key(&[7; 32], 0o600).check();
    assert_eq!(code, Some(0));
    // A regime that is not served may have a key.
    let two = Deployment::new().with_key(&[7; 32], 0o400);
    fs::write(two.example().join("uk.key"), [9; 32]).unwrap();
    fs::set_permissions(two.example().join("uk.key"), Permissions::from_mode(0o600)).unwrap();
    two.folder.add(CONFIG, "uk-gdpr = \"uk.key\"\n");
    assert_eq!(two.check().0, Some(0));
    two.folder.edit(CONFIG, "\"uk.key\"", "\"eu.key\"");
    assert!(two.check().1.contains("have the same key"), "{}", two.check().1);

    let wrong = [
        (Deployment::new().with_keys(""), "regime `eu-gdpr` is served and has no key", "[journal.keys]"),
        (Deployment::new().with_keys("eu-gdpr = \"no.key\"\n"), "no.key: No such file", "eu-gdpr = \"no.key\""),
        (Deployment::new().with_keys("eu-gdpr = \".\"\n"), "is a directory", "eu-gdpr = \".\""),
        (Deployment::new().with_key(&[7; 33], 0o600), "eu.key holds 33 bytes and not 32", "eu-gdpr = \"eu.key\""),
        (Deployment::new().with_key(&[7; 31], 0o600), "eu.key holds 31 bytes and not 32", "eu-gdpr = \"eu.key\""),
        (Deployment::new().with_key(&[7; 32], 0o644), "eu.key has mode 0644", "eu-gdpr = \"eu.key\""),
        (Deployment::new().with_key(&[7; 32], 0o640), "eu.key has mode 0640", "eu-gdpr = \"eu.key\""),
    ];
    for (deployment, message, line) in wrong {
        let (code, stderr) = deployment.check();
        assert_eq!(code, Some(64), "{stderr}");
        assert!(stderr.contains(message) && stderr.contains(line), "{stderr}");
    }
}
