//! ONNX Runtime: finding the library, checking a model against its declaration, scoring.
//!
//! A [`Scorer`] belongs to one worker thread and runs on it: one intra-op thread, no pools. It takes only
//! [`Resident`] records.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{ArrayRef, Float32Array, Int64Array};
use ort::environment::Environment;
use ort::session::Session;
use sha2::{Digest, Sha256};

use crate::domain::model::{Model, OutputKind};
use crate::domain::policy::Resident;
use crate::files;

mod check;
mod features;
mod tensors;

use tensors::Shelf;

/// The largest model, in bytes. One with all its weights inside cannot be larger than 2 GiB.
pub const BYTES_MAX: u64 = 1 << 30;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library was not found or is not ONNX Runtime.
    #[error(
        "ONNX Runtime was not found at {tried}: {message}\n  \
         set `onnxruntime` under [scoring] or ORT_DYLIB_PATH to libonnxruntime.so (1.24 or later); `make demo` and `make test` fetch one"
    )]
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
    /// ONNX Runtime failed.
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
        let environment = builder.with_telemetry(false).build().map_err(|error| fail(error.to_string()))?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        let runtime = Self { environment };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// The process's one environment, for sessions that are not a scorer's.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Loads a model and checks it against its declaration.
    ///
    /// # Errors
    /// When the file is missing, is another one than declared, is no model, or has other inputs or outputs
    /// than declared.
    pub fn scorer(&self, model: &Model, path: &Path) -> Result<Scorer, Error> {
        let (bytes, _) =
            files::read(path, BYTES_MAX).map_err(|source| Error::File { model: model.name.clone(), source })?;
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != model.sha256 {
            let declared = model.sha256.clone();
            return Err(Error::Hash { model: model.name.clone(), path: path.to_owned(), found, declared });
        }
        let session = self.session(&bytes).map_err(|source| Error::Runtime { model: model.name.clone(), source })?;
        let elements =
            check::check(model, &session).map_err(|message| Error::Mismatch { model: model.name.clone(), message })?;
        let shelf = Shelf::new(model, elements, &session);
        Ok(Scorer { session, shelf, model: model.clone() })
    }

    fn session(&self, bytes: &[u8]) -> ort::Result<Session> {
        let builder = Session::builder(&self.environment)?;
        let builder = builder.with_intra_threads(1)?;
        let builder = builder.with_inter_threads(1)?;
        let mut builder = builder.with_intra_op_spinning(false)?;
        builder.commit_from_memory(bytes)
    }
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

/// A model on one worker thread.
pub struct Scorer {
    session: Session,
    shelf: Shelf,
    model: Model,
}

impl Scorer {
    /// Scores batches of the model's stream together. One column per declared output, with the records of
    /// all batches one after the other.
    ///
    /// # Errors
    /// When ONNX Runtime fails, or an output has not one row per record.
    pub fn score(&mut self, batches: &[&Resident]) -> Result<Vec<ArrayRef>, Error> {
        let rows = batches.iter().map(|resident| resident.batch().rows()).sum();
        let name = &self.model.name;
        let failed = |source| Error::Runtime { model: name.clone(), source };
        let mut tensors = self.shelf.take(&self.model, rows).map_err(failed)?;
        tensors.fill(&self.model.inputs, batches).map_err(failed)?;
        let inputs = tensors.inputs(&self.model.inputs);
        let mut outputs = self.session.run_with_options(inputs, &tensors.options).map_err(failed)?;
        let mismatch = |message: String| Error::Mismatch { model: name.clone(), message };
        let columns = self.model.outputs.iter().map(|declared| {
            let output =
                outputs.get(&declared.tensor).ok_or_else(|| mismatch(format!("no output `{}`", declared.tensor)))?;
            let column: ArrayRef = match declared.kind {
                OutputKind::Score => {
                    let (_, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
                    let values = pick(values, rows, declared.column);
                    Arc::new(Float32Array::from(values.ok_or_else(|| mismatch(shape(&declared.tensor)))?))
                }
                OutputKind::Label => {
                    let (_, values) = output.try_extract_tensor::<i64>().map_err(failed)?;
                    let values = pick(values, rows, declared.column);
                    Arc::new(Int64Array::from(values.ok_or_else(|| mismatch(shape(&declared.tensor)))?))
                }
            };
            Ok(column)
        });
        let columns = columns.collect::<Result<_, Error>>()?;
        let reusable = self.shelf.reusable(&tensors, &mut outputs);
        drop(outputs);
        self.shelf.keep(tensors, reusable).map_err(failed)?;
        Ok(columns)
    }
}

fn shape(tensor: &str) -> String {
    format!("output `{tensor}` has not one row per record")
}

/// One column of a `[rows, width]` tensor.
fn pick<T: Copy>(values: &[T], rows: usize, column: usize) -> Option<Vec<T>> {
    let width = values.len().checked_div(rows)?;
    if width * rows != values.len() || column >= width {
        return None;
    }
    if width == 1 {
        return Some(values.to_vec());
    }
    Some(values.iter().skip(column).step_by(width).copied().collect())
}
