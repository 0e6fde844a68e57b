//! Bearer tokens: signed JWTs, checked offline against a file of public keys (JWKS).
//!
//! Three algorithms, each with the keys of its own kind: what a token says of its algorithm chooses nothing. No symmetric
//! key, no `none`, no key that a token brings itself.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::domain::connection::Turned;
use crate::domain::printable;

use super::Identity;

/// What every token must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Who issues them: `iss`.
    pub issuer: String,
    /// For whom they are: one of `aud`.
    pub audience: String,
    /// The claim that says who it is.
    pub claim: String,
}

/// Checks tokens.
pub(super) struct Tokens {
    keys: Vec<Key>,
    expected: Expected,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    public: ParsedPublicKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

/// The longest token, the longest name, and how far clocks may differ, in seconds. All headers of a call together have 8 KiB
/// (`max_header_list_size` of the listener): a token that is somewhat too long is refused for that, and not its call for
/// its headers.
const TOKEN_BYTES_MAX: usize = 6 << 10;
const NAME_BYTES_MAX: usize = 200;
const SKEW: i64 = 60;
/// What the identity of a token begins with: no token can speak for a certificate.
const PREFIX: &str = "token:";

impl Algorithm {
    const NAMES: [(&'static str, Self); 3] = [("RS256", Self::Rs256), ("ES256", Self::Es256), ("EdDSA", Self::EdDsa)];

    fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}

/// What a token says of itself. What is not known here is of no account, except what would have to be understood.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    cty: Option<String>,
    crit: Option<Value>,
}

impl Tokens {
    /// Reads the keys of a JWKS file. Keys of other kinds are left out.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn read(jwks: &[u8], expected: &Expected) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(jwks).map_err(|error| format!("is no JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("has no list `keys`, as a JWKS file does")?;
        let mut read: Vec<Key> = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            let named = || match key.get("kid").and_then(Value::as_str) {
                Some(id) => format!("`{}`", printable::line(id)),
                None => format!("without `kid`, at {position}, from 0"),
            };
            let Some(key) = Key::read(key).map_err(|why| format!("has a key ({}) that {why}", named()))? else {
                continue;
            };
            if read.iter().any(|known| known.id == key.id) {
                return Err(format!(
                    "has two keys with the same `kid`, or two without (the second is {position}, from 0)"
                ));
            }
            read.push(key);
        }
        if read.is_empty() {
            return Err("has no key for RS256, ES256 or EdDSA".to_owned());
        }
        Ok(Self { keys: read, expected: expected.clone() })
    }

    /// Who a token belongs to, as of a moment in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub(super) fn check(&self, token: &str, now: i64) -> Result<Identity, Turned> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Turned::TokenTooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Turned::TokenMalformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Turned::TokenMalformed)?;
        let [header, claims, signature] =
            [header, claims, signature].map(|part| URL_SAFE_NO_PAD.decode(part).map_err(|_| Turned::TokenMalformed));
        let (header, claims, signature) = (header?, claims?, signature?);
        let header: Header = serde_json::from_slice(&header).map_err(|_| Turned::TokenMalformed)?;
        let is_nested = header.cty.is_some_and(|kind| kind.eq_ignore_ascii_case("jwt"));
        if is_nested || header.crit.is_some() {
            return Err(Turned::TokenMalformed);
        }
        let algorithm = Algorithm::named(&header.alg).ok_or(Turned::TokenAlgorithm)?;
        let key = self.key(header.kid.as_deref(), algorithm)?;
        key.verify(signed.as_bytes(), &signature)?;
        // From here on, its issuer has said it.
        let claims: Map<String, Value> = serde_json::from_slice(&claims).map_err(|_| Turned::TokenMalformed)?;
        self.claims(&claims, now)
    }

    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, Turned> {
        let key = match id {
            Some(id) => self.keys.iter().find(|key| key.id.as_deref() == Some(id)),
            None => match self.keys.as_slice() {
                [only] => Some(only),
                _ => None,
            },
        };
        let key = key.ok_or(Turned::TokenUnknownKey)?;
        if key.algorithm == algorithm { Ok(key) } else { Err(Turned::TokenAlgorithm) }
    }

    fn claims(&self, claims: &Map<String, Value>, now: i64) -> Result<Identity, Turned> {
        let Expected { issuer, audience, claim } = &self.expected;
        if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Err(Turned::TokenWrongIssuer);
        }
        let is_for_us = match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        if !is_for_us {
            return Err(Turned::TokenWrongAudience);
        }
        let until = seconds(claims.get("exp")).ok_or(Turned::TokenMalformed)?.saturating_add(SKEW);
        if now >= until {
            return Err(Turned::TokenExpired);
        }
        for begins in ["nbf", "iat"] {
            match claims.get(begins) {
                None => {}
                Some(time) => {
                    let time = seconds(Some(time)).ok_or(Turned::TokenMalformed)?;
                    if time.saturating_sub(SKEW) > now {
                        return Err(Turned::TokenNotYetValid);
                    }
                }
            }
        }
        let name = claims.get(claim).and_then(Value::as_str).ok_or(Turned::TokenNoIdentity)?;
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
            && !name.chars().any(|char| char.is_control() || char.is_whitespace() || char == '*');
        if !is_name {
            return Err(Turned::TokenNoIdentity);
        }
        Ok(Identity::proved(&format!("{PREFIX}{name}"), until))
    }
}

/// A time of a token: seconds since the Unix epoch, perhaps with a fraction.
fn seconds(time: Option<&Value>) -> Option<i64> {
    let time = time?;
    // A number beyond any time is no time.
    time.as_i64().or_else(|| time.as_f64().filter(|time| time.abs() < 1e15).map(|time| time as i64))
}

impl Key {
    /// A key of a JWKS file. `None`: it is for something else.
    fn read(key: &Value) -> Result<Option<Self>, &'static str> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| -> Result<Vec<u8>, &'static str> {
            let text = text(name).ok_or("lacks a part (n and e; x and y; x)")?;
            URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| "has a part that is not base64url")
        };
        if text("use").is_some_and(|usage| usage != "sig") {
            return Ok(None);
        }
        if key.get("d").is_some() {
            return Err("is a private key: name a file with public keys only");
        }
        let rejected = |_| "cannot be used: its parts are no such key";
        let (algorithm, public) = match (text("kty").ok_or("has no `kty`")?, text("crv")) {
            ("oct", _) => return Err("is symmetric: whoever can check its tokens can make them"),
            ("RSA", _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                if n.len() < 256 {
                    return Err("is an RSA key of less than 2048 bits");
                }
                let public = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
                (Algorithm::Rs256, public.map_err(rejected)?)
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != 32 || y.len() != 32 {
                    return Err("is no point of P-256");
                }
                let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[4][..], &x, &y].concat());
                (Algorithm::Es256, public.map_err(rejected)?)
            }
            ("OKP", Some("Ed25519")) => {
                (Algorithm::EdDsa, ParsedPublicKey::new(&ED25519, bytes("x")?).map_err(rejected)?)
            }
            _ => return Ok(None),
        };
        let is_for_it = text("alg").is_none_or(|name| Algorithm::named(name) == Some(algorithm));
        let id = text("kid").map(str::to_owned);
        Ok(is_for_it.then_some(Self { id, algorithm, public }))
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), Turned> {
        self.public.verify_sig(signed, signature).map_err(|_| Turned::TokenSignature)
    }
}

#[cfg(test)]
mod tests;
