//! One small value that is written again and again, such as a cursor. A file has two slots; a write goes to the one
//! that does not hold the newest value, so that the newest one is there until the new one is durable.
//!
//! ```text
//! slot, at 0 and at 68 KiB    0 magic "bwslot1\n"
//!                             8 generation: the valid slot with the greater one counts
//!                            16 bytes in the value
//!                            20 check sum of the value, started from that of 0..20
//!                            24 value
//! ```

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::error;

use super::Error;
use super::durable::{parent, sync_dir, write_file_durably};
use super::frame::{u32_at, u64_at};
use super::fs::{Access, File, FileSystem, read_full, write_full};
use crate::planted::planted;

/// A small durable value.
pub struct Slots {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    /// `None`: there is no file yet, or it failed and is to be replaced.
    file: Option<Arc<dyn File>>,
    generation: u64,
    newest: usize,
    is_damaged: bool,
}

/// What a file of slots holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// There is no file.
    Missing,
    /// The newest value that was made durable or, if its slot is damaged, the one before it.
    Value(Vec<u8>),
    /// There is a file, but neither slot is valid.
    Damaged,
}

impl Slots {
    /// Opens a value. The file is made by the first write. A value that is handed out is durable.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(fs: Arc<dyn FileSystem>, path: &Path) -> Result<(Self, Stored), Error> {
        Self::open_or(fs, path, |value| value)
    }

    /// The same. When one slot is damaged, nobody knows whether it held a newer value. Then `safe` makes of the other one
    /// a value that holds in any case, and that replaces both.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open_or(
        fs: Arc<dyn FileSystem>,
        path: &Path,
        safe: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> Result<(Self, Stored), Error> {
        let mut slots = Self { fs, path: path.to_owned(), file: None, generation: 0, newest: 1, is_damaged: false };
        let file = match slots.fs.open(path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((slots, Stored::Missing)),
            file => file.map_err(Error::io("open", path))?,
        };
        let read = Both::read(&*file).map_err(Error::io("read", path))?;
        let Some((generation, slot, value)) = read.newest() else {
            error!(file = %path.display(), "neither slot can be read: check the disk");
            slots.is_damaged = true;
            return Ok((slots, Stored::Damaged));
        };
        let value = if read.has_damage() { safe(value) } else { value };
        (slots.generation, slots.newest) = (generation, slot);
        // What an earlier process wrote may be in the page cache only; a new file is certain. Should there be no space
        // for one, syncing the old is the next best.
        if let Err(error) = slots.write(&value) {
            if !error.is_lack_of_space() {
                return Err(error);
            }
            file.sync_data().map_err(Error::io("sync", path))?;
            slots.file = Some(file);
        }
        Ok((slots, Stored::Value(value)))
    }

    /// Looks at a value that another process may have open. Writes nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn peek(fs: &dyn FileSystem, path: &Path) -> Result<Stored, Error> {
        let newest = Both::peek(fs, path)?.map(|read| read.newest());
        Ok(newest.map_or(Stored::Missing, |newest| newest.map_or(Stored::Damaged, |(.., value)| Stored::Value(value))))
    }

    /// Whether a slot is damaged, also if another process has the file open. Writes nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_damage(fs: &dyn FileSystem, path: &Path) -> Result<bool, Error> {
        let mut before = None;
        for _ in 0..LOOKS {
            let Some(read) = Both::peek(fs, path)?.filter(Both::has_damage) else { return Ok(false) };
            // A slot that is being written looks damaged, too. It does not stay as it is.
            if before.as_ref() == Some(&read) {
                return Ok(true);
            }
            before = Some(read);
        }
        Ok(false)
    }

    /// Whether a damaged file was set aside here, once. If there is no other, a crash may have come between.
    ///
    /// # Errors
    /// When it cannot be looked up.
    pub fn was_set_aside(fs: &dyn FileSystem, path: &Path) -> Result<bool, Error> {
        let aside = aside(path);
        fs.kind(&aside).map(|kind| kind.is_some()).map_err(Error::io("look up", &aside))
    }

    /// Replaces the value. When it returns, the new one is durable.
    ///
    /// # Errors
    /// When the value is too large or the file system refuses. It can be tried again; until that succeeds, the value
    /// before or this one is there.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > SLOT_BYTES_MAX {
            return Err(Error::InvalidSettings(format!("a value of {} bytes for a slot", bytes.len())));
        }
        let generation = self.generation.checked_add(1).ok_or(Error::NumbersExhausted)?;
        let encoded = encode(generation, bytes);
        let slot = if planted("overwrite-newest-slot") { self.newest } else { 1 - self.newest };
        // A file whose sync failed is not trusted again, nor is one that has lost its name: it is replaced as a whole.
        if let Some(file) = self.file.take()
            && file.is_at(&self.path).map_err(Error::io("look up", &self.path))?
        {
            let written = write_full(&*file, &mut [IoSlice::new(&encoded)], offset(slot));
            written.and_then(|_| file.sync_data()).map_err(Error::io("write", &self.path))?;
            if !file.is_at(&self.path).map_err(Error::io("look up", &self.path))? {
                return Err(Error::Gone { path: self.path.clone() });
            }
            (self.file, self.newest) = (Some(file), slot);
        } else {
            self.keep_damaged()?;
            write_file_durably(&*self.fs, &self.path, &encoded)?;
            self.file = Some(self.fs.open(&self.path, Access::Write).map_err(Error::io("open", &self.path))?);
            self.newest = 0;
        }
        self.generation = generation;
        Ok(())
    }

    /// Before a damaged file is replaced it gets another name.
    fn keep_damaged(&mut self) -> Result<(), Error> {
        if self.is_damaged {
            self.fs.rename(&self.path, &aside(&self.path)).map_err(Error::io("set aside", &self.path))?;
            sync_dir(&*self.fs, parent(&self.path))?;
            self.is_damaged = false;
        }
        Ok(())
    }
}

/// The name of a damaged file.
fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    aside.into()
}

fn encode(generation: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + value.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes, value).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// The bytes of both slots. `None`: the disk cannot read it any more.
#[derive(PartialEq, Eq)]
struct Both([Option<Vec<u8>>; 2]);

impl Both {
    fn read(file: &dyn File) -> io::Result<Self> {
        Ok(Self([read_slot(file, 0)?, read_slot(file, 1)?]))
    }

    /// Those of a file, if there is one.
    fn peek(fs: &dyn FileSystem, path: &Path) -> Result<Option<Self>, Error> {
        let file = match fs.open(path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Error::io("open", path))?,
        };
        Self::read(&*file).map(Some).map_err(Error::io("read", path))
    }

    /// The values that are whole, and their generations.
    fn values(&self) -> [Option<(u64, &[u8])>; 2] {
        self.0.each_ref().map(|bytes| bytes.as_deref().and_then(decode))
    }

    /// The newest value that is whole, its generation and its slot.
    fn newest(&self) -> Option<(u64, usize, Vec<u8>)> {
        let values = self.values().into_iter().enumerate();
        let values = values.filter_map(|(slot, value)| value.map(|(generation, value)| (generation, slot, value)));
        values
            .max_by_key(|(generation, ..)| *generation)
            .map(|(generation, slot, value)| (generation, slot, value.to_vec()))
    }

    /// Whether a slot holds something that is no value. A file begins with one slot, and ends with its value until the other
    /// slot is written.
    fn has_damage(&self) -> bool {
        let [first, second] = self.values();
        let is_first_alone = first.is_some_and(|(_, value)| {
            let bytes = self.0.each_ref().map(|bytes| bytes.as_ref().map(Vec::len));
            bytes == [Some(HEADER_BYTES + value.len()), Some(0)]
        });
        (first.is_none() || second.is_none()) && !is_first_alone
    }
}

fn read_slot(file: &dyn File, slot: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; HEADER_BYTES + SLOT_BYTES_MAX];
    match read_full(file, &mut bytes, offset(slot)) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(None),
        read => {
            bytes.truncate(read?);
            Ok(Some(bytes))
        }
    }
}

fn decode(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let value = rest.get(..u32_at(header, 16)? as usize)?;
    let is_valid = header.starts_with(MAGIC) && u32_at(header, 20)? == checksum(header.get(..20)?, value);
    is_valid.then_some((u64_at(header, 8)?, value))
}

fn checksum(header: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), value)
}

fn offset(slot: usize) -> u64 {
    slot as u64 * SLOT_STRIDE
}

/// The largest value.
pub const SLOT_BYTES_MAX: usize = 64 << 10;

const MAGIC: &[u8; 8] = b"bwslot1\n";
const HEADER_BYTES: usize = 24;

/// So often is a slot looked at that seems damaged.
const LOOKS: usize = 8;

/// No sector and no page is shared by the two.
const SLOT_STRIDE: u64 = 68 << 10;
