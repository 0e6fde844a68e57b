//! What a send says while it runs: a bar on a terminal, and lines on stderr.

use std::io::{self, Write};
use std::sync::PoisonError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::domain::printable;

use super::totals::{SharedTotals, Totals, Waiting};

/// A wait that is shorter is not mentioned where there is no bar.
const MENTIONED: Duration = Duration::from_secs(1);

/// Stderr, with a bar if it is a terminal.
#[derive(Clone)]
pub(super) struct Screen(ProgressBar);

impl Screen {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {pos} records  {per_sec}  {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self(ProgressBar::new_spinner().with_style(style))
    }

    /// Says what is being read before anything is sent.
    pub(super) fn reading(&self, name: &str) {
        self.0.set_message(format!("reading {}", printable::line(name)));
        self.0.tick();
    }

    /// Writes a line.
    pub(super) fn say(&self, line: &str) {
        // Nothing can be done about a stderr that is closed.
        let write = || writeln!(io::stderr(), "bailiwick: {}", printable::line(line));
        let _ = self.0.suspend(write);
    }

    /// Shows how the totals grow, until it is dropped.
    pub(super) async fn show(self, totals: SharedTotals) {
        let mut interval = tokio::time::interval(Duration::from_millis(100));
        let mut mentioned = None;
        loop {
            interval.tick().await;
            let now = self.catch_up(&totals);
            self.0.set_position(now.read);
            self.0.set_message(message(&now));
            if self.0.is_hidden() {
                self.mention(now.waiting, now.given_up.as_deref(), &mut mentioned);
            }
        }
    }

    /// Says what is to be said.
    pub(super) fn catch_up(&self, totals: &SharedTotals) -> Totals {
        let now = {
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            let notices = std::mem::take(&mut totals.notices);
            Totals { notices, ..totals.clone() }
        };
        now.notices.iter().for_each(|notice| self.say(notice));
        now
    }

    fn mention(&self, waiting: Option<Waiting>, given_up: Option<&str>, mentioned: &mut Option<Waiting>) {
        match (waiting, mentioned.take()) {
            (None, None) => {}
            (None, Some(known)) if given_up == Some(&known.whom) => {}
            (None, Some(known)) => self.say(&format!("{} answers now", known.whom)),
            (Some(waiting), Some(known)) if waiting.whom == known.whom && waiting.patience == known.patience => {
                *mentioned = Some(known)
            }
            (Some(waiting), _) if waiting.since.now() < MENTIONED => {}
            (Some(waiting), _) => {
                let Waiting { whom, why, patience, .. } = &waiting;
                let most = patience.map(|patience| format!(", for at most {} s", patience.as_secs()));
                self.say(&format!("waiting for {whom}{}: {why}", most.unwrap_or_default()));
                *mentioned = Some(waiting);
            }
        }
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn message(totals: &Totals) -> String {
    let message = match &totals.waiting {
        Some(Waiting { whom, why, since, patience }) => {
            let most = patience.map(|patience| format!(" of {}", patience.as_secs()));
            format!("waiting for {whom}, {}{} s: {why}", since.now().as_secs(), most.unwrap_or_default())
        }
        None => {
            let refused = totals.refused_by_reason();
            refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join("  ")
        }
    };
    printable::line(&message).into_owned()
}
