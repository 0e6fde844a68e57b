//! Who speaks on a connection, and what the policies let them do. Looked up once for each version of the policies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

use crate::domain::policy::{Denied, Granted, Right, Spoken};
use crate::domain::refusal::Reason;
use crate::engine::intake::Intake;
use crate::identity::Identity;

use super::caps::Inside;
use super::status::Rejection;

/// Who speaks on a connection.
pub(super) struct Speaker {
    /// `None`: plain text, on which everybody is who they say.
    identity: Option<Identity>,
    granted: Mutex<Option<(u64, Arc<Granted>)>>,
    /// Whether the connection is to end. Calls with a token share it with their connection.
    is_ending: Arc<AtomicBool>,
    /// When the token ends that proves the identity, in seconds since the Unix epoch. A certificate ends with its connection.
    token_until: Option<i64>,
    /// Its place among the connections of its identity.
    _inside: Option<Inside<String>>,
}

/// What was asked for last, and under which policies it was allowed.
#[derive(Default)]
pub(super) struct Allowed {
    changes: u64,
    stream: String,
    producer: String,
    /// `None`: nothing was allowed yet.
    spoken: Option<Spoken>,
}

impl Speaker {
    /// Anybody: plain text, on this machine.
    pub(super) fn anyone() -> Self {
        Self { identity: None, granted: Mutex::default(), is_ending: Arc::default(), token_until: None, _inside: None }
    }

    /// Somebody who has proved it.
    pub(super) fn known(identity: Identity, inside: Option<Inside<String>>) -> Self {
        Self { identity: Some(identity), _inside: inside, ..Self::anyone() }
    }

    /// Somebody who takes a place, and has to prove on each call who it is.
    pub(super) fn unproved(inside: Inside<String>) -> Self {
        Self { _inside: Some(inside), ..Self::anyone() }
    }

    /// Who a call on this connection is of.
    pub(super) fn with_token(&self, identity: Identity) -> Self {
        let (is_ending, token_until) = (Arc::clone(&self.is_ending), Some(identity.until()));
        Self { identity: Some(identity), is_ending, token_until, ..Self::anyone() }
    }

    /// The connection is to end: its calls end before their next request.
    pub(super) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Whether a call may take another request.
    pub(super) fn goes_on(&self, intake: &Intake) -> Result<(), Status> {
        if self.token_until.is_some_and(|until| intake.wall_seconds() >= until) {
            return Err(Status::unauthenticated("the token's time is over: call again with a new one"));
        }
        match self.is_ending.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Status::unavailable(
                "the connection has reached its age: call again, on a new one, and send what was not answered",
            )),
        }
    }

    /// Who speaks, when it was proved.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The one of a request. The server puts it there; without one, nothing is allowed.
    pub(super) fn of(extensions: &tonic::Extensions) -> Result<Arc<Self>, Status> {
        extensions.get::<Arc<Self>>().cloned().ok_or_else(|| Status::internal("nobody is known to speak here"))
    }

    /// What it may do now. `None`: anything.
    fn granted(&self, intake: &Intake) -> Option<(u64, Arc<Granted>)> {
        let identity = self.identity.as_ref()?;
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        match &*granted {
            Some((changes, known)) if *changes == intake.changes() => Some((*changes, Arc::clone(known))),
            _ => {
                let (changes, now) = intake.granted(identity.as_str());
                let now = (changes, Arc::new(now));
                *granted = Some(now.clone());
                Some(now)
            }
        }
    }

    /// Whether a call of a service may be made at all.
    pub(super) fn may_call(&self, intake: &Intake, path: &str) -> Result<(), Rejection> {
        let Some((_, granted)) = self.granted(intake) else { return Ok(()) };
        let denied = match path {
            path if path.starts_with("/bailiwick.v1.Ingest/") => granted.write_any(),
            path if path.starts_with("/arrow.flight.protocol.FlightService/") => granted.write_any(),
            path if path.starts_with("/grpc.reflection.") => granted.read(Right::Reflection).map(drop),
            // Whoever got this far may ask whether the gateway works.
            _ => Ok(()),
        };
        denied.map_err(|denied| {
            // It is of no stream.
            intake.telemetry().of("").refused.add(Reason::PermissionDenied, 1);
            self.deny(denied)
        })
    }

    /// The producer that a request counts for. An empty name stands for the speaker's own.
    pub(super) fn producer<'a>(
        &self,
        intake: &Intake,
        allowed: &'a mut Allowed,
        stream: &str,
        producer: &'a str,
    ) -> Result<&'a str, Rejection> {
        if self.identity.is_none() {
            return Ok(producer);
        }
        let is_same = allowed.stream == stream && allowed.producer == producer && allowed.changes == intake.changes();
        if !is_same || allowed.spoken.is_none() {
            allowed.spoken = None;
            if let Some((changes, granted)) = self.granted(intake) {
                let spoken = granted.write(stream, producer).map_err(|denied| self.deny(denied))?;
                let (stream, producer) = (stream.to_owned(), producer.to_owned());
                *allowed = Allowed { changes, stream, producer, spoken: Some(spoken) };
            }
        }
        Ok(allowed.spoken.as_ref().map_or("", |spoken| &spoken.producer))
    }

    fn deny(&self, denied: Denied) -> Rejection {
        if let Some(identity) = &self.identity {
            tracing::warn!(%identity, rule = %denied.rule, reason = Reason::PermissionDenied.name(), "{}", denied.why);
        }
        denied.into()
    }
}
