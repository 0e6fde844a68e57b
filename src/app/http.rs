//! One request over HTTP/1.1, and bodies within a limit: for what asks a gateway how it is, for witnesses and who asks them.

use std::future::poll_fn;
use std::pin::Pin;

use anyhow::{Context, bail};
use http::{Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends a request on a connection of its own. The answer, if it is no longer than `bytes_max`.
///
/// # Errors
/// When the connection breaks, or the answer is none of HTTP, too long, or no text.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<String>,
    bytes_max: usize,
) -> anyhow::Result<(StatusCode, String)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let response = sender.send_request(request).await.context("the answer is none of HTTP")?;
    let code = response.status();
    let body = String::from_utf8(read(response.into_body(), bytes_max).await?)?;
    drop(sender);
    driving.abort();
    Ok((code, body))
}

/// Reads a body that is no longer than `bytes_max`.
///
/// # Errors
/// When it is longer, or the connection breaks.
pub(crate) async fn read(mut body: Incoming, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > bytes_max {
            bail!("it is longer than {bytes_max} bytes");
        }
    }
    Ok(bytes)
}
