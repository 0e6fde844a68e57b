//! The engine agrees with the reference, and holds what the language promises.
//!
//! What is *not* claimed: that taking away one of several trusted pieces of evidence only tightens. The candidates of a
//! fact are the union of those of all that survives, so a piece less can be a regime less; and of two weak pieces that
//! agree, either may be the one without which a third is out.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use bailiwick::domain::policy::{AtHand, Form, Permission, Recipient};
use bailiwick::engine::versions::Versions;
use proptest::prelude::*;

use super::engine::{self, day, decide, read, verdict, verdicts, version, version_of};
use super::generate::{self, Case, cases, many, policies};
use super::reference::{Destination, Finding, Gateway, Policy, Record, Reference, Sender, Source, Verdict, Vouch};
use super::render::{self, DATASET, STREAM};

fn reference(case: &Case) -> Reference<'_> {
    Reference { policy: &case.policy, gateway: &case.gateway, day: &case.day }
}

fn rows_kept(decided: &bailiwick::domain::policy::Decided) -> Vec<i64> {
    let Some(resident) = &decided.resident else { return Vec::new() };
    let row = resident.batch().stream().position("row").unwrap();
    resident.batch().columns()[row].as_primitive::<Int64Type>().values().to_vec()
}

/// Where the dataset may go, with the number of contributors.
fn outlets(policy: &Policy, serves: &[String], on: &str) -> Vec<(String, usize)> {
    let outlets = read(policy).outlets(&render::dataset(), serves, day(on));
    outlets.into_iter().map(|outlet| (outlet.destination.to_string(), outlet.min_contributors)).collect()
}

/// The first day of everything that has one or could have one.
fn firsts(policy: &mut Policy) -> Vec<&mut Option<String>> {
    let entries = policy.regions.iter_mut().flat_map(|region| &mut region.entries).map(|entry| &mut entry.from);
    let of_regimes = policy.regimes.iter_mut().flat_map(|regime| {
        let rows = regime.transfers.iter_mut().map(|row| &mut row.from);
        let tests = regime.applies.iter_mut().map(|applies| &mut applies.from);
        std::iter::once(&mut regime.from).chain(rows).chain(tests)
    });
    entries.chain(of_regimes).collect()
}

fn is_to_begin(policy: &Policy, day: &str) -> bool {
    firsts(&mut policy.clone()).into_iter().flatten().any(|first| day < first.as_str())
}

fn only_peer(gateway: &Gateway, at: usize) -> Gateway {
    Gateway { peers: vec![gateway.peers[at].clone()], ..gateway.clone() }
}

/// The gateway with each of its peers alone: whether a route may be taken then does not depend on their order.
fn with_each_peer(gateway: &Gateway) -> Vec<Gateway> {
    (0..gateway.peers.len()).map(|at| only_peer(gateway, at)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3 * policies(), ..many() })]

    #[test]
    fn every_record_is_decided_as_the_reference_does_alone_and_in_a_batch(case in cases()) {
        let (version, reference) = (version_of(&case), reference(&case));
        for sender in &case.senders {
            let wanted: Vec<Verdict> = case.records.iter().map(|record| reference.verdict(record, sender)).collect();
            for (record, wanted) in case.records.iter().zip(&wanted) {
                prop_assert_eq!(&verdict(&version, record, sender), wanted, "{:?} from {:?}", record, sender);
            }
            // Batches of all sizes, each with the union of its records' regimes.
            let mut start = 0;
            while start < case.records.len() {
                let end = (start + 1 + case.tape.borrow_mut().below(case.records.len())).min(case.records.len());
                let mut united = BTreeSet::new();
                for wanted in &wanted[start..end] {
                    if let Verdict::Keep(regimes) = wanted {
                        united.extend(regimes.iter().cloned());
                    }
                }
                let wanted = wanted[start..end].iter().map(|wanted| match wanted {
                    Verdict::Keep(_) => Verdict::Keep(united.clone()),
                    other => other.clone(),
                });
                let wanted: Vec<Verdict> = wanted.collect();
                let decided = decide(&version, &case.records[start..end], sender);
                prop_assert_eq!(verdicts(&decided, end - start), wanted);
                start = end;
            }
        }
    }

    #[test]
    fn every_question_of_egress_is_answered_as_the_reference_does(case in cases()) {
        let (policy, reference) = (read(&case.policy), reference(&case));
        let (serves, on) = (&case.gateway.serves, day(&case.day));
        let outlets = policy.outlets(&render::dataset(), serves, on);
        for destination in &case.policy.destinations {
            let outlet = outlets.iter().find(|outlet| outlet.destination == destination.name);
            prop_assert_eq!(outlet.map(|outlet| outlet.min_contributors), reference.egress(destination), "{}", destination.name);
        }
        prop_assert!(outlets.iter().all(|outlet| policy.destinations.contains_key(&outlet.destination)));
        for row in policy.egress(serves, on) {
            let regime = case.policy.regimes.iter().find(|regime| regime.id == row.regime).unwrap();
            let destination = case.policy.destinations.iter().find(|known| row.destination == known.name).unwrap();
            let is_allowed = matches!(row.permission, Permission::Allowed { .. });
            prop_assert_eq!(is_allowed, reference.lets_go(regime, destination), "{:?}", row);
            // The day it says is the last one.
            if let Permission::Allowed { until, .. } = row.permission {
                let later = until.unwrap_or(day("2099-01-01"));
                let on_day = |on| {
                    let rows = policy.egress(serves, on);
                    let same = rows.into_iter().find(|other| {
                        (&other.destination, &other.regime) == (&row.destination, &row.regime)
                    });
                    matches!(same.unwrap().permission, Permission::Allowed { .. })
                };
                prop_assert!(on_day(later), "{:?} does not last", row.destination);
                if let Some(until) = until.filter(|_| !is_to_begin(&case.policy, &case.day)) {
                    prop_assert!(!on_day(until.tomorrow().unwrap()), "{:?} lasts longer than {}", row.destination, until);
                }
            }
        }
    }

    #[test]
    fn every_form_goes_where_the_reference_lets_it_go(case in cases()) {
        let (policy, reference) = (read(&case.policy), reference(&case));
        for (regime, declared) in policy.regimes.values().map(|regime| {
            (regime, case.policy.regimes.iter().find(|declared| declared.id == regime.id).unwrap())
        }) {
            for destination in &case.policy.destinations {
                let conditions = &policy.destinations[destination.name.as_str()].conditions;
                let (stream, dataset) = (STREAM.parse().unwrap(), render::dataset());
                let name = destination.name.parse().unwrap();
                let to = Recipient::Destination(&name);
                let at_hand = AtHand { stream: Some(&stream), dataset: Some(&dataset), to };
                let shown = policy.shown(at_hand, conditions, day(&case.day));
                let at = Reference::cells_to(destination);
                let mut weaker = true;
                for (name, form) in Form::NAMES {
                    let place = engine::code(&destination.country);
                    let permits = regime.permits(form, place, &shown).is_some();
                    prop_assert_eq!(permits, reference.permits(declared, name, &destination.country, (&destination.conditions, &at)));
                    prop_assert!(weaker || !permits, "a stronger form may go where a weaker one may not");
                    weaker = permits;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn one_more_regime_keeps_no_record_more_and_gives_no_route(case in cases()) {
        let before = read(&case.policy);
        let mut more = case.policy.clone();
        let classes: Vec<String> = more.classes.iter().map(|class| class.name.clone()).collect();
        let regime = generate::regime(&mut case.tape.borrow_mut(), "added", &more.regions, &classes);
        more.regimes.push(regime);
        let after = read(&more);
        let mut gateways = with_each_peer(&case.gateway);
        gateways.push(Gateway { peers: Vec::new(), ..case.gateway.clone() });
        for gateway in gateways {
            // A peer that serves it as well is the worst case: the route is not lost for want of that.
            let mut serving = gateway.clone();
            serving.peers.iter_mut().for_each(|peer| peer.serves.push("added".to_owned()));
            let (before, after) =
                (version(&case.policy, &before, &gateway, &case.day), version(&more, &after, &serving, &case.day));
            for (sender, record) in case.senders.iter().flat_map(|sender| case.records.iter().map(move |record| (sender, record))) {
                match (verdict(&before, record, sender), verdict(&after, record, sender)) {
                    (was, Verdict::Keep(_)) => prop_assert!(was.is_keep(), "{:?} is kept now", was),
                    // A record that no regime covered was refused for that alone.
                    (Verdict::Refuse("no_regime"), _) => {}
                    (was, Verdict::Redirect(peer)) => {
                        prop_assert!(was.is_keep() || was == Verdict::Redirect(peer), "{:?} is redirected now", was);
                    }
                    (_, Verdict::Quarantine | Verdict::Refuse(_)) => {}
                }
            }
        }
        // Loaded, it takes nothing away and adds nothing; served as well, it can only take away, where there was one.
        let mut serves = case.gateway.serves.clone();
        let was = outlets(&case.policy, &serves, &case.day);
        prop_assert_eq!(&outlets(&more, &serves, &case.day), &was);
        if before.governing(&before.streams[STREAM], &serves, day(&case.day)).next().is_some() {
            serves.push("added".to_owned());
            for (destination, k) in outlets(&more, &serves, &case.day) {
                prop_assert!(was.iter().any(|(known, least)| *known == destination && *least <= k), "{} is new", destination);
            }
        }
    }

    /// Who vouches for one stream frees no other; what is shown of another destination or gateway frees none at hand.
    #[test]
    fn what_is_shown_of_one_thing_changes_no_decision_of_another(case in cases()) {
        let mut with = case.policy.clone();
        let elsewhere = [
            vec![("stream", render::OTHER[0])],
            vec![("dataset", render::OTHER[1])],
            vec![("stream", STREAM), ("destination", "elsewhere")],
            vec![("stream", STREAM), ("gateway", "elsewhere")],
            vec![("stream", render::OTHER[0]), ("destination", "hub0")],
            vec![("stream", render::OTHER[0]), ("gateway", "peer0")],
        ];
        let needed = generate::needed(&case.policy);
        for name in generate::CONDITIONS.into_iter().filter(|name| !name.starts_with("dest.") && needed.contains(*name)) {
            with.vouches.retain(|vouch| vouch.name != name || vouch.of.iter().all(|(_, name)| !render::OTHER.contains(&&**name)));
            for of in &elsewhere {
                let of = of.iter().map(|(what, name)| (*what, (*name).to_owned())).collect();
                with.vouches.push(Vouch { name: name.to_owned(), of, until: None });
            }
        }
        let mut without = case.policy.clone();
        without.vouches.retain(|vouch| vouch.of.iter().all(|(_, name)| !render::OTHER.contains(&&**name)));
        for policy in [&mut with, &mut without] {
            let hub = &policy.destinations[0];
            policy.destinations.push(Destination { name: "elsewhere".to_owned(), accepts: Vec::new(), ..hub.clone() });
        }
        let (with_read, without_read) = (read(&with), read(&without));
        let serves = &case.gateway.serves;
        prop_assert_eq!(
            with_read.outlets(&render::dataset(), serves, day(&case.day)), without_read.outlets(&render::dataset(), serves, day(&case.day)));
        for gateway in with_each_peer(&case.gateway) {
            let one = version(&with, &with_read, &gateway, &case.day);
            let other = version(&without, &without_read, &gateway, &case.day);
            for sender in &case.senders {
                let (one, other) = (decide(&one, &case.records, sender), decide(&other, &case.records, sender));
                prop_assert_eq!(verdicts(&one, case.records.len()), verdicts(&other, case.records.len()));
            }
        }
    }

    #[test]
    fn the_order_of_everything_is_of_no_account(case in cases()) {
        let tape = &mut *case.tape.borrow_mut();
        let mut files = render::files(&case.policy);
        let (plain, problems) = engine::read_files(&files);
        prop_assert_eq!(engine::errors(&problems), Vec::<String>::new());
        tape.shuffle(&mut files);
        let (shuffled, _) = engine::read_files(&files);
        prop_assert_eq!(plain.digest, shuffled.digest, "the order of the files");

        let policy = shuffled_policy(&case.policy, tape);
        let mut files = render::files(&policy);
        tape.shuffle(&mut files);
        files.iter_mut().for_each(|file| tape.shuffle(&mut file.tables));
        let (shuffled, problems) = engine::read_files(&files);
        prop_assert_eq!(engine::errors(&problems), Vec::<String>::new());
        let (plain, shuffled) = (Arc::new(plain), Arc::new(shuffled));
        let mut gateway = case.gateway.clone();
        tape.shuffle(&mut gateway.serves);
        let one = version(&case.policy, &plain, &case.gateway, &case.day);
        let other = version(&policy, &shuffled, &gateway, &case.day);
        for sender in &case.senders {
            let (one, other) = (decide(&one, &case.records, sender), decide(&other, &case.records, sender));
            prop_assert_eq!(verdicts(&one, case.records.len()), verdicts(&other, case.records.len()));
            let rules = |decided: &bailiwick::domain::policy::Decided| {
                decided.refusals.iter().map(|refusal| refusal.rules.clone()).collect::<Vec<_>>()
            };
            prop_assert_eq!(rules(&one), rules(&other));
        }
        let on = day(&case.day);
        let described = |set: &bailiwick::domain::policy::PolicySet| {
            let mut rows = set.egress(&case.gateway.serves, on);
            rows.sort_by(|left, right| (&left.destination, &left.regime).cmp(&(&right.destination, &right.regime)));
            rows.iter().map(|row| format!("{} {} {:?}", row.destination, row.regime, row.permission)).collect::<Vec<_>>()
        };
        let (plain_rows, shuffled_rows) = (described(&plain), described(&shuffled));
        // Of an onward promise the order of the countries is the order of the rules that are named.
        prop_assert_eq!(plain_rows.len(), shuffled_rows.len());
        if case.policy.destinations.iter().all(|destination| destination.onward.len() < 2) {
            prop_assert_eq!(plain_rows, shuffled_rows);
        }
        prop_assert_eq!(
            plain.outlets(&render::dataset(), &case.gateway.serves, on), shuffled.outlets(&render::dataset(), &gateway.serves, on));
    }

    #[test]
    fn what_cannot_be_read_is_never_kept(case in cases()) {
        let version = version_of(&case);
        for evidence in &case.policy.stream.evidence {
            for (sender, record) in case.senders.iter().flat_map(|sender| case.records.iter().map(move |record| (sender, record))) {
                let broken: Vec<Record> = match &evidence.source {
                    Source::Field(field) if evidence.fact != "source.system" => {
                        ["XX", "de", "D", "DEUTSCHLAND", " DE", "US-", "\u{0}DE", "ＤＥ"].map(|text| record.with(field, Some(text))).to_vec()
                    }
                    Source::Position => {
                        let at = |latitude, longitude| Record { latitude, longitude, ..record.clone() };
                        vec![at(Some(f64::NAN), Some(0.0)), at(Some(0.0), Some(f64::NAN)), at(Some(0.0), None), at(None, Some(0.0))]
                    }
                    _ => continue,
                };
                for broken in broken {
                    let verdict = verdict(&version, &broken, sender);
                    prop_assert!(matches!(verdict, Verdict::Quarantine | Verdict::Refuse("unknown_jurisdiction")), "{:?}", verdict);
                }
            }
        }
    }

    #[test]
    fn without_evidence_nothing_is_kept(case in cases()) {
        let mut policy = case.policy.clone();
        policy.stream.evidence.retain(|evidence| !matches!(evidence.source, Source::Always(_)));
        for fact in super::reference::FACTS {
            if !policy.stream.evidence.iter().any(|evidence| evidence.fact == fact) && !policy.stream.untested.contains(&fact.to_owned()) {
                policy.stream.untested.push(fact.to_owned());
            }
        }
        let version = version(&policy, &read(&policy), &case.gateway, &case.day);
        let nobody = Sender { producer: "nobody".to_owned(), address: None };
        let verdict = verdict(&version, &Record::default(), &nobody);
        prop_assert!(matches!(verdict, Verdict::Quarantine | Verdict::Refuse(_)), "{:?}", verdict);
    }

    #[test]
    fn without_the_last_evidence_of_a_fact_no_record_is_kept(case in cases()) {
        let (version, reference) = (version_of(&case), reference(&case));
        for (sender, record) in case.senders.iter().flat_map(|sender| case.records.iter().map(move |record| (sender, record))) {
            for evidence in &case.policy.stream.evidence {
                let without = match evidence.source.field() {
                    Some(field) => record.with(field, None),
                    None if matches!(evidence.source, Source::Position) => {
                        Record { latitude: None, longitude: None, ..record.clone() }
                    }
                    None => continue,
                };
                if reference.finding(&evidence.fact, &without, sender) == Finding::Unknown {
                    let verdict = verdict(&version, &without, sender);
                    prop_assert!(matches!(verdict, Verdict::Quarantine | Verdict::Refuse(_)), "{:?}", verdict);
                }
            }
        }
    }

    #[test]
    fn a_batch_is_in_exactly_one_place_record_by_record(case in cases()) {
        let version = version_of(&case);
        for sender in &case.senders {
            let decided = decide(&version, &case.records, sender);
            let kept = rows_kept(&decided);
            prop_assert_ne!(decided.resident.as_ref().map(|resident| resident.batch().rows()), Some(0));
            prop_assert!(kept.is_sorted(), "the order of the records is lost");
            let refused: Vec<i64> = decided.refusals.iter().map(|refusal| i64::from(refusal.index)).collect();
            prop_assert!(refused.is_sorted());
            let mut all: Vec<i64> = kept.iter().chain(&refused).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..case.records.len() as i64).collect::<Vec<_>>());

            let verdicts = verdicts(&decided, case.records.len());
            let count = |is: &dyn Fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| is(verdict)).count();
            for foreign in &decided.foreign {
                let there = Verdict::Redirect(foreign.route().id.to_string());
                prop_assert_eq!(foreign.rows(), count(&|verdict| *verdict == there));
            }
            let foreign: usize = decided.foreign.iter().map(bailiwick::domain::policy::Foreign::rows).sum();
            prop_assert_eq!(foreign, count(&|verdict| matches!(verdict, Verdict::Redirect(_))));
            let held = decided.quarantined.as_ref().map_or(0, bailiwick::domain::policy::Quarantined::rows);
            prop_assert_eq!(held, count(&|verdict| *verdict == Verdict::Quarantine));
            // What is held is what is decided the same way again.
            if let Some(held) = decided.quarantined {
                let again = engine::decide_batch(&version, held.again(), sender);
                prop_assert!(again.resident.is_none() && again.foreign.is_empty());
                prop_assert_eq!(again.refusals.len(), count(&|verdict| *verdict == Verdict::Quarantine));
            }
        }
    }

    #[test]
    fn what_is_dropped_makes_no_difference_to_what_is_kept(case in cases(), texts in prop::collection::vec("[ -~]{0,8}", generate::RECORDS)) {
        let version = version_of(&case);
        let other: Vec<Record> = case.records.iter().zip(&texts).map(|(record, text)| record.with("extra", Some(text))).collect();
        for sender in &case.senders {
            let (one, other) = (decide(&version, &case.records, sender), decide(&version, &other, sender));
            prop_assert_eq!(verdicts(&one, case.records.len()), verdicts(&other, case.records.len()));
            let columns = |decided: &bailiwick::domain::policy::Decided| {
                decided.resident.as_ref().map(|resident| resident.batch().columns().to_vec())
            };
            // Bytes and all: nothing is left behind a null.
            let (one, other) = (columns(&one).unwrap_or_default(), columns(&other).unwrap_or_default());
            prop_assert_eq!(one.len(), other.len());
            for (one, other) in one.iter().zip(&other) {
                let (one_data, other_data) = (one.to_data(), other.to_data());
                prop_assert_eq!(one_data.buffers(), other_data.buffers());
                prop_assert_eq!(one, other);
            }
        }
    }

    #[test]
    fn a_later_day_allows_nothing_more(case in cases(), first in 0_i64..900, second in 0_i64..900) {
        let start = day("2026-10-01");
        let on = |days: i64| start.checked_add(jiff::Span::new().days(days)).unwrap();
        let (earlier, later) = (on(first.min(second)), on(first.max(second)));
        // But what begins later.
        let mut case = case;
        let firsts = firsts(&mut case.policy);
        firsts.into_iter().for_each(|first| *first = None);
        let policy = read(&case.policy);
        let serves = &case.gateway.serves;
        let was = policy.outlets(&render::dataset(), serves, earlier);
        for outlet in policy.outlets(&render::dataset(), serves, later) {
            let same = was.iter().find(|known| known.destination == outlet.destination);
            prop_assert!(same.is_some_and(|known| known.min_contributors <= outlet.min_contributors), "{:?} is new", outlet);
        }
        for gateway in with_each_peer(&case.gateway) {
            let (before, after) = (
                version(&case.policy, &policy, &gateway, &earlier.to_string()),
                version(&case.policy, &policy, &gateway, &later.to_string()),
            );
            for sender in &case.senders {
                let was = verdicts(&decide(&before, &case.records, sender), case.records.len());
                let is = verdicts(&decide(&after, &case.records, sender), case.records.len());
                for (was, is) in was.iter().zip(&is) {
                    prop_assert!(was == is || matches!((was, is), (Verdict::Redirect(_), Verdict::Refuse(_))), "{:?}, {:?}", was, is);
                }
            }
        }
    }

    #[test]
    fn a_clock_that_is_turned_back_allows_nothing_again(case in cases(), days in prop::collection::vec(0_i64..900, 1..6)) {
        let start = day("2026-10-01");
        let policy = read(&case.policy);
        let versions = Versions::new(version(&case.policy, &policy, &case.gateway, "2026-10-01"), None, Default::default());
        let mut latest = start;
        for (step, days) in days.into_iter().enumerate() {
            let on = start.checked_add(jiff::Span::new().days(days)).unwrap();
            latest = latest.max(on);
            if step % 2 == 0 {
                versions.advance(on);
            } else {
                let current = versions.current();
                versions.replace(current.on(on), None);
            }
            prop_assert_eq!(versions.current().day, latest);
            prop_assert_eq!(
                versions.outlets(policy.dataset(DATASET).unwrap().1, &BTreeSet::new()).1.unwrap(),
                policy.outlets(&render::dataset(), &case.gateway.serves, latest));
        }
    }

    #[test]
    fn the_outlets_under_several_regimes_are_those_that_each_allows(case in cases(), chosen in any::<u32>()) {
        let policy = read(&case.policy);
        let ids: Vec<String> = policy.regimes.keys().cloned().collect();
        let pick = |shift: u32| -> Vec<String> {
            ids.iter().enumerate().filter(|(at, _)| chosen >> (shift + *at as u32 % 16) & 1 == 1).map(|(_, id)| id.clone()).collect()
        };
        let (left, right) = (pick(0), pick(16));
        let both: Vec<String> = left.iter().chain(&right).cloned().collect();
        let on = day(&case.day);
        let allowed = |serves: &[String]| -> BTreeSet<String> {
            policy.outlets(&render::dataset(), serves, on).into_iter().map(|outlet| outlet.destination.to_string()).collect()
        };
        let plan = &policy.streams[STREAM];
        let is_governed = |serves: &[String]| policy.governing(plan, serves, on).next().is_some();
        // Regimes that do not cover the records have nothing to say, and where none has, nothing may leave.
        let wanted = match (is_governed(&left), is_governed(&right)) {
            (true, true) => allowed(&left).intersection(&allowed(&right)).cloned().collect(),
            (true, false) => allowed(&left),
            (false, true) => allowed(&right),
            (false, false) => BTreeSet::new(),
        };
        prop_assert_eq!(allowed(&both), wanted);
        let contributors = |serves: &[String]| {
            policy.outlets(&render::dataset(), serves, on).into_iter().map(|outlet| (outlet.destination, outlet.min_contributors)).collect::<Vec<_>>()
        };
        for (destination, k) in contributors(&both) {
            for part in [&left, &right] {
                let alone = contributors(part).into_iter().find(|(known, _)| *known == destination);
                prop_assert!(alone.is_none_or(|(_, alone)| alone <= k));
            }
        }
    }

    #[test]
    fn what_a_model_says_is_of_the_classes_of_what_it_was_told(case in cases()) {
        let policy = read(&case.policy);
        let plan = &policy.streams[STREAM];
        prop_assert_eq!(&plan.classes, &reference(&case).classes());
        let Some(model) = &case.policy.stream.model else { return Ok(()) };
        let class_of = |name: &String| {
            &case.policy.stream.fields.iter().find(|field| field.name == *name).unwrap().class
        };
        for (output, (_, own)) in plan.model.as_ref().unwrap().outputs.iter().zip(&model.outputs) {
            let join: BTreeSet<String> = model.inputs.iter().map(class_of).chain(own).cloned().collect();
            prop_assert_eq!(&output.classes, &join);
            prop_assert!(plan.classes.is_superset(&join));
        }
    }
}

/// What is generated is not all of one kind.
#[test]
fn records_of_every_verdict_are_generated() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut counts = [0; 6];
    for _ in 0..400 {
        let case = cases().new_tree(&mut runner).unwrap().current();
        for record in &case.records {
            let kind = match reference(&case).verdict(record, &case.senders[0]) {
                Verdict::Keep(_) => 0,
                Verdict::Redirect(_) => 1,
                Verdict::Quarantine => 2,
                Verdict::Refuse("unknown_jurisdiction") => 3,
                Verdict::Refuse("no_regime") => 4,
                Verdict::Refuse(_) => 5,
            };
            counts[kind] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count >= 20), "{counts:?}");
}

/// The same policy with everything that is a set in another order.
fn shuffled_policy(policy: &Policy, tape: &mut generate::Tape) -> Policy {
    let mut policy = policy.clone();
    tape.shuffle(&mut policy.classes);
    policy.classes.iter_mut().for_each(|class| tape.shuffle(&mut class.parents));
    tape.shuffle(&mut policy.regions);
    policy.regions.iter_mut().for_each(|region| tape.shuffle(&mut region.entries));
    tape.shuffle(&mut policy.disputed);
    policy.disputed.iter_mut().for_each(|(_, claimants)| tape.shuffle(claimants));
    tape.shuffle(&mut policy.regimes);
    for regime in &mut policy.regimes {
        tape.shuffle(&mut regime.classes);
        tape.shuffle(&mut regime.applies);
        tape.shuffle(&mut regime.transfers);
        for applies in &mut regime.applies {
            tape.shuffle(&mut applies.within);
        }
        for row in &mut regime.transfers {
            tape.shuffle(&mut row.to);
            tape.shuffle(&mut row.except);
            tape.shuffle(&mut row.needs);
        }
    }
    tape.shuffle(&mut policy.vouches);
    tape.shuffle(&mut policy.producers);
    for producer in &mut policy.producers {
        tape.shuffle(&mut producer.roles);
        tape.shuffle(&mut producer.facts);
    }
    tape.shuffle(&mut policy.stream.evidence);
    tape.shuffle(&mut policy.stream.untested);
    for evidence in &mut policy.stream.evidence {
        if let Some(roles) = &mut evidence.trusted_from {
            tape.shuffle(roles);
        }
        if let Source::Always(codes) = &mut evidence.source {
            tape.shuffle(codes);
        }
    }
    tape.shuffle(&mut policy.destinations);
    for destination in &mut policy.destinations {
        tape.shuffle(&mut destination.onward);
        tape.shuffle(&mut destination.conditions);
    }
    tape.shuffle(&mut policy.overrides);
    policy
}
