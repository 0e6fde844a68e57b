//! What the port asks of the gateway.

use serde_json::Value;

use crate::domain::policy::Denied;
use crate::telemetry::Samples;

use super::health::Health;

/// What there is to tell. It is asked on a thread of ordinary priority that does nothing else, except for
/// [`Observed::is_alive`] and [`Observed::may_read`], and must not wait for anything.
pub trait Observed: Send + Sync {
    /// Whether it is alive. This takes no lock and costs nothing: whoever asks for it decides whether to end the gateway.
    fn is_alive(&self) -> bool;

    /// How the gateway is.
    fn health(&self) -> Health;

    /// What else `/status` shows.
    fn about(&self) -> Value;

    /// The value of every metric but those of this port.
    fn sample(&self, samples: &mut Samples);

    /// Whether an identity may read metrics and the details of health.
    ///
    /// # Errors
    /// Why it may not.
    fn may_read(&self, identity: &str) -> Result<(), Denied>;
}
