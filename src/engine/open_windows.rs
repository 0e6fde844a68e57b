//! Room in the open windows: records are taken in only when what they can add fits into what the windows may hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::domain::aggregate::{Full, OpenBytes, Reserved, most_added};
use crate::domain::batch::Batch;
use crate::domain::dataset::Dataset;
use crate::domain::name::StreamName;
use crate::domain::refusal::Reason;
use crate::durable::recovery::Present;

/// How long records wait before they look again, and how often, while others are being counted.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSES: usize = 1_000;

/// What all open windows hold, and the datasets that they are of.
pub(super) struct OpenWindowsRoom {
    open: Arc<OpenBytes>,
    datasets: BTreeMap<StreamName, Vec<Arc<Dataset>>>,
    /// It was said that they are full.
    is_full: AtomicBool,
    /// It was said that some records need more than all of it.
    is_too_small: AtomicBool,
}

impl OpenWindowsRoom {
    pub(super) fn new(open: Arc<OpenBytes>, present: &[Present]) -> Self {
        let datasets = present.iter().map(|present| (present.stream.name.clone(), present.datasets.clone()));
        let (is_full, is_too_small) = Default::default();
        Self { open, datasets: datasets.collect(), is_full, is_too_small }
    }

    /// Room for a batch, until it is counted. Waits while others are being counted that may need it. `with_producers`: who
    /// sent the records is kept with them.
    pub(super) async fn reserve(&self, batch: &Batch, with_producers: bool) -> Result<Reserved, Reason> {
        let stream = batch.stream().name.as_str();
        let datasets = self.datasets.get(stream).map_or(&[][..], Vec::as_slice);
        let most =
            datasets.iter().map(|dataset| most_added(dataset, batch.rows(), windows(dataset, batch), with_producers));
        let most = most.fold(0, usize::saturating_add);
        if most > self.open.max() {
            self.say_too_many(stream, batch.rows(), most);
            return Err(Reason::TooLarge);
        }
        for _ in 0..PAUSES {
            match self.open.reserve(most) {
                Ok(reserved) => {
                    self.say_room();
                    return Ok(reserved);
                }
                Err(Full::Reserved) => tokio::time::sleep(PAUSE).await,
                Err(Full::Held) => break,
            }
        }
        self.say_full(stream, batch.rows(), most);
        Err(Reason::WindowsFull)
    }

    /// Once: whoever sends so many goes on with it.
    fn say_too_many(&self, stream: &str, records: usize, most: usize) {
        if !self.is_too_small.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                stream,
                open_windows_bytes_max = self.open.max(),
                records,
                could_add = most,
                "records are refused as too_large, because so many at once could add more to the open windows than they may \
                 hold: send fewer in a request, or raise limits.open_windows_bytes_max"
            );
        }
    }

    /// Once, until half of it is free again.
    fn say_full(&self, stream: &str, records: usize, most: usize) {
        if !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                stream,
                held = self.open.held(),
                open_windows_bytes_max = self.open.max(),
                records,
                could_add = most,
                "the open windows are full: records are refused as windows_full until windows close; if that is usual, \
                 raise limits.open_windows_bytes_max or make windows shorter"
            );
        }
    }

    fn say_room(&self) {
        if self.is_full.load(Ordering::Relaxed)
            && self.open.held() < self.open.max() / 2
            && self.is_full.swap(false, Ordering::Relaxed)
        {
            tracing::info!(held = self.open.held(), "the open windows have room again");
        }
    }
}

/// In how many windows of a dataset the records of a batch can be, whichever have closed.
pub(super) fn windows(dataset: &Dataset, batch: &Batch) -> usize {
    let Some((oldest, newest)) = batch.event_time_range() else { return 0 };
    let (grid, any) = (dataset.grid(), i64::MIN);
    let between = grid.windows(newest, any).end().saturating_sub(*grid.windows(oldest, any).start());
    usize::try_from(between).unwrap_or(usize::MAX).saturating_add(1)
}
