//! Windows of replayed records that leave with noise: which of them the budgets of their days pay for. No noise is drawn.

use std::sync::Arc;

use super::left::{AllLeft, Noise};
use super::releasing::Part;
use crate::domain::aggregate::cells_of;
use crate::domain::dataset::Dataset;
use crate::domain::privacy::{Answer, Charge, Privacy, Spending, WindowKey};
use crate::domain::window::{micros, window_start};

/// The windows of all datasets with noise.
#[derive(Default)]
pub(super) struct Budgets(Vec<ToPay>);

struct ToPay {
    dataset: Arc<Dataset>,
    privacy: Privacy,
    part: Part,
}

impl ToPay {
    fn start(&self) -> i64 {
        window_start(self.part.window, self.dataset.window)
    }

    /// The event time at which nothing more is waited for.
    fn closes(&self) -> i64 {
        let Dataset { grace, .. } = *self.dataset;
        self.start().saturating_add(micros(self.dataset.length().saturating_add(grace)))
    }
}

impl Budgets {
    /// Adds the windows of a dataset.
    pub(super) fn add(&mut self, dataset: &Arc<Dataset>, privacy: Privacy, parts: impl Iterator<Item = Part>) {
        self.0.extend(parts.map(|part| ToPay { dataset: Arc::clone(dataset), privacy, part }));
    }

    /// Pays for them in the order in which they close. Datasets of a stream share the budget of a day.
    pub(super) fn spend(mut self, left: &mut AllLeft) {
        self.0.sort_by_key(|to_pay| (to_pay.closes(), to_pay.dataset.name.clone(), to_pay.part));
        let mut spending = Spending::default();
        for to_pay in self.0 {
            let (start, ToPay { dataset, privacy, part }) = (to_pay.start(), to_pay);
            let charge = Charge {
                stream: dataset.stream.clone(),
                contributor: dataset.contributor.clone(),
                window: WindowKey { dataset: dataset.name.clone(), start, part: part.flushes },
                rho: privacy.per_window,
            };
            let noise = match spending.ask(&charge, privacy.per_day) {
                Answer::Affordable => {
                    spending.charge(charge);
                    Noise { paid: 1, cells: cells_of(&dataset), unpaid: 0 }
                }
                Answer::Spent | Answer::Before => Noise { unpaid: 1, ..Noise::default() },
            };
            left.entry((dataset.name.clone(), start)).or_default().noise.add(noise);
        }
    }
}
