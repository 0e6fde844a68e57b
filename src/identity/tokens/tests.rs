use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;

/// Signs tokens in each of the three ways.
struct Issuer {
    rsa: RsaKeyPair,
    ecdsa: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ecdsa: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let point = self.ecdsa.public_key().as_ref();
        let (n, e) = (self.rsa.public_key().modulus(), self.rsa.public_key().exponent());
        json!({ "keys": [
            { "kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256",
              "n": text(n.big_endian_without_leading_zero()), "e": text(e.big_endian_without_leading_zero()) },
            { "kty": "EC", "kid": "e", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..]) },
            { "kty": "OKP", "kid": "d", "crv": "Ed25519", "x": text(self.ed25519.public_key().as_ref()) },
            { "kty": "EC", "kid": "other", "crv": "P-384", "x": "", "y": "" },
            { "kty": "RSA", "kid": "encrypts", "use": "enc", "n": "", "e": "" },
        ] })
    }

    fn tokens(&self) -> Tokens {
        let expected = Expected { issuer: "https://id".into(), audience: "bailiwick".into(), claim: "sub".into() };
        Tokens::read(self.jwks().to_string().as_bytes(), &expected).map_err(|why| panic!("{why}")).ok().unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", text(header.to_string().as_bytes()), text(claims.to_string().as_bytes()));
        let random = SystemRandom::new();
        let signature = match header["kid"].as_str() {
            Some("r") => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Some("d") => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
            _ => self.ecdsa.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", text(&signature))
    }
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": "e", "typ": "JWT" })
}

fn claims() -> Value {
    json!({ "iss": "https://id", "aud": "bailiwick", "exp": NOW + 300, "sub": "uploader" })
}

fn with(mut value: Value, key: &str, other: Value) -> Value {
    value[key] = other;
    value
}

fn without(mut value: Value, key: &str) -> Value {
    value.as_object_mut().unwrap().remove(key);
    value
}

#[test]
fn good_tokens_of_each_algorithm_say_who_it_is_and_until_when() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    for (algorithm, key) in [("RS256", "r"), ("ES256", "e"), ("EdDSA", "d")] {
        let token = issuer.sign(&json!({ "alg": algorithm, "kid": key }), &claims());
        let identity = tokens.check(&token, NOW).unwrap_or_else(|why| panic!("{algorithm}: {why:?}"));
        assert_eq!((identity.as_str(), identity.until()), ("token:uploader", NOW + 360));
    }
    for good in [
        with(claims(), "aud", json!(["other", "bailiwick"])),
        with(claims(), "exp", json!(NOW - 59)),
        with(claims(), "exp", json!(NOW as f64 + 0.5)),
        with(claims(), "nbf", json!(NOW + 59)),
        with(claims(), "iat", json!(NOW)),
        with(claims(), "sub", json!("spiffe://corp.example/office")),
        with(claims(), "more", json!({ "nested": [1, 2, 3] })),
    ] {
        let identity = tokens.check(&issuer.sign(&header(), &good), NOW);
        assert!(identity.is_ok_and(|identity| identity.as_str().starts_with("token:")), "{good}");
    }
}

#[test]
fn each_bad_token_is_refused_for_its_own_reason() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    let good = issuer.sign(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let claimed = |claims: Value| issuer.sign(&header(), &claims);
    let headed = |header: Value| issuer.sign(&header, &claims());
    let nested = format!("{}1{}", "[".repeat(4_000), "]".repeat(4_000));
    let cases = [
        ("nothing", String::new(), Turned::TokenMalformed),
        ("one part", parts[0].to_owned(), Turned::TokenMalformed),
        ("two parts", format!("{}.{}", parts[0], parts[1]), Turned::TokenMalformed),
        ("four parts", format!("{good}.x"), Turned::TokenMalformed),
        ("no signature", format!("{}.{}.", parts[0], parts[1]), Turned::TokenSignature),
        ("padding", format!("{}=.{}.{}", parts[0], parts[1], parts[2]), Turned::TokenMalformed),
        ("no base64", format!("{}.{}.{}", parts[0], "???", parts[2]), Turned::TokenMalformed),
        ("huge", claimed(with(claims(), "more", json!("x".repeat(10_000)))), Turned::TokenTooLong),
        ("a header that is no object", format!("{}.{}.{}", text(b"[]"), parts[1], parts[2]), Turned::TokenMalformed),
        (
            "a header of nested lists",
            format!("{}.{}.{}", text(&nested.as_bytes()[..4_000]), parts[1], parts[2]),
            Turned::TokenMalformed,
        ),
        (
            "claims of nested lists",
            {
                let signed =
                    format!("{}.{}", text(header().to_string().as_bytes()), text(&nested.as_bytes()[2_000..6_000]));
                let signature = issuer.ecdsa.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
                format!("{signed}.{}", text(signature.as_ref()))
            },
            Turned::TokenMalformed,
        ),
        ("no algorithm", headed(without(header(), "alg")), Turned::TokenMalformed),
        ("none", headed(with(header(), "alg", json!("none"))), Turned::TokenAlgorithm),
        ("None", headed(with(header(), "alg", json!("None"))), Turned::TokenAlgorithm),
        ("symmetric", headed(with(header(), "alg", json!("HS256"))), Turned::TokenAlgorithm),
        ("of the key's kind, longer", headed(with(header(), "alg", json!("ES384"))), Turned::TokenAlgorithm),
        ("of another key's kind", headed(with(header(), "alg", json!("RS256"))), Turned::TokenAlgorithm),
        ("of another padding", headed(json!({ "alg": "PS256", "kid": "r" })), Turned::TokenAlgorithm),
        ("an unknown key", headed(with(header(), "kid", json!("x"))), Turned::TokenUnknownKey),
        ("no key, of several", headed(without(header(), "kid")), Turned::TokenUnknownKey),
        ("a key that was left out", headed(with(header(), "kid", json!("other"))), Turned::TokenUnknownKey),
        ("what must be understood", headed(with(header(), "crit", json!(["b64"]))), Turned::TokenMalformed),
        ("a token in a token", headed(with(header(), "cty", json!("JWT"))), Turned::TokenMalformed),
        ("another issuer's key", Issuer::new().sign(&header(), &claims()), Turned::TokenSignature),
        (
            "claims of another token",
            {
                let other = claimed(with(claims(), "sub", json!("office")));
                format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2])
            },
            Turned::TokenSignature,
        ),
        ("an issuer beside", claimed(with(claims(), "iss", json!("https://id/"))), Turned::TokenWrongIssuer),
        ("issuers", claimed(with(claims(), "iss", json!(["https://id"]))), Turned::TokenWrongIssuer),
        ("no issuer", claimed(without(claims(), "iss")), Turned::TokenWrongIssuer),
        ("another audience", claimed(with(claims(), "aud", json!("other"))), Turned::TokenWrongAudience),
        ("other audiences", claimed(with(claims(), "aud", json!(["other", 7]))), Turned::TokenWrongAudience),
        ("no audience", claimed(without(claims(), "aud")), Turned::TokenWrongAudience),
        ("over", claimed(with(claims(), "exp", json!(NOW - 60))), Turned::TokenExpired),
        ("over long ago", claimed(with(claims(), "exp", json!(0))), Turned::TokenExpired),
        ("never over", claimed(without(claims(), "exp")), Turned::TokenMalformed),
        ("over at a text", claimed(with(claims(), "exp", json!("tomorrow"))), Turned::TokenMalformed),
        ("over beyond all time", claimed(with(claims(), "exp", json!(1e300))), Turned::TokenMalformed),
        ("not yet", claimed(with(claims(), "nbf", json!(NOW + 61))), Turned::TokenNotYetValid),
        ("issued tomorrow", claimed(with(claims(), "iat", json!(NOW + 86_400))), Turned::TokenNotYetValid),
        ("nobody", claimed(without(claims(), "sub")), Turned::TokenNoIdentity),
        ("an empty name", claimed(with(claims(), "sub", json!(""))), Turned::TokenNoIdentity),
        ("a number", claimed(with(claims(), "sub", json!(7))), Turned::TokenNoIdentity),
        ("a star", claimed(with(claims(), "sub", json!("till-*"))), Turned::TokenNoIdentity),
        ("lines", claimed(with(claims(), "sub", json!("a\nb"))), Turned::TokenNoIdentity),
        ("a long name", claimed(with(claims(), "sub", json!("x".repeat(201)))), Turned::TokenNoIdentity),
    ];
    for (what, token, why) in cases {
        assert_eq!(tokens.check(&token, NOW), Err(why), "{what}");
        assert!(tokens.check(&good, NOW).is_ok());
    }
}

#[test]
fn files_of_keys_that_cannot_be_used_are_told_why() {
    let expected = Expected { issuer: "i".into(), audience: "a".into(), claim: "sub".into() };
    let issuer = Issuer::new();
    let mut twice = issuer.jwks();
    twice["keys"][1]["kid"] = json!("r");
    let cases = [
        ("nonsense".to_owned(), "is no JSON"),
        ("[]".to_owned(), "no list `keys`"),
        (json!({ "keys": [] }).to_string(), "no key for"),
        (json!({ "keys": [{ "kty": "oct", "k": "AAAA" }] }).to_string(), "symmetric"),
        (json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "AAAA", "d": "AAAA" }] }).to_string(), "private key"),
        (json!({ "keys": [{ "kty": "RSA", "n": "AAAA", "e": "AQAB" }] }).to_string(), "less than 2048 bits"),
        (json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "AAAA" }] }).to_string(), "lacks a part"),
        (json!({ "keys": [{ "kty": "EC", "kid": "off", "crv": "P-256", "x": text(&[1; 32]), "y": text(&[2; 32]) }] }).to_string(),
         "(`off`) that cannot be used"),
        (json!({ "keys": [{ "kty": "OKP", "kid": "cut", "crv": "Ed25519", "x": "AAAA" }] }).to_string(), "(`cut`) that cannot be used"),
        (json!({ "keys": [{ "kty": "RSA", "kid": "even", "n": text(&[2; 256]), "e": "" }] }).to_string(), "(`even`) that cannot be used"),
        (twice.to_string(), "same `kid`"),
    ];
    for (text, words) in cases {
        let said = Tokens::read(text.as_bytes(), &expected).err().unwrap();
        assert!(said.contains(words), "{said}");
    }
}
