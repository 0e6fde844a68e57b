//! The log: one line per event, on stderr, as text or as JSON ([`json`]).
//!
//! - Writing never stops the program: [`sink`] writes from a thread of its own, and a stderr that is closed or does not
//!   take anything loses lines, which are counted.
//! - [`limit`] bounds how often one and the same warning or error is written: for each reason and network, where somebody
//!   outside causes it.
//! - [`panics`] makes of a panic one line without what the panic says: it may hold values of a record.
//! - Texts from outside are escaped ([`crate::domain::printable`]).

mod json;
pub mod limit;
pub mod panics;
mod sink;
mod verbosity;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Format, Full, Writer, debug_fn};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::domain::addresses::Network;
use crate::domain::printable;
pub use verbosity::Verbosity;

use limit::{Cause, Limiter};
use sink::Sink;

/// The target of lines that answer something an operator did, such as a reload. They are never left out.
pub const OPERATOR: &str = "bailiwick::operator";

/// What is longer of one value is cut.
const VALUE_CHARS_MAX: usize = 2_000;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text {
        /// Whether in colours.
        is_colored: bool,
    },
    /// For machines: a JSON object on each line.
    Json,
}

/// A started log.
pub struct Log {
    sink: Sink,
    verbosity: Arc<Verbosity>,
}

/// Starts the log of this process, and lets panics go to it. `now` is a monotonic clock; `wall` is the wall clock.
pub fn start(
    filter: EnvFilter,
    style: Style,
    now: impl Fn() -> Duration + Send + Sync + 'static,
    wall: fn() -> Timestamp,
) -> Log {
    let limiter = Arc::new(Limiter::default());
    let (now, wall) = (Arc::new(now), Wall(wall));
    let (limits, clock) = (Arc::clone(&limiter), Arc::clone(&now));
    let sink = Sink::start(std::io::stderr(), move || say_left_out(&limits, clock()));
    let fields = debug_fn(|writer, field, value| {
        let shown = printable::line(&shortened(&format!("{value:?}"))).into_owned();
        match (field.name(), writer.has_ansi_escapes()) {
            ("message", _) => write!(writer, "{shown}"),
            (name, true) => write!(writer, "\x1b[2m{name}=\x1b[0m{shown}"),
            (name, false) => write!(writer, "{name}={shown}"),
        }
    });
    let began = filter.to_string();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(sink.clone())
        .with_ansi(style == Style::Text { is_colored: true })
        .log_internal_errors(false)
        .fmt_fields(fields.delimited(" "))
        .event_format(Lines {
            style,
            format: Format::default().with_timer(wall).with_target(false),
            wall,
            limiter,
            now,
        })
        .with_filter_reloading();
    let filters = subscriber.reload_handle();
    subscriber.init();
    panics::install(sink.clone());
    let verbosity = Verbosity::new(began, Box::new(move |filter| filters.reload(filter).is_ok()));
    Log { sink, verbosity: Arc::new(verbosity) }
}

/// A value, cut where it is longer than any that is worth reading.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

impl Log {
    /// Waits until everything is written, but no longer than this.
    pub fn flush(&self, within: Duration) {
        self.sink.flush(within);
    }

    /// How much is written.
    #[must_use]
    pub fn verbosity(&self) -> Arc<Verbosity> {
        Arc::clone(&self.verbosity)
    }
}

fn say_left_out(limiter: &Limiter, now: Duration) {
    for (message, lines) in limiter.left_out(now) {
        tracing::warn!(lines, of = message, "log lines were left out: there were too many of this kind");
    }
}

/// What says the time of a line.
#[derive(Clone, Copy)]
struct Wall(fn() -> Timestamp);

impl Wall {
    /// In UTC, to the microsecond.
    fn time(self) -> String {
        format!("{:.6}", (self.0)())
    }
}

impl FormatTime for Wall {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&self.time())
    }
}

/// Events as lines, as often as the limiter lets them.
struct Lines<N> {
    style: Style,
    format: Format<Full, Wall>,
    wall: Wall,
    limiter: Arc<Limiter>,
    now: Arc<N>,
}

impl<N: Fn() -> Duration, S, F> FormatEvent<S, F> for Lines<N>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, F>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let kind = event.metadata();
        if *kind.level() <= Level::WARN && kind.target() != OPERATOR {
            let Said { message, cause } = said(event);
            if !self.limiter.allow(kind.callsite(), cause, (self.now)(), || message) {
                return Ok(());
            }
        }
        match self.style {
            Style::Text { .. } => self.format.format_event(context, writer, event),
            Style::Json => json::write(&mut writer, self.wall.time(), event),
        }
    }
}

/// What an event says, as far as that limits it.
#[derive(Default)]
struct Said {
    /// Without its values.
    message: String,
    /// Why it is said and who has caused it, if it has a `reason` and an `address`.
    cause: Option<Cause>,
}

fn said(event: &Event<'_>) -> Said {
    #[derive(Default)]
    struct Fields {
        message: String,
        reason: Option<String>,
        address: Option<String>,
    }
    impl tracing::field::Visit for Fields {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
            match field.name() {
                "message" => self.message = format!("{value:?}"),
                "reason" => self.reason = Some(format!("{value:?}")),
                "address" => self.address = Some(format!("{value:?}").trim_matches('"').to_owned()),
                _ => {}
            }
        }
    }
    let mut fields = Fields::default();
    event.record(&mut fields);
    let Fields { message, reason, address } = fields;
    let address = address.and_then(|text| {
        let with_port = text.parse::<SocketAddr>().map(|address| address.ip());
        with_port.or_else(|_| text.parse::<IpAddr>()).ok()
    });
    let cause = reason.zip(address).map(|(reason, address)| Cause { reason, from: Network::of(address) });
    Said { message, cause }
}
