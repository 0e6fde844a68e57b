//! What `check` says of the rows of laws that a deployment rests on, the conditions of each, and who vouches for them.

use serde_json::{Value, json};

use crate::commands::table::table;
use crate::domain::policy::{ByCount, Grounds, Use, Vouching};

/// A table for people: a line for each row, or for each of its conditions.
pub(super) fn explained(grounds: &[Grounds]) -> String {
    let header = ["what", "by which row", "until", "condition", "shown of", "by", "proof", "until"];
    let mut rows = vec![header.map(str::to_owned)];
    for Grounds { used_for, rule, until, conditions } in grounds {
        let of_row = [what(used_for), rule.clone(), day(*until)];
        if conditions.is_empty() {
            rows.push(line(of_row.clone(), ["none needed", "-", "-", "-", "-"].map(str::to_owned)));
        }
        for (number, vouching) in conditions.iter().enumerate() {
            let of_row = if number == 0 { of_row.clone() } else { [const { String::new() }; 3] };
            rows.push(line(of_row, shown(vouching)));
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    format!("\nthe rows of laws that this rests on, their conditions, and who vouches for them:\n\n{}", table(&rows))
}

fn line([what, rule, until]: [String; 3], [condition, of, by, proof, good_until]: [String; 5]) -> [String; 8] {
    [what, rule, until, condition, of, by, proof, good_until]
}

fn shown(Vouching { condition, of, proof, counted }: &Vouching) -> [String; 5] {
    let of = of.as_ref().map_or("the recipient".to_owned(), ToString::to_string);
    let of = counted.as_ref().map_or(of, |ByCount { share, already, below }| {
        format!(
            "a counter: of the law's below {below}, this gateway's {share}, of which {already} are taken; each contributor is one \
             person, as the stream says"
        )
    });
    let by = proof.by.clone().unwrap_or_else(|| "not said".to_owned());
    [condition.to_string(), of, by, proof.reference.clone(), day(proof.until)]
}

fn what(used_for: &Use) -> String {
    match used_for {
        Use::Cells(dataset, destination) => format!("cells of {dataset} to {destination}"),
        Use::Records(stream, gateway) => format!("records of {stream} at {gateway}"),
    }
}

fn day(day: Option<jiff::civil::Date>) -> String {
    day.map_or("-".to_owned(), |day| day.to_string())
}

/// The same for machines.
pub(super) fn for_machines(Grounds { used_for, rule, until, conditions }: &Grounds) -> Value {
    let conditions = conditions.iter().map(|Vouching { condition, of, proof, counted }| {
        json!({
            "condition": condition.as_str(),
            "of": of.as_ref().map(ToString::to_string),
            "by": proof.by,
            "ref": proof.reference,
            "until": proof.until.map(|until| until.to_string()),
            "counter": counted.as_ref().map(|ByCount { share, already, below }| {
                json!({ "share": share, "already": already, "below": below })
            }),
        })
    });
    let (dataset, destination, stream, gateway) = match used_for {
        Use::Cells(dataset, destination) => (Some(dataset.as_str()), Some(destination.as_str()), None, None),
        Use::Records(stream, gateway) => (None, None, Some(stream.as_str()), Some(gateway.as_str())),
    };
    json!({
        "dataset": dataset,
        "destination": destination,
        "stream": stream,
        "gateway": gateway,
        "rule": rule,
        "until": until.map(|until| until.to_string()),
        "conditions": conditions.collect::<Value>(),
    })
}
