//! The log: one line per event, on stderr.
//!
//! - Writing never stops the program: [`sink`] writes from a thread of its own, and a stderr that is closed or does not
//!   take anything loses lines, which are counted.
//! - [`limit`] bounds how often one and the same warning or error is written, whoever causes it.
//! - [`panics`] makes of a panic one line without what the panic says: it may hold values of a record.
//! - Texts from outside are escaped ([`crate::domain::printable`]).

pub mod limit;
pub mod panics;
mod sink;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Format, Full, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::domain::printable;
use limit::Limiter;
use sink::Sink;

/// The target of lines that answer something an operator did, such as a reload. They are never left out.
pub const OPERATOR: &str = "bailiwick::operator";

/// What is longer of one value is cut.
const VALUE_CHARS_MAX: usize = 2_000;

/// A started log.
pub struct Log(Sink);

/// Starts the log of this process, and lets panics go to it. `now` is a monotonic clock.
pub fn start(filter: EnvFilter, is_colored: bool, now: impl Fn() -> Duration + Send + Sync + 'static) -> Log {
    let limiter = Arc::new(Limiter::default());
    let now = Arc::new(now);
    let (limits, clock) = (Arc::clone(&limiter), Arc::clone(&now));
    let sink = Sink::start(std::io::stderr(), move || say_left_out(&limits, clock()));
    let fields = debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        let shown = match text.char_indices().nth(VALUE_CHARS_MAX) {
            Some((end, _)) => format!("{}…", printable::line(text.get(..end).unwrap_or_default())),
            None => printable::line(&text).into_owned(),
        };
        match (field.name(), writer.has_ansi_escapes()) {
            ("message", _) => write!(writer, "{shown}"),
            (name, true) => write!(writer, "\x1b[2m{name}=\x1b[0m{shown}"),
            (name, false) => write!(writer, "{name}={shown}"),
        }
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(sink.clone())
        .with_ansi(is_colored)
        .log_internal_errors(false)
        .fmt_fields(fields.delimited(" "))
        .event_format(Lines { format: Format::default().with_target(false), limiter, now })
        .init();
    panics::install(sink.clone());
    Log(sink)
}

impl Log {
    /// Waits until everything is written, but no longer than this.
    pub fn flush(&self, within: Duration) {
        self.0.flush(within);
    }
}

fn say_left_out(limiter: &Limiter, now: Duration) {
    for (message, lines) in limiter.left_out(now) {
        tracing::warn!(lines, of = message, "log lines were left out: there were too many of this kind");
    }
}

/// Events as lines, as often as the limiter lets them.
struct Lines<N> {
    format: Format<Full>,
    limiter: Arc<Limiter>,
    now: Arc<N>,
}

impl<N: Fn() -> Duration, S, F> FormatEvent<S, F> for Lines<N>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, F>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let kind = event.metadata();
        let is_limited = *kind.level() <= Level::WARN && kind.target() != OPERATOR;
        if is_limited && !self.limiter.allow(kind.callsite(), (self.now)(), || message(event)) {
            return Ok(());
        }
        self.format.format_event(context, writer, event)
    }
}

/// What an event says, without its values.
fn message(event: &Event<'_>) -> String {
    struct Message(String);
    impl tracing::field::Visit for Message {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}
