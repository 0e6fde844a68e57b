//! Whether a model's inputs and outputs are what the policy declares.

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};

use crate::domain::model::{Model, OutputKind};

/// The element type of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Float32,
    Float64,
    Int64,
}

/// Checks names, element types and shapes. The element type of each declared input, or what differs.
pub(super) fn check(model: &Model, session: &Session) -> Result<Vec<Element>, String> {
    let has: Vec<&str> = session.inputs().iter().map(|input| input.name()).collect();
    for name in &has {
        if !model.inputs.iter().any(|input| input.name == *name) {
            return Err(format!("the file's input `{name}` is not declared"));
        }
    }
    let elements = model.inputs.iter().map(|declared| {
        let Some(input) = session.inputs().iter().find(|input| input.name() == declared.name) else {
            return Err(format!("there is no input `{}`; the file has {}", declared.name, has.join(", ")));
        };
        let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
            return Err(format!("input `{}` is not a tensor", declared.name));
        };
        let width = i64::try_from(declared.width()).unwrap_or(i64::MAX);
        match shape[..] {
            [rows, columns] if rows == -1 && (columns == width || columns == -1) => {}
            _ => {
                return Err(format!(
                    "input `{}` has shape {:?}, and [-1, {width}] is declared (-1 is any number of records)",
                    declared.name,
                    &shape[..]
                ));
            }
        }
        match ty {
            TensorElementType::Float32 => Ok(Element::Float32),
            TensorElementType::Float64 => Ok(Element::Float64),
            TensorElementType::Int64 => Ok(Element::Int64),
            other => Err(format!("input `{}` is of {other}; float, double and int64 can be fed", declared.name)),
        }
    });
    let elements = elements.collect::<Result<_, String>>()?;
    check_outputs(model, session)?;
    Ok(elements)
}

fn check_outputs(model: &Model, session: &Session) -> Result<(), String> {
    let has: Vec<&str> = session.outputs().iter().map(|output| output.name()).collect();
    for declared in &model.outputs {
        let Some(output) = session.outputs().iter().find(|output| output.name() == declared.tensor) else {
            return Err(format!("there is no output `{}`; the file has {}", declared.tensor, has.join(", ")));
        };
        let ValueType::Tensor { ty, shape, .. } = output.dtype() else {
            return Err(format!("output `{}` is not a tensor: export the classifier without ZipMap", declared.tensor));
        };
        let (wanted, kind) = match declared.kind {
            OutputKind::Score => (TensorElementType::Float32, "score"),
            OutputKind::Label => (TensorElementType::Int64, "label"),
        };
        if *ty != wanted {
            return Err(format!("output `{}` is of {ty}, and a {kind} is of {wanted}", declared.tensor));
        }
        let width = if shape.len() > 1 { shape[1] } else { 1 };
        if shape.len() > 2 || (width >= 0 && i64::try_from(declared.column).unwrap_or(i64::MAX) >= width) {
            return Err(format!(
                "output `{}` has shape {:?} and no column {}",
                declared.tensor,
                &shape[..],
                declared.column
            ));
        }
    }
    Ok(())
}
