//! The extracts that laws ask for, as sections of the page.

use serde_json::Value;

use super::Page;

/// Adds the extracts that there are.
pub(super) fn extracts(page: &mut Page, extracts: &Value) {
    if let Some(extract) = extracts.get("gdpr_article_30").filter(|extract| extract.is_object()) {
        article_30(page, extract);
    }
    if let Some(extract) = extracts.get("us_28_cfr_202").filter(|extract| extract.is_object()) {
        part_202(page, extract);
    }
}

fn article_30(page: &mut Page, extract: &Value) {
    page.heading("Extract for the record of processing (GDPR Art. 30(1))");
    page.paragraph(&format!(
        "What this tool knows of it, for gateway {} in {}. It is no legal advice, and not the whole record.",
        text(extract, "gateway"),
        text(extract, "country")
    ));
    regimes(page, extract);
    for activity in rows(extract, "activities") {
        let scored = match text(activity, "scored_by") {
            scored if scored.is_empty() => String::new(),
            scored => format!(" Model {scored} scores the records."),
        };
        let (stream, persons) = (text(activity, "stream"), text(activity, "persons"));
        page.paragraph(&format!(
            "Processing: stream {stream}. The field {persons} tells persons apart.{scored} Purposes: to be added."
        ));
        let data = rows(activity, "data").map(|field| {
            let special = field.get("special").and_then(Value::as_bool).unwrap_or_default();
            let special = if special { "yes" } else { "" };
            vec![text(field, "field"), text(field, "class"), special.to_owned(), text(field, "kept")]
        });
        page.table(&["data (c)", "class", "special category", "kept"], data.collect(), "The stream has no field.");
        flows(page, rows(activity, "recipients"), "recipient (d), (e)");
    }
    page.list("Time limits (f)", extract.get("retention"));
    page.list("Security measures (g)", extract.get("security"));
    page.list("To be added by hand", extract.get("to_be_added"));
}

fn part_202(page: &mut Page, extract: &Value) {
    page.heading("Extract for the record of transactions (28 CFR 202.1101)");
    page.paragraph(
        "What this tool knows of what left, to be kept for at least 10 years after each transaction. It is no legal advice, \
         and not the whole record.",
    );
    regimes(page, extract);
    flows(page, rows(extract, "transactions"), "recipient");
    let refused = rows(extract, "refused").map(|refused| {
        vec![text(refused, "stream"), text(refused, "reason"), texts(refused, "rules"), text(refused, "records")]
    });
    let nothing = "No record was refused by these rules, or too few to be told.";
    page.table(&["stream", "refused as", "by which rules", "#records"], refused.collect(), nothing);
    page.list("To be added by hand", extract.get("to_be_added"));
}

/// The readings that an extract rests on, and how sure they are.
fn regimes(page: &mut Page, extract: &Value) {
    let regimes = rows(extract, "regimes").map(|regime| {
        ["regime", "name", "confidence", "uncertain", "as_of", "review_by"].map(|key| text(regime, key)).to_vec()
    });
    let header = ["reading", "of", "confidence", "not certain", "as of", "to be looked at by"];
    page.table(&header, regimes.collect(), "None.");
}

fn flows<'v>(page: &mut Page, flows: impl Iterator<Item = &'v Value>, recipient: &str) {
    let flows = flows.map(|flow| {
        let windows = match (text(flow, "first_window_start"), text(flow, "last_window_end")) {
            (first, _) if first.is_empty() => "nothing left in this time".to_owned(),
            (first, last) => format!("{first} to {last}"),
        };
        let safeguards: Vec<String> = rows(flow, "safeguards").map(safeguard).collect();
        vec![
            text(flow, "destination"),
            texts(flow, "countries"),
            text(flow, "dataset"),
            texts(flow, "classes"),
            text(flow, "method"),
            windows,
            text(flow, "releases"),
            text(flow, "cells"),
            safeguards.join("; "),
        ]
    });
    let header = [
        recipient,
        "countries",
        "dataset",
        "classes",
        "method",
        "windows",
        "#releases",
        "#cells",
        "row and conditions",
    ];
    page.table(&header, flows.collect(), "Nothing may leave, and nothing left.");
}

fn safeguard(safeguard: &Value) -> String {
    let conditions = rows(safeguard, "conditions").map(|condition| {
        let (by, proof, until) = (text(condition, "by"), text(condition, "ref"), text(condition, "until"));
        let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
        let until = if until.is_empty() { String::new() } else { format!(", until {until}") };
        format!("{} ({proof}{by}{until})", text(condition, "condition"))
    });
    let conditions: Vec<String> = conditions.collect();
    let needs = if conditions.is_empty() { String::new() } else { format!(": {}", conditions.join(", ")) };
    format!("{}{needs}", text(safeguard, "rule"))
}

fn rows<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn texts(value: &Value, key: &str) -> String {
    rows(value, key).filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}
