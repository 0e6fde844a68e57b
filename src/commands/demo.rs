//! `bailiwick demo`: three gateways on loopback, the examples' data, and what came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use crate::app::{self, App};
use crate::clock::Clock;
use crate::config::{Config, Destination};
use crate::domain::name::GatewayId;
use crate::domain::peer::Peer;
use crate::ingress::grpc::client::Dialer;
use crate::telemetry::{StreamCounts, Telemetry};

use super::send::{Input, Options, SharedTotals, Totals, epoch_now, publish, snapshot};
use super::{Failure, load};

const GATEWAYS: [&str; 3] = ["eu", "us", "in"];

/// The streams, each with its example, and the gateway its producer is pointed at: the records of all
/// jurisdictions go there first.
const STREAMS: [(&str, &str, &str); 3] = [
    ("payments", "card-fraud", "eu"),
    ("readings", "predictive-maintenance", "in"),
    ("deliveries", "delivery-eta", "us"),
];

/// Runs the demonstration. The summary for stdout.
///
/// # Errors
/// When the examples are not there, or a gateway cannot start.
pub async fn demo(examples: &Path, out: &Path) -> Result<String, Failure> {
    let clock = Clock::start();
    // A demonstration starts from nothing: its journals are its own.
    let journals = std::env::temp_dir().join(format!("bailiwick-demo-{}", std::process::id()));
    let apps = start(examples, out, &journals).await?;
    let bars = MultiProgress::new();
    let mut producers = Vec::new();
    for (stream, example, home) in STREAMS {
        let app = apps.get(home).context("every producer has a gateway")?;
        let totals = SharedTotals::default();
        let options = Options {
            dialer: Dialer::default(),
            endpoint: format!("http://{}", app.address()),
            stream: stream.to_owned(),
            producer: format!("demo-{example}"),
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
            tracing::warn!(name, destination = backlog.destination, releases = backlog.releases, "not delivered");
        }
        counts.push((name, telemetry));
    }
    if let Err(error) = std::fs::remove_dir_all(&journals) {
        tracing::warn!(%error, directory = %journals.display(), "the demonstration's journals could not be removed: \
         remove the directory");
    }
    Ok(summary(&sent, &counts, streamed, out))
}

/// Loads the three configurations, binds free ports, and lets each gateway know where the others are.
async fn start(examples: &Path, out: &Path, journals: &Path) -> Result<BTreeMap<&'static str, App>, Failure> {
    let mut bound = Vec::new();
    let mut endpoints = BTreeMap::new();
    for name in GATEWAYS {
        let mut config = load(&examples.join("demo").join(format!("{name}.toml")))?;
        config.listen.set_port(0);
        let listener = app::bind(&config).await?;
        let address = listener.address().context("no address")?;
        endpoints.insert(config.id.clone(), format!("http://{address}"));
        bound.push((name, config, listener));
    }
    let mut apps = BTreeMap::new();
    for (name, mut config, listener) in bound {
        relocate(&mut config, &endpoints, &out.join(name));
        config.journal.directory = journals.join(name);
        apps.insert(name, App::start(config, listener).await?);
    }
    Ok(apps)
}

fn relocate(config: &mut Config, endpoints: &BTreeMap<GatewayId, String>, out: &Path) {
    for peer in &mut Arc::make_mut(&mut config.here).peers {
        if let Some(endpoint) = endpoints.get(&peer.id) {
            *peer = Arc::new(Peer { endpoint: endpoint.clone(), ..Peer::clone(peer) });
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
