//! Registries and databases that are replaced while the gateway runs.

use std::fs;

use serde_json::json;

use crate::common::PATIENCE;
use crate::common::process::{run, text};

use super::deployment::{Deployment, POLICY, Process, Producer, at, refusals, visits};

fn with_devices() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(
        POLICY,
        "[{ field = \"country\", strength = 90 }]",
        "[{ registry = \"devices\", by = \"device\", strength = 90 }]",
    );
    deployment.edit(
        POLICY,
        "[streams.visits.fields]\n",
        "[streams.visits.fields]\ndevice = { type = \"string\", class = \"operational\" }\n",
    );
    deployment
        .add(POLICY, "\n[registries.devices]\nkey = \"device\"\nfacts = { \"subject.residence\" = \"country\" }\n");
    deployment.add("gateway.toml", "\n[registries]\ndevices = \"devices.csv\"\n");
    deployment.write("devices.csv", "device,country\nd-1,DE\n");
    deployment
}

/// What becomes of a record of a device: empty when it is taken.
async fn outcome(producer: &mut Producer, device: &str) -> String {
    let record = json!({ "at": at(1, 1), "person": "p", "country": "DE", "device": device });
    let response = producer.publish(&[record]).await;
    refusals(&response).into_iter().map(|(_, reason, rules)| format!("{reason} {}", rules.join(" "))).collect()
}

/// Sends a record of a device until this becomes of it.
async fn until(process: &Process, producer: &mut Producer, device: &str, expected: &str) {
    let began = bailiwick::clock::Clock::start();
    while outcome(producer, device).await != expected {
        assert!(began.now() < PATIENCE, "{device} is never `{expected}`:\n{}", process.log().join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

const UNKNOWN: &str = "REASON_UNKNOWN_JURISDICTION facts/subject.residence/unknown";

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_replaced_is_read_again_and_a_damaged_one_is_not_believed() {
    let deployment = with_devices();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    assert_eq!(outcome(&mut producer, "d-1").await, "");
    assert_eq!(outcome(&mut producer, "d-2").await, UNKNOWN);
    deployment.write("devices.csv", "device,country\nd-1,DE\nd-2,FR\n");
    until(&process, &mut producer, "d-2", "").await;
    let damages = [
        ("device,country\nd-1,DE\nd-2,FR\nsecret-device,QQ\n", "line 4"),
        ("device,country\nd-1,DE\nsecret-device,DE\nsecret-device,FR\n", "line 4"),
        ("device,country\nd-1,DE\nsecret-device,FR", "line 3"),
        ("device,country\nd-1,DE,secret-country\n", "line 2"),
        ("secret-device\n", "line 1"),
        ("", "line 1"),
    ];
    for (times, (damaged, line)) in damages.into_iter().enumerate() {
        deployment.write("devices.csv", damaged);
        let error = process.wait_for("the last good one stays", times + 1);
        assert!(error.contains("ERROR") && error.contains("devices.csv") && error.contains(line), "{error}");
        assert_eq!(outcome(&mut producer, "d-2").await, "");
        // A reload does not take it either.
        let outcome = process.reload();
        assert!(outcome.contains("were not replaced") && outcome.contains("devices.csv"), "{outcome}");
    }
    fs::remove_file(deployment.path("devices.csv")).unwrap();
    let error = process.wait_for("the last good one stays", damages.len() + 1);
    assert!(error.contains("devices.csv"), "{error}");
    assert_eq!(outcome(&mut producer, "d-2").await, "");
    deployment.write("devices.csv", "device,country\nd-2,FR\n");
    until(&process, &mut producer, "d-1", UNKNOWN).await;
    assert_eq!(outcome(&mut producer, "d-2").await, "");
    // Where a device is known to be elsewhere, its records are.
    deployment.write("devices.csv", "device,country\nd-2,IN\n");
    until(&process, &mut producer, "d-2", "REASON_MAY_NOT_BE_HERE bb/misroute").await;
    let log = process.stop();
    assert!(log.iter().all(|line| !line.contains("secret")), "contents are not logged: {log:?}");
}

/// A subdivision that ISO 3166-2 lists newly is brought by the policies: for fields and for registries, by a reload.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_list_of_codes_is_read_with_the_policies() {
    let deployment = Deployment::new();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    let record = [json!({ "at": at(1, 1), "person": "p", "country": "DE-X9" })];
    let said = |response| refusals(&response).into_iter().map(|(_, reason, _)| reason).collect::<Vec<_>>();
    assert_eq!(said(producer.publish(&record).await), ["REASON_UNKNOWN_JURISDICTION"]);
    deployment.write(
        "policies/codes.toml",
        "schema = \"bailiwick.regions/1\"\n[codes]\nas_of = 2026-11-01\nsources = [\"ISO\"]\nadded = [\"DE-X9\"]\n",
    );
    assert!(process.reload().contains("are in force"), "{:?}", process.log());
    assert_eq!(said(producer.publish(&record).await), [""; 0]);
    process.stop();
    // In a registry too.
    let deployment = with_devices();
    deployment.write("devices.csv", "device,country\nd-1,DE-X9\n");
    let checked = run(&deployment.path("."), &["check"]);
    assert!(!checked.status.success(), "{}", text(&checked.stderr));
    deployment.write(
        "policies/codes.toml",
        "schema = \"bailiwick.regions/1\"\n[codes]\nas_of = 2026-11-01\nsources = [\"ISO\"]\nadded = [\"DE-X9\"]\n",
    );
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    assert_eq!(outcome(&mut producer, "d-1").await, "");
    process.stop();
}

/// A database in MaxMind's format of one network, 81.0.0.0/8.
fn database(country: &str) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(0x40 | text.len() as u8);
        out.extend(text.as_bytes());
    }
    let (address, length) = (81_u128 << 24, 104_u64);
    let mut out = Vec::new();
    for node in 0..length {
        let is_last = node + 1 == length;
        let next = if is_last { length + 16 } else { node + 1 };
        let mut records = [length; 2];
        records[(address >> (127 - node) & 1) as usize] = next;
        records.iter().for_each(|record| out.extend(&record.to_be_bytes()[5..]));
    }
    out.extend([0; 16]);
    out.push(0xe1);
    text(&mut out, "country_code");
    text(&mut out, country);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    out.push(0xe9);
    for (name, number) in
        [("binary_format_major_version", 2), ("binary_format_minor_version", 0), ("ip_version", 6), ("record_size", 24)]
    {
        text(&mut out, name);
        out.extend([0xa1, number]);
    }
    text(&mut out, "node_count");
    out.extend([0xc1, length as u8]);
    text(&mut out, "build_epoch");
    // An unsigned integer of eight bytes.
    out.extend([8, 2]);
    out.extend(1_790_000_000_u64.to_be_bytes());
    text(&mut out, "database_type");
    text(&mut out, "Test");
    text(&mut out, "languages");
    // An array of none.
    out.extend([0, 4]);
    text(&mut out, "description");
    out.push(0xe1);
    text(&mut out, "en");
    text(&mut out, "a test");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_network_addresses_are_read_and_read_again_and_damage_is_said_at_the_start() {
    let deployment = Deployment::new();
    deployment.edit(POLICY, "strength = 90 }]", "strength = 90 }, { geoip = true, strength = 30 }]");
    deployment.add("gateway.toml", "\n[geoip]\ndatabases = [\"one.mmdb\", \"two.mmdb\"]\n");
    deployment.write("one.mmdb", database("DE"));
    let whole = database("FR");
    for end in [0, 1, whole.len() / 2, whole.len() - 100] {
        deployment.write("two.mmdb", &whole[..end]);
        let error = deployment.start_error().await;
        assert!(error.contains("two.mmdb"), "{end}: {error}");
    }
    fs::remove_file(deployment.path("two.mmdb")).unwrap();
    assert!(deployment.start_error().await.contains("two.mmdb"));
    deployment.write("two.mmdb", database("DE"));
    let error = deployment.start_error().await;
    assert!(error.contains("are the same"), "{error}");
    deployment.write("two.mmdb", &whole);
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    // The peer's address is a loopback one, which is nowhere.
    producer.send(&visits(1, 3, "DE")).await;
    deployment.write("two.mmdb", database("AT"));
    process.wait_for("read again", 1);
    deployment.write("two.mmdb", &whole[..whole.len() / 2]);
    let error = process.wait_for("the last good one stays", 1);
    assert!(error.contains("two.mmdb"), "{error}");
    producer.send(&visits(1, 3, "DE")).await;
    deployment.write("two.mmdb", database("IT"));
    process.wait_for("read again", 2);
    process.stop();
}
