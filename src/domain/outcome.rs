//! Outcomes: what a request came to, as far as a repeat of it has to be told again.
//!
//! An outcome holds counts, positions, reasons, rule ids and declared names. It never holds content of a record, so it
//! may stand in the journal in the clear. A field name that only the producer knows is content: it is left out.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use super::binary::{Reader, Writer};
use super::name::GatewayId;
use super::refusal::{Hint, Reason, Refusal};
use super::stream::Stream;

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its records were decided one by one.
    Taken(Taken),
    /// It was refused as a whole.
    Refused(Refused),
}

/// What the records of a request came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many are counted.
    pub accepted: u32,
    /// Values of undeclared fields that were dropped.
    pub dropped_values: u32,
    /// The records that were refused.
    pub refusals: Refusals,
}

/// Why a request was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub reason: Reason,
    /// The declared field at fault.
    pub field: Option<Arc<str>>,
}

/// Where refused records belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The gateway's id.
    pub gateway: GatewayId,
    /// Its endpoint, a URI.
    pub endpoint: String,
}

/// Why a record was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The reason.
    pub reason: Reason,
    /// The field at fault.
    pub field: Option<Arc<str>>,
    /// Where the record belongs.
    pub route: Option<Route>,
    /// The ids of the rules that determined it, where rules did.
    pub rules: Option<Arc<[String]>>,
    /// What the producer has most likely to change.
    pub hint: Option<Hint>,
}

/// Records in a row that were refused alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The position of the first one in the request.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// Why.
    pub why: Arc<Why>,
}

/// The refused records of a request, in the order of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals {
    runs: Vec<Run>,
}

/// Why the last refused records of a batch were refused: what is alike is there once, whichever requests it is in.
#[derive(Debug, Default)]
pub struct Kinds<'r> {
    /// The latest one first.
    known: VecDeque<(&'r Refusal, Arc<Why>)>,
}

impl<'r> Kinds<'r> {
    /// Few reasons come in turns as a rule.
    const MOST: usize = 8;

    fn of(&mut self, refusal: &'r Refusal) -> Arc<Why> {
        if let Some((_, why)) = self.known.iter().find(|(known, _)| known.is_like(refusal)) {
            return Arc::clone(why);
        }
        let why = Arc::new(Why::of(refusal));
        self.known.truncate(Self::MOST - 1);
        self.known.push_front((refusal, Arc::clone(&why)));
        why
    }
}

impl Refusals {
    /// Records that were refused one by one, in the order of the records.
    #[must_use]
    pub fn of(refusals: &[Refusal]) -> Self {
        Self::of_part(refusals, 0, &mut Kinds::default())
    }

    /// The same of records that follow `first` other ones in a batch: their positions count from it.
    #[must_use]
    pub fn of_part<'r>(refusals: &'r [Refusal], first: u32, kinds: &mut Kinds<'r>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut before: Option<&Refusal> = None;
        for refusal in refusals {
            let index = refusal.index.saturating_sub(first);
            let is_like_before = before.is_some_and(|before| before.is_like(refusal));
            match runs.last_mut() {
                Some(run) if is_like_before && run.first.checked_add(run.count) == Some(index) => run.count += 1,
                _ => runs.push(Run { first: index, count: 1, why: kinds.of(refusal) }),
            }
            before = Some(refusal);
        }
        Self { runs }
    }

    /// The runs.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many records were refused.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.runs.iter().fold(0, |records, run| records.saturating_add(run.count))
    }

    /// Whether the very same records were refused, for whatever reasons.
    #[must_use]
    pub fn are_the_records_of(&self, others: &Self) -> bool {
        let positions = |refusals: &Self| -> Vec<(u32, u32)> {
            let mut spans: Vec<(u32, u32)> = Vec::new();
            for run in &refusals.runs {
                match spans.last_mut() {
                    Some((first, count)) if first.checked_add(*count) == Some(run.first) => *count += run.count,
                    _ => spans.push((run.first, run.count)),
                }
            }
            spans
        };
        positions(self) == positions(others)
    }

    /// The same with further records of the ones that were not refused: `accepted` are their positions among those, in
    /// ascending order.
    #[must_use]
    pub fn with(&self, accepted: &[u32], why: &Arc<Why>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut push = |run: Run| match runs.last_mut() {
            Some(last) if last.first + last.count == run.first && last.why == run.why => last.count += run.count,
            _ => runs.push(run),
        };
        let (mut refused, mut before) = (self.runs.iter().peekable(), 0);
        for &position in accepted {
            // The record's position in the request: refused ones before it move it back.
            while let Some(run) = refused.next_if(|run| run.first <= position.saturating_add(before)) {
                before += run.count;
                push(run.clone());
            }
            push(Run { first: position.saturating_add(before), count: 1, why: Arc::clone(why) });
        }
        refused.cloned().for_each(push);
        Self { runs }
    }

    /// The same with the names of some fields only.
    fn with_fields(&self, is_kept: &impl Fn(&Option<Arc<str>>) -> bool) -> Self {
        let runs = self.runs.iter().map(|run| match is_kept(&run.why.field) {
            true => run.clone(),
            false => Run { why: Arc::new(Why { field: None, ..Why::clone(&run.why) }), ..*run },
        });
        Self { runs: runs.collect() }
    }
}

impl Why {
    /// A reason alone.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self { reason, field: None, route: None, rules: None, hint: None }
    }

    /// Whether this gateway may take the very same record at another time. A record with a hint has to be changed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.reason.retryable() && self.hint.is_none()
    }

    fn of(refusal: &Refusal) -> Self {
        let route = refusal.route.as_ref();
        Self {
            reason: refusal.reason,
            field: refusal.field.clone(),
            route: route.map(|peer| Route { gateway: peer.id.clone(), endpoint: peer.endpoint.clone() }),
            rules: refusal.rules.clone(),
            hint: refusal.hint,
        }
    }
}

impl Outcome {
    /// Nothing to count and nothing refused.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Taken(Taken::default())
    }

    /// Refused as a whole, for a reason that concerns no field.
    #[must_use]
    pub fn refused(reason: Reason) -> Self {
        Self::Refused(Refused { reason, field: None })
    }

    /// The outcome as it may be kept: without names of fields that the stream does not declare.
    #[must_use]
    pub fn declared(&self, stream: &Stream) -> Cow<'_, Self> {
        self.with_fields(&|field| stream.position(field).is_some())
    }

    /// The outcome with the names of some fields only.
    #[must_use]
    pub fn with_fields(&self, is_kept: &impl Fn(&str) -> bool) -> Cow<'_, Self> {
        let is_kept = |field: &Option<Arc<str>>| field.as_deref().is_none_or(is_kept);
        match self {
            Self::Taken(taken) if !taken.refusals.runs.iter().all(|run| is_kept(&run.why.field)) => {
                Cow::Owned(Self::Taken(Taken { refusals: taken.refusals.with_fields(&is_kept), ..*taken }))
            }
            Self::Refused(refused) if !is_kept(&refused.field) => {
                Cow::Owned(Self::Refused(Refused { field: None, ..*refused }))
            }
            Self::Taken(_) | Self::Refused(_) => Cow::Borrowed(self),
        }
    }

    /// The outcome as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Taken(Taken { accepted, dropped_values, refusals }) => {
                writer.u8(TAKEN).varint((*accepted).into()).varint((*dropped_values).into());
                refusals.encode(&mut writer);
            }
            Self::Refused(Refused { reason, field }) => {
                writer.u8(REFUSED).short_text(reason.name());
                optional(&mut writer, field.as_deref());
            }
        }
        writer.finish()
    }

    /// Adds the bytes and their length of an outcome in which no record was refused, as `short_bytes` of
    /// [`Self::encode`] does.
    pub(super) fn encode_plain(accepted: u32, dropped_values: u32, writer: &mut Writer) {
        let (accepted, dropped_values) = (u64::from(accepted), u64::from(dropped_values));
        let bytes = |number: u64| (u64::BITS - number.leading_zeros()).div_ceil(7).max(1);
        let length = 1 + bytes(accepted) + bytes(dropped_values) + 2;
        writer.varint(length.into()).u8(TAKEN).varint(accepted).varint(dropped_values);
        // Neither reasons nor runs of refusals.
        writer.varint(0).varint(0);
    }

    /// Reads an outcome. `None`: the bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let outcome = match reader.u8()? {
            TAKEN => Self::Taken(Taken {
                accepted: reader.varint32()?,
                dropped_values: reader.varint32()?,
                refusals: Refusals::decode(&mut reader)?,
            }),
            REFUSED => {
                let reason = Reason::named(reader.short_text()?)?;
                Self::Refused(Refused { reason, field: read_optional(&mut reader)?.map(Arc::from) })
            }
            _ => return None,
        };
        reader.is_empty().then_some(outcome)
    }
}

const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

impl Refusals {
    fn encode(&self, writer: &mut Writer) {
        let mut whys: Vec<&Arc<Why>> = Vec::new();
        let mut positions = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let known = whys.iter().position(|why| Arc::ptr_eq(why, &run.why));
            let known = known.or_else(|| whys.iter().position(|why| **why == run.why));
            positions.push(known.unwrap_or(whys.len()));
            if known.is_none() {
                whys.push(&run.why);
            }
        }
        writer.varint(whys.len() as u64);
        for why in whys {
            why.encode(writer);
        }
        writer.varint(self.runs.len() as u64);
        let mut end = 0;
        for (run, position) in self.runs.iter().zip(positions) {
            let gap = run.first.saturating_sub(end);
            writer.varint(gap.into()).varint(run.count.into()).varint(position as u64);
            end = run.first.saturating_add(run.count);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let whys =
            (0..reader.short_count(4)?).map(|_| Why::decode(reader).map(Arc::new)).collect::<Option<Vec<_>>>()?;
        let (mut runs, mut end) = (Vec::new(), 0_u32);
        for _ in 0..reader.short_count(3)? {
            let first = end.checked_add(reader.varint32()?)?;
            let count = reader.varint32()?;
            let why = Arc::clone(whys.get(usize::try_from(reader.varint()?).ok()?)?);
            end = first.checked_add(count)?;
            runs.push(Run { first, count, why });
        }
        Some(Self { runs })
    }
}

impl Why {
    fn encode(&self, writer: &mut Writer) {
        writer.short_text(self.reason.name());
        optional(writer, self.field.as_deref());
        optional(writer, self.route.as_ref().map(|route| route.gateway.as_str()));
        if let Some(route) = &self.route {
            writer.short_text(&route.endpoint);
        }
        let rules = self.rules.as_deref().unwrap_or_default();
        writer.varint(rules.len() as u64);
        for rule in rules {
            writer.short_text(rule);
        }
        optional(writer, self.hint.map(Hint::name));
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let reason = Reason::named(reader.short_text()?)?;
        let field = read_optional(reader)?.map(Arc::from);
        let route = match read_optional(reader)? {
            None => None,
            Some(gateway) => {
                Some(Route { gateway: GatewayId::new(gateway).ok()?, endpoint: reader.short_text()?.to_owned() })
            }
        };
        let rules = (0..reader.short_count(1)?).map(|_| reader.short_text().map(str::to_owned));
        let rules = rules.collect::<Option<Vec<_>>>()?;
        let hint = match read_optional(reader)? {
            None => None,
            Some(name) => Some(Hint::named(name)?),
        };
        Some(Self { reason, field, route, rules: (!rules.is_empty()).then(|| rules.into()), hint })
    }
}

fn optional(writer: &mut Writer, text: Option<&str>) {
    writer.u8(text.is_some().into());
    if let Some(text) = text {
        writer.short_text(text);
    }
}

#[expect(clippy::option_option, reason = "the outer one: the bytes are none; the inner one: there is no text")]
fn read_optional<'r>(reader: &mut Reader<'r>) -> Option<Option<&'r str>> {
    match reader.u8()? {
        0 => Some(None),
        1 => reader.short_text().map(Some),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(index: u32, reason: Reason, field: Option<&str>) -> Refusal {
        Refusal { field: field.map(Arc::from), ..Refusal::new(index, reason) }
    }

    fn refusals() -> impl Strategy<Value = Vec<Refusal>> {
        let reasons = prop::sample::select(vec![Reason::WrongType, Reason::NoRegime]);
        let kinds = (reasons, prop::option::of(prop::sample::select(vec!["a", "b"])), any::<bool>());
        prop::collection::vec(prop::option::weighted(0.6, kinds), 0..60).prop_map(|kinds| {
            let refused = kinds.into_iter().zip(0..).filter_map(|(kind, index)| {
                let (reason, field, by_rule) = kind?;
                let rules = by_rule.then(|| Arc::from(vec!["law/rule".to_owned()]));
                let hint = by_rule.then_some(Hint::TimeZoneMissing);
                Some(Refusal { rules, hint, ..refusal(index, reason, field) })
            });
            refused.collect()
        })
    }

    /// One entry per record, as slow and obvious as can be.
    fn expanded(refusals: &Refusals) -> Vec<(u32, Why)> {
        let each = |run: &Run| {
            let why = Why::clone(&run.why);
            (run.first..run.first + run.count).map(move |index| (index, why.clone())).collect::<Vec<_>>()
        };
        refusals.runs().iter().flat_map(each).collect()
    }

    proptest! {
        #[test]
        fn runs_say_what_the_single_refusals_said_and_survive_being_written(refusals in refusals(), accepted: u32) {
            let runs = Refusals::of(&refusals);
            let singly: Vec<_> = refusals.iter().map(|refusal| (refusal.index, Why::of(refusal))).collect();
            prop_assert_eq!(expanded(&runs), singly);
            prop_assert_eq!(runs.records() as usize, refusals.len());
            let outcome = Outcome::Taken(Taken { accepted, dropped_values: 7, refusals: runs });
            let bytes = outcome.encode();
            prop_assert_eq!(Outcome::decode(&bytes), Some(outcome));
            for end in 0..bytes.len() {
                prop_assert_eq!(Outcome::decode(&bytes[..end]), None);
            }
        }

        #[test]
        fn records_refused_later_find_their_places(refusals in refusals(), marks in prop::collection::vec(any::<bool>(), 60)) {
            let refused: Vec<u32> = refusals.iter().map(|refusal| refusal.index).collect();
            let kept: Vec<u32> = (0..60).filter(|index| !refused.contains(index)).collect();
            let failed: Vec<u32> = (0..).zip(&kept).filter(|(_, index)| marks[**index as usize]).map(|(at, _)| at).collect();
            let why = Arc::new(Why::new(Reason::ModelFailed));
            let together = Refusals::of(&refusals).with(&failed, &why);
            let mut expected: Vec<(u32, Why)> = refusals.iter().map(|refusal| (refusal.index, Why::of(refusal))).collect();
            expected.extend(failed.iter().map(|&at| (kept[at as usize], Why::clone(&why))));
            expected.sort_by_key(|(index, _)| *index);
            prop_assert_eq!(expanded(&together), expected);
        }
    }

    #[test]
    fn the_same_records_are_the_same_whatever_the_reasons() {
        let of = |refusals: &[Refusal]| Refusals::of(refusals);
        let (a, b) = (Reason::WrongType, Reason::NoRegime);
        let one = of(&[refusal(1, a, None), refusal(2, b, None), refusal(5, a, None)]);
        let other = of(&[refusal(1, b, None), refusal(2, b, Some("x")), refusal(5, b, None)]);
        assert!(one.are_the_records_of(&other));
        assert!(!one.are_the_records_of(&of(&[refusal(1, a, None), refusal(5, a, None)])));
    }

    #[test]
    fn a_field_that_only_the_producer_knows_is_not_kept() {
        let is_declared = |field: &str| field == "amount";
        let refusals = [
            refusal(0, Reason::UndeclaredField, Some("jane@example.org")),
            refusal(1, Reason::WrongType, Some("amount")),
        ];
        let taken = Taken { refusals: Refusals::of(&refusals), ..Taken::default() };
        let taken = Outcome::Taken(taken);
        let kept = taken.with_fields(&is_declared).encode();
        assert!(!kept.windows(4).any(|bytes| bytes == b"jane") && kept.windows(6).any(|bytes| bytes == b"amount"));
        for (field, is_kept) in [("jane@example.org", false), ("amount", true)] {
            let refused = Outcome::Refused(Refused { reason: Reason::WrongType, field: Some(field.into()) });
            let Outcome::Refused(kept) = refused.with_fields(&is_declared).into_owned() else { unreachable!() };
            assert_eq!(kept.field.is_some(), is_kept);
        }
    }

    #[test]
    fn many_records_refused_alike_take_few_bytes() {
        let all: Vec<Refusal> = (0..65_536).map(|index| refusal(index, Reason::MayNotBeHere, None)).collect();
        let refusals = Refusals::of(&all);
        assert_eq!(refusals.runs().len(), 1);
        assert!(Outcome::Taken(Taken { accepted: 0, dropped_values: 0, refusals }).encode().len() < 40);
    }

    #[test]
    fn a_request_refused_as_a_whole_is_read_as_it_was_written() {
        for field in [None, Some(Arc::from("amount"))] {
            let outcome = Outcome::Refused(Refused { reason: Reason::TooLarge, field });
            assert_eq!(Outcome::decode(&outcome.encode()), Some(outcome));
        }
    }
}
