//! What a load came to, as a table with a plot and as JSON.

use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};

use crate::commands::send::ascii;
use crate::commands::table::table;
use crate::domain::printable;

use super::plot::{Bin, bins, plot, time};
use super::{End, Measured, Payload, Plan, Pool};

/// What a load came to.
pub(super) struct Report<'r> {
    pub(super) plan: &'r Plan,
    pub(super) pool: &'r Pool,
    pub(super) measured: &'r Measured,
    /// Records of the files that cannot be read.
    pub(super) skipped: usize,
}

/// The percentiles, with their names in the table and in JSON.
const PERCENTILES: [(&str, &str, f64); 4] =
    [("p50", "p50", 0.5), ("p90", "p90", 0.9), ("p99", "p99", 0.99), ("p99.9", "p99_9", 0.999)];

impl Report<'_> {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut rows = self.asked();
        rows.extend(self.counted());
        rows.extend(self.used());
        let mut text = table(&rows);
        if self.measured.messages + self.measured.unanswered > 0 {
            text.push('\n');
            text.push_str(&self.latencies());
        }
        if let Some(failure) = &self.measured.failure {
            text.push_str(&format!("\nended early: {}\n", printable::line(failure)));
        }
        text
    }

    /// What was sent.
    fn asked(&self) -> Vec<[String; 2]> {
        let Plan { calls, connections, in_flight, producers, schedule, .. } = self.plan;
        let kind = match self.pool.payload() {
            Payload::Rows => "protobuf rows",
            Payload::Arrow => "Arrow",
        };
        let pace = match schedule.rate {
            Some(rate) => format!("{:.0} records/s", rate * self.pool.records_per_message() as f64),
            None => "as fast as the answers come".to_owned(),
        };
        let message = format!(
            "{kind}, {} records, {}",
            HumanCount(self.pool.records_per_message() as u64),
            HumanBytes(self.pool.mean_bytes() as u64)
        );
        let load = format!(
            "{pace}; calls {calls}, each with at most {in_flight} in flight; connections {connections}, producers {producers}"
        );
        let length = match schedule.end {
            End::After(_) => String::new(),
            End::Messages(count) => format!(" ({} messages asked for)", HumanCount(count)),
        };
        let measured = format!("{}{length}, after {} of warm-up", time(self.measured.took), time(schedule.warm_up));
        let mut rows = vec![row("message", message), row("load", load), row("measured", measured)];
        if self.skipped > 0 {
            rows.push(row("left out of the files", format!("{} records that cannot be read", self.skipped)));
        }
        rows
    }

    /// What was answered.
    fn counted(&self) -> Vec<[String; 2]> {
        let measured = self.measured;
        let mut rows = vec![
            row("records/s", HumanCount(measured.records_per_second() as u64)),
            row("messages/s", HumanCount(measured.messages_per_second() as u64)),
            row("accepted", HumanCount(measured.accepted)),
        ];
        rows.extend(
            measured.refused.iter().map(|(reason, count)| row(&format!("refused, {reason}"), HumanCount(*count))),
        );
        if measured.unanswered > 0 {
            rows.push(row("not answered", format!("{} messages", HumanCount(measured.unanswered))));
        }
        rows
    }

    /// What the gateway's process used.
    fn used(&self) -> Vec<[String; 2]> {
        let Some(used) = self.measured.process else { return Vec::new() };
        let cpu = self.measured.cpu_per_record().map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.0} ns"));
        let memory = format!("{}, at most {}", HumanBytes(used.memory), HumanBytes(used.memory_max));
        vec![row("gateway's CPU per record", cpu), row("gateway's memory", memory)]
    }

    fn latencies(&self) -> String {
        let latencies = &self.measured.latencies;
        let names = PERCENTILES.map(|(name, ..)| name.to_owned());
        let values = PERCENTILES.map(|(_, _, share)| time(latencies.at(share)));
        let [[a, b, c, d], [e, f, g, h]] = [names, values];
        let header = ["answers took".to_owned(), a, b, c, d, "max".to_owned()];
        let values = [String::new(), e, f, g, h, time(latencies.max())];
        format!("{}\n{}", table(&[header, values]), plot(&bins(latencies)))
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let Self { plan, pool, measured, skipped } = self;
        let seconds = |time: Duration| time.as_secs_f64();
        let rate = plan.schedule.rate.map(|rate| rate * pool.records_per_message() as f64);
        let process = measured.process.map(|used| {
            json!({
                "cpu_ns_per_record": measured.cpu_per_record(),
                "memory_bytes": used.memory,
                "memory_bytes_max": used.memory_max,
            })
        });
        let report = json!({
            "to": plan.endpoint,
            "stream": plan.stream,
            "payload": match pool.payload() {
                Payload::Rows => "rows",
                Payload::Arrow => "arrow",
            },
            "records_per_message": pool.records_per_message(),
            "bytes_per_message": pool.mean_bytes(),
            "calls": plan.calls,
            "connections": plan.connections,
            "producers": plan.producers,
            "in_flight": plan.in_flight,
            "rate": rate,
            "warm_up_s": seconds(plan.schedule.warm_up),
            "measured_s": seconds(measured.took),
            "messages": measured.messages,
            "records": measured.records,
            "messages_per_s": measured.messages_per_second(),
            "records_per_s": measured.records_per_second(),
            "accepted": measured.accepted,
            "refused": measured.refused,
            "unanswered": measured.unanswered,
            "left_out": skipped,
            "latency_us": self.latencies_json(),
            "process": process,
            "error": measured.failure,
        });
        ascii(&report.to_string()) + "\n"
    }

    fn latencies_json(&self) -> Value {
        let latencies = &self.measured.latencies;
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let percentiles = PERCENTILES.iter().map(|(_, key, share)| (*key, json!(micros(latencies.at(*share)))));
        let bins = bins(latencies);
        let bin = |bin: &Bin| json!({"from": micros(bin.from), "to": micros(bin.to), "count": bin.count});
        let others = [
            ("max", json!(micros(latencies.max()))),
            ("mean", json!(micros(latencies.mean()))),
            ("histogram", bins.iter().map(bin).collect()),
        ];
        percentiles.chain(others).map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

fn row(name: &str, value: impl ToString) -> [String; 2] {
    [name.to_owned(), value.to_string()]
}
