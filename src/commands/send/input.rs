//! Where records come from: files, pipes, stdin; plain or gzipped; which format they are in.

use std::fs::{self, File, FileType};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::gunzip::{self, Gunzip};

/// How a text holds records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header, then a record per row.
    Csv,
    /// A JSON object per line.
    Lines,
}

/// Where records come from.
#[derive(Debug, Clone)]
pub struct Input {
    source: Source,
    /// `None`: the name says it.
    format: Option<Format>,
}

#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Stdin,
}

/// The SHA-256 of an input's bytes as they are stored.
pub(super) type Sum = [u8; 32];

/// An input that is open.
pub(super) struct Opened {
    pub(super) format: Format,
    /// The text: unpacked, without a byte order mark.
    pub(super) text: Box<dyn BufRead + Send>,
    pub(super) hash: Hash,
}

/// The hash of what was read so far.
#[derive(Clone, Default)]
pub(super) struct Hash(Arc<Mutex<Sha256>>);

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
/// How much of a text is looked at to know what it is.
const SNIFFED: usize = 6;

/// How formats begin that are not read.
const OTHERS: [(&[u8], &str); 9] = [
    (b"\xff\xfe", "UTF-16; convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16; convert it to UTF-8"),
    (b"\x28\xb5\x2f\xfd", "zstd; unpack it, or pack it with gzip"),
    (b"\xfd7zXZ\0", "xz; unpack it, or pack it with gzip"),
    (b"BZh", "bzip2; unpack it, or pack it with gzip"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"PAR1", "Parquet; convert it to CSV or JSON lines, or send it by Arrow Flight"),
    (b"ARROW1", "an Arrow file; convert it to CSV or JSON lines, or send it by Arrow Flight"),
    (b"Obj\x01", "Avro; convert it to CSV or JSON lines"),
];

impl Input {
    /// A file, or stdin if the path is `-`.
    #[must_use]
    pub fn new(path: PathBuf, format: Option<Format>) -> Self {
        let source = if path.as_os_str() == "-" { Source::Stdin } else { Source::File(path) };
        Self { source, format }
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Stdin => "stdin".to_owned(),
        }
    }

    /// Whether it can be read again from its beginning.
    ///
    /// # Errors
    /// When it is not there, or nothing that records can come from.
    pub(super) fn is_repeatable(&self) -> anyhow::Result<bool> {
        match &self.source {
            Source::File(path) => {
                let kind = kind(path).with_context(|| format!("cannot read {}", path.display()))?;
                Ok(kind.is_file())
            }
            Source::Stdin => Ok(false),
        }
    }

    /// Whether it is a named pipe, which is waited for until somebody writes to it.
    pub(super) fn is_pipe(&self) -> bool {
        match &self.source {
            Source::File(path) => kind(path).is_ok_and(|kind| kind.is_fifo()),
            Source::Stdin => false,
        }
    }

    /// Opens it.
    pub(super) fn open(&self) -> anyhow::Result<Opened> {
        let name = self.name();
        let cannot = || format!("cannot read {name}");
        let stored: Box<dyn Read + Send> = match &self.source {
            Source::Stdin => Box::new(io::stdin()),
            Source::File(path) => {
                kind(path).with_context(cannot)?;
                Box::new(File::open(path).with_context(cannot)?)
            }
        };
        let hash = Hash::default();
        let stored = BufReader::with_capacity(1 << 16, Hashing { inner: stored, hash: hash.clone() });
        let (begin, stored) = sniff(stored).with_context(cannot)?;
        let text: Box<dyn BufRead + Send> = match begin.starts_with(&gunzip::MAGIC) {
            true => Box::new(BufReader::with_capacity(1 << 16, Gunzip::new(stored))),
            false => Box::new(stored),
        };
        let (begin, mut text) = sniff(text).with_context(cannot)?;
        if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| begin.starts_with(magic)) {
            bail!("{name} is {what}");
        }
        let begin = match begin.strip_prefix(&BYTE_ORDER_MARK) {
            Some(rest) => {
                text.consume(BYTE_ORDER_MARK.len());
                rest
            }
            None => &begin,
        };
        let format = self.format.map_or_else(|| self.format_by_name(begin), Ok)?;
        Ok(Opened { format, text: Box::new(text), hash })
    }

    fn format_by_name(&self, begin: &[u8]) -> anyhow::Result<Format> {
        let Source::File(path) = &self.source else {
            let first = begin.trim_ascii_start().first();
            if first.is_some_and(|first| !matches!(first, b'{' | b'[')) {
                bail!("stdin does not begin with a JSON object; if it is CSV, add `--format csv`");
            }
            return Ok(Format::Lines);
        };
        let name = path.to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("csv") => Ok(Format::Csv),
            Some("jsonl" | "ndjson" | "json") => Ok(Format::Lines),
            _ => bail!(
                "{} is neither .csv nor .jsonl (.gz may follow); say which it is with `--format csv` or `--format jsonl`",
                path.display()
            ),
        }
    }
}

/// A regular file or a pipe. A device may never end.
fn kind(path: &Path) -> io::Result<FileType> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    if kind.is_char_device() || kind.is_block_device() {
        return Err(io::Error::other("it is a device; for stdin, give `-`"));
    }
    Ok(kind)
}

/// A text whose beginning was looked at.
type Again<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// What a text begins with, which is then read again.
fn sniff<R: BufRead>(mut reader: R) -> io::Result<(Vec<u8>, Again<R>)> {
    let mut begin = Vec::with_capacity(SNIFFED);
    reader.by_ref().take(SNIFFED as u64).read_to_end(&mut begin)?;
    Ok((begin.clone(), Cursor::new(begin).chain(reader)))
}

struct Hashing<R> {
    inner: R,
    hash: Hash,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        let mut hash = self.hash.0.lock().unwrap_or_else(PoisonError::into_inner);
        hash.update(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl Hash {
    /// The sum of what was read.
    pub(super) fn sum(&self) -> Sum {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, bytes: &[u8]) -> anyhow::Result<(Format, String)> {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let mut opened = Input::new(path, None).open()?;
        let mut text = String::new();
        opened.text.read_to_string(&mut text)?;
        assert_eq!(opened.hash.sum(), <[u8; 32]>::from(Sha256::digest(bytes)));
        Ok((opened.format, text))
    }

    #[test]
    fn the_name_says_the_format_in_whatever_case() {
        for (name, format) in [
            ("a.csv", Format::Csv),
            ("A.CSV", Format::Csv),
            ("a.Csv.GZ", Format::Csv),
            ("a.b.jsonl", Format::Lines),
            ("a.NDJSON.gz", Format::Lines),
            ("a.json", Format::Lines),
        ] {
            assert_eq!(text(name, b"x").unwrap(), (format, "x".to_owned()), "{name}");
        }
        for name in ["csv", "a.txt", "a.csv.bak", "a.gz"] {
            assert!(text(name, b"x").unwrap_err().to_string().contains("--format"), "{name}");
        }
    }

    #[test]
    fn gzip_is_known_by_its_bytes_and_a_byte_order_mark_is_skipped() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        io::Write::write_all(&mut encoder, "\u{feff}a,b\n".as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        for name in ["a.csv", "a.csv.gz"] {
            assert_eq!(text(name, &packed).unwrap().1, "a,b\n");
        }
        assert_eq!(text("a.csv.gz", "\u{feff}a,b\n".as_bytes()).unwrap().1, "a,b\n");
        assert_eq!(text("a.csv", "\u{feff}".as_bytes()).unwrap().1, "");
        assert_eq!(text("a.csv", b"").unwrap().1, "");
    }

    #[test]
    fn other_formats_are_refused_by_their_names() {
        for (bytes, what) in [
            (&b"\xff\xfea\0"[..], "UTF-16"),
            (b"\x28\xb5\x2f\xfd..", "zstd"),
            (b"BZh91AY", "bzip2"),
            (b"PK\x03\x04...", "zip"),
            (b"PAR1....", "Parquet"),
        ] {
            assert!(text("a.csv", bytes).unwrap_err().to_string().contains(what), "{what}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        for (path, what) in
            [("/", "it is a directory"), ("/dev/zero", "it is a device"), ("/nowhere.csv", "No such file")]
        {
            let error = Input::new(path.into(), Some(Format::Csv)).open().err().unwrap();
            assert!(format!("{error:#}").contains(what), "{error:#}");
        }
    }
}
