//! What a metric of a cell comes to.

/// The value of one metric of one cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// None, or none that may leave.
    Null,
    /// A count of records.
    Count(u64),
    /// A finite number.
    Number(f64),
    /// The counts of a histogram. None: these records are counted in the range before.
    Counts(Vec<Option<u64>>),
}

impl Value {
    /// The value with at most so many significant digits: the nearest such decimal number. Counts of a histogram stay.
    #[must_use]
    pub fn rounded(self, digits: u8) -> Self {
        match self {
            Self::Count(count) => {
                let surplus = (count.checked_ilog10().unwrap_or(0) + 1).saturating_sub(digits.into());
                let step = 10_u64.saturating_pow(surplus);
                let (whole, rest) = (count / step, count % step);
                Self::Count((whole + u64::from(rest >= step.div_ceil(2).max(1) && step > 1)).saturating_mul(step))
            }
            Self::Number(number) => {
                let decimal = format!("{number:.*e}", usize::from(digits.saturating_sub(1)));
                // What would be larger than any float stays as it is. A zero has no sign.
                let rounded = decimal.parse().ok().filter(|rounded: &f64| rounded.is_finite());
                Self::Number(rounded.unwrap_or(number) + 0.0)
            }
            Self::Null | Self::Counts(_) => self,
        }
    }
}
