use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;
use crate::domain::binary::Writer;
use crate::domain::dataset::CELLS_MAX;
use crate::domain::policy::receiver::{Table, released};
use crate::domain::policy::{Adding, By, RollUp, Step, Top};
use crate::storage::RealFileSystem;

const SECOND: Duration = Duration::from_secs(1);

fn settings(sheds_after: Option<Duration>) -> Settings {
    let (widened, smaller, first) = (BTreeMap::new(), Vec::new(), vec![named("alarms")]);
    Settings { bytes: 1_000, per: SECOND * 100, widened, smaller, sheds_after, first }
}

/// A moment so many seconds after the start, of both clocks.
fn at(seconds: u32) -> Moment {
    Moment { now: SECOND * seconds, wall: i64::from(seconds) * 1_000_000 }
}

fn open(directory: &TempDir, settings: Settings, last: Lsn, at: Moment) -> Budget {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    Budget::open(&fs, directory.path(), &hub(), settings, last, at).unwrap()
}

fn hub() -> DestinationName {
    "hub".parse().unwrap()
}

fn named(dataset: &str) -> DatasetName {
    dataset.parse().unwrap()
}

fn entry(lsn: Lsn) -> Parcel<'static> {
    Parcel { lsn, of: None }
}

fn file(lsn: Lsn, of: &DatasetName) -> Parcel<'_> {
    Parcel { lsn, of: Some(of) }
}

/// A payment for the whole of an entry.
fn paid(lsn: Lsn, bytes: u64) -> Payment<'static> {
    static WHOLE: Reduction = Reduction(Vec::new());
    Payment { parcel: entry(lsn), form: &WHOLE, bytes, confirmed: 0, leaving: Leaving::default() }
}

/// An entry that has smaller forms.
fn of(smaller: &[u64], bytes: u64) -> Asked<'_> {
    Asked { smaller, ..asked(1, bytes) }
}

/// Rows are added up, and the largest stay.
fn form() -> Reduction {
    let adding = |digits| Adding { weight: None, digits };
    let metrics = [("n".to_owned(), adding(None)), ("sum".to_owned(), adding(Some(3)))];
    let mean = ("mean".to_owned(), Adding { weight: Some("n".to_owned()), digits: None });
    let datasets = [(named("payments"), metrics.into_iter().chain([mean]).collect())].into();
    let roll_up = RollUp { keys: vec!["city".to_owned()], datasets };
    Reduction(vec![Step::RollUp(roll_up), Step::Top(Top { rows: 20, by: By::Metric("n".to_owned()) })])
}

/// What is asked for smaller forms of an entry.
fn whole(first: Lsn, last: Lsn) -> Whole<'static> {
    Whole { first, parcel: entry(last), releases: &[], confirmed: 0 }
}

fn asked(lsn: Lsn, bytes: u64) -> Asked<'static> {
    Asked {
        parcel: entry(lsn),
        bytes,
        is_widened: false,
        smaller: &[],
        tells_changes: false,
        ahead: 0,
        waited: Duration::ZERO,
    }
}

#[test]
fn what_comes_after_its_first_start_is_not_from_before_it_whatever_crashes() {
    let directory = TempDir::new().unwrap();
    let smaller = vec![Reduction(vec![Step::Top(Top { rows: 1, by: By::Metric("n".to_owned()) })])];
    let settings = Settings { smaller, ..settings(Some(Duration::ZERO)) };
    // Nothing is paid for before the crash.
    drop(open(&directory, settings.clone(), 3, at(0)));
    let budget = open(&directory, settings, 9, at(1));
    assert_eq!([3, 4].map(|lsn| budget.smaller(whole(lsn, lsn)).len()), [0, 1]);
    assert_eq!([3, 4].map(|lsn| budget.decide(asked(lsn, 1_001), at(1).now)), [Decision::TooLarge, Decision::Shed]);
}

#[test]
fn it_is_full_at_first_and_fills_evenly_and_never_beyond() {
    let directory = TempDir::new().unwrap();
    let mut budget = open(&directory, settings(None), 0, at(0));
    assert_eq!(budget.decide(asked(1, 1_000), at(0).now), Decision::Send(0));
    budget.pay(paid(1, 700), at(0)).unwrap();
    assert_eq!(
        (budget.level().left(at(0).now), budget.level().left(at(10).now), budget.level().left(at(999).now)),
        (300, 400, 1_000)
    );
    assert_eq!(budget.decide(asked(2, 400), at(9).now), Decision::Wait);
    assert_eq!(budget.decide(asked(2, 400), at(10).now), Decision::Send(0));
    assert_eq!(budget.decide(asked(2, 1_001), at(999).now), Decision::TooLarge);
    assert_eq!(budget.decide(asked(2, 0), at(0).now), Decision::Send(0));
}

#[test]
fn what_was_paid_before_a_crash_stays_paid() {
    let directory = TempDir::new().unwrap();
    let mut spent = 0;
    // It dies after each payment, be it sent or not, and comes back after 5 s by the wall clock.
    for life in 0..200 {
        let start = Moment { now: Duration::ZERO, wall: i64::from(life) * 5_000_000 };
        let mut budget = open(&directory, settings(None), 1_000, start);
        while budget.decide(asked(1_001, 90), start.now) == Decision::Send(0) {
            budget.pay(paid(1_001, 90), start).unwrap();
            spent += 90;
        }
    }
    let allowed = 1_000 + 1_000 * 199 * 5 / 100;
    assert!(spent <= allowed && spent + 90 > allowed, "{spent} of {allowed}");
}

#[test]
fn a_file_that_is_written_again_after_crashes_is_paid_for_once_and_another_one_is_paid_for() {
    let directory = TempDir::new().unwrap();
    let (file, other) = (Fingerprint::of(b"file"), Fingerprint::of(b"other"));
    for last in [0, 7, 7] {
        let mut budget = open(&directory, settings(None), last, at(0));
        if !budget.has_paid_for(file) {
            budget.pay_for(file, paid(7, 300), at(0)).unwrap();
        }
        assert_eq!(budget.level().left(at(0).now), 700);
    }
    let mut budget = open(&directory, settings(None), 7, at(0));
    assert!(!budget.has_paid_for(other));
    budget.pay_for(other, paid(5, 300), at(0)).unwrap();
    let budget = open(&directory, settings(Some(Duration::ZERO)), 7, at(0));
    assert_eq!((budget.has_paid_for(file), budget.level().left(at(0).now)), (false, 400));
    // It may have left, and is not shed. Others may be, whether they stand before it or after it.
    assert_eq!(
        [4, 5, 6].map(|lsn| budget.decide(asked(lsn, 500), at(0).now)),
        [Decision::Shed, Decision::Wait, Decision::Shed]
    );
}

#[test]
fn files_of_datasets_that_end_at_one_position_are_decided_on_each_for_itself() {
    let directory = TempDir::new().unwrap();
    let sheds = settings(Some(Duration::ZERO));
    let mut budget = open(&directory, sheds.clone(), 0, at(0));
    let names = ["by_country", "sizes", "totals"].map(named);
    let [by_country, sizes, totals] = names.each_ref().map(|name| file(7, name));
    let of = |parcel, bytes| Asked { parcel, ..asked(7, bytes) };
    budget.pay_for(Fingerprint::of(b"file"), Payment { parcel: by_country, ..paid(7, 900) }, at(0)).unwrap();
    let decisions = |budget: &Budget| {
        [of(by_country, 500), of(sizes, 500), of(sizes, 1_001), of(sizes, 50)]
            .map(|asked| budget.decide(asked, at(0).now))
    };
    let paid = [Decision::Wait, Decision::Shed, Decision::Shed, Decision::Send(0)];
    assert_eq!(decisions(&budget), paid);
    assert_eq!(decisions(&open(&directory, sheds.clone(), 7, at(0))), paid, "after a crash");
    budget.shed(totals, at(0)).unwrap();
    for budget in [budget, open(&directory, sheds, 7, at(0))] {
        assert_eq!(decisions(&budget), paid, "another one was shed");
        assert_eq!(budget.decide(of(totals, 50), at(0).now), Decision::Shed);
    }
}

#[test]
fn a_clock_that_is_set_fills_it_once_at_most() {
    let directory = TempDir::new().unwrap();
    let mut budget = open(&directory, settings(None), 0, at(50));
    budget.pay(paid(1, 800), at(50)).unwrap();
    let back = Moment { now: Duration::ZERO, wall: 0 };
    assert_eq!(open(&directory, settings(None), 1, back).level().left(Duration::ZERO), 200);
    let forward = Moment { now: Duration::ZERO, wall: i64::MAX };
    assert_eq!(open(&directory, settings(None), 1, forward).level().left(Duration::ZERO), 1_000);
    // A smaller one is not exceeded by what was left of a larger one.
    let smaller = Settings { bytes: 150, ..settings(None) };
    assert_eq!(open(&directory, smaller, 1, at(50)).level().left(Duration::ZERO), 150);
}

#[test]
fn what_waited_too_long_is_shed_and_what_may_have_left_is_not() {
    let directory = TempDir::new().unwrap();
    let mut budget = open(&directory, settings(Some(SECOND * 20)), 0, at(0));
    budget.pay(paid(1, 900), at(0)).unwrap();
    let waited = |lsn, seconds| Asked { waited: SECOND * seconds, ..asked(lsn, 500) };
    assert_eq!(budget.decide(waited(2, 19), at(19).now), Decision::Wait);
    assert_eq!(budget.decide(waited(2, 20), at(20).now), Decision::Shed);
    assert_eq!(budget.decide(waited(2, 40), at(40).now), Decision::Send(0), "there are enough again");
    assert_eq!(budget.decide(waited(1, 99), at(20).now), Decision::Wait, "it was paid for");
    assert_eq!(budget.decide(asked(2, 1_001), at(99).now), Decision::Shed, "there will never be enough");
    // The decision holds after a crash, when there are enough bytes.
    budget.shed(entry(2), at(20)).unwrap();
    let budget = open(&directory, settings(Some(SECOND * 20)), 5, at(900));
    assert_eq!(budget.decide(asked(2, 10), at(900).now), Decision::Shed);
    assert_eq!(budget.decide(asked(3, 10), at(900).now), Decision::Send(0));
    // The outbox was begun anew, and has another entry there.
    let budget = open(&directory, settings(Some(SECOND * 20)), 1, at(900));
    assert_eq!(budget.decide(asked(2, 10), at(900).now), Decision::Send(0));
}

#[test]
fn what_left_while_there_was_no_budget_is_not_shed_when_it_is_back() {
    let directory = TempDir::new().unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let suspend = || Budget::suspend(&fs, directory.path(), &hub(), 8, at(0));
    suspend().unwrap();
    assert!(!directory.path().join("hub").exists(), "there was none");
    let sheds = settings(Some(Duration::ZERO));
    let mut budget = open(&directory, sheds.clone(), 4, at(0));
    budget.pay(paid(5, 900), at(0)).unwrap();
    budget.shed(entry(6), at(0)).unwrap();
    drop(budget);
    let decided = |lsn| open(&directory, sheds.clone(), 8, at(0)).decide(asked(lsn, 500), at(0).now);
    assert_eq!([5, 6, 7].map(decided), [Decision::Wait, Decision::Shed, Decision::Shed]);
    // It is taken out of the configuration: all through 8 may leave. Then it is back.
    suspend().unwrap();
    assert_eq!([5, 6, 7, 8, 9].map(decided)[..4], [Decision::Wait; 4]);
    assert_eq!(decided(9), Decision::Shed, "it came later");
    // Nothing is given back.
    assert_eq!(open(&directory, sheds.clone(), 8, at(0)).level().left(at(0).now), 100);
    let written = std::fs::read(directory.path().join("hub")).unwrap();
    suspend().unwrap();
    assert_eq!(std::fs::read(directory.path().join("hub")).unwrap(), written, "it is said once");
    std::fs::write(directory.path().join("hub"), "rubbish").unwrap();
    suspend().unwrap();
}

#[test]
fn the_less_important_gives_way() {
    let directory = TempDir::new().unwrap();
    let mut budget = open(&directory, settings(Some(Duration::ZERO)), 0, at(0));
    budget.pay(paid(1, 400), at(0)).unwrap();
    let behind = |ahead| Asked { ahead, ..asked(2, 500) };
    assert_eq!(budget.decide(behind(100), at(0).now), Decision::Send(0));
    assert_eq!(budget.decide(behind(101), at(0).now), Decision::Shed);
    assert_eq!((settings(None).rank(&named("alarms")), settings(None).rank(&named("payments"))), (0, 1));
    // Where nothing is shed, those behind it would come no sooner.
    let budget = open(&directory, settings(None), 5, at(0));
    assert_eq!(budget.decide(behind(101), at(0).now), Decision::Send(0));
}

#[test]
fn every_version_is_read_and_damage_begins_empty() {
    let (shed, forms) = ((40, None), Forms::default());
    let kept = Kept { left: 7, at: 1_000_000, paid: 41, shed, file: None, forms, told: Told::default() };
    let golden = include_bytes!("../../../tests/golden/budget-1");
    assert_eq!(Kept::decode(golden), Decoded::Kept(kept.clone()));
    let file = Some((39, Some(named("by_country")), Fingerprint::from_bytes([9; 16])));
    let kept = Kept { shed: (40, Some(named("sizes"))), file, ..kept };
    let golden = include_bytes!("../../../tests/golden/budget-2");
    assert_eq!(Kept::decode(golden), Decoded::Kept(kept.clone()));
    let by_country = named("by_country");
    let forms = Forms::default().with(Parcel { lsn: 39, of: Some(&by_country) }, Some(&Reduction::default()), 0);
    let forms = forms.with(entry(41), Some(&form()), 0);
    let kept = Kept { forms: forms.clone(), ..kept };
    let golden = include_bytes!("../../../tests/golden/budget-3");
    assert_eq!(Kept::decode(golden), Decoded::Kept(kept.clone()));
    let row = |city: &str, n: i64| (["FR".to_owned(), city.to_owned()], (1, n, None));
    let all: Table = (0..10).map(|n| row(&format!("a{n}"), n)).collect();
    let now = released("payments", &"bb".repeat(16), &all);
    let mut before = all.clone();
    before.retain(|_, (_, n, _)| ![0, 2, 9].contains(n));
    before.extend([row("Lyon", 1), row("N\u{ee}mes", 2)]);
    let last = released("payments", &"aa".repeat(16), &before);
    let sizes = released("sizes", &"dd".repeat(16), &all);
    let (now, first) = ([now], [sizes, last]);
    let told = Told::default().after(12, Leaving { whole: &first, left: &first }, false);
    let changes = Reduction::on_change(Changes::since(|dataset| told.before(dataset, 43), &now));
    let left = changes.applied(&now).unwrap();
    let told = told.after(43, Leaving { whole: &now, left: &left }, false);
    let kept = Kept { forms: forms.with(entry(43), Some(&changes), 0), told, ..kept };
    let golden = include_bytes!("../../../tests/golden/budget-4");
    assert_eq!(kept.encode(), golden);
    assert_eq!(Kept::decode(golden), Decoded::Kept(kept));
    for end in 0..golden.len() {
        assert_eq!(Kept::decode(&golden[..end]), Decoded::Unreadable, "cut at {end}");
    }
    let mut no_name = golden.to_vec();
    let of_file = golden.windows(10).position(|bytes| bytes == b"by_country").unwrap();
    no_name[of_file] = b'/';
    assert_eq!(Kept::decode(&no_name), Decoded::Unreadable);
    let mut newer = golden.to_vec();
    newer[8] = 5;
    assert_eq!(Kept::decode(&newer), Decoded::Newer(5));
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("hub"), "rubbish").unwrap();
    let budget = open(&directory, settings(Some(Duration::ZERO)), 9, at(0));
    assert_eq!((budget.level().left(at(0).now), budget.level().left(at(10).now)), (0, 100));
    assert_eq!(budget.decide(asked(9, 500), at(0).now), Decision::Wait, "it may have been paid for");
    // A crash came after the damaged file was set aside, and before there was another.
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("hub.damaged"), "rubbish").unwrap();
    for _ in 0..2 {
        assert_eq!(open(&directory, settings(None), 9, at(5)).level().left(at(5).now), 0);
    }
}

/// The slot that was written last begins there.
fn newest_slot(file: &[u8]) -> usize {
    let generation =
        |slot: usize| file.get(slot + 8..slot + 16).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    [0, 68 << 10].into_iter().max_by_key(|slot| generation(*slot)).unwrap()
}

#[test]
fn a_budget_of_which_the_payment_before_the_last_is_left_begins_empty_and_knows_that_one() {
    for is_torn in [false, true] {
        for sends_on in [false, true] {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("hub");
            let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
            let peek = || Budget::peek(&*fs, directory.path(), "hub").unwrap();
            let sheds = settings(Some(Duration::ZERO));
            let mut budget = open(&directory, sheds.clone(), 0, at(0));
            budget.shed(entry(3), at(0)).unwrap();
            budget.pay(Payment { form: &form(), ..paid(4, 300) }, at(0)).unwrap();
            assert_eq!(peek(), Some((700, 0)));
            let before = std::fs::read(&path).unwrap();
            budget.pay(paid(5, 600), at(50)).unwrap();
            let mut after = std::fs::read(&path).unwrap();
            let slot = newest_slot(&after);
            if is_torn {
                // The end of what was written is missing. This payment did not leave.
                after[slot + 40..before.len()].copy_from_slice(&before[slot + 40..]);
            } else {
                after[slot + 40] ^= 1;
            }
            std::fs::write(&path, after).unwrap();
            assert_eq!(peek(), None, "what `verify` says");
            let lsn = |decided: &Budget, lsn| decided.decide(asked(lsn, 10), at(60).now);
            if sends_on {
                // Without a budget everything leaves, and what comes into the bucket does so from now on.
                let forms = Budget::suspend(&fs, directory.path(), &hub(), 9, at(60)).unwrap();
                assert_eq!(forms.of(entry(4)), Some(&form()));
                let budget = open(&directory, sheds.clone(), 9, at(60));
                assert_eq!((lsn(&budget, 3), lsn(&budget, 6)), (Decision::Wait, Decision::Wait));
            } else {
                let budget = open(&directory, sheds.clone(), 9, at(60));
                assert_eq!(budget.forms().of(entry(4)), Some(&form()));
                assert_eq!([3, 4, 6].map(|at| lsn(&budget, at)), [Decision::Shed, Decision::Wait, Decision::Shed]);
            }
            // It is said once, and a crash before the next payment gives nothing back either.
            assert_eq!(peek(), Some((0, at(60).wall)));
            let budget = open(&directory, sheds.clone(), 9, at(60));
            assert_eq!((budget.level().left(at(60).now), budget.level().left(at(70).now)), (0, 100));
        }
    }
}

/// A budget with a form by which the last of so many rows is told of a release, and of which so many keys are gone.
fn with_changes(rows: usize, gone: usize) -> Vec<u8> {
    let mut bits = vec![0; rows.div_ceil(8)];
    bits[(rows - 1) / 8] = 1 << ((rows - 1) % 8);
    let mut writer = Writer::default();
    writer.raw(b"bwbudget").u32(4).u64(7).i64(0).u64(41).u64(0).text("").u8(0);
    // One form of one step, of one dataset.
    writer.count(1).count(1).u8(3).count(1).text("cells").text("of").text("since").bytes(&bits).count(gone);
    // One entry, and nothing that was told.
    writer.count(1).u64(41).text("").u32(0).count(0);
    writer.finish()
}

#[test]
fn a_form_of_more_rows_than_a_release_can_have_is_damage() {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let most = 2 * CELLS_MAX;
    for (bytes, is_damaged) in [
        (with_changes(most, 0), false),
        (with_changes(most + 1, 0), true),
        // Nothing is made ready for as many as a number says.
        (with_changes(1, 1 << 40), true),
        (with_changes(1, usize::MAX), true),
    ] {
        let directory = TempDir::new().unwrap();
        Slots::open(Arc::clone(&fs), &directory.path().join("hub")).unwrap().0.write(&bytes).unwrap();
        assert_eq!(Budget::peek(&*fs, directory.path(), "hub").unwrap().is_none(), is_damaged, "what `verify` says");
        let without = Budget::suspend(&fs, directory.path(), &hub(), 50, at(0)).unwrap();
        let budget = open(&directory, settings(None), 50, at(0));
        for forms in [&without, budget.forms()] {
            assert_eq!(forms.of(entry(41)).is_none(), is_damaged);
        }
        assert_eq!(budget.level().left(at(0).now), if is_damaged { 0 } else { 7 }, "damaged, it begins empty");
    }
}

#[test]
fn smaller_forms_are_tried_in_their_order_before_anything_waits_or_is_shed() {
    let directory = TempDir::new().unwrap();
    for (sheds_after, short) in [(None, Decision::Wait), (Some(Duration::ZERO), Decision::Shed)] {
        let budget = open(&directory, settings(sheds_after), 0, at(0));
        let decide = |smaller: &[u64], bytes| budget.decide(of(smaller, bytes), at(0).now);
        assert_eq!(decide(&[800, 500], 1_000), Decision::Send(0), "the whole fits");
        assert_eq!(decide(&[1_000, 500], 1_001), Decision::Send(1));
        assert_eq!(decide(&[1_001, 500], 2_000), Decision::Send(2));
        let never = if sheds_after.is_some() { Decision::Shed } else { Decision::TooLarge };
        assert_eq!(decide(&[1_002, 1_001], 2_000), never);
        // Those of more important ones that wait behind it take the rest.
        let ahead = Asked { ahead: 600, ..of(&[800, 400], 900) };
        let expected = if sheds_after.is_some() { Decision::Send(2) } else { Decision::Send(0) };
        assert_eq!(budget.decide(ahead, at(0).now), expected);
        let mut budget = open(&directory, settings(sheds_after), 0, at(0));
        budget.pay(paid(1, 900), at(0)).unwrap();
        let next = |smaller: &'static [u64]| Asked { parcel: entry(2), ..of(smaller, 2_000) };
        assert_eq!(
            budget.decide(next(&[900, 101]), at(0).now),
            short,
            "even the smallest is too large now, not for ever"
        );
        assert_eq!(budget.decide(next(&[900, 100]), at(0).now), Decision::Send(2));
        std::fs::remove_file(directory.path().join("hub")).unwrap();
    }
}

#[test]
fn what_was_paid_for_keeps_its_form_over_crashes_and_without_a_budget() {
    let directory = TempDir::new().unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let sheds = settings(Some(Duration::ZERO));
    let mut budget = open(&directory, sheds.clone(), 0, at(0));
    budget.pay(Payment { form: &form(), ..paid(4, 600) }, at(0)).unwrap();
    budget.pay(paid(5, 100), at(0)).unwrap();
    budget.pay(Payment { form: &form(), ..paid(6, 100) }, at(0)).unwrap();
    let forms = |forms: &Forms| [4, 5, 6].map(|lsn| forms.of(entry(lsn)).cloned());
    let expected = [Some(form()), None, Some(form())];
    for budget in [budget, open(&directory, sheds.clone(), 9, at(0))] {
        assert_eq!(forms(budget.forms()), expected);
        // It has left perhaps, so it leaves so or waits.
        let again = Asked { smaller: &[10], ..asked(4, 600) };
        assert_eq!(budget.decide(again, at(0).now), Decision::Wait);
        assert_eq!([4, 5, 6, 7].map(|lsn| budget.is_paid(entry(lsn))), [true, true, true, false]);
    }
    for _ in 0..2 {
        assert_eq!(forms(&Budget::suspend(&fs, directory.path(), &hub(), 9, at(0)).unwrap()), expected);
    }
    // The outbox was begun anew: these positions are not there yet.
    assert_eq!(Budget::suspend(&fs, directory.path(), &hub(), 3, at(0)).unwrap(), Forms::default());
    assert_eq!(open(&directory, sheds.clone(), 3, at(0)).forms(), &Forms::default());
    // What is confirmed is forgotten, and no more than so many are on their way.
    let mut budget = open(&directory, sheds.clone(), 9, at(0));
    budget.pay(Payment { form: &form(), confirmed: 4, ..paid(7, 1) }, at(0)).unwrap();
    assert_eq!(forms(budget.forms()), [None, None, Some(form())]);
    for lsn in 8..6 + SMALLER_MAX as Lsn {
        assert!(!budget.holds_many());
        budget.pay(Payment { form: &form(), confirmed: 4, ..paid(lsn, 0) }, at(0)).unwrap();
    }
    assert!(budget.holds_many());
    // It is paid for again, in the same form.
    budget.pay(Payment { form: &form(), confirmed: 4, ..paid(7, 1) }, at(0)).unwrap();
    assert_eq!(budget.forms().len(), SMALLER_MAX);
}

/// A slot holds 64 KiB.
#[test]
fn so_many_entries_of_a_long_form_are_kept() {
    let directory = TempDir::new().unwrap();
    let adding = Adding { weight: Some("records".to_owned()), digits: Some(4) };
    let metrics: BTreeMap<_, _> = (0..6).map(|number| (format!("metric_{number}"), adding.clone())).collect();
    let datasets = (0..20).map(|number| (named(&format!("dataset_{number}")), metrics.clone())).collect();
    let long = Reduction(vec![Step::RollUp(RollUp { keys: vec!["city".to_owned()], datasets })]);
    let mut budget = open(&directory, settings(None), 1_000, at(0));
    for lsn in 0..SMALLER_MAX as Lsn {
        budget.pay(Payment { form: &long, ..paid(1 + lsn, 0) }, at(0)).unwrap();
    }
    let budget = open(&directory, settings(None), 1_000, at(0));
    assert_eq!((budget.forms().len(), budget.forms().of(entry(256))), (SMALLER_MAX, Some(&long)));
}

/// Beside forms, what has changed has 24 KiB. Each has 16 KiB at most.
#[test]
fn what_has_changed_leaves_so_only_where_there_is_room_for_it() {
    let directory = TempDir::new().unwrap();
    let settings = Settings { smaller: vec![Reduction::on_change(Changes::default())], ..settings(None) };
    let mut budget = open(&directory, settings, 0, at(0));
    let table = |rows: usize| -> Table {
        (0..rows).map(|row| (["DE".to_owned(), format!("{row:096}")], (1, 1, None))).collect()
    };
    let all = |lsn: Lsn, rows| [released("cells", &format!("{lsn:032}"), &table(rows))];
    let mut told = |lsn: Lsn, before: usize, confirmed| {
        let whole = all(lsn, before);
        let leaving = Leaving { whole: &whole, left: &whole };
        budget.pay(Payment { leaving, confirmed, ..paid(lsn, 1) }, at(0)).unwrap();
        let (lsn, rows) = (lsn + 1, all(lsn + 1, 400));
        let asked = Whole { first: lsn, parcel: entry(lsn), releases: &rows, confirmed };
        let form = budget.smaller(asked).into_iter().next();
        if let Some(form) = &form {
            let left = form.applied(&rows).unwrap();
            let leaving = Leaving { whole: &rows, left: &left };
            budget.pay(Payment { form, leaving, confirmed, ..paid(lsn, 1) }, at(0)).unwrap();
        }
        (form.is_some(), budget.holds_many())
    };
    assert_eq!(told(1, 600, 0), (false, false), "200 keys of 100 bytes are gone");
    assert_eq!(told(2, 500, 0), (true, true), "100 are, and little more goes beside it");
    assert_eq!(told(4, 500, 0), (true, true));
    assert_eq!(told(6, 500, 0), (false, true));
    assert_eq!(told(8, 500, 4), (true, true), "the first of them is confirmed");
    assert_eq!(told(10, 400, 9), (true, false), "nothing is gone");
}

/// Files that were paid for under other configurations, and are not confirmed, fill what there is.
#[test]
fn a_form_that_the_file_has_no_room_for_is_none() {
    let directory = TempDir::new().unwrap();
    let top = |name: &str| Reduction(vec![Step::Top(Top { rows: 1, by: By::Metric(name.repeat(20 << 10)) })]);
    let content = |text: &str| Fingerprint::of(text.as_bytes());
    for (at_most, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let settings = Settings { smaller: vec![top(name)], ..settings(None) };
        let mut budget = open(&directory, settings, if at_most == 0 { 0 } else { 9 }, at(0));
        let of = named(name);
        let asked = Whole { parcel: file(5, &of), ..whole(5, 5) };
        let form = budget.smaller(asked).into_iter().next();
        assert_eq!(form.is_some(), at_most < 2, "{name}");
        let form = form.unwrap_or_default();
        let payment = Payment { parcel: file(5, &of), form: &form, ..paid(5, 1) };
        budget.pay_for(content(name), payment, at(0)).unwrap();
    }
}

#[test]
fn what_was_there_before_the_start_is_not_added_up() {
    let directory = TempDir::new().unwrap();
    let top = Reduction(vec![Step::Top(Top { rows: 1, by: By::Metric("n".to_owned()) })]);
    let settings = Settings { smaller: vec![form(), top.clone()], ..settings(None) };
    let mut budget = open(&directory, settings, 5, at(0));
    assert_eq!(budget.smaller(whole(5, 6)), std::slice::from_ref(&top));
    assert_eq!(budget.smaller(whole(6, 6)), [form(), top]);
    budget.pay(paid(6, 1), at(0)).unwrap();
    assert_eq!(budget.smaller(whole(6, 6)), []);
}

#[test]
fn each_dataset_has_the_form_of_its_last_file() {
    let directory = TempDir::new().unwrap();
    let mut budget = open(&directory, settings(None), 0, at(0));
    let content = |text: &str| Fingerprint::of(text.as_bytes());
    let names = ["a", "b", "c"].map(named);
    let of = names.each_ref().map(|name| file(5, name));
    budget.pay_for(content("a"), Payment { parcel: of[0], form: &form(), ..paid(5, 10) }, at(0)).unwrap();
    budget.pay_for(content("b"), Payment { parcel: of[1], ..paid(5, 10) }, at(0)).unwrap();
    for budget in [budget, open(&directory, settings(None), 9, at(0))] {
        assert_eq!(budget.forms().of(of[0]), Some(&form()));
        assert_eq!(budget.forms().of(of[1]), Some(&Reduction::default()), "it leaves whole");
        assert_eq!(of.map(|of| budget.is_paid(of)), [true, true, false]);
    }
    let mut budget = open(&directory, settings(None), 9, at(0));
    budget.pay_for(content("c"), Payment { parcel: file(9, &names[0]), ..paid(9, 10) }, at(0)).unwrap();
    assert_eq!((budget.forms().of(of[0]), budget.forms().len()), (None, 2));
}

#[test]
fn what_others_add_up_is_left_out_at_once_before_it_is_made_smaller() {
    let directory = TempDir::new().unwrap();
    let settings =
        Settings { widened: ["visits", "by_hour"].map(|name| (named(name), named("by_day"))).into(), ..settings(None) };
    let mut budget = open(&directory, settings.clone(), 2, at(0));
    let is_widened = |lsn, datasets: &[&str]| {
        let datasets: Vec<_> = datasets.iter().map(|name| named(name)).collect();
        budget.is_widened(lsn, datasets.iter())
    };
    assert!(is_widened(3, &["visits"]) && is_widened(3, &["by_hour", "visits"]));
    assert!(!is_widened(3, &["visits", "alarms"]), "they leave together");
    assert!(!is_widened(2, &["visits"]), "it was there before");
    let widened = |bytes| Asked { is_widened: true, smaller: &[10], ..asked(3, bytes) };
    assert_eq!(budget.decide(widened(1_000), at(0).now), Decision::Send(0));
    assert_eq!([1_001, u64::MAX].map(|bytes| budget.decide(widened(bytes), at(0).now)), [Decision::Widen; 2]);
    let behind = Asked { ahead: 1, ..widened(1_000) };
    assert_eq!(budget.decide(behind, at(0).now), Decision::Widen, "what is more important needs the bytes");
    let changes = |bytes| budget.decide(Asked { tells_changes: true, ..widened(bytes) }, at(0).now);
    assert_eq!(changes(1_001), Decision::Send(1), "what has changed comes first");
    let none = Asked { tells_changes: true, smaller: &[1_001, 10], ..widened(1_001) };
    assert_eq!(budget.decide(none, at(0).now), Decision::Widen, "and nothing else");
    budget.pay(paid(3, 1_000), at(0)).unwrap();
    assert_eq!(budget.decide(widened(1_000), at(0).now), Decision::Wait, "it may have left");
    budget.shed(entry(4), at(0)).unwrap();
    let again = open(&directory, settings, 9, at(900));
    assert_eq!(again.decide(Asked { parcel: entry(4), ..widened(10) }, at(900).now), Decision::Shed, "that stays so");
}
