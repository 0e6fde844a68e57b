use std::time::Duration;

use bailiwick::egress::file::Sink;
use bailiwick::domain::policy::Resident;

fn leak(sink: &mut Sink, records: Resident) {
    sink.take(records, Duration::ZERO);
}

fn main() {}
