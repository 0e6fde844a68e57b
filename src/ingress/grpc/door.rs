//! The door: the handshake of a connection, how many one may have, how long they last, and what is counted and said of
//! those that do not get in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::domain::addresses::Network;
use crate::domain::connection::Turned;
use crate::engine::intake::Intake;
use crate::identity::{self, Acceptor, Identity};

use super::caps::{Cap, Inside};
use super::connection::{Connection, Deadline, Wire};
use super::guest::Guest;
use super::listener::Arrived;
use super::speaker::Speaker;
use super::watch::Watch;

/// How connections prove who they are, and what they may have then.
pub struct Entrance {
    /// What does the handshakes.
    pub acceptor: Arc<Acceptor>,
    /// The most connections of one identity at a time.
    pub connections_per_identity_max: usize,
    /// The most handshakes in progress of one network address.
    pub handshakes_per_address_max: usize,
    /// After about this time a connection is brought to its end, so that its client proves again who it is.
    pub connection_age_max: Duration,
}

/// What connections come in through.
pub(super) struct Door {
    /// `None`: plain text.
    entrance: Option<Entrance>,
    handshakes: Arc<Cap<Network>>,
    identities: Arc<Cap<String>>,
    watch: Arc<Watch>,
    intake: Arc<Intake>,
}

/// A connection that came in.
pub(super) struct Entered {
    pub(super) connection: Connection,
    pub(super) speaker: Arc<Speaker>,
    /// What finds out who speaks on each call, where the connection does not say it.
    pub(super) guest: Option<Arc<Guest>>,
    /// `None`: it may last for ever.
    pub(super) life: Option<Life>,
}

/// How long a connection lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// After this it is asked to end, and its calls are, at their next request.
    pub(super) ends_in: Duration,
    /// After this it is cut.
    pub(super) cut_in: Duration,
}

/// How long a connection that is to end may take.
const GRACE: Duration = Duration::from_secs(30);

impl Life {
    /// That of a connection whose proof ends in so many seconds. Which part of a tenth it lasts longer or shorter is chosen
    /// by chance, so that not all clients come back at once.
    fn new(age_max: Duration, proof_ends_in: i64, chance: u8) -> Self {
        let proof_ends_in = Duration::from_secs(u64::try_from(proof_ends_in).unwrap_or(0));
        let shorter_by = age_max / 5 * u32::from(chance) / 255;
        let age = (age_max + age_max / 10).saturating_sub(shorter_by);
        // Whose proof ends soon is served for half of that time, and not sent away at once.
        let ends_in = age.min(proof_ends_in - GRACE.min(proof_ends_in / 2));
        Self { ends_in, cut_in: (ends_in + GRACE).min(proof_ends_in) }
    }
}

impl Door {
    pub(super) fn new(entrance: Option<Entrance>, intake: Arc<Intake>) -> Self {
        let caps = entrance
            .as_ref()
            .map(|entrance| (entrance.handshakes_per_address_max, entrance.connections_per_identity_max));
        let (per_address, per_identity) = caps.unwrap_or_default();
        let (handshakes, identities) = (Cap::new(per_address), Cap::new(per_identity));
        Self { entrance, handshakes, identities, watch: Arc::new(Watch::new(Arc::clone(&intake))), intake }
    }

    /// So many connections are open now.
    pub(super) fn has(&self, connections: usize) {
        self.intake.telemetry().connections.store(connections as u64, Ordering::Relaxed);
    }

    /// Lets a connection in. `None`: it was turned away, or went.
    pub(super) async fn enter(&self, arrived: Arrived) -> Option<Entered> {
        let Arrived { stream, address, slot } = arrived;
        let mut deadline = Deadline::start();
        let turn_away = |why, speaker: Option<&Speaker>| self.watch.turn_away(why, address, speaker);
        let (wire, speaker, guest, life) = match &self.entrance {
            None => (Wire::Plain(stream), Speaker::anyone(), None, None),
            Some(entrance) => {
                let Some(handshake) = self.handshakes.enter(Network::of(address.ip())) else {
                    turn_away(Turned::TooManyOfAddress, None);
                    return None;
                };
                let accepted = tokio::select! {
                    accepted = entrance.acceptor.accept(stream) => accepted,
                    () = deadline.passed() => Err(Some(Turned::TooSlow)),
                };
                drop(handshake);
                let identity::Accepted { stream, identity } = match accepted {
                    Ok(accepted) => accepted,
                    Err(why) => {
                        why.into_iter().for_each(|why| turn_away(why, None));
                        return None;
                    }
                };
                let life = Some(self.life(entrance, identity.as_ref()));
                let wire = Wire::Tls(Box::new(stream));
                match identity {
                    Some(identity) => {
                        let inside: Option<Inside<String>> = self.identities.enter(identity.to_string());
                        let is_inside = inside.is_some();
                        let speaker = Speaker::known(identity, inside, self.intake.budget());
                        if !is_inside {
                            turn_away(Turned::TooManyOfIdentity, Some(&speaker));
                            return None;
                        }
                        (wire, speaker, None, life)
                    }
                    None => {
                        // Who it is will be said later. Until then its address stands for it.
                        let Some(inside) = self.identities.enter(format!("{:?}", Network::of(address.ip()))) else {
                            turn_away(Turned::TooManyOfAddress, None);
                            return None;
                        };
                        let guest = Guest::new(Arc::clone(&entrance.acceptor));
                        (wire, Speaker::unproved(inside), Some(Arc::new(guest)), life)
                    }
                }
            }
        };
        let speaker = Arc::new(speaker);
        let watch = (Arc::clone(&self.watch), Arc::clone(&speaker));
        let connection = Connection::new(wire, address, watch, deadline, slot);
        Some(Entered { connection, speaker, guest, life })
    }

    fn life(&self, entrance: &Entrance, identity: Option<&Identity>) -> Life {
        let mut chance = [0];
        // Without chance all last equally long.
        let _ = getrandom::fill(&mut chance);
        let [chance] = chance;
        let until = identity.map_or(i64::MAX, Identity::until);
        let proof_ends_in = until.saturating_sub(self.intake.wall_seconds());
        Life::new(entrance.connection_age_max, proof_ends_in, chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_lasts_about_as_long_as_it_may_and_no_longer_than_its_proof() {
        let hour = Duration::from_secs(3_600);
        let seconds = |life: Life| (life.ends_in.as_secs(), life.cut_in.as_secs());
        assert_eq!(seconds(Life::new(hour, 1 << 40, 0)), (3_960, 3_990));
        assert_eq!(seconds(Life::new(hour, 1 << 40, 255)), (3_240, 3_270));
        assert_eq!(seconds(Life::new(hour, 600, 0)), (570, 600));
        assert_eq!(seconds(Life::new(hour, 10, 0)), (5, 10));
        assert_eq!(seconds(Life::new(hour, -10, 0)), (0, 0));
    }
}
