//! Datasets of one stream that share their cells. The cells are counted once, with the metrics of all these datasets,
//! and judged once. Each dataset is released with its own metrics.
//!
//! Whoever has the releases of several datasets can add and subtract their numbers. So there is one set of cells for
//! all of them, and what may leave of a cell is found for all its metrics together: a number leaves in one dataset only
//! if it gives nobody away beside the numbers of all the others.

use std::sync::Arc;

use super::{Dataset, Metric};
use crate::domain::name::DatasetName;
use crate::domain::window::micros;

/// One of the datasets that share their cells.
#[derive(Debug, Clone)]
pub struct Member {
    /// The dataset as it is declared.
    pub dataset: Arc<Dataset>,
    /// The position of each of its metrics among those that are counted.
    pub metrics: Vec<usize>,
    /// The position of each of its keys among those that are counted. A coarser dataset does not have all of them.
    pub keys: Vec<usize>,
}

/// A dataset that is released, seen from what is counted for it.
#[derive(Debug, Clone)]
pub struct View<'d> {
    /// The dataset as it is declared.
    pub dataset: &'d Dataset,
    /// The position of each of its metrics among those that are counted.
    pub metrics: Vec<usize>,
    /// The position of each of its keys among those that are counted.
    pub keys: Vec<usize>,
}

impl Dataset {
    /// What is counted of a stream for these datasets, which part its records alike. For one dataset it is the dataset
    /// itself. For several it is a dataset that has the name and the keys of the first, which is no coarser one, and the
    /// metrics of all, each once. `None`: there are no datasets.
    #[must_use]
    pub fn counted_for(datasets: &[Arc<Self>]) -> Option<Arc<Self>> {
        let [first, others @ ..] = datasets else { return None };
        debug_assert!(first.coarser_than.is_none(), "the keys are those of a finer one");
        if others.is_empty() {
            return Some(Arc::clone(first));
        }
        let mut counted = Self { metrics: Vec::new(), ..Self::clone(first) };
        for dataset in datasets {
            let positions = dataset.metrics.iter().map(|metric| counted.position_of(metric, &dataset.name));
            let metrics = positions.collect();
            let position = |name: &str| first.keys.iter().position(|key| key.name == name);
            let keys = dataset.keys.iter().filter_map(|key| position(&key.name)).collect();
            counted.members.push(Member { dataset: Arc::clone(dataset), metrics, keys });
            counted.min_contributors = counted.min_contributors.max(dataset.min_contributors);
        }
        Some(Arc::new(counted))
    }

    /// Where a metric of a dataset is counted; it is added if nothing counts the same.
    fn position_of(&mut self, metric: &Metric, of: &DatasetName) -> usize {
        if let Some(position) = self.metrics.iter().position(|known| known.function == metric.function) {
            return position;
        }
        // Two datasets may call different things alike.
        let is_taken = self.metrics.iter().any(|known| known.name == metric.name);
        let name = if is_taken { format!("{of}.{}", metric.name) } else { metric.name.clone() };
        self.metrics.push(Metric { name, function: metric.function.clone(), digits: None });
        self.metrics.len() - 1
    }

    /// The datasets that are released of what is counted for this one: those that share its cells, or itself alone.
    pub fn released_as(&self) -> impl Iterator<Item = &Self> {
        let alone = self.members.is_empty().then_some(self);
        self.members.iter().map(|member| &*member.dataset).chain(alone)
    }

    /// Whether several datasets are released of what is counted for this one.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether one of the datasets that share its cells has longer windows.
    #[must_use]
    pub fn has_longer(&self) -> bool {
        self.members.iter().any(|member| member.dataset.window > self.window)
    }

    /// Of the datasets that share these cells, those with longer windows that add up all rows of one of them, each whole.
    pub fn wider_than<'d>(&'d self, one: &'d Self) -> impl Iterator<Item = &'d Self> {
        let is_of_several = |of: &Self| of.window > one.window && micros(of.window) % micros(one.window).max(1) == 0;
        let has_its_keys = |of: &Self| of.keys.iter().all(|key| one.keys.iter().any(|known| known.name == key.name));
        let is_wider = move |of: &&Self| of.window > self.window && is_of_several(of) && has_its_keys(of);
        self.members.iter().map(|member| &*member.dataset).filter(is_wider)
    }

    /// Whether this is what is counted for a dataset of this name.
    #[must_use]
    pub fn is_counted_for(&self, name: &DatasetName) -> bool {
        self.name == *name || self.members.iter().any(|member| member.dataset.name == *name)
    }

    /// Each dataset that is released.
    #[must_use]
    pub fn views(&self) -> Vec<View<'_>> {
        if self.members.is_empty() {
            return vec![View::alone(self)];
        }
        let views = self.members.iter().map(|Member { dataset, metrics, keys }| View {
            dataset,
            metrics: metrics.clone(),
            keys: keys.clone(),
        });
        views.collect()
    }

    /// The same with fewer metrics, in all datasets that share its cells too.
    #[must_use]
    pub fn with_metrics(&self, is_kept: &dyn Fn(&Metric) -> bool) -> Self {
        if self.members.is_empty() {
            let metrics = self.metrics.iter().filter(|metric| is_kept(metric)).cloned().collect();
            return Self { metrics, ..self.clone() };
        }
        let members = self.members.iter().map(|member| Arc::new(member.dataset.with_metrics(is_kept)));
        let members: Vec<Arc<Self>> = members.collect();
        Self::counted_for(&members).map_or_else(|| self.clone(), |counted| Self::clone(&counted))
    }

    /// The keys in which a dataset of the same stream differs so that it parts the records otherwise. Empty: both can
    /// share their cells. A coarser one has some of the keys, or longer windows that each are several of these, or both. It
    /// gives nothing up.
    #[must_use]
    pub fn parted_otherwise(&self, other: &Self) -> Vec<&'static str> {
        let key = |dataset: &Self| -> Vec<_> {
            dataset.keys.iter().map(|key| (key.name.clone(), key.column, key.domain.clone())).collect()
        };
        let (keys, of_other) = (key(self), key(other));
        let is_coarser = other.coarser_than.is_some();
        let is_longer = is_coarser && self.window < other.window;
        let parts_alike = match is_coarser {
            true => {
                (of_other.len() < keys.len() || (is_longer && of_other == keys))
                    && of_other.iter().all(|key| keys.contains(key))
            }
            false => keys == of_other,
        };
        let is_of_several = is_longer && micros(other.window) % micros(self.window).max(1) == 0;
        let differ = [
            ("group_by", !parts_alike),
            ("window.size", self.window != other.window && !is_of_several),
            ("window.grace", self.grace != other.grace),
            ("window.open_max", self.open_max != other.open_max),
            ("max_defer", self.max_defer != other.max_defer),
            ("roll_up", !is_coarser && self.roll_up != other.roll_up),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
    }
}

impl<'d> View<'d> {
    /// Whether its windows are longer than those that are counted.
    #[must_use]
    pub fn is_longer(&self, counted: &Dataset) -> bool {
        self.dataset.window > counted.window
    }

    /// One that shares its cells with no other.
    #[must_use]
    pub fn alone(dataset: &'d Dataset) -> Self {
        let all = |count: usize| (0..count).collect();
        Self { dataset, metrics: all(dataset.metrics.len()), keys: all(dataset.keys.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dataset::{KeyDomain, samples};

    /// The sample with some of its metrics.
    fn some(name: &str, metrics: &[usize], least: usize) -> Arc<Dataset> {
        let all = samples::every_kind();
        let metrics = metrics.iter().map(|at| all.metrics[*at].clone()).collect();
        Arc::new(Dataset { name: name.parse().unwrap(), metrics, min_contributors: least, ..all })
    }

    #[test]
    fn one_alone_is_counted_as_it_is_and_several_once_with_the_metrics_of_all() {
        let (one, other) = (some("one", &[0, 1], 5), some("other", &[1, 0, 2], 9));
        assert!(Dataset::counted_for(&[]).is_none());
        assert!(Arc::ptr_eq(&Dataset::counted_for(std::slice::from_ref(&one)).unwrap(), &one));
        let both = Dataset::counted_for(&[Arc::clone(&one), Arc::clone(&other)]).unwrap();
        assert_eq!((both.name.as_str(), both.metrics.len(), both.min_contributors), ("one", 3, 9));
        let views: Vec<_> = both.views().into_iter().map(|view| (view.dataset.name.as_str(), view.metrics)).collect();
        assert_eq!(views, [("one", vec![0, 1]), ("other", vec![1, 0, 2])]);
        assert!(
            both.is_counted_for(&"other".parse().unwrap())
                && !both.is_counted_for(&"another".parse().unwrap())
                && both.is_shared()
        );
    }

    #[test]
    fn what_two_datasets_call_alike_is_counted_apart() {
        let (one, mut other) = (some("one", &[0], 5), Dataset::clone(&some("other", &[1], 5)));
        other.metrics[0].name.clone_from(&one.metrics[0].name);
        let both = Dataset::counted_for(&[one, Arc::new(other)]).unwrap();
        let names: Vec<&str> = both.metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, [both.metrics[0].name.as_str(), &format!("other.{}", both.metrics[0].name)]);
    }

    #[test]
    fn metrics_that_are_left_out_are_left_out_of_every_dataset() {
        let both = Dataset::counted_for(&[some("one", &[0, 1], 5), some("other", &[1, 2], 5)]).unwrap();
        let gone = both.metrics[1].name.clone();
        let fewer = both.with_metrics(&|metric| metric.name != gone);
        let views: Vec<_> = fewer.views().into_iter().map(|view| (view.dataset.metrics.len(), view.metrics)).collect();
        assert_eq!((fewer.metrics.len(), views), (2, vec![(1, vec![0]), (1, vec![1])]));
    }

    #[test]
    fn what_keeps_two_from_sharing_their_cells_is_named() {
        let one = samples::every_kind();
        assert_eq!(one.parted_otherwise(&Dataset { min_contributors: 50, ..one.clone() }), [""; 0]);
        let other = Dataset { keys: Vec::new(), window: one.window * 2, max_defer: 3, ..one.clone() };
        assert_eq!(one.parted_otherwise(&other), ["group_by", "window.size", "max_defer"]);
        let rolled = |keys: &[usize]| Dataset { roll_up: keys.to_vec(), ..one.clone() };
        assert_eq!(rolled(&[0, 1]).parted_otherwise(&rolled(&[1, 0])), ["roll_up"], "in another order");
        assert_eq!(rolled(&[0]).parted_otherwise(&one), ["roll_up"]);
    }

    #[test]
    fn a_coarser_one_has_some_of_the_keys_and_no_others() {
        let finer = Dataset { roll_up: vec![0], ..samples::every_kind() };
        let coarser = |keys: &[usize]| {
            let keys = keys.iter().map(|key| finer.keys[*key].clone()).collect();
            Dataset {
                name: "coarser".parse().unwrap(),
                coarser_than: Some(finer.name.clone()),
                keys,
                roll_up: Vec::new(),
                ..finer.clone()
            }
        };
        assert_eq!(finer.parted_otherwise(&coarser(&[1])), [""; 0]);
        assert_eq!(finer.parted_otherwise(&coarser(&[])), [""; 0]);
        let all: Vec<usize> = (0..finer.keys.len()).collect();
        assert_eq!(finer.parted_otherwise(&coarser(&all)), ["group_by"], "it is no coarser one");
        let mut other = coarser(&[1]);
        other.keys[0].domain = KeyDomain::Bool;
        assert_eq!(finer.parted_otherwise(&Dataset { max_defer: 1, ..other.clone() }), ["group_by", "max_defer"]);
        let longer = |times: u32, keys: &[usize]| Dataset { window: finer.window * times, ..coarser(keys) };
        assert_eq!(finer.parted_otherwise(&longer(2, &all)), [""; 0], "of longer windows it can have all keys");
        assert_eq!(finer.parted_otherwise(&longer(60, &[1])), [""; 0]);
        let odd = Dataset { window: finer.window + finer.window / 2, ..coarser(&[1]) };
        assert_eq!(finer.parted_otherwise(&odd), ["window.size"]);
        assert_eq!(longer(2, &all).parted_otherwise(&coarser(&[1])), ["window.size"], "shorter than what it adds up");
        let other_keys = Dataset { keys: vec![other.keys[0].clone()], ..longer(2, &[1]) };
        assert_eq!(finer.parted_otherwise(&other_keys), ["group_by"]);
        let both = Dataset::counted_for(&[Arc::new(finer.clone()), Arc::new(coarser(&[1]))]).unwrap();
        let keys: Vec<_> = both.views().into_iter().map(|view| view.keys).collect();
        assert_eq!((both.keys.len(), keys), (finer.keys.len(), vec![all, vec![1]]));
    }
}
