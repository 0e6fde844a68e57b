//! The cells that must leave, added up record by record.

use std::collections::BTreeMap;

use serde_json::Value;

use super::records::{BEGIN, Fate, Record, Rules, WINDOW};

/// A window, a country, a kind.
type Key = (i64, String, String);

/// Where the parts of the histogram begin.
const EDGES: [f32; 4] = [0.0, 0.25, 0.5, 0.75];

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    visits: i64,
    amount: f64,
    score: f64,
    /// A part with too few persons is counted in the one before, and is `None`.
    scores: Vec<Option<i64>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cells(BTreeMap<Key, Cell>);

impl Cells {
    /// Counts those of the records that are taken.
    pub fn add(&mut self, records: &[Record], rules: Rules) {
        for record in records {
            let Fate::Taken { score } = record.fate(rules) else { continue };
            let window = (record.at - BEGIN) / WINDOW;
            let cell = self.0.entry((window, record.country.to_owned(), record.kind.to_owned())).or_default();
            cell.visits += 1;
            cell.amount += record.amount;
            cell.score += f64::from(score);
            cell.scores.resize(EDGES.len(), Some(0));
            let part = &mut cell.scores[EDGES.iter().filter(|edge| **edge <= score).count() - 1];
            *part = part.map(|count| count + 1);
        }
    }

    /// Those that left.
    pub fn released(lines: &[Value]) -> Self {
        let mut cells = Self::default();
        for line in lines {
            let start: jiff::Timestamp = line["window_start"].as_str().unwrap().parse().unwrap();
            let text = |column: &str| line[column].as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
            let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{line}"));
            let key = ((start.as_microsecond() - BEGIN) / WINDOW, text("country"), text("kind"));
            let scores = line["scores"].as_array().unwrap_or_else(|| panic!("{line}"));
            let cell = Cell {
                visits: line["visits"].as_i64().unwrap(),
                amount: number(&line["amount"]),
                score: number(&line["score"]),
                scores: scores.iter().map(Value::as_i64).collect(),
            };
            assert_eq!(cells.0.insert(key, cell), None, "it left twice: {line}");
        }
        cells
    }

    /// The same, whose parts are merged where those of other cells are.
    pub fn merged_as(&self, others: &Self) -> Self {
        let mut merged = self.clone();
        for (key, cell) in &mut merged.0 {
            let Some(other) = others.0.get(key) else { continue };
            for part in (1..cell.scores.len()).rev().filter(|part| other.scores[*part].is_none()) {
                let count = cell.scores[part].take().unwrap();
                cell.scores[part - 1] = cell.scores[part - 1].map(|before| before + count);
            }
        }
        merged
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}
