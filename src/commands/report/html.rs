//! A report as one page of HTML that needs nothing else and prints well.

use std::fmt::Write as _;

use serde_json::Value;

mod laws;

use super::account::{Quarantine, Spent};
use super::cost::Border;
use super::{Egress, NOT_PROVED, Report, Rules};
use crate::ledger::entry::{Outcome, Reread};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111}\
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #999}\
table{border-collapse:collapse;width:100%;margin:.5rem 0}th,td{text-align:left;vertical-align:top;padding:.25rem .6rem;\
border-bottom:1px solid #ddd}td.n,th.n{text-align:right}code,pre{font-size:.85em;overflow-wrap:anywhere;white-space:pre-wrap}\
@media print{body{margin:0;max-width:none;font-size:10pt}h2{break-after:avoid}tr{break-inside:avoid}}";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut page = Page::default();
    let (name, account) = (&report.name, &report.account);
    page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>What left: ");
    page.text(name);
    page.raw(&format!("</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>What left: "));
    page.text(name);
    page.raw("</h1>\n");
    let from = report.span.from.map_or_else(|| "the beginning of the ledger".to_owned(), |from| from.to_string());
    let to = report.span.to.map_or_else(|| "its end".to_owned(), |to| to.to_string());
    page.paragraph(&format!("From {from} to {to}. {} entries, all as they were signed.", account.entries));
    left(&mut page, report);
    cost(&mut page, report);
    work(&mut page, report);
    rules(&mut page, report);
    held_back(&mut page, report);
    happened(&mut page, report);
    if let Some(extracts) = &report.extracts {
        laws::extracts(&mut page, extracts);
    }
    page.heading("What this does not prove");
    page.sentences(NOT_PROVED);
    page.heading("How to verify it");
    page.paragraph(
        "Run `bailiwick ledger verify` on the ledger, with the public key that you were given and a checkpoint that you \
         kept. Any other verifier of C2SP tlog-tiles does as well.",
    );
    page.raw("<pre>");
    page.text(&format!("{}\n\n{}", report.key, report.checkpoint));
    page.raw("</pre>\n</body>\n</html>\n");
    page.html
}

fn left(page: &mut Page, report: &Report) {
    page.heading("What left, and to where");
    let rows = report.account.flows.iter().map(|((destination, dataset), flow)| {
        let windows = flow.windows.as_ref().map(|(first, last)| format!("{first} to {last}")).unwrap_or_default();
        let policies: Vec<&str> = flow.policies.iter().map(|policy| short(policy)).collect();
        let models = flow.models.iter().flat_map(|(name, files)| files.iter().map(move |file| (name, short(file))));
        let models: Vec<_> = models.map(|(name, file)| format!("{name} {file}")).collect();
        vec![
            destination.clone(),
            dataset.clone(),
            flow.releases.to_string(),
            (flow.releases - flow.confirmed).to_string(),
            flow.cells.to_string(),
            flow.on_change.to_string(),
            flow.degraded.to_string(),
            flow.left_out.to_string(),
            windows,
            policies.join(", "),
            models.join(", "),
        ]
    });
    let header = [
        "destination",
        "dataset",
        "#releases",
        "#of them not confirmed",
        "#cells",
        "#of them as what has changed",
        "#of them with cells left out",
        "#cells left out",
        "windows",
        "policies",
        "models",
    ];
    page.table(&header, rows.collect(), "Nothing left.");
    let rows = report.account.sent.iter().map(|(destination, bytes)| vec![destination.clone(), bytes.to_string()]);
    page.table(&["destination", "#bytes"], rows.collect(), "No destination has confirmed any byte.");
}

fn cost(page: &mut Page, report: &Report) {
    let Some(cost) = &report.cost else { return };
    page.heading("What it saved");
    let ratio = cost.ratio().map(|ratio| format!(", {ratio:.0} to 1")).unwrap_or_default();
    let currency = &cost.currency;
    let saved = cost.saved().map(|amount| format!(" This saved {amount:.2} {currency}.")).unwrap_or_default();
    let accepted =
        cost.bytes_accepted.map(|bytes| format!(", {bytes} of them of accepted records")).unwrap_or_default();
    page.paragraph(&format!("{} bytes came in{accepted}, {} left{ratio}.{saved}", cost.bytes_in, cost.bytes_out));
    if cost.is_of_ledger {
        page.paragraph(
            "The gateway counts the bytes that come in, in steps: payloads of all requests, those of refused records and those \
             that were sent again too.",
        );
        page.paragraph(match cost.bytes_accepted {
            Some(_) => {
                "Only those of accepted records are compared with what left. Of a request of which records were refused, they \
                 have their share by number. Records from quarantine are not among them."
            }
            None => {
                "An earlier version wrote some of this, and did not tell the bytes of accepted records: all that came in are \
                 compared with what left."
            }
        });
    }
    if cost.borders.is_empty() {
        return;
    }
    let amount = |amount: Option<f64>| amount.map(|amount| format!("{amount:.2}")).unwrap_or_default();
    let rows = cost.borders.iter().map(|border| {
        let Border { destination, from, to, streams, bytes_in, bytes_out, price_per_gib, saved } = border;
        let to = to.as_deref().unwrap_or("not declared");
        let crossed = format!("{from} to {to}");
        let streams = streams.as_ref().map(|streams| Vec::from_iter(streams.iter().cloned()).join(", "));
        vec![
            destination.clone(),
            crossed,
            streams.unwrap_or_else(|| "not known".to_owned()),
            bytes_in.map(|bytes| bytes.to_string()).unwrap_or_default(),
            bytes_out.to_string(),
            amount(*price_per_gib),
            amount(*saved),
        ]
    });
    let (price, saved) = (format!("#{currency} per GiB"), format!("#{currency} saved"));
    let header = ["destination", "border", "of streams", "#their bytes", "#bytes that left", &price, &saved];
    page.table(&header, rows.collect(), "");
    page.paragraph(
        "Saved is what it would have cost more to send the accepted records themselves, once, to this destination: those of \
         the streams of which a dataset went there in this time.",
    );
}

fn work(page: &mut Page, report: &Report) {
    page.heading("What it took");
    let work = &report.account.work;
    let Some(until) = work.until else {
        return page.paragraph("The ledger does not say: it does at the end of each day (UTC), and at stops.");
    };
    let (seconds, records) = (work.cpu_seconds(), work.records);
    page.paragraph(&format!(
        "The gateway worked {seconds:.3} CPU seconds, from its starts on, and took in {records} records, in steps. The ledger \
         says so, and what came in, until {until}."
    ));
    if work.in_part > 0 {
        page.paragraph(&format!(
            "Of {} entries on this, only a part of the time that they are about is in this report. Of all that they say, the \
             same share counts. Reports of whole days (UTC) need no shares.",
            work.in_part
        ));
    }
    let Some(per_million) = work.per_million() else { return };
    let joules = report.watts.map(|watts| {
        let joules = per_million * watts;
        format!(
            " At {watts} watts for a core that is about {joules:.0} joules: an estimate, since nothing measured them."
        )
    });
    let joules = joules.unwrap_or_default();
    page.paragraph(&format!("That is {per_million:.2} CPU seconds per million records.{joules}"));
}

fn rules(page: &mut Page, report: &Report) {
    let Some(Rules { now, before, unknown }) = &report.rules else { return };
    page.heading("By which rules");
    egress(page, now, "as they hold on");
    for other in before {
        egress(page, other, "which something left under last on");
    }
    if !unknown.is_empty() {
        let unknown: Vec<_> = unknown.iter().map(|policy| short(policy)).collect();
        page.paragraph(&format!(
            "Some of what is above left under policies that the gateway of this configuration does not keep: {}.",
            unknown.join(", ")
        ));
    }
}

fn egress(page: &mut Page, Egress { policy, day, rows }: &Egress, when: &str) {
    page.paragraph(&format!("By the policies {}, {when} {day}.", short(policy)));
    let rows = rows.iter().map(|row| {
        let text = |name: &str| match row.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let is_allowed = row.get("is_allowed").and_then(Value::as_bool).unwrap_or_default();
        let allowed = if is_allowed { text("rules") } else { format!("not allowed: {}", text("denied_by")) };
        vec![text("dataset"), text("destination"), text("countries"), text("regime"), allowed, text("min_contributors")]
    });
    let header = ["dataset", "destination", "countries", "regime", "by which rule", "#k"];
    page.table(&header, rows.collect(), "Nothing may leave.");
}

fn held_back(page: &mut Page, report: &Report) {
    page.heading("What was held back");
    page.paragraph(
        "Cells of fewer contributors than the rules ask for. They left nowhere. A cell that waited for the next windows \
         counts once, with its own window, when it was dropped.",
    );
    let rows =
        report.account.withheld.iter().map(|(dataset, withheld)| {
            vec![dataset.clone(), withheld.windows.to_string(), withheld.at_least.to_string()]
        });
    let header = ["dataset", "#windows", "#cells, at least"];
    page.table(&header, rows.collect(), "None, or in each window too few to be told.");
    page.paragraph(
        "Releases that were not sent, because the budget of their destination did not suffice. A dataset with longer windows \
         adds up the rows of some of them.",
    );
    let rows = report.account.shed().into_iter().map(|((destination, dataset, widened), left_out)| {
        let (releases, cells) = (left_out.releases.to_string(), left_out.cells.to_string());
        vec![destination.to_owned(), dataset.to_owned(), releases, cells, widened.unwrap_or("-").to_owned()]
    });
    let header = ["destination", "dataset", "#releases", "#cells", "added up by"];
    page.table(&header, rows.collect(), "None.");
    page.paragraph(
        "Releases that were given up, because no policy let their dataset go to their destination any more when it was their turn.",
    );
    let rows = report.account.denied().into_iter().map(|((destination, dataset), left_out)| {
        let (releases, cells) = (left_out.releases.to_string(), left_out.cells.to_string());
        vec![destination.to_owned(), dataset.to_owned(), releases, cells]
    });
    page.table(&["destination", "dataset", "#releases", "#cells"], rows.collect(), "None.");
    page.heading("Budgets of differential privacy");
    page.paragraph(
        "Windows whose cells got noise, and those that did not leave because the budget of their day was spent.",
    );
    let rows = report.account.privacy.iter().map(|(dataset, cost)| {
        let Spent { noised, spent, lost, rho } = cost;
        vec![dataset.clone(), noised.to_string(), spent.to_string(), lost.to_string(), rho.to_string()]
    });
    let header = ["dataset", "#windows with noise", "#budget spent", "#lost in crashes", "#rho in all"];
    page.table(&header, rows.collect(), "No dataset has noise.");
    page.heading("What was not taken in");
    page.paragraph(
        "Records, in steps. Those that belong to another gateway were not sent there: their producers were told.",
    );
    let rows = report.account.refused.iter().map(|(refused, records)| {
        let to = refused.to.clone().unwrap_or_default();
        vec![refused.stream.clone(), refused.reason.clone(), refused.rules.join(", "), to, records.to_string()]
    });
    let header = ["stream", "reason", "by which rules", "belongs to gateway", "#records"];
    page.table(&header, rows.collect(), "None, or too few to be told.");
    let Quarantine { held, released, discarded } = &report.account.quarantine;
    page.paragraph(&format!(
        "Of quarantine, in steps: {held} records were put into it, {released} were taken in from it, {discarded} were \
         discarded."
    ));
    page.heading("Overrides");
    let rows = report.account.overrides.iter().map(|((id, dataset, destination), used)| {
        let (windows, span) = (used.windows.to_string(), format!("{} to {}", used.first, used.last));
        vec![id.clone(), dataset.clone(), destination.clone(), windows, span]
    });
    page.table(&["id", "dataset", "destination", "#windows", "their starts"], rows.collect(), "None was used.");
}

fn happened(page: &mut Page, report: &Report) {
    let account = &report.account;
    page.heading("Under which program, models and policies");
    let rows = account.runs.iter().map(|run| {
        let stopped = run.stopped.clone().unwrap_or_else(|| "not told to stop: it runs, or crashed".to_owned());
        let models: Vec<String> = run.models.iter().map(|(name, sha256)| format!("{name} {}", short(sha256))).collect();
        let mode = if run.dry_run { "dry run" } else { "" };
        vec![run.gateway.clone(), run.started.clone(), stopped, run.program.clone(), mode.to_owned(), models.join(", ")]
    });
    let header = ["gateway", "started", "stopped", "program", "mode", "models"];
    page.table(&header, rows.collect(), "No gateway started in this time.");
    let rows = account.policies.iter().map(|in_force| {
        let how = if in_force.reload { "reload" } else { "start" };
        vec![in_force.since.clone(), how.to_owned(), in_force.policy.clone()]
    });
    page.table(&["in force since", "by", "policies"], rows.collect(), "No policies came into force in this time.");
    let rows = account.models.iter().map(|changed| {
        let of = |sha256: &Option<String>| sha256.as_deref().map_or("none", short).to_owned();
        vec![changed.since.clone(), changed.model.clone(), of(&changed.before), of(&changed.now)]
    });
    page.table(&["since", "model", "before", "now"], rows.collect(), "No model was changed in this time.");
    let rows = account.reloads.iter().map(|reload| {
        let of = match reload.of {
            Reread::Policies => "policies",
            Reread::Registries => "registries and databases",
        };
        let outcome = match reload.outcome {
            Outcome::Changed => "changed",
            Outcome::Unchanged => "nothing new",
            Outcome::Refused => "refused: they cannot be used",
        };
        vec![reload.at.clone(), of.to_owned(), outcome.to_owned()]
    });
    page.table(&["read again", "what", "outcome"], rows.collect(), "Nothing was read again in this time.");
    page.heading("Damage");
    let rows =
        account.damage.iter().map(|damage| vec![damage.found.clone(), damage.of.clone(), damage.places.to_string()]);
    page.table(&["found", "of", "#places"], rows.collect(), "None was found.");
    if account.missed > 0 {
        page.paragraph(&format!(
            "{} entries were not written while the ledger could not be. No intent is among them.",
            account.missed
        ));
    }
    if account.unread > 0 {
        let unread = account.unread;
        page.paragraph(&format!("{unread} entries are of a later version and are not in this report."));
    }
}

/// The beginning of a digest, which is enough to know it again.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[derive(Default)]
struct Page {
    html: String,
}

impl Page {
    fn raw(&mut self, html: &str) {
        self.html.push_str(html);
    }

    fn text(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '&' => self.html.push_str("&amp;"),
                '<' => self.html.push_str("&lt;"),
                '>' => self.html.push_str("&gt;"),
                '"' => self.html.push_str("&quot;"),
                letter => self.html.push(letter),
            }
        }
    }

    fn heading(&mut self, text: &str) {
        self.raw("<h2>");
        self.text(text);
        self.raw("</h2>\n");
    }

    fn paragraph(&mut self, text: &str) {
        self.raw("<p>");
        self.text(text);
        self.raw("</p>\n");
    }

    /// A list of sentences under a line of its own.
    fn list(&mut self, what: &str, sentences: Option<&Value>) {
        self.paragraph(&format!("{what}:"));
        self.sentences(sentences.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str));
    }

    fn sentences<'s>(&mut self, sentences: impl IntoIterator<Item = &'s str>) {
        self.raw("<ul>\n");
        for sentence in sentences {
            self.raw("<li>");
            self.text(sentence);
            self.raw("</li>\n");
        }
        self.raw("</ul>\n");
    }

    /// A table. The names of columns of numbers begin with `#`. Without rows it says so.
    fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>, nothing: &str) {
        if rows.is_empty() {
            return self.paragraph(nothing);
        }
        let class = |name: &str| if name.starts_with('#') { " class=\"n\"" } else { "" };
        self.raw("<table>\n<tr>");
        for name in header {
            let _ = write!(self.html, "<th{}>", class(name));
            self.text(name.trim_start_matches('#'));
            self.raw("</th>");
        }
        self.raw("</tr>\n");
        for row in rows {
            self.raw("<tr>");
            for (cell, name) in row.iter().zip(header) {
                let _ = write!(self.html, "<td{}>", class(name));
                self.text(cell);
                self.raw("</td>");
            }
            self.raw("</tr>\n");
        }
        self.raw("</table>\n");
    }
}
