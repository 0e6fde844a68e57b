//! Events as JSON, one object on each line: `time`, `level`, `message`, then the event's own fields.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::Event;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;

use super::shortened;

/// Writes an event of this time as one line.
pub(super) fn write(writer: &mut Writer<'_>, time: String, event: &Event<'_>) -> fmt::Result {
    let mut fields = Fields(Map::new());
    for (name, value) in [("time", time), ("level", event.metadata().level().to_string()), ("message", String::new())] {
        fields.0.insert(name.to_owned(), value.into());
    }
    event.record(&mut fields);
    writeln!(writer, "{}", Value::Object(fields.0))
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, shortened(value).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(text, "{value:?}");
        self.put(field, shortened(&text).into());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}
