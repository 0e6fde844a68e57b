//! International bank account numbers: the country of the bank.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;
use iban::{Iban, IbanLike};

use super::{Candidates, Reading, candidates};
use crate::domain::jurisdiction::Jurisdiction;

/// Countries whose numbers others have as well, by the IBAN registry. Kosovo's `XK` is listed by ISO 3166 only as a
/// part of Serbia; Svalbard and Western Sahara have the banks of Norway and of Morocco.
const SHARED: &[(&str, &[&str])] = &[
    ("FI", &["AX", "FI"]),
    ("FR", &["BL", "FR", "GF", "GP", "MF", "MQ", "NC", "PF", "PM", "RE", "TF", "WF", "YT"]),
    ("GB", &["GB", "GG", "IM", "JE"]),
    ("MA", &["EH", "MA"]),
    ("NO", &["NO", "SJ"]),
    ("XK", &["RS-KM"]),
];

static COUNTRIES: LazyLock<HashMap<Box<str>, Candidates, RandomState>> = LazyLock::new(|| {
    let countries = Jurisdiction::all().filter(|code| code.country() == *code).map(|code| code.to_string());
    let alone = countries.map(|code| (code.as_str().into(), candidates([code.as_str()])));
    let shared = SHARED.iter().map(|(code, all)| ((*code).into(), candidates(all.iter().copied())));
    alone.chain(shared).collect()
});

/// The countries of the banks whose numbers begin as this one does. Its check digits have to be right, and its length
/// and form those of its country; it may be written in groups of four.
#[must_use]
pub fn iban(text: &str) -> Reading {
    let text = text.trim();
    if text.is_empty() {
        return Reading::Absent;
    }
    let Ok(iban) = text.parse::<Iban>() else { return Reading::Unreadable };
    COUNTRIES.get(iban.country_code()).map_or(Reading::Unreadable, |codes| Reading::Codes(Arc::clone(codes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(codes: &[&str]) -> Reading {
        Reading::Codes(candidates(codes.iter().copied()))
    }

    #[test]
    fn the_country_of_the_bank() {
        assert_eq!(iban("DE44500105175407324931"), codes(&["DE"]));
        assert_eq!(iban("DE44 5001 0517 5407 3249 31"), codes(&["DE"]));
        assert_eq!(iban("GB82WEST12345698765432"), codes(&["GB", "GG", "IM", "JE"]));
        assert_eq!(iban("FI2112345600000785"), codes(&["AX", "FI"]));
        assert_eq!(iban("XK051212012345678906"), codes(&["RS-KM"]));
        let Reading::Codes(french) = iban("FR1420041010050500013M02606") else { panic!() };
        assert_eq!(french.len(), 13);
        for (code, shared) in SHARED {
            assert_eq!(COUNTRIES[*code].len(), shared.len(), "{code}");
        }
    }

    #[test]
    fn what_is_no_number_is_unreadable() {
        assert_eq!(iban(""), Reading::Absent);
        assert_eq!(iban("  "), Reading::Absent);
        for text in
            ["DE", "DE45500105175407324931", "DE4450010517540732493", "ZZ44500105175407324931", "\0", "DE44ü", "44"]
        {
            assert_eq!(iban(text), Reading::Unreadable, "{text}");
        }
        // Any one digit that is wrong is noticed.
        let right = "DE44500105175407324931";
        for at in 2..right.len() {
            let mut wrong = right.as_bytes().to_vec();
            wrong[at] = b'0' + (wrong[at] - b'0' + 1) % 10;
            assert_eq!(iban(std::str::from_utf8(&wrong).unwrap()), Reading::Unreadable, "{at}");
        }
    }

    #[test]
    fn equal_answers_are_the_same() {
        let (Reading::Codes(one), Reading::Codes(two)) =
            (iban("DE44500105175407324931"), iban("DE89370400440532013000"))
        else {
            panic!()
        };
        assert!(Arc::ptr_eq(&one, &two));
    }
}
