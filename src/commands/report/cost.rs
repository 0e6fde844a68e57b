//! What came in, what left, and what it saved that not all of it did: in all, and over each border.

use serde_json::{Value, json};

use super::account::Account;
use crate::config::{Config, Prices};

/// What came in and what left, and what that saved.
pub(super) struct Cost {
    pub(super) bytes_in: u64,
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
    pub(super) bytes_out: u64,
    /// What a GiB costs there.
    pub(super) price_per_gib: Option<f64>,
    /// What it saved that the records did not go there themselves.
    pub(super) saved: Option<f64>,
}

/// What whoever makes the report says of it.
pub(super) struct Said {
    pub(super) bytes_in: Option<u64>,
    pub(super) price_per_gib: Option<f64>,
    pub(super) currency: Option<String>,
}

impl Cost {
    /// `None`: nobody says how much came in.
    pub(super) fn of(account: &Account, said: Said, config: Option<&Config>) -> Option<Self> {
        let (bytes_in, is_of_ledger) = match said.bytes_in {
            Some(bytes) => (bytes, false),
            None => (account.work.bytes_in()?, true),
        };
        let prices = config.map(|config| &config.prices);
        let currency = said.currency.or_else(|| prices.map(|prices| prices.currency.clone()));
        let border = |(destination, bytes): (&String, &u64)| {
            let config = config?;
            let declared = config.policy.destinations.get(destination.as_str());
            let price = said.price_per_gib.or_else(|| config.prices.per_gib_to(destination));
            Some(Border {
                destination: destination.clone(),
                from: config.here.country.to_string(),
                to: declared.and_then(|declared| declared.countries.first()).map(ToString::to_string),
                bytes_out: *bytes,
                price_per_gib: price,
                saved: price.map(|price| saved(bytes_in, *bytes, price)),
            })
        };
        Some(Self {
            bytes_in,
            is_of_ledger,
            bytes_out: account.bytes(),
            currency: currency.unwrap_or_else(|| Prices::CURRENCY.to_owned()),
            price_per_gib: said.price_per_gib.or_else(|| prices.and_then(|prices| prices.per_gib)),
            borders: account.sent.iter().filter_map(border).collect(),
        })
    }

    /// How many times as much came in.
    pub(super) fn ratio(&self) -> Option<f64> {
        (self.bytes_out > 0).then(|| self.bytes_in as f64 / self.bytes_out as f64)
    }

    /// What it saved, had all records crossed once at the price that holds everywhere.
    pub(super) fn saved(&self) -> Option<f64> {
        self.price_per_gib.map(|price| saved(self.bytes_in, self.bytes_out, price))
    }

    pub(super) fn json(&self) -> Value {
        let borders = self.borders.iter().map(|border| {
            let Border { destination, from, to, bytes_out, price_per_gib, saved } = border;
            json!({
                "destination": destination, "from": from, "to": to, "bytes_out": bytes_out,
                "price_per_gib": price_per_gib, "saved": saved,
            })
        });
        json!({
            "bytes_in": self.bytes_in,
            "bytes_in_by": if self.is_of_ledger { "ledger" } else { "given" },
            "bytes_out": self.bytes_out,
            "ratio": self.ratio(),
            "saved": self.saved(),
            "currency": self.currency,
            "borders": borders.collect::<Value>(),
        })
    }
}

fn saved(bytes_in: u64, bytes_out: u64, price_per_gib: f64) -> f64 {
    (bytes_in as f64 - bytes_out as f64) / f64::from(1 << 30) * price_per_gib
}
