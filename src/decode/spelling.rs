//! How a text is read as a value of a declared type. This is the one place that knows the spellings: JSON numbers and
//! strings, CSV cells and Arrow text columns are all read here. `docs/formats.md` lists the spellings.

use crate::domain::refusal::Hint;
use crate::domain::stream::FieldType;
use crate::domain::time::{self, NoTime};

/// A text spells no value of the type; perhaps it is known what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unspelled(pub(super) Option<Hint>);

/// The bits of the value that a text spells, as a column of the type holds them. A text is no spelling of a string, it is
/// one: for `String` there are no bits.
///
/// # Errors
/// When the text spells no value of the type.
pub(super) fn bits(text: &str, field_type: FieldType) -> Result<u64, Unspelled> {
    let text = text.trim_ascii();
    let bits = match field_type {
        FieldType::Bool => boolean(text).map(u64::from),
        FieldType::Int64 => integer(text).map(i64::cast_unsigned),
        FieldType::Float32 => float(text).and_then(single).map(|value| value.to_bits().into()),
        FieldType::Float64 => float(text).map(f64::to_bits),
        FieldType::Timestamp => return time(text).map(i64::cast_unsigned),
        FieldType::String => None,
    };
    bits.ok_or(Unspelled(None))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A whole number, exactly: `7`, `7.0`, `7e3`. Nothing is rounded.
fn integer(text: &str) -> Option<i64> {
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    let (is_negative, number) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (decimal, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    // The exponent has to be one, also of a zero. One that no i64 holds leaves no whole number that an i64 holds.
    let exponent = exponent_of(exponent)?;
    if significant.is_empty() {
        return Some(0);
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let scale =
        exponent.saturating_sub(i64::try_from(fraction.len()).ok()?).saturating_add(i64::try_from(trailing).ok()?);
    // A fraction is left, or there are more digits than an i64 has.
    let scale = u32::try_from(scale).ok().filter(|scale| significant.len() + *scale as usize <= 19)?;
    let magnitude = significant.parse::<i128>().ok()? * 10_i128.pow(scale);
    i64::try_from(if is_negative { -magnitude } else { magnitude }).ok()
}

/// An exponent; one that is out of all bounds is moved to the nearest that an i64 holds.
fn exponent_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX }))
}

/// The nearest double. A number that is spelled as finite and is not as a double is none.
fn float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let is_spelled_as_number = text.bytes().any(|byte| byte.is_ascii_digit());
    match value {
        _ if value.is_nan() => Some(f64::NAN),
        _ if value.is_infinite() && is_spelled_as_number => None,
        _ => Some(value),
    }
}

/// The nearest single. A finite double whose nearest single is infinite has none.
pub(super) fn single(value: f64) -> Option<f32> {
    let narrow = value as f32;
    (narrow.is_finite() || !value.is_finite()).then_some(narrow)
}

/// A double that is a whole number, as an integer. Beyond 2^53 doubles do not tell neighbours apart: there it is none.
pub(super) fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    (value.trunc() == value && value.abs() <= EXACT).then_some(value as i64)
}

/// A time in microseconds since the Unix epoch: RFC 3339 with a zone, or a whole number of microseconds.
fn time(text: &str) -> Result<i64, Unspelled> {
    match time::parse(text) {
        Ok(time) => Ok(time),
        Err(NoTime::ZoneMissing) => Err(Unspelled(Some(Hint::TimeZoneMissing))),
        Err(NoTime::Unreadable) => integer(text).ok_or(Unspelled(None)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn int(text: &str) -> Option<i64> {
        bits(text, FieldType::Int64).ok().map(u64::cast_signed)
    }

    fn double(text: &str) -> Option<f64> {
        bits(text, FieldType::Float64).ok().map(f64::from_bits)
    }

    #[test]
    fn whole_numbers_are_exact_or_none() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0e9", 0),
            ("0e99999999999999999999", 0),
            ("007", 7),
            ("+7", 7),
            (" 7\t", 7),
            ("1.0", 1),
            ("1.", 1),
            ("1e5", 100_000),
            ("1E+5", 100_000),
            ("12.50e1", 125),
            ("1200e-2", 12),
            (".5e1", 5),
            ("9223372036854775807", i64::MAX),
            ("9223372036854775807.000", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("-9.223372036854775808e18", i64::MIN),
            ("9007199254740993.0", 9_007_199_254_740_993),
        ] {
            assert_eq!(int(text), Some(value), "{text}");
        }
        let long = format!("1{}e-100000", "0".repeat(100_000));
        assert_eq!(int(&long), Some(1));
        for text in [
            "",
            " ",
            "-",
            "+",
            ".",
            "e5",
            "1e",
            "1e+",
            "1.5",
            "1e-1",
            "0x10",
            "1_000",
            "1,000",
            "--1",
            "1.2.3",
            "1e5.0",
            "9223372036854775808",
            "1e19",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "NaN",
            "inf",
            "true",
            "１",
        ] {
            assert_eq!(int(text), None, "{text}");
        }
    }

    #[test]
    fn truth_values_have_four_spellings() {
        for (text, value) in [("true", 1), ("True", 1), ("FALSE", 0), ("1", 1), ("0", 0)] {
            assert_eq!(bits(text, FieldType::Bool), Ok(value), "{text}");
        }
        for text in ["", "yes", "t", "2", "1.0", "01"] {
            assert_eq!(bits(text, FieldType::Bool), Err(Unspelled(None)), "{text}");
        }
    }

    #[test]
    fn what_is_spelled_as_finite_is_finite_or_none() {
        assert_eq!(double("1e308"), Some(1e308));
        assert_eq!(double("1e309"), None);
        assert_eq!(double("1e-400"), Some(0.0));
        assert_eq!(double("-0").map(f64::to_bits), Some((-0.0_f64).to_bits()));
        for text in ["inf", "Infinity", "+INF"] {
            assert_eq!(double(text), Some(f64::INFINITY), "{text}");
        }
        assert!(double("nan").is_some_and(f64::is_nan));
        assert_eq!(bits("1e39", FieldType::Float32), Err(Unspelled(None)));
        assert_eq!(bits("-inf", FieldType::Float32), Ok(f32::NEG_INFINITY.to_bits().into()));
    }

    #[test]
    fn times_have_a_zone_or_are_microseconds_and_are_cut_towards_the_past() {
        let time = |text| bits(text, FieldType::Timestamp).map(u64::cast_signed);
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(time("1970-01-01T01:00:01+01:00"), Ok(1_000_000));
        assert_eq!(time("1970-01-01T00:00:00.000000999Z"), Ok(0));
        assert_eq!(time("1969-12-31T23:59:59.999999999Z"), Ok(-1));
        assert_eq!(time("1378141200000000"), Ok(1_378_141_200_000_000));
        assert_eq!(time("1970-01-01T00:00:01"), Err(Unspelled(Some(Hint::TimeZoneMissing))));
        assert_eq!(time("noon"), Err(Unspelled(None)));
    }

    proptest! {
        #[test]
        fn every_number_is_what_its_usual_spellings_say(value: i64, bits_of: u64, single: f32) {
            prop_assert_eq!(int(&value.to_string()), Some(value));
            prop_assert_eq!(int(&format!("{value}.00")), Some(value));
            prop_assert_eq!(int(&format!("{value}00e-2")), Some(value));
            let value = f64::from_bits(bits_of);
            prop_assume!(!value.is_nan());
            for text in [format!("{value}"), format!("{value:?}"), format!("{value:e}")] {
                prop_assert_eq!(double(&text).map(f64::to_bits), Some(bits_of), "{}", text);
            }
            prop_assume!(!single.is_nan());
            prop_assert_eq!(bits(&single.to_string(), FieldType::Float32), Ok(single.to_bits().into()));
        }

        /// The sum as it is done on paper, with numbers large enough for every digit.
        #[test]
        fn whole_numbers_are_what_the_digits_come_to(whole in 0_u32..1000, fraction in "[0-9]{0,4}", exponent in -6_i32..16) {
            let digits: i128 = format!("{whole}{fraction}").parse().unwrap();
            let scale = exponent - i32::try_from(fraction.len()).unwrap();
            let expected = if scale >= 0 {
                i64::try_from(digits * 10_i128.pow(scale.unsigned_abs())).ok()
            } else {
                let unit = 10_i128.pow(scale.unsigned_abs());
                (digits % unit == 0).then(|| i64::try_from(digits / unit).unwrap())
            };
            prop_assert_eq!(int(&format!("{whole}.{fraction}e{exponent}")), expected);
        }
    }
}
