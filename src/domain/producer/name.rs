//! Producers' names, and the names of their series of numbers.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A producer's name: a text of 1 to [`ProducerName::BYTES_MAX`] bytes. It comes from outside: a log escapes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerName(Arc<str>);

/// A text that is no producer's name: it is empty, or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoProducerName;

impl ProducerName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// A name of this text.
    ///
    /// # Errors
    /// When it is empty, or too long.
    pub fn new(text: &str) -> Result<Self, NoProducerName> {
        let is_name = (1..=Self::BYTES_MAX).contains(&text.len());
        is_name.then(|| Self(text.into())).ok_or(NoProducerName)
    }
}

impl Deref for ProducerName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProducerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a series of numbers, under which they are counted: nobody spends or fences those of another sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series(Arc<str>);

impl Series {
    /// A producer's own.
    #[must_use]
    pub fn own(producer: &ProducerName) -> Self {
        Self(Arc::clone(&producer.0))
    }

    /// That of somebody else who speaks as the producer. Names that identities bring have no spaces, so none of them is
    /// spelled like it.
    #[must_use]
    pub fn via(producer: &ProducerName, speaker: &ProducerName) -> Self {
        Self(format!("{producer}{VIA}{speaker}").into())
    }
}

impl Deref for Series {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Between a producer's name and that of whoever speaks as it, in the name of a series.
const VIA: &str = " via ";

/// Who sent the requests of a series of numbers: the producer, or whoever spoke as it.
#[must_use]
pub fn speaker_of(series: &str) -> &str {
    series.rsplit_once(VIA).map_or(series, |(_, own)| own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_neither_empty_nor_too_long() {
        let longest = "n".repeat(ProducerName::BYTES_MAX);
        assert_eq!(ProducerName::new(&longest).as_deref(), Ok(&*longest));
        assert_eq!(ProducerName::new(&format!("{longest}n")), Err(NoProducerName));
        assert_eq!(ProducerName::new(""), Err(NoProducerName));
    }

    #[test]
    fn whoever_speaks_as_a_producer_has_numbers_of_its_own() {
        let [till, office] = ["till-7", "office"].map(|name| ProducerName::new(name).unwrap());
        assert_eq!(&*Series::own(&till), "till-7");
        assert_eq!(&*Series::via(&till, &office), "till-7 via office");
    }
}
