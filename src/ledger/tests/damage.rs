//! What is in tiles is damaged: the ledger goes on where the signed tree can still be made, and nowhere else.

use super::*;
use crate::ledger::audit::salvage;

/// A ledger with two whole bundles and some more, and its newest checkpoint.
fn long() -> (Sim, Verifier, Checkpoint) {
    written(600, 3)
}

/// The first entry that is said to be damaged, when a ledger is opened that goes on and is as it was signed after that.
fn goes_on(fs: &Sim, key: &Verifier, kept: &Checkpoint) -> String {
    let ledger = opened(fs);
    let damage = ledger.damage().unwrap().to_string();
    intend(&ledger, "next", 3).unwrap();
    ledger.publish().unwrap();
    let again = fs.copy();
    // The tree is the one that was signed, with more to it.
    let salvaged = salvage(&files(&again), key, std::slice::from_ref(kept), &mut |_, _, _| {});
    let (audit, places) = salvaged.unwrap().unwrap();
    assert!(places >= 1 && audit.entries > kept.size);
    let found = look(&again, key, std::slice::from_ref(kept)).0;
    assert_ne!(found.bad, [], "an auditor is told as before");
    damage
}

#[test]
fn damage_in_a_whole_bundle_is_said_and_gone_on_with() {
    let (fs, key, newest) = long();
    let bundle = path(bundle_path(1, WIDTH));
    let (good, length) = (fs.bytes(&bundle).unwrap(), fs.bytes(&bundle).unwrap().len());
    for byte in (0..length).step_by(length / 40) {
        let damaged = fs.copy();
        damaged.flip(&bundle, byte, 4);
        let damage = goes_on(&damaged, &key, &newest);
        assert!(damage.contains("entry ") && damage.contains("It goes on"), "{damage}");
    }
    let missing = fs.copy();
    missing.take_away(&bundle);
    let damage = goes_on(&missing, &key, &newest);
    assert!(damage.contains("entry 256"), "{damage}");
    // It is in the ledger, too, and when the file is put back all is as it was signed.
    let (mut of_ledger, mut places) = (0, 0);
    missing.put(&bundle, &good);
    let (found, all) = look(&missing, &key, std::slice::from_ref(&newest));
    assert_eq!(found.bad, []);
    for what in said(&all) {
        if let What::Damage { of, places: so_many } = what
            && of == "ledger"
        {
            (of_ledger, places) = (of_ledger + 1, so_many);
        }
    }
    assert_eq!((of_ledger, places), (1, WIDTH as u64));
}

#[test]
fn damage_in_tiles_of_hashes_is_said_and_gone_on_with() {
    let (fs, key, newest) = long();
    for tile in [tile_path(0, 0, WIDTH), tile_path(0, 1, WIDTH), tile_path(1, 0, 2)].map(path) {
        let missing = fs.copy();
        missing.take_away(&tile);
        goes_on_or_heals(&missing, &key, &newest);
        fs.flip(&tile, 40, 0);
        goes_on_or_heals(&fs.copy(), &key, &newest);
        fs.flip(&tile, 40, 0);
    }
}

/// As [`goes_on`], of a tile that may be written anew with the next checkpoint.
fn goes_on_or_heals(fs: &Sim, key: &Verifier, kept: &Checkpoint) {
    let ledger = opened(fs);
    assert!(ledger.damage().is_some());
    intend(&ledger, "next", 3).unwrap();
    ledger.publish().unwrap();
    let all = look(fs, key, std::slice::from_ref(kept)).1;
    assert!(said(&all).iter().any(|what| matches!(what, What::Intent { release, .. } if release == "next")));
}

#[test]
fn what_cannot_be_gone_on_with_is_not() {
    let (fs, key, _) = long();
    let (bundle, tile) = (path(bundle_path(1, WIDTH)), path(tile_path(0, 1, WIDTH)));
    // An entry and its hash: nothing says any more what was signed.
    let both = fs.copy();
    both.flip(&bundle, 500, 1);
    both.flip(&tile, 3, 1);
    let edge = fs.copy();
    edge.flip(&path(bundle_path(2, 89)), 100, 1);
    let cut = fs.copy();
    cut.take_away(&path(bundle_path(2, 89)));
    let checkpoint = fs.copy();
    checkpoint.flip(&path(CHECKPOINT.into()), 30, 0);
    for (name, damaged) in [("both", both), ("edge", edge), ("cut", cut), ("checkpoint", checkpoint)] {
        let ledger = ledger(&damaged);
        let why = ledger.open().unwrap_err();
        assert!(why.contains("ledger retire"), "{name}: {why}");
        assert!(intend(&ledger, "next", 3).is_err(), "{name}");
    }
    // The root alone tells, too: without entries after the tiles, and without a checkpoint that somebody kept.
    let alone = fs.copy();
    fs.files(&path(LOG.into())).iter().for_each(|segment| alone.take_away(segment));
    let gone_on_with = |fs: &Sim| salvage(&files(fs), &key, &[], &mut |_, _, _| {}).unwrap().is_some();
    alone.flip(&bundle, 500, 1);
    assert!(gone_on_with(&alone));
    alone.flip(&tile, 3, 1);
    assert!(!gone_on_with(&alone));
    // Nor a ledger that was rewritten, however sound it looks: somebody kept another checkpoint of it.
    let forked = fs.copy();
    let other = opened(&fs);
    note(&other, 1);
    other.close();
    forked.put(&settings().seen, &fs.bytes(&settings().seen).unwrap());
    let why = ledger(&forked).open().unwrap_err();
    assert!(why.contains("the ledger ends before it"), "{why}");
}
