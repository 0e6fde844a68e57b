//! Bearer tokens, for clients without a certificate.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bailiwick::app::App;
use bailiwick::identity::trust;
use bailiwick::ingress::grpc::client::Dialer;
use bailiwick::ingress::proto::ingest::PublishResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::common::certs::{Authority, deployment, dialer, files, till};
use crate::common::folder::Folder;
use crate::common::records::{introduction, json_events, now, request};

pub(super) const TOKENS: &str = r#"
[tls.tokens]
jwks     = "tls/jwks.json"
issuer   = "https://id.example"
audience = "bailiwick"
"#;

pub(super) const RULES: &str = r#"
[producers."uploader-*"]
identities = ["token:tenants/*"]

[permissions.uploaders]
identities = ["token:tenants/*"]
write      = ["events"]
"#;

pub(super) struct Issuer {
    key: Ed25519KeyPair,
    /// The key's `kid`.
    id: String,
}

impl Issuer {
    pub(super) fn new() -> Self {
        Self::named("1")
    }

    /// One whose key has this `kid`.
    pub(super) fn named(id: &str) -> Self {
        Self { key: Ed25519KeyPair::generate().unwrap(), id: id.to_owned() }
    }

    fn public(&self) -> Value {
        let key = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": key })
    }

    pub(super) fn jwks(&self) -> String {
        json!({ "keys": [self.public()] }).to_string()
    }

    /// Its key and another one's.
    pub(super) fn jwks_with(&self, other: &Self) -> String {
        json!({ "keys": [self.public(), other.public()] }).to_string()
    }

    pub(super) fn token(&self, subject: &str, seconds: i64) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let until = now().as_second() + seconds;
        let claims = json!({ "iss": "https://id.example", "aud": "bailiwick", "exp": until, "sub": subject });
        let signed = format!("{}.{}", part(json!({ "alg": "EdDSA", "kid": self.id })), part(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref()))
    }
}

pub(super) fn with_tokens(authority: &Authority, issuer: &Issuer) -> Folder {
    let folder = deployment(authority);
    folder.add("gateway.toml", TOKENS);
    folder.add("policies/policy.toml", RULES);
    folder.write("tls/jwks.json", issuer.jwks());
    folder
}

fn bearer(folder: &Folder, token: &str) -> Dialer {
    folder.write("token", token);
    Dialer::verifying(trust::client(&files(folder, "bare", None)).unwrap()).with_token(folder.path("token"))
}

async fn publish(app: &App, dialer: &Dialer, producer: &str) -> Result<PublishResponse, Status> {
    let endpoint = format!("https://localhost:{}", app.address().port());
    let mut client = dialer.connect(&endpoint).await.unwrap();
    let record = json!({ "at": now().to_string(), "user": "u", "country": "FR", "kind": "view", "value": 1.0 });
    let call = dialer.call(request("events", producer, json_events([record]))).unwrap();
    client.publish_once(call).await.map(tonic::Response::into_inner)
}

fn counted(app: &App, reason: &str) -> u64 {
    app.telemetry().turned_away.each().find(|(name, _)| *name == reason).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_who_speaks_and_no_more_than_its_issuer_may_say() {
    let (authority, issuer) = (Authority::new("root"), Issuer::new());
    let folder = with_tokens(&authority, &issuer);
    let app = folder.start_app(|_| {}).await.unwrap();
    let one = bearer(&folder, &issuer.token("tenants/1", 300));
    assert_eq!(publish(&app, &one, "").await.unwrap().accepted, 1);
    assert_eq!(publish(&app, &one, "uploader-1").await.unwrap().accepted, 1);
    assert_eq!(publish(&app, &one, "uploader-2").await.unwrap_err().code(), Code::PermissionDenied);
    // Certificates go on beside tokens, and a token cannot name one.
    let seven = dialer(&folder, "seven", Some(&authority.client(&till("7"), |_| {})));
    assert_eq!(publish(&app, &seven, "till-7").await.unwrap().accepted, 1);
    for subject in [till("7"), "spiffe://corp.example/office".to_owned(), "office".to_owned()] {
        let refused = publish(&app, &bearer(&folder, &issuer.token(&subject, 300)), "").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{subject}: {refused:?}");
    }
    // Each call is asked, whatever an earlier one of the connection said.
    let endpoint = format!("https://localhost:{}", app.address().port());
    let mut client = one.connect(&endpoint).await.unwrap();
    folder.write("token", issuer.token("tenants/1", 300));
    client.publish_once(one.call(introduction("events", "")).unwrap()).await.unwrap();
    let refused = client.publish_once(introduction("events", "")).await.unwrap_err();
    assert_eq!((refused.code(), counted(&app, "token_missing")), (Code::Unauthenticated, 1));
    folder.write("token", issuer.token("tenants/2", 300));
    let refused = client.publish_once(one.call(introduction("events", "uploader-1")).unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_counted_by_reason_and_keys_are_read_again() {
    let (authority, issuer) = (Authority::new("root"), Issuer::new());
    let folder = with_tokens(&authority, &issuer);
    let app = folder.start_app(|_| {}).await.unwrap();
    let other = Issuer::new();
    for (token, reason) in [
        (issuer.token("tenants/1", -120), "token_expired"),
        (other.token("tenants/1", 300), "token_signature"),
        ("nonsense".to_owned(), "token_malformed"),
        (format!("{}x", issuer.token("tenants/1", 300)), "token_malformed"),
        (issuer.token("", 300), "token_no_identity"),
        (format!("{}{}", issuer.token("tenants/1", 300), "x".repeat(6_000)), "token_too_long"),
    ] {
        let before = counted(&app, reason);
        let refused = publish(&app, &bearer(&folder, &token), "").await.unwrap_err();
        assert_eq!((refused.code(), counted(&app, reason)), (Code::Unauthenticated, before + 1), "{reason}");
        assert!(refused.message().contains(reason), "{refused:?}");
    }
    folder.write("tls/jwks.json", "{}");
    app.refresh().await;
    assert!(publish(&app, &bearer(&folder, &issuer.token("tenants/1", 300)), "").await.is_ok());
    folder.write("tls/jwks.json", other.jwks());
    app.refresh().await;
    assert!(publish(&app, &bearer(&folder, &other.token("tenants/1", 300)), "").await.is_ok());
    assert!(publish(&app, &bearer(&folder, &issuer.token("tenants/1", 300)), "").await.is_err());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_of_tokens_has_so_many_connections_and_others_have_theirs() {
    let (authority, issuer) = (Authority::new("root"), Issuer::new());
    let folder = with_tokens(&authority, &issuer);
    folder.edit("gateway.toml", "trust_domain =", "connections_per_identity_max = 2\ntrust_domain =");
    let app = folder.start_app(|_| {}).await.unwrap();
    let endpoint = format!("https://localhost:{}", app.address().port());
    let mut open = Vec::new();
    let one = bearer(&folder, &issuer.token("tenants/1", 300));
    for _ in 0..2 {
        let mut client = one.connect(&endpoint).await.unwrap();
        client.publish_once(one.call(introduction("events", "")).unwrap()).await.unwrap();
        open.push(client);
    }
    let mut third = one.connect(&endpoint).await.unwrap();
    let refused = third.publish_once(one.call(introduction("events", "")).unwrap()).await.unwrap_err();
    assert_eq!((refused.code(), counted(&app, "too_many_of_identity")), (Code::ResourceExhausted, 1), "{refused:?}");
    // On the same connection somebody else may speak; and the connections of an address are no limit for those who have
    // proved who they are.
    folder.write("token", issuer.token("tenants/2", 300));
    third.publish_once(one.call(introduction("events", "")).unwrap()).await.unwrap();
    // Whoever speaks on a connection last is whose it is.
    folder.write("token", issuer.token("tenants/3", 300));
    open[0].publish_once(one.call(introduction("events", "")).unwrap()).await.unwrap();
    folder.write("token", issuer.token("tenants/1", 300));
    third.publish_once(one.call(introduction("events", "")).unwrap()).await.unwrap();
    app.stop().await;
}
