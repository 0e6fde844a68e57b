//! `bailiwick report`: what left, to where, under which policies, and what was held back, for the person who answers for it.
//! From the ledger alone, which is verified first; offline, and without secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::ledger::Named;
use super::{Failure, check, load};
use crate::config::Config;
use crate::domain::policy::{Here, PolicySet};
use crate::durable::policies::Archive;
use crate::ledger::in_full;
use crate::storage::RealFileSystem;

mod account;
mod cost;
mod extracts;
mod html;
mod span;
mod worked;

use account::Account;
use cost::{Cost, Said};
use span::Span;

/// What `bailiwick report` is told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The ledger.
    #[command(flatten)]
    pub ledger: Named,
    /// Only what the ledger says from this moment on: a date (UTC), or a time as in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Option<Timestamp>,
    /// Only what the ledger says before this moment.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub to: Option<Timestamp>,
    /// How many bytes of records came in meanwhile, as you counted them. Without it, as the ledger says.
    #[arg(long, value_name = "BYTES")]
    pub bytes_in: Option<u64>,
    /// What a GiB costs that crosses a border, to say what was saved. Without it, the prices of the configuration.
    #[arg(long, value_name = "PRICE", value_parser = price)]
    pub price_per_gib: Option<f64>,
    /// The currency of the price. Without it, that of the configuration, or EUR.
    #[arg(long, value_name = "CURRENCY")]
    pub currency: Option<String>,
    /// What a core draws while it works, to estimate the energy. Nothing measures it.
    #[arg(long, value_name = "WATTS", value_parser = watts)]
    pub watts_per_core: Option<f64>,
    /// The gateway's configuration, to name the rules by which each dataset may leave, and to fill the extracts that the GDPR
    /// and 28 CFR Part 202 ask for.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the report as JSON and not as HTML.
    #[arg(long)]
    pub json: bool,
}

/// A date is its first moment in UTC.
fn moment(text: &str) -> Result<Timestamp, String> {
    let of_date = |date: Date| TimeZone::UTC.to_timestamp(date.to_datetime(Time::midnight()));
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<Date>().and_then(of_date))
        .map_err(|_| "neither a date such as 2026-11-26 nor a time such as 2026-11-26T08:00:00Z".to_owned())
}

fn price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| "not a price".to_owned())
}

fn watts(text: &str) -> Result<f64, String> {
    let watts = text.parse().ok().filter(|watts: &f64| watts.is_finite() && *watts > 0.0);
    watts.ok_or_else(|| "not a number of watts".to_owned())
}

/// Policies that were in force, and what the gateway served then.
type Kept = (Arc<PolicySet>, Arc<Here>);

/// Everything that a report says, before it is written as HTML or JSON.
struct Report {
    name: String,
    key: String,
    checkpoint: String,
    span: Span,
    account: Account,
    cost: Option<Cost>,
    /// What a core draws, as whoever made the report says.
    watts: Option<f64>,
    rules: Option<Rules>,
    /// What laws on records ask for, by the configuration that was named.
    extracts: Option<Value>,
}

/// The rules by which datasets may leave.
struct Rules {
    /// By the configuration that was named.
    now: Egress,
    /// Those of other policies that something left under, each on the last day that it did, as the gateway keeps them.
    before: Vec<Egress>,
    /// Policies that something left under and that nobody keeps.
    unknown: Vec<String>,
}

/// What may leave by the policies of one digest on a day.
struct Egress {
    policy: String,
    day: String,
    /// As `check --json` has them.
    rows: Vec<Value>,
}

impl Egress {
    fn json(&self) -> Value {
        json!({ "policy": self.policy, "day": self.day, "egress": self.rows })
    }
}

/// What a report does not show, whatever it says.
const NOT_PROVED: [&str; 8] = [
    "That nothing else left. The ledger says what this program sent; compare its bytes with what your network counts.",
    "That a release was right. The ledger says which release it was, and under which policies.",
    "That the ledger is the only one, or ends here. Whoever holds the machine and the key can rewrite what only that machine \
     knows. Compare the checkpoint below with one that somebody else kept.",
    "How many cells were withheld. The numbers are powers of ten, and fewer than ten, or than k, are like none.",
    "How many persons were behind refused records. The numbers are of records, in steps, and what is less than a step is not \
     told yet.",
    "That a release which may have left did leave. After a crash the ledger says so, and it is sent again.",
    "What came in. The number is the gateway's own count, in steps, or that of whoever made this report. What a gateway took in \
     since its last entry, a day at most, is not in it: while it runs that is not said yet, and after a crash never.",
    "How much energy it took. CPU seconds are the gateway's own count, joules an estimate by the watts that whoever made this \
     report named. What a gateway worked since its last entry, a day at most, is in neither.",
];

/// Makes a report. It is for stdout.
///
/// # Errors
/// When the ledger cannot be read, or is not as it was signed: there is no report of such a ledger.
pub fn report(options: Options) -> Result<String, Failure> {
    let Options { ledger, from, to, bytes_in, price_per_gib, currency, watts_per_core: watts, config, json } = options;
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(anyhow!("`--from` must be before `--to`").into());
    }
    let opened = ledger.open()?;
    let span = Span { from, to };
    let begin = || Account::of(span);
    let (audit, mut account) = opened.sound(&[], begin, |account, number, _, entry| account.hear(number, entry))?;
    let (config, day) = (config.map(|config| load(&config)).transpose()?, crate::config::today());
    if let Some(config) = &config {
        account.scored_by(|dataset| {
            let (plan, _) = config.policy.dataset(dataset)?;
            plan.model.as_ref().map(|model| model.name.clone())
        });
    }
    let kept = config.as_ref().map(kept).unwrap_or_default();
    let rules = config.as_ref().map(|config| rules(config, &kept, &account, day));
    let extracts = config.as_ref().map(|config| extracts::extracts(config, &account, day));
    let cost = Cost::of(&account, Said { bytes_in, price_per_gib, currency }, config.as_ref(), &kept);
    if price_per_gib.is_some() && cost.is_none() {
        return Err(
            anyhow!("the ledger does not say how many bytes came in: give `--bytes-in` beside the price").into()
        );
    }
    let (name, key) = (opened.verifier().name().to_owned(), opened.verifier().to_string());
    let checkpoint = audit.checkpoint.unwrap_or_default();
    let report = Report { name, key, checkpoint, span, account, cost, watts, rules, extracts };
    Ok(if json { super::json::print(&in_json(&report)) } else { html::page(&report) })
}

/// The policies that the gateway of a configuration keeps, by their digests in full.
fn kept(config: &Config) -> BTreeMap<String, Kept> {
    let directory = config.journal.directory.join("policies");
    let kept = Archive::beside(Arc::new(RealFileSystem), directory).all(config.here.country).unwrap_or_default();
    kept.into_values().map(|kept| (in_full(&kept.0.digest), kept)).collect()
}

fn rules(config: &Config, kept: &BTreeMap<String, Kept>, account: &Account, day: Date) -> Rules {
    let egress = |policy: &PolicySet, serves: &[String], day: Date| Egress {
        policy: in_full(&policy.digest),
        day: day.to_string(),
        rows: check::rows(policy, serves, day),
    };
    let now = egress(&config.policy, &config.here.serves, day);
    let (mut before, mut unknown) = (Vec::new(), Vec::new());
    for (digest, last) in account.last_under.iter().filter(|(digest, _)| **digest != now.policy) {
        let day = last.parse::<Timestamp>().map(|last| TimeZone::UTC.to_datetime(last).date());
        match (kept.get(digest), day) {
            (Some((policy, here)), Ok(day)) => before.push(egress(policy, &here.serves, day)),
            _ => unknown.push(digest.clone()),
        }
    }
    Rules { now, before, unknown }
}

fn in_json(report: &Report) -> Value {
    let Report { name, key, checkpoint, span, account, cost, watts, rules, extracts } = report;
    let mut value = account.json();
    let time = |time: &Option<Timestamp>| time.map(|time| time.to_string());
    let per_million = account.work.per_million();
    let work = json!({
        "cpu_seconds": account.work.cpu_seconds(),
        "records": account.work.records,
        "until": time(&account.work.until),
        "in_part": account.work.in_part,
        "cpu_seconds_per_million_records": per_million,
        "watts_per_core": watts,
        "joules_per_million_records": per_million.zip(*watts).map(|(seconds, watts)| seconds * watts),
    });
    let rules = rules.as_ref().map(|Rules { now, before, unknown }| {
        let before = before.iter().map(Egress::json).collect::<Value>();
        let mut rules = now.json();
        super::json::add(&mut rules, "before", before);
        super::json::add(&mut rules, "unknown", json!(unknown));
        rules
    });
    let others = [
        ("name", json!(name)),
        ("key", json!(key)),
        ("checkpoint", json!(checkpoint)),
        ("from", json!(time(&span.from))),
        ("to", json!(time(&span.to))),
        ("cost", json!(cost.as_ref().map(Cost::json))),
        ("work", work),
        ("rules", json!(rules)),
        ("extracts", json!(extracts)),
        ("does_not_prove", json!(NOT_PROVED)),
    ];
    for (name, member) in others {
        super::json::add(&mut value, name, member);
    }
    value
}
