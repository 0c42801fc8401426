//! The public keys of an issuer (RFC 7517), as far as they can check a token.
//!
//! **Invariant:** the key decides the algorithm, not the token: a token never chooses how it is checked.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Keys of one set.
const KEYS_MAX: usize = 100;

/// A key as it is published. What it is not for is left out.
#[derive(Debug, Deserialize)]
struct Published {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// A key that checks signatures.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl Published {
    fn into_key(self) -> Option<Key> {
        let is_for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        let (algorithm, names, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, ["RS256", "RS256"], DecodingKey::from_rsa_components(&self.n?, &self.e?)),
            ("EC", Some("P-256")) => (Algorithm::ES256, ["ES256", "ES256"], DecodingKey::from_ec_components(&self.x?, &self.y?)),
            // RFC 9864 calls it by its full name.
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, ["EdDSA", "Ed25519"], DecodingKey::from_ed_components(&self.x?)),
            _ => return None,
        };
        let fits = self.alg.as_deref().is_none_or(|alg| names.contains(&alg));
        if is_for_signatures && fits { Some(Key { id: self.kid, algorithm, key: key.ok()? }) } else { None }
    }
}

/// The keys of an issuer.
#[derive(Clone, Default)]
pub(super) struct KeySet(Vec<Key>);

/// Which key a token asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// By its id; none: the only one there is.
    pub(super) id: Option<&'a str>,
    /// Of this algorithm.
    pub(super) algorithm: Algorithm,
}

impl KeySet {
    /// Reads a set; keys of unknown kinds are skipped, as the standard says.
    pub(super) fn read(document: &serde_json::Value) -> Self {
        let published = document["keys"].as_array().into_iter().flatten().take(KEYS_MAX);
        Self(published.filter_map(|key| Published::deserialize(key).ok()?.into_key()).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the key that a token asks for.
    pub(super) fn find(&self, wanted: &Wanted<'_>) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == wanted.algorithm);
        match wanted.id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_for_other_things_are_left_out() {
        let ed = |id: &str| json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let mut for_encryption = ed("enc");
        for_encryption["use"] = json!("enc");
        let mut of_another_algorithm = ed("other");
        of_another_algorithm["alg"] = json!("RS256");
        let set = json!({"keys": [
            ed("a"), for_encryption, of_another_algorithm, {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
            {"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AA", "y": "AA"}, {"kty": "RSA", "kid": "no n", "e": "AQAB"}, "nonsense", 7,
        ]});
        let keys = KeySet::read(&set);
        assert_eq!(keys.0.len(), 1);
        let find = |id, algorithm| keys.find(&Wanted { id, algorithm }).is_some();
        assert!(find(Some("a"), Algorithm::EdDSA) && find(None, Algorithm::EdDSA));
        assert!(!find(Some("a"), Algorithm::RS256) && !find(Some("b"), Algorithm::EdDSA));
        let two = KeySet::read(&json!({"keys": [ed("a"), ed("b")]}));
        assert!(two.find(&Wanted { id: None, algorithm: Algorithm::EdDSA }).is_none(), "which of the two?");
        assert!(KeySet::read(&json!({"keys": "none"})).is_empty());
    }
}
