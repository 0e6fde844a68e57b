//! ONNX Runtime: finding the library, checking a model against its declaration, scoring.
//!
//! A [`Scorer`] belongs to one worker thread and runs on it: one intra-op thread, no pools. It takes only
//! [`crate::domain::policy::Resident`] records.
//!
//! What a model can do is bounded. Its file is read once, and what was hashed is what ONNX Runtime is given; a model
//! that refers to other files is refused ([`file`]). A run has a deadline ([`watch`]). What a model makes of constants
//! has a limit before it is loaded, and a run on zeros shows how much memory it takes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs};

use ort::environment::Environment;
use ort::session::Session;
use sha2::{Digest, Sha256};

use crate::domain::binary::hex;
use crate::domain::model::Model;
use crate::files;

mod check;
mod features;
mod file;
#[cfg(test)]
mod made;
mod scorer;
mod tensors;
#[cfg(test)]
mod tests;
mod watch;

pub use file::Unfit;
pub use scorer::{Scored, Scorer, Unusable};
pub use watch::Watch;

use tensors::Shelf;

/// The largest model, in bytes. One with all its weights inside cannot be larger than 2 GiB.
pub const BYTES_MAX: u64 = 1 << 30;

/// The most memory that a run of a model may take, in bytes.
pub const RUN_BYTES_MAX: u64 = 1 << 30;

/// The largest tensor that is worked out when a model is loaded, in bytes: what is larger is worked out by every run.
const FOLDED_BYTES_MAX: u64 = 64 << 20;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library was not found or is not ONNX Runtime.
    #[error("ONNX Runtime was not found at {tried}: {message}")]
    Library {
        /// Where it was looked for.
        tried: String,
        /// What the loader said.
        message: String,
    },
    /// The file cannot be read.
    #[error("model `{model}`")]
    File {
        /// The model's name.
        model: String,
        /// What is wrong with its file.
        source: files::Error,
    },
    /// The file is not given to ONNX Runtime.
    #[error("model `{model}`: {source}")]
    Unfit {
        /// The model's name.
        model: String,
        /// Why not.
        source: Unfit,
    },
    /// The file is not the one that was declared.
    #[error("model `{model}`: {path} has sha256 {found}, and {declared} is declared")]
    Hash {
        /// The model's name.
        model: String,
        /// Its file.
        path: PathBuf,
        /// The file's hash.
        found: String,
        /// The declared hash.
        declared: String,
    },
    /// The model's inputs or outputs are not as declared.
    #[error("model `{model}`: {message}")]
    Mismatch {
        /// The model's name.
        model: String,
        /// What differs.
        message: String,
    },
    /// A run took longer than it may.
    #[error(
        "model `{model}`: a run took longer than {deadline:?}, which is the limit; give a faster model, or a greater \
         `deadline` under [scoring]"
    )]
    Late {
        /// The model's name.
        model: String,
        /// The limit.
        deadline: Duration,
    },
    /// A run takes more memory than it may.
    #[error("model `{model}`: a run on {rows} records takes {bytes} bytes; {bytes_max} are the limit")]
    TooMuch {
        /// The model's name.
        model: String,
        /// How many records it ran on.
        rows: usize,
        /// By how much the process grew.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The system gives no thread.
    #[error("no thread for the deadline of models")]
    Thread(#[from] std::io::Error),
    /// A run on records failed. What ONNX Runtime says of it can quote their values, so it is told to nobody.
    #[error("model `{model}`: ONNX Runtime cannot run it on these records ({code})")]
    Run {
        /// The model's name.
        model: String,
        /// The kind of error, in ONNX Runtime's words.
        code: String,
    },
    /// ONNX Runtime failed, without a record.
    #[error("model `{model}`: {source}")]
    Runtime {
        /// The model's name.
        model: String,
        /// What ONNX Runtime said.
        source: ort::Error,
    },
}

/// The library that is found without a configuration: where it is, and what it says of itself.
///
/// # Errors
/// When there is none.
pub fn found() -> Result<String, Error> {
    Runtime::load(None)?;
    Ok(format!("{}, {}", library_path(None).display(), ort::info()))
}

/// The loaded library.
#[derive(Clone)]
pub struct Runtime {
    environment: Environment,
}

/// ONNX Runtime has one environment per process; this is what keeps it alive.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Finds and loads ONNX Runtime: the configured path, `ORT_DYLIB_PATH`, beside the binary, or the
    /// system's library path, in this order. The first load of a process holds.
    ///
    /// # Errors
    /// [`Error::Library`] when there is none.
    pub fn load(configured: Option<&Path>) -> Result<Self, Error> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = loaded.as_ref() {
            return Ok(runtime.clone());
        }
        let path = library_path(configured);
        // A bare name is looked for on the system's library path.
        if path.components().nth(1).is_some() || configured.is_some() {
            files::regular(&path).map_err(|error| Error::Library {
                tried: path.display().to_string(),
                message: format!("{:#}", anyhow::Error::from(error)),
            })?;
        }
        let fail = |message: String| Error::Library { tried: path.display().to_string(), message };
        let builder = ort::init_from(&path).map_err(|error| fail(error.to_string()))?;
        // It would write to stderr, and what it says of a run can quote values of records. What it says of a file it gives
        // back, too.
        let builder = builder.with_telemetry(false).with_logger(Arc::new(|_, _, _, _, _| {}));
        let environment = builder.build().map_err(|error| fail(error.to_string()))?;
        environment.set_log_level(ort::logging::LogLevel::Fatal);
        let runtime = Self { environment };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// The process's one environment, for sessions that are not a scorer's.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Loads a model, checks it against its declaration and tries it on one record and on `rows_max`.
    ///
    /// # Errors
    /// When the file cannot be used, has other inputs or outputs than declared, or a run takes too long or too much.
    pub fn scorer(&self, model: &Model, path: &Path, watch: &Watch, rows_max: usize) -> Result<Scorer, Error> {
        self.scorer_within(model, path, watch, rows_max, RUN_BYTES_MAX)
    }

    fn scorer_within(
        &self,
        model: &Model,
        path: &Path,
        watch: &Watch,
        rows_max: usize,
        bytes_max: u64,
    ) -> Result<Scorer, Error> {
        let bytes = read(model, path)?;
        let failed = |source| Error::Runtime { model: model.name.clone(), source };
        let before = resident_bytes();
        let session = self.session(&bytes).map_err(failed)?;
        drop(bytes);
        let elements =
            check::check(model, &session).map_err(|message| Error::Mismatch { model: model.name.clone(), message })?;
        let shelf = Shelf::new(model, elements, &session);
        let watched = watch.over().map_err(failed)?;
        let mut scorer = Scorer { session, shelf, model: model.clone(), watched, deadline: watch.deadline() };
        for rows in [1, rows_max] {
            scorer.try_on_zeros(rows)?;
            let bytes = resident_bytes().saturating_sub(before);
            if before > 0 && bytes > bytes_max {
                return Err(Error::TooMuch { model: model.name.clone(), rows, bytes, bytes_max });
            }
        }
        Ok(scorer)
    }

    fn session(&self, bytes: &[u8]) -> ort::Result<Session> {
        let builder = Session::builder(&self.environment)?;
        let builder = builder.with_intra_threads(1)?;
        let builder = builder.with_inter_threads(1)?;
        let builder = builder.with_intra_op_spinning(false)?;
        // A runtime before 1.25 does not know it and works out everything that it can.
        let folded = "optimization.constant_folding_max_output_size_in_bytes";
        let mut builder = builder.with_config_entry(folded, FOLDED_BYTES_MAX.to_string())?;
        builder.commit_from_memory(bytes)
    }
}

/// A model's file, if it is the declared one and can be given to ONNX Runtime.
///
/// # Errors
/// When it is not, or cannot.
pub fn read(model: &Model, path: &Path) -> Result<Vec<u8>, Error> {
    let name = || model.name.clone();
    let (bytes, _) = files::read(path, BYTES_MAX).map_err(|source| Error::File { model: name(), source })?;
    let found = hex(&Sha256::digest(&bytes));
    if found != model.sha256 {
        let declared = model.sha256.clone();
        return Err(Error::Hash { model: name(), path: path.to_owned(), found, declared });
    }
    file::inspect(&bytes).map_err(|source| Error::Unfit { model: name(), source })?;
    Ok(bytes)
}

/// The memory that the process holds, in bytes. Zero where the system does not say it.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|resident| resident.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

fn library_path(configured: Option<&Path>) -> PathBuf {
    const NAME: &str = if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };
    if let Some(path) = configured {
        return path.to_owned();
    }
    if let Some(path) = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let beside = env::current_exe().ok().and_then(|binary| Some(binary.parent()?.join(NAME)));
    beside.filter(|path| path.exists()).unwrap_or_else(|| NAME.into())
}
