//! The files of `[tls]`: what is wrong with each is said by `check` and by a start, with the file and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bailiwick::app;
use bailiwick::domain::document::Severity;

use crate::common::certs::{Authority, Issued, deployment, moment, put};
use crate::common::folder::Folder;
use crate::common::is_of_the_day;

/// Everything that is wrong, with what to do, on whatever day.
fn said(folder: &Folder) -> Vec<(Severity, String)> {
    let loaded = app::load(&folder.path("gateway.toml")).unwrap();
    let problems = loaded.problems.into_iter().filter(|problem| !is_of_the_day(&problem.message));
    let said = problems.map(|problem| {
        let text = format!("{}: {} ({})", problem.place.key, problem.message, problem.help.unwrap_or_default());
        (problem.severity, text.replace(&*folder.root().to_string_lossy(), "DIR"))
    });
    said.collect()
}

#[track_caller]
fn is_said(folder: &Folder, severity: Severity, key: &str, words: &str) {
    let said = said(folder);
    let found = said.iter().any(|(of, text)| *of == severity && text.starts_with(key) && text.contains(words));
    assert!(found, "no `{words}` of `{key}` in {said:#?}");
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_place() {
    let authority = Authority::new("root");
    let sound = deployment(&authority);
    assert_eq!(said(&sound), []);
    let (key, certificate, ca) = ("tls.key", "tls.certificate", "tls.client_ca");
    let gone = |name: &str| {
        let folder = sound.copy();
        fs::remove_file(folder.path(name)).unwrap();
        folder
    };
    is_said(&gone("tls/gateway.pem"), Severity::Error, certificate, "cannot read");
    is_said(&gone("tls/gateway.key"), Severity::Error, key, "cannot read");
    is_said(&gone("tls/ca.pem"), Severity::Error, ca, "cannot read");
    let with = |name: &str, text: &str| {
        let folder = sound.copy();
        fs::write(folder.path(name), text).unwrap();
        folder
    };
    is_said(&with("tls/gateway.pem", ""), Severity::Error, certificate, "holds no certificate");
    is_said(&with("tls/gateway.pem", "-----BEGIN CERTIFICATE-----\nx"), Severity::Error, certificate, "no PEM");
    is_said(&with("tls/gateway.key", "nonsense"), Severity::Error, key, "no private key");
    is_said(
        &with("tls/gateway.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"),
        Severity::Error,
        key,
        "without a passphrase",
    );
    is_said(&with("tls/ca.pem", &authority.gateway(|_| {}).certificate), Severity::Error, ca, "may sign no other");
    is_said(&with("tls/gateway.pem", &authority.pem()), Severity::Error, certificate, "an authority");
    let open = sound.copy();
    fs::set_permissions(open.path("tls/gateway.key"), fs::Permissions::from_mode(0o644)).unwrap();
    is_said(&open, Severity::Error, key, "0644");
    fs::set_permissions(open.path("tls/gateway.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(said(&open), []);
    let issued = |issued: &Issued| {
        let folder = sound.copy();
        put(&folder, issued);
        folder
    };
    let other = authority.gateway(|_| {}).key;
    is_said(&issued(&Issued { key: other, ..authority.gateway(|_| {}) }), Severity::Error, key, "is not the key");
    is_said(
        &issued(&authority.gateway(|p| p.not_after = moment(-9_000))),
        Severity::Error,
        certificate,
        "ended 2 hours ago",
    );
    is_said(
        &issued(&authority.gateway(|p| p.not_before = moment(9_000))),
        Severity::Error,
        certificate,
        "holds only in 2 hours",
    );
    is_said(
        &issued(&authority.client("spiffe://corp.example/gateways/1", |_| {})),
        Severity::Error,
        certificate,
        "not for servers",
    );
    let soon = authority.gateway(|p| (p.not_before, p.not_after) = (moment(-9_000), moment(650)));
    is_said(&issued(&soon), Severity::Warning, certificate, "ends in 10 minutes");
    let below = authority.below("between");
    assert_eq!(said(&issued(&below.gateway(|_| {}).with(&below.pem()))), []);
    let mixed = authority.gateway(|_| {}).with(&below.pem());
    is_said(&issued(&mixed), Severity::Error, certificate, "do not sign each other");
}

#[test]
fn a_list_that_is_over_is_said_before_it_locks_everybody_out() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    folder.edit("gateway.toml", "client_ca    =", "revocation   = [\"tls/root.crl\"]\nclient_ca    =");
    is_said(&folder, Severity::Error, "tls.revocation", "cannot read");
    folder.write("tls/root.crl", "nonsense");
    is_said(&folder, Severity::Error, "tls.revocation", "holds no revocation list");
    folder.write("tls/root.crl", authority.revokes(&[], -600));
    is_said(&folder, Severity::Error, "tls.revocation", "was to be replaced 10 minutes ago");
    folder.write("tls/root.crl", authority.revokes(&[], 600));
    assert_eq!(said(&folder), []);
}

#[test]
fn a_list_counts_if_its_authority_has_signed_it_and_its_time_has_begun() {
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let folder = deployment(&authority);
    folder.edit("gateway.toml", "client_ca    =", "revocation   = [\"tls/root.crl\"]\nclient_ca    =");
    let (key, good) = ("tls.revocation", authority.revokes(&[], 600));
    folder.write("tls/root.crl", Authority::new("root").revokes(&[], 600));
    is_said(&folder, Severity::Error, key, "whose signature is not that authority's");
    folder.write("tls/root.crl", authority.revokes_from(&[], 9_000, 99_000));
    is_said(&folder, Severity::Error, key, "made only in 2 hours");
    folder.write("tls/root.crl", good.clone() + &other.revokes(&[], 600));
    is_said(&folder, Severity::Warning, key, "which `client_ca` does not hold");
    folder.write("tls/root.crl", &good);
    folder.write("tls/ca.pem", authority.pem() + &other.pem());
    is_said(&folder, Severity::Warning, key, "has no list of the authority");
    folder.write("tls/root.crl", good + &other.revokes(&[], 600));
    assert_eq!(said(&folder), []);
}

#[test]
fn an_authority_that_does_not_hold_is_left_out_and_the_last_one_is_an_error() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    let (key, over, early) =
        ("tls.client_ca", Authority::holding("over", -9_000, -8_000), Authority::holding("early", 9_000, 99_000));
    folder.write("tls/ca.pem", over.pem() + &authority.pem() + &early.pem());
    is_said(&folder, Severity::Warning, key, "ended 2 hours ago: it is left out");
    is_said(&folder, Severity::Warning, key, "holds only in 2 hours: it is left out until then");
    assert!(said(&folder).iter().all(|(severity, _)| *severity == Severity::Warning));
    folder.write("tls/ca.pem", over.pem());
    is_said(&folder, Severity::Error, key, "no authority that has not ended");
    folder.write("tls/ca.pem", over.pem() + &early.pem());
    is_said(&folder, Severity::Error, key, "no authority that holds yet");
}

#[test]
fn plain_text_is_for_this_machine_and_tls_needs_all_of_its_keys() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    let config = folder.read("gateway.toml");
    let (plain, _) = config.split_once("[tls]").unwrap();
    let with = |from: &str, to: &str, text: &str| folder.write("gateway.toml", crate::common::changed(text, from, to));
    folder.write("gateway.toml", plain);
    assert_eq!(said(&folder), []);
    with("127.0.0.1:0\"", "0.0.0.0:0\"", plain);
    is_said(&folder, Severity::Error, "listen.grpc", "plain text is spoken on loopback only");
    with("127.0.0.1:0\"", "127.0.0.1:0\"\nplaintext = true", plain);
    assert_eq!(said(&folder), []);
    with("127.0.0.1:0\"", "127.0.0.1:0\"\nplaintext = false", plain);
    is_said(&folder, Severity::Error, "listen.plaintext", "there is no [tls]");
    with("127.0.0.1:0\"", "127.0.0.1:0\"\nplaintext = true", &config);
    is_said(&folder, Severity::Error, "listen.plaintext", "both there");
    with("127.0.0.1:0\"", "0.0.0.0:0\"", &config);
    assert_eq!(said(&folder), []);
    for key in ["certificate", "key", "client_ca", "trust_domain"] {
        let line = config.lines().find(|line| line.starts_with(key)).unwrap();
        with(line, "", &config);
        is_said(&folder, Severity::Error, "tls", &format!("`{key}` is missing"));
    }
    with("\"corp.example\"", "\"spiffe://corp.example\"", &config);
    is_said(&folder, Severity::Error, "tls.trust_domain", "is no trust domain");
    // Nobody may do anything without a rule: that is said.
    folder.write("gateway.toml", &config);
    let policy = folder.read("policies/policy.toml");
    let (without, _) = policy.split_once("[permissions.tills]").unwrap();
    folder.write("policies/policy.toml", without);
    is_said(&folder, Severity::Warning, "gateway", "nobody may write");
}

#[test]
fn what_could_give_one_name_to_two_identities_is_an_error() {
    let folder = deployment(&Authority::new("root"));
    let policy = folder.read("policies/policy.toml");
    let said_with = |text: &str, key: &str, words: &str| {
        folder.write("policies/policy.toml", format!("{policy}\n{text}"));
        is_said(&folder, Severity::Error, key, words);
    };
    let identities = |name: &str, identity: &str| {
        format!("[producers.\"{name}\"]\nidentities = [\"spiffe://corp.example/{identity}\"]")
    };
    said_with(&identities("till-7", "other"), "producers.till-7.identities", "may be one name");
    said_with(&identities("till-1*", "others/*"), "producers.till-1*.identities", "may be one name");
    said_with(&identities("desk", "office"), "producers.desk.identities", "already speaks as `office`");
    said_with(&identities("a-*", "a"), "producers.a-*.identities", "cannot speak as `a-*`");
    said_with(&identities("a", "as/*"), "producers.a.identities", "cannot speak as `a`");
    said_with(&identities("a", "a*"), "producers.a.identities", "cannot be used");
    let rule =
        |name: &str, rest: &str| format!("[permissions.{name}]\nidentities = [\"spiffe://corp.example/a\"]\n{rest}");
    said_with(&rule("x", "write = [\"evnts\"]"), "permissions.x.write", "there is no stream `evnts`");
    said_with(&rule("x", "read = [\"reflections\"]"), "permissions.x.read", "did you mean `reflection`?");
    said_with(&rule("default", ""), "permissions.default", "where no rule does");
    said_with("[permissions.x]\nwrite = [\"events\"]", "permissions.x", "`identities` is missing");
}
