//! Why a connection is ended, or a call, before there is a request. A closed list: each is counted by its name.

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Turned {
    /// What came was not TLS, or TLS that the gateway does not speak.
    NotTls,
    /// The client does not ask for HTTP/2.
    NoHttp2,
    /// The handshake and what HTTP/2 begins with were not there in time.
    TooSlow,
    /// The client does not want the gateway's certificate, or ends the handshake for a reason of its own.
    ByClient,
    /// The client shows no certificate.
    NoCertificate,
    /// No authority that the gateway trusts has signed the certificate.
    UnknownAuthority,
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not begun.
    NotYetValid,
    /// The authority has revoked the certificate.
    Revoked,
    /// No revocation list that is in date covers the certificate.
    RevocationUnknown,
    /// The certificate is not for clients, or is an authority's own.
    WrongUsage,
    /// The certificate cannot be read, or a signature in its chain or of the handshake is wrong.
    BadCertificate,
    /// The certificate names nobody in the way that is asked for.
    NoIdentity,
    /// The certificate names more than one.
    SeveralIdentities,
    /// The name is not spelled as it has to be: a wildcard, say.
    MalformedIdentity,
    /// The name belongs to another trust domain.
    OtherTrustDomain,
    /// The call brings no token, on a connection whose client showed no certificate.
    TokenMissing,
    /// The token is longer than any that is read.
    TokenTooLong,
    /// The token cannot be read, lacks what it must say, or asks for something that is not done here.
    TokenMalformed,
    /// The token is signed in a way that is not taken, or not in that of its key.
    TokenAlgorithm,
    /// The file of keys does not hold the token's key.
    TokenUnknownKey,
    /// The token's signature is wrong.
    TokenSignature,
    /// Somebody else has issued the token.
    TokenWrongIssuer,
    /// The token is for somebody else.
    TokenWrongAudience,
    /// The token's time is over.
    TokenExpired,
    /// The token's time has not begun.
    TokenNotYetValid,
    /// The token names nobody in the claim that counts.
    TokenNoIdentity,
    /// There are as many connections as there may be; or it had proved nothing, and had to make room for another one.
    TooMany,
    /// So many handshakes wait for their turn that this one's would come too late.
    TooManyHandshakes,
    /// One network address has as many connections as it may have, or has begun as many handshakes.
    TooManyOfAddress,
    /// One identity has as many connections as it may have.
    TooManyOfIdentity,
    /// More frames came that carry nothing than any client needs.
    Flood,
}

impl Turned {
    /// Every reason, with the name used in the log and in summaries.
    pub const ALL: [(Self, &'static str); 32] = [
        (Self::NotTls, "not_tls"),
        (Self::NoHttp2, "no_http2"),
        (Self::TooSlow, "too_slow"),
        (Self::ByClient, "by_client"),
        (Self::NoCertificate, "no_certificate"),
        (Self::UnknownAuthority, "unknown_authority"),
        (Self::Expired, "expired"),
        (Self::NotYetValid, "not_yet_valid"),
        (Self::Revoked, "revoked"),
        (Self::RevocationUnknown, "revocation_unknown"),
        (Self::WrongUsage, "wrong_usage"),
        (Self::BadCertificate, "bad_certificate"),
        (Self::NoIdentity, "no_identity"),
        (Self::SeveralIdentities, "several_identities"),
        (Self::MalformedIdentity, "malformed_identity"),
        (Self::OtherTrustDomain, "other_trust_domain"),
        (Self::TokenMissing, "token_missing"),
        (Self::TokenTooLong, "token_too_long"),
        (Self::TokenMalformed, "token_malformed"),
        (Self::TokenAlgorithm, "token_algorithm"),
        (Self::TokenUnknownKey, "token_unknown_key"),
        (Self::TokenSignature, "token_signature"),
        (Self::TokenWrongIssuer, "token_wrong_issuer"),
        (Self::TokenWrongAudience, "token_wrong_audience"),
        (Self::TokenExpired, "token_expired"),
        (Self::TokenNotYetValid, "token_not_yet_valid"),
        (Self::TokenNoIdentity, "token_no_identity"),
        (Self::TooMany, "too_many"),
        (Self::TooManyHandshakes, "too_many_handshakes"),
        (Self::TooManyOfAddress, "too_many_of_address"),
        (Self::TooManyOfIdentity, "too_many_of_identity"),
        (Self::Flood, "flood"),
    ];

    /// The name used in the log and in summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("?", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_one_name() {
        let mut names: Vec<&str> = Turned::ALL.iter().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Turned::ALL.len());
        assert!(Turned::ALL.iter().all(|(reason, name)| reason.name() == *name));
    }
}
