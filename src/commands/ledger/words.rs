//! What an entry says, in words.

use crate::domain::privacy::Rho;
use crate::ledger::entry::{Known, Outcome, Paid, Reread, What};

/// What an entry says, as a sentence without its end. Ids are in full, so that they can be searched for.
pub(super) fn words(what: &What) -> String {
    match what {
        What::Start { gateway, program, dry_run, models } => {
            let models: Vec<String> = models.iter().map(|(name, sha256)| format!("`{name}` {sha256}")).collect();
            let models = if models.is_empty() { "no model".to_owned() } else { models.join(", ") };
            let dry_run = if *dry_run { "; a dry run: nothing leaves" } else { "" };
            format!("gateway `{gateway}` started: bailiwick {program}, {models}{dry_run}")
        }
        What::Stop { gateway } => format!("gateway `{gateway}` stopped as it was told"),
        What::Policy { policy, reload } => {
            let how = if *reload { "by a reload" } else { "at a start" };
            format!("policies {policy} came into force {how}")
        }
        What::Intent { release, destination, dataset, window_start, window_end, policy, cells, degraded, .. } => {
            let of_whole = degraded.as_ref().map_or_else(String::new, |smaller| {
                let (whole, steps) = (&smaller.whole, smaller.steps.join(", "));
                let all = if smaller.has_all() { "; its receiver can make all of it" } else { "" };
                format!(
                    "; made of release {whole}, of {}, by {steps}, for lack of bytes{all}",
                    count(smaller.cells, "cell")
                )
            });
            format!(
                "release {release} is about to leave for `{destination}`: {} of `{dataset}`, {window_start} to \
                 {window_end}, under policies {policy}{of_whole}",
                count(*cells, "cell")
            )
        }
        What::Sent { destination, releases, bytes } => {
            let (count, bytes) = (count(releases.len() as u64, "release"), count(*bytes, "byte"));
            format!("`{destination}` has confirmed {count}, {bytes}: {}", releases.join(", "))
        }
        What::Unsettled { release, destination, intent, known } => {
            let known = match known {
                Known::Confirmed => "the destination has it",
                Known::Nothing => "it may have left, and is sent again",
            };
            format!("after a crash, of release {release} to `{destination}`, entry {intent}: {known}")
        }
        What::Withheld { dataset, window_start, at_least, .. } => {
            format!(
                "at least {at_least} cells of `{dataset}` were withheld, of the window that began at {window_start}"
            )
        }
        What::Override { id, dataset, destination, window_start, .. } => {
            format!("override `{id}` let cells of `{dataset}` go to `{destination}`, of the window from {window_start}")
        }
        What::Refused { stream, closed_before, reason, rules, to, records, .. } => {
            let to = to.as_ref().map_or_else(String::new, |to| format!(", and belong to gateway `{to}`"));
            let by = if rules.is_empty() { String::new() } else { format!(", by {}", rules.join(", ")) };
            let closed = match closed_before {
                Some(before) => format!("windows before {before} closed"),
                None => "open windows were released".to_owned(),
            };
            format!("{records} records of `{stream}` were refused as {reason}{by}{to}; said when {closed}")
        }
        What::Quarantine { held, released, discarded } => format!(
            "of quarantine, in steps: {held} records put into it, {released} taken in from it, {discarded} discarded"
        ),
        What::Model { model, before, now } => {
            let of = |sha256: &Option<String>| sha256.clone().unwrap_or_else(|| "none".to_owned());
            format!("model `{model}` is {} and was {}", of(now), of(before))
        }
        What::Reload { of, outcome } => {
            let of = match of {
                Reread::Policies => "the policies",
                Reread::Registries => "registries and databases",
            };
            let outcome = match outcome {
                Outcome::Changed => "they are in force as they are now",
                Outcome::Unchanged => "nothing is new",
                Outcome::Refused => "they cannot be used, and what was in force stays",
            };
            format!("{of} were read again: {outcome}")
        }
        What::Shed { release, destination, dataset, window_start, window_end, cells, widened, .. } => {
            let (how, wider) = match widened {
                Some(wider) => ("left out", format!("; `{wider}` adds up its rows")),
                None => ("shed", String::new()),
            };
            format!(
                "release {release} was {how}, and not sent to `{destination}`, for lack of bytes in its budget: {} of \
                 `{dataset}`, {window_start} to {window_end}{wider}",
                count(*cells, "cell")
            )
        }
        What::Denied { release, destination, dataset, window_start, window_end, cells, .. } => format!(
            "release {release} was not sent to `{destination}`, and will not be: no policy lets `{dataset}` go there any more; it \
             has {}, {window_start} to {window_end}",
            count(*cells, "cell")
        ),
        What::Privacy { dataset, window_start, outcome, rho_billionths, .. } => {
            let rho = Rho::from_billionths(*rho_billionths);
            let outcome = match outcome {
                Paid::Noised => format!("cells got noise, for a rho of {rho}"),
                Paid::Spent => "nothing left: the budget of the day is spent".to_owned(),
                Paid::Lost => format!("nothing left: it was charged a rho of {rho} before a crash or a fault"),
            };
            format!("of the window of `{dataset}` that began at {window_start}: {outcome}")
        }
        What::Damage { of, places } => format!("the {of} was found damaged, in {}", count(*places, "place")),
        What::Work { since, until, cpu_seconds, cpu_milliseconds, records, bytes_in, bytes_accepted } => {
            let when = since.as_ref().zip(until.as_ref()).map(|(since, until)| format!("from {since} to {until}"));
            let when = when.unwrap_or_else(|| "since the start, or since this was said last".to_owned());
            let milliseconds = cpu_milliseconds.map(|milliseconds| count(milliseconds, "CPU millisecond"));
            let cpu = milliseconds.unwrap_or_else(|| count(cpu_seconds.unwrap_or(0), "CPU second"));
            let came_in =
                bytes_in.map(|bytes| format!(", of {bytes} bytes of payloads that came in")).unwrap_or_default();
            let accepted = bytes_accepted.iter().flatten().map(|(stream, bytes)| format!("{bytes} of `{stream}`"));
            let accepted = Vec::from_iter(accepted).join(", ");
            let accepted =
                if accepted.is_empty() { accepted } else { format!("; bytes of accepted records: {accepted}") };
            format!("{when}, the gateway worked {cpu} and took in {records} records{came_in}{accepted}, in steps")
        }
        What::Missed { entries } => {
            let missed = if *entries == 1 { "1 entry was".to_owned() } else { format!("{entries} entries were") };
            format!("{missed} not written, because the ledger could not be; no intent among them")
        }
    }
}

fn count(number: u64, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::entry::Entry;

    #[test]
    fn each_kind_is_a_sentence_that_holds_what_it_names() {
        let golden = include_str!("../../../tests/golden/ledger-entries-10.jsonl");
        let all: Vec<What> = golden.lines().map(|line| Entry::decode(line.as_bytes()).unwrap().what).collect();
        let said: Vec<String> = all.iter().map(words).collect();
        assert_eq!(said.len(), 22);
        let says = |kind: &str, parts: &[&str]| {
            let at = all.iter().position(|what| what.kind() == kind).unwrap();
            let sentence = &said[at];
            assert!(parts.iter().all(|part| sentence.contains(part)), "{kind}: {sentence}");
        };
        says("intent", &["is about to leave for `desk`: 12 cells of `payments`", "2026-11-26T03:00:00Z to"]);
        says("sent", &["`desk` has confirmed 1 release, 4096 bytes: 0f0f"]);
        says(
            "refused",
            &["340 records of `payments` were refused as belongs_elsewhere, by in-rbi/localise, in-dpdp/any"],
        );
        says("refused", &["and belong to gateway `in-bom-1`; said when windows before 2026-11-26T03:10:00Z closed"]);
        says("quarantine", &["60 records put into it, 40 taken in from it, 20 discarded"]);
        says("model", &["model `fraud` is acac", "and was abab"]);
        says("reload", &["the policies were read again: they cannot be used, and what was in force stays"]);
        says(
            "shed",
            &["release 1f1f", "was shed, and not sent to `hub`", "12 cells of `payments`, 2026-11-26T03:00:00Z"],
        );
        says("damage", &["the outbox was found damaged, in 2 places"]);
        says("privacy", &["`payments` that began at 2026-11-26T03:00:00Z: cells got noise, for a rho of 0.01"]);
        says(
            "work",
            &["since the start, or since this was said last", "worked 86 CPU seconds and took in 4000000 records"],
        );
        for part in [
            "from 2026-11-26T00:00:00Z to 2026-11-27T00:00:00Z, the gateway worked 86250 CPU milli",
            "1310720000 of `payments`",
        ] {
            assert!(said.last().unwrap().contains(part), "{part}: {said:?}");
        }
        says(
            "denied",
            &["release 5f5f", "was not sent to `hub`, and will not be: no policy lets `payments` go there any more"],
        );
        let widened = &said[18];
        assert!(
            widened.contains("was left out") && widened.ends_with("; `payments_by_day` adds up its rows"),
            "{widened}"
        );
        let smaller = &said[17];
        assert!(
            smaller.contains("12 cells of `payments`") && smaller.contains("of 190 cells, by top, for lack"),
            "{smaller}"
        );
        says("missed", &["5 entries were not written"]);
        says("stop", &["gateway `eu-1` stopped as it was told"]);
    }
}
