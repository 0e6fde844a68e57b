//! The shipped laws against what they were before they were corrected (`before/`): no correction lets out more than there was
//! before, but for what the texts allow and the files did not. Each of these stands in [`EASED`], with its reason.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use bailiwick::domain::document::{Place, Problems, Source, Spot};
use bailiwick::domain::fact::Fact;
use bailiwick::domain::jurisdiction::Jurisdiction;
use bailiwick::domain::policy::{ByCounter, ConditionId, Conditions, Form, PolicySet, Proof, Regime, Shown};
use jiff::civil::Date;
use proptest::prelude::*;

const DAY: Date = Date::constant(2026, 11, 26);

/// Conditions that have another name now.
const RENAMED: [(&str, &str); 2] = [
    ("data.jp_consent", "data.jp_informed_consent"),
    ("data.vn_employee_data_in_cloud", "data.vn_own_employees_in_cloud"),
];

/// Laws whose data is under other regimes as well now, which are no parts of their files.
const SPLIT: [(&str, &str); 3] =
    [("kr-pipa-excepted", "kr-rrn"), ("us-dsp", "us-dsp-gov"), ("vn-data", "vn-data-volume")];

/// A row of today that lets out what its law did not before, because the text allows it.
struct Eased {
    row: &'static str,
    /// Where to. Empty: anywhere.
    to: &'static [&'static str],
    why: &'static str,
}

/// S and U: the numbers of the review by which the laws were corrected.
const EASED: &[Eased] = &[
    Eased {
        row: "br-lgpd/transfers/adequacy",
        to: &["IS", "LI", "NO"],
        why: "S4: Resolution 32/2026 names them beside the states of the Union",
    },
    Eased {
        row: "ch-fadp/transfers/annex-1",
        to: &[
            "AD", "AR", "AT", "BE", "BG", "CA", "CA-AB", "CA-BC", "CA-QC", "CY", "CZ", "DE", "DK", "EE", "ES", "FI",
            "FO", "FR", "GB", "GG", "GI", "GR", "HR", "HU", "IE", "IL", "IM", "IS", "IT", "JE", "LI", "LT", "LU", "LV",
            "MC", "MT", "NL", "NO", "NZ", "PL", "PT", "RO", "SE", "SI", "SK", "UY",
        ],
        why: "S2: Annex 1 of the ordinance lists them; before, somebody had to show it",
    },
    Eased { row: "ch-fadp/transfers/binding-rules", to: &[], why: "S12: rules that the authority has approved" },
    Eased {
        row: "cn-pipl/transfers/contract",
        to: &[],
        why: "S8: exempt whatever the volume, necessary for a contract with the person",
    },
    Eased {
        row: "cn-pipl/transfers/emergency",
        to: &[],
        why: "S8: exempt whatever the volume, to protect life, health or property",
    },
    Eased {
        row: "cn-pipl/transfers/human-resources",
        to: &[],
        why: "S8: exempt whatever the volume, necessary for human resources",
    },
    Eased { row: "eu-gdpr/transfers/binding-rules", to: &[], why: "S12: Art. 46(2)(b)" },
    Eased {
        row: "eu-gdpr/transfers/inside-eea",
        to: &["AX", "GF", "GP", "MF", "MQ", "RE", "YT"],
        why: "S3: parts of the Union with codes of their own",
    },
    Eased {
        row: "in-dpdp/transfers/outsourcing",
        to: &[],
        why: "U18: s. 17(1)(d) frees contracts about people outside India, from s. 16 too",
    },
    Eased {
        row: "in-rbi/transfers/cross-border-leg",
        to: &[],
        why: "S6: a copy of payments across borders may be abroad",
    },
    Eased {
        row: "jp-appi/transfers/listed-eu",
        to: &["IS", "LI", "NO"],
        why: "S5: Notices 1 and 5 of 2019 list 31 states, these among them",
    },
    Eased {
        row: "kr-spatial/transfers/reviewed-extract",
        to: &[],
        why: "S11: what was approved leaves, once it was reviewed",
    },
    Eased {
        row: "uk-gdpr/transfers/adequacy",
        to: &[
            "AD", "AR", "AT", "BE", "BG", "CA", "CA-AB", "CA-BC", "CA-QC", "CH", "CY", "CZ", "DE", "DK", "EE", "ES",
            "FI", "FR", "GG", "GI", "GR", "HR", "HU", "IE", "IL", "IM", "IS", "IT", "JE", "JP", "KR", "LI", "LT", "LU",
            "LV", "MT", "NL", "NO", "NZ", "PL", "PT", "RO", "SE", "SI", "SK", "US", "UY",
        ],
        why: "S1: the UK's own list, Sch. 21 to the Data Protection Act 2018",
    },
    Eased { row: "uk-gdpr/transfers/binding-rules", to: &[], why: "S12: Art. 46(2)(b)" },
    Eased {
        row: "us-dsp/transfers/below-bulk",
        to: &[],
        why: "28 CFR 202.205, 202.206: below the thresholds data is no bulk data; a gateway can count now",
    },
    Eased { row: "vn-data/transfers/important", to: &[], why: "S7: important data needs a dossier and no approval" },
    Eased { row: "vn-data/transfers/emergency", to: &[], why: "S7: reported within 15 days" },
    Eased { row: "vn-data/transfers/contract", to: &[], why: "S7: reported within 15 days" },
    Eased { row: "vn-data/transfers/human-resources", to: &[], why: "S7: reported within 15 days" },
    Eased { row: "vn-data/transfers/core", to: &[], why: "S7: approval before it leaves" },
    Eased { row: "vn-pdpl/transfers/emergency", to: &[], why: "S9: exempt from the dossier" },
    Eased { row: "vn-pdpl/transfers/human-resources", to: &[], why: "S9: exempt from the dossier" },
    Eased { row: "vn-pdpl/transfers/logistics", to: &[], why: "S9: exempt from the dossier" },
    Eased { row: "vn-pdpl/transfers/payments", to: &[], why: "S9: exempt from the dossier" },
];

struct Both {
    before: PolicySet,
    today: PolicySet,
    /// Every country, and every other code that one of them names.
    places: Vec<Jurisdiction>,
    laws: Vec<Law>,
}

/// A law as it was, and as it is.
struct Law {
    before: Regime,
    /// Its regimes of today, each with its rows one by one.
    today: Vec<(Regime, Vec<Regime>)>,
    /// Conditions that a row needs together, at one place or another.
    needs: Vec<BTreeSet<ConditionId>>,
}

static BOTH: LazyLock<Both> = LazyLock::new(|| {
    let (before, today) = (read("tests/policy/before"), read("policies"));
    let letters = || (b'A'..=b'Z').map(char::from);
    let countries = letters().flat_map(|first| letters().map(move |second| format!("{first}{second}")));
    let countries = countries.filter_map(|code| today.codes.parse(&code));
    let named = [&before, &today].map(|set| set.regimes.values().flat_map(regions).collect::<Vec<_>>());
    let places: BTreeSet<_> = countries.chain(named.concat()).filter(|place| *place != Jurisdiction::UNKNOWN).collect();
    let laws = before.regimes.values().map(|law| Law::new(law, &today)).collect();
    Both { places: places.into_iter().collect(), laws, before, today }
});

fn read(folder: &str) -> PolicySet {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).display().to_string();
    let file = Arc::new(Source::new("(test)", path.clone()));
    let place = Place { file, span: 0..path.len(), key: String::new() };
    let problems = Problems::default();
    let files = bailiwick::config::policies(&[Spot { value: path, place }], &problems).unwrap();
    let policy = bailiwick::domain::policy::read(&files, &problems);
    assert!(!problems.any_error(), "{:?}", problems.into_vec());
    policy
}

/// The codes that the rules of a regime name, without systems.
fn regions(regime: &Regime) -> Vec<Jurisdiction> {
    let scopes = regime.applies.iter().filter(|scope| scope.fact != Fact::SourceSystem).map(|scope| &scope.within);
    let rows = regime.transfers.iter().flat_map(|row| row.to.iter().chain([&row.except]));
    scopes.chain(rows).flat_map(|region| region.codes.keys().copied()).collect()
}

impl Law {
    fn new(before: &Regime, today: &PolicySet) -> Self {
        let is_of = |regime: &&Regime| {
            regime.law == before.id || SPLIT.iter().any(|(law, part)| *law == before.id && *part == regime.id)
        };
        let one_by_one = |regime: &Regime| {
            let rows = regime.transfers.iter();
            rows.map(|row| Regime { transfers: vec![row.clone()], ..regime.clone() }).collect()
        };
        let of_today: Vec<(Regime, Vec<Regime>)> = today
            .regimes
            .values()
            .filter(is_of)
            .map(|regime| (Regime { transfers: Vec::new(), ..regime.clone() }, one_by_one(regime)))
            .collect();
        assert!(!of_today.is_empty(), "{} is gone", before.id);
        let rows = of_today.iter().flat_map(|(_, rows)| rows).flat_map(|regime| &regime.transfers);
        let needs = rows.flat_map(|row| {
            let of_places = row.to.iter().flat_map(|region| region.codes.values().flatten()).map(|term| &term.needs);
            let none = Vec::new();
            let of_places: BTreeSet<&Vec<ConditionId>> = of_places.chain([&none]).collect();
            let all = of_places.into_iter().map(|needs| row.term.needs.iter().chain(needs).cloned().collect());
            all.collect::<BTreeSet<BTreeSet<ConditionId>>>()
        });
        let needs: BTreeSet<BTreeSet<ConditionId>> = needs.collect();
        Self { before: before.clone(), today: of_today, needs: needs.into_iter().collect() }
    }
}

/// What is asked about.
#[derive(Debug, Clone)]
struct Asked {
    facts: Vec<(Fact, Jurisdiction)>,
    class: String,
    form: Form,
    to: Jurisdiction,
    shown: BTreeSet<ConditionId>,
}

impl Asked {
    fn applies(&self, set: &PolicySet, regime: &Regime) -> bool {
        let candidates = self.facts.iter().flat_map(|(fact, code)| {
            let claimants = set.disputed.get(code).into_iter().flatten();
            claimants.chain([code]).map(|code| (*fact, *code))
        });
        regime.covers_class(&set.classes, &BTreeSet::from([self.class.clone()]))
            && candidates.into_iter().any(|(fact, code)| regime.met(fact, code, DAY).next().is_some())
    }

    fn may_go(&self, set: &PolicySet, regime: &Regime, shown: &Conditions) -> bool {
        let (on_expired, counters) = (set.on_expired, ByCounter::default());
        let shown = Shown { day: DAY, on_expired, recipient: shown, vouched: None, counters };
        regime.permits(self.form, self.to, &shown).is_some()
    }

    /// Whether the law stood in the way before.
    fn was_kept(&self, both: &Both, law: &Law) -> bool {
        let renamed =
            RENAMED.iter().filter(|(_, now)| self.shown.contains(*now)).map(|(before, _)| before.parse().unwrap());
        let shown = conditions(self.shown.iter().cloned().chain(renamed));
        self.applies(&both.before, &law.before) && !self.may_go(&both.before, &law.before, &shown)
    }

    /// By which rows each regime of the law that applies lets it go today. One without any stands in the way.
    fn goes_by(&self, both: &Both, law: &Law) -> Vec<Vec<String>> {
        let shown = conditions(self.shown.iter().cloned());
        let applying = law.today.iter().filter(|(regime, _)| self.applies(&both.today, regime));
        let goes_by = applying.map(|(_, rows)| {
            let rows = rows.iter().filter(|row| self.may_go(&both.today, row, &shown));
            rows.flat_map(|regime| regime.transfers.iter().map(|row| regime.rule(row))).collect()
        });
        goes_by.collect()
    }

    /// What lets it out today and did not before, although nothing in [`EASED`] says so. What says so is put into `used`.
    fn let_out(&self, both: &Both, law: &Law, used: &RefCell<BTreeSet<usize>>) -> Option<String> {
        if !self.was_kept(both, law) {
            return None;
        }
        let goes_by = self.goes_by(both, law);
        if goes_by.iter().any(Vec::is_empty) {
            return None;
        }
        let eased = |row: &String| {
            let is_it = |eased: &Eased| {
                eased.row == row && (eased.to.is_empty() || eased.to.contains(&self.to.to_string().as_str()))
            };
            EASED.iter().position(is_it)
        };
        // One regime whose every row that lets it go is eased.
        let of_eased = goes_by.iter().find_map(|rows| rows.iter().map(eased).collect::<Option<Vec<usize>>>());
        match of_eased {
            Some(eased) => used.borrow_mut().extend(eased),
            None if goes_by.is_empty() => return Some(format!("{}: no regime of it applies any more", law.before.id)),
            None => return Some(format!("{} by {}", law.before.id, goes_by.concat().join(", "))),
        }
        None
    }
}

fn conditions(names: impl Iterator<Item = ConditionId>) -> Conditions {
    names.map(|name| (name, Proof { by: None, reference: "a test".to_owned(), until: None })).collect()
}

/// Every row of today, to every place, in every form, of every class that its law names: with what the row needs and no more,
/// and with all that there is to be shown.
#[test]
fn no_row_of_a_corrected_law_lets_out_what_stayed_before() {
    let both = &*BOTH;
    let (mut let_out, used) = (BTreeMap::<String, BTreeSet<String>>::new(), RefCell::default());
    for law in &both.laws {
        let all: BTreeSet<ConditionId> = law.needs.iter().flatten().cloned().collect();
        let facts: Vec<(Fact, Jurisdiction)> = law
            .before
            .applies
            .iter()
            .filter_map(|scope| scope.within.codes.keys().next().map(|code| (scope.fact, *code)))
            .collect();
        for class in &law.before.classes {
            for shown in law.needs.iter().chain([&all]) {
                for (to, form) in both.places.iter().flat_map(|to| Form::NAMES.map(|(_, form)| (*to, form))) {
                    let (facts, class, shown) = (facts.clone(), class.clone(), shown.clone());
                    let asked = Asked { facts, class, form, to, shown };
                    if let Some(by) = asked.let_out(both, law, &used) {
                        let_out.entry(by).or_default().insert(to.to_string());
                    }
                }
            }
        }
    }
    assert!(let_out.is_empty(), "{let_out:#?}");
    let idle = (0..EASED.len()).filter(|eased| !used.borrow().contains(eased));
    let idle: Vec<(&str, &str)> = idle.filter_map(|at| EASED.get(at)).map(|eased| (eased.row, eased.why)).collect();
    assert_eq!(idle, [], "these let nothing out that stayed before");
}

fn asked() -> impl Strategy<Value = (usize, Asked)> {
    let picks = prop::collection::vec(any::<prop::sample::Index>(), 24);
    (picks, any::<u32>()).prop_map(|(picks, bits)| {
        let both = &*BOTH;
        let mut picks = picks.into_iter();
        let mut below = |count: usize| picks.next().map_or(0, |pick| pick.index(count));
        let number = below(both.laws.len());
        let law = &both.laws[number];
        let facts = Fact::NAMES.into_iter().map(|(_, fact)| fact);
        let named: Vec<Jurisdiction> =
            regions(&law.before).into_iter().chain(both.before.disputed.keys().copied()).collect();
        let mut facts: Vec<(Fact, Jurisdiction)> = facts
            .enumerate()
            .filter(|(at, _)| bits >> at & 1 == 1)
            .map(|(at, fact)| {
                let place = match bits >> (8 + at) & 1 {
                    _ if fact == Fact::SourceSystem => Jurisdiction::system("au-my-health-record"),
                    0 if !named.is_empty() => named[below(named.len())],
                    _ => both.places[below(both.places.len())],
                };
                (fact, place)
            })
            .collect();
        // Mostly the law applies.
        if bits >> 16 & 3 != 0 {
            let scope = &law.before.applies[below(law.before.applies.len())];
            let codes: Vec<Jurisdiction> = scope.within.codes.keys().copied().collect();
            facts.push((scope.fact, codes[below(codes.len())]));
        }
        let classes: Vec<&String> = both.before.classes.0.keys().collect();
        let class = match bits >> 18 & 3 {
            0 => classes[below(classes.len())].clone(),
            _ => law.before.classes[below(law.before.classes.len())].clone(),
        };
        let mut shown = BTreeSet::new();
        for _ in 0..bits >> 20 & 3 {
            shown.extend(law.needs[below(law.needs.len())].iter().cloned());
        }
        let known: Vec<&ConditionId> = both.today.needed.iter().collect();
        for _ in 0..bits >> 22 & 3 {
            shown.insert(known[below(known.len())].clone());
        }
        if bits >> 24 & 3 == 0
            && let Some(left_out) = shown.iter().nth(below(shown.len().max(1))).cloned()
        {
            shown.remove(&left_out);
        }
        let to = match bits >> 26 & 1 {
            0 if !named.is_empty() => named[below(named.len())],
            _ => both.places[below(both.places.len())],
        };
        let (_, form) = Form::NAMES[below(Form::NAMES.len())];
        (number, Asked { facts, class, form, to, shown })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever it is about and wherever it was collected, whatever was shown: what today's laws let go, they let go before.
    #[test]
    fn no_correction_of_a_law_lets_out_more_than_before((law, asked) in asked()) {
        let both = &*BOTH;
        let let_out = asked.let_out(both, &both.laws[law], &RefCell::default());
        prop_assert_eq!(let_out, None, "{:?}", asked);
    }
}
