//! Arrow Flight `DoPut`: a stock Arrow client sends a table. The descriptor's path is the stream, the producer
//! and, if the table is to be safe to send again, an epoch: then the call's batches are numbered 1, 2, 3, ... in
//! it. Each record batch is answered by one `PutResult` whose metadata is JSON.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_data::ArrayData;
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

use crate::domain::outcome::{Outcome, Run};
use crate::domain::producer::Number;
use crate::domain::refusal::{Hint, Reason};
use crate::intake::{Intake, Origin, Records, Served};
use crate::telemetry::Telemetry;

use super::decode::{Decoded, Undecodable, arrow};
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
        let address = request.remote_addr().map(|address| address.ip());
        let mut data = request.into_inner().peekable();
        let descriptor = match Pin::new(&mut data).peek().await {
            Some(Ok(first)) => first.flight_descriptor.clone(),
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(Status::invalid_argument("the call holds no schema")),
        };
        let path = descriptor.map(|descriptor| descriptor.path).unwrap_or_default();
        let (stream, producer, epoch) = introduction(path).map_err(|rejection| rejection.status())?;
        if producer.is_empty() || producer.len() > 256 {
            return Err(Rejection::new(Reason::ProducerMissing, "name the producer, in at most 256 bytes").status());
        }
        let intake = Arc::clone(&self.intake);
        let served = intake
            .stream(&stream)
            .map_err(|reason| Rejection::new(reason, "no such stream is declared here").status())?;
        let origin = Origin { producer: &producer, address, number: None };
        let heard = intake.heard(&served.stream, origin, None).await;
        drop(heard.map_err(|unaccepted| Rejection::from(unaccepted).status())?);
        let batches =
            FlightRecordBatchStream::new_from_flight_data(data.map_err(|error| FlightError::Tonic(Box::new(error))));
        let next = epoch.map(|epoch| Number { epoch, sequence: 1 });
        let state = (intake, batches, stream, producer, next);
        let results = stream::try_unfold(state, move |(intake, mut batches, stream, producer, number)| async move {
            // Arrow's reader panics on some malformed lengths; such a call is ended like any malformed one.
            let batch = match AssertUnwindSafe(batches.next()).catch_unwind().await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(batch))) => batch,
                Ok(Some(Err(FlightError::Tonic(status)))) => return Err(*status),
                Ok(Some(Err(_))) | Err(_) => return Err(Rejection::from(arrow::malformed()).status()),
            };
            let served = intake.stream(&stream).map_err(|reason| Rejection::from(reason).status())?;
            let origin = Origin { producer: &producer, address, number };
            let result = put(&intake, served, origin, &batch).await.map_err(|rejection| rejection.status())?;
            let next = number.map(|Number { epoch, sequence }| Number { epoch, sequence: sequence + 1 });
            Ok(Some((result, (intake, batches, stream, producer, next))))
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

fn introduction(path: Vec<String>) -> Result<(String, String, Option<u64>), Rejection> {
    let invalid = |message| Rejection::new(Reason::ProducerMissing, message);
    let mut path = path.into_iter();
    let (Some(stream), Some(producer), epoch, None) = (path.next(), path.next(), path.next(), path.next()) else {
        return Err(invalid("the descriptor's path must be the stream, the producer and perhaps an epoch"));
    };
    let epoch = epoch.map(|epoch| epoch.parse::<u64>().ok().filter(|epoch| *epoch > 0));
    match epoch {
        Some(None) => {
            Err(invalid("the third part of the descriptor's path, the epoch, must be a whole number above 0"))
        }
        epoch => Ok((stream, producer, epoch.flatten())),
    }
}

/// The memory that a batch keeps. Columns that came in one message are parts of one allocation, which counts once.
fn held(batch: &RecordBatch) -> usize {
    let mut allocations = BTreeMap::new();
    let mut left: Vec<ArrayData> = batch.columns().iter().map(|column| column.to_data()).collect();
    while let Some(data) = left.pop() {
        let nulls = data.nulls().map(NullBuffer::buffer);
        let buffers = data.buffers().iter().chain(nulls);
        allocations.extend(buffers.map(|buffer| (buffer.data_ptr(), buffer.capacity())));
        left.extend(data.child_data().iter().cloned());
    }
    allocations.values().sum()
}

async fn put(
    intake: &Intake,
    served: &Served,
    origin: Origin<'_>,
    batch: &RecordBatch,
) -> Result<PutResult, Rejection> {
    let limits = intake.limits();
    let bytes = held(batch);
    if batch.num_rows() > limits.batch_rows_max {
        return Err(Undecodable::too_many_rows(limits.batch_rows_max).into());
    }
    if bytes > limits.batch_bytes_max {
        let message = format!("{bytes} bytes in one batch; the limit is {}", limits.batch_bytes_max);
        return Err(Rejection::new(Reason::TooLarge, message));
    }
    let budget = intake.room(bytes).await;
    Telemetry::add(&served.counts.bytes_in, bytes);
    let decoded = arrow::from_batch(&served.stream, batch)?;
    Telemetry::add(&served.counts.dropped_values, decoded.dropped as usize);
    let Decoded { candidate, dropped: dropped_values } = decoded;
    let records = Records { candidate, dropped_values, promised: None, wants_outputs: false };
    let placed = intake.take(served, origin, records, budget).await?;
    let is_duplicate = placed.is_duplicate();
    let taken = match intake.finish(placed).await.outcome {
        Outcome::Taken(taken) => taken,
        Outcome::Refused(refused) => return Err(Rejection::repeated(refused, is_duplicate)),
    };
    let refusals = taken.refusals.runs().iter().map(|Run { first, count, why }| {
        json!({
            "index": first,
            "count": count,
            "reason": why.reason.name(),
            "retryable": why.retryable(),
            "field": why.field.as_deref(),
            "hint": why.hint.map(Hint::name),
            "rules": why.rules.as_deref().unwrap_or_default(),
            "route": why.route.as_ref().map(|to| json!({ "gateway": to.gateway, "endpoint": to.endpoint })),
        })
    });
    let refusals: Vec<_> = refusals.collect();
    let answer = json!({
        "accepted": taken.accepted,
        "refusals": refusals,
        "dropped_values": taken.dropped_values,
        "duplicate": is_duplicate,
    });
    Ok(PutResult { app_metadata: answer.to_string().into() })
}
