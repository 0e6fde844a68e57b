//! Problems of configuration files, printed with the line they stand on.

use std::io::{self, BufWriter, Write};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::domain::document::{Problem, Severity};

use super::terminal::is_colored;

/// Prints problems to stderr, in the order they were found.
pub(super) fn print(problems: &[Problem]) {
    let stderr = io::stderr().lock();
    let renderer = if is_colored(&stderr) { Renderer::styled() } else { Renderer::plain() };
    let mut stderr = BufWriter::new(stderr);
    for problem in problems {
        // Nothing can be done about a stderr that is closed.
        let _ = writeln!(stderr, "{}\n", renderer.render(&[group(problem)]));
    }
    let _ = stderr.flush();
}

fn group(problem: &Problem) -> Group<'_> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let place = &problem.place;
    let end = place.file.text.len();
    let span = place.span.start.min(end)..place.span.end.min(end);
    // Whoever renders looks through the whole source: of a long file with many problems that would be for ever.
    let (first, lines) = place.file.lines_around(&span);
    let span = span.start - lines.start..span.end.max(span.start) - lines.start;
    let snippet = Snippet::source(place.file.text.get(lines).unwrap_or_default())
        .line_start(first)
        .path(&place.file.path)
        .annotation(AnnotationKind::Primary.span(span).label(&place.key));
    let group = level.primary_title(&problem.message).element(snippet);
    match &problem.help {
        Some(help) => group.element(Level::HELP.message(help)),
        None => group,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::document::{Place, Source};

    /// The whole file rendered, as it was done before: the same comes out.
    fn of_whole_file(problem: &Problem) -> String {
        let place = &problem.place;
        let snippet = Snippet::source(&place.file.text)
            .path(&place.file.path)
            .annotation(AnnotationKind::Primary.span(place.span.clone()).label(&place.key));
        let group = Level::ERROR.primary_title(&problem.message).element(snippet);
        Renderer::plain().render(&[group])
    }

    #[test]
    fn a_problem_is_shown_as_if_the_whole_file_were_looked_at() {
        for text in ["", "\n", "a = 1", "a = 1\n", "first = 1\n\nsecond = [\n  1,\n  \"\u{e9}\",\n]\nthird = 3\n"] {
            let file = Arc::new(Source::new("a.toml", text));
            for start in 0..=text.len() {
                for end in start..=text.len() {
                    if !text.is_char_boundary(start) || !text.is_char_boundary(end) {
                        continue;
                    }
                    let place = Place { file: Arc::clone(&file), span: start..end, key: "key".to_owned() };
                    let lines = text[..start].matches('\n').count() + 1;
                    assert_eq!(place.line(), lines, "{text:?} {start}");
                    // Behind the last line's end there is one more line, and not more of the last one.
                    if start == text.len() && text.ends_with('\n') {
                        continue;
                    }
                    let problem = Problem { severity: Severity::Error, place, message: "wrong".to_owned(), help: None };
                    let shown = Renderer::plain().render(&[group(&problem)]);
                    assert_eq!(shown, of_whole_file(&problem), "{text:?} {start}..{end}");
                }
            }
        }
    }
}
