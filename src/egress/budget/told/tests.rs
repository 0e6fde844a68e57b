use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::Told;
use crate::clock::Moment;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::policy::receiver::{Receiver, Table, released};
use crate::domain::policy::{By, Changes, Reduction, Released, Step, Top};
use crate::egress::budget::{Budget, Forms, Leaving, Parcel, Payment, Settings, Whole};
use crate::storage::{FileSystem, Lsn, RealFileSystem};

const AT: Moment = Moment { now: Duration::ZERO, wall: 0 };

fn desk() -> DestinationName {
    "desk".parse().unwrap()
}

fn cells() -> DatasetName {
    "cells".parse().unwrap()
}

fn entry(lsn: Lsn) -> Parcel<'static> {
    Parcel { lsn, of: None }
}

fn top() -> Reduction {
    Reduction(vec![Step::Top(Top { rows: 1, by: By::Metric("n".to_owned()) })])
}

fn settings(tells_changes: bool) -> Settings {
    let changes = tells_changes.then(|| Reduction::on_change(Changes::default()));
    let smaller = changes.into_iter().chain([top()]).collect();
    let (widened, first) = (BTreeMap::new(), Vec::new());
    Settings { bytes: 1 << 40, per: Duration::from_secs(1), widened, smaller, sheds_after: None, first }
}

/// What happens to a destination.
#[derive(Debug, Clone)]
enum Happens {
    /// A closing, of one dataset or of two.
    Closing(Vec<(bool, Table)>),
    /// The next entry leaves: as it is, as what has changed, as its largest row.
    Sent(u8),
    /// It leaves so, and cells of it are set aside, because the topic does not take them now: some, or all. All of them take 0
    /// bytes, for which nothing is paid.
    SetAside {
        choice: u8,
        all: bool,
    },
    /// Everything before is confirmed, and the next entry is shed, or given up, though it may have been paid for.
    Confirmed,
    Shed,
    GivenUp,
    /// So many of what is on its way arrive, nobody says so, and it is all sent again; with a crash, after which the outbox may
    /// have let go of what was confirmed.
    Again {
        arrive: usize,
        is_crash: bool,
        is_freed: bool,
    },
    /// A crash, after which the half of the file that was written last is damaged: what it knows is one payment old.
    Damaged,
    /// A run without a budget, or with one that does not tell changes.
    Without {
        has_budget: bool,
    },
}

fn happens() -> impl Strategy<Value = Happens> {
    let keys = (0..3_u8, 0..2_u8).prop_map(|(country, city)| [country, city].map(|key| format!("k{key}")));
    let says = (Just(1_i64), 0..2_i64, Just(None));
    let closing = prop::collection::vec((any::<bool>(), prop::collection::btree_map(keys, says, 1..7)), 1..3);
    let again = (0..4_usize, any::<bool>(), any::<bool>());
    prop_oneof![
        8 => closing.prop_map(Happens::Closing),
        12 => (0..4_u8).prop_map(Happens::Sent),
        2 => (0..4_u8, any::<bool>()).prop_map(|(choice, all)| Happens::SetAside { choice, all }),
        4 => Just(Happens::Confirmed),
        1 => Just(Happens::Shed),
        2 => Just(Happens::GivenUp),
        3 => again.prop_map(|(arrive, is_crash, is_freed)| Happens::Again { arrive, is_crash, is_freed }),
        1 => Just(Happens::Damaged),
        1 => any::<bool>().prop_map(|has_budget| Happens::Without { has_budget }),
    ]
}

/// A destination, its budget, and the outbox.
struct World {
    directory: TempDir,
    budget: Budget,
    /// From position 1 on.
    outbox: Vec<Vec<Released>>,
    tables: BTreeMap<String, Table>,
    freed: Lsn,
    confirmed: Lsn,
    sent: Lsn,
    on_way: VecDeque<(Lsn, Vec<Released>)>,
    /// Under which ids an entry left. It leaves under no other.
    left_as: BTreeMap<Lsn, Vec<String>>,
    receivers: BTreeMap<String, Receiver>,
    heard: BTreeSet<String>,
    /// Something that was paid for was given up, and these may tell what has changed since.
    broken_through: Lsn,
    /// Of these datasets the budget may not know what was told last. They are told as changes since what the receiver does not have
    /// any more, until one leaves whole.
    stale: BTreeSet<String>,
    changes: usize,
}

fn open(directory: &TempDir, settings: Settings, last: Lsn) -> Budget {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    Budget::open(&fs, directory.path(), &desk(), settings, last, AT).unwrap()
}

impl World {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let budget = open(&directory, settings(true), 0);
        Self {
            directory,
            budget,
            outbox: Vec::new(),
            tables: BTreeMap::new(),
            freed: 0,
            confirmed: 0,
            sent: 0,
            on_way: VecDeque::new(),
            left_as: BTreeMap::new(),
            receivers: BTreeMap::new(),
            heard: BTreeSet::new(),
            broken_through: 0,
            stale: BTreeSet::new(),
            changes: 0,
        }
    }

    fn last(&self) -> Lsn {
        self.outbox.len() as Lsn
    }

    fn entry(&self, lsn: Lsn) -> Vec<Released> {
        self.outbox[lsn as usize - 1].clone()
    }

    fn closing(&mut self, releases: Vec<(bool, Table)>) {
        let lsn = self.last() + 1;
        let released = releases.into_iter().enumerate().map(|(at, (is_other, table))| {
            let id = format!("{lsn:016x}{at:016x}");
            let released = released(if is_other { "others" } else { "cells" }, &id, &table);
            self.tables.insert(id, table);
            released
        });
        let released = released.collect();
        self.outbox.push(released);
    }

    fn send(&mut self, choice: u8) {
        let lsn = self.sent + 1;
        if lsn > self.last() {
            return;
        }
        let left = self.pay(lsn, choice);
        let ids: Vec<String> = left.iter().map(|released| released.id().to_owned()).collect();
        assert_eq!(self.left_as.entry(lsn).or_insert_with(|| ids.clone()), &ids, "it leaves in one form");
        self.on_way.push_back((lsn, left));
        self.sent = lsn;
    }

    /// A release is all its messages: of what is set aside in part, the receiver has nothing.
    fn set_aside(&mut self, choice: u8, all: bool) {
        let lsn = self.sent + 1;
        if lsn > self.last() {
            return;
        }
        if !all {
            self.pay(lsn, choice);
        }
        self.forget(lsn);
        self.on_way.push_back((lsn, Vec::new()));
        self.sent = lsn;
    }

    /// Something of an entry does not arrive. What was paid for after it may be told since that.
    fn forget(&mut self, lsn: Lsn) {
        let whole = self.entry(lsn);
        self.budget.forget(whole.iter().map(Released::dataset), AT).unwrap();
        let paid = (lsn..=self.last()).filter(|lsn| self.budget.is_paid(entry(*lsn))).max();
        self.broken_through = self.broken_through.max(paid.unwrap_or(0));
    }

    fn pay(&mut self, lsn: Lsn, choice: u8) -> Vec<Released> {
        let whole = self.entry(lsn);
        let asked = Whole { first: lsn, parcel: entry(lsn), releases: &whole, confirmed: self.confirmed };
        let form = match choice {
            _ if self.budget.is_paid(entry(lsn)) => self.budget.forms().of(entry(lsn)).cloned().unwrap_or_default(),
            1 | 2 => self.budget.smaller(asked).remove(0),
            3 => top(),
            _ => Reduction::default(),
        };
        let left = form.applied(&whole).unwrap();
        let leaving = Leaving { whole: &whole, left: &left };
        let payment = Payment { parcel: entry(lsn), form: &form, bytes: 1, confirmed: self.confirmed, leaving };
        self.budget.pay(payment, AT).unwrap();
        left
    }

    fn arrive(&mut self, releases: &[Released], lsn: Lsn) {
        for released in releases {
            let receiver = self.receivers.entry(released.dataset().to_string()).or_default();
            let has_it = receiver.hear(released);
            if has_it {
                assert_eq!(receiver.table, self.tables[released.id_of_whole()]);
            }
            let tells_all = released.made_smaller().is_none_or(|smaller| smaller.since.is_some());
            let is_new = self.heard.insert(released.id().to_owned());
            if released.made_smaller().is_none() {
                self.stale.remove(released.dataset().as_str());
            }
            let is_broken = lsn <= self.broken_through || self.stale.contains(released.dataset().as_str());
            assert!(has_it || !tells_all || !is_new || is_broken, "the chain is whole");
            self.changes += usize::from(has_it && released.made_smaller().is_some());
        }
    }

    fn confirm(&mut self) {
        while let Some((lsn, releases)) = self.on_way.pop_front() {
            self.arrive(&releases, lsn);
            self.confirmed = lsn;
        }
    }

    fn pass_over(&mut self, is_given_up: bool) {
        self.confirm();
        let lsn = self.sent + 1;
        if lsn > self.last() || (!is_given_up && self.budget.is_paid(entry(lsn))) {
            return;
        }
        if is_given_up {
            self.forget(lsn);
        } else {
            self.budget.shed(entry(lsn), AT).unwrap();
        }
        (self.sent, self.confirmed) = (lsn, lsn);
    }

    fn again(&mut self, arrive: usize, is_crash: bool, is_freed: bool) {
        let on_way: Vec<_> = self.on_way.drain(..).collect();
        on_way.iter().take(arrive).for_each(|(lsn, releases)| self.arrive(releases, *lsn));
        self.sent = self.confirmed;
        if is_freed {
            self.freed = self.confirmed;
        }
        if is_crash {
            self.budget = open(&self.directory, settings(true), self.last());
            self.recall();
        }
    }

    fn damaged(&mut self) {
        self.again(0, false, false);
        let path = self.directory.path().join(desk().as_str());
        let mut file = std::fs::read(&path).unwrap();
        // The number of the write stands behind the magic of each slot; there may be one only.
        let number = |at: usize| file.get(at + 8..at + 16).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        let newest = [0, 68 << 10].into_iter().max_by_key(|at| number(*at)).unwrap();
        file[newest + 24] ^= 1;
        std::fs::write(&path, file).unwrap();
        self.budget = open(&self.directory, settings(true), self.last());
        self.recall();
        self.stale = ["cells", "others"].map(str::to_owned).into();
        // What was on its way may leave in another form now.
        self.left_as.retain(|lsn, _| *lsn <= self.confirmed);
    }

    fn recall(&mut self) {
        let (outbox, freed) = (self.outbox.clone(), self.freed);
        self.budget.recall(&|lsn| if lsn > freed { outbox[lsn as usize - 1].clone() } else { Vec::new() });
    }

    fn without(&mut self, has_budget: bool) {
        self.confirm();
        let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
        let last = self.last();
        let forms = match has_budget {
            true => {
                let mut budget = open(&self.directory, settings(false), last);
                let payment =
                    |form| Payment { parcel: entry(last), form, bytes: 1, confirmed: 0, leaving: Leaving::default() };
                let forms: Forms = budget.forms().clone();
                budget.pay(payment(&Reduction::default()), AT).unwrap();
                forms
            }
            false => Budget::suspend(&fs, self.directory.path(), &desk(), last, AT).unwrap(),
        };
        for lsn in self.sent + 1..=last {
            let left = forms.of(entry(lsn)).cloned().unwrap_or_default().applied(&self.entry(lsn)).unwrap();
            self.arrive(&left, lsn);
        }
        (self.sent, self.confirmed) = (last, last);
        self.budget = open(&self.directory, settings(true), last);
        self.recall();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_receiver_has_the_whole_of_each_release_that_tells_it_whatever_happens(all in prop::collection::vec(happens(), 1..80)) {
        let mut world = World::new();
        for one in all {
            match one {
                Happens::Closing(releases) => world.closing(releases),
                Happens::Sent(choice) => world.send(choice),
                Happens::SetAside { choice, all } => world.set_aside(choice, all),
                Happens::Confirmed => world.confirm(),
                Happens::Shed => world.pass_over(false),
                Happens::GivenUp => world.pass_over(true),
                Happens::Again { arrive, is_crash, is_freed } => world.again(arrive, is_crash, is_freed),
                Happens::Damaged => world.damaged(),
                Happens::Without { has_budget } => world.without(has_budget),
            }
        }
        while world.sent < world.last() {
            world.send(1);
        }
        world.confirm();
    }
}

/// After these many releases that are shed, or of which only the largest row leaves, what has changed still can be told.
#[test]
fn it_is_told_since_what_was_told_last_whatever_was_left_out_between() {
    let mut world = World::new();
    let table = |n: i64| -> Table {
        (0..9).map(|key| (["DE".to_owned(), key.to_string()], (1, if key == 0 { n } else { 5 }, None))).collect()
    };
    (0..6).for_each(|n| world.closing(vec![(false, table(n))]));
    world.send(0);
    world.pass_over(false);
    world.send(3);
    world.send(1);
    world.again(0, true, false);
    (0..5).for_each(|_| world.send(1));
    world.confirm();
    let rows = |lsn: Lsn| world.left_as[&lsn].clone();
    assert_eq!(world.changes, 3, "{:?}", [1, 3, 4, 5, 6].map(rows));
    // A start that does not find it in the outbox any more begins with a whole one.
    world.again(0, true, true);
    (0..2).for_each(|_| world.closing(vec![(false, table(7))]));
    (0..2).for_each(|_| world.send(1));
    world.confirm();
    assert_eq!(world.changes, 4);
}

#[test]
fn what_was_paid_for_and_given_up_was_not_told() {
    for is_crash in [false, true] {
        let mut world = World::new();
        let table = |n: i64| -> Table {
            (0..9).map(|key| (["DE".to_owned(), key.to_string()], (1, if key < 3 { n } else { 5 }, None))).collect()
        };
        (0..6).for_each(|n| world.closing(vec![(false, table(n))]));
        world.send(0);
        world.confirm();
        // The next two are paid for: one whole, the other since that. They do not arrive, and the first one is given up.
        world.send(0);
        world.send(1);
        world.again(0, is_crash, false);
        world.pass_over(true);
        let of_release = world.receivers["cells"].release.clone();
        world.send(1);
        world.confirm();
        assert_eq!(
            world.receivers["cells"].release, of_release,
            "it says since what, and the receiver does not have that"
        );
        // The next one is whole, and the one after it is told since that.
        world.send(1);
        world.send(1);
        world.confirm();
        assert_eq!(world.changes, 1);
    }
}

/// It is told since what was told before. The receiver sees that by `since`, and has the next whole one again.
#[test]
fn where_the_newest_half_of_the_file_is_damaged_the_receiver_waits_for_the_next_whole_one() {
    let mut world = World::new();
    let table = |n: i64| -> Table {
        (0..9).map(|key| (["DE".to_owned(), key.to_string()], (1, if key == 0 { n } else { 5 }, None))).collect()
    };
    (0..7).for_each(|n| world.closing(vec![(false, table(n))]));
    [0, 1, 1].into_iter().for_each(|choice| world.send(choice));
    world.confirm();
    let has = |world: &World| world.receivers["cells"].table.values().map(|(_, n, _)| *n).next().unwrap();
    assert_eq!((world.changes, has(&world)), (2, 2));
    world.damaged();
    (0..2).for_each(|_| world.send(1));
    world.confirm();
    assert_eq!((world.changes, has(&world)), (2, 2), "it leaves its table as it is");
    world.send(0);
    world.send(1);
    world.confirm();
    assert_eq!((world.changes, has(&world)), (3, 6));
}

/// Without the cursor, all that the outbox still has is sent again, and what leaves as what has changed is known of the last
/// entries only.
#[test]
fn what_leaves_whole_when_it_is_sent_again_is_told_under_its_own_id() {
    let table =
        |n: i64| -> Table { (0..4).map(|key| (["DE".to_owned(), key.to_string()], (1, n.min(key), None))).collect() };
    let whole = ["aa", "bb", "cc"].into_iter().zip(1..).map(|(id, n)| released("cells", id, &table(n)));
    let whole: Vec<Released> = whole.collect();
    let first = Told::default().after(1, Leaving { whole: &whole[..1], left: &whole[..1] }, false);
    let later = &whole[1..];
    let form = Reduction::on_change(Changes::since(|dataset| first.before(dataset, 2), later));
    let left = form.applied(later).unwrap();
    assert!(left.iter().all(|released| released.made_smaller().is_some()));
    let told = first.after(2, Leaving { whole: later, left: &left }, false);
    let id = |told: &Told| told.before(&cells(), 3).unwrap().id.to_owned();
    assert_eq!(id(&told), left[1].id());
    assert_eq!(id(&told.after(2, Leaving { whole: later, left: &left }, true)), left[1].id(), "the same again");
    assert_eq!(
        id(&told.after(1, Leaving { whole: &whole[..1], left: &whole[..1] }, true)),
        left[1].id(),
        "what was before"
    );
    let mixed = [later[0].clone(), left[1].clone()];
    assert_eq!(id(&told.after(2, Leaving { whole: later, left: &mixed }, true)), "bb");
    assert_eq!(id(&told.after(2, Leaving { whole: later, left: later }, true)), "cc");
}

/// It may have left in a form that is not known any more, or without a cell that the topic does not take.
#[test]
fn what_was_forgotten_is_not_told_when_it_is_sent_again() {
    let whole = [released("cells", "aa", &Table::default())];
    let leaving = Leaving { whole: &whole, left: &whole };
    let told = Told::default().after(5, leaving, false);
    assert!(told.before(&cells(), 6).is_some() && told.after(5, leaving, true).before(&cells(), 6).is_some());
    let forgotten = told.without([&cells()].into_iter()).unwrap();
    assert!(forgotten.after(5, leaving, true).before(&cells(), 6).is_none());
    assert!(forgotten.after(6, leaving, false).before(&cells(), 7).is_some());
}
