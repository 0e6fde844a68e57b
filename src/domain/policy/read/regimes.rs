//! Regimes: one file for each law.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::Date;

use crate::domain::document::keys::{Key, Kind, Shape, names};
use crate::domain::document::{Problems, Spot, Table, hint_of};
use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name;
use crate::domain::policy::form::Form;
use crate::domain::policy::regime::{Classes, Localisation, Misroute, Notes, Regime, Region, Scope, Term, Transfer};
use crate::domain::policy::scope::REGIMES_MAX;
use crate::domain::proof::ConditionId;

use super::classes::known_class;
use super::counters::{COUNTER, DeclaredCounter, read_counters};
use super::profiles::{self, RELEASE};
use super::regions::{ANY, region};
use super::terms::{AS_OF, FROM, NEEDS, REVIEW_BY, SOURCE, UNTIL, read_from, read_review, read_source, read_term};
use super::words::{choice, chosen};
use super::{Declared, NAMES, Names, SOURCES};

/// A regime whose regions are names.
#[derive(Clone)]
pub(super) struct DeclaredRegime {
    id: Spot<String>,
    /// The id of the regime of its file.
    law: String,
    name: String,
    notes: Notes,
    from: Option<Date>,
    applies: Vec<DeclaredScope>,
    classes: Names,
    localisation: Localisation,
    misroute: Misroute,
    min_contributors: usize,
    release: Option<Spot<String>>,
    transfers: Vec<DeclaredTransfer>,
    counters: Vec<DeclaredCounter>,
    as_of: Date,
    review_by: Date,
}

#[derive(Clone)]
struct DeclaredScope {
    fact: Spot<String>,
    within: Names,
    from: Option<Date>,
    source: String,
}

#[derive(Clone)]
struct DeclaredTransfer {
    id: Spot<String>,
    form: Form,
    to: Names,
    except: Names,
    basis: String,
    term: Term,
}

/// The least number of contributors under a regime that keeps data in place, where its file does not say.
const MIN_CONTRIBUTORS_STRICT: usize = 20;

pub(in crate::domain::policy) const REGIME: Shape = Shape {
    name: "bailiwick.regime/1",
    about: "A regime: one law.",
    keys: &[
        Key::required("schema", Kind::Word(&["bailiwick.regime/1"]), "What this file is."),
        Key::required("id", Kind::Text, "The regime's id. Gateways name it in `serves`."),
        Key::required("name", Kind::Text, "The law's name."),
        Key::required("notice", Kind::Text, "What a reader of the file must know of it."),
        Key::new("from", Kind::Date, "The first day of the law, UTC. Before, none of its scope tests counts."),
        AS_OF,
        REVIEW_BY,
        Key::required("confidence", Kind::Word(&names(&CONFIDENCE)), "How sure the reading is."),
        SOURCES,
        Key::new("certain", Kind::Text, "What is certain of this reading. For docs/laws.md, like the next two."),
        Key::new("uncertain", Kind::Text, "What is not certain, and how it was read."),
        Key::new("left_out", Kind::Text, "What was left out, and why."),
        Key::required("classes", NAMES, "The data classes that it covers, with their descendants."),
        Key::required("localisation", Kind::Word(&names(&Localisation::NAMES)), "How strictly it keeps data in place."),
        Key::required(
            "misroute",
            Kind::Word(&names(&Misroute::NAMES)),
            "What becomes of a record at a gateway that does not serve the regime.",
        ),
        Key::new(
            "min_contributors",
            Kind::Count,
            "The fewest contributors of a cell, from 5 to 1000. Default: 20 where `localisation` is first-store or \
             strict, else 10.",
        ),
        RELEASE,
        Key::new("records", NAMES, "The names of record-keeping duties."),
        Key::new("applies", Kind::List(&Kind::Table(&APPLIES)), "When it applies: any one is enough."),
        Key::new(
            "transfers",
            Kind::List(&Kind::Table(&TRANSFER)),
            "What may go where. What no row permits is forbidden.",
        ),
        Key::new(
            "counters",
            Kind::Named(&Kind::Table(&COUNTER)),
            "The conditions of its rows that a gateway can show by counting persons.",
        ),
        Key::new(
            "parts",
            Kind::List(&Kind::Table(&PART)),
            "Other regimes of the same law: each has all that the file says, but what it says otherwise.",
        ),
    ],
};

const PART: Shape = Shape {
    name: "parts",
    about: "A regime for some classes of data that has all that the file says, but what it says otherwise.",
    keys: &[
        Key::required("id", Kind::Text, "Its own id. Gateways name it in `serves`."),
        Key::required("name", Kind::Text, "Its own name."),
        Key::new("sources", NAMES, "Its own sources. Default: those of the file."),
        Key::new(
            "certain",
            Kind::Text,
            "What is certain of this reading. Of these three notes, those of the file do not count.",
        ),
        Key::new("uncertain", Kind::Text, "What is not certain, and how it was read."),
        Key::new("left_out", Kind::Text, "What was left out, and why."),
        Key::required("classes", NAMES, "The data classes that it covers, with their descendants."),
        Key::new("without", NAMES, "The ids of the file's rows that it does not have."),
        Key::new("transfers", Kind::List(&Kind::Table(&TRANSFER)), "Its own rows, beside the others of the file."),
        Key::new(
            "counters",
            Kind::Named(&Kind::Table(&COUNTER)),
            "Its own counters. Of the file's it has those that its rows need and that it does not have itself.",
        ),
    ],
};

const CONFIDENCE: [(&str, &str); 3] = [("high", "high"), ("medium", "medium"), ("low", "low")];

const APPLIES: Shape = Shape {
    name: "applies",
    about: "A fact, and where it brings a record under the regime.",
    keys: &[
        Key::required("fact", Kind::Word(&names(&Fact::NAMES)), "The fact that is tested."),
        Key::required("in", NAMES, "Regions and codes; of `source.system`: names of systems."),
        FROM,
        SOURCE,
    ],
};

const TRANSFER: Shape = Shape {
    name: "transfers",
    about: "A row that lets a form of data go to places.",
    keys: &[
        Key::required("id", Kind::Text, "The row's id within the regime."),
        Key::required("form", Kind::Word(&names(&Form::NAMES)), "The strongest form that may go."),
        Key::required("to", NAMES, "Regions and codes, or `any`."),
        Key::new("except", NAMES, "Regions and codes that it does not hold for, whatever `to` says."),
        Key::required("basis", Kind::Text, "The legal basis."),
        NEEDS,
        FROM,
        UNTIL,
        SOURCE,
    ],
};

pub(super) fn read_regime(table: &Table<'_>, declared: &mut Declared) {
    let id = table.need::<String>("id");
    if let Some(id) = &id {
        name::check("regime", id, table.problems());
    }
    let name = table.need::<String>("name");
    let notes = read_notes(table);
    let localisation = choice(table, "localisation", &Localisation::NAMES);
    let what = format!("regime `{}`", id.as_ref().map_or("", |id| &id.value));
    let review = read_review(table, what, declared);
    let of_regime = id.as_ref().map_or("", |id| &id.value);
    let from = read_from(table, &format!("regime `{of_regime}`"), declared);
    let applies: Vec<DeclaredScope> =
        table.array("applies").iter().filter_map(|table| read_scope(table, of_regime, from, declared)).collect();
    if applies.is_empty() {
        table.problems().error(&table.place, "a regime needs `[[applies]]`: without one it never applies");
    }
    let classes = table.need::<Names>("classes");
    let misroute = choice(table, "misroute", &Misroute::NAMES);
    let strict = localisation.is_some_and(|localisation| localisation >= Localisation::FirstStore);
    let least = if strict { MIN_CONTRIBUTORS_STRICT } else { profiles::MIN_CONTRIBUTORS };
    let min_contributors = profiles::min_contributors(table, least);
    let release = table.get::<String>("release");
    let transfers = table.array("transfers");
    let transfers: Vec<_> = transfers.iter().filter_map(|row| read_transfer(row, of_regime, declared)).collect();
    let needed = transfers.iter().flat_map(|row| &row.term.needs).collect();
    let counters = read_counters(table, &needed);
    if let Some(id) = &id {
        check_sourced(id, &applies, &transfers, &counters, table.problems());
    }
    let all = (id, name, review, localisation, classes, misroute, min_contributors);
    let (Some(id), Some(name), Some(review), Some(localisation), Some(classes), Some(misroute), Some(min)) = all else {
        return;
    };
    let whole = DeclaredRegime {
        law: id.value.clone(),
        id,
        name: name.value,
        notes,
        from,
        applies,
        classes: classes.value,
        localisation,
        misroute,
        min_contributors: min,
        release,
        transfers,
        counters,
        as_of: review.0,
        review_by: review.1,
    };
    let parts: Vec<_> = table.array("parts").iter().filter_map(|table| read_part(table, &whole, declared)).collect();
    for regime in [whole].into_iter().chain(parts) {
        declare(regime, declared, table.problems());
    }
}

fn declare(regime: DeclaredRegime, declared: &mut Declared, problems: &Problems) {
    let id = &regime.id;
    if declared.regimes.iter().any(|known| known.id.value == id.value) {
        problems.error(&id.place, format!("regime `{}` is declared twice", id.value));
    } else if declared.regimes.len() == REGIMES_MAX {
        problems.error(&id.place, format!("there are more than {REGIMES_MAX} regimes"));
    } else {
        declared.regimes.push(regime);
    }
}

/// A part of a law: a regime of its own that has all of the whole file, but what it says otherwise.
fn read_part(table: &Table<'_>, whole: &DeclaredRegime, declared: &mut Declared) -> Option<DeclaredRegime> {
    let id = table.need::<String>("id");
    if let Some(id) = &id {
        name::check("regime", id, table.problems());
    }
    let (name, classes) = (table.need::<String>("name"), table.need::<Names>("classes"));
    let without = table.or::<Names>("without", Vec::new());
    for named in &without {
        if whole.transfers.iter().all(|row| row.id.value != named.value) {
            let message = format!("regime `{}` has no transfer `{}`", whole.id.value, named.value);
            let known = whole.transfers.iter().map(|row| row.id.value.as_str());
            table.problems().error_help(&named.place, message, hint_of(&named.value, known));
        }
    }
    let sources = table.get::<Names>("sources").map(|sources| sources.value);
    let texts = |names: Names| names.into_iter().map(|text| text.value).collect();
    let notes = Notes {
        sources: sources.map_or_else(|| whole.notes.sources.clone(), texts),
        certain: table.or("certain", String::new()),
        uncertain: table.or("uncertain", String::new()),
        left_out: table.or("left_out", String::new()),
        ..whole.notes.clone()
    };
    let of_part = id.as_ref().map_or("", |id| &id.value);
    let kept = whole.transfers.iter().filter(|row| without.iter().all(|named| named.value != row.id.value));
    let mut transfers: Vec<DeclaredTransfer> = kept.cloned().collect();
    let own = table.array("transfers");
    transfers.extend(own.iter().filter_map(|row| read_transfer(row, of_part, declared)));
    let needed: BTreeSet<&ConditionId> = transfers.iter().flat_map(|row| &row.term.needs).collect();
    let mut counters = read_counters(table, &needed);
    let is_own = |counter: &DeclaredCounter| counters.iter().any(|own| own.condition() == counter.condition());
    let kept = whole.counters.iter().filter(|counter| needed.contains(counter.condition()) && !is_own(counter));
    let kept: Vec<DeclaredCounter> = kept.cloned().collect();
    counters.extend(kept);
    table.done();
    let (id, name, classes) = (id?, name?.value, classes?.value);
    check_sourced(&id, &whole.applies, &transfers, &counters, table.problems());
    Some(DeclaredRegime { id, name, notes, classes, transfers, counters, ..whole.clone() })
}

/// Whoever names the paragraph of one rule of a regime names that of each: what has none would look as well founded as
/// the others.
fn check_sourced(
    regime: &Spot<String>,
    applies: &[DeclaredScope],
    transfers: &[DeclaredTransfer],
    counters: &[DeclaredCounter],
    problems: &Problems,
) {
    let scopes = applies.iter().map(|scope| (&scope.fact, &*scope.source, "the scope test of"));
    let rows = transfers.iter().map(|row| (&row.id, &*row.term.source, "transfer"));
    let counters = counters.iter().map(|counter| (counter.sourced().0, counter.sourced().1, "the counter of"));
    let rules: Vec<_> = scopes.chain(rows).chain(counters).collect();
    if rules.iter().all(|(_, source, _)| source.is_empty()) {
        return;
    }
    for (name, _, what) in rules.iter().filter(|(_, source, _)| source.is_empty()) {
        let message =
            format!("{what} `{}` names no `source`, and other rules of regime `{}` do", name.value, regime.value);
        problems.error_help(&name.place, message, "name the paragraph that it rests on");
    }
}

/// What is said of the reading, and decides nothing.
fn read_notes(table: &Table<'_>) -> Notes {
    let texts =
        |key: &str| -> Vec<String> { table.or::<Names>(key, Vec::new()).into_iter().map(|text| text.value).collect() };
    Notes {
        notice: table.need::<String>("notice").map(|notice| notice.value).unwrap_or_default(),
        confidence: choice(table, "confidence", &CONFIDENCE).unwrap_or_default().to_owned(),
        sources: texts("sources"),
        records: texts("records"),
        certain: table.or("certain", String::new()),
        uncertain: table.or("uncertain", String::new()),
        left_out: table.or("left_out", String::new()),
    }
}

/// A scope test, which does not count before the first day of its regime.
fn read_scope(
    table: &Table<'_>,
    regime: &str,
    of_regime: Option<Date>,
    declared: &mut Declared,
) -> Option<DeclaredScope> {
    let fact = table.need::<String>("fact");
    let within = table.need::<Names>("in");
    let what = format!("the test of `{}` of regime `{regime}`", fact.as_ref().map_or("", |fact| &fact.value));
    let from = read_from(table, &what, declared).max(of_regime);
    let source = read_source(table);
    table.done();
    Some(DeclaredScope { fact: fact?, within: within?.value, from, source })
}

fn read_transfer(table: &Table<'_>, regime: &str, declared: &mut Declared) -> Option<DeclaredTransfer> {
    let id = table.need::<String>("id");
    let form = choice(table, "form", &Form::NAMES);
    let to = table.need::<Names>("to");
    let except = table.or::<Names>("except", Vec::new());
    let basis = table.need::<String>("basis");
    let what = format!("transfer `{}` of regime `{regime}`", id.as_ref().map_or("", |id| &id.value));
    let term = read_term(table, &what, declared);
    table.done();
    Some(DeclaredTransfer { id: id?, form: form?, to: to?.value, except, basis: basis?.value, term })
}

pub(super) fn resolve_regimes(declared: &Declared, classes: &Classes, problems: &Problems) -> BTreeMap<String, Regime> {
    let mut regimes = BTreeMap::new();
    for regime in &declared.regimes {
        regime.classes.iter().for_each(|class| known_class(class, classes, problems));
        let mut ids = BTreeSet::new();
        let transfers = regime.transfers.iter().map(|row| {
            if !ids.insert(&row.id.value) {
                let message = format!("regime `{}` already has a transfer `{}`", regime.id.value, row.id.value);
                problems.error(&row.id.place, message);
            }
            let (anywhere, named): (Names, Names) = row.to.iter().cloned().partition(|name| name.value == ANY);
            let to = region(&named, declared, problems);
            Transfer {
                id: row.id.value.clone(),
                form: row.form,
                to: anywhere.is_empty().then_some(to),
                except: region(&row.except, declared, problems),
                basis: row.basis.clone(),
                term: row.term.clone(),
            }
        });
        let transfers = transfers.collect();
        let resolved = Regime {
            id: regime.id.value.clone(),
            law: regime.law.clone(),
            name: regime.name.clone(),
            notes: regime.notes.clone(),
            from: regime.from,
            applies: regime.applies.iter().filter_map(|scope| resolve_scope(scope, declared, problems)).collect(),
            classes: regime.classes.iter().map(|class| class.value.clone()).collect(),
            localisation: regime.localisation,
            misroute: regime.misroute,
            min_contributors: regime.min_contributors,
            release: profiles::named(regime.release.as_ref(), &declared.profiles, problems),
            transfers,
            counters: regime.counters.iter().map(|counter| Arc::new(counter.resolve(declared, problems))).collect(),
            as_of: regime.as_of,
            review_by: regime.review_by,
        };
        regimes.insert(regime.id.value.clone(), resolved);
    }
    regimes
}

fn resolve_scope(scope: &DeclaredScope, declared: &Declared, problems: &Problems) -> Option<Scope> {
    let DeclaredScope { fact, within, from, source } = scope;
    let fact = chosen(fact, &Fact::NAMES, problems)?;
    let within = match fact {
        Fact::SourceSystem => {
            let names = within.iter().map(|name| name.value.clone()).collect();
            Region { names, ..Region::of(within.iter().map(|name| Jurisdiction::system(&name.value))) }
        }
        _ => region(within, declared, problems),
    };
    Some(Scope { fact, within, from: *from, source: source.clone() })
}

#[cfg(test)]
mod tests {
    use crate::domain::document::{Problems, changed, changed_first};
    use crate::domain::policy::Regime;
    use crate::domain::policy::fixture::tests::{SET, set, source};

    /// The sample's set with its first law changed.
    fn law_with(changes: &[(&str, &str)]) -> Vec<String> {
        let [regions, classes, union, br] = SET;
        let mut law = union.to_owned();
        for (before, after) in changes {
            law = changed(&law, before, after);
        }
        [regions, classes, &law, br].map(str::to_owned).to_vec()
    }

    fn errors(texts: &[String]) -> Vec<String> {
        let problems = Problems::default();
        let files: Vec<_> = texts.iter().map(|text| source("set.toml", text)).collect();
        super::super::read(&files, &problems);
        problems.into_vec().into_iter().map(|problem| problem.message).collect()
    }

    const RESIDENCE: (&str, &str) = ("fact = \"subject.residence\"", "fact = \"subject.residence\"\nsource = \"s. 1\"");
    const GATEWAY: (&str, &str) = ("fact = \"gateway.country\"", "fact = \"gateway.country\"\nsource = \"s. 2\"");
    const INSIDE: (&str, &str) = ("basis = \"inside\"", "basis = \"inside\"\nsource = \"s. 3\"");
    const STATISTICS: (&str, &str) = ("basis = \"nobody is in it\"", "basis = \"nobody is in it\"\nsource = \"s. 4\"");

    #[test]
    fn a_regime_names_the_paragraphs_of_all_its_rules_or_of_none() {
        assert_eq!(errors(&law_with(&[])), [""; 0]);
        let whole = law_with(&[RESIDENCE, GATEWAY, INSIDE, STATISTICS]);
        assert_eq!(errors(&whole), [""; 0]);
        let others = "names no `source`, and other rules of regime `union-law` do";
        assert_eq!(errors(&law_with(&[RESIDENCE, GATEWAY, INSIDE])), [format!("transfer `statistics` {others}")]);
        assert_eq!(
            errors(&law_with(&[RESIDENCE, INSIDE, STATISTICS])),
            [format!("the scope test of `gateway.country` {others}")]
        );
        let empty = (STATISTICS.0, "basis = \"nobody is in it\"\nsource = \" \"");
        assert_eq!(
            errors(&law_with(&[RESIDENCE, GATEWAY, INSIDE, empty])),
            ["`source` is empty: name the paragraph, or leave the key out"]
        );
    }

    #[test]
    fn rules_and_entries_of_regions_know_what_they_rest_on() {
        let mut texts = law_with(&[RESIDENCE, GATEWAY, INSIDE, STATISTICS]);
        texts[0] = changed(&texts[0], "until = 2026-06-30", "until = 2026-06-30, source = \"p. 7\"");
        let set = set(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let law = &set.regimes["union-law"];
        assert_eq!(law.applies.iter().map(|scope| &*scope.source).collect::<Vec<_>>(), ["s. 1", "s. 2"]);
        assert_eq!(law.transfers.iter().map(|row| &*row.term.source).collect::<Vec<_>>(), ["s. 3", "s. 4"]);
        let region = law.transfers[0].to.as_ref().unwrap();
        let of = |code: &str| &*region.codes[&set.codes.parse(code).unwrap()][0].source;
        // An entry without a source of its own rests on those of its region.
        assert_eq!([of("GB"), of("DE")], ["p. 7", "a map"]);
    }

    const PART: &str = r#"
[counters."data.few"]
per    = "all"
period = "ever"
zone   = "+00:00"
below  = 100
[[parts]]
id      = "union-law-health"
name    = "Union law, health"
classes = ["health"]
without = ["statistics"]
[[parts.transfers]]
id    = "promised"
form  = "statistical"
to    = ["any"]
basis = "promised"
needs = ["dest.promised"]
"#;

    #[test]
    fn a_part_has_all_of_the_file_but_what_it_says_otherwise() {
        let needs = ("basis = \"inside\"", "basis = \"inside\"\nneeds = [\"data.few\"]");
        let with = |part: &str| {
            let mut texts = law_with(&[needs]);
            texts[2].push_str(part);
            texts
        };
        assert_eq!(errors(&with(PART)), [""; 0]);
        let texts = with(PART);
        let set = set(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let (whole, part) = (&set.regimes["union-law"], &set.regimes["union-law-health"]);
        let rows = |law: &Regime| law.transfers.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
        assert_eq!(
            (rows(whole), rows(part)),
            (vec!["inside".into(), "statistics".into()], vec!["inside".into(), "promised".into()])
        );
        assert_eq!(
            (part.classes.as_slice(), part.as_of, part.misroute),
            (&["health".to_owned()][..], whole.as_of, whole.misroute)
        );
        assert_eq!(part.counters, whole.counters);
        assert_eq!(part.applies.len(), whole.applies.len());
        // A counter of its own takes the place of the file's.
        let own = format!(
            "{PART}[parts.counters.\"data.few\"]\nper = \"all\"\nperiod = \"ever\"\nzone = \"-05:30\"\nbelow = 7\n"
        );
        let texts = with(&own);
        let set = crate::domain::policy::fixture::tests::set(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let [counter] = set.regimes["union-law-health"].counters.as_slice() else { panic!("one counter") };
        assert_eq!((counter.below, counter.ahead_seconds), (7, -19_800));
        for (from, to, error) in [
            (
                "without = [\"statistics\"]",
                "without = [\"statistic\"]",
                "regime `union-law` has no transfer `statistic`",
            ),
            ("id      = \"union-law-health\"", "id      = \"union-law\"", "regime `union-law` is declared twice"),
            ("zone   = \"+00:00\"", "zone   = \"UTC\"", "`UTC` does not say how far the zone is ahead of UTC"),
            ("data.few", "data.fews", "no transfer of this regime needs `data.fews`"),
        ] {
            assert_eq!(errors(&with(&changed_first(PART, from, to)))[..1], [error]);
        }
    }
}
