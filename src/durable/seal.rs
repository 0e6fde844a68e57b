//! The columns of a batch, sealed: readable with the keys of all regimes that apply to its records, and
//! erased when one of these keys is.
//!
//! AES-256-GCM-SIV (RFC 8452) under a random nonce of 12 bytes; should one come twice, no more is given away than that
//! two batches are the same. The key is HKDF-SHA256 over the regimes' keys in the order of the regimes' names; the names stand in `info`. What
//! stands before the columns in the entry is authenticated with them; the order of entries is not. A batch that cannot be
//! sealed is refused, and never written in the clear.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::{Aes256GcmSiv, Key as CipherKey, KeyInit, Nonce, Tag};
use hkdf::HkdfExtract;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a regime's key.
pub const KEY_BYTES: usize = 32;
/// Bytes that sealing adds to the columns: the nonce before them, the tag behind.
pub const ADDED_BYTES: usize = NONCE_BYTES + TAG_BYTES;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const INFO: &[u8] = b"bailiwick journal columns 1";

/// A regime's key. It cannot be printed, and is overwritten when it is dropped.
pub struct Key(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: Box<Zeroizing<[u8; KEY_BYTES]>>) -> Self {
        Self(bytes)
    }

    /// Whether it is the same key as another.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        // Both are this process's own: nobody measures the time that this takes.
        self.0.as_slice() == other.0.as_slice()
    }
}

/// The keys of regimes, by the regimes' ids. Without any, nothing is sealed.
#[derive(Default)]
pub struct Keys(BTreeMap<String, Key>);

impl Keys {
    /// Whether there are none: nothing is sealed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These keys.
    #[must_use]
    pub fn new(keys: BTreeMap<String, Key>) -> Self {
        Self(keys)
    }

    /// Whether these are the same keys of the same regimes.
    #[must_use]
    pub fn are(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|(regime, key)| other.0.get(regime).is_some_and(|other| other.is(key)))
    }

    fn cipher<'r>(&self, regimes: impl Iterator<Item = &'r str>) -> Option<Aes256GcmSiv> {
        let mut extract = HkdfExtract::<Sha256>::new(None);
        let mut info = INFO.to_vec();
        for regime in regimes {
            extract.input_ikm(self.0.get(regime)?.0.as_slice());
            info.extend_from_slice(&(regime.len() as u64).to_le_bytes());
            info.extend_from_slice(regime.as_bytes());
        }
        let (mut extracted, expand) = extract.finalize();
        extracted.as_mut_slice().zeroize();
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        expand.expand(&info, &mut *key).ok()?;
        Some(Aes256GcmSiv::new(<&CipherKey<Aes256GcmSiv>>::from(&*key)))
    }
}

/// Why columns cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// A regime has no key.
    #[error("a regime of {0:?} has no key")]
    NoKey(BTreeSet<String>),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// The columns are too long.
    #[error("the columns are too long")]
    TooLong,
}

/// Why columns cannot be read: they are erased.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sealed {
    /// These regimes have no key.
    KeyMissing(BTreeSet<String>),
    /// All of these regimes have keys, and one is not the one that it was, or the entry is not.
    DoesNotOpen(BTreeSet<String>),
}

/// Seals and opens.
pub struct Sealer {
    keys: Arc<Keys>,
    /// By the regimes whose keys are in them.
    ciphers: BTreeMap<BTreeSet<String>, Aes256GcmSiv>,
}

impl Sealer {
    /// A sealer with keys.
    #[must_use]
    pub fn new(keys: Arc<Keys>) -> Self {
        Self { keys, ciphers: BTreeMap::new() }
    }

    /// Whether it seals at all.
    #[must_use]
    pub fn seals(&self) -> bool {
        !self.keys.0.is_empty()
    }

    fn cipher(&mut self, regimes: &BTreeSet<String>) -> Option<&Aes256GcmSiv> {
        // An entry that says it is sealed under no regime would be under a key that everybody knows.
        if !self.ciphers.contains_key(regimes) && !regimes.is_empty() {
            let cipher = self.keys.cipher(regimes.iter().map(String::as_str))?;
            self.ciphers.insert(regimes.clone(), cipher);
        }
        self.ciphers.get(regimes)
    }

    /// Seals the end of an entry in place: before `head` ends stands what is authenticated, then room for the
    /// nonce ([`Sealer::make_room`]), then the columns.
    ///
    /// # Errors
    /// When a key is missing or the system gives no random numbers. The columns are readable still.
    pub fn seal(&mut self, regimes: &BTreeSet<String>, head: usize, entry: &mut Vec<u8>) -> Result<(), Unsealable> {
        let cipher = self.cipher(regimes).ok_or_else(|| Unsealable::NoKey(regimes.clone()))?;
        let (head, rest) = entry.split_at_mut_checked(head).ok_or(Unsealable::TooLong)?;
        let (nonce, columns) = rest.split_first_chunk_mut::<NONCE_BYTES>().ok_or(Unsealable::TooLong)?;
        getrandom::fill(nonce).map_err(|_| Unsealable::NoRandom)?;
        let tag = cipher.encrypt_inout_detached(<&Nonce>::from(&*nonce), head, columns.into());
        entry.extend_from_slice(&tag.map_err(|_| Unsealable::TooLong)?);
        Ok(())
    }

    /// Room for the nonce, to be put behind the head.
    #[must_use]
    pub fn make_room() -> [u8; NONCE_BYTES] {
        [0; NONCE_BYTES]
    }

    /// Opens what stands behind an entry's head.
    ///
    /// # Errors
    /// When a key is missing, or it does not open.
    pub fn open(&mut self, regimes: &BTreeSet<String>, head: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Sealed> {
        let keys = &self.keys.0;
        let missing = || regimes.iter().filter(|regime| !keys.contains_key(*regime)).cloned().collect::<BTreeSet<_>>();
        let missing = missing();
        if !missing.is_empty() {
            return Err(Sealed::KeyMissing(missing));
        }
        self.open_with_keys(regimes, head, sealed).ok_or_else(|| Sealed::DoesNotOpen(regimes.clone()))
    }

    fn open_with_keys(&mut self, regimes: &BTreeSet<String>, head: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (sealed, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
        let mut columns = sealed.to_vec();
        let cipher = self.cipher(regimes)?;
        let buffer = columns.as_mut_slice().into();
        cipher.decrypt_inout_detached(<&Nonce>::from(nonce), head, buffer, <&Tag>::from(tag)).ok()?;
        Some(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"till-7, payments";
    const COLUMNS: &[u8] = b"card-002284";

    fn set(regimes: &[&str]) -> BTreeSet<String> {
        regimes.iter().map(ToString::to_string).collect()
    }

    fn sealer(keys: &[(&str, u8)]) -> Sealer {
        let key = |byte| Key::new(Box::new(Zeroizing::new([byte; KEY_BYTES])));
        let keys = keys.iter().map(|&(regime, byte)| (regime.to_owned(), key(byte)));
        Sealer::new(Arc::new(Keys::new(keys.collect())))
    }

    fn sealed(sealer: &mut Sealer, regimes: &[&str]) -> Vec<u8> {
        let mut entry = [HEAD, &Sealer::make_room(), COLUMNS].concat();
        sealer.seal(&set(regimes), HEAD.len(), &mut entry).unwrap();
        assert_eq!(entry.len(), HEAD.len() + COLUMNS.len() + ADDED_BYTES);
        entry.split_off(HEAD.len())
    }

    #[test]
    fn what_was_sealed_opens_and_every_nonce_is_another() {
        let mut sealer = sealer(&[("a", 1), ("b", 2)]);
        let (one, two) = (sealed(&mut sealer, &["a", "b"]), sealed(&mut sealer, &["a", "b"]));
        assert_ne!(one, two);
        assert!(!one.windows(COLUMNS.len()).any(|window| window == COLUMNS));
        assert_eq!(sealer.open(&set(&["a", "b"]), HEAD, &one).unwrap(), COLUMNS);
        assert_eq!(sealer.open(&set(&["a", "b"]), HEAD, &two).unwrap(), COLUMNS);
    }

    #[test]
    fn a_missing_key_is_named_and_a_wrong_one_does_not_open() {
        let under = set(&["a", "b"]);
        let bytes = sealed(&mut sealer(&[("a", 1), ("b", 2)]), &["a", "b"]);
        assert_eq!(sealer(&[("b", 2)]).open(&under, HEAD, &bytes), Err(Sealed::KeyMissing(set(&["a"]))));
        assert_eq!(sealer(&[]).open(&under, HEAD, &bytes), Err(Sealed::KeyMissing(under.clone())));
        for wrong in [[("a", 1), ("b", 3)], [("a", 2), ("b", 1)], [("a", 0), ("b", 2)]] {
            assert_eq!(sealer(&wrong).open(&under, HEAD, &bytes), Err(Sealed::DoesNotOpen(under.clone())));
        }
        // Another set of regimes is another key, even of the same bytes.
        assert!(sealer(&[("a", 1), ("c", 2)]).open(&set(&["a", "c"]), HEAD, &bytes).is_err());
    }

    #[test]
    fn nothing_is_sealed_or_opened_under_no_regime_or_without_a_key() {
        let mut sealer = sealer(&[("a", 1)]);
        let mut entry = [HEAD, &Sealer::make_room(), COLUMNS].concat();
        for regimes in [set(&[]), set(&["a", "b"])] {
            assert_eq!(sealer.seal(&regimes, HEAD.len(), &mut entry), Err(Unsealable::NoKey(regimes.clone())));
        }
        assert_eq!(sealer.open(&set(&[]), HEAD, &[0; 64]), Err(Sealed::DoesNotOpen(set(&[]))));
    }

    #[test]
    fn a_changed_byte_or_head_or_a_cut_is_noticed() {
        let (mut sealer, under) = (sealer(&[("a", 1)]), set(&["a"]));
        let bytes = sealed(&mut sealer, &["a"]);
        let does_not_open = Err(Sealed::DoesNotOpen(under.clone()));
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert_eq!(sealer.open(&under, HEAD, &changed), does_not_open, "byte {position}");
            assert_eq!(sealer.open(&under, HEAD, &bytes[..position]), does_not_open, "{position} bytes");
        }
        assert_eq!(sealer.open(&under, b"till-8, payments", &bytes), does_not_open);
    }
}
