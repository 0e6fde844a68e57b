//! A witness: what it cosigns and what it does not, and what it remembers whatever a crash takes.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::domain::binary::hex;
use crate::ledger::cosignature::Cosigner;
use crate::ledger::note::{self, Signer};
use crate::ledger::proof::growth;
use crate::ledger::witness::{Memory, Office, Refusal, Request};

const REMEMBERED: &str = "/witness";
const TIME: u64 = 1_795_000_000;

/// A witness of a ledger, which remembers on a disk.
fn office(fs: &Sim, key: &Verifier, secret: &str) -> Office {
    office_of(fs, &[key], secret)
}

fn office_of(fs: &Sim, keys: &[&Verifier], secret: &str) -> Office {
    let keys = keys.iter().copied().cloned().collect();
    Office::open(Cosigner::parse(secret).unwrap(), keys, memory(fs).unwrap())
}

fn memory(fs: &Sim) -> anyhow::Result<Memory> {
    Memory::open(Arc::new(fs.clone()), Path::new(REMEMBERED))
}

/// Where it remembers what it cosigned of a ledger; earlier, where it did so of a name.
fn remembered_file(of: &str) -> PathBuf {
    Path::new(REMEMBERED).join(hex(&Sha256::digest(of)))
}

fn file_of(fs: &Sim) -> PathBuf {
    remembered_file(&verifier(fs).to_string())
}

fn secret() -> String {
    Cosigner::generate("w.example.org").unwrap().secret().to_string()
}

/// A request of a published ledger, which was cosigned with `old` entries.
fn request(fs: &Sim, old: u64) -> Request {
    let files = files(fs);
    let checkpoint = files.text(CHECKPOINT).unwrap().unwrap();
    let size = verifier(fs).open(&checkpoint).unwrap().size;
    Request { old, proof: growth(&files, old, size).unwrap().unwrap(), checkpoint }
}

fn ask(office: &Office, request: &Request) -> Result<String, Refusal> {
    office.add_checkpoint(request.encode().as_bytes(), TIME).unwrap()
}

/// Adds entries of its own kind to a ledger and publishes it. How many it has.
fn grow(ledger: &Ledger, fs: &Sim, entries: u64, kind: u64) -> u64 {
    (0..entries).for_each(|number| note(ledger, kind * 1_000_000 + number));
    // An intent is waited for: all that came before it is durable then.
    static RELEASES: AtomicU64 = AtomicU64::new(0);
    intend(ledger, &format!("r-{}", RELEASES.fetch_add(1, Ordering::Relaxed)), 1).unwrap();
    ledger.publish().unwrap();
    verifier(fs).open(&files(fs).text(CHECKPOINT).unwrap().unwrap()).unwrap().size
}

#[test]
fn requests_are_those_of_the_specification() {
    let example = "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
                   jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\nexample.com/behind-the-sofa\n20852163\n\
                   CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} example.com/behind-the-sofa AA==\n";
    let read = Request::decode(example).unwrap();
    assert_eq!((read.old, read.proof.len()), (20_852_014, 2));
    assert_eq!(read.encode(), example);
    for other in ["old 020852014", "old -1", "new 1", "old 20852014\nAA=="] {
        assert_eq!(Request::decode(&example.replacen("old 20852014", other, 1)), None, "{other}");
    }
    let many = format!("old 1\n{}\n\nx\n", "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n".repeat(64).trim_end());
    assert_eq!(Request::decode(&many), None, "a proof of 64 hashes");
}

#[test]
fn a_ledger_that_grows_is_cosigned_and_nothing_else_is() {
    let (fs, disk, secret) = (Sim::default(), Sim::default(), secret());
    let ledger = opened(&fs);
    let mut last = 0;
    grow(&ledger, &fs, 1, 0);
    let office = office(&disk, &verifier(&fs), &secret);
    for entries in [3, 250, 1, 1, 2, 500, 70] {
        let now = grow(&ledger, &fs, entries, 0);
        let good = request(&fs, last);
        // Another proof, another old size, another ledger, another key: none of it is remembered.
        assert_eq!(ask(&office, &Request { old: last + 1, ..good.clone() }), Err(Refusal::OtherSize(last)));
        if let Some(hash) = good.proof.len().checked_sub(1) {
            let mut bad = good.clone();
            bad.proof[hash][7] ^= 1;
            assert_eq!(ask(&office, &bad), Err(Refusal::NotGrown));
        }
        let unknown = Request { checkpoint: good.checkpoint.replacen("test/ledger", "test/other", 1), ..good.clone() };
        assert_eq!(ask(&office, &unknown), Err(Refusal::UnknownLedger));
        let forged =
            Request { checkpoint: good.checkpoint.replacen(&format!("\n{now}\n"), "\n900000\n", 1), ..good.clone() };
        assert_eq!(ask(&office, &forged), Err(Refusal::NotSigned));
        assert_eq!(ask(&office, &Request { old: now + 1, ..good.clone() }), Err(Refusal::Malformed));
        let line = ask(&office, &good).unwrap();
        let witness = Cosigner::parse(&secret).unwrap().witness().clone();
        let cosigned = format!("{}{line}", good.checkpoint);
        assert_eq!(witness.cosigned(&cosigned), Some((TIME, line.trim_end())));
        // The same again is cosigned again, with the time of now.
        ask(&office, &request(&fs, now)).unwrap();
        last = now;
    }
    assert_eq!(office.add_checkpoint(b"old", TIME).unwrap(), Err(Refusal::Malformed));
    let statuses =
        [Refusal::Malformed, Refusal::NotSigned, Refusal::UnknownLedger, Refusal::OtherSize(1), Refusal::NotGrown];
    assert_eq!(statuses.map(|refusal| refusal.status()), [400, 403, 404, 409, 422]);
}

#[test]
fn a_forked_or_cut_ledger_is_not_cosigned() {
    let (fs, disk, secret) = (Sim::default(), Sim::default(), secret());
    let ledger = opened(&fs);
    let common = grow(&ledger, &fs, 300, 0);
    let office = office(&disk, &verifier(&fs), &secret);
    ask(&office, &request(&fs, 0)).unwrap();
    // A copy of the disk, with the key, as somebody could make one who holds the machine.
    let (fork, older) = (fs.copy(), fs.copy());
    let now = grow(&ledger, &fs, 40, 0);
    ask(&office, &request(&fs, common)).unwrap();
    let forked = opened(&fork);
    // The start says first what is known of the intent that nothing followed.
    assert_eq!(grow(&forked, &fork, 39, 7), now, "as many entries, and others");
    assert_eq!(ask(&office, &request(&fork, common)), Err(Refusal::OtherSize(now)));
    assert_eq!(ask(&office, &request(&fork, now)), Err(Refusal::OtherRoot(now)));
    grow(&forked, &fork, 10, 7);
    assert_eq!(ask(&office, &request(&fork, now)), Err(Refusal::NotGrown));
    // One that ends earlier.
    assert_eq!(ask(&office, &request(&older, common)), Err(Refusal::OtherSize(now)));
    // The witness remembers enough for an auditor to find either.
    let file = disk.bytes(&file_of(&fs)).unwrap();
    let kept = verifier(&fs).open(&String::from_utf8(file).unwrap()).unwrap();
    for other in [&fork, &older] {
        let found = look(other, &verifier(&fs), std::slice::from_ref(&kept)).0;
        assert!(!found.bad.is_empty());
    }
    assert_eq!(look(&fs, &verifier(&fs), std::slice::from_ref(&kept)).0.bad, []);
}

#[test]
fn what_a_witness_has_cosigned_it_remembers_whatever_a_crash_takes() {
    let (fs, secret) = (Sim::default(), secret());
    let ledger = opened(&fs);
    let first = grow(&ledger, &fs, 5, 0);
    let before = Sim::default();
    ask(&office(&before, &verifier(&fs), &secret), &request(&fs, 0)).unwrap();
    let second = grow(&ledger, &fs, 5, 0);
    let mut cosigned = Vec::new();
    for stop in 0..30 {
        let disk = before.copy();
        let at_work = office(&disk, &verifier(&fs), &secret);
        disk.stop_after(stop);
        let is_cosigned = matches!(at_work.add_checkpoint(request(&fs, first).encode().as_bytes(), TIME), Ok(Ok(_)));
        let crashed = disk.copy();
        crashed.power_loss(|| stop % 2 == 0);
        let after = office(&crashed, &verifier(&fs), &secret);
        let remembered = match ask(&after, &Request { old: 0, ..request(&fs, 0) }) {
            Err(Refusal::OtherSize(size)) => size,
            other => panic!("{other:?}"),
        };
        assert!(remembered == second || (!is_cosigned && remembered == first), "stopped after {stop}: {remembered}");
        cosigned.push(is_cosigned);
    }
    assert!(cosigned.contains(&true) && cosigned.contains(&false), "{cosigned:?}");
}

/// Asks a witness as if nothing was cosigned: its answer tells what it remembers.
fn last(office: &Office, fs: &Sim) -> Result<String, Refusal> {
    ask(office, &Request { proof: Vec::new(), ..request(fs, 0) })
}

#[test]
fn what_was_cosigned_and_cannot_be_read_any_more_is_not_cosigned_anew() {
    let (fs, other, before, secret) = (Sim::default(), Sim::default(), Sim::default(), secret());
    let ledger = opened(&fs);
    let first = grow(&ledger, &fs, 5, 0);
    let unused = before.copy();
    drop(office(&unused, &verifier(&fs), &secret));
    ask(&office(&before, &verifier(&fs), &secret), &request(&fs, 0)).unwrap();
    grow(&ledger, &fs, 5, 0);
    let older = before.bytes(&file_of(&fs)).unwrap();
    // Damaged at the start: that ledger is refused, the others are not.
    grow(&opened(&other), &other, 5, 0);
    let disk = before.copy();
    disk.put(&file_of(&fs), b"nothing");
    let office_at_work = office_of(&disk, &[&verifier(&fs), &verifier(&other)], &secret);
    let of_first = request(&fs, first).encode();
    assert!(office_at_work.add_checkpoint(of_first.as_bytes(), TIME).is_err());
    ask(&office_at_work, &request(&other, 0)).unwrap();
    disk.take_away(&file_of(&fs));
    assert!(office_at_work.add_checkpoint(request(&fs, 0).encode().as_bytes(), TIME).is_err(), "removed then");
    disk.put(&file_of(&fs), &older);
    ask(&office_at_work, &request(&fs, first)).unwrap();
    // It goes away, or back, while the witness runs.
    disk.put(&file_of(&fs), &older);
    assert!(office_at_work.add_checkpoint(of_first.as_bytes(), TIME).is_err(), "an older one");
    disk.take_away(&file_of(&fs));
    assert!(office_at_work.add_checkpoint(request(&fs, 0).encode().as_bytes(), TIME).is_err(), "none");
    // So does that of a ledger of which nothing was cosigned.
    let at_work = office(&unused, &verifier(&fs), &secret);
    unused.take_away(&file_of(&fs));
    assert!(at_work.add_checkpoint(request(&fs, 0).encode().as_bytes(), TIME).is_err(), "none yet");
    assert_eq!(last(&office(&before, &verifier(&fs), &secret), &fs), Err(Refusal::OtherSize(first)));
}

#[test]
fn a_second_witness_cannot_use_the_directory() {
    let disk = Sim::default();
    let held = memory(&disk).unwrap();
    assert!(memory(&disk).err().unwrap().to_string().contains("in use by another process"));
    drop(held);
    memory(&disk).unwrap();
}

#[test]
fn the_same_again_is_cosigned_without_a_write_and_what_cannot_be_read_back_is_not_cosigned() {
    let (fs, disk, secret) = (Sim::default(), Sim::default(), secret());
    let size = grow(&opened(&fs), &fs, 5, 0);
    let office = office(&disk, &verifier(&fs), &secret);
    ask(&office, &request(&fs, 0)).unwrap();
    let written = disk.bytes(&file_of(&fs)).unwrap();
    office.add_checkpoint(request(&fs, size).encode().as_bytes(), TIME + 7).unwrap().unwrap();
    assert_eq!(disk.bytes(&file_of(&fs)).unwrap(), written);
    // A signed checkpoint with many lines of extensions.
    let signer = Signer::generate("test/long").unwrap();
    let office = office_of(&Sim::default(), &[signer.verifier()], &secret);
    let long = |letters: usize| {
        let note = signer.sign(3, [7; 32]);
        let text = format!("{}{}\n", note::split(&note).unwrap().0, "x".repeat(letters));
        Request { old: 0, proof: Vec::new(), checkpoint: signer.sign_text(&text) }
    };
    assert_eq!(ask(&office, &long(17 << 10)), Err(Refusal::TooLong));
    assert_eq!(Refusal::TooLong.status(), 400);
    ask(&office, &long(15 << 10)).unwrap();
}

#[test]
fn a_ledger_that_follows_a_retired_one_is_cosigned_and_the_file_of_an_earlier_version_is_read() {
    let (fs, next, disk, secret) = (Sim::default(), Sim::default(), Sim::default(), secret());
    let ledger = opened(&fs);
    let first = grow(&ledger, &fs, 5, 0);
    ask(&office(&disk, &verifier(&fs), &secret), &request(&fs, 0)).unwrap();
    // An earlier version named the file by the name of the ledger.
    let earlier = Sim::default();
    drop(memory(&earlier).unwrap());
    earlier.put(&remembered_file("test/ledger"), &disk.bytes(&file_of(&fs)).unwrap());
    grow(&ledger, &fs, 5, 0);
    assert_eq!(last(&office(&earlier, &verifier(&fs), &secret), &fs), Err(Refusal::OtherSize(first)));
    assert!(earlier.bytes(&file_of(&fs)).is_some(), "it has the name of today then");
    // The next one has the same name and another key.
    grow(&opened(&next), &next, 5, 0);
    assert_ne!(verifier(&fs), verifier(&next));
    for keys in [vec![verifier(&fs), verifier(&next)], vec![verifier(&next)]] {
        let disk = earlier.copy();
        let office = office_of(&disk, &keys.iter().collect::<Vec<_>>(), &secret);
        ask(&office, &request(&next, 0)).unwrap();
        let of_retired = last(&office, &fs);
        let expected = if keys.len() == 2 { Refusal::OtherSize(first) } else { Refusal::NotSigned };
        assert_eq!(of_retired, Err(expected));
    }
}
