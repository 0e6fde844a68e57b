use bailiwick::adapters::kafka::Sink;
use bailiwick::domain::policy::Foreign;

async fn leak(sink: &mut Sink, records: &Foreign) {
    let _ = sink.send(records).await;
}

fn main() {}
