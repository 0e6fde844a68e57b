//! What certificates say, in plain words.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::clock::wall_clock;
use crate::config::Config;
use crate::domain::printable;
use crate::identity::{Described, describe, trust};

/// The certificates of a file, or those that a gateway shows.
pub(super) async fn found(path: &Path, text: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    if path.exists() || !text.contains(':') {
        return trust::certificates(path);
    }
    trust::shown_by(text).await.with_context(|| format!("no certificate comes from {text}"))
}

/// What they say; the first is the one that counts. With a configuration, what it may do there.
pub(super) fn text(certificates: &[CertificateDer<'static>], config: Option<&Config>) -> String {
    let mut text = String::new();
    let now = wall_clock().as_second();
    for (position, certificate) in certificates.iter().enumerate() {
        if position > 0 {
            text.push('\n');
        }
        match describe(certificate) {
            Some(described) => one(&mut text, &described, now),
            None => text.push_str("a certificate that cannot be read\n"),
        }
    }
    if let (Some(certificate), Some(config)) = (certificates.first(), config) {
        text.push('\n');
        text.push_str(&may(certificate, config));
    }
    text
}

fn one(text: &mut String, described: &Described, now: i64) {
    let Described { subject, issuer, uris, hosts, addresses, from, until, is_authority, is_for } = described;
    let usage = match (is_authority, is_for) {
        (true, _) => "an authority: it signs certificates",
        (false, (true, true)) => "servers and clients",
        (false, (true, false)) => "servers",
        (false, (false, true)) => "clients",
        (false, (false, false)) => "neither servers nor clients",
    };
    let validity = match () {
        () if now > *until => "its time is over",
        () if now < *from => "its time has not begun",
        () => "it holds now",
    };
    let date = |second: i64| Timestamp::from_second(second).map_or("?".to_owned(), |time| time.to_string());
    let mut row = |name: &str, value: &str| {
        // Whoever made the certificate chose what it says. Writing to a string does not fail.
        let _ = writeln!(text, "{name:<11} {}", printable::line(value));
    };
    row("subject", subject);
    row("signed by", if subject == issuer { "itself" } else { issuer });
    uris.iter().for_each(|uri| row("identity", uri));
    if !hosts.is_empty() || !addresses.is_empty() {
        row("hosts", &[hosts.as_slice(), addresses.as_slice()].concat().join(", "));
    }
    row("for", usage);
    row("from", &date(*from));
    row("until", &format!("{} ({validity})", date(*until)));
}

/// What a certificate may do at the gateway of a configuration. That it is signed as it has to be is not looked at.
fn may(certificate: &CertificateDer<'_>, config: &Config) -> String {
    let Some(files) = &config.tls else {
        return "at this gateway: it speaks plain text, so nobody is asked for a certificate\n".to_owned();
    };
    let name = match files.scheme.named_by(certificate) {
        Ok(name) => name,
        Err(why) => return format!("at this gateway: turned away ({})\n", why.name()),
    };
    let granted = config.policy.access.of(&name);
    let mut text = format!("at this gateway, if one of its authorities has signed it: {name}\n");
    match granted.own() {
        Some(own) => text.push_str(&format!("  speaks as `{own}`\n")),
        None => text.push_str("  has no producer's name of its own\n"),
    }
    if granted.rules().next().is_none() {
        text.push_str("  may do nothing: no rule of [permissions] is for it\n");
    }
    for rule in granted.rules() {
        text.push_str(&format!("  rule {}: {}\n", rule.id, rule.says()));
    }
    text
}
