//! Whether a model's inputs and outputs are what the policy declares.

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};

use crate::domain::model::{Model, ModelOutput, OutputKind};

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
        let width = match shape[..] {
            [] => return Err(format!("output `{}` is one value for all records", declared.tensor)),
            [_] => Some(1),
            [_, width] => usize::try_from(width).ok(),
            _ => {
                return Err(format!("output `{}` has shape {:?}, not [records, columns]", declared.tensor, &shape[..]));
            }
        };
        check_column(declared, width)?;
    }
    Ok(())
}

/// Whether it is clear which column of an output is meant. `None`: the file does not say how many there are.
fn check_column(declared: &ModelOutput, width: Option<usize>) -> Result<(), String> {
    let (tensor, field) = (&declared.tensor, &declared.field);
    match (declared.column, width) {
        (None, Some(1)) | (Some(_), None) => Ok(()),
        (Some(column), Some(width)) if column < width => Ok(()),
        (Some(column), Some(width)) => Err(format!("output `{tensor}` has {width} columns and no column {column}")),
        (None, None) => Err(format!(
            "the file does not say how many columns output `{tensor}` has, and `column` does not say which becomes \
             `{field}`: write `column = 0` for the first"
        )),
        (None, Some(0)) => Err(format!("output `{tensor}` has no columns")),
        (None, Some(width)) => Err(format!(
            "output `{tensor}` has {width} columns, and `column` does not say which becomes `{field}`: write one of \
             `column = 0` to `column = {}`; of a classifier, column n is the probability of its n-th class, counted \
             from 0",
            width - 1
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::model::OutsideRange;

    #[test]
    fn it_must_be_clear_which_column_is_meant() {
        let output = |column| ModelOutput {
            tensor: "probabilities".to_owned(),
            field: "risk".to_owned(),
            kind: OutputKind::Score,
            column,
            classes: BTreeSet::new(),
            range: None,
            outside_range: OutsideRange::Refuse,
        };
        for (column, width) in [(None, Some(1)), (Some(0), Some(1)), (Some(1), Some(2)), (Some(7), None)] {
            assert_eq!(check_column(&output(column), width), Ok(()), "{column:?} of {width:?}");
        }
        for (column, width, says) in [
            (
                None,
                Some(2),
                "has 2 columns, and `column` does not say which becomes `risk`: write one of `column = 0` to `column = 1`",
            ),
            (None, None, "does not say how many columns"),
            (Some(2), Some(2), "has 2 columns and no column 2"),
            (None, Some(0), "has no columns"),
        ] {
            let error = check_column(&output(column), width).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
