//! The binary as a process, on a copy of an example.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_bailiwick");

/// A copy of an example, with the shipped policies where it expects them and a port of its own.
pub fn copy_of(example: &str) -> (TempDir, u16) {
    let root = TempDir::new().unwrap();
    let (from, to) = (super::root().join("examples").join(example), root.path().join("examples").join(example));
    fs::create_dir_all(&to).unwrap();
    symlink(super::root().join("policies"), root.path().join("policies")).unwrap();
    symlink(from.join("policies"), to.join("policies")).unwrap();
    for file in ["model.onnx", "data.csv.gz"] {
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
        std::thread::spawn(move || log.for_each(drop));
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
