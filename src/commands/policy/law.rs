//! `bailiwick policy law`: a law as the engine reads it, in sentences that counsel can sign or mark.

use std::fmt::Write as _;

use jiff::civil::Date;

use crate::domain::fact::Fact;
use crate::domain::policy::{Classes, PolicySet, Regime, Region, Scope, Term, Transfer};

use super::words;

/// The most columns of a line.
const WIDTH: usize = 100;
/// What a reader marks below each rule.
const MARK: &str = "[ ] read rightly   [ ] not: ______________________________";

/// A law on a day.
pub(super) fn law(regime: &Regime, policy: &PolicySet, day: Date) -> String {
    let mut page = Page::default();
    let Regime { id, name, notes, as_of, review_by, .. } = regime;
    page.line(0, &format!("{id}: {name}"));
    page.line(0, &"=".repeat(id.len() + 2 + name.chars().count()).chars().take(WIDTH).collect::<String>());
    page.gap();
    page.line(0, &notes.notice);
    page.line(
        0,
        &format!(
            "This is the law as bailiwick reads it on {day} (policy {}). Its facts were checked on {as_of}, and must be \
             checked again by {review_by}. After that day {}. Confidence in the reading: {}. Days are UTC.",
            policy.digest,
            words::on_expired(policy.on_expired),
            notes.confidence
        ),
    );
    for (what, text) in [("Certain", &notes.certain), ("Not certain", &notes.uncertain), ("Left out", &notes.left_out)]
    {
        if !text.is_empty() {
            page.line(0, &format!("{what}: {text}."));
        }
    }
    page.gap();
    page.line(0, "Sources:");
    notes.sources.iter().for_each(|source| page.line(2, &format!("- {source}")));
    scope(&mut page, regime, &policy.classes, day);
    page.title("Where the data may go");
    page.line(0, words::localisation(regime.localisation));
    page.line(0, "What no row permits is forbidden. A row permits its form of the data and every weaker form.");
    regime.transfers.iter().for_each(|row| transfer(&mut page, regime, row, day));
    if regime.transfers.is_empty() {
        page.line(0, "No row: nothing may go anywhere.");
    }
    counters(&mut page, regime);
    page.title("What else follows");
    page.line(0, &format!("A gateway that does not serve the law {}", words::misroute(regime.misroute)));
    page.line(0, &format!("A cell leaves only if it has at least {} contributors.", regime.min_contributors));
    if !notes.records.is_empty() {
        page.line(0, &format!("Duties to keep records: {}.", notes.records.join(", ")));
    }
    page.gap();
    page.line(0, "Read by: ______________________________   on: ______________   signature: ____________________");
    page.text
}

fn scope(page: &mut Page, regime: &Regime, classes: &Classes, day: Date) {
    page.title("When it applies");
    if let Some(from) = regime.from {
        let dark = if day < from { " Until then it is dark: it asks nothing and permits nothing." } else { "" };
        page.line(0, &format!("The law begins on {from}.{dark}"));
    }
    page.line(0, "It applies to a record that holds data of one of these classes:");
    for class in &regime.classes {
        let parts: Vec<&str> =
            classes.0.keys().filter(|part| *part != class && classes.covers(class, part)).map(String::as_str).collect();
        let parts = if parts.is_empty() { String::new() } else { format!(", with its parts {}", parts.join(", ")) };
        page.line(2, &format!("- {class}{parts}"));
    }
    page.line(0, "if one of these is true:");
    for Scope { fact, within, from, source } in &regime.applies {
        page.gap();
        let places = if *fact == Fact::SourceSystem { within.names.join(", ") } else { places(within) };
        page.line(2, &format!("{}/applies/{}: {} {places}.", regime.id, fact.name(), words::fact(*fact)));
        if let Some(from) = from {
            page.line(4, &format!("It counts from {from}."));
        }
        page.source(source);
    }
}

fn transfer(page: &mut Page, regime: &Regime, row: &Transfer, day: Date) {
    page.gap();
    page.line(2, &format!("{}: {}.", regime.rule(row), row.basis));
    let to = row.to.as_ref().map_or("any place".to_owned(), places);
    page.line(4, &format!("In the form `{}` and weaker ({}): to {to}.", words::name(row.form), words::form(row.form)));
    for (code, term) in row
        .to
        .iter()
        .flat_map(|region| &region.codes)
        .flat_map(|(code, terms)| terms.iter().filter(|term| has_terms(term)).map(move |term| (code, term)))
    {
        page.line(6, &format!("{code} only {}. Source: {}.", terms(term), term.source));
    }
    if !row.except.codes.is_empty() {
        page.line(4, &format!("Never to {}.", places(&row.except)));
    }
    if has_terms(&row.term) {
        let ended = if row.term.until.is_some_and(|until| until < day) { " It has ended." } else { "" };
        page.line(4, &format!("Only {}.{ended}", terms(&row.term)));
    }
    page.source(&row.term.source);
}

fn counters(page: &mut Page, regime: &Regime) {
    if regime.counters.is_empty() {
        return;
    }
    page.title("What can be counted");
    page.line(
        0,
        "A gateway can count the persons of whom a condition speaks, where a deployment says so in [[counted]].",
    );
    for counter in &regime.counters {
        page.gap();
        let (period, per) = (words::period(counter.period), words::per(counter.per));
        let met = format!(
            "{}: {} is met below {} distinct persons {period} {per}.",
            regime.counter_rule(counter),
            counter.condition,
            counter.below
        );
        page.line(2, &met);
        let except = words::codes(&counter.except);
        let except = if except.is_empty() {
            "Records are counted everywhere.".to_owned()
        } else {
            format!("Nobody is counted in {except}.")
        };
        page.line(4, &except);
        page.line(4, &format!("A day begins by the time {}.", words::zone(counter.ahead_seconds)));
        page.source(&counter.source);
    }
}

fn has_terms(term: &Term) -> bool {
    term.from.is_some() || term.until.is_some() || !term.needs.is_empty()
}

/// When and under which conditions something holds.
fn terms(term: &Term) -> String {
    let needs = match term.needs.as_slice() {
        [] => String::new(),
        [one] => format!("while {one} is shown"),
        all => {
            format!("while all of these are shown: {}", all.iter().map(|need| &**need).collect::<Vec<_>>().join(", "))
        }
    };
    [words::days(term.from, term.until), needs]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The codes of a region, after the names that it was put together from where they are others.
fn places(region: &Region) -> String {
    let codes = words::codes(region.codes.keys());
    let names = region.names.join(", ");
    if region.names.iter().all(|name| codes.split(' ').any(|code| code == name)) {
        codes
    } else {
        format!("{names} ({codes})")
    }
}

/// Lines that are not too long.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn gap(&mut self) {
        self.text.push('\n');
    }

    fn title(&mut self, title: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "\n{title}\n{}\n", "-".repeat(title.len()));
    }

    fn source(&mut self, source: &str) {
        let source = if source.is_empty() { "none is named" } else { source };
        self.line(4, &format!("Source: {source}."));
        self.line(4, MARK);
    }

    /// A paragraph, each line of which begins after so many blanks; those after the first, after two more.
    fn line(&mut self, indent: usize, paragraph: &str) {
        let mut column = 0;
        for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
            let width = word.chars().count();
            if column == 0 || column + 1 + width > WIDTH {
                let indent = if column == 0 { indent } else { indent + 2 };
                self.text.push_str(if column == 0 { "" } else { "\n" });
                self.text.push_str(&" ".repeat(indent));
                column = indent + width;
            } else {
                self.text.push(' ');
                column += 1 + width;
            }
            self.text.push_str(word);
        }
        self.text.push('\n');
    }
}
