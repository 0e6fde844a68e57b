//! How many records of a stream were refused, by what refused them. It is told when windows close, in whole steps; what is
//! left over counts towards what is told later. So no count of a few records is ever told, and none is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::binary::{Reader, Writer};
use super::name::GatewayId;
use super::outcome::{Outcome, Why};
use super::refusal::Reason;

/// So many causes are told apart in one stream. The policies name fewer; the rest counts by its reason alone.
const CAUSES_MAX: usize = 1_000;

/// What records were refused for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// The reason.
    pub reason: Reason,
    /// The ids of the rules that determined it, where rules did.
    pub rules: Option<Arc<[String]>>,
    /// The gateway that they belong to.
    pub to: Option<GatewayId>,
}

/// Refused records, as they are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What they were refused for.
    pub cause: Cause,
    /// How many: whole steps.
    pub records: u64,
}

/// How many records were refused and are not told yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<Cause, u64>,
}

impl Tally {
    /// Those of what requests came to. A request that was refused as a whole has none: nobody looked at its records.
    pub fn of<'o>(outcomes: impl IntoIterator<Item = &'o Outcome>) -> Self {
        // Requests of a batch share their reasons: the last ones are looked through.
        let mut kinds: Vec<(&Arc<Why>, u64)> = Vec::new();
        for outcome in outcomes {
            let Outcome::Taken(taken) = outcome else { continue };
            for run in taken.refusals.runs() {
                match kinds.iter_mut().rev().take(8).find(|(why, _)| Arc::ptr_eq(why, &run.why)) {
                    Some((_, records)) => *records += u64::from(run.count),
                    None => kinds.push((&run.why, run.count.into())),
                }
            }
        }
        let mut tally = Self::default();
        kinds.into_iter().for_each(|(why, records)| tally.add(Cause::of(why), records));
        tally
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Adds those of another one.
    pub fn merge(&mut self, other: &Self) {
        for (cause, records) in &other.counts {
            self.add(cause.clone(), *records);
        }
    }

    fn add(&mut self, cause: Cause, records: u64) {
        let is_one_too_many = self.counts.len() >= CAUSES_MAX && !self.counts.contains_key(&cause);
        let cause = if is_one_too_many { Cause { rules: None, to: None, ..cause } } else { cause };
        let count = self.counts.entry(cause).or_default();
        *count = count.saturating_add(records);
    }

    /// What is to be told now, in steps of so many records. It is not told again.
    pub fn tell(&mut self, step: u64) -> Vec<Told> {
        let step = step.max(1);
        let mut told = Vec::new();
        self.counts.retain(|cause, count| {
            let records = *count / step * step;
            if records > 0 {
                told.push(Told { cause: cause.clone(), records });
            }
            *count -= records;
            *count > 0
        });
        told
    }

    /// Adds it to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        writer.varint(self.counts.len() as u64);
        for (cause, records) in &self.counts {
            Told { cause: cause.clone(), records: *records }.encode(writer);
        }
    }

    /// Reads it.
    #[must_use]
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let mut tally = Self::default();
        for _ in 0..reader.short_count(4)? {
            let Told { cause, records } = Told::decode(reader)?;
            // As it was: with those that stand for what was one too many, there are more than the most.
            let count = tally.counts.entry(cause).or_default();
            *count = count.saturating_add(records);
        }
        Some(tally)
    }
}

impl Told {
    /// Adds it to an entry or a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        let Self { cause: Cause { reason, rules, to }, records } = self;
        writer.short_text(reason.name()).short_text(to.as_ref().map_or("", GatewayId::as_str));
        let rules = rules.as_deref().unwrap_or_default();
        writer.varint(rules.len() as u64);
        for rule in rules {
            writer.short_text(rule);
        }
        writer.varint(*records);
    }

    /// Reads it.
    #[must_use]
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let reason = Reason::named(reader.short_text()?)?;
        let to = match reader.short_text()? {
            "" => None,
            gateway => Some(GatewayId::new(gateway).ok()?),
        };
        let rules = (0..reader.short_count(1)?).map(|_| reader.short_text().map(str::to_owned));
        let rules = rules.collect::<Option<Vec<_>>>()?;
        let rules = (!rules.is_empty()).then(|| rules.into());
        Some(Self { cause: Cause { reason, rules, to }, records: reader.varint()? })
    }
}

impl Cause {
    fn of(why: &Why) -> Self {
        let to = why.route.as_ref().map(|route| route.gateway.clone());
        Self { reason: why.reason, rules: why.rules.clone(), to }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::outcome::{Refusals, Refused, Route, Taken};
    use super::super::refusal::Refusal;
    use super::*;

    fn cause(number: u8) -> Cause {
        let rules = (number & 1 == 1).then(|| Arc::from(vec![format!("law/{number}")]));
        let to = (number & 2 == 2).then(|| "in-1".parse().unwrap());
        Cause { reason: Reason::MayNotBeHere, rules, to }
    }

    #[test]
    fn each_refused_record_counts_once_and_requests_refused_as_a_whole_do_not() {
        let refusals: Vec<Refusal> = [0, 1, 2, 5, 6]
            .map(|index| {
                let reason = if index == 5 { Reason::WrongType } else { Reason::NoRegime };
                Refusal::new(index, reason)
            })
            .into();
        let taken = Outcome::Taken(Taken { refusals: Refusals::of(&refusals), ..Taken::default() });
        let whole = Outcome::Refused(Refused { reason: Reason::Malformed, field: None });
        let told = Tally::of([&taken, &whole, &taken]).tell(1);
        let of = |reason| told.iter().filter(|told| told.cause.reason == reason).map(|told| told.records).sum::<u64>();
        assert_eq!((of(Reason::NoRegime), of(Reason::WrongType), told.len()), (8, 2, 2));
    }

    #[test]
    fn a_cause_names_the_rules_and_where_the_records_belong() {
        let route = Route { gateway: "in-1".parse().unwrap(), endpoint: "https://in.example".to_owned() };
        let rules: Arc<[String]> = vec!["law/rule".to_owned()].into();
        let why = Why { route: Some(route), rules: Some(Arc::clone(&rules)), ..Why::new(Reason::BelongsElsewhere) };
        let expected =
            Cause { reason: Reason::BelongsElsewhere, rules: Some(rules), to: Some("in-1".parse().unwrap()) };
        assert_eq!(Cause::of(&why), expected);
    }

    #[test]
    fn more_causes_than_may_be_count_by_their_reason() {
        let mut tally = Tally::default();
        let rule = |number: usize| Some(Arc::from(vec![format!("r{number}")]));
        for number in 0..CAUSES_MAX + 5 {
            tally.add(Cause { reason: Reason::NoRegime, rules: rule(number), to: None }, 1);
        }
        assert_eq!(tally.counts.len(), CAUSES_MAX + 1);
        assert_eq!(tally.counts.get(&Cause { reason: Reason::NoRegime, rules: None, to: None }), Some(&5));
    }

    proptest! {
        /// Whatever comes in which order: all is told once, in whole steps, but for less than a step of each cause.
        #[test]
        fn nothing_is_told_twice_or_forgotten(
            steps in prop::collection::vec((0_u8..4, 0_u64..70, any::<bool>()), 0..60),
            step in 1_u64..40,
        ) {
            let (mut tally, mut all, mut told) = (Tally::default(), BTreeMap::new(), BTreeMap::new());
            for (number, records, tells) in steps {
                tally.add(cause(number), records);
                *all.entry(cause(number)).or_insert(0) += records;
                // A checkpoint in between changes nothing.
                let mut writer = Writer::default();
                tally.encode(&mut writer);
                let bytes = writer.finish();
                prop_assert_eq!(Tally::decode(&mut Reader::new(&bytes)), Some(tally.clone()));
                if tells {
                    for Told { cause, records } in tally.tell(step) {
                        prop_assert!(records > 0 && records.is_multiple_of(step));
                        *told.entry(cause).or_insert(0) += records;
                    }
                }
            }
            for (cause, records) in all {
                let left = tally.counts.get(&cause).copied().unwrap_or(0);
                prop_assert_eq!(told.get(&cause).copied().unwrap_or(0) + left, records);
            }
            tally.tell(step);
            prop_assert!(tally.counts.values().all(|left| *left < step));
        }
    }
}
