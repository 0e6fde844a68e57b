//! What a witness does, as C2SP describes it (`tlog-witness`): it is shown a checkpoint, and a proof that the ledger only grew
//! since the last checkpoint that it cosigned. It remembers the new one on disk before it cosigns it. So there are no two
//! histories of one name under its key.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use super::cosignature::Cosigner;
use super::note::{self, Checkpoint, NoteError, Verifier, base64};
use super::tree::{Hash, is_consistent};
use crate::storage::{Error, FileSystem, create_directories, read_file, write_file_durably};

/// The longest request that is read.
pub const REQUEST_BYTES_MAX: usize = 32 << 10;
/// The most hashes of a proof.
const HASHES_MAX: usize = 63;
/// The largest file with a checkpoint.
const NOTE_BYTES_MAX: u64 = 16 << 10;

/// A request for a cosignature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The size of the ledger that was cosigned last, as the asker knows it.
    pub old: u64,
    /// The hashes that show that it only grew since then.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

impl Request {
    /// Its text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("old {}\n", self.old);
        self.proof.iter().for_each(|hash| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", base64(hash));
        });
        format!("{text}\n{}", self.checkpoint)
    }

    /// Reads it.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.lines();
        let number = lines.next()?.strip_prefix("old ")?;
        let old = number.parse::<u64>().ok().filter(|old| old.to_string() == number)?;
        let proof = lines.map(|line| BASE64.decode(line).ok()?.try_into().ok()).collect::<Option<Vec<Hash>>>()?;
        (proof.len() <= HASHES_MAX).then(|| Self { old, proof, checkpoint: checkpoint.to_owned() })
    }
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read.
    #[error("the request is none of C2SP's tlog-witness")]
    Malformed,
    /// The ledger is not one that this witness knows.
    #[error("this witness does not know the ledger")]
    UnknownLedger,
    /// The checkpoint is not signed with the key of its ledger.
    #[error("the checkpoint is not signed with the key that this witness has of the ledger")]
    NotSigned,
    /// The last checkpoint that was cosigned has another size than the asker knows.
    #[error("the last checkpoint that was cosigned has {0} entries")]
    OtherSize(u64),
    /// It has the same size, and another root: there are two ledgers of this name.
    #[error("a checkpoint of {0} entries with another root was cosigned: there are two ledgers of one name")]
    OtherRoot(u64),
    /// The proof does not show that the ledger only grew.
    #[error("the proof does not show that the ledger only grew")]
    NotGrown,
}

impl Refusal {
    /// The HTTP status that tells it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::NotSigned => 403,
            Self::UnknownLedger => 404,
            Self::OtherSize(_) | Self::OtherRoot(_) => 409,
            Self::NotGrown => 422,
        }
    }

    /// The size that a conflict tells.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::OtherSize(size) | Self::OtherRoot(size) => Some(*size),
            _ => None,
        }
    }
}

/// A witness at work: its key, the ledgers that it knows, and what it cosigned last of each, on disk.
pub struct Office {
    cosigner: Cosigner,
    ledgers: Vec<Verifier>,
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    /// One request at a time: what was cosigned last is looked at and replaced as one.
    one: Mutex<()>,
}

impl Office {
    /// A witness of ledgers that remembers in a directory.
    ///
    /// # Errors
    /// When the directory cannot be made, or what it remembers of one of the ledgers cannot be used.
    pub fn open(
        cosigner: Cosigner,
        ledgers: Vec<Verifier>,
        fs: Arc<dyn FileSystem>,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        create_directories(&*fs, directory)?;
        let office = Self { cosigner, ledgers, fs, directory: directory.to_owned(), one: Mutex::default() };
        for ledger in &office.ledgers {
            office.last(ledger)?;
        }
        Ok(office)
    }

    /// Where it remembers what it cosigned of a ledger. A name may hold slashes, so the file has its hash.
    fn path(&self, ledger: &Verifier) -> PathBuf {
        self.directory.join(note::hex(&Sha256::digest(ledger.name())))
    }

    /// The last checkpoint that was cosigned of a ledger; `None`: none was.
    fn last(&self, ledger: &Verifier) -> anyhow::Result<Option<Checkpoint>> {
        let path = self.path(ledger);
        let Some(bytes) = read_file(&*self.fs, &path, NOTE_BYTES_MAX)? else { return Ok(None) };
        let note = String::from_utf8_lossy(&bytes);
        let opened = ledger.open(&note).ok().filter(|_| self.cosigner.witness().cosigned(&note).is_some());
        // To begin anew would be to cosign a second history.
        let what = format!(
            "{} is not a checkpoint of `{}` that this witness cosigned: put it back from a copy",
            path.display(),
            ledger.name()
        );
        opened.map(Some).ok_or_else(|| anyhow::Error::msg(what))
    }

    /// Cosigns the checkpoint of a request, at a time in seconds since the Unix epoch: the line with the cosignature.
    ///
    /// # Errors
    /// Why it does not cosign, or that it cannot remember.
    pub fn add_checkpoint(&self, body: &[u8], time: u64) -> anyhow::Result<Result<String, Refusal>> {
        let request = std::str::from_utf8(body).ok().and_then(Request::decode);
        let Some(Request { old, proof, checkpoint: note }) = request else { return Ok(Err(Refusal::Malformed)) };
        let Some((text, _)) = note::split(&note) else { return Ok(Err(Refusal::Malformed)) };
        let Some(ledger) = self.ledgers.iter().find(|ledger| text.lines().next() == Some(ledger.name())) else {
            return Ok(Err(Refusal::UnknownLedger));
        };
        let checkpoint = match ledger.open(&note) {
            Ok(checkpoint) => checkpoint,
            Err(NoteError::NotSigned(_)) => return Ok(Err(Refusal::NotSigned)),
            Err(NoteError::Malformed | NoteError::OtherOrigin(_)) => return Ok(Err(Refusal::Malformed)),
        };
        if old > checkpoint.size {
            return Ok(Err(Refusal::Malformed));
        }
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.last(ledger)?;
        let size = last.as_ref().map_or(0, |last| last.size);
        if old != size {
            return Ok(Err(Refusal::OtherSize(size)));
        }
        if let Some(last) = &last {
            if last.size == checkpoint.size && last.root != checkpoint.root {
                return Ok(Err(Refusal::OtherRoot(size)));
            }
            if !is_consistent((last.size, &last.root), (checkpoint.size, &checkpoint.root), &proof) {
                return Ok(Err(Refusal::NotGrown));
            }
        } else if !proof.is_empty() {
            return Ok(Err(Refusal::NotGrown));
        }
        let line = self.cosigner.cosign(&text, time);
        self.remember(ledger, &ledger.alone(&note).unwrap_or_default(), &line)?;
        Ok(Ok(line))
    }

    /// Remembers what it is about to cosign, with its own line: on disk before the line leaves.
    fn remember(&self, ledger: &Verifier, signed: &str, line: &str) -> Result<(), Error> {
        write_file_durably(&*self.fs, &self.path(ledger), format!("{signed}{line}").as_bytes())
    }
}
