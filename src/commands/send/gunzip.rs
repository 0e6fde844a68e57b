//! Gzip as files have it: one or more members, then perhaps zeros that fill up a block of a tape or a disk.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The first bytes of every member.
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The text of all members.
pub(super) struct Gunzip<R> {
    at: At<R>,
}

enum At<R> {
    Member(GzDecoder<R>),
    Between(R),
    /// At the end, or at an error.
    End,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { at: At::Between(reader) }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, text: &mut [u8]) -> io::Result<usize> {
        if text.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.at, At::End) {
                At::Member(mut member) => match member.read(text)? {
                    0 => self.at = At::Between(member.into_inner()),
                    read => {
                        self.at = At::Member(member);
                        return Ok(read);
                    }
                },
                At::Between(mut reader) => match reader.fill_buf()?.first() {
                    None => {}
                    Some(0) => only_zeros(&mut reader)?,
                    Some(_) => self.at = At::Member(GzDecoder::new(reader)),
                },
                At::End => return Ok(0),
            }
        }
    }
}

fn only_zeros(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let rest = reader.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "something other than zeros after the gzip data"));
        }
        let length = rest.len();
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn member(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        // A buffer this small makes every piece come in several reads.
        Gunzip::new(BufReader::with_capacity(3, bytes)).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn members_and_zeros_after_them_are_read() {
        assert_eq!(read(&member("ab")).unwrap(), "ab");
        assert_eq!(read(&[member("ab"), member(""), member("c")].concat()).unwrap(), "abc");
        assert_eq!(read(&[member("ab"), member("c"), vec![0; 1000]].concat()).unwrap(), "abc");
        assert_eq!(read(&[]).unwrap(), "");
    }

    #[test]
    fn what_is_cut_or_spoiled_is_an_error() {
        let whole = [member("ab"), member("c")].concat();
        let first = member("ab").len();
        for end in (1..whole.len()).filter(|end| *end != first) {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        assert!(read(&[member("ab"), vec![0, 0, 1]].concat()).is_err());
        assert!(read(&[member("ab"), b"more".to_vec()].concat()).is_err());
        let mut spoiled = member("some text");
        let middle = spoiled.len() / 2;
        spoiled[middle] ^= 0xff;
        assert!(read(&spoiled).is_err());
    }
}
