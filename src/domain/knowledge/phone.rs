//! Telephone numbers: the countries that share a calling code.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;

use super::{Reading, candidates};

/// Digits of the shortest number (`+290` and four more) and the longest (E.164).
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// Digits of the longest prefix.
const PREFIX_MAX: usize = 5;

/// Prefixes and the countries that have them, as libphonenumber 9.0.33 lists them, and with those that it does not list
/// because they have no plan of their own. The longer ones are of areas where another country's numbers are in use. None
/// for those that belong to no country.
#[rustfmt::skip]
const PREFIXES: &[(u32, &str)] = &[
    (1, "AG AI AS BB BM BS CA DM DO GD GU JM KN KY LC MP MS PR SX TC TT UM US VC VG VI"), (20, "EG"), (211, "SS"),
    (212, "EH MA"), (213, "DZ"), (216, "TN"), (218, "LY"), (220, "GM"), (221, "SN"), (222, "MR"), (223, "ML"),
    (224, "GN"), (225, "CI"), (226, "BF"), (227, "NE"), (228, "TG"), (229, "BJ"), (230, "MU"), (231, "LR"),
    (232, "SL"), (233, "GH"), (234, "NG"), (235, "TD"), (236, "CF"), (237, "CM"), (238, "CV"), (239, "ST"),
    (240, "GQ"), (241, "GA"), (242, "CG"), (243, "CD"), (244, "AO"), (245, "GW"), (246, "IO"), (247, "SH-AC"),
    (248, "SC"), (249, "SD"), (250, "RW"), (251, "ET"), (252, "SO"), (253, "DJ"), (254, "KE"), (255, "TZ"),
    (256, "UG"), (257, "BI"), (258, "MZ"), (260, "ZM"), (261, "MG"), (262, "RE TF YT"), (263, "ZW"), (264, "NA"),
    (265, "MW"), (266, "LS"), (267, "BW"), (268, "SZ"), (269, "KM"), (27, "ZA"), (290, "SH"), (291, "ER"),
    (297, "AW"), (298, "FO"), (299, "GL"), (30, "GR"), (31, "NL"), (32, "BE"), (33, "FR"), (34, "ES"), (350, "GI"),
    (351, "PT"), (352, "LU"), (353, "IE"), (354, "IS"), (355, "AL"), (356, "MT"), (357, "CY"), (358, "AX FI"),
    (359, "BG"), (36, "HU"), (370, "LT"), (371, "LV"), (372, "EE"), (373, "MD"), (374, "AM"), (375, "BY"),
    (376, "AD"), (377, "MC"), (378, "SM"), (379, "VA"), (380, "UA"), (381, "RS"), (382, "ME"), (383, "RS-KM"),
    (385, "HR"), (386, "SI"), (387, "BA"), (389, "MK"), (39, "IT VA"), (40, "RO"), (41, "CH"), (420, "CZ"),
    (421, "SK"), (423, "LI"), (43, "AT"), (44, "GB GG IM JE"), (45, "DK"), (46, "SE"), (47, "NO SJ"), (48, "PL"),
    (49, "DE"), (500, "FK GS"), (501, "BZ"), (502, "GT"), (503, "SV"), (504, "HN"), (505, "NI"), (506, "CR"),
    (507, "PA"), (508, "PM"), (509, "HT"), (51, "PE"), (52, "MX"), (53, "CU"), (54, "AR"), (55, "BR"), (56, "CL"),
    (57, "CO"), (58, "VE"), (590, "BL GP MF"), (591, "BO"), (592, "GY"), (593, "EC"), (594, "GF"), (595, "PY"),
    (596, "MQ"), (597, "SR"), (598, "UY"), (599, "BQ CW"), (60, "MY"), (61, "AU CC CX"), (62, "ID"), (63, "PH"),
    (64, "NZ PN"), (65, "SG"), (66, "TH"), (670, "TL"), (672, "AQ HM NF"), (673, "BN"), (674, "NR"), (675, "PG"),
    (676, "TO"), (677, "SB"), (678, "VU"), (679, "FJ"), (680, "PW"), (681, "WF"), (682, "CK"), (683, "NU"),
    (685, "WS"), (686, "KI"), (687, "NC"), (688, "TV"), (689, "PF"), (690, "TK"), (691, "FM"), (692, "MH"),
    (7, "KZ RU"), (7365, "RU UA"), (7840, "GE RU"), (7869, "RU UA"), (7940, "GE RU"), (7978, "RU UA"), (800, ""),
    (808, ""), (81, "JP"), (82, "KR"), (84, "VN"), (850, "KP"), (852, "HK"), (853, "MO"), (855, "KH"), (856, "LA"),
    (86, "CN"), (870, ""), (878, ""), (880, "BD"), (881, ""), (882, ""), (883, ""), (886, "TW"), (888, ""),
    (90, "TR"), (90392, "CY TR"), (91, "IN"), (92, "PK"), (93, "AF"), (94, "LK"), (95, "MM"), (960, "MV"),
    (961, "LB"), (962, "JO"), (963, "SY"), (964, "IQ"), (965, "KW"), (966, "SA"), (967, "YE"), (968, "OM"),
    (970, "PS"), (971, "AE"), (972, "IL"), (973, "BH"), (974, "QA"), (975, "BT"), (976, "MN"), (977, "NP"), (979, ""),
    (98, "IR"), (992, "TJ"), (993, "TM"), (994, "AZ"), (995, "GE"), (996, "KG"), (998, "UZ"),
];

static BY_PREFIX: LazyLock<HashMap<u32, Reading, RandomState>> = LazyLock::new(|| {
    let reading = |codes: &'static str| match codes {
        "" => Reading::Absent,
        codes => Reading::Codes(candidates(codes.split(' '))),
    };
    PREFIXES.iter().map(|(prefix, codes)| (*prefix, reading(codes))).collect()
});

/// The countries whose numbers begin as this one does. It has to be an international one, with `+` or `00`; spaces,
/// hyphens, dots, slashes and brackets may stand in it.
#[must_use]
pub fn phone(number: &str) -> Reading {
    let number = number.trim();
    if number.is_empty() {
        return Reading::Absent;
    }
    let Some(rest) = number.strip_prefix('+').or_else(|| number.strip_prefix("00")) else { return Reading::Unreadable };
    let mut prefix = 0;
    let mut found = None;
    let mut digits = 0;
    for byte in rest.bytes() {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                if digits <= PREFIX_MAX {
                    prefix = prefix * 10 + u32::from(byte - b'0');
                    // No prefix begins with 0, so digits and number are the same.
                    found = BY_PREFIX.get(&prefix).or(found);
                }
                if digits == 1 && byte == b'0' {
                    return Reading::Unreadable;
                }
            }
            b' ' | b'-' | b'.' | b'/' | b'(' | b')' => {}
            _ => return Reading::Unreadable,
        }
    }
    match found {
        Some(Reading::Codes(codes)) if DIGITS.contains(&digits) => Reading::Codes(Arc::clone(codes)),
        Some(other) if DIGITS.contains(&digits) => other.clone(),
        _ => Reading::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::jurisdiction::Jurisdiction;

    fn codes(codes: &str) -> Reading {
        Reading::Codes(candidates(codes.split(' ')))
    }

    #[test]
    fn every_country_that_shares_a_calling_code_is_a_candidate() {
        for (number, expected) in [
            ("+49 170 1234567", "DE"),
            ("0049 (170) 123-45.67", "DE"),
            ("+7 495 1234567", "KZ RU"),
            ("+7 978 1234567", "RU UA"),
            ("+39 06 69812345", "IT VA"),
            ("+44 20 7946 0000", "GB GG IM JE"),
            ("+47 79 02 12 34", "NO SJ"),
            ("+61 8 9162 1234", "AU CC CX"),
            ("+212 528 123456", "EH MA"),
            ("+262 262 123456", "RE TF YT"),
            ("+358 18 12345", "AX FI"),
            ("+852 2123 4567", "HK"),
            ("+383 38 123456", "RS-KM"),
            ("+2904123", "SH"),
            ("+90 392 123 4567", "CY TR"),
            ("+90 212 123 4567", "TR"),
        ] {
            assert_eq!(phone(number), codes(expected), "{number}");
        }
        let Reading::Codes(american) = phone("+1 212 555 0100") else { panic!() };
        assert_eq!(american.len(), 26);
        assert_eq!(phone("+800 1234 5678"), Reading::Absent);
    }

    #[test]
    fn what_is_no_international_number_is_unreadable() {
        assert_eq!(phone(" "), Reading::Absent);
        for number in [
            "0170 1234567",
            "170",
            "+",
            "00",
            "+49",
            "+4917",
            "+210 1234567",
            "+0049 170 1234567",
            "+49 170 12345678901234",
            "+49 170 1234567 ext 5",
            "+49\u{0}170 1234567",
            "+٤٩ 170 1234567",
            "tel:+491701234567",
            "++491701234567",
            "+999 1234567",
        ] {
            assert_eq!(phone(number), Reading::Unreadable, "{number}");
        }
    }

    #[test]
    fn the_list_is_made_of_codes_and_each_prefix_stands_once() {
        let mut prefixes = std::collections::BTreeSet::new();
        for (prefix, codes) in PREFIXES {
            assert!(prefixes.insert(prefix), "{prefix}");
            for code in codes.split(' ').filter(|code| !code.is_empty()) {
                assert!(Jurisdiction::parse(code).is_some(), "{prefix}: {code}");
            }
        }
    }

    #[test]
    fn every_country_has_a_prefix() {
        let listed: std::collections::BTreeSet<&str> =
            PREFIXES.iter().flat_map(|(_, codes)| codes.split(' ')).collect();
        let missing: Vec<String> = Jurisdiction::all()
            .filter(|code| code.country() == *code)
            .map(|code| code.to_string())
            .filter(|code| !listed.contains(code.as_str()))
            .collect();
        // Bouvet Island: nobody lives there.
        assert_eq!(missing, ["BV"]);
    }
}
