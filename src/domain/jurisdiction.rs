//! Jurisdictions: ISO 3166-1 alpha-2 countries and ISO 3166-2 subdivisions.

use std::fmt;
use std::sync::{Arc, LazyLock};

use sha2::{Digest as _, Sha256};

/// Set in the number of a system's name, and in that of no code: codes have 48 bits.
const SYSTEM: u64 = 1 << 63;

/// Subdivisions that have a country code of their own, which is the one that counts: `US` does not cover Puerto Rico
/// nor `CN` Hong Kong, however it is written. The names of the French overseas departments are those of ISO 3166-2
/// before 2021.
const OWN_CODE: &[(&str, &str)] = &[
    ("CN-HK", "HK"),
    ("CN-MO", "MO"),
    ("CN-TW", "TW"),
    ("FI-01", "AX"),
    ("FR-971", "GP"),
    ("FR-972", "MQ"),
    ("FR-973", "GF"),
    ("FR-974", "RE"),
    ("FR-976", "YT"),
    ("FR-BL", "BL"),
    ("FR-GF", "GF"),
    ("FR-GP", "GP"),
    ("FR-MF", "MF"),
    ("FR-MQ", "MQ"),
    ("FR-NC", "NC"),
    ("FR-PF", "PF"),
    ("FR-PM", "PM"),
    ("FR-RE", "RE"),
    ("FR-TF", "TF"),
    ("FR-WF", "WF"),
    ("FR-YT", "YT"),
    ("NL-AW", "AW"),
    ("NL-BQ1", "BQ"),
    ("NL-BQ2", "BQ"),
    ("NL-BQ3", "BQ"),
    ("NL-CW", "CW"),
    ("NL-SX", "SX"),
    ("NO-21", "SJ"),
    ("NO-22", "SJ"),
    ("US-AS", "AS"),
    ("US-GU", "GU"),
    ("US-MP", "MP"),
    ("US-PR", "PR"),
    ("US-UM", "UM"),
    ("US-VI", "VI"),
];

/// Subdivisions that ISO 3166-2 has added since the crate's list was made. A deployment brings newer ones in `[codes]` of
/// its policies ([`super::codes`]); this list gets what a new version of the program knows. The counties of Norway as of 2024-01-01: <https://www.iso.org/obp/ui/#iso:code:3166:NO>. Codes that
/// were withdrawn stay known, because devices go on sending them.
const ADDED: &[&str] = &["NO-31", "NO-32", "NO-33", "NO-39", "NO-40", "NO-55", "NO-56"];

/// Every code that ISO 3166 lists.
static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// An ISO 3166-1 alpha-2 code (`DE`) or an ISO 3166-2 code (`US-CA`), packed so that it is compared and
/// looked up as a number. A subdivision that has a country code of its own is that country: `US-PR` is `PR`. The ISO
/// lists are those of the `rust_iso3166` crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jurisdiction(u64);

/// Candidate codes of one piece of evidence, sorted and distinct.
pub type Candidates = Arc<[Jurisdiction]>;

impl Jurisdiction {
    /// Unknown: the user-assigned code `ZZ`. It belongs to no region, and a record of it is refused.
    pub const UNKNOWN: Self = Self(pack_known(b"ZZ"));

    /// Parses a code. `None` for what ISO 3166 does not list; `ZZ` is [`Self::UNKNOWN`].
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Self::from_packed(Self::pack(code.as_bytes())?)
    }

    /// The subdivision of a code that looks like one of ISO 3166-2, whether or not that lists it: the code of a country, a
    /// hyphen, and one to three capital letters or digits.
    #[must_use]
    pub fn subdivision(code: &str) -> Option<Self> {
        let (country, division) = code.split_once('-')?;
        let is_country = country.len() == 2 && Self::parse(country).is_some_and(|country| country != Self::UNKNOWN);
        let is_division = (1..=3).contains(&division.len())
            && division.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if is_country && is_division { Self::pack(code.as_bytes()).map(Self) } else { None }
    }

    /// The number that stands for a code's bytes, whether or not the code exists. `None` where no code
    /// has this length, and for a zero at the start, which the number would not show.
    #[must_use]
    pub fn pack(code: &[u8]) -> Option<u64> {
        if code.len() < 2 || code.len() > 6 || code.first() == Some(&0) {
            return None;
        }
        Some(code.iter().fold(0, |packed, &byte| packed << 8 | u64::from(byte)))
    }

    /// The code that a number of [`Self::pack`] stands for. `None` for what ISO 3166 does not list.
    #[must_use]
    pub fn from_packed(packed: u64) -> Option<Self> {
        TABLE.get(packed)
    }

    /// The name of a source system, as a number that no code has. Names are the same in capitals.
    #[must_use]
    pub fn system(name: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(name.to_lowercase()).into();
        let first = hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        Self(first | SYSTEM)
    }

    /// The packed number of this code.
    #[must_use]
    pub fn packed(self) -> u64 {
        self.0
    }

    /// The country of a subdivision; a country itself.
    #[must_use]
    pub fn country(self) -> Self {
        if self.0 & SYSTEM != 0 {
            return self;
        }
        let length = (64 - self.0.leading_zeros()).div_ceil(8);
        Self(self.0 >> (8 * length.saturating_sub(2)))
    }

    /// Every country and subdivision that ISO 3166 lists, each once.
    pub fn all() -> impl Iterator<Item = Self> {
        let listed = listed().filter_map(|code| Some((Self::pack(code.as_bytes())?, Self::parse(code)?)));
        listed.filter(|(packed, code)| *packed == code.0).map(|(_, code)| code)
    }
}

const fn pack_known(code: &[u8; 2]) -> u64 {
    (code[0] as u64) << 8 | code[1] as u64
}

fn listed() -> impl Iterator<Item = &'static str> {
    let countries = rust_iso3166::ALL_ALPHA2.iter().copied();
    let subdivisions = rust_iso3166::iso3166_2::SUBDIVISION_MAP.keys().copied();
    let is_new = |code: &&str| !rust_iso3166::iso3166_2::SUBDIVISION_MAP.contains_key(*code);
    countries.chain(subdivisions).chain(ADDED.iter().copied().filter(is_new))
}

/// A hash table of packed codes with open addressing: a lookup is one multiplication and, mostly, one comparison.
struct Table(Vec<Option<(u64, Jurisdiction)>>);

impl Table {
    /// More than twice the number of codes.
    const BITS: u32 = 14;

    fn new() -> Self {
        let mut table = Self(vec![None; 1 << Self::BITS]);
        // The first entry of a code holds.
        for (code, own) in OWN_CODE {
            table.insert(code, own);
        }
        for code in listed().chain(["ZZ"]) {
            table.insert(code, code);
        }
        table
    }

    fn insert(&mut self, code: &str, means: &str) {
        let (Some(packed), Some(means)) = (Jurisdiction::pack(code.as_bytes()), Jurisdiction::pack(means.as_bytes()))
        else {
            return;
        };
        for slot in Self::slots(packed) {
            match self.0.get_mut(slot) {
                Some(Some((known, _))) if *known != packed => {}
                Some(free @ None) => {
                    *free = Some((packed, Jurisdiction(means)));
                    return;
                }
                _ => return,
            }
        }
    }

    fn get(&self, packed: u64) -> Option<Jurisdiction> {
        for slot in Self::slots(packed) {
            let (known, code) = self.0.get(slot).copied().flatten()?;
            if known == packed {
                return Some(code);
            }
        }
        None
    }

    /// Where a code may be, in this order.
    fn slots(packed: u64) -> impl Iterator<Item = usize> {
        let start = (packed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::BITS)) as usize;
        (0..1 << Self::BITS).map(move |step| (start + step) % (1 << Self::BITS))
    }
}

impl fmt::Display for Jurisdiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 & SYSTEM != 0 {
            return write!(f, "system {:016x}", self.0);
        }
        for byte in self.0.to_be_bytes().into_iter().filter(|&byte| byte != 0) {
            fmt::Write::write_char(f, char::from(byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Jurisdiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_survive_packing() {
        for code in ["DE", "US-CA", "CA-QC", "GB-ENG", "ZZ"] {
            assert_eq!(Jurisdiction::parse(code).unwrap().to_string(), code);
        }
    }

    #[test]
    fn what_iso_does_not_list_is_no_code() {
        for code in ["", "D", "QQ", "de", "US-ZZ", "DEU", "US-CALI", "US-", "Ü"] {
            assert_eq!(Jurisdiction::parse(code), None, "{code}");
        }
    }

    #[test]
    fn the_counties_of_norway_are_those_of_today_and_of_before() {
        for code in ["NO-31", "NO-32", "NO-33", "NO-39", "NO-40", "NO-55", "NO-56", "NO-30", "NO-03", "NO-46"] {
            assert_eq!(Jurisdiction::parse(code).map(Jurisdiction::country), Jurisdiction::parse("NO"), "{code}");
        }
    }

    #[test]
    fn a_subdivision_lies_in_its_country() {
        assert_eq!(Jurisdiction::parse("US-CA").unwrap().country(), Jurisdiction::parse("US").unwrap());
        assert_eq!(Jurisdiction::parse("US").unwrap().country(), Jurisdiction::parse("US").unwrap());
    }

    #[test]
    fn the_whole_iso_list_is_known() {
        let all: Vec<Jurisdiction> = Jurisdiction::all().collect();
        assert!(all.len() > 5_000);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for code in listed() {
            let parsed = Jurisdiction::parse(code).unwrap();
            let own = OWN_CODE.iter().find(|(known, _)| *known == code).map_or(code, |(_, own)| own);
            assert_eq!(parsed.to_string(), own);
            assert!(all.contains(&parsed));
        }
    }

    #[test]
    fn a_subdivision_with_a_country_code_of_its_own_is_that_country() {
        for (code, own) in OWN_CODE {
            let own = Jurisdiction::parse(own).unwrap();
            assert_eq!(Jurisdiction::parse(code), Some(own), "{code}");
            assert_eq!(own.country(), own);
        }
        // What the list says itself: subdivisions under the letters and the name of a country.
        let first_word = |name: &str| name.split([' ', ',', '-']).next().map(str::to_lowercase);
        let is_overseas = |code: &str| ["CN", "FR", "NL", "US"].contains(&&code[..2]);
        for code in listed().filter(|code| code.len() == 5 && is_overseas(code)) {
            let division = rust_iso3166::iso3166_2::from_code(code).unwrap();
            let of_its_own = rust_iso3166::from_alpha2(&code[3..]);
            if of_its_own.is_some_and(|country| first_word(country.name) == first_word(division.name)) {
                assert_eq!(Jurisdiction::parse(code).unwrap().to_string(), code[3..], "{code}");
            }
        }
    }

    #[test]
    fn bytes_that_pack_to_the_number_of_another_code_are_no_code() {
        assert_eq!(Jurisdiction::pack(b"\0\0DE"), None);
        assert_eq!(Jurisdiction::parse("\0\0DE"), None);
        assert_eq!(Jurisdiction::from_packed(0), None);
        assert_eq!(Jurisdiction::from_packed(u64::MAX), None);
        assert_eq!(Jurisdiction::from_packed(Jurisdiction::pack(b"ZZ").unwrap()), Some(Jurisdiction::UNKNOWN));
    }

    #[test]
    fn a_systems_name_is_no_code() {
        let system = Jurisdiction::system("au-my-health-record");
        assert_eq!(system, Jurisdiction::system("au-my-health-record"));
        assert_ne!(system, Jurisdiction::system("other"));
        assert_eq!(system.country(), system);
        assert_eq!(Jurisdiction::from_packed(system.packed()), None);
    }
}
