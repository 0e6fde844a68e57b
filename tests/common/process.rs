//! The binary as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bailiwick::clock::Clock;

pub use super::PATIENCE;
pub use super::folder::copy_of;

pub const BINARY: &str = env!("CARGO_BIN_EXE_bailiwick");

/// Runs the binary to its end: [`on_any_day`].
pub fn run(directory: &Path, arguments: &[&str]) -> Output {
    on_any_day(Command::new(BINARY).args(arguments).current_dir(directory).output().unwrap())
}

/// What the binary gave, without the warnings on stderr that a day has passed.
pub fn on_any_day(output: Output) -> Output {
    let said = text(&output.stderr);
    let is_of_the_day =
        |problem: &str| problem.starts_with("warning: ") && problem.lines().next().is_some_and(super::is_of_the_day);
    // An empty line stands behind each problem.
    let left: String = said.split_inclusive("\n\n").filter(|problem| !is_of_the_day(problem)).collect();
    Output { stderr: left.into_bytes(), ..output }
}

/// The same, of a command that would wait for ever if it were broken: then the test fails.
pub fn run_in_time(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, began) = (command.spawn().unwrap(), Clock::start());
    while child.try_wait().unwrap().is_none() {
        if began.now() >= PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{arguments:?} does not end");
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running gateway whose log is read; killed when it is dropped.
pub struct Process {
    child: Mutex<Child>,
    log: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
    endpoint: String,
}

impl Process {
    /// Starts the gateway of a folder and waits until it serves.
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, &["run", "-c", "gateway.toml"])
    }

    /// Starts the binary with other arguments.
    pub fn start_with(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_under(directory, ":", arguments)
    }

    /// Starts it after a command of the shell: `ulimit -n 200`, say.
    pub fn start_under(directory: &Path, limit: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}; exec \"$0\" \"$@\""), BINARY, "--log-format", "text"])
            .args(arguments)
            .env("NO_COLOR", "1")
            .current_dir(directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        // Whoever does not read a pipe blocks its writer.
        let reading = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut gateway = Self { child: Mutex::new(child), log, reading: Some(reading), endpoint: String::new() };
        let serving = gateway.wait_for("serving", 1);
        let (_, address) = serving.split_once("address=").unwrap();
        gateway.endpoint = format!("http://{}", address.split(' ').next().unwrap());
        gateway
    }

    /// Where it is reached.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits until so many lines of the log hold some words, and gives the last of them.
    pub fn wait_for(&self, words: &str, times: usize) -> String {
        let began = Clock::start();
        loop {
            // In this order: what it said last is read when its log has ended.
            let is_over = self.reading.as_ref().is_none_or(JoinHandle::is_finished);
            let found = self.lines(words);
            if found.len() >= times {
                return found[times - 1].clone();
            }
            assert!(!is_over && began.now() < PATIENCE, "no `{words}` in\n{}", self.log().join("\n"));
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The lines of the log that hold some words.
    pub fn lines(&self, words: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect()
    }

    /// The whole log.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal: `STOP`, say.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// SIGHUP, and what came of it: the line that says so.
    pub fn reload(&self) -> String {
        let outcomes = || -> Vec<String> {
            let is_outcome =
                |line: &String| line.contains("policies are in force") || line.contains("policies were not replaced");
            self.log().into_iter().filter(is_outcome).collect()
        };
        let (before, began) = (outcomes().len(), Clock::start());
        self.signal("HUP");
        loop {
            if let Some(line) = outcomes().get(before) {
                return line.clone();
            }
            assert!(began.now() < PATIENCE, "nothing came of SIGHUP:\n{}", self.log().join("\n"));
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it as a crash of the machine would, but for the page cache.
    pub fn kill(self) {
        drop(self);
    }

    /// Stops it: everything that waits is delivered. The log.
    pub fn stop(self) -> Vec<String> {
        let (code, log) = self.terminate();
        assert_eq!(code, Some(0), "{}", log.join("\n"));
        log
    }

    /// Stops it although a destination does not take what waits. What it says last.
    pub fn stop_with_releases_left(self) -> String {
        let (code, log) = self.terminate();
        assert_eq!(code, Some(75), "{}", log.join("\n"));
        log.last().cloned().unwrap_or_default()
    }

    /// Stops it. The exit code and the log.
    pub fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        self.signal("TERM");
        let status = self.child.get_mut().unwrap().wait().unwrap();
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
        (status.code(), self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
