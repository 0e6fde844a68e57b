//! TOML → [`PolicySet`]. Each file says in `schema` what it is; the files are one set, whatever their
//! order, and a name declared twice is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::domain::codes::Codes;
use crate::domain::dataset::{Bounds, Dataset};
use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{self, Place, Problems, Source, Spot, Table, hint, hint_of};
use crate::domain::evidence::Source as EvidenceSource;
use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::{self, DatasetName, DestinationName, Name, StreamName};
use crate::domain::producers::Producers;
use crate::domain::proof::{ConditionId, Proof, Vouches};

use super::{Dated, Digest, PolicySet, Profile, RegistryShape, StreamPlan};

mod access;
mod classes;
mod coarser;
mod codes;
mod conditions;
mod counters;
mod datasets;
mod deployment;
mod evidence;
mod models;
mod privacy;
mod profiles;
mod regimes;
mod regions;
mod roll_up;
mod rounding;
mod shared;
mod streams;
mod terms;
mod told;
mod windows;
mod words;

pub use conditions::PROOF;

/// What the files declare, before references between them are followed.
#[derive(Default)]
struct Declared {
    /// They were in force, and are not now: they may be of an earlier version of the language.
    was_in_force: bool,
    classes: BTreeMap<String, Spot<classes::DeclaredClass>>,
    regions: BTreeMap<String, Spot<super::Region>>,
    disputed: BTreeMap<Jurisdiction, Vec<Jurisdiction>>,
    /// Known before anything else is read.
    codes: Arc<Codes>,
    /// What the sections that were read so far bring, to find what comes twice.
    codes_seen: Codes,
    regimes: Vec<regimes::DeclaredRegime>,
    /// The conditions that a transfer or a region needs, and those that are shown.
    needed: BTreeSet<ConditionId>,
    reviews: Vec<Dated>,
    begins: Vec<Dated>,
    ends: Vec<Dated>,
    shown: Vec<Spot<String>>,
    /// Of what something is shown: what kind of thing, and its name.
    shown_of: Vec<(&'static str, Spot<String>)>,
    counted: Vec<counters::DeclaredCounted>,
    once: deployment::Once,
    vouches: Vouches,
    producers: Producers,
    access: access::Declared,
    registries: BTreeMap<String, RegistryShape>,
    overrides: Vec<deployment::DeclaredOverride>,
    streams: BTreeMap<String, Spot<streams::DeclaredStream>>,
    models: BTreeMap<String, Spot<models::DeclaredModel>>,
    datasets: BTreeMap<String, Spot<datasets::DeclaredDataset>>,
    profiles: BTreeMap<String, Spot<Profile>>,
    destinations: BTreeMap<String, deployment::DeclaredDestination>,
}

type Names = Vec<Spot<String>>;

/// A list of names.
const NAMES: Kind = Kind::List(&Kind::Text);

const SOURCES: Key = Key::required("sources", NAMES, "Where it says so: at least one source.");

/// What each kind of policy file holds; the name of a shape is the file's `schema`.
pub const SHAPES: [&Shape; 4] = [&classes::CLASSES, &POLICY, &regimes::REGIME, &regions::REGIONS];

const POLICY: Shape = Shape {
    name: "bailiwick.policy/1",
    about: "What a deployment declares: its streams, models, datasets, and where cells may go.",
    keys: &[
        Key::required("schema", Kind::Word(&["bailiwick.policy/1"]), "What this file is."),
        Key::new("streams", Kind::Named(&Kind::Table(&streams::STREAM)), "The streams, by name."),
        Key::new("models", Kind::Named(&Kind::Table(&models::MODEL)), "The models, by name."),
        Key::new("datasets", Kind::Named(&Kind::Table(&datasets::DATASET)), "The datasets, by name."),
        Key::new(
            "release",
            Kind::Named(&Kind::Table(&profiles::PROFILE)),
            "Release profiles, by name: what must be true of cells before they leave.",
        ),
        Key::new("facts", Kind::Table(&deployment::FACTS), "How evidence is weighed. The same in all files of a set."),
        Key::new(
            "quarantine",
            Kind::Table(&deployment::QUARANTINE),
            "How long records are held. The same in all files of a set.",
        ),
        Key::new(
            "review",
            Kind::Table(&deployment::REVIEW),
            "What becomes of facts that are past their review. The same in all files of a set.",
        ),
        Key::new(
            "shown",
            Kind::List(&Kind::Table(&conditions::SHOWN)),
            "Conditions that somebody vouches for, and of what.",
        ),
        Key::new(
            "counted",
            Kind::List(&Kind::Table(&counters::COUNTED)),
            "Counters of laws that gateways keep, and what somebody says of them.",
        ),
        Key::new(
            "producers",
            Kind::Named(&Kind::Table(&deployment::PRODUCER)),
            "What is vouched for of producers, by name, or by a pattern of names as in till-*.",
        ),
        Key::new(
            "permissions",
            Kind::Named(&Kind::Table(&access::PERMISSION)),
            "Who may do what, by rule. Without a rule nobody may do anything on a listener with TLS.",
        ),
        Key::new("registries", Kind::Named(&Kind::Table(&deployment::REGISTRY)), "The columns of registries, by name."),
        Key::new(
            "destinations",
            Kind::Named(&Kind::Table(&deployment::DESTINATION)),
            "What may go to destinations, by name.",
        ),
        Key::new(
            "overrides",
            Kind::List(&Kind::Table(&deployment::OVERRIDE)),
            "Relaxations that two people have approved.",
        ),
    ],
};

/// What `conditions` shows of a recipient, each with its place.
pub fn conditions_of_recipient(table: &Table<'_>) -> Vec<(Spot<String>, Proof)> {
    conditions::of_recipient(table)
}

/// Reads all policy files. The set is to be used only if `problems` holds no error.
pub fn read(files: &[Arc<Source>], problems: &Problems) -> PolicySet {
    read_as(false, files, problems)
}

/// Reads the files of policies that were in force, as they were meant then.
pub fn read_kept(files: &[Arc<Source>], problems: &Problems) -> PolicySet {
    read_as(true, files, problems)
}

fn read_as(was_in_force: bool, files: &[Arc<Source>], problems: &Problems) -> PolicySet {
    let mut declared = Declared { was_in_force, codes: Arc::new(codes::of(files)), ..Declared::default() };
    for file in files {
        document::read(file, problems, |table| {
            let Some(schema) = table.need::<String>("schema") else { return };
            let shape = SHAPES.into_iter().find(|shape| shape.name == schema.value);
            shape.into_iter().for_each(|shape| table.is_a(shape));
            match schema.value.as_str() {
                "bailiwick.classes/1" => classes::read_classes(table, &mut declared),
                "bailiwick.regions/1" => regions::read_regions(table, &mut declared),
                "bailiwick.regime/1" => regimes::read_regime(table, &mut declared),
                "bailiwick.policy/1" => read_policy(table, &mut declared),
                other => {
                    problems.error_help(
                        &schema.place,
                        format!("unknown schema `{other}`"),
                        hint(other, &SHAPES.map(|shape| shape.name)),
                    );
                }
            }
        });
    }
    resolve(declared, digest(files), problems)
}

fn read_policy(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("streams") {
        name::check("stream", &name, table.problems());
        if let Some(stream) = streams::read(&table, &declared.codes) {
            insert(&mut declared.streams, name, stream, table.problems());
        }
        table.done();
    }
    for (name, table) in table.named("models") {
        name::check("model", &name, table.problems());
        if let Some(model) = models::read(&table) {
            insert(&mut declared.models, name, model, table.problems());
        }
        table.done();
    }
    for (name, table) in table.named("datasets") {
        name::check("dataset", &name, table.problems());
        if let Some(dataset) = datasets::read(&table) {
            insert(&mut declared.datasets, name, dataset, table.problems());
        }
        table.done();
    }
    profiles::read(table, declared);
    deployment::read(table, declared);
    access::read(table, &mut declared.access);
}

fn insert<T>(into: &mut BTreeMap<String, Spot<T>>, name: Spot<String>, value: T, problems: &Problems) {
    if let Some(first) = into.get(&name.value) {
        let message = format!("`{}` is declared twice; first at {}", name.value, first.place);
        problems.error(&name.place, message);
        return;
    }
    into.insert(name.value, Spot { value, place: name.place });
}

fn resolve(declared: Declared, digest: Digest, problems: &Problems) -> PolicySet {
    let classes = classes::resolve_classes(&declared, problems);
    let regimes = regimes::resolve_regimes(&declared, &classes, problems);
    let roles: BTreeSet<&str> =
        declared.producers.values().flat_map(|producer| &producer.roles).map(String::as_str).collect();
    let mut streams = BTreeMap::new();
    for (name, Spot { value: declared_stream, place }) in &declared.streams {
        // What is no name was reported when it was read.
        let Ok(name) = StreamName::new(name) else { continue };
        let (stream, treatments) = streams::resolve(name.clone(), declared_stream, &classes, problems);
        let evidence = declared_stream.evidence.resolve(&stream, &declared.registries, &roles, problems);
        let stream = Arc::new(stream);
        let model = models::resolve(declared_stream, &stream, &treatments, &declared.models, &classes, problems);
        let mut of_record: BTreeSet<String> = stream.fields.iter().map(|field| field.class.clone()).collect();
        of_record.extend(model.iter().flat_map(|model| model.outputs.iter().flat_map(|output| output.classes.clone())));
        let untested = declared_stream.evidence.untested();
        let model_place = model.as_ref().and_then(|model| declared.models.get(&model.name));
        let model_place = model_place.map(|model| model.value.sha256.place.clone());
        let (datasets, counted, classes, place) = (Vec::new(), Vec::new(), of_record, place.clone());
        let plan = StreamPlan {
            stream,
            contributor_is_person: declared_stream.contributor_is_person,
            evidence,
            untested,
            treatments,
            model,
            model_place,
            datasets,
            counted,
            classes,
            place,
        };
        streams.insert(name, plan);
    }
    let profile = |(name, dataset): (&String, &Spot<datasets::DeclaredDataset>)| {
        let profile = dataset.value.profile(&declared.profiles, problems)?;
        Some((DatasetName::new(name).ok()?, profile))
    };
    let release_of: BTreeMap<DatasetName, Profile> = declared.datasets.iter().filter_map(profile).collect();
    // First those that others are coarser than.
    let (coarser, finer): (Vec<_>, Vec<_>) =
        declared.datasets.iter().partition(|(_, dataset)| dataset.value.coarser_than.is_some());
    for (name, dataset) in finer.into_iter().chain(coarser) {
        let place = &dataset.place;
        let counting = |plan: &StreamPlan, dataset: Dataset| {
            let covering = regimes.values().filter(|regime| regime.covers_class(&classes, &plan.classes));
            let profiles = covering.map(|regime| &regime.release).chain(release_of.get(name.as_str()));
            let bounds = profiles.clone().filter_map(|profile| profile.bounds).reduce(Bounds::stricter);
            let keeps_all = profiles.clone().any(|profile| profile.beside.is_some());
            if bounds.is_some() && dataset.max_defer > 0 {
                problems.error_help(
                    place,
                    "its cells cannot wait (`max_defer`) where a release profile bounds how many records of a contributor \
                     count: the bounds hold in each window, and not in several together",
                    "remove `max_defer`, or the bounds",
                );
            }
            Dataset { bounds, keeps_all, ..dataset }
        };
        attach(name, &declared.datasets, &mut streams, counting, problems);
    }
    let place_of = |dataset: &Dataset| Some(declared.datasets.get(dataset.name.as_str())?.place.clone());
    streams.values_mut().for_each(|plan| shared::join(plan, place_of, problems));
    let used: BTreeSet<&str> = declared.streams.values().filter_map(|stream| stream.value.model_name()).collect();
    for (name, model) in &declared.models {
        if !used.contains(name.as_str()) {
            problems.warn(
                &model.place,
                format!("no stream uses model `{name}`"),
                "name it in a stream's `model`, or remove it",
            );
        }
    }
    let of_stream = |plan: &StreamPlan| {
        plan.datasets.iter().map(|dataset| (dataset.name.clone(), plan.stream.name.clone())).collect::<Vec<_>>()
    };
    let stream_of = streams.values().flat_map(of_stream).collect();
    let streams_declared: BTreeSet<&str> = declared.streams.keys().map(String::as_str).collect();
    let access = access::resolve(&declared.access, &streams_declared, problems);
    let destination = |(name, declared): (&String, &deployment::DeclaredDestination)| {
        Some((DestinationName::new(name).ok()?, declared.resolve()))
    };
    let counted = counters::resolve_counted(&declared, &regimes, &classes, problems);
    let once = &declared.once;
    let set = PolicySet {
        digest,
        classes,
        regimes,
        disputed: Arc::new(declared.disputed.clone()),
        codes: Arc::clone(&declared.codes),
        facts: once.facts.as_ref().map(|facts| facts.value).unwrap_or_default(),
        hold: once.hold(),
        on_expired: once.on_expired(),
        vouches: declared.vouches.clone(),
        counted,
        producers: Arc::new(declared.producers.clone()),
        access,
        registries: declared.registries.clone(),
        streams,
        stream_of,
        release_of,
        destinations: declared.destinations.iter().filter_map(destination).collect(),
        overrides: declared.overrides.iter().filter_map(deployment::DeclaredOverride::resolve).collect(),
        shown_of_gateways: conditions::gateways(&declared),
        needed: declared.needed.clone(),
        reviews: declared.reviews.clone(),
        begins: declared.begins.clone(),
        ends: declared.ends.clone(),
    };
    check(&declared, &set, problems);
    set
}

/// The references that are names in the set itself.
fn check(declared: &Declared, set: &PolicySet, problems: &Problems) {
    let datasets: BTreeSet<&str> = declared.datasets.keys().map(String::as_str).collect();
    let destinations: BTreeSet<&str> = declared.destinations.keys().map(String::as_str).collect();
    let known = |name: &Spot<String>, known: &BTreeSet<&str>, what: &str| {
        let Spot { value: name, place } = name;
        if !known.contains(name.as_str()) {
            problems.error_help(place, format!("there is no {what} `{name}`"), hint_of(name, known.iter().copied()));
        }
    };
    for destination in declared.destinations.values() {
        destination.accepts.iter().for_each(|dataset| known(dataset, &datasets, "dataset"));
    }
    rounding::check(set, |dataset| Some(&declared.datasets.get(dataset)?.place), problems);
    let mut ids = BTreeSet::new();
    for relaxed in &declared.overrides {
        let place = &relaxed.id.place;
        known(&relaxed.dataset, &datasets, "dataset");
        known(&relaxed.destination, &destinations, "destination");
        let waits = |plan: &StreamPlan| {
            plan.datasets.iter().any(|dataset| dataset.name == *relaxed.dataset.value.as_str() && dataset.max_defer > 0)
        };
        if set.streams.values().any(waits) {
            problems.error_help(
                &relaxed.dataset.place,
                "its cells wait (`max_defer`): what one destination is given under an override would tell the others how \
                 many contributors a cell had that they were not given",
                "remove the override, or `max_defer`",
            );
        }
        let sharing = set.dataset(&relaxed.dataset.value).into_iter().flat_map(|(plan, dataset)| plan.sharing(dataset));
        let others = sharing.filter(|dataset| dataset.name != *relaxed.dataset.value.as_str());
        let others: Vec<String> = others.map(|dataset| format!("`{}`", dataset.name)).collect();
        if !others.is_empty() {
            problems.error_help(
                &relaxed.dataset.place,
                format!("dataset `{}` shares its cells with {}", relaxed.dataset.value, others.join(", ")),
                "an override is for a dataset that is alone on its stream: the numbers of all that share cells are judged \
                 together, by the strictest rule of any. Remove the override, or the other datasets",
            );
        }
        if !ids.insert(&relaxed.id.value) {
            problems.error(place, format!("override `{}` is declared twice", relaxed.id.value));
        }
    }
    conditions::check(declared, problems);
    for (name, stream) in &declared.streams {
        let Some(plan) = set.streams.get(name.as_str()) else { continue };
        check_tested(set, plan, &stream.place, problems);
    }
}

/// Every fact that a law tests of a stream's records has evidence, or is said not to be tested.
fn check_tested(set: &PolicySet, plan: &StreamPlan, place: &Place, problems: &Problems) {
    let covering = || set.regimes.values().filter(|regime| regime.covers_class(&set.classes, &plan.classes));
    for fact in Fact::OF_RECORDS {
        let has_evidence = plan.evidence.iter().any(|evidence| evidence.fact == fact);
        let testing = covering().filter(|regime| regime.applies.iter().any(|scope| scope.fact == fact));
        let testing: Vec<&str> = testing.map(|regime| regime.id.as_str()).collect();
        if !testing.is_empty() && !has_evidence && !plan.untested.contains(&fact) {
            let (fact, stream) = (fact.name(), &plan.stream.name);
            let message = format!("`{fact}` is tested by {} and has no evidence here", testing.join(", "));
            let help = format!(
                "say in [streams.{stream}.facts] where it comes from, or add it to `untested`: then these laws do not \
                 apply by it"
            );
            problems.error_help(place, message, help);
        }
    }
    for evidence in &plan.evidence {
        if let EvidenceSource::Field(field) = evidence.source
            && plan.stream.fields.get(field).is_some_and(|field| field.bytes_max < 2)
        {
            problems.error(place, "a field that holds a code needs a `bytes_max` of at least 2");
        }
    }
}

fn attach(
    name: &str,
    all: &BTreeMap<String, Spot<datasets::DeclaredDataset>>,
    streams: &mut BTreeMap<StreamName, StreamPlan>,
    counting: impl Fn(&StreamPlan, Dataset) -> Dataset,
    problems: &Problems,
) {
    let Some(declared) = all.get(name) else { return };
    let stream = &declared.value.stream;
    if !streams.contains_key(stream.value.as_str()) {
        let help = hint_of(&stream.value, streams.keys().map(AsRef::as_ref));
        problems.error_help(&stream.place, format!("there is no stream `{}`", stream.value), help);
    }
    let Some(plan) = streams.get_mut(stream.value.as_str()) else { return };
    if let Some(dataset) = datasets::resolve(name, &declared.value, plan, problems) {
        if let Some(finer) = &declared.value.coarser_than {
            let stream_of_finer = all.get(&finer.value).map(|finer| finer.value.stream.value.as_str());
            let gives_up = declared.value.roll_up.first().map(|key| &key.place);
            if !coarser::check(&coarser::Declared { finer, stream_of_finer, gives_up }, &dataset, plan, problems) {
                return;
            }
        }
        let first = plan.sharing(&dataset).next();
        if first.is_some_and(|first| !shared::can_share(first, &dataset, &declared.place, problems)) {
            return;
        }
        let dataset = counting(plan, dataset);
        declared.value.check_privacy(&dataset, problems);
        plan.datasets.push(Arc::new(dataset));
    }
}

/// A text that is meant as a name, if it is one. Any other is the name of nothing, and reported as such.
fn name_of<K>(text: &Spot<String>) -> Option<Spot<Name<K>>> {
    Some(Spot { value: Name::new(&text.value).ok()?, place: text.place.clone() })
}

fn digest(files: &[Arc<Source>]) -> Digest {
    let mut hashes: Vec<[u8; 32]> = files.iter().map(|file| Sha256::digest(file.text.as_bytes()).into()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    let mut all = Sha256::new();
    hashes.iter().for_each(|hash| all.update(hash));
    Digest::from_bytes(all.finalize().into())
}
