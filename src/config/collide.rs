//! What must not be the same: the directories that the gateway writes to and the files that it reads, the gateway and
//! its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use crate::domain::document::{Place, Problems};

use super::Destination;
use super::read::Declared;

/// A path with what it is for.
struct Claim {
    /// Where it really is, through links and `..`.
    path: PathBuf,
    /// What it is for, as messages say it.
    what: String,
    place: Place,
    role: Role,
}

/// What the gateway does with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It writes below it.
    Written,
    /// It reads it: a model, a registry, a database.
    Read,
    /// It reads a regime's key from it. Two keys that are one are reported where they are read.
    Key,
    /// It reads policies from it, or from whatever lies below it. Several sets may have a file in common, and other files
    /// may lie beside them.
    Policies,
}

/// Reports paths that are one, or lie in each other, and are for two things.
pub(super) fn paths(declared: &Declared, base: &Path, problems: &Problems) {
    let journal = &declared.journal.directory;
    let mut claims = vec![Claim::new(journal, "the journal".to_owned(), &declared.journal_place, Role::Written)];
    for (name, destination) in &declared.destinations {
        if let Destination::File(settings) = &destination.value {
            let what = format!("destination `{name}`");
            claims.push(Claim::new(&settings.directory, what, &destination.place, Role::Written));
        }
    }
    let ledger = &declared.ledger;
    if let Some((place, directory)) = ledger.directory.as_ref().zip(ledger.ledger.directory.as_ref()) {
        claims.push(Claim::new(directory, "the ledger".to_owned(), place, Role::Written));
    }
    if let Some((place, key)) = ledger.key.as_ref().zip(ledger.ledger.key.as_ref()) {
        claims.push(Claim::new(key, "the ledger's key".to_owned(), place, Role::Key));
    }
    let files = declared.models.iter().map(|(name, file)| (format!("model `{name}`"), file));
    let registries = declared.registries.iter().map(|(name, file)| (format!("registry `{name}`"), file));
    for (what, file) in files.chain(registries) {
        claims.push(Claim::new(&file.value, what, &file.place, Role::Read));
    }
    for (regime, file) in declared.keys.iter().flat_map(|keys| &keys.files) {
        claims.push(Claim::new(&file.value, format!("the key of `{regime}`"), &file.place, Role::Key));
    }
    for named in declared.policies.iter().chain(&declared.shadow) {
        claims.push(Claim::new(&base.join(&named.value), "policies".to_owned(), &named.place, Role::Policies));
    }
    if let Some(geoip) = &declared.geoip {
        let databases = geoip.value.databases.iter();
        let what = || "a database of [geoip]".to_owned();
        claims.extend(databases.map(|path| Claim::new(path, what(), &geoip.place, Role::Read)));
    }
    // A directory comes right before what lies in it.
    claims.sort_by(|one, other| {
        one.path.cmp(&other.path).then_with(|| one.place.span.start.cmp(&other.place.span.start))
    });
    let mut around: Vec<&Claim> = Vec::new();
    for claim in &claims {
        while around.last().is_some_and(|outer| !claim.path.starts_with(&outer.path)) {
            around.pop();
        }
        if let Some(outer) = around.last().filter(|outer| claim.collides(outer)) {
            let (how, help) = if outer.path == claim.path {
                ("is also that of", "give each its own")
            } else {
                ("lies in that of", "give each its own, neither inside the other")
            };
            let message = format!("the path of {} {how} {}: {}", claim.what, outer.what, claim.path.display());
            problems.error_help(&claim.place, message, help);
        }
        if claim.role == Role::Written || around.last().is_none_or(|outer| outer.path != claim.path) {
            around.push(claim);
        }
    }
}

impl Claim {
    fn new(path: &Path, what: String, place: &Place, role: Role) -> Self {
        Self { path: real(path), what, place: place.clone(), role }
    }

    /// Whether it may not be where it is: at or below another path.
    fn collides(&self, outer: &Self) -> bool {
        match (outer.role, self.role) {
            (Role::Policies, Role::Policies) | (Role::Key, Role::Key) => false,
            (Role::Policies, Role::Read | Role::Key) => outer.path == self.path,
            _ => true,
        }
    }
}

/// Where a path leads to, as far as it is there: links are followed, and what is not there yet is put behind it.
fn real(path: &Path) -> PathBuf {
    let mut missing: Vec<Component<'_>> = Vec::new();
    let mut there = path.components();
    let found = loop {
        let known = if there.as_path().as_os_str().is_empty() { Path::new(".") } else { there.as_path() };
        if let Ok(found) = known.canonicalize() {
            break found;
        }
        match there.next_back() {
            Some(component) => missing.push(component),
            None => break PathBuf::new(),
        }
    };
    missing.iter().rev().fold(found, |mut path, component| {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            other => path.push(other),
        }
        path
    })
}

/// Reports peers that are the gateway itself, or there twice, and names that are listed twice.
pub(super) fn peers(declared: &Declared, problems: &Problems) {
    let mut ids: BTreeMap<&str, &Place> = BTreeMap::new();
    let mut endpoints: BTreeMap<(String, u16), &Place> = BTreeMap::new();
    ids.extend(declared.id.as_ref().map(|id| (id.value.as_str(), &id.place)));
    for peer in &declared.peers {
        let (id, endpoint) = (&peer.id, &peer.endpoint);
        if let Some(first) = ids.insert(&id.value, &id.place) {
            let message = format!("a gateway is called `{}` already, at {first}", id.value);
            problems.error_help(&id.place, message, "list each other gateway once, under its own id");
        }
        let address = host_and_port(&endpoint.value);
        if let Some((host, port)) = &address
            && declared.listen.address.is_some_and(|own| is_at(host, *port, own))
        {
            problems.error(&endpoint.place, format!("`{}` is where this gateway itself listens", endpoint.value));
        }
        if let Some(first) = address.and_then(|address| endpoints.insert(address, &endpoint.place)) {
            problems.error(&endpoint.place, format!("another peer is at `{}`, at {first}", endpoint.value));
        }
        twice("regime", &peer.serves, problems);
    }
    twice("regime", &declared.serves, problems);
}

/// The host of an endpoint, in small letters, and its port. `None`: what is wrong with it is said elsewhere.
fn host_and_port(endpoint: &str) -> Option<(String, u16)> {
    let uri: http::Uri = endpoint.parse().ok()?;
    let port = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    Some((host, uri.port_u16().unwrap_or(port)))
}

/// Whether a host and port lead to an address that is listened on here, as far as it can be told without asking anybody.
fn is_at(host: &str, port: u16, own: SocketAddr) -> bool {
    let is_here = match (host.parse::<IpAddr>().map(|to| to.to_canonical()), own.ip()) {
        (Ok(to), ip) if ip.is_unspecified() => to.is_loopback() || to.is_unspecified(),
        (Ok(to), ip) => to == ip.to_canonical(),
        (Err(_), ip) => {
            (host == "localhost" || host.ends_with(".localhost")) && (ip.is_loopback() || ip.is_unspecified())
        }
    };
    is_here && port == own.port()
}

/// Reports names that are listed twice.
fn twice(what: &str, names: &[crate::domain::document::Spot<String>], problems: &Problems) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(&name.value) {
            problems.error(&name.place, format!("{what} `{}` is listed twice", name.value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_leads_here_however_it_is_written() {
        let leads = |endpoint: &str, own: &str| {
            let (host, port) = host_and_port(endpoint).unwrap();
            is_at(&host, port, own.parse().unwrap())
        };
        for endpoint in [
            "http://127.0.0.1:7400",
            "https://127.0.0.1:7400/",
            "https://LOCALHOST.:7400",
            "http://[::ffff:127.0.0.1]:7400",
        ] {
            assert!(leads(endpoint, "127.0.0.1:7400"), "{endpoint}");
            assert!(leads(endpoint, "0.0.0.0:7400"), "{endpoint}");
            assert!(!leads(endpoint, "127.0.0.1:7401"), "{endpoint}");
            assert!(!leads(endpoint, "10.0.0.1:7400"), "{endpoint}");
        }
        assert!(leads("https://[::1]", "[::1]:443") && leads("http://localhost", "[::1]:80"));
        assert!(
            !leads("https://gateway.example:7400", "127.0.0.1:7400")
                && !leads("http://127.0.0.2:7400", "127.0.0.1:7400")
        );
        assert_eq!(host_and_port("http://a:1"), host_and_port("https://A:1/"));
    }
}
