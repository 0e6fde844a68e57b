//! The policy language once more: as plain data, and evaluated as slowly and obviously as it can be. Written from the
//! description of the language, not from the engine. Codes, names and days (`2026-11-23`) are strings.

use std::collections::BTreeSet;

use super::render::{DATASET, STREAM};

pub(super) use super::model::*;

/// The facts that need evidence, in the order in which they are looked at.
pub(super) const FACTS: [&str; 5] =
    ["collection.place", "subject.residence", "subject.citizenship", "controller.establishment", "source.system"];

/// From the weakest to the strongest.
pub(super) const FORMS: [&str; 4] = ["dp", "statistical", "pseudonymised", "identifiable"];

/// What something says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Says {
    Nothing,
    /// It cannot be read.
    Error,
    OneOf(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Keep(BTreeSet<String>),
    Redirect(String),
    Quarantine,
    Refuse(&'static str),
}

impl Verdict {
    pub(super) fn is_keep(&self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

/// What is known outside of the policy: where a latitude and an address are. The longitude is of no account.
pub(super) fn place_of(latitude: f64, longitude: f64) -> Says {
    let codes: &[&str] = match latitude {
        _ if latitude.is_nan() || longitude.is_nan() => return Says::Error,
        0.0 => &["DE"],
        1.0 => &["UA-43", "RU"],
        2.0 => &["US-CA"],
        3.0 => &["CA", "CA-QC"],
        4.0 => &["HK", "CN"],
        5.0 => &["DE", "FR"],
        6.0 => &["UA-43"],
        _ => return Says::Nothing,
    };
    Says::OneOf(codes.iter().map(|code| (*code).to_owned()).collect())
}

pub(super) fn country_of_address(address: u8) -> Says {
    let code = match address {
        0 => "DE",
        1 => "US",
        2 => "RU",
        3 => "UA-43",
        4 => "HK",
        _ => return Says::Nothing,
    };
    Says::OneOf(vec![code.to_owned()])
}

/// The codes of the small world of these tests. Whatever is not here does not exist.
const CODES: [&str; 18] = [
    "DE", "FR", "US", "US-CA", "US-NY", "CA", "CA-QC", "PR", "HK", "CN", "UA-43", "UA", "RU", "JE", "GB", "RE", "MO",
    "BR",
];
/// Other spellings of some of them.
const SPELLINGS: [(&str, &str); 4] = [("US-PR", "PR"), ("CN-HK", "HK"), ("FR-RE", "RE"), ("CN-MO", "MO")];

pub(super) fn canonical(code: &str) -> Option<String> {
    let code = SPELLINGS.iter().find(|(spelling, _)| *spelling == code).map_or(code, |(_, own)| own);
    CODES.contains(&code).then(|| code.to_owned())
}

fn country(code: &str) -> &str {
    code.split('-').next().unwrap()
}

/// What a text says of a fact.
fn read(fact: &str, text: Option<&str>) -> Says {
    match text {
        None | Some("") => Says::Nothing,
        Some(name) if fact == "source.system" => Says::OneOf(vec![name.to_lowercase()]),
        // Whoever says ZZ says that he does not know.
        Some("ZZ") => Says::Nothing,
        Some(code) => canonical(code).map_or(Says::Error, |code| Says::OneOf(vec![code])),
    }
}

fn read_all(fact: &str, texts: &[String]) -> Says {
    let mut codes = Vec::new();
    for text in texts {
        if let Says::OneOf(more) = read(fact, Some(text)) {
            codes.extend(more);
        }
    }
    if codes.is_empty() { Says::Nothing } else { Says::OneOf(codes) }
}

fn same_place(fact: &str, left: &str, right: &str) -> bool {
    left == right || fact != "source.system" && (country(left) == right || country(right) == left)
}

#[derive(Clone, Debug)]
struct Item {
    candidates: Vec<String>,
    strength: u8,
    kind: &'static str,
    trusted: bool,
}

fn in_common(fact: &str, left: &Item, right: &Item) -> bool {
    left.candidates.iter().any(|one| right.candidates.iter().any(|other| same_place(fact, one, other)))
}

/// What a fact is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Finding {
    /// By trusted evidence, and by what is not trusted.
    Known(Vec<String>, Vec<String>),
    Unknown,
    Contradiction,
}

/// All of it, for one record.
pub(super) struct Reference<'r> {
    pub(super) policy: &'r Policy,
    pub(super) gateway: &'r Gateway,
    pub(super) day: &'r str,
}

impl Reference<'_> {
    fn says(&self, evidence: &Evidence, record: &Record, sender: &Sender) -> Says {
        let of_registry = |name: &str, key: Option<&str>| {
            let registry = self.policy.registries.iter().find(|registry| registry.name == name).unwrap();
            let column = registry.facts.iter().position(|fact| *fact == evidence.fact).unwrap();
            match registry.rows.iter().find(|(known, _)| Some(known.as_str()) == key) {
                Some((_, columns)) => read_all(&evidence.fact, &columns[column]),
                None => Says::Nothing,
            }
        };
        let said = match &evidence.source {
            Source::Field(field) => read(&evidence.fact, record.text(field)),
            Source::Phone(field) => super::engine::phone(record.text(field)),
            Source::Iban(field) => super::engine::iban(record.text(field)),
            Source::Position => match (record.latitude, record.longitude) {
                (Some(latitude), Some(longitude)) => place_of(latitude, longitude),
                (None, None) => Says::Nothing,
                // Half a position.
                _ => Says::Error,
            },
            Source::Registry { name, by } if by == "producer" => of_registry(name, Some(&sender.producer)),
            Source::Registry { name, by } => of_registry(name, record.text(by).filter(|key| !key.is_empty())),
            Source::Producer => {
                let producer = self.policy.producers.iter().find(|known| known.name == sender.producer);
                let facts =
                    producer.and_then(|producer| producer.facts.iter().find(|(fact, _)| *fact == evidence.fact));
                facts.map_or(Says::Nothing, |(fact, codes)| read_all(fact, codes))
            }
            Source::GeoIp => sender.address.map_or(Says::Nothing, country_of_address),
            Source::Always(codes) => read_all(&evidence.fact, codes),
        };
        let Says::OneOf(mut candidates) = said else { return said };
        // Evidence of a disputed code is evidence of every claimant.
        for (code, claimants) in &self.policy.disputed {
            if candidates.contains(&canonical(code).unwrap()) {
                candidates.extend(claimants.iter().map(|claimant| canonical(claimant).unwrap()));
            }
        }
        Says::OneOf(candidates)
    }

    fn is_trusted(&self, evidence: &Evidence, sender: &Sender) -> bool {
        let Some(roles) = &evidence.trusted_from else { return true };
        let producer = self.policy.producers.iter().find(|known| known.name == sender.producer);
        producer.is_some_and(|producer| producer.roles.iter().any(|role| roles.contains(role)))
    }

    pub(super) fn finding(&self, fact: &str, record: &Record, sender: &Sender) -> Finding {
        let mut items = Vec::new();
        for evidence in self.policy.stream.evidence.iter().filter(|evidence| evidence.fact == fact) {
            match self.says(evidence, record, sender) {
                Says::Error => return Finding::Unknown,
                Says::Nothing => {}
                Says::OneOf(candidates) => items.push(Item {
                    candidates,
                    strength: evidence.strength,
                    kind: evidence.source.kind(),
                    trusted: self.is_trusted(evidence, sender),
                }),
            }
        }
        let trusted: Vec<&Item> = items.iter().filter(|item| item.trusted).collect();
        let strong: Vec<&&Item> = trusted.iter().filter(|item| item.strength >= self.policy.min_strength).collect();
        let weak: Vec<&&Item> = trusted.iter().filter(|item| item.strength < self.policy.min_strength).collect();
        let mut survivors: Vec<&Item> = strong.iter().map(|item| **item).collect();
        for one in &weak {
            if weak.iter().any(|other| one.kind != other.kind && in_common(fact, one, other)) {
                survivors.push(one);
            }
        }
        if survivors.is_empty() {
            return Finding::Unknown;
        }
        if strong.iter().any(|one| strong.iter().any(|other| !in_common(fact, one, other))) {
            return Finding::Contradiction;
        }
        let known = survivors.iter().flat_map(|item| item.candidates.clone()).collect();
        let claimed = items.iter().filter(|item| !item.trusted).flat_map(|item| item.candidates.clone()).collect();
        Finding::Known(known, claimed)
    }

    fn ancestors(&self, class: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::from([class.to_owned()]);
        let declared = self.policy.classes.iter().find(|declared| declared.name == class).unwrap();
        for parent in &declared.parents {
            all.extend(self.ancestors(parent));
        }
        all
    }

    /// The classes of the stream's records.
    pub(super) fn classes(&self) -> BTreeSet<String> {
        let stream = &self.policy.stream;
        let outputs = stream.model.iter().flat_map(|model| &model.outputs).filter_map(|(_, class)| class.clone());
        stream.fields.iter().map(|field| field.class.clone()).chain(outputs).collect()
    }

    fn covers(&self, regime: &Regime) -> bool {
        self.classes().iter().any(|class| regime.classes.iter().any(|covered| self.ancestors(class).contains(covered)))
    }

    fn entries(&self, names: &[String]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for name in names {
            match self.policy.regions.iter().find(|region| region.name == *name) {
                Some(region) => entries.extend(region.entries.clone()),
                None => {
                    let review_by = "9999-12-31".to_owned();
                    entries.push(Entry { code: name.clone(), from: None, until: None, needs: Vec::new(), review_by });
                }
            }
        }
        for entry in &mut entries {
            entry.code = canonical(&entry.code).unwrap();
        }
        entries
    }

    /// Whether a candidate matches, for a scope or an exception.
    fn matches(&self, candidate: &str, names: &[String]) -> bool {
        self.entries(names).iter().any(|entry| {
            entry.code == candidate || entry.code == country(candidate) || country(&entry.code) == candidate
        })
    }

    fn applies(&self, regime: &Regime, fact: &str, candidate: &str) -> bool {
        self.covers(regime)
            && self.tests(regime).filter(|applies| applies.fact == fact).any(|applies| match fact {
                "source.system" => applies.within.iter().any(|name| name.to_lowercase() == candidate),
                _ => self.matches(candidate, &applies.within),
            })
    }

    fn regimes(&self, fact: &str, candidates: &[String]) -> BTreeSet<String> {
        let applies = |regime: &&Regime| candidates.iter().any(|candidate| self.applies(regime, fact, candidate));
        self.policy.regimes.iter().filter(applies).map(|regime| regime.id.clone()).collect()
    }

    fn regime(&self, id: &str) -> &Regime {
        self.policy.regimes.iter().find(|regime| regime.id == id).unwrap()
    }

    /// The scope tests that count on the day: neither they nor their regime are to begin later.
    fn tests<'a>(&'a self, regime: &'a Regime) -> impl Iterator<Item = &'a Applies> {
        regime.applies.iter().filter(|applies| self.has_begun(&regime.from) && self.has_begun(&applies.from))
    }

    /// Whether something is shown of a recipient, or vouched for of what is at hand: `at` says which things those are.
    fn is_shown(&self, need: &str, recipient: &[Shown], at: &[(&str, &str)]) -> bool {
        if need.starts_with("dest.") {
            return recipient.iter().any(|shown| shown.name == need && self.holds(shown.until.as_deref()));
        }
        self.policy.vouches.iter().any(|vouch| {
            vouch.name == need
                && self.holds(vouch.until.as_deref())
                && vouch.of.iter().all(|(what, name)| at.contains(&(*what, name.as_str())))
        })
    }

    fn has_begun(&self, from: &Option<String>) -> bool {
        from.as_deref().is_none_or(|from| from <= self.day)
    }

    fn holds(&self, until: Option<&str>) -> bool {
        until.is_none_or(|until| self.day <= until)
    }

    /// Whether a regime lets a form go to a place.
    pub(super) fn permits(
        &self,
        regime: &Regime,
        form: &str,
        place: &str,
        (recipient, at): (&[Shown], &[(&str, &str)]),
    ) -> bool {
        let place = canonical(place).unwrap();
        let rank = |form: &str| FORMS.iter().position(|known| *known == form).unwrap();
        regime.transfers.iter().any(|row| {
            let is_off = |review_by: &str| {
                self.day > review_by
                    && match self.policy.on_expired.as_str() {
                        "deny-all" => true,
                        "deny-identifiable" => rank(&row.form) >= rank("pseudonymised"),
                        _ => false,
                    }
            };
            let goes_there = || {
                row.to.iter().any(|name| name == "any")
                    || self.entries(&row.to).iter().any(|entry| {
                        (entry.code == place || entry.code == country(&place))
                            && self.has_begun(&entry.from)
                            && self.holds(entry.until.as_deref())
                            && !is_off(&entry.review_by)
                            && entry.needs.iter().all(|need| self.is_shown(need, recipient, at))
                    })
            };
            rank(&row.form) >= rank(form)
                && !is_off(&regime.review_by)
                && !self.matches(&place, &row.except)
                && goes_there()
                && self.has_begun(&row.from)
                && self.holds(row.until.as_deref())
                && row.needs.iter().all(|need| self.is_shown(need, recipient, at))
        })
    }

    pub(super) fn verdict(&self, record: &Record, sender: &Sender) -> Verdict {
        let (mut trusted, mut by_facts) = (BTreeSet::new(), BTreeSet::new());
        for fact in FACTS {
            if !self.policy.stream.evidence.iter().any(|evidence| evidence.fact == fact) {
                continue;
            }
            match self.finding(fact, record, sender) {
                Finding::Contradiction => return Verdict::Quarantine,
                Finding::Unknown if self.policy.unknown == "quarantine" => return Verdict::Quarantine,
                Finding::Unknown => return Verdict::Refuse("unknown_jurisdiction"),
                Finding::Known(known, claimed) => {
                    trusted.extend(self.regimes(fact, &known));
                    by_facts.extend(self.regimes(fact, &known));
                    by_facts.extend(self.regimes(fact, &claimed));
                }
            }
        }
        // What is not trusted, and where the gateway is, add regimes to some and never make the first.
        if trusted.is_empty() {
            return Verdict::Refuse("no_regime");
        }
        let in_country = |code: &str| self.regimes("gateway.country", &[canonical(code).unwrap()]);
        let all: BTreeSet<String> = by_facts.union(&in_country(&self.gateway.country)).cloned().collect();
        let not_served: Vec<&Regime> =
            all.iter().filter(|id| !self.gateway.serves.contains(id)).map(|id| self.regime(id)).collect();
        if not_served.is_empty() {
            return Verdict::Keep(all);
        }
        if not_served.iter().any(|regime| regime.misroute == "refuse") {
            return Verdict::Refuse("may_not_be_here");
        }
        if not_served.iter().any(|regime| regime.misroute == "quarantine") {
            return Verdict::Quarantine;
        }
        for peer in &self.gateway.peers {
            let serves_all = by_facts.iter().chain(&in_country(&peer.country)).all(|id| peer.serves.contains(id));
            let at = [("stream", STREAM), ("gateway", peer.id.as_str())];
            let shown = (peer.conditions.as_slice(), at.as_slice());
            let may_go_there =
                by_facts.iter().all(|id| self.permits(self.regime(id), "identifiable", &peer.country, shown));
            if serves_all && may_go_there {
                return Verdict::Redirect(peer.id.clone());
            }
        }
        Verdict::Refuse("may_not_be_here")
    }

    fn served(&self) -> Vec<&Regime> {
        let regimes = self.policy.regimes.iter();
        let served = regimes.filter(|regime| self.gateway.serves.contains(&regime.id) && self.covers(regime));
        served.filter(|regime| self.tests(regime).next().is_some()).collect()
    }

    /// What is at hand where cells of the dataset go to a destination.
    pub(super) fn cells_to(destination: &Destination) -> [(&str, &str); 3] {
        [("stream", STREAM), ("dataset", DATASET), ("destination", &destination.name)]
    }

    /// Whether a regime lets the dataset go to a destination.
    pub(super) fn lets_go(&self, regime: &Regime, destination: &Destination) -> bool {
        let countries = [Some(&destination.country), destination.operator.as_ref()]
            .into_iter()
            .flatten()
            .chain(&destination.onward);
        let at = Self::cells_to(destination);
        let shown = (destination.conditions.as_slice(), at.as_slice());
        destination.max_form.as_deref() != Some("dp")
            && countries.into_iter().all(|code| self.permits(regime, "statistical", code, shown))
    }

    /// The number of contributors of the dataset's cells at a destination; `None` where it may not go.
    pub(super) fn egress(&self, destination: &Destination) -> Option<usize> {
        let served = self.served();
        let accepts = destination.accepts.iter().any(|name| name == DATASET);
        if !accepts || served.is_empty() || !served.iter().all(|regime| self.lets_go(regime, destination)) {
            return None;
        }
        let mut k = self.policy.k;
        for regime in served {
            let strict = ["first-store", "strict"].contains(&regime.localisation.as_str());
            k = k.max(regime.min_contributors.unwrap_or(if strict { 20 } else { 10 }));
        }
        let special = |name: &String| self.policy.classes.iter().any(|class| class.name == *name && class.special);
        if self.classes().iter().any(|class| self.ancestors(class).iter().any(special)) {
            k = k.max(20);
        }
        for relaxed in &self.policy.overrides {
            if relaxed.destination == destination.name && self.holds(Some(&relaxed.until)) {
                k = k.min(relaxed.value);
            }
        }
        Some(k)
    }
}
