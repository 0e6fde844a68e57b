//! Places on the earth: which countries a circle touches, by the borders of OpenStreetMap as the crate
//! `country-boundaries` packs them ((c) OpenStreetMap contributors, ODbL).
//!
//! The data is a raster of cells of one degree. A cell names the areas that cover it, and has the polygons of those
//! that cover a part of it, on a grid of 65,535 steps (1.7 m). [`raster`] reads it. From the polygons is worked out
//! once, for each edge, which areas lie on its two sides. What a circle touches is then what lies around its centre,
//! and beside every edge that comes as near as its radius: nothing is sampled, so nothing is missed between samples.
//!
//! Of areas that lie in each other the most specific counts: Hong Kong, not China as well. Where several states claim a
//! place, all of them are named, such as `UA-43` and `RU`: the policies say what that means. Areas reach out to sea.
//! Distances are taken a little too short (on a degree of 110.5 km, and the smallest degree of longitude in the
//! circle), and radii 3 m too long for the raster's grid, so that a country too many may be named and none is left out.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use foldhash::fast::RandomState;

use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::knowledge::{Candidates, Places, Reading};

mod raster;
#[cfg(test)]
mod tests;

/// The greatest radius, in metres.
pub const RADIUS_MAX: f64 = 100_000.0;

/// Metres of a degree of latitude, where it is shortest.
const DEGREE: f64 = 110_500.0;
/// Added to every radius.
const GRID: f64 = 3.0;
/// Steps of the grid in a cell.
const STEPS: f32 = 65_535.0;
/// Columns and rows of the raster.
const COLUMNS: i32 = 360;
const ROWS: i32 = 180;
/// So many combinations of codes are remembered. What the borders of the world have is less.
const COMBINATIONS_MAX: usize = 65_536;

/// The data cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the borders of the crate country-boundaries are not as this version of bailiwick reads them: {0}")]
pub struct Error(&'static str);

/// A set of codes, by their numbers in [`Boundaries::codes`].
type Codes = [u64; 9];

/// The number of a set in [`Boundaries::sets`]. 0 is the empty one.
type Set = u32;

/// The borders of the world.
pub struct Boundaries {
    cells: Vec<Cell>,
    codes: Vec<Jurisdiction>,
    /// What lies somewhere.
    sets: Vec<(Codes, Reading)>,
    /// Every set that was answered, so that equal ones are the same.
    combinations: RwLock<HashMap<Codes, Candidates, RandomState>>,
}

enum Cell {
    /// The same everywhere.
    Whole(Set),
    Parts(Box<Parts>),
}

struct Parts {
    areas: Vec<raster::Area>,
    /// What lies where, by the areas that cover it: bit `n` stands for `areas[n]`.
    covered: Vec<(u64, Set)>,
    borders: Vec<Border>,
}

/// Edges with the same areas on their sides.
struct Border {
    sides: [Set; 2],
    edges: Vec<[f32; 4]>,
}

/// What a circle touches so far.
struct Touched {
    first: Set,
    codes: Codes,
    is_mixed: bool,
}

impl Boundaries {
    /// The borders, read once in the life of the process.
    ///
    /// # Errors
    /// When the data in the program has another format.
    pub fn shared() -> Result<Arc<Self>, Error> {
        static SHARED: OnceLock<Arc<Boundaries>> = OnceLock::new();
        if let Some(known) = SHARED.get() {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(raster::read(country_boundaries::BOUNDARIES_ODBL_360X180)?);
        Ok(Arc::clone(SHARED.get_or_init(|| read)))
    }

    fn add(&self, touched: &mut Touched, set: Set) {
        if set == 0 || set == touched.first {
            return;
        }
        if touched.first == 0 {
            touched.first = set;
        } else {
            touched.is_mixed = true;
        }
        if let Some((codes, _)) = self.sets.get(set as usize) {
            touched.codes.iter_mut().zip(codes).for_each(|(touched, codes)| *touched |= codes);
        }
    }

    /// Whether all codes of a set are touched already.
    fn has(&self, touched: &Touched, set: Set) -> bool {
        let is_in = |codes: &Codes| codes.iter().zip(&touched.codes).all(|(codes, touched)| codes & !touched == 0);
        set == 0 || set == touched.first || self.sets.get(set as usize).is_some_and(|(codes, _)| is_in(codes))
    }

    fn cell(&self, row: i32, column: i32) -> &Cell {
        const SEA: &Cell = &Cell::Whole(0);
        let at = row * COLUMNS + column.rem_euclid(COLUMNS);
        usize::try_from(at).ok().and_then(|at| self.cells.get(at)).unwrap_or(SEA)
    }

    fn reading(&self, set: Set) -> Reading {
        self.sets.get(set as usize).map_or(Reading::Absent, |(_, reading)| reading.clone())
    }

    /// The candidates of a set of several that were touched together.
    fn combined(&self, codes: &Codes) -> Reading {
        let combinations = self.combinations.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = combinations.get(codes) {
            return Reading::Codes(Arc::clone(known));
        }
        drop(combinations);
        let candidates = candidates(&self.codes, codes);
        let mut combinations = self.combinations.write().unwrap_or_else(PoisonError::into_inner);
        if combinations.len() >= COMBINATIONS_MAX {
            return Reading::Codes(candidates);
        }
        Reading::Codes(Arc::clone(combinations.entry(*codes).or_insert(candidates)))
    }
}

impl Places for Boundaries {
    fn around(&self, latitude: f64, longitude: f64, radius_m: f64) -> Reading {
        let is_circle = (-90.0..=90.0).contains(&latitude)
            && (-180.0..=180.0).contains(&longitude)
            && (0.0..=RADIUS_MAX).contains(&radius_m);
        if !is_circle {
            return Reading::Unreadable;
        }
        // In degrees of latitude; `narrow` is the length of the shortest degree of longitude.
        let radius = (radius_m + GRID) / DEGREE;
        let narrow = (latitude.abs() + radius).min(90.0).to_radians().cos();
        let wide = radius / narrow;
        let rows = row(latitude + radius)..=row(latitude - radius);
        let columns = if wide < 179.0 {
            column(longitude - wide)..=column(longitude + wide)
        } else {
            // Around a pole.
            let middle = column(longitude);
            middle - COLUMNS / 2..=middle + COLUMNS / 2 - 1
        };
        if rows.start() == rows.end()
            && columns.start() == columns.end()
            && let Cell::Whole(set) = self.cell(*rows.start(), *columns.start())
        {
            return self.reading(*set);
        }
        let mut touched = Touched { first: 0, codes: [0; 9], is_mixed: false };
        for row in rows {
            for column in columns.clone() {
                let circle = Circle {
                    x: (longitude + 180.0 - f64::from(column)) as f32 * STEPS,
                    y: (latitude - 89.0 + f64::from(row)) as f32 * STEPS,
                    narrow: narrow as f32,
                    square: (radius as f32 * STEPS).powi(2),
                };
                if !circle.touches_cell() {
                    continue;
                }
                match self.cell(row, column) {
                    Cell::Whole(set) => self.add(&mut touched, *set),
                    Cell::Parts(parts) => self.add_parts(&mut touched, parts, &circle),
                }
            }
        }
        if touched.is_mixed { self.combined(&touched.codes) } else { self.reading(touched.first) }
    }
}

impl Boundaries {
    fn add_parts(&self, touched: &mut Touched, parts: &Parts, circle: &Circle) {
        if (0.0..=STEPS).contains(&circle.x) && (0.0..=STEPS).contains(&circle.y) {
            let covered = raster::covering(&parts.areas, circle.x, circle.y);
            // A place that is nowhere at an edge is a sliver that is narrower than the grid.
            if let Some((_, set)) = parts.covered.iter().find(|(known, _)| *known == covered) {
                self.add(touched, *set);
            }
        }
        for border in &parts.borders {
            let is_known = border.sides.iter().all(|&side| self.has(touched, side));
            if !is_known && border.edges.iter().any(|edge| circle.touches(edge)) {
                border.sides.iter().for_each(|&side| self.add(touched, side));
            }
        }
    }
}

/// A circle, in steps of a cell's grid from the cell's lower left corner. Longitudes are shortened by `narrow`.
struct Circle {
    x: f32,
    y: f32,
    narrow: f32,
    square: f32,
}

impl Circle {
    fn touches_cell(&self) -> bool {
        let x = (self.x - self.x.clamp(0.0, STEPS)) * self.narrow;
        let y = self.y - self.y.clamp(0.0, STEPS);
        x * x + y * y <= self.square
    }

    fn touches(&self, &[from_x, from_y, to_x, to_y]: &[f32; 4]) -> bool {
        let (along_x, along_y) = ((to_x - from_x) * self.narrow, to_y - from_y);
        let (x, y) = ((self.x - from_x) * self.narrow, self.y - from_y);
        let length = along_x * along_x + along_y * along_y;
        // An edge without length is a point.
        let share = ((x * along_x + y * along_y) / length.max(f32::MIN_POSITIVE)).clamp(0.0, 1.0);
        let (x, y) = (x - share * along_x, y - share * along_y);
        x * x + y * y <= self.square
    }
}

fn row(latitude: f64) -> i32 {
    ((90.0 - latitude).floor() as i32).clamp(0, ROWS - 1)
}

fn column(longitude: f64) -> i32 {
    (longitude + 180.0).floor() as i32
}

fn candidates(known: &[Jurisdiction], codes: &Codes) -> Candidates {
    let has = |at: usize| codes.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
    let mut all: Vec<Jurisdiction> =
        known.iter().enumerate().filter(|(at, _)| has(*at)).map(|(_, code)| *code).collect();
    all.sort_unstable();
    all.into()
}
