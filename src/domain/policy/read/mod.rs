//! TOML → [`PolicySet`]. Each file says in `schema` what it is; the files are one set, whatever their
//! order, and a name declared twice is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::domain::dataset::Dataset;
use crate::domain::document::{self, Place, Problems, Source, Spot, Table, hint};
use crate::domain::jurisdiction::Jurisdiction;

use super::{Destination, Digest, PolicySet, StreamPlan};

mod datasets;
mod legal;
mod models;
mod streams;

/// What the files declare, before references between them are followed.
#[derive(Default)]
struct Declared {
    classes: BTreeMap<String, legal::DeclaredClass>,
    regions: BTreeMap<String, Spot<super::Region>>,
    regimes: Vec<legal::DeclaredRegime>,
    streams: BTreeMap<String, Spot<streams::DeclaredStream>>,
    models: BTreeMap<String, Spot<models::DeclaredModel>>,
    datasets: BTreeMap<String, Spot<datasets::DeclaredDataset>>,
    destinations: BTreeMap<String, Destination>,
}

const SCHEMAS: [&str; 4] = ["bailiwick.classes/1", "bailiwick.policy/1", "bailiwick.regime/1", "bailiwick.regions/1"];

/// Reads all policy files. The set is to be used only if `problems` holds no error.
pub fn read(files: &[Arc<Source>], problems: &Problems) -> PolicySet {
    let mut declared = Declared::default();
    for file in files {
        document::read(file, problems, |table| {
            let Some(schema) = table.need::<String>("schema") else { return };
            match schema.value.as_str() {
                "bailiwick.classes/1" => legal::read_classes(table, &mut declared),
                "bailiwick.regions/1" => legal::read_regions(table, &mut declared),
                "bailiwick.regime/1" => legal::read_regime(table, &mut declared),
                "bailiwick.policy/1" => read_policy(table, &mut declared),
                other => {
                    problems.error_help(&schema.place, format!("unknown schema `{other}`"), hint(other, &SCHEMAS));
                }
            }
        });
    }
    resolve(declared, digest(files), problems)
}

fn read_policy(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("streams") {
        if let Some(stream) = streams::read(&name.value, &table) {
            insert(&mut declared.streams, name, stream, table.problems());
        }
        table.done();
    }
    for (name, table) in table.named("models") {
        if let Some(model) = models::read(&table) {
            insert(&mut declared.models, name, model, table.problems());
        }
        table.done();
    }
    for (name, table) in table.named("datasets") {
        if let Some(dataset) = datasets::read(&table) {
            insert(&mut declared.datasets, name, dataset, table.problems());
        }
        table.done();
    }
    for (name, table) in table.named("destinations") {
        if let Some(destination) = read_destination(&name.place, &table)
            && declared.destinations.insert(name.value.clone(), destination).is_some()
        {
            table.problems().error(&name.place, format!("destination `{}` is declared twice", name.value));
        }
        table.done();
    }
}

fn read_destination(place: &Place, table: &Table<'_>) -> Option<Destination> {
    let country = table.need::<String>("country");
    let accepts = table.need::<Vec<Spot<String>>>("accepts");
    // A wrong code is reported; the destination stays known, so that references to it are not reported too.
    let country = code(&country?, table.problems()).unwrap_or(Jurisdiction::UNKNOWN);
    let accepts = accepts?.value.into_iter().map(|name| (name.value, name.place)).collect();
    Some(Destination { country, accepts, place: place.clone() })
}

fn insert<T>(into: &mut BTreeMap<String, Spot<T>>, name: Spot<String>, value: T, problems: &Problems) {
    if let Some(first) = into.get(&name.value) {
        let message = format!("`{}` is declared twice; first at {}", name.value, first.place);
        problems.error(&name.place, message);
        return;
    }
    into.insert(name.value, Spot { value, place: name.place });
}

/// An ISO 3166 code that is a jurisdiction a law can name: not `ZZ`.
fn code(code: &Spot<String>, problems: &Problems) -> Option<Jurisdiction> {
    let known = Jurisdiction::parse(&code.value).filter(|code| *code != Jurisdiction::UNKNOWN);
    if known.is_none() {
        let message = format!("`{}` is not an ISO 3166-1 alpha-2 or ISO 3166-2 code", code.value);
        problems.error(&code.place, message);
    }
    known
}

fn resolve(declared: Declared, digest: Digest, problems: &Problems) -> PolicySet {
    let classes = legal::resolve_classes(&declared, problems);
    let regimes = legal::resolve_regimes(&declared, &classes, problems);
    let mut streams = BTreeMap::new();
    for (name, declared_stream) in &declared.streams {
        let stream = Arc::new(streams::resolve(name, &declared_stream.value, &classes, problems));
        let model = models::resolve(&declared_stream.value, &stream, &declared.models, &classes, problems);
        let mut of_record: BTreeSet<String> = stream.fields.iter().map(|field| field.class.clone()).collect();
        of_record.extend(model.iter().flat_map(|model| model.outputs.iter().map(|output| output.class.clone())));
        streams.insert(name.clone(), StreamPlan { stream, model, datasets: Vec::new(), classes: of_record });
    }
    for (name, dataset) in &declared.datasets {
        attach(name, dataset, &mut streams, problems);
    }
    for (name, model) in &declared.models {
        if !declared.streams.values().any(|stream| stream.value.uses_model(name)) {
            problems.warn(
                &model.place,
                format!("no stream uses model `{name}`"),
                "name it in a stream's `model`, or remove it",
            );
        }
    }
    let known: Vec<&str> = declared.datasets.keys().map(String::as_str).collect();
    for destination in declared.destinations.values() {
        for (dataset, place) in &destination.accepts {
            if !declared.datasets.contains_key(dataset) {
                problems.error_help(place, format!("there is no dataset `{dataset}`"), hint(dataset, &known));
            }
        }
    }
    PolicySet { digest, classes, regimes, streams, destinations: declared.destinations }
}

fn attach(
    name: &str,
    declared: &Spot<datasets::DeclaredDataset>,
    streams: &mut BTreeMap<String, StreamPlan>,
    problems: &Problems,
) {
    let stream = &declared.value.stream;
    let known: Vec<String> = streams.keys().cloned().collect();
    let Some(plan) = streams.get_mut(&stream.value) else {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        problems.error_help(
            &stream.place,
            format!("there is no stream `{}`", stream.value),
            hint(&stream.value, &known),
        );
        return;
    };
    if let Some(first) = plan.datasets.first() {
        let message = format!("stream `{}` already has dataset `{}`", stream.value, first.name);
        problems.error_help(
            &declared.place,
            message,
            "two partitions of the same records can be subtracted from each other; put the metrics into one dataset",
        );
        return;
    }
    if let Some(dataset) = datasets::resolve(name, &declared.value, plan, problems) {
        let dataset: Dataset = dataset;
        plan.datasets.push(Arc::new(dataset));
    }
}

fn digest(files: &[Arc<Source>]) -> Digest {
    let mut hashes: Vec<[u8; 32]> = files.iter().map(|file| Sha256::digest(file.text.as_bytes()).into()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    let mut all = Sha256::new();
    hashes.iter().for_each(|hash| all.update(hash));
    Digest(all.finalize().into())
}
