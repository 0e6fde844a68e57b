//! Records of many requests in one set of columns.
//!
//! Rows of requests that follow each other are walked into the same columns. Arrow requests whose columns are those of the
//! stream are copied into the same columns from their payloads. Other Arrow requests bring columns of their own: alone
//! they are taken as they are, beside others they are copied behind them.

use std::sync::Arc;

use crate::domain::batch::Candidate;
use crate::domain::stream::Stream;

use super::arrow::{Direct, Parts};
use super::columns::Columns;
use super::{Decoded, Opened, Undecodable, cloud_events, rows};

/// The decoded records of requests of one stream.
pub struct Together {
    /// The records, in the order of the requests.
    pub candidate: Candidate,
    /// What each request brought. `Err`: it could not be decoded as a whole, and none of the records is its own.
    pub shares: Vec<Result<Share, Undecodable>>,
}

/// What a request brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// How many of the records are its own. They follow those of the request before.
    pub rows: usize,
    /// Its values of undeclared fields that were dropped.
    pub dropped: u32,
}

impl Together {
    /// Decodes the payloads of requests, each of which is of this stream.
    #[must_use]
    pub fn decode<'p>(stream: &Arc<Stream>, payloads: impl IntoIterator<Item = &'p Opened>) -> Self {
        let mut decoding = Decoding { stream, parts: Vec::new(), shares: Vec::new() };
        let (mut of_rows, mut direct) = (Vec::new(), Vec::new());
        for payload in payloads {
            match payload {
                Opened::Arrow(opened) => {
                    decoding.rows(&mut of_rows);
                    match opened.parts() {
                        Parts::Direct(request) => direct.push(request),
                        Parts::Any(any) => {
                            decoding.direct(&mut direct);
                            decoding.arrow(any.decode());
                        }
                    }
                }
                payload => {
                    decoding.direct(&mut direct);
                    of_rows.push(payload);
                }
            }
        }
        decoding.rows(&mut of_rows);
        decoding.direct(&mut direct);
        decoding.finish()
    }
}

struct Decoding<'s> {
    stream: &'s Arc<Stream>,
    parts: Vec<Candidate>,
    shares: Vec<Result<Share, Undecodable>>,
}

impl Decoding<'_> {
    fn arrow(&mut self, decoded: Result<Decoded, Undecodable>) {
        self.shares.push(decoded.map(|Decoded { candidate, dropped }| {
            let share = Share { rows: candidate.rows(), dropped };
            self.parts.push(candidate);
            share
        }));
    }

    fn direct(&mut self, requests: &mut Vec<&Direct>) {
        if requests.is_empty() {
            return;
        }
        let share = |request: &&Direct| Share { rows: request.rows(), dropped: 0 };
        match Direct::columns(self.stream, requests) {
            Ok(columns) => {
                self.parts.push(Candidate::new(Arc::clone(self.stream), columns, Vec::new()));
                self.shares.extend(requests.iter().map(|request| Ok(share(request))));
            }
            Err(_) => self.shares.extend(requests.iter().map(|_| Err(too_long()))),
        }
        requests.clear();
    }

    fn rows(&mut self, payloads: &mut Vec<&Opened>) {
        if payloads.is_empty() {
            return;
        }
        let rows = payloads.iter().map(|payload| payload.rows()).sum();
        let (mut columns, plan) = (Columns::new(self.stream, rows), rows::Plan::new(self.stream));
        let before = self.shares.len();
        for payload in payloads.drain(..) {
            let dropped = columns.dropped();
            match payload {
                Opened::Rows(counted) => rows::fill(counted, &mut columns, &plan),
                Opened::Events(counted) => cloud_events::fill(counted, &mut columns, &plan),
                Opened::Arrow(_) => {}
            }
            self.shares.push(Ok(Share { rows: payload.rows(), dropped: columns.dropped() - dropped }));
        }
        match columns.finish() {
            Ok(candidate) => self.parts.push(candidate),
            Err(undecodable) => {
                self.shares.iter_mut().skip(before).for_each(|share| *share = Err(undecodable.clone()));
            }
        }
    }

    fn finish(mut self) -> Together {
        let candidate = match self.parts.len() {
            1 => self.parts.pop(),
            _ => None,
        };
        let candidate = candidate.map_or_else(|| Candidate::concat(self.stream, self.parts), Ok);
        match candidate {
            Ok(candidate) => Together { candidate, shares: self.shares },
            // Arrow puts all columns of the same types together, unless their texts are too long for one column.
            Err(_) => {
                let shares = self.shares.iter().map(|_| Err(too_long())).collect();
                Together { candidate: Candidate::none(self.stream), shares }
            }
        }
    }
}

fn too_long() -> Undecodable {
    Undecodable::malformed("the texts of the records are too long for one column")
}

#[cfg(test)]
mod tests;
