//! Refusals: expected answers to records that cannot be taken. They are values, not errors, and they
//! carry positions and declared names, never contents.

use std::sync::Arc;

use super::peer::Peer;

/// Why a record, or a request as a whole, is refused. Closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No stream of this name is declared.
    UnknownStream,
    /// The payload cannot be read.
    Malformed,
    /// More records in a request than the limit.
    TooManyRows,
    /// More bytes in a request than the limit.
    TooLarge,
    /// The request names no producer.
    ProducerMissing,
    /// There is no room now.
    Overloaded,
    /// The open windows hold as many bytes as they may.
    WindowsFull,
    /// The gateway is being stopped.
    Stopping,
    /// The model failed on the batch.
    ModelFailed,
    /// The producer's sequence leaves one out.
    SequenceGap,
    /// The producer has begun a greater epoch.
    EpochFenced,
    /// The journal cannot be written.
    JournalFailing,
    /// As many producers are known as may be, and this one is not among them.
    TooManyProducers,
    /// The request was taken before, and what it came to is not remembered any more.
    OutcomeUnknown,
    /// The request's number was taken by a request with other records.
    NumberReused,
    /// No rule allows the identity that sends to do this.
    PermissionDenied,
    /// A fault of the gateway itself. It says so in its log and stops.
    Internal,
    /// The record carries a field that is not declared.
    UndeclaredField,
    /// A required field is missing.
    MissingField,
    /// A value is not of the declared type.
    WrongType,
    /// NaN or an infinity where it is not allowed.
    NotFinite,
    /// A text is longer than declared.
    TooLong,
    /// The event time is too far ahead of the clock.
    EventTimeInFuture,
    /// The event time is too far behind the watermark.
    EventTimeTooOld,
    /// The record would open a window, and as many are open as may be.
    TooManyWindows,
    /// One record of a batch cannot be read.
    MalformedRecord,
    /// A fact that laws test cannot be told: evidence is missing, unreadable or too weak.
    UnknownJurisdiction,
    /// Another gateway serves the record's regimes.
    BelongsElsewhere,
    /// A regime forbids the record to be here, and no route may be taken.
    MayNotBeHere,
    /// No regime covers what the record's facts say.
    NoRegime,
    /// The record is held in memory: what is known of it contradicts itself, or is not enough. It is not taken in, and is
    /// not to be sent again.
    Quarantined,
}

impl Reason {
    /// Every reason, with the name used in metrics and summaries.
    pub const ALL: [(Self, &'static str); 31] = [
        (Self::UnknownStream, "unknown_stream"),
        (Self::Malformed, "malformed"),
        (Self::TooManyRows, "too_many_rows"),
        (Self::TooLarge, "too_large"),
        (Self::ProducerMissing, "producer_missing"),
        (Self::Overloaded, "overloaded"),
        (Self::WindowsFull, "windows_full"),
        (Self::Stopping, "stopping"),
        (Self::ModelFailed, "model_failed"),
        (Self::SequenceGap, "sequence_gap"),
        (Self::EpochFenced, "epoch_fenced"),
        (Self::JournalFailing, "journal_failing"),
        (Self::TooManyProducers, "too_many_producers"),
        (Self::OutcomeUnknown, "outcome_unknown"),
        (Self::NumberReused, "number_reused"),
        (Self::PermissionDenied, "permission_denied"),
        (Self::Internal, "internal"),
        (Self::UndeclaredField, "undeclared_field"),
        (Self::MissingField, "missing_field"),
        (Self::WrongType, "wrong_type"),
        (Self::NotFinite, "not_finite"),
        (Self::TooLong, "too_long"),
        (Self::EventTimeInFuture, "event_time_in_future"),
        (Self::EventTimeTooOld, "event_time_too_old"),
        (Self::TooManyWindows, "too_many_windows"),
        (Self::MalformedRecord, "malformed_record"),
        (Self::UnknownJurisdiction, "unknown_jurisdiction"),
        (Self::BelongsElsewhere, "belongs_elsewhere"),
        (Self::MayNotBeHere, "may_not_be_here"),
        (Self::NoRegime, "no_regime"),
        (Self::Quarantined, "quarantined"),
    ];

    /// The name used in metrics and summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("?", |(_, name)| name)
    }

    /// The reason of a name; `None` when there is none of it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(reason, _)| *reason)
    }

    /// Whether this gateway may take the very same record at another time.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::WindowsFull
                | Self::Stopping
                | Self::ModelFailed
                | Self::JournalFailing
                | Self::TooManyProducers
                | Self::EventTimeInFuture
                | Self::TooManyWindows
                | Self::Internal
        )
    }

    /// Whether a request that is refused as a whole for this reason keeps its number: the very same request can be
    /// sent again under it.
    #[must_use]
    pub fn keeps_number(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::WindowsFull
                | Self::Stopping
                | Self::JournalFailing
                | Self::SequenceGap
                | Self::EpochFenced
                | Self::OutcomeUnknown
                | Self::NumberReused
                | Self::ProducerMissing
                | Self::PermissionDenied
                | Self::TooManyProducers
                | Self::TooManyWindows
        )
    }
}

/// What a producer has most likely to change, where that can be told without showing anything of a record. Closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hint {
    /// The time would be plausible if it counted seconds.
    LooksLikeSeconds,
    /// The time would be plausible if it counted milliseconds.
    LooksLikeMilliseconds,
    /// The time would be plausible if it counted nanoseconds.
    LooksLikeNanoseconds,
    /// The time names no zone.
    TimeZoneMissing,
}

impl Hint {
    /// Every hint, with its name.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::LooksLikeSeconds, "looks_like_seconds"),
        (Self::LooksLikeMilliseconds, "looks_like_milliseconds"),
        (Self::LooksLikeNanoseconds, "looks_like_nanoseconds"),
        (Self::TimeZoneMissing, "time_zone_missing"),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(hint, _)| *hint == self).map_or("?", |(_, name)| name)
    }

    /// The hint of a name; `None` when there is none of it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(hint, _)| *hint)
    }

    /// What to do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::LooksLikeSeconds => "the time looks like seconds; send microseconds since 1970",
            Self::LooksLikeMilliseconds => "the time looks like milliseconds; send microseconds since 1970",
            Self::LooksLikeNanoseconds => "the time looks like nanoseconds; send microseconds since 1970",
            Self::TimeZoneMissing => "the time names no zone; add `Z` or an offset such as `+01:00`",
        }
    }
}

/// Most are shared: then what they point to need not be compared.
fn are_alike<T: ?Sized>(one: Option<&Arc<T>>, other: Option<&Arc<T>>, is_same: impl Fn(&T, &T) -> bool) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || is_same(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// A refused record.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The record's position in its request.
    pub index: u32,
    /// Why.
    pub reason: Reason,
    /// The field at fault. A declared name, or one the producer itself sent: it is answered to the
    /// producer and goes nowhere else.
    pub field: Option<Arc<str>>,
    /// Where the record belongs.
    pub route: Option<Arc<Peer>>,
    /// The ids of the rules that determined it, where rules did.
    pub rules: Option<Arc<[String]>>,
    /// What the producer has most likely to change.
    pub hint: Option<Hint>,
}

impl Refusal {
    /// A refusal without a field or a route.
    #[must_use]
    pub fn new(index: u32, reason: Reason) -> Self {
        Self { index, reason, field: None, route: None, rules: None, hint: None }
    }

    /// Whether another record was refused for all the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self { index: _, reason, field, route, rules, hint } = self;
        let is_route = |one: &Peer, other: &Peer| one.id == other.id && one.endpoint == other.endpoint;
        *reason == other.reason
            && *hint == other.hint
            && are_alike(field.as_ref(), other.field.as_ref(), |one, other| one == other)
            && are_alike(rules.as_ref(), other.rules.as_ref(), |one, other| one == other)
            && are_alike(route.as_ref(), other.route.as_ref(), is_route)
    }
}
