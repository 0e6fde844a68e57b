//! Policies as TOML: several files, each a number of tables whose order is of no account.

use std::fmt::Write as _;

use bailiwick::domain::name::DatasetName;

use super::reference::{FACTS, Policy, Shown, Source};

pub(super) const STREAM: &str = "events";
pub(super) const DATASET: &str = "counts";
/// Another stream and its dataset, of which no record is ever sent and nothing goes anywhere.
pub(super) const OTHER: [&str; 2] = ["others", "other_counts"];

/// [`DATASET`] as what it is.
pub(super) fn dataset() -> DatasetName {
    DATASET.parse().unwrap()
}

/// A file: its name, the lines that must come first, and its tables.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) head: Vec<String>,
    pub(super) tables: Vec<String>,
}

impl File {
    fn new(name: &str, schema: &str) -> Self {
        Self { name: name.to_owned(), head: vec![format!("schema = \"bailiwick.{schema}/1\"")], tables: Vec::new() }
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.head.join("\n");
        for table in &self.tables {
            write!(text, "\n\n{table}").unwrap();
        }
        text.push('\n');
        text
    }
}

fn list(names: &[String]) -> String {
    format!("[{}]", names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "))
}

/// Without `skip`, what is empty is left out.
fn optional(text: &mut String, key: &str, names: &[String]) {
    if !names.is_empty() {
        write!(text, ", {key} = {}", list(names)).unwrap();
    }
}

fn shown(conditions: &[Shown]) -> Vec<String> {
    let line = |shown: &Shown| {
        let until = shown.until.as_ref().map_or(String::new(), |until| format!(", until = {until}"));
        format!("{:?} = {{ ref = \"REF-1\"{until} }}", shown.name)
    };
    conditions.iter().map(line).collect()
}

fn facts(facts: &[(String, Vec<String>)]) -> String {
    facts.iter().map(|(fact, codes)| format!("\n{fact:?} = {}", list(codes))).collect()
}

pub(super) fn files(policy: &Policy) -> Vec<File> {
    let mut files = legal(policy);
    let mut weighing = File::new("weighing.toml", "policy");
    weighing.tables.push(format!("[facts]\nmin_strength = {}\nunknown = {:?}", policy.min_strength, policy.unknown));
    weighing.tables.push(format!("[review]\non_expired = {:?}", policy.on_expired));
    for vouch in &policy.vouches {
        let of: Vec<String> = vouch.of.iter().map(|(what, name)| format!("{what} = {name:?}")).collect();
        let of = if of.is_empty() { String::new() } else { format!("for = {{ {} }}\n", of.join(", ")) };
        let until = vouch.until.as_ref().map_or(String::new(), |until| format!("\nuntil = {until}"));
        weighing
            .tables
            .push(format!("[[shown]]\nconditions = [{:?}]\n{of}by = \"somebody\"\nref = \"REF-1\"{until}", vouch.name));
    }
    files.push(weighing);

    let mut stream = File::new("stream.toml", "policy");
    for producer in &policy.producers {
        let table = format!(
            "[producers.{}]\nroles = {}\n[producers.{}.facts]",
            producer.name,
            list(&producer.roles),
            producer.name
        );
        stream.tables.push(table + &facts(&producer.facts));
    }
    for registry in &policy.registries {
        let mut table = format!("[registries.{}]\nkey = \"key\"\n[registries.{}.facts]", registry.name, registry.name);
        registry.facts.iter().for_each(|fact| write!(table, "\n{fact:?} = \"column\"").unwrap());
        stream.tables.push(table);
    }
    stream.tables.extend(stream_tables(policy));
    let [other, other_dataset] = OTHER;
    let untested: Vec<String> = FACTS.map(str::to_owned).to_vec();
    stream.tables.push(format!(
        "[streams.{other}]\nevent_time = \"time\"\ncontributor = \"who\"\nuntested = {}\n[streams.{other}.facts]\n[streams.{other}.fields]\n\
         time = {{ type = \"timestamp\", class = {class:?} }}\nwho = {{ type = \"string\", class = {class:?} }}",
        list(&untested),
        class = policy.classes[0].name
    ));
    stream.tables.push(format!(
        "[datasets.{other_dataset}]\nstream = {other:?}\nwindow = {{ size = \"PT1M\" }}\n\
         metrics = [{{ name = \"events\", fn = \"count\" }}]"
    ));
    files.push(stream);

    let mut out = File::new("out.toml", "policy");
    out.tables.push(format!(
        "[datasets.{DATASET}]\nstream = {STREAM:?}\nwindow = {{ size = \"PT1M\" }}\nmin_contributors = {}\n\
         metrics = [{{ name = \"events\", fn = \"count\" }}]",
        policy.k
    ));
    for destination in &policy.destinations {
        let mut table = format!(
            "[destinations.{}]\ncountry = {:?}\naccepts = {}",
            destination.name,
            destination.country,
            list(&destination.accepts)
        );
        if let Some(operator) = &destination.operator {
            write!(table, "\noperator_country = {operator:?}").unwrap();
        }
        if !destination.onward.is_empty() {
            write!(table, "\nonward = {}", list(&destination.onward)).unwrap();
        }
        if let Some(form) = &destination.max_form {
            write!(table, "\nmax_form = {form:?}").unwrap();
        }
        write!(table, "\n[destinations.{}.conditions]", destination.name).unwrap();
        shown(&destination.conditions).iter().for_each(|line| write!(table, "\n{line}").unwrap());
        out.tables.push(table);
    }
    for relaxed in &policy.overrides {
        out.tables.push(format!(
            "[[overrides]]\nid = {:?}\nrelaxes = \"min_contributors\"\nvalue = {}\n\
             scope = {{ dataset = {:?}, destination = {:?} }}\nreason = \"pilot\"\n\
             approved = [\"dpo@acme.example\", \"ciso@acme.example\"]\nuntil = {}",
            relaxed.id, relaxed.value, relaxed.dataset, relaxed.destination, relaxed.until
        ));
    }
    files.push(out);
    files
}

fn legal(policy: &Policy) -> Vec<File> {
    let mut files = Vec::new();
    let mut classes = File::new("classes.toml", "classes");
    for class in &policy.classes {
        classes.tables.push(format!(
            "[classes.{}]\nabout = \"a class\"\nparents = {}\nspecial = {}",
            class.name,
            list(&class.parents),
            class.special
        ));
    }
    files.push(classes);

    let mut regions = File::new("regions.toml", "regions");
    for region in &policy.regions {
        let mut table = format!(
            "[regions.{}]\nas_of = 2026-01-01\nreview_by = {}\nsources = [\"a source\"]\ncodes = [",
            region.name,
            region.entries.first().map_or("2027-01-01", |entry| &entry.review_by)
        );
        for entry in &region.entries {
            if entry.from.is_none() && entry.until.is_none() && entry.needs.is_empty() {
                write!(table, "\n  {:?},", entry.code).unwrap();
                continue;
            }
            write!(table, "\n  {{ code = {:?}", entry.code).unwrap();
            for (key, day) in [("from", &entry.from), ("until", &entry.until)] {
                day.iter().for_each(|day| write!(table, ", {key} = {day}").unwrap());
            }
            optional(&mut table, "needs", &entry.needs);
            table.push_str(" },");
        }
        regions.tables.push(table + "\n]");
    }
    if !policy.disputed.is_empty() {
        let mut table = "[disputed]".to_owned();
        for (code, claimants) in &policy.disputed {
            write!(table, "\n{code:?} = {}", list(claimants)).unwrap();
        }
        regions.tables.push(table);
    }
    files.push(regions);

    for regime in &policy.regimes {
        let mut file = File::new(&format!("{}.toml", regime.id), "regime");
        file.head.push(format!(
            "id = {:?}\nname = \"a law\"\nnotice = \"no advice\"\nas_of = 2026-01-01\nreview_by = {}\n\
             confidence = \"high\"\nsources = [\"a source\"]\nclasses = {}\nlocalisation = {:?}\nmisroute = {:?}",
            regime.id,
            regime.review_by,
            list(&regime.classes),
            regime.localisation,
            regime.misroute
        ));
        if let Some(from) = &regime.from {
            file.head.push(format!("from = {from}"));
        }
        if let Some(k) = regime.min_contributors {
            file.head.push(format!("min_contributors = {k}"));
        }
        for applies in &regime.applies {
            let mut table = format!("[[applies]]\nfact = {:?}\nin = {}", applies.fact, list(&applies.within));
            applies.from.iter().for_each(|from| write!(table, "\nfrom = {from}").unwrap());
            file.tables.push(table);
        }
        for row in &regime.transfers {
            let mut table = format!(
                "[[transfers]]\nid = {:?}\nform = {:?}\nto = {}\nexcept = {}\nbasis = \"a basis\"\nneeds = {}",
                row.id,
                row.form,
                list(&row.to),
                list(&row.except),
                list(&row.needs)
            );
            for (key, day) in [("from", &row.from), ("until", &row.until)] {
                day.iter().for_each(|day| write!(table, "\n{key} = {day}").unwrap());
            }
            file.tables.push(table);
        }
        files.push(file);
    }
    files
}

fn stream_tables(policy: &Policy) -> Vec<String> {
    let stream = &policy.stream;
    let mut head = format!(
        "[streams.{STREAM}]\nevent_time = \"time\"\ncontributor = \"who\"\nuntested = {}",
        list(&stream.untested)
    );
    if stream.model.is_some() {
        head.push_str("\nmodel = \"scorer\"");
    }
    let mut table = format!("[streams.{STREAM}.facts]");
    for fact in FACTS {
        let of_fact: Vec<_> = stream.evidence.iter().filter(|evidence| evidence.fact == fact).collect();
        if of_fact.is_empty() {
            continue;
        }
        write!(table, "\n{fact:?} = [").unwrap();
        for evidence in of_fact {
            let source = match &evidence.source {
                Source::Field(field) => format!("field = {field:?}"),
                Source::Phone(field) => format!("phone = {field:?}"),
                Source::Iban(field) => format!("iban = {field:?}"),
                Source::Position => "position = [\"lat\", \"lon\"], radius_m = 2000".to_owned(),
                Source::Registry { name, by } => format!("registry = {name:?}, by = {by:?}"),
                Source::Producer => "producer = true".to_owned(),
                Source::GeoIp => "geoip = true".to_owned(),
                Source::Always(codes) => format!("always = {}", list(codes)),
            };
            write!(table, "\n  {{ {source}, strength = {}", evidence.strength).unwrap();
            if let Some(roles) = &evidence.trusted_from {
                write!(table, ", trusted_from = {}", list(roles)).unwrap();
            }
            table.push_str(" },");
        }
        table.push_str("\n]");
    }
    // What is no fact of ours is written too: it is to be refused.
    for evidence in stream.evidence.iter().filter(|evidence| !FACTS.contains(&&*evidence.fact)) {
        write!(table, "\n{:?} = [{{ field = \"a\", strength = {} }}]", evidence.fact, evidence.strength).unwrap();
    }
    let mut fields = format!("[streams.{STREAM}.fields]");
    for field in &stream.fields {
        write!(
            fields,
            "\n{} = {{ type = {:?}, class = {:?}, required = {}",
            field.name,
            field.kind,
            field.class,
            field.name == "time"
        )
        .unwrap();
        if field.kind == "float64" {
            fields.push_str(", allow_non_finite = true");
        }
        if field.drop {
            fields.push_str(", treatment = \"drop\"");
        }
        fields.push_str(" }");
    }
    let mut tables = vec![head, table, fields];
    if let Some(model) = &stream.model {
        let mut table = format!(
            "[models.scorer]\nsha256 = \"{}\"\ninputs = [{{ name = \"in\", fields = {} }}]\noutputs = [",
            "0".repeat(64),
            list(&model.inputs)
        );
        for (field, class) in &model.outputs {
            write!(table, "\n  {{ name = \"out\", field = {field:?}, kind = \"score\"").unwrap();
            if let Some(class) = class {
                write!(table, ", class = {class:?}").unwrap();
            }
            table.push_str(" },");
        }
        tables.push(table + "\n]");
    }
    tables
}
