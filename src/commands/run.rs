//! `bailiwick run`: serve until told to stop.

use std::path::Path;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{self, App};

use super::{Failure, load};

/// Runs a gateway until SIGTERM or SIGINT, then stops it. A second signal ends the process at once.
///
/// # Errors
/// When the configuration cannot be used, or the gateway cannot start.
pub async fn run(path: &Path) -> Result<(), Failure> {
    // Before anything else: a signal that comes while the gateway starts must not kill it.
    let mut signals = Signals::listen()?;
    let config = load(path)?;
    let listener = app::bind(&config).await?;
    let app = App::start(config, listener).await?;
    signals.next().await;
    tracing::info!("stopping");
    tokio::select! {
        () = app.stop() => {}
        () = signals.next() => tracing::warn!("a second signal: stopping at once"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
