//! The token that an interrupted send is resumed with.
//!
//! A gateway tells requests that it has from those that it has not by their numbers. A number only means the same request
//! as before if the same files are cut into the same batches and go to the same place. So the token holds, beside the
//! epoch, what the numbers hang on, and is refused when anything of it differs.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::Options;
use super::input::{Format, Sum};

/// Another version cuts or encodes batches otherwise.
const VERSION: &str = "1";

/// What a series of numbers stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The series.
    pub epoch: u64,
    /// The records per request.
    pub batch: u32,
    /// The files' contents in their order, and their formats.
    files: u64,
    /// The gateway, the stream and the producer.
    target: u32,
}

/// Why a send cannot be resumed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotResumable {
    /// The token is none.
    #[error("`--resume`: this is no token that `bailiwick send` printed; copy it whole")]
    Malformed,
    /// The token is of another version.
    #[error("`--resume`: another version of bailiwick made this token; resume with that version")]
    OtherVersion,
    /// Other records.
    #[error(
        "`--resume`: the files are not those of the interrupted send, or not in its order; give the same files, \
         unchanged; or leave `--resume` out to send these as new records"
    )]
    OtherFiles,
    /// Other batches.
    #[error("`--resume`: the interrupted send had `--batch {0}`; give the same, or leave `--batch` out")]
    OtherBatch(u32),
    /// Another place.
    #[error(
        "`--resume`: the interrupted send had another `--to`, `--stream` or `--producer`; give the same, or leave \
         `--resume` out to send these as new"
    )]
    OtherTarget,
    /// The input is gone once it was read.
    #[error("`--resume`: stdin and pipes cannot be read again; only a send of files can be resumed")]
    Unrepeatable,
}

impl Token {
    /// The token of a send.
    #[must_use]
    pub(super) fn new(epoch: u64, options: &Options, files: &[(Format, Sum)]) -> Self {
        let mut hash = Sha256::new();
        for (format, sum) in files {
            hash.update([match format {
                Format::Csv => b'c',
                Format::Lines => b'l',
            }]);
            hash.update(sum);
        }
        let [a, b, c, d, e, f, g, h, ..] = Sum::from(hash.finalize());
        let mut hash = Sha256::new();
        for part in [&options.endpoint, &options.stream, &options.producer] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let [i, j, k, l, ..] = Sum::from(hash.finalize());
        let batch = u32::try_from(options.batch).unwrap_or(u32::MAX);
        let (files, target) = (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]));
        Self { epoch, batch, files, target }
    }

    /// Whether a send resumes the one that this token is of.
    ///
    /// # Errors
    /// What differs.
    pub(super) fn resumes(&self, other: &Self) -> Result<(), NotResumable> {
        match () {
            () if self.target != other.target => Err(NotResumable::OtherTarget),
            () if self.batch != other.batch => Err(NotResumable::OtherBatch(other.batch)),
            () if self.files != other.files => Err(NotResumable::OtherFiles),
            () => Ok(()),
        }
    }
}

/// What shows that a digit was mistyped or is missing.
fn check(body: &str) -> String {
    let [a, b, c, d, ..] = Sum::from(Sha256::digest(body.as_bytes()));
    format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, batch, files, target } = self;
        let body = format!("{VERSION}-{epoch}-{batch}-{files:016x}-{target:08x}");
        write!(f, "{body}-{}", check(&body))
    }
}

impl FromStr for Token {
    type Err = NotResumable;

    fn from_str(text: &str) -> Result<Self, NotResumable> {
        let malformed = NotResumable::Malformed;
        let (body, sum) = text.rsplit_once('-').ok_or(malformed)?;
        if sum != check(body) {
            return Err(malformed);
        }
        let parts: Vec<&str> = body.split('-').collect();
        let (Some(version), true) = (parts.first(), parts.len() > 1) else { return Err(malformed) };
        if *version != VERSION {
            return Err(NotResumable::OtherVersion);
        }
        let [_, epoch, batch, files, target] = parts.as_slice() else { return Err(malformed) };
        let token = Self {
            epoch: epoch.parse().map_err(|_| malformed)?,
            batch: batch.parse().map_err(|_| malformed)?,
            files: u64::from_str_radix(files, 16).map_err(|_| malformed)?,
            target: u32::from_str_radix(target, 16).map_err(|_| malformed)?,
        };
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options() -> Options {
        Options::of_a_test("http://127.0.0.1:7400")
    }

    const FILES: [(Format, Sum); 2] = [(Format::Csv, [1; 32]), (Format::Lines, [2; 32])];

    #[test]
    fn a_token_is_refused_when_anything_differs_that_the_numbers_hang_on() {
        let token = Token::new(7, &options(), &FILES);
        let resumes = |options: &Options, files: &[(Format, Sum)]| Token::new(7, options, files).resumes(&token);
        assert_eq!(resumes(&options(), &FILES), Ok(()));
        // How the rest is dealt with may differ.
        assert_eq!(resumes(&Options { follow: false, complete: true, ..options() }, &FILES), Ok(()));
        for other in [
            Options { endpoint: "http://127.0.0.1:7401".to_owned(), ..options() },
            Options { stream: "readings".to_owned(), ..options() },
            Options { producer: "till-8".to_owned(), ..options() },
            Options { stream: "paymentst".to_owned(), producer: "ill-7".to_owned(), ..options() },
        ] {
            assert_eq!(resumes(&other, &FILES), Err(NotResumable::OtherTarget));
        }
        assert_eq!(resumes(&Options { batch: 100, ..options() }, &FILES), Err(NotResumable::OtherBatch(512)));
        let [first, second] = FILES;
        for files in [&[first][..], &[second, first], &[first, second, second], &[(Format::Lines, [1; 32]), second]] {
            assert_eq!(resumes(&options(), files), Err(NotResumable::OtherFiles));
        }
    }

    proptest! {
        #[test]
        fn a_token_is_read_as_it_was_printed_and_otherwise_not(
            epoch: u64, batch: u32, files: u64, target: u32, at: prop::sample::Index, digit in "[0-9a-f-]",
        ) {
            let token = Token { epoch, batch, files, target };
            let text = token.to_string();
            prop_assert_eq!(text.parse::<Token>(), Ok(token));
            let mut other = text.clone();
            let at = at.index(text.len());
            other.replace_range(at..=at, &digit);
            if other != text {
                prop_assert!(other.parse::<Token>().is_err(), "{}", other);
            }
            prop_assert!(text[..at].parse::<Token>().is_err());
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            prop_assert!(text.parse::<Token>().is_err());
        }
    }

    #[test]
    fn a_token_of_another_version_is_told_from_a_mistyped_one() {
        let body = "2-1-512-0-0-0";
        let token = format!("{body}-{}", check(body));
        assert_eq!(token.parse::<Token>(), Err(NotResumable::OtherVersion));
    }
}
