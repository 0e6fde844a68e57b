//! Telephone numbers: the countries that share a calling code.
use super::Reading;

/// The countries whose numbers begin as this one does.
#[must_use]
pub fn phone(_number: &str) -> Reading {
    Reading::Absent
}
