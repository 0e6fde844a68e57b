//! Arrow Flight `DoPut`: a stock Arrow client sends a table. The descriptor's path is the stream and the
//! producer; each record batch is answered by one `PutResult` whose metadata is JSON.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use serde_json::json;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::refusal::Reason;
use crate::intake::{Intake, Served};
use crate::telemetry::Telemetry;

use super::decode::{Undecodable, arrow};
use super::status::Rejection;

/// The service.
pub(super) struct Service {
    pub(super) intake: Arc<Intake>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn only_put<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this gateway takes records in by DoPut and gives none out"))
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Boxed<HandshakeResponse>;
    type ListFlightsStream = Boxed<FlightInfo>;
    type DoGetStream = Boxed<FlightData>;
    type DoPutStream = Boxed<PutResult>;
    type DoExchangeStream = Boxed<FlightData>;
    type DoActionStream = Boxed<arrow_flight::Result>;
    type ListActionsStream = Boxed<ActionType>;

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let mut data = request.into_inner().peekable();
        let descriptor = match Pin::new(&mut data).peek().await {
            Some(Ok(first)) => first.flight_descriptor.clone(),
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(Status::invalid_argument("the call holds no schema")),
        };
        let path = descriptor.map(|descriptor| descriptor.path).unwrap_or_default();
        let [stream, producer] = <[String; 2]>::try_from(path).map_err(|_| {
            let message = "the descriptor's path must be the stream and the producer";
            Rejection::new(Reason::ProducerMissing, message).status()
        })?;
        if producer.is_empty() || producer.len() > 256 {
            return Err(Rejection::new(Reason::ProducerMissing, "name the producer, in at most 256 bytes").status());
        }
        let intake = Arc::clone(&self.intake);
        let served = intake
            .stream(&stream)
            .map_err(|reason| Rejection::new(reason, "no such stream is declared here").status())?;
        intake.heard(&served.stream, &producer, None);
        let batches =
            FlightRecordBatchStream::new_from_flight_data(data.map_err(|error| FlightError::Tonic(Box::new(error))));
        let state = (intake, batches, stream, producer);
        let results = stream::try_unfold(state, |(intake, mut batches, stream, producer)| async move {
            // Arrow's reader panics on some malformed lengths; such a call is ended like any malformed one.
            let batch = match AssertUnwindSafe(batches.next()).catch_unwind().await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(batch))) => batch,
                Ok(Some(Err(FlightError::Tonic(status)))) => return Err(*status),
                Ok(Some(Err(_))) | Err(_) => return Err(Rejection::from(arrow::malformed()).status()),
            };
            let served = intake.stream(&stream).map_err(|reason| Rejection::from(reason).status())?;
            let result = put(&intake, served, &producer, &batch).await.map_err(|rejection| rejection.status())?;
            Ok(Some((result, (intake, batches, stream, producer))))
        });
        Ok(Response::new(Box::pin(results)))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        only_put()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        only_put()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        only_put()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        only_put()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        only_put()
    }

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        only_put()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        only_put()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        only_put()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        only_put()
    }
}

async fn put(intake: &Intake, served: &Served, producer: &str, batch: &RecordBatch) -> Result<PutResult, Rejection> {
    let limits = intake.limits();
    let bytes = batch.get_array_memory_size();
    if batch.num_rows() > limits.batch_rows_max {
        return Err(Undecodable::too_many_rows(limits.batch_rows_max).into());
    }
    if bytes > limits.batch_bytes_max {
        let message = format!("{bytes} bytes in one batch; the limit is {}", limits.batch_bytes_max);
        return Err(Rejection::new(Reason::TooLarge, message));
    }
    let _room = intake.room(bytes).await;
    Telemetry::add(&intake.telemetry().bytes_in, bytes);
    let decoded = arrow::from_batch(&served.stream, batch)?;
    Telemetry::add(&intake.telemetry().dropped_values, decoded.dropped as usize);
    let mut taken = intake.take(served, producer, decoded.candidate)?;
    intake.finish(&mut taken).await?;
    let refusals = taken.refusals.iter().map(|refusal| {
        json!({
            "index": refusal.index,
            "reason": refusal.reason.name(),
            "retryable": refusal.reason.retryable(),
            "field": refusal.field.as_deref(),
            "route": refusal.route.as_ref().map(|peer| json!({ "gateway": peer.id, "endpoint": peer.endpoint })),
        })
    });
    let refusals: Vec<_> = refusals.collect();
    let answer = json!({ "accepted": taken.accepted, "refusals": refusals, "dropped_values": decoded.dropped });
    Ok(PutResult { app_metadata: answer.to_string().into() })
}
