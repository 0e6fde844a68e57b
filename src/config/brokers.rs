//! `[destinations.NAME]` of kind `kafka`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::domain::document::{Place, Spot, Table};
use crate::egress::encode::Format;
use crate::egress::kafka::check::{self, Key};
use crate::egress::kafka::{self, Mechanism, Sasl, Security, Which};
use crate::identity::trust;

use super::word::needed_word;

/// Where a destination names files that are read.
pub(super) type FilePlaces = BTreeMap<Which, Place>;

/// Reads one, and where it names files. `gateway` is the gateway's id.
pub(super) fn read(
    table: &Table<'_>,
    base: &Path,
    format: Option<Format>,
    gateway: Option<&str>,
) -> Option<(kafka::Settings, FilePlaces)> {
    let brokers = table.need::<String>("brokers");
    let topic = table.need::<String>("topic");
    let exactly_once = table.or("exactly_once", false);
    let named = table.get::<String>("progress_topic");
    if let (Some(named), false) = (&named, exactly_once) {
        table.problems().error(&named.place, "`progress_topic` needs `exactly_once = true`");
    }
    let mut options = BTreeMap::new();
    let mut places = BTreeMap::new();
    if let Some(table) = table.get::<Table<'_>>("options") {
        for name in table.value.names() {
            let Some(value) = table.value.get::<String>(&name) else { continue };
            places.insert(name.clone(), value.place);
            options.insert(name, value.value);
        }
    }
    let mut files = Named { base, places: FilePlaces::new() };
    // A table that is there and cannot be read is not as if it were not there.
    let tls = table.get::<Table<'_>>("tls").map_or(Some(None), |tls| read_tls(&tls.value, &mut files).map(Some));
    let sasl = table.get::<Table<'_>>("sasl");
    let sasl_place = sasl.as_ref().map(|sasl| sasl.place.clone());
    let may_be_plain = sasl.as_ref().is_some_and(|sasl| sasl.value.or("plaintext", false));
    let sasl = sasl.map_or(Some(None), |sasl| read_sasl(&sasl.value, &mut files).map(Some));
    let (brokers, topic) = (brokers?, topic?);
    let security = Security { tls: tls?, sasl: sasl?, may_be_plain };
    let progress_topic = exactly_once.then(|| match (&named, gateway) {
        (Some(named), _) => named.value.clone(),
        // One of its own, since gateways that share one wait for each other.
        (None, Some(gateway)) => format!("{}-progress-{gateway}", topic.value),
        (None, None) => format!("{}-progress", topic.value),
    });
    let settings = kafka::Settings {
        brokers: brokers.value,
        topic: topic.value,
        format: format?,
        progress_topic,
        security,
        options,
    };
    for problem in check::check(&settings) {
        let place: &Place = match &problem.key {
            Key::Brokers => &brokers.place,
            Key::Topic => &topic.place,
            Key::ProgressTopic => named.as_ref().map_or(&topic.place, |named| &named.place),
            Key::Option(name) => places.get(name).unwrap_or(&table.place),
            Key::Options => places.values().next().unwrap_or(&table.place),
            Key::Sasl => sasl_place.as_ref().unwrap_or(&table.place),
        };
        table.problems().error(place, problem.message);
    }
    Some((settings, files.places))
}

/// Files that are named, and where.
struct Named<'b> {
    base: &'b Path,
    places: FilePlaces,
}

impl Named<'_> {
    fn file(&mut self, which: Which, name: Option<Spot<String>>) -> Option<PathBuf> {
        let name = name?;
        self.places.insert(which, name.place);
        Some(self.base.join(name.value))
    }
}

fn read_tls(table: &Table<'_>, files: &mut Named<'_>) -> Option<trust::Files> {
    let ca = files.file(Which::Ca, table.need::<String>("ca"));
    let [certificate, key] = ["certificate", "key"].map(|name| table.get::<String>(name));
    let alone = match (&certificate, &key) {
        (Some(certificate), None) => Some((certificate, "key")),
        (None, Some(key)) => Some((key, "certificate")),
        _ => None,
    };
    if let Some((there, missing)) = alone {
        table.problems().error_help(
            &there.place,
            format!("`{missing}` is missing beside it"),
            format!("a certificate is shown with its key: add `{missing} = \"FILE\"`, or remove this line"),
        );
    }
    let is_alone = alone.is_some();
    let certificate = files.file(Which::Certificate, certificate);
    let key = files.file(Which::Key, key);
    table.done();
    if is_alone { None } else { Some(trust::Files { ca: ca?, shown: certificate.zip(key) }) }
}

fn read_sasl(table: &Table<'_>, files: &mut Named<'_>) -> Option<Sasl> {
    let mechanism = needed_word(table, "mechanism", &Mechanism::NAMES);
    let [user, password, token] = ["user", "password_file", "token_file"].map(|name| table.get::<String>(name));
    table.done();
    let mechanism = mechanism?;
    let (wanted, other) = match mechanism {
        Mechanism::OauthBearer => (vec![("token_file", &token)], vec![("user", &user), ("password_file", &password)]),
        Mechanism::Plain | Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
            (vec![("user", &user), ("password_file", &password)], vec![("token_file", &token)])
        }
    };
    for (name, _) in wanted.iter().filter(|(_, value)| value.is_none()) {
        table.problems().error(&table.place, format!("`{name}` is missing: this mechanism needs it"));
    }
    for (name, value) in other {
        if let Some(value) = value {
            table.problems().error(&value.place, format!("`{name}` is not for this mechanism: remove it"));
        }
    }
    if mechanism == Mechanism::OauthBearer {
        return Some(Sasl::Token { file: files.file(Which::Secret, token)? });
    }
    if let Some(empty) = user.as_ref().filter(|user| user.value.is_empty()) {
        table.problems().error(&empty.place, "`user` is empty");
    }
    let file = files.file(Which::Secret, password);
    Some(Sasl::Password { mechanism, user: user?.value, file: file? })
}
