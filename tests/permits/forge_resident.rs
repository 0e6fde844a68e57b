use bailiwick::domain::batch::Batch;
use bailiwick::domain::policy::{Digest, RegimeSet, Resident};

fn forge(batch: Batch, policy: Digest, regimes: RegimeSet) -> Resident {
    Resident { batch, policy, regimes }
}

fn main() {}
