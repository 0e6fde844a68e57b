//! The keys of `gateway.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::SignedDuration;

use crate::domain::document::{Place, Problems, Source, Spot, Table};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name;
use crate::domain::name::{DestinationName, GatewayId};
use crate::domain::peer::Peer;
use crate::domain::policy::{self, ConditionId, Conditions, Here, Own, PolicySet, Proof};
use crate::domain::producer::RememberedMax;
use crate::domain::watermark::ActiveMax;
use crate::egress::kafka;
use crate::engine::intake::Limits;
use crate::engine::sequencer::CheckpointsDue;
use crate::identity::is_identity;
use crate::storage;

use super::budgets;
use super::destinations;
use super::keys::DeclaredKeys;
use super::ledger::{self, DeclaredLedger};
use super::monitor::{self, Http};
use super::prices::{self, Prices};
use super::shapes::GATEWAY_TOML;
use super::tls::{self, DeclaredListen, DeclaredTls};
use super::word::word;
use super::{Config, Destination, GeoIp, Journal, Mode, OnStop, Places};

/// What `gateway.toml` declares.
pub(super) struct Declared {
    pub(super) place: Place,
    pub(super) id: Option<Spot<String>>,
    pub(super) country: Option<Spot<Jurisdiction>>,
    pub(super) conditions: Vec<(Spot<String>, Proof)>,
    pub(super) serves: Vec<Spot<String>>,
    mode: Mode,
    pub(super) shadow: Vec<Spot<String>>,
    pub(super) registries: BTreeMap<String, Spot<PathBuf>>,
    pub(super) geoip: Option<Spot<GeoIp>>,
    pub(super) policies: Vec<Spot<String>>,
    pub(super) listen: DeclaredListen,
    tls: DeclaredTls,
    http: Option<Http>,
    limits: Limits,
    workers: usize,
    scored_together_max: usize,
    scoring_deadline: Duration,
    onnxruntime: Option<Spot<PathBuf>>,
    pub(super) models: BTreeMap<String, Spot<PathBuf>>,
    pub(super) destinations: BTreeMap<String, Spot<Destination>>,
    pub(super) budgets: BTreeMap<String, budgets::Declared>,
    pub(super) sheds_denied: BTreeMap<String, Place>,
    prices: Prices,
    destination_files: BTreeMap<(String, kafka::Which), Place>,
    pub(super) peers: Vec<DeclaredPeer>,
    stop_within: Duration,
    on_stop: OnStop,
    log_every: Duration,
    pub(super) journal: Journal,
    pub(super) journal_place: Place,
    pub(super) ledger: DeclaredLedger,
    pub(super) keys: Option<DeclaredKeys>,
}

pub(super) struct DeclaredPeer {
    pub(super) id: Spot<String>,
    pub(super) endpoint: Spot<String>,
    pub(super) identity: Option<Spot<String>>,
    pub(super) country: Jurisdiction,
    pub(super) conditions: Vec<(Spot<String>, Proof)>,
    pub(super) serves: Vec<Spot<String>>,
}

impl DeclaredPeer {
    /// The peer. `None`: its id is no name.
    pub(super) fn peer(&self) -> Option<Peer> {
        Some(Peer {
            id: GatewayId::new(&self.id.value).ok()?,
            endpoint: self.endpoint.value.clone(),
            identity: self.identity.as_ref().map(|identity| identity.value.clone()),
            country: self.country,
            serves: self.serves.iter().map(|regime| regime.value.clone()).collect(),
            conditions: shown(&self.conditions),
        })
    }
}

pub(super) fn read(table: &Table<'_>, base: &Path) -> Declared {
    table.is_a(&GATEWAY_TOML);
    let gateway = table.need::<Table<'_>>("gateway").map(|spot| spot.value);
    let gateway = gateway.as_ref();
    let id = gateway.and_then(|gateway| gateway.need::<String>("id"));
    if let Some(id) = &id {
        name::check("gateway", id, table.problems());
    }
    let country = gateway.and_then(read_country);
    let conditions = gateway.map(|gateway| read_conditions(gateway)).unwrap_or_default();
    let mode = gateway.and_then(|gateway| word(gateway, "mode", &Mode::NAMES)).unwrap_or(Mode::Enforce);
    let serves = gateway.and_then(|gateway| gateway.need::<Vec<Spot<String>>>("serves"));
    let policies = gateway.and_then(|gateway| gateway.need::<Vec<Spot<String>>>("policies"));
    let stop_within = gateway
        .map_or(SignedDuration::from_secs(10), |gateway| gateway.or("stop_within", SignedDuration::from_secs(10)));
    let on_stop = gateway.and_then(|gateway| word(gateway, "on_stop", &OnStop::NAMES)).unwrap_or(OnStop::Keep);
    let place = gateway.map_or_else(|| table.place.clone(), |gateway| gateway.place.clone());
    if let Some(gateway) = gateway {
        gateway.done();
    }
    let (listen, tls) = tls::read(table, base);
    let http = monitor::read(table, &listen, &tls);
    let limits = read_limits(table);
    let (journal, journal_place, keys) = read_journal(table, base, &limits);
    let ledger = ledger::read(table, base, id.as_ref());
    let scoring = table.get::<Table<'_>>("scoring").map(|spot| spot.value);
    let scoring = scoring.as_ref();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = scoring.map_or(cores, |scoring| scoring.or("workers", cores)).max(1);
    let scored_together_max = scoring.map_or(1_024, |scoring| scoring.or("rows_together_max", 1_024)).max(1);
    let scoring_deadline = scoring.map_or(SCORING_DEADLINE.unsigned_abs(), read_scoring_deadline);
    let onnxruntime = scoring.and_then(|scoring| scoring.get::<String>("onnxruntime"));
    if let Some(scoring) = scoring {
        scoring.done();
    }
    let mut models = BTreeMap::new();
    if let Some(files) = table.get::<Table<'_>>("models") {
        for name in files.value.names() {
            if let Some(file) = files.value.get::<String>(&name) {
                models.insert(name, Spot { value: base.join(file.value), place: file.place });
            }
        }
    }
    let mut destinations = BTreeMap::new();
    let (mut destination_files, mut budgets, mut sheds_denied) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut prices = prices::read(table);
    for (name, destination) in table.named("destinations") {
        name::check("destination", &name, table.problems());
        let gateway = id.as_ref().map(|id| id.value.as_str());
        if let Some(budget) = budgets::read(&destination) {
            budgets.insert(name.value.clone(), budget);
        }
        sheds_denied.extend(destinations::sheds_denied(&destination).map(|place| (name.value.clone(), place)));
        let price = prices::read_price(&destination);
        prices.of_destinations.extend(price.and_then(|price| Some((DestinationName::new(&name.value).ok()?, price))));
        if let Some((value, files)) = destinations::read(&destination, base, gateway) {
            let named = files.into_iter().map(|(which, place)| ((name.value.clone(), which), place));
            destination_files.extend(named);
            destinations.insert(name.value, Spot { value, place: name.place });
        }
        destination.done();
    }
    destinations::warn_of_shared_topics(&destinations, table.problems());
    let peers = table.array("peers");
    let peers = peers.iter().filter_map(read_peer).collect();
    Declared {
        place,
        id,
        country,
        conditions,
        mode,
        shadow: read_shadow(table),
        registries: read_registries(table, base),
        geoip: read_geoip(table, base),
        serves: serves.map(|serves| serves.value).unwrap_or_default(),
        policies: policies.map(|policies| policies.value).unwrap_or_default(),
        listen,
        tls,
        http,
        limits,
        workers,
        scored_together_max,
        scoring_deadline,
        onnxruntime: onnxruntime.map(|path| Spot { value: base.join(path.value), place: path.place }),
        models,
        destinations,
        budgets,
        sheds_denied,
        prices,
        destination_files,
        peers,
        stop_within: stop_within.unsigned_abs(),
        on_stop,
        log_every: read_log(table),
        journal,
        journal_place,
        ledger,
        keys,
    }
}

/// How long a run of a model may take, by default.
const SCORING_DEADLINE: SignedDuration = SignedDuration::from_secs(5);

fn read_scoring_deadline(scoring: &Table<'_>) -> Duration {
    let Some(deadline) = scoring.get::<SignedDuration>("deadline") else { return SCORING_DEADLINE.unsigned_abs() };
    let allowed = SignedDuration::from_millis(100)..=SignedDuration::from_mins(10);
    if !allowed.contains(&deadline.value) {
        scoring.problems().error(&deadline.place, "`deadline` must be from PT0.1S to PT10M");
    }
    deadline.value.unsigned_abs()
}

fn read_country(table: &Table<'_>) -> Option<Spot<Jurisdiction>> {
    let country = table.need::<String>("country")?;
    let known = Jurisdiction::parse(&country.value).filter(|code| *code != Jurisdiction::UNKNOWN);
    if known.is_none() {
        table.problems().error(&country.place, format!("`{}` is not an ISO 3166-1 alpha-2 code", country.value));
    }
    Some(Spot { value: known?, place: country.place })
}

/// What has been shown of a gateway as a recipient of records.
fn read_conditions(table: &Table<'_>) -> Vec<(Spot<String>, Proof)> {
    policy::conditions_of_recipient(table)
}

/// The same, as the policies are told it. What is no condition was reported.
pub(super) fn shown(conditions: &[(Spot<String>, Proof)]) -> Conditions {
    conditions.iter().filter_map(|(name, proof)| Some((ConditionId::new(&name.value).ok()?, proof.clone()))).collect()
}

fn read_shadow(table: &Table<'_>) -> Vec<Spot<String>> {
    let Some(shadow) = table.get::<Table<'_>>("shadow") else { return Vec::new() };
    let policies = shadow.value.need::<Vec<Spot<String>>>("policies");
    shadow.value.done();
    policies.map(|policies| policies.value).unwrap_or_default()
}

fn read_registries(table: &Table<'_>, base: &Path) -> BTreeMap<String, Spot<PathBuf>> {
    let Some(files) = table.get::<Table<'_>>("registries") else { return BTreeMap::new() };
    let names = files.value.names();
    let files = names.into_iter().filter_map(|name| {
        let file = files.value.get::<String>(&name)?;
        Some((name, Spot { value: base.join(file.value), place: file.place }))
    });
    files.collect()
}

fn read_geoip(table: &Table<'_>, base: &Path) -> Option<Spot<GeoIp>> {
    let geoip = table.get::<Table<'_>>("geoip")?;
    let databases = geoip.value.need::<Vec<Spot<String>>>("databases");
    let agree = geoip.value.or("agree", AGREE_MIN);
    geoip.value.done();
    let databases: Vec<PathBuf> = databases?.value.into_iter().map(|file| base.join(file.value)).collect();
    if agree < AGREE_MIN || databases.len() < agree {
        let message = format!("at least {AGREE_MIN} databases must agree, and as many must be named");
        table.problems().error(&geoip.place, message);
    }
    Some(Spot { value: GeoIp { databases, agree }, place: geoip.place })
}

/// One database of network addresses is never believed alone: open ones differ on a tenth of the addresses.
const AGREE_MIN: usize = 2;

/// When checkpoints are due. They are put off for so long at most that a restart replays eight times as much, and that the
/// journal, which is kept for two of them, has most of its quota left.
fn due(quota_bytes: u64, bytes: u64, every: Duration) -> CheckpointsDue {
    CheckpointsDue { bytes, bytes_max: bytes.saturating_mul(8).min(quota_bytes / 8).max(bytes), every }
}

fn read_journal(table: &Table<'_>, base: &Path, limits: &Limits) -> (Journal, Place, Option<DeclaredKeys>) {
    let checkpoints = due(8 << 30, 64 << 20, Duration::from_secs(5));
    let default = Journal {
        directory: base.join("journal"),
        segment_bytes: storage::SEGMENT_BYTES,
        quota_bytes: 8 << 30,
        checkpoints,
        keys: Arc::default(),
    };
    let Some(journal) = table.get::<Table<'_>>("journal") else { return (default, table.place.clone(), None) };
    let journal = journal.value;
    let every = SignedDuration::from_secs(5);
    let quota_bytes = journal.or("quota_bytes", default.quota_bytes);
    let read = Journal {
        directory: journal.get::<String>("directory").map_or(default.directory, |path| base.join(path.value)),
        segment_bytes: journal.or("segment_bytes", default.segment_bytes),
        quota_bytes,
        checkpoints: due(
            quota_bytes,
            journal.or("checkpoint_bytes", checkpoints.bytes),
            journal.or("checkpoint_every", every).unsigned_abs(),
        ),
        keys: default.keys,
    };
    let keys = journal.get::<Table<'_>>("keys").map(|keys| DeclaredKeys::read(&keys.value, base));
    // Columns take more room than a payload, a JSON object of short numbers above all.
    if read.segment_bytes / 4 < limits.batch_bytes_max as u64 {
        let message = "`segment_bytes` is less than four batches of `batch_bytes_max`";
        journal.problems().warn(&journal.place, message, "larger batches may be refused as `too_large`");
    }
    if read.quota_bytes / 4 < read.segment_bytes {
        journal.problems().error(&journal.place, "`quota_bytes` is less than four segments of `segment_bytes`");
    }
    if !storage::SEGMENT_BYTES_RANGE.contains(&read.segment_bytes) {
        let message = format!("`segment_bytes` must be at most {}", storage::SEGMENT_BYTES_RANGE.end - 1);
        journal.problems().error(&journal.place, message);
    }
    journal.done();
    (read, journal.place, keys)
}

/// How often the log sums up, by default.
const LOG_EVERY: SignedDuration = SignedDuration::from_secs(60);

fn read_log(table: &Table<'_>) -> Duration {
    let Some(log) = table.get::<Table<'_>>("log") else { return LOG_EVERY.unsigned_abs() };
    let every = log.value.get::<SignedDuration>("every");
    log.value.done();
    let Some(every) = every else { return LOG_EVERY.unsigned_abs() };
    if every.value < SignedDuration::from_secs(1) {
        table.problems().error_help(&every.place, "`every` is less than a second", "write \"PT1S\" or more");
    }
    every.value.unsigned_abs()
}

/// So many of the largest batches fit into the budget: a quarter of it is for large messages while they arrive, each of
/// which may have twice the bytes of a batch, and is charged twice.
const BATCHES_IN_FLIGHT: usize = 16;

/// Less than this holds no window of a usual dataset.
const OPEN_WINDOWS_BYTES_LEAST: usize = 1 << 20;

fn read_limits(table: &Table<'_>) -> Limits {
    let (producers, remembered) = (ActiveMax::default(), RememberedMax::default());
    let default = Limits {
        batch_rows_max: 65_536,
        batch_bytes_max: 8 << 20,
        in_flight_bytes_max: 128 << 20,
        open_windows_bytes_max: 128 << 20,
        producers,
        remembered,
    };
    let Some(limits) = table.get::<Table<'_>>("limits") else { return default };
    let limits = limits.value;
    let per_address = limits.or("producers_per_address_max", producers.per_address);
    let per_identity = limits.or("producers_per_identity_max", producers.per_identity);
    let read = Limits {
        batch_rows_max: limits.or("batch_rows_max", default.batch_rows_max),
        batch_bytes_max: limits.or("batch_bytes_max", default.batch_bytes_max),
        in_flight_bytes_max: limits.or("in_flight_bytes_max", default.in_flight_bytes_max),
        open_windows_bytes_max: limits.or("open_windows_bytes_max", default.open_windows_bytes_max),
        producers: ActiveMax { in_all: limits.or("producers_active_max", producers.in_all), per_address, per_identity },
        remembered: RememberedMax {
            in_all: limits.or("producers_remembered_max", remembered.in_all),
            per_address,
            per_identity,
            forget_after: limits
                .get::<SignedDuration>("producers_forgotten_after")
                .map_or(remembered.forget_after, |after| after.value.unsigned_abs()),
        },
    };
    if read.open_windows_bytes_max < OPEN_WINDOWS_BYTES_LEAST {
        let message = format!("`open_windows_bytes_max` is less than {OPEN_WINDOWS_BYTES_LEAST}, so no window fits");
        table.problems().error(&limits.place, message);
    }
    let least = read.batch_bytes_max.saturating_mul(BATCHES_IN_FLIGHT);
    if read.in_flight_bytes_max < least {
        table.problems().error_help(
            &limits.place,
            format!("`in_flight_bytes_max` is less than {BATCHES_IN_FLIGHT} batches of `batch_bytes_max`"),
            format!(
                "set it to at least {least}, or `batch_bytes_max` to at most {}",
                read.in_flight_bytes_max / BATCHES_IN_FLIGHT
            ),
        );
    }
    limits.done();
    read
}

fn read_peer(table: &Table<'_>) -> Option<DeclaredPeer> {
    let id = table.need::<String>("id");
    let endpoint = table.need::<String>("endpoint");
    let identity = table.get::<String>("identity");
    let serves = table.need::<Vec<Spot<String>>>("serves");
    let country = read_country(table);
    let conditions = read_conditions(table);
    table.done();
    if let Some(endpoint) = &endpoint {
        check_endpoint(endpoint, identity.as_ref(), table.problems());
    }
    if let Some(id) = &id {
        name::check("gateway", id, table.problems());
    }
    let country = country?.value;
    Some(DeclaredPeer { id: id?, endpoint: endpoint?, identity, country, conditions, serves: serves?.value })
}

/// A peer is named to producers as an address that they can use.
fn check_endpoint(endpoint: &Spot<String>, identity: Option<&Spot<String>>, problems: &Problems) {
    let uri = endpoint.value.parse::<http::Uri>().ok().filter(|uri| uri.authority().is_some());
    match (uri.as_ref().and_then(http::Uri::scheme_str), identity) {
        (Some("https"), Some(identity)) if !is_identity(&identity.value) => {
            let message = format!("`{}` is no identity of a gateway", identity.value);
            let help = "write what its certificate holds: spiffe://corp.example/gateways/2, or a DNS name";
            problems.error_help(&identity.place, message, help);
        }
        (Some("https"), None) => problems.warn(
            &endpoint.place,
            format!("`{}` has no `identity`, so producers verify its host alone, and send it no token", endpoint.value),
            "add the `identity` that its certificate holds: spiffe://corp.example/gateways/2, say",
        ),
        (Some("http"), Some(identity)) => problems.error_help(
            &identity.place,
            "an identity is verified with TLS only, and the endpoint is plain text",
            "write https:// for the endpoint, or leave `identity` out",
        ),
        (Some("http" | "https"), _) => {}
        _ => {
            let message = format!("`{}` is no URI like https://gateway.example:7401", endpoint.value);
            problems.error_help(&endpoint.place, message, "write the scheme, the host and the port");
        }
    }
}

fn places<T>(spots: &BTreeMap<String, Spot<T>>) -> BTreeMap<String, Place> {
    spots.iter().map(|(name, spot)| (name.clone(), spot.place.clone())).collect()
}

impl Declared {
    /// The configuration, when all that it needs was declared.
    pub(super) fn finish(
        self,
        policy_files: Vec<Arc<Source>>,
        policy: PolicySet,
        shadow: Option<PolicySet>,
    ) -> Option<Config> {
        let peers = self.peers.iter().filter_map(DeclaredPeer::peer).map(Arc::new);
        let serves = self.serves.into_iter().map(|regime| regime.value).collect();
        let places = Places {
            gateway: self.place,
            onnxruntime: self.onnxruntime.as_ref().map(|spot| spot.place.clone()),
            models: places(&self.models),
            registries: places(&self.registries),
            geoip: self.geoip.as_ref().map(|spot| spot.place.clone()),
            tls: self.tls.places,
            destinations: self.destination_files,
            ledger: self.ledger.key.unwrap_or(self.ledger.place),
        };
        let (id, conditions) = (GatewayId::new(&self.id?.value).ok()?, shown(&self.conditions));
        let own = Some(Own { id: id.clone(), conditions: conditions.clone() });
        let here = Here { country: self.country?.value, serves, peers: peers.collect(), own };
        Some(Config {
            id,
            here: Arc::new(here),
            conditions,
            mode: self.mode,
            registries: self.registries.into_iter().map(|(name, spot)| (name, spot.value)).collect(),
            geoip: self.geoip.map(|geoip| geoip.value),
            listen: self.listen.address?,
            connections_max: self.listen.connections_max,
            http: self.http,
            tls: self.tls.files,
            tls_connections: self.tls.limits,
            limits: self.limits,
            workers: self.workers,
            scored_together_max: self.scored_together_max,
            scoring_deadline: self.scoring_deadline,
            onnxruntime: self.onnxruntime.map(|spot| spot.value),
            models: self.models.into_iter().map(|(name, spot)| (name, spot.value)).collect(),
            destinations: self
                .destinations
                .into_iter()
                .filter_map(|(name, spot)| Some((DestinationName::new(&name).ok()?, spot.value)))
                .collect(),
            budgets: self
                .budgets
                .into_iter()
                .filter_map(|(name, declared)| {
                    Some((DestinationName::new(&name).ok()?, declared.settings(&name, &policy)))
                })
                .collect(),
            sheds_denied: self.sheds_denied.keys().filter_map(|name| DestinationName::new(name).ok()).collect(),
            prices: self.prices,
            stop_within: self.stop_within,
            on_stop: self.on_stop,
            log_every: self.log_every,
            journal: Journal {
                keys: Arc::new(self.keys.map(DeclaredKeys::finish).unwrap_or_default()),
                ..self.journal
            },
            ledger: self.ledger.ledger,
            policy_files,
            policy: Arc::new(policy),
            shadow: shadow.map(Arc::new),
            places,
        })
    }
}
