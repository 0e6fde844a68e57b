//! Models, as the policy declares them: what feeds them and what comes out. The adapter that runs one
//! checks the file against this.

use std::collections::BTreeSet;

use super::stream::ValueRange;

/// A model bound to one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// The SHA-256 of its file, in lower-case hex.
    pub sha256: String,
    /// Its inputs.
    pub inputs: Vec<ModelInput>,
    /// Those of its outputs that become fields.
    pub outputs: Vec<ModelOutput>,
}

/// One input tensor of shape `[records, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInput {
    /// The tensor's name.
    pub name: String,
    /// What fills it, column after column.
    pub features: Vec<Feature>,
}

impl ModelInput {
    /// How many columns the tensor has.
    #[must_use]
    pub fn width(&self) -> usize {
        self.features.iter().map(Feature::width).sum()
    }
}

/// What fills one or more columns of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// The stream's field, by position.
    pub column: usize,
    /// How its values become numbers.
    pub encoding: Encoding,
}

impl Feature {
    /// How many columns of the input it fills.
    #[must_use]
    pub fn width(&self) -> usize {
        match &self.encoding {
            Encoding::OneHot(words) => words.len(),
            Encoding::Number | Encoding::Index(_) => 1,
        }
    }
}

/// How a field's values become numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Encoding {
    /// A number as it is; false is 0 and true is 1; null is NaN.
    Number,
    /// The position in a declared vocabulary; -1 for what is not in it, and for null.
    Index(Vec<String>),
    /// One column per word, 1 in the word's own; all 0 for what is not in the vocabulary, and for null.
    OneHot(Vec<String>),
}

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// A float: a probability, a regression's value. Becomes a `float32` field.
    Score,
    /// A class number. Becomes an `int64` field.
    Label,
}

/// An output tensor, or one column of it, that becomes a field.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelOutput {
    /// The tensor's name.
    pub tensor: String,
    /// The field's name.
    pub field: String,
    /// What it is.
    pub kind: OutputKind,
    /// The tensor's column, counted from 0. `None` where it has only one.
    pub column: Option<usize>,
    /// The field's data class: the join of its inputs' and of the one declared for it.
    pub classes: BTreeSet<String>,
    /// Where its values lie.
    pub range: Option<ValueRange>,
    /// What becomes of a value outside the range.
    pub outside_range: OutsideRange,
}

/// What becomes of a value of a model outside its declared range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutsideRange {
    /// The record is refused.
    Refuse,
    /// The value is moved to the nearer end.
    Clamp,
}

impl OutsideRange {
    /// Every choice with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 2] = [("refuse", Self::Refuse), ("clamp", Self::Clamp)];
}
