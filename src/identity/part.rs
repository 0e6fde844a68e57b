//! The parts of what the gateway shows and believes.

/// A part of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities of clients.
    ClientCa,
    /// A revocation list, by its place in the list of files.
    Revocation(usize),
    /// The keys of tokens.
    Jwks,
}
