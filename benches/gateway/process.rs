//! A server as a process of its own, and the load that is put on it over loopback.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::PublishRequest;
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::BATCH;
use super::records::example;

/// Requests that are sent ahead of their responses.
const AHEAD: usize = 16;

/// A text with other words in it. What is to be replaced must be there: else what is measured is not what was meant.
pub(super) fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no `{from}` in\n{text}");
    text.replace(from, to)
}

/// A gateway's directory: configuration, journal, releases. Removed when dropped.
pub(super) struct Deployment {
    directory: TempDir,
}

impl Deployment {
    /// The example's EU gateway with one worker, everything it writes under a parent directory.
    pub(super) fn new(parent: &Path) -> Self {
        let this = Self { directory: TempDir::new_in(parent).unwrap() };
        this.configure("");
        this
    }

    /// Writes the configuration, with lines added to `[journal]`.
    pub(super) fn configure(&self, journal: &str) {
        let config = fs::read_to_string(example().join("gateway.toml")).unwrap();
        let absolute = |path: &str| example().join(path).display().to_string();
        let policies = format!("\"{}\", \"{}\"", absolute("../../policies"), absolute("policies"));
        let config = changed(&config, "\"../../policies\", \"policies\"", &policies);
        let config = changed(&config, "\"model.onnx\"", &format!("\"{}\"", absolute("model.onnx")));
        let config = changed(&config, "127.0.0.1:7400", "127.0.0.1:0");
        let config = changed(&config, "[listen]", "on_stop = \"release\"\n\n[listen]");
        let config = changed(&config, "[journal]\n", &format!("[journal]\n{journal}\n"));
        fs::write(self.path("gateway.toml"), format!("{config}\n[scoring]\nworkers = 1\n")).unwrap();
    }

    /// Adds lines to the end of the configuration.
    pub(super) fn configure_further(&self, lines: &str) {
        let config = fs::read_to_string(self.path("gateway.toml")).unwrap();
        fs::write(self.path("gateway.toml"), format!("{config}\n{lines}\n")).unwrap();
    }

    /// Starts it.
    pub(super) fn start(&self) -> Server {
        Server::start(Command::new(env!("CARGO_BIN_EXE_bailiwick")).args(RUN).arg(self.path("gateway.toml")))
    }

    /// Starts it on one core.
    pub(super) fn start_on(&self, core: usize) -> Server {
        Server::start(pinned(core, env!("CARGO_BIN_EXE_bailiwick")).args(RUN).arg(self.path("gateway.toml")))
    }

    /// A path below it.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }
}

/// A program that runs on one core.
pub(super) fn pinned(core: usize, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// The bytes of all files under a directory.
pub(super) fn bytes_under(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => bytes_under(&entry.path()),
        metadata => metadata.len(),
    });
    sizes.sum()
}

/// Takes the files of a directory out of the page cache: the next to read them reads from the disk, and the next to
/// write others finds pages that are free already.
pub(super) fn forget_pages(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        let file = fs::File::open(entry.path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// The kind of file system that a directory is on.
pub(super) fn file_system(directory: &Path) -> String {
    match rustix::fs::statfs(directory).unwrap().f_type {
        0x0102_1994 => "tmpfs".to_owned(),
        0xEF53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683E => "btrfs".to_owned(),
        0x794C_7630 => "overlayfs".to_owned(),
        other => format!("file system {other:#x}"),
    }
}

/// What the binary is started with before its configuration: the log is read as text.
pub(super) const RUN: [&str; 4] = ["--log-format", "text", "run", "-c"];

/// A server's process.
pub(super) struct Server {
    child: Child,
    endpoint: String,
}

impl Server {
    pub(super) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = log.find_map(|line| line.ok().filter(|line| line.contains("address="))).expect("the server ended");
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        std::thread::spawn(move || log.for_each(drop));
        Self { child, endpoint: format!("http://{address}") }
    }

    /// Where it serves.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time used so far.
    pub(super) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // utime and stime, in ticks of 10 ms (USER_HZ is 100 on Linux).
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// The CPU time of its threads of a name.
    pub(super) fn cpu_of_threads(&self, name: &str) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().map(|task| task.unwrap().path());
        let of_name = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name));
        let nanoseconds = of_name.map(|task| {
            let schedule = fs::read_to_string(task.join("schedstat")).unwrap();
            schedule.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// The most memory it held, in MiB.
    pub(super) fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
    }

    /// Stops it as an operator would: open windows are released.
    pub(super) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "the gateway failed");
    }
}

impl Drop for Server {
    /// Kills it, as a crash would.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a load cost the server, and how it was answered.
pub(super) struct Load {
    /// Nanoseconds of CPU time per record.
    pub(super) cpu: f64,
    /// Records per second.
    pub(super) rate: f64,
    /// Of each request, in order.
    pub(super) latencies: Vec<Duration>,
}

impl Load {
    /// A percentile of the latencies, in microseconds.
    pub(super) fn latency(&self, share: f64) -> f64 {
        super::at(&self.latencies, share)
    }
}

/// Sends so many numbered requests in one call, some ahead of their responses.
pub(super) async fn load(server: &Server, payloads: &[Payload], epoch: u64, requests: usize) -> Load {
    let mut client = client::connect(&server.endpoint).await.unwrap();
    let (sender, outgoing) = mpsc::channel(AHEAD);
    let first =
        PublishRequest { stream: "payments".into(), producer: "bench".into(), epoch, ..PublishRequest::default() };
    sender.send(first).await.unwrap();
    let mut responses = client.publish(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    responses.message().await.unwrap().unwrap();
    let (mut sent, mut latencies) = (Vec::with_capacity(requests), Vec::with_capacity(requests));
    let (cpu, start) = (server.cpu(), Instant::now());
    while latencies.len() < requests {
        if sent.len() < requests && sent.len() - latencies.len() < AHEAD {
            let payload = Some(payloads[sent.len() % payloads.len()].clone());
            sent.push(Instant::now());
            let sequence = sent.len() as u64;
            let request = PublishRequest { sequence, payload, want_scores: true, ..PublishRequest::default() };
            sender.send(request).await.unwrap();
            continue;
        }
        let response = responses.message().await.unwrap().unwrap();
        assert!(response.error.is_none() && response.refusals.is_empty(), "a request was refused");
        latencies.push(sent[latencies.len()].elapsed());
    }
    let records = (requests * BATCH) as f64;
    let rate = records / start.elapsed().as_secs_f64();
    Load { cpu: (server.cpu() - cpu).as_nanos() as f64 / records, rate, latencies }
}
