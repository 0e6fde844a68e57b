//! What a terminal is asked for.

use std::env;
use std::io::IsTerminal;

/// Whether a stream gets colours: it is a terminal that shows them, and `NO_COLOR` is not set (<https://no-color.org>).
pub fn is_colored(stream: &impl IsTerminal) -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !is_unwanted && !is_dumb
}
