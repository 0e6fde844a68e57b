//! A connection whose client showed no certificate: each of its calls says by a token who speaks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, header};

use crate::domain::connection::Turned;
use crate::engine::intake::Intake;
use crate::identity::{Acceptor, Set};

use super::speaker::Speaker;

/// What checks the tokens of a connection.
pub(super) struct Guest {
    acceptor: Arc<Acceptor>,
    /// Whether a token was believed.
    has_proved: AtomicBool,
    /// The token that was checked last: most clients send the same one for a while.
    last: Mutex<Option<Checked>>,
}

struct Checked {
    /// What it was checked by.
    set: Arc<Set>,
    token: String,
    speaker: Arc<Speaker>,
}

impl Guest {
    pub(super) fn new(acceptor: Arc<Acceptor>) -> Self {
        Self { acceptor, has_proved: AtomicBool::new(false), last: Mutex::default() }
    }

    /// Whether a token of one of its calls was believed.
    pub(super) fn has_proved(&self) -> bool {
        self.has_proved.load(Ordering::Relaxed)
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
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checked) = &*last
            && checked.token == token
            && Arc::ptr_eq(&checked.set, &set)
            && checked.speaker.identity().is_some_and(|identity| now < identity.until())
        {
            return Ok(Arc::clone(&checked.speaker));
        }
        let speaker = Arc::new(of_connection.with_token(set.check_token(token, now)?, intake.budget()));
        self.has_proved.store(true, Ordering::Relaxed);
        *last = Some(Checked { set, token: token.to_owned(), speaker: Arc::clone(&speaker) });
        Ok(speaker)
    }
}
