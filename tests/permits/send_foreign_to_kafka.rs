use bailiwick::adapters::kafka::{Sink, Watch};
use bailiwick::domain::policy::Foreign;

fn leak(sink: &mut Sink, records: &Foreign, watch: Watch<'_>) {
    let _ = sink.send(1, records, watch);
}

fn main() {}
