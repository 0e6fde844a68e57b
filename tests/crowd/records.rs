//! Records, and what becomes of each by itself.

use crate::common::tape::Tape;

use super::deployment::SCORES;

/// 2026-01-05T12:00:00Z.
pub const BEGIN: i64 = 1_767_614_400_000_000;
/// The length of a window.
pub const WINDOW: i64 = 600_000_000;
/// All records are in so many windows.
pub const WINDOWS: usize = 2;
const PERSONS: usize = 60;
/// The name of a field that is not declared: rows know it by its number.
pub const MORE: &str = "9";

/// What is wrong with how a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It has no amount.
    Missing,
    /// Its amount is no number.
    WrongType,
    /// Its amount is NaN.
    NotFinite,
    /// It has a field more.
    Undeclared,
    /// It cannot be read.
    Malformed,
}

#[derive(Debug, Clone)]
pub struct Record {
    pub at: i64,
    pub who: String,
    pub country: &'static str,
    pub kind: &'static str,
    pub x: f64,
    pub amount: f64,
    pub fault: Fault,
}

/// Why a record is refused. `rules` are those that the law's documents say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Why {
    pub reason: &'static str,
    pub field: &'static str,
    pub rules: &'static [&'static str],
    pub route: &'static str,
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    Taken { score: f32 },
    Refused(Why),
    /// The model fails on it.
    Failed,
    /// Its score cannot be used.
    Unusable,
}

/// By what a gateway decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rules {
    pub refuses_france: bool,
    pub drops: bool,
}

impl Record {
    /// Half of them with something about them.
    pub fn of(tape: &mut Tape) -> Self {
        let good = Self::good(tape);
        match tape.below(48) {
            0..3 => Self { country: "IN", ..good },
            3..6 => Self { country: "US", ..good },
            6 => Self { country: "JP", ..good },
            7 => Self { country: "ZZ", ..good },
            8 => Self { at: 4_102_444_800_000_000, ..good },
            9 => Self { at: -1_767_614_400_000_000, ..good },
            10 => Self { who: "somebody with a name".to_owned(), ..good },
            11 => Self { fault: Fault::Missing, ..good },
            12 => Self { fault: Fault::WrongType, ..good },
            13 => Self { fault: Fault::NotFinite, ..good },
            14 => Self { fault: Fault::Undeclared, ..good },
            15 => Self { fault: Fault::Malformed, ..good },
            // The model fails on it.
            16 => Self { x: 1_000.0, ..good },
            17 => Self { x: -1_000.0, ..good },
            18 => Self { x: 10.0, ..good },
            19 => Self { x: 11.0, ..good },
            _ => good,
        }
    }

    pub fn good(tape: &mut Tape) -> Self {
        Self {
            at: BEGIN + WINDOW * tape.below(WINDOWS) as i64 + tape.below(WINDOW as usize) as i64,
            who: format!("p-{}", tape.below(PERSONS)),
            country: tape.of(&["DE", "FR"]),
            kind: tape.of(&["a", "b"]),
            x: tape.below(10) as f64,
            // A sum of these is exact in any order.
            amount: tape.below(4_000) as f64 / 4.0,
            fault: Fault::None,
        }
    }

    pub fn fate(&self, rules: Rules) -> Fate {
        let refused = |reason, field, rules, route| Fate::Refused(Why { reason, field, rules, route });
        let of_fault = |reason| refused(reason, "amount", &[], "");
        match self.fault {
            Fault::Missing => return of_fault("REASON_MISSING_FIELD"),
            Fault::WrongType => return of_fault("REASON_WRONG_TYPE"),
            Fault::NotFinite => return of_fault("REASON_NOT_FINITE"),
            Fault::Malformed => return refused("REASON_MALFORMED_RECORD", "", &[], ""),
            Fault::Undeclared if !rules.drops => return refused("REASON_UNDECLARED_FIELD", MORE, &[], ""),
            Fault::Undeclared | Fault::None => {}
        }
        if self.at > BEGIN + WINDOW * WINDOWS as i64 {
            return refused("REASON_EVENT_TIME_IN_FUTURE", "at", &[], "");
        }
        if self.at < BEGIN {
            return refused("REASON_EVENT_TIME_TOO_OLD", "at", &[], "");
        }
        if self.who.len() > 12 {
            return refused("REASON_TOO_LONG", "who", &[], "");
        }
        match self.country {
            "IN" => return refused("REASON_BELONGS_ELSEWHERE", "", &["bb/misroute"], "g-2"),
            "US" => return refused("REASON_MAY_NOT_BE_HERE", "", &["cc/misroute"], ""),
            "FR" if rules.refuses_france => return refused("REASON_MAY_NOT_BE_HERE", "", &["cc/misroute"], ""),
            "JP" => return refused("REASON_NO_REGIME", "", &[], ""),
            "ZZ" => return refused("REASON_UNKNOWN_JURISDICTION", "", &["facts/subject.residence/unknown"], ""),
            _ => {}
        }
        if self.x < 0.0 || self.x >= SCORES.len() as f64 {
            return Fate::Failed;
        }
        let score = SCORES[self.x as usize];
        if (0.0..=1.0).contains(&score) { Fate::Taken { score } } else { Fate::Unusable }
    }
}
