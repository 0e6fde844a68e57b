//! What a run takes and gives, kept for the next run of as many records: ONNX Runtime takes as long to make it as to
//! turn the columns over.

use std::collections::VecDeque;

use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Tensor, ValueType};

use crate::domain::model::{Model, ModelInput};
use crate::domain::policy::Resident;

use super::check::Element;
use super::features::fill;

/// Batches come in few sizes, alone and together.
const KEPT: usize = 4;

/// What is larger is not kept: its making is little beside its run, and its memory is not.
const KEPT_ROWS_MAX: usize = 4_096;

/// The tensors of the last runs.
pub(super) struct Shelf {
    elements: Vec<Element>,
    /// The declared outputs' tensors.
    outputs: Vec<String>,
    /// Whether the outputs' shapes follow from the number of records.
    is_fixed: bool,
    kept: VecDeque<Tensors>,
}

/// The tensors of runs of so many records.
pub(super) struct Tensors {
    rows: usize,
    inputs: Vec<Matrix>,
    /// Which outputs are wanted and, after the first run, where they go.
    pub(super) options: RunOptions<HasSelectedOutputs>,
    has_outputs: bool,
}

enum Matrix {
    Float32(Tensor<f32>),
    Float64(Tensor<f64>),
    Int64(Tensor<i64>),
}

impl Shelf {
    pub(super) fn new(model: &Model, elements: Vec<Element>, session: &Session) -> Self {
        let mut outputs: Vec<String> = model.outputs.iter().map(|output| output.tensor.clone()).collect();
        outputs.sort();
        outputs.dedup();
        let is_fixed = session.outputs().iter().all(|output| match output.dtype() {
            ValueType::Tensor { shape, .. } => shape.iter().skip(1).all(|&width| width >= 0),
            _ => false,
        });
        Self { elements, outputs, is_fixed, kept: VecDeque::new() }
    }

    /// Takes tensors for so many records.
    pub(super) fn take(&mut self, model: &Model, rows: usize) -> ort::Result<Tensors> {
        let kept = self.kept.iter().position(|tensors| tensors.rows == rows);
        if let Some(tensors) = kept.and_then(|position| self.kept.remove(position)) {
            return Ok(tensors);
        }
        let inputs = model.inputs.iter().zip(&self.elements);
        let inputs =
            inputs.map(|(input, &element)| Matrix::new(element, rows, input.width())).collect::<Result<_, _>>()?;
        let options = RunOptions::new()?.with_outputs(wanted(&self.outputs));
        Ok(Tensors { rows, inputs, options, has_outputs: false })
    }

    /// The outputs of a run that the next one may write to.
    pub(super) fn reusable(&self, tensors: &Tensors, outputs: &mut SessionOutputs<'_>) -> Vec<(String, DynValue)> {
        if tensors.has_outputs || !self.is_fixed || tensors.rows > KEPT_ROWS_MAX {
            return Vec::new();
        }
        self.outputs.iter().filter_map(|name| Some((name.clone(), outputs.remove(name)?))).collect()
    }

    /// Keeps the tensors of a run that succeeded.
    pub(super) fn keep(&mut self, mut tensors: Tensors, outputs: Vec<(String, DynValue)>) -> ort::Result<()> {
        if tensors.rows > KEPT_ROWS_MAX {
            return Ok(());
        }
        if !outputs.is_empty() {
            let selector = wanted(&self.outputs);
            let selector = outputs.into_iter().fold(selector, |all, (name, value)| all.preallocate(name, value));
            tensors.options = RunOptions::new()?.with_outputs(selector);
            tensors.has_outputs = true;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(tensors);
        Ok(())
    }
}

fn wanted(outputs: &[String]) -> OutputSelector {
    outputs.iter().fold(OutputSelector::no_default(), OutputSelector::with)
}

impl Tensors {
    /// Fills the inputs with the batches' records, one after the other.
    pub(super) fn fill(&mut self, inputs: &[ModelInput], batches: &[&Resident]) -> ort::Result<()> {
        for (matrix, input) in self.inputs.iter_mut().zip(inputs) {
            match matrix {
                Matrix::Float32(tensor) => fill(tensor.try_extract_tensor_mut::<f32>()?.1, input, batches),
                Matrix::Float64(tensor) => fill(tensor.try_extract_tensor_mut::<f64>()?.1, input, batches),
                Matrix::Int64(tensor) => fill(tensor.try_extract_tensor_mut::<i64>()?.1, input, batches),
            }
        }
        Ok(())
    }

    pub(super) fn inputs<'t>(&'t self, inputs: &'t [ModelInput]) -> Vec<(&'t str, SessionInputValue<'t>)> {
        inputs.iter().zip(&self.inputs).map(|(input, matrix)| (input.name.as_str(), matrix.value())).collect()
    }
}

impl Matrix {
    fn new(element: Element, rows: usize, width: usize) -> ort::Result<Self> {
        let (shape, cells) = ([rows, width], rows * width);
        Ok(match element {
            Element::Float32 => Self::Float32(Tensor::from_array((shape, vec![0.0; cells]))?),
            Element::Float64 => Self::Float64(Tensor::from_array((shape, vec![0.0; cells]))?),
            Element::Int64 => Self::Int64(Tensor::from_array((shape, vec![0; cells]))?),
        })
    }

    fn value(&self) -> SessionInputValue<'_> {
        match self {
            Self::Float32(tensor) => tensor.into(),
            Self::Float64(tensor) => tensor.into(),
            Self::Int64(tensor) => tensor.into(),
        }
    }
}
