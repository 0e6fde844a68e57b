//! A gateway that a redirect names is known by the identity that the redirect names, and a token goes to no other.

use std::sync::Arc;
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::commands::send::{Input, Options, SharedTotals, Totals, epoch_now, publish, snapshot};
use bailiwick::domain::peer::Peer;
use bailiwick::ingress::grpc::client::Dialer;
use serde_json::json;

use super::tokens::{Issuer, RULES, TOKENS};
use crate::common::certs::{Authority, deployment, dialer, files, put, till, uri_name};
use crate::common::folder::Folder;
use crate::common::records::now;

const US: &str = "spiffe://corp.example/gateways/us";

/// A gateway in Europe that names one in the United States, and both take certificates and tokens.
struct World {
    authority: Authority,
    issuer: Issuer,
    folder: Folder,
    us: App,
    _there: Folder,
}

impl World {
    async fn new() -> Self {
        let (authority, issuer) = (Authority::new("root"), Issuer::new());
        let folder = deployment(&authority);
        folder.add("gateway.toml", TOKENS);
        folder.add("policies/policy.toml", RULES);
        folder.write("tls/jwks.json", issuer.jwks());
        let there = folder.copy();
        there.edit("gateway.toml", "\"DE\"", "\"US\"");
        there.edit("gateway.toml", "[\"eu-gdpr\"]", "[\"us-dsp\"]");
        there.edit("gateway.toml", "\"gateway-1\"", "\"us-1\"");
        put(&there, &authority.gateway(|parameters| parameters.subject_alt_names[0] = uri_name(US)));
        let us = there.start_app(|_| {}).await.unwrap();
        let records = ["FR", "US", "FR", "US", "US"].map(|country| {
            json!({ "at": now().to_string(), "user": "u", "country": country, "kind": "view", "value": 1.0 })
                .to_string()
        });
        folder.write("events.jsonl", records.join("\n"));
        Self { authority, issuer, folder, us, _there: there }
    }

    /// Sends to a gateway in Europe which says this of the other.
    async fn send(&self, identity: Option<&str>, dialer: Dialer) -> Totals {
        let here = self.folder.copy();
        let endpoint = format!("https://localhost:{}", self.us.address().port());
        here.add(
            "gateway.toml",
            &format!(
                "\n[[peers]]\nid = \"us-1\"\ncountry = \"US\"\nendpoint = \"{endpoint}\"\nserves = [\"us-dsp\"]\n"
            ),
        );
        let app = here
            .start_app(|config| {
                for peer in &mut Arc::make_mut(&mut config.here).peers {
                    *peer = Arc::new(Peer { identity: identity.map(str::to_owned), ..Peer::clone(peer) });
                }
            })
            .await
            .unwrap();
        let totals = SharedTotals::default();
        let options = Options {
            dialer,
            endpoint: format!("https://localhost:{}", app.address().port()),
            stream: "events".into(),
            producer: String::new(),
            follow: true,
            batch: 2,
            complete: false,
            epoch: epoch_now(),
            patience: Duration::from_secs(60),
        };
        publish(vec![Input::new(self.folder.path("events.jsonl"), None).into()], &options, &totals).await.unwrap();
        app.stop().await;
        snapshot(&totals)
    }

    fn certificate(&self) -> Dialer {
        dialer(&self.folder, "till", Some(&self.authority.client(&till("7"), |_| {})))
    }

    fn token(&self) -> Dialer {
        self.folder.write("token", self.issuer.token("tenants/1", 300));
        let trusts = bailiwick::identity::trust::client(&files(&self.folder, "bare", None)).unwrap();
        Dialer::verifying(trusts).with_token(self.folder.path("token"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_prove_to_be_the_one_that_was_named_gets_nothing() {
    let world = World::new().await;
    // Only the records of the United States belong elsewhere.
    let arrives = |totals: &Totals| {
        assert_eq!((totals.read, totals.accepted, totals.redirected.get("us-1")), (5, 5, Some(&3)), "{totals:?}");
    };
    let stays = |totals: &Totals| {
        assert_eq!((totals.accepted, totals.redirected.get("us-1")), (2, None), "{totals:?}");
        assert!(totals.unreachable.contains_key("us-1"), "{totals:?}");
    };
    let endpoint = format!("https://localhost:{}", world.us.address().port());
    let why = async |dialer: Dialer, identity: &str| {
        format!("{:#}", anyhow::Error::from(dialer.follow(&endpoint, identity).await.unwrap_err()))
    };
    arrives(&world.send(Some(US), world.certificate()).await);
    arrives(&world.send(Some(US), world.token()).await);
    // Nothing is said of who it is: its host is verified, and a token stays here.
    arrives(&world.send(None, world.certificate()).await);
    stays(&world.send(None, world.token()).await);
    assert!(why(world.token(), "").await.contains("does not say by which identity to know it"));
    for other in ["spiffe://corp.example/gateways/1", "spiffe://corp.example/gateways/us/", "us.corp.example"] {
        stays(&world.send(Some(other), world.certificate()).await);
        stays(&world.send(Some(other), world.token()).await);
        let why = why(world.certificate(), other).await;
        assert!(why.contains("does not prove to be"), "{why}");
    }
    assert_eq!(world.us.telemetry().total(|counts| &counts.accepted), 9, "three sends of three records");
    world.us.stop().await;
}
