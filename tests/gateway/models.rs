//! Models that give values that cannot be used: the records are refused, and nothing of them is answered or counted.

use bailiwick::app::App;
use bailiwick::domain::binary::hex;
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::output::Values;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse, Reason};
use prost::Message as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::common::folder::Folder;
use crate::common::laws::CLASSES;
use crate::common::{changed, gateway, records};
use crate::made::{bytes, node, number, of_one, tensor};

/// A gateway in a directory of its own, whose model says the logarithm of `x`: NaN below zero, -inf of zero.
struct Deployment(Folder);

const GATEWAY: &str = r#"
[gateway]
id       = "g-1"
country  = "DE"
serves   = ["law"]
policies = ["policy.toml", "regime.toml", "classes.toml"]

[listen]
grpc = "127.0.0.1:0"

[models]
log = "model.onnx"

[destinations.desk]
kind      = "file"
directory = "released"
"#;

const REGIME: &str = r#"
schema       = "bailiwick.regime/1"
id           = "law"
name         = "A law"
notice       = "For this test."
as_of        = 2026-01-01
review_by    = 2999-01-01
confidence   = "high"
sources      = ["this test"]
classes      = ["personal"]
localisation = "none"
misroute     = "refuse"

[[applies]]
fact = "gateway.country"
in   = ["DE"]

[[applies]]
fact = "subject.residence"
in   = ["DE"]

[[transfers]]
id    = "anything"
form  = "identifiable"
to    = ["any"]
basis = "for this test"
"#;

const POLICY: &str = r#"
schema = "bailiwick.policy/1"

[streams.s]
event_time  = "at"
history_from = "2026-01-01T00:00:00Z"
contributor = "who"
model       = "log"

[streams.s.facts]
"subject.residence" = [{ always = ["DE"], strength = 90 }]

[streams.s.fields]
at  = { type = "timestamp", class = "personal" }
who = { type = "string", class = "personal" }
x   = { type = "float64", class = "personal" }

[models.log]
sha256 = "SHA256"

[[models.log.inputs]]
name   = "x"
fields = ["x"]

[[models.log.outputs]]
name  = "y"
field = "y"
kind  = "score"
RANGE

[datasets.d]
stream  = "s"
window  = { size = "PT1M" }
metrics = [{ name = "records", fn = "count" }]

[destinations.desk]
country = "DE"
accepts = ["d"]
"#;

/// A model that looks `x` up in a table of two: a run with any other number in it fails.
fn table_of_two() -> Vec<u8> {
    let to_int64 = [bytes(1, b"to"), number(3, 7), number(20, 2)].concat();
    let table: Vec<u8> = [0.25_f32, 0.75].iter().flat_map(|value| value.to_le_bytes()).collect();
    let nodes = [node("Cast", &["x"], &["at"], &[to_int64]), node("Gather", &["table", "at"], &["y"], &[])];
    of_one(&nodes, &[tensor("table", &[2], 1, &table)])
}

impl Deployment {
    fn new(range: &str) -> Self {
        Self::of(&of_one(&[node("Log", &["x"], &["y"], &[])], &[]), range)
    }

    fn of(model: &[u8], range: &str) -> Self {
        let sha256 = hex(&Sha256::digest(model));
        let policy = changed(&changed(POLICY, "SHA256", &sha256), "RANGE", range);
        let files =
            [("gateway.toml", GATEWAY), ("regime.toml", REGIME), ("policy.toml", &policy), ("classes.toml", CLASSES)];
        let folder = Folder::holding(files);
        folder.write("model.onnx", model);
        Self(folder)
    }

    async fn start(&self) -> App {
        self.0.start_app(|_| {}).await.unwrap()
    }
}

/// A request with records of these values.
fn request(values: &[f64]) -> PublishRequest {
    let record = |x: &f64| json!({ "at": "2026-01-01T00:00:00Z", "who": "w", "x": x });
    let payload = records::json_events(values.iter().map(record));
    PublishRequest { want_scores: true, ..records::request("s", "p", payload) }
}

async fn publish(app: &App, request: PublishRequest) -> Result<PublishResponse, Status> {
    records::publish(&gateway::endpoint(app), request).await
}

/// Sends records of these values: what was taken in and answered, and whether any were refused, alone or with the request.
async fn send(app: &App, values: &[f64]) -> (u32, usize, bool) {
    match publish(app, request(values)).await {
        Ok(response) => {
            let answered = response.outputs.iter().map(|output| output.encoded_len()).sum();
            (response.accepted, answered, !response.refusals.is_empty())
        }
        Err(status) => {
            let reason = status.get_details_error_info().unwrap().reason;
            assert_eq!(reason, "REASON_MODEL_FAILED");
            (0, 0, true)
        }
    }
}

const REFUSED: (u32, usize, bool) = (0, 0, true);

#[tokio::test(flavor = "multi_thread")]
async fn a_score_that_cannot_be_used_is_neither_answered_nor_counted() {
    let deployment = Deployment::new("range = [-1, 1]");
    let app = deployment.start().await;
    let (accepted, answered, refused) = send(&app, &[1.0, 2.0]).await;
    assert!(accepted == 2 && answered > 0 && !refused);
    // NaN, minus infinity, beyond the range.
    for x in [-1.0, 0.0, 1e9] {
        assert_eq!(send(&app, &[x]).await, REFUSED, "{x}");
    }
    let (accepted, _, refused) = send(&app, &[1.0]).await;
    assert_eq!((accepted, refused), (1, false));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_score_cannot_be_used_is_refused_alone_and_a_repeat_is_told_the_same() {
    let deployment = Deployment::new("range = [-1, 1]");
    let app = deployment.start().await;
    let request = PublishRequest { epoch: 1, sequence: 1, ..request(&[1.0, -1.0, 2.0, 1e9, 0.0]) };
    let first = publish(&app, request.clone()).await.unwrap();
    let refused = |response: &PublishResponse| -> Vec<(u32, u32, Reason)> {
        response.refusals.iter().map(|refusal| (refusal.index, refusal.count, refusal.reason())).collect()
    };
    let expected = vec![(1, 1, Reason::ModelFailed), (3, 2, Reason::ModelFailed)];
    assert_eq!((first.accepted, refused(&first)), (2, expected.clone()));
    let Some(Values::Scores(scores)) = &first.outputs[0].values else { panic!("no scores") };
    assert_eq!(scores.values.len(), 2, "of the records that were taken in");
    let again = publish(&app, request.clone()).await.unwrap();
    assert_eq!((again.accepted, refused(&again), again.duplicate), (2, expected.clone(), true));
    app.stop().await;
    let app = deployment.start().await;
    let again = publish(&app, request).await.unwrap();
    assert_eq!((again.accepted, refused(&again), again.duplicate), (2, expected, true), "after a restart");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_moved_into_the_range_where_the_policy_says_so() {
    let deployment = Deployment::new("range = [-1, 1]\noutside_range = \"clamp\"");
    let app = deployment.start().await;
    let (accepted, answered, refused) = send(&app, &[0.0, 1e9]).await;
    assert!(accepted == 2 && answered > 0 && !refused);
    // What is no number is moved nowhere.
    assert_eq!(send(&app, &[-1.0]).await, REFUSED);
    app.stop().await;
}

/// Whoever shares a batch with it, and however often the runs of the batch fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_model_fails_on_is_refused_alone() {
    let deployment = Deployment::of(&table_of_two(), "range = [0, 1]");
    let app = deployment.start().await;
    let client = client::connect(&gateway::endpoint(&app)).await.unwrap();
    let all_bad = vec![7.0; 200];
    let mut sending = Vec::new();
    for at in 0..400 {
        let values = match at % 8 {
            0 => all_bad.clone(),
            1 => vec![9.0],
            2 => vec![0.0, 9.0, 1.0, 1.0, 5.0],
            _ => vec![f64::from(at % 2)],
        };
        let (mut client, request) = (client.clone(), request(&values));
        sending.push(tokio::spawn(async move { (values, client.publish_once(request).await) }));
    }
    for sent in sending {
        let (values, answer) = sent.await.unwrap();
        let good = values.iter().filter(|value| **value < 2.0).count();
        if good == 0 {
            let reason = answer.unwrap_err().get_details_error_info().unwrap().reason;
            assert_eq!(reason, "REASON_MODEL_FAILED");
            continue;
        }
        let answer = answer.unwrap().into_inner();
        let refused: u32 = answer.refusals.iter().map(|refusal| refusal.count).sum();
        assert_eq!((answer.accepted as usize, refused as usize), (good, values.len() - good), "{values:?}");
        let Some(Values::Scores(scores)) = &answer.outputs[0].values else { panic!("no scores") };
        let expected = values.iter().filter(|value| **value < 2.0).map(|value| if *value < 1.0 { 0.25 } else { 0.75 });
        assert_eq!(scores.values, expected.collect::<Vec<f32>>());
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_runtime_says_of_a_record_is_told_to_nobody() {
    let deployment = Deployment::of(&table_of_two(), "");
    let gateway = deployment.0.spawn();
    let refused = records::publish(gateway.endpoint(), request(&[31_337.0])).await;
    let log = gateway.wait_for("could not be scored", 1);
    assert!(log.contains("model `log`"), "{log}");
    let told = format!("{refused:?}\n{}", gateway.log().join("\n"));
    assert!(!told.contains("31337"), "{told}");
}
