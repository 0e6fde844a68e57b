//! `bailiwick demo`: three gateways on loopback, the examples' data, and what came of it. Everybody proves with a certificate
//! who it is; an authority is made for that, and goes with the demonstration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use crate::app::{self, App};
use crate::clock::Clock;
use crate::config::{self, Config, Destination, Loaded};
use crate::domain::name::GatewayId;
use crate::domain::peer::Peer;
use crate::identity::{self, Kind, Scheme, trust};
use crate::ingress::grpc::client::Dialer;
use crate::telemetry::{StreamCounts, Telemetry};

use super::send::{Input, Options, SharedTotals, Totals, epoch_now, publish, snapshot};
use super::{Failure, certs, diagnostics, loaded};

const GATEWAYS: [&str; 3] = ["eu", "us", "in"];

/// The streams, each with its example, and the gateway its producer is pointed at: the records of all
/// jurisdictions go there first.
const STREAMS: [(&str, &str, &str); 3] = [
    ("payments", "card-fraud", "eu"),
    ("readings", "predictive-maintenance", "in"),
    ("deliveries", "delivery-eta", "us"),
];

/// The certificates of a demonstration.
struct Certificates {
    directory: PathBuf,
    scheme: Scheme,
}

impl Certificates {
    /// Makes those of gateways and producers of these names.
    fn make(directory: PathBuf, gateways: &[&str], producers: &[&str]) -> anyhow::Result<Self> {
        certs::make(&directory, gateways, producers)?;
        let scheme = Scheme::new(Kind::Spiffe, certs::TRUST_DOMAIN).context("no trust domain")?;
        Ok(Self { directory, scheme })
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.directory.join(format!("{name}.pem")), self.directory.join(format!("{name}.key")))
    }

    fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// What a gateway shows and believes.
    fn of_gateway(&self, name: &str) -> identity::Files {
        let (certificate, key) = self.pair(name);
        let (client_ca, scheme) = (self.authority(), self.scheme.clone());
        identity::Files { certificate, key, client_ca, revocation: Vec::new(), scheme, tokens: None }
    }

    /// What a producer connects with.
    fn of_producer(&self, name: &str) -> anyhow::Result<Dialer> {
        let files = trust::Files { ca: self.authority(), shown: Some(self.pair(name)) };
        Ok(Dialer::verifying(trust::client(&files)?))
    }
}

/// Runs the demonstration. The summary for stdout.
///
/// # Errors
/// When the examples are not there, or a gateway cannot start.
pub async fn demo(examples: &Path, out: &Path) -> Result<String, Failure> {
    let clock = Clock::start();
    // A demonstration starts from nothing: its journals and certificates are its own.
    let own = std::env::temp_dir().join(format!("bailiwick-demo-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&own).with_context(|| format!("cannot make {}", own.display()))?;
    let names = STREAMS.map(|(_, example, _)| format!("demo-{example}"));
    let certificates = Certificates::make(own.join("tls"), &GATEWAYS, &names.each_ref().map(String::as_str))?;
    let apps = start(examples, out, &own, &certificates).await?;
    let bars = MultiProgress::new();
    let mut producers = Vec::new();
    for (stream, example, home) in STREAMS {
        let app = apps.get(home).context("every producer has a gateway")?;
        let totals = SharedTotals::default();
        let producer = format!("demo-{example}");
        let options = Options {
            dialer: certificates.of_producer(&producer)?,
            endpoint: format!("https://{}", app.address()),
            stream: stream.to_owned(),
            producer,
            follow: true,
            batch: 512,
            complete: true,
            epoch: epoch_now(),
            patience: Duration::from_secs(60),
        };
        let data = examples.join(example).join("data.csv.gz");
        let sending = Arc::clone(&totals);
        let task = tokio::spawn(async move { publish(vec![Input::new(data, None).into()], &options, &sending).await });
        producers.push((stream, home, totals, task));
    }
    let shown = tokio::spawn(show(
        bars,
        producers.iter().map(|(stream, _, totals, _)| (*stream, Arc::clone(totals))).collect(),
    ));
    let mut sent = Vec::new();
    for (stream, home, totals, task) in producers {
        task.await.context("a producer failed")?.context("a producer was stopped")?;
        sent.push((stream, home, snapshot(&totals)));
    }
    let streamed = clock.now();
    shown.abort();
    let mut counts = Vec::new();
    for (name, app) in apps {
        let telemetry = Arc::clone(app.telemetry());
        let stopped = app.stop().await;
        for backlog in &stopped.left {
            tracing::warn!(
                name,
                destination = backlog.destination.as_str(),
                releases = backlog.releases,
                "not delivered"
            );
        }
        counts.push((name, telemetry));
    }
    if let Err(error) = std::fs::remove_dir_all(&own) {
        tracing::warn!(%error, directory = %own.display(), "the demonstration's journals and certificates could not be \
         removed: remove the directory");
    }
    Ok(summary(&sent, &counts, streamed, out))
}

/// Loads the three configurations, binds free ports, and lets each gateway know where the others are.
async fn start(
    examples: &Path,
    out: &Path,
    own: &Path,
    certificates: &Certificates,
) -> Result<BTreeMap<&'static str, App>, Failure> {
    let mut bound = Vec::new();
    let mut reached = BTreeMap::new();
    // The three have most of their policies in common. What is wrong with these is said once.
    let mut said = BTreeSet::new();
    for name in GATEWAYS {
        let path = examples.join("demo").join(format!("{name}.toml"));
        let Loaded { config, mut problems } = loaded(&path, config::load(&path));
        problems.retain(|problem| said.insert((problem.place.to_string(), problem.message.clone())));
        diagnostics::print(&problems);
        let mut config = config.ok_or(Failure::Config)?;
        config.listen.set_port(0);
        config.tls = Some(certificates.of_gateway(name));
        let listener = app::bind(&config).await?;
        let address = listener.address().context("no address")?;
        let identity = format!("spiffe://{}/gateways/{name}", certs::TRUST_DOMAIN);
        reached.insert(config.id.clone(), (format!("https://{address}"), identity));
        bound.push((name, config, listener));
    }
    let mut apps = BTreeMap::new();
    for (name, mut config, listener) in bound {
        relocate(&mut config, &reached, &out.join(name));
        config.journal.directory = own.join(name);
        apps.insert(name, App::start(config, listener).await?);
    }
    Ok(apps)
}

fn relocate(config: &mut Config, reached: &BTreeMap<GatewayId, (String, String)>, out: &Path) {
    for peer in &mut Arc::make_mut(&mut config.here).peers {
        if let Some((endpoint, identity)) = reached.get(&peer.id).cloned() {
            *peer = Arc::new(Peer { endpoint, identity: Some(identity), ..Peer::clone(peer) });
        }
    }
    for destination in config.destinations.values_mut() {
        if let Destination::File(settings) = destination {
            settings.directory = PathBuf::from(out);
        }
    }
}

async fn show(bars: MultiProgress, streams: Vec<(&'static str, SharedTotals)>) {
    let style = ProgressStyle::with_template("{prefix:<12} {pos:>7} records  {per_sec:>14}  {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bars: Vec<_> = streams
        .into_iter()
        .map(|(stream, totals)| {
            (bars.add(ProgressBar::new_spinner().with_style(style.clone()).with_prefix(stream)), totals)
        })
        .collect();
    let mut interval = tokio::time::interval(Duration::from_millis(100));
    loop {
        interval.tick().await;
        for (bar, totals) in &bars {
            let totals = snapshot(totals);
            bar.set_position(totals.read);
            let redirected: u64 = totals.redirected.values().sum();
            let refused: u64 = totals.refused_by_reason().values().sum();
            bar.set_message(format!("accepted {}  redirected {redirected}  refused {refused}", totals.accepted));
        }
    }
}

fn summary(sent: &[(&str, &str, Totals)], counts: &[(&str, Arc<Telemetry>)], streamed: Duration, out: &Path) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    line("producers".to_owned());
    for (stream, home, totals) in sent {
        line(format!(
            "  {stream}: {} records read, sent to `{home}` first; {} accepted in all",
            HumanCount(totals.read),
            HumanCount(totals.accepted)
        ));
        for (gateway, count) in &totals.redirected {
            line(format!("    redirected to {gateway}: {}", HumanCount(*count)));
        }
        for (reason, count) in &totals.refused_by_reason() {
            line(format!("    refused, {reason}: {}", HumanCount(*count)));
        }
    }
    line("\ngateways".to_owned());
    let (mut bytes_in, mut bytes_out, mut scored) = (0, 0, 0);
    for (name, counted) in counts {
        let count = |of: fn(&StreamCounts) -> &AtomicU64| counted.total(of);
        let took = count(|counts| &counts.bytes_in);
        let gave = counted.bytes_out();
        bytes_in += took;
        bytes_out += gave;
        scored += count(|counts| &counts.scored);
        line(format!(
            "  {name}: {} records in, {} accepted, {} scored",
            HumanCount(count(|counts| &counts.records_in)),
            HumanCount(count(|counts| &counts.accepted)),
            HumanCount(count(|counts| &counts.scored))
        ));
        for (reason, refused) in counted.refusals() {
            line(format!("    refused, {reason}: {}", HumanCount(refused)));
        }
        line(format!(
            "    cells released {}, withheld for too few contributors {}; {} in, {} out",
            HumanCount(counted.total_of_datasets(|counts| &counts.cells_released)),
            HumanCount(counted.total_of_datasets(|counts| &counts.cells_withheld)),
            HumanBytes(took),
            HumanBytes(gave)
        ));
    }
    let seconds = streamed.as_secs_f64().max(0.001);
    line(format!(
        "\n{} records scored in {seconds:.1} s: {} per second, with reading and sending the files",
        HumanCount(scored),
        HumanCount((scored as f64 / seconds) as u64)
    ));
    let ratio = bytes_in as f64 / (bytes_out as f64).max(1.0);
    line(format!("{} came in, {} left: {ratio:.0} to 1", HumanBytes(bytes_in), HumanBytes(bytes_out)));
    line(format!("what left: {}", out.display()));
    text
}
