//! How large a message may be, and how a release becomes messages that are not larger.
//!
//! A release that fits is one message. Another is cut between cells into parts of as many cells each, in order, under
//! the same key. Which cells are in which part hangs on the release and the limit alone, so the same bytes are sent
//! again.

use rdkafka::message::{Header, OwnedHeaders};

use crate::domain::name::{DatasetName, GatewayId};
use crate::domain::policy::{Digest, Reduced, Released, Widest};
use crate::egress::encode::{self, Format};

use super::{Error, TooLarge};

/// What librdkafka takes unless `message.max.bytes` says otherwise. Below what a topic takes by default.
pub(super) const CLIENT_BYTES: usize = 1_000_000;
/// The least that librdkafka takes as its limit.
pub(super) const LEAST: usize = 1_000;
/// What librdkafka and the broker add to key, headers and value of a batch's only message, at most.
const AROUND: usize = 256;
/// What the header of a smaller release takes, and its columns, at most. In Arrow those of what has changed take more: a cell
/// that does not fit with them leaves in another form.
const DEGRADED_BYTES: usize = 200;
/// As many cells as a window may have, and so as many parts as a release.
const CELLS_MAX: usize = 65_536;

/// The most bytes of a message with all that is around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) bytes: usize,
    pub(super) whose: Whose,
}

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The destination's option `message.max.bytes`, or its default.
    Client,
    /// The topic's `max.message.bytes`, as the broker told.
    Topic,
    /// The broker refused larger ones and does not tell what it takes.
    Learned,
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "the option `message.max.bytes` of this destination (librdkafka's default is 1000000)",
            Self::Topic => "the topic's `max.message.bytes`",
            Self::Learned => "what the broker took so far: it refused larger messages",
        })
    }
}

impl Limit {
    /// What both take.
    pub(super) fn of(client: usize, topic: Option<usize>, learned: Option<usize>) -> Self {
        let client = Self { bytes: client, whose: Whose::Client };
        let topic = topic.map(|bytes| Self { bytes, whose: Whose::Topic });
        // What the topic says is truer than what was learned.
        let learned = learned.filter(|_| topic.is_none()).map(|bytes| Self { bytes, whose: Whose::Learned });
        [topic, learned]
            .into_iter()
            .flatten()
            .fold(client, |least, other| if other.bytes < least.bytes { other } else { least })
    }
}

impl Limit {
    /// Half of it, to be tried.
    pub(super) fn halved(self) -> usize {
        (self.bytes / 2).max(LEAST)
    }
}

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) headers: OwnedHeaders,
    /// All that is sent of it, before it is compressed.
    pub(super) bytes: usize,
}

/// A release as messages, in order, and the cells that no message can take.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) messages: Vec<Message>,
    pub(super) aside: Vec<Aside>,
}

/// A cell that its topic does not take, however its release is cut. The others of the release do not wait for it.
#[derive(Debug)]
pub struct Aside {
    /// The release, and why.
    pub cell: TooLarge,
    /// Which part of the release it would have been, from 1, and how many parts there are.
    pub part: (usize, usize),
    /// What the message would have held.
    pub value: Vec<u8>,
    /// The format of that.
    pub format: Format,
}

impl Aside {
    /// A name of a file that no other cell has: `RELEASE-PART-OF.jsonl`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}-{}.{}", self.cell.release, self.part.0, self.part.1, self.format.message_extension())
    }
}

/// Cuts the releases of an entry.
///
/// # Errors
/// As [`cut`].
pub(super) fn cut_all(releases: &[Released], format: Format, limit: Limit) -> Result<Cut, Error> {
    let mut all = Cut::default();
    for released in releases {
        let cut = cut(released, format, limit)?;
        all.messages.extend(cut.messages);
        all.aside.extend(cut.aside);
    }
    Ok(all)
}

/// Cuts a release.
///
/// # Errors
/// When a cell is larger than a limit that the topic did not tell: the client's, or one that was learned and may be too low.
fn cut(released: &Released, format: Format, limit: Limit) -> Result<Cut, Error> {
    let rows = released.cells().num_rows();
    // The most parts first: their numbers make the headers longest.
    let named = Named::of(released);
    let around = AROUND + size(named.dataset, &attributes(&named, format, Some((rows, rows))));
    let room = limit.bytes.saturating_sub(around);
    let mut parts = 1;
    loop {
        let values = encode::parts(released, format, parts)?;
        let largest = values.iter().map(Vec::len).max().unwrap_or(0);
        let is_whole = largest <= room;
        if !is_whole && parts >= rows && limit.whose != Whose::Topic {
            return Err(Error::TooLarge(Box::new(too_large(released, largest + around, limit))));
        }
        if is_whole || parts >= rows {
            let (of, mut cut) = (values.len(), Cut::default());
            for (value, part) in values.into_iter().zip(1..) {
                if value.len() > room {
                    let cell = too_large(released, value.len() + around, limit);
                    cut.aside.push(Aside { cell, part: (part, of), value, format });
                    continue;
                }
                let attributes = attributes(&named, format, (of > 1).then_some((part, of)));
                let bytes = AROUND + size(released.dataset(), &attributes) + value.len();
                let (key, headers) = (released.dataset().to_string(), headers(&attributes));
                cut.messages.push(Message { key, value, headers, bytes });
            }
            return Ok(cut);
        }
        // As many as it takes if cells are alike, and at least one more than before.
        let wanted = (parts * largest).div_ceil(room.max(1));
        parts = wanted.max(parts + 1).min(rows);
    }
}

fn too_large(released: &Released, bytes: usize, limit: Limit) -> TooLarge {
    TooLarge {
        release: released.id().to_owned(),
        dataset: released.dataset().clone(),
        window: (encode::rfc3339(released.window_start()), encode::rfc3339(released.window_end())),
        bytes,
        limit: limit.bytes,
        whose: limit.whose,
    }
}

type Attributes = Vec<(&'static str, String)>;

/// The most bytes that one cell takes as a message of its own.
pub(super) fn widest(widest: &Widest, format: Format) -> Result<usize, encode::Error> {
    let named = Named {
        id: widest.id(),
        gateway: widest.gateway(),
        dataset: widest.dataset(),
        window_end: widest.window_end(),
        policy: Digest::from_bytes([0; 32]),
        degraded: None,
    };
    let attributes = attributes(&named, format, Some((CELLS_MAX, CELLS_MAX)));
    Ok(AROUND + DEGRADED_BYTES + size(named.dataset, &attributes) + encode::widest(widest, format)?)
}

/// What is said of a release beside its cells.
struct Named<'n> {
    id: &'n str,
    gateway: &'n GatewayId,
    dataset: &'n DatasetName,
    window_end: i64,
    policy: Digest,
    /// The steps that made it smaller.
    degraded: Option<String>,
}

impl<'n> Named<'n> {
    fn of(released: &'n Released) -> Self {
        Self {
            id: released.id(),
            gateway: released.gateway(),
            dataset: released.dataset(),
            window_end: released.window_end(),
            policy: released.policy(),
            degraded: released.made_smaller().map(Reduced::text),
        }
    }
}

/// CloudEvents 1.0, Kafka binary mode. A part has an id of its own, and says of which release it is.
fn attributes(named: &Named<'_>, format: Format, part: Option<(usize, usize)>) -> Attributes {
    let (id, content) = (named.id, format.content());
    let mut attributes = vec![
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", part.map_or_else(|| id.to_owned(), |(part, of)| format!("{id}-{part}/{of}"))),
        ("ce_source", format!("/bailiwick/{}", named.gateway)),
        ("ce_type", "dev.bailiwick.release".to_owned()),
        ("ce_subject", named.dataset.to_string()),
        ("ce_time", encode::rfc3339(named.window_end)),
        ("ce_bailiwickpolicy", named.policy.to_string()),
        ("ce_dataschema", content.schema.to_owned()),
        ("content-type", content.media_type.to_owned()),
    ];
    attributes.extend(content.encoding.map(|encoding| ("content-encoding", encoding.to_owned())));
    attributes.extend(named.degraded.clone().map(|steps| ("ce_bailiwickdegraded", steps)));
    if let Some((part, of)) = part {
        attributes.push(("ce_bailiwickrelease", id.to_owned()));
        attributes.push(("ce_bailiwickpart", part.to_string()));
        attributes.push(("ce_bailiwickparts", of.to_string()));
    }
    attributes
}

/// What key and headers take. Each length of a header is a number of up to five bytes.
fn size(key: &str, attributes: &Attributes) -> usize {
    key.len() + attributes.iter().map(|(name, value)| 10 + name.len() + value.len()).sum::<usize>()
}

fn headers(attributes: &Attributes) -> OwnedHeaders {
    let owned = OwnedHeaders::new_with_capacity(attributes.len());
    attributes.iter().fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value) }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, RecordBatch, StringArray};
    use arrow_schema::{DataType, Field, Schema};
    use rdkafka::message::Headers;

    use super::*;
    use crate::domain::policy::{Digest, ReleasedParts};

    fn released(words: Vec<String>) -> Released {
        let fields = vec![Field::new("word", DataType::Utf8, false), Field::new("count", DataType::Int64, false)];
        let counts = Int64Array::from_iter_values(0..words.len() as i64);
        let columns = vec![Arc::new(StringArray::from(words)) as _, Arc::new(counts) as _];
        let parts = ReleasedParts {
            id: "f5a6f5cc3626c88dffcb11739f4282e7".to_owned(),
            destination: "desk".parse().unwrap(),
            dataset: "cells".parse().unwrap(),
            gateway: "eu-1".parse().unwrap(),
            window_start: 0,
            window_end: 60_000_000,
            policy: Digest::from_bytes([7; 32]),
            cells: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(),
        };
        Released::for_tests(parts)
    }

    fn limit(bytes: usize) -> Limit {
        Limit { bytes, whose: Whose::Topic }
    }

    /// The messages of a release whose cells all fit.
    fn messages(released: &Released, format: Format, limit: Limit) -> Result<Vec<Message>, Error> {
        let cut = cut(released, format, limit)?;
        assert!(cut.aside.is_empty());
        Ok(cut.messages)
    }

    fn header(message: &Message, name: &str) -> Option<String> {
        let found = message.headers.iter().find(|header| header.key == name)?;
        Some(String::from_utf8(found.value?.to_vec()).unwrap())
    }

    #[test]
    fn a_release_that_fits_is_one_message_with_the_releases_id() {
        let messages =
            messages(&released(vec!["a".into(), "b".into()]), Format::JsonLines, limit(CLIENT_BYTES)).unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!(header(&messages[0], "ce_id").unwrap(), "f5a6f5cc3626c88dffcb11739f4282e7");
        assert_eq!(header(&messages[0], "ce_bailiwickpart"), None);
        assert_eq!(header(&messages[0], "ce_bailiwickdegraded"), None);
    }

    #[test]
    fn parts_fit_hold_each_cell_once_in_order_and_are_the_same_again() {
        let words: Vec<String> = (0..5_000).map(|n| format!("{n:05}-{}", "x".repeat(n % 97))).collect();
        let released = released(words.clone());
        for bytes in [2_000, 10_000, 100_000, 300_000] {
            let first = messages(&released, Format::JsonLines, limit(bytes)).unwrap();
            let again = messages(&released, Format::JsonLines, limit(bytes)).unwrap();
            assert!(first.iter().zip(&again).all(|(a, b)| a.value == b.value && a.bytes == b.bytes));
            assert!(first.iter().all(|message| message.bytes <= bytes), "{bytes}");
            let cells = first.iter().flat_map(|message| {
                let text = String::from_utf8(message.value.clone()).unwrap();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            });
            let read: Vec<String> = cells
                .map(|line| {
                    serde_json::from_str::<serde_json::Value>(&line).unwrap()["word"].as_str().unwrap().to_owned()
                })
                .collect();
            assert_eq!(read, words, "{bytes}");
            let of = first.len();
            assert!(of > 1);
            for (index, message) in first.iter().enumerate() {
                let id = format!("f5a6f5cc3626c88dffcb11739f4282e7-{}/{of}", index + 1);
                assert_eq!(header(message, "ce_id").unwrap(), id);
                assert_eq!(header(message, "ce_bailiwickrelease").unwrap(), "f5a6f5cc3626c88dffcb11739f4282e7");
                assert_eq!(header(message, "ce_bailiwickpart").unwrap(), (index + 1).to_string());
                assert_eq!(header(message, "ce_bailiwickparts").unwrap(), of.to_string());
            }
        }
    }

    #[test]
    fn as_many_cells_as_a_window_may_have_fit_a_topic_as_it_is_made() {
        let released = released((0..65_536).map(|n| format!("{n:0>180}")).collect());
        for format in [Format::JsonLines, Format::Protobuf] {
            let parts = messages(&released, format, limit(CLIENT_BYTES)).unwrap();
            assert!(parts.len() > 10 && parts.iter().all(|message| message.bytes <= CLIENT_BYTES), "{format:?}");
        }
    }

    #[test]
    fn a_smaller_release_says_so_in_a_header_and_has_the_mark_of_the_whole() {
        use super::super::mark::Mark;
        use crate::domain::policy::{By, Reduction, Step, Top};

        let whole = released(vec!["a".into(), "b".into()]);
        let top = Step::Top(Top { rows: 1, by: By::Metric("count".to_owned()) });
        let smaller = whole.reduced(&Reduction(vec![top])).unwrap();
        let message = messages(&smaller, Format::JsonLines, limit(CLIENT_BYTES)).unwrap().remove(0);
        assert_eq!(header(&message, "ce_bailiwickdegraded").as_deref(), Some("top"));
        assert_eq!(header(&message, "ce_id").as_deref(), Some(smaller.id()));
        assert_ne!(smaller.id(), whole.id());
        assert_eq!(Mark::of(&[smaller]), Mark::of(&[whole]));
    }

    /// Words that cannot be compressed much, each in so many cells in a row.
    fn hashes(words: usize, cells: usize) -> Vec<String> {
        use sha2::{Digest, Sha256};

        let word =
            |number: usize| Sha256::digest(number.to_le_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        (0..words * cells).map(|cell| word(cell / cells)).collect()
    }

    #[test]
    fn compressed_columns_are_cut_as_well() {
        let words = hashes(1_000, 5);
        let released = released(words.clone());
        let parts = messages(&released, Format::Arrow, limit(20_000)).unwrap();
        let again = messages(&released, Format::Arrow, limit(20_000)).unwrap();
        assert!(parts.len() > 1 && parts.iter().all(|message| message.bytes <= 20_000));
        assert!(parts.iter().zip(&again).all(|(a, b)| a.value == b.value && a.bytes == b.bytes));
        let rows = parts.iter().map(|message| {
            let stream = zstd::bulk::decompress(&message.value, 1 << 24).unwrap();
            let reader = arrow_ipc::reader::StreamReader::try_new(stream.as_slice(), None).unwrap();
            reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>()
        });
        assert_eq!(rows.sum::<usize>(), words.len());
        assert_eq!(header(&parts[0], "content-encoding").as_deref(), Some("zstd"));
        assert_eq!(header(&parts[0], "content-type").as_deref(), Some("application/vnd.apache.arrow.stream"));
        assert_eq!(header(&parts[0], "ce_dataschema").as_deref(), Some("urn:bailiwick:cells:arrow:3"));
    }

    #[test]
    fn a_cell_larger_than_a_message_is_named_with_the_limit_and_whose_it_is() {
        for (whose, name) in [(Whose::Client, "`message.max.bytes`"), (Whose::Learned, "refused larger messages")] {
            let limit = Limit { bytes: 3_000, whose };
            let error = cut(&released(vec!["x".repeat(5_000)]), Format::JsonLines, limit).unwrap_err().to_string();
            for part in [
                "f5a6f5cc3626c88dffcb11739f4282e7",
                "`cells`",
                "1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z",
                "limit of 3000",
                name,
            ] {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert!(!error.contains("xxx"), "{error}");
        }
    }

    #[test]
    fn a_cell_that_the_topic_does_not_take_is_set_aside_and_the_others_keep_their_parts() {
        let words = ["a".repeat(100), "b".repeat(5_000), "c".repeat(100), "d".repeat(9_000)];
        for format in [Format::JsonLines, Format::Protobuf] {
            let cut = cut(&released(words.to_vec()), format, limit(4_000)).unwrap();
            let parts = |message: &Message| (header(message, "ce_bailiwickpart"), header(message, "ce_bailiwickparts"));
            let sent: Vec<_> = cut.messages.iter().map(parts).collect();
            let numbered = |part: &str| (Some(part.to_owned()), Some("4".to_owned()));
            assert_eq!(sent, [numbered("1"), numbered("3")], "{format:?}");
            let aside: Vec<_> = cut.aside.iter().map(|aside| aside.part).collect();
            assert_eq!(aside, [(2, 4), (4, 4)]);
            assert!(cut.messages.iter().all(|message| message.bytes <= 4_000));
            let names: Vec<String> = cut.aside.iter().map(Aside::file_name).collect();
            let extension = format.message_extension();
            assert_eq!(names[0], format!("f5a6f5cc3626c88dffcb11739f4282e7-2-4.{extension}"));
            let holds =
                |aside: &Aside, word: &str| aside.value.windows(word.len()).any(|found| found == word.as_bytes());
            assert!(holds(&cut.aside[0], &words[1]) && holds(&cut.aside[1], &words[3]));
            assert!(!cut.aside[1].cell.to_string().contains("ddd"));
        }
        let alone = cut(&released(vec!["x".repeat(5_000)]), Format::JsonLines, limit(3_000)).unwrap();
        assert_eq!((alone.messages.len(), alone.aside.len(), alone.aside[0].part), (0, 1, (1, 1)));
    }

    #[test]
    fn the_least_limit_counts() {
        let of = |client, topic, learned| Limit::of(client, topic, learned);
        assert_eq!(of(10, None, None), Limit { bytes: 10, whose: Whose::Client });
        assert_eq!(of(10, Some(5), None), Limit { bytes: 5, whose: Whose::Topic });
        assert_eq!(of(10, Some(50), Some(5)), Limit { bytes: 10, whose: Whose::Client });
        assert_eq!(of(10, None, Some(5)), Limit { bytes: 5, whose: Whose::Learned });
    }

    #[test]
    fn the_widest_cell_of_a_dataset_is_measured_with_all_that_is_around_it() {
        use crate::domain::dataset::samples::plain;
        use crate::domain::dataset::{Dataset, Function, GroupKey, KeyDomain, Metric};

        // What cannot be compressed is the widest.
        let word = format!("{}\"", hashes(12, 1).concat());
        let dataset = Dataset {
            name: "cells".parse().unwrap(),
            open_max: 100,
            keys: vec![GroupKey { name: "word".into(), column: 0, domain: KeyDomain::text(vec![word.clone()]) }],
            metrics: vec![Metric { name: "count".into(), function: Function::Count, digits: None }],
            ..plain()
        };
        let wide = Widest::of(&dataset, &"eu-1".parse().unwrap()).unwrap();
        for (_, format) in Format::NAMES.into_iter().filter(|(_, format)| format.is_for_messages()) {
            let bytes = widest(&wide, format).unwrap();
            // Whatever comes of the dataset has fewer columns than that here, and fits.
            assert!(messages(&released(vec![word.clone()]), format, limit(bytes)).is_ok(), "{format:?}");
            assert!(bytes > word.len() + AROUND && bytes < 4_000, "{bytes}");
        }
    }
}
