//! Names that are chosen in a configuration. Many of them become parts of file names, topics, protobuf messages or
//! columns, so all are of one closed alphabet. A name of one kind of thing is a type of its own, so that a dataset is not
//! looked up where a destination is meant.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use super::binary::Reader;
use super::document::{Problems, Spot};

/// A stream's name.
pub type StreamName = Name<OfStream>;
/// A dataset's name.
pub type DatasetName = Name<OfDataset>;
/// A destination's name.
pub type DestinationName = Name<OfDestination>;
/// A gateway's id.
pub type GatewayId = Name<OfGateway>;

/// Says what a [`StreamName`] is of.
#[derive(Debug)]
pub enum OfStream {}
/// Says what a [`DatasetName`] is of.
#[derive(Debug)]
pub enum OfDataset {}
/// Says what a [`DestinationName`] is of.
#[derive(Debug)]
pub enum OfDestination {}
/// Says what a [`GatewayId`] is of.
#[derive(Debug)]
pub enum OfGateway {}

/// A valid name of a kind of thing. It is made by [`Name::new`] only, and is compared, hashed and looked up as its text.
pub struct Name<K> {
    text: Arc<str>,
    kind: PhantomData<fn() -> K>,
}

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name begins with a letter or digit and holds letters, digits, `_`, `-` and `.`, at most {BYTES_MAX} in all")]
pub struct NoName;

impl<K> Name<K> {
    /// A name of this text.
    ///
    /// # Errors
    /// When it is no name: see [`is_name`].
    pub fn new(text: &str) -> Result<Self, NoName> {
        if is_name(text) { Ok(Self { text: text.into(), kind: PhantomData }) } else { Err(NoName) }
    }

    /// Reads one from bytes. `None`: they hold no text, or one that is no name.
    #[must_use]
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Self::new(reader.text()?).ok()
    }

    /// The same of a text that [`Writer::short_text`](super::binary::Writer::short_text) wrote.
    #[must_use]
    pub fn read_short(reader: &mut Reader<'_>) -> Option<Self> {
        Self::new(reader.short_text()?).ok()
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<K> FromStr for Name<K> {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        Self::new(text)
    }
}

impl<K> Clone for Name<K> {
    fn clone(&self) -> Self {
        Self { text: Arc::clone(&self.text), kind: PhantomData }
    }
}

impl<K> Deref for Name<K> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl<K> Borrow<str> for Name<K> {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl<K> AsRef<str> for Name<K> {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl<K> fmt::Display for Name<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl<K> fmt::Debug for Name<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl<K> PartialEq for Name<K> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<K> Eq for Name<K> {}

impl<K> PartialEq<str> for Name<K> {
    fn eq(&self, other: &str) -> bool {
        *self.text == *other
    }
}

impl<K> PartialEq<&str> for Name<K> {
    fn eq(&self, other: &&str) -> bool {
        *self.text == **other
    }
}

impl<K> PartialEq<String> for Name<K> {
    fn eq(&self, other: &String) -> bool {
        *self.text == **other
    }
}

impl<K> From<&Name<K>> for String {
    fn from(name: &Name<K>) -> Self {
        name.text.as_ref().to_owned()
    }
}

impl<K> PartialOrd for Name<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Name<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl<K> Hash for Name<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// The longest name, in bytes.
pub const BYTES_MAX: usize = 64;

/// Whether a name begins with a letter or digit and holds nothing but those, `_`, `-` and `.`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Reports what is no name of such a thing: `dataset`, `stream`.
pub fn check(what: &str, name: &Spot<String>, problems: &Problems) {
    if !is_name(&name.value) {
        problems.error_help(&name.place, format!("`{}` is no {what} name", name.value), NoName.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_a_closed_alphabet() {
        for name in ["a", "eu-fra-1", "OVR-7", "0", "a.b_c", &"a".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "-a", "_a", ".a", "a b", "ä", "a\n", "a\0", "a\\b", &"a".repeat(65)]
        {
            assert!(!is_name(name), "{name}");
        }
    }
}
