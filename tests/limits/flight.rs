//! Arrow Flight: calls that end badly on a connection that others use, dictionaries that gather.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions, StreamWriter};
use bailiwick::ingress::proto::ingest::PublishRequest;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::gateway::{Limited, beside_a_good_producer};
use super::payloads::{json_events, record, request};

type Ingest = bailiwick::ingress::proto::ingest::ingest_client::IngestClient<Channel>;

/// The first message of a call for a stream, with what else stands in it.
fn first(stream: &str, message: FlightData) -> FlightData {
    let path = vec![stream.to_owned(), "attacker".to_owned()];
    FlightData { flight_descriptor: Some(FlightDescriptor::new_path(path)), ..message }
}

/// A call of these messages. How it ended.
async fn put(client: &mut FlightServiceClient<Channel>, messages: Vec<FlightData>) -> Result<(), Status> {
    let mut answers = client.do_put(futures::stream::iter(messages)).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

/// Ten times as many as once ended a connection.
const CALLS: usize = 1_500;

/// A proxy has one connection for many clients: the calls of one that are refused end nothing of another one.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_refused_on_a_shared_connection_end_no_other_call() {
    let gateway = Limited::start("");
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address())).unwrap();
    let shared = endpoint.connect().await.unwrap();
    let (requests, mut answers) = {
        let (requests, sent) = tokio::sync::mpsc::channel::<PublishRequest>(1);
        requests.send(request("beside", json_events(&[record("p")]))).await.unwrap();
        let answers = Ingest::new(shared.clone()).publish(ReceiverStream::new(sent)).await.unwrap();
        (requests, answers.into_inner())
    };
    assert_eq!(answers.message().await.unwrap().unwrap().accepted, 1);
    let attack = async {
        // More of each is on its way when it is refused.
        let message = FlightData { data_body: Bytes::from_static(&[0; 10_000]), ..FlightData::default() };
        let calls = (0..CALLS).map(|_| {
            let mut client = FlightServiceClient::new(shared.clone());
            let mut messages = vec![first("nonsense", message.clone())];
            messages.extend(std::iter::repeat_n(message.clone(), 20));
            async move { put(&mut client, messages).await.unwrap_err() }
        });
        let refused: Vec<Status> = futures::stream::iter(calls).buffered(8).collect().await;
        assert!(refused.iter().all(|refused| refused.code() == Code::NotFound), "{refused:?}");
        requests.send(request("beside", json_events(&[record("p")]))).await.unwrap();
        answers.message().await.unwrap().unwrap().accepted
    };
    assert_eq!(beside_a_good_producer("refused calls on a shared connection", &gateway, attack).await, 1);
}

/// The messages of an Arrow stream in which a dictionary gets more words: the schema, a dictionary of one word, a batch,
/// another word for the dictionary, a batch.
fn growing(word_bytes: usize) -> Vec<FlightData> {
    let words = [word_bytes.to_string(), "x".repeat(word_bytes)];
    let batch = |words: &[String]| {
        let keys = (0..words.len()).map(|key| Some(i32::try_from(key).unwrap()));
        let values = Arc::new(StringArray::from_iter_values(words));
        let column: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(keys.collect(), values));
        RecordBatch::try_from_iter([("note", column)]).unwrap()
    };
    let options = IpcWriteOptions::default().with_dictionary_handling(DictionaryHandling::Delta);
    let all = batch(&words);
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &all.schema(), options).unwrap();
    writer.write(&batch(&words[..1])).unwrap();
    writer.write(&all).unwrap();
    let bytes = Bytes::from(writer.into_inner().unwrap());
    let (mut messages, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let metadata = bytes.slice(at + 8..at + 8 + length);
        if metadata.is_empty() {
            break;
        }
        let message = arrow_ipc::root_as_message(&metadata).unwrap();
        let body = usize::try_from(message.bodyLength()).unwrap();
        at += 8 + length;
        messages.push(FlightData {
            data_body: bytes.slice(at..at + body),
            data_header: metadata,
            ..FlightData::default()
        });
        at += body;
    }
    messages
}

/// Each message is small enough; what they add up to in one call is not.
#[tokio::test(flavor = "multi_thread")]
async fn dictionaries_that_gather_over_a_call() {
    let gateway = Limited::start("");
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address())).unwrap();
    let [schema, dictionary, _, delta, _] = <[FlightData; 5]>::try_from(growing(4 << 20)).unwrap();
    let attack = async {
        let calls = (0..4).map(|_| async {
            let mut client = FlightServiceClient::new(endpoint.connect().await.unwrap());
            let mut messages = vec![first("visits", schema.clone()), dictionary.clone()];
            messages.extend(std::iter::repeat_n(delta.clone(), 200));
            put(&mut client, messages).await
        });
        futures::future::join_all(calls).map(|ends| ends.into_iter().map(Result::unwrap_err).collect::<Vec<_>>()).await
    };
    for refused in beside_a_good_producer("dictionaries of 800 MiB in each of four calls", &gateway, attack).await {
        eprintln!("dictionaries: {:?}: {}", refused.code(), refused.message());
        assert!(refused.code() == Code::ResourceExhausted && !refused.message().is_empty(), "{refused}");
    }
}
