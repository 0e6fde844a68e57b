//! What of replayed records would leave under one version of the policies: how many cells of each window, by which rule the
//! others would not, and how many numbers of the cells would be null. Never what is in a cell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use indicatif::HumanCount;

use super::super::table::table;
use crate::domain::dataset::{CONTRIBUTORS, Dataset};
use crate::domain::name::DatasetName;
use crate::domain::policy::{Outcome, Released, Withheld};
use crate::domain::time::rfc3339;

/// What would leave of a window, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Cells that go somewhere.
    pub(super) released: usize,
    /// Cells that go nowhere and do not wait, by what they fail.
    pub(super) withheld: BTreeMap<Withheld, usize>,
    /// Cells that wait for the next windows.
    pub(super) waits: Waits,
    /// Numbers of released cells that are null, or ranges that leave with the one before, by metric.
    pub(super) nulls: BTreeMap<String, usize>,
    /// Windows that leave with noise. Nothing else is known of them.
    pub(super) noise: Noise,
}

/// What came of cells that did not leave with their window, but wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// How many began to wait.
    pub(super) began: usize,
    /// Of them, those that did not leave with any later window.
    pub(super) in_vain: usize,
    /// Of them, those that wait when the records end.
    pub(super) at_end: usize,
}

impl Waits {
    fn left_later(self) -> usize {
        self.began - self.in_vain - self.at_end
    }

    fn add(&mut self, other: Self) {
        self.began += other.began;
        self.in_vain += other.in_vain;
        self.at_end += other.at_end;
    }
}

/// What the budget of a day does for windows that leave with noise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Noise {
    /// So many it pays for.
    pub(super) paid: usize,
    /// Cells that get noise in them: all that there can be.
    pub(super) cells: usize,
    /// For so many it does not suffice. They do not leave.
    pub(super) unpaid: usize,
}

impl Noise {
    fn is_asked_for(self) -> bool {
        self.paid + self.unpaid > 0
    }

    pub(super) fn add(&mut self, other: Self) {
        self.paid += other.paid;
        self.cells += other.cells;
        self.unpaid += other.unpaid;
    }
}

impl Left {
    fn withheld(&self) -> usize {
        self.withheld.values().sum::<usize>() + self.waits.in_vain
    }

    /// A number of its windows, if they leave with noise.
    fn of_noise(&self, of: impl Fn(Noise) -> usize) -> Option<usize> {
        self.noise.is_asked_for().then(|| of(self.noise))
    }

    /// A number of its cells. `None`: they leave with noise.
    fn of_cells(&self, of: impl Fn(&Self) -> usize) -> Option<usize> {
        (!self.noise.is_asked_for()).then(|| of(self))
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.released += other.released;
        self.waits.add(other.waits);
        self.noise.add(other.noise);
        for (why, cells) in &other.withheld {
            *self.withheld.entry(*why).or_default() += cells;
        }
        for (metric, nulls) in &other.nulls {
            *self.nulls.entry(metric.clone()).or_default() += nulls;
        }
    }

    /// What would leave as the cells of a dataset, of a window of which so many cells wait. Then all wait that go nowhere.
    pub(super) fn of(dataset: &Dataset, outcome: &Outcome, wait: usize) -> Self {
        let nulls = Self::nulls_of(dataset, &outcome.released);
        let released = outcome.of_dataset(&dataset.name);
        let mut withheld = if wait > 0 { BTreeMap::new() } else { outcome.withheld.clone() };
        // Those that leave in other datasets only.
        let nowhere = outcome.beside_dataset(&dataset.name);
        if nowhere > 0 {
            *withheld.entry(Withheld::Nowhere).or_default() += nowhere;
        }
        let waits = Waits { began: wait, ..Waits::default() };
        Self { released, withheld, waits, nulls, noise: Noise::default() }
    }

    /// How many numbers of each metric of a dataset are null.
    pub(super) fn nulls_of(dataset: &Dataset, released: &[Released]) -> BTreeMap<String, usize> {
        let mut nulls = BTreeMap::new();
        let of_dataset = || released.iter().filter(|released| *released.dataset() == dataset.name);
        let told = dataset.tells_contributors.then_some(CONTRIBUTORS);
        for name in dataset.metrics.iter().map(|metric| metric.name.as_str()).chain(told) {
            let columns = of_dataset().filter_map(|released| released.cells().column_by_name(name));
            // Of several destinations, that of which most is withheld.
            let most = columns.map(nulls_in).max().unwrap_or(0);
            nulls.insert(name.to_owned(), most);
        }
        nulls
    }
}

fn nulls_in(column: &ArrayRef) -> usize {
    let of_lists = column.as_list_opt::<i32>().map_or(0, |lists| lists.values().null_count());
    column.null_count() + of_lists
}

/// By dataset and window.
pub(super) type AllLeft = BTreeMap<(DatasetName, i64), Left>;

/// How many cells leave is told also where none do.
const RELEASED: &str = "released";
/// The same of windows.
const WITH_NOISE: &str = "windows that leave with noise";

/// So many windows are listed at most.
const WINDOWS_SHOWN: usize = 20;

/// The cells of both versions, for people: in all, by what is withheld and why, and window by window where it differs.
pub(super) fn report(before: &AllLeft, after: &AllLeft) -> String {
    let mut text = String::from("\ncells that would leave, of whole windows of these records:\n\n");
    let datasets: BTreeSet<&DatasetName> = before.keys().chain(after.keys()).map(|(dataset, _)| dataset).collect();
    if datasets.is_empty() {
        text.push_str("  none of them is counted\n");
        return text;
    }
    let mut rows = vec![["dataset", "cells", "before", "after"].map(str::to_owned)];
    let mut noised = Vec::new();
    for dataset in datasets {
        let [was, is] = [before, after].map(|left| {
            let mut all = Left::default();
            left.iter().filter(|((name, _), _)| name == dataset).for_each(|(_, left)| all.add(left));
            all
        });
        if [&was, &is].into_iter().any(|left| left.noise.is_asked_for()) {
            noised.push(dataset.to_string());
        }
        let mut line = |what: String, of: &dyn Fn(&Left) -> Option<usize>| {
            let numbers = [&was, &is].map(of);
            let is_total = [RELEASED, WITH_NOISE].contains(&what.as_str());
            if numbers.into_iter().flatten().any(|number| number > 0 || is_total) {
                let [was, is] = numbers.map(shown);
                rows.push([dataset.to_string(), what, was, is]);
            }
        };
        line(WITH_NOISE.to_owned(), &|left| left.of_noise(|noise| noise.paid));
        line("cells that get noise in them".to_owned(), &|left| left.of_noise(|noise| noise.cells));
        line("windows without budget".to_owned(), &|left| left.of_noise(|noise| noise.unpaid));
        line(RELEASED.to_owned(), &|left| left.of_cells(|left| left.released));
        let reasons: BTreeSet<Withheld> = was.withheld.keys().chain(is.withheld.keys()).copied().collect();
        for why in reasons {
            let of = |left: &Left| left.withheld.get(&why).copied().unwrap_or(0);
            line(format!("withheld: {why}"), &|left| left.of_cells(of));
        }
        line("waited, left with later ones".to_owned(), &|left| left.of_cells(|left| left.waits.left_later()));
        line("withheld: waited in vain".to_owned(), &|left| left.of_cells(|left| left.waits.in_vain));
        line("wait when the records end".to_owned(), &|left| left.of_cells(|left| left.waits.at_end));
        let metrics: BTreeSet<&String> = was.nulls.keys().chain(is.nulls.keys()).collect();
        for metric in metrics {
            let of = |left: &Left| left.nulls.get(metric).copied().unwrap_or(0);
            line(format!("nulls of {metric}"), &|left| left.of_cells(of));
        }
    }
    text.push_str(&table(&rows));
    for dataset in noised {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\n{dataset}: windows leave with noise, which is not drawn here: which of the cells leave is not known, and they are\n\
             not compared. The budget of each day is taken as unspent before these records"
        );
    }
    windows(&mut text, before, after);
    text
}

/// The windows that differ.
fn windows(text: &mut String, before: &AllLeft, after: &AllLeft) {
    let nothing = Left::default();
    let all: BTreeSet<&(DatasetName, i64)> = before.keys().chain(after.keys()).collect();
    let differ = all.into_iter().map(|window| {
        let [was, is] = [before, after].map(|left| left.get(window).unwrap_or(&nothing));
        (window, was, is)
    });
    let differ: Vec<_> = differ.filter(|(_, was, is)| was != is).collect();
    // Writing to a string does not fail.
    let _ = writeln!(text, "\nwindows of which not the same would leave: {}\n", count(differ.len()));
    if differ.is_empty() {
        return;
    }
    let header =
        ["dataset", "window from", "released before", "after", "withheld before", "after", "nulls before", "after"];
    let mut rows = vec![header.map(str::to_owned)];
    for ((dataset, start), was, is) in differ.iter().take(WINDOWS_SHOWN) {
        let released = |left: &Left| match left.noise {
            Noise { paid: 1.., .. } => "with noise".to_owned(),
            Noise { unpaid: 1.., .. } => "no budget".to_owned(),
            _ => count(left.released),
        };
        let withheld = |left: &Left| shown(left.of_cells(Left::withheld));
        let nulls = |left: &Left| shown(left.of_cells(|left| left.nulls.values().sum()));
        rows.push([
            dataset.to_string(),
            rfc3339(*start),
            released(was),
            released(is),
            withheld(was),
            withheld(is),
            nulls(was),
            nulls(is),
        ]);
    }
    text.push_str(&table(&rows));
    if let Some(more) = differ.len().checked_sub(WINDOWS_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {} more", count(more));
    }
}

fn shown(number: Option<usize>) -> String {
    number.map_or_else(|| "-".to_owned(), count)
}

fn count(count: usize) -> String {
    HumanCount(count as u64).to_string()
}
