//! Latencies as bars in a terminal, on a logarithmic scale.

use std::time::Duration;

use super::measured::Latencies;

/// How many latencies lie between two marks of the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bin {
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) count: u64,
}

/// The marks of a decade: six, about as far from each other as bars are told apart.
const MARKS: [u64; 6] = [10, 15, 22, 33, 47, 68];
/// The widest bar, in letters.
const WIDTH: u64 = 50;
/// Eighths of a letter.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// The bins from the shortest latency to the longest one. Those between are there, empty or not.
pub(super) fn bins(latencies: &Latencies) -> Vec<Bin> {
    let mut bins: Vec<Bin> = Vec::new();
    for (latency, count) in latencies.occurred() {
        if bins.is_empty() {
            let [from, to] = around(latency);
            bins.push(Bin { from, to, count: 0 });
        }
        while let Some(last) = bins.last_mut() {
            if latency < last.to {
                last.count += count;
                break;
            }
            let [from, to] = around(last.to);
            bins.push(Bin { from, to, count: 0 });
        }
    }
    bins
}

/// The marks before and after a latency. The first one is 1 us.
fn around(latency: Duration) -> [Duration; 2] {
    let mut from = Duration::ZERO;
    // Tenths of a microsecond: 10 is the first mark.
    let decades = (0..).map_while(|power| 10_u64.checked_pow(power)).map(|power| power * 100);
    for nanos in decades.take(14).flat_map(|decade| MARKS.map(|mark| mark * decade)) {
        let to = Duration::from_nanos(nanos);
        if latency < to {
            return [from, to];
        }
        from = to;
    }
    [from, Duration::MAX]
}

/// A line for each bin: where it lies, a bar, and the share of all.
pub(super) fn plot(bins: &[Bin]) -> String {
    let all: u64 = bins.iter().map(|bin| bin.count).sum();
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(0);
    bins.iter().map(|bin| line(bin, all, most)).collect()
}

fn line(bin: &Bin, all: u64, most: u64) -> String {
    let share = 100.0 * bin.count as f64 / all as f64;
    let (from, to) = (time(bin.from), time(bin.to));
    format!("  {from:>7} to {to:>7}  {:<width$} {share:>7.3} %\n", bar(bin.count, most), width = WIDTH as usize)
}

/// What is there is seen, however little it is.
fn bar(count: u64, most: u64) -> String {
    if count == 0 {
        return String::new();
    }
    let eighths = (u128::from(count) * u128::from(WIDTH) * 8).div_ceil(u128::from(most));
    let mut bar = "█".repeat((eighths / 8) as usize);
    let rest = EIGHTHS.get((eighths % 8) as usize).copied();
    bar.extend(rest.filter(|rest| *rest != ' '));
    bar
}

/// A time with the unit that it is read in.
pub(super) fn time(time: Duration) -> String {
    let (value, unit) = match time.as_secs_f64() {
        seconds if seconds >= 1.0 => (seconds, "s"),
        seconds if seconds >= 1e-3 => (seconds * 1e3, "ms"),
        seconds => (seconds * 1e6, "us"),
    };
    let digits = if value >= 100.0 || value == value.round() { 0 } else { usize::from(value < 10.0) + 1 };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::measured::Tally;
    use crate::commands::bench::wire::Answer;

    fn latencies(times: &[(Duration, u64)]) -> Latencies {
        let mut tally = Tally::new().unwrap();
        for (time, count) in times {
            (0..*count).for_each(|_| tally.answered(true, *time, *time, &Answer::default(), 1));
        }
        tally.measured(Duration::ZERO, None, None).latencies
    }

    #[test]
    fn bins_hold_every_latency_and_have_no_gaps() {
        let micros = Duration::from_micros;
        let times = [(Duration::ZERO, 2), (micros(120), 80), (micros(700), 15), (Duration::from_secs(40), 3)];
        let bins = bins(&latencies(&times));
        assert_eq!(bins.first().unwrap().from, Duration::ZERO);
        assert!(bins.windows(2).all(|pair| pair[0].to == pair[1].from));
        for (time, count) in times {
            let bin = bins.iter().find(|bin| bin.from <= time && time < bin.to).unwrap();
            assert_eq!(bin.count, count, "{time:?}");
        }
        assert_eq!(bins.iter().map(|bin| bin.count).sum::<u64>(), 100);
        // Six to a decade, from 1 us to 47 s.
        assert_eq!(bins.len(), 1 + 7 * 6 + 4);
    }

    #[test]
    fn bars_are_as_long_as_their_share_and_never_invisible() {
        let micros = Duration::from_micros;
        let text = plot(&bins(&latencies(&[(micros(120), 800), (micros(170), 400), (micros(300), 1)])));
        let lines: Vec<&str> = text.lines().collect();
        let [first, second, last] = lines.as_slice() else { panic!("{text}") };
        assert_eq!(first.matches('█').count(), 50);
        assert_eq!(second.matches('█').count(), 25);
        assert!(last.contains('▏') && last.ends_with("   0.083 %"), "{last}");
        assert!(first.contains("100 us to  150 us") && first.ends_with(" 66.611 %"), "{first}");
        assert_eq!(plot(&[]), "");
    }

    #[test]
    fn times_have_their_units() {
        for (nanos, text) in [
            (0, "0 us"),
            (1_500, "1.50 us"),
            (47_000, "47 us"),
            (123_456, "123 us"),
            (12_340_000, "12.3 ms"),
            (2_000_000_000, "2 s"),
        ] {
            assert_eq!(time(Duration::from_nanos(nanos)), text);
        }
    }
}
