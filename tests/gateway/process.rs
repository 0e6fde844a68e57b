//! A gateway as a process that can be killed, with the same releases to Kafka and to files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use bailiwick::clock::Clock;
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::process::BINARY;
use crate::common::{self, PATIENCE, changed, free_port};

pub(crate) use crate::common::process::Process as Gateway;

/// What the policy says of the destination with the files.
const ARCHIVE: &str = "\n[destinations.archive]\ncountry = \"IE\"\naccepts = [\"payments_by_country\"]\n";

/// Of the example's policy, to have many small closings.
const SMALL: [(&str, &str); 3] = [
    ("size = \"PT10M\"", "size = \"PT20S\""),
    ("min_contributors = 10", "min_contributors = 5"),
    ("{ field = \"country\", domain = [\"DE\", \"ES\", \"FR\", \"IE\", \"IN\", \"NL\", \"US\", \"US-CA\"] },", ""),
];

/// A folder with a gateway's configuration and journal.
pub(crate) struct Deployment {
    folder: Folder,
    port: u16,
}

impl Deref for Deployment {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl Deployment {
    /// `kafka` are further lines of the Kafka destination.
    pub(crate) fn new(brokers: &str, topic: &str, kafka: &str) -> Self {
        let (port, example) = (free_port(), common::root().join("examples/card-fraud"));
        let policy = fs::read_to_string(example.join("policies/policy.toml")).unwrap();
        let policy = SMALL.iter().fold(policy, |policy, (from, to)| changed(&policy, from, to));
        let (shipped, model) = (common::root().join("policies"), example.join("model.onnx"));
        let config = format!(
            r#"
[gateway]
id          = "{topic}"
country     = "DE"
serves      = ["eu-gdpr"]
policies    = ["{}", "policies"]
stop_within = "PT60S"

[listen]
grpc = "127.0.0.1:{port}"

[models]
fraud = "{}"

[destinations.archive]
kind         = "file"
directory    = "released"
rotate_after = "PT1S"

[destinations.fraud_desk]
kind    = "kafka"
brokers = "{brokers}"
topic   = "{topic}"
{kafka}
"#,
            shipped.display(),
            model.display()
        );
        let files = [("gateway.toml", config.as_str()), ("policies/policy.toml", &(policy + ARCHIVE))];
        Self { folder: Folder::holding(files), port }
    }

    /// Changes the configuration.
    pub(crate) fn change(&self, from: &str, to: &str) {
        self.edit("gateway.toml", from, to);
    }

    /// Windows and cells as in the example: fewer releases, each of many cells.
    pub(crate) fn with_large_windows(self) -> Self {
        let policy = common::root().join("examples/card-fraud/policies/policy.toml");
        self.write("policies/policy.toml", fs::read_to_string(policy).unwrap() + ARCHIVE);
        self
    }

    /// Another one that goes on from a copy of this one's journal.
    pub(crate) fn copy(&self) -> Self {
        let (folder, port) = (self.folder.copy(), free_port());
        folder.edit("gateway.toml", &format!("127.0.0.1:{}", self.port), &format!("127.0.0.1:{port}"));
        Self { folder, port }
    }

    /// The file with the Kafka destination's cursor.
    pub(crate) fn cursor(&self) -> PathBuf {
        self.path("journal/cursors/fraud_desk")
    }

    /// What stands in that file.
    pub(crate) fn cursor_now(&self) -> Option<Vec<u8>> {
        fs::read(self.cursor()).ok()
    }

    /// Waits until the cursor is another one, and gives it. Something was delivered, or there was nothing for the destination.
    pub(crate) fn cursor_after(&self, cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let began = Clock::start();
        loop {
            let now = self.cursor_now();
            if now.is_some() && now != cursor {
                return now;
            }
            assert!(began.now() < PATIENCE, "nothing is delivered");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes everything that the gateway remembers.
    pub(crate) fn forget(&self) {
        fs::remove_dir_all(self.path("journal")).unwrap();
    }

    /// The cells in the files, by release, in order.
    pub(crate) fn cells(&self) -> BTreeMap<String, Vec<Value>> {
        let mut cells: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for cell in self.lines("released") {
            cells.entry(cell["release"].as_str().unwrap().to_owned()).or_default().push(cell);
        }
        cells
    }

    /// The ids of all releases in the files.
    pub(crate) fn released(&self) -> BTreeSet<String> {
        self.lines("released").iter().map(|line| line["release"].as_str().unwrap().to_owned()).collect()
    }

    /// Starts the gateway and waits until it serves.
    pub(crate) fn start(&self) -> Gateway {
        self.spawn()
    }

    /// Starts to send the example's data, the same records under the same numbers every time.
    pub(crate) fn send(&self) -> Child {
        self.send_in_batches_of(80)
    }

    /// As [`Self::send`], in many pieces with pauses between them, so that what they release goes in many transactions.
    pub(crate) fn send_slowly(&self) -> Child {
        let pieces = self.path("pieces");
        fs::create_dir_all(&pieces).unwrap();
        let mut text = String::new();
        let data = fs::File::open(common::root().join("examples/card-fraud/data.csv.gz")).unwrap();
        GzDecoder::new(data).read_to_string(&mut text).unwrap();
        let mut lines = text.lines();
        let (header, records) = (lines.next().unwrap(), lines.collect::<Vec<_>>());
        for (number, piece) in records.chunks(210).enumerate() {
            fs::write(pieces.join(format!("{number:03}.csv")), format!("{header}\n{}\n", piece.join("\n"))).unwrap();
        }
        // One that finds no gateway has sent nothing and is made again; one that loses it waits for it.
        let script = "last=$(ls | tail -1); for piece in *.csv; do more=; tries=0; \
                      if [ $piece = $last ]; then more=--complete; fi; \
                      until \"$0\" send --stream payments --producer till-7 --no-follow --allow-refused --to \"$1\" $more $piece \
                      > /dev/null 2>&1; do tries=$((tries + 1)); if [ $tries = 300 ]; then exit 1; fi; sleep 0.2; done; sleep 0.5; done";
        Command::new("sh")
            .args(["-c", script, BINARY, &format!("http://127.0.0.1:{}", self.port)])
            .current_dir(pieces)
            .spawn()
            .unwrap()
    }

    /// As [`Self::send`], with so many records in a request.
    pub(crate) fn send_in_batches_of(&self, records: usize) -> Child {
        let (endpoint, records) = (format!("http://127.0.0.1:{}", self.port), records.to_string());
        Command::new(BINARY)
            .args([
                "send",
                "--stream",
                "payments",
                "--producer",
                "till-7",
                "--complete",
                "--no-follow",
                "--allow-refused",
            ])
            .args(["--batch", &records, "--to", &endpoint])
            .arg(common::root().join("examples/card-fraud/data.csv.gz"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

/// A number that a line of the log holds: `name=12`.
pub(crate) fn number(line: &str, name: &str) -> u64 {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// A sender that is held up until this is dropped.
pub(crate) struct Held(u32);

impl Held {
    pub(crate) fn of(sending: &Child) -> Self {
        signal(sending.id(), "STOP");
        Self(sending.id())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// A sender that has ended and was not waited for hears it, too.
fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status().unwrap().success());
}
