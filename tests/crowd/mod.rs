//! Many producers, most of which send one record at a time: what they send ([`script`]), as which payloads ([`payloads`]), to
//! which gateway ([`deployment`], [`lanes`]), and what each must be answered and what must leave, record by record ([`records`],
//! [`told`], [`cells`]). None of this is known from the program's code.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

pub mod cells;
pub mod deployment;
pub mod lanes;
pub mod payloads;
pub mod records;
pub mod script;
pub mod told;

use std::ops::RangeInclusive;

/// So many runs, from the first one, unless `BAILIWICK_TEST_CROWD` says another number, or which ones: `7-7`.
pub fn seeds(count: u64) -> RangeInclusive<u64> {
    let Ok(asked) = std::env::var("BAILIWICK_TEST_CROWD") else { return 1..=count };
    match asked.split_once('-') {
        Some((first, last)) => first.parse().unwrap()..=last.parse().unwrap(),
        None => 1..=asked.parse().unwrap(),
    }
}
