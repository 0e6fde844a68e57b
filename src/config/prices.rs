//! What bytes cost that leave: `[cost]`, and `price_per_gib` of destinations. Only `bailiwick report` asks for it.

use std::collections::BTreeMap;

use crate::domain::document::{Spot, Table};
use crate::domain::name::DestinationName;

/// What bytes cost that leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices {
    /// The currency of all of them.
    pub currency: String,
    /// What a GiB costs, unless a destination has a price of its own.
    pub per_gib: Option<f64>,
    /// What a GiB costs to some destinations.
    pub of_destinations: BTreeMap<DestinationName, f64>,
}

impl Prices {
    /// The currency, unless somebody says another one.
    pub const CURRENCY: &'static str = "EUR";

    /// What a GiB costs to a destination. `None`: nobody says.
    #[must_use]
    pub fn per_gib_to(&self, destination: &str) -> Option<f64> {
        self.of_destinations.get(destination).copied().or(self.per_gib)
    }
}

/// Reads `[cost]`: the currency and the price.
pub(super) fn read(table: &Table<'_>) -> Prices {
    let cost = table.get::<Table<'_>>("cost").map(|cost| cost.value);
    let currency = cost.as_ref().and_then(|cost| cost.get::<String>("currency"));
    let per_gib = cost.as_ref().and_then(read_price);
    if let Some(cost) = &cost {
        cost.done();
    }
    if let Some(currency) = currency.as_ref().filter(|currency| !is_currency(&currency.value)) {
        let message = format!("`{}` is no currency", currency.value);
        table.problems().error_help(&currency.place, message, "write its three capital letters, such as \"EUR\"");
    }
    let currency = currency.map_or_else(|| Prices::CURRENCY.to_owned(), |currency| currency.value);
    Prices { currency, per_gib, of_destinations: BTreeMap::new() }
}

/// As in ISO 4217.
fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|letter| letter.is_ascii_uppercase())
}

/// Reads `price_per_gib` of a table.
pub(super) fn read_price(table: &Table<'_>) -> Option<f64> {
    let Spot { value, place } = table.get::<f64>("price_per_gib")?;
    if value < 0.0 {
        table.problems().error(&place, "`price_per_gib` is less than 0");
    }
    Some(value)
}
