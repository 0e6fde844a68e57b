//! A model's file, looked at before ONNX Runtime sees it: whether all of it is in this file, and whether it makes
//! tensors of a size that nobody meant.
//!
//! This walks the protobuf of `onnx.proto` without building messages. The depth is bounded, the work is linear in the
//! file, and a field that is not known is skipped, so that newer models are read too.

use std::collections::HashMap;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The deepest nesting, which is also protobuf's own.
const DEPTH_MAX: usize = 100;
/// The most elements of the tensors that a model makes out of constant shapes, all together.
const ELEMENTS_MAX: u64 = 1 << 26;
/// A shape has no more numbers.
const SHAPE_MAX: usize = 64;
/// `TensorProto.DataType.INT64`.
const INT64: u64 = 7;

/// Why a file is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is no protobuf, or is cut off.
    #[error("it is no ONNX model, or it is cut off")]
    NotOnnx,
    /// It is of ONNX Runtime's own format.
    #[error("it is of ONNX Runtime's own format (.ort); give the .onnx file")]
    OrtFormat,
    /// Nested too deep.
    #[error("it is nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// A part of it is in another file.
    #[error(
        "tensor `{0}` is in another file (external data), which `sha256` does not cover; save the model as one file, as \
         with onnx.save_model(model, path, save_as_external_data=False)"
    )]
    External(String),
    /// It makes a tensor of a size that nobody meant.
    #[error("node `{node}` makes a tensor of {elements} elements; a model may make {ELEMENTS_MAX} out of constants")]
    Huge {
        /// The node, or what it makes.
        node: String,
        /// The elements of all such tensors up to this one.
        elements: u64,
    },
}

/// A message of `onnx.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Training,
    Graph,
    Function,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// The message in a field, if it is one that is looked into.
    fn of(self, field: u32) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            _ => return None,
        })
    }
}

/// Whether a model can be given to ONNX Runtime.
///
/// # Errors
/// Why not.
pub(super) fn inspect(bytes: &[u8]) -> Result<(), Unfit> {
    if bytes.get(4..8) == Some(b"ORTM") {
        return Err(Unfit::OrtFormat);
    }
    let mut found = Found::default();
    let mut open = vec![Frame::new(Message::Model, bytes)];
    let mut has_graph = false;
    while let Some(frame) = open.last_mut() {
        match frame.next()? {
            None => {
                let Some(closed) = open.pop() else { break };
                found.close(&closed, open.last_mut())?;
            }
            Some((inner, bytes)) => {
                has_graph |= inner == Message::Graph;
                if open.len() == DEPTH_MAX {
                    return Err(Unfit::TooDeep);
                }
                open.push(Frame::new(inner, bytes));
            }
        }
    }
    if has_graph { found.sizes() } else { Err(Unfit::NotOnnx) }
}

/// A message that is being walked through, and what was seen in it.
struct Frame<'b> {
    message: Message,
    rest: &'b [u8],
    /// Fields of texts that are looked at: inputs, outputs, name and operator of a node; the name of a tensor.
    inputs: Vec<&'b [u8]>,
    output: &'b [u8],
    name: &'b [u8],
    operator: &'b [u8],
    /// Of a tensor and of an attribute: its numbers, if they may be a shape.
    numbers: Vec<i64>,
    dims: Vec<i64>,
    is_int64: bool,
    is_external: bool,
}

impl<'b> Frame<'b> {
    fn new(message: Message, rest: &'b [u8]) -> Self {
        Self {
            message,
            rest,
            inputs: Vec::new(),
            output: &[],
            name: &[],
            operator: &[],
            numbers: Vec::new(),
            dims: Vec::new(),
            is_int64: false,
            is_external: false,
        }
    }

    /// Goes on to the next message in this one. `None` at the end.
    fn next(&mut self) -> Result<Option<(Message, &'b [u8])>, Unfit> {
        let broken = |_| Unfit::NotOnnx;
        while !self.rest.is_empty() {
            let (field, wire) = decode_key(&mut self.rest).map_err(broken)?;
            match wire {
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut self.rest).map_err(broken)?;
                    let length = usize::try_from(length).map_err(|_| Unfit::NotOnnx)?;
                    let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Unfit::NotOnnx)?;
                    self.rest = rest;
                    if let Some(inner) = self.message.of(field) {
                        return Ok(Some((inner, bytes)));
                    }
                    self.bytes(field, bytes)?;
                }
                WireType::Varint => {
                    let number = decode_varint(&mut self.rest).map_err(broken)?;
                    self.number(field, number);
                }
                _ => skip_field(wire, field, &mut self.rest, DecodeContext::default()).map_err(broken)?,
            }
        }
        Ok(None)
    }

    fn bytes(&mut self, field: u32, bytes: &'b [u8]) -> Result<(), Unfit> {
        match (self.message, field) {
            (Message::Node, 1) if self.inputs.len() < 4 => self.inputs.push(bytes),
            (Message::Node, 2) if self.output.is_empty() => self.output = bytes,
            (Message::Node, 3) | (Message::Tensor, 8) | (Message::Attribute, 1) => self.name = bytes,
            (Message::Node, 4) => self.operator = bytes,
            (Message::Tensor, 13) => self.is_external = true,
            (Message::Tensor, 9) => {
                let numbers = bytes.as_chunks::<8>().0.iter().take(SHAPE_MAX + 1);
                self.numbers = numbers.map(|number| i64::from_le_bytes(*number)).collect();
            }
            // Packed.
            (Message::Tensor, 1 | 7) | (Message::SparseTensor, 3) | (Message::Attribute, 8) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let number = decode_varint(&mut rest).map_err(|_| Unfit::NotOnnx)?;
                    self.number(field, number);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self, field: u32, number: u64) {
        let numbers = match (self.message, field) {
            (Message::Tensor, 2) => return self.is_int64 = number == INT64,
            (Message::Tensor, 14) => return self.is_external |= number != 0,
            (Message::Tensor, 1) | (Message::SparseTensor, 3) => &mut self.dims,
            (Message::Tensor, 7) | (Message::Attribute, 3 | 8) => &mut self.numbers,
            _ => return,
        };
        if numbers.len() <= SHAPE_MAX {
            numbers.push(number.cast_signed());
        }
    }
}

/// What a model makes of constants.
#[derive(Default)]
struct Found {
    /// The elements of a tensor with the shape that a constant holds, by the constant's name.
    shapes: HashMap<Vec<u8>, u64>,
    /// What makes tensors: its name, and the constant that holds the shape.
    makers: Vec<(Vec<u8>, Vec<u8>)>,
    /// What makes tensors of a known number of elements.
    made: Vec<(Vec<u8>, u64)>,
}

impl Found {
    fn close(&mut self, closed: &Frame<'_>, outer: Option<&mut Frame<'_>>) -> Result<(), Unfit> {
        match closed.message {
            Message::Tensor if closed.is_external => {
                return Err(Unfit::External(String::from_utf8_lossy(closed.name).into_owned()));
            }
            Message::Tensor if closed.is_int64 && closed.numbers.len() <= SHAPE_MAX => match outer {
                Some(outer) if outer.message == Message::Attribute => outer.numbers.clone_from(&closed.numbers),
                _ => self.shape(closed.name, &closed.numbers),
            },
            Message::SparseTensor => self.made.push((b"sparse tensor".to_vec(), elements(&closed.dims))),
            // The numbers of a node's attribute are the node's: the value of a constant, the shape of random numbers.
            Message::Attribute if matches!(closed.name, b"value" | b"value_ints" | b"value_int" | b"shape") => {
                if let Some(outer) = outer {
                    outer.numbers.clone_from(&closed.numbers);
                }
            }
            Message::Node => self.node(closed),
            _ => {}
        }
        Ok(())
    }

    fn shape(&mut self, name: &[u8], numbers: &[i64]) {
        let elements = elements(numbers);
        let known = self.shapes.entry(name.to_vec()).or_default();
        *known = elements.max(*known);
    }

    fn node(&mut self, node: &Frame<'_>) {
        let name = || if node.name.is_empty() { node.output.to_vec() } else { node.name.to_vec() };
        let shape = match node.operator {
            b"Constant" => return self.shape(node.output, &node.numbers),
            b"RandomNormal" | b"RandomUniform" => return self.made.push((name(), elements(&node.numbers))),
            b"ConstantOfShape" => node.inputs.first(),
            b"Expand" | b"Tile" => node.inputs.get(1),
            b"Resize" => node.inputs.get(3),
            _ => None,
        };
        self.makers.extend(shape.map(|shape| (name(), shape.to_vec())));
    }

    /// Whether all that is made out of constants is of a size that somebody can mean.
    fn sizes(self) -> Result<(), Unfit> {
        let of_makers = self.makers.into_iter().map(|(node, shape)| (node, self.shapes.get(&shape).copied()));
        let made = of_makers.filter_map(|(node, elements)| Some((node, elements?))).chain(self.made);
        let mut elements = 0_u64;
        for (node, more) in made {
            elements = elements.saturating_add(more);
            if elements > ELEMENTS_MAX {
                return Err(Unfit::Huge { node: String::from_utf8_lossy(&node).into_owned(), elements });
            }
        }
        Ok(())
    }
}

/// How many elements a tensor of a shape has. Numbers that are not positive take their length from elsewhere.
fn elements(shape: &[i64]) -> u64 {
    shape.iter().map(|&length| u64::try_from(length).unwrap_or(1)).fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;

    const X: &[u8] = &[];

    fn of_nodes(nodes: &[Vec<u8>], initialisers: &[Vec<u8>]) -> Vec<u8> {
        model(&graph(nodes, initialisers, &[], &[]))
    }

    fn external(name: &str) -> Vec<u8> {
        [tensor(name, &[1], 1, X), number(14, 1)].concat()
    }

    #[test]
    fn a_model_in_one_file_is_taken() {
        assert_eq!(inspect(&identity()), Ok(()));
    }

    #[test]
    fn what_is_in_another_file_is_found_wherever_it_stands() {
        let w = || external("w");
        let attribute = |field, value: &[u8]| [bytes(1, b"a"), bytes(field, value)].concat();
        let node = |attribute: &[u8]| node("Constant", &[], &["y"], &[attribute.to_vec()]);
        let graph_of = |initialiser: &[u8]| graph(&[], &[initialiser.to_vec()], &[], &[]);
        let sparse = |field| bytes(field, &w());
        let cases = [
            ("an initialiser", of_nodes(&[], &[w()])),
            ("an attribute", of_nodes(&[node(&attribute(5, &w()))], &[])),
            ("an attribute of several", of_nodes(&[node(&attribute(10, &w()))], &[])),
            ("a subgraph", of_nodes(&[node(&attribute(6, &graph_of(&w())))], &[])),
            ("one of several subgraphs", of_nodes(&[node(&attribute(11, &graph_of(&w())))], &[])),
            ("a sparse attribute", of_nodes(&[node(&attribute(22, &sparse(1)))], &[])),
            ("one of several", of_nodes(&[node(&attribute(23, &sparse(2)))], &[])),
            ("a sparse initialiser", model(&bytes(15, &sparse(1)))),
            ("a function", [identity(), bytes(25, &bytes(7, &node(&attribute(5, &w()))))].concat()),
            ("a default of a function", [identity(), bytes(25, &bytes(11, &attribute(5, &w())))].concat()),
            ("training", [identity(), bytes(20, &bytes(1, &graph_of(&w())))].concat()),
            ("a second graph", [identity(), bytes(7, &graph_of(&w()))].concat()),
            ("no location, but a file", of_nodes(&[], &[[tensor("w", &[1], 1, X), bytes(13, X)].concat()])),
        ];
        for (what, model) in cases {
            assert_eq!(inspect(&model), Err(Unfit::External("w".to_owned())), "{what}");
        }
    }

    #[test]
    fn tensors_of_a_size_that_nobody_means_are_refused() {
        let shape = |numbers: &[i64]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_le_bytes()).collect() };
        let large = || tensor("s", &[2], INT64 as i64, &shape(&[23_170, 23_170]));
        let of = |operator, inputs: &[&str]| node(operator, inputs, &["y"], &[]);
        let value = [bytes(1, b"value"), bytes(5, &large())].concat();
        let ints = [bytes(1, b"shape"), number(8, 23_170), number(8, 23_170)].concat();
        let cases = [
            ("initialiser", of_nodes(&[of("ConstantOfShape", &["s"])], &[large()])),
            ("expand", of_nodes(&[of("Expand", &["x", "s"])], &[large()])),
            ("tile", of_nodes(&[of("Tile", &["x", "s"])], &[large()])),
            ("resize", of_nodes(&[of("Resize", &["x", "", "", "s"])], &[large()])),
            ("random", of_nodes(&[node("RandomNormal", &[], &["y"], &[ints])], &[])),
            ("a constant", of_nodes(&[node("Constant", &[], &["s"], &[value]), of("ConstantOfShape", &["s"])], &[])),
            ("sparse", model(&bytes(15, &[number(3, 23_170), number(3, 23_170)].concat()))),
        ];
        for (what, model) in cases {
            assert!(matches!(inspect(&model), Err(Unfit::Huge { elements: 536_848_900, .. })), "{what}");
        }
        // Many of which each is small enough.
        let small = tensor("s", &[1], INT64 as i64, &shape(&[1 << 24]));
        let nodes = vec![of("ConstantOfShape", &["s"]); 4];
        assert_eq!(inspect(&of_nodes(&nodes, std::slice::from_ref(&small))), Ok(()));
        let nodes = vec![of("ConstantOfShape", &["s"]); 5];
        assert!(matches!(inspect(&of_nodes(&nodes, &[small])), Err(Unfit::Huge { .. })));
        // The numbers of a field, and lengths that overflow.
        let fields = [number(7, u64::MAX >> 1), number(7, 4), number(2, INT64), bytes(8, b"s")].concat();
        let model = of_nodes(&[of("ConstantOfShape", &["s"])], &[fields]);
        assert!(matches!(inspect(&model), Err(Unfit::Huge { elements: u64::MAX, .. })));
    }

    #[test]
    fn what_is_no_model_is_an_error_and_never_a_panic() {
        let model = identity();
        for length in 0..model.len() {
            let _ = inspect(&model[..length]);
        }
        for at in 0..model.len() {
            for bit in 0..8 {
                let mut spoiled = model.clone();
                spoiled[at] ^= 1 << bit;
                let _ = inspect(&spoiled);
            }
        }
        assert_eq!(inspect(b""), Err(Unfit::NotOnnx));
        assert_eq!(inspect(b"not a model"), Err(Unfit::NotOnnx));
        assert_eq!(inspect(b"\x10\0\0\0ORTM"), Err(Unfit::OrtFormat));
        let mut deep = graph(&[], &[], &[], &[]);
        for _ in 0..60 {
            let attribute = [bytes(1, b"body"), bytes(6, &deep)].concat();
            deep = graph(&[node("Loop", &[], &[], &[attribute])], &[], &[], &[]);
        }
        assert_eq!(inspect(&super::super::made::model(&deep)), Err(Unfit::TooDeep));
    }
}
