//! A witness beside a gateway: it cosigns the ledger while it grows, and no other history of it. Nothing waits for it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ledger::{ledger, printed, python, shown, verified_by_python};
use crate::common::folder::Folder;
use crate::common::process::{Process, copy_of, run, text};
use crate::common::{free_port, http, lines, until};

const GATEWAY: &str = "examples/card-fraud/gateway.toml";
const JOURNAL: &str = "examples/card-fraud/journal";
const SERVE: [&str; 3] = ["run", "-c", GATEWAY];

/// The arguments of a witness that remembers in a directory.
fn witness_in(directory: &str) -> [&str; 8] {
    let key = "examples/card-fraud/journal/ledger/verifier";
    ["ledger", "witness", "--ledger", key, "--listen", "127.0.0.1:0", "-d", directory]
}

/// Starts a witness of a gateway's ledger, which remembers in `witness` of its folder.
fn witness(folder: &Folder, port: u16) -> Process {
    let listen = format!("127.0.0.1:{port}");
    let key = format!("{JOURNAL}/ledger/verifier");
    let arguments = ["ledger", "witness", "--name", "w.example.org", "--listen", &listen, "--ledger", &key];
    Process::start_with(folder.root(), &arguments)
}

/// What the witness remembers of the ledger.
fn remembered(folder: &Folder) -> PathBuf {
    let files = fs::read_dir(folder.path("witness")).unwrap().map(|entry| entry.unwrap().path());
    let mut notes = files.filter(|path| path.file_name().unwrap().len() == 64);
    notes.next().unwrap()
}

fn verified(directory: &Path, witness: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = ledger(directory, &[&["verify", "--witness", witness], more].concat());
    (output.status.code(), text(&output.stdout))
}

fn send(folder: &Folder, endpoint: &str) {
    let data = "examples/card-fraud/data.csv.gz";
    let arguments = ["send", "--stream", "payments", "--producer", "till-7", "--complete", "--no-follow"];
    let sent = run(folder.root(), &[&arguments[..], &["--allow-refused", "--to", endpoint, data]].concat());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
}

#[test]
fn a_witness_cosigns_a_ledger_that_grows_and_no_other_of_its_name_and_nothing_waits_for_it() {
    let (folder, _) = copy_of("card-fraud");
    let (port, status) = (free_port(), free_port());
    // The ledger and the witness make their keys.
    Process::start_with(folder.root(), &SERVE).stop();
    witness(&folder, port).stop();
    let key = shown(&folder.path("witness/verifier"));
    let directory = folder.path(&format!("{JOURNAL}/ledger"));
    let (code, report) = verified(&directory, &key, &[]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("BAD 0 witnesses have cosigned it, and 1 must have"), "{report}");
    folder.add(
        GATEWAY,
        &format!(
            "\n[http]\nlisten = \"127.0.0.1:{status}\"\n\n[ledger]\nwitness_every = \"PT1S\"\n\n[ledger.witness.auditor]\n\
             key = \"{}\"\nurl = \"http://127.0.0.1:{port}\"\n",
            folder.read("witness/verifier").trim()
        ),
    );
    // The witness is away: that is said, and releases leave.
    let gateway = Process::start_with(folder.root(), &SERVE);
    gateway.wait_for("the witness does not cosign the ledger", 1);
    send(&folder, gateway.endpoint());
    until(|| Some(()).filter(|()| lines(&folder.path("examples/card-fraud/released")).len() > 50));
    let status = format!("127.0.0.1:{status}");
    let check = http::check(&status, "witnesses");
    assert_eq!(check["state"], "warning");
    assert!(check["says"].as_str().unwrap().contains("auditor has not for"), "{check}");
    // It comes back.
    let at_work = witness(&folder, port);
    at_work.wait_for("serving as a witness", 1);
    let second = run(folder.root(), &witness_in("witness"));
    assert!(text(&second.stderr).contains("in use by another process"), "{}", text(&second.stderr));
    gateway.wait_for("the witness cosigns the ledger again", 1);
    until(|| Some(()).filter(|()| http::check(&status, "witnesses")["state"] == "well"));
    gateway.stop();
    let (code, report) = verified(&directory, &key, &[]);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("witness `w.example.org` cosigned the first"), "{report}");
    // One key counts once.
    let (code, report) = verified(&directory, &key, &["--witness", &key, "--at-least", "2"]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("BAD 1 witnesses have cosigned it, and 2 must have"), "{report}");
    let (_, in_json) = verified(&directory, &key, &["--json"]);
    let in_json: Value = serde_json::from_str(&in_json).unwrap();
    assert!(in_json["witnesses"][0]["entries"].as_u64().unwrap() >= 3, "{in_json}");
    // Somebody else's verifier believes it, too; and an export takes it along.
    let exported = folder.path("exported");
    printed(&directory, &["export", &shown(&exported)]);
    let cosigned = fs::read_dir(exported.join("witness")).unwrap().next().unwrap().unwrap().path();
    let ledgers_key = fs::read_to_string(directory.join("verifier")).unwrap();
    let of = |note: &Path| ["cosigned".to_owned(), shown(note), ledgers_key.clone(), folder.read("witness/verifier")];
    let said = verified_by_python(&of(&cosigned).each_ref().map(String::as_str));
    assert!(said.starts_with("20"), "{said}");
    let forged = folder.path("forged");
    fs::write(&forged, fs::read_to_string(&cosigned).unwrap().replacen("w.example.org ", "w.example.org A", 1))
        .unwrap();
    assert!(!python(&of(&forged).each_ref().map(String::as_str)).status.success());
    // A copy of the gateway goes on by itself, and then the gateway: two ledgers of one name.
    let fork = Folder::copy_of(&folder.path(JOURNAL));
    let size = |note: PathBuf| fs::read_to_string(note).unwrap().lines().nth(1).unwrap().parse::<u64>().unwrap();
    let common = size(fork.path("ledger/checkpoint"));
    let gateway = Process::start_with(folder.root(), &SERVE);
    until(|| Some(()).filter(|()| size(remembered(&folder)) > common));
    gateway.stop();
    folder.remove(JOURNAL);
    fs::rename(fork.root(), folder.path(JOURNAL)).unwrap();
    let forked = Process::start_with(folder.root(), &SERVE);
    let line = forked.wait_for("two of one name", 1);
    assert!(line.contains("the witness does not cosign the ledger"), "{line}");
    forked.stop();
    at_work.stop();
    // An auditor finds it by what the witness remembers.
    let kept = shown(&remembered(&folder));
    let (code, report) = verified(&directory, &key, &["--checkpoint", &kept]);
    assert_eq!(code, Some(1), "{report}");
    assert!(
        report.contains("the ledger was rewritten, or there are two of one name") || report.contains("ends before it"),
        "{report}"
    );
}

#[test]
fn a_witness_does_not_take_the_directory_of_a_ledger_nor_the_place_of_another_witness() {
    let (folder, _) = copy_of("card-fraud");
    Process::start_with(folder.root(), &SERVE).stop();
    let refused = |directory: &str, why: &str| {
        let output = run(folder.root(), &[&witness_in(directory)[..], &["--name", "w.example.org"]].concat());
        assert!(!output.status.success() && text(&output.stderr).contains(why), "{}", text(&output.stderr));
    };
    let ledger = format!("{JOURNAL}/ledger");
    let before = folder.read(&format!("{ledger}/verifier"));
    refused(&ledger, "is the directory of a ledger");
    assert_eq!(folder.read(&format!("{ledger}/verifier")), before);
    assert!(!folder.path(&format!("{ledger}/key")).exists());
    let other = folder.path("witness");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("verifier"), &before).unwrap();
    refused("witness", "the secret key witness/key is not there");
    assert_eq!(folder.read("witness/verifier"), before);
    fs::remove_file(other.join("verifier")).unwrap();
    witness(&folder, free_port()).stop();
    fs::write(other.join("verifier"), &before).unwrap();
    refused("witness", "is not the public key of witness/key");
    assert_eq!(folder.read("witness/verifier"), before);
}
