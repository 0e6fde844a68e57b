//! What is counted and said of connections that are turned away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::connection::Turned;
use crate::engine::intake::Intake;

use super::speaker::Speaker;

/// Counts and names connections that are turned away.
pub(super) struct Watch {
    intake: Arc<Intake>,
}

impl Watch {
    pub(super) fn new(intake: Arc<Intake>) -> Self {
        Self { intake }
    }

    /// The monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.intake.now()
    }

    /// A connection is turned away.
    pub(super) fn turn_away(&self, why: Turned, address: SocketAddr, speaker: Option<&Speaker>) {
        self.intake.telemetry().turned_away.add(why);
        match speaker.and_then(Speaker::identity) {
            Some(identity) => {
                tracing::warn!(%address, %identity, reason = why.name(), "a connection was turned away: docs/security.md explains the reason");
            }
            None => {
                tracing::warn!(%address, reason = why.name(), "a connection was turned away: docs/security.md explains the reason")
            }
        }
    }
}
