//! What each path is answered with.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use crate::clock::Clock;
use crate::domain::refusal::Reason;
use crate::identity::{Acceptor, Identity};
use crate::telemetry::{Samples, declared};

use super::health::{Check, Health, State};
use super::looking::Looking;
use super::observed::Observed;
use super::places::Place;
use super::process::Process;

/// What is costly is made again after this time at the earliest, however often it is asked for.
const MADE_EVERY: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The paths that there are, and what stands for all others.
const PATHS: [&str; 5] = ["/healthz", "/readyz", "/status", "/metrics", "(other)"];

/// Answers requests.
pub(super) struct Answers {
    /// `None`: it is starting.
    observed: OnceLock<Arc<dyn Observed>>,
    looking: Looking,
    /// `None`: plain text, on this machine.
    acceptor: Option<Arc<Acceptor>>,
    clock: Clock,
    process: Process,
    /// When it started, in seconds since 1970.
    started: f64,
    health: Made<Arc<Health>>,
    status: Made<String>,
    metrics: Made<String>,
    requests: [AtomicU64; PATHS.len()],
    /// Connections that found no place.
    turned_away: AtomicU64,
}

/// Who asks: somebody on a connection.
pub(super) struct Client {
    pub(super) address: SocketAddr,
    /// Who has proved it by a certificate.
    pub(super) identity: Option<Identity>,
    pub(super) place: Place,
}

/// Something, and when it was made.
struct Made<T>(Mutex<Option<(Duration, T)>>);

impl<T> Default for Made<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Made<T> {
    /// What was made, made again if it is old. Who comes while it is made waits for it.
    fn get(&self, now: Duration, make: impl FnOnce() -> T) -> T {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((at, known)) if now.saturating_sub(*at) < MADE_EVERY => known.clone(),
            _ => made.insert((now, make())).1.clone(),
        }
    }
}

impl Answers {
    pub(super) fn new(acceptor: Option<Arc<Acceptor>>, clock: Clock, looking: Looking) -> Self {
        Self {
            observed: OnceLock::new(),
            looking,
            acceptor,
            process: Process::new(std::process::id()),
            started: clock.wall() as f64 / 1e6,
            clock,
            health: Made::default(),
            status: Made::default(),
            metrics: Made::default(),
            requests: Default::default(),
            turned_away: AtomicU64::default(),
        }
    }

    /// From now on there is something to tell.
    pub(super) fn observe(&self, observed: Arc<dyn Observed>) {
        let _ = self.observed.set(observed);
    }

    pub(super) fn acceptor(&self) -> Option<&Arc<Acceptor>> {
        self.acceptor.as_ref()
    }

    /// The monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// How the gateway is, or was a moment ago.
    fn health(&self, observed: &Arc<dyn Observed>) -> Arc<Health> {
        self.health.get(self.now(), || {
            let observed = Arc::clone(observed);
            Arc::new(self.looking.at(move || observed.health()).unwrap_or_else(nobody_looks))
        })
    }

    /// A connection found no place, or lost it to another one.
    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer to a request of somebody.
    pub(super) fn to<B>(&self, request: &Request<B>, client: &Client) -> Response<String> {
        let path = PATHS.iter().position(|path| *path == request.uri().path()).unwrap_or(PATHS.len() - 1);
        if let Some(count) = self.requests.get(path) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let observed = self.observed.get();
        match request.uri().path() {
            // While it starts it is alive: recovery may take its time.
            "/healthz" => word(observed.is_none_or(|observed| observed.is_alive()), "ok", "failing"),
            "/readyz" => word(observed.is_some_and(|observed| self.health(observed).is_ready()), "ready", "not ready"),
            path @ ("/status" | "/metrics") => {
                let Some(observed) = observed else {
                    return text(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting: ask again\n");
                };
                if let Err(denied) = self.may_read(&**observed, request, client) {
                    return *denied;
                }
                let now = self.clock.now();
                if path == "/status" {
                    let status = self.status.get(now, || self.status(observed));
                    answer(StatusCode::OK, "application/json", status)
                } else {
                    answer(StatusCode::OK, OPEN_METRICS, self.metrics.get(now, || self.scrape(observed)))
                }
            }
            _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz, /status and /metrics\n"),
        }
    }

    /// Whether a request may read what is not for everybody. Whoever may keeps the place of the connection.
    fn may_read<B>(
        &self,
        observed: &dyn Observed,
        request: &Request<B>,
        client: &Client,
    ) -> Result<(), Box<Response<String>>> {
        let Some(acceptor) = &self.acceptor else { return Ok(()) };
        let now = self.clock.wall() / 1_000_000;
        let by_certificate = client.identity.as_ref().filter(|identity| now < identity.until());
        let by_token = || {
            let mut tokens = request.headers().get_all(AUTHORIZATION).iter();
            let (Some(token), None) = (tokens.next(), tokens.next()) else { return None };
            let (scheme, token) = token.to_str().ok()?.split_once(' ')?;
            acceptor.set().check_token(token, now).ok().filter(|_| scheme.eq_ignore_ascii_case("bearer"))
        };
        let Some(identity) = by_certificate.cloned().or_else(by_token) else {
            let says = "show a certificate that is in date, or a bearer token that the gateway believes\n";
            let mut response = text(StatusCode::UNAUTHORIZED, says);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Err(Box::new(response));
        };
        observed.may_read(identity.as_str()).map(|()| client.place.keep()).map_err(|denied| {
            let (address, rule, reason) = (client.address, &denied.rule, Reason::PermissionDenied.name());
            tracing::warn!(%address, %identity, %rule, reason, "{}", denied.why);
            let says = format!(
                "{} (rule `{}`): add it to a rule of [permissions] with read = [\"metrics\"]\n",
                denied.why, denied.rule
            );
            Box::new(text(StatusCode::FORBIDDEN, &says))
        })
    }

    fn status(&self, observed: &Arc<dyn Observed>) -> String {
        let of = Arc::clone(observed);
        let about = self.looking.at(move || of.about()).unwrap_or_default();
        let status = self.health(observed).json(&about);
        let mut text = serde_json::to_string_pretty(&status).unwrap_or_else(|_| json!({}).to_string());
        text.push('\n');
        text
    }

    fn scrape(&self, observed: &Arc<dyn Observed>) -> String {
        let of = Arc::clone(observed);
        let look = move || {
            let mut samples = Samples::default();
            of.sample(&mut samples);
            samples
        };
        let mut samples = self.looking.at(look).unwrap_or_default();
        let health = self.health(observed);
        samples.is(declared::READY, &[], health.is_ready());
        for check in &health.checks {
            samples.is(declared::CHECK_FAILING, &[check.name], check.state != State::Well);
        }
        for (path, count) in PATHS.iter().zip(&self.requests) {
            samples.count(declared::HTTP_REQUESTS, &[path], count.load(Ordering::Relaxed));
        }
        samples.count(declared::HTTP_TURNED_AWAY, &[], self.turned_away.load(Ordering::Relaxed));
        samples.amount(declared::PROCESS_START, &[], self.started);
        self.process(&mut samples);
        samples.text()
    }
}

impl Answers {
    /// What the process takes. Where the system does not say it, there is nothing.
    fn process(&self, samples: &mut Samples) {
        if let Ok(usage) = self.process.usage() {
            samples.amount(declared::PROCESS_CPU, &[], usage.cpu.as_secs_f64());
            samples.amount(declared::PROCESS_MEMORY, &[], usage.memory as f64);
        }
        if let Some(descriptors) = self.process.descriptors() {
            samples.amount(declared::PROCESS_DESCRIPTORS, &[], descriptors.open as f64);
            samples.amount(declared::PROCESS_DESCRIPTORS_MAX, &[], descriptors.most as f64);
        }
    }
}

/// The thread that looks has panicked, so the gateway is about to end.
fn nobody_looks() -> Health {
    let says = "the thread that looks at the gateway's parts has ended by a fault";
    let help = "it stops with exit code 70: start it again, and report the log line about the panic";
    Health { is_alive: false, checks: vec![Check::not_ready("process", says, help)] }
}

fn word(is_well: bool, well: &str, not: &str) -> Response<String> {
    let (code, word) = if is_well { (StatusCode::OK, well) } else { (StatusCode::SERVICE_UNAVAILABLE, not) };
    text(code, &format!("{word}\n"))
}

fn text(code: StatusCode, says: &str) -> Response<String> {
    answer(code, TEXT, says.to_owned())
}

fn answer(code: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::places::Places;
    use super::*;
    use crate::domain::policy::Denied;
    use crate::engine::supervision::Supervisor;

    /// Counts how often it is looked at closely.
    #[derive(Default)]
    struct Counting(AtomicU64);

    impl Observed for Counting {
        fn is_alive(&self) -> bool {
            true
        }

        fn health(&self) -> Health {
            self.0.fetch_add(1, Ordering::Relaxed);
            Health { is_alive: true, checks: vec![Check::well("process", "all parts run")] }
        }

        fn about(&self) -> Value {
            json!({})
        }

        fn sample(&self, _: &mut Samples) {}

        fn may_read(&self, _: &str) -> Result<(), Denied> {
            Ok(())
        }
    }

    fn answers(observed: Arc<dyn Observed>, clock: Clock) -> (Answers, Client) {
        let answers = Answers::new(None, clock, Looking::start(&Supervisor::default()).unwrap());
        answers.observe(observed);
        let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let place = Arc::new(Places::default()).enter(address.ip(), clock.now()).unwrap();
        (answers, Client { address, identity: None, place })
    }

    /// Remembers the priority of each thread that looks.
    #[cfg(target_os = "linux")]
    #[derive(Default)]
    struct Priorities(Mutex<Vec<i32>>);

    #[cfg(target_os = "linux")]
    impl Priorities {
        fn of_this_thread() -> i32 {
            rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap()
        }

        fn looked(&self) {
            self.0.lock().unwrap().push(Self::of_this_thread());
        }
    }

    #[cfg(target_os = "linux")]
    impl Observed for Priorities {
        fn is_alive(&self) -> bool {
            true
        }

        fn health(&self) -> Health {
            self.looked();
            Health { is_alive: true, checks: Vec::new() }
        }

        fn about(&self) -> Value {
            self.looked();
            json!({})
        }

        fn sample(&self, _: &mut Samples) {
            self.looked();
        }

        fn may_read(&self, _: &str) -> Result<(), Denied> {
            Ok(())
        }
    }

    /// A lock that a thread of low priority holds would make the workers wait.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_parts_are_not_looked_at_by_a_thread_of_low_priority() {
        let priorities = Arc::new(Priorities::default());
        let (answers, client) = answers(Arc::clone(&priorities) as Arc<dyn Observed>, Clock::start());
        let port = std::thread::spawn(move || {
            crate::engine::supervision::give_way_to_records();
            for path in ["/readyz", "/status", "/metrics"] {
                assert_eq!(answers.to(&Request::get(path).body(()).unwrap(), &client).status(), StatusCode::OK);
            }
        });
        port.join().unwrap();
        let looked = priorities.0.lock().unwrap();
        assert!(looked.len() >= 3 && looked.iter().all(|of| *of == Priorities::of_this_thread()), "{looked:?}");
    }

    #[test]
    fn however_often_it_is_asked_little_is_looked_at_and_for_a_sign_of_life_nothing() {
        let (clock, counting) = (Clock::start(), Arc::new(Counting::default()));
        let (answers, client) = answers(Arc::clone(&counting) as Arc<dyn Observed>, clock);
        let ask = |path: &str| answers.to(&Request::get(path).body(()).unwrap(), &client).into_body();
        (0..1_000).for_each(|_| assert_eq!(ask("/healthz"), "ok\n"));
        assert_eq!(counting.0.load(Ordering::Relaxed), 0);
        let began = clock.now();
        for _ in 0..1_000 {
            assert_eq!(ask("/readyz"), "ready\n");
            assert!(ask("/status").contains("all parts run") && ask("/metrics").ends_with("# EOF\n"));
        }
        let most = (clock.now() - began).as_millis() / MADE_EVERY.as_millis() + 1;
        assert!(
            u128::from(counting.0.load(Ordering::Relaxed)) <= most,
            "{counting:?} of {most}",
            counting = counting.0
        );
    }
}
