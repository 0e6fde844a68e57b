//! A client below gRPC: messages that are never whole, streams that are never read.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use tokio::net::TcpStream;

use super::gateway::Limited;

/// One HTTP/2 connection.
pub(super) struct Raw {
    requests: SendRequest<Bytes>,
}

/// One call.
pub(super) struct Call {
    pub(super) send: SendStream<Bytes>,
    response: ResponseFuture,
}

/// How a call ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// With a gRPC status: its code and message.
    Status(String, String),
    /// The stream was reset, or the connection closed.
    Cut,
}

impl Raw {
    pub(super) async fn connect(gateway: &Limited) -> Self {
        let socket = TcpStream::connect(gateway.address()).await.unwrap();
        let (requests, connection) =
            h2::client::Builder::new().initial_window_size(65_535).handshake::<_, Bytes>(socket).await.unwrap();
        tokio::spawn(async move { connection.await.unwrap_or(()) });
        Self { requests }
    }

    /// Begins a call of a method of `Ingest`; `None` when the gateway does not take another one.
    pub(super) async fn call(&self, method: &str) -> Option<Call> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://gateway/bailiwick.v1.Ingest/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, send) = self.requests.clone().ready().await.ok()?.send_request(request, false).ok()?;
        Some(Call { send, response })
    }
}

impl Raw {
    /// Sends one message of `PublishOnce` and waits for its end.
    pub(super) async fn publish_once(&self, message: &[u8]) -> End {
        let Some(mut call) = self.call("PublishOnce").await else { return End::Cut };
        if call.push(head(message.len())).await && call.push(Bytes::copy_from_slice(message)).await {
            // What is refused early is not taken to its end.
            let _ = call.send.send_data(Bytes::new(), true);
        }
        call.end().await
    }
}

impl Call {
    /// Sends bytes as fast as they are taken. Whether all were.
    pub(super) async fn push(&mut self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len().min(64 << 10));
            let room = std::future::poll_fn(|context| self.send.poll_capacity(context)).await;
            let Some(Ok(room)) = room else { return false };
            let now = bytes.split_to(room.min(bytes.len()));
            if self.send.send_data(now, false).is_err() {
                return false;
            }
        }
        true
    }

    /// Reads the answer to its end.
    pub(super) async fn end(self) -> End {
        let Ok(response) = self.response.await else { return End::Cut };
        let (parts, mut body) = response.into_parts();
        if parts.headers.contains_key("grpc-status") {
            return status(&parts.headers);
        }
        trailers(&mut body).await.map_or(End::Cut, |trailers| status(&trailers))
    }
}

async fn trailers(body: &mut RecvStream) -> Option<HeaderMap> {
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        body.flow_control().release_capacity(data.len()).ok()?;
    }
    body.trailers().await.ok()?
}

fn status(headers: &HeaderMap) -> End {
    let text = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap_or("")).to_owned();
    End::Status(text("grpc-status"), text("grpc-message"))
}

/// The head of a gRPC message of so many bytes.
pub(super) fn head(bytes: usize) -> Bytes {
    let mut head = vec![0];
    head.extend(u32::try_from(bytes).unwrap().to_be_bytes());
    head.into()
}
