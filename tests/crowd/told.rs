//! What a producer is told of a request, and what it must be told.

use bailiwick::ingress::proto::ingest::PublishResponse;
use bailiwick::ingress::proto::ingest::output::Values;
use prost::Message as _;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::records::{Fate, Fault, MORE, Record, Rules, Why};

/// What is told of one record that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub index: u32,
    pub reason: String,
    pub field: String,
    pub rules: Vec<String>,
    pub route: String,
}

/// What is told of a request, whoever shared its batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub accepted: u32,
    pub dropped: u32,
    pub refusals: Vec<Refused>,
    /// Their bits.
    pub scores: Vec<u32>,
    /// The reason and the field of a request that was refused as a whole.
    pub error: Option<(String, String)>,
}

impl Told {
    pub fn of(response: &PublishResponse) -> Self {
        let refusals = response.refusals.iter().flat_map(|refusal| {
            (0..refusal.count).map(move |offset| Refused {
                index: refusal.index + offset,
                reason: refusal.reason().as_str_name().to_owned(),
                field: refusal.field.clone(),
                rules: refusal.rules.clone(),
                route: refusal.route.as_ref().map(|route| route.gateway.clone()).unwrap_or_default(),
            })
        });
        let scores = response.outputs.iter().flat_map(|output| -> Vec<u32> { match &output.values {
            Some(Values::Scores(scores)) => scores.values.iter().map(|score| score.to_bits()).collect(),
            other => panic!("{other:?}"),
        }});
        let error = response.error.as_ref().map(|error| {
            error_of(&Status::with_details(tonic::Code::Unknown, "", error.encode_to_vec().into()))
        });
        let PublishResponse { accepted, dropped_values, .. } = *response;
        Self { accepted, dropped: dropped_values, refusals: refusals.collect(), scores: scores.collect(), error }
    }

    /// What the end of a call of one request says.
    pub fn failed(status: &Status) -> Self {
        Self { error: Some(error_of(status)), ..Self::default() }
    }

    pub fn refused(reason: &str, field: &str) -> Self {
        Self { error: Some((reason.to_owned(), field.to_owned())), ..Self::default() }
    }

    /// What a request with these records must be told, by what becomes of each.
    pub fn expected(records: &[Record], rules: Rules, wants_scores: bool) -> Self {
        let fates: Vec<Fate> = records.iter().map(|record| record.fate(rules)).collect();
        let is_refused = |fate: &&Fate| matches!(fate, Fate::Refused(_));
        let failed = fates.iter().filter(|fate| **fate == Fate::Failed).count();
        // A request is refused as a whole if the model fails on all that the laws let stay of it.
        if failed > 0 && failed == fates.len() - fates.iter().filter(is_refused).count() {
            return Self::refused("REASON_MODEL_FAILED", "");
        }
        let mut told = Self::default();
        for ((index, record), fate) in (0..).zip(records).zip(fates) {
            told.dropped += u32::from(rules.drops && record.fault == Fault::Undeclared);
            let model = Why { reason: "REASON_MODEL_FAILED", field: "", rules: &[], route: "" };
            let why = match fate {
                Fate::Taken { score } => {
                    told.accepted += 1;
                    told.scores.extend(wants_scores.then_some(score.to_bits()));
                    continue;
                }
                Fate::Refused(why) => why,
                Fate::Failed | Fate::Unusable => model,
            };
            told.refusals.push(Refused {
                index,
                reason: why.reason.to_owned(),
                field: why.field.to_owned(),
                rules: why.rules.iter().map(ToString::to_string).collect(),
                route: why.route.to_owned(),
            });
        }
        told
    }

    /// The same as it is remembered: without scores, and without the names that only the producer knows.
    pub fn remembered(&self) -> Self {
        let forget = |field: &String| if field == MORE { String::new() } else { field.clone() };
        Self {
            refusals: self
                .refusals
                .iter()
                .map(|refused| Refused { field: forget(&refused.field), ..refused.clone() })
                .collect(),
            scores: Vec::new(),
            error: self.error.as_ref().map(|(reason, field)| (reason.clone(), forget(field))),
            ..self.clone()
        }
    }
}

fn error_of(status: &Status) -> (String, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map_or_else(|| status.to_string(), |info| info.reason.clone());
    let field = details.bad_request().and_then(|bad| bad.field_violations.first().map(|first| first.field.clone()));
    (reason, field.unwrap_or_default())
}
