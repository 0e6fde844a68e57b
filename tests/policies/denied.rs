//! A release that no policy lets go to its destination any more when it is its turn: it waits, or is given up.

use super::deployment::{Deployment, POLICY, Process, Producer, visits};
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};
use crate::common::{changed, until};

const OPEN: &str = "country = \"US\"\naccepts = [\"by_country\"]";
const CLOSED: &str = "country = \"US\"\naccepts = []";

/// A release for the hub is in the outbox, and was not written.
async fn with_a_release_left() -> Deployment {
    let deployment = Deployment::new();
    deployment.set_k(5);
    let gateway_file = deployment.read("gateway.toml");
    let (desk, hub) = gateway_file.split_once("[destinations.hub]").unwrap();
    let hub = changed(hub, "rotate_after = \"PT0S\"", "rotate_after = \"PT1H\"");
    deployment.write("gateway.toml", format!("{desk}[destinations.hub]{hub}"));
    let gateway = deployment.spawn();
    let mut producer = Producer::connect(gateway.endpoint(), "p").await;
    producer.send(&visits(1, 6, "DE")).await;
    producer.close_before(2).await;
    until(|| (deployment.released("desk").len() == 1).then_some(()));
    gateway.kill();
    deployment.write("gateway.toml", gateway_file);
    deployment
}

/// A gateway that has released another window, of seven persons, to the desk.
async fn with_a_second_window(deployment: &Deployment) -> Process {
    let gateway = deployment.spawn();
    let mut producer = Producer::connect(gateway.endpoint(), "p").await;
    producer.sequence = 1;
    producer.send(&visits(2, 7, "DE")).await;
    producer.close_before(3).await;
    until(|| (deployment.released("desk").len() == 2).then_some(()));
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_leave_any_more_waits_until_it_may() {
    let deployment = with_a_release_left().await;
    deployment.edit(POLICY, OPEN, CLOSED);
    let gateway = with_a_second_window(&deployment).await;
    gateway.stop_with_releases_left();
    assert_eq!(deployment.released("hub"), Vec::<serde_json::Value>::new());
    deployment.edit(POLICY, CLOSED, OPEN);
    deployment.spawn().stop();
    let hub = deployment.released("hub");
    assert_eq!((hub.len(), hub[0]["visits"].as_u64()), (1, Some(6)), "the second window was never to go there");
    assert!(of_kind(&entries(&deployment.path("journal/ledger")), "denied").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_leave_any_more_is_given_up_where_the_configuration_says_so() {
    let deployment = with_a_release_left().await;
    deployment.edit(POLICY, OPEN, CLOSED);
    let hub = "[destinations.hub]\n";
    deployment.edit("gateway.toml", hub, &format!("{hub}when_denied  = \"shed\"\n"));
    deployment.spawn().stop();
    let said = entries(&deployment.path("journal/ledger"));
    let denied = of_kind(&said, "denied");
    assert_eq!(denied.len(), 1);
    assert_eq!((&denied[0]["destination"], &denied[0]["cells"]), (&"hub".into(), &1.into()));
    assert!(of_kind(&said, "intent").iter().all(|intent| intent["destination"] == "desk"));
    let release = denied[0]["release"].as_str().unwrap();
    let shown = run(deployment.root(), &["ledger", "show", "-d", "journal/ledger", "--release", release]);
    assert!(text(&shown.stdout).contains("was not sent to `hub`, and will not be"), "{}", text(&shown.stderr));
    // It does not leave later. What comes then does.
    deployment.edit(POLICY, CLOSED, OPEN);
    let gateway = with_a_second_window(&deployment).await;
    gateway.stop();
    let hub = deployment.released("hub");
    assert_eq!((hub.len(), hub[0]["visits"].as_u64()), (1, Some(7)));
    // The destination can be removed now.
    let whole = deployment.read("gateway.toml");
    let (others, _) = whole.split_once("[destinations.hub]").unwrap();
    deployment.write("gateway.toml", others);
    let policy = deployment.read(POLICY);
    let (others, _) = policy.split_once("[destinations.hub]").unwrap();
    deployment.write(POLICY, others);
    deployment.spawn().stop();
}
