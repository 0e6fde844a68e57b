//! The other gateways, as a configuration names them.

use super::jurisdiction::Jurisdiction;
use super::name::GatewayId;
use super::proof::Conditions;

/// Another gateway, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: GatewayId,
    /// Its endpoint, a URI.
    pub endpoint: String,
    /// Who it is, as its certificate names it. `None`: producers verify its host alone.
    pub identity: Option<String>,
    /// The country it is in.
    pub country: Jurisdiction,
    /// The regimes it serves.
    pub serves: Vec<String>,
    /// What has been shown of it.
    pub conditions: Conditions,
}
