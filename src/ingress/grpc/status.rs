//! Refusals of a whole request as `google.rpc.Status`, with details.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use crate::domain::outcome::Refused;
use crate::domain::policy::Denied;
use crate::domain::producer::OutOfOrder;
use crate::domain::refusal::{Hint, Reason};
use crate::engine::budget;
use crate::engine::intake::Intake;
use crate::engine::request::Unaccepted;

use crate::decode::Undecodable;
use crate::ingress::proto::ingest;

const DOMAIN: &str = "bailiwick";
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a call holds of the budget, which the server put beside its request.
pub(super) fn held(intake: &Intake, extensions: &tonic::Extensions) -> Arc<budget::Call> {
    extensions.get::<Arc<budget::Call>>().cloned().unwrap_or_else(|| intake.budget().line().call())
}

/// A request refused as a whole.
#[derive(Clone)]
pub(super) struct Rejection {
    pub(super) reason: Reason,
    message: String,
    field: Option<String>,
    metadata: Option<(&'static str, String)>,
}

impl Rejection {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: None, metadata: None }
    }

    /// What is wrong, without contents.
    pub(super) fn text(&self) -> &str {
        &self.message
    }

    /// The field at fault, where there is one.
    pub(super) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The same with another message.
    pub(super) fn saying(self, message: String) -> Self {
        Self { message, ..self }
    }

    /// What is remembered of it.
    pub(super) fn refused(&self) -> Refused {
        Refused { reason: self.reason, field: self.field.as_deref().map(Arc::from) }
    }

    /// A request that was refused as a whole, or was when it came the first time.
    pub(super) fn repeated(refused: Refused, is_duplicate: bool) -> Self {
        let Refused { reason, field } = refused;
        let mut rejection = Self { field: field.map(|field| field.to_string()), ..reason.into() };
        // Other reasons are of the repeat itself.
        if is_duplicate && !reason.keeps_number() {
            rejection.message = format!(
                "a request with this number came before and was refused as {}; its number is spent, \
                 so send what was corrected under the next one",
                reason.name()
            );
        }
        rejection
    }

    fn code(&self) -> Code {
        match self.reason {
            Reason::UnknownStream => Code::NotFound,
            Reason::PermissionDenied => Code::PermissionDenied,
            Reason::TooManyRows
            | Reason::TooLarge
            | Reason::Overloaded
            | Reason::WindowsFull
            | Reason::TooManyProducers
            | Reason::TooManyWindows => Code::ResourceExhausted,
            Reason::Stopping | Reason::JournalFailing => Code::Unavailable,
            Reason::SequenceGap | Reason::EpochFenced => Code::FailedPrecondition,
            Reason::OutcomeUnknown | Reason::NumberReused => Code::AlreadyExists,
            Reason::ModelFailed | Reason::Internal => Code::Internal,
            _ => Code::InvalidArgument,
        }
    }

    fn details(&self) -> ErrorDetails {
        let reason = wire(self.reason).as_str_name();
        let metadata: HashMap<_, _> =
            self.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        if let Some(field) = &self.field {
            details.add_bad_request_violation(field, &self.message);
        }
        if self.reason.retryable() {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        details
    }

    /// The status of a call.
    pub(super) fn status(&self) -> Status {
        Status::with_error_details(self.code(), &self.message, self.details())
    }

    /// The same as a message, for a response.
    pub(super) fn message(&self) -> pb::Status {
        let status = self.status();
        // The details of a status are an encoded google.rpc.Status.
        prost::Message::decode(status.details()).unwrap_or_else(|_| pb::Status {
            code: self.code().into(),
            message: self.message.clone(),
            details: Vec::new(),
        })
    }
}

impl From<Undecodable> for Rejection {
    fn from(undecodable: Undecodable) -> Self {
        let Undecodable { reason, field, message } = undecodable;
        Self { reason, message, field: field.map(|field| field.to_string()), metadata: None }
    }
}

impl From<Denied> for Rejection {
    fn from(Denied { rule, why }: Denied) -> Self {
        Self { metadata: Some(("rule", rule.to_string())), ..Self::new(Reason::PermissionDenied, why) }
    }
}

impl From<Unaccepted> for Rejection {
    fn from(unaccepted: Unaccepted) -> Self {
        match unaccepted {
            Unaccepted::Refused(reason) => reason.into(),
            Unaccepted::Outrun => Self::new(
                Reason::Overloaded,
                "other requests of this producer took its place each time that it was tried; nothing of it was taken in, \
                 so send it again under the same number",
            ),
            Unaccepted::OutOfOrder(OutOfOrder::TooMany(limit)) => {
                Self::new(Reason::TooManyProducers, limit.to_string())
            }
            Unaccepted::OutOfOrder(OutOfOrder::Gap { expected }) => {
                let message = format!("the sequence leaves some out; {expected} is expected");
                Self { metadata: Some(("expected", expected.to_string())), ..Self::new(Reason::SequenceGap, message) }
            }
            Unaccepted::OutOfOrder(OutOfOrder::Fenced { epoch }) => {
                let message = format!("this producer has begun epoch {epoch}; begin a greater one to go on here");
                Self { metadata: Some(("epoch", epoch.to_string())), ..Self::new(Reason::EpochFenced, message) }
            }
        }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        let message = match reason {
            Reason::Stopping => "the gateway is being stopped; send to another one, or again later",
            Reason::Overloaded => "there is no room in the journal now; send it again later",
            Reason::WindowsFull => {
                "the open windows hold as many bytes as they may (`limits.open_windows_bytes_max`), or these records could \
                 add too many; send them again when windows have closed, or fewer at a time"
            }
            Reason::JournalFailing => "the journal cannot be written, so nothing can be made durable now",
            Reason::TooManyWindows => "other records opened windows far away meanwhile; send it again",
            Reason::OutcomeUnknown => {
                "this number was taken before; the gateway does not remember any more what its request came to"
            }
            Reason::NumberReused => {
                "this number was taken before by a request with other records; nothing of this one was taken in"
            }
            Reason::Internal => "a fault in the gateway; nothing of this request was taken in",
            Reason::ModelFailed => "the model failed on this batch; nothing of it was taken in",
            _ => reason.name(),
        };
        Self::new(reason, message)
    }
}

/// The reason on the wire.
pub(super) fn wire(reason: Reason) -> ingest::Reason {
    match reason {
        Reason::UnknownStream => ingest::Reason::UnknownStream,
        Reason::Malformed => ingest::Reason::Malformed,
        Reason::TooManyRows => ingest::Reason::TooManyRows,
        Reason::TooLarge => ingest::Reason::TooLarge,
        Reason::ProducerMissing => ingest::Reason::ProducerMissing,
        Reason::Overloaded => ingest::Reason::Overloaded,
        Reason::WindowsFull => ingest::Reason::WindowsFull,
        Reason::Stopping => ingest::Reason::Stopping,
        Reason::ModelFailed => ingest::Reason::ModelFailed,
        Reason::SequenceGap => ingest::Reason::SequenceGap,
        Reason::EpochFenced => ingest::Reason::EpochFenced,
        Reason::JournalFailing => ingest::Reason::JournalFailing,
        Reason::TooManyProducers => ingest::Reason::TooManyProducers,
        Reason::OutcomeUnknown => ingest::Reason::OutcomeUnknown,
        Reason::NumberReused => ingest::Reason::NumberReused,
        Reason::PermissionDenied => ingest::Reason::PermissionDenied,
        Reason::Internal => ingest::Reason::Internal,
        Reason::UndeclaredField => ingest::Reason::UndeclaredField,
        Reason::MissingField => ingest::Reason::MissingField,
        Reason::WrongType => ingest::Reason::WrongType,
        Reason::NotFinite => ingest::Reason::NotFinite,
        Reason::TooLong => ingest::Reason::TooLong,
        Reason::EventTimeInFuture => ingest::Reason::EventTimeInFuture,
        Reason::EventTimeTooOld => ingest::Reason::EventTimeTooOld,
        Reason::TooManyWindows => ingest::Reason::TooManyWindows,
        Reason::MalformedRecord => ingest::Reason::MalformedRecord,
        Reason::UnknownJurisdiction => ingest::Reason::UnknownJurisdiction,
        Reason::BelongsElsewhere => ingest::Reason::BelongsElsewhere,
        Reason::MayNotBeHere => ingest::Reason::MayNotBeHere,
        Reason::NoRegime => ingest::Reason::NoRegime,
        Reason::Quarantined => ingest::Reason::Quarantined,
    }
}

pub(super) fn wire_hint(hint: Option<Hint>) -> ingest::Hint {
    match hint {
        None => ingest::Hint::Unspecified,
        Some(Hint::LooksLikeSeconds) => ingest::Hint::LooksLikeSeconds,
        Some(Hint::LooksLikeMilliseconds) => ingest::Hint::LooksLikeMilliseconds,
        Some(Hint::LooksLikeNanoseconds) => ingest::Hint::LooksLikeNanoseconds,
        Some(Hint::TimeZoneMissing) => ingest::Hint::TimeZoneMissing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_others_outran_is_to_be_sent_again_under_its_number() {
        let rejection = Rejection::from(Unaccepted::Outrun);
        assert!(rejection.reason.retryable() && rejection.reason.keeps_number());
        let status = rejection.status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "REASON_OVERLOADED");
        assert!(status.message().contains("send it again under the same number"), "{}", status.message());
        assert!(status.get_error_details().retry_info().is_some());
    }
}
