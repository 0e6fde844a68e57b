//! What a witness does, as C2SP describes it (`tlog-witness`): it is shown a checkpoint, and a proof that the ledger only grew
//! since the last checkpoint that it cosigned. It remembers the new one on disk before it cosigns it. So there are no two
//! histories of one name under its key.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::cosignature::Cosigner;
use super::note::{self, Checkpoint, NoteError, Verifier, base64};
use super::tree::{Hash, Root, is_consistent};

mod memory;

pub use memory::Memory;
use memory::NOTE_BYTES_MAX;

/// The longest request that is read.
pub const REQUEST_BYTES_MAX: usize = 32 << 10;
/// The most hashes of a proof.
const HASHES_MAX: usize = 63;

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
    /// The checkpoint is too long to be remembered.
    #[error("the signed checkpoint has more than {NOTE_BYTES_MAX} bytes with its cosignature")]
    TooLong,
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
            Self::Malformed | Self::TooLong => 400,
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

/// A witness at work: its key, the ledgers that it knows, and what it cosigned last of each.
pub struct Office {
    cosigner: Cosigner,
    ledgers: Vec<Verifier>,
    /// One request at a time: what was cosigned last is looked at and replaced as one.
    memory: Mutex<Memory>,
}

impl Office {
    /// A witness of ledgers. One whose memory cannot be used is not cosigned until it is put back; the log says so.
    #[must_use]
    pub fn open(cosigner: Cosigner, ledgers: Vec<Verifier>, mut memory: Memory) -> Self {
        for ledger in &ledgers {
            if let Err(error) = memory.begin(ledger, cosigner.witness()) {
                let (ledger, error) = (ledger.name(), format!("{error:#}"));
                tracing::error!(ledger, error, "the ledger is not cosigned: what was cosigned of it cannot be used");
            }
        }
        Self { cosigner, ledgers, memory: Mutex::new(memory) }
    }

    /// The ledger that signed a note, and what the note says.
    fn opened(&self, note: &str, name: &str) -> Result<(&Verifier, Checkpoint), Refusal> {
        let mut refusal = Refusal::UnknownLedger;
        // A ledger that follows a retired one has its name, and another key.
        for ledger in self.ledgers.iter().filter(|ledger| ledger.name() == name) {
            match ledger.open(note) {
                Ok(checkpoint) => return Ok((ledger, checkpoint)),
                Err(NoteError::NotSigned(_)) => refusal = Refusal::NotSigned,
                Err(NoteError::Malformed | NoteError::OtherOrigin(_)) => return Err(Refusal::Malformed),
            }
        }
        Err(refusal)
    }

    /// Cosigns the checkpoint of a request, at a time in seconds since the Unix epoch: the line with the cosignature.
    ///
    /// # Errors
    /// Why it does not cosign, or that it cannot remember.
    pub fn add_checkpoint(&self, body: &[u8], time: u64) -> anyhow::Result<Result<String, Refusal>> {
        let request = std::str::from_utf8(body).ok().and_then(Request::decode);
        let Some(Request { old, proof, checkpoint: note }) = request else { return Ok(Err(Refusal::Malformed)) };
        let Some((text, _)) = note::split(&note) else { return Ok(Err(Refusal::Malformed)) };
        let (ledger, checkpoint) = match self.opened(&note, text.lines().next().unwrap_or_default()) {
            Ok(opened) => opened,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if old > checkpoint.size {
            return Ok(Err(Refusal::Malformed));
        }
        let line = self.cosigner.cosign(&text, time);
        let cosigned = format!("{}{line}", ledger.alone(&note).unwrap_or_default());
        if cosigned.len() > NOTE_BYTES_MAX {
            return Ok(Err(Refusal::TooLong));
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let last = memory.last(ledger, self.cosigner.witness())?;
        let size = last.as_ref().map_or(0, |last| last.size);
        if old != size {
            return Ok(Err(Refusal::OtherSize(size)));
        }
        if let Some(last) = &last {
            if last.size == checkpoint.size && last.root != checkpoint.root {
                return Ok(Err(Refusal::OtherRoot(size)));
            }
            let was = Root { size: last.size, hash: &last.root };
            if !is_consistent(was, Root { size: checkpoint.size, hash: &checkpoint.root }, &proof) {
                return Ok(Err(Refusal::NotGrown));
            }
        } else if !proof.is_empty() {
            return Ok(Err(Refusal::NotGrown));
        }
        // It is on disk before the line leaves.
        if !memory.has(ledger, &checkpoint) {
            memory.remember(ledger, checkpoint, &cosigned)?;
        }
        Ok(Ok(line))
    }
}
