//! Group commit on a thread of its own: everything that waits is written with one call and synced once.

use std::fs::File;
use std::io::{IoSlice, Seek, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};

use bytes::Bytes;

use super::Answers;

/// A checksum and a length before each message.
const HEAD_BYTES: usize = 8;
/// The most messages of a commit.
const MESSAGES_MAX: usize = 4_096;
/// The most parts of one write.
const SLICES_MAX: usize = 1_000;
/// The file begins anew after so many bytes.
const FILE_BYTES: usize = 512 << 20;

/// Messages to write, and the answers that may leave when they are on disk.
pub(super) struct Commit {
    pub(super) messages: Vec<Bytes>,
    pub(super) answers: Vec<(Answers, Bytes)>,
}

impl Commit {
    /// Answers.
    pub(super) fn answer(self) {
        for (answers, answer) in self.answers {
            // A call that has ended takes no answers.
            let _ = answers.try_send(Ok(answer));
        }
    }
}

/// Starts the thread.
pub(super) fn start(directory: &Path) -> Sender<Commit> {
    let file = File::create(directory.join("comparator.log")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES as u64).unwrap();
    let (commits, waiting) = mpsc::channel();
    std::thread::spawn(move || run(file, &waiting));
    commits
}

fn run(mut file: File, waiting: &Receiver<Commit>) {
    let mut written = 0;
    while let Ok(mut commit) = waiting.recv() {
        while commit.messages.len() < MESSAGES_MAX {
            let Ok(more) = waiting.try_recv() else { break };
            commit.messages.extend(more.messages);
            commit.answers.extend(more.answers);
        }
        written += write(&mut file, &commit.messages);
        file.sync_data().unwrap();
        commit.answer();
        if written >= FILE_BYTES {
            file.rewind().unwrap();
            written = 0;
        }
    }
}

fn write(file: &mut File, messages: &[Bytes]) -> usize {
    let heads: Vec<[u8; HEAD_BYTES]> = messages.iter().map(|message| head(message)).collect();
    let mut slices: Vec<IoSlice<'_>> =
        heads.iter().zip(messages).flat_map(|(head, message)| [IoSlice::new(head), IoSlice::new(message)]).collect();
    let (mut rest, mut written) = (slices.as_mut_slice(), 0);
    while !rest.is_empty() {
        let bytes = file.write_vectored(&rest[..rest.len().min(SLICES_MAX)]).unwrap();
        IoSlice::advance_slices(&mut rest, bytes);
        written += bytes;
    }
    written
}

fn head(message: &[u8]) -> [u8; HEAD_BYTES] {
    let sum = u64::from(crc32c::crc32c(message));
    (sum | (message.len() as u64) << 32).to_le_bytes()
}
