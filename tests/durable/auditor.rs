//! The ledger as an auditor checks it who has nothing of this project: by the crates `signed_note` and `tlog_tiles`, which
//! implement the C2SP specifications.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use signed_note::{Note, StandardVerifier, VerifierList};
use tempfile::TempDir;
use tlog_tiles::{
    Checkpoint, Error, Hash, Tile, TileHashReader, TileReader, check_record, check_tree, prove_record, prove_tree,
    record_hash, tree_hash,
};

use super::ledger::{printed, shown};
use super::operations::send_payments;
use crate::common::ledger::{entries, of_kind};
use crate::common::{self, TestGateway, gateway};

/// The tiles of an exported ledger, as a server of static files gives them.
struct Exported(PathBuf);

impl TileReader for Exported {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        let read = |tile: &Tile| {
            // The specification has only tiles of one height, and leaves it out.
            let path = tile.path().replacen("tile/8/", "tile/", 1);
            fs::read(self.0.join(&path)).map_err(|error| Error::InvalidInput(format!("{path}: {error}")))
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// What a note says, once its signature is verified.
fn opened(note: &[u8], key: &str) -> Option<Checkpoint> {
    let verifier = StandardVerifier::new(key.trim()).unwrap();
    let note = Note::from_bytes(note).ok()?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).ok()?;
    Checkpoint::from_reader(&mut note.text(), false).ok()
}

/// A proof as `c2sp.org/tlog-proof` has it: its lines of hashes, and its checkpoint.
fn parts(proof: &str, key: &str) -> (Vec<Hash>, Checkpoint) {
    let (head, note) = proof.split_once("\n\n").unwrap();
    let hashes = head.lines().filter(|line| !line.contains(' ') && !line.contains('@'));
    let hashes = hashes.map(|line| Hash::parse_hash(line).unwrap()).collect();
    (hashes, opened(note.as_bytes(), key).unwrap())
}

fn exported(ledger: &Path, to: &Path) -> Exported {
    printed(ledger, &["export", &shown(to)]);
    Exported(to.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_tiles_and_proofs_are_those_of_the_specifications() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    send_payments(gateway.endpoint(), true).await;
    let TestGateway { app, released, journal } = gateway;
    app.stop().await;
    let (ledger, copy) = (journal.path().join("ledger"), TempDir::new().unwrap());
    let key = fs::read_to_string(ledger.join("verifier")).unwrap();
    let before = exported(&ledger, &copy.path().join("before"));
    let note = fs::read(before.0.join("checkpoint")).unwrap();
    let signed = opened(&note, &key).unwrap();
    for at in [0, note.len() / 2, note.len() - 2] {
        let mut changed = note.clone();
        changed[at] ^= 1;
        assert!(opened(&changed, &key).is_none(), "byte {at}");
    }
    // The tiles hold the tree that was signed.
    let tiles = TileHashReader::new(signed.size(), *signed.hash(), &before);
    assert_eq!(tree_hash(signed.size(), &tiles).unwrap(), *signed.hash());
    let said = entries(&ledger);
    let intents = of_kind(&said, "intent");
    for intent in [&intents[0], &intents[intents.len() - 1]] {
        let proof = printed(&ledger, &["prove", intent["release"].as_str().unwrap()]);
        let (hashes, of_proof) = parts(&proof, &key);
        let number = intent["entry"].as_u64().unwrap();
        let extra = proof.lines().find_map(|line| line.strip_prefix("extra ")).unwrap();
        let entry = record_hash(&BASE64.decode(extra).unwrap());
        let holds = |entry| check_record(&hashes, of_proof.size(), *of_proof.hash(), number, entry).is_ok();
        assert!(holds(entry) && !holds(record_hash(b"another")), "entry {number}");
        // The auditor's own proof, of the tiles, is of the same entry.
        if number < signed.size() {
            let own = prove_record(signed.size(), number, &tiles).unwrap();
            check_record(&own, signed.size(), *signed.hash(), number, entry).unwrap();
        }
    }
    // It only grew.
    let kept = copy.path().join("kept");
    fs::write(&kept, &note).unwrap();
    let mut config = common::example("card-fraud/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    gateway::start(config).await.unwrap().stop().await;
    let (hashes, now) = parts(&printed(&ledger, &["prove", "--since", &shown(&kept)]), &key);
    let grew = |from: Hash| check_tree(&hashes, now.size(), *now.hash(), signed.size(), from).is_ok();
    assert!(now.size() > signed.size() && grew(*signed.hash()) && !grew(record_hash(b"a fork")));
    let after = exported(&ledger, &copy.path().join("after"));
    let latest = opened(&fs::read(after.0.join("checkpoint")).unwrap(), &key).unwrap();
    let tiles = TileHashReader::new(latest.size(), *latest.hash(), &after);
    let own = prove_tree(latest.size(), signed.size(), &tiles).unwrap();
    check_tree(&own, latest.size(), *latest.hash(), signed.size(), *signed.hash()).unwrap();
}
