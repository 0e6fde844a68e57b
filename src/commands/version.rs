//! `bailiwick --version`: what this program is, and what it finds to run with.

use crate::durable::{catalog, checkpoint, counting, spending};
use crate::egress::delivery::CURSOR_VERSION;
use crate::egress::kafka;
use crate::{scoring, storage};

/// The version and the commit that this was built from, on one line.
#[must_use]
pub fn short() -> String {
    format!("bailiwick {} (commit {})", env!("CARGO_PKG_VERSION"), env!("BAILIWICK_COMMIT"))
}

/// The version, the formats on disk, and the libraries. Looks for ONNX Runtime as a start without `[scoring]
/// onnxruntime` does.
#[must_use]
pub fn long() -> String {
    let runtime = scoring::found().unwrap_or_else(|error| error.to_string());
    format!(
        "{}\nformats: journal and outbox {}, declarations {}, checkpoint {}, cursor {}, counters {}, privacy {}, policies 1\nONNX Runtime: {runtime}\nlibrdkafka: {}\n",
        short(),
        storage::VERSION,
        catalog::VERSION,
        checkpoint::VERSION,
        CURSOR_VERSION,
        counting::VERSION,
        spending::VERSION,
        kafka::library_version(),
    )
}
