//! Records that nobody decided cannot be journaled.

use bailiwick::domain::batch::Batch;
use bailiwick::durable::entry::BatchWriter;

fn journal(writer: &mut BatchWriter, undecided: &Batch) {
    let _ = writer.encode(undecided, &[], &[], 0);
}

fn main() {}
