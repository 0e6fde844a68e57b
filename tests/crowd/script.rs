//! What a producer sends, in order, and what each request must be told.

use bailiwick::ingress::proto::ingest::PublishRequest;
use bailiwick::ingress::proto::ingest::publish_request::Payload;

use crate::common::records::introduction;
use crate::common::tape::Tape;

use super::deployment::{BYTES_MAX, ROWS_MAX, STREAM};
use super::payloads::{KINDS, Kind, garbage, padded, with_a_column_more};
use super::records::{MORE, Record, Rules};
use super::told::Told;

/// What a request is.
#[derive(Debug, Clone)]
pub enum What {
    Records(Vec<Record>),
    /// Refused as a whole, whatever the policies say, for this reason and field.
    Whole(&'static str, &'static str),
    /// No records.
    Nothing,
    /// Another request of the producer again, by its position.
    Repeat(usize),
    /// Other records under the number of another request.
    Reused,
    /// A number that leaves some out.
    Gap,
    /// A number of an earlier series.
    Fenced,
}

/// One request of a producer.
#[derive(Debug, Clone)]
pub struct Step {
    pub what: What,
    pub request: PublishRequest,
}

impl Step {
    /// What it must be told where it comes for the first time.
    pub fn expected(&self, rules: Rules) -> Told {
        match &self.what {
            What::Records(records) => Told::expected(records, rules, self.request.want_scores),
            What::Whole("REASON_UNDECLARED_FIELD", _) if rules.drops => {
                unreachable!("no such request is made where values are dropped")
            }
            What::Whole(reason, field) => Told::refused(reason, field),
            What::Nothing => Told::default(),
            What::Repeat(_) => unreachable!("it is told what the other one was told"),
            What::Reused => Told::refused("REASON_NUMBER_REUSED", ""),
            What::Gap => Told::refused("REASON_SEQUENCE_GAP", ""),
            What::Fenced => Told::refused("REASON_EPOCH_FENCED", ""),
        }
    }

    /// The records that may count.
    pub fn records(&self) -> &[Record] {
        match &self.what {
            What::Records(records) => records,
            _ => &[],
        }
    }

    /// Whether a number is spent by it for the first time.
    pub fn takes_a_number(&self) -> bool {
        self.request.sequence > 0 && matches!(self.what, What::Records(_) | What::Whole(..) | What::Nothing)
    }

    /// Whether a series begins with it.
    pub fn begins_a_series(&self) -> bool {
        self.request.sequence == 1 && self.takes_a_number()
    }
}

/// How a producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Numbered,
    /// Numbered, without numbers that are out of order: it may send in two calls at the same time.
    Orderly,
    Unnumbered,
}

/// So many requests of a producer.
pub fn script(tape: &mut Tape, name: &str, sort: Sort, drops: bool, length: usize) -> Vec<Step> {
    let writer = Writer { tape, name, sort, drops, steps: Vec::new(), epoch: 7, sequence: 0, first: 0 };
    writer.write(length)
}

struct Writer<'t> {
    tape: &'t mut Tape,
    name: &'t str,
    sort: Sort,
    drops: bool,
    steps: Vec<Step>,
    epoch: u64,
    sequence: u64,
    /// The first step of the series.
    first: usize,
}

impl Writer<'_> {
    fn write(mut self, length: usize) -> Vec<Step> {
        while self.steps.len() < length {
            match self.tape.below(60) {
                0..34 => self.records(1),
                34..41 => {
                    let count = 2 + self.tape.below(5);
                    self.records(count);
                }
                41 => self.records(0),
                42..44 => {
                    let payload = garbage(self.tape.below(3));
                    self.next(What::Whole("REASON_MALFORMED", ""), Some(payload));
                }
                44 if !self.drops => {
                    let payload = with_a_column_more(&self.good(2));
                    self.next(What::Whole("REASON_UNDECLARED_FIELD", MORE), Some(payload));
                }
                45..47 => {
                    let payload = self.some_payload(1);
                    self.next(What::Whole("REASON_UNKNOWN_STREAM", ""), Some(payload));
                    self.steps.last_mut().unwrap().request.stream = "nobodys".to_owned();
                }
                47 => {
                    let payload = self.some_payload(ROWS_MAX + 1);
                    self.next(What::Whole("REASON_TOO_MANY_ROWS", ""), Some(payload));
                }
                48 => {
                    let payload = padded(&Record::good(self.tape), BYTES_MAX);
                    self.next(What::Whole("REASON_TOO_LARGE", ""), Some(payload));
                }
                49 => self.next(What::Nothing, None),
                50..54 if self.sort != Sort::Unnumbered => self.again(),
                54..56 if self.sort != Sort::Unnumbered => self.reuses(),
                56..58 if self.sort == Sort::Numbered && self.sequence > 0 => {
                    let (payload, sequence) = (self.some_payload(1), self.sequence + 1_000);
                    self.out_of_order(What::Gap, payload, self.epoch, sequence);
                }
                58..60 if self.sort == Sort::Numbered && self.sequence > 0 => self.series(),
                _ => {}
            }
        }
        self.steps
    }

    fn good(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| Record::good(self.tape)).collect()
    }

    fn some_payload(&mut self, count: usize) -> Payload {
        self.tape.of(&KINDS).payload(&self.good(count))
    }

    fn records(&mut self, count: usize) {
        let records: Vec<Record> = (0..count).map(|_| Record::of(self.tape)).collect();
        let says_all = |kind: &Kind| records.iter().all(|record| kind.says(record.fault));
        let kinds: Vec<Kind> = KINDS.into_iter().filter(says_all).collect();
        let payload = self.tape.of(&kinds).payload(&records);
        self.next(What::Records(records), Some(payload));
    }

    /// A request under the number that comes next.
    fn next(&mut self, what: What, payload: Option<Payload>) {
        self.sequence += 1;
        self.out_of_order(what, payload, self.epoch, self.sequence);
    }

    fn out_of_order(&mut self, what: What, payload: impl Into<Option<Payload>>, epoch: u64, sequence: u64) {
        let is_numbered = u64::from(self.sort != Sort::Unnumbered);
        let request = PublishRequest {
            epoch: epoch * is_numbered,
            sequence: sequence * is_numbered,
            want_scores: self.tape.below(4) > 0,
            payload: payload.into(),
            ..introduction(STREAM, self.name)
        };
        self.steps.push(Step { what, request });
    }

    /// One of the requests of this series, the last one more often.
    fn one_before(&mut self, may: impl Fn(&Step) -> bool) -> Option<usize> {
        let all: Vec<usize> = (self.first..self.steps.len()).filter(|at| may(&self.steps[*at])).collect();
        let last = *all.last()?;
        Some(if self.tape.below(2) == 0 { last } else { self.tape.of(&all) })
    }

    fn again(&mut self) {
        let may = |step: &Step| matches!(step.what, What::Records(_) | What::Whole(..));
        let Some(at) = self.one_before(may) else { return };
        let request = self.steps[at].request.clone();
        self.steps.push(Step { what: What::Repeat(at), request });
    }

    /// Of a request that is not refused as a whole.
    fn reuses(&mut self) {
        let drops = self.drops;
        let may = |step: &Step| {
            let is_taken = |refuses_france| step.expected(Rules { refuses_france, drops }).error.is_none();
            matches!(step.what, What::Records(_)) && is_taken(false) && is_taken(true)
        };
        let Some(at) = self.one_before(may) else { return };
        let (count, sequence) = (self.steps[at].records().len() + 1, self.steps[at].request.sequence);
        let payload = self.some_payload(count);
        self.out_of_order(What::Reused, payload, self.epoch, sequence);
    }

    /// A series begins, and the one before it is over.
    fn series(&mut self) {
        let before = self.epoch;
        (self.epoch, self.sequence, self.first) = (self.epoch + 1 + self.tape.below(3) as u64, 0, self.steps.len());
        self.records(1);
        let (payload, sequence) = (self.some_payload(1), 1 + self.tape.below(9) as u64);
        self.out_of_order(What::Fenced, payload, before, sequence);
    }
}
