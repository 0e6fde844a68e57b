//! What came in, what left, and what it saved that not all of it did: in all, and over each border.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Kept;
use super::account::{Account, Given};
use crate::config::{Config, Prices};
use crate::domain::policy::PolicySet;
use crate::ledger::in_full;

/// What came in and what left, and what that saved.
pub(super) struct Cost {
    pub(super) bytes_in: u64,
    /// Those of accepted records, if the ledger says so and whoever makes the report says nothing else.
    pub(super) bytes_accepted: Option<u64>,
    /// Whether the ledger says how many came in, and not whoever makes the report.
    pub(super) is_of_ledger: bool,
    pub(super) bytes_out: u64,
    pub(super) currency: String,
    /// What a GiB costs, wherever it goes.
    price_per_gib: Option<f64>,
    /// Over each border, where the configuration says where destinations are.
    pub(super) borders: Vec<Border>,
}

/// What left for a destination.
pub(super) struct Border {
    pub(super) destination: String,
    /// The country of the gateway.
    pub(super) from: String,
    /// That of the destination. `None`: it is not declared any more.
    pub(super) to: Option<String>,
    /// The streams whose datasets it was given. `None`: the policies that they were given under are not known.
    pub(super) streams: Option<BTreeSet<String>>,
    /// Bytes of the accepted records of those streams. `None`: that is not known.
    pub(super) bytes_in: Option<u64>,
    pub(super) bytes_out: u64,
    /// What a GiB costs there.
    pub(super) price_per_gib: Option<f64>,
    /// What it saved that those records did not go there themselves.
    pub(super) saved: Option<f64>,
}

/// What whoever makes the report says of it.
pub(super) struct Said {
    pub(super) bytes_in: Option<u64>,
    pub(super) price_per_gib: Option<f64>,
    pub(super) currency: Option<String>,
}

impl Cost {
    /// With the policies of the configuration and those that its gateway keeps. `None`: nobody says how much came in.
    pub(super) fn of(
        account: &Account,
        said: Said,
        config: Option<&Config>,
        kept: &BTreeMap<String, Kept>,
    ) -> Option<Self> {
        let (bytes_in, is_of_ledger) = match said.bytes_in {
            Some(bytes) => (bytes, false),
            None => (account.work.bytes_in()?, true),
        };
        let by_stream = account.work.bytes_accepted();
        let accepted = by_stream.map(|by_stream| by_stream.values().sum::<u64>());
        let prices = config.map(|config| &config.prices);
        let currency = said.currency.or_else(|| prices.map(|prices| prices.currency.clone()));
        let border = |(destination, bytes): (&String, &u64)| {
            let config = config?;
            let declared = config.policy.destinations.get(destination.as_str());
            let price = said.price_per_gib.or_else(|| config.prices.per_gib_to(destination));
            let streams = streams(account.given.get(destination)?, &config.policy, kept);
            let own = streams
                .as_ref()
                .zip(by_stream)
                .map(|(streams, by_stream)| streams.iter().filter_map(|stream| by_stream.get(stream)).sum::<u64>());
            let own = if is_of_ledger { own } else { own.zip(accepted).map(|(own, all)| share(bytes_in, own, all)) };
            Some(Border {
                destination: destination.clone(),
                from: config.here.country.to_string(),
                to: declared.and_then(|declared| declared.countries.first()).map(ToString::to_string),
                streams,
                bytes_in: own,
                bytes_out: *bytes,
                price_per_gib: price,
                saved: price.zip(own).map(|(price, own)| saved(own, *bytes, price)),
            })
        };
        Some(Self {
            bytes_in,
            bytes_accepted: accepted.filter(|_| is_of_ledger),
            is_of_ledger,
            bytes_out: account.bytes(),
            currency: currency.unwrap_or_else(|| Prices::CURRENCY.to_owned()),
            price_per_gib: said.price_per_gib.or_else(|| prices.and_then(|prices| prices.per_gib)),
            borders: account.sent.iter().filter_map(border).collect(),
        })
    }

    /// Bytes of records that could have left themselves; where the ledger does not say which were accepted, all that came in.
    fn could_leave(&self) -> u64 {
        self.bytes_accepted.unwrap_or(self.bytes_in)
    }

    /// How many times as much came in.
    pub(super) fn ratio(&self) -> Option<f64> {
        (self.bytes_out > 0).then(|| self.could_leave() as f64 / self.bytes_out as f64)
    }

    /// What it saved, had all records crossed once at the price that holds everywhere.
    pub(super) fn saved(&self) -> Option<f64> {
        self.price_per_gib.map(|price| saved(self.could_leave(), self.bytes_out, price))
    }

    pub(super) fn json(&self) -> Value {
        let borders = self.borders.iter().map(|border| {
            let Border { destination, from, to, streams, bytes_in, bytes_out, price_per_gib, saved } = border;
            json!({
                "destination": destination, "from": from, "to": to, "streams": streams, "bytes_in": bytes_in,
                "bytes_out": bytes_out, "price_per_gib": price_per_gib, "saved": saved,
            })
        });
        json!({
            "bytes_in": self.bytes_in,
            "bytes_accepted": self.bytes_accepted,
            "bytes_in_by": if self.is_of_ledger { "ledger" } else { "given" },
            "bytes_out": self.bytes_out,
            "ratio": self.ratio(),
            "saved": self.saved(),
            "currency": self.currency,
            "borders": borders.collect::<Value>(),
        })
    }
}

/// The streams of datasets, by the policies that each was given under. `None`: of one of them nobody keeps those, or there are
/// none.
fn streams(given: &BTreeSet<Given>, now: &PolicySet, kept: &BTreeMap<String, Kept>) -> Option<BTreeSet<String>> {
    let digest_now = in_full(&now.digest);
    let stream = |Given { dataset, policy }: &Given| {
        let then = if *policy == digest_now { now } else { kept.get(policy).map(|(then, _)| &**then)? };
        let (plan, _) = then.dataset(dataset)?;
        Some(plan.stream.name.to_string())
    };
    given.iter().map(stream).collect::<Option<BTreeSet<_>>>().filter(|streams| !streams.is_empty())
}

/// As much of a count as a part is of all.
fn share(count: u64, part: u64, all: u64) -> u64 {
    (count as f64 * (part as f64 / (all as f64).max(1.0))).round() as u64
}

fn saved(bytes_in: u64, bytes_out: u64, price_per_gib: f64) -> f64 {
    (bytes_in as f64 - bytes_out as f64) / f64::from(1 << 30) * price_per_gib
}
