//! What is known outside: places, telephone numbers, bank accounts, network addresses, registries. The traits are
//! implemented by adapters.

use std::net::IpAddr;
use std::sync::Arc;

use super::jurisdiction::Jurisdiction;

/// Candidate codes of one piece of evidence, sorted and distinct.
pub type Candidates = Arc<[Jurisdiction]>;

/// What a value says.
#[derive(Debug, Clone)]
pub enum Reading {
    /// Nothing.
    Absent,
    /// It is not what it should be.
    Unreadable,
    /// One of these.
    Codes(Candidates),
}

/// Places on the earth.
pub trait Places: Send + Sync {
    /// Every country that a circle touches.
    fn around(&self, latitude: f64, longitude: f64, radius_m: f64) -> Reading;
}

/// Network addresses.
pub trait Addresses: Send + Sync {
    /// Where an address is.
    fn locate(&self, address: IpAddr) -> Reading;
}

/// TEMP
#[derive(Debug)]
pub struct Registry {}
impl Registry {
    /// TEMP
    #[must_use]
    pub fn get(&self, _key: &str, _fact: super::fact::Fact) -> Reading {
        Reading::Absent
    }
}
/// TEMP
#[must_use]
pub fn phone(_text: &str) -> Reading {
    Reading::Absent
}
/// TEMP
#[must_use]
pub fn iban(_text: &str) -> Reading {
    Reading::Absent
}
