//! International bank account numbers: the country of the bank.
use super::Reading;

/// The country of the bank.
#[must_use]
pub fn iban(_text: &str) -> Reading {
    Reading::Absent
}
