//! The writer: takes what was submitted, commits it, begins segments, gives up those that fail.
//!
//! It is a state machine that is stepped; in production by its own thread, in tests by the test.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

use super::durable::sync_dir;
use super::error::in_one_line;
use super::frame::{self, Frames, Plan};
use super::fs::{File, Lock, write_full};
use super::recover::rewrite_in_place;
use super::segment::{Header, Id, Name, spare_name};
use super::shared::{Inner, Limits, Pending, Shared, State, Then};
use super::table::{Readable, Segment};
use super::{Error, Lsn};
use crate::planted::planted;

mod presence;

pub(super) struct Writer {
    /// Stored in every segment that is begun.
    context: Arc<[u8]>,
    shared: Arc<Shared>,
    limits: Limits,
    /// Taken from the queue and not reported durable yet, in order.
    unsynced: VecDeque<Pending>,
    /// How many of them are synced, in a file that had lost its name when it was looked at.
    nameless: usize,
    /// Something does not stand under its name. Nothing is written until it does.
    is_astray: bool,
    durable: Lsn,
    /// `None`: it failed, or could not be begun yet.
    current: Option<Current>,
    spare: Option<Spare>,
    /// The newest id there is.
    id: Id,
    failures: u32,
    /// Held as long as anything may be written.
    _lock: Box<dyn Lock>,
}

/// What is to be done after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Another one: something was written.
    Again,
    /// Wait for work.
    Wait,
    /// Wait for work, but not longer than this: a spare could not be made.
    WaitAtMost(Duration),
    /// Wait this long: the disk fails.
    Pause(Duration),
}

/// The segment being written.
struct Current {
    file: Arc<dyn File>,
    name: Name,
    path: PathBuf,
    /// Where the next frame goes.
    offset: u64,
    /// What was allocated.
    bytes: u64,
    /// What its frames say is durable.
    said: Lsn,
}

/// A segment whose space is claimed.
struct Spare {
    file: Arc<dyn File>,
    path: PathBuf,
    id: Id,
    bytes: u64,
}

impl Writer {
    /// A writer for a log that is durable through an LSN and whose newest id is this.
    pub(super) fn new(shared: Arc<Shared>, lock: Box<dyn Lock>, limits: Limits, durable: Lsn, id: Id) -> Self {
        Self {
            context: shared.settings.context.as_slice().into(),
            shared,
            limits,
            unsynced: VecDeque::new(),
            nameless: 0,
            is_astray: false,
            durable,
            current: None,
            spare: None,
            id,
            failures: 0,
            _lock: lock,
        }
    }

    /// Begins the first segment, with the entries that an earlier process may not have made durable.
    pub(super) fn start(&mut self, unproven: Vec<(Lsn, Vec<u8>)>) -> Result<(), Error> {
        let newest = self.shared.table.segments().last().cloned();
        let pending = |(lsn, payload)| Pending { lsn, payload, cost: 0, then: None };
        self.unsynced = unproven.into_iter().map(pending).collect();
        // They are of the context that they were written under.
        let today = Arc::clone(&self.context);
        if let Some(header) =
            newest.as_ref().and_then(|newest| newest.header.as_ref()).filter(|_| !self.unsynced.is_empty())
        {
            self.context = Arc::clone(&header.context);
        }
        let begun = self.begin(true);
        let is_of_today = *self.context == *today;
        self.context = today;
        if let Err(error) = begun {
            // The disk is full, as a rule. What is there can be read and let go all the same.
            if let Some(newest) = newest {
                rewrite_in_place(&*self.shared.fs, self.shared.directory(), newest.name)?;
            }
            self.nameless = 0;
            self.acknowledge(self.unsynced.len());
            self.failed(&error);
            return Ok(());
        }
        if !is_of_today && let Err(error) = self.begin(false) {
            // What comes now must not stand under the old context.
            self.current = None;
            self.failed(&error);
            return Ok(());
        }
        self.prepare();
        Ok(())
    }

    /// Steps until the log is closed.
    pub(super) fn run(mut self) {
        loop {
            let step = self.step();
            if step == Step::Again {
                continue;
            }
            let inner = self.shared.inner();
            let is_done = matches!(step, Step::Pause(_)) || !inner.queue.contains_key(&inner.next);
            if inner.is_closing && is_done {
                break;
            }
            let (time, is_paused) = match step {
                Step::Again | Step::Wait => (LOOK_EVERY, false),
                Step::WaitAtMost(time) => (time.min(LOOK_EVERY), false),
                Step::Pause(time) => (time, true),
            };
            let waits = |inner: &mut Inner| {
                let has_work = !is_paused && inner.queue.contains_key(&inner.next);
                !inner.is_closing && !inner.is_retry_due && !has_work
            };
            let waited = self.shared.work.wait_timeout_while(inner, time, waits);
            let (mut inner, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            inner.is_retry_due = false;
            drop(inner);
            if waited.timed_out() {
                self.watch();
            }
        }
        self.finish();
    }

    /// Commits what is waiting, or gets ready for what will come.
    pub(super) fn step(&mut self) -> Step {
        if self.is_astray
            && let Err(error) = self.find_again()
        {
            return self.failed(&error);
        }
        self.take();
        let had_work = !self.unsynced.is_empty();
        while !self.unsynced.is_empty() || self.current.is_none() {
            if let Err(error) = self.commit() {
                return self.failed(&error);
            }
        }
        let has_spare = self.prepare();
        if had_work {
            return Step::Again;
        }
        if let Err(error) = self.say_durable() {
            return self.failed(&error);
        }
        if has_spare { Step::Wait } else { Step::WaitAtMost(self.backoff()) }
    }

    /// Takes the next entries from the queue, as long as none is missing.
    fn take(&mut self) {
        if !self.unsynced.is_empty() {
            return;
        }
        let mut inner = self.shared.inner();
        let mut bytes = 0;
        while bytes < self.limits.commit_bytes {
            let next = inner.next;
            let Some(pending) = inner.queue.remove(&next) else { break };
            bytes += pending.payload.len() as u64;
            self.unsynced.push_back(pending);
            inner.next = next.saturating_add(1);
        }
    }

    /// Writes what fits into the current segment, and syncs it; if nothing does, begins the next one.
    fn commit(&mut self) -> Result<(), Error> {
        let Some(current) = &mut self.current else { return self.begin(false) };
        let frames_max = current.bytes.saturating_sub(current.offset);
        let plan = Plan::fitting(sizes(&self.unsynced), frames_max, self.limits.frame_bytes);
        if plan.entries == 0 {
            return self.begin(false);
        }
        let frames = frames(&plan, &self.unsynced, self.durable, current.name);
        let mut written = frames.write(&*current.file, current.offset);
        current.said = self.durable;
        let bytes = frames.bytes();
        drop(frames);
        if planted("ack-before-fsync") {
            current.offset += bytes;
            self.acknowledge(plan.entries);
            return Ok(());
        }
        if planted("release-ahead-of-journal") {
            // A slow disk, so that a power loss in between is not too rare.
            std::thread::sleep(Duration::from_millis(50));
        }
        let syncs = self.shared.syncs.get();
        let began = syncs.map(|syncs| (syncs.now)());
        written = written.and_then(|()| current.file.sync_data());
        if let (Some(syncs), Some(began)) = (syncs, began) {
            (syncs.took)((syncs.now)().saturating_sub(began));
        }
        if planted("reuse-poisoned-file") && written.is_err() {
            written = current.file.sync_data();
        }
        if let Err(source) = written {
            let path = self.shared.table.path(current.name);
            self.give_up_current();
            if planted("lose-queue-on-fsync-error") {
                self.durable += self.unsynced.len() as u64;
                self.unsynced.clear();
            }
            return Err(Error::Io { doing: "write to", path, source });
        }
        current.offset += bytes;
        self.prove(plan.entries)
    }

    /// Begins a segment with the entries that come next. When this has succeeded they are durable.
    ///
    /// `is_whole`: all of them must be in it, since an older segment that has them will not be read any more.
    pub(super) fn begin(&mut self, is_whole: bool) -> Result<(), Error> {
        let first = self.durable.checked_add(1).ok_or(Error::NumbersExhausted)?;
        if let Err(error) = self.look() {
            self.is_astray = true;
            return Err(error);
        }
        let context = Arc::clone(&self.context);
        let header = |id| Header { name: Name { first, id }, context, gaps: Vec::new() };
        let least = if is_whole {
            let all = Plan::fitting(sizes(&self.unsynced), u64::MAX, self.limits.frame_bytes);
            all.bytes + super::segment::header_bytes(self.context.len() as u64, 0)
        } else {
            0
        };
        let spare = match self.spare.take() {
            Some(spare) if spare.bytes >= least => spare,
            _ => self.claim(least.max(self.shared.settings.segment_bytes))?,
        };
        let header = header(spare.id);
        let plan =
            Plan::fitting(sizes(&self.unsynced), spare.bytes.saturating_sub(header.bytes()), self.limits.frame_bytes);
        let frames = frames(&plan, &self.unsynced, self.durable, header.name);
        let path = self.shared.table.path(header.name);
        let written = (|| {
            let encoded = header.encode();
            write_full(&*spare.file, &mut [IoSlice::new(&encoded)], 0)?;
            if planted("rename-before-entries") {
                spare.file.sync_all()?;
                self.shared.fs.rename(&spare.path, &path)?;
                self.shared.fs.sync_dir(self.shared.directory())?;
                frames.write(&*spare.file, header.bytes())?;
                return spare.file.sync_all();
            }
            frames.write(&*spare.file, header.bytes())?;
            spare.file.sync_all()?;
            self.shared.fs.rename(&spare.path, &path)
        })();
        let offset = header.bytes() + frames.bytes();
        drop(frames);
        if let Err(source) = written {
            // It has nothing that anybody was told about. If it cannot be removed now, the next open does.
            let _ = self.shared.fs.remove(&spare.path);
            self.shared.inner().promises.spare = None;
            return Err(Error::Io { doing: "begin", path, source });
        }
        let (context, header_bytes) = (Arc::clone(&header.context), header.bytes());
        let readable = Readable { context, header_bytes, gaps: Arc::default() };
        self.shared.table.segments().push(Segment {
            name: header.name,
            header: Some(readable),
            bytes: spare.bytes,
            is_damaged: false,
            is_leaving: false,
        });
        self.shared.inner().promises.spare = None;
        // Should this fail, the segment stays behind unused: the next attempt makes one of the same first LSN.
        sync_dir(&*self.shared.fs, self.shared.directory())?;
        let bytes = spare.bytes;
        let current = Current { file: spare.file, name: header.name, path, offset, bytes, said: self.durable };
        if let Some(full) = self.current.replace(current) {
            self.seal(&full);
        }
        info!(segment = %header.name, "began a segment of the log");
        self.prove(plan.entries)
    }

    /// Claims the next segment's space, if that is not done yet; whether there is one.
    fn prepare(&mut self) -> bool {
        if self.spare.is_none() {
            match self.claim(self.shared.settings.segment_bytes) {
                Ok(spare) => self.spare = Some(spare),
                Err(error @ Error::Gone { .. }) => {
                    self.is_astray = true;
                    self.failed(&error);
                    return false;
                }
                Err(error) => {
                    // What is left of the current segment can be written all the same.
                    if self.shared.set_state(State::Full) {
                        warn!(
                            error = in_one_line(&error),
                            "no further segment of the log can be made: make room on the disk, or raise \
                               `quota_bytes`"
                        );
                    }
                    return false;
                }
            }
            self.shared.inner().promises.spare = Some(self.shared.settings.frames_bytes());
        }
        self.failures = 0;
        if self.shared.set_state(State::Healthy) {
            info!("the log can be written again");
        }
        true
    }

    /// A file of this size that has no header yet.
    fn claim(&mut self, bytes: u64) -> Result<Spare, Error> {
        let settings = &self.shared.settings;
        let id = self.id.next(self.shared.fs.random()).ok_or(Error::NumbersExhausted)?;
        let path = settings.directory.join(spare_name(id));
        let taken = self.shared.table.bytes().saturating_add(self.shared.freeing.bytes());
        if taken.saturating_add(bytes) > settings.quota_bytes {
            let source = io::Error::new(io::ErrorKind::QuotaExceeded, "the journal's quota is used up");
            return Err(Error::Io { doing: "claim space for", path, source });
        }
        self.shared.check_home()?;
        self.id = id;
        let file = self.shared.fs.create(&path).map_err(Error::io("create", &path))?;
        if let Err(error) = file.allocate(bytes) {
            let _ = self.shared.fs.remove(&path);
            return Err(Error::Io { doing: "claim space for", path, source: error });
        }
        Ok(Spare { file, path, id, bytes })
    }

    /// The current segment is never written or synced again.
    fn give_up_current(&mut self) {
        self.current = None;
        self.shared.inner().promises.current = 0;
    }

    /// Gives back the space that a segment does not need.
    fn seal(&self, full: &Current) {
        if let Err(error) = full.file.trim() {
            warn!(segment = %full.name, %error, "cannot trim a segment of the log, which takes more space than it needs: check the disk");
            return;
        }
        let mut segments = self.shared.table.segments();
        if let Some(segment) = segments.iter_mut().find(|segment| segment.name == full.name) {
            segment.bytes = segment.bytes.min(super::table::on_disk(full.offset));
        }
    }

    /// The first entries are durable: says so to everybody who waits for it.
    fn acknowledge(&mut self, entries: usize) {
        let done: Vec<_> = self.unsynced.drain(..entries.min(self.unsynced.len())).collect();
        let mut inner = self.shared.inner();
        if let Some(last) = done.last() {
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            self.shared.committed.fetch_add(done.len() as u64, Ordering::Relaxed);
            self.durable = last.lsn;
            self.shared.table.set_durable(last.lsn);
        }
        inner.promises.current =
            self.current.as_ref().map_or(0, |current| current.bytes.saturating_sub(current.offset));
        for pending in &done {
            inner.promises.give_back(pending.cost);
        }
        let later = inner.waiters.split_off(&self.durable.saturating_add(1));
        let waiters = std::mem::replace(&mut inner.waiters, later);
        drop(inner);
        self.shared.moved.notify_all();
        done.into_iter().filter_map(|pending| pending.then).chain(waiters.into_values().flatten()).for_each(run);
    }

    /// Writes, but does not sync, a frame that says how much is durable, if no other frame does.
    fn say_durable(&mut self) -> Result<(), Error> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.said >= self.durable || current.bytes.saturating_sub(current.offset) < frame::HEADER_BYTES {
            return Ok(());
        }
        let mut frames = Frames::new(current.name.id.seed());
        frames.push(self.durable.saturating_add(1), self.durable, None);
        if let Err(source) = frames.write(&*current.file, current.offset) {
            let path = self.shared.table.path(current.name);
            self.give_up_current();
            return Err(Error::Io { doing: "write to", path, source });
        }
        current.said = self.durable;
        current.offset += frames.bytes();
        self.shared.inner().promises.current = current.bytes.saturating_sub(current.offset);
        Ok(())
    }

    fn failed(&mut self, error: &Error) -> Step {
        if matches!(error, Error::Gone { .. }) && self.is_removed() {
            self.shared.is_removed.store(true, Ordering::Relaxed);
        }
        let state = match error.is_lack_of_space() {
            true => State::Full,
            false => State::Failing { message: in_one_line(error) },
        };
        if self.shared.set_state(state) {
            let directory = self.shared.directory().display();
            error!(%directory, error = in_one_line(error), "the log cannot be written; it is tried again. Check the disk, and that the \
                    directory is where it was");
        }
        Step::Pause(self.backoff())
    }

    /// 100 ms, then twice as long each time, up to 5 s.
    fn backoff(&mut self) -> Duration {
        let backoff = Duration::from_millis(100 << self.failures.min(6)).min(Duration::from_secs(5));
        self.failures += 1;
        backoff
    }

    /// Leaves the files so that the next open finds everything proven.
    pub(super) fn finish(mut self) {
        self.watch();
        let said = self.say_durable().and_then(|()| match &self.current {
            Some(current) => current
                .file
                .sync_data()
                .and_then(|()| current.file.trim())
                .map_err(Error::io("close", self.shared.table.path(current.name))),
            None => Ok(()),
        });
        if let Err(error) = said {
            warn!(
                error = in_one_line(&error),
                "the log's last segment could not be closed properly; the next start finds its \
                   end. Check the disk"
            );
        }
        if let Some(spare) = self.spare.take() {
            let _ = self.shared.fs.remove(&spare.path);
        }
    }
}

impl Drop for Writer {
    /// Whether it was closed or has panicked: nobody shall wait for what does not come.
    fn drop(&mut self) {
        let has_panicked = std::thread::panicking();
        self.shared.set_state(if has_panicked { State::Broken } else { State::Closed });
        if has_panicked {
            error!(
                "the log's thread has ended by a fault; nothing is taken any more. Start the gateway again, and report this \
                line"
            );
        }
        let mut inner = self.shared.inner();
        let (waiters, queue) = (std::mem::take(&mut inner.waiters), std::mem::take(&mut inner.queue));
        // Not under the lock: what is dropped here may ask the log something.
        drop(inner);
        drop((waiters, queue));
        self.shared.moved.notify_all();
    }
}

fn sizes(entries: &VecDeque<Pending>) -> impl Iterator<Item = u64> {
    entries.iter().map(|pending| pending.payload.len() as u64)
}

fn frames<'a>(plan: &Plan, entries: &'a VecDeque<Pending>, durable: Lsn, name: Name) -> Frames<'a> {
    let mut frames = Frames::new(name.id.seed());
    let mut rest = entries.iter().peekable();
    for count in &plan.frames {
        let Some(first) = rest.peek().map(|pending| pending.lsn) else { break };
        frames.push(first, durable, rest.by_ref().take(*count).map(|pending| pending.payload.as_slice()));
    }
    frames
}

/// Runs a callback; the writer survives its panic.
fn run(then: Then) {
    if panic::catch_unwind(AssertUnwindSafe(then)).is_err() {
        error!("a callback of the log has panicked: a fault in bailiwick; please report this line");
    }
}

/// How often an idle log looks whether it is still where it was.
const LOOK_EVERY: Duration = Duration::from_secs(1);
