//! `bailiwick policy matrix`: which form of which law's data may go where, under which conditions.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::civil::Date;

use crate::commands::table::table;
use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::policy::{Alike, Form, PolicySet, Regime, Way};

use super::words;

/// How a matrix is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tables of text.
    Text,
    /// Comma-separated values with a header.
    Csv,
    /// A page for a browser, whole in one file.
    Html,
}

/// More places than these are not named one by one in a table of text.
const NAMED_MAX: usize = 8;

/// One line: what a law says of a form of its data, some places, and one way to go there.
struct Line<'p> {
    regime: &'p Regime,
    form: Form,
    /// The places; whether they are most of those that are asked about.
    places: &'p BTreeSet<Jurisdiction>,
    is_most: bool,
    /// `None`: there is no way.
    way: Option<&'p Way>,
}

/// The matrix of laws, for data that comes from a place, if one is given, and goes to these; to every country, if none is.
pub(super) fn matrix(
    policy: &PolicySet,
    laws: &[&Regime],
    from: Option<Jurisdiction>,
    to: &BTreeSet<Jurisdiction>,
    day: Date,
    format: Format,
) -> String {
    let comes_under = |law: &&&Regime| {
        from.is_none_or(|from| {
            Fact::NAMES.iter().any(|(_, fact)| {
                law.applies
                    .iter()
                    .any(|scope| scope.fact == *fact && *fact != Fact::SourceSystem && scope.within.may_hold(from))
            })
        })
    };
    let every = Jurisdiction::all().filter(|code| code.country() == *code).collect();
    let places = if to.is_empty() { &every } else { to };
    let laws: Vec<(&Regime, Vec<Alike>)> =
        laws.iter().filter(comes_under).map(|law| (*law, law.alike(places, day))).collect();
    let of_laws = laws.iter().map(|(law, alike)| (*law, lines(law, alike, places.len()))).collect::<Vec<_>>();
    match format {
        Format::Text => text(&of_laws, policy, day),
        Format::Csv => csv(&of_laws),
        Format::Html => html(&of_laws, policy, day),
    }
}

/// A way of a stronger form is one of each weaker form too, and is not listed again.
fn lines<'p>(regime: &'p Regime, alike: &'p [Alike], places: usize) -> Vec<Line<'p>> {
    let mut lines = Vec::new();
    for Alike { places: these, ways } in alike {
        let is_most = these.len() * 2 > places && these.len() > NAMED_MAX;
        let line = |form, way| Line { regime, form, places: these, is_most, way };
        let mut before: &[Way] = &[];
        for (number, (form, ways)) in ways.iter().enumerate() {
            if number == 0 && ways.is_empty() {
                lines.push(line(*form, None));
            }
            lines.extend(ways.iter().filter(|way| !before.contains(way)).map(|way| line(*form, Some(way))));
            before = ways;
        }
    }
    lines
}

impl Line<'_> {
    fn to(&self) -> String {
        if self.is_most {
            return format!("everywhere else ({})", self.places.len());
        }
        if self.places.len() <= NAMED_MAX {
            return words::codes(self.places);
        }
        format!("{} and {} more", words::codes(self.places.iter().take(NAMED_MAX)), self.places.len() - NAMED_MAX)
    }

    fn conditions(&self) -> String {
        match self.way {
            None => "not at all".to_owned(),
            Some(way) if way.needs.is_empty() => "none".to_owned(),
            Some(way) => words::needs(&way.needs, self.regime),
        }
    }

    fn when(&self) -> String {
        self.way.map(|way| words::days(way.from, way.until)).filter(|days| !days.is_empty()).unwrap_or("-".to_owned())
    }

    fn row(&self) -> &str {
        self.way.map_or("-", |way| &way.row)
    }

    /// The paragraph of the row.
    fn source(&self) -> &str {
        let row = self.way.and_then(|way| self.regime.transfers.iter().find(|row| row.id == way.row));
        row.map_or("", |row| &row.term.source)
    }
}

/// To what a law applies, in short.
fn applies(law: &Regime) -> String {
    let tests = law.applies.iter().map(|scope| {
        let names = scope.within.names.join(", ");
        format!("{} {names}", words::fact(scope.fact))
    });
    format!("data of class {}, if {}", law.classes.join(" or "), tests.collect::<Vec<_>>().join(", or "))
}

fn head(policy: &PolicySet, day: Date) -> String {
    format!(
        "Which form of which data may go where on {day} or later, by policy {}. A weaker form goes wherever a stronger one \
         does, and in the ways that are listed for it as well. Every law that applies to a record must let it go.",
        policy.digest
    )
}

fn text(laws: &[(&Regime, Vec<Line<'_>>)], policy: &PolicySet, day: Date) -> String {
    let mut text = head(policy, day) + "\n";
    for (law, lines) in laws {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{}: {}\n  {}\n", law.id, law.name, applies(law));
        let header = ["to", "form", "conditions", "when", "by row"];
        let mut rows = vec![header.map(str::to_owned)];
        let mut before = String::new();
        for line in lines {
            let to = line.to();
            let shown = if to == before { String::new() } else { to.clone() };
            before = to;
            rows.push([
                shown,
                words::name(line.form).to_owned(),
                line.conditions(),
                line.when(),
                line.row().to_owned(),
            ]);
        }
        text.push_str(&table(&rows));
    }
    text
}

fn csv(laws: &[(&Regime, Vec<Line<'_>>)]) -> String {
    let mut csv = "law,applies_to,to,form,allowed,conditions,from,until,row,source\n".to_owned();
    for (law, lines) in laws {
        for line in lines {
            let day = |day: Option<Date>| day.map_or(String::new(), |day| day.to_string());
            let needs = line
                .way
                .map(|way| way.needs.iter().map(|need| &**need).collect::<Vec<_>>().join(" + "))
                .unwrap_or_default();
            let cells = [
                law.id.clone(),
                applies(law),
                words::codes(line.places),
                words::name(line.form).to_owned(),
                if line.way.is_some() { "yes" } else { "no" }.to_owned(),
                needs,
                day(line.way.and_then(|way| way.from)),
                day(line.way.and_then(|way| way.until)),
                line.way.map(|way| way.row.clone()).unwrap_or_default(),
                line.source().to_owned(),
            ];
            csv.push_str(&cells.map(|cell| quoted(&cell)).join(","));
            csv.push('\n');
        }
    }
    csv
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

fn html(laws: &[(&Regime, Vec<Line<'_>>)], policy: &PolicySet, day: Date) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Where data may go, {day}</title>\n\
         <style>body {{ font: 15px sans-serif; max-width: 75rem; margin: 2rem auto }} table {{ border-collapse: collapse }} \
         th, td {{ border: 1px solid #999; padding: .2rem .5rem; text-align: left; vertical-align: top }}</style>\n\
         <h1>Where data may go</h1>\n<p>{}</p>\n",
        escaped(&head(policy, day))
    );
    for (law, lines) in laws {
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "<h2 id=\"{0}\">{0}: {1}</h2>\n<p>{2}.</p>",
            law.id,
            escaped(&law.name),
            escaped(&applies(law))
        );
        page.push_str("<table>\n<tr><th>to<th>form<th>conditions<th>when<th>by row<th>source</tr>\n");
        for line in lines {
            let to = if line.is_most { line.to() } else { words::codes(line.places) };
            let cells = [&*to, words::name(line.form), &line.conditions(), &line.when(), line.row(), line.source()];
            let cells: Vec<String> = cells.iter().map(|cell| format!("<td>{}", escaped(cell))).collect();
            let _ = writeln!(page, "<tr>{}</tr>", cells.concat());
        }
        page.push_str("</table>\n");
    }
    page + "</html>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
