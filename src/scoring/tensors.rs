//! What a run takes and gives, kept for the next run of as many records: ONNX Runtime takes as long to make it as to
//! turn the columns over.

use std::collections::VecDeque;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session, SessionOutputs};
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
    /// What feeds the run, which outputs are wanted and, after the first run, where they go.
    pub(super) binding: IoBinding,
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
    pub(super) fn take(&mut self, model: &Model, session: &Session, rows: usize) -> ort::Result<Tensors> {
        let kept = self.kept.iter().position(|tensors| tensors.rows == rows);
        if let Some(tensors) = kept.and_then(|position| self.kept.remove(position)) {
            return Ok(tensors);
        }
        let inputs = model.inputs.iter().zip(&self.elements);
        let inputs =
            inputs.map(|(input, &element)| Matrix::new(element, rows, input.width())).collect::<Result<_, _>>()?;
        let mut binding = session.create_binding()?;
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        for output in &self.outputs {
            binding.bind_output_to_device(output, &memory)?;
        }
        Ok(Tensors { rows, inputs, binding, has_outputs: false })
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
        for (name, value) in outputs {
            tensors.binding.bind_output(name, value)?;
            tensors.has_outputs = true;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(tensors);
        Ok(())
    }
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
            matrix.bind(&input.name, &mut self.binding)?;
        }
        Ok(())
    }

    /// Feeds the inputs as they were made: nothing but zeros.
    pub(super) fn feed_zeros(&mut self, inputs: &[ModelInput]) -> ort::Result<()> {
        for (matrix, input) in self.inputs.iter().zip(inputs) {
            matrix.bind(&input.name, &mut self.binding)?;
        }
        Ok(())
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

    /// An input is bound anew when its values have changed: nothing says that a binding sees a change.
    fn bind(&self, name: &str, binding: &mut IoBinding) -> ort::Result<()> {
        match self {
            Self::Float32(tensor) => binding.bind_input(name, tensor),
            Self::Float64(tensor) => binding.bind_input(name, tensor),
            Self::Int64(tensor) => binding.bind_input(name, tensor),
        }
    }
}
