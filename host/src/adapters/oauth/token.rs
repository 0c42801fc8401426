//! A signed access token: the compact form of a JWS (RFC 7515), its claims (RFC 7519, RFC 9068), the signature checked by ring.
//!
//! Owns which algorithms there are: RS256, ES256 and EdDSA over Ed25519. Neither `none` nor a shared secret is among them.
//! Must not know where keys come from. Pure: keys and time come as arguments.
//!
//! **Invariants:** no claim can be read before the signature was found good; a claim that counts and has another type than
//! the standard's refuses the token, it is never taken for absent.

use data_encoding::BASE64URL_NOPAD;
use pointsman_core::time::TimeMs;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::ports::issuer::Grant;

/// How a token is signed (RFC 7518, section 3.1; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// Returns the algorithm of a name, none for all that are not taken here. `Ed25519` is its name in RFC 9864.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A public key; it decides the algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// Modulus and exponent, big-endian, without leading zeros. Below 2048 bits nothing is good by it.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point of P-256, uncompressed.
    P256(Vec<u8>),
    /// A point of Ed25519.
    Ed25519(Vec<u8>),
}

impl PublicKey {
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok(),
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok(),
            Self::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature).is_ok(),
        }
    }
}

/// Why a token is refused; each text goes to whoever configured the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum TokenError {
    #[error("its header cannot be read")]
    BadHeader,
    #[error("it is not signed by RS256, ES256 or EdDSA")]
    BadAlgorithm,
    #[error("its header has extensions that are not known here")]
    UnknownExtensions,
    #[error("it is a signed token for another use than access")]
    AnotherUse,
    #[error("it is an ID token, or cannot be told from one: its header has no `typ` `at+jwt`, and {why}")]
    IdToken { why: &'static str },
    #[error("its signature is wrong")]
    BadSignature,
    #[error("its claims cannot be read")]
    BadClaims,
    #[error("it has no `{0}`")]
    NoClaim(&'static str),
    #[error("another authorization server issued it")]
    AnotherIssuer,
    #[error("it is not meant for this endpoint: its audience is not {}", expected.join(" or "))]
    AnotherAudience { expected: Vec<String> },
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
}

/// What of the claims is looked at. `scp` and `azp` are what some servers write instead of `scope` and `client_id`.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    aud: Option<OneOrMany>,
    scope: Option<OneOrMany>,
    scp: Option<OneOrMany>,
    client_id: Option<String>,
    azp: Option<String>,
    at_hash: Option<IgnoredAny>,
    c_hash: Option<IgnoredAny>,
    nonce: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Whom a token must be from and for, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audiences: &'a [String],
    pub(super) now: TimeMs,
    pub(super) leeway_ms: u64,
}

/// A token whose header was read. Nothing in it is to be believed yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    key_id: Option<String>,
    algorithm: Algorithm,
    /// Whether its header says that it is an access token.
    is_access: bool,
    /// Header and claims as they were signed.
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Token<'a> {
    /// Reads the header.
    pub(super) fn read(text: &'a str) -> Result<Self, TokenError> {
        let (message, signature) = text.rsplit_once('.').ok_or(TokenError::BadHeader)?;
        let (head, claims) = message.split_once('.').ok_or(TokenError::BadHeader)?;
        let head = BASE64URL_NOPAD.decode(head.as_bytes()).map_err(|_| TokenError::BadHeader)?;
        let header: Header = serde_json::from_slice(&head).map_err(|_| TokenError::BadHeader)?;
        let algorithm = Algorithm::named(&header.alg).ok_or(TokenError::BadAlgorithm)?;
        // RFC 7515, section 4.1.11: what must be understood and is not is a reason to refuse.
        if header.crit.is_some() {
            return Err(TokenError::UnknownExtensions);
        }
        // RFC 9068, section 4; `JWT` is what many servers still write.
        let form = header.typ.as_deref().map(|form| form.rsplit('/').next().unwrap_or(form));
        if form.is_some_and(|form| !form.eq_ignore_ascii_case("at+jwt") && !form.eq_ignore_ascii_case("jwt")) {
            return Err(TokenError::AnotherUse);
        }
        let is_access = form.is_some_and(|form| form.eq_ignore_ascii_case("at+jwt"));
        Ok(Self { key_id: header.kid, algorithm, is_access, message, claims, signature })
    }

    /// Returns the id of the key that should have signed it.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Returns the algorithm it says it is signed by.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Checks signature and claims.
    pub(super) fn check(&self, key: &PublicKey, expected: Expected<'_>) -> Result<Grant, TokenError> {
        if key.algorithm() != self.algorithm {
            return Err(TokenError::BadAlgorithm);
        }
        let signature = BASE64URL_NOPAD.decode(self.signature.as_bytes()).map_err(|_| TokenError::BadSignature)?;
        if !key.verifies(self.message.as_bytes(), &signature) {
            return Err(TokenError::BadSignature);
        }
        let claims = BASE64URL_NOPAD.decode(self.claims.as_bytes()).map_err(|_| TokenError::BadClaims)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::BadClaims)?;
        if !self.is_access {
            claims.are_of_access()?;
        }
        claims.judge(expected)
    }
}

/// Returns the milliseconds of a claim's seconds. What is no time at all saturates, and so is long ago or far ahead.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and no number here is not a number: JSON has none such")]
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1_000.0) as i64
}

impl Claims {
    /// Refuses what may be an ID token (OpenID Connect Core, sections 2 and 3.3.2.11), whose audience is a client: it is shown to many, and
    /// opens nothing.
    fn are_of_access(&self) -> Result<(), TokenError> {
        if self.at_hash.is_some() || self.c_hash.is_some() || self.nonce.is_some() {
            return Err(TokenError::IdToken { why: "its claims are those of one" });
        }
        if self.scope.is_none() && self.scp.is_none() {
            return Err(TokenError::IdToken { why: "it has neither `scope` nor `scp`" });
        }
        Ok(())
    }

    fn judge(self, expected: Expected<'_>) -> Result<Grant, TokenError> {
        if self.iss.ok_or(TokenError::NoClaim("iss"))? != expected.issuer {
            return Err(TokenError::AnotherIssuer);
        }
        let audiences = self.aud.ok_or(TokenError::NoClaim("aud"))?.into_vec();
        if !audiences.iter().any(|audience| expected.audiences.contains(audience)) {
            return Err(TokenError::AnotherAudience { expected: expected.audiences.to_vec() });
        }
        let expires_at_ms = milliseconds(self.exp.ok_or(TokenError::NoClaim("exp"))?);
        let expires_at_ms = expires_at_ms.saturating_add_unsigned(expected.leeway_ms);
        // RFC 7519, section 4.1.4: on or after that time it is not accepted.
        if expected.now.0 >= expires_at_ms {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|nbf| (expected.now + expected.leeway_ms).0 < milliseconds(nbf)) {
            return Err(TokenError::NotYet);
        }
        let subject = self.sub.filter(|subject| !subject.is_empty()).ok_or(TokenError::NoClaim("sub"))?;
        let scopes = [self.scope, self.scp].into_iter().flatten().flat_map(OneOrMany::into_vec);
        let scopes = scopes.flat_map(|list| list.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
        Ok(Grant { subject, client: self.client_id.or(self.azp), scopes, audiences, expires_at_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::{Value, json};

    const NOW_S: i64 = 1_790_000_000;

    struct Pair(Ed25519KeyPair);

    impl Pair {
        fn new() -> Self {
            Self(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed"))
        }

        fn public(&self) -> PublicKey {
            PublicKey::Ed25519(self.0.public_key().as_ref().to_vec())
        }

        fn sign(&self, header: &Value, claims: &str) -> String {
            let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
            let message = format!("{}.{}", part(header.to_string().as_bytes()), part(claims.as_bytes()));
            format!("{message}.{}", part(self.0.sign(message.as_bytes()).as_ref()))
        }
    }

    fn check(text: &str, key: &PublicKey) -> Result<Grant, TokenError> {
        let audiences = ["here".to_owned()];
        let expected = Expected { issuer: "as", audiences: &audiences, now: TimeMs(NOW_S * 1_000), leeway_ms: 5_000 };
        Token::read(text)?.check(key, expected)
    }

    fn claims() -> Value {
        json!({"iss": "as", "sub": "ana", "aud": ["there", "here"], "exp": NOW_S + 60})
    }

    fn with(name: &str, value: Value) -> String {
        let mut claims = claims();
        claims[name] = value;
        Pair::new().sign(&json!({"alg": "EdDSA", "kid": "k", "typ": "at+jwt"}), &claims.to_string())
    }

    #[test]
    fn claims_are_judged_within_the_leeway() {
        let key = Pair::new().public();
        let bad = |name, value| check(&with(name, value), &key).expect_err("it is refused");
        assert_eq!(check(&with("x", json!(1)), &key).map(|grant| grant.subject), Ok("ana".to_owned()));
        assert!(check(&with("exp", json!(NOW_S - 4)), &key).is_ok());
        assert_eq!(bad("exp", json!(NOW_S - 5)), TokenError::Expired);
        assert_eq!(bad("exp", json!(0.5)), TokenError::Expired);
        assert_eq!(bad("exp", json!(-1e300)), TokenError::Expired);
        assert_eq!(bad("exp", json!(format!("{}", NOW_S + 60))), TokenError::BadClaims);
        assert_eq!(bad("exp", Value::Null), TokenError::NoClaim("exp"));
        assert!(check(&with("nbf", json!(NOW_S + 5)), &key).is_ok());
        assert_eq!(bad("nbf", json!(NOW_S + 6)), TokenError::NotYet);
        assert_eq!(bad("nbf", json!("soon")), TokenError::BadClaims);
        assert_eq!(bad("iss", json!("as/")), TokenError::AnotherIssuer);
        assert_eq!(bad("iss", json!(["as"])), TokenError::BadClaims);
        assert_eq!(bad("sub", json!("")), TokenError::NoClaim("sub"));
        assert_eq!(bad("aud", json!([])), TokenError::AnotherAudience { expected: vec!["here".to_owned()] });
        assert_eq!(bad("aud", json!({"here": 1})), TokenError::BadClaims);
        let twice = claims().to_string().replace("\"iss\"", "\"sub\":\"ben\",\"iss\"");
        assert_eq!(check(&Pair::new().sign(&json!({"alg": "EdDSA"}), &twice), &key), Err(TokenError::BadClaims), "which of the two?");
    }

    #[test]
    fn scopes_and_clients_are_read_in_each_form() {
        let key = Pair::new().public();
        let good = |name, value| check(&with(name, value), &key).expect("it is good");
        assert_eq!(good("scope", json!("x  y")).scopes, ["x", "y"]);
        assert_eq!(good("scp", json!(["x", "y z"])).scopes, ["x", "y", "z"]);
        assert!(good("x", json!(1)).scopes.is_empty());
        assert_eq!(good("azp", json!("app")).client.as_deref(), Some("app"));
        assert_eq!(good("exp", json!(NOW_S + 1)).expires_at_ms, (NOW_S + 6) * 1_000, "the leeway is counted in");
    }

    #[test]
    fn headers_that_should_not_be_are_refused() {
        let (pair, key) = (Pair::new(), Pair::new().public());
        let mut claims = claims();
        claims["scope"] = json!("x");
        let refused = |header: Value| check(&pair.sign(&header, &claims.to_string()), &key).err();
        for good in [json!({"alg": "EdDSA"}), json!({"alg": "Ed25519", "typ": "application/at+jwt"}), json!({"alg": "EdDSA", "typ": "JWT"})]
        {
            assert_eq!(refused(good.clone()), None, "{good}");
        }
        for (header, error) in [
            (json!({"alg": "none"}), TokenError::BadAlgorithm),
            (json!({"alg": "HS256"}), TokenError::BadAlgorithm),
            (json!({"alg": "RS256"}), TokenError::BadAlgorithm),
            (json!({"alg": "eddsa"}), TokenError::BadAlgorithm),
            (json!({"typ": "JWT"}), TokenError::BadHeader),
            (json!({"alg": ["EdDSA"]}), TokenError::BadHeader),
            (json!({"alg": "EdDSA", "crit": ["b64"], "b64": false}), TokenError::UnknownExtensions),
            (json!({"alg": "EdDSA", "typ": "dpop+jwt"}), TokenError::AnotherUse),
        ] {
            assert_eq!(refused(header.clone()), Some(error), "{header}");
        }
        for text in ["", "a", "a.b", "a.b.c", "e30.e30.e30", "a.b.c.d"] {
            assert_eq!(check(text, &key), Err(TokenError::BadHeader), "{text}");
        }
    }

    #[test]
    fn an_id_token_is_no_access_token() {
        let (pair, key) = (Pair::new(), Pair::new().public());
        let checked = |typ: &str, more: Value| {
            let mut claims = claims();
            claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            check(&pair.sign(&json!({"alg": "EdDSA", "typ": typ}), &claims.to_string()), &key).map(|grant| grant.subject)
        };
        for id_token in
            [json!({}), json!({"scope": "x", "nonce": "n"}), json!({"scp": "x", "at_hash": "h"}), json!({"scope": "x", "c_hash": 1})]
        {
            assert!(matches!(checked("JWT", id_token.clone()), Err(TokenError::IdToken { .. })), "{id_token}");
            assert_eq!(checked("at+jwt", id_token.clone()), Ok("ana".to_owned()), "{id_token}");
        }
        assert_eq!(checked("JWT", json!({"scope": ""})), Ok("ana".to_owned()));
        assert_eq!(checked("JWT", json!({"scp": ["x"]})), Ok("ana".to_owned()));
    }

    proptest! {
        #[test]
        fn a_token_with_any_one_character_changed_is_refused(at in 0_usize..1_000, to in "[A-Za-z0-9_.-]") {
            let good = with("x", json!(1));
            let at = at % good.len();
            let changed = format!("{}{to}{}", &good[..at], &good[at + 1..]);
            prop_assert!(changed == good || check(&changed, &Pair::new().public()).is_err(), "{changed}");
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            prop_assert!(check(&text, &Pair::new().public()).is_err());
        }
    }
}
