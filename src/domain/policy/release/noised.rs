//! Release of cells with noise, under differential privacy.
//!
//! Everything that leaves is computed from numbers that have noise: which cells leave, too. To withhold a cell because of its
//! true number of contributors would tell that number without noise. So k is held against the number with noise, and with a
//! margin: a cell of fewer than k contributors passes with a probability of at most [`BELOW_K`](crate::domain::privacy::BELOW_K).
//! All cells of the closed domain get noise, those without records too; which of them have any cannot be seen.

use std::collections::BTreeMap;

use arrow_schema::ArrowError;
use sha2::{Digest as _, Sha256};

use crate::domain::aggregate::{Cells, Value, cells_of, positions_of};
use crate::domain::binary::Writer;
use crate::domain::dataset::{Dataset, Function, KeyDomain};
use crate::domain::policy::Digest;
use crate::domain::policy::egress::Outlet;
use crate::domain::policy::noise::{Counted, Noised, noised};
use crate::domain::policy::permit::Released;
use crate::domain::privacy::{Charged, NoNoise, Noise, Privacy};
use crate::domain::rounding::Rounding;
use crate::domain::window::{micros, window_start};

use super::{Beside, ClosedWindow, Head, Outcome, RELEASE_ID_VERSION, Withheld, assemble, hashed, rounding_for};

/// Why a window does not leave.
#[derive(Debug, thiserror::Error)]
pub enum NotNoised {
    /// There is no noise.
    #[error(transparent)]
    NoNoise(#[from] NoNoise),
    /// Arrow cannot assemble the columns, which no valid dataset causes.
    #[error(transparent)]
    Columns(#[from] ArrowError),
    /// The cells do not hold to the dataset's bounds, so it is not known how much one contributor adds.
    #[error("its cells are not held to the bounds of the dataset")]
    Unbounded,
}

/// The noise that outlets ask for together: the strictest of theirs. `None`: none of them asks for any.
#[must_use]
pub fn asked_for(outlets: &[Outlet]) -> Option<Privacy> {
    outlets.iter().filter_map(|outlet| outlet.privacy).reduce(Privacy::stricter)
}

/// Releases the cells of a window with noise, which is drawn once for all outlets.
///
/// # Errors
/// Why nothing leaves. What it cost is spent.
pub fn release_noised(
    closed: &ClosedWindow<'_>,
    outlets: &[Outlet],
    policy: Digest,
    privacy: Privacy,
    charged: Charged,
    noise: &mut dyn Noise,
) -> Result<Outcome, NotNoised> {
    let rounding = rounding_for(outlets);
    let all = Loud::drawn(closed, &privacy, &charged, rounding, noise)?;
    let mut of_k: BTreeMap<usize, Vec<&Outlet>> = BTreeMap::new();
    for outlet in outlets {
        of_k.entry(outlet.min_contributors).or_default().push(outlet);
    }
    let (mut released, mut most) = (Vec::new(), 0);
    for (k, outlets) in of_k {
        let cells = all.cells_of_at_least(k);
        if cells.is_empty() {
            continue;
        }
        most = most.max(cells.len());
        released.extend(all.released(closed, policy, &cells, outlets)?);
    }
    // Of the cells that there may be, not of those that there are.
    let cells_withheld = cells_of(closed.dataset) - most;
    let withheld = [(Withheld::Contributors, cells_withheld)].into_iter().filter(|(_, cells)| *cells > 0).collect();
    // Which they are is for cells that wait, and these do not. Nor is anything rolled up.
    Ok(Outcome { released, cells_released: most, cells_withheld, withheld, ..Outcome::default() })
}

/// The numbers of all cells, with noise. There is nothing else here that is computed from records.
struct Loud<'d> {
    dataset: &'d Dataset,
    rounding: Rounding,
    lists: Vec<(Noised<'d>, Vec<i64>)>,
}

impl<'d> Loud<'d> {
    fn drawn(
        closed: &ClosedWindow<'d>,
        privacy: &Privacy,
        charged: &Charged,
        rounding: Rounding,
        noise: &mut dyn Noise,
    ) -> Result<Self, NotNoised> {
        let dataset = closed.dataset;
        let is_bounded =
            dataset.bounds.is_some() && closed.deferral.is_none() && closed.cells.bounds() == dataset.bounds;
        let lists = if is_bounded { noised(dataset, privacy, charged.rho()) } else { Vec::new() };
        if lists.is_empty() {
            return Err(NotNoised::Unbounded);
        }
        let lists = lists.into_iter().map(|noised| {
            let quiet = quiet(dataset, &closed.cells, noised.counted).ok_or(NotNoised::Unbounded)?;
            Ok((noised, noise.added(quiet, &noised.spread)?))
        });
        Ok(Self { dataset, rounding, lists: lists.collect::<Result<_, NotNoised>>()? })
    }

    /// Some cells as releases, one for each outlet.
    fn released(
        &self,
        closed: &ClosedWindow<'_>,
        policy: Digest,
        cells: &[usize],
        outlets: Vec<&Outlet>,
    ) -> Result<Vec<Released>, ArrowError> {
        let (gateway, dataset) = (closed.gateway, closed.dataset);
        let start = window_start(closed.window, dataset.window);
        let end = start.saturating_add(micros(dataset.length()));
        let positions: Vec<Vec<usize>> = cells.iter().map(|&cell| positions_of(dataset, cell)).collect();
        let id = self.id(closed, start, end, policy, cells);
        let head = Head { id: &id, gateway, dataset, policy, start, end };
        let labels = |index: usize, domain: &KeyDomain| {
            let positions = positions.iter().filter_map(|positions| positions.get(index));
            positions.map(|position| domain.label(*position)).collect::<Vec<_>>()
        };
        let values = |metric| cells.iter().map(|&cell| self.value(metric, cell)).collect::<Vec<_>>();
        let (windows, contributors) = (vec![1; cells.len()], vec![Value::Null; cells.len()]);
        let beside = Beside { windows: &windows, changes: &[], contributors: &contributors };
        let columns = assemble(&head, beside, labels, values)?;
        let released = outlets.into_iter().map(|outlet| Released {
            id: id.clone(),
            destination: outlet.destination.clone(),
            dataset: dataset.name.clone(),
            gateway: gateway.clone(),
            window_start: start,
            window_end: end,
            policy,
            cells: columns.clone(),
            reduced: None,
        });
        Ok(released.collect())
    }

    /// As the id of any other release.
    fn id(&self, closed: &ClosedWindow<'_>, start: i64, end: i64, policy: Digest, cells: &[usize]) -> String {
        let dataset = closed.dataset;
        let mut writer = Writer::default();
        writer.u8(RELEASE_ID_VERSION).text(closed.gateway).text(&dataset.name);
        writer.i64(start).i64(end).u64(closed.part).raw(policy.bytes());
        for name in dataset.keys.iter().map(|key| &key.name).chain(dataset.metrics.iter().map(|metric| &metric.name)) {
            writer.text(name);
        }
        writer.count(cells.len());
        for &cell in cells {
            for (key, position) in dataset.keys.iter().zip(positions_of(dataset, cell)) {
                writer.text(&key.domain.label(position));
            }
            for metric in 0..dataset.metrics.len() {
                hashed(&self.value(metric, cell), &mut writer);
            }
        }
        Sha256::digest(writer.finish()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The cells whose number of contributors with noise shows that they have at least k.
    fn cells_of_at_least(&self, k: usize) -> Vec<usize> {
        let Some((Noised { counted: Counted::Contributors, spread }, contributors)) = self.lists.first() else {
            return Vec::new();
        };
        let least = k as f64 + spread.margin();
        contributors
            .iter()
            .enumerate()
            .filter(|(_, with_noise)| **with_noise as f64 >= least)
            .map(|(cell, _)| cell)
            .collect()
    }

    /// A number of a cell, with noise.
    fn number(&self, wanted: impl Fn(&Counted<'_>) -> bool, cell: usize) -> Option<(&Noised<'d>, i64)> {
        let (noised, numbers) = self.lists.iter().find(|(noised, _)| wanted(&noised.counted))?;
        Some((noised, *numbers.get(cell)?))
    }

    fn records(&self, cell: usize) -> Option<u64> {
        let (_, records) = self.number(|counted| matches!(counted, Counted::Records), cell)?;
        Some(self.count(records))
    }

    /// A count with noise as it leaves, never below zero. What is computed from a number with noise tells no more than that
    /// number, so it may be rounded too.
    fn count(&self, with_noise: i64) -> u64 {
        self.rounding.nearest(u64::try_from(with_noise).unwrap_or(0))
    }

    /// The value of a metric of a cell.
    fn value(&self, metric: usize, cell: usize) -> Value {
        let Some(declared) = self.dataset.metrics.get(metric) else { return Value::Null };
        let value = match &declared.function {
            Function::Count => self.records(cell).map(Value::Count),
            Function::Sum(measure) | Function::Mean(measure) => {
                let of_column =
                    |counted: &Counted<'_>| matches!(counted, Counted::Sum { measure: other, .. } if *other == measure);
                let sum = self.number(of_column, cell).map(|(noised, steps)| steps as f64 * noised.step());
                let is_mean = matches!(declared.function, Function::Mean(_));
                let records = self.records(cell).filter(|records| *records > 0);
                match (sum, is_mean) {
                    (Some(sum), false) => Some(Value::Number(sum)),
                    (Some(sum), true) => records.map(|records| {
                        Value::Number((sum / records as f64).clamp(measure.range.low, measure.range.high))
                    }),
                    (None, _) => None,
                }
            }
            Function::Histogram { edges, .. } => {
                let of_metric = |(noised, _): &&(Noised<'_>, _)| matches!(noised.counted, Counted::Ranges { metric: other } if other == metric);
                let ranges = edges.len().saturating_sub(1);
                let counts =
                    self.lists.iter().find(of_metric).and_then(|(_, counts)| counts.chunks(ranges.max(1)).nth(cell));
                counts.map(|counts| Value::Counts(counts.iter().map(|count| Some(self.count(*count))).collect()))
            }
            Function::Variance(_) | Function::Fraction { .. } => None,
        };
        match (value.unwrap_or(Value::Null), declared.digits) {
            (value, Some(digits)) => value.rounded(digits).in_multiples(self.rounding),
            (value, None) => value,
        }
    }
}

/// The true numbers of all cells.
fn quiet(dataset: &Dataset, cells: &Cells, counted: Counted<'_>) -> Option<Vec<i64>> {
    match counted {
        Counted::Contributors => cells.contributors_of_all(dataset),
        Counted::Records => cells.records_of_all(dataset),
        Counted::Sum { metric, shift, .. } => cells.sums_of_all(dataset, metric, shift),
        Counted::Ranges { metric } => cells.ranges_of_all(dataset, metric),
    }
}
