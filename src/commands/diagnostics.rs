//! Problems of configuration files, printed with the line they stand on.

use std::io::{self, Write};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::domain::document::{Problem, Severity};

use super::terminal::is_colored;

/// Prints problems to stderr, in the order they were found.
pub(super) fn print(problems: &[Problem]) {
    let mut stderr = io::stderr().lock();
    let renderer = if is_colored(&stderr) { Renderer::styled() } else { Renderer::plain() };
    for problem in problems {
        // Nothing can be done about a stderr that is closed.
        let _ = writeln!(stderr, "{}\n", renderer.render(&[group(problem)]));
    }
}

fn group(problem: &Problem) -> Group<'_> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let place = &problem.place;
    let end = place.file.text.len();
    let span = place.span.start.min(end)..place.span.end.min(end);
    let snippet = Snippet::source(&place.file.text)
        .path(&place.file.path)
        .annotation(AnnotationKind::Primary.span(span).label(&place.key));
    let group = level.primary_title(&problem.message).element(snippet);
    match &problem.help {
        Some(help) => group.element(Level::HELP.message(help)),
        None => group,
    }
}
