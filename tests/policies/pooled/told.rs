//! What each number that left is about: the records that it must be computed from by what the documents say of its row, and
//! that it is what comes of them. Nothing of the code that releases is asked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::book::{Book, Closing, EDGES, OTHER, Part, Version};

/// The word for a key that was given up.
const REST: &str = "rest";
/// How many cities there are, with all others, and the countries.
const CITIES: usize = 4;
const COUNTRIES: [&str; 4] = ["DE", "FR", "IN", OTHER];

/// A row of the finer dataset that left to a destination.
#[derive(Debug)]
pub(super) struct Row {
    part: Part,
    /// As many contributors were asked of it, by whoever asks for most.
    k: usize,
    country: String,
    city: String,
    pub(super) records: Vec<usize>,
}

/// What left of a run, as sets of records.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) rows: Vec<Row>,
    /// Each number, as the records that it is computed from.
    pub(super) numbers: BTreeSet<Vec<usize>>,
    /// How often each thing occurred.
    pub(super) seen: BTreeMap<&'static str, usize>,
}

/// The cells that wait, by their windows: what the documents say of `max_defer`, worked out the slow way.
#[derive(Default)]
struct Waiting {
    windows: BTreeMap<u32, Vec<usize>>,
    version: Option<Version>,
    /// The minutes from which windows can be covered, and can wait.
    since: u32,
    from: u32,
}

type Key = (&'static str, &'static str);

fn text<'l>(line: &'l Value, name: &str) -> &'l str {
    line[name].as_str().unwrap()
}

/// The minutes between which a line's window is.
pub(super) fn span(line: &Value) -> (u32, u32) {
    let minute = |name| text(line, name)[14..16].parse().unwrap();
    (minute("window_start"), minute("window_end"))
}

impl Told {
    pub(super) fn saw(&mut self, what: &'static str, times: usize) {
        *self.seen.entry(what).or_default() += times;
    }

    /// The numbers of a line, which must be those of these records.
    pub(super) fn add(&mut self, book: &Book, line: &Value, records: &[usize]) -> Result<(), String> {
        let numbers = numbers(book, line, records).map_err(|what| format!("{what}: {line}, of {records:?}"))?;
        let counts = line["sizes"].as_array().map_or(&[][..], Vec::as_slice);
        let has_value = |is_in: bool| usize::from(is_in);
        self.saw("ranges", counts.iter().filter(|count| !count.is_null()).count());
        self.saw("ranges that were merged", counts.iter().filter(|count| count.is_null()).count());
        for (name, seen, null) in
            [("amount", "sums", "sums that are null"), ("web", "fractions", "fractions that are null")]
        {
            self.saw(seen, has_value(!line[name].is_null()));
            self.saw(null, has_value(line.get(name).is_some_and(Value::is_null)));
        }
        let has_all = records.iter().all(|record| book.sent[*record].amount.is_some());
        self.saw("sums of an optional field", has_value(!line["amount"].is_null() && !has_all));
        self.numbers.extend(numbers);
        Ok(())
    }

    /// The rows of the finer dataset, closing by closing.
    pub(super) fn finer(&mut self, book: &Book, max_defer: u32) -> Result<(), String> {
        let (mut waiting, mut size) = (Waiting::default(), None);
        for closing in &book.closings {
            if size.replace(closing.version.size).is_some_and(|before| before != closing.version.size) {
                // A flush ended the waiting, and other windows begin where those of before had closed.
                let since = waiting.since;
                waiting = Waiting { since, from: since, ..Waiting::default() };
            }
            for part in &closing.parts {
                self.part(book, (closing, *part), max_defer, &mut waiting)?;
            }
            let expected: BTreeSet<(u32, u32)> = closing.parts.iter().map(|part| (part.from, part.to)).collect();
            if let Some((_, line)) = closing.lines.iter().find(|(_, line)| !expected.contains(&span(line))) {
                return Err(format!("a window left that did not close: {line}"));
            }
            waiting.passed(closing, max_defer);
        }
        Ok(())
    }

    fn part(
        &mut self,
        book: &Book,
        (closing, part): (&Closing, Part),
        max_defer: u32,
        waiting: &mut Waiting,
    ) -> Result<(), String> {
        let own = book.of_part(part);
        let window = part.from / closing.version.size;
        let joined = waiting.joined(book, &own, (closing.version, part), max_defer);
        let of_part = |(_, line): &&(&str, Value)| span(line) == (part.from, part.to);
        let lines: Vec<_> = closing.lines.iter().filter(of_part).collect();
        // All policies hold that anything of the window was decided under.
        let k = own.iter().map(|record| book.sent[*record].version.k).fold(closing.version.k, usize::max);
        let labels: BTreeSet<(&str, &str)> =
            lines.iter().map(|(_, line)| (text(line, "country"), text(line, "city"))).collect();
        let row_of = |key: Key| {
            let rows = [key, (key.0, REST), (REST, REST)];
            rows.into_iter().find(|row| labels.contains(row))
        };
        for label in &labels {
            let to = lines.iter().filter(|(_, line)| (text(line, "country"), text(line, "city")) == *label);
            self.saw("cells that only one destination has", usize::from(book.relaxed.is_some() && to.count() == 1));
        }
        for (to, line) in lines {
            let label = (text(line, "country"), text(line, "city"));
            let records = joined.iter().filter(|(key, _)| row_of(**key) == Some(label));
            let records: Vec<usize> = records.flat_map(|(_, records)| records.iter().copied()).collect();
            self.add(book, line, &records)?;
            asked(book, k, (to, label), &labels, &records).map_err(|what| format!("{what}: {line}"))?;
            let first = window + 1 - line["windows"].as_u64().map_or(1, |windows| windows as u32).min(window + 1);
            let is_covered =
                |record: &usize| (first..=window).contains(&(book.sent[*record].part.from / closing.version.size));
            if !records.iter().all(is_covered) {
                return Err(format!("it covers other windows: {line}, of {records:?}"));
            }
            self.saw("cells", usize::from(label.1 != REST));
            self.saw("remainders", usize::from(label.1 == REST));
            self.saw("remainders of all", usize::from(label.0 == REST));
            self.saw("rows with cells that waited", usize::from(records.iter().any(|record| !own.contains(record))));
            self.saw("rows of what was flushed", usize::from(closing.is_flush));
            let (country, city) = (label.0.to_owned(), label.1.to_owned());
            self.rows.push(Row { part, k, country, city, records });
        }
        waiting.settle(&joined, window, |key| row_of(key).is_some());
        Ok(())
    }

    /// No record is in two rows, whoever has them: the same row may go to several destinations.
    pub(super) fn apart(&self) -> Result<(), String> {
        let mut row_of = BTreeMap::new();
        for row in &self.rows {
            for record in &row.records {
                let own = (row.part, &row.country, &row.city);
                if *row_of.entry(*record).or_insert(own) != own {
                    return Err(format!("record {record} is in two rows: {own:?}, {:?}", row_of[record]));
                }
            }
        }
        Ok(())
    }

    /// A row of a dataset that adds up rows of the finer one: of all its rows between two minutes, after so many flushes, with
    /// these keys. Several groups of rows can be meant; it is the one that its numbers are of.
    pub(super) fn sums(&mut self, book: &Book, lines: &[(&'static str, Value)]) -> Result<(), String> {
        let of = |line: &Value, flushes| {
            self.added_up(line, flushes).iter().flat_map(|row| row.records.iter().copied()).collect()
        };
        for Meant { line, flushes, records } in meant(book, lines, of)? {
            let rows = self.added_up(line, flushes);
            let asked: BTreeSet<usize> = rows.iter().map(|row| row.k).collect();
            if asked.len() > 1 {
                return Err(format!("not as much was asked of each of its rows: {asked:?}, {line}"));
            }
            let parts: BTreeSet<Part> = rows.iter().map(|row| row.part).collect();
            self.saw("sums of rows", 1);
            self.saw("sums of several windows", usize::from(parts.len() > 1));
            self.add(book, line, &records)?;
        }
        Ok(())
    }

    /// A row of a dataset that counts the records once more, by other keys or in other windows: of all records that agree.
    pub(super) fn parted(&mut self, book: &Book, lines: &[(&'static str, Value)]) -> Result<(), String> {
        let of = |line: &Value, flushes| {
            let (from, to) = span(line);
            let agrees = |name: &str, key: &str| line.get(name).is_none_or(|word| word == key);
            let is_of = |record: &usize| {
                let sent = &book.sent[*record];
                let is_within = from <= sent.part.from && sent.part.to <= to && sent.part.flushes == flushes;
                is_within && agrees("country", sent.country) && agrees("city", sent.city_key())
            };
            (0..book.sent.len()).filter(is_of).collect()
        };
        for Meant { line, records, .. } in meant(book, lines, of)? {
            self.add(book, line, &records)?;
        }
        Ok(())
    }

    /// The rows that a row adds up, after so many flushes. What goes to several destinations is one row.
    fn added_up(&self, line: &Value, flushes: usize) -> Vec<&Row> {
        let (from, to) = span(line);
        let agrees = |row: &&Row| {
            let is_within = from <= row.part.from && row.part.to <= to && row.part.flushes == flushes;
            let has_city = line.get("city").is_none_or(|city| *city == *row.city);
            is_within && has_city && row.country == text(line, "country")
        };
        let rows = self.rows.iter().filter(agrees).map(|row| ((row.part, &row.country, &row.city), row));
        rows.collect::<BTreeMap<_, _>>().into_values().collect()
    }
}

impl Waiting {
    /// The records of each cell of a window, with those that waited for it.
    fn joined(
        &mut self,
        book: &Book,
        own: &[usize],
        (version, part): (Version, Part),
        max_defer: u32,
    ) -> BTreeMap<Key, Vec<usize>> {
        let is_of_one = own.iter().all(|record| book.sent[*record].version == version);
        if !is_of_one || self.version != Some(version) {
            self.windows.clear();
        }
        self.version = Some(version).filter(|_| is_of_one && max_defer > 0 && part.from >= self.from);
        let window = part.from / version.size;
        self.windows.retain(|waits, _| waits + max_defer >= window && waits * version.size >= self.since);
        let mut joined: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for record in own {
            joined.entry(book.sent[*record].key()).or_default().push(*record);
        }
        for record in self.windows.values().flatten().filter(|_| self.version.is_some()) {
            if let Some(records) = joined.get_mut(&book.sent[*record].key()) {
                records.push(*record);
            }
        }
        joined
    }

    /// What left waits no more, and what did not waits if it may.
    fn settle(&mut self, joined: &BTreeMap<Key, Vec<usize>>, window: u32, has_left: impl Fn(Key) -> bool) {
        let gone: BTreeSet<usize> =
            joined.iter().filter(|(key, _)| has_left(**key)).flat_map(|(_, records)| records.iter().copied()).collect();
        self.windows.values_mut().for_each(|records| records.retain(|record| !gone.contains(record)));
        if self.version.is_some() {
            let waited: BTreeSet<usize> = self.windows.values().flatten().copied().collect();
            let wait =
                joined.iter().filter(|(key, _)| !has_left(**key)).flat_map(|(_, records)| records.iter().copied());
            self.windows.insert(window, wait.filter(|record| !waited.contains(record)).collect());
        }
    }

    fn passed(&mut self, closing: &Closing, max_defer: u32) {
        if closing.is_flush {
            self.windows.clear();
            self.since = self.since.max(closing.closed);
            let after_last = closing.parts.iter().map(|part| part.to).max().unwrap_or(0);
            self.from = self.from.max(closing.closed).max(after_last);
        }
        let next = closing.closed / closing.version.size;
        self.windows.retain(|waits, _| waits + max_defer >= next);
    }
}

/// A row has as many contributors as is asked for. A remainder can be of any cells that are not there, all but one at least: each
/// of them has fewer than is asked for.
fn asked(
    book: &Book,
    k: usize,
    (to, (country, city)): (&str, (&str, &str)),
    labels: &BTreeSet<(&str, &str)>,
    records: &[usize],
) -> Result<(), String> {
    let persons: BTreeSet<&str> = records.iter().map(|record| &*book.sent[*record].person).collect();
    let asked = book.relaxed.filter(|_| to == "hub").unwrap_or(k);
    if persons.len() < asked {
        return Err(format!("{} of {asked} contributors", persons.len()));
    }
    let shown = |of: &str| labels.iter().filter(|(country, city)| *country == of && *city != REST).count();
    let is_known = |of: &&str| labels.contains(&(*of, REST)) || shown(of) == CITIES;
    let hidden = match (country, city) {
        (REST, _) => COUNTRIES.len() - COUNTRIES.iter().filter(|of| is_known(of)).count(),
        (_, REST) => CITIES - shown(country),
        _ => return Ok(()),
    };
    let most = hidden.saturating_sub(1) * (book.relaxed.unwrap_or(k) - 1);
    if hidden < 3 || persons.len() > most { Err("it tells who is in it".to_owned()) } else { Ok(()) }
}

/// A row, after how many flushes it left, and the records that it is meant to be of.
struct Meant<'l> {
    line: &'l Value,
    flushes: usize,
    records: Vec<usize>,
}

/// The rows of releases, each with the records that it is meant to be of. A release says its window, and not after how many
/// flushes it left: it is the one that its numbers are of. None leaves twice.
fn meant<'l>(
    book: &Book,
    lines: &'l [(&'static str, Value)],
    of: impl Fn(&Value, usize) -> Vec<usize>,
) -> Result<Vec<Meant<'l>>, String> {
    let mut releases: BTreeMap<(&str, &str), Vec<&Value>> = BTreeMap::new();
    for (to, line) in lines {
        releases.entry((*to, text(line, "release"))).or_default().push(line);
    }
    let (mut known, mut meant) = (BTreeSet::new(), Vec::new());
    // What one of few rows says may be what a part of another one says.
    let mut releases: Vec<_> = releases.into_iter().collect();
    releases.sort_by_key(|(_, lines)| usize::MAX - lines.len());
    for ((to, _), lines) in releases {
        let (dataset, span) = (text(lines[0], "dataset"), span(lines[0]));
        let fits = |flushes: &usize| {
            let is_its = |line: &&Value| numbers(book, line, &of(line, *flushes)).is_ok();
            !known.contains(&(to, dataset, span, *flushes)) && lines.iter().all(is_its)
        };
        let Some(flushes) = (0..=book.flushes).find(fits) else {
            return Err(format!("this is of other records than it says, or left before: {lines:?}"));
        };
        known.insert((to, dataset, span, flushes));
        meant.extend(lines.into_iter().map(|line| Meant { line, flushes, records: of(line, flushes) }));
    }
    Ok(meant)
}

/// The numbers of a line, each as the records that it is of; or which of them is not that of these records.
fn numbers(book: &Book, line: &Value, records: &[usize]) -> Result<Vec<Vec<usize>>, String> {
    let some = |is_in: &dyn Fn(usize) -> bool| -> Vec<usize> {
        let mut some: Vec<usize> = records.iter().copied().filter(|record| is_in(*record)).collect();
        some.sort_unstable();
        some
    };
    let sent = |record: usize| &book.sent[record];
    let mut numbers = vec![some(&|_| true)];
    if records.is_empty() || line["visits"] != records.len() {
        return Err("the count is wrong".to_owned());
    }
    if let Some(amount) = line["amount"].as_f64() {
        let sum: u64 = records.iter().filter_map(|record| sent(*record).amount).sum();
        if amount != sum as f64 {
            return Err(format!("the sum is {sum}"));
        }
        numbers.push(some(&|record| sent(record).amount.is_some()));
    }
    if let Some(share) = line["web"].as_f64() {
        let (with, is) =
            (some(&|record| sent(record).channel.is_some()), some(&|record| sent(record).channel == Some("web")));
        if (share * with.len() as f64 - is.len() as f64).abs() > 1e-9 {
            return Err(format!("the fraction is {} of {}", is.len(), with.len()));
        }
        numbers.extend([with, is]);
    }
    let counts: Vec<Option<usize>> = line["sizes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|count| count.as_u64().map(|count| count as usize))
        .collect();
    // A range without a count is counted in the one before.
    let starts: Vec<usize> = (0..counts.len()).filter(|range| counts[*range].is_some()).collect();
    for (at, start) in starts.iter().enumerate() {
        let end = starts.get(at + 1).copied().unwrap_or(counts.len());
        let (low, high) = (EDGES[*start], EDGES[end]);
        let inside = some(&|record| (low..high).contains(&sent(record).size));
        if counts[*start] != Some(inside.len()) {
            return Err(format!("{} are in the range from {low}", inside.len()));
        }
        numbers.push(inside);
    }
    Ok(numbers)
}
