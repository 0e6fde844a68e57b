//! Jurisdictions: ISO 3166-1 alpha-2 countries and ISO 3166-2 subdivisions.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Set in the number of a system's name, and in that of no code: codes have 48 bits.
const SYSTEM: u64 = 1 << 63;

/// An ISO 3166-1 alpha-2 code (`DE`) or an ISO 3166-2 code (`US-CA`), packed so that it is compared and
/// looked up as a number. The ISO lists are those of the `rust_iso3166` crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jurisdiction(u64);

impl Jurisdiction {
    /// Unknown: the user-assigned code `ZZ`. It belongs to no region, and a record of it is refused.
    pub const UNKNOWN: Self = Self(pack_known(b"ZZ"));

    /// Parses a code. `None` for what ISO 3166 does not list; `ZZ` is [`Self::UNKNOWN`].
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        let packed = Self(Self::pack(code.as_bytes())?);
        let listed = match code.len() {
            2 => packed == Self::UNKNOWN || rust_iso3166::from_alpha2(code).is_some(),
            _ => rust_iso3166::iso3166_2::from_code(code).is_some(),
        };
        listed.then_some(packed)
    }

    /// The number that stands for a code's bytes, whether or not the code exists. `None` where no code
    /// has this length.
    #[must_use]
    pub fn pack(code: &[u8]) -> Option<u64> {
        if code.len() < 2 || code.len() > 6 {
            return None;
        }
        Some(code.iter().fold(0, |packed, &byte| packed << 8 | u64::from(byte)))
    }

    /// TEMP until the canonical table is merged.
    #[must_use]
    pub fn from_packed(packed: u64) -> Option<Self> {
        Self::parse(&Self(packed).to_string())
    }

    /// The name of a source system, as a number that no code has.
    #[must_use]
    pub fn system(name: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
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

    /// Every country and subdivision that ISO 3166 lists.
    pub fn all() -> impl Iterator<Item = Self> {
        let countries = rust_iso3166::ALL_ALPHA2.iter().copied();
        let subdivisions = rust_iso3166::iso3166_2::SUBDIVISION_MAP.keys().copied();
        countries.chain(subdivisions).filter_map(Self::parse)
    }
}

const fn pack_known(code: &[u8; 2]) -> u64 {
    (code[0] as u64) << 8 | code[1] as u64
}

impl fmt::Display for Jurisdiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    fn a_subdivision_lies_in_its_country() {
        assert_eq!(Jurisdiction::parse("US-CA").unwrap().country(), Jurisdiction::parse("US").unwrap());
        assert_eq!(Jurisdiction::parse("US").unwrap().country(), Jurisdiction::parse("US").unwrap());
    }

    #[test]
    fn the_whole_iso_list_is_known() {
        assert!(Jurisdiction::all().count() > 5_000);
    }
}
