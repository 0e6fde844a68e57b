//! Sends records to their gateway, and those that belong elsewhere to the gateways that it names.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::adapters::grpc::proto::ingest::{Reason, Refusal};
use crate::intake::wall_clock;

use super::line::{AHEAD, Answer, Line};
use super::{Input, Options, Records, SharedTotals, Totals};

/// How records are counted that belong to a gateway which does not answer.
const UNREACHABLE: &str = "belongs_elsewhere, unreachable:";

/// Sends all records of the inputs, follows routes if asked to, and waits for every answer.
///
/// A batch has the same number whenever the same inputs are sent under the same epoch, here and, for the part
/// that belongs elsewhere, at every other gateway: sent again, nothing is lost and nothing counted twice.
///
/// # Errors
/// When an input cannot be read or a gateway goes away for too long.
pub async fn publish(inputs: Vec<Input>, options: &Options, totals: &SharedTotals) -> anyhow::Result<()> {
    let home = Line::open(&options.endpoint, options).await?;
    let mut sending = Sending { options, totals, home, routes: BTreeMap::new() };
    let mut sequence = 0;
    for input in inputs {
        for records in input.open(options.batch, &options.text)? {
            sequence += 1;
            sending.send(sequence, records?).await?;
        }
    }
    sending.finish().await
}

struct Sending<'s> {
    options: &'s Options,
    totals: &'s SharedTotals,
    home: Line,
    routes: BTreeMap<String, Line>,
}

impl Sending<'_> {
    fn update(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn send(&mut self, sequence: u64, records: Records) -> anyhow::Result<()> {
        let count = records.len() as u64;
        self.update(|totals| totals.read += count);
        // What belongs elsewhere is only known from the answer, so it is asked for again if it is to be sent on.
        if !self.options.follow && sequence <= self.home.durable_through() {
            self.update(|totals| totals.durable_before += count);
            return Ok(());
        }
        let bytes = self.home.send(sequence, records).await?;
        self.update(|totals| totals.bytes += bytes as u64);
        while self.home.waiting() >= AHEAD {
            self.take_home_answer().await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        while self.home.waiting() > 0 {
            self.take_home_answer().await?;
        }
        let endpoints: Vec<String> = self.routes.keys().cloned().collect();
        for endpoint in &endpoints {
            self.take_route_answers(endpoint, 0).await?;
        }
        if self.options.complete {
            let now = wall_clock().as_microsecond();
            for line in [&mut self.home].into_iter().chain(self.routes.values_mut()) {
                line.promise(now).await?;
                line.settle().await?;
            }
        }
        Ok(())
    }

    /// Takes one answer. Records that belong elsewhere are sent on.
    async fn take_home_answer(&mut self) -> anyhow::Result<()> {
        let Answer { response, sequence, records } = self.home.answer().await?;
        self.count(response.accepted, response.duplicate);
        let Some(records) = records else { return Ok(()) };
        let mut elsewhere: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
        for refusal in response.refusals {
            match &refusal.route {
                Some(route) if self.options.follow => {
                    let key = (route.endpoint.clone(), route.gateway.clone());
                    elsewhere.entry(key).or_default().extend(refusal.index..refusal.index + refusal.count.max(1));
                }
                _ => self.refused(reason(&refusal), refusal.count.max(1).into()),
            }
        }
        for ((endpoint, gateway), positions) in elsewhere {
            self.send_on(sequence, &endpoint, gateway, records.select(&positions)?).await?;
        }
        Ok(())
    }

    async fn send_on(
        &mut self,
        sequence: u64,
        endpoint: &str,
        gateway: String,
        records: Records,
    ) -> anyhow::Result<()> {
        let count = records.len() as u64;
        if !self.routes.contains_key(endpoint) {
            match Line::open(endpoint, self.options).await {
                Ok(line) => {
                    self.routes.insert(endpoint.to_owned(), line);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, gateway, count, "records that belong elsewhere were not sent on");
                    self.refused(format!("{UNREACHABLE} {gateway}"), count);
                    return Ok(());
                }
            }
        }
        self.update(|totals| *totals.redirected.entry(gateway).or_default() += count);
        if let Some(line) = self.routes.get_mut(endpoint) {
            let bytes = line.send(sequence, records).await?;
            self.update(|totals| totals.bytes += bytes as u64);
        }
        self.take_route_answers(endpoint, AHEAD - 1).await
    }

    /// Takes answers of another gateway until no more than so many are missing. What is refused there is refused
    /// for good.
    async fn take_route_answers(&mut self, endpoint: &str, missing: usize) -> anyhow::Result<()> {
        while let Some(line) = self.routes.get_mut(endpoint).filter(|line| line.waiting() > missing) {
            let Answer { response, .. } = line.answer().await?;
            self.count(response.accepted, response.duplicate);
            for refusal in &response.refusals {
                self.refused(reason(refusal), refusal.count.max(1).into());
            }
        }
        Ok(())
    }

    fn count(&self, accepted: u32, duplicate: bool) {
        self.update(|totals| {
            if duplicate {
                totals.durable_before += u64::from(accepted);
            } else {
                totals.accepted += u64::from(accepted);
            }
        });
    }

    fn refused(&self, reason: String, count: u64) {
        self.update(|totals| *totals.refused.entry(reason).or_default() += count);
    }
}

fn reason(refusal: &Refusal) -> String {
    let reason = Reason::try_from(refusal.reason).unwrap_or_default();
    reason.as_str_name().trim_start_matches("REASON_").to_ascii_lowercase()
}
