//! A witness: what it cosigns and what it does not, and what it remembers whatever a crash takes.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::ledger::cosignature::Cosigner;
use crate::ledger::note;
use crate::ledger::proof::growth;
use crate::ledger::witness::{Office, Refusal, Request};

const REMEMBERED: &str = "/witness";
const TIME: u64 = 1_795_000_000;

/// A witness of a ledger, which remembers on a disk.
fn office(fs: &Sim, key: &Verifier, secret: &str) -> Office {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Office::open(Cosigner::parse(secret).unwrap(), vec![key.clone()], fs, Path::new(REMEMBERED)).unwrap()
}

/// Where it remembers what it cosigned.
fn remembered_file() -> PathBuf {
    Path::new(REMEMBERED).join(note::hex(&Sha256::digest("test/ledger")))
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
    let file = disk.bytes(&remembered_file()).unwrap();
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
    // A damaged memory is an error: to begin anew would be to cosign a second history.
    let disk = before.copy();
    disk.put(&remembered_file(), b"nothing");
    let disk: Arc<dyn FileSystem> = Arc::new(disk);
    let opened = Office::open(Cosigner::parse(&secret).unwrap(), vec![verifier(&fs)], disk, Path::new(REMEMBERED));
    assert!(opened.is_err());
}
