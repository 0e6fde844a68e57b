//! What each path is answered with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use crate::clock::Clock;
use crate::identity::{Acceptor, Identity};
use crate::telemetry::{Samples, declared};

use super::health::State;
use super::observed::Observed;
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
    /// `None`: plain text, on this machine.
    acceptor: Option<Arc<Acceptor>>,
    clock: Clock,
    process: Process,
    /// When it started, in seconds since 1970.
    started: f64,
    status: Made,
    metrics: Made,
    requests: [AtomicU64; PATHS.len()],
    /// Connections that found no place.
    turned_away: AtomicU64,
}

/// A text, and when it was made.
#[derive(Default)]
struct Made(Mutex<Option<(Duration, String)>>);

impl Made {
    /// The text, made again if it is old. Who comes while it is made waits for it.
    fn get(&self, now: Duration, make: impl FnOnce() -> String) -> String {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((at, text)) if now.saturating_sub(*at) < MADE_EVERY => text.clone(),
            _ => made.insert((now, make())).1.clone(),
        }
    }
}

impl Answers {
    pub(super) fn new(acceptor: Option<Arc<Acceptor>>, clock: Clock) -> Self {
        let (observed, status, metrics) = (OnceLock::new(), Made::default(), Made::default());
        Self {
            observed,
            acceptor,
            process: Process::new(std::process::id()),
            started: clock.wall() as f64 / 1e6,
            clock,
            status,
            metrics,
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

    /// A connection found no place.
    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer to a request on a connection of somebody, or of nobody that is known.
    pub(super) fn to<B>(&self, request: &Request<B>, identity: Option<&Identity>) -> Response<String> {
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
            "/healthz" => word(observed.is_none_or(|observed| observed.health().is_alive), "ok", "failing"),
            "/readyz" => word(observed.is_some_and(|observed| observed.health().is_ready()), "ready", "not ready"),
            path @ ("/status" | "/metrics") => {
                let Some(observed) = observed else {
                    return text(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting: ask again\n");
                };
                if let Err(denied) = self.may_read(&**observed, request, identity) {
                    return *denied;
                }
                let now = self.clock.now();
                if path == "/status" {
                    let status = self.status.get(now, || status(&**observed));
                    answer(StatusCode::OK, "application/json", status)
                } else {
                    answer(StatusCode::OK, OPEN_METRICS, self.metrics.get(now, || self.scrape(&**observed)))
                }
            }
            _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz, /status and /metrics\n"),
        }
    }

    /// Whether a request may read what is not for everybody.
    fn may_read<B>(
        &self,
        observed: &dyn Observed,
        request: &Request<B>,
        identity: Option<&Identity>,
    ) -> Result<(), Box<Response<String>>> {
        let Some(acceptor) = &self.acceptor else { return Ok(()) };
        let by_token = || {
            let mut tokens = request.headers().get_all(AUTHORIZATION).iter();
            let (Some(token), None) = (tokens.next(), tokens.next()) else { return None };
            let (scheme, token) = token.to_str().ok()?.split_once(' ')?;
            let now = self.clock.wall() / 1_000_000;
            acceptor.set().check_token(token, now).ok().filter(|_| scheme.eq_ignore_ascii_case("bearer"))
        };
        let Some(identity) = identity.cloned().or_else(by_token) else {
            let says = "show a certificate, or a bearer token that the gateway believes\n";
            let mut response = text(StatusCode::UNAUTHORIZED, says);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Err(Box::new(response));
        };
        observed.may_read(identity.as_str()).map_err(|denied| {
            tracing::warn!(%identity, rule = %denied.rule, "{}", denied.why);
            let says = format!(
                "{} (rule `{}`): add it to a rule of [permissions] with read = [\"metrics\"]\n",
                denied.why, denied.rule
            );
            Box::new(text(StatusCode::FORBIDDEN, &says))
        })
    }

    fn scrape(&self, observed: &dyn Observed) -> String {
        let mut samples = Samples::default();
        observed.sample(&mut samples);
        let health = observed.health();
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

fn status(observed: &dyn Observed) -> String {
    let status = observed.health().json(&observed.about());
    let mut text = serde_json::to_string_pretty(&status).unwrap_or_else(|_| json!({}).to_string());
    text.push('\n');
    text
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
