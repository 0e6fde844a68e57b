use std::collections::BTreeMap;

use super::*;
use crate::domain::policy::receiver::{Table, released};
use crate::domain::policy::{By, Changes, LastTold, ON_CHANGE, Step, TOP, Top};
use crate::egress::encode::Format;

/// One that is not connected, and whose messages may be so large.
fn sink(bytes: usize, whose: kafka::Whose) -> kafka::Sink {
    let settings = kafka::Settings {
        brokers: "127.0.0.1:1".to_owned(),
        topic: "topic".to_owned(),
        format: Format::JsonLines,
        progress_topic: None,
        security: kafka::Security::default(),
        options: BTreeMap::new(),
    };
    kafka::Sink::with_limit(settings, bytes, whose)
}

/// An entry of three short rows, and of a long one, which has changed and is the largest; and the forms that it may leave in.
fn entry() -> (Next, Vec<Reduction>) {
    let table = |n: i64| -> Table {
        let row = |city: String, n| (["DE".to_owned(), city], (1, n, None));
        ["a", "b", "c"].map(|city| row(city.to_owned(), 1)).into_iter().chain([row("d".repeat(1_000), n)]).collect()
    };
    let before = released("cells", &"aa".repeat(16), &table(2));
    let whole = vec![released("cells", &"bb".repeat(16), &table(3))];
    let changes = Changes::since(|_| Some(LastTold { id: before.id(), whole: &before }), &whole);
    let top = Reduction(vec![Step::Top(Top { rows: 1, by: By::Metric("n".to_owned()) })]);
    let (releases, form) = (whole.clone(), Reduction::default());
    let next = Next { lsn: 1, whole, releases, form, bytes: None, is_paid: false, smaller: None };
    (next, vec![Reduction::on_change(changes), top])
}

/// The steps of the forms that an entry may leave in at each limit, from large ones to small ones, as often as they change.
/// `None`: the whole cannot be sent.
fn forms(whose: kafka::Whose) -> Vec<Option<Vec<&'static str>>> {
    let (next, forms) = entry();
    let at = |bytes: usize| {
        let made = smaller(&sink(bytes, whose), &next, &forms).ok()?;
        let steps = made.iter().flat_map(|form| form.form.0.iter().map(Step::name));
        Some(steps.collect())
    };
    let mut found: Vec<_> = (1..500).rev().map(|step| 8 * step).map(at).collect();
    found.dedup();
    found
}

/// A row that says how it was made takes more than the same row of the whole.
#[test]
fn no_form_sets_more_cells_aside_than_the_whole() {
    let (both, top, none) = (Some(vec![ON_CHANGE, TOP]), Some(vec![TOP]), Some(vec![]));
    // In the end the long row is set aside in all of them.
    assert_eq!(forms(kafka::Whose::Topic), [both.clone(), top.clone(), none.clone(), both.clone()]);
    // Where nothing is set aside, the whole waits in the end.
    for whose in [kafka::Whose::Client, kafka::Whose::Learned] {
        assert_eq!(forms(whose), [both.clone(), top.clone(), none.clone(), None]);
    }
}
