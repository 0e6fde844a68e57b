//! Facts: what laws test. A record has no jurisdiction of its own; evidence of several kinds gives candidates for
//! each fact, and [`settle`] makes one finding of them.

use std::collections::BTreeSet;

use super::jurisdiction::{Candidates, Jurisdiction};

/// What a law may test. Closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// Where the record was collected.
    CollectionPlace,
    /// Where the person lives.
    SubjectResidence,
    /// Whose citizen the person is.
    SubjectCitizenship,
    /// Where the controller is established.
    ControllerEstablishment,
    /// Which system the record comes from: a name, not a place.
    SourceSystem,
    /// Where the record is processed. Known without evidence.
    GatewayCountry,
}

impl Fact {
    /// Every fact with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("collection.place", Self::CollectionPlace),
        ("subject.residence", Self::SubjectResidence),
        ("subject.citizenship", Self::SubjectCitizenship),
        ("controller.establishment", Self::ControllerEstablishment),
        ("source.system", Self::SourceSystem),
        ("gateway.country", Self::GatewayCountry),
    ];

    /// The facts that need evidence.
    pub const OF_RECORDS: [Self; 5] = [
        Self::CollectionPlace,
        Self::SubjectResidence,
        Self::SubjectCitizenship,
        Self::ControllerEstablishment,
        Self::SourceSystem,
    ];

    /// The name in the policy language.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, fact)| *fact == self).map_or("?", |(name, _)| name)
    }
}

/// Where a piece of evidence comes from. Two of the same kind are not independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A field that carries the code.
    Field,
    /// What is registered of the producer.
    Producer,
    /// What a registry says of a device or an account.
    Registry,
    /// Latitude and longitude.
    Position,
    /// A telephone number.
    Phone,
    /// A bank account's number.
    Iban,
    /// The network address.
    GeoIp,
    /// The operator's word.
    Always,
}

impl Kind {
    /// The name in explanations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Field => "field",
            Self::Producer => "producer",
            Self::Registry => "registry",
            Self::Position => "position",
            Self::Phone => "phone",
            Self::Iban => "iban",
            Self::GeoIp => "geoip",
            Self::Always => "always",
        }
    }
}

/// One piece of evidence for a fact of a record.
#[derive(Debug, Clone)]
pub struct Item {
    /// What it may be. Not empty.
    pub candidates: Candidates,
    /// How much it is worth, 0 to 100.
    pub strength: u8,
    /// Where it comes from.
    pub kind: Kind,
    /// Whether its source is trusted with it. What is not can only add candidates.
    pub trusted: bool,
}

/// What evidence makes of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is one of these; all of them count.
    Known(BTreeSet<Jurisdiction>),
    /// Nothing that is strong enough says.
    Unknown,
    /// Two strong items have no candidate in common.
    Contradiction,
}

/// Whether two candidates may be the same place: equal, or one is the other's country.
#[must_use]
pub fn agree(left: Jurisdiction, right: Jurisdiction) -> bool {
    left == right || left.country() == right || right.country() == left
}

/// Whether two items have a candidate in common.
fn compatible(left: &Item, right: &Item) -> bool {
    left.candidates.iter().any(|&one| right.candidates.iter().any(|&other| agree(one, other)))
}

/// What [`settle`] comes to, without the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is known; the candidates were given out.
    Known,
    /// Nothing that is strong enough says.
    Unknown,
    /// Two strong items have no candidate in common.
    Contradiction,
}

/// The finding on one fact; gives out the candidates, some perhaps more than once, and whether they are those of trusted
/// evidence.
///
/// Trusted items of at least `min_strength` survive; weaker ones where two of different kinds agree, after the
/// pattern of Implementing Regulation (EU) No 282/2011, Art. 24b(d): two items of non-contradictory evidence. Every
/// candidate of a survivor counts, and so does every one of an untrusted item: one more regime only tightens.
pub fn settle(items: &[Item], min_strength: u8, mut candidate: impl FnMut(Jurisdiction, bool)) -> Settled {
    let trusted = || items.iter().filter(|item| item.trusted);
    let strong = |item: &Item| item.strength >= min_strength;
    let corroborated =
        |item: &Item| trusted().any(|other| other.kind != item.kind && !strong(other) && compatible(item, other));
    let mut is_known = false;
    for item in trusted() {
        if strong(item) {
            if trusted().any(|other| strong(other) && !compatible(item, other)) {
                return Settled::Contradiction;
            }
        } else if !corroborated(item) {
            continue;
        }
        is_known = true;
        item.candidates.iter().for_each(|&code| candidate(code, true));
    }
    if !is_known {
        return Settled::Unknown;
    }
    let untrusted = items.iter().filter(|item| !item.trusted);
    untrusted.flat_map(|item| item.candidates.iter()).for_each(|&code| candidate(code, false));
    Settled::Known
}

/// The finding on one fact, with its candidates.
#[must_use]
pub fn find(items: &[Item], min_strength: u8) -> Finding {
    let mut known = BTreeSet::new();
    match settle(items, min_strength, |candidate, _| {
        known.insert(candidate);
    }) {
        Settled::Known => Finding::Known(known),
        Settled::Unknown => Finding::Unknown,
        Settled::Contradiction => Finding::Contradiction,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn item(codes: &[&str], strength: u8, kind: Kind, trusted: bool) -> Item {
        let candidates: Candidates = codes.iter().map(|code| Jurisdiction::parse(code).unwrap()).collect();
        Item { candidates: Arc::clone(&candidates), strength, kind, trusted }
    }

    fn known(codes: &[&str]) -> Finding {
        Finding::Known(codes.iter().map(|code| Jurisdiction::parse(code).unwrap()).collect())
    }

    #[test]
    fn a_strong_item_settles_it_and_a_weak_one_does_not() {
        assert_eq!(find(&[item(&["DE"], 60, Kind::Field, true)], 60), known(&["DE"]));
        assert_eq!(find(&[item(&["DE"], 59, Kind::Field, true)], 60), Finding::Unknown);
        assert_eq!(find(&[], 60), Finding::Unknown);
    }

    #[test]
    fn two_weak_items_of_different_kinds_that_agree_settle_it() {
        let phone = item(&["RU", "KZ"], 40, Kind::Phone, true);
        assert_eq!(find(&[phone.clone(), item(&["KZ"], 30, Kind::GeoIp, true)], 60), known(&["KZ", "RU"]));
        assert_eq!(find(&[phone.clone(), item(&["KZ"], 30, Kind::Phone, true)], 60), Finding::Unknown);
        assert_eq!(find(&[phone, item(&["DE"], 30, Kind::GeoIp, true)], 60), Finding::Unknown);
    }

    #[test]
    fn strong_items_that_have_nothing_in_common_contradict_each_other() {
        let items = [item(&["DE"], 90, Kind::Field, true), item(&["FR"], 60, Kind::Registry, true)];
        assert_eq!(find(&items, 60), Finding::Contradiction);
        let items = [item(&["US-CA"], 90, Kind::Field, true), item(&["US"], 60, Kind::Registry, true)];
        assert_eq!(find(&items, 60), known(&["US", "US-CA"]));
    }

    #[test]
    fn untrusted_evidence_settles_nothing_and_adds_candidates() {
        let claimed = item(&["BR"], 100, Kind::Field, false);
        assert_eq!(find(std::slice::from_ref(&claimed), 60), Finding::Unknown);
        assert_eq!(find(&[claimed, item(&["DE"], 60, Kind::Registry, true)], 60), known(&["BR", "DE"]));
    }
}
