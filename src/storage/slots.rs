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
        let mut slots = Self { fs, path: path.to_owned(), file: None, generation: 0, newest: 1, is_damaged: false };
        let file = match slots.fs.open(path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((slots, Stored::Missing)),
            file => file.map_err(Error::io("open", path))?,
        };
        let Some((generation, slot, value)) = newest(&*file).map_err(Error::io("read", path))? else {
            error!(file = %path.display(), "neither slot can be read: check the disk");
            slots.is_damaged = true;
            return Ok((slots, Stored::Damaged));
        };
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
        let file = match fs.open(path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::Missing),
            file => file.map_err(Error::io("open", path))?,
        };
        let newest = newest(&*file).map_err(Error::io("read", path))?;
        Ok(newest.map_or(Stored::Damaged, |(.., value)| Stored::Value(value)))
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
            let mut aside = self.path.as_os_str().to_owned();
            aside.push(".damaged");
            self.fs.rename(&self.path, Path::new(&aside)).map_err(Error::io("set aside", &self.path))?;
            sync_dir(&*self.fs, parent(&self.path))?;
            self.is_damaged = false;
        }
        Ok(())
    }
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

/// The newest value that is whole, its generation and its slot.
fn newest(file: &dyn File) -> io::Result<Option<(u64, usize, Vec<u8>)>> {
    let mut newest: Option<(u64, usize, Vec<u8>)> = None;
    for slot in [0, 1] {
        if let Some((generation, value)) = read_slot(file, slot)?
            && newest.as_ref().is_none_or(|(newest, ..)| generation > *newest)
        {
            newest = Some((generation, slot, value));
        }
    }
    Ok(newest)
}

fn read_slot(file: &dyn File, slot: usize) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut bytes = vec![0; HEADER_BYTES + SLOT_BYTES_MAX];
    let read = match read_full(file, &mut bytes, offset(slot)) {
        // A slot that the disk cannot read any more is a damaged one.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => 0,
        read => read?,
    };
    bytes.truncate(read);
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let value = rest.get(..u32_at(header, 16)? as usize)?;
    let is_valid = header.starts_with(MAGIC) && u32_at(header, 20)? == checksum(header.get(..20)?, value);
    is_valid.then_some((u64_at(header, 8)?, value.to_vec()))
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

/// No sector and no page is shared by the two.
const SLOT_STRIDE: u64 = 68 << 10;
