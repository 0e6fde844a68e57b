//! All services on one listener.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::task::JoinHandle;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::intake::Intake;

use super::proto::DESCRIPTORS;
use super::proto::ingest::ingest_server::IngestServer;
use super::{Listener, flight, ingest};

/// A running server.
pub struct Server {
    task: JoinHandle<Result<(), tonic::transport::Error>>,
    health: HealthReporter,
}

/// Room for a request's frame around its payload: names, numbers, the tags.
const FRAME_BYTES: usize = 64 * 1024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A request of 256 records comes in one or two frames, not five; each connection may reserve one.
const FRAME: u32 = 64 << 10;

/// Serves until `shutdown` is ready, then lets open calls come to their end.
///
/// # Errors
/// When reflection cannot be built, which only broken descriptors cause.
pub async fn serve(
    listener: Listener,
    intake: Arc<Intake>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<Server> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    health.set_service_status("bailiwick.v1.Ingest", ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // A request over the limit is to be refused alone; only one far over it ends its call.
    let message_bytes_max = intake.limits().batch_bytes_max * 4 + FRAME_BYTES;
    let ingest =
        IngestServer::new(ingest::Service { intake: Arc::clone(&intake) }).max_decoding_message_size(message_bytes_max);
    let flight = FlightServiceServer::new(flight::Service { intake }).max_decoding_message_size(message_bytes_max);
    // hyper's own protections, which tonic switches off unless they are given.
    let router = tonic::transport::Server::builder()
        .max_concurrent_streams(100)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(64))
        .http2_max_header_list_size(8 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(ingest)
        .add_service(flight);
    let task = tokio::spawn(router.serve_with_incoming_shutdown(listener.connections(), shutdown));
    Ok(Server { task, health })
}

impl Server {
    /// What tells whoever asks for health.
    #[must_use]
    pub fn health(&self) -> Health {
        Health(self.health.clone())
    }

    /// Waits until all calls have ended, for at most `deadline`; then cuts them.
    pub async fn drain(mut self, deadline: Duration) {
        if tokio::time::timeout(deadline, &mut self.task).await.is_err() {
            tracing::warn!(
                "calls were still open at the deadline and are cut; their producers send again what was not answered"
            );
            self.task.abort();
        }
    }
}

/// Tells whoever asks for health.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Says whether the gateway serves.
    pub async fn set(&self, is_serving: bool) {
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.0.set_service_status("", status).await;
        self.0.set_service_status("bailiwick.v1.Ingest", status).await;
    }
}
