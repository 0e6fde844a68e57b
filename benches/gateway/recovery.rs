//! From the start of a process that finds a journal without a checkpoint: until it serves, until it has answered new
//! records, until it has counted what the journal held.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bailiwick::ingress::proto::ingest::publish_request::Payload;

use super::process::{Deployment, bytes_under, forget_pages, load};
use super::records::Prepared;
use super::{figure, median};

/// About 1 GiB of entries.
const REQUESTS: usize = 14_400;
const ROUNDS: usize = 3;

/// One start.
struct Start {
    serving: f64,
    first_ack: f64,
    counted: f64,
    memory: f64,
}

/// Prepares a journal, crashes, and starts several times from it.
pub(super) fn run(records: &Prepared) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let payloads: Vec<Payload> = records.arrow.iter().map(|bytes| Payload::ArrowIpc(bytes.clone())).collect();
    let prepared = Deployment::new(&std::env::temp_dir());
    prepared.configure("checkpoint_bytes = 1099511627776\ncheckpoint_every = \"PT1H\"");
    let gateway = prepared.start();
    runtime.block_on(load(&gateway, &payloads, 1, REQUESTS));
    drop(gateway);
    let gib = bytes_under(&prepared.path("journal/log")) as f64 / f64::from(1 << 30);
    for (pages, is_cold) in [("cached", false), ("from disk", true)] {
        let (mut starts, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let deployment = Deployment::new(&std::env::temp_dir());
            link(&prepared.path("journal"), &deployment.path("journal"));
            // A checkpoint can be made when the journal is counted, and is due by then.
            deployment.configure("checkpoint_every = \"PT0.001S\"");
            let log = deployment.path("journal/log");
            forget_pages(&log);
            let mut reading = read_all(&log);
            if is_cold {
                forget_pages(&log);
            } else {
                reading = read_all(&log);
            }
            bare.push(reading.as_secs_f64() / gib);
            let begin = Instant::now();
            let gateway = deployment.start();
            let serving = begin.elapsed().as_secs_f64();
            runtime.block_on(load(&gateway, &payloads, 2, 1));
            let first_ack = begin.elapsed().as_secs_f64();
            while fs::read_dir(deployment.path("journal/checkpoints")).unwrap().next().is_none() {
                thread::sleep(Duration::from_millis(5));
            }
            let counted = begin.elapsed().as_secs_f64();
            starts.push(Start { serving, first_ack, counted: counted / gib, memory: gateway.memory() });
        }
        let name = |what: &str| format!("recovery, 1 GiB {pages}: {what}");
        let of = |value: fn(&Start) -> f64| median(starts.iter().map(value));
        figure(&name("serving"), of(|start| start.serving * 1e3), "ms", None);
        figure(&name("first record acked"), of(|start| start.first_ack * 1e3), "ms", None);
        let bare = median(bare);
        let counted = of(|start| start.counted);
        figure(&name("everything counted"), counted * 1e3, "ms/GiB", Some(counted / bare));
        figure(&name("bare read"), bare * 1e3, "ms/GiB", None);
        figure(&name("memory, at most"), of(|start| start.memory), "MiB", None);
    }
}

/// The same directory anew, with hard links to its files.
fn link(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            link(&entry.path(), &to);
        } else {
            fs::hard_link(entry.path(), to).unwrap();
        }
    }
}

/// Reads all files of a directory.
fn read_all(directory: &Path) -> Duration {
    let mut buffer = vec![0; 512 << 10];
    let begin = Instant::now();
    for entry in fs::read_dir(directory).unwrap() {
        let mut file = File::open(entry.unwrap().path()).unwrap();
        while file.read(&mut buffer).unwrap() > 0 {}
    }
    begin.elapsed()
}
