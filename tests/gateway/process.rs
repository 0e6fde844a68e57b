//! A gateway as a process that can be killed, with the same releases to Kafka and to files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bailiwick::intake::Clock;
use tempfile::TempDir;

use crate::common;

const BINARY: &str = env!("CARGO_BIN_EXE_bailiwick");
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a gateway's configuration and journal.
pub(crate) struct Deployment {
    root: TempDir,
    port: u16,
}

impl Deployment {
    /// `kafka` are further lines of the Kafka destination.
    pub(crate) fn new(brokers: &str, topic: &str, kafka: &str) -> Self {
        let (root, example) = (TempDir::new().unwrap(), common::root().join("examples/card-fraud"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Many small closings.
        let policy = fs::read_to_string(example.join("policies/policy.toml")).unwrap();
        let policy = policy
            .replace("size = \"PT10M\"", "size = \"PT20S\"")
            .replace("min_contributors = 10", "min_contributors = 5")
            .replace("{ field = \"country\", domain = [\"DE\", \"ES\", \"FR\", \"IE\", \"IN\", \"NL\", \"US\", \"US-CA\"] },", "");
        fs::create_dir(root.path().join("policies")).unwrap();
        let archive = "\n[destinations.archive]\ncountry = \"IE\"\naccepts = [\"payments_by_country\"]\n";
        fs::write(root.path().join("policies/policy.toml"), policy + archive).unwrap();
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
        fs::write(root.path().join("gateway.toml"), config).unwrap();
        Self { root, port }
    }

    /// Another one that goes on from a copy of this one's journal.
    pub(crate) fn copy(&self) -> Self {
        let root = TempDir::new().unwrap();
        let copied = Command::new("cp").arg("-r").arg(self.root.path().join(".")).arg(root.path()).status().unwrap();
        assert!(copied.success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = fs::read_to_string(root.path().join("gateway.toml")).unwrap();
        let config = config.replace(&format!("127.0.0.1:{}", self.port), &format!("127.0.0.1:{port}"));
        fs::write(root.path().join("gateway.toml"), config).unwrap();
        Self { root, port }
    }

    /// The file with the Kafka destination's cursor.
    pub(crate) fn cursor(&self) -> PathBuf {
        self.root.path().join("journal/cursors/fraud_desk")
    }

    /// What stands in that file.
    pub(crate) fn cursor_now(&self) -> Option<Vec<u8>> {
        fs::read(self.cursor()).ok()
    }

    /// Waits until the cursor is another one, and gives it.
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
        fs::remove_dir_all(self.root.path().join("journal")).unwrap();
    }

    /// The ids of all releases in the files.
    pub(crate) fn released(&self) -> BTreeSet<String> {
        let lines = common::lines(&self.root.path().join("released"));
        lines.iter().map(|line| line["release"].as_str().unwrap().to_owned()).collect()
    }

    /// Starts the gateway and waits until it serves.
    pub(crate) fn start(&self) -> Gateway {
        Gateway::start(self.root.path())
    }

    /// Starts to send the example's data, the same records under the same numbers every time.
    pub(crate) fn send(&self) -> Child {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        Command::new(BINARY)
            .args(["send", "--stream", "payments", "--producer", "till-7", "--complete", "--no-follow", "--epoch", "1"])
            .args(["--batch", "80", "--to", &endpoint])
            .arg(common::root().join("examples/card-fraud/data.csv.gz"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

/// A running gateway; killed when it is dropped.
pub(crate) struct Gateway {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(BINARY)
            .args(["run", "-c", "gateway.toml"])
            .env("NO_COLOR", "1")
            .current_dir(directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let gateway = Self { child, log };
        gateway.wait_for("serving", 1);
        gateway
    }

    /// Waits until so many lines of the log hold some words, and gives that one.
    pub(crate) fn wait_for(&self, words: &str, times: usize) -> String {
        let began = Clock::start();
        loop {
            let found = self.lines(words);
            if found.len() >= times {
                return found[times - 1].clone();
            }
            assert!(began.now() < PATIENCE, "no `{words}` in\n{}", self.log.lock().unwrap().join("\n"));
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The lines of the log that hold some words.
    pub(crate) fn lines(&self, words: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect()
    }

    /// Sends a signal: `STOP`, say.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it: everything that waits is delivered.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        let left = self.lines("did not take all releases");
        assert_eq!(left, Vec::<String>::new(), "{}", self.log.lock().unwrap().join("\n"));
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number that a line of the log holds: `name=12`.
pub(crate) fn number(line: &str, name: &str) -> u64 {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}
