//! The windows of a dataset: `window` in `[datasets.NAME]`.

use std::time::Duration;

use jiff::SignedDuration;

use crate::domain::dataset::{OPEN_MAX, WINDOWS_OF_A_RECORD_MAX};
use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{Problems, Spot, Table};
use crate::domain::policy::Profile;
use crate::planted::planted;

pub(super) const WINDOW: Shape = Shape {
    name: "datasets.NAME.window",
    about: "Windows of event time.",
    keys: &[
        Key::required("size", Kind::Duration, "How long a window is: at least PT1S."),
        Key::new(
            "every",
            Kind::Duration,
            "How far apart windows begin that overlap, with noise only: `size` is several times as long, up to 64 times. \
             Default: `size`.",
        ),
        Key::new("grace", Kind::Duration, "How long after its end a window takes records. Default: PT30S."),
        Key::new(
            "open_max",
            Kind::Count,
            "The most windows from the oldest that holds records to the newest. Default: 4096.",
        ),
    ],
};

/// What a dataset declares of its windows.
pub(super) struct DeclaredWindows {
    size: Duration,
    /// How far apart they begin. `None`: each begins where the one before ends.
    every: Option<Spot<Duration>>,
    pub(super) grace: Duration,
    pub(super) open_max: u64,
}

/// The shortest window, and the shortest step.
const SHORTEST: SignedDuration = SignedDuration::from_secs(1);

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What is declared of the windows of a dataset.
pub(super) fn read(table: &Table<'_>) -> Option<DeclaredWindows> {
    let problems = table.problems();
    let window = table.need::<Table<'_>>("window")?.value;
    let size = window.need::<SignedDuration>("size");
    let every = window.get::<SignedDuration>("every");
    let grace = window.or("grace", SignedDuration::from_secs(30));
    let open_max = window.get::<u64>("open_max");
    window.done();
    if let Some(open_max) = open_max.as_ref().filter(|open_max| open_max.value == 0) {
        problems.error(&open_max.place, "`open_max` must be at least 1");
    }
    let size = size?;
    if size.value < SHORTEST {
        problems.error(&size.place, "a window must be at least one second long");
    }
    let size = size.value.unsigned_abs();
    let every = every.and_then(|every| step(&every, size, problems));
    if let (Some(every), Some(open_max)) = (&every, &open_max) {
        // The record that closes the oldest window is in a new one.
        let open = (size + grace.unsigned_abs()).as_micros().div_ceil(every.value.as_micros()) + 1;
        if u128::from(open_max.value) < open {
            let message = format!("`open_max` is {}, and {open} windows are open at once", open_max.value);
            problems.error_help(&open_max.place, message, "records would be refused: make it larger, or leave it out");
        }
    }
    let open_max = open_max.map_or(OPEN_MAX, |open_max| open_max.value);
    Some(DeclaredWindows { size, every, grace: grace.unsigned_abs(), open_max })
}

/// How far apart windows of a size begin. `None`: not so.
fn step(every: &Spot<SignedDuration>, size: Duration, problems: &Problems) -> Option<Spot<Duration>> {
    if every.value < SHORTEST {
        problems.error(&every.place, "`every` must be at least one second");
        return None;
    }
    let step = every.value.unsigned_abs();
    if step > size || !size.as_micros().is_multiple_of(step.as_micros()) {
        let message = format!("`size` is {}, which is not a whole multiple of `every`, {}", text(size), text(step));
        problems.error_help(
            &every.place,
            message,
            "each record is in as many windows as every other: let `size` be 2, 3 or more times `every`",
        );
        return None;
    }
    if step < size && size >= DAY {
        problems.error_help(
            &every.place,
            "windows that overlap lie in one day (UTC) each, so of a window of a day there is only one",
            "remove `every`, or make `size` shorter",
        );
        return None;
    }
    let windows = size.as_micros() / step.as_micros();
    if windows > u128::from(WINDOWS_OF_A_RECORD_MAX) {
        let message = format!("each record would be in {windows} windows, and {WINDOWS_OF_A_RECORD_MAX} are the most");
        problems.error_help(&every.place, message, "make `every` longer: a record is counted in each of them");
        return None;
    }
    Some(Spot { value: step, place: every.place.clone() })
}

impl DeclaredWindows {
    /// How far apart they begin.
    pub(super) fn step(&self) -> Duration {
        self.every.as_ref().map_or(self.size, |every| every.value)
    }

    /// For how long a window goes on after the next one has begun.
    pub(super) fn overlap(&self) -> Duration {
        self.size.saturating_sub(self.step())
    }

    /// Windows that overlap are for datasets that declare noise.
    pub(super) fn check_overlap(&self, has_noise: bool, problems: &Problems) {
        let overlaps = !has_noise && !self.overlap().is_zero() && !planted("overlaps-let-through");
        let Some(every) = self.every.as_ref().filter(|_| overlaps) else { return };
        problems.error_help(
            &every.place,
            "windows that overlap need noise: without it whoever has two of them can subtract. Say that a shop opens at 10:10, \
             and the windows from 10:00 to 11:00 and from 10:10 to 11:10 tell 40 visits and 41. Each is of enough people, and \
             41 - 40 = 1 is somebody who came from 11:00 to 11:10",
            "give the dataset noise ([datasets.NAME.privacy]), or remove `every`",
        );
    }

    /// Whether they are as long as a release profile asks for. The step counts: two windows that overlap tell of what is in one
    /// of them alone.
    pub(super) fn check_shortest(
        &self,
        shortest: Duration,
        name: &Spot<String>,
        profile: &Profile,
        problems: &Problems,
    ) {
        let step = self.step();
        if shortest <= step {
            return;
        }
        let (are, key) = match self.overlap().is_zero() {
            true => (format!("are {} long", text(step)), "window.size"),
            false => (format!("begin every {}", text(step)), "window.every"),
        };
        let message = format!("the windows {are}, and release profile `{}` asks for {}", profile.name, text(shortest));
        problems.error_help(&name.place, message, format!("make `{key}` longer, or name another profile"));
    }
}

fn text(duration: Duration) -> String {
    format!("{:#}", SignedDuration::try_from(duration).unwrap_or_default())
}
