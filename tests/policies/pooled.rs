//! All that leaves of a run to all destinations, pooled: late records, repeats, kills, stops, a reload and an override do
//! not single out fewer than k contributors, and no record is in two cells.
//!
//! The amounts are powers of two, all above the same number. So a cell's sum says which records it is made of, whatever the
//! gateway's windows are, and no contributor adds much more to it than the others.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::deployment::{Deployment, POLICY, Process, Producer, at};
use super::row_space::Pool;

/// The sum of so many amounts is a whole number that a float holds.
const RECORDS: usize = 46;
/// What every amount is above.
const BASE: u64 = 1 << RECORDS;
/// The edges of the histogram: the amounts of the first 16 records, of the next 16, of the others.
const EDGES: [u64; 4] = [BASE, BASE + (1 << 16), BASE + (1 << 32), 2 * BASE];
/// What the destination with an override asks for; the other one asks for more.
const LEAST: usize = 5;

/// Numbers that are the same in each run.
struct Tape(u64);

impl Tape {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

fn deployment() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(POLICY, "range = [0, 1000], required = false", &format!("range = [0, {}]", 2 * BASE));
    let histogram = format!("{{ name = \"sizes\", fn = \"histogram\", field = \"amount\", edges = {EDGES:?} }}");
    deployment.edit(POLICY, r#"field = "amount" }]"#, &format!("field = \"amount\" }}, {histogram}]"));
    let relaxed = format!(
        "{}\n[[overrides]]\nid = \"OVR-1\"\nrelaxes = \"min_contributors\"\nvalue = {LEAST}\nscope = {{ dataset = \
         \"by_country\", destination = \"hub\" }}\nreason = \"a test\"\napproved = [\"one@acme.example\", \
         \"two@acme.example\"]\nuntil = 2098-01-01\n",
        deployment.read(POLICY)
    );
    deployment.write(POLICY, relaxed);
    deployment.set_k(8);
    deployment.edit("gateway.toml", "[journal]\n", "[journal]\ncheckpoint_every = \"PT1H\"\n");
    deployment
}

/// A producer of a process that is new, going on with its numbers.
async fn again(deployment: &Deployment, sequence: u64) -> (Process, Producer) {
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = sequence;
    (process, producer)
}

/// Records of a few minutes. Who they are of, and what is sent of them.
fn records(tape: &mut Tape) -> (Vec<String>, Vec<(u32, Value)>) {
    let records = (0..RECORDS).map(|position| {
        let country = ["DE", "DE", "FR"][tape.below(3)];
        let (person, minute) = (format!("{country}-{}", tape.below(14)), 1 + tape.below(3) as u32);
        let amount = BASE as f64 + 2_f64.powi(position as i32);
        let sent = json!({ "at": at(minute, 30), "person": person, "country": country, "amount": amount });
        (person, (minute, sent))
    });
    records.unzip()
}

async fn a_run(deployment: &Deployment, records: &[(u32, Value)]) {
    let of = |minute: u32, part: usize| -> Vec<Value> {
        let chosen = records.iter().enumerate().filter(|(position, (own, _))| *own == minute && position % 3 == part);
        chosen.map(|(_, (_, record))| record.clone()).collect()
    };
    let (process, mut producer) = again(deployment, 0).await;
    producer.send(&[of(1, 0), of(2, 0)].concat()).await;
    producer.send(&of(1, 1)).await;
    process.kill();
    // The last request, once more.
    let (process, mut producer) = again(deployment, 2).await;
    assert!(producer.publish_as(2, &of(1, 1)).await.duplicate);
    producer.send(&of(2, 1)).await;
    producer.close_before(2).await;
    process.stop();
    // Late records, under a stricter law.
    deployment.set_k(9);
    let (process, mut producer) = again(deployment, 3).await;
    producer.send(&[of(1, 2), of(3, 0)].concat()).await;
    producer.close_before(3).await;
    process.kill();
    let (process, mut producer) = again(deployment, 4).await;
    assert!(producer.publish_as(4, &[of(1, 2), of(3, 0)].concat()).await.duplicate);
    producer.send(&[of(2, 2), of(3, 1), of(3, 2)].concat()).await;
    producer.close_before(9).await;
    process.stop();
}

/// The records that a cell's sum is of.
fn made_of(line: &Value) -> Vec<usize> {
    let sum = line["amount"].as_f64().unwrap();
    assert_eq!(sum.fract(), 0.0);
    let above = sum as u64 - BASE * line["visits"].as_u64().unwrap();
    (0..RECORDS).filter(|record| above >> record & 1 == 1).collect()
}

/// The rows of a histogram: the records of ranges that leave together.
fn ranges(line: &Value, records: &[usize]) -> Vec<Vec<usize>> {
    let counts = line["sizes"].as_array().unwrap();
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut said = Vec::new();
    for (count, range) in counts.iter().zip([0..16, 16..32, 32..RECORDS]) {
        let inside = records.iter().copied().filter(|record| range.contains(record));
        match count.as_u64() {
            Some(count) => {
                said.push(count as usize);
                rows.push(inside.collect());
            }
            None => rows.last_mut().unwrap().extend(inside),
        }
    }
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), said, "{line}");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_singled_out_by_all_that_a_run_releases() {
    let mut cells = 0;
    for seed in 1..5 {
        let (deployment, (persons, records)) = (deployment(), records(&mut Tape(seed)));
        a_run(&deployment, &records).await;
        let mut pool = Pool::new(persons.iter().cloned().map(Some));
        for destination in ["desk", "hub"] {
            let mut cell_of = BTreeMap::new();
            for line in deployment.released(destination) {
                let records = made_of(&line);
                assert_eq!(line["visits"], records.len(), "{line}");
                for record in &records {
                    assert_eq!(cell_of.insert(*record, line.clone()), None, "a record is in two cells");
                }
                ranges(&line, &records).into_iter().for_each(|row| pool.left(row));
                pool.left(records);
                cells += 1;
            }
        }
        assert_eq!(pool.singled_out(LEAST), None, "seed {seed}");
    }
    assert!(cells > 12, "{cells} cells show too little");
}
