//! Signed notes and checkpoints, as C2SP describes them (`signed-note`, `tlog-checkpoint`): a text, an empty line, and
//! signatures. Ed25519.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::tree::Hash;
use crate::domain::binary::hex;
use crate::domain::name::DestinationName;

/// The kind of the keys and signatures of ledgers: Ed25519.
const ED25519_KIND: u8 = 1;
/// What a line with a signature begins with.
const DASH: &str = "\u{2014} ";
/// The longest name of a ledger.
const NAME_MAX: usize = 200;

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is spelled otherwise.
    #[error("it is no key of a signed note (C2SP) with Ed25519")]
    Malformed,
    /// Its bytes do not go with the hash in it.
    #[error("it is damaged: its hash does not go with the rest")]
    Damaged,
    /// Its name is none.
    #[error("its name has a space, a `+` or a letter that is not ASCII, or more than {NAME_MAX} letters")]
    Name,
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// Why a note says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is no signed note, or no checkpoint.
    #[error("it is no signed checkpoint")]
    Malformed,
    /// The key did not sign it.
    #[error("it is not signed with the key of `{0}`")]
    NotSigned(String),
    /// It is that of another ledger.
    #[error("it is a checkpoint of `{0}`, which is another ledger")]
    OtherOrigin(String),
}

/// Whether a text can name a ledger.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+')
}

/// The id of a key of a kind.
pub(super) fn key_id(name: &str, kind: u8, public: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(name).chain_update([b'\n', kind]).chain_update(public).finalize();
    let mut id = [0; 4];
    id.iter_mut().zip(digest.as_slice()).for_each(|(to, from)| *to = *from);
    id
}

/// A public key, as `NAME+ID+KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    key: [u8; 32],
}

impl Verifier {
    /// Reads a key.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, key) = parts(text.trim(), ED25519_KIND)?;
        let read = Self { name: name.to_owned(), id: key_id(name, ED25519_KIND, &*key), key: *key };
        if hex(&read.id) == id { Ok(read) } else { Err(KeyError::Damaged) }
    }

    /// The name of the ledger that it belongs to.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a checkpoint says that was signed with this key.
    ///
    /// # Errors
    /// When it is none, or was not signed with it.
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let (text, signatures) = split(note).ok_or(NoteError::Malformed)?;
        let checkpoint = Checkpoint::parse(&text).ok_or(NoteError::Malformed)?;
        if checkpoint.origin != self.name {
            return Err(NoteError::OtherOrigin(checkpoint.origin));
        }
        if !signatures.ends_with('\n') || self.line(&text, signatures).is_none() {
            return Err(NoteError::NotSigned(self.name.clone()));
        }
        Ok(checkpoint)
    }

    /// The line with the signature of a text, among others.
    fn line<'n>(&self, text: &str, signatures: &'n str) -> Option<&'n str> {
        signatures.lines().find(|line| {
            let Some(Line { name, id, signature }) = Line::parse(line) else { return false };
            let key = UnparsedPublicKey::new(&ED25519, self.key);
            name == self.name && id == self.id && key.verify(text.as_bytes(), &signature).is_ok()
        })
    }

    /// A note that was signed with this key, with that signature only.
    pub(super) fn alone(&self, note: &str) -> Option<String> {
        let (text, signatures) = split(note)?;
        let line = self.line(&text, signatures)?;
        Some(format!("{text}\n{line}\n"))
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&public(&self.name, &self.id, ED25519_KIND, &self.key))
    }
}

/// A public key as a text.
pub(super) fn public(name: &str, id: &[u8; 4], kind: u8, key: &[u8; 32]) -> String {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(key);
    format!("{name}+{}+{}", hex(id), BASE64.encode(bytes))
}

/// The text of a note, with its last line's end, and the lines of signatures.
pub(super) fn split(note: &str) -> Option<(String, &str)> {
    let (text, signatures) = note.split_once("\n\n")?;
    Some((format!("{text}\n"), signatures))
}

/// A line with a signature.
pub(super) struct Line<'n> {
    /// Whose it is.
    pub(super) name: &'n str,
    /// The id of the key.
    pub(super) id: [u8; 4],
    pub(super) signature: Vec<u8>,
}

impl<'n> Line<'n> {
    /// Reads it.
    pub(super) fn parse(line: &'n str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
        let bytes = BASE64.decode(signature).ok()?;
        let (id, signature) = bytes.split_first_chunk::<4>()?;
        Some(Self { name, id: *id, signature: signature.to_vec() })
    }
}

/// The line with a signature, whose first bytes are the id of the key.
pub(super) fn line(name: &str, signature: &[u8]) -> String {
    format!("{DASH}{name} {}\n", BASE64.encode(signature))
}

/// The name, the id and the bytes of a key of a kind.
pub(super) fn parts(text: &str, kind: u8) -> Result<(&str, &str, Zeroizing<[u8; 32]>), KeyError> {
    let mut parts = text.splitn(3, '+');
    let mut next = || parts.next().ok_or(KeyError::Malformed);
    let (name, id, key) = (next()?, next()?, next()?);
    if !is_name(name) {
        return Err(KeyError::Name);
    }
    let bytes = Zeroizing::new(BASE64.decode(key).map_err(|_| KeyError::Malformed)?);
    let key = bytes.strip_prefix(&[kind]).ok_or(KeyError::Malformed)?;
    let key = <[u8; 32]>::try_from(key).map_err(|_| KeyError::Malformed)?;
    Ok((name, id, Zeroizing::new(key)))
}

/// A secret key: what signs, and what salts come from.
pub struct Signer {
    verifier: Verifier,
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

/// What the text of a secret key begins with.
pub(super) const PRIVATE: &str = "PRIVATE+KEY+";

/// A secret key as a text, for its file.
pub(super) fn private(name: &str, id: &[u8; 4], kind: u8, seed: &[u8; 32]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(vec![kind]);
    bytes.extend_from_slice(seed);
    Zeroizing::new(format!("{PRIVATE}{name}+{}+{}\n", hex(id), BASE64.encode(bytes.as_slice())))
}

/// The seed of a new key for a name.
pub(super) fn seed(name: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    if !is_name(name) {
        return Err(KeyError::Name);
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|_| KeyError::NoRandom)?;
    Ok(seed)
}

impl Signer {
    /// A new key for a ledger of this name.
    ///
    /// # Errors
    /// When the system gives no random numbers, or the name is none.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        Self::new(name, seed(name)?)
    }

    /// Reads a key: `PRIVATE+KEY+NAME+ID+SEED`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim().strip_prefix(PRIVATE).ok_or(KeyError::Malformed)?;
        let (name, id, seed) = parts(text, ED25519_KIND)?;
        let read = Self::new(name, seed)?;
        if hex(&read.verifier.id) == id { Ok(read) } else { Err(KeyError::Damaged) }
    }

    fn new(name: &str, seed: Zeroizing<[u8; 32]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| KeyError::Malformed)?;
        let key = <[u8; 32]>::try_from(pair.public_key().as_ref()).map_err(|_| KeyError::Malformed)?;
        let verifier = Verifier { name: name.to_owned(), id: key_id(name, ED25519_KIND, &key), key };
        Ok(Self { verifier, seed, pair })
    }

    /// The key as a text, for its file.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<String> {
        let Verifier { name, id, .. } = &self.verifier;
        private(name, id, ED25519_KIND, &self.seed)
    }

    /// The public key.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The signed checkpoint of a tree.
    #[must_use]
    pub fn sign(&self, size: u64, root: Hash) -> String {
        self.sign_text(&Checkpoint { origin: self.verifier.name.clone(), size, root }.text())
    }

    /// The signed note of a text.
    pub(super) fn sign_text(&self, text: &str) -> String {
        let mut signature = self.verifier.id.to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n{}", line(&self.verifier.name, &signature))
    }

    /// The salt of the commitment to a release at a destination: the same each time, and known to nobody without the key.
    #[must_use]
    pub fn salt(&self, release: &str, destination: &DestinationName) -> [u8; 32] {
        let info = [b"bailiwick ledger salt 1\0".as_slice(), destination.as_bytes(), b"\0", release.as_bytes()];
        let mut salt = [0; 32];
        // 32 bytes are never too many.
        let _ = Hkdf::<Sha256>::new(None, self.seed.as_slice()).expand_multi_info(&info, &mut salt);
        salt
    }
}

/// A tree's size and root, under the name of its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger's name.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root of the tree of these entries.
    pub root: Hash,
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (origin, number, root) = (lines.next()?.to_owned(), lines.next()?, lines.next()?);
        let root = BASE64.decode(root).ok()?.try_into().ok()?;
        let read = Self { origin, size: number.parse().ok()?, root };
        // What an extension may say is not known here, and is signed as well.
        text.starts_with(&read.text()).then_some(read)
    }
}

/// A hash as it stands in notes and proofs.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new("example.org/ledger", Zeroizing::new([7; 32])).unwrap()
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let signer = signer();
        assert_eq!(Signer::parse(&signer.secret()).unwrap().verifier(), signer.verifier());
        let text = signer.verifier().to_string();
        assert_eq!(Verifier::parse(&text).unwrap(), *signer.verifier());
        assert_eq!(Verifier::parse(&text.replace("ledger", "other")).unwrap_err(), KeyError::Damaged);
        for malformed in ["", "a+b", "a b+00000000+AAAA", "PRIVATE+KEY+a+00000000+AQ=="] {
            assert!(Verifier::parse(malformed).is_err(), "{malformed}");
            assert!(Signer::parse(malformed).is_err(), "{malformed}");
        }
        assert!(Signer::generate("a+b").is_err() && Signer::generate("").is_err());
        assert_ne!(Signer::generate("a").unwrap().verifier(), Signer::generate("a").unwrap().verifier());
    }

    #[test]
    fn every_flipped_bit_of_a_checkpoint_is_found() {
        let note = signer().sign(41, [9; 32]);
        assert_eq!(note, include_str!("../../tests/golden/ledger-checkpoint-1"));
        let verifier = signer().verifier().clone();
        let opened = verifier.open(&note).unwrap();
        assert_eq!((opened.size, opened.root, opened.origin.as_str()), (41, [9; 32], "example.org/ledger"));
        for bit in 0..note.len() * 8 {
            let mut bytes = note.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(verifier.open(&text).is_err(), "bit {bit}: {text}");
            }
        }
        for end in 0..note.len() {
            assert!(note.get(..end).is_none_or(|cut| verifier.open(cut).is_err()), "cut at {end}");
        }
    }

    #[test]
    fn each_release_has_a_salt_of_its_own() {
        let signer = signer();
        let salt = |release: &str, destination: &str| signer.salt(release, &destination.parse().unwrap());
        assert_eq!(salt("a", "b"), salt("a", "b"));
        let salts = [("a", "b"), ("b", "a"), ("", "ab"), ("ab", "a"), ("a", "c")].map(|(a, b)| salt(a, b));
        let distinct: std::collections::BTreeSet<_> = salts.iter().collect();
        assert_eq!(distinct.len(), salts.len());
    }
}
