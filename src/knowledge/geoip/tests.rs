//! Databases that are written here, whole and spoiled.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;

/// A value of the format.
enum Value {
    Text(&'static str),
    /// With its kind: 5, 6, 9 for 2, 4, 8 bytes.
    Number(u8, u64),
    Map(Vec<(&'static str, Value)>),
    Texts(Vec<&'static str>),
}

fn head(kind: u8, size: usize, out: &mut Vec<u8>) {
    assert!(size < 29);
    if kind > 7 {
        out.extend([size as u8, kind - 7]);
    } else {
        out.push(kind << 5 | size as u8);
    }
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => {
            head(2, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Number(kind, number) => {
            let size = match kind {
                5 => 2,
                6 => 4,
                _ => 8,
            };
            head(*kind, size, out);
            out.extend(&number.to_be_bytes()[8 - size..]);
        }
        Value::Map(entries) => {
            head(7, entries.len(), out);
            for (key, value) in entries {
                encode(&Value::Text(key), out);
                encode(value, out);
            }
        }
        Value::Texts(texts) => {
            head(11, texts.len(), out);
            texts.iter().for_each(|text| encode(&Value::Text(text), out));
        }
    }
}

/// A database of IPv6 networks, with those of IPv4 under `::/96`.
fn database(networks: &[(&str, u8, Value)]) -> Vec<u8> {
    with_description(networks, vec![("en", Value::Text("a test"))])
}

fn with_description(networks: &[(&str, u8, Value)], description: Vec<(&'static str, Value)>) -> Vec<u8> {
    #[derive(Clone, Copy, PartialEq)]
    enum Record {
        Nothing,
        Node(usize),
        Data(usize),
    }
    let mut nodes = vec![[Record::Nothing; 2]];
    let mut data = Vec::new();
    for (network, length, value) in networks {
        let (bits, length) = match network.parse().unwrap() {
            IpAddr::V4(address) => (u128::from(u32::from(address)), length + 96),
            IpAddr::V6(address) => (u128::from(address), *length),
        };
        let offset = data.len();
        encode(value, &mut data);
        let mut node = 0;
        for depth in 0..length {
            let side = (bits >> (127 - depth) & 1) as usize;
            if depth + 1 == length {
                nodes[node][side] = Record::Data(offset);
            } else if let Record::Node(next) = nodes[node][side] {
                node = next;
            } else {
                nodes.push([Record::Nothing; 2]);
                nodes[node][side] = Record::Node(nodes.len() - 1);
                node = nodes.len() - 1;
            }
        }
    }
    let mut out = Vec::new();
    for record in nodes.iter().flatten() {
        let number = match record {
            Record::Nothing => nodes.len(),
            Record::Node(node) => *node,
            Record::Data(offset) => nodes.len() + 16 + offset,
        };
        out.extend(&(number as u32).to_be_bytes()[1..]);
    }
    out.extend([0; 16]);
    out.extend(data);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    let metadata = Value::Map(vec![
        ("binary_format_major_version", Value::Number(5, 2)),
        ("binary_format_minor_version", Value::Number(5, 0)),
        ("build_epoch", Value::Number(9, 1_790_000_000)),
        ("database_type", Value::Text("Test-Country")),
        ("description", Value::Map(description)),
        ("ip_version", Value::Number(5, 6)),
        ("languages", Value::Texts(vec!["en"])),
        ("node_count", Value::Number(6, nodes.len() as u64)),
        ("record_size", Value::Number(5, 24)),
    ]);
    encode(&metadata, &mut out);
    out
}

fn maxmind(code: &'static str) -> Value {
    Value::Map(vec![("country", Value::Map(vec![("iso_code", Value::Text(code))]))])
}

fn flat(code: &'static str) -> Value {
    Value::Map(vec![("country_code", Value::Text(code))])
}

fn one() -> Vec<u8> {
    database(&[
        ("81.2.69.0", 24, maxmind("GB")),
        ("2.125.0.0", 16, maxmind("DE")),
        ("8.8.8.0", 24, maxmind("US")),
        ("9.9.9.0", 24, maxmind("EU")),
        ("10.0.0.0", 8, maxmind("DE")),
        ("2a02::", 16, maxmind("FR")),
    ])
}

fn two() -> Vec<u8> {
    database(&[
        ("81.2.69.0", 24, flat("GB")),
        ("2.125.0.0", 16, flat("NL")),
        ("9.9.9.0", 24, flat("EU")),
        ("10.0.0.0", 8, flat("DE")),
        ("2a02::", 16, flat("FR")),
    ])
}

fn three() -> Vec<u8> {
    database(&[("81.2.69.0", 24, flat("IE")), ("2.125.0.0", 16, flat("NL"))])
}

fn load(databases: &[Vec<u8>], agree: usize) -> Result<Databases, Error> {
    let directory = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..databases.len()).map(|at| directory.path().join(format!("{at}.mmdb"))).collect();
    for (path, bytes) in paths.iter().zip(databases) {
        fs::write(path, bytes).unwrap();
    }
    Databases::load(&paths, agree).map(|(databases, _)| databases)
}

fn at(databases: &Databases, address: &str) -> String {
    match databases.locate(address.parse().unwrap()) {
        Reading::Codes(codes) => format!("{codes:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn an_address_is_where_enough_databases_say() {
    let databases = load(&[one(), two()], 2).unwrap();
    for (address, expected) in [
        ("81.2.69.160", "[GB]"),
        ("::ffff:81.2.69.160", "[GB]"),
        ("2a02::1", "[FR]"),
        ("2.125.1.1", "Absent"),
        ("8.8.8.8", "Absent"),
        ("9.9.9.9", "Absent"),
        ("1.1.1.1", "Absent"),
    ] {
        assert_eq!(at(&databases, address), expected, "{address}");
    }
    let databases = load(&[one(), two(), three()], 2).unwrap();
    assert_eq!(at(&databases, "81.2.69.160"), "[GB]");
    assert_eq!(at(&databases, "2.125.1.1"), "[NL]");
    let databases = load(&[one(), two(), three()], 3).unwrap();
    assert_eq!(at(&databases, "81.2.69.160"), "Absent");
    let (Reading::Codes(left), Reading::Codes(right)) = (
        load(&[one(), two()], 2).unwrap().locate("81.2.69.1".parse().unwrap()),
        load(&[one(), two()], 2).unwrap().locate("81.2.69.2".parse().unwrap()),
    ) else {
        panic!()
    };
    assert_eq!(left, right);
}

#[test]
fn addresses_that_mean_another_host_elsewhere_are_nowhere() {
    let databases = load(&[one(), two()], 2).unwrap();
    for address in [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00::1",
        "2001:db8::1",
        "ff02::1",
        "::ffff:10.1.2.3",
    ] {
        assert_eq!(at(&databases, address), "Absent", "{address}");
        assert!(!is_public(address.parse::<IpAddr>().unwrap().to_canonical()), "{address}");
    }
    assert!(is_public("100.128.0.1".parse().unwrap()) && is_public("172.32.0.1".parse().unwrap()));
}

#[test]
fn databases_that_cannot_serve_are_refused_with_their_name() {
    assert!(matches!(load(&[one()], 2), Err(Error::TooFew { .. })));
    assert!(matches!(load(&[one(), two()], 1), Err(Error::TooFew { .. })));
    assert!(matches!(load(&[one(), one()], 2), Err(Error::Same(..))));
    let other = database(&[("81.2.69.0", 24, Value::Map(vec![("asn", Value::Number(6, 5))]))]);
    let error = load(&[one(), other], 2).map(drop).unwrap_err();
    assert!(matches!(error, Error::NoCountries(_)) && error.to_string().contains("1.mmdb"), "{error}");
    for bytes in [Vec::new(), b"MaxMind".to_vec(), vec![0; 100_000]] {
        let error = load(&[one(), bytes], 2).map(drop).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains("1.mmdb"), "{error}");
    }
}

#[test]
fn a_database_without_a_description_is_read_and_verified() {
    let networks = || [("81.2.69.0", 24, flat("GB")), ("2.125.0.0", 16, flat("DE"))];
    let whole = with_description(&networks(), Vec::new());
    let databases = load(&[one(), whole.clone()], 2).unwrap();
    assert_eq!(at(&databases, "81.2.69.160"), "[GB]");
    assert_eq!(at(&databases, "2.125.1.1"), "[DE]");
    for length in 0..whole.len() {
        assert!(load(&[one(), whole[..length].to_vec()], 2).is_err(), "{length}");
    }
    let mut circle = whole;
    circle[4 * 6..5 * 6].copy_from_slice(&[0, 0, 1, 0, 0, 1]);
    assert!(load(&[one(), circle], 2).is_err());
}

#[test]
fn no_beginning_of_a_database_is_taken_for_the_whole() {
    let whole = two();
    assert!(load(&[one(), whole.clone()], 2).is_ok());
    for length in 0..whole.len() {
        assert!(load(&[one(), whole[..length].to_vec()], 2).is_err(), "{length}");
    }
}

#[test]
fn a_tree_that_runs_in_a_circle_is_refused() {
    for target in [0u8, 1, 4] {
        let mut bytes = two();
        // The fifth node's records.
        bytes[4 * 6..5 * 6].copy_from_slice(&[0, 0, target, 0, 0, target]);
        assert!(load(&[one(), bytes], 2).is_err(), "{target}");
    }
}

/// Whatever stands in it: an error, or answers.
fn try_all(bytes: Vec<u8>) {
    if let Ok(databases) = load(&[one(), bytes], 2) {
        let known: BTreeMap<&str, String> = ["81.2.69.160", "2.125.1.1", "9.9.9.9", "2a02::1", "1.1.1.1"]
            .into_iter()
            .map(|address| (address, at(&databases, address)))
            .collect();
        assert_eq!(known.len(), 5);
    }
}

#[test]
fn a_byte_that_is_wrong_is_an_error_or_another_answer() {
    let whole = two();
    for at in 0..whole.len() {
        for flip in [0x01, 0xff] {
            let mut spoiled = whole.clone();
            spoiled[at] ^= flip;
            try_all(spoiled);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rubbish_is_no_panic(at in 0..2_000usize, bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
        let mut spoiled = two();
        let at = at % spoiled.len();
        spoiled.splice(at..(at + bytes.len()).min(spoiled.len()), bytes);
        try_all(spoiled);
    }
}
