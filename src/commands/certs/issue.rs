//! Makes authorities and certificates.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, bail};
use jiff::ToSpan as _;
use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::config::today;
use crate::domain::name;
use crate::files;
use crate::identity::{Kind, Scheme, describe, trust};

use super::Leaf;

/// The largest private key that is read.
const KEY_BYTES_MAX: u64 = 1 << 16;

/// Whom a certificate is for.
pub(super) enum For {
    /// A gateway, which is reached under these hosts.
    Gateway(Vec<String>),
    /// A producer.
    Producer,
}

/// Makes an authority. What was made.
pub(super) fn authority(directory: &Path, trust_domain: &str, days: u16) -> anyhow::Result<String> {
    if Scheme::new(Kind::Spiffe, trust_domain).is_none() {
        bail!("`{trust_domain}` is no trust domain: small letters, digits, `.`, `-` and `_`, as in corp.example");
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let [certificate, key] = ["ca.pem", "ca.key"].map(|name| directory.join(name));
    if certificate.exists() || key.exists() {
        bail!("{} holds an authority already; name another directory, or remove it", directory.display());
    }
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.distinguished_name = named(&format!("bailiwick development authority of {trust_domain}"));
    parameters.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    holds(&mut parameters, days)?;
    let pair = KeyPair::generate()?;
    let made = parameters.self_signed(&pair)?;
    write(&key, &pair.serialize_pem(), false)?;
    write(&certificate, &made.pem(), false)?;
    let shown = directory.display();
    Ok(format!(
        "{}   the authority: `client_ca` of [tls], and `--ca` of producers\n{}   its private key; whoever has it can be anybody\n\n\
         Next:\n  bailiwick certs gateway {shown} gateway-1\n  bailiwick certs producer {shown} till-7\n",
        certificate.display(),
        key.display()
    ))
}

/// Issues a certificate. What was made.
pub(super) fn leaf(leaf: &Leaf, whom: &For) -> anyhow::Result<String> {
    let Leaf { directory, name, days, replace } = leaf;
    if !name::is_name(name) || name == "ca" {
        bail!("`{name}` is no name: letters, digits, `_`, `-` and `.`, and not `ca`");
    }
    let [authority, authority_key] = ["ca.pem", "ca.key"].map(|name| directory.join(name));
    let hint = || format!("make an authority first: bailiwick certs ca {}", directory.display());
    let signer = trust::certificates(&authority).with_context(hint)?;
    let signer = signer.first().context("no certificate")?;
    let (key, _) = files::read_secret(&authority_key, KEY_BYTES_MAX)?;
    let key = str::from_utf8(&key).with_context(|| format!("`{}` is not UTF-8 text", authority_key.display()))?;
    let pair = KeyPair::from_pem(key).with_context(|| format!("`{}` is no private key", authority_key.display()))?;
    let uris = describe(signer).map(|described| described.uris).unwrap_or_default();
    let domain = uris.iter().find_map(|uri| uri.strip_prefix("spiffe://"));
    let domain =
        domain.with_context(|| format!("`{}` names no trust domain (a URI spiffe://DOMAIN)", authority.display()))?;
    let issuer = Issuer::from_ca_cert_der(signer, pair)?;
    let (folder, usage, hosts) = match whom {
        For::Gateway(hosts) => ("gateways", vec![ExtendedKeyUsagePurpose::ServerAuth], hosts.as_slice()),
        For::Producer => ("producers", vec![ExtendedKeyUsagePurpose::ClientAuth], [].as_slice()),
    };
    let identity = format!("spiffe://{domain}/{folder}/{name}");
    let mut parameters = CertificateParams::new(hosts).with_context(|| format!("{hosts:?}"))?;
    parameters.distinguished_name = named(name);
    parameters.subject_alt_names.insert(0, SanType::URI(identity.as_str().try_into()?));
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = usage;
    parameters.use_authority_key_identifier_extension = true;
    holds(&mut parameters, *days)?;
    let pair = KeyPair::generate()?;
    let made = parameters.signed_by(&pair, &issuer)?;
    let [certificate, key] = ["pem", "key"].map(|suffix| directory.join(format!("{name}.{suffix}")));
    if !replace && (certificate.exists() || key.exists()) {
        bail!("{} is there already; --replace puts a new one in its place", certificate.display());
    }
    write(&key, &pair.serialize_pem(), *replace)?;
    write(&certificate, &made.pem(), *replace)?;
    let (certificate, key) = (certificate.display(), key.display());
    let how = match whom {
        For::Gateway(_) => format!(
            "\nIn gateway.toml:\n  [tls]\n  certificate  = \"{certificate}\"\n  key          = \"{key}\"\n  client_ca    = \"{}\"\n  trust_domain = \"{domain}\"\n",
            authority.display()
        ),
        For::Producer => format!(
            "\nIn the policy:\n  [permissions.producers]\n  identities = [\"spiffe://{domain}/producers/*\"]\n  write      = [\"STREAM\"]\n\n\
             To send:\n  bailiwick send --to https://localhost:7400 --ca {} --cert {certificate} --key {key} -s STREAM FILE\n",
            authority.display()
        ),
    };
    Ok(format!("{certificate}   the certificate of {identity}, for {days} days\n{key}   its private key\n{how}"))
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From yesterday on, as clocks differ, until the end of the last day.
fn holds(parameters: &mut CertificateParams, days: u16) -> anyhow::Result<()> {
    let moment = |day: Date| -> anyhow::Result<_> {
        let (year, month, day) = (i32::from(day.year()), u8::try_from(day.month())?, u8::try_from(day.day())?);
        Ok(rcgen::date_time_ymd(year, month, day))
    };
    let today = today();
    parameters.not_before = moment(today.yesterday()?)?;
    parameters.not_after = moment(today.checked_add(i64::from(days).days())?.tomorrow()?)?;
    Ok(())
}

/// Writes a file for its owner only, beside its name and then under it.
fn write(path: &Path, text: &str, replace: bool) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let make =
        |path: &Path| -> io::Result<File> { OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) };
    if !replace {
        return make(path).and_then(|mut file| file.write_all(text.as_bytes())).with_context(failed);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let _ = fs::remove_file(beside);
    make(beside).and_then(|mut file| file.write_all(text.as_bytes())).with_context(failed)?;
    fs::rename(beside, path).with_context(failed)
}
