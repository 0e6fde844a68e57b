//! What the tests share: a deployment in a folder of its own ([`folder`]), a gateway in this process ([`gateway`]) or as its
//! own ([`process`]), what is sent to it ([`records`]), and what is
//! drawn at random ([`tape`]).

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test crate uses its part")]

pub mod certs;
pub mod folder;
pub mod gateway;
pub mod http;
pub mod laws;
pub mod ledger;
pub mod process;
pub mod records;
pub mod tape;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::TcpSocket;

pub use gateway::{TestGateway, example};

/// How long a test waits for what has to come. It only keeps a test that fails from waiting for ever.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The root of the project.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A text with other words in it. What is to be replaced must be there: else the test would go on with what it did not ask
/// for.
#[track_caller]
pub fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no `{from}` in\n{text}");
    text.replace(from, to)
}

/// Whether a warning says that a day has passed, of a review or an end: whether it is there depends on the day of the test.
pub fn is_of_the_day(warning: &str) -> bool {
    warning.contains(" were to be reviewed by ") || warning.contains(" ended on ")
}

/// What comes, when it has come.
#[track_caller]
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = bailiwick::clock::Clock::start();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.now() < PATIENCE, "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that nobody listens on. This process keeps it to its end: Linux gives it to nobody who asks for any port, but to
/// a server that asks for this one with `SO_REUSEADDR`, as all do here, also after another one has left it.
pub fn free_port() -> u16 {
    static KEPT: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    // Not listening: whoever connects to it is refused.
    KEPT.lock().unwrap().push(socket);
    port
}

/// The lines of all JSON-lines files below a directory, compressed ones too.
pub fn lines(directory: &Path) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            found.extend(lines(&path));
        } else if let Some(bytes) = json_lines(&path) {
            let text = String::from_utf8(bytes).unwrap();
            found.extend(text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
        }
    }
    found
}

fn json_lines(path: &Path) -> Option<Vec<u8>> {
    let name = path.file_name()?.to_str()?;
    let read = || std::fs::read(path).unwrap();
    if name.ends_with(".jsonl.zst") {
        return Some(zstd::decode_all(&*read()).unwrap());
    }
    name.ends_with(".jsonl").then(read)
}

/// The Python with the test packages, which `scripts/setup tests` makes.
pub fn python() -> PathBuf {
    std::env::var_os("BAILIWICK_TEST_PYTHON")
        .map(PathBuf::from)
        .expect("BAILIWICK_TEST_PYTHON: run the tests with `make test`")
}
