//! A JSON array of objects, read entry by entry.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Builder, Problem, Texts};

/// Reads the file.
pub(super) fn read(bytes: &[u8], builder: &mut Builder<'_>) -> Result<(), (u64, Problem)> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line_at = |line: usize| u64::try_from(line.max(1)).unwrap_or(u64::MAX);
    if let Err(error) = std::str::from_utf8(bytes) {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        return Err((line_at(1 + before.iter().filter(|byte| **byte == b'\n').count()), Problem::NotText));
    }
    let problem = RefCell::new(None);
    let mut seen = vec![false; builder.names.len()];
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let entries = Entries { builder, seen: &mut seen, problem: &problem };
    let read = json.deserialize_seq(entries).and_then(|()| json.end());
    if let Err(error) = read {
        // The library's own words may quote what stands there.
        return Err((line_at(error.line()), problem.take().unwrap_or(Problem::NotJson)));
    }
    // A column that no entry has is a wrong name rather than one of which nothing is known.
    match seen.iter().position(|is_seen| !is_seen) {
        Some(at) if !builder.registry.is_empty() => {
            Err((1, Problem::NoColumn(builder.names.get(at).copied().unwrap_or_default().to_owned())))
        }
        _ => Ok(()),
    }
}

type Said<'p> = &'p RefCell<Option<Problem>>;

fn fail<E: de::Error>(said: Said<'_>, problem: Problem) -> E {
    *said.borrow_mut() = Some(problem);
    E::custom("")
}

struct Entries<'b, 'c, 'p> {
    builder: &'b mut Builder<'c>,
    seen: &'b mut [bool],
    problem: Said<'p>,
}

impl<'de> Visitor<'de> for Entries<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let problem = self.problem;
        while let Some(texts) = entries.next_element_seed(Entry { names: &self.builder.names, problem })? {
            for (seen, text) in self.seen.iter_mut().zip(&texts) {
                *seen |= text.is_some();
            }
            let texts = texts.iter().map(|text| text.as_deref().unwrap_or_default());
            self.builder.add(texts).map_err(|found| fail(problem, found))?;
        }
        Ok(())
    }
}

struct Entry<'n, 'c, 'p> {
    names: &'n [&'c str],
    problem: Said<'p>,
}

impl<'de> DeserializeSeed<'de> for Entry<'_, '_, '_> {
    type Value = Texts<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_, '_, '_> {
    type Value = Texts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts: Texts<'de> = vec![None; self.names.len()];
        while let Some(name) = map.next_key_seed(Text { column: "", problem: self.problem })? {
            if !self.names.contains(&name.as_ref()) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let text = map.next_value_seed(Text { column: &name, problem: self.problem })?;
            // One column may say several facts.
            for (_, slot) in self.names.iter().zip(&mut texts).filter(|(known, _)| **known == name) {
                if slot.replace(text.clone()).is_some() {
                    return Err(fail(self.problem, Problem::ColumnTwice(name.into_owned())));
                }
            }
        }
        Ok(texts)
    }
}

/// A text, or null for an empty one.
struct Text<'c, 'p> {
    column: &'c str,
    problem: Said<'p>,
}

impl<'de> DeserializeSeed<'de> for Text<'_, '_> {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Text<'_, '_> {
    fn other<E: de::Error>(&self) -> Result<Cow<'de, str>, E> {
        Err(fail(self.problem, Problem::NotAText(self.column.to_owned())))
    }
}

impl<'de> Visitor<'de> for Text<'_, '_> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        self.other()
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        self.other()
    }
}
