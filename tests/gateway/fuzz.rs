//! Ten thousand requests of rubbish over a real socket: each gets an answer, the gateway stays up, and a
//! good producer beside them is not disturbed.

use bailiwick::commands::send::{Input, Options, SharedTotals, epoch_now, publish, snapshot};
use bailiwick::ingress::grpc::client::Dialer;
use bailiwick::ingress::proto::cloudevents::CloudEvent;
use bailiwick::ingress::proto::cloudevents::cloud_event::Data;
use bailiwick::ingress::proto::ingest::PublishRequest;
use bailiwick::ingress::proto::ingest::publish_request::Payload;

use crate::common::records::{cloud_events, introduction, publish as introduced};
use crate::common::{self, TestGateway};

/// Splitmix64: the same rubbish every time.
struct Rubbish(u64);

impl Rubbish {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(300);
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// A good payload with some bytes changed, cut or repeated.
    fn spoil(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(8) {
            let position = self.below(bytes.len().max(1));
            match self.below(4) {
                0 => bytes.truncate(position),
                1 => bytes.extend_from_slice(&good[position.min(good.len())..]),
                _ => {
                    if let Some(byte) = bytes.get_mut(position) {
                        *byte = self.next() as u8;
                    }
                }
            }
        }
        bytes
    }
}

/// Protobuf rows of stream `deliveries`.
fn good_rows() -> Vec<u8> {
    let mut row = vec![0x08, 0x80, 0xa0, 0xb4, 0xa7, 0xaa, 0xe5, 0xba, 0x02];
    for (tag, text) in [(0x12, "r-1"), (0x1a, "DE"), (0x22, "UA"), (0x2a, "EWR")] {
        row.extend([tag, text.len() as u8]);
        row.extend(text.bytes());
    }
    for tag in [0x31, 0x39] {
        row.push(tag);
        row.extend(17.5_f64.to_le_bytes());
    }
    row.extend([0x40, 12, 0x48, 3]);
    let mut rows = Vec::new();
    for _ in 0..3 {
        rows.extend([0x0a, row.len() as u8]);
        rows.extend(&row);
    }
    rows
}

fn request(rubbish: &mut Rubbish, arrow: &[u8]) -> PublishRequest {
    const JSON: &str = r#"{"event_time":"2013-11-01T12:00:00Z","recipient":"r","country":"DE","carrier":"UA","origin":"EWR","distance":1,"dep_delay":3,"hour":1,"weekday":4}"#;
    let payload = match rubbish.below(7) {
        0 => Payload::Rows(rubbish.bytes().into()),
        1 => Payload::ArrowIpc(rubbish.bytes().into()),
        2 => Payload::Rows(rubbish.spoil(&good_rows()).into()),
        3 | 4 => Payload::ArrowIpc(rubbish.spoil(arrow).into()),
        5 => {
            let text = String::from_utf8_lossy(&rubbish.spoil(JSON.as_bytes())).into_owned();
            let event = CloudEvent { data: Some(Data::TextData(text)), ..Default::default() };
            cloud_events(vec![event])
        }
        _ => {
            let depth = rubbish.below(50_000);
            let nested = format!("{{\"distance\":{}", "[".repeat(depth));
            let event = CloudEvent { data: Some(Data::BinaryData(nested.into())), ..Default::default() };
            cloud_events(vec![event])
        }
    };
    let stream = if rubbish.below(50) == 0 { "\u{0}nonsense" } else { "deliveries" };
    PublishRequest {
        stream: stream.into(),
        producer: "rubbish".into(),
        epoch: rubbish.below(3) as u64,
        sequence: match rubbish.below(4) {
            0 => rubbish.next(),
            1 => rubbish.below(5) as u64,
            _ => 0,
        },
        want_scores: rubbish.below(2) == 0,
        payload: Some(payload),
        // The good producer's windows are not to close under it.
        complete_through: 0,
    }
}

fn good_arrow() -> Vec<u8> {
    use arrow_array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;
    let text = |text: &'static str| Arc::new(StringArray::from(vec![text; 4])) as arrow_array::ArrayRef;
    let columns: Vec<(&str, arrow_array::ArrayRef)> = vec![
        ("event_time", Arc::new(TimestampMicrosecondArray::from(vec![1_383_307_200_000_000; 4]).with_timezone("UTC"))),
        ("recipient", text("r-1")),
        ("country", text("DE")),
        ("carrier", text("UA")),
        ("origin", text("EWR")),
        ("distance", Arc::new(Float64Array::from(vec![1.5; 4]))),
        ("dep_delay", Arc::new(Float64Array::from(vec![1.5; 4]))),
        ("hour", Arc::new(Int64Array::from(vec![5; 4]))),
        ("weekday", Arc::new(Int64Array::from(vec![5; 4]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_of_rubbish_are_answered_and_disturb_nobody() {
    // `BAILIWICK_TEST_FUZZ` asks for another number.
    let asked = std::env::var("BAILIWICK_TEST_FUZZ").ok();
    let wanted: usize = asked.map_or(10_000, |asked| asked.parse().expect("BAILIWICK_TEST_FUZZ is a number"));
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let good = SharedTotals::default();
    let options = Options {
        dialer: Dialer::default(),
        endpoint: gateway.endpoint(),
        stream: "deliveries".into(),
        producer: "good".into(),
        follow: false,
        batch: 100,
        complete: false,
        epoch: epoch_now(),
        patience: std::time::Duration::from_secs(60),
    };
    let data = common::root().join("examples/delivery-eta/data.csv.gz");
    let totals = std::sync::Arc::clone(&good);
    // The stream waits for it from now on: no rubbish closes its windows before it has sent.
    introduced(&gateway.endpoint(), introduction("deliveries", "good")).await.unwrap();
    let beside = tokio::spawn(async move { publish(vec![Input::new(data, None).into()], &options, &totals).await });
    let mut client = gateway.client().await;
    let (mut rubbish, arrow) = (Rubbish(2026), good_arrow());
    let mut answers = 0;
    while answers < wanted {
        let requests: Vec<PublishRequest> = (0..100).map(|_| request(&mut rubbish, &arrow)).collect();
        let sent: Vec<u64> = requests.iter().map(|request| request.sequence).collect();
        let mut responses = client.publish(tokio_stream::iter(requests)).await.unwrap().into_inner();
        for sequence in sent {
            assert_eq!(responses.message().await.unwrap().unwrap().sequence, sequence);
            answers += 1;
        }
    }
    beside.await.unwrap().unwrap();
    let good = snapshot(&good);
    assert_eq!(good.read, good.accepted + good.refused_by_reason().values().sum::<u64>());
    assert_eq!(good.accepted, 9_403, "all records of the EEA, and no other");
    gateway.stop().await;
}
