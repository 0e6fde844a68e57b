//! What `bailiwick bench` is told.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;

use crate::commands::dial;

use super::{CALLS_PER_CONNECTION, End, Payload, Plan, Schedule};

/// The arguments of `bailiwick bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Records: .csv or .jsonl files (.gz too), sent over and over.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The gateway's configuration: it says how the stream's records are encoded, and where the gateway listens.
    #[arg(short, long, value_name = "FILE", default_value = "gateway.toml")]
    pub config: PathBuf,
    /// The gateway [default: where the configuration says that it listens]
    #[arg(long, value_name = "URI")]
    pub to: Option<String>,
    /// The stream the records are of.
    #[arg(short, long)]
    pub stream: String,
    /// What the producers' names begin with.
    #[arg(short, long, default_value = "bench")]
    pub producer: String,
    /// How a message holds its records.
    #[arg(long, value_enum, default_value = "rows")]
    pub payload: Payload,
    /// Records in a message.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one)]
    pub records: usize,
    /// Calls of `Publish`.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub calls: usize,
    /// Connections that the calls are spread over [default: one for every 100 calls]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub connections: Option<usize>,
    /// Producers that the calls take turns to send as [default: one for every call]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub producers: Option<usize>,
    /// Messages of each call that are sent and not answered, at most.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    pub in_flight: usize,
    /// Records per second, of all calls together. Latencies then count from the moment when a message was due, not from
    /// when it could be sent [default: as fast as the answers come]
    #[arg(long, value_name = "RECORDS", value_parser = rate)]
    pub rate: Option<f64>,
    /// How many seconds to measure.
    #[arg(long = "for", value_name = "SECONDS", default_value = "10", value_parser = seconds, conflicts_with = "messages")]
    pub length: Duration,
    /// How many messages to measure, instead of a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// How many seconds to send before it is measured.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub warm_up: Duration,
    /// Ask for the model's outputs.
    #[arg(long)]
    pub scores: bool,
    /// The gateway's process on this machine, to measure its CPU time per record and its memory.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Exit with 0 also when records were refused.
    #[arg(long)]
    pub allow_refused: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// With TLS.
    #[command(flatten)]
    pub dial: dial::Args,
}

impl Args {
    /// The load that is asked for.
    ///
    /// # Errors
    /// When the numbers do not go together.
    pub(super) fn plan(&self, listens: String, epoch: u64, records_per_message: usize) -> anyhow::Result<Plan> {
        let connections = self.connections.unwrap_or(self.calls.div_ceil(CALLS_PER_CONNECTION));
        if self.calls > connections.saturating_mul(CALLS_PER_CONNECTION) {
            bail!("a gateway takes {CALLS_PER_CONNECTION} calls on a connection: give more `--connections`");
        }
        let producers = self.producers.unwrap_or(self.calls);
        if producers < self.calls {
            bail!(
                "`--producers` is less than `--calls`: a producer numbers its requests, so it sends on one call at a time"
            );
        }
        let end = self.messages.map_or(End::After(self.length), End::Messages);
        let rate = self.rate.map(|rate| rate / records_per_message as f64);
        Ok(Plan {
            dialer: self.dial.clone().dialer()?,
            endpoint: self.to.clone().unwrap_or(listens),
            stream: self.stream.clone(),
            producer: self.producer.clone(),
            epoch,
            calls: self.calls,
            connections,
            producers,
            in_flight: self.in_flight,
            schedule: Schedule { rate, warm_up: self.warm_up, end },
            scores: self.scores,
            pid: self.pid,
        })
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("more than 0".to_owned()) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        let arguments = [&["bench", "-s", "t", "a.csv"], arguments].concat();
        let cli = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?;
        cli.args.plan("http://127.0.0.1:7400".to_owned(), 1, cli.args.records).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_follows_from_the_calls() {
        let plan = plan(&["--calls", "1000", "--rate", "5000", "--records", "50"]).unwrap();
        assert_eq!((plan.connections, plan.producers), (10, 1_000));
        assert_eq!(plan.endpoint, "http://127.0.0.1:7400");
        assert_eq!(plan.schedule.rate, Some(100.0));
        assert_eq!(plan.schedule.end, End::After(Duration::from_secs(10)));
    }

    #[test]
    fn numbers_that_do_not_go_together_are_refused() {
        for (arguments, words) in [
            (&["--calls", "101", "--connections", "1"][..], "`--connections`"),
            (&["--calls", "2", "--producers", "1"], "`--producers`"),
            (&["--calls", "0"], "at least 1"),
            (&["--rate", "0"], "more than 0"),
            (&["--rate", "nan"], "more than 0"),
            (&["--for", "-1"], "'-1'"),
            (&["--for", "1", "--messages", "1"], "cannot be used with"),
        ] {
            let error = plan(arguments).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
