//! Records that are looked at again: decoded as the gateway decodes them, or as its journal holds them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use arrow_array::{RecordBatch, new_null_array};

use crate::config::Config;
use crate::decode::{self, Opened, Undecodable, arrow};
use crate::domain::batch::Candidate;
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::policy::{Digest, PolicySet, StreamPlan, Treatment};
use crate::domain::stream::Stream;
use crate::durable::entry::{Accepted, BatchReader, Before, Catalog, Entry, Unread};
use crate::durable::seal::{Sealed, Sealer};
use crate::storage::{self, FileSystem, Lsn, RealFileSystem};

use super::send::Records;

/// Decodes records as the gateway does. The inner error refuses all of them.
pub(super) fn decode(stream: &Arc<Stream>, records: &Records) -> anyhow::Result<Result<Candidate, Undecodable>> {
    let opened = Opened::new(&mut arrow::Layout::default(), stream, records.payload()?.into(), decode::Limits::NONE);
    Ok(opened.and_then(|opened| opened.decode()).map(|decoded| decoded.candidate))
}

/// A stream that the policies declare.
pub(super) fn plan<'p>(policy: &'p PolicySet, stream: &str) -> anyhow::Result<&'p StreamPlan> {
    let known: Vec<&str> = policy.streams.keys().map(AsRef::as_ref).collect();
    let plan = policy.streams.get(stream);
    plan.with_context(|| format!("there is no stream `{stream}`; declared: {}", known.join(", ")))
}

/// Records of one entry of a journal.
pub(super) struct Journaled {
    pub(super) lsn: Lsn,
    /// Who sent them, and how many records each in a row.
    pub(super) requests: Vec<(String, usize)>,
    pub(super) stream: StreamName,
    /// The policies they were decided under.
    pub(super) policy: Digest,
    pub(super) rows: u32,
    /// The columns; `Err` says why they cannot be read any more.
    pub(super) columns: Result<RecordBatch, String>,
}

/// A step of a journal.
pub(super) enum Step {
    /// Records.
    Records(Journaled),
    /// Windows of a dataset closed: those before.
    Closed(DatasetName, Before),
    /// All open windows of a dataset were released as they were.
    Flushed(DatasetName),
}

/// The entries of a journal, in order.
pub(super) struct Journal {
    entries: storage::Reader,
    sealer: Sealer,
    catalog: Option<(Arc<[u8]>, Catalog)>,
}

impl Journal {
    /// The journal in the directory that `[journal] directory` names. The gateway may be running. The keys of the
    /// configuration open what is sealed.
    pub(super) fn open(directory: &Path, config: &Config) -> anyhow::Result<Self> {
        let (fs, log): (Arc<dyn FileSystem>, _) = (Arc::new(RealFileSystem), directory.join("log"));
        if !log.is_dir() {
            bail!("no journal in {}: there is no directory `log`", directory.display());
        }
        let entries = storage::entries(fs, &log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(Self { entries, sealer: Sealer::new(Arc::clone(&config.journal.keys)), catalog: None })
    }

    /// The next batch from an LSN on.
    pub(super) fn next(&mut self, from: Lsn) -> anyhow::Result<Option<Journaled>> {
        while let Some(step) = self.next_step(from)? {
            if let Step::Records(journaled) = step {
                return Ok(Some(journaled));
            }
        }
        Ok(None)
    }

    /// The next step from an LSN on.
    pub(super) fn next_step(&mut self, from: Lsn) -> anyhow::Result<Option<Step>> {
        while let Some(storage::Entry { lsn, context, payload }) = self.entries.next()? {
            if lsn < from {
                continue;
            }
            return Ok(Some(match Entry::decode(&payload) {
                Some(Entry::Batch(accepted)) => Step::Records(self.read(lsn, &context, &accepted)?),
                Some(Entry::Closed { dataset, before, .. }) => Step::Closed(dataset, before),
                Some(Entry::Flushed { dataset }) => Step::Flushed(dataset),
                _ => continue,
            }));
        }
        Ok(None)
    }

    fn read(&mut self, lsn: Lsn, context: &Arc<[u8]>, accepted: &Accepted<'_>) -> anyhow::Result<Journaled> {
        let known = self.catalog.take().filter(|(known, _)| Arc::ptr_eq(known, context));
        let catalog = match known {
            Some((_, catalog)) => catalog,
            None => Catalog::decode(context).with_context(|| format!("entry {lsn}: the schemas cannot be read"))?,
        };
        let reader = BatchReader::new(&catalog, &accepted.head.stream);
        let mut reader = reader.with_context(|| format!("entry {lsn} cannot be read"))?;
        let columns = match reader.columns(accepted, &mut self.sealer) {
            Ok(columns) => Ok(columns),
            Err(Unread::Sealed(Sealed::KeyMissing(regimes))) => {
                let regimes: Vec<&str> = regimes.iter().map(String::as_str).collect();
                Err(format!("erased: there is no key of {}", regimes.join(", ")))
            }
            Err(Unread::Sealed(Sealed::DoesNotOpen(_))) => {
                Err("sealed: a key is not the one that it was sealed with".to_owned())
            }
            Err(Unread::Arrow(error)) => return Err(anyhow!(error).context(format!("entry {lsn} cannot be read"))),
        };
        self.catalog = Some((Arc::clone(context), catalog));
        Ok(Journaled {
            lsn,
            requests: accepted.requests.iter().map(|sent| (sent.producer.to_owned(), sent.rows as usize)).collect(),
            stream: accepted.head.stream.clone(),
            policy: Digest::from_bytes(accepted.head.policy),
            rows: accepted.rows(),
            columns,
        })
    }
}

/// Columns of the journal as a stream declares them now; what it did not hold is null. They were checked before they
/// were written, and are not checked again: what was dropped on the way would be missing.
pub(super) fn as_declared(stream: &Arc<Stream>, columns: &RecordBatch) -> anyhow::Result<Candidate> {
    let rows = columns.num_rows();
    let mut present = Vec::with_capacity(stream.fields.len());
    for field in &stream.fields {
        let data_type = field.field_type.arrow();
        let column = columns.column_by_name(&field.name).cloned();
        let column = column.unwrap_or_else(|| new_null_array(&data_type, rows));
        if *column.data_type() != data_type {
            bail!("field `{}` of stream `{}` was of another type in the journal", field.name, stream.name);
        }
        present.push(column);
    }
    let columns = RecordBatch::try_new(Arc::clone(&stream.schema), present)?;
    Ok(Candidate::new(Arc::clone(stream), columns, Vec::new()))
}

/// The fields that serve as evidence and are not in the journal as they were sent, each with what became of it.
pub(super) fn treated(plan: &StreamPlan) -> Vec<(&str, &'static str)> {
    let mut treated = Vec::new();
    for (position, field) in plan.stream.fields.iter().enumerate() {
        let is_evidence = plan.evidence.iter().any(|evidence| evidence.source.fields().contains(&position));
        let became = match plan.treatments.of(position) {
            None => continue,
            Some(Treatment::Drop) => "dropped",
            Some(Treatment::Pseudonymise(_)) => "pseudonymised",
            Some(_) => "generalised",
        };
        if is_evidence {
            treated.push((field.name.as_str(), became));
        }
    }
    treated
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array, StringArray};

    use super::*;
    use crate::domain::document::{Problems, Source};
    use crate::domain::policy;

    const FILES: [&str; 2] = [
        "schema = \"bailiwick.classes/1\"\n[classes.personal]\nabout = \"people\"\n",
        r#"
schema = "bailiwick.policy/1"
[streams.calls]
event_time  = "at"
contributor = "who"
undeclared  = "refuse"
[streams.calls.facts]
"subject.residence" = [
  { field = "home", strength = 90 },
  { field = "email", strength = 50 },
  { field = "area", strength = 50 },
]
[streams.calls.fields]
at    = { type = "timestamp", class = "personal" }
who   = { type = "string", class = "personal" }
home  = { type = "string", class = "personal" }
email = { type = "string", class = "personal", treatment = "drop" }
area  = { type = "string", class = "personal", treatment = "generalise", words = ["DE"] }
other = { type = "string", class = "personal", treatment = "drop" }
"#,
    ];

    fn declared() -> PolicySet {
        let files = FILES.map(|text| Arc::new(Source::new("a.toml", text)));
        let problems = Problems::default();
        let policy = policy::read(&files, &problems);
        assert!(!problems.any_error(), "{:?}", problems.into_vec());
        policy
    }

    #[test]
    fn evidence_that_the_journal_does_not_hold_as_it_was_is_named() {
        let policy = declared();
        assert_eq!(treated(plan(&policy, "calls").unwrap()), [("email", "dropped"), ("area", "generalised")]);
    }

    #[test]
    fn columns_of_the_journal_become_those_that_are_declared_now() {
        let policy = declared();
        let stream = &plan(&policy, "calls").unwrap().stream;
        let text: ArrayRef = Arc::new(StringArray::from(vec!["DE", "FR"]));
        let columns = RecordBatch::try_from_iter([("gone", Arc::clone(&text)), ("home", text)]).unwrap();
        assert_eq!(as_declared(stream, &columns).unwrap().rows(), 2);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let columns = RecordBatch::try_from_iter([("home", numbers)]).unwrap();
        let error = as_declared(stream, &columns).err().unwrap();
        assert_eq!(error.to_string(), "field `home` of stream `calls` was of another type in the journal");
    }

    #[test]
    fn a_stream_that_is_not_declared_is_named_with_those_that_are() {
        let error = plan(&declared(), "cals").err().unwrap();
        assert_eq!(error.to_string(), "there is no stream `cals`; declared: calls");
    }
}
