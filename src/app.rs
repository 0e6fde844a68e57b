//! Builds a gateway from its configuration, starts it, stops it: the one place that knows everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::civil::Date;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{self, Config, Destination, Http, Mode, OnStop, today};
use crate::domain::aggregate::OpenBytes;
use crate::domain::document::Problems;
use crate::domain::name::{DatasetName, DestinationName, StreamName};
use crate::domain::policy::{StreamPlan, Version};
use crate::domain::stream::Stream;
use crate::durable::policies::Archive;
use crate::egress::budget::{self, Budget};
use crate::egress::delivery::{self, Backlog, Bytes, Deliveries, Sink};
use crate::egress::{file, kafka};
use crate::engine::intake::Intake;
use crate::engine::pipeline::Pipeline;
use crate::engine::request::Served;
use crate::engine::supervision::Supervisor;
use crate::engine::versions::Versions;
use crate::identity::Expiry;
use crate::ingress::grpc::{self, Listener, ListenerLimits, Server};
use crate::ledger::Ledger;
use crate::ledger::entry::{self, Reread, What};
use crate::monitor;
use crate::scoring::Watch;
use crate::storage::{FileSystem, Log, RealFileSystem, Timed};
use crate::telemetry::{Chances, Names, Summaries, Telemetry};

mod brokers;
mod counting;
pub(crate) mod http;
mod knowledge;
mod ledger;
mod logs;
pub mod losses;
mod models;
mod noising;
mod observed;
mod outcomes;
mod quarantined;
mod reload;
mod state;
mod ticker;
mod tls;
mod witnesses;
mod work;

pub use reload::{Changed, Refused, Reloaded};
pub use state::Unopened;

use logs::Logs;
use observed::Observer;
use outcomes::Outcomes;
use quarantined::Quarantined;
use reload::{Reaches, Reloader};
use ticker::{Ticker, summarize};
use tls::Rotation;
use work::Work;

/// A running gateway.
pub struct App {
    address: SocketAddr,
    intake: Arc<Intake>,
    reloader: Reloader,
    brokers: Arc<brokers::Certificates>,
    /// `None`: the listener speaks plain text.
    rotation: Option<Mutex<Rotation>>,
    outcomes: Arc<Outcomes>,
    /// Health and metrics. `None`: they are not told.
    monitor: Option<monitor::Server>,
    pipeline: Arc<Pipeline>,
    server: Server,
    stop_serving: oneshot::Sender<()>,
    ticker: JoinHandle<()>,
    summarizer: JoinHandle<()>,
    /// `None`: there is no witness.
    witnesses: Option<JoinHandle<()>>,
    deliveries: Deliveries,
    logs: Logs,
    ledger: Arc<Ledger>,
    quarantined: Arc<Quarantined>,
    work: Arc<Work>,
    /// Nothing is ever sent: the thread that keeps the ledger ends when it is dropped.
    keeping: crossbeam_channel::Sender<()>,
    telemetry: Arc<Telemetry>,
    supervisor: Supervisor,
    clock: Clock,
    stop_within: Duration,
    on_stop: OnStop,
}

/// Binds the configured address.
///
/// # Errors
/// When the system refuses.
pub async fn bind(config: &Config) -> anyhow::Result<Listener> {
    let others_max = config.http.map_or(0, |_| monitor::CONNECTIONS_MAX);
    let (connections_max, must_prove) = (config.connections_max, config.tls.is_some());
    let limits = ListenerLimits { connections_max, must_prove, others_max };
    Listener::bind(config.listen, limits).await.with_context(|| format!("cannot listen on {}", config.listen))
}

/// The policies of a configuration as they hold today, with what is known beside the records.
///
/// # Errors
/// When a registry or a database cannot be used.
pub fn version(config: &Config) -> anyhow::Result<Version> {
    let (_, known) = knowledge::Files::load(config, None)?;
    Ok(known.compile(config).0)
}

/// Loads a configuration and looks at all that it names, as a start does: models, registries, databases.
///
/// # Errors
/// When `gateway.toml` itself cannot be read.
pub fn load(path: &Path) -> Result<config::Loaded, config::Unreadable> {
    config::load_and(path, |config, problems| {
        check_policies(config, problems);
        tls::check(config, problems);
        brokers::check(config, problems);
        ledger::check(config, problems);
    })
}

/// The same for a gateway that runs and takes in other policies. The files of `[tls]` are a matter of their own: a bad one
/// keeps no policy out.
fn load_policies(path: &Path) -> Result<config::Loaded, config::Unreadable> {
    config::load_and(path, check_policies)
}

fn check_policies(config: &Config, problems: &Problems) {
    models::check(config, problems);
    knowledge::check(config, problems);
    tls::check_rules(config, problems);
}

/// Checks that what is declared can go on with what the journal and the outbox hold. Changes nothing.
///
/// # Errors
/// What has changed, and what to do.
pub fn check_journal(config: &Config) -> anyhow::Result<()> {
    state::check(config)
}

/// What there is to say of the counts of laws on disk, should a gateway start with this configuration. Changes nothing.
///
/// # Errors
/// When they cannot be read.
pub fn check_counters(config: &Config) -> anyhow::Result<Vec<String>> {
    counting::examine(config)
}

impl App {
    /// Starts a gateway on a bound listener: goes on where the journal says that it was.
    ///
    /// # Errors
    /// When a model cannot be used, a destination cannot be made, the gateway cannot continue with what the journal
    /// holds, or the system gives no thread.
    pub async fn start(config: Config, listener: Listener) -> anyhow::Result<Self> {
        let address = listener.address()?;
        let rotation = config.tls.as_ref().map(Rotation::begin).transpose()?;
        let entrance = rotation.as_ref().map(|rotation| tls::entrance(rotation, config.tls_connections));
        let (clock, outcomes, supervisor) = (Clock::start(), Arc::new(Outcomes::default()), Supervisor::default());
        let monitor = config.http.map(|http| monitor(http, rotation.as_ref(), clock, &supervisor)).transpose()?;
        let telemetry = Arc::new(Telemetry::new(names(&config)?));
        let watch = Watch::start(config.scoring_deadline).context("no thread for the deadline of models")?;
        let scorers = (0..config.workers).map(|_| models::scorers(&config, &watch));
        let scorers = scorers.collect::<anyhow::Result<Vec<_>>>()?;
        let (files, knowledge) = knowledge::Files::load(&config, None)?;
        let state = state::State::open(&config, clock.now())?;
        let (journal, outbox) = (Arc::clone(&state.journal), Arc::clone(&state.outbox));
        let advised = |error| state::advised(error, &config.journal.directory);
        let counting = counting::open(&config, clock).map_err(advised)?;
        let closed_before = state.gateway.datasets().filter_map(|name| state.gateway.closed_before(name)).max();
        let noising = Arc::new(noising::open(&config, clock, state.is_new, closed_before).map_err(advised)?);
        let logs = Logs {
            journal: Arc::clone(&journal),
            outbox: Arc::clone(&outbox),
            counting: Arc::clone(&counting),
            noising: Arc::clone(&noising),
        };
        for (name, log) in logs.each() {
            let syncs = telemetry.syncs(name);
            log.time_syncs(Timed {
                now: Box::new(move || clock.now()),
                took: Box::new(move |took| syncs.add(took, 1)),
            });
        }
        let confirmed = state.cursors.confirmed();
        let now = Arc::new(move || clock.now());
        let ledger = ledger::begin(&config, clock, &state);
        let versions = Arc::new(versions(&config, knowledge, &state.archive).map_err(advised)?);
        let context = delivery::Context {
            outbox: Arc::clone(&outbox),
            permits: Arc::<Versions>::clone(&versions),
            ledger: Arc::clone(&ledger),
            now,
            wall: Arc::new(move || clock.wall()),
            telemetry: Arc::clone(&telemetry),
            supervisor: supervisor.clone(),
            aside: delivery::Place { fs: Arc::new(RealFileSystem), directory: config.journal.directory.join("aside") },
            sheds_denied: Arc::new(config.sheds_denied.clone()),
        };
        // A dry run sends nothing, what an earlier run left in the outbox included.
        let sinks = match config.mode {
            Mode::DryRun => config.destinations.keys().map(|name| (name.clone(), Sink::Nothing)).collect(),
            Mode::Enforce => sinks(&config, &outbox, clock).map_err(advised)?,
        };
        let deliveries = Deliveries::start(sinks, state.cursors, &context)?;
        let keeping = ledger::keep(&ledger, clock, &supervisor)?;
        let open = Arc::new(OpenBytes::new(config.limits.open_windows_bytes_max));
        let setup = state.before.setup(scorers, &config, Arc::clone(&open));
        let collecting =
            state.collecting.collecting(&config, &versions, &noising, Arc::clone(&outbox), confirmed, &open);
        let plans = config.policy.streams.values();
        let served = plans.map(|plan| (plan.stream.name.clone(), served(&config, &plan.stream, &telemetry)));
        let (policy, limits) = (config.policy.digest, config.limits);
        let (served, versions_of_intake) = (served.collect(), Arc::clone(&versions));
        let intake =
            Intake::new(served, versions_of_intake, Arc::clone(&counting), limits, clock, Arc::clone(&telemetry));
        let intake = Arc::new(intake);
        let pipeline = Pipeline::start(state.gateway, setup, collecting, Arc::clone(&journal), &intake, &supervisor)?;
        let pipeline = Arc::new(pipeline);
        let (stop_serving, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or(()) };
        let lanes = pipeline.lanes();
        let server = grpc::serve(listener, Arc::clone(&intake), entrance, lanes, &supervisor, stopped).await?;
        let quarantined = Arc::new(Quarantined::new(Arc::clone(&ledger), Arc::clone(&telemetry)));
        let work = Arc::new(Work::new(Arc::clone(&ledger), Arc::clone(&telemetry), clock.wall()));
        let summarizer = supervisor.spawn_task("summaries", summarize(Arc::clone(&telemetry), config.log_every));
        let ticker = Ticker {
            pipeline: Arc::clone(&pipeline),
            intake: Arc::clone(&intake),
            versions: Arc::clone(&versions),
            quarantined: Arc::clone(&quarantined),
            work: Arc::clone(&work),
            logs: logs.clone(),
            ledger: Arc::clone(&ledger),
            supervisor: supervisor.clone(),
            health: server.health(),
            clock,
        };
        let ticker = supervisor.spawn_task("ticker", ticker.run());
        let reaches = Reaches {
            archive: state.archive,
            counting: Arc::clone(&counting),
            pipeline: Arc::clone(&pipeline),
            versions: Arc::clone(&versions),
            ledger: Arc::clone(&ledger),
            telemetry: Arc::clone(&telemetry),
        };
        let reloader = Reloader::new(&config, reaches, files);
        let brokers = Arc::new(brokers::Certificates::new(&config));
        let witnesses = Arc::new(ledger::witnesses(&config));
        if let Some(monitor) = &monitor {
            monitor.observe(Arc::new(Observer {
                gateway: config.id.clone(),
                intake: Arc::clone(&intake),
                pipeline: Arc::clone(&pipeline),
                versions,
                logs: logs.clone(),
                ledger: Arc::clone(&ledger),
                counting: Arc::clone(&counting),
                noising: Arc::clone(&noising),
                witnesses: Arc::clone(&witnesses),
                open,
                board: deliveries.board(),
                telemetry: Arc::clone(&telemetry),
                supervisor: supervisor.clone(),
                outcomes: Arc::clone(&outcomes),
                brokers: Arc::clone(&brokers),
                acceptor: rotation.as_ref().map(|rotation| Arc::clone(rotation.acceptor())),
                clock,
                models: config.models.len(),
                paces: Default::default(),
            }));
        }
        let asks = || supervisor.spawn_task("witnesses", Arc::clone(&witnesses).ask(clock));
        let witnesses = (witnesses.count() > 0).then(asks);
        tracing::info!(gateway = %config.id, %address, %policy, "serving");
        Ok(Self {
            address,
            intake,
            reloader,
            brokers,
            rotation: rotation.map(Mutex::new),
            outcomes,
            monitor,
            pipeline,
            server,
            stop_serving,
            ticker,
            summarizer,
            witnesses,
            deliveries,
            logs,
            ledger,
            quarantined,
            work,
            keeping,
            telemetry,
            supervisor,
            clock,
            stop_within: config.stop_within,
            on_stop: config.on_stop,
        })
    }

    /// The address it serves on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that it tells health and metrics on, if it does. With port 0, only this says which port it is.
    #[must_use]
    pub fn monitor_address(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(monitor::Server::address)
    }

    /// Reads the policies again, and puts them in force if they can be used. The files of `[tls]` too; the log says what came
    /// of them, and neither keeps the other out.
    ///
    /// # Errors
    /// Why the policies cannot be used; then those that were in force stay.
    pub async fn reload(&self, path: &Path) -> Result<Reloaded, Refused> {
        self.rotate(true);
        let reloaded = self.reloader.reload(path).await;
        let outcome = match &reloaded {
            Ok(Reloaded { changed, .. }) => {
                let is_new = *changed != Changed::Nothing;
                self.outcomes.reloaded(is_new);
                if is_new { entry::Outcome::Changed } else { entry::Outcome::Unchanged }
            }
            Err(refused) => {
                self.outcomes.refused(format!("{refused:#}"), refused.advice());
                entry::Outcome::Refused
            }
        };
        self.ledger.note(What::Reload { of: Reread::Policies, outcome });
        reloaded
    }

    /// Reads the files of `[tls]` again if one was replaced: for connections that come from now on.
    fn rotate(&self, is_asked: bool) {
        if let Some(rotation) = &self.rotation {
            let mut rotation = rotation.lock().unwrap_or_else(PoisonError::into_inner);
            tokio::task::block_in_place(|| rotation.refresh(is_asked, &self.outcomes));
        }
    }

    /// Reads registries, databases and the files of `[tls]` again where a file was replaced, and looks whether certificates
    /// end soon. The policies stay.
    pub async fn refresh(&self) {
        self.rotate(false);
        tokio::task::block_in_place(|| self.brokers.look());
        self.reloader.refresh().await;
    }

    /// What of `[tls]` ends, and when: the gateway's certificate first. Empty: the listener speaks plain text.
    #[must_use]
    pub fn certificates(&self) -> Vec<Expiry> {
        let rotation = self.rotation.as_ref();
        let ends = rotation.map(|rotation| rotation.lock().unwrap_or_else(PoisonError::into_inner).ends());
        ends.unwrap_or_default()
    }

    /// Waits until a part of the gateway cannot go on. What it was: the gateway refuses everything and is to be stopped.
    pub async fn failed(&self) -> &str {
        self.supervisor.failed().await
    }

    /// Its counts.
    #[must_use]
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Stops: refuses new requests, answers those that were taken in, makes a checkpoint, and gives the
    /// destinations what the outbox holds. Ends within the configured time, even with stuck producers, a disk
    /// that fails or a destination that is down: what is not done then is done after the next start.
    pub async fn stop(self) -> Stopped {
        let Self { intake, pipeline, server, mut deliveries, clock, .. } = self;
        let deadline = clock.now() + self.stop_within;
        intake.stop();
        server.health().set(false).await;
        let _ = self.stop_serving.send(());
        server.drain(self.stop_within / 2).await;
        self.ticker.abort();
        self.summarizer.abort();
        if let Some(witnesses) = self.witnesses {
            witnesses.abort();
        }
        let flush = self.on_stop == OnStop::Release;
        // They join threads, so not on a thread of the async runtime.
        let finish = tokio::task::spawn_blocking(move || pipeline.finish(flush));
        let left = || deadline.saturating_sub(clock.now());
        let board = deliveries.board();
        let is_finished = tokio::time::timeout(left(), finish).await.is_ok();
        Summaries::end(&self.telemetry);
        let unwritten = self.logs.unwritten();
        if !is_finished {
            if unwritten.is_empty() {
                tracing::warn!(
                    "not all was counted at the deadline; the journal holds it. The next start counts it; raise \
                     `stop_within` to give a stop more time"
                );
            }
            return Stopped { left: board.left(clock.now()), unwritten };
        }
        self.telemetry.say_shadow();
        let records = intake.in_quarantine();
        if records > 0 {
            Telemetry::add(&self.telemetry.gateway.quarantine_expired, records);
            tracing::warn!(
                "records were in quarantine and are discarded, because quarantine does not outlive a stop: let their \
             producers send them again"
            );
        }
        let cut = deliveries.cut();
        let deliver = tokio::task::spawn_blocking(move || deliveries.finish());
        if tokio::time::timeout(left(), deliver).await.is_err() {
            drop(cut);
        }
        let stopped = Stopped { left: board.left(clock.now()), unwritten };
        let (logs, ledger) = (self.logs, self.ledger);
        self.quarantined.end(clock.now());
        self.work.end(clock.wall());
        drop(self.keeping);
        ledger.note(What::Stop { gateway: self.reloader.gateway().to_string() });
        let close = tokio::task::spawn_blocking(move || {
            ledger.close();
            logs.close();
        });
        // An open log is as safe as one that was closed.
        let _ = tokio::time::timeout(left().max(CLOSE_WITHIN), close).await;
        stopped
    }
}

/// What a stop left for the next start.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The destinations that releases wait for in the outbox.
    pub left: Vec<Backlog>,
    /// Which logs could not be written, and why.
    pub unwritten: Vec<String>,
}

/// How long closing the logs may take, whatever the deadline.
const CLOSE_WITHIN: Duration = Duration::from_millis(200);

/// The port of health and metrics.
fn monitor(
    http: Http,
    rotation: Option<&Rotation>,
    clock: Clock,
    supervisor: &Supervisor,
) -> anyhow::Result<monitor::Server> {
    let acceptor = match (http.is_plaintext, rotation) {
        (true, _) => None,
        (false, Some(rotation)) => Some(Arc::clone(rotation.acceptor())),
        (false, None) => anyhow::bail!("[http] needs [tls] on {}", http.listen),
    };
    let server = monitor::Server::start(http.listen, acceptor, clock, supervisor)
        .with_context(|| format!("cannot listen on {} for health and metrics ([http])", http.listen))?;
    tracing::info!(http = %server.address(), "health and metrics are told");
    Ok(server)
}

/// What counts are kept by, and in which steps those of records are shown.
fn names(config: &Config) -> anyhow::Result<Names> {
    let mut chances = Chances::default();
    getrandom::fill(&mut chances.0).context("the system gives no random numbers")?;
    let streams = config.policy.streams.iter().map(|(name, plan)| {
        let datasets = plan.datasets.iter().map(|dataset| dataset.name.clone()).collect();
        (name.clone(), (datasets, greatest_k(config, plan)))
    });
    Ok(Names {
        streams: streams.collect(),
        destinations: config.destinations.keys().cloned().collect(),
        peers: config.here.peers.iter().map(|peer| peer.id.clone()).collect(),
        workers: config.workers,
        chances,
    })
}

/// The greatest k of the cells of each stream.
fn all_greatest_k(config: &Config) -> Vec<(StreamName, usize)> {
    config.policy.streams.iter().map(|(name, plan)| (name.clone(), greatest_k(config, plan))).collect()
}

/// The greatest k of the cells of a stream's datasets, today and on any later day, wherever they may go then: what holds from
/// midnight on needs no other steps.
fn greatest_k(config: &Config, plan: &StreamPlan) -> usize {
    let asked = |dataset: &DatasetName, day| config.policy.limits(dataset, &config.here.serves, day);
    let each = plan.datasets.iter().flat_map(|dataset| {
        let limits = [today(), Date::MAX].into_iter().filter_map(|day| asked(&dataset.name, day));
        limits.map(|limits| limits.contributors.value).chain([dataset.min_contributors])
    });
    each.max().unwrap_or(0)
}

/// The policies of the configuration in force, with those that were before.
fn versions(config: &Config, known: knowledge::Known, archive: &Archive) -> anyhow::Result<Versions> {
    archive.keep(config.policy.digest, &config.policy_files, &config.here).context("the policies cannot be kept")?;
    let before = archive.all(config.here.country).context("the policies that were in force cannot be read")?;
    let (current, shadow) = known.compile(config);
    Ok(Versions::new(current, shadow, before))
}

impl delivery::Permits for Versions {
    fn changes(&self) -> u64 {
        Self::changes(self)
    }

    fn let_go_to(&self, destination: &DestinationName) -> BTreeSet<DatasetName> {
        Self::let_go_to(self, destination)
    }
}

fn sinks(config: &Config, outbox: &Log, clock: Clock) -> anyhow::Result<BTreeMap<DestinationName, Sink>> {
    let sinks = config.destinations.iter().map(|(name, destination)| {
        let bytes = bytes(config, name, outbox, clock)?;
        let sink = match destination.clone() {
            Destination::File(settings) => Sink::File(file::Sink::new(settings, Arc::new(RealFileSystem)), bytes),
            Destination::Kafka(settings) => {
                let sender = kafka::Sender { gateway: config.id.clone(), destination: name.clone() };
                Sink::Kafka(kafka::Sink::new(settings, &sender), bytes)
            }
        };
        Ok((name.clone(), sink))
    });
    sinks.collect()
}

/// What may leave for a destination: its budget, or what is left of one that it had.
fn bytes(config: &Config, name: &DestinationName, outbox: &Log, clock: Clock) -> Result<Bytes, budget::Error> {
    let (fs, directory): (Arc<dyn FileSystem>, _) =
        (Arc::new(RealFileSystem), config.journal.directory.join("budgets"));
    let Some(settings) = config.budgets.get(name) else {
        return Budget::suspend(&fs, &directory, name, outbox.durable(), clock.moment()).map(Bytes::Any);
    };
    let smaller = settings.smaller.iter().map(|form| form.of(&config.policy)).collect();
    let settings = budget::Settings { smaller, ..settings.clone() };
    Budget::open(&fs, &directory, name, settings, outbox.durable(), clock.moment())
        .map(|budget| Bytes::Budget(Box::new(budget)))
}

fn served(config: &Config, stream: &Arc<Stream>, telemetry: &Telemetry) -> Served {
    let plan = config.policy.streams.get(&stream.name);
    let outputs = plan.and_then(|plan| plan.model.as_ref()).map(|model| &model.outputs);
    Served {
        stream: Arc::clone(stream),
        outputs: outputs.into_iter().flatten().map(|output| output.field.clone()).collect(),
        counts: Arc::clone(telemetry.of(&stream.name)),
    }
}
