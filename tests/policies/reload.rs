//! Other policies while records come in: whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bailiwick::config;
use bailiwick::domain::document::Severity;
use bailiwick::domain::policy::Digest;
use bailiwick::durable::entry::Entry;
use bailiwick::storage::{Log, RealFileSystem, SEGMENT_BYTES, Settings};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::deployment::{Deployment, POLICY, Producer, REGIME, refusals, regime, visit};
use crate::common::changed;

/// A producer that sends all the time: in every request as many records of DE as of FR, each of another person.
struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    running: JoinHandle<Sent>,
}

/// What was answered.
#[derive(Default)]
struct Sent {
    taken: BTreeMap<&'static str, i64>,
    /// The rows that each request had refused, when they changed.
    outcomes: Vec<Vec<(u32, &'static str)>>,
}

const ROWS: usize = 20;

fn country_of(row: usize) -> &'static str {
    if row.is_multiple_of(2) { "DE" } else { "FR" }
}

impl Load {
    async fn start(endpoint: &str) -> Self {
        let mut producer = Producer::connect(endpoint, "load").await;
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&requests));
        let running = tokio::spawn(async move {
            let mut sent = Sent::default();
            while !stopped.load(Ordering::SeqCst) {
                let request = producer.sequence;
                let person = |row: usize| visit(10, &format!("p-{request}-{row}"), country_of(row));
                let response = producer.publish(&(0..ROWS).map(person).collect::<Vec<_>>()).await;
                let refused: Vec<_> =
                    refusals(&response).into_iter().map(|(index, reason, _)| (index, reason)).collect();
                for row in 0..ROWS {
                    let is_taken = refused.iter().all(|(index, _)| *index as usize != row);
                    *sent.taken.entry(country_of(row)).or_default() += i64::from(is_taken);
                }
                if sent.outcomes.last() != Some(&refused) {
                    sent.outcomes.push(refused);
                }
                counted.fetch_add(1, Ordering::SeqCst);
            }
            sent
        });
        Self { stop, requests, running }
    }

    /// Waits until some requests more are answered.
    async fn goes_on(&self) {
        let before = self.requests.load(Ordering::SeqCst);
        while self.requests.load(Ordering::SeqCst) < before + 3 {
            assert!(!self.running.is_finished(), "the producer was disturbed");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    async fn stop(self) -> Sent {
        self.stop.store(true, Ordering::SeqCst);
        self.running.await.unwrap()
    }
}

fn refused(reason: &'static str) -> Vec<(u32, &'static str)> {
    (0..ROWS as u32).filter(|row| country_of(*row as usize) == "FR").map(|row| (row, reason)).collect()
}

fn released(deployment: &Deployment, destination: &str) -> BTreeMap<String, i64> {
    deployment.counts(destination).into_iter().map(|(_, country, visits)| (country, visits)).collect()
}

/// The policy of each journaled batch, in order, without repetitions, with the rows that such batches have.
fn journaled(directory: &Path) -> Vec<(String, BTreeSet<u32>)> {
    let settings = Settings {
        directory: directory.join("log"),
        segment_bytes: SEGMENT_BYTES,
        quota_bytes: 8 << 30,
        context: Vec::new(),
        at_least: 0,
    };
    let (log, _) = Log::open(Arc::new(RealFileSystem), settings).unwrap();
    let mut reader = log.reader(1);
    let mut batches: Vec<(String, BTreeSet<u32>)> = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        if let Some(Entry::Batch(batch)) = Entry::decode(&entry.payload) {
            let policy = Digest::from_bytes(batch.head.policy).to_string();
            match batches.last_mut().filter(|(last, _)| *last == policy) {
                Some((_, rows)) => {
                    rows.insert(batch.rows());
                }
                None => batches.push((policy, [batch.rows()].into())),
            }
        }
    }
    batches
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_each_batch_is_decided_under_one_version_and_nothing_acked_is_lost() {
    let deployment = Deployment::new();
    let process = deployment.spawn();
    let load = Load::start(process.endpoint()).await;
    load.goes_on().await;
    let mut digests = vec![deployment.digest()];
    let mut reload = async || {
        let outcome = process.reload();
        assert!(outcome.contains("other policies are in force"), "{outcome}");
        digests.push(deployment.digest());
        load.goes_on().await;
    };
    // Another scope: nothing covers residents of FR any more.
    deployment.edit(REGIME, r#""DE", "FR""#, r#""DE""#);
    reload().await;
    // Another regime for them, whose records may not be here.
    deployment.edit("policies/bb.toml", r#"["IN"]"#, r#"["IN", "FR"]"#);
    reload().await;
    // The first regime again, for both: the stricter one decides.
    deployment.edit(REGIME, r#"["DE"]"#, r#"["DE", "FR"]"#);
    deployment.set_k(12);
    reload().await;
    // Facts that nothing tells are not tested, and no regime applies by them.
    let tested = deployment.read(POLICY);
    deployment.edit(POLICY, "contributor = \"person\"", "contributor = \"person\"\nuntested = [\"subject.residence\"]");
    deployment.edit(POLICY, "\"subject.residence\" =", "\"subject.citizenship\" =");
    reload().await;
    let untested = deployment.digest();
    deployment.write(POLICY, tested);
    deployment.edit("policies/bb.toml", r#"["IN", "FR"]"#, r#"["IN"]"#);
    reload().await;
    let sent = load.stop().await;
    Producer::connect(process.endpoint(), "load").await.close_before(20).await;
    process.stop();
    let all = (0..ROWS as u32).map(|row| (row, "REASON_NO_REGIME")).collect();
    let expected = [vec![], refused("REASON_NO_REGIME"), refused("REASON_MAY_NOT_BE_HERE"), all, vec![]];
    assert_eq!(sent.outcomes, expected, "each batch was decided as a whole under one of the versions");
    let batches = journaled(&deployment.path("journal"));
    let half = [ROWS as u32 / 2];
    let rows = |rows: &[u32]| rows.iter().copied().collect::<BTreeSet<u32>>();
    let of = |index: usize, count: &[u32]| (digests[index].clone(), rows(count));
    assert_eq!(digests[4], untested);
    let expected = [of(0, &[ROWS as u32]), of(1, &half), of(2, &half), of(3, &half), of(5, &[ROWS as u32])];
    assert_eq!(batches, expected);
    let taken: BTreeMap<String, i64> =
        sent.taken.into_iter().map(|(country, records)| (country.to_owned(), records)).collect();
    assert_eq!(released(&deployment, "desk"), taken);
    let policies: BTreeSet<String> =
        deployment.released("desk").iter().map(|line| line["policy"].as_str().unwrap().to_owned()).collect();
    assert_eq!(policies, [digests[5].clone()].into());
}

/// A sequence of numbers that only look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// A file as it might be while it is written, or after an accident.
fn spoiled(text: &str, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let place = numbers.below(bytes.len());
    match numbers.below(8) {
        0..4 => bytes.truncate(place),
        4 => bytes = (0..200).map(|_| numbers.below(256) as u8).collect(),
        5 => bytes.extend(b"\n[unknown]\nkey = 1\n"),
        6 => bytes[place] = 0xff,
        _ => bytes.splice(place..place, *b"\n= [").for_each(drop),
    }
    bytes
}

fn is_refused(deployment: &Deployment) -> bool {
    let loaded = config::load(&deployment.path("gateway.toml"));
    loaded.is_err()
        || loaded.is_ok_and(|loaded| loaded.problems.iter().any(|problem| problem.severity == Severity::Error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_spoiled_files_leave_what_was_in_force_and_disturb_nobody() {
    let deployment = Deployment::new();
    let (good, process) = (deployment.digest(), deployment.spawn());
    let load = Load::start(process.endpoint()).await;
    let files = ["gateway.toml", POLICY, REGIME, "policies/bb.toml", "policies/classes.toml"];
    let whole = files.map(|file| deployment.read(file));
    let mut numbers = Numbers(42);
    let mut reloads = 0;
    while reloads < 1_000 {
        let index = numbers.below(files.len());
        // Not renamed: what is read may be half of it.
        fs::write(deployment.path(files[index]), spoiled(&whole[index], &mut numbers)).unwrap();
        if is_refused(&deployment) {
            let outcome = process.reload();
            assert!(outcome.contains("ERROR") && outcome.contains("were not replaced"), "{outcome}");
            assert!(outcome.contains(".toml"), "{outcome}");
            reloads += 1;
            if reloads % 100 == 0 {
                load.goes_on().await;
            }
        }
        deployment.write(files[index], &whole[index]);
    }
    deployment.edit(REGIME, r#""DE", "FR""#, r#""DE""#);
    let outcome = process.reload();
    assert!(outcome.contains("in force") && outcome.contains(&deployment.digest()), "{outcome}");
    load.goes_on().await;
    let sent = load.stop().await;
    assert_eq!(sent.outcomes, [vec![], refused("REASON_NO_REGIME")]);
    Producer::connect(process.endpoint(), "load").await.close_before(20).await;
    let log = process.stop();
    assert!(log.iter().all(|line| !line.contains("panic")), "{log:?}");
    let batches = journaled(&deployment.path("journal"));
    let policies: Vec<&str> = batches.iter().map(|(policy, _)| policy.as_str()).collect();
    assert_eq!(policies, [good, deployment.digest()]);
    assert_eq!(released(&deployment, "desk")["DE"], sent.taken["DE"]);
    assert_eq!(released(&deployment, "desk")["FR"], sent.taken["FR"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_a_link_leads_to_is_read_as_a_whole_while_the_link_is_turned() {
    let deployment = Deployment::new();
    // Both versions have many files, and each file differs.
    let mut digests = BTreeSet::new();
    for (version, k) in [("one", 11), ("two", 12)] {
        for law in 0..40 {
            let text = regime(&format!("law-{law:02}"), "\"IN\"", "IN", "refuse");
            let text = changed(&text, "min_contributors = 10", &format!("min_contributors = {k}"));
            deployment.write(&format!("policies/laws/{law:02}.toml"), text);
        }
        digests.insert(deployment.digest());
        let copied = std::process::Command::new("cp")
            .args(["-r", "policies", version])
            .current_dir(deployment.path(""))
            .status()
            .unwrap();
        assert!(copied.success());
    }
    fs::remove_dir_all(deployment.path("policies")).unwrap();
    symlink("one", deployment.path("policies")).unwrap();
    let gateway = deployment.start().await;
    let is_done = Arc::new(AtomicBool::new(false));
    let turning = thread::spawn({
        let (new, link, is_done) = (deployment.path("turned"), deployment.path("policies"), Arc::clone(&is_done));
        move || {
            for version in ["two", "one"].iter().cycle() {
                symlink(version, &new).unwrap();
                fs::rename(&new, &link).unwrap();
                if is_done.load(Ordering::SeqCst) {
                    return;
                }
            }
        }
    });
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        seen.extend(gateway.reload().await);
    }
    is_done.store(true, Ordering::SeqCst);
    turning.join().unwrap();
    assert_eq!(seen, digests, "each whole, and never a mixture");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_refused_by_name_and_what_was_in_force_stays() {
    let deployment = Deployment::new();
    let gateway = deployment.start().await;
    let (config, policy) = (deployment.read("gateway.toml"), deployment.read(POLICY));
    let more_policy = "\n[destinations.archive]\ncountry = \"IE\"\naccepts = [\"by_country\"]\n";
    let more_config = "\n[destinations.archive]\nkind = \"file\"\ndirectory = \"released/archive\"\n";
    let field = "[streams.visits.fields]\n";
    let metric = r#"{ name = "visits", fn = "count" }"#;
    let grouped = r#"domain = ["DE", "FR", "IN"]"#;
    const CALLS: [(&str, &str); 3] = [
        ("visits.", "calls."),
        ("streams.visits]", "streams.calls]"),
        ("stream           = \"visits\"", "stream = \"calls\""),
    ];
    let changes = [
        (
            changed(&policy, field, &format!("{field}more = {{ type = \"int64\", class = \"personal\" }}\n")),
            None,
            "visits",
        ),
        (changed(&policy, "type = \"float64\"", "type = \"float32\""), None, "visits"),
        (
            changed(&policy, metric, &format!("{metric}, {{ name = \"again\", fn = \"count\" }}")),
            None,
            "dataset `by_country`",
        ),
        (changed(&policy, grouped, r#"domain = ["DE", "FR"]"#), None, "dataset `by_country`"),
        (changed(&policy, "size = \"PT1M\"", "size = \"PT2M\""), None, "dataset `by_country`"),
        (CALLS.iter().fold(policy.clone(), |policy, (from, to)| changed(&policy, from, to)), None, "calls"),
        (format!("{policy}{more_policy}"), Some(format!("{config}{more_config}")), "archive"),
        (policy.clone(), Some(changed(&config, "serves   = [\"aa\"]", "serves   = [\"aa\", \"cc\"]")), "serves"),
        (policy.clone(), Some(changed(&config, "id       = \"g-1\"", "id = \"g-1\"\nmode = \"dry-run\"")), "mode"),
    ];
    deployment.write(
        "policies/cc.toml",
        changed(
            &regime("cc", "\"DE\"", "DE", "redirect"),
            "applies]]\nfact = \"subject.residence\"\nin   = [\"DE\"]",
            "applies]]\nfact = \"gateway.country\"\nin = [\"FR\"]",
        ),
    );
    let good = gateway.reload().await.unwrap();
    for (policy, config, named) in changes {
        let before = deployment.read("gateway.toml");
        deployment.write(POLICY, &policy);
        if let Some(config) = &config {
            deployment.write("gateway.toml", config);
        }
        assert_eq!(deployment.errors(), Vec::<String>::new());
        let refused = gateway.reload().await.unwrap_err();
        assert!(refused.contains("restart") && refused.contains(named), "{named}: {refused}");
        deployment.write("gateway.toml", before);
    }
    let mut producer = gateway.producer("p").await;
    let records: Vec<Value> = (0..12).map(|person| visit(1, &format!("p-{person}"), "DE")).collect();
    producer.send(&records).await;
    producer.close_before(5).await;
    gateway.stop().await;
    let lines = deployment.released("desk");
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["policy"], good.as_str());
    assert!(!deployment.path("released/archive").exists());
}

/// Counts are shown in steps of twice the greatest k, also that of a law that begins later.
#[tokio::test(flavor = "multi_thread")]
async fn steps_of_counts_follow_the_greatest_k_over_days_and_reloads() {
    let deployment = Deployment::new();
    deployment.edit(REGIME, "[[applies]]\n", "[[applies]]\nfrom = 2099-01-01\n");
    deployment.set_k(30);
    let gateway = deployment.start().await;
    let size = || gateway.app.telemetry().of("visits").steps.now().size();
    assert_eq!(size(), 60, "no record may go anywhere yet");
    for (k, steps) in [(40, 120), (7, 120), (61, 240)] {
        deployment.set_k(k);
        gateway.reload().await.unwrap();
        assert_eq!(size(), steps, "{k}");
    }
    gateway.stop().await;
}
