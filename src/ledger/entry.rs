//! What the ledger says, entry by entry: one JSON object each, in one spelling only.
//!
//! Nothing here is personal data, because the ledger forgets nothing: names from the configuration, ids, digests, times,
//! salted commitments, and counts that say nothing of fewer than k contributors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::policy::ON_CHANGE;
use crate::domain::time::rfc3339;

/// The version of the entries that this program writes.
pub const VERSION: u32 = 10;
/// The longest entry, as `tlog-tiles` has it.
pub const BYTES_MAX: usize = 65_535;
/// The most releases in one entry, so that it is short enough.
pub const RELEASES_MAX: usize = 500;
/// The most streams in one entry.
pub const STREAMS_MAX: usize = 700;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of its layout.
    pub v: u32,
    /// When it was written, by the gateway's clock.
    pub time: String,
    /// What it says.
    #[serde(flatten)]
    pub what: What,
}

/// What an entry says. Its names are texts, also those of datasets and destinations: a ledger is read for many years, by those
/// who check it too, and an entry that was signed is read whatever a name may be by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A gateway started.
    Start {
        /// Its id.
        gateway: String,
        /// The version of the program.
        program: String,
        /// Whether nothing leaves.
        dry_run: bool,
        /// The SHA-256 of each model's file.
        models: BTreeMap<String, String>,
    },
    /// A gateway stopped as it was told to. A start without a stop before it follows a crash, or a stop that could not be
    /// written.
    Stop {
        /// Its id.
        gateway: String,
    },
    /// Policies came into force.
    Policy {
        /// Their digest, in full.
        policy: String,
        /// Whether they replaced others while the gateway ran.
        reload: bool,
    },
    /// A release is about to leave. Nothing of it has left.
    Intent {
        /// The release's id.
        release: String,
        /// Where it goes.
        destination: String,
        /// Its dataset.
        dataset: String,
        /// When its window began.
        window_start: String,
        /// When its window ended.
        window_end: String,
        /// The policies that it was released under.
        policy: String,
        /// Its cells.
        cells: u64,
        /// The SHA-256 of a secret salt and the release's cells as JSON lines.
        commitment: String,
        /// Where it stands in the outbox; of a file, where the last release of the file does.
        outbox: u64,
        /// What it was made of, where the budget did not suffice for the whole. `None`: it is whole. From version 7 on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        degraded: Option<Degraded>,
    },
    /// The destination has confirmed releases.
    Sent {
        /// Where they went.
        destination: String,
        /// Their ids.
        releases: Vec<String>,
        /// How many bytes were given to the destination for them, in all. 0 where an entry before this one says it, or where
        /// the destination turned out to have them.
        bytes: u64,
    },
    /// After a crash: there is an intent, and nothing says what became of it.
    Unsettled {
        /// The release's id.
        release: String,
        /// Where it was to go.
        destination: String,
        /// The entry with the intent.
        intent: u64,
        /// What is known.
        known: Known,
    },
    /// Cells of a closed window were withheld.
    Withheld {
        /// The dataset.
        dataset: String,
        /// When the window began.
        window_start: String,
        /// At least so many: a power of ten, and never less than 10 and k.
        at_least: u64,
        /// Where the closing stands in the outbox. Not in version 1.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        outbox: Option<u64>,
    },
    /// An override let cells go that the regimes' own k would have held back.
    Override {
        /// Its id.
        id: String,
        /// The dataset.
        dataset: String,
        /// The destination.
        destination: String,
        /// When the window began.
        window_start: String,
        /// Where the closing stands in the outbox. Not in version 1.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        outbox: Option<u64>,
    },
    /// Something on the gateway's disk was found damaged or missing at a start.
    Damage {
        /// Of what: `journal`, `outbox` or `ledger`.
        of: String,
        /// In how many places.
        places: u64,
    },
    /// Records of a stream were refused. The count is of records, not of persons: one person may be behind all of them. It is
    /// told in steps of twice k, and what is less than a step is told with a later closing. From version 3 on.
    Refused {
        /// The stream.
        stream: String,
        /// Windows that began before this time closed, and with them it was told. `None`: they were released as they were,
        /// at a stop.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        closed_before: Option<String>,
        /// The reason, by its name.
        reason: String,
        /// The ids of the rules that determined it, where rules did.
        rules: Vec<String>,
        /// The gateway that they belong to: the producer was told to send them there.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        to: Option<String>,
        /// How many since the last such entry of the same stream, reason, rules and gateway.
        records: u64,
        /// Where the closing stands in the outbox.
        outbox: u64,
    },
    /// What came of records in quarantine, since the last such entry, in the steps in which metrics tell it. From version 3
    /// on.
    Quarantine {
        /// Records that were put into it.
        held: u64,
        /// Records that were taken in from it, when more was known.
        released: u64,
        /// Records that were discarded.
        discarded: u64,
    },
    /// A gateway started with another model than before. From version 3 on.
    Model {
        /// The model.
        model: String,
        /// The SHA-256 of its file before; `None`: there was none.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        before: Option<String>,
        /// The SHA-256 of its file now; `None`: there is none any more.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        now: Option<String>,
    },
    /// Files were read again while the gateway ran. From version 3 on.
    Reload {
        /// Which ones.
        of: Reread,
        /// What came of it.
        outcome: Outcome,
    },
    /// A release was not sent and will not be, because the budget of its destination did not suffice. Nothing of it has left.
    /// After a crash it may be said twice. From version 4 on.
    Shed {
        /// The release's id.
        release: String,
        /// Where it was to go.
        destination: String,
        /// Its dataset.
        dataset: String,
        /// When its window began.
        window_start: String,
        /// When its window ended.
        window_end: String,
        /// Its cells.
        cells: u64,
        /// Where it stands in the outbox.
        outbox: u64,
        /// The dataset with longer windows that adds up its rows, if that is why it was not sent. From version 8 on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        widened: Option<String>,
    },
    /// A release was not sent and will not be, because no policy in force lets its dataset go to its destination any more. If an
    /// intent stands before, it may have left then. After a crash it may be said twice. From version 8 on.
    Denied {
        /// The release's id.
        release: String,
        /// Where it was to go.
        destination: String,
        /// Its dataset.
        dataset: String,
        /// When its window began.
        window_start: String,
        /// When its window ended.
        window_end: String,
        /// Its cells.
        cells: u64,
        /// Where it stands in the outbox.
        outbox: u64,
    },
    /// What a window of a dataset with differential privacy cost. All windows of a day (UTC) together cost no more than the
    /// day has. From version 5 on.
    Privacy {
        /// The dataset.
        dataset: String,
        /// When the window began.
        window_start: String,
        /// What came of it.
        outcome: Paid,
        /// What it cost: rho of zCDP, in billionths.
        rho_billionths: u64,
        /// Where the closing stands in the outbox.
        outbox: u64,
    },
    /// What the gateway worked in a part of a day (UTC): since it started, or since the last such entry of the same run ended.
    /// It is said when the day has ended, and at a stop. From version 6 on.
    Work {
        /// When that part begins. From version 10 on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        since: Option<String>,
        /// When it ends, at the latest with the day. From version 10 on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        until: Option<String>,
        /// What the process took of all cores, in whole seconds. Before version 10.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cpu_seconds: Option<u64>,
        /// What the process took of all cores. From version 10 on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cpu_milliseconds: Option<u64>,
        /// Records that it took in, in the steps in which metrics tell it.
        records: u64,
        /// Bytes of payloads that came in, in such steps, those of refused records too. From version 9 on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        bytes_in: Option<u64>,
        /// By stream: bytes of the payloads of records that were taken in, in the steps of the stream's metrics. A stream that
        /// is not there has less than a step. From version 10 on; not there if too many streams have some.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        bytes_accepted: Option<BTreeMap<String, u64>>,
    },
    /// So many entries were not written, because the ledger could not be. No intent is ever among them.
    Missed {
        /// How many.
        entries: u64,
    },
}

/// What a release was made of that leaves smaller than it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// The steps that made it smaller, in order.
    pub steps: Vec<String>,
    /// The id of the whole release.
    pub whole: String,
    /// The cells of the whole release.
    pub cells: u64,
}

impl Degraded {
    /// Whether it left as what had changed: its receiver can make the whole release, and nothing is left out.
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.steps == [ON_CHANGE]
    }
}

/// What came of a window of a dataset with differential privacy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paid {
    /// Its cells got noise, and those with enough contributors leave.
    Noised,
    /// The budget of its day was spent: nothing left, and it cost nothing.
    Spent,
    /// It was charged, and then there was a crash or a fault: nothing left.
    Lost,
}

/// What is known of a release after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// The destination had confirmed it. How many bytes it took is not known.
    Confirmed,
    /// Nothing: it may have left, in part or as a whole. It is sent again.
    Nothing,
}

/// Which files were read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reread {
    /// The configuration and the policies, as somebody asked for.
    Policies,
    /// Registries and databases, because a file was replaced.
    Registries,
}

/// What came of reading files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What they say is in force, and is not what was.
    Changed,
    /// They say what was in force.
    Unchanged,
    /// They cannot be used: what was in force stays.
    Refused,
}

/// Why bytes are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A later version of the program wrote it.
    #[error("it has version {0}; this program reads versions up to {VERSION}")]
    Newer(u32),
    /// It is something else.
    #[error("it is no entry of this version")]
    Malformed,
}

impl Entry {
    /// An entry of a moment, in microseconds since the Unix epoch.
    #[must_use]
    pub fn new(at: i64, what: What) -> Self {
        Self { v: VERSION, time: rfc3339(at), what }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Texts and numbers: there is nothing that cannot be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it was written otherwise, by so much as a space.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            v: u32,
        }
        let Versioned { v } = serde_json::from_slice(bytes).map_err(|_| Unreadable::Malformed)?;
        if v > VERSION {
            return Err(Unreadable::Newer(v));
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(|_| Unreadable::Malformed)?;
        if entry.encode() == bytes { Ok(entry) } else { Err(Unreadable::Malformed) }
    }
}

impl What {
    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Policy { .. } => "policy",
            Self::Intent { .. } => "intent",
            Self::Sent { .. } => "sent",
            Self::Unsettled { .. } => "unsettled",
            Self::Withheld { .. } => "withheld",
            Self::Override { .. } => "override",
            Self::Refused { .. } => "refused",
            Self::Quarantine { .. } => "quarantine",
            Self::Model { .. } => "model",
            Self::Reload { .. } => "reload",
            Self::Shed { .. } => "shed",
            Self::Denied { .. } => "denied",
            Self::Damage { .. } => "damage",
            Self::Privacy { .. } => "privacy",
            Self::Work { .. } => "work",
            Self::Missed { .. } => "missed",
        }
    }
}

/// What may be said of a number of withheld cells: the largest power of ten not above it that is at least 10 and k, and at
/// most half of the cells of which nothing is told. More could say of each of them that it is not empty. `None`: nothing, so
/// that a few are like none.
#[must_use]
pub fn coarse(cells: usize, of: usize, k: usize) -> Option<u64> {
    let (cells, least) = (cells.min(of / 2) as u64, (k as u64).max(10));
    let powers = std::iter::successors(Some(10_u64), |power| power.checked_mul(10));
    powers.take_while(|power| *power <= cells).filter(|power| *power >= least).last()
}

#[cfg(test)]
pub(super) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_as_it_was_written_once() {
        let golden = include_str!("../../tests/golden/ledger-entries-10.jsonl");
        let written: String =
            samples::all().iter().map(|entry| String::from_utf8(entry.encode()).unwrap() + "\n").collect();
        assert_eq!(written, golden);
        let read: Vec<Entry> = golden.lines().map(|line| Entry::decode(line.as_bytes()).unwrap()).collect();
        assert_eq!(read, samples::all());
        let kinds: std::collections::BTreeSet<&str> = read.iter().map(|entry| entry.what.kind()).collect();
        assert_eq!(kinds.len(), 18);
        for (entry, line) in read.iter().zip(golden.lines()) {
            assert!(line.contains(&format!("\"kind\":\"{}\"", entry.what.kind())), "{line}");
        }
    }

    /// What each version does not tell comes after what it does.
    #[test]
    fn entries_of_earlier_versions_tell_less() {
        let all = [
            (9, 21, include_str!("../../tests/golden/ledger-entries-9.jsonl")),
            (8, 20, include_str!("../../tests/golden/ledger-entries-8.jsonl")),
            (7, 18, include_str!("../../tests/golden/ledger-entries-7.jsonl")),
            (6, 17, include_str!("../../tests/golden/ledger-entries-6.jsonl")),
            (5, 16, include_str!("../../tests/golden/ledger-entries-5.jsonl")),
            (4, 15, include_str!("../../tests/golden/ledger-entries-4.jsonl")),
            (3, 14, include_str!("../../tests/golden/ledger-entries-3.jsonl")),
            (2, 10, include_str!("../../tests/golden/ledger-entries-2.jsonl")),
        ];
        for (v, entries, golden) in all {
            let read = golden.lines().map(|line| Entry::decode(line.as_bytes()).unwrap());
            let told = samples::all().into_iter().take(entries).map(|entry| Entry { v, ..entry });
            assert!(read.eq(told), "version {v}");
        }
    }

    #[test]
    fn entries_of_version_1_do_not_say_where_a_closing_stands() {
        let golden = include_str!("../../tests/golden/ledger-entries-1.jsonl");
        let read: Vec<Entry> = golden.lines().map(|line| Entry::decode(line.as_bytes()).unwrap()).collect();
        let without = samples::all().into_iter().take(10).map(|mut entry| {
            entry.v = 1;
            if let What::Withheld { outbox, .. } | What::Override { outbox, .. } = &mut entry.what {
                *outbox = None;
            }
            entry
        });
        assert!(read.into_iter().eq(without));
    }

    #[test]
    fn there_is_one_spelling() {
        let line = include_str!("../../tests/golden/ledger-entries-10.jsonl").lines().next().unwrap();
        for other in [line.replace(':', ": "), line.replace("eu-1", "\\u0065u-1"), line.replace("}}", "},\"x\":1}")] {
            assert_ne!(other, line);
            assert_eq!(Entry::decode(other.as_bytes()), Err(Unreadable::Malformed), "{other}");
        }
        assert_eq!(Entry::decode(line.replace("\"v\":10", "\"v\":11").as_bytes()), Err(Unreadable::Newer(11)));
        assert_eq!(Entry::decode(b""), Err(Unreadable::Malformed));
    }

    #[test]
    fn a_few_withheld_cells_are_like_none() {
        let said = [0, 9, 10, 99, 100, 12_345].map(|cells| coarse(cells, 100_000, 5));
        assert_eq!(said, [None, None, Some(10), Some(10), Some(100), Some(10_000)]);
        assert_eq!([11, 99, 100, 1_000].map(|cells| coarse(cells, 100_000, 50)), [None, None, Some(100), Some(1_000)]);
    }

    /// "At least 10" of 10 cells would tell that none of them is empty.
    #[test]
    fn no_more_than_half_of_the_cells_are_said_to_be_withheld() {
        assert_eq!([10, 19, 20, 199, 200].map(|of| coarse(10, of, 5)), [None, None, Some(10), Some(10), Some(10)]);
        assert_eq!([100, 150, 199, 200].map(|of| coarse(100, of, 5)), [Some(10), Some(10), Some(10), Some(100)]);
    }

    #[test]
    fn the_longest_entry_fits() {
        let name = "n".repeat(200);
        let releases = vec!["0".repeat(64); RELEASES_MAX];
        let entry = Entry::new(0, What::Sent { destination: name, releases, bytes: u64::MAX });
        assert!(entry.encode().len() <= BYTES_MAX);
        let streams = (0..STREAMS_MAX).map(|number| (format!("{number:0>64}"), u64::MAX));
        let part = Some("2026-11-26T00:00:00.000001Z".to_owned());
        let work = What::Work {
            since: part.clone(),
            until: part,
            cpu_seconds: None,
            cpu_milliseconds: Some(u64::MAX),
            records: u64::MAX,
            bytes_in: Some(u64::MAX),
            bytes_accepted: Some(streams.collect()),
        };
        assert!(Entry::new(0, work).encode().len() <= BYTES_MAX);
    }
}
