use bailiwick::domain::policy::{Foreign, Released, Resident};

fn main() {
    let _: Resident = Default::default();
    let _: Foreign = Default::default();
    let _: Released = Default::default();
}
