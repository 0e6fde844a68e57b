//! What is said of places, against the crate's own answers and what is known of the world.

use std::collections::BTreeSet;
use std::f64::consts::TAU;

use country_boundaries::{BOUNDARIES_ODBL_360X180, CountryBoundaries, LatLon};
use proptest::prelude::*;

use super::*;

/// Metres of a degree on a sphere of the earth's size.
const SPHERE: f64 = 111_195.0;

fn oracle() -> &'static CountryBoundaries {
    static ORACLE: OnceLock<CountryBoundaries> = OnceLock::new();
    ORACLE.get_or_init(|| CountryBoundaries::from_reader(BOUNDARIES_ODBL_360X180).unwrap())
}

fn around(latitude: f64, longitude: f64, radius_m: f64) -> BTreeSet<String> {
    match Boundaries::shared().unwrap().around(latitude, longitude, radius_m) {
        Reading::Codes(candidates) => {
            let codes: BTreeSet<String> = candidates.iter().map(ToString::to_string).collect();
            assert!(candidates.is_sorted() && codes.len() == candidates.len() && !codes.is_empty());
            codes
        }
        Reading::Absent => BTreeSet::new(),
        Reading::Unreadable => panic!("{latitude} {longitude} {radius_m}"),
    }
}

fn at(latitude: f64, longitude: f64) -> BTreeSet<String> {
    let ids = oracle().ids(LatLon::new(latitude, longitude).unwrap());
    let codes: Vec<Jurisdiction> = ids.into_iter().map(|id| raster::code(id).unwrap()).collect();
    raster::most_specific(&codes).iter().map(ToString::to_string).collect()
}

/// The point on the sphere at a distance and a bearing.
fn towards(latitude: f64, longitude: f64, distance: f64, bearing: f64) -> (f64, f64) {
    let (latitude, arc) = (latitude.to_radians(), (distance / SPHERE).to_radians());
    let there = (latitude.sin() * arc.cos() + latitude.cos() * arc.sin() * bearing.cos()).clamp(-1.0, 1.0).asin();
    let turned = (bearing.sin() * arc.sin() * latitude.cos()).atan2(arc.cos() - latitude.sin() * there.sin());
    let longitude = (longitude + turned.to_degrees() + 540.0).rem_euclid(360.0) - 180.0;
    (there.to_degrees().clamp(-90.0, 90.0), longitude)
}

/// All that a dense sample of the circle finds has to be in the answer.
fn misses(latitude: f64, longitude: f64, radius: f64, rings: u32, rays: u32) -> BTreeSet<String> {
    let said = around(latitude, longitude, radius);
    let mut found = at(latitude, longitude);
    for ring in 1..=rings {
        for ray in 0..rays {
            let distance = radius * f64::from(ring) / f64::from(rings);
            let (latitude, longitude) = towards(latitude, longitude, distance, TAU * f64::from(ray) / f64::from(rays));
            found.extend(at(latitude, longitude));
        }
    }
    &found - &said
}

fn set(codes: &[&str]) -> BTreeSet<String> {
    codes.iter().map(ToString::to_string).collect()
}

#[test]
fn every_name_of_the_data_is_a_code() {
    let boundaries = Boundaries::shared().unwrap();
    assert!(boundaries.codes.len() > 450, "{}", boundaries.codes.len());
    let text = format!("{:?}", boundaries.codes);
    for code in ["HK", "MO", "TW", "PR", "RE", "AX", "SJ", "GG", "JE", "IM", "UA-43", "RS-KM", "US-CA", "CA-QC", "EH"] {
        assert!(text.contains(code), "{code}");
    }
}

#[test]
fn traps() {
    for (latitude, longitude, codes) in [
        (22.3193, 114.1694, &["HK"][..]), // Kowloon
        (22.1987, 113.5439, &["MO"]),     // Macao
        (25.0330, 121.5654, &["TW"]),     // Taipei
        (18.4655, -66.1057, &["PR"]),     // San Juan
        (13.4443, 144.7937, &["GU"]),     // Guam
        (78.2232, 15.6267, &["SJ"]),      // Longyearbyen
        (-20.8789, 55.4481, &["RE"]),     // Saint-Denis
        (60.0973, 19.9348, &["AX"]),      // Mariehamn
        (49.1868, -2.1062, &["JE"]),      // Saint Helier
        (36.1408, -5.3536, &["ES-AN", "GI"]),
        (12.5211, -69.9683, &["AW"]),         // Oranjestad
        (44.9521, 34.1024, &["RU", "UA-43"]), // Simferopol
        (42.6629, 21.1655, &["RS-KM"]),       // Pristina
        (35.8883, -5.3162, &["ES-CE"]),       // Ceuta
        (28.4636, -16.2518, &["ES-CN"]),      // Santa Cruz de Tenerife
        (45.5019, -73.5674, &["CA-QC"]),      // Montreal
        (37.7749, -122.4194, &["US-CA"]),     // San Francisco
        (52.5200, 13.4050, &["DE"]),          // Berlin
        (41.9022, 12.4539, &["VA"]),          // in the Vatican
        (30.0, -40.0, &[]),                   // the Atlantic
    ] {
        assert_eq!(around(latitude, longitude, 0.0), set(codes), "{latitude} {longitude}");
    }
}

#[test]
fn a_circle_names_every_country_that_it_touches() {
    assert_eq!(around(22.3193, 114.1694, 1_000.0), set(&["HK"]));
    assert_eq!(around(22.5430, 114.0579, 5_000.0), set(&["CN-GD", "HK"])); // Shenzhen
    assert_eq!(around(47.5596, 7.5886, 5_000.0), set(&["CH", "DE", "FR"])); // Basel
    assert_eq!(around(50.7547, 6.0209, 100.0), set(&["BE-WAL", "DE", "NL"])); // Vaalserberg
    assert_eq!(around(41.9022, 12.4539, 2_000.0), set(&["IT", "VA"]));
    assert_eq!(around(48.5734, 7.7521, 2_000.0), set(&["FR"])); // Strasbourg, 3 km from the Rhine
    assert_eq!(around(48.5734, 7.7521, 5_000.0), set(&["DE", "FR"]));
    // At the coast, and out at sea: not the country around as well.
    assert_eq!(around(18.4655, -66.1057, 50_000.0), set(&["PR"]));
}

#[test]
fn the_ends_of_the_earth() {
    for radius in [0.0, 1.0, 2_000.0, RADIUS_MAX] {
        assert_eq!(around(90.0, 0.0, radius), set(&[]));
        for longitude in [-180.0, -90.0, -0.0, 0.0, 179.999, 180.0] {
            let pole = around(-90.0, longitude, radius);
            assert_eq!(pole, around(-90.0, 0.0, radius));
            assert!(pole.is_subset(&set(&["AQ"])));
        }
        for latitude in [-16.8, 66.5, 71.0] {
            assert_eq!(around(latitude, 180.0, radius), around(latitude, -180.0, radius));
        }
        assert_eq!(around(-0.0, -0.0, radius), around(0.0, 0.0, radius));
    }
    // Taveuni lies on the antimeridian; from the one side the other is seen.
    assert_eq!(around(-16.8, 179.99, 5_000.0), set(&["FJ"]));
    assert_eq!(around(-16.8, -179.99, 5_000.0), set(&["FJ"]));
}

#[test]
fn what_is_no_circle_is_unreadable() {
    let boundaries = Boundaries::shared().unwrap();
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, 180.001, -180.001];
    for bad in bad {
        assert_eq!(boundaries.around(bad, 0.0, 0.0), Reading::Unreadable, "{bad}");
        assert_eq!(boundaries.around(0.0, bad, 0.0), Reading::Unreadable, "{bad}");
    }
    assert_eq!(boundaries.around(90.001, 0.0, 0.0), Reading::Unreadable);
    for bad in [f64::NAN, f64::INFINITY, -1.0, RADIUS_MAX + 1.0] {
        assert_eq!(boundaries.around(0.0, 0.0, bad), Reading::Unreadable, "{bad}");
    }
}

#[test]
fn equal_answers_are_the_same() {
    let boundaries = Boundaries::shared().unwrap();
    let same = |left: (f64, f64, f64), right: (f64, f64, f64)| {
        let of = |(latitude, longitude, radius)| match boundaries.around(latitude, longitude, radius) {
            Reading::Codes(candidates) => candidates,
            other => panic!("{other:?}"),
        };
        assert!(Arc::ptr_eq(&of(left), &of(right)), "{left:?} {right:?}");
    };
    same((52.5, 13.4, 0.0), (48.1, 11.6, 5_000.0));
    same((47.5596, 7.5886, 5_000.0), (47.57, 7.59, 6_000.0));
    same((44.9521, 34.1024, 0.0), (45.1, 34.0, 2_000.0));
}

#[test]
fn no_byte_of_the_data_that_is_missing_goes_unnoticed() {
    for length in (0..5_000).chain([100_000, 977_337]) {
        assert!(raster::read(&BOUNDARIES_ODBL_360X180[..length]).is_err(), "{length}");
    }
    let mut other = BOUNDARIES_ODBL_360X180.to_vec();
    other[1] = 3;
    assert!(raster::read(&other).is_err());
}

#[test]
fn nothing_is_missed_near_borders() {
    // Walks to every border: points that lie in other areas than a point 20 km away, and halves the way between.
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut walks = 0;
    while walks < 1_500 {
        let (latitude, longitude) = ((random() * 2.0 - 1.0).asin().to_degrees(), random() * 360.0 - 180.0);
        let bearing = random() * TAU;
        let along = |distance| towards(latitude, longitude, distance, bearing);
        let here = at(latitude, longitude);
        let (mut near, mut far) = (0.0, 20_000.0);
        let (there_latitude, there_longitude) = along(far);
        if here == at(there_latitude, there_longitude) {
            continue;
        }
        walks += 1;
        while far - near > 1.0 {
            let middle = (near + far) / 2.0;
            let (latitude, longitude) = along(middle);
            if at(latitude, longitude) == here { near = middle } else { far = middle }
        }
        let (latitude, longitude) = along(near);
        for radius in [0.0, 2.0, 50.0, 3_000.0] {
            let missed = misses(latitude, longitude, radius, 6, 24);
            assert!(missed.is_empty(), "{latitude} {longitude} {radius}: {missed:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn all_that_sampling_finds_is_named(
        latitude in -90.0..=90.0f64,
        longitude in -180.0..=180.0f64,
        radius in prop_oneof![0.0..10.0f64, 10.0..3_000.0f64, 3_000.0..=RADIUS_MAX],
    ) {
        let missed = misses(latitude, longitude, radius, 20, 48);
        prop_assert!(missed.is_empty(), "{:?}", missed);
    }

    #[test]
    fn nothing_far_away_is_named(latitude in -89.0..89.0f64, longitude in -180.0..=180.0f64, radius in 0.0..20_000.0f64) {
        // What is named is found by sampling a circle that is a little larger.
        let said = around(latitude, longitude, radius);
        let larger = radius * 1.1 + 50.0;
        let outside = &said - &at(latitude, longitude);
        for code in outside {
            let found = (0..=200).any(|ring| (0..240).any(|ray| {
                let (latitude, longitude) =
                    towards(latitude, longitude, larger * f64::from(ring) / 200.0, TAU * f64::from(ray) / 240.0);
                at(latitude, longitude).contains(&code)
            }));
            prop_assert!(found, "{}", code);
        }
    }
}
