//! What has arrived for a worker and waits for it. What comes while one batch is worked on is the next one: no timer
//! decides when a batch is full.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::decode::Opened;

use super::request::{Boxed, Content, Request};

/// The requests that wait for one worker, in the order in which they came.
#[derive(Default)]
pub struct Inbox {
    waiting: Mutex<VecDeque<Boxed>>,
    arrived: Notify,
}

/// From so many records on an Arrow request is a batch by itself, without a copy.
const ROWS_ALONE: usize = 64;

impl Inbox {
    /// A request has arrived.
    pub fn push(&self, request: Boxed) {
        self.lock().push_back(request);
        self.arrived.notify_one();
    }

    /// Comes when requests may be waiting.
    pub(super) async fn arrived(&self) {
        if self.lock().is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Puts requests back before all others.
    pub(super) fn put_back(&self, requests: Vec<Boxed>) {
        let mut waiting = self.lock();
        requests.into_iter().rev().for_each(|request| waiting.push_front(request));
    }

    /// Takes requests of one stream that may share a batch of so many records at most. A request that is larger is
    /// alone. No request overtakes another one of its caller.
    pub(super) fn take(&self, rows_max: usize) -> Vec<Boxed> {
        let mut waiting = self.lock();
        let (mut taken, mut left): (Vec<Boxed>, VecDeque<Boxed>) = (Vec::new(), VecDeque::new());
        let mut rows = 0;
        while let Some(next) = waiting.pop_front() {
            let Some(first) = taken.first() else {
                rows = rows_of(&next);
                let is_alone = is_alone(&next);
                taken.push(next);
                if is_alone {
                    break;
                }
                continue;
            };
            let waits = left.iter().any(|other| other.reply.is_of_caller_of(&next.reply));
            if waits || !is_of_stream_of(first, &next) {
                left.push_back(next);
                continue;
            }
            let more = rows_of(&next);
            if is_alone(&next) || rows + more > rows_max {
                waiting.push_front(next);
                break;
            }
            rows += more;
            taken.push(next);
        }
        while let Some(next) = left.pop_back() {
            waiting.push_front(next);
        }
        taken
    }

    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Boxed>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rows_of(request: &Request) -> usize {
    match &request.content {
        Content::Records(opened) => opened.rows(),
        Content::Decided(resident) => resident.batch().rows(),
        Content::Nothing | Content::Refused(_) => 0,
    }
}

fn is_alone(request: &Request) -> bool {
    match &request.content {
        Content::Records(Opened::Arrow(opened)) => opened.rows() >= ROWS_ALONE,
        Content::Decided(_) => true,
        _ => false,
    }
}

fn is_of_stream_of(one: &Request, other: &Request) -> bool {
    match (&one.served, &other.served) {
        (Some(one), Some(other)) => std::sync::Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
