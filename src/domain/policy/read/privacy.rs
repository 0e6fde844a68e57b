//! Differential privacy of datasets: `[datasets.NAME.privacy]`.

use jiff::SignedDuration;

use super::words::choice;
use crate::domain::dataset::{Dataset, Function};
use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{Place, Problems, Spot, Table};
use crate::domain::policy::noise;
use crate::domain::privacy::{Mechanism, Privacy, Rho};

const MECHANISMS: [&str; Mechanism::NAMES.len()] = [Mechanism::NAMES[0].0, Mechanism::NAMES[1].0];

pub(super) const PRIVACY: Shape = Shape {
    name: "datasets.NAME.privacy",
    about: "Differential privacy: every number that leaves has noise, and a day's releases have a budget.",
    keys: &[
        Key::required("mechanism", Kind::Word(&MECHANISMS), "Which noise."),
        Key::required(
            "rho_per_window",
            Kind::Number,
            "What a release may tell of one contributor: rho of zCDP, from 0.000001 to 0.5.",
        ),
        Key::required(
            "rho_per_day",
            Kind::Number,
            "What all releases of windows of one day (UTC) may tell of one contributor, from 0.000001 to 0.5. When it is \
             spent, windows of that day do not leave.",
        ),
    ],
};

/// The rho that a profile or a dataset states under a key.
pub(super) fn rho(stated: &Spot<f64>, key: &str, problems: &Problems) -> Option<Rho> {
    let rho = Rho::of(stated.value);
    if rho.is_none() {
        let message = format!("this is {}, and `{key}` is from {} to {}", stated.value, Rho::LEAST, Rho::MOST);
        let help = "rho adds up over windows; 0.01 a day is an epsilon of about 0.9 at a delta of 10^-9";
        problems.error_help(&stated.place, message, help);
    }
    rho
}

/// What a dataset declares, with the place.
pub(super) fn read(table: &Table<'_>) -> Option<Spot<Privacy>> {
    let Spot { value: table, place } = table.get::<Table<'_>>("privacy")?;
    let mechanism = choice(&table, "mechanism", &Mechanism::NAMES);
    let stated = ["rho_per_window", "rho_per_day"].map(|key| {
        let stated = table.need::<f64>(key)?;
        Some((rho(&stated, key, table.problems())?, stated.place))
    });
    table.done();
    let [Some((per_window, at)), Some((per_day, _))] = stated else { return None };
    if per_window > per_day {
        let message = format!("`rho_per_window` is {per_window}, and a day has {per_day}");
        table.problems().error_help(&at, message, "then no window leaves: make it smaller");
    }
    let privacy = Privacy { mechanism: mechanism?, per_window, per_day };
    Some(Spot { value: privacy, place })
}

/// The most numbers of a release that get noise: so many take the collector half a second.
const NUMBERS_MAX: usize = 100_000;

/// What a dataset with differential privacy must be.
pub(super) fn check(dataset: &Dataset, place: &Place, problems: &Problems) {
    let day = SignedDuration::from_hours(24).unsigned_abs().as_micros();
    // Then it is one of their step, too.
    if !day.is_multiple_of(dataset.length().as_micros().max(1)) {
        let message = "the budget is one of each day (UTC), and a window of this length may lie in two";
        problems.error_help(place, message, "let `window.size` divide 24 hours");
    }
    if dataset.bounds.is_none_or(|bounds| bounds.cells_per_window.is_none()) {
        let message = "noise hides one contributor only if it is known how much one adds at most";
        let help =
            "set `records_per_contributor` and `cells_per_contributor` in the release profile that the dataset names";
        problems.error_help(place, message, help);
    }
    if dataset.max_defer > 0 {
        let message = "a cell that waits is of several windows, and each window is paid for by itself";
        problems.error_help(place, message, "leave `max_defer` out: with noise, cells that are too small do not leave");
    }
    if !dataset.roll_up.is_empty() {
        let message = "a cell with noise leaves or not by itself, and is not merged with others";
        problems.error_help(place, message, "leave `roll_up` out");
    }
    for metric in &dataset.metrics {
        let why = match &metric.function {
            Function::Count | Function::Sum(_) | Function::Histogram { .. } => continue,
            Function::Mean(measure) if !measure.source.may_be_missing => continue,
            Function::Mean(measure) => format!(
                "`{}` is a mean of `{}`, which a record may be without, and the number of those that have it gets no noise",
                metric.name, measure.source.field
            ),
            Function::Variance(_) => format!("`{}` is a variance, and squares get no noise", metric.name),
            Function::Fraction { .. } => {
                format!("`{}` is a fraction, and the number of records that it is of gets no noise", metric.name)
            }
        };
        let help = "with `privacy` there are `count`, `sum`, `histogram`, and `mean` of a field that every record has";
        problems.error_help(place, why, help);
    }
    let numbers = noise::numbers(dataset);
    if numbers > NUMBERS_MAX {
        let message = format!("{numbers} numbers of each window would get noise, and at most {NUMBERS_MAX} may");
        problems.error_help(place, message, "use smaller domains, fewer ranges or fewer metrics: all cells get noise");
    }
}
