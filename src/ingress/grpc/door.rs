//! The door: the handshake of a connection, how many one may have, how long they last, and what is counted and said of
//! those that do not get in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::domain::addresses::Network;
use crate::domain::connection::Turned;
use crate::engine::intake::Intake;
use crate::identity::{self, Acceptor, Identity};

use super::caps::{Cap, Inside};
use super::connection::{Connection, Deadline, Wire};
use super::guest::Guest;
use super::listener::Accepted;
use super::places::Place;
use super::rates::{OfAddresses, Turns};
use super::socket::Socket;
use super::speaker::Speaker;
use super::watch::Watch;

/// How connections prove who they are, and what they may have then.
pub struct Entrance {
    /// What does the handshakes.
    pub acceptor: Arc<Acceptor>,
    /// The most connections of one identity at a time.
    pub connections_per_identity_max: usize,
    /// How many handshakes there may be.
    pub handshakes: Handshakes,
    /// After about this time a connection is brought to its end, so that its client proves again who it is.
    pub connection_age_max: Duration,
    /// After about this time without a call a connection is brought to its end.
    pub connection_idle_max: Duration,
}

/// How many handshakes there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshakes {
    /// The most in progress of one network address.
    pub per_address_max: usize,
    /// The most that one network address may begin in a second.
    pub per_second_of_address_max: usize,
    /// The most that begin in a second; more wait.
    pub per_second_max: usize,
}

/// What connections come in through.
pub(super) struct Door {
    /// `None`: plain text.
    secured: Option<Secured>,
    watch: Arc<Watch>,
    intake: Arc<Intake>,
}

/// The door with a lock.
struct Secured {
    acceptor: Arc<Acceptor>,
    handshakes: Arc<Cap<Network>>,
    of_addresses: OfAddresses,
    turns: Turns,
    identities: Arc<Cap<String>>,
    age_max: Duration,
    idle_max: Duration,
}

/// Who came through the handshake.
struct Met {
    wire: Wire,
    speaker: Speaker,
    guest: Option<Guest>,
    life: Life,
}

/// Why somebody does not get in, and who it is where that is known. `None`: the client went by itself.
type Refused = Option<(Turned, Option<Speaker>)>;

/// A connection that came in. It is on no thread yet.
pub(super) struct Entered {
    wire: Wire,
    address: SocketAddr,
    watch: Arc<Watch>,
    deadline: Deadline,
    place: Arc<Place>,
    pub(super) speaker: Arc<Speaker>,
    /// What finds out who speaks on each call, where the connection does not say it.
    pub(super) guest: Option<Arc<Guest>>,
    /// `None`: it may last for ever.
    pub(super) life: Option<Life>,
}

impl Entered {
    /// The connection on the thread that this is called on, which serves it from now on.
    pub(super) fn here(&mut self) -> io::Result<()> {
        self.wire.arrive()
    }

    /// What turns it away after all.
    pub(super) fn turner(&self) -> impl Fn(Turned) + Send + use<> {
        let (watch, address, speaker) = (Arc::clone(&self.watch), self.address, Arc::clone(&self.speaker));
        move |why| watch.turn_away(why, address, Some(&speaker))
    }

    /// Its parts: the connection, who speaks on it, and how long it lasts.
    pub(super) fn into_parts(self) -> (Connection, Arc<Speaker>, Option<Arc<Guest>>, Option<Life>) {
        let Self { wire, address, watch, deadline, place, speaker, guest, life } = self;
        let connection = Connection::new(wire, address, watch, Arc::clone(&speaker), deadline, place);
        (connection, speaker, guest, life)
    }
}

/// How long a connection lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// After this it is asked to end, and its calls are, at their next request.
    pub(super) ends_in: Duration,
    /// After this it is cut.
    pub(super) cut_in: Duration,
    /// After about this time without a call it is asked to end, too.
    pub(super) idle_max: Duration,
}

/// How long a connection that is to end may take.
pub(super) const GRACE: Duration = Duration::from_secs(30);

impl Life {
    /// That of a connection whose proof ends in so many seconds. Which part of a tenth it lasts longer or shorter is chosen
    /// by chance, so that not all clients come back at once.
    fn new(age_max: Duration, idle_max: Duration, proof_ends_in: i64, chance: u8) -> Self {
        let proof_ends_in = Duration::from_secs(u64::try_from(proof_ends_in).unwrap_or(0));
        let shorter_by = age_max / 5 * u32::from(chance) / 255;
        let age = (age_max + age_max / 10).saturating_sub(shorter_by);
        // Whose proof ends soon is served for half of that time, and not sent away at once.
        let ends_in = age.min(proof_ends_in - GRACE.min(proof_ends_in / 2));
        Self { ends_in, cut_in: (ends_in + GRACE).min(proof_ends_in), idle_max }
    }
}

impl Door {
    pub(super) fn new(entrance: Option<Entrance>, intake: Arc<Intake>) -> Self {
        let secured = entrance.map(|entrance| Secured {
            acceptor: entrance.acceptor,
            handshakes: Cap::new(entrance.handshakes.per_address_max),
            of_addresses: OfAddresses::new(entrance.handshakes.per_second_of_address_max),
            turns: Turns::new(entrance.handshakes.per_second_max),
            identities: Cap::new(entrance.connections_per_identity_max),
            age_max: entrance.connection_age_max,
            idle_max: entrance.connection_idle_max,
        });
        Self { secured, watch: Arc::new(Watch::new(Arc::clone(&intake))), intake }
    }

    /// The monotonic clock.
    pub(super) fn clock(&self) -> impl Fn() -> Duration + Send + use<> {
        let watch = Arc::clone(&self.watch);
        move || watch.now()
    }

    /// So many connections are open now.
    pub(super) fn has(&self, connections: usize) {
        self.intake.telemetry().connections.store(connections as u64, Ordering::Relaxed);
    }

    /// Lets a connection in. `None`: it was turned away, or went.
    pub(super) async fn enter(self: Arc<Self>, accepted: Accepted) -> Option<Entered> {
        let Accepted { stream, address, place } = accepted;
        let watch = Arc::clone(&self.watch);
        let Some(place) = place.map(Arc::new) else {
            watch.turn_away(Turned::TooMany, address, None);
            return None;
        };
        let deadline = Deadline::from(watch.now());
        let socket = Socket::Away(stream);
        let Some(secured) = &self.secured else {
            let speaker = Arc::new(Speaker::anyone(address));
            let wire = Wire::Plain(socket);
            return Some(Entered { wire, address, watch, deadline, place, speaker, guest: None, life: None });
        };
        let met = tokio::select! {
            met = secured.meet(socket, address, &place, deadline, &self.intake) => met,
            () = place.told_to_end() => Err(Some((Turned::TooMany, None))),
            () = sleep(deadline.left(watch.now())) => Err(Some((Turned::TooSlow, None))),
        };
        match met {
            Ok(Met { wire, speaker, guest, life }) => {
                let (speaker, guest) = (Arc::new(speaker), guest.map(Arc::new));
                Some(Entered { wire, address, watch, deadline, place, speaker, guest, life: Some(life) })
            }
            Err(refused) => {
                if let Some((why, speaker)) = refused {
                    watch.turn_away(why, address, speaker.as_ref());
                }
                None
            }
        }
    }
}

impl Secured {
    /// Does the handshake, and looks whether there is room for who has come.
    async fn meet(
        &self,
        mut socket: Socket,
        address: SocketAddr,
        place: &Arc<Place>,
        deadline: Deadline,
        intake: &Intake,
    ) -> Result<Met, Refused> {
        let network = Network::of(address.ip());
        let Some(handshake) = self.handshakes.enter(network) else {
            return Err(Some((Turned::TooManyOfAddress, None)));
        };
        socket.arrive().map_err(|_| None)?;
        let turn = async {
            place.spoken();
            self.turn(network, deadline, intake).await?;
            place.answered(intake.now());
            Ok(())
        };
        let accepted = self.acceptor.accept(socket, turn).await;
        let identity::Accepted { mut stream, identity } = accepted.map_err(|why| why.map(|why| (why, None)))?;
        drop(handshake);
        place.answered(intake.now());
        stream.get_mut().0.leave().map_err(|_| None)?;
        let wire = Wire::Tls(Box::new(stream));
        let life = self.life(identity.as_ref(), intake);
        let Some(identity) = identity else {
            // Who it is will be said later. Until then its address stands for it.
            let Some(inside) = self.identities.enter(format!("{network:?}")) else {
                return Err(Some((Turned::TooManyOfAddress, None)));
            };
            let guest = Guest::new(Arc::clone(&self.acceptor), Arc::clone(&self.identities), inside, Arc::clone(place));
            return Ok(Met { wire, speaker: Speaker::unproved(address), guest: Some(guest), life });
        };
        let inside: Option<Inside<String>> = self.identities.enter(identity.to_string());
        let is_inside = inside.is_some();
        let speaker = Speaker::known(identity, address, inside, intake.budget());
        if !is_inside {
            return Err(Some((Turned::TooManyOfIdentity, Some(speaker))));
        }
        tokio::select! {
            () = place.proved() => Ok(Met { wire, speaker, guest: None, life }),
            () = sleep(deadline.left(intake.now())) => Err(Some((Turned::TooMany, Some(speaker)))),
        }
    }

    /// Waits until a handshake may begin, for which its client has said hello.
    async fn turn(&self, network: Network, deadline: Deadline, intake: &Intake) -> Result<(), Turned> {
        let now = intake.now();
        if !self.of_addresses.allow(network, now) {
            return Err(Turned::TooManyOfAddress);
        }
        match self.turns.next(now, deadline.left(now)) {
            Some(Duration::ZERO) => Ok(()),
            Some(wait) => {
                sleep(wait).await;
                Ok(())
            }
            None => Err(Turned::TooManyHandshakes),
        }
    }

    fn life(&self, identity: Option<&Identity>, intake: &Intake) -> Life {
        let mut chance = [0];
        // Without chance all last equally long.
        let _ = getrandom::fill(&mut chance);
        let [chance] = chance;
        let until = identity.map_or(i64::MAX, Identity::until);
        let proof_ends_in = until.saturating_sub(intake.wall_seconds());
        Life::new(self.age_max, self.idle_max, proof_ends_in, chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_lasts_about_as_long_as_it_may_and_no_longer_than_its_proof() {
        let hour = Duration::from_secs(3_600);
        let seconds = |life: Life| (life.ends_in.as_secs(), life.cut_in.as_secs());
        assert_eq!(seconds(Life::new(hour, hour, 1 << 40, 0)), (3_960, 3_990));
        assert_eq!(seconds(Life::new(hour, hour, 1 << 40, 255)), (3_240, 3_270));
        assert_eq!(seconds(Life::new(hour, hour, 600, 0)), (570, 600));
        assert_eq!(seconds(Life::new(hour, hour, 10, 0)), (5, 10));
        assert_eq!(seconds(Life::new(hour, hour, -10, 0)), (0, 0));
    }
}
