//! What a table may hold: the names, types and meanings of its keys. The reader knows the keys of a table by its
//! [`Shape`], and the JSON Schemas for editors are made of the same shapes.
//!
//! A key is declared once, in the shape of its table, beside the function that reads it. A test reads every shipped
//! file and fails when a key is read that no shape declares, or declared and never read.

/// A kind of table: `[gateway]`, `[streams.NAME]`, one entry of `[[peers]]`.
#[derive(Debug)]
pub struct Shape {
    /// Its name, unique among all shapes, as in `streams.NAME.fields.NAME`.
    pub name: &'static str,
    /// What such a table is, in one sentence.
    pub about: &'static str,
    /// Its keys, in the order in which they are usually written.
    pub keys: &'static [Key],
}

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Whether it must be there, whatever else the table holds.
    pub is_required: bool,
    /// What it means, in one sentence, with the default where there is one.
    pub about: &'static str,
}

/// What a value is.
#[derive(Debug)]
pub enum Kind {
    /// Not described: what reads it says what it may be.
    Any,
    /// Text.
    Text,
    /// True or false.
    Bool,
    /// A whole number of zero or more.
    Count,
    /// A whole number.
    Whole,
    /// A finite number.
    Number,
    /// A day, as in `2026-11-23`.
    Date,
    /// A duration of ISO 8601 as text, as in `"PT30S"`.
    Duration,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// An array of values of one kind.
    List(&'static Kind),
    /// A table.
    Table(&'static Shape),
    /// A table whose keys are names that the user chooses.
    Named(&'static Kind),
    /// A table whose keys are some of a few words.
    Words(&'static [&'static str], &'static Kind),
    /// One of these kinds.
    OneOf(&'static [Kind]),
}

impl Shape {
    /// The kind of a key's value. [`Kind::Any`] for a key that is not declared.
    pub(super) fn kind_of(&self, name: &str) -> &'static Kind {
        self.keys.iter().find(|key| key.name == name).map_or(&Kind::Any, |key| &key.kind)
    }
}

impl Key {
    /// A key that may be left out.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, is_required: false, about }
    }

    /// A key that must be there.
    #[must_use]
    pub const fn required(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, is_required: true, about }
    }
}

/// The names of a list of choices, for [`Kind::Word`].
#[must_use]
#[expect(clippy::indexing_slicing, reason = "a constant function has no iterators; both lists have N entries")]
pub const fn names<T: Copy, const N: usize>(choices: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = choices[at].0;
        at += 1;
    }
    names
}

impl Kind {
    /// The kind of the value of a key of a table of this kind.
    pub(super) fn of_key(&self, name: &str) -> &'static Self {
        match self {
            Self::Table(shape) => shape.kind_of(name),
            Self::Named(kind) | Self::Words(_, kind) => kind,
            Self::OneOf(kinds) => {
                kinds.iter().find(|kind| kind.is_table()).map_or(&Self::Any, |kind| kind.of_key(name))
            }
            Self::Any
            | Self::Text
            | Self::Bool
            | Self::Count
            | Self::Whole
            | Self::Number
            | Self::Date
            | Self::Duration
            | Self::Word(_)
            | Self::List(_) => &Self::Any,
        }
    }

    /// The kind of the items of an array of this kind.
    pub(super) fn of_item(&self) -> &'static Self {
        match self {
            Self::List(kind) => kind,
            Self::OneOf(kinds) => {
                kinds.iter().find(|kind| matches!(kind, Self::List(_))).map_or(&Self::Any, Self::of_item)
            }
            _ => &Self::Any,
        }
    }

    /// The shape of a table of this kind.
    pub(super) fn shape(&self) -> Option<&'static Shape> {
        match self {
            Self::Table(shape) => Some(shape),
            Self::OneOf(kinds) => kinds.iter().find_map(Self::shape),
            _ => None,
        }
    }

    fn is_table(&self) -> bool {
        matches!(self, Self::Table(_) | Self::Named(_) | Self::Words(..))
    }
}
