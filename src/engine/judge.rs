//! A shared batch is judged: decoded, checked, decided and scored in one set of columns, and what that comes to for each
//! of its requests.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, BooleanArray};
use arrow_schema::ArrowError;
use arrow_select::filter::filter;

use crate::decode::{Share, Together, Undecodable};
use crate::domain::batch::Candidate;
use crate::domain::event_time::TimeBounds;
use crate::domain::evidence::{Sender, Senders};
use crate::domain::outcome::{Kinds, Outcome, Refusals, Refused, Taken, Why};
use crate::domain::policy::{Quarantined, Resident, Version};
use crate::domain::refusal::{Reason, Refusal};

use super::intake::Intake;
use super::quarantine::Held;
use super::request::{Boxed, Content, Origin, Served};
use super::scores::{self, Scores};

/// A batch, judged.
pub(super) struct Judged {
    /// What is taken in of it.
    pub(super) resident: Option<Resident>,
    /// The model's outputs of that.
    pub(super) outputs: Vec<ArrayRef>,
    /// What each request comes to.
    pub(super) requests: Vec<CameTo>,
    /// Until when the persons hold that were counted for it, in microseconds since the Unix epoch: it gets no place before they
    /// are on disk, nor from then on. `None`: nobody was asked about.
    pub(super) counted_until: Option<i64>,
    /// The records that were refused one by one.
    refusals: Vec<Refusal>,
    /// Records that were refused because their scores cannot be used.
    unusable: usize,
    /// Values of undeclared fields that were dropped.
    dropped: usize,
    /// What the policies in the shadow are to be asked.
    shadow: Option<(Arc<Version>, Candidate)>,
}

/// What a request comes to.
pub(super) struct CameTo {
    pub(super) outcome: Outcome,
    /// What its outcome does not say of why it was refused as a whole, without contents.
    pub(super) message: Option<String>,
    /// How many records were decoded of it.
    decoded: usize,
    /// Its records, by their positions in what is taken in.
    pub(super) rows: Range<usize>,
    /// What was put into quarantine of it: the number it is held under, and how many records.
    held: Option<(u64, usize)>,
}

impl CameTo {
    fn of(outcome: Outcome) -> Self {
        Self { outcome, message: None, decoded: 0, rows: 0..0, held: None }
    }
}

/// What is judged, and when.
pub(super) struct Case<'c> {
    pub(super) served: &'c Served,
    pub(super) requests: &'c [Boxed],
    /// The event times that the stream takes.
    pub(super) bounds: TimeBounds,
    /// The monotonic clock.
    pub(super) now: Duration,
    /// Whether the entry will be sealed.
    pub(super) seals: bool,
}

/// Why a batch was not judged. Nothing is kept of it.
pub(super) enum NotJudged {
    /// Its requests cannot share a batch.
    Together,
    Failed(Reason),
}

impl Case<'_> {
    /// Judges.
    ///
    /// # Errors
    /// When the batch cannot be judged as a whole.
    pub(super) fn judge(&self, intake: &Intake, scores: &mut Scores) -> Result<Judged, NotJudged> {
        let failed = |error: ArrowError| {
            tracing::error!(%error, "a batch could not be decided; it is refused. A fault in bailiwick: please report \
             this line");
            NotJudged::Failed(Reason::Internal)
        };
        if let [request] = self.requests
            && let Content::Decided(resident, counted_until) = &request.content
        {
            return Self::decided(resident, *counted_until, scores);
        }
        let (candidate, shares) = self.decoded();
        if candidate.rows() == 0 {
            return Ok(self.without_records(shares));
        }
        let mut candidate = candidate;
        let spans = spans(&shares);
        candidate.check_shared(&self.bounds, &spans);
        let shadow = intake.versions.shadow().map(|shadow| (shadow, candidate.clone()));
        let under = intake.versions.current();
        let senders = self.senders(&shares);
        let mut counters = intake.counting.begin();
        let mut decided = under.decide_shared(candidate, &senders, &mut counters).map_err(failed)?;
        let counted_until = decided.is_counted.then(|| counters.until());
        drop(counters);
        // What is sealed under the keys of many is erased with the key of one.
        if self.seals && !decided.is_of_one_kind && self.requests.len() > 1 {
            return Err(NotJudged::Together);
        }
        let held = match &decided.quarantined {
            Some(quarantined) => {
                self.hold(intake, quarantined, &spans, &under, &mut decided.refusals).map_err(failed)?
            }
            None => Vec::new(),
        };
        let mut judged = Judged {
            resident: decided.resident,
            counted_until,
            requests: self.outcomes(shares, &spans, &decided.refusals),
            refusals: decided.refusals,
            shadow,
            ..Judged::empty()
        };
        judged.requests.iter_mut().zip(held).for_each(|(request, held)| request.held = held);
        judged.count_dropped();
        if let Err(not) = judged.score(scores) {
            judged.let_go(intake);
            return Err(not);
        }
        judged.forget_refused(intake);
        Ok(judged)
    }

    /// Records that were decided before.
    fn decided(resident: &Resident, counted_until: Option<i64>, scores: &mut Scores) -> Result<Judged, NotJudged> {
        let rows = resident.batch().rows();
        let taken = Taken { accepted: u32::try_from(rows).unwrap_or(u32::MAX), ..Taken::default() };
        let requests = vec![CameTo { rows: 0..rows, ..CameTo::of(Outcome::Taken(taken)) }];
        let mut judged = Judged { resident: Some(resident.clone()), counted_until, requests, ..Judged::empty() };
        judged.score(scores)?;
        Ok(judged)
    }

    /// The records of all requests, and what each brought. A request without records brings none.
    fn decoded(&self) -> (Candidate, Vec<Result<Share, Undecodable>>) {
        let payloads = self.requests.iter().filter_map(|request| match &request.content {
            Content::Records(opened) => Some(opened),
            Content::Nothing | Content::Refused(_) | Content::Decided(..) => None,
        });
        let Together { candidate, shares } = Together::decode(&self.served.stream, payloads);
        let mut shares = shares.into_iter();
        let shares = self.requests.iter().map(|request| match &request.content {
            Content::Records(_) => shares.next().unwrap_or_else(|| Ok(Share::default())),
            Content::Nothing | Content::Refused(_) | Content::Decided(..) => Ok(Share::default()),
        });
        (candidate, shares.collect())
    }

    fn senders(&self, shares: &[Result<Share, Undecodable>]) -> Senders<'_> {
        let mut senders = Senders::default();
        for (request, share) in self.requests.iter().zip(shares) {
            if let Ok(Share { rows: rows @ 1.., .. }) = *share {
                senders.push(Sender { producer: &request.origin.producer, address: request.origin.address }, rows);
            }
        }
        senders
    }

    fn without_records(&self, shares: Vec<Result<Share, Undecodable>>) -> Judged {
        let spans = spans(&shares);
        let requests = self.outcomes(shares, &spans, &[]);
        Judged { requests, ..Judged::empty() }
    }

    /// Puts aside what is in doubt, request by request. What there is no room for is refused otherwise.
    fn hold(
        &self,
        intake: &Intake,
        quarantined: &Quarantined,
        spans: &[Range<u32>],
        under: &Arc<Version>,
        refusals: &mut [Refusal],
    ) -> Result<Vec<Option<(u64, usize)>>, ArrowError> {
        let mut all = Vec::with_capacity(spans.len());
        for (request, span) in self.requests.iter().zip(spans) {
            let Some(records) = quarantined.within(span.clone())? else {
                all.push(None);
                continue;
            };
            let rows = records.rows();
            let held = Held {
                records,
                origin: Arc::clone(&request.origin),
                series: intake.counting.series(),
                until: self.now + under.policy.hold,
                is_placed: false,
                under: Arc::clone(under),
            };
            let number = intake.quarantine.hold(held);
            if number.is_none() {
                let is_its_own =
                    |refusal: &&mut Refusal| span.contains(&refusal.index) && refusal.reason == Reason::Quarantined;
                refusals.iter_mut().filter(is_its_own).for_each(|refusal| refusal.reason = Reason::Overloaded);
            }
            all.push(number.map(|number| (number, rows)));
        }
        Ok(all)
    }

    /// What each request comes to, as far as its records are not scored.
    fn outcomes(
        &self,
        shares: Vec<Result<Share, Undecodable>>,
        spans: &[Range<u32>],
        refusals: &[Refusal],
    ) -> Vec<CameTo> {
        let (mut refusals, mut first, mut kinds) = (refusals, 0, Kinds::default());
        let each = self.requests.iter().zip(shares).zip(spans).map(|((request, share), span)| {
            let share = match (&request.content, share) {
                (Content::Refused(refused), _) => return CameTo::of(Outcome::Refused(refused.clone())),
                (_, Ok(share)) => share,
                (_, Err(Undecodable { reason, field, message })) => {
                    let outcome = Outcome::Refused(Refused { reason, field });
                    return CameTo { message: Some(message), ..CameTo::of(outcome) };
                }
            };
            let own = refusals.partition_point(|refusal| refusal.index < span.end);
            let (of_request, after) = refusals.split_at(own);
            refusals = after;
            let accepted = share.rows - of_request.len();
            let rows = first..first + accepted;
            first = rows.end;
            let taken = Taken {
                accepted: u32::try_from(accepted).unwrap_or(u32::MAX),
                dropped_values: share.dropped,
                refusals: Refusals::of_part(of_request, span.start, &mut kinds),
            };
            CameTo { decoded: share.rows, rows, ..CameTo::of(Outcome::Taken(taken)) }
        });
        each.collect()
    }
}

/// The records of each request, by their positions in the batch.
fn spans(shares: &[Result<Share, Undecodable>]) -> Vec<Range<u32>> {
    let mut end = 0;
    let spans = shares.iter().map(|share| {
        let start = end;
        end += u32::try_from(share.as_ref().map_or(0, |share| share.rows)).unwrap_or(u32::MAX);
        start..end
    });
    spans.collect()
}

impl Judged {
    /// Requests for a stream that is not declared: each was refused as a whole.
    pub(super) fn refused(requests: &[Boxed]) -> Self {
        let requests = requests.iter().map(|request| {
            CameTo::of(match &request.content {
                Content::Refused(refused) => Outcome::Refused(refused.clone()),
                _ => Outcome::refused(Reason::UnknownStream),
            })
        });
        Self { requests: requests.collect(), ..Self::empty() }
    }

    fn empty() -> Self {
        Self {
            resident: None,
            outputs: Vec::new(),
            requests: Vec::new(),
            counted_until: None,
            refusals: Vec::new(),
            unusable: 0,
            dropped: 0,
            shadow: None,
        }
    }

    fn count_dropped(&mut self) {
        let dropped = self.requests.iter().map(|request| match &request.outcome {
            Outcome::Taken(taken) => taken.dropped_values as usize,
            Outcome::Refused(_) => 0,
        });
        self.dropped = dropped.sum();
    }

    fn score(&mut self, scores: &mut Scores) -> Result<(), NotJudged> {
        let Some(resident) = &self.resident else { return Ok(()) };
        let rows: Vec<Range<usize>> = self.requests.iter().map(|request| request.rows.clone()).collect();
        let scored = scores.score(resident, &rows);
        if scored.is_given_up {
            return Err(NotJudged::Together);
        }
        self.scored(scored).map_err(|error| {
            tracing::error!(%error, "scores could not be taken; their records are refused. A fault in bailiwick: please \
             report this line");
            NotJudged::Failed(Reason::Internal)
        })
    }

    /// What was put aside of requests that were refused as a whole in the end is let go of.
    fn forget_refused(&mut self, intake: &Intake) {
        for request in &mut self.requests {
            if let (Outcome::Refused(_), Some((number, _))) = (&request.outcome, request.held) {
                intake.quarantine.forget(number);
                request.held = None;
            }
        }
    }

    /// Takes the scores. Records without a score that can be used are refused, and a request of which the model has failed
    /// on every record is refused as a whole.
    fn scored(&mut self, scored: scores::Outputs) -> Result<(), ArrowError> {
        let scores::Outputs { columns, unusable, failed, .. } = scored;
        if unusable.is_empty() && failed.is_empty() {
            self.outputs = columns;
            return Ok(());
        }
        let rows = self.resident.as_ref().map_or(0, |resident| resident.batch().rows());
        let mut is_kept = vec![true; rows];
        let failed: Vec<usize> = failed.into_iter().flatten().collect();
        for row in unusable.iter().map(|row| *row as usize).chain(failed.iter().copied()) {
            if let Some(mark) = is_kept.get_mut(row) {
                *mark = false;
            }
        }
        let why = Arc::new(Why::new(Reason::ModelFailed));
        let mut first = 0;
        for request in &mut self.requests {
            let Outcome::Taken(taken) = &request.outcome else { continue };
            let own = request.rows.clone();
            let of_failed = |row: usize| failed.binary_search(&row).is_ok();
            if !own.is_empty() && own.clone().all(of_failed) {
                request.outcome = Outcome::refused(Reason::ModelFailed);
                request.rows = first..first;
                continue;
            }
            let marks = is_kept.get(own).unwrap_or_default();
            let bad: Vec<u32> = (0..).zip(marks).filter(|(_, is_kept)| !**is_kept).map(|(at, _)| at).collect();
            let kept = marks.len() - bad.len();
            request.rows = first..first + kept;
            first += kept;
            if !bad.is_empty() {
                self.unusable += bad.len();
                let accepted = u32::try_from(kept).unwrap_or(u32::MAX);
                let refusals = taken.refusals.with(&bad, &why);
                request.outcome = Outcome::Taken(Taken { accepted, refusals, ..*taken });
            }
        }
        if first == 0 {
            self.resident = None;
            return Ok(());
        }
        let mask = BooleanArray::from(is_kept);
        self.outputs = columns.iter().map(|column| filter(column, &mask)).collect::<Result<Vec<_>, _>>()?;
        self.resident = self.resident.take().map(|resident| resident.keep(&mask)).transpose()?;
        Ok(())
    }

    /// The batch is placed: it is counted, and the policies in the shadow are asked.
    pub(super) fn count(&mut self, intake: &Intake, served: &Served, requests: &[Boxed]) {
        let (counts, telemetry) = (&served.counts, &intake.telemetry);
        counts.refused(&self.refusals);
        telemetry.redirected(&self.refusals);
        counts.refused.add(Reason::ModelFailed, self.unusable);
        crate::telemetry::Telemetry::add(&counts.dropped_values, self.dropped);
        for (number, _) in self.requests.iter().filter_map(|request| request.held) {
            intake.quarantine.placed(number);
        }
        let held = self.requests.iter().filter_map(|request| request.held).map(|(_, rows)| rows).sum();
        crate::telemetry::Telemetry::add(&telemetry.gateway.quarantined, held);
        let Some((shadow, candidate)) = self.shadow.take() else { return };
        let mut senders = Senders::default();
        for (request, came) in requests.iter().zip(&self.requests) {
            let Origin { producer, address, .. } = &*request.origin;
            senders.push(Sender { producer, address: *address }, came.decoded);
        }
        // The batch has its place: nothing that fails here may end the worker.
        match catch_unwind(AssertUnwindSafe(|| shadow.decide_shared(candidate, &senders, &mut intake.counting.look())))
        {
            Ok(Ok(other)) => telemetry.shadow.compared(&self.refusals, &other.refusals),
            Ok(Err(_)) | Err(_) => {
                tracing::error!(
                    "a batch could not be decided in the shadow; it is not compared. A fault in bailiwick: \
                 please report this line"
                )
            }
        }
    }

    /// The batch is not placed, and may come again: quarantine lets go of its records.
    pub(super) fn let_go(&self, intake: &Intake) {
        for (number, _) in self.requests.iter().filter_map(|request| request.held) {
            intake.quarantine.forget(number);
        }
    }
}
