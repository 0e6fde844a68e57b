//! What is known outside: one lookup each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use bailiwick::domain::fact::Fact;
use bailiwick::domain::knowledge::{Places, Reading, iban, phone};
use bailiwick::knowledge::places::Boundaries;
use bailiwick::knowledge::registry::{Columns, load};

use super::{figure, per_record};

/// Lookups in one round.
const LOOKUPS: usize = 10_000;

/// Numbers that look random and are the same every time.
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Prints the figures.
pub(crate) fn run() {
    let start = std::time::Instant::now();
    let places = Boundaries::shared().unwrap();
    figure("load the borders", start.elapsed().as_secs_f64() * 1e3, "ms", None);
    let mut random = Random(1);
    let mut land = Vec::new();
    while land.len() < LOOKUPS {
        let (latitude, longitude) = ((random.next() * 2.0 - 1.0).asin().to_degrees(), random.next() * 360.0 - 180.0);
        if matches!(places.around(latitude, longitude, 0.0), Reading::Codes(_)) {
            land.push((latitude, longitude));
        }
    }
    // Basel and around: three countries in 10 km.
    let city: Vec<(f64, f64)> =
        (0..LOOKUPS).map(|_| (47.5596 + random.next() * 0.2 - 0.1, 7.5886 + random.next() * 0.3 - 0.15)).collect();
    for (name, points) in [("anywhere on land", &land), ("in a city at two borders", &city)] {
        for radius in [100.0, 2_000.0, 20_000.0] {
            let time = per_record(LOOKUPS, || {
                for (latitude, longitude) in points {
                    black_box(places.around(*latitude, *longitude, radius));
                }
            });
            figure(&format!("place {name}, radius {radius} m"), time, "ns", None);
        }
    }
    for entries in [10, 10_000] {
        registry(entries);
    }
    let numbers: Vec<String> = (0..LOOKUPS).map(|number| format!("+49 170 {number:07}")).collect();
    let time = per_record(LOOKUPS, || numbers.iter().for_each(|number| drop(black_box(phone(number)))));
    figure("phone", time, "ns", None);
    let accounts = ["DE44500105175407324931", "GB82WEST12345698765432", "FR1420041010050500013M02606"];
    let time = per_record(LOOKUPS, || {
        accounts.iter().cycle().take(LOOKUPS).for_each(|account| drop(black_box(iban(account))));
    });
    figure("iban", time, "ns", None);
}

fn registry(entries: usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("devices.csv");
    let mut text = "device,site\n".to_owned();
    let keys: Vec<String> = (0..entries).map(|entry| format!("device-{entry:08}")).collect();
    for (key, code) in keys.iter().zip(["DE", "FR", "US-CA", "IN"].iter().cycle()) {
        writeln!(text, "{key},{code}").unwrap();
    }
    std::fs::write(&path, text).unwrap();
    let columns = Columns {
        key: "device".to_owned(),
        facts: BTreeMap::from([(Fact::CollectionPlace, "site".to_owned())]),
        codes: Arc::default(),
    };
    let time = per_record(1, || drop(black_box(load(&path, &columns).unwrap())));
    figure(&format!("load a registry of {entries}"), time / 1e6, "ms", None);
    let (registry, _) = load(&path, &columns).unwrap();
    let time = per_record(LOOKUPS, || {
        for key in keys.iter().cycle().take(LOOKUPS) {
            black_box(registry.get(key, Fact::CollectionPlace));
        }
    });
    figure(&format!("registry of {entries}"), time, "ns", None);
}
