//! The matrix of identities: each bad one is turned away for its own reason, and good ones beside them are let in.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;

use bailiwick::app::App;
use bailiwick::clock::Clock;
use bailiwick::ingress::grpc::client::Dialer;
use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use tonic::{Code, Status};

use crate::common::certs::{Authority, Issued, careless, deployment, dialer, moment, till, uri_name};
use crate::common::records::introduction;
use crate::common::{PATIENCE, changed};

/// How often connections were turned away, by reason.
fn turned_away(app: &App) -> BTreeMap<&'static str, u64> {
    app.telemetry().turned_away.each().filter(|(_, count)| *count > 0).collect()
}

/// Introduces a producer. Why that failed.
async fn introduce(app: &App, dialer: &Dialer, producer: &str) -> Result<(), Status> {
    let endpoint = format!("https://localhost:{}", app.address().port());
    let connected = dialer.connect(&endpoint).await;
    let mut client = connected.map_err(|error| Status::unavailable(format!("{error:?}")))?;
    client.publish_once(introduction("events", producer)).await.map(drop)
}

/// Waits until one more connection was turned away for a reason.
async fn one_more(app: &App, reason: &str, before: &BTreeMap<&'static str, u64>) {
    let expected = before.get(reason).copied().unwrap_or(0) + 1;
    let began = Clock::start();
    loop {
        let now = turned_away(app);
        if now.get(reason).copied() >= Some(expected) {
            let others: u64 = now.iter().filter(|(name, _)| **name != reason).map(|(_, count)| count).sum();
            let before: u64 = before.iter().filter(|(name, _)| **name != reason).map(|(_, count)| count).sum();
            assert_eq!(others, before, "{reason}: {now:?}");
            return;
        }
        assert!(began.now() < PATIENCE, "nobody was turned away as {reason}: {now:?}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A names extension as it is, whatever it holds.
fn raw_names(content: Vec<u8>) -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, 17], content)
}

/// One name of the names extension, as bytes.
fn raw_uri(text: &[u8]) -> Vec<u8> {
    let mut name = vec![0x86, u8::try_from(text.len()).unwrap()];
    name.extend_from_slice(text);
    let mut all = vec![0x30, u8::try_from(name.len()).unwrap()];
    all.append(&mut name);
    all
}

/// Every bad identity, with the reason for which it must be turned away.
fn bad(authority: &Authority) -> Vec<(&'static str, Issued, &'static str)> {
    let seven = till("7");
    let client = |uri: &str| authority.client(uri, |_| {});
    let mut all = vec![
        ("expired", authority.client(&seven, |p| p.not_after = moment(-5)), "expired"),
        (
            "expired long ago",
            authority.client(&seven, |p| (p.not_before, p.not_after) = (moment(-9_000), moment(-8_000))),
            "expired",
        ),
        ("not yet valid", authority.client(&seven, |p| p.not_before = moment(600)), "not_yet_valid"),
        (
            "for servers",
            authority.client(&seven, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "wrong_usage",
        ),
        (
            "for code",
            authority.client(&seven, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
            "wrong_usage",
        ),
        (
            "for mail",
            authority.client(&seven, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]),
            "wrong_usage",
        ),
        ("may sign", authority.client(&seven, |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)), "wrong_usage"),
        ("may revoke", authority.client(&seven, |p| p.key_usages.push(KeyUsagePurpose::CrlSign)), "wrong_usage"),
        ("no names", authority.client(&seven, |p| p.subject_alt_names.clear()), "no_identity"),
        (
            "a host alone",
            authority.client(&seven, |p| p.subject_alt_names = vec![dns("till-7.corp.example")]),
            "no_identity",
        ),
        (
            "an address alone",
            authority.client(&seven, |p| p.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())]),
            "no_identity",
        ),
        (
            "mail alone",
            authority.client(&seven, |p| {
                p.subject_alt_names = vec![SanType::Rfc822Name("till@corp.example".try_into().unwrap())]
            }),
            "no_identity",
        ),
        (
            "two of them",
            authority.client(&seven, |p| p.subject_alt_names.push(uri_name(&till("8")))),
            "several_identities",
        ),
        (
            "twice the same",
            authority.client(&seven, |p| p.subject_alt_names.push(uri_name(&till("7")))),
            "several_identities",
        ),
        (
            "a web address beside it",
            authority.client(&seven, |p| p.subject_alt_names.push(uri_name("https://corp.example/"))),
            "several_identities",
        ),
        ("another domain", client("spiffe://other.example/tills/7"), "other_trust_domain"),
        ("a domain below", client("spiffe://sub.corp.example/tills/7"), "other_trust_domain"),
        ("a domain that begins alike", client("spiffe://corp.example.evil/tills/7"), "other_trust_domain"),
        ("a domain that ends alike", client("spiffe://evilcorp.example/tills/7"), "other_trust_domain"),
        (
            "raw names of nonsense",
            authority.client(&seven, |p| {
                p.subject_alt_names.clear();
                p.custom_extensions.push(raw_names(vec![0x30, 0x7f, 0x01]));
            }),
            "bad_certificate",
        ),
        (
            "names of bytes that are no text",
            authority.client(&seven, |p| {
                p.subject_alt_names.clear();
                p.custom_extensions.push(raw_names(raw_uri(b"spiffe://corp.example/\xff\xfe")));
            }),
            "bad_certificate",
        ),
        (
            "names with a null",
            authority.client(&seven, |p| {
                p.subject_alt_names.clear();
                p.custom_extensions.push(raw_names(raw_uri(b"spiffe://corp.example/tills/7\0.evil")));
            }),
            "malformed_identity",
        ),
        (
            "no names within the names",
            authority.client(&seven, |p| {
                p.subject_alt_names.clear();
                p.custom_extensions.push(raw_names(vec![0x30, 0x00]));
            }),
            "no_identity",
        ),
        (
            "an extension that must be understood",
            authority.client(&seven, |p| {
                let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![0x05, 0x00]);
                unknown.set_criticality(true);
                p.custom_extensions.push(unknown);
            }),
            "bad_certificate",
        ),
        (
            "an authority's own",
            authority.client(&seven, |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
            "bad_certificate",
        ),
        ("an unknown authority", Authority::new("another").client(&seven, |_| {}), "unknown_authority"),
        ("an authority of the same name", Authority::new("root").client(&seven, |_| {}), "bad_certificate"),
        (
            "signed by itself",
            {
                let key = KeyPair::generate().unwrap();
                let mut parameters = rcgen::CertificateParams::default();
                parameters.subject_alt_names = vec![uri_name(&seven)];
                Issued { certificate: parameters.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
            },
            "unknown_authority",
        ),
        (
            "an authority in between that is not shown",
            authority.below("between").client(&seven, |_| {}),
            "unknown_authority",
        ),
        ("revoked", authority.client(&seven, |p| p.serial_number = Some(SerialNumber::from(666_u64))), "revoked"),
    ];
    let spelled = [
        ("no path", "spiffe://corp.example"),
        ("an empty path", "spiffe://corp.example/"),
        ("a slash at the end", "spiffe://corp.example/tills/7/"),
        ("two slashes", "spiffe://corp.example//tills/7"),
        ("a star", "spiffe://corp.example/tills/*"),
        ("a star for a domain", "spiffe://*/tills/7"),
        ("dots", "spiffe://corp.example/office/../tills/7"),
        ("a dot", "spiffe://corp.example/./tills/7"),
        ("an escape", "spiffe://corp.example/tills/%37"),
        ("a question", "spiffe://corp.example/tills/7?as=office"),
        ("a fragment", "spiffe://corp.example/tills/7#office"),
        ("a port", "spiffe://corp.example:443/tills/7"),
        ("a user", "spiffe://office@corp.example/tills/7"),
        ("capitals in the scheme", "SPIFFE://corp.example/tills/7"),
        ("capitals in the domain", "spiffe://Corp.Example/tills/7"),
        ("another scheme", "https://corp.example/tills/7"),
        ("a space", "spiffe://corp.example/tills/ 7"),
    ];
    all.extend(spelled.map(|(what, uri)| (what, client(uri), "malformed_identity")));
    all
}

/// Good ones, with the name that each gets.
fn good(authority: &Authority) -> Vec<(&'static str, Issued)> {
    let seven = till("7");
    let between = authority.below("an authority in between");
    vec![
        ("as it should be", authority.client(&seven, |_| {})),
        ("with a host beside it", authority.client(&seven, |p| p.subject_alt_names.push(dns("till.corp.example")))),
        (
            "for both sides",
            authority.client(&seven, |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)),
        ),
        ("for nothing in particular", authority.client(&seven, |p| p.extended_key_usages.clear())),
        ("without usages", authority.client(&seven, |p| p.key_usages.clear())),
        ("through an authority in between", between.client(&seven, |_| {}).with(&between.pem())),
        ("with an authority shown that is known", authority.client(&seven, |_| {}).with(&authority.pem())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_identity_is_turned_away_for_its_own_reason_and_good_ones_beside_it_are_not() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    // Lists cover certificates that the root signs. Those of authorities in between are tried without.
    let bad = bad(&authority);
    assert!(bad.len() >= 40, "{}", bad.len());
    let revoking = folder.copy();
    revoking.write("tls/root.crl", authority.revokes(&[666], 3_600));
    revoking.edit("gateway.toml", "client_ca    =", "revocation   = [\"tls/root.crl\"]\nclient_ca    =");
    let app = revoking.start_app(|_| {}).await.unwrap();
    let as_it_should_be = dialer(&revoking, "good", Some(&authority.client(&till("7"), |_| {})));
    for (what, issued, reason) in &bad {
        let before = turned_away(&app);
        assert!(!careless(&revoking, app.address(), issued).await, "{what} was let in");
        one_more(&app, reason, &before).await;
        introduce(&app, &as_it_should_be, "").await.unwrap_or_else(|status| panic!("after {what}: {status:?}"));
    }
    app.stop().await;
    let app = folder.start_app(|_| {}).await.unwrap();
    for (what, issued) in good(&authority) {
        let dialer = dialer(&folder, "good", Some(&issued));
        introduce(&app, &dialer, "till-7").await.unwrap_or_else(|status| panic!("{what}: {status:?}"));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_nothing_or_speaks_something_else_is_turned_away() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    let app = folder.start_app(|_| {}).await.unwrap();
    let before = turned_away(&app);
    let refused = introduce(&app, &dialer(&folder, "nobody", None), "").await.unwrap_err();
    assert!(refused.code() != Code::Ok, "{refused:?}");
    one_more(&app, "no_certificate", &before).await;
    let before = turned_away(&app);
    let mut plain = TcpStream::connect(app.address()).unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    one_more(&app, "not_tls", &before).await;
    let before = turned_away(&app);
    // It connects, and says nothing.
    let _silent = TcpStream::connect(app.address()).unwrap();
    one_more(&app, "too_slow", &before).await;
    // A gateway that the client's authority has not signed is not spoken to.
    let stranger = deployment(&Authority::new("a stranger"));
    let other = stranger.start_app(|_| {}).await.unwrap();
    let before = turned_away(&other);
    let good = authority.client(&till("7"), |_| {});
    let refused = introduce(&other, &dialer(&folder, "good", Some(&good)), "").await.unwrap_err();
    assert!(refused.message().contains("UnknownIssuer"), "{refused:?}");
    one_more(&other, "by_client", &before).await;
    other.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_dns_names_count_the_one_dns_name_is_the_identity() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    folder.edit("gateway.toml", "trust_domain =", "identity     = \"dns\"\ntrust_domain =");
    let rules = folder.read("policies/policy.toml");
    let rules = changed(&rules, "spiffe://corp.example/tills/*", "*.tills.corp.example");
    folder.write("policies/policy.toml", changed(&rules, "spiffe://corp.example/office", "office.corp.example"));
    let app = folder.start_app(|_| {}).await.unwrap();
    let named = |names: &[&str]| {
        let names = names.iter().map(|name| dns(name)).collect();
        authority.client(&till("7"), |parameters| parameters.subject_alt_names = names)
    };
    let seven = dialer(&folder, "seven", Some(&named(&["7.tills.corp.example"])));
    introduce(&app, &seven, "till-7").await.unwrap();
    assert_eq!(introduce(&app, &seven, "till-8").await.unwrap_err().code(), Code::PermissionDenied);
    for (names, reason) in [
        (vec!["*.tills.corp.example"], "malformed_identity"),
        (vec!["7.tills.corp.example", "8.tills.corp.example"], "several_identities"),
        (vec!["7.tills.other.example"], "other_trust_domain"),
        (vec![], "no_identity"),
    ] {
        let before = turned_away(&app);
        assert!(!careless(&folder, app.address(), &named(&names)).await, "{names:?} was let in");
        one_more(&app, reason, &before).await;
    }
    app.stop().await;
}
