//! Parts of windows, which a stop releases: what their ids say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::deployment::{Deployment, visits};
use super::longer;

/// The first window has closed, and its sum, too. The second one is open, and a checkpoint holds it.
async fn deployment() -> Deployment {
    let deployment = longer::deployment("PT30M");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&visits(1, 6, "DE")).await;
    producer.close_before(31).await;
    gateway.until("what has closed has left", |_| deployment.released("hub").len() == 1).await;
    producer.send(&visits(31, 7, "DE")).await;
    gateway.stop().await;
    deployment.edit("gateway.toml", "[listen]", "on_stop = \"release\"\n\n[listen]");
    deployment
}

/// The ids of whole windows, and of parts.
async fn flushed(deployment: &Deployment) -> [BTreeSet<String>; 2] {
    let ids = || -> BTreeSet<String> {
        let all = ["desk", "hub"].into_iter().flat_map(|destination| deployment.released(destination));
        all.map(|line: Value| line["release"].as_str().unwrap().to_owned()).collect()
    };
    let whole = ids();
    deployment.start().await.stop().await;
    let parts: BTreeSet<String> = ids().difference(&whole).cloned().collect();
    assert_eq!((whole.len(), parts.len()), (2, 2), "a window and a sum, each whole and as a part");
    [whole, parts]
}

/// All else that the id of a part is made of is known to who gets it, and the number of the journal's entries is small: who could
/// make the id from it could find it by trying.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_part_is_the_same_again_and_only_this_gateway_can_make_it() {
    let (one, other) = (deployment().await, deployment().await);
    let again = one.as_left();
    let ([whole, parts], repeated) = (flushed(&one).await, flushed(&again).await);
    assert_eq!(repeated, [whole.clone(), parts.clone()]);
    let [whole_of_other, parts_of_other] = flushed(&other).await;
    assert_eq!(whole_of_other, whole, "the same records at the same positions");
    assert!(parts.is_disjoint(&parts_of_other), "{parts:?}");
}
