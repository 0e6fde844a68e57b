//! What the entries of a segment are about, as it is declared now. A segment's catalog says how it was declared then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field};

use super::super::entry::{BatchReader, Before, Catalog};
use super::{Brought, Closed, Error, Present, Step};
use crate::domain::batch::Batch;
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::policy::Digest;
use crate::domain::window::window_start;
use crate::storage::Lsn;

/// How the streams of a segment become the present ones. Kept for one segment at a time.
pub(super) struct Mapping {
    present: Vec<Present>,
    context: Option<Arc<[u8]>>,
    /// `None`: it cannot be read.
    catalog: Option<Catalog>,
    streams: BTreeMap<StreamName, Mapped>,
}

pub(super) struct Mapped {
    pub(super) reader: BatchReader,
    pub(super) present: Present,
}

impl Mapping {
    pub(super) fn new(present: &[Present]) -> Self {
        Self { present: present.to_vec(), context: None, catalog: None, streams: BTreeMap::new() }
    }

    /// What an entry of a segment says was closed or flushed, of all that is counted now for the datasets that shared their
    /// cells then: the entry has the name of the first, which may not be declared any more. Nothing, if none of them is.
    /// Where the entry gives a window's number, its size is taken to be the declared one.
    pub(super) fn closed(
        &mut self,
        lsn: Lsn,
        context: &Arc<[u8]>,
        dataset: &DatasetName,
        before: Option<Before>,
    ) -> Vec<Closed> {
        self.turn_to(context);
        let sharing = self.catalog.iter().flat_map(|catalog| catalog.sharing(dataset));
        let names: BTreeSet<&DatasetName> = sharing.chain([dataset]).collect();
        let datasets = self.present.iter().flat_map(|present| &present.datasets);
        let counted = datasets.filter(|declared| names.iter().any(|name| declared.is_counted_for(name)));
        let closed = counted.map(|declared| {
            let before = before.map(|before| match before {
                Before::Time(time) => time,
                Before::Window(window) => window_start(window, declared.window),
            });
            Closed { lsn, dataset: declared.name.clone(), before }
        });
        closed.collect()
    }

    /// The next entries are of a segment with this catalog.
    fn turn_to(&mut self, context: &Arc<[u8]>) {
        if !self.context.as_ref().is_some_and(|known| Arc::ptr_eq(known, context)) {
            self.catalog = Catalog::decode(context);
            self.context = Some(Arc::clone(context));
            self.streams.clear();
        }
    }

    pub(super) fn of(&mut self, context: &Arc<[u8]>, stream: &StreamName) -> Result<&mut Mapped, Error> {
        let cannot = |message: &str| Error::Stream { stream: stream.clone(), message: message.to_owned() };
        self.turn_to(context);
        let catalog = self.catalog.as_ref().ok_or_else(|| cannot("the segment's schemas cannot be read"))?;
        if !self.streams.contains_key(stream) {
            let present = self.present.iter().find(|present| present.stream.name == *stream);
            let present = present.ok_or_else(|| cannot("it is not declared"))?.clone();
            let recorded = catalog.schema(stream).ok_or_else(|| cannot("the segment has no schema of it"))?;
            let declared = present.stream.schema.fields().iter().map(AsRef::as_ref).chain(&present.outputs);
            for field in declared {
                // A field that was not declared then is null in the records of that time.
                if recorded.field_with_name(field.name()).is_ok_and(|old| old.data_type() != field.data_type()) {
                    return Err(cannot(&format!("field `{}` was of another type", field.name())));
                }
            }
            for (dataset, then) in catalog.datasets(stream) {
                let changed = |changes: String| Error::Dataset { dataset: dataset.clone(), changes };
                let declared = present.datasets.iter().find(|declared| declared.is_counted_for(dataset));
                let declared = declared.ok_or_else(|| changed("it is not declared any more".to_owned()))?;
                let changes = then.differences(&declared.shape());
                if !changes.is_empty() {
                    return Err(changed(changes.join("; ")));
                }
            }
            let reader = BatchReader::new(catalog, stream).map_err(|error| cannot(&error.to_string()))?;
            self.streams.insert(present.stream.name.clone(), Mapped { reader, present });
        }
        self.streams.get_mut(stream).ok_or_else(|| cannot("it is not declared"))
    }
}

impl Mapped {
    pub(super) fn fold(
        &self,
        lsn: Lsn,
        columns: &RecordBatch,
        policy: Digest,
        senders: Vec<Brought>,
    ) -> Result<Step, ArrowError> {
        let column = |field: &Field| {
            let column = columns.column_by_name(field.name());
            column.cloned().unwrap_or_else(|| new_null_array(field.data_type(), columns.num_rows()))
        };
        let fields = self.present.stream.schema.fields().iter().map(|field| column(field)).collect();
        let outputs = self.present.outputs.iter().map(column).collect();
        let batch = Batch::restored(Arc::clone(&self.present.stream), fields)?;
        Ok(Step::Fold { lsn, batch, outputs, policy, senders })
    }
}
