//! What is shown: of a recipient, in its own table; of everything else in `[[shown]]`.

use std::collections::BTreeSet;

use jiff::civil::Date;

use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{Place, Problems, Spot, Table, hint_of};
use crate::domain::name::Name;
use crate::domain::policy::Dated;
use crate::domain::policy::limits::TRUSTED_PRODUCERS;
use crate::domain::proof::{About, ConditionId, Proof, Vouched};

use super::{Declared, NAMES, Names};

/// What shows a condition of a recipient.
pub const PROOF: Shape =
    Shape { name: "conditions.NAME", about: "What shows that a condition is met.", keys: &[BY, REF, UNTIL] };

const BY: Key = Key::new("by", Kind::Text, "Who says so.");
pub(super) const BY_WHOM: Key = Key::required("by", Kind::Text, "Who says so.");
pub(super) const REF: Key = Key::required("ref", Kind::Text, "Where it can be looked up.");
pub(super) const UNTIL: Key = Key::new("until", Kind::Date, "The last day it is good for.");

pub(super) const SHOWN: Shape = Shape {
    name: "shown",
    about: "Conditions that somebody vouches for, and of what.",
    keys: &[
        Key::required("conditions", NAMES, "The conditions: `data.*`, `origin.*`, `approval.*`, `controller.*`."),
        Key::new(
            "for",
            Kind::Table(&FOR),
            "Of what they are shown: all that is named must fit. Only `controller.*` may do without: it is then shown of \
             the whole deployment.",
        ),
        BY_WHOM,
        REF,
        UNTIL,
    ],
};

const FOR: Shape = Shape {
    name: "shown.for",
    about: "Of what conditions are shown.",
    keys: &[
        Key::new("stream", Kind::Text, "The records of this stream, and the cells that are made of them."),
        Key::new("dataset", Kind::Text, "The cells of this dataset."),
        Key::new("destination", Kind::Text, "What goes to this destination."),
        Key::new(
            "gateway",
            Kind::Text,
            "What is held at this gateway: the one that reads the policies or a peer, by its id.",
        ),
    ],
};

/// The condition of a name. One that no condition can have is reported.
pub(super) fn condition(name: &Spot<String>, problems: &Problems) -> Option<ConditionId> {
    let id = ConditionId::new(&name.value);
    if let Err(error) = id {
        let message = format!("`{}` is not a condition", name.value);
        problems.error_help(&name.place, message, error.to_string());
    }
    id.ok()
}

fn kind(condition: &str) -> &str {
    condition.split('.').next().unwrap_or_default()
}

/// Where a condition is shown, for whoever showed it elsewhere.
fn where_to(condition: &str) -> &'static str {
    match kind(condition) {
        "dest" => "show `dest.*` in `conditions` of the destination, of the peer, or of [gateway]",
        "controller" => "show it in [[shown]], with `by` and `ref`, and with `for` if it is not true of all data",
        "approval" => {
            "show it in [[shown]], with `by`, `ref` and `for`: the stream, dataset, destination or gateway that was approved"
        }
        _ => "show it in [[shown]], with `by`, `ref` and `for`: the stream or the dataset that it is true of",
    }
}

/// What `conditions` shows of a recipient, each with its place.
pub(super) fn of_recipient(table: &Table<'_>) -> Vec<(Spot<String>, Proof)> {
    let mut shown = Vec::new();
    for (name, table) in table.named("conditions") {
        let _ = condition(&name, table.problems());
        if kind(&name.value) != "dest" {
            let message = format!("`{}` is not about a recipient", name.value);
            table.problems().error_help(&name.place, message, where_to(&name.value));
        }
        let by = table.get::<String>("by");
        let proof = read_proof(&table, by);
        table.done();
        shown.extend(proof.map(|proof| (name, proof)));
    }
    shown
}

pub(super) fn read_proof(table: &Table<'_>, by: Option<Spot<String>>) -> Option<Proof> {
    let reference = table.need::<String>("ref");
    for (text, missing) in
        [(&by, "`by` is empty: say who vouches for it"), (&reference, "`ref` is empty: say where the proof is")]
    {
        if let Some(empty) = text.as_ref().filter(|text| text.value.trim().is_empty()) {
            table.problems().error(&empty.place, missing);
        }
    }
    let until = table.get::<Date>("until").map(|until| until.value);
    Some(Proof { by: by.map(|by| by.value), reference: reference?.value, until })
}

/// What is vouched for, and what once was shown of the whole deployment.
pub(super) fn read_vouched(table: &Table<'_>, declared: &mut Declared) {
    if declared.was_in_force {
        read_unnamed(table, declared);
    } else {
        refuse_unnamed(table);
    }
    for table in table.array("shown") {
        let conditions = table.need::<Names>("conditions");
        let of = table.get::<Table<'_>>("for").map(|of| read_about(&of.value, declared)).unwrap_or_default();
        let by = table.need::<String>("by");
        let proof = read_proof(&table, by);
        table.done();
        if let Some(none) = conditions.as_ref().filter(|conditions| conditions.value.is_empty()) {
            table.problems().error(&none.place, "this shows no condition");
        }
        for name in conditions.into_iter().flat_map(|conditions| conditions.value) {
            let id = condition(&name, table.problems());
            check_about(&name, &of, table.problems());
            if let Some(proof) = &proof {
                ends(&name, proof, Some(&of), declared);
                let vouched = Vouched { of: of.clone(), proof: proof.clone() };
                vouch(id, vouched, &name.place, declared, table.problems());
            }
            declared.shown.push(name);
        }
    }
}

/// `[conditions]` once showed conditions of the whole deployment: who had one stream in mind freed all others too.
fn refuse_unnamed(table: &Table<'_>) {
    if !table.names().iter().any(|name| name == "conditions") {
        return;
    }
    for (name, _) in table.named("conditions") {
        let message = format!("`{}` is no longer shown of the whole deployment", name.value);
        table.problems().error_help(&name.place, message, where_to(&name.value));
    }
}

/// What `[conditions]` showed, of the whole deployment, when the policies were in force.
fn read_unnamed(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("conditions") {
        let proof = read_proof(&table, None);
        table.done();
        if let Some(proof) = proof {
            let id = ConditionId::new(&name.value).ok();
            vouch(id, Vouched { of: About::default(), proof }, &name.place, declared, table.problems());
        }
        declared.shown.push(name);
    }
}

fn vouch(id: Option<ConditionId>, vouched: Vouched, place: &Place, declared: &mut Declared, problems: &Problems) {
    let Some(id) = id else { return };
    let vouches = declared.vouches.entry(id.clone()).or_default();
    if vouches.iter().any(|known| known.of == vouched.of) {
        problems.error(place, format!("`{id}` is shown twice of {}", vouched.of));
    }
    vouches.push(vouched);
    // The order of the files is of no account.
    vouches.sort_unstable();
}

/// What is true of some data must not free other data.
fn check_about(name: &Spot<String>, of: &About, problems: &Problems) {
    let is_enough = match kind(&name.value) {
        "dest" => false,
        "controller" => true,
        // What a cell holds is the same wherever it goes.
        _ if name.value == TRUSTED_PRODUCERS && (of.destination.is_some() || of.gateway.is_some()) => false,
        "approval" => !of.is_everything(),
        _ => of.stream.is_some() || of.dataset.is_some(),
    };
    if !is_enough {
        let message = match kind(&name.value) {
            "dest" => format!("`{}` is about a recipient", name.value),
            _ => format!("`{}` cannot be shown of {of}", name.value),
        };
        problems.error_help(&name.place, message, where_to(&name.value));
    }
}

fn read_about(table: &Table<'_>, declared: &mut Declared) -> About {
    let [stream, dataset, destination, gateway] =
        ["stream", "dataset", "destination", "gateway"].map(|key| table.get::<String>(key));
    table.done();
    for (one, other, never) in [
        (&stream, &dataset, "a dataset has one stream: name the stream or the dataset"),
        (&destination, &gateway, "nothing goes to a destination and a gateway at once: write an entry for each"),
        (&dataset, &gateway, "gateways hold records, not cells: name the stream"),
    ] {
        if let (Some(_), Some(other)) = (one, other) {
            table.problems().error(&other.place, never);
        }
    }
    if [&stream, &dataset, &destination, &gateway].iter().all(|name| name.is_none()) {
        table.problems().error(&table.place, "`for` names nothing");
    }
    let about = About {
        stream: stream.as_ref().and_then(named),
        dataset: dataset.as_ref().and_then(named),
        destination: destination.as_ref().and_then(named),
        gateway: gateway.as_ref().and_then(named),
    };
    let named = [("stream", stream), ("dataset", dataset), ("destination", destination), ("gateway", gateway)];
    let named = named.into_iter().filter_map(|(what, name)| Some((what, name?)));
    declared.shown_of.extend(named);
    about
}

/// A name, if it is one. What is none is not known either, which is said when references are followed.
fn named<K>(name: &Spot<String>) -> Option<Name<K>> {
    Name::new(&name.value).ok()
}

/// Remembers when what shows a condition ends.
pub(super) fn ends(name: &Spot<String>, proof: &Proof, of: Option<&About>, declared: &mut Declared) {
    let what = match of {
        Some(of) => format!("what shows `{}` of {of}", name.value),
        None => format!("what shows `{}`", name.value),
    };
    let day = proof.until.map(|value| Spot { value, place: name.place.clone() });
    declared.ends.extend(day.map(|day| Dated { what, day }));
}

/// The gateways that something is shown of.
pub(super) fn gateways(declared: &Declared) -> Vec<Spot<String>> {
    declared.shown_of.iter().filter(|(what, _)| *what == "gateway").map(|(_, name)| name.clone()).collect()
}

/// Checks that every shown condition is needed, and that what it is shown of is declared. Gateways are known to the
/// configuration alone.
pub(super) fn check(declared: &Declared, problems: &Problems) {
    for shown in &declared.shown {
        if !declared.needed.contains(shown.value.as_str()) && shown.value != TRUSTED_PRODUCERS {
            let message = format!("no regime and no region needs `{}`", shown.value);
            let help = hint_of(&shown.value, declared.needed.iter().map(ConditionId::as_str));
            problems.error_help(&shown.place, message, help);
        }
    }
    for (what, name) in &declared.shown_of {
        let known: BTreeSet<&str> = match *what {
            "stream" => declared.streams.keys().map(String::as_str).collect(),
            "dataset" => declared.datasets.keys().map(String::as_str).collect(),
            "destination" => declared.destinations.keys().map(String::as_str).collect(),
            _ => {
                crate::domain::name::check("gateway", name, problems);
                continue;
            }
        };
        if !known.contains(name.value.as_str()) {
            let message = format!("there is no {what} `{}`", name.value);
            problems.error_help(&name.place, message, hint_of(&name.value, known));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::document::{Problems, changed, changed_first};
    use crate::domain::policy::explain::tests::STREAM;
    use crate::domain::policy::fixture::tests::{SET, source};

    /// What is said of a policy beside the sample's laws, of which one needs conditions: each error with its help.
    fn said(policy: &str) -> Vec<(String, String)> {
        let [regions, classes, union, br] = SET;
        let needing = "basis = \"inside\"\nneeds = [\"data.clean\", \"approval.office\", \"controller.sound\"]";
        let union = changed_first(union, "basis = \"inside\"", needing);
        let policy = format!("schema = \"bailiwick.policy/1\"\n{policy}");
        let files = [regions, classes, &union, br, STREAM, &policy].map(|text| source("set.toml", text));
        let problems = Problems::default();
        super::super::read(&files, &problems);
        let problems = problems.into_vec().into_iter();
        problems.map(|problem| (problem.message, problem.help.unwrap_or_default())).collect()
    }

    fn shown(condition: &str, of: &str) -> String {
        format!("[[shown]]\nconditions = [\"{condition}\"]\n{of}\nby = \"counsel\"\nref = \"C-1\"\n")
    }

    fn is_taken(condition: &str, of: &str) {
        assert_eq!(said(&shown(condition, of)), [], "{condition} {of}");
    }

    fn is_refused(condition: &str, of: &str, message: &str) {
        let said = said(&shown(condition, of));
        assert_eq!(said.iter().map(|(message, _)| message.as_str()).collect::<Vec<_>>(), [message], "{condition} {of}");
    }

    /// What a cell holds is the same wherever it goes.
    #[test]
    fn producers_are_vouched_for_of_a_stream_or_a_dataset_and_nothing_else() {
        let condition = "origin.trusted_producers";
        is_taken(condition, "for = { stream = \"visits\" }");
        is_taken(condition, "for = { dataset = \"visits_by_home\" }");
        let refused = "`origin.trusted_producers` cannot be shown of stream visits, destination desk";
        is_refused(condition, "for = { stream = \"visits\", destination = \"desk\" }", refused);
        is_refused(condition, "", "`origin.trusted_producers` cannot be shown of the whole deployment");
    }

    /// Windows that were decided under such policies go by them, and by those in force.
    #[test]
    fn policies_that_were_in_force_show_conditions_of_the_whole_deployment() {
        let [regions, classes, union, br] = SET;
        let union = changed_first(union, "basis = \"inside\"", "basis = \"inside\"\nneeds = [\"data.clean\"]");
        let policy =
            "schema = \"bailiwick.policy/1\"\n[conditions]\n\"data.clean\" = { ref = \"C-1\", until = 2027-01-31 }";
        let files = [regions, classes, &union, br, STREAM, policy].map(|text| source("set.toml", text));
        let problems = Problems::default();
        let kept = super::super::read_kept(&files, &problems);
        assert!(!problems.any_error());
        let [vouched] = kept.vouches["data.clean"].as_slice() else { panic!("one proof") };
        assert!(vouched.of.is_everything());
        assert_eq!((vouched.proof.reference.as_str(), vouched.proof.by.as_deref()), ("C-1", None));
        assert_eq!(vouched.proof.until, Some(jiff::civil::date(2027, 1, 31)));
        super::super::read(&files, &problems);
        assert!(problems.any_error());
    }

    #[test]
    fn a_condition_is_shown_of_what_it_can_be_true_of() {
        for of in ["stream = \"visits\"", "dataset = \"visits_by_home\""] {
            let of = format!("for = {{ {of} }}");
            ["data.clean", "approval.office", "controller.sound"].iter().for_each(|name| is_taken(name, &of));
        }
        is_taken("controller.sound", "");
        is_refused("data.clean", "", "`data.clean` cannot be shown of the whole deployment");
        is_refused("approval.office", "", "`approval.office` cannot be shown of the whole deployment");
        for of in ["destination = \"desk\"", "gateway = \"br\""] {
            is_taken("approval.office", &format!("for = {{ {of} }}"));
            is_taken("data.clean", &format!("for = {{ stream = \"visits\", {of} }}"));
            let what = of.replace(" = \"", " ").replace('"', "");
            is_refused("data.clean", &format!("for = {{ {of} }}"), &format!("`data.clean` cannot be shown of {what}"));
        }
    }

    #[test]
    fn what_is_wrong_with_what_is_shown_is_said() {
        let data = |of: &str, message: &str| is_refused("data.clean", &format!("for = {{ {of} }}"), message);
        data("stream = \"visit\"", "there is no stream `visit`");
        data("dataset = \"visits\"", "there is no dataset `visits`");
        data("stream = \"visits\", destination = \"desks\"", "there is no destination `desks`");
        data(
            "stream = \"visits\", dataset = \"visits_by_home\"",
            "a dataset has one stream: name the stream or the dataset",
        );
        data("dataset = \"visits_by_home\", gateway = \"br\"", "gateways hold records, not cells: name the stream");
        data(
            "stream = \"visits\", destination = \"desk\", gateway = \"br\"",
            "nothing goes to a destination and a gateway at once: write an entry for each",
        );
        let of = "for = { stream = \"visits\" }";
        is_refused("data.other", of, "no regime and no region needs `data.other`");
        is_refused("dest.listed", of, "`dest.listed` is about a recipient");
        let twice = shown("data.clean", of).repeat(2);
        assert_eq!(said(&twice)[0].0, "`data.clean` is shown twice of stream visits");
        let unsigned = changed(&shown("data.clean", of), "by = \"counsel\"\n", "");
        assert_eq!(said(&unsigned)[0].0, "`by` is missing");
        let unsigned = changed(&shown("data.clean", of), "counsel", " ");
        assert_eq!(said(&unsigned)[0].0, "`by` is empty: say who vouches for it");
    }

    #[test]
    fn what_was_shown_of_the_whole_deployment_is_an_error_that_says_where_it_goes_now() {
        let once = |name: &str| said(&format!("[conditions]\n\"{name}\" = {{ ref = \"C-1\", until = 2026-06-30 }}\n"));
        for (name, where_to) in [
            ("data.clean", "the stream or the dataset that it is true of"),
            ("approval.office", "the stream, dataset, destination or gateway that was approved"),
            ("controller.sound", "with `for` if it is not true of all data"),
            ("dest.listed", "in `conditions` of the destination"),
        ] {
            let said = once(name);
            let [(message, help)] = said.as_slice() else { panic!("{said:?}") };
            assert_eq!(*message, format!("`{name}` is no longer shown of the whole deployment"));
            assert!(help.contains(where_to), "{help}");
        }
    }
}
