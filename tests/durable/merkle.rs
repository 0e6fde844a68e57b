//! The ledger's trees by another implementation: the crate ct-merkle, which knows RFC 6962 and nothing of this project.

use std::fs;
use std::path::Path;

use bailiwick::ledger::note::{Checkpoint, Verifier};
use bailiwick::ledger::tile;
use bailiwick::ledger::tree::{self, Frontier, Hash, leaf, perfect};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::Sha256;
use tempfile::TempDir;

use super::ledger::{files, printed, shown};
use super::operations::send_payments;
use crate::common::ledger::{entries, of_kind};
use crate::common::{self, TestGateway, gateway};

type Other = MemoryBackedTree<Sha256, Vec<u8>>;

/// The tree of entries, as the other implementation has it.
fn other<'e>(entries: impl IntoIterator<Item = &'e Vec<u8>>) -> Other {
    let mut tree = Other::new();
    entries.into_iter().for_each(|entry| tree.push(entry.clone()));
    tree
}

fn root(root: Hash, size: u64) -> RootHash<Sha256> {
    RootHash::new(root.into(), size)
}

fn inclusion(hashes: &[Hash]) -> InclusionProof<Sha256> {
    InclusionProof::try_from_bytes(hashes.concat()).unwrap()
}

fn consistency(hashes: &[Hash]) -> ConsistencyProof<Sha256> {
    ConsistencyProof::try_from_bytes(hashes.concat()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn roots_and_proofs_of_random_trees_are_those_of_the_other_implementation(
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 2..600),
        (at, old, changed) in (any::<Index>(), any::<Index>(), any::<Index>()),
    ) {
        let (theirs, size) = (other(&entries), entries.len() as u64);
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf(entry)).collect();
        let trees = |level: u32, index: u64| {
            let from = usize::try_from(index << level).ok()?;
            leaves.get(from..from + (1 << level)).map(perfect)
        };
        let frontier = |size: usize| {
            let mut frontier = Frontier::default();
            leaves[..size].iter().for_each(|leaf| frontier.push(*leaf));
            frontier.root()
        };
        let ours = root(frontier(entries.len()), size);
        prop_assert!(ours == theirs.root());
        // An entry is in the tree.
        let at = at.index(entries.len());
        let mut proof = tree::inclusion(at as u64, size, &trees).unwrap();
        prop_assert!(proof.concat() == theirs.prove_inclusion(at).as_bytes());
        prop_assert!(ours.verify_inclusion(&entries[at], at as u64, &inclusion(&proof)).is_ok());
        let place = changed.index(proof.len());
        proof[place][0] ^= 1;
        prop_assert!(ours.verify_inclusion(&entries[at], at as u64, &inclusion(&proof)).is_err());
        // The tree only grew.
        let old = 1 + old.index(entries.len() - 1);
        let before = root(frontier(old), old as u64);
        let mut proof = tree::consistency(old as u64, size, &trees).unwrap();
        prop_assert!(proof.concat() == theirs.prove_consistency(entries.len() - old).as_bytes());
        prop_assert!(ours.verify_consistency(&before, &consistency(&proof)).is_ok());
        let place = changed.index(proof.len());
        proof[place][0] ^= 1;
        prop_assert!(ours.verify_consistency(&before, &consistency(&proof)).is_err());
    }
}

/// The bytes of the entries in an exported ledger's bundles.
fn bundled(exported: &Path) -> Vec<Vec<u8>> {
    let mut bundles = files(&exported.join("tile/entries"));
    bundles.sort();
    bundles
        .iter()
        .flat_map(|path| tile::entries(&fs::read(path).unwrap()).map(<[u8]>::to_vec).collect::<Vec<_>>())
        .collect()
}

/// The lines of hashes in a proof, and the checkpoint that it ends with.
fn parts(proof: &str, key: &Verifier) -> (Vec<Hash>, Checkpoint) {
    let (head, note) = proof.split_once("\n\n").unwrap();
    let hashes = head.lines().filter(|line| !line.contains(' ') && !line.contains('@'));
    let hashes = hashes.map(|line| BASE64.decode(line).unwrap().try_into().unwrap());
    (hashes.collect(), key.open(note).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tiles_and_proofs_of_a_ledger_are_those_of_the_other_implementation() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    send_payments(gateway.endpoint(), true).await;
    // Each reload is an entry, also one that is refused, as here: more than one bundle of them.
    let other_ports = common::root().join("examples/card-fraud/gateway.toml");
    for _ in 0..176 {
        gateway.app.reload(&other_ports).await.unwrap_err();
    }
    let TestGateway { app, released, journal } = gateway;
    app.stop().await;
    let (directory, copy) = (journal.path().join("ledger"), TempDir::new().unwrap());
    let key = Verifier::parse(&fs::read_to_string(directory.join("verifier")).unwrap()).unwrap();
    let exported = copy.path().join("exported");
    printed(&directory, &["export", &shown(&exported)]);
    let all = bundled(&exported);
    let signed = key.open(&fs::read_to_string(exported.join("checkpoint")).unwrap()).unwrap();
    assert!(all.len() > 256, "more than one bundle: {}", all.len());
    let theirs = other(&all);
    assert_eq!((theirs.root().as_bytes().as_slice(), theirs.len()), (&signed.root[..], signed.size));
    // A tile holds the roots of trees of one entry, or of 256.
    for (level, width) in [(0, 1), (1, 256)] {
        let mut tiles = files(&exported.join(format!("tile/{level}")));
        tiles.sort();
        let hashes = tiles.iter().flat_map(|path| fs::read(path).unwrap());
        let expected = all.chunks_exact(width).flat_map(|entries| other(entries).root().as_bytes().to_vec());
        assert!(hashes.eq(expected), "tiles of level {level}");
    }
    // The proof of a release.
    let said = entries(&directory);
    let intents = of_kind(&said, "intent");
    for intent in [intents[0], intents[intents.len() / 2], intents[intents.len() - 1]] {
        let proof = printed(&directory, &["prove", intent["release"].as_str().unwrap()]);
        let (hashes, signed) = parts(&proof, &key);
        let number = intent["entry"].as_u64().unwrap();
        let entry = &all[usize::try_from(number).unwrap()];
        let of_all = root(signed.root, signed.size);
        assert!(of_all.verify_inclusion(entry, number, &inclusion(&hashes)).is_ok(), "entry {number}");
        assert!(of_all.verify_inclusion(&all[0], number, &inclusion(&hashes)).is_err(), "entry {number}");
    }
    // The proof that it only grew.
    let kept = copy.path().join("kept");
    fs::copy(directory.join("checkpoint"), &kept).unwrap();
    let mut config = common::example("card-fraud/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    gateway::start(config).await.unwrap().stop().await;
    let (hashes, now) = parts(&printed(&directory, &["prove", "--since", &shown(&kept)]), &key);
    // At a stop the last entries may not be in tiles yet.
    let kept = key.open(&fs::read_to_string(&kept).unwrap()).unwrap();
    let (before, after) = (root(kept.root, kept.size), root(now.root, now.size));
    assert!(now.size > kept.size);
    assert!(after.verify_consistency(&before, &consistency(&hashes)).is_ok());
    let forked = root([1; 32], kept.size);
    assert!(after.verify_consistency(&forked, &consistency(&hashes)).is_err());
}
