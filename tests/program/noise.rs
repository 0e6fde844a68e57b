//! What differential privacy would leave of the examples' cells, as `check` and their records say: figures of
//! docs/egress.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;

use jiff::Timestamp;
use serde_json::Value;

use crate::common;
use crate::common::folder::own_copy_of;
use crate::common::process::{run, text};

/// What all windows of a day may tell, in each of them.
const RHO_PER_DAY: f64 = 0.144;
/// How many contributors a cell without noise needs.
const K: usize = 10;
/// Where the gateway of each example takes records of.
const PLACES: [&str; 6] = ["DE", "ES", "FR", "IE", "NL", "PL"];

/// An example with noise.
struct Noisy {
    example: &'static str,
    /// Columns of its records.
    contributor: &'static str,
    place: &'static str,
    keys: [&'static str; 2],
    /// The metrics that cannot have noise.
    without: &'static [&'static str],
    window: &'static str,
    wanted: Wanted,
}

/// A window of another length, and its bounds.
struct Wanted {
    window: &'static str,
    seconds: i64,
    records_per_contributor: u32,
    cells_per_contributor: u32,
}

/// What a cell has.
#[derive(Default)]
struct Cell<'t> {
    records: usize,
    contributors: BTreeSet<&'t str>,
}

/// The cells of the records, counted one by one.
fn cells<'t>(data: &'t str, noisy: &Noisy) -> Vec<Cell<'t>> {
    let mut lines = data.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let (time, contributor, place) = (column("event_time"), column(noisy.contributor), column(noisy.place));
    let keys = noisy.keys.map(column);
    let mut cells: BTreeMap<_, Cell<'_>> = BTreeMap::new();
    for record in lines.filter(|record| PLACES.contains(&record[place])) {
        let window = record[time].parse::<Timestamp>().unwrap().as_second() / noisy.wanted.seconds;
        let cell = cells.entry((window, keys.map(|key| record[key]))).or_default();
        cell.records += 1;
        cell.contributors.insert(record[contributor]);
    }
    cells.into_values().collect()
}

/// What `check` says of the example's dataset, with noise and the window.
fn checked(noisy: &Noisy) -> Value {
    let folder = own_copy_of(noisy.example);
    let policy = format!("examples/{}/policies/policy.toml", noisy.example);
    let Wanted { window, seconds, records_per_contributor, cells_per_contributor } = noisy.wanted;
    let rho = RHO_PER_DAY * seconds as f64 / 86_400.0;
    let privacy = format!(
        "release = \"noisy\"\n\
         privacy = {{ mechanism = \"discrete_gaussian\", rho_per_window = {rho}, rho_per_day = {RHO_PER_DAY} }}\n\
         metrics = [\n"
    );
    let bounds = format!(
        "\n[release.noisy]\nrecords_per_contributor = {records_per_contributor}\n\
         cells_per_contributor = {cells_per_contributor}\n"
    );
    folder.edit(&policy, "metrics = [\n", &privacy);
    for metric in noisy.without {
        folder.edit(&policy, metric, "");
    }
    folder.edit(&policy, &format!("size = \"{}\"", noisy.window), &format!("size = \"{window}\""));
    folder.add(&policy, &bounds);
    let config = format!("examples/{}/gateway.toml", noisy.example);
    let said = run(folder.root(), &["check", "--json", "-c", &config]);
    assert!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    said["datasets"][0]["privacy"].clone()
}

/// The one in the middle, and the largest.
fn middle_and_most(numbers: impl Iterator<Item = usize>) -> (usize, usize) {
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    (numbers[numbers.len() / 2], *numbers.last().unwrap())
}

/// A row of the table.
fn row(noisy: &Noisy) -> String {
    let (mut data, path) = (String::new(), common::root().join("examples").join(noisy.example).join("data.csv.gz"));
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut data).unwrap();
    let (cells, privacy) = (cells(&data, noisy), checked(noisy));
    let (contributors, most) = middle_and_most(cells.iter().map(|cell| cell.contributors.len()));
    let (records, _) = middle_and_most(cells.iter().map(|cell| cell.records));
    let least = privacy["least"].as_f64().unwrap();
    let leave = |least: f64| cells.iter().filter(|cell| cell.contributors.len() as f64 >= least).count();
    let noise = |of: &str| {
        let lists = privacy["noise"].as_array().unwrap();
        lists.iter().find(|list| list["of"] == of).unwrap()["sigma"].as_f64().unwrap()
    };
    let Wanted { window, records_per_contributor, cells_per_contributor, .. } = noisy.wanted;
    format!(
        "| {}, `{window}` | {records_per_contributor}, {cells_per_contributor} | {} | {contributors}; {most} | {} | {:.1} | \
         {least} | {} | {records} ± {:.0} |\n",
        noisy.example,
        cells.len(),
        leave(K as f64),
        noise("contributors"),
        leave(least),
        noise("records"),
    )
}

#[test]
fn the_documentation_says_what_noise_leaves_of_the_examples() {
    let card_fraud = |window, seconds, records_per_contributor, cells_per_contributor| Noisy {
        example: "card-fraud",
        contributor: "card",
        place: "country",
        keys: ["country", "channel"],
        without: &["  { name = \"amount_variance\", fn = \"variance\", field = \"amount\" },\n"],
        window: "PT10M",
        wanted: Wanted { window, seconds, records_per_contributor, cells_per_contributor },
    };
    let delivery_eta = Noisy {
        example: "delivery-eta",
        contributor: "recipient",
        place: "country",
        keys: ["carrier", "origin"],
        without: &["  { name = \"eta_delay_variance\", fn = \"variance\", field = \"eta_delay\" },\n"],
        window: "PT24H",
        wanted: Wanted { window: "PT24H", seconds: 86_400, records_per_contributor: 1, cells_per_contributor: 2 },
    };
    let predictive_maintenance = |window, seconds, records_per_contributor| Noisy {
        example: "predictive-maintenance",
        contributor: "machine",
        place: "site",
        keys: ["site", "line"],
        without: &[
            "  { name = \"faults\", fn = \"fraction\", field = \"fault\", equals = 1 },\n",
            "  { name = \"s1_variance\", fn = \"variance\", field = \"s1\" },\n",
        ],
        window: "PT5M",
        wanted: Wanted { window, seconds, records_per_contributor, cells_per_contributor: 1 },
    };
    let rows = [
        card_fraud("PT10M", 600, 2, 2),
        card_fraud("PT24H", 86_400, 4, 4),
        delivery_eta,
        predictive_maintenance("PT5M", 300, 4),
        predictive_maintenance("PT24H", 86_400, 84),
    ];
    let rows: String = rows.iter().map(row).collect();
    println!("{rows}");
    let page = fs::read_to_string(common::root().join("docs/egress.md")).unwrap();
    assert!(page.contains(&rows), "docs/egress.md has not\n{rows}");
}
