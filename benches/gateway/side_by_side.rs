//! The gateway beside the comparator, under the same load in the same run: that of `bailiwick bench`. What serves has core
//! 0, the load has core 1. The two take turns, each time from nothing; figures are medians.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::{BooleanArray, RecordBatch};
use bailiwick::commands::bench::{self, End, Measured, Payload, Plan, Pool, Process, Schedule};
use bailiwick::commands::send::epoch_now;
use bailiwick::config;
use bailiwick::domain::stream::Stream;
use bailiwick::ingress::grpc::client::{self, Dialer};
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse, publish_request};
use bailiwick::storage::{FileSystem, RealFileSystem};
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use super::comparator::{COMPARATOR, DIRECTORY, Mode};
use super::process::{Deployment, Server, file_system, pinned};
use super::records::{Prepared, example};
use super::{BATCH, at, figure, median};

/// Who runs where.
const SERVER: usize = 0;
const LOAD: usize = 1;
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(1);
const LENGTH: Duration = Duration::from_secs(4);
/// The load of the latencies; a tenth of saturation is not many records per second.
const LATENCY_LENGTH: Duration = Duration::from_secs(8);
const PRODUCERS: usize = 10_000;
/// Of a bare loop.
const SYNCS: usize = 2_000;
/// The countries whose records the example's gateway keeps.
const KEPT: [&str; 5] = ["DE", "FR", "NL", "ES", "IE"];

/// A load without a rate.
struct Line {
    /// What `cargo bench --` calls it.
    name: &'static str,
    what: &'static str,
    records: usize,
    calls: usize,
    connections: usize,
    in_flight: usize,
}

const LINES: [Line; 3] = [
    Line { name: "batches", what: "256 a message", records: 256, calls: 1, connections: 1, in_flight: 16 },
    Line {
        name: "one_record",
        what: "1 a message, 64 calls x 32",
        records: 1,
        calls: 64,
        connections: 4,
        in_flight: 32,
    },
    Line {
        name: "many_calls",
        what: "1 a message, 1,000 calls x 2",
        records: 1,
        calls: 1_000,
        connections: 10,
        in_flight: 2,
    },
];
const LATENCY: &str = "latency";
const MEMORY: &str = "memory";
const KNOWN: &str = "known";
/// How many producers the stream has heard before the load comes.
const KNOWN_PRODUCERS: [usize; 3] = [64, 10_000, 1_000_000];

/// Whether it is one of the lines that run alone.
pub(super) fn is_line(name: &str) -> bool {
    [LATENCY, MEMORY, KNOWN].contains(&name) || LINES.iter().any(|line| line.name == name)
}

/// Runs the lines that are wanted.
pub(super) fn run(is_wanted: impl Fn(&str) -> bool + Sync) {
    // The core is that of a thread: what is started later may have them all.
    std::thread::scope(|scope| scope.spawn(|| on_its_core(&is_wanted)).join().unwrap());
}

fn on_its_core(is_wanted: &dyn Fn(&str) -> bool) {
    let mut cores = CpuSet::new();
    cores.set(LOAD);
    if sched_setaffinity(None, &cores).is_err() {
        return println!("# side by side: left out, there is no second core");
    }
    let directory = std::env::temp_dir();
    println!("# side by side: writing to {} ({}; TMPDIR chooses)", file_system(&directory), directory.display());
    // Figures of a machine that does other things as well are worth little.
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("# side by side: load average of the machine {}", busy.split(' ').next().unwrap_or_default());
    let records = Records::load();
    if LINES.iter().any(|line| is_wanted(line.name)) {
        records.runtime.block_on(same_answers());
    }
    for line in LINES.iter().filter(|line| is_wanted(line.name)) {
        saturated(&records, line);
    }
    if is_wanted(LATENCY) {
        latency(&records, &directory);
    }
    if is_wanted(MEMORY) {
        memory(&records);
    }
    if is_wanted(KNOWN) {
        known(&records);
    }
}

/// The records that the example's gateway keeps.
struct Records {
    stream: Arc<Stream>,
    columns: RecordBatch,
    runtime: tokio::runtime::Runtime,
}

impl Records {
    fn load() -> Self {
        let config = config::load(&example().join("gateway.toml")).unwrap().config.unwrap();
        let stream = Arc::clone(&config.policy.streams["payments"].stream);
        let (columns, _) = bench::read(&stream, &[example().join("data.csv.gz")]).unwrap();
        let countries = columns.column_by_name("country").unwrap().as_string::<i32>();
        let is_kept: BooleanArray =
            countries.iter().map(|country| country.map(|country| KEPT.contains(&country))).collect();
        let columns = arrow_select::filter::filter_record_batch(&columns, &is_kept).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { stream, columns, runtime }
    }

    fn pool(&self, records: usize, payload: Payload) -> Arc<Pool> {
        Arc::new(Pool::new(&self.stream, &self.columns, records, payload).unwrap())
    }

    /// Puts a load on a server. All of it must be taken in.
    fn measure(&self, pool: &Arc<Pool>, plan: &Plan) -> Measured {
        let measured = self.runtime.block_on(bench::run(plan, pool, std::future::pending())).unwrap();
        assert_eq!((&measured.failure, measured.refused()), (&None, 0));
        measured
    }
}

/// Without a rate, for the usual time.
fn plan(line: &Line, server: &Server) -> Plan {
    Plan {
        dialer: Dialer::default(),
        endpoint: server.endpoint().to_owned(),
        stream: "payments".to_owned(),
        producer: "bench".to_owned(),
        epoch: epoch_now(),
        calls: line.calls,
        connections: line.connections,
        producers: line.calls,
        in_flight: line.in_flight,
        schedule: Schedule { rate: None, warm_up: WARM_UP, end: End::After(LENGTH) },
        scores: true,
        pid: Some(server.pid()),
    }
}

/// Something that serves, and what it writes.
struct Running {
    server: Server,
    _deployment: Option<Deployment>,
    _directory: Option<TempDir>,
}

fn gateway() -> Running {
    let deployment = Deployment::new(&std::env::temp_dir());
    Running { server: deployment.start_on(SERVER), _deployment: Some(deployment), _directory: None }
}

fn comparator(mode: Mode) -> Running {
    let directory = TempDir::new().unwrap();
    let mut command = pinned(SERVER, std::env::current_exe().unwrap());
    let server = Server::start(command.env(COMPARATOR, mode.name()).env(DIRECTORY, directory.path()));
    Running { server, _deployment: None, _directory: Some(directory) }
}

/// The comparator does the job: it gives the scores that the gateway gives.
async fn same_answers() {
    let rows = Prepared::load(BATCH).rows.swap_remove(0);
    let mut answers = Vec::new();
    for running in [gateway(), comparator(Mode::Disk)] {
        let mut client = client::connect(running.server.endpoint()).await.unwrap();
        let (stream, producer) = ("payments".to_owned(), "same".to_owned());
        let payload = Some(publish_request::Payload::Rows(rows.clone()));
        let request = PublishRequest { stream, producer, payload, want_scores: true, ..PublishRequest::default() };
        let mut responses = client.publish(tokio_stream::iter([request])).await.unwrap().into_inner();
        let PublishResponse { accepted, outputs, .. } = responses.message().await.unwrap().unwrap();
        answers.push((accepted, outputs));
    }
    let [(accepted, outputs), of_comparator] = &answers[..] else { panic!("two answers") };
    assert!(*accepted == BATCH as u32 && !outputs.is_empty());
    assert_eq!((accepted, outputs), (&of_comparator.0, &of_comparator.1), "the comparator answers otherwise");
}

/// As fast as the answers come.
fn saturated(records: &Records, line: &Line) {
    let rows = records.pool(line.records, Payload::Rows);
    let measure = |pool: &Arc<Pool>, running: &Running| records.measure(pool, &plan(line, &running.server));
    let (mut of_gateway, mut of_comparator) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_gateway.push(measure(&rows, &gateway()));
        of_comparator.push(measure(&rows, &comparator(Mode::Disk)));
    }
    beside(&format!("{}, rows", line.what), &of_gateway, &of_comparator);
    for mode in [Mode::Memory, Mode::Echo] {
        let measured = measure(&rows, &comparator(mode));
        let name = format!("{}, rows: comparator, {}", line.what, mode.name());
        figure(&format!("{name}: CPU"), measured.cpu_per_record().unwrap(), "ns/record", None);
        figure(&format!("{name}: throughput"), measured.records_per_second(), "records/s", None);
    }
    if line.records > 1 {
        let arrow = records.pool(line.records, Payload::Arrow);
        let of_gateway: Vec<Measured> = (0..ROUNDS).map(|_| measure(&arrow, &gateway())).collect();
        beside(&format!("{}, Arrow (the comparator takes rows)", line.what), &of_gateway, &of_comparator);
    }
}

type Value = fn(&Measured) -> f64;

/// Prints what two came to under the same load.
fn beside(name: &str, gateway: &[Measured], comparator: &[Measured]) {
    let values: [(&str, &str, Value); 5] = [
        ("CPU", "ns/record", |measured| measured.cpu_per_record().unwrap()),
        ("throughput", "records/s", Measured::records_per_second),
        ("answer p50", "us", |measured| micros(measured, 0.5)),
        ("answer p99", "us", |measured| micros(measured, 0.99)),
        ("memory, at most", "MiB", |measured| measured.process.unwrap().memory_max as f64 / f64::from(1 << 20)),
    ];
    for (what, unit, value) in values {
        let of_gateway = median(gateway.iter().map(value));
        let of_comparator = median(comparator.iter().map(value));
        figure(&format!("{name}: gateway: {what}"), of_gateway, unit, Some(of_gateway / of_comparator));
        figure(&format!("{name}: comparator: {what}"), of_comparator, unit, None);
    }
}

fn micros(measured: &Measured, share: f64) -> f64 {
    measured.latencies.at(share).as_secs_f64() * 1e6
}

/// How single records are answered below saturation. The rates are parts of what each of the two takes.
fn latency(records: &Records, directory: &Path) {
    let line = &LINES[1];
    let pool = records.pool(line.records, Payload::Rows);
    let syncs = bare_syncs(directory);
    for (share, percentile) in [(0.5, "p50"), (0.99, "p99")] {
        figure(&format!("bare write and fdatasync of one record: {percentile}"), at(&syncs, share), "us", None);
    }
    for who in ["gateway", "comparator"] {
        let start = || if who == "gateway" { gateway() } else { comparator(Mode::Disk) };
        let most = records.measure(&pool, &plan(line, &start().server)).records_per_second();
        for (part, share) in [("a tenth", 0.1), ("half", 0.5)] {
            let running = start();
            let mut plan = plan(line, &running.server);
            plan.schedule.rate = Some(most * share);
            plan.schedule.end = End::After(LATENCY_LENGTH);
            let measured = records.measure(&pool, &plan);
            for (share, percentile) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
                let name = format!("1 a message, at {part} of saturation: {who}: answer {percentile}");
                let took = micros(&measured, share);
                figure(&name, took, "us", Some(took / at(&syncs, share)));
            }
            let name = format!("1 a message, at {part} of saturation: {who}");
            figure(&format!("{name}: throughput"), measured.records_per_second(), "records/s", None);
            figure(&format!("{name}: CPU"), measured.cpu_per_record().unwrap(), "ns/record", None);
        }
    }
}

/// What it takes to write and sync as much as one record takes in a journal, again and again.
fn bare_syncs(directory: &Path) -> Vec<Duration> {
    let directory = TempDir::new_in(directory).unwrap();
    let record = [7; 512];
    let file = RealFileSystem.create(&PathBuf::from(directory.path()).join("bare")).unwrap();
    file.allocate((SYNCS * record.len()) as u64).unwrap();
    let offsets = (0..).step_by(record.len()).take(SYNCS);
    let syncs = offsets.map(|offset| {
        let start = Instant::now();
        file.write_at(&[std::io::IoSlice::new(&record)], offset).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    });
    syncs.collect()
}

/// Memory of a gateway that nobody uses, and of one that many producers use.
fn memory(records: &Records) {
    let running = gateway();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let idle = mib(Process::new(running.server.pid()).usage().unwrap().memory);
    figure("memory, idle", idle, "MiB", None);
    let pool = records.pool(1, Payload::Rows);
    let mut plan = plan(&LINES[1], &running.server);
    plan.producers = PRODUCERS;
    plan.schedule = Schedule { rate: None, warm_up: Duration::ZERO, end: End::Messages(10 * PRODUCERS as u64) };
    let used = records.measure(&pool, &plan).process.unwrap();
    figure(
        "memory, 10,000 producers that sent 10 records each",
        mib(used.memory),
        "MiB",
        Some(mib(used.memory) / idle),
    );
    figure("memory, 10,000 producers: at most", mib(used.memory_max), "MiB", None);
}

/// The same load of 64 producers, after the stream has heard few others or many.
fn known(records: &Records) {
    let pool = records.pool(1, Payload::Rows);
    let after = |heard: usize| {
        let deployment = Deployment::new(&std::env::temp_dir());
        deployment.configure_further("[limits]\nproducers_per_address_max = 1_000_000");
        let server = deployment.start_on(SERVER);
        let mut plan = plan(&LINES[1], &server);
        plan.producers = heard;
        // A call that is quick begins its producers anew before a slow one has named all of its own.
        plan.schedule = Schedule { rate: None, warm_up: Duration::ZERO, end: End::Messages(2 * heard as u64) };
        records.measure(&pool, &plan);
        plan.producers = plan.calls;
        plan.epoch += 1;
        plan.schedule = Schedule { rate: None, warm_up: WARM_UP, end: End::After(LENGTH) };
        records.measure(&pool, &plan).cpu_per_record().unwrap()
    };
    let turns: Vec<_> = (0..ROUNDS).map(|_| KNOWN_PRODUCERS.map(after)).collect();
    for (at, heard) in KNOWN_PRODUCERS.iter().enumerate() {
        let cpu = median(turns.iter().map(|turn| turn[at]));
        let ratio = median(turns.iter().map(|turn| turn[at] / turn[0]));
        figure(&format!("1 a message, {heard} producers known: gateway: CPU"), cpu, "ns/record", Some(ratio));
    }
}
