//! Reads the packed raster, and works out what lies beside its edges.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use super::{Border, Boundaries, COLUMNS, Cell, Codes, Error, Parts, ROWS, STEPS, Set, candidates};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::knowledge::Reading;

/// The version of the format.
const VERSION: u16 = 2;

/// Names of the data that ISO 3166 does not list, or not any more, and what they are there. Ceuta and Melilla, the
/// Canaries, Clipperton, Ascension and Tristan da Cunha are parts of their countries, Diego Garcia is part of the
/// British Indian Ocean Territory, and Kosovo is listed only as a part of Serbia.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("AC", "SH-AC"),
    ("CP", "FR-CP"),
    ("DG", "IO"),
    ("EA", "ES"),
    ("IC", "ES-CN"),
    ("IN-CT", "IN-CG"),
    ("IN-DD", "IN-DH"),
    ("IN-DN", "IN-DH"),
    ("IN-OR", "IN-OD"),
    ("IN-TG", "IN-TS"),
    ("IN-UT", "IN-UK"),
    ("PK-AJK", "PK-JK"),
    ("TA", "SH-TA"),
    ("XK", "RS-KM"),
];

/// Territories with a code of their own, and the countries whose areas enclose them.
const SOVEREIGNS: &[(&str, &[&str])] = &[
    ("AU", &["CC", "CX", "HM", "NF"]),
    ("CN", &["HK", "MO", "TW"]),
    ("DK", &["FO", "GL"]),
    ("FI", &["AX"]),
    ("FR", &["BL", "FR-CP", "GF", "GP", "MF", "MQ", "NC", "PF", "PM", "RE", "TF", "WF", "YT"]),
    ("GB", &["AI", "BM", "FK", "GG", "GI", "GS", "IM", "IO", "JE", "KY", "MS", "PN", "SH", "TC", "VG"]),
    ("NL", &["AW", "BQ", "CW", "SX"]),
    ("NO", &["BV", "SJ"]),
    ("NZ", &["CK", "NU", "TK"]),
    ("US", &["AS", "GU", "MP", "PR", "UM", "VI"]),
];

/// An area that covers a part of a cell.
pub(super) struct Area {
    code: Jurisdiction,
    outer: Vec<Ring>,
    inner: Vec<Ring>,
}

type Ring = Vec<[f32; 2]>;

/// The areas that cover a point, as bits.
pub(super) fn covering(areas: &[Area], x: f32, y: f32) -> u64 {
    let covers = |area: &Area| {
        let inside = |rings: &[Ring]| rings.iter().filter(|ring| winds_around(ring, x, y)).count();
        inside(&area.outer) > inside(&area.inner)
    };
    areas.iter().enumerate().fold(0, |covered, (at, area)| covered | u64::from(covers(area)) << at)
}

/// Whether a ring winds around a point.
fn winds_around(ring: &Ring, x: f32, y: f32) -> bool {
    let Some(mut from) = ring.last() else { return false };
    let mut winding = 0;
    for to in ring {
        let side = || {
            let [ax, ay, bx, by, x, y] = [from[0], from[1], to[0], to[1], x, y].map(f64::from);
            (bx - ax) * (y - ay) - (x - ax) * (by - ay)
        };
        if from[1] <= y {
            if to[1] > y && side() > 0.0 {
                winding += 1;
            }
        } else if to[1] <= y && side() < 0.0 {
            winding -= 1;
        }
        from = to;
    }
    winding != 0
}

/// Reads the raster.
pub(super) fn read(bytes: &[u8]) -> Result<Boundaries, Error> {
    let mut bytes = Bytes(bytes);
    if bytes.u16()? != VERSION {
        return Err(Error("another version"));
    }
    for _ in 0..bytes.u32()? {
        bytes.text()?;
        bytes.take(8)?;
    }
    let columns = bytes.u32()?;
    let cells = bytes.u32()?;
    if i64::from(columns) != i64::from(COLUMNS) || i64::from(cells) != i64::from(COLUMNS * ROWS) {
        return Err(Error("another raster"));
    }
    let mut sets = Sets::new();
    let cells = (0..cells).map(|_| read_cell(&mut bytes, &mut sets)).collect::<Result<Vec<_>, _>>()?;
    let combinations = sets.sets.iter().filter_map(|(codes, reading)| match reading {
        Reading::Codes(candidates) => Some((*codes, Arc::clone(candidates))),
        _ => None,
    });
    let combinations = RwLock::new(combinations.collect());
    Ok(Boundaries { cells, codes: sets.codes, sets: sets.sets, combinations })
}

fn read_cell(bytes: &mut Bytes<'_>, sets: &mut Sets) -> Result<Cell, Error> {
    let mut whole = Vec::new();
    for _ in 0..bytes.u8()? {
        whole.push(code(bytes.text()?)?);
    }
    let mut areas = Vec::new();
    for _ in 0..bytes.u8()? {
        areas.push(Area { code: code(bytes.text()?)?, outer: bytes.rings()?, inner: bytes.rings()? });
    }
    if areas.is_empty() {
        return Ok(Cell::Whole(sets.number(whole)?));
    }
    if areas.len() > 64 {
        return Err(Error("more than 64 areas in a cell"));
    }
    let mut parts = Parts { areas, covered: Vec::new(), borders: Vec::new() };
    let mut borders: BTreeMap<[Set; 2], Vec<[f32; 4]>> = BTreeMap::new();
    let mut set_at = |areas: &[Area], x: f32, y: f32| {
        let covered = covering(areas, x, y);
        if let Some((_, set)) = parts.covered.iter().find(|(known, _)| *known == covered) {
            return Ok(*set);
        }
        let beside = areas.iter().enumerate().filter(|(at, _)| covered >> at & 1 == 1).map(|(_, area)| area.code);
        let set = sets.number(whole.iter().copied().chain(beside).collect())?;
        parts.covered.push((covered, set));
        Ok(set)
    };
    for edge in edges(&parts.areas) {
        let mut sides = Vec::new();
        for (x, y) in beside(&edge) {
            if (0.0..=STEPS).contains(&x) && (0.0..=STEPS).contains(&y) {
                sides.push(set_at(&parts.areas, x, y)?);
            }
        }
        sides.sort_unstable();
        sides.dedup();
        for pair in sides.chunks(2) {
            let first = pair.first().copied().unwrap_or_default();
            borders.entry([first, pair.get(1).copied().unwrap_or(first)]).or_default().push(edge);
        }
    }
    borders.remove(&[0, 0]);
    parts.borders = borders.into_iter().map(|(sides, edges)| Border { sides, edges }).collect();
    Ok(Cell::Parts(Box::new(parts)))
}

/// Every edge once: those of the areas inside of the cell, and those of the cell, cut where areas meet them.
#[expect(clippy::indexing_slicing, reason = "a point has two coordinates, and `at` is 0 or 1")]
fn edges(areas: &[Area]) -> Vec<[f32; 4]> {
    let mut edges = Vec::new();
    // Lower, upper, left, right.
    let mut cuts: [Vec<f32>; 4] = std::array::from_fn(|_| vec![0.0, STEPS]);
    for ring in areas.iter().flat_map(|area| area.outer.iter().chain(&area.inner)) {
        let Some(&(mut from)) = ring.last() else { continue };
        for &to in ring {
            let on = |at: usize, place: f32| from[at] == place && to[at] == place;
            if !(on(0, 0.0) || on(0, STEPS) || on(1, 0.0) || on(1, STEPS)) {
                // The same edge of a neighbour runs the other way.
                let (low, high) = if (from[0], from[1]) <= (to[0], to[1]) { (from, to) } else { (to, from) };
                edges.push([low[0], low[1], high[0], high[1]]);
            }
            let [lower, upper, left, right] = &mut cuts;
            for (cuts, at, place) in [(lower, 1, 0.0), (upper, 1, STEPS), (left, 0, 0.0), (right, 0, STEPS)] {
                if to[at] == place {
                    cuts.push(to[1 - at]);
                }
            }
            from = to;
        }
    }
    for (side, mut cuts) in cuts.into_iter().enumerate() {
        cuts.sort_unstable_by(f32::total_cmp);
        cuts.dedup();
        for pair in cuts.windows(2) {
            let &[from, to] = pair else { continue };
            edges.push(match side {
                0 => [from, 0.0, to, 0.0],
                1 => [from, STEPS, to, STEPS],
                2 => [0.0, from, 0.0, to],
                _ => [STEPS, from, STEPS, to],
            });
        }
    }
    edges.sort_unstable_by(|left, right| left.partial_cmp(right).unwrap_or(std::cmp::Ordering::Equal));
    edges.dedup();
    edges
}

/// Points half a step to both sides of an edge: of its middle, and of a long one also near its ends, where another
/// edge may meet it.
fn beside(&[from_x, from_y, to_x, to_y]: &[f32; 4]) -> impl Iterator<Item = (f32, f32)> {
    let (x, y) = (to_x - from_x, to_y - from_y);
    let length = x.hypot(y);
    let shares: &[f32] = if length > 2_000.0 { &[0.02, 0.2, 0.5, 0.8, 0.98] } else { &[0.5] };
    let across = if length > 0.0 { (-y / length / 2.0, x / length / 2.0) } else { (0.5, 0.5) };
    shares.iter().flat_map(move |share| {
        [1.0, -1.0].map(|side| (from_x + share * x + side * across.0, from_y + share * y + side * across.1))
    })
}

/// The code of a name in the data.
pub(super) fn code(name: &str) -> Result<Jurisdiction, Error> {
    let name = OTHER_NAMES.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| name);
    Jurisdiction::parse(name).ok_or(Error("a name that ISO 3166 does not list"))
}

/// The codes that are not those of an area around another one of them.
pub(super) fn most_specific(codes: &[Jurisdiction]) -> Vec<Jurisdiction> {
    let encloses = |outer: Jurisdiction, code: Jurisdiction| {
        let has = |(country, territories): &(&str, &[&str])| {
            Jurisdiction::parse(country) == Some(outer)
                && territories.iter().any(|territory| {
                    Jurisdiction::parse(territory)
                        .is_some_and(|territory| territory == code || territory == code.country())
                })
        };
        outer != code && (code.country() == outer || SOVEREIGNS.iter().any(has))
    };
    let mut kept: Vec<Jurisdiction> =
        codes.iter().copied().filter(|&outer| !codes.iter().any(|&code| encloses(outer, code))).collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Sets of codes while they are read.
struct Sets {
    codes: Vec<Jurisdiction>,
    sets: Vec<(Codes, Reading)>,
    numbers: HashMap<Vec<Jurisdiction>, Set>,
}

impl Sets {
    fn new() -> Self {
        let sets = vec![([0; 9], Reading::Absent)];
        Self { codes: Vec::new(), sets, numbers: HashMap::from([(Vec::new(), 0)]) }
    }

    /// The number of what remains of codes that lie in each other.
    fn number(&mut self, codes: Vec<Jurisdiction>) -> Result<Set, Error> {
        if let Some(&known) = self.numbers.get(&codes) {
            return Ok(known);
        }
        let specific = most_specific(&codes);
        let number = match self.numbers.get(&specific) {
            Some(&known) => known,
            None => {
                let mut bits: Codes = [0; 9];
                for code in &specific {
                    let at = self.codes.iter().position(|known| known == code).unwrap_or_else(|| {
                        self.codes.push(*code);
                        self.codes.len() - 1
                    });
                    *bits.get_mut(at / 64).ok_or(Error("more than 576 codes"))? |= 1 << (at % 64);
                }
                let number = Set::try_from(self.sets.len()).map_err(|_| Error("too many sets"))?;
                self.sets.push((bits, Reading::Codes(candidates(&self.codes, &bits))));
                self.numbers.insert(specific, number);
                number
            }
        };
        self.numbers.insert(codes, number);
        Ok(number)
    }
}

/// What is left of the data.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.first_chunk().copied().ok_or(Error("it ends early"))
    }

    fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'b str, Error> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(usize::from(length))?).map_err(|_| Error("a name that is not text"))
    }

    fn rings(&mut self) -> Result<Vec<Ring>, Error> {
        (0..self.u8()?).map(|_| self.ring()).collect()
    }

    fn ring(&mut self) -> Result<Ring, Error> {
        (0..self.u32()?).map(|_| Ok([f32::from(self.u16()?), f32::from(self.u16()?)])).collect()
    }
}
