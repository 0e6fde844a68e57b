use bailiwick::egress::kafka::Sink;
use bailiwick::domain::policy::Foreign;

fn leak(sink: &mut Sink, records: &Foreign) {
    let _ = sink.take(1, records);
}

fn main() {}
