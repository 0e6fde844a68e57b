//! Cosignatures of witnesses, as C2SP describes them (`tlog-cosignature`): a timestamped Ed25519 signature of a checkpoint, by
//! somebody who has verified that the ledger only grew since the last one that they signed.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::note::{self, KeyError, Line};
use crate::domain::binary::hex;

/// The kind of keys and signatures of witnesses: Ed25519 with a timestamp.
const KIND: u8 = 4;

/// A witness, as others know it: `NAME+ID+KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    name: String,
    id: [u8; 4],
    key: [u8; 32],
}

impl Witness {
    /// Reads a key.
    ///
    /// # Errors
    /// When it is none of a witness.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, key) = note::parts(text.trim(), KIND)?;
        let read = Self { name: name.to_owned(), id: note::key_id(name, KIND, &*key), key: *key };
        if hex(&read.id) == id { Ok(read) } else { Err(KeyError::Damaged) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id, as it names a file.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// Whether another witness has the same key, under whatever name.
    #[must_use]
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// When it cosigned a note, in seconds since the Unix epoch, and the line that says so. `None`: it did not.
    #[must_use]
    pub fn cosigned<'n>(&self, note: &'n str) -> Option<(u64, &'n str)> {
        let (text, signatures) = note::split(note)?;
        self.cosigned_of(&text, signatures)
    }

    /// The same, of the text of a note and lines of signatures.
    #[must_use]
    pub fn cosigned_of<'n>(&self, text: &str, signatures: &'n str) -> Option<(u64, &'n str)> {
        signatures.lines().find_map(|line| {
            let Line { name, id, signature } = Line::parse(line)?;
            let (time, signature) = signature.split_first_chunk::<8>()?;
            let time = u64::from_be_bytes(*time);
            let key = UnparsedPublicKey::new(&ED25519, self.key);
            let is_by_it = name == self.name && id == self.id;
            (is_by_it && key.verify(signed(time, text).as_bytes(), signature).is_ok()).then_some((time, line))
        })
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&note::public(&self.name, &self.id, KIND, &self.key))
    }
}

/// What is signed at a time.
fn signed(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// The secret key of a witness.
pub struct Cosigner {
    witness: Witness,
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

impl Cosigner {
    /// A new key for a witness of this name.
    ///
    /// # Errors
    /// When the system gives no random numbers, or the name is none.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        Self::new(name, note::seed(name)?)
    }

    /// Reads a key: `PRIVATE+KEY+NAME+ID+SEED`.
    ///
    /// # Errors
    /// When it is none of a witness.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim().strip_prefix(note::PRIVATE).ok_or(KeyError::Malformed)?;
        let (name, id, seed) = note::parts(text, KIND)?;
        let read = Self::new(name, seed)?;
        if hex(&read.witness.id) == id { Ok(read) } else { Err(KeyError::Damaged) }
    }

    fn new(name: &str, seed: Zeroizing<[u8; 32]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| KeyError::Malformed)?;
        let key = <[u8; 32]>::try_from(pair.public_key().as_ref()).map_err(|_| KeyError::Malformed)?;
        let witness = Witness { name: name.to_owned(), id: note::key_id(name, KIND, &key), key };
        Ok(Self { witness, seed, pair })
    }

    /// The key as a text, for its file.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<String> {
        note::private(&self.witness.name, &self.witness.id, KIND, &self.seed)
    }

    /// The public key.
    #[must_use]
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// The line with the cosignature of a note's text, at a time in seconds since the Unix epoch.
    #[must_use]
    pub(super) fn cosign(&self, text: &str, time: u64) -> String {
        let mut signature = self.witness.id.to_vec();
        signature.extend_from_slice(&time.to_be_bytes());
        signature.extend_from_slice(self.pair.sign(signed(time, text).as_bytes()).as_ref());
        note::line(&self.witness.name, &signature)
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::Signer;
    use super::*;

    fn cosigner() -> Cosigner {
        Cosigner::new("w.example.org", Zeroizing::new([9; 32])).unwrap()
    }

    #[test]
    fn the_example_of_the_specification_is_parsed() {
        // Its key is not given there, so that only its form can be looked at.
        let line = "\u{2014} witness.example.com/w1 \
                    jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
        let Line { name, signature, .. } = Line::parse(line).unwrap();
        let (time, signature) = signature.split_first_chunk::<8>().unwrap();
        assert_eq!((name, u64::from_be_bytes(*time), signature.len()), ("witness.example.com/w1", 1_679_315_147, 64));
    }

    #[test]
    fn keys_of_witnesses_are_no_keys_of_ledgers() {
        let (cosigner, signer) = (cosigner(), Signer::generate("a").unwrap());
        assert_eq!(Cosigner::parse(&cosigner.secret()).unwrap().witness(), cosigner.witness());
        let text = cosigner.witness().to_string();
        assert_eq!(Witness::parse(&text).unwrap(), *cosigner.witness());
        assert_eq!(note::Verifier::parse(&text).unwrap_err(), KeyError::Malformed);
        assert_eq!(Witness::parse(&signer.verifier().to_string()).unwrap_err(), KeyError::Malformed);
        assert_eq!(Cosigner::parse(&signer.secret()).err(), Some(KeyError::Malformed));
        assert_eq!(Witness::parse(&text.replace("w.", "v.")).unwrap_err(), KeyError::Damaged);
    }

    #[test]
    fn every_flipped_bit_of_a_cosigned_checkpoint_is_found() {
        let (cosigner, signer) = (cosigner(), Signer::parse(include_str!("../../tests/golden/ledger-key-1")).unwrap());
        let note = signer.sign(41, [9; 32]);
        let (text, _) = note::split(&note).unwrap();
        let cosigned = format!("{note}{}", cosigner.cosign(&text, 1_795_000_000));
        assert_eq!(cosigned, include_str!("../../tests/golden/ledger-cosigned-1"));
        let (witness, line) = (cosigner.witness(), cosigned.lines().last().unwrap());
        assert_eq!(witness.cosigned(&cosigned), Some((1_795_000_000, line)));
        assert_eq!(witness.cosigned(&note), None);
        // What the log itself has signed is another line, and does not matter here.
        let own = note.len() - text.len() - 1;
        for bit in 0..cosigned.len() * 8 {
            let mut bytes = cosigned.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if (text.len() + 1..text.len() + 1 + own).contains(&(bit / 8)) {
                continue;
            }
            if let Ok(changed) = String::from_utf8(bytes) {
                assert_eq!(witness.cosigned(&changed).map(|(time, _)| time), None, "bit {bit}: {changed}");
            }
        }
    }
}
