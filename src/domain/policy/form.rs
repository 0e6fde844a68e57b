//! In which form data leaves, and how long that holds.

use jiff::civil::Date;

use crate::domain::dataset::Dataset;

/// In which form data leaves; a weaker one is allowed wherever a stronger one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Cells with noise under differential privacy.
    Dp,
    /// Cells that passed the release rules.
    Statistical,
    /// Records under a pseudonym.
    Pseudonymised,
    /// Records.
    Identifiable,
}

impl Form {
    /// That of a dataset's cells.
    #[must_use]
    pub fn of_cells(dataset: &Dataset) -> Self {
        if dataset.privacy.is_some() { Self::Dp } else { Self::Statistical }
    }

    /// Every form with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("dp", Self::Dp),
        ("statistical", Self::Statistical),
        ("pseudonymised", Self::Pseudonymised),
        ("identifiable", Self::Identifiable),
    ];
}

/// How long something holds: `None` is for ever, and sorts as the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasting(pub Option<Date>);

impl Lasting {
    /// The shorter of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }
}

impl Ord for Lasting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.unwrap_or(Date::MAX).cmp(&other.0.unwrap_or(Date::MAX))
    }
}

impl PartialOrd for Lasting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
