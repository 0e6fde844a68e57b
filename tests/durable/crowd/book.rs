//! What is known of each request: which policies may have decided about it, and what it was told.

use std::collections::BTreeSet;

use crate::common::tape::Tape;
use crate::crowd::cells::Cells;
use crate::crowd::lanes::{Answer, At};
use crate::crowd::records::{Fate, Record, Rules};
use crate::crowd::script::{Sort, Step, What, script};
use crate::crowd::told::{Refused, Told};

use super::Seen;

/// A producer, and what is known of what it sends.
pub(super) struct Producer {
    pub(super) sort: Sort,
    pub(super) steps: Vec<Step>,
    known: Vec<Known>,
    /// The first step that is not answered.
    pub(super) next: usize,
}

/// What is known of a step.
#[derive(Debug, Clone, Default)]
struct Known {
    /// It may have been decided under these.
    possible: BTreeSet<Rules>,
    /// It was decided under these.
    decided: Option<Rules>,
    /// The life in which it was sent first, and the one in which it was answered.
    sent_in: Option<usize>,
    answered_in: Option<usize>,
    /// How often it was said to be taken for the first time.
    firsts: usize,
}

pub(super) struct Book {
    pub(super) producers: Vec<Producer>,
    pub(super) seen: Seen,
    /// How often the gateway was started.
    pub(super) life: usize,
}

impl Producer {
    fn new(tape: &mut Tape, name: &str, sort: Sort, drops: bool) -> Self {
        let length = 4 + tape.below(9);
        let steps = script(tape, name, sort, drops, length);
        Self { sort, known: vec![Known::default(); steps.len()], steps, next: 0 }
    }

    /// The next steps that may be sent together: before a series begins, all of the last one is answered.
    pub(super) fn ahead(&self, most: usize) -> std::ops::Range<usize> {
        let end = self.steps.len().min(self.next.saturating_add(most));
        let begins = (self.next + 1..end).find(|at| self.steps[*at].begins_a_series());
        self.next..begins.unwrap_or(end)
    }
}

impl Book {
    pub(super) fn new(tape: &mut Tape, producers: usize, drops: bool) -> Self {
        let sorts = [Sort::Numbered, Sort::Numbered, Sort::Numbered, Sort::Orderly, Sort::Orderly, Sort::Unnumbered];
        let producers = (0..producers).map(|at| Producer::new(tape, &format!("p-{at}"), sorts[at % 6], drops));
        Self { producers: producers.collect(), seen: Seen::new(), life: 0 }
    }

    pub(super) fn saw(&mut self, what: &str, times: usize) {
        *self.seen.entry(what.to_owned()).or_default() += times;
    }

    pub(super) fn is_done(&self) -> bool {
        self.producers.iter().all(|producer| producer.next == producer.steps.len())
    }

    /// A request is sent while these may be in force.
    pub(super) fn sent(&mut self, (producer, step): At, rules: &BTreeSet<Rules>) {
        let known = &mut self.producers[producer].known[step];
        known.possible.extend(rules);
        known.sent_in.get_or_insert(self.life);
    }

    /// A request is answered, while these may have been in force. `is_twice`: it is sent in two calls.
    pub(super) fn answered(&mut self, answer: Answer, rules: &BTreeSet<Rules>, is_twice: bool) -> Result<(), String> {
        let (producer, step) = answer.at;
        let found = self.judge(&answer, rules, is_twice);
        let Producer { steps, known, .. } = &self.producers[producer];
        found.map_err(|what| {
            let (step, known, Answer { told, is_repeat, .. }) = (&steps[step], &known[step], answer);
            format!("{what}\n{known:?}\n{step:#?}\nis told (repeat: {is_repeat:?}) {told:#?}")
        })
    }

    fn judge(&mut self, answer: &Answer, rules: &BTreeSet<Rules>, is_twice: bool) -> Result<(), String> {
        let ((producer, position), told) = (answer.at, &answer.told);
        let life = self.life;
        let Producer { steps, known, .. } = &self.producers[producer];
        let (step, before) = (steps[position].clone(), known[position].clone());
        let is_overtaken = told.error.as_ref().is_some_and(|(reason, _)| reason == "REASON_OVERLOADED");
        if is_twice && is_overtaken {
            self.saw("requests that were overtaken", 1);
            return Ok(());
        }
        let request = &step.request;
        if answer.sequence.is_some_and(|sequence| sequence != request.sequence) {
            return Err(format!("it is answered as {:?}", answer.sequence));
        }
        if let Some((epoch, durable)) = answer.mark.filter(|_| request.sequence > 0)
            && (epoch != request.epoch || durable < request.sequence)
        {
            return Err(format!("{durable} of {epoch} is on disk"));
        }
        let is_before = before.sent_in.is_some_and(|sent| sent < life);
        let mut decided = None;
        match &step.what {
            What::Repeat(of) => {
                let Some(under) = known[*of].decided else { return Err("what it repeats is not answered".to_owned()) };
                let is_after = known[*of].answered_in.is_some_and(|answered| answered < life);
                let first = &steps[*of];
                if answer.is_repeat == Some(false) {
                    return Err("it is taken for the first time".to_owned());
                }
                let lacks = repeated(first, under, told)?;
                self.saw("repeats that are told", 1);
                self.saw("repeats after a restart", usize::from(is_after));
                self.saw("repeats without scores", usize::from(lacks));
            }
            What::Gap | What::Fenced | What::Reused => {
                let is_reused = matches!(step.what, What::Reused);
                if *told != step.expected(*rules.first().unwrap()) || answer.is_repeat == Some(!is_reused) {
                    return Err("it is out of order".to_owned());
                }
            }
            What::Records(_) | What::Whole(..) | What::Nothing if answer.is_repeat == Some(true) => {
                if !is_before && !is_twice {
                    return Err("it came once".to_owned());
                }
                let under = before.decided.map_or_else(|| before.possible.clone(), |decided| [decided].into());
                let mut why = Err("nothing is possible".to_owned());
                for rules in under {
                    why = repeated(&step, rules, told);
                    if why.is_ok() {
                        decided = Some(rules);
                        break;
                    }
                }
                let lacks = why?;
                self.saw("repeats without scores", usize::from(lacks));
                let what = if before.decided.is_some() || !is_before {
                    "repeats of another call at the same time"
                } else {
                    "requests that were on disk and not answered"
                };
                self.saw(what, 1);
            }
            What::Records(_) | What::Whole(..) | What::Nothing => {
                // What a call of one request was refused for may have been remembered.
                let under = if answer.is_repeat.is_none() { &before.possible } else { rules };
                let is_it = |rules: &&Rules| {
                    let expected = step.expected(**rules);
                    *told == expected || answer.is_repeat.is_none() && *told == expected.remembered()
                };
                decided = Some(*under.iter().find(is_it).ok_or("it is not what it comes to alone")?);
                if is_before {
                    self.saw("requests that were lost and not answered", usize::from(answer.is_repeat.is_some()));
                }
                self.saw("requests without a number", usize::from(request.sequence == 0));
            }
        }
        let (of_policies, scores) = (before.possible.len() > 1, told.scores.len());
        self.saw("requests of changed policies", usize::from(of_policies));
        self.saw("scores", scores);
        self.saw("dropped values", told.dropped as usize);
        told.refusals.iter().for_each(|refused| self.saw(&format!("records {}", refused.reason), 1));
        if let Some((reason, _)) = &told.error {
            self.saw(&format!("requests {reason}"), 1);
        }
        let producer = &mut self.producers[producer];
        let (known, is_nothing) =
            (&mut producer.known[position], matches!(producer.steps[position].what, What::Nothing));
        known.decided = known.decided.or(decided);
        known.answered_in.get_or_insert(life);
        known.firsts += usize::from(decided.is_some() && answer.is_repeat == Some(false));
        if known.firsts > 1 && !is_nothing {
            return Err("it is taken twice".to_owned());
        }
        while producer.known.get(producer.next).is_some_and(|known| known.answered_in.is_some()) {
            producer.next += 1;
        }
        Ok(())
    }

    /// The cells of all that was accepted.
    pub(super) fn cells(&self) -> Cells {
        let mut cells = Cells::default();
        for (step, rules) in self.decided() {
            // Nothing of a request that is refused as a whole counts.
            if step.expected(rules).error.is_none() {
                cells.add(step.records(), rules);
            }
        }
        cells
    }

    /// The records that were refused, by reason.
    pub(super) fn refused(&self) -> Seen {
        let mut refused = Seen::new();
        for (step, rules) in self.decided() {
            for Refused { reason, .. } in step.expected(rules).refusals {
                *refused.entry(reason).or_default() += 1;
            }
        }
        refused
    }

    fn decided(&self) -> impl Iterator<Item = (&Step, Rules)> {
        let all = self.producers.iter().flat_map(|producer| producer.steps.iter().zip(&producer.known));
        all.filter_map(|(step, known)| Some((step, known.decided?)))
    }
}

/// Whether a repeat is told without scores what it was told before; or what is wrong.
fn repeated(step: &Step, rules: Rules, told: &Told) -> Result<bool, String> {
    let expected = step.expected(rules);
    if (Told { scores: Vec::new(), ..told.clone() }) != expected.remembered() {
        return Err(format!("it was told {:#?}", expected.remembered()));
    }
    let lacks = told.scores.is_empty() && !expected.scores.is_empty();
    // Scores are only told of the same records, and only the policies are asked again which those are.
    let of_policies = |record: &&Record| record.country == "FR";
    let (may, cannot): (Vec<&Record>, Vec<&Record>) = step.records().iter().partition(of_policies);
    if cannot.iter().any(|record| is_refused_besides_policies(record, rules)) {
        return if told.scores.is_empty() { Ok(lacks) } else { Err("it has scores".to_owned()) };
    }
    if told.scores != expected.scores && (!lacks || may.is_empty()) {
        return Err(format!("its scores were {:?}", expected.scores));
    }
    Ok(lacks)
}

/// Whether the clock or the model refuses a record that the policies take.
fn is_refused_besides_policies(record: &Record, rules: Rules) -> bool {
    match record.fate(rules) {
        Fate::Refused(why) => why.reason.starts_with("REASON_EVENT_TIME"),
        Fate::Failed | Fate::Unusable => true,
        Fate::Taken { .. } => false,
    }
}
