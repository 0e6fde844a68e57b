//! Builds a gateway from its configuration, starts it, stops it: the one place that knows everything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::adapters::grpc::{self, Listener, ListenerLimits, Server};
use crate::adapters::onnx::Runtime;
use crate::adapters::{file, kafka};
use crate::config::{Config, Destination};
use crate::domain::aggregate::ContributorKey;
use crate::domain::dataset::Dataset;
use crate::domain::gateway::Gateway;
use crate::domain::policy::{Released, VerdictTable};
use crate::domain::stream::Stream;
use crate::intake::{Clock, Intake, Served};
use crate::pipeline::{Pipeline, ReleaseRules, WorkerSetup};
use crate::telemetry::Telemetry;

/// A running gateway.
pub struct App {
    address: SocketAddr,
    intake: Arc<Intake>,
    pipeline: Arc<Pipeline>,
    server: Server,
    stop_serving: oneshot::Sender<()>,
    ticker: JoinHandle<()>,
    outlets: Vec<thread::JoinHandle<()>>,
    outlets_cut: Sender<()>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    stop_within: Duration,
}

/// How often windows are looked at without a record coming in.
const TICK: Duration = Duration::from_millis(200);
/// How many releases wait for one destination before the collector waits.
const RELEASES_WAITING_MAX: usize = 1_024;

/// Binds the configured address.
///
/// # Errors
/// When the system refuses.
pub async fn bind(config: &Config) -> anyhow::Result<Listener> {
    let limits = ListenerLimits { connections_max: config.connections_max };
    Listener::bind(config.listen, limits).await.with_context(|| format!("cannot listen on {}", config.listen))
}

/// Checks that every model loads and is what the policy declares.
///
/// # Errors
/// The first model that is not, or the missing library.
pub fn check_models(config: &Config) -> anyhow::Result<()> {
    scorers(config).map(|_| ())
}

fn scorers(config: &Config) -> anyhow::Result<BTreeMap<String, crate::adapters::onnx::Scorer>> {
    let mut scorers = BTreeMap::new();
    for plan in config.policy.streams.values() {
        if let Some(model) = &plan.model {
            let runtime = Runtime::load(config.onnxruntime.as_deref())?;
            let path = config.models.get(&model.name).with_context(|| format!("model `{}` has no file", model.name))?;
            scorers.insert(plan.stream.name.clone(), runtime.scorer(model, path)?);
        }
    }
    Ok(scorers)
}

impl App {
    /// Starts a gateway on a bound listener.
    ///
    /// # Errors
    /// When a model cannot be used, a destination cannot be made, or the system gives no thread.
    pub async fn start(config: Config, listener: Listener) -> anyhow::Result<Self> {
        let address = listener.address()?;
        let telemetry = Arc::new(Telemetry::default());
        let clock = Clock::start();
        let setups = worker_setups(&config)?;
        let mut outlets = Outlets::start(&config, clock, &telemetry)?;
        let (threads, cut) = (std::mem::take(&mut outlets.threads), outlets.cut.clone());
        let plans = config.policy.streams.values();
        let gateway = Gateway::new(plans.clone().map(|plan| (plan.stream.as_ref(), plan.datasets.as_slice())));
        let rules = release_rules(&config, &clock);
        let outlet = Box::new(move |released| outlets.take(released));
        let pipeline = Arc::new(Pipeline::start(gateway, setups, rules, outlet, &telemetry)?);
        let served = plans.map(|plan| (plan.stream.name.clone(), served(&config, &plan.stream)));
        let (policy, limits) = (config.policy.digest, config.limits);
        let intake = Arc::new(Intake::new(
            served.collect(),
            policy,
            Arc::clone(&pipeline),
            limits,
            clock,
            Arc::clone(&telemetry),
        ));
        let (stop_serving, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or(()) };
        let server = grpc::serve(listener, Arc::clone(&intake), stopped).await?;
        let ticker = tokio::spawn(tick(Arc::clone(&pipeline), clock));
        tracing::info!(gateway = config.id, %address, %policy, "serving");
        Ok(Self {
            address,
            intake,
            pipeline,
            server,
            stop_serving,
            ticker,
            outlets: threads,
            outlets_cut: cut,
            telemetry,
            clock,
            stop_within: config.stop_within,
        })
    }

    /// The address it serves on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its counts.
    #[must_use]
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Stops: refuses new requests, answers those that were taken in, closes all windows, and hands what may
    /// leave to the destinations. Ends within the configured time, even with stuck producers or a
    /// destination that is down.
    pub async fn stop(self) {
        let deadline = self.clock.now() + self.stop_within;
        self.intake.stop();
        self.server.not_serving().await;
        let _ = self.stop_serving.send(());
        self.server.drain(self.stop_within / 2).await;
        self.ticker.abort();
        let (pipeline, clock) = (Arc::clone(&self.pipeline), self.clock);
        // Joins threads, so not on a thread of the async runtime.
        let finish = tokio::task::spawn_blocking(move || pipeline.finish(clock.now()));
        let left = deadline.saturating_sub(self.clock.now());
        if tokio::time::timeout(left, finish).await.is_err() {
            tracing::error!("windows were still open at the deadline; what was in them is lost");
            return;
        }
        drop((self.intake, self.pipeline));
        let left = deadline.saturating_sub(self.clock.now());
        let (threads, cut) = (self.outlets, self.outlets_cut);
        let wait = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        if tokio::time::timeout(left, wait).await.is_err() {
            tracing::error!("a destination did not take all releases before the deadline; they are lost");
            drop(cut);
        }
    }
}

async fn tick(pipeline: Arc<Pipeline>, clock: Clock) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        pipeline.tick(clock.now());
    }
}

fn worker_setups(config: &Config) -> anyhow::Result<Vec<WorkerSetup>> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).context("the system gives no random numbers")?;
    let plans = config.policy.streams.values();
    let datasets: BTreeMap<String, Vec<Arc<Dataset>>> =
        plans.map(|plan| (plan.stream.name.clone(), plan.datasets.clone())).collect();
    let setups = (0..config.workers).map(|_| {
        Ok(WorkerSetup {
            scorers: scorers(config)?,
            datasets: datasets.clone(),
            key: ContributorKey(key),
            rows_max: config.scored_together_max,
        })
    });
    setups.collect()
}

fn release_rules(config: &Config, clock: &Clock) -> ReleaseRules {
    let datasets = config.policy.streams.values().flat_map(|plan| &plan.datasets).map(|dataset| {
        let destinations = config.policy.destinations_of(&dataset.name, &config.serves);
        (dataset.name.clone(), (config.policy.governed(dataset, &config.serves), destinations))
    });
    ReleaseRules {
        gateway: config.id.clone(),
        policy: config.policy.digest,
        datasets: datasets.collect(),
        run: u64::try_from(clock.wall()).unwrap_or(0).max(1),
    }
}

fn served(config: &Config, stream: &Arc<Stream>) -> Served {
    let plan = config.policy.streams.get(&stream.name);
    let outputs = plan.and_then(|plan| plan.model.as_ref()).map(|model| &model.outputs);
    Served {
        stream: Arc::clone(stream),
        verdicts: VerdictTable::compile(&config.policy, stream, &config.serves, &config.peers),
        outputs: outputs.into_iter().flatten().map(|output| output.field.clone()).collect(),
    }
}

/// One thread per destination, each with its own queue: one that is away holds the others up only when
/// [`RELEASES_WAITING_MAX`] releases wait for it. Nothing is dropped.
struct Outlets {
    queues: BTreeMap<String, Sender<Released>>,
    threads: Vec<thread::JoinHandle<()>>,
    cut: Sender<()>,
}

impl Outlets {
    fn start(config: &Config, clock: Clock, telemetry: &Arc<Telemetry>) -> anyhow::Result<Self> {
        // Nothing is ever sent: the threads see that the sender is gone.
        let (cut, is_cut) = bounded(0);
        let (mut queues, mut threads) = (BTreeMap::new(), Vec::new());
        for (name, destination) in &config.destinations {
            let (queue, releases) = bounded(RELEASES_WAITING_MAX);
            queues.insert(name.clone(), queue);
            let (telemetry, is_cut) = (Arc::clone(telemetry), is_cut.clone());
            let builder = thread::Builder::new().name(format!("to-{name}"));
            threads.push(match destination.clone() {
                Destination::File(settings) => {
                    let sink = file::Sink::new(settings);
                    builder.spawn(move || to_file(sink, &releases, &is_cut, clock, &telemetry))?
                }
                Destination::Kafka(settings) => {
                    let sink = kafka::Sink::new(settings).with_context(|| format!("destination `{name}`"))?;
                    let runtime = tokio::runtime::Handle::current();
                    builder.spawn(move || to_kafka(sink, &releases, &runtime, &telemetry))?
                }
            });
        }
        Ok(Self { queues, threads, cut })
    }

    fn take(&mut self, released: Released) {
        if let Some(queue) = self.queues.get(released.destination()) {
            // The thread outlives the queue.
            let _ = queue.send(released);
        }
    }
}

fn to_file(
    mut sink: file::Sink,
    releases: &Receiver<Released>,
    is_cut: &Receiver<()>,
    clock: Clock,
    telemetry: &Telemetry,
) {
    let mut more = true;
    loop {
        match releases.recv_timeout(TICK) {
            Ok(released) => sink.take(released, clock.now()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => more = false,
        }
        match sink.write_due(clock.now(), !more) {
            Ok(bytes) => {
                Telemetry::add(&telemetry.bytes_out, bytes);
                if !more {
                    return;
                }
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!(error = format!("{error:#}"), "a release could not be written and waits");
                // Either the tick passes, or the gateway gives up on this destination.
                if is_cut.recv_timeout(TICK) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        }
    }
}

fn to_kafka(
    mut sink: kafka::Sink,
    releases: &Receiver<Released>,
    runtime: &tokio::runtime::Handle,
    telemetry: &Telemetry,
) {
    while let Ok(released) = releases.recv() {
        match runtime.block_on(sink.send(&released)) {
            Ok(bytes) => Telemetry::add(&telemetry.bytes_out, bytes),
            Err(error) => tracing::error!(%error, release = released.id(), "a release could not be encoded"),
        }
    }
}
