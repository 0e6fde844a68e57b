//! Who may do what: names are the identity's, streams are allowed by rules, and a reload counts at once.

use bailiwick::app::App;
use bailiwick::clock::Clock;
use bailiwick::config::Config;
use bailiwick::ingress::grpc::client::Dialer;
use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::{RpcStatusExt, StatusExt};

use crate::common::certs::{Authority, deployment, dialer, till};
use crate::common::folder::Folder;
use crate::common::process::Process;
use crate::common::records::{introduction, json_events, now, request};

struct World {
    authority: Authority,
    folder: Folder,
    app: App,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let authority = Authority::new("root");
        let folder = deployment(&authority);
        let app = folder.start_app(change).await.unwrap();
        Self { authority, folder, app }
    }

    fn dialer(&self, identity: &str) -> Dialer {
        let name = identity.replace(['/', ':'], "_");
        dialer(&self.folder, &name, Some(&self.authority.client(identity, |_| {})))
    }

    async fn client(&self, identity: &str) -> IngestClient<Channel> {
        let endpoint = format!("https://localhost:{}", self.app.address().port());
        self.dialer(identity).connect(&endpoint).await.unwrap()
    }

    async fn publish(&self, identity: &str, request: PublishRequest) -> Result<PublishResponse, Status> {
        self.client(identity).await.publish_once(request).await.map(tonic::Response::into_inner)
    }
}

const OFFICE: &str = "spiffe://corp.example/office";

fn record() -> PublishRequest {
    let record = json!({ "at": now().to_string(), "user": "u", "country": "FR", "kind": "view", "value": 1.0 });
    request("events", "", json_events([record]))
}

fn rule(status: &Status) -> (Code, String, String) {
    let info = status.get_error_details().error_info().cloned().unwrap();
    (status.code(), info.reason, info.metadata.get("rule").cloned().unwrap_or_default())
}

fn denied(rule: &str) -> (Code, String, String) {
    (Code::PermissionDenied, "REASON_PERMISSION_DENIED".to_owned(), rule.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_gives_the_name_and_nobody_takes_that_of_another() {
    let world = World::new().await;
    let seven = till("7");
    // Without a name it is the policy's; with it, it has to be that.
    let numbered =
        |producer: &str, sequence| PublishRequest { epoch: 5, sequence, producer: producer.into(), ..record() };
    let answer = world.publish(&seven, numbered("", 1)).await.unwrap();
    assert_eq!((answer.accepted, answer.durable_through), (1, 1));
    let again = world.publish(&seven, numbered("till-7", 1)).await.unwrap();
    assert!(again.duplicate, "{again:?}");
    // Another till can neither go on with the series, nor take it over by an epoch, nor introduce it.
    let eight = till("8");
    for theft in [
        numbered("till-7", 2),
        PublishRequest { epoch: 6, ..numbered("till-7", 1) },
        introduction("events", "till-7"),
        introduction("events", "office"),
        introduction("events", &seven),
        introduction("events", "till-*"),
        introduction("events", &"x".repeat(300)),
    ] {
        let refused = world.publish(&eight, theft).await.unwrap_err();
        if refused.code() != Code::InvalidArgument {
            assert_eq!(rule(&refused), denied("tills"), "{refused:?}");
        }
    }
    // Without a name it is itself, with a series of its own.
    let own = world.publish(&eight, numbered("", 1)).await.unwrap();
    assert!(!own.duplicate && own.accepted == 1, "{own:?}");
    // The series of the first is where it was.
    let next = world.publish(&seven, numbered("", 2)).await.unwrap();
    assert_eq!((next.accepted, next.epoch, next.durable_through), (1, 5, 2));
    // The office may speak for tills. It numbers its requests for itself: whatever it does to that series, the till's goes on.
    let first = world.publish(OFFICE, numbered("till-7", 1)).await.unwrap();
    assert_eq!((first.accepted, first.duplicate, first.durable_through), (1, false, 1));
    let again = world.publish(OFFICE, numbered("till-7", 1)).await.unwrap();
    assert!(again.duplicate, "{again:?}");
    let last_epoch = PublishRequest { epoch: u64::MAX, ..numbered("till-7", 1) };
    assert_eq!(world.publish(OFFICE, last_epoch).await.unwrap().accepted, 1);
    let third = world.publish(&seven, numbered("", 3)).await.unwrap();
    assert_eq!((third.accepted, third.epoch, third.durable_through), (1, 5, 3));
    let refused = world.publish(OFFICE, introduction("events", "kiosk-7")).await.unwrap_err();
    assert_eq!(rule(&refused), denied("office"));
    world.app.stop().await;
}

/// On a stream, and among those whose numbers are remembered. What others may is not used up.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_speaks_as_no_more_producers_than_its_limit() {
    let active = World::with(|config| config.limits.producers.per_identity = 2).await;
    let remembered = World::with(|config| config.limits.remembered.per_identity = 2).await;
    for world in [active, remembered] {
        let as_till = |number: &str| {
            let producer = format!("till-{number}");
            let numbered = PublishRequest { epoch: 5, sequence: 1, producer, ..record() };
            world.publish(OFFICE, numbered)
        };
        assert_eq!(as_till("1").await.unwrap().accepted, 1);
        assert_eq!(as_till("2").await.unwrap().accepted, 1);
        let refused = as_till("3").await.unwrap_err();
        let info = refused.get_error_details().error_info().cloned().unwrap();
        assert_eq!(info.reason, "REASON_TOO_MANY_PRODUCERS");
        assert!(refused.message().contains("limits.producers_per_identity_max"), "{}", refused.message());
        assert!(as_till("1").await.unwrap().duplicate, "one that is known goes on");
        assert_eq!(world.publish(&till("3"), record()).await.unwrap().accepted, 1);
        world.app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_allows_is_denied_and_counted() {
    let world = World::new().await;
    let nobody = "spiffe://corp.example/nobody";
    let refused = world.publish(nobody, record()).await.unwrap_err();
    assert_eq!(rule(&refused), denied("default"));
    let stream = PublishRequest { stream: "others".into(), ..record() };
    let refused = world.publish(&till("7"), stream).await.unwrap_err();
    // It is not said which streams there are.
    assert_eq!(rule(&refused), denied("tills"));
    assert!(!refused.message().contains("events"), "{refused:?}");
    assert_eq!(world.app.telemetry().refusals(), [("permission_denied", 2)]);
    world.app.stop().await;
}

/// A call of `Publish` that stays open.
struct Open {
    requests: mpsc::Sender<PublishRequest>,
    answers: Streaming<PublishResponse>,
}

impl Open {
    async fn new(world: &World, identity: &str) -> Self {
        let (requests, outgoing) = mpsc::channel(4);
        requests.send(record()).await.unwrap();
        let answers = world.client(identity).await.publish(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { requests, answers }
    }

    async fn answer(&mut self) -> Result<PublishResponse, Status> {
        self.answers.message().await.map(|answer| answer.expect("the call has ended"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_counts_for_open_calls_at_their_next_request() {
    let world = World::new().await;
    let (mut seven, mut office) = (Open::new(&world, &till("7")).await, Open::new(&world, OFFICE).await);
    assert_eq!((seven.answer().await.unwrap().accepted, office.answer().await.unwrap().accepted), (1, 1));
    let before = world.folder.read("policies/policy.toml");
    world.folder.edit(
        "policies/policy.toml",
        "identities = [\"spiffe://corp.example/tills/*\"]\nwrite ",
        "identities = [\"spiffe://corp.example/tills/8\"]\nwrite ",
    );
    world.app.reload(&world.folder.path("gateway.toml")).await.unwrap();
    seven.requests.send(record()).await.unwrap();
    office.requests.send(record()).await.unwrap();
    // It says so in the answer, and then ends the call.
    let answer = seven.answer().await.unwrap();
    assert_eq!(answer.error.as_ref().unwrap().get_details_error_info().unwrap().metadata["rule"], "default");
    assert_eq!(rule(&seven.answer().await.unwrap_err()), denied("default"));
    assert_eq!(office.answer().await.unwrap().accepted, 1);
    // What is given back counts at once, too.
    world.folder.write("policies/policy.toml", before);
    world.app.reload(&world.folder.path("gateway.toml")).await.unwrap();
    assert_eq!(world.publish(&till("7"), record()).await.unwrap().accepted, 1);
    world.app.stop().await;
}

/// Asks for the list of services, of which each answer is a message of the call.
fn list() -> ServerReflectionRequest {
    ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_is_allowed_at_each_message() {
    let world = World::new().await;
    let endpoint = format!("https://localhost:{}", world.app.address().port());
    let ask = async |identity: &str| {
        let mut client = ServerReflectionClient::new(world.dialer(identity).channel(&endpoint).await.unwrap());
        let (requests, outgoing) = mpsc::channel(1);
        requests.send(list()).await.unwrap();
        let answers = client.server_reflection_info(ReceiverStream::new(outgoing)).await;
        (requests, answers.map(tonic::Response::into_inner))
    };
    let (_, refused) = ask(&till("7")).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let (requests, answers) = ask(OFFICE).await;
    let mut answers = answers.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    world.folder.edit("policies/policy.toml", "read       = [\"reflection\"]", "read       = []");
    world.app.reload(&world.folder.path("gateway.toml")).await.unwrap();
    requests.send(list()).await.unwrap();
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_denied_over_and_over_does_not_fill_the_log() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    let gateway = Process::start(folder.root());
    let endpoint = format!("https://localhost:{}", gateway.address().port());
    let seven = dialer(&folder, "seven", Some(&authority.client(&till("7"), |_| {})));
    let mut client = seven.connect(&endpoint).await.unwrap();
    let began = Clock::start();
    for _ in 0..50 {
        let denied = client.publish_once(introduction("another", "")).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
    }
    let log = gateway.stop();
    let lines: Vec<&String> = log.iter().filter(|line| line.contains("reason=\"permission_denied\"")).collect();
    // As many as one address gets for one reason, and one more each minute; so others have theirs.
    let minutes = (began.now().as_secs() / 60) as usize;
    assert!((10..=10 + minutes).contains(&lines.len()), "{}", log.join("\n"));
    assert!(lines.iter().all(|line| line.contains("address=127.0.0.1:") && line.contains("tills/7")), "{lines:?}");
}
