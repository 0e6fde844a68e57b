//! A deployment: a folder with `gateway.toml`, policies, a journal, and what is released.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bailiwick::app::App;
use bailiwick::config::{self, Config};
use bailiwick::domain::document::Severity;
use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::{changed, free_port, gateway};

/// A folder that goes when it is dropped.
pub struct Folder(TempDir);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// One with these files.
    pub fn holding<'f>(files: impl IntoIterator<Item = (&'f str, &'f str)>) -> Self {
        let folder = Self::new();
        files.into_iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    /// One with what another holds; of a gateway's folder, as a crash would leave it: what was acknowledged is on disk.
    pub fn copy_of(other: &Path) -> Self {
        let folder = Self::new();
        copy(other, folder.root());
        folder
    }

    /// Another one with the same in it.
    pub fn copy(&self) -> Self {
        Self::copy_of(self.root())
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Puts a file in the place of another, whole.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let (path, new) = (self.path(name), self.path("new"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    /// Replaces words of a file, which must be there.
    #[track_caller]
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        self.write(name, changed(&self.read(name), from, to));
    }

    /// What `init` wrote, on any day: the shipped laws hold past their review, as a comment in its policy says.
    #[track_caller]
    pub fn let_laws_hold(&self, policy: &str) {
        self.edit(policy, "# [review]\n# on_expired = \"warn\"\n", "[review]\non_expired = \"warn\"\n");
    }

    /// Adds to a file.
    pub fn add(&self, name: &str, text: &str) {
        self.write(name, self.read(name) + text);
    }

    /// Removes a folder, if it is there.
    pub fn remove(&self, name: &str) {
        let _ = fs::remove_dir_all(self.path(name));
    }

    /// What is wrong with the configuration, with its places.
    pub fn errors(&self) -> Vec<String> {
        let problems = config::load(&self.path("gateway.toml")).unwrap().problems;
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        errors.map(|problem| format!("{}: {}", problem.place, problem.message)).collect()
    }

    /// The configuration, which may have warnings.
    pub fn config(&self) -> Config {
        let loaded = config::load(&self.path("gateway.toml")).unwrap();
        loaded.config.unwrap_or_else(|| panic!("{:?}", self.errors()))
    }

    /// Starts its gateway in this process, or says why it does not start.
    pub async fn start_app(&self, change: impl FnOnce(&mut Config)) -> anyhow::Result<App> {
        let mut config = self.config();
        change(&mut config);
        gateway::start(config).await
    }

    /// Starts its gateway as a process.
    pub fn spawn(&self) -> Process {
        Process::start(self.root())
    }

    /// The lines that were released below a folder.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        super::lines(&self.path(name))
    }

    /// Whether any file below a folder holds these bytes.
    pub fn holds(&self, name: &str, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        let mut files = Vec::new();
        collect(&self.path(name), &mut files);
        files.iter().any(|file| file.windows(bytes.len()).any(|window| window == bytes))
    }

    /// The bytes of all files below a folder, whatever their names.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let mut files = Vec::new();
        collect(&self.path(name), &mut files);
        files.sort();
        files.concat()
    }
}

fn collect(path: &Path, files: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if let Ok(bytes) = fs::read(path) {
            // A file may go while the gateway runs.
            files.push(bytes);
        }
    }
}

/// Copies what a folder holds, but for files that are being written: a gateway may run.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let is_being_written = name.to_string_lossy().starts_with('.') && name.to_string_lossy().ends_with(".part");
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if !is_being_written && let Err(error) = fs::copy(&path, to.join(name)) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{}", path.display());
        }
    }
}

/// A copy of an example, with the shipped policies where it expects them and a port of its own.
pub fn copy_of(example: &str) -> (Folder, u16) {
    let folder = Folder::new();
    let (from, to) = (super::root().join("examples").join(example), folder.path("examples").join(example));
    fs::create_dir_all(&to).unwrap();
    symlink(super::root().join("policies"), folder.path("policies")).unwrap();
    symlink(from.join("policies"), to.join("policies")).unwrap();
    for file in ["model.onnx", "data.csv.gz", "record.json"] {
        // Only one example has a record.json; a link to nothing disturbs nobody.
        symlink(from.join(file), to.join(file)).unwrap();
    }
    let port = free_port();
    let config = fs::read_to_string(from.join("gateway.toml")).unwrap();
    let config = changed(&config, "127.0.0.1:7400", &format!("127.0.0.1:{port}"));
    // A stop has time, also on a slow machine. It takes the place of the first comment: every line keeps its number.
    let (comment, config) = config.split_once('\n').unwrap();
    assert!(comment.starts_with('#'), "{comment}");
    let config = changed(config, "[gateway]\n", "[gateway]\nstop_within = \"PT60S\"\n");
    fs::write(to.join("gateway.toml"), config).unwrap();
    (folder, port)
}

/// A copy of an example whose policies can be changed.
pub fn own_copy_of(example: &str) -> Folder {
    let (folder, _) = copy_of(example);
    let name = format!("examples/{example}/policies");
    let policies = folder.path(&name);
    // The copy has a link to the example's own policies.
    fs::remove_file(&policies).unwrap();
    copy(&super::root().join(name), &policies);
    folder
}

/// The example of card fraud, with another dataset that the destination accepts.
pub fn card_fraud_with(dataset: &str, declared: &str) -> Folder {
    let folder = own_copy_of("card-fraud");
    let policy = "examples/card-fraud/policies/policy.toml";
    let accepts = format!("accepts = [\"payments_by_country\", \"{dataset}\"]");
    folder.edit(policy, "accepts = [\"payments_by_country\"]", &accepts);
    folder.add(policy, declared);
    folder
}

/// A dataset for it that adds up the hours of the example's own.
pub const HOURLY: &str = r#"
[datasets.hourly]
stream           = "payments"
coarser_than     = "payments_by_country"
window           = { size = "PT1H", grace = "PT1M" }
min_contributors = 10
group_by         = [{ field = "country", domain = ["DE", "ES", "FR", "IE", "IN", "NL", "US", "US-CA"] }]
metrics          = [{ name = "payments", fn = "count" }]

[[shown]]
conditions = ["data.anonymity_assessed"]
for        = { dataset = "hourly" }
by         = "the test"
ref        = "the test"
"#;
