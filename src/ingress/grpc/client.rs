//! The producer's side of `Ingest`, as `bailiwick send` and `bailiwick bench` use it.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::ingress::proto::ingest::ingest_client::IngestClient;

/// The largest response taken: scores of the largest batch.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// How often a gateway is asked whether it is there, and how long it may take to say so. One that is frozen, or a network
/// that swallows everything, ends the connection then.
const ALIVE: Duration = Duration::from_secs(5);

/// Connects to a gateway.
///
/// # Errors
/// When the endpoint is no URI or nobody answers.
pub async fn connect(endpoint: &str) -> Result<IngestClient<Channel>, tonic::transport::Error> {
    Ok(IngestClient::new(channel(endpoint).await?).max_decoding_message_size(RESPONSE_BYTES_MAX))
}

/// A connection to a gateway.
///
/// # Errors
/// When the endpoint is no URI or nobody answers.
pub async fn channel(endpoint: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint =
        Endpoint::from_shared(endpoint.to_owned())?.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
    let endpoint = endpoint.http2_keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE).keep_alive_while_idle(true);
    endpoint.connect().await
}
