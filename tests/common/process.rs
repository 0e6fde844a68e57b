//! The binary as a process, on a copy of an example.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bailiwick::clock::Clock;
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_bailiwick");
/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A copy of an example, with the shipped policies where it expects them and a port of its own.
pub fn copy_of(example: &str) -> (TempDir, u16) {
    let root = TempDir::new().unwrap();
    let (from, to) = (super::root().join("examples").join(example), root.path().join("examples").join(example));
    fs::create_dir_all(&to).unwrap();
    symlink(super::root().join("policies"), root.path().join("policies")).unwrap();
    symlink(from.join("policies"), to.join("policies")).unwrap();
    for file in ["model.onnx", "data.csv.gz", "record.json"] {
        // Only one example has a record.json; a link to nothing disturbs nobody.
        symlink(from.join(file), to.join(file)).unwrap();
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config =
        fs::read_to_string(from.join("gateway.toml")).unwrap().replace("127.0.0.1:7400", &format!("127.0.0.1:{port}"));
    fs::write(to.join("gateway.toml"), config).unwrap();
    (root, port)
}

pub fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).current_dir(directory).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running gateway that is killed when the test fails before it is stopped.
pub struct Running(Child);

impl Running {
    /// Starts the binary and waits until it says that it serves.
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut child =
            Command::new(BINARY).args(arguments).current_dir(directory).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let is_serving = log.by_ref().any(|line| line.unwrap().contains("serving"));
        assert!(is_serving, "the gateway ended before it served");
        // Whoever does not read a pipe blocks its writer.
        thread::spawn(move || log.for_each(drop));
        Self(child)
    }

    pub fn terminate(mut self) -> i32 {
        let status = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(status.success());
        self.0.wait().unwrap().code().unwrap_or(-1)
    }

    /// As a crash of the machine would, but for the page cache.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running gateway whose log is read; killed when it is dropped.
pub struct Logged {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
}

impl Logged {
    /// Starts the gateway of a folder and waits until it serves.
    pub fn start(directory: &Path) -> Self {
        Self::start_under(directory, ":")
    }

    /// Starts it after a command of the shell: `ulimit -n 200`, say.
    pub fn start_under(directory: &Path, limit: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}; exec \"$0\" run -c gateway.toml"), BINARY])
            .env("NO_COLOR", "1")
            .current_dir(directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let reading = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let gateway = Self { child, log, reading: Some(reading) };
        gateway.wait_for("serving", 1);
        gateway
    }

    /// Waits until so many lines of the log hold some words, and gives the last of them.
    pub fn wait_for(&self, words: &str, times: usize) -> String {
        let began = Clock::start();
        loop {
            let found = self.lines(words);
            if found.len() >= times {
                return found[times - 1].clone();
            }
            assert!(began.now() < PATIENCE, "no `{words}` in\n{}", self.log().join("\n"));
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The lines of the log that hold some words.
    pub fn lines(&self, words: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The whole log.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal: `STOP`, say.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it: everything that waits is delivered. The log.
    pub fn stop(self) -> Vec<String> {
        let (code, log) = self.terminate();
        assert_eq!(code, Some(0), "{}", log.join("\n"));
        log
    }

    /// Stops it. The exit code and the log.
    pub fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
        (status.code(), self.log())
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
