use bailiwick::domain::batch::Batch;
use bailiwick::domain::policy::{Digest, Resident};

fn forge(batch: Batch, policy: Digest) -> Resident {
    Resident { batch, policy }
}

fn main() {}
