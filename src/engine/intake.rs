//! The way in: what every transport calls and every worker looks up: the streams, the limits, the policies in force, and
//! what is in quarantine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::clock::Clock;
use crate::decode;
use crate::domain::evidence::Sender;
use crate::domain::name::StreamName;
use crate::domain::outcome::{Outcome, Route};
use crate::domain::peer::Peer;
use crate::domain::policy::{Granted, Quarantined, Resident};
use crate::domain::producer::RememberedMax;
use crate::domain::refusal::Reason;
use crate::domain::watermark::ActiveMax;
use crate::telemetry::Telemetry;

use super::budget::{Budget, Needs, REQUEST_BYTES};
use super::counting::{Counting, tidy_if_due};
use super::inbox::Inbox;
use super::quarantine::{Held, Quarantine};
use super::request::{Answer, Caller, Content, Origin, Reply, Request, Served};
use super::versions::Versions;

/// Limits of one request and of all.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most records of a request.
    pub batch_rows_max: usize,
    /// The most bytes of a request.
    pub batch_bytes_max: usize,
    /// The most bytes of memory that all requests hold, from their first byte until their answer is sent.
    pub in_flight_bytes_max: usize,
    /// The most bytes that all open windows may hold.
    pub open_windows_bytes_max: usize,
    /// How many producers may be active on a stream.
    pub producers: ActiveMax,
    /// How many numbered producers are remembered.
    pub remembered: RememberedMax,
}

impl Limits {
    /// The most bytes of memory that the records of one request may take once they are decoded.
    #[must_use]
    pub fn decoded_bytes_max(&self) -> usize {
        let part = self.in_flight_bytes_max / 16 * 5;
        part.saturating_sub(REQUEST_BYTES).max(self.batch_bytes_max.saturating_mul(4))
    }

    /// The longest message that is read. A request over its limit is refused alone; only one far over it ends its call.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.batch_bytes_max.saturating_mul(2).saturating_add(FRAME_BYTES)
    }
}

impl From<Limits> for decode::Limits {
    fn from(limits: Limits) -> Self {
        Self { rows_max: limits.batch_rows_max, bytes_max: limits.decoded_bytes_max() }
    }
}

/// Room for a request's frame around its payload: names, numbers, the tags.
const FRAME_BYTES: usize = 64 << 10;

/// The way in.
pub struct Intake {
    streams: BTreeMap<StreamName, Arc<Served>>,
    pub(super) versions: Arc<Versions>,
    pub(super) quarantine: Quarantine,
    pub(super) counting: Arc<Counting>,
    limits: Limits,
    budget: Arc<Budget>,
    pub(super) clock: Clock,
    stopping: AtomicBool,
    /// The hour in which keys of pseudonyms were last forgotten.
    forgot: AtomicU64,
    pub(super) telemetry: Arc<Telemetry>,
}

impl Intake {
    /// The way in, for these streams.
    #[must_use]
    pub fn new(
        streams: BTreeMap<StreamName, Served>,
        versions: Arc<Versions>,
        counting: Arc<Counting>,
        limits: Limits,
        clock: Clock,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let needs = Needs {
            bytes: limits.in_flight_bytes_max,
            message_max: limits.message_bytes_max(),
            decoded_max: limits.decoded_bytes_max(),
        };
        Self {
            streams: streams.into_iter().map(|(name, served)| (name, Arc::new(served))).collect(),
            versions,
            quarantine: Quarantine::new(limits.in_flight_bytes_max / 2),
            counting,
            limits,
            budget: Arc::new(Budget::new(needs)),
            clock,
            stopping: AtomicBool::new(false),
            forgot: AtomicU64::new(0),
            telemetry,
        }
    }

    /// A served stream.
    ///
    /// # Errors
    /// [`Reason::UnknownStream`].
    pub fn stream(&self, name: &str) -> Result<&Arc<Served>, Reason> {
        self.streams.get(name).ok_or(Reason::UnknownStream)
    }

    /// What an identity may do now, and under how many changes of the policies that was looked up.
    #[must_use]
    pub fn granted(&self, identity: &str) -> (u64, Granted) {
        self.versions.granted(identity)
    }

    /// How often the policies have changed. While it stays the same, what was granted is still true.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.versions.changes()
    }

    /// Who the gateway of a route is, as its certificate names it. `None`: that is not declared.
    #[must_use]
    pub fn identity_of(&self, route: &Route) -> Option<String> {
        let version = self.versions.current();
        let is_it = |peer: &&Arc<Peer>| peer.id == route.gateway && peer.endpoint == route.endpoint;
        version.here.peers.iter().find(is_it)?.identity.clone()
    }

    /// The names of the served streams.
    pub fn stream_names(&self) -> impl Iterator<Item = &str> {
        self.streams.keys().map(AsRef::as_ref)
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The counts.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The monotonic clock of the gateway.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// The wall clock, in seconds since the Unix epoch.
    #[must_use]
    pub fn wall_seconds(&self) -> i64 {
        self.clock.wall() / 1_000_000
    }

    /// The bound on the memory that requests hold.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// From now on records are refused with [`Reason::Stopping`].
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether the gateway is being stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The event time that a producer promises to have come to. A time in the future cannot be believed: it becomes the
    /// time of now.
    #[must_use]
    pub fn promise(&self, complete_through: i64) -> Option<i64> {
        (complete_through != 0).then(|| complete_through.min(self.clock.wall()))
    }

    /// Once an hour the keys of pseudonyms that are not used any more are forgotten.
    fn forget(&self, now: Duration, wall: i64) {
        let hour = now.as_secs() / 3_600;
        if self.forgot.swap(hour, Ordering::Relaxed) != hour
            && let Some(pseudonyms) = &self.versions.current().knowledge.pseudonyms
        {
            pseudonyms.forget(wall);
        }
    }

    /// Time has passed: discards what has been in quarantine long enough. Says whether [`Intake::reconsider`] is due: a
    /// record may have been put aside just after another version came into force.
    pub fn tick(&self) -> bool {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        self.forget(now, wall);
        self.counting.tick();
        tidy_if_due(&self.counting);
        let expired = self.quarantine.expire(now);
        if expired > 0 {
            Telemetry::add(&self.telemetry.gateway.quarantine_expired, expired);
            // How many is told in steps: beside what was put there and what was discarded, it would be known what was taken in.
            tracing::warn!(
                "records were in quarantine long enough and are discarded: complete the evidence of their stream, \
                 or lengthen `quarantine.hold`"
            );
        }
        !self.is_stopping() && self.quarantine.is_stale(&self.versions.current())
    }

    /// More may be known now: decides again what other versions left in quarantine. What may stay is taken in, what is
    /// still in doubt goes on waiting, everything else is discarded. What cannot be taken in now waits for the next time.
    pub async fn reconsider(&self, inbox: &Inbox) {
        while let Some(held) = self.quarantine.take(&self.versions.current()) {
            let (rows, bytes) = (held.records.rows(), held.records.bytes());
            let from = Sender { producer: &held.origin.producer, address: held.origin.address };
            let under = self.versions.current();
            let decided = {
                let mut counters = self.counting.begin_as(held.series);
                let decided = under.decide(held.records.clone().again(), from, &mut counters);
                decided.map(|decided| (decided.is_counted.then(|| counters.until()), decided))
            };
            let (counted_until, decided) = match decided {
                Ok(decided) => decided,
                Err(error) => {
                    tracing::error!(%error, "records in quarantine could not be decided; they are discarded. A fault \
                     in bailiwick: please report this line");
                    self.quarantine.settle(bytes, None);
                    Telemetry::add(&self.telemetry.gateway.quarantine_expired, rows);
                    continue;
                }
            };
            if counted_until.is_some() && self.counting.durable().await.is_err() {
                return self.quarantine.settle(bytes, Some(held));
            }
            let taken = match decided.resident {
                None => 0,
                Some(resident) => match self.take_in(inbox, resident, counted_until, &held.origin).await {
                    Some(taken) => taken,
                    None => return self.quarantine.settle(bytes, Some(held)),
                },
            };
            let waiting = decided.quarantined.as_ref().map_or(0, Quarantined::rows);
            let series = self.counting.series();
            let again = decided.quarantined.map(|records| Held { records, under, series, ..held });
            self.quarantine.settle(bytes, again);
            Telemetry::add(&self.telemetry.gateway.quarantine_taken_in, taken);
            Telemetry::add(&self.telemetry.gateway.quarantine_expired, rows - waiting - taken);
        }
    }

    /// Takes records in that were in quarantine. Says how many; `None`: that cannot be done now.
    async fn take_in(
        &self,
        inbox: &Inbox,
        resident: Resident,
        counted_until: Option<i64>,
        origin: &Arc<Origin>,
    ) -> Option<usize> {
        let served = self.stream(&resident.batch().stream().name).ok()?;
        let (waits, mut answer) = unbounded_channel();
        let (served, reply) = (Some(Arc::clone(served)), Reply::new(Arc::new(Waits(waits)), 0));
        let content = Content::Decided(resident, counted_until);
        inbox.push(Box::new(Request::new(served, Arc::clone(origin), None, content, reply)));
        match answer.recv().await?.told {
            Ok(Outcome::Taken(taken)) => Some(taken.accepted as usize),
            Ok(Outcome::Refused(_)) | Err(_) => None,
        }
    }

    /// How many records are in quarantine.
    #[must_use]
    pub fn in_quarantine(&self) -> usize {
        self.quarantine.rows()
    }
}

/// Waits for one answer.
struct Waits(UnboundedSender<Answer>);

impl Caller for Waits {
    fn answer(&self, _: u64, answer: Answer) {
        let _ = self.0.send(answer);
    }
}
