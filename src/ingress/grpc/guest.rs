//! A connection whose client showed no certificate: each of its calls says by a token who speaks.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, header};

use crate::domain::connection::Turned;
use crate::engine::intake::Intake;
use crate::identity::{Acceptor, Identity, Set};

use super::caps::{Cap, Inside};
use super::places::Place;
use super::speaker::Speaker;

/// What checks the tokens of a connection.
pub(super) struct Guest {
    acceptor: Arc<Acceptor>,
    /// How many connections each identity has.
    identities: Arc<Cap<String>>,
    /// The connection's place.
    place: Arc<Place>,
    state: Mutex<State>,
}

struct State {
    /// Where the connection counts: as one of its address, and from the first token that is believed as one of the identity
    /// of the last such token.
    inside: Inside<String>,
    /// The token that was checked last: most clients send the same one for a while.
    last: Option<Checked>,
}

struct Checked {
    /// What it was checked by.
    set: Arc<Set>,
    token: String,
    speaker: Arc<Speaker>,
}

impl Guest {
    /// That of a connection which counts as one of its address until a token is believed.
    pub(super) fn new(
        acceptor: Arc<Acceptor>,
        identities: Arc<Cap<String>>,
        inside: Inside<String>,
        place: Arc<Place>,
    ) -> Self {
        Self { acceptor, identities, place, state: Mutex::new(State { inside, last: None }) }
    }

    /// Whether a token of one of its calls was believed.
    pub(super) fn has_proved(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).last.is_some()
    }

    /// Comes when the connection is to end, because it has not proved who it is and another one has to have its place.
    pub(super) async fn told_to_end(&self) {
        self.place.told_to_end().await;
    }

    /// Who speaks on a call of the connection.
    pub(super) fn speaker(
        &self,
        of_connection: &Speaker,
        headers: &HeaderMap,
        intake: &Intake,
    ) -> Result<Arc<Speaker>, Turned> {
        let mut tokens = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(token), None) = (tokens.next(), tokens.next()) else { return Err(Turned::TokenMissing) };
        let token = token.to_str().map_err(|_| Turned::TokenMalformed)?;
        let (scheme, token) = token.split_once(' ').ok_or(Turned::TokenMissing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Turned::TokenMissing);
        }
        let (set, now) = (self.acceptor.set(), intake.wall_seconds());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checked) = &state.last
            && checked.token == token
            && Arc::ptr_eq(&checked.set, &set)
            && checked.speaker.identity().is_some_and(|identity| now < identity.until())
        {
            return Ok(Arc::clone(&checked.speaker));
        }
        let identity = set.check_token(token, now)?;
        let before = state.last.as_ref().and_then(|checked| checked.speaker.identity());
        if before.map(Identity::as_str) != Some(identity.as_str()) {
            let inside = self.identities.enter(identity.to_string()).ok_or(Turned::TooManyOfIdentity)?;
            if before.is_none() && !self.place.try_proved() {
                return Err(Turned::TooMany);
            }
            state.inside = inside;
        }
        let speaker = Arc::new(of_connection.with_token(identity, intake.budget()));
        state.last = Some(Checked { set, token: token.to_owned(), speaker: Arc::clone(&speaker) });
        Ok(speaker)
    }
}
