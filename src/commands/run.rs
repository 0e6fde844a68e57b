//! `bailiwick run`: serve until told to stop.

use std::path::Path;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, App};

use super::{Failure, load};

/// Runs a gateway until SIGTERM or SIGINT, then stops it. A second signal ends the process at once.
///
/// # Errors
/// When the configuration cannot be used, or the gateway cannot start.
pub async fn run(path: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    let listener = app::bind(&config).await?;
    let app = App::start(config, listener).await?;
    stop_signal().await?;
    tracing::info!("stopping");
    tokio::select! {
        () = app.stop() => {}
        result = stop_signal() => {
            result?;
            tracing::warn!("a second signal: stopping at once");
        }
    }
    tracing::info!("stopped");
    Ok(())
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
