//! The public keys of an issuer (RFC 7517), as far as they can check a token.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

use super::token::{Algorithm, PublicKey};

/// Keys of one set.
const KEYS_MAX: usize = 100;
/// Bytes of a coordinate, and of a point of Ed25519.
const COORDINATE_BYTES: usize = 32;

/// A key as it is published.
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

/// A key and its id.
#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    key: PublicKey,
}

fn number(digits: &str) -> Option<Vec<u8>> {
    let bytes = BASE64URL_NOPAD.decode(digits.trim_end_matches('=').as_bytes()).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}

fn coordinate(digits: &str) -> Option<Vec<u8>> {
    let bytes = BASE64URL_NOPAD.decode(digits.trim_end_matches('=').as_bytes()).ok()?;
    (bytes.len() == COORDINATE_BYTES).then_some(bytes)
}

impl Published {
    /// Returns the key, none when it is of another kind or for another use.
    fn into_key(self) -> Option<Key> {
        let is_for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => PublicKey::Rsa { n: number(&self.n?)?, e: number(&self.e?)? },
            ("EC", Some("P-256")) => PublicKey::P256([vec![4], coordinate(&self.x?)?, coordinate(&self.y?)?].concat()),
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519(coordinate(&self.x?)?),
            _ => return None,
        };
        let fits = self.alg.as_deref().is_none_or(|alg| Algorithm::named(alg) == Some(key.algorithm()));
        (is_for_signatures && fits).then_some(Key { id: self.kid, key })
    }
}

/// The keys of an issuer.
#[derive(Debug, Clone, Default)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a set, none when the document is none; keys of unknown kinds are skipped, as the standard says.
    pub(super) fn read(document: &serde_json::Value) -> Option<Self> {
        let published = document["keys"].as_array()?.iter().take(KEYS_MAX);
        Some(Self(published.filter_map(|key| Published::deserialize(key).ok()?.into_key()).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the key of an id that is good for an algorithm; without an id the only one that is good for it.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<PublicKey> {
        let mut fitting = self.0.iter().filter(|key| key.key.algorithm() == algorithm);
        let found = match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        found.map(|found| found.key.clone())
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
            {"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AA", "y": "AA"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
            {"kty": "RSA", "kid": "no n", "e": "AQAB"}, {"kty": "RSA", "n": "AAEC", "e": "AQAB", "key_ops": ["encrypt"]}, "nonsense", 7,
        ]});
        let keys = KeySet::read(&set).expect("a set");
        assert_eq!(keys.0.len(), 1, "{keys:?}");
        assert!(keys.find(Some("a"), Algorithm::EdDsa).is_some() && keys.find(None, Algorithm::EdDsa).is_some());
        assert!(keys.find(Some("a"), Algorithm::Rs256).is_none() && keys.find(Some("b"), Algorithm::EdDsa).is_none());
        let two = KeySet::read(&json!({"keys": [ed("a"), ed("b")]})).expect("a set");
        assert!(two.find(None, Algorithm::EdDsa).is_none(), "which of the two?");
        assert!(KeySet::read(&json!({"keys": "none"})).is_none() && KeySet::read(&json!({})).is_none());
        assert!(KeySet::read(&json!({"keys": []})).is_some_and(|none| none.is_empty()));
        assert_eq!(number("AAEC"), Some(vec![1, 2]), "leading zeros are not part of a number");
    }
}
