//! Who speaks on a connection, and what the policies let them do. Looked up once for each version of the policies.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

use crate::domain::policy::{Denied, Granted, Right, Spoken};
use crate::domain::producer::ProducerName;
use crate::domain::refusal::Reason;
use crate::engine::budget::{Budget, Call, Line, Share};
use crate::engine::intake::Intake;
use crate::engine::request::Origin;
use crate::identity::Identity;

use super::caps::Inside;
use super::status::Rejection;

/// Who speaks on a connection.
pub(super) struct Speaker {
    proof: Proof,
    /// Where its connection comes from.
    address: SocketAddr,
    /// What its calls take of the memory. `None`: what the connection has by itself.
    share: Option<Arc<Share>>,
    granted: Mutex<Option<(u64, Arc<Granted>)>>,
    /// Whether the connection is to end. Calls with a token share it with their connection.
    is_ending: Arc<AtomicBool>,
    /// When the token ends that proves the identity, in seconds since the Unix epoch. A certificate ends with its connection.
    token_until: Option<i64>,
    /// Its place among the connections of its identity.
    _inside: Option<Inside<String>>,
}

/// What a speaker has proved.
enum Proof {
    /// Nothing: plain text, on which everybody is who they say, and may do anything.
    NotAsked,
    /// Nothing yet: nothing is allowed.
    Missing,
    /// Who it is.
    Identity(Identity),
}

/// Whom a request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named<'n> {
    /// Whom it names: nobody is asked for a proof.
    Said(&'n str),
    /// Whom a rule lets it name.
    Allowed(&'n Spoken),
}

impl Named<'_> {
    /// Whether it is a request's origin.
    pub(super) fn is(&self, origin: &Origin) -> bool {
        match self {
            Self::Said(producer) => **producer == *origin.producer,
            Self::Allowed(spoken) => spoken.producer == origin.producer && spoken.series == origin.series,
        }
    }

    /// The origin of a request that counts for it. `None`: what it names is no producer's name.
    pub(super) fn origin(&self, address: Option<IpAddr>, identity: Option<Arc<str>>) -> Option<Origin> {
        match self {
            Self::Said(producer) => Some(Origin { identity, ..Origin::of(ProducerName::new(producer).ok()?, address) }),
            Self::Allowed(Spoken { producer, series, .. }) => {
                Some(Origin { producer: producer.clone(), series: series.clone(), address, identity })
            }
        }
    }
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
    pub(super) fn anyone(address: SocketAddr) -> Self {
        Self::new(Proof::NotAsked, address, None)
    }

    fn new(proof: Proof, address: SocketAddr, inside: Option<Inside<String>>) -> Self {
        let (granted, is_ending) = (Mutex::default(), Arc::default());
        Self { proof, address, share: None, granted, is_ending, token_until: None, _inside: inside }
    }

    /// Somebody who has proved it.
    pub(super) fn known(
        identity: Identity,
        address: SocketAddr,
        inside: Option<Inside<String>>,
        budget: &Budget,
    ) -> Self {
        let share = Some(budget.share_of(identity.as_str()));
        Self { share, ..Self::new(Proof::Identity(identity), address, inside) }
    }

    /// Somebody who has to prove on each call who it is.
    pub(super) fn unproved(address: SocketAddr) -> Self {
        Self::new(Proof::Missing, address, None)
    }

    /// Who a call on this connection is of.
    pub(super) fn with_token(&self, identity: Identity, budget: &Budget) -> Self {
        let (is_ending, token_until) = (Arc::clone(&self.is_ending), Some(identity.until()));
        Self { is_ending, token_until, ..Self::known(identity, self.address, None, budget) }
    }

    /// A call of a connection that it makes.
    pub(super) fn call(&self, line: &Arc<Line>) -> Arc<Call> {
        self.share.as_ref().map_or_else(|| line.call(), |share| line.call_of(share))
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
        match &self.proof {
            Proof::Identity(identity) => Some(identity),
            Proof::NotAsked | Proof::Missing => None,
        }
    }

    /// The one of a request. The server puts it there; without one, nothing is allowed.
    pub(super) fn of(extensions: &tonic::Extensions) -> Result<Arc<Self>, Status> {
        extensions.get::<Arc<Self>>().cloned().ok_or_else(|| Status::internal("nobody is known to speak here"))
    }

    /// What it may do now. `None`: anything.
    fn granted(&self, intake: &Intake) -> Option<(u64, Arc<Granted>)> {
        let identity = match &self.proof {
            Proof::NotAsked => return None,
            Proof::Missing => return Some((intake.changes(), Arc::default())),
            Proof::Identity(identity) => identity,
        };
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

    /// Whom a request counts for. An empty name stands for the speaker's own.
    pub(super) fn named<'a>(
        &self,
        intake: &Intake,
        allowed: &'a mut Allowed,
        stream: &str,
        producer: &'a str,
    ) -> Result<Named<'a>, Rejection> {
        if matches!(self.proof, Proof::NotAsked) {
            return Ok(Named::Said(producer));
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
        Ok(allowed.spoken.as_ref().map_or(Named::Said(""), Named::Allowed))
    }

    fn deny(&self, denied: Denied) -> Rejection {
        if let Some(identity) = self.identity() {
            let (address, rule, reason) = (self.address, &denied.rule, Reason::PermissionDenied.name());
            tracing::warn!(%address, %identity, %rule, reason, "{}", denied.why);
        }
        denied.into()
    }
}
