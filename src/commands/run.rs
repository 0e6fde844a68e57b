//! `bailiwick run`: serve until told to stop.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{self, App, Changed, Reloaded, Stopped, Unopened};
use crate::egress::delivery::Backlog;
use crate::logging::{OPERATOR, Verbosity};

use super::{Failure, load_whole};

/// Runs a gateway until SIGTERM or SIGINT, or until a part of it cannot go on, then stops it. A second signal ends the
/// process at once. SIGHUP reads the policies again. SIGUSR1 lets the log say more, SIGUSR2 what it said at the start.
///
/// # Errors
/// When the configuration cannot be used, the gateway cannot start, a part of it could not go on, releases wait for a
/// destination, or a second signal ended the stop.
pub async fn run(path: &Path, verbosity: &Verbosity) -> Result<(), Failure> {
    // Before anything else: a signal that comes while the gateway starts must not kill it.
    let mut signals = Signals::listen()?;
    let config = load_whole(path)?;
    let listener = app::bind(&config).await?;
    let app = App::start(config, listener).await.map_err(|error| match error.is::<Unopened>() {
        true => Failure::Unopened(format!("{error:#}")),
        false => Failure::Other(error),
    })?;
    let failure = tokio::select! {
        () = serve(path, &app, &mut signals, verbosity) => None,
        failure = app.failed() => Some(failure.to_owned()),
    };
    tracing::info!("stopping");
    let stopped = tokio::select! {
        stopped = app.stop() => Some(stopped),
        () = signals.end() => {
            tracing::warn!("a second signal: stopping at once");
            None
        }
    };
    tracing::info!("stopped");
    if let Some(failure) = failure {
        return Err(Failure::Internal(failure));
    }
    let Some(Stopped { left, unwritten }) = stopped else {
        let message = "a second signal ended the stop: what was answered is in the journal, and releases may wait in the \
                       outbox; the next start goes on with both";
        return Err(Failure::Left(message.to_owned()));
    };
    if !unwritten.is_empty() {
        let message = format!(
            "{}. Put back what was removed or moved before the next start: it counts what the files hold, and nothing else",
            unwritten.join("; ")
        );
        return Err(Failure::Internal(message));
    }
    if left.is_empty() { Ok(()) } else { Err(Failure::Left(waiting(&left))) }
}

/// Names each destination that releases wait for, how many, and why.
fn waiting(left: &[Backlog]) -> String {
    let each = left.iter().map(|backlog| {
        let error = backlog.trouble.as_ref().map(|trouble| format!(": {}", trouble.error)).unwrap_or_default();
        format!("{} for `{}`{error}", backlog.releases, backlog.destination)
    });
    let each = each.collect::<Vec<_>>().join("; ");
    format!("releases wait in the outbox; the next start sends them: {each}")
}

/// How often registries and databases are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Until SIGTERM or SIGINT.
async fn serve(path: &Path, app: &App, signals: &mut Signals, verbosity: &Verbosity) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let Signals { terminate, interrupt, hang_up, more, as_before } = signals;
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hang_up.recv() => match app.reload(path).await {
                Ok(reloaded) => say(&reloaded),
                Err(error) => {
                    let advice = error.advice();
                    tracing::error!(target: OPERATOR, error = format!("{error:#}"), "the policies were not replaced; the last good ones stay: {advice}");
                }
            },
            _ = more.recv() => {
                let filter = verbosity.more();
                tracing::info!(target: OPERATOR, filter, "the log says more; SIGUSR2 ends that");
            }
            _ = as_before.recv() => {
                let filter = verbosity.as_before();
                tracing::info!(target: OPERATOR, filter, "the log says what it said at the start");
            }
            _ = looks.tick() => app.refresh().await,
        }
    }
}

fn say(Reloaded { policy, changed }: &Reloaded) {
    match changed {
        Changed::Policies => tracing::info!(%policy, "other policies are in force"),
        Changed::Beside => tracing::info!(
            %policy,
            "the same policies are in force, and gateway.toml names other peers, conditions, registries or databases"
        ),
        Changed::Shadow(Some(shadow)) => {
            tracing::info!(%policy, %shadow, "the same policies are in force, and others are in shadow");
        }
        Changed::Shadow(None) => {
            tracing::info!(%policy, "the same policies are in force, and none are in shadow any more")
        }
        Changed::Nothing => tracing::info!(%policy, "nothing has changed; the same policies are in force"),
    }
}

/// The signals that a gateway hears.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// SIGUSR1.
    more: Signal,
    /// SIGUSR2.
    as_before: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let hang_up = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
        let more = signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")?;
        let as_before = signal(SignalKind::user_defined2()).context("cannot wait for SIGUSR2")?;
        Ok(Self { terminate, interrupt, hang_up, more, as_before })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
