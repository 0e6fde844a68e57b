use bailiwick::domain::batch::{Batch, Candidate};
use bailiwick::domain::policy::{Released, Resident};

fn print<T: std::fmt::Debug>(_: &T) {}

fn leak(candidate: &Candidate, batch: &Batch, resident: &Resident, released: &Released) {
    print(candidate);
    print(batch);
    print(resident);
    print(released);
}

fn main() {}
