//! A ledger on a disk that forgets, fails, fills up and is tampered with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use proptest::prelude::*;

use super::audit::{Audit, audit};
use super::book::{Clocks, Intent, Ledger, Outbox};
use super::entry::{Entry, Known, What};
use super::files::{CHECKPOINT, Files, LOG, VERIFIER};
use super::note::{Checkpoint, Verifier};
use super::opening::Settings;
use super::tile::{Part, WIDTH, bundle, bundle_path, entries, tile_path};
use crate::domain::policy::{Digest, Released, ReleasedParts};
use crate::storage::sim::Sim;
use crate::storage::{FileSystem, RealFileSystem, create_directories};

mod corners;
mod damage;
mod witness;

const JOURNAL: &str = "/journal";
const DIRECTORY: &str = "/journal/ledger";

fn settings() -> Settings {
    Settings {
        directory: DIRECTORY.into(),
        key: "/journal/ledger.key".into(),
        origin: "test/ledger".into(),
        seen: "/journal/ledger-seen".into(),
    }
}

/// The ledger of a gateway whose journal is there.
fn ledger(fs: &Sim) -> Ledger {
    create_directories(fs, Path::new(JOURNAL)).unwrap();
    ledger_as_it_is(fs)
}

fn ledger_as_it_is(fs: &Sim) -> Ledger {
    let clock = AtomicI64::new(1_795_000_000_000_000);
    let wall = Box::new(move || clock.fetch_add(1_000, Ordering::Relaxed));
    let clock = AtomicU64::new(0);
    // A second passes whenever it is looked at.
    let now = Box::new(move || Duration::from_secs(clock.fetch_add(1, Ordering::Relaxed)));
    // The destination has confirmed what stands through position 2.
    let outbox = Outbox { last: 100, confirmed: Box::new(|_, _, outbox| outbox <= 2) };
    Ledger::new(settings(), Arc::new(fs.clone()), Clocks { wall, now }, outbox)
}

fn opened(fs: &Sim) -> Ledger {
    let ledger = ledger(fs);
    ledger.open().unwrap();
    ledger
}

fn released(id: &str) -> Released {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![12, 10]));
    Released::for_tests(ReleasedParts {
        id: id.to_owned(),
        destination: "desk".parse().unwrap(),
        dataset: "cells".parse().unwrap(),
        gateway: "g-1".parse().unwrap(),
        window_start: 0,
        window_end: 60_000_000,
        policy: Digest::from_bytes([7; 32]),
        cells: RecordBatch::try_from_iter([("n", column)]).unwrap(),
    })
}

fn intend(ledger: &Ledger, id: &str, outbox: u64) -> Result<(), String> {
    let intent = Intent { released: &released(id), outbox, lines: b"{}\n" };
    ledger.intend(&[intent]).map_err(|error| error.to_string())
}

fn note(ledger: &Ledger, number: u64) {
    ledger.note(What::Damage { of: "test".to_owned(), places: number });
    ledger.flush();
}

fn verifier(fs: &Sim) -> Verifier {
    let bytes = fs.bytes(&Path::new(DIRECTORY).join(VERIFIER)).unwrap();
    Verifier::parse(&String::from_utf8(bytes).unwrap()).unwrap()
}

fn files(fs: &Sim) -> Files {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Files::new(fs, Path::new(DIRECTORY))
}

/// Verifies a ledger, and gives its entries.
fn look(fs: &Sim, key: &Verifier, kept: &[Checkpoint]) -> (Audit, Vec<Vec<u8>>) {
    let mut all = Vec::new();
    let found = audit(&files(fs), key, kept, &mut |_, bytes, _| all.push(bytes.to_vec())).unwrap();
    (found, all)
}

fn said(entries: &[Vec<u8>]) -> Vec<What> {
    entries.iter().map(|entry| Entry::decode(entry).unwrap().what).collect()
}

/// A ledger with `published` entries in tiles and `more` in its log, and the newest checkpoint.
fn written(published: u64, more: u64) -> (Sim, Verifier, Checkpoint) {
    let fs = Sim::default();
    let ledger = opened(&fs);
    (0..published).for_each(|number| note(&ledger, number));
    intend(&ledger, "a", 1).unwrap();
    ledger.publish().unwrap();
    (0..more).for_each(|number| note(&ledger, number));
    intend(&ledger, "b", 2).unwrap();
    let key = verifier(&fs);
    let newest = look(&fs, &key, &[]).0.checkpoint.unwrap();
    let newest = key.open(&newest).unwrap();
    // What was not closed stays as it is.
    (fs.copy(), key, newest)
}

fn path(file: PathBuf) -> PathBuf {
    Path::new(DIRECTORY).join(file)
}

#[test]
fn what_was_written_is_read_and_verified() {
    let (fs, key, newest) = written(600, 5);
    let (found, all) = look(&fs, &key, std::slice::from_ref(&newest));
    assert_eq!((found.bad, found.entries, found.published), (vec![], 607, 601));
    assert_eq!((newest.size, all.len()), (607, 607));
    assert_eq!(said(&all)[599], What::Damage { of: "test".to_owned(), places: 599 });
    assert!(matches!(&said(&all)[606], What::Intent { release, cells: 2, outbox: 2, .. } if release == "b"));
    // The files are those of tlog-tiles, and the edges of earlier checkpoints are gone.
    for there in
        [bundle_path(0, WIDTH), bundle_path(1, WIDTH), bundle_path(2, 89), tile_path(0, 2, 89), tile_path(1, 0, 2)]
    {
        assert!(fs.bytes(&path(there.clone())).is_some(), "{}", there.display());
    }
}

#[test]
fn a_start_with_another_model_says_so() {
    let (fs, start) = (Sim::default(), |models: &[(&str, &str)]| What::Start {
        gateway: "eu-1".to_owned(),
        program: "0".to_owned(),
        dry_run: false,
        models: models.iter().map(|(name, sha256)| ((*name).to_owned(), (*sha256).to_owned())).collect(),
    });
    for models in [&[("a", "1"), ("b", "1")][..], &[("a", "1"), ("b", "1")], &[("b", "2"), ("c", "1")]] {
        let ledger = ledger(&fs);
        ledger.note(start(models));
        ledger.note(What::Policy { policy: "p".to_owned(), reload: false });
        ledger.open().unwrap();
        ledger.close();
    }
    let (found, all) = look(&fs, &verifier(&fs), &[]);
    let text = |text: &str| Some(text.to_owned());
    let model = |name: &str, before, now| What::Model { model: name.to_owned(), before, now };
    let changes = [model("a", text("1"), None), model("b", text("1"), text("2")), model("c", None, text("1"))];
    assert_eq!((found.bad, all.len()), (vec![], 9));
    assert_eq!(said(&all)[4], start(&[("b", "2"), ("c", "1")]));
    assert_eq!(said(&all)[5..8], changes);
}

#[test]
fn a_ledger_goes_on_where_it_was() {
    let fs = Sim::default();
    for round in 0..6 {
        let ledger = opened(&fs);
        (0..100).for_each(|number| note(&ledger, round * 100 + number));
        if round % 2 == 0 {
            ledger.publish().unwrap();
        }
        if round % 3 == 0 {
            ledger.close();
            assert!(intend(&ledger, "late", 9).unwrap_err().contains("the gateway stops"));
        } else {
            intend(&ledger, &format!("of round {round}"), 9).unwrap();
            ledger.sent(&"desk".parse().unwrap(), &[format!("of round {round}")], 10);
            ledger.close();
        }
    }
    let (found, all) = look(&fs, &verifier(&fs), &[]);
    assert_eq!((found.bad, found.entries), (vec![], 600 + 4 * 2));
    let numbers = said(&all).into_iter().filter_map(|what| match what {
        What::Damage { places, .. } => Some(places),
        _ => None,
    });
    assert!(numbers.eq(0..600));
}

#[test]
fn after_a_crash_the_ledger_says_what_is_known_of_each_intent() {
    let fs = Sim::default();
    let before = opened(&fs);
    for (id, outbox) in [("sent", 1), ("confirmed", 2), ("unknown", 3)] {
        intend(&before, id, outbox).unwrap();
        // In one process an intent is said once, however often the release is tried.
        intend(&before, id, outbox).unwrap();
    }
    before.sent(&"desk".parse().unwrap(), &["sent".to_owned()], 77);
    before.flush();
    intend(&before, "later", 4).unwrap();
    let crashed = fs.copy();
    let after = opened(&crashed);
    after.note(What::Stop { gateway: "g-1".to_owned() });
    intend(&after, "unknown", 3).unwrap();
    let (found, all) = look(&crashed, &verifier(&crashed), &[]);
    assert_eq!(found.bad, []);
    let unsettled = said(&all).into_iter().filter_map(|what| match what {
        What::Unsettled { release, known, intent, .. } => Some((release, known, intent)),
        _ => None,
    });
    let (nothing, confirmed) = (Known::Nothing, Known::Confirmed);
    let expected = [("confirmed", confirmed, 1), ("unknown", nothing, 2), ("later", nothing, 4)];
    assert!(unsettled.eq(expected.map(|(release, known, intent)| (release.to_owned(), known, intent))));
    let intents = said(&all).into_iter().filter(|what| matches!(what, What::Intent { .. })).count();
    assert_eq!(intents, 5, "the one that is sent again is said again");
    // What was settled stays so.
    let again = opened(&crashed.copy());
    again.flush();
    assert!(matches!(said(&look(&crashed, &verifier(&crashed), &[]).1)[5], What::Unsettled { .. }));
}

/// An intent is over when its release is given up. If it is about to leave after all, that is said again.
#[test]
fn what_is_given_up_after_an_intent_is_not_taken_for_confirmed() {
    let fs = Sim::default();
    let before = opened(&fs);
    for (id, outbox) in [("given up", 2), ("left after all", 2)] {
        intend(&before, id, outbox).unwrap();
        before.denied(&[released(id)], outbox).unwrap();
    }
    intend(&before, "left after all", 2).unwrap();
    before.flush();
    let crashed = fs.copy();
    opened(&crashed).flush();
    let all = said(&look(&crashed, &verifier(&crashed), &[]).1);
    let unsettled: Vec<_> = all
        .iter()
        .filter_map(|what| if let What::Unsettled { release, .. } = what { Some(release.as_str()) } else { None })
        .collect();
    assert_eq!(unsettled, ["left after all"]);
    let denied = all.iter().filter(|what| matches!(what, What::Denied { .. })).count();
    assert_eq!((denied, all.iter().filter(|what| matches!(what, What::Intent { .. })).count()), (2, 3));
}

#[test]
fn equal_releases_have_different_commitments() {
    let fs = Sim::default();
    let ledger = opened(&fs);
    intend(&ledger, "a", 1).unwrap();
    intend(&ledger, "b", 1).unwrap();
    let commitments: Vec<String> = said(&look(&fs, &verifier(&fs), &[]).1)
        .into_iter()
        .filter_map(|what| if let What::Intent { commitment, .. } = what { Some(commitment) } else { None })
        .collect();
    assert_eq!(commitments.len(), 2);
    assert_ne!(commitments[0], commitments[1]);
}

#[test]
fn a_folder_of_the_tree_is_not_made_without_the_ledgers_directory() {
    let fs = RealFileSystem;
    let root = tempfile::tempdir().unwrap();
    let (ledger, elsewhere) = (root.path().join("ledger"), root.path().join("elsewhere"));
    std::fs::create_dir(&ledger).unwrap();
    let files = Files::new(Arc::new(fs), &ledger);
    let part = Part { path: "tile/0/000".into(), bytes: b"tile".to_vec() };
    let write = || files.write(&part, &mut BTreeSet::new());
    std::fs::rename(&ledger, &elsewhere).unwrap();
    assert!(write().is_err() && files.keep_cosigned("witness", "note").is_err() && !ledger.exists());
    std::fs::rename(&elsewhere, &ledger).unwrap();
    write().unwrap();
    files.keep_cosigned("witness", "note").unwrap();
    assert_eq!(std::fs::read(ledger.join("tile/0/000")).unwrap(), b"tile");
}

#[test]
fn a_full_disk_stops_intents_and_only_for_as_long_as_it_is_full() {
    let fs = Sim::default();
    let ledger = opened(&fs);
    intend(&ledger, "before", 1).unwrap();
    fs.limit(Some(fs.used()));
    let mut refused = 0;
    // What is claimed ahead is used up first.
    for number in 0..200_000 {
        let lines = format!("{number}");
        if ledger.intend(&[Intent { released: &released(&lines), outbox: 1, lines: b"" }]).is_err() {
            refused = number;
            break;
        }
    }
    assert!(refused > 0);
    assert!(ledger.trouble().unwrap().contains("full"), "{:?}", ledger.trouble());
    // Notes wait in memory, so many of them.
    (0..5_000).for_each(|number| ledger.note(What::Damage { of: "test".to_owned(), places: number }));
    fs.limit(None);
    let mut tries = 0;
    while intend(&ledger, "after", 1).is_err() {
        tries += 1;
        assert!(tries < 10_000, "{:?}", ledger.trouble());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ledger.trouble(), None);
    let (found, all) = look(&fs, &verifier(&fs), &[]);
    assert_eq!(found.bad, []);
    assert!(said(&all).iter().any(|what| matches!(what, What::Missed { entries } if *entries >= 900)));
}

#[test]
fn a_ledger_that_is_not_as_it_was_signed_takes_nothing_until_it_is_repaired() {
    let (fs, _, _) = written(300, 3);
    // The last bundle, whose bytes are needed.
    let bundle = path(bundle_path(1, 45));
    fs.flip(&bundle, 1_000, 3);
    let ledger = ledger(&fs);
    let why = ledger.open().unwrap_err();
    assert!(why.contains("it is not as it was signed: entry ") && why.contains("ledger retire"), "{why}");
    assert!(intend(&ledger, "c", 3).unwrap_err().contains("it is not as it was signed"));
    fs.flip(&bundle, 1_000, 3);
    ledger.open().unwrap();
    intend(&ledger, "c", 3).unwrap();
    assert_eq!(look(&fs, &verifier(&fs), &[]).0.bad, []);
}

#[test]
fn a_ledger_is_not_begun_where_the_journal_was_moved_away() {
    let fs = Sim::default();
    let why = ledger_as_it_is(&fs).open().unwrap_err();
    assert!(why.contains(JOURNAL), "{why}");
    assert_eq!(fs.kind(Path::new(JOURNAL)).unwrap(), None, "nothing stands in the way of putting it back");
}

#[test]
fn a_ledger_that_was_cut_or_removed_is_not_begun_anew() {
    let (fs, _, _) = written(300, 3);
    for gone in [path(bundle_path(1, 45)), settings().key] {
        let cut = fs.copy();
        cut.take_away(&gone);
        assert!(ledger(&cut).open().is_err(), "{}", gone.display());
    }
    let removed = Sim::default();
    for kept in [settings().key, settings().seen] {
        removed.put(&kept, &fs.bytes(&kept).unwrap());
    }
    let why = ledger(&removed).open().unwrap_err();
    assert!(why.contains("entry 0: the ledger ends before it"), "{why}");
    let other = Sim::default();
    other.put(&settings().key, b"no key");
    assert!(ledger(&other).open().unwrap_err().contains("cannot be used"));
}

#[test]
fn a_checkpoint_that_the_gateway_remembers_and_that_is_damaged_is_named_with_what_to_do() {
    let (fs, _, _) = written(300, 3);
    let seen = settings().seen;
    for damaged in [&b"\xff"[..], b"", b"no note"] {
        let spoilt = fs.copy();
        spoilt.put(&seen, damaged);
        let ledger = ledger(&spoilt);
        let why = ledger.open().unwrap_err();
        assert!(why.contains("`/journal/ledger-seen`") && why.contains("put it back from a copy"), "{why}");
        assert!(
            why.contains("bailiwick ledger verify --checkpoint FILE") && why.contains("move this file away"),
            "{why}"
        );
        spoilt.take_away(&seen);
        ledger.open().unwrap();
        intend(&ledger, "c", 3).unwrap();
    }
}

#[test]
fn every_flipped_bit_is_found_and_in_entries_the_entry_is_named() {
    let (fs, key, newest) = written(300, 4);
    let kept = std::slice::from_ref(&newest);
    let (_, all) = look(&fs, &key, kept);
    let mut bit = 0;
    let tiles =
        [bundle_path(0, WIDTH), bundle_path(1, 45), tile_path(0, 0, WIDTH), tile_path(0, 1, 45), tile_path(1, 0, 1)];
    for file in tiles.into_iter().chain([CHECKPOINT.into()]).map(path) {
        let length = fs.bytes(&file).unwrap().len();
        for byte in (0..length).step_by(length / 97 + 1) {
            bit = (bit + 3) % 8;
            fs.flip(&file, byte, bit);
            let (found, _) = look(&fs, &key, kept);
            assert_ne!(found.bad, [], "{}: byte {byte}, bit {bit}", file.display());
            if file.starts_with(path("tile/entries".into())) {
                let first = if file.ends_with("000") { 0 } else { WIDTH as u64 };
                let mut at = 0;
                let good = all.iter().skip(first as usize).take_while(|entry| {
                    at += 2 + entry.len();
                    at <= byte
                });
                let expected = first + good.count() as u64;
                assert_eq!(found.bad[0].entry, Some(expected), "{}: byte {byte}", file.display());
            }
            fs.flip(&file, byte, bit);
        }
    }
    for segment in fs.files(&path(LOG.into())) {
        let length = fs.bytes(&segment).unwrap().len();
        for byte in (0..length).step_by(length / 199 + 1) {
            bit = (bit + 3) % 8;
            fs.flip(&segment, byte, bit);
            let mut read = Vec::new();
            // A header of another version cannot be read at all. Nobody needs to have kept a checkpoint to see it.
            let found = audit(&files(&fs), &key, &[], &mut |_, bytes, _| read.push(bytes.to_vec()));
            let is_found = !found.is_ok_and(|found| found.bad.is_empty());
            assert!(is_found || read == all, "{}: byte {byte}", segment.display());
            fs.flip(&segment, byte, bit);
        }
    }
    assert_eq!(look(&fs, &key, kept).0.bad, []);
}

/// Changes the entries of the first bundle.
fn tampered(fs: &Sim, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Sim {
    let (fs, file) = (fs.copy(), path(bundle_path(0, WIDTH)));
    let mut all: Vec<Vec<u8>> = entries(&fs.bytes(&file).unwrap()).map(<[u8]>::to_vec).collect();
    change(&mut all);
    fs.put(&file, &bundle(all.iter().map(Vec::as_slice)));
    fs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_dropped_doubled_exchanged_or_changed_is_named(
        one in 0..WIDTH - 1, other in 0..WIDTH - 1, byte in any::<prop::sample::Index>(),
    ) {
        let (fs, key, _) = written(300, 2);
        let first = |fs: &Sim| look(fs, &key, &[]).0.bad.first().and_then(|bad| bad.entry);
        let dropped = tampered(&fs, |all| drop(all.remove(one)));
        prop_assert_eq!(first(&dropped), Some(one as u64));
        let doubled = tampered(&fs, |all| all.insert(one, all[one].clone()));
        prop_assert_eq!(first(&doubled), Some(one as u64 + 1));
        if one != other {
            let exchanged = tampered(&fs, |all| all.swap(one, other));
            prop_assert_eq!(first(&exchanged), Some(one.min(other) as u64));
        }
        let changed = tampered(&fs, |all| {
            let at = byte.index(all[one].len());
            all[one][at] ^= 1;
        });
        prop_assert_eq!(first(&changed), Some(one as u64));
        // Who changes the tile of hashes too is found by the next level.
        let tile = path(tile_path(0, 0, WIDTH));
        let mut hashes = changed.bytes(&tile).unwrap();
        hashes[one * 32] ^= 1;
        changed.put(&tile, &hashes);
        prop_assert_eq!(first(&changed), Some(0));
    }

    #[test]
    fn a_checkpoint_that_somebody_kept_finds_a_fork_and_a_cut(before in 1_u64..400, after in 1_u64..20) {
        let fs = Sim::default();
        let ledger = opened(&fs);
        (1..before).for_each(|number| note(&ledger, number));
        intend(&ledger, "last", 1).unwrap();
        ledger.publish().unwrap();
        let (key, old) = (verifier(&fs), fs.copy());
        let forks = [fs.copy(), fs.copy()];
        for (number, fork) in forks.iter().enumerate() {
            let ledger = opened(fork);
            (0..after).for_each(|more| note(&ledger, more + number as u64 * 1_000));
            ledger.close();
        }
        let kept = look(&forks[0], &key, &[]).0.checkpoint.unwrap();
        let kept = [key.open(&kept).unwrap()];
        prop_assert_eq!(look(&forks[0], &key, &kept).0.bad, vec![]);
        prop_assert_eq!(look(&forks[1], &key, &[]).0.bad, vec![]);
        prop_assert!(!look(&forks[1], &key, &kept).0.bad.is_empty());
        prop_assert_eq!(look(&old, &key, &kept).0.bad.first().and_then(|bad| bad.entry), Some(before));
    }

    #[test]
    fn whatever_a_power_loss_takes_no_intent_that_was_confirmed_is_lost(
        stop in 0_u64..400, survivors in any::<u64>(), rounds in 1_usize..4,
    ) {
        let fs = Sim::default();
        opened(&fs).close();
        let mut confirmed: Vec<String> = Vec::new();
        let mut chance = survivors | 1;
        for round in 0..rounds {
            let ledger = ledger(&fs);
            fs.stop_after(stop);
            if ledger.open().is_ok() {
                for number in 0..40 {
                    let id = format!("{round}-{number}");
                    if fs.has_stopped() || intend(&ledger, &id, 9).is_err() {
                        break;
                    }
                    confirmed.push(id);
                    if number % 8 == 7 && ledger.publish().is_err() {
                        break;
                    }
                }
            }
            // The process ends here: what its threads would do now must not reach the disk.
            let crashed = fs.copy();
            crashed.power_loss(|| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                chance >> 63 == 1
            });
            let reopened = opened(&crashed);
            reopened.close();
            let (found, all) = look(&crashed, &verifier(&crashed), &[]);
            prop_assert_eq!(found.bad, vec![]);
            let intents: Vec<String> = said(&all)
                .into_iter()
                .filter_map(|what| if let What::Intent { release, .. } = what { Some(release) } else { None })
                .collect();
            for id in &confirmed {
                prop_assert!(intents.contains(id), "{} was confirmed and is lost: {:?}", id, intents);
            }
            if fs.has_stopped() {
                break;
            }
            ledger.close();
            fs.kill();
        }
    }
}
