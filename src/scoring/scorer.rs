//! One worker's model: runs it, and looks at what comes out.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Float32Array, Int64Array};
use ort::session::Session;
use ort::value::DynValue;

use crate::domain::model::{Model, ModelOutput, OutputKind, OutsideRange};
use crate::domain::policy::Resident;
use crate::domain::stream::ValueRange;

use super::Error;
use super::tensors::Shelf;
use super::watch::Watched;

/// A model on one worker thread.
pub struct Scorer {
    pub(super) session: Session,
    pub(super) shelf: Shelf,
    pub(super) model: Model,
    pub(super) watched: Arc<Watched>,
    /// How long a run may take, for messages.
    pub(super) deadline: Duration,
}

/// What a model said about records.
#[derive(Debug, Default)]
pub struct Scored {
    /// One column per declared output, with the records of all batches one after the other.
    pub outputs: Vec<ArrayRef>,
    /// Values that cannot be used, in the order of their records. What stands in `outputs` there means nothing.
    pub unusable: Vec<Unusable>,
}

/// A value that came out of a model and cannot be used: it is not finite, or outside the declared range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unusable {
    /// The record, counted through all batches.
    pub row: u32,
    /// The output, as declared.
    pub output: usize,
}

impl Scored {
    /// The columns, if all values of all records can be used.
    #[must_use]
    pub fn usable(self) -> Option<Vec<ArrayRef>> {
        self.unusable.is_empty().then_some(self.outputs)
    }

    /// How many records have a value that cannot be used.
    #[must_use]
    pub fn records_unusable(&self) -> usize {
        self.unusable.chunk_by(|one, next| one.row == next.row).count()
    }
}

impl Scorer {
    /// The field of the output that has a value that cannot be used.
    #[must_use]
    pub fn output(&self, unusable: Option<&Unusable>) -> Option<&str> {
        Some(&self.model.outputs.get(unusable?.output)?.field)
    }

    /// Scores batches of the model's stream together.
    ///
    /// # Errors
    /// When ONNX Runtime fails, the run takes longer than it may, or an output has not one row per record.
    pub fn score(&mut self, batches: &[&Resident]) -> Result<Scored, Error> {
        let rows = batches.iter().map(|resident| resident.batch().rows()).sum();
        let Self { session, shelf, model, watched, deadline } = self;
        let failed = |source| not_run(model, &source, None);
        let mismatch = |tensor: &str| {
            let message = format!("output `{tensor}` has not one row per record");
            Error::Mismatch { model: model.name.clone(), message }
        };
        let mut tensors = shelf.take(model, session, rows).map_err(failed)?;
        tensors.fill(&model.inputs, batches).map_err(failed)?;
        let binding = &tensors.binding;
        let (ran, is_late) = watched.run(|options| session.run_binding_with_options(binding, options));
        let mut outputs = ran.map_err(|source| not_run(model, &source, is_late.then_some(*deadline)))?;
        let mut scored = Scored::default();
        for (declared, position) in model.outputs.iter().zip(0..) {
            let output = outputs.get(&declared.tensor).ok_or_else(|| mismatch(&declared.tensor))?;
            let column = column(declared, output, rows, position, &mut scored.unusable).map_err(failed)?;
            scored.outputs.push(column.ok_or_else(|| mismatch(&declared.tensor))?);
        }
        scored.unusable.sort_unstable();
        let reusable = shelf.reusable(&tensors, &mut outputs);
        drop(outputs);
        shelf.keep(tensors, reusable).map_err(failed)?;
        Ok(scored)
    }

    /// Runs the model on so many records of zeros.
    ///
    /// # Errors
    /// When the run takes longer than it may. That a model does not take zeros is no error.
    pub(super) fn try_on_zeros(&mut self, rows: usize) -> Result<(), Error> {
        let failed = |source| Error::Runtime { model: self.model.name.clone(), source };
        let mut tensors = self.shelf.take(&self.model, &self.session, rows).map_err(failed)?;
        tensors.feed_zeros(&self.model.inputs).map_err(failed)?;
        let (session, binding) = (&mut self.session, &tensors.binding);
        let (ran, is_late) = self.watched.run(|options| session.run_binding_with_options(binding, options).map(drop));
        match ran {
            Err(source) if is_late => Err(not_run(&self.model, &source, Some(self.deadline))),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Why a run on records failed, which was ended at its deadline, or not.
fn not_run(model: &Model, source: &ort::Error, ended: Option<Duration>) -> Error {
    let model = model.name.clone();
    match ended {
        Some(deadline) => Error::Late { model, deadline },
        None => Error::Run { model, code: format!("{:?}", source.code()) },
    }
}

/// An output as a column. `None` when it has another shape than declared.
fn column(
    declared: &ModelOutput,
    output: &DynValue,
    rows: usize,
    position: usize,
    unusable: &mut Vec<Unusable>,
) -> ort::Result<Option<ArrayRef>> {
    let mut refuse = |row: u32| unusable.push(Unusable { row, output: position });
    Ok(match declared.kind {
        OutputKind::Score => {
            let (_, values) = output.try_extract_tensor::<f32>()?;
            pick(values, rows, declared.column).map(|mut values| {
                for (value, row) in values.iter_mut().zip(0..) {
                    match usable(*value, declared) {
                        Some(usable) => *value = usable,
                        None => refuse(row),
                    }
                }
                Arc::new(Float32Array::from(values)) as _
            })
        }
        OutputKind::Label => {
            let (_, values) = output.try_extract_tensor::<i64>()?;
            pick(values, rows, declared.column).map(|mut values| {
                for (value, row) in values.iter_mut().zip(0..) {
                    match usable_label(*value, declared) {
                        Some(usable) => *value = usable,
                        None => refuse(row),
                    }
                }
                Arc::new(Int64Array::from(values)) as _
            })
        }
    })
}

/// By how much of the range's larger end a score may lie beyond an end: what adding up in 32 bits leaves.
const ROUNDING: f64 = 1e-6;

/// A score as it is used: finite and in its range. `None` when it is not.
fn usable(value: f32, declared: &ModelOutput) -> Option<f32> {
    let Some(ValueRange { low, high }) = declared.range else { return value.is_finite().then_some(value) };
    let wide = f64::from(value);
    if (low..=high).contains(&wide) {
        return Some(value);
    }
    let rounding = ROUNDING * low.abs().max(high.abs());
    let is_near = (low - rounding..=high + rounding).contains(&wide);
    // NaN lies nowhere, and is moved to neither end.
    let is_clamped = declared.outside_range == OutsideRange::Clamp && !wide.is_nan();
    (is_near || is_clamped).then(|| wide.clamp(low, high) as f32)
}

fn usable_label(value: i64, declared: &ModelOutput) -> Option<i64> {
    let Some(ValueRange { low, high }) = declared.range else { return Some(value) };
    let wide = value as f64;
    if (low..=high).contains(&wide) {
        return Some(value);
    }
    (declared.outside_range == OutsideRange::Clamp).then(|| wide.clamp(low.ceil(), high.floor()) as i64)
}

/// One column of a `[rows, width]` tensor. Without a column there must be only one.
fn pick<T: Copy>(values: &[T], rows: usize, column: Option<usize>) -> Option<Vec<T>> {
    let width = values.len().checked_div(rows)?;
    if width * rows != values.len() || column.map_or(width != 1, |column| column >= width) {
        return None;
    }
    if width == 1 {
        return Some(values.to_vec());
    }
    Some(values.iter().skip(column.unwrap_or(0)).step_by(width).copied().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn output(range: Option<(f64, f64)>, outside_range: OutsideRange) -> ModelOutput {
        ModelOutput {
            tensor: "y".to_owned(),
            field: "score".to_owned(),
            kind: OutputKind::Score,
            column: None,
            classes: BTreeSet::new(),
            range: range.map(|(low, high)| ValueRange { low, high }),
            outside_range,
        }
    }

    #[test]
    fn a_score_is_finite_and_in_its_range_or_cannot_be_used() {
        let refuse = output(Some((0.0, 1.0)), OutsideRange::Refuse);
        let clamp = output(Some((0.0, 1.0)), OutsideRange::Clamp);
        let free = output(None, OutsideRange::Refuse);
        let inf = f32::INFINITY;
        for (value, refused, clamped, unbounded) in [
            (0.0, Some(0.0), Some(0.0), Some(0.0)),
            (0.5, Some(0.5), Some(0.5), Some(0.5)),
            (1.0, Some(1.0), Some(1.0), Some(1.0)),
            // What rounding leaves.
            (1.0 + f32::EPSILON, Some(1.0), Some(1.0), Some(1.0 + f32::EPSILON)),
            (-f32::EPSILON, Some(0.0), Some(0.0), Some(-f32::EPSILON)),
            (1.001, None, Some(1.0), Some(1.001)),
            (-0.001, None, Some(0.0), Some(-0.001)),
            (inf, None, Some(1.0), None),
            (-inf, None, Some(0.0), None),
            (f32::NAN, None, None, None),
        ] {
            assert_eq!(usable(value, &refuse), refused, "{value}");
            assert_eq!(usable(value, &clamp), clamped, "{value}");
            assert_eq!(usable(value, &free), unbounded, "{value}");
        }
        // Ends that no 32 bits hold are not left by being moved to them.
        let odd = output(Some((-0.1, 0.1)), OutsideRange::Clamp);
        let moved = usable(7.0, &odd).unwrap();
        assert_eq!(usable(moved, &odd), Some(moved));
    }

    #[test]
    fn a_label_lies_in_its_range() {
        let label = |outside| ModelOutput { kind: OutputKind::Label, ..output(Some((0.0, 2.5)), outside) };
        for (value, refused, clamped) in
            [(0, Some(0), Some(0)), (2, Some(2), Some(2)), (3, None, Some(2)), (-1, None, Some(0))]
        {
            assert_eq!(usable_label(value, &label(OutsideRange::Refuse)), refused);
            assert_eq!(usable_label(value, &label(OutsideRange::Clamp)), clamped);
        }
    }

    #[test]
    fn a_column_is_picked_only_where_it_is_clear_which() {
        let values = [1, 2, 3, 4, 5, 6];
        assert_eq!(pick(&values, 6, None), Some(values.to_vec()));
        assert_eq!(pick(&values, 6, Some(0)), Some(values.to_vec()));
        assert_eq!(pick(&values, 3, Some(1)), Some(vec![2, 4, 6]));
        assert_eq!(pick(&values, 3, None), None);
        assert_eq!(pick(&values, 3, Some(2)), None);
        assert_eq!(pick(&values, 4, Some(0)), None);
    }
}
