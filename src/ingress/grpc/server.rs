//! All services on one listener.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::StreamExt;
use futures::future::Either;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower_service::Service;

use crate::domain::connection::Turned;
use crate::engine::budget::{Budget, CallsOfLine, Line};
use crate::engine::intake::Intake;
use crate::engine::pipeline::Lane;
use crate::engine::supervision::{Supervisor, give_way_to_records};

use super::answers::{Answers, Guard};
use super::arrivals::{Arrivals, Charged};
use super::door::{Door, Entered, Entrance, GRACE};
use super::frames::Coming;
use super::guest::Guest;
use super::messages::Messages;
use super::speaker::Speaker;
use super::{Listener, flight, ingest};
use crate::ingress::proto::DESCRIPTORS;
use crate::planted::planted;

/// A running server.
pub struct Server {
    task: JoinHandle<()>,
    health: HealthReporter,
}

/// The most calls of a connection at a time.
const CALLS_MAX: u32 = 100;
/// The longest message to another service than those that take records.
const OTHER_MESSAGE_MAX: usize = 64 << 10;
/// So many calls of a connection may be turned away or denied. Then it is cut, since each of them costs work.
const DENIED_MAX: u32 = 256;
/// How soon a connection without a certificate must have brought a token that is believed.
const PROOF_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked for connections that take no answers, and how often it is to be found of one.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const STUCK_TIMES: u32 = 6;
/// Longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// How much may be sent before it is read, in bytes.
#[derive(Clone, Copy)]
struct Windows {
    /// The longest frame: a message that fits into one is not copied. As soon as a frame says how long it is, room is made
    /// for it, in a buffer that doubles, so that each connection may hold two.
    frame: u32,
    call: u32,
    /// By all calls of a connection.
    connection: u32,
}

impl Windows {
    /// Those of a connection, by how many there are. What is sent and not read waits in memory that no budget counts, so
    /// that the product has to be small: 64 MiB in all of 1,024 connections. Calls whose messages wait for room hold what
    /// they may send; there must be some left for the one that they wait for. What frames hold is beside that: 69 MiB in
    /// all of 1,024 connections. While one comes, its call may send another. A longer one would take longer than the answer to
    /// a PING may: that cannot be sent before the frame is whole.
    fn of(connections: usize) -> Self {
        match connections {
            0..=8 => Self { frame: 96 << 10, call: 512 << 10, connection: 4 << 20 },
            9..=64 => Self { frame: 64 << 10, call: 128 << 10, connection: 512 << 10 },
            _ => Self { frame: 32 << 10, call: 32 << 10, connection: 64 << 10 },
        }
    }
}

/// Serves until `shutdown` is ready, in plain text without an `entrance`, then lets open calls come to their end. When
/// connections are not accepted any more before that, `supervisor` is told.
///
/// # Errors
/// When reflection cannot be built, which only broken descriptors cause.
pub async fn serve(
    listener: Listener,
    intake: Arc<Intake>,
    entrance: Option<Entrance>,
    lanes: &[Lane],
    supervisor: &Supervisor,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<Server> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    health.set_service_status("bailiwick.v1.Ingest", ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let message_max = intake.limits().message_bytes_max();
    let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let lanes = lanes.iter().map(|lane| {
        let (intake, inbox) = (|| Arc::clone(&intake), || Arc::clone(&lane.inbox));
        let ingest = ingest::Service { intake: intake(), inbox: inbox() };
        let flight = flight::Service { intake: intake(), inbox: inbox() };
        let routes = Routes::new(health_service.clone())
            .add_service(v1.clone())
            .add_service(v1alpha.clone())
            .add_service(FlightServiceServer::new(flight).max_decoding_message_size(message_max))
            .prepare();
        let calls = Calls { ingest, routes, message_max, intake: intake() };
        Serving { calls, runtime: lane.runtime.clone(), connections: Arc::default() }
    });
    let lanes: Vec<Serving> = lanes.collect();
    let budget = Arc::clone(intake.budget());
    let handshakes = entrance.is_some().then(HandshakeThread::start).transpose()?;
    let door = Arc::new(Door::new(entrance, Arc::clone(&intake)));
    let task = supervisor.spawn_task("listener", accept(listener, door, handshakes, lanes, budget, shutdown));
    Ok(Server { task, health })
}

/// What serves the calls.
#[derive(Clone)]
struct Calls {
    ingest: ingest::Service,
    /// All other services.
    routes: Routes,
    message_max: usize,
    intake: Arc<Intake>,
}

/// Who speaks on a connection.
#[derive(Clone)]
struct Speaks {
    speaker: Arc<Speaker>,
    /// What finds out who speaks on each call, where the connection does not say it.
    guest: Option<Arc<Guest>>,
    /// How the parts of messages come on.
    coming: Arc<Coming>,
    /// How many of its calls were turned away or denied.
    denied: Arc<AtomicU32>,
}

impl Speaks {
    /// Who speaks on a call.
    fn on_call(&self, headers: &HeaderMap, address: Option<IpAddr>, intake: &Intake) -> Result<Arc<Speaker>, Status> {
        let Some(guest) = &self.guest else { return Ok(Arc::clone(&self.speaker)) };
        guest.speaker(&self.speaker, headers, intake).map_err(|why| {
            intake.telemetry().turned_away.add(why);
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(
                address,
                reason = why.name(),
                "a call was turned away: docs/security.md explains the reason"
            );
            match why {
                Turned::TooMany | Turned::TooManyOfIdentity => {
                    Status::resource_exhausted(format!("there are too many connections: {}", why.name()))
                }
                _ => Status::unauthenticated(format!(
                    "a certificate, or a bearer token that is believed, is needed: {}",
                    why.name()
                )),
            }
        })
    }
}

/// A worker's thread, and what serves the calls on it.
struct Serving {
    calls: Calls,
    runtime: Handle,
    /// One for each connection that it serves, and one more.
    connections: Arc<()>,
}

/// The thread that handshakes are done on. It gives way to the threads of those who are in.
struct HandshakeThread(Option<Runtime>);

impl HandshakeThread {
    fn start() -> io::Result<Self> {
        let mut builder = runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("handshakes").on_thread_start(give_way_to_records);
        builder.enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for HandshakeThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Accepts connections until `shutdown`, has each prove who it is, deals it to the thread that serves the fewest, and waits
/// for the end of those that are there.
async fn accept(
    listener: Listener,
    door: Arc<Door>,
    handshakes: Option<HandshakeThread>,
    lanes: Vec<Serving>,
    budget: Arc<Budget>,
    shutdown: impl Future<Output = ()>,
) {
    let here = Handle::current();
    let entering = handshakes.as_ref().and_then(HandshakeThread::handle).unwrap_or(&here);
    let mut coming = Box::pin(listener.connections(door.clock()));
    let (mut arriving, mut open) = (JoinSet::new(), JoinSet::new());
    let mut watched = Vec::new();
    let (ending, ended) = watch::channel(());
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut shutdown = pin!(shutdown);
    loop {
        door.has(open.len());
        tokio::select! {
            () = &mut shutdown => break,
            Some(accepted) = coming.next() => {
                #[expect(clippy::panic, reason = "shows that the listener does not end in silence")]
                if planted("panic-in-listener") {
                    panic!("planted");
                }
                arriving.spawn_on(Arc::clone(&door).enter(accepted), entering);
            }
            Some(arrived) = arriving.join_next() => {
                let Ok(Some(entered)) = arrived else { continue };
                let Some(lane) = lanes.iter().min_by_key(|lane| Arc::strong_count(&lane.connections)) else { continue };
                let (line, counted) = (budget.line(), Arc::clone(&lane.connections));
                watched.push(Watched { line: Arc::downgrade(&line), sent: 0, times: 0 });
                let (calls, ended, windows) = (lane.calls.clone(), ended.clone(), Windows::of(open.len() + 1));
                let serving = async move {
                    let _counted = counted;
                    serve_connection(entered, calls, line, windows, ended).await;
                };
                open.spawn_on(serving, &lane.runtime);
            }
            Some(_) = open.join_next() => {}
            _ = looks.tick() => {
                let is_waited_for = budget.is_waited_for();
                watched.retain_mut(|line| line.look(is_waited_for));
            }
        }
    }
    // Whoever connects now is refused at once, and does not wait for the end. So is who has not proved who it is.
    drop(coming);
    drop((arriving, handshakes));
    drop(ending);
    while open.join_next().await.is_some() {}
}

/// A connection that is looked at now and then.
struct Watched {
    line: Weak<Line>,
    sent: usize,
    times: u32,
}

impl Watched {
    /// Cuts it if it has taken no answers for long, while others wait for what it holds. Whether it is still there.
    fn look(&mut self, is_waited_for: bool) -> bool {
        let Some(line) = self.line.upgrade() else { return false };
        let (is_stuck, sent) = line.is_stuck(self.sent);
        self.sent = sent;
        self.times = if is_stuck { self.times + 1 } else { 0 };
        if is_waited_for && self.times >= STUCK_TIMES {
            tracing::warn!(
                "a connection has not taken its answers for long, while others wait for memory; it is cut: \
                 let its client read its answers"
            );
            line.cut();
        }
        true
    }
}

/// Whether a connection has no calls. It is looked at twice in the time that it may be idle.
#[derive(Default)]
struct Quiet {
    begun: u64,
    was: bool,
}

impl Quiet {
    /// Whether there was no call for long, by these and those of the last time.
    fn is_idle(&mut self, calls: CallsOfLine) -> bool {
        let is_quiet = calls.open == 0 && calls.begun == self.begun;
        let is_idle = is_quiet && self.was;
        (self.begun, self.was) = (calls.begun, is_quiet);
        is_idle
    }
}

async fn serve_connection(
    mut entered: Entered,
    calls: Calls,
    line: Arc<Line>,
    windows: Windows,
    mut ending: watch::Receiver<()>,
) {
    // It has failed already.
    let Ok(()) = entered.here() else { return };
    let turn_away = entered.turner();
    let (connection, speaker, guest, life) = entered.into_parts();
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_MAX)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1_024)
        .max_header_list_size(8 * 1024)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(10))
        .initial_stream_window_size(windows.call)
        .initial_connection_window_size(windows.connection)
        .max_frame_size(windows.frame);
    let (info, of_line) = (connection.connect_info(), Arc::clone(&line));
    let of_requests = Speaks {
        speaker: Arc::clone(&speaker),
        guest: guest.clone(),
        coming: connection.coming(),
        denied: Arc::default(),
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(info.clone());
        let address = info.remote_addr().map(|address| address.ip());
        calls.clone().serve(request, address, &of_requests, &of_line)
    });
    let mut served = pin!(http.serve_connection(TokioIo::new(connection), service));
    let (ends_in, cut_in) = life.map_or((FOR_EVER, FOR_EVER), |life| (life.ends_in, life.cut_in));
    let (mut ends, mut cut) = (pin!(tokio::time::sleep(ends_in)), pin!(tokio::time::sleep(cut_in)));
    let mut proof = pin!(tokio::time::sleep(PROOF_WITHIN));
    let mut must_prove = guest.is_some();
    let mut told = pin!(async {
        match &guest {
            Some(guest) => guest.told_to_end().await,
            None => std::future::pending().await,
        }
    });
    let idle_max = life.map_or(FOR_EVER, |life| life.idle_max);
    let mut quiet = Quiet::default();
    let mut idle = pin!(tokio::time::sleep(idle_max / 2));
    let mut is_ending = false;
    loop {
        tokio::select! {
            () = &mut proof, if must_prove => {
                must_prove = false;
                if guest.as_ref().is_some_and(|guest| !guest.has_proved()) {
                    return turn_away(Turned::TooSlow);
                }
            }
            () = &mut told => return turn_away(Turned::TooMany),
            result = &mut served => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended with an error");
                }
                return;
            }
            // The sender goes away when the server is stopped.
            _ = ending.changed(), if !is_ending => {
                is_ending = true;
                served.as_mut().graceful_shutdown();
            }
            () = &mut ends, if !is_ending => {
                is_ending = true;
                speaker.end();
                served.as_mut().graceful_shutdown();
            }
            () = &mut idle, if !is_ending => {
                idle.set(tokio::time::sleep(idle_max / 2));
                if quiet.is_idle(line.calls()) {
                    is_ending = true;
                    speaker.end();
                    served.as_mut().graceful_shutdown();
                    let soon = tokio::time::sleep(GRACE);
                    if soon.deadline() < cut.deadline() {
                        cut.set(soon);
                    }
                }
            }
            () = &mut cut => return,
            () = line.is_cut() => return,
        }
    }
}

impl Calls {
    fn serve(
        mut self,
        request: Request<Incoming>,
        address: Option<IpAddr>,
        speaks: &Speaks,
        line: &Arc<Line>,
    ) -> impl Future<Output = Result<Response<Answers>, Infallible>> + use<> {
        let (head, body) = request.into_parts();
        let entered = speaks.on_call(&head.headers, address, &self.intake);
        let entered = entered.and_then(|speaker| {
            let denied = speaker.may_call(&self.intake, head.uri.path());
            denied.map_err(|denied| denied.status()).map(|()| speaker)
        });
        let speaker = match entered {
            Ok(speaker) => speaker,
            Err(status) => {
                if speaks.denied.fetch_add(1, Ordering::Relaxed) >= DENIED_MAX {
                    self.intake.telemetry().turned_away.add(Turned::Flood);
                    line.cut();
                }
                let response = status.into_http().map(|body| Answers::of_service(body, line.call()));
                return Either::Left(std::future::ready(Ok(response)));
            }
        };
        let call = speaker.call(line);
        let response = if call.is_too_many() {
            let status = Status::resource_exhausted("there are too many calls; use fewer, for more requests each");
            Either::Left(status.into_http().map(|body| Answers::of_service(body, call)))
        } else if let Some(method) = ingest::Method::of(head.uri.path()) {
            let messages = Messages::new(body, Arc::clone(&call), Arc::clone(&speaks.coming), self.message_max);
            Either::Left(self.ingest.call(method, &head.headers, address, speaker, messages, call))
        } else {
            let (charged, message_max, guard) = if head.uri.path().starts_with("/arrow.flight.protocol.FlightService/")
            {
                (Charged::WithMessage, self.message_max, Guard::Open)
            } else {
                let (speaker, intake, path) =
                    (Arc::clone(&speaker), Arc::clone(&self.intake), head.uri.path().to_owned());
                (Charged::UntilWhole, OTHER_MESSAGE_MAX, Guard::Asks { speaker, intake, path })
            };
            let coming = Arc::clone(&speaks.coming);
            let body = Arrivals::new(body, Arc::clone(&call), coming, charged, message_max);
            let mut request = Request::from_parts(head, body);
            request.extensions_mut().insert(Arc::clone(&call));
            request.extensions_mut().insert(speaker);
            Either::Right((self.routes.call(request), call, guard))
        };
        Either::Right(async move {
            match response {
                Either::Left(response) => Ok(response),
                Either::Right((response, call, guard)) => {
                    Ok(response.await?.map(|body| Answers::guarded(body, call, guard)))
                }
            }
        })
    }
}

impl Server {
    /// What tells whoever asks for health.
    #[must_use]
    pub fn health(&self) -> Health {
        Health(self.health.clone())
    }

    /// Waits until all calls have ended, for at most `deadline`; then cuts them.
    pub async fn drain(mut self, deadline: Duration) {
        if tokio::time::timeout(deadline, &mut self.task).await.is_err() {
            tracing::warn!(
                "calls were still open at the deadline and are cut; their producers send again what was not answered"
            );
            self.task.abort();
        }
    }
}

/// Tells whoever asks for health.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Says whether the gateway serves.
    pub async fn set(&self, is_serving: bool) {
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.0.set_service_status("", status).await;
        self.0.set_service_status("bailiwick.v1.Ingest", status).await;
    }

    /// Says whether releases may leave, under a name of its own: who sends records need not know.
    pub async fn set_egress(&self, may_leave: bool) {
        let status = if may_leave { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.0.set_service_status("bailiwick.egress", status).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_may_make_the_gateway_hold_before_it_reads_is_bounded() {
        for connections in 1..=1_024 {
            let Windows { frame, call, connection } = Windows::of(connections);
            assert!(frame <= call && 2 * call <= connection, "{connections} connections");
            assert!(connections > 64 || 2 * frame <= call, "{connections} connections");
            assert!(connections * connection as usize <= 64 << 20, "{connections} connections");
        }
        let held: usize = (1..=1_024).map(|connections| 2 * Windows::of(connections).frame as usize).sum();
        assert_eq!(held.div_ceil(1 << 20), 69);
    }
}
