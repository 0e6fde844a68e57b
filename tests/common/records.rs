//! What a producer sends.

use bailiwick::clock::Clock;
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::cloudevents::cloud_event::Data;
use bailiwick::ingress::proto::cloudevents::{CloudEvent, CloudEventBatch};
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use jiff::Timestamp;
use prost::Message;
use tonic::{Response, Status};

/// Records as JSON in CloudEvents.
pub fn json_events<R: ToString>(records: impl IntoIterator<Item = R>) -> Payload {
    let event = |record: R| CloudEvent { data: Some(Data::TextData(record.to_string())), ..CloudEvent::default() };
    cloud_events(records.into_iter().map(event).collect())
}

/// CloudEvents as they are.
pub fn cloud_events(events: Vec<CloudEvent>) -> Payload {
    Payload::CloudEvents(CloudEventBatch { events }.encode_to_vec().into())
}

/// A request with records, without a number.
pub fn request(stream: &str, producer: &str, payload: Payload) -> PublishRequest {
    PublishRequest { payload: Some(payload), ..introduction(stream, producer) }
}

/// A request without records.
pub fn introduction(stream: &str, producer: &str) -> PublishRequest {
    PublishRequest { stream: stream.into(), producer: producer.into(), ..PublishRequest::default() }
}

/// Sends one request on a connection of its own.
pub async fn publish(endpoint: &str, request: PublishRequest) -> Result<PublishResponse, Status> {
    let mut client = client::connect(endpoint).await.unwrap();
    client.publish_once(request).await.map(Response::into_inner)
}

/// Sends one request in a call that could take more: an error of the request is in its answer.
pub async fn publish_in_a_call(endpoint: &str, request: PublishRequest) -> PublishResponse {
    let mut client = client::connect(endpoint).await.unwrap();
    let requests = tokio_stream::iter([request]);
    client.publish(requests).await.unwrap().into_inner().message().await.unwrap().unwrap()
}

/// The wall clock.
pub fn now() -> Timestamp {
    Timestamp::from_microsecond(Clock::start().wall()).unwrap()
}
