//! `bailiwick proto`: the protobuf messages of a stream's rows, for producers.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use crate::domain::stream::{FieldType, Stream};

use super::{Failure, load};

/// The `.proto` file of a stream.
///
/// # Errors
/// When the configuration cannot be used, or does not declare the stream.
pub fn proto(path: &Path, stream: &str) -> Result<String, Failure> {
    let config = load(path)?;
    let known: Vec<&str> = config.policy.streams.keys().map(AsRef::as_ref).collect();
    let plan = config.policy.streams.get(stream);
    let plan = plan.with_context(|| format!("there is no stream `{stream}`; declared: {}", known.join(", ")))?;
    Ok(render(&plan.stream))
}

fn render(stream: &Stream) -> String {
    let has_times = stream.fields.iter().any(|field| field.field_type == FieldType::Timestamp);
    let package: String =
        stream.name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let mut proto = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        proto,
        "// Rows of stream `{}`, as `bailiwick proto` prints them. PublishRequest.rows is an encoded Rows.",
        stream.name
    );
    let _ = writeln!(proto, "syntax = \"proto3\";\n\npackage bailiwick.rows.{package};\n");
    if has_times {
        let _ = writeln!(proto, "import \"google/protobuf/timestamp.proto\";\n");
    }
    let _ = writeln!(proto, "message Rows {{\n  repeated Row rows = 1;\n}}\n\nmessage Row {{");
    for field in &stream.fields {
        let kind = match field.field_type {
            FieldType::Bool => "bool",
            FieldType::Int64 => "int64",
            FieldType::Float32 => "float",
            FieldType::Float64 => "double",
            FieldType::String => "string",
            FieldType::Timestamp => "google.protobuf.Timestamp",
        };
        let _ = writeln!(proto, "  optional {kind} {} = {};", field.name, field.number);
    }
    proto.push_str("}\n");
    proto
}
