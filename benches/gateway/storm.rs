//! How a producer is answered while others storm the door with handshakes. The gateway has core 0; the producer and the storm
//! have core 1, where the storm gives way to the producer: what is measured is the gateway's time, not the load's.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bailiwick::commands::bench::{self, End, Measured, Payload, Plan, Pool, Schedule};
use bailiwick::commands::send::epoch_now;
use bailiwick::config;
use bailiwick::identity::trust;
use bailiwick::ingress::grpc::client::Dialer;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustls::pki_types::ServerName;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::process::{Server, changed, pinned};
use super::speakers::{Deployment, NO_LIMITS};
use super::{figure, median};

/// Set in the process that storms: the directory of its certificates, a space, the gateway's address.
pub(super) const STORM: &str = "BAILIWICK_BENCH_STORM";
const LOAD: usize = 1;
const AT_ONCE: usize = 16;
const ROUNDS: usize = 3;
const LENGTH: Duration = Duration::from_secs(6);
/// Records that the good producer sends in a second, each in a message of its own.
const RATE: f64 = 500.0;

/// Runs it: with the limits as they are by default, and with none.
pub(super) fn run() {
    // The core is that of a thread: what is started later may have them all.
    std::thread::scope(|scope| scope.spawn(on_its_core).join().unwrap());
}

fn on_its_core() {
    let mut cores = CpuSet::new();
    cores.set(LOAD);
    if sched_setaffinity(None, &cores).is_err() {
        return println!("# storm: left out, there is no second core");
    }
    for (name, limits) in [("default limits", ""), ("no limits", NO_LIMITS)] {
        let deployment = Deployment::new(limits);
        deployment.bailiwick(&["certs", "producer", "tls", "good-0"]);
        // Nobody believes this authority: each of its handshakes is work for nothing.
        deployment.bailiwick(&["certs", "ca", "others"]);
        deployment.bailiwick(&["certs", "producer", "others", "p"]);
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let server = deployment.gateway();
            alone.push(good(&deployment, &server));
            let mut storm = Storm::start(&deployment, &server);
            beside.push(good(&deployment, &server));
            storm.end();
        }
        for (share, percentile) in [(0.5, "p50"), (0.99, "p99")] {
            let [alone, beside] =
                [&alone, &beside].map(|all| median(all.iter().map(|one| one.latencies.at(share).as_secs_f64() * 1e6)));
            figure(&format!("a good producer alone, {name}: answer {percentile}"), alone, "us", None);
            let what = format!("a good producer beside a storm of handshakes, {name}: answer {percentile}");
            figure(&what, beside, "us", Some(beside / alone));
        }
    }
}

/// A steady producer. All that it sends is taken in.
fn good(deployment: &Deployment, server: &Server) -> Measured {
    let config = config::load(&deployment.path("gateway.toml")).unwrap().config.unwrap();
    let stream = Arc::clone(&config.policy.streams["events"].stream);
    let mut rows = "at,user,country,kind,value\n".to_owned();
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    for number in 0..1_000 {
        writeln!(rows, "{now},user-{number},DE,view,1.5").unwrap();
    }
    let file = deployment.path("rows.csv");
    fs::write(&file, rows).unwrap();
    let (columns, _) = bench::read(&stream, &[file]).unwrap();
    let pool = Arc::new(Pool::new(&stream, &columns, 1, Payload::Rows).unwrap());
    let shown = Some((deployment.path("tls/good-0.pem"), deployment.path("tls/good-0.key")));
    let tls = trust::client(&trust::Files { ca: deployment.path("tls/ca.pem"), shown }).unwrap();
    let plan = Plan {
        dialer: Dialer::verifying(tls),
        endpoint: changed(server.endpoint(), "http://127.0.0.1", "https://localhost"),
        stream: "events".to_owned(),
        producer: "good".to_owned(),
        epoch: epoch_now(),
        calls: 1,
        connections: 1,
        producers: 1,
        in_flight: 64,
        schedule: Schedule { rate: Some(RATE), warm_up: Duration::from_secs(1), end: End::After(LENGTH) },
        scores: false,
        pid: Some(server.pid()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let measured = runtime.block_on(bench::run(&plan, &pool, std::future::pending())).unwrap();
    assert_eq!((&measured.failure, measured.refused()), (&None, 0));
    measured
}

/// The process that storms. Ends when dropped.
struct Storm(Child);

impl Storm {
    fn start(deployment: &Deployment, server: &Server) -> Self {
        let target = format!("{} {}", deployment.path("").display(), server.endpoint().trim_start_matches("http://"));
        let mut command = pinned(LOAD, "nice");
        command.args(["-n", "19"]).arg(std::env::current_exe().unwrap()).env(STORM, target);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.end();
    }
}

/// Storms until it is killed.
pub(super) fn rage(target: &str) {
    let (directory, address) = target.rsplit_once(' ').unwrap();
    let directory = Path::new(directory);
    let shown = Some((directory.join("others/p.pem"), directory.join("others/p.key")));
    let client = trust::client(&trust::Files { ca: directory.join("tls/ca.pem"), shown }).unwrap();
    let one = async || -> ! {
        loop {
            let Ok(stream) = TcpStream::connect(address).await else { continue };
            let name = ServerName::try_from("localhost").unwrap();
            let _ = TlsConnector::from(Arc::clone(&client)).connect(name, stream).await;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(futures::future::join_all((0..AT_ONCE).map(|_| one())));
}
