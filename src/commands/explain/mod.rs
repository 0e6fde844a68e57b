//! `bailiwick explain`: what the policies in force make of records, and why.

use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};

use crate::app;
use crate::clock::wall_clock;
use crate::config::Config;
use crate::domain::event_time::TimeBounds;
use crate::domain::evidence::Sender;
use crate::domain::fact::Kind;
use crate::domain::peer::Peer;
use crate::domain::policy::{Denied, Explanation, Flow, Spoken, StreamPlan, Version};
use crate::files;
use crate::storage::Lsn;

use super::records::{Journal, as_declared, decode, plan, treated};
use super::send::{Batch, Format, Input};
use super::{Failure, load};

mod json;
mod text;

/// Which records, and how they are told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the records are.
    pub records: From,
    /// The producer's network address.
    pub address: Option<IpAddr>,
    /// Whether machines read it: a JSON object per record.
    pub json: bool,
}

/// Where the records are.
#[derive(Debug, Clone)]
pub enum From {
    /// JSON objects, one per line.
    Lines {
        /// The file; `None`: stdin.
        file: Option<PathBuf>,
        /// The stream they are of.
        stream: String,
        /// Who sends them.
        producer: String,
        /// Who has proved to send them. With it, an empty name is the one that the policy has for it.
        identity: Option<String>,
    },
    /// An entry of the journal.
    Journal {
        /// The directory; `None`: the configured one.
        directory: Option<PathBuf>,
        /// The entry.
        lsn: Lsn,
        /// The one record, by its position.
        row: Option<u32>,
    },
}

/// Explained records of one stream, and where their cells may go.
struct Told<'t> {
    explanations: Vec<Explanation>,
    flows: Vec<Flow>,
    version: &'t Version,
    /// Who sends, and whether it may.
    asked: Option<(String, Result<Spoken, Denied>)>,
    /// Of the journal: the entry, and what is to be known of it.
    entry: Option<Lsn>,
    notes: Vec<String>,
}

/// How many lines are decoded together.
const TOGETHER: usize = 512;

/// Explains records. The report for stdout.
///
/// # Errors
/// When the configuration cannot be used, or there are no such records.
pub fn explain(path: &Path, options: &Options) -> Result<String, Failure> {
    let config = load(path)?;
    let version = app::version(&config)?;
    let told = match &options.records {
        From::Lines { file, stream, producer, identity } => {
            let plan = plan(&version.policy, stream)?;
            let asked = identity.as_ref().map(|identity| version.policy.access.of(identity).write(stream, producer));
            let producer = match &asked {
                Some(Ok(spoken)) => &*spoken.producer,
                _ => producer.as_str(),
            };
            let mut told = lines(&version, plan, file.as_deref(), Sender { producer, address: options.address })?;
            told.asked = identity.clone().zip(asked);
            told
        }
        From::Journal { directory, lsn, row } => {
            let directory = directory.as_ref().unwrap_or(&config.journal.directory);
            journaled(&config, &version, directory, *lsn, *row, options.address)?
        }
    };
    Ok(if options.json { json::render(&told) } else { text::render(&told) })
}

impl Told<'_> {
    /// The regimes that a record's own facts bring in, when a record that is refused or redirected could only have gone
    /// to a peer that serves them all, and none does. `None` when there is such a peer.
    fn served_by_no_peer<'e>(&self, explanation: &'e Explanation) -> Option<Vec<&'e str>> {
        let regimes: Vec<&str> = explanation
            .regimes
            .iter()
            .filter(|applies| applies.by_facts)
            .map(|applies| applies.regime.as_str())
            .collect();
        let serves_all =
            |peer: &Arc<Peer>| regimes.iter().all(|regime| peer.serves.iter().any(|served| served == regime));
        let is_alone = !self.version.here.peers.iter().any(serves_all);
        is_alone.then_some(regimes)
    }
}

/// Where the cells of a stream's datasets may go.
fn flows(version: &Version, plan: &StreamPlan) -> Vec<Flow> {
    let mut flows = version.policy.flows(&version.here.serves, version.day);
    flows.retain(|flow| plan.datasets.iter().any(|dataset| dataset.name == flow.dataset));
    flows
}

fn lines<'v>(
    version: &'v Version,
    plan: &StreamPlan,
    file: Option<&Path>,
    from: Sender<'_>,
) -> anyhow::Result<Told<'v>> {
    file.map_or(Ok(()), files::regular)?;
    let input = Input::new(file.unwrap_or(Path::new("-")).to_owned(), Some(Format::Lines));
    let mut batches = input.batches(TOGETHER)?;
    // Whether a record is too late depends on the others, which are not here.
    let times = TimeBounds::plausible(&plan.stream, wall_clock().as_microsecond());
    let mut explanations: Vec<Explanation> = Vec::new();
    while let Some(Batch { records, malformed, name, .. }) = batches.next()? {
        if let Some(found) = malformed.first() {
            bail!("{name}:{} is not a record: {}", found.line, found.what);
        }
        let decoded = decode(&plan.stream, &records)?;
        let mut candidate = decoded.map_err(|error| anyhow!(error.message))?;
        candidate.check(&times);
        let before = u32::try_from(explanations.len()).unwrap_or(u32::MAX);
        let explained = version.explain(&candidate, from)?;
        explanations
            .extend(explained.into_iter().map(|told| Explanation { index: told.index.saturating_add(before), ..told }));
    }
    if explanations.is_empty() {
        bail!("there is no record in {}; write JSON objects, one per line", input.name());
    }
    Ok(Told { explanations, flows: flows(version, plan), version, asked: None, entry: None, notes: Vec::new() })
}

fn journaled<'v>(
    config: &Config,
    version: &'v Version,
    directory: &Path,
    lsn: Lsn,
    row: Option<u32>,
    address: Option<IpAddr>,
) -> anyhow::Result<Told<'v>> {
    let found = Journal::open(directory, config)?.next(lsn)?;
    let entry = found.filter(|entry| entry.lsn == lsn).with_context(|| {
        format!(
            "entry {lsn} of the journal holds no records: it is not there, was deleted after it was counted, or is \
             of another kind"
        )
    })?;
    let columns = entry.columns.map_err(|why| anyhow!("the records of entry {lsn} are {why}"))?;
    let plan = plan(&version.policy, &entry.stream)?;
    let (mut explanations, mut notes) = (Vec::new(), Vec::new());
    for (producer, own) in requests(&entry.requests, row, columns.num_rows())? {
        let candidate = as_declared(&plan.stream, &columns.slice(own.start, own.len()))?;
        let first = u32::try_from(own.start).unwrap_or(u32::MAX);
        let explained = version.explain(&candidate, Sender { producer, address })?;
        explanations
            .extend(explained.into_iter().map(|told| Explanation { index: told.index.saturating_add(first), ..told }));
        notes.push(format!("{} records of `{}` by `{producer}`", own.len(), entry.stream));
    }
    if entry.policy != version.digest() {
        let (then, now) = (entry.policy, version.digest());
        notes.push(format!("they were accepted under policy {then}; this is what policy {now} decides about them"));
    }
    for (field, became) in treated(plan) {
        notes.push(match became {
            "dropped" => format!("`{field}` was dropped before the journal: it is null here and gives no evidence"),
            _ => format!("`{field}` is {became} in the journal: as evidence it no longer says the same"),
        });
    }
    if address.is_none() && plan.evidence.iter().any(|evidence| evidence.source.kind() == Kind::GeoIp) {
        notes.push("the network address is not in the journal: give it with --address".to_owned());
    }
    Ok(Told { explanations, flows: flows(version, plan), version, asked: None, entry: Some(lsn), notes })
}

/// Who sent which records of an entry: all of them, or the one at a position.
fn requests(all: &[(String, usize)], row: Option<u32>, rows: usize) -> anyhow::Result<Vec<(&str, Range<usize>)>> {
    let position = row.map(|row| usize::try_from(row).unwrap_or(usize::MAX));
    if position.is_some_and(|position| position >= rows) {
        bail!("the entry has {rows} records; the first is --row 0");
    }
    let mut first = 0;
    let own = all.iter().map(|(producer, rows)| {
        let own = first..first + rows;
        first = own.end;
        (producer.as_str(), own)
    });
    Ok(match position {
        None => own.filter(|(_, own)| !own.is_empty()).collect(),
        Some(at) => own.filter(|(_, own)| own.contains(&at)).map(|(producer, _)| (producer, at..at + 1)).collect(),
    })
}
