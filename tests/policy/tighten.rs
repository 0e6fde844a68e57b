//! What is not trusted, what contradicts itself, what is disputed, what has a code of its own; and names that nobody
//! declared.

use proptest::prelude::*;

use super::engine::{self, errors, read, verdict, version};
use super::generate::{self, Case, cases, many};
use super::reference::{
    Applies, Evidence, FACTS, Finding, Gateway, Override, Peer, Policy, Record, Reference, Regime, Sender, Source,
    Transfer, Verdict, Vouch,
};
use super::render::{self, DATASET, STREAM};

fn evidence(fact: &str, source: Source, strength: u8, roles: Option<&str>) -> Evidence {
    let trusted_from = roles.map(|role| vec![role.to_owned()]);
    Evidence { fact: fact.to_owned(), source, strength, trusted_from }
}

fn field(name: &str) -> Source {
    Source::Field(name.to_owned())
}

/// Claims of a code that can be read.
const CLAIMS: [&str; 12] = ["DE", "FR", "US", "US-CA", "CA", "CA-QC", "PR", "HK", "CN", "UA-43", "RU", "GB"];

proptest! {
    #![proptest_config(many())]

    /// A fact of which a record says something itself, without being trusted with it.
    #[test]
    fn a_claim_that_is_not_trusted_keeps_nothing_and_opens_no_route(case in cases()) {
        let mut policy = case.policy.clone();
        let tape = &mut *case.tape.borrow_mut();
        let fact = tape.one(&policy.stream.evidence).fact;
        let fact = if fact == "source.system" { "collection.place".to_owned() } else { fact };
        policy.stream.untested.retain(|untested| *untested != fact);
        policy.stream.evidence.push(evidence(&fact, field("x"), 100, Some("crm")));
        let policy_read = read(&policy);
        let trusted_with_it = |sender: &Sender| {
            policy.producers.iter().any(|producer| producer.name == sender.producer && producer.roles.contains(&"crm".to_owned()))
        };
        let mut gateways: Vec<Gateway> =
            case.gateway.peers.iter().map(|peer| Gateway { peers: vec![peer.clone()], ..case.gateway.clone() }).collect();
        gateways.push(Gateway { peers: Vec::new(), ..case.gateway.clone() });
        for gateway in gateways {
            let version = version(&policy, &policy_read, &gateway, &case.day);
            for sender in case.senders.iter().filter(|sender| !trusted_with_it(sender)) {
                for record in &case.records {
                    let silent = verdict(&version, &record.with("x", None), sender);
                    let claim = tape.one(&CLAIMS);
                    let claiming = verdict(&version, &record.with("x", Some(claim)), sender);
                    match &claiming {
                        Verdict::Keep(more) => {
                            let Verdict::Keep(fewer) = &silent else {
                                return Err(TestCaseError::fail(format!("{silent:?} is kept, for claiming {claim}")));
                            };
                            prop_assert!(fewer.is_subset(more));
                        }
                        Verdict::Redirect(_) => prop_assert!(
                            silent.is_keep() || silent == claiming, "{:?} is redirected, for claiming {}", silent, claim),
                        Verdict::Quarantine | Verdict::Refuse(_) => {}
                    }
                }
            }
        }
        // Where cells may go depends on the regimes that are served, and not on any record: there is nothing to claim.
    }

    #[test]
    fn strong_evidence_that_contradicts_itself_is_held(case in cases(), at in 0..4_usize, strong in 0..3_usize) {
        let mut policy = case.policy.clone();
        let fact = FACTS[at];
        policy.stream.untested.retain(|untested| untested != fact);
        policy.disputed.clear();
        // One of them may be as weak as strong evidence can be; the other evidence of the fact stays.
        let other = [100, policy.min_strength, policy.min_strength + 1][strong];
        policy.stream.evidence.push(evidence(fact, field("x"), 100, None));
        policy.stream.evidence.push(evidence(fact, field("y"), other, None));
        let version = version(&policy, &read(&policy), &case.gateway, &case.day);
        let reference = Reference { policy: &policy, gateway: &case.gateway, day: &case.day };
        for (left, right) in [("DE", "RU"), ("US-CA", "US-NY"), ("PR", "US"), ("HK", "CN"), ("US-PR", "US"), ("JE", "GB")] {
            for (sender, record) in case.senders.iter().flat_map(|sender| case.records.iter().map(move |record| (sender, record))) {
                let record = record.with("x", Some(left)).with("y", Some(right));
                let verdict = verdict(&version, &record, sender);
                prop_assert!(matches!(verdict, Verdict::Quarantine | Verdict::Refuse(_)), "{:?}", verdict);
                let others_are_known = FACTS.iter().filter(|other| **other != fact).all(|other| {
                    !policy.stream.evidence.iter().any(|evidence| evidence.fact == *other)
                        || matches!(reference.finding(other, &record, sender), Finding::Known(..))
                });
                if others_are_known && reference.finding(fact, &record, sender) == Finding::Contradiction {
                    prop_assert_eq!(verdict, Verdict::Quarantine);
                }
            }
        }
    }

    #[test]
    fn a_name_that_nobody_declared_is_an_error_where_it_stands(case in cases()) {
        for (what, put) in places() {
            let mut policy = case.policy.clone();
            if !put(&mut policy) {
                continue;
            }
            let files = render::files(&policy);
            let (_, problems) = engine::read_files(&files);
            let is_pointed_at = problems.iter().any(|problem| {
                let line = problem.place.file.text.lines().nth(problem.place.line() - 1).unwrap_or_default();
                line.contains("nonsense") && problem.severity == bailiwick::domain::document::Severity::Error
            });
            prop_assert!(is_pointed_at, "{}: {:?}", what, errors(&problems));
        }
    }

    #[test]
    fn a_key_that_nobody_knows_is_an_error_where_it_stands(case in cases(), skipped in any::<prop::sample::Index>()) {
        let files = render::files(&case.policy);
        let lines: Vec<(usize, usize)> = files.iter().enumerate().flat_map(|(file, rendered)| {
            let text = rendered.text();
            let lines = text.lines().enumerate().filter(|(_, line)| line.starts_with('[') || line.contains("{ ") || line.starts_with("schema"));
            lines.map(|(number, _)| (file, number)).collect::<Vec<_>>()
        }).collect();
        // Some places of each policy: all of them would be the same over and over.
        for step in 0..6 {
            let (file, number) = lines[(skipped.index(lines.len()) + step * 7) % lines.len()];
            let mut texts: Vec<(String, String)> = files.iter().map(|file| (file.name.clone(), file.text())).collect();
            let mut changed: Vec<String> = texts[file].1.lines().map(str::to_owned).collect();
            let at = if changed[number].contains("{ ") {
                changed[number] = changed[number].replacen("{ ", "{ nonsense = 1, ", 1);
                number
            } else {
                changed.insert(number + 1, "nonsense = 1".to_owned());
                number + 1
            };
            texts[file].1 = changed.join("\n");
            let path = texts[file].0.clone();
            let problems = bailiwick::domain::document::Problems::default();
            bailiwick::domain::policy::read(&engine::sources(texts), &problems);
            let problems = problems.into_vec();
            let is_pointed_at = problems.iter().any(|problem| {
                problem.place.file.path == path && problem.place.line() == at + 1
                    && problem.severity == bailiwick::domain::document::Severity::Error
            });
            prop_assert!(is_pointed_at, "{}:{} {:?}: {:?}", path, at + 1, changed[at], errors(&problems));
        }
    }
}

type Put = fn(&mut Policy) -> bool;

/// Puts `nonsense` where a name is expected. Whether there was such a place.
fn places() -> Vec<(&'static str, Put)> {
    const NONSENSE: &str = "nonsense";
    fn add(names: &mut Vec<String>) -> bool {
        names.push(NONSENSE.to_owned());
        true
    }
    fn set(name: &mut String) -> bool {
        *name = NONSENSE.to_owned();
        true
    }
    fn vouched(policy: &mut Policy, name: &str, what: &'static str, of: &str) -> bool {
        policy.vouches.push(Vouch { name: name.to_owned(), of: vec![(what, of.to_owned())], until: None });
        true
    }
    fn row(policy: &mut Policy) -> Option<&mut Transfer> {
        policy.regimes.iter_mut().flat_map(|regime| &mut regime.transfers).next()
    }
    fn applies(policy: &mut Policy) -> Option<&mut Applies> {
        policy.regimes.iter_mut().flat_map(|regime| &mut regime.applies).find(|applies| applies.fact != "source.system")
    }
    fn some_evidence<'p>(policy: &'p mut Policy, kind: &str) -> Option<&'p mut Evidence> {
        policy.stream.evidence.iter_mut().find(|evidence| evidence.source.kind() == kind)
    }
    let places: &[(&str, Put)] = &[
        ("a class's parent", |policy| add(&mut policy.classes[0].parents)),
        ("a regime's class", |policy| add(&mut policy.regimes[0].classes)),
        ("a field's class", |policy| set(&mut policy.stream.fields[0].class)),
        ("an output's class", |policy| {
            let Some(model) = &mut policy.stream.model else { return false };
            model.outputs[0].1 = Some(NONSENSE.to_owned());
            true
        }),
        ("a model's input", |policy| policy.stream.model.as_mut().is_some_and(|model| add(&mut model.inputs))),
        ("a region of a scope", |policy| applies(policy).is_some_and(|applies| add(&mut applies.within))),
        ("a fact of a scope", |policy| applies(policy).is_some_and(|applies| set(&mut applies.fact))),
        ("a region of a transfer", |policy| row(policy).is_some_and(|row| add(&mut row.to))),
        ("a region of an exception", |policy| row(policy).is_some_and(|row| add(&mut row.except))),
        ("a form", |policy| row(policy).is_some_and(|row| set(&mut row.form))),
        ("a condition that is needed", |policy| row(policy).is_some_and(|row| add(&mut row.needs))),
        ("a code of a region", |policy| set(&mut policy.regions[0].entries[0].code)),
        ("a disputed code", |policy| policy.disputed.first_mut().is_some_and(|(code, _)| set(code))),
        ("a claimant", |policy| policy.disputed.first_mut().is_some_and(|(_, claimants)| add(claimants))),
        ("a localisation", |policy| set(&mut policy.regimes[0].localisation)),
        ("a misroute", |policy| set(&mut policy.regimes[0].misroute)),
        ("unknown", |policy| set(&mut policy.unknown)),
        ("on_expired", |policy| set(&mut policy.on_expired)),
        ("a fact of a stream", |policy| set(&mut policy.stream.evidence[0].fact)),
        ("an untested fact", |policy| add(&mut policy.stream.untested)),
        ("a field of evidence", |policy| {
            some_evidence(policy, "field").is_some_and(|evidence| {
                evidence.source = field(NONSENSE);
                true
            })
        }),
        ("a registry", |policy| {
            some_evidence(policy, "registry").is_some_and(|evidence| {
                evidence.source = Source::Registry { name: NONSENSE.to_owned(), by: "device".to_owned() };
                true
            })
        }),
        ("the key of a registry", |policy| {
            some_evidence(policy, "registry").is_some_and(|evidence| {
                evidence.source = Source::Registry { name: "devices".to_owned(), by: NONSENSE.to_owned() };
                true
            })
        }),
        ("a role", |policy| {
            policy.stream.evidence[0].trusted_from = Some(vec![NONSENSE.to_owned()]);
            true
        }),
        ("a code that always holds", |policy| {
            policy.stream.evidence[0].fact != "source.system" && {
                policy.stream.evidence[0].source = Source::Always(vec!["DE".to_owned(), NONSENSE.to_owned()]);
                true
            }
        }),
        ("a fact of a producer", |policy| {
            policy.producers[0].facts.push((NONSENSE.to_owned(), vec!["DE".to_owned()]));
            true
        }),
        ("a code of a producer", |policy| {
            let mut facts = policy.producers[0].facts.iter_mut().filter(|(fact, _)| fact != "source.system");
            facts.next().is_some_and(|(_, codes)| add(codes))
        }),
        ("a fact of a registry", |policy| add(&mut policy.registries[0].facts)),
        ("a country", |policy| set(&mut policy.destinations[0].country)),
        ("an operator's country", |policy| {
            policy.destinations[0].operator = Some(NONSENSE.to_owned());
            true
        }),
        ("an onward country", |policy| add(&mut policy.destinations[0].onward)),
        ("a dataset that is accepted", |policy| add(&mut policy.destinations[0].accepts)),
        ("a destination's form", |policy| {
            policy.destinations[0].max_form = Some(NONSENSE.to_owned());
            true
        }),
        ("a condition that nothing needs", |policy| {
            let shown = super::reference::Shown { name: "dest.nonsense".to_owned(), until: None };
            policy.destinations[0].conditions.push(shown);
            true
        }),
        ("a condition that is vouched for", |policy| vouched(policy, "data.nonsense", "stream", STREAM)),
        ("a stream of which something is shown", |policy| vouched(policy, "data.clean", "stream", NONSENSE)),
        ("a dataset of which something is shown", |policy| vouched(policy, "data.clean", "dataset", NONSENSE)),
        ("a destination of which something is shown", |policy| {
            vouched(policy, "approval.cac", "destination", NONSENSE)
        }),
        ("a dataset of an override", |policy| {
            policy.overrides.first_mut().is_some_and(|relaxed| set(&mut relaxed.dataset))
        }),
        ("a destination of an override", |policy| {
            policy.overrides.first_mut().is_some_and(|relaxed| set(&mut relaxed.destination))
        }),
    ];
    places.to_vec()
}

/// The plainest policy: one regime, one fact, one field.
fn plain() -> Policy {
    let case = smallest();
    let mut policy = case.policy;
    policy.classes.iter_mut().for_each(|class| class.parents.clear());
    policy.stream.fields.iter_mut().for_each(|field| field.class = "personal".to_owned());
    policy.stream.model = None;
    policy.stream.evidence = vec![evidence("collection.place", field("x"), 90, None)];
    policy.stream.untested = FACTS[1..].iter().map(|fact| (*fact).to_owned()).collect();
    policy.disputed = Vec::new();
    policy.regimes = Vec::new();
    policy.overrides = Vec::new();
    policy.destinations.truncate(1);
    policy.destinations[0].operator = None;
    policy.destinations[0].onward = Vec::new();
    policy.destinations[0].accepts = vec![DATASET.to_owned()];
    policy.destinations[0].max_form = None;
    generate::only_needed(&mut policy);
    policy.on_expired = "warn".to_owned();
    policy
}

fn smallest() -> Case {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    cases().new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

fn regime(id: &str, within: &[&str], to: &[&str], except: &[&str]) -> Regime {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let form = "identifiable".to_owned();
    Regime {
        id: id.to_owned(),
        from: None,
        review_by: "2028-01-01".to_owned(),
        classes: names(&["personal"]),
        localisation: "conditional".to_owned(),
        misroute: "redirect".to_owned(),
        min_contributors: None,
        applies: vec![Applies { fact: "collection.place".to_owned(), within: names(within), from: None }],
        transfers: vec![Transfer {
            id: "row".to_owned(),
            form,
            to: names(to),
            except: names(except),
            needs: Vec::new(),
            from: None,
            until: None,
        }],
    }
}

fn gateway(serves: &[&str]) -> Gateway {
    Gateway { country: "DE".to_owned(), serves: serves.iter().map(|id| (*id).to_owned()).collect(), peers: Vec::new() }
}

fn anybody() -> Sender {
    Sender { producer: "p2".to_owned(), address: None }
}

/// What the regime `law` says: whether it applies to a candidate, and whether it lets cells go to a place.
fn applies(policy: &Policy, code: &str) -> bool {
    let version = version(policy, &read(policy), &gateway(&["law"]), "2026-11-24");
    match verdict(&version, &Record::default().with("x", Some(code)), &anybody()) {
        Verdict::Keep(_) => true,
        Verdict::Refuse("no_regime") => false,
        other => panic!("{other:?}"),
    }
}

fn may_go(policy: &Policy, code: &str) -> bool {
    let mut policy = policy.clone();
    policy.destinations[0].country = code.to_owned();
    !read(&policy).outlets(&render::dataset(), &["law".to_owned()], engine::day("2026-11-24")).is_empty()
}

#[test]
fn what_has_a_code_of_its_own_never_falls_through_to_the_state_it_belongs_to() {
    for (state, places) in [
        ("US", ["PR", "US-PR", "GU", "US-GU"]),
        ("CN", ["HK", "CN-HK", "MO", "CN-MO"]),
        ("FR", ["RE", "FR-RE", "FR-974", "GP"]),
        ("GB", ["JE", "GG", "IM", "GI"]),
        ("NO", ["SJ", "NO-21", "NO-22", "SJ"]),
        ("NL", ["AW", "NL-AW", "NL-CW", "NL-BQ1"]),
        ("FI", ["AX", "FI-01", "AX", "FI-01"]),
    ] {
        for place in places {
            let mut policy = plain();
            policy.regimes = vec![regime("law", &[state], &[state], &[])];
            assert!(applies(&policy, state) && may_go(&policy, state));
            assert!(!applies(&policy, place), "{state} is taken to hold {place}");
            assert!(!may_go(&policy, place), "what may go to {state} goes to {place}");
            // And the other way round: to except the state excepts nothing of the place.
            policy.regimes = vec![regime("law", &[place], &["any"], &[place])];
            assert!(applies(&policy, place) && !applies(&policy, state), "{place}");
            assert!(!may_go(&policy, place) && may_go(&policy, state), "{place}");
        }
    }
}

#[test]
fn a_part_of_a_country_is_told_from_the_whole() {
    let mut policy = plain();
    policy.regimes = vec![regime("law", &["CA-QC"], &["CA-QC"], &[])];
    assert!(applies(&policy, "CA-QC") && applies(&policy, "CA") && !applies(&policy, "CA-ON"));
    assert!(may_go(&policy, "CA-QC") && !may_go(&policy, "CA") && !may_go(&policy, "CA-ON"));
    policy.regimes = vec![regime("law", &["CA"], &["CA"], &["CA-QC"])];
    assert!(applies(&policy, "CA-QC") && applies(&policy, "CA-ON"));
    assert!(!may_go(&policy, "CA-QC") && !may_go(&policy, "CA") && may_go(&policy, "CA-ON"));
}

#[test]
fn evidence_of_a_disputed_code_brings_in_every_claimant_wherever_it_comes_from() {
    let place = "collection.place";
    let always = Source::Always(vec!["UA-43".to_owned()]);
    for source in [
        field("x"),
        always,
        Source::Producer,
        Source::Registry { name: "devices".to_owned(), by: "device".to_owned() },
        Source::Registry { name: "devices".to_owned(), by: "producer".to_owned() },
        Source::Position,
        Source::GeoIp,
    ] {
        let mut policy = plain();
        policy.min_strength = 20;
        policy.disputed = vec![("UA-43".to_owned(), vec!["UA".to_owned(), "RU".to_owned()])];
        policy.stream.evidence = vec![evidence(place, source.clone(), 30, None)];
        policy.producers[2].facts = vec![(place.to_owned(), vec!["UA-43".to_owned()])];
        let of_key = |key: &str| {
            (
                key.to_owned(),
                FACTS.iter().map(|fact| if *fact == place { vec!["UA-43".to_owned()] } else { Vec::new() }).collect(),
            )
        };
        policy.registries[0].rows = vec![of_key("d0"), of_key("p2")];
        policy.regimes = vec![regime("ru", &["RU"], &["any"], &[]), regime("ua", &["UA"], &["any"], &[])];
        let record = Record { latitude: Some(6.0), longitude: Some(0.0), ..Record::default() };
        let record = record.with("x", Some("UA-43")).with("device", Some("d0"));
        let sender = Sender { address: Some(3), ..anybody() };
        let said = |serves: &[&str]| {
            verdict(&version(&policy, &read(&policy), &gateway(serves), "2026-11-24"), &record, &sender)
        };
        assert!(said(&["ru", "ua"]).is_keep(), "{source:?}: {:?}", said(&["ru", "ua"]));
        assert!(!said(&["ua"]).is_keep() && !said(&["ru"]).is_keep(), "{source:?}");
    }
}

#[test]
fn a_claim_does_not_make_a_regime_apply_to_a_record_that_no_regime_covers() {
    let mut policy = plain();
    policy.regimes = vec![regime("law", &["DE"], &["any"], &[])];
    policy.stream.evidence.push(evidence("collection.place", field("y"), 100, Some("crm")));
    let nobody = Sender { producer: "nobody".to_owned(), address: None };
    let record = Record::default().with("x", Some("BR")).with("y", Some("DE"));
    let peer = |serves: &[&str]| Peer {
        id: "peer".to_owned(),
        country: "DE".to_owned(),
        serves: serves.iter().map(|id| (*id).to_owned()).collect(),
        conditions: Vec::new(),
    };
    let elsewhere = Gateway { country: "FR".to_owned(), peers: vec![peer(&["law"])], ..gateway(&[]) };
    for gateway in [gateway(&["law"]), elsewhere] {
        let version = version(&policy, &read(&policy), &gateway, "2026-11-24");
        assert_eq!(verdict(&version, &record, &nobody), Verdict::Refuse("no_regime"));
    }
}

#[test]
fn a_route_serves_all_that_applies_and_would_apply_there_and_is_let_by_all_that_applies() {
    let record = Record::default().with("x", Some("RU"));
    let peer = |country: &str, serves: &[&str]| Peer {
        id: format!("in-{country}"),
        country: country.to_owned(),
        serves: serves.iter().map(|id| (*id).to_owned()).collect(),
        conditions: Vec::new(),
    };
    let mut policy = plain();
    let mut local = regime("local", &["FR"], &["FR"], &[]);
    local.applies[0].fact = "gateway.country".to_owned();
    policy.regimes = vec![regime("law", &["RU"], &["FR", "GB"], &[]), local];
    let said = |policy: &Policy, peers: Vec<Peer>| {
        let gateway = Gateway { peers, ..gateway(&[]) };
        verdict(&version(policy, &read(policy), &gateway, "2026-11-24"), &record, &anybody())
    };
    let no = Verdict::Refuse("may_not_be_here");
    assert_eq!(said(&policy, vec![]), no);
    assert_eq!(said(&policy, vec![peer("GB", &[])]), no, "it does not serve the law");
    assert_eq!(said(&policy, vec![peer("GB", &["law"])]), Verdict::Redirect("in-GB".to_owned()));
    assert_eq!(said(&policy, vec![peer("US", &["law"])]), no, "the law does not let it go there");
    assert_eq!(said(&policy, vec![peer("FR", &["law"])]), no, "it does not serve what applies there");
    // What applies only there need not let records go there: they are not there yet.
    assert_eq!(said(&policy, vec![peer("FR", &["law", "local"])]), Verdict::Redirect("in-FR".to_owned()));
    let both = vec![peer("FR", &["law"]), peer("GB", &["law"])];
    assert_eq!(said(&policy, both), Verdict::Redirect("in-GB".to_owned()));
    // Of all that is not served, the strictest holds: refuse, then quarantine, then redirect.
    for (first, second, wanted) in [
        ("redirect", "quarantine", Verdict::Quarantine),
        ("quarantine", "refuse", no.clone()),
        ("redirect", "refuse", no.clone()),
        ("redirect", "redirect", Verdict::Redirect("in-GB".to_owned())),
    ] {
        let mut other = policy.regimes[0].clone();
        other.id = "other".to_owned();
        other.misroute = second.to_owned();
        let mut law = policy.regimes[0].clone();
        law.misroute = first.to_owned();
        let both = Policy { regimes: vec![law, other], ..policy.clone() };
        assert_eq!(said(&both, vec![peer("GB", &["law", "other"])]), wanted, "{first} and {second}");
    }
}

#[test]
fn the_name_of_a_system_is_the_same_in_capitals() {
    let mut policy = plain();
    let mut law = regime("law", &["DE"], &["any"], &[]);
    law.applies =
        vec![Applies { fact: "source.system".to_owned(), within: vec!["au-my-health-record".to_owned()], from: None }];
    policy.regimes = vec![law];
    policy.stream.evidence = vec![evidence("source.system", field("x"), 90, None)];
    policy.stream.untested = FACTS[..4].iter().map(|fact| (*fact).to_owned()).collect();
    assert!(applies(&policy, "au-my-health-record") && applies(&policy, "AU-My-Health-Record"));
    assert!(!applies(&policy, "other"));
}

/// The errors of a set of files that are added to the plainest policy.
fn errors_with(texts: &[&str]) -> Vec<String> {
    let mut policy = plain();
    policy.regimes = vec![regime("law", &["US"], &["US"], &[])];
    let mut files: Vec<(String, String)> =
        render::files(&policy).iter().map(|file| (file.name.clone(), file.text())).collect();
    files.extend(texts.iter().enumerate().map(|(number, text)| (format!("added-{number}.toml"), (*text).to_owned())));
    let problems = bailiwick::domain::document::Problems::default();
    bailiwick::domain::policy::read(&engine::sources(files), &problems);
    errors(&problems.into_vec())
}

#[test]
fn no_further_file_changes_what_a_name_means() {
    let region = |name: &str| {
        format!(
            "schema = \"bailiwick.regions/1\"\n[regions.{name}]\nas_of = 2026-01-01\nreview_by = 2027-01-01\n\
             sources = [\"a source\"]\ncodes = [\"CN\"]\n"
        )
    };
    assert_eq!(errors_with(&[&region("mine")]), Vec::<String>::new());
    for name in ["US", "US-CA", "any", "ZZ", "us"] {
        let errors = errors_with(&[&region(name)]);
        assert!(name == "us" || errors.iter().any(|error| error.starts_with("added-0.toml:2: ")), "{name}: {errors:?}");
    }
    let disputed = "schema = \"bailiwick.regions/1\"\n[disputed]\n\"UA-43\" = [\"UA\", \"RU\"]\n";
    let again = "schema = \"bailiwick.regions/1\"\n\n[disputed]\n\"UA-43\" = [\"UA\"]\n";
    assert_eq!(errors_with(&[disputed]), Vec::<String>::new());
    let errors = errors_with(&[disputed, again]);
    assert!(errors.iter().any(|error| error.starts_with("added-1.toml:4: ")), "{errors:?}");
    // The same place in another spelling.
    let puerto_rico = "schema = \"bailiwick.regions/1\"\n[disputed]\nPR = [\"US\"]\nUS-PR = [\"DE\"]\n";
    let errors = errors_with(&[puerto_rico]);
    assert!(errors.iter().any(|error| error.starts_with("added-0.toml:4: ")), "{errors:?}");
}

#[test]
fn a_name_beside_any_is_looked_at_too() {
    let mut policy = plain();
    policy.regimes = vec![regime("law", &["US"], &["any", "nonsense"], &[])];
    let (_, problems) = engine::read_files(&render::files(&policy));
    assert!(!errors(&problems).is_empty());
}

#[test]
fn of_overrides_that_relax_alike_the_same_one_is_named_in_whatever_order_they_stand() {
    let mut policy = plain();
    policy.regimes = vec![regime("law", &["DE"], &["any"], &[])];
    policy.k = 20;
    let destination = policy.destinations[0].name.clone();
    policy.overrides = ["OVR-2", "OVR-1"]
        .map(|id| Override {
            id: id.to_owned(),
            value: 8,
            dataset: DATASET.to_owned(),
            destination: destination.clone(),
            until: "2027-01-01".to_owned(),
        })
        .into();
    for _ in 0..2 {
        let outlets = read(&policy).outlets(&render::dataset(), &["law".to_owned()], engine::day("2026-11-24"));
        assert_eq!((outlets[0].min_contributors, outlets[0].by_override.as_deref()), (8, Some("OVR-1")));
        policy.overrides.reverse();
    }
}
