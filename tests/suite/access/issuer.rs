//! An authorization server on loopback: real keys, real signatures, metadata and keys over HTTP. It gives a token to anyone.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A key of 2048 bits, good for nothing but these tests: making one takes seconds.
const RSA_KEY: &[u8] = include_bytes!("rs256.pk8");

/// A key pair, and how it signs.
pub(crate) enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

/// A key that signs tokens.
pub(crate) struct Signer {
    pub(crate) id: String,
    pair: Pair,
    random: SystemRandom,
}

fn base64(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

impl Signer {
    fn new(id: &str, pair: impl FnOnce(&SystemRandom) -> Pair) -> Arc<Self> {
        let random = SystemRandom::new();
        Arc::new(Self { id: id.to_owned(), pair: pair(&random), random })
    }

    pub(crate) fn es256(id: &str) -> Arc<Self> {
        Self::new(id, |random| {
            let secret = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random).expect("a key");
            Pair::Es256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, secret.as_ref(), random).expect("a key"))
        })
    }

    pub(crate) fn eddsa(id: &str) -> Arc<Self> {
        Self::new(id, |random| {
            let secret = Ed25519KeyPair::generate_pkcs8(random).expect("a key");
            Pair::EdDsa(Ed25519KeyPair::from_pkcs8(secret.as_ref()).expect("a key"))
        })
    }

    pub(crate) fn rs256(id: &str) -> Arc<Self> {
        Self::new(id, |_| Pair::Rs256(RsaKeyPair::from_pkcs8(RSA_KEY).expect("a key")))
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Es256(_) => "ES256",
            Pair::EdDsa(_) => "EdDSA",
            Pair::Rs256(_) => "RS256",
        }
    }

    fn published(&self) -> Value {
        match &self.pair {
            Pair::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": base64(x), "y": base64(y)})
            }
            Pair::EdDsa(pair) => json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": base64(pair.public_key().as_ref())}),
            Pair::Rs256(pair) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "alg": "RS256", "kid": self.id, "n": base64(&n), "e": base64(&e)})
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Es256(pair) => pair.sign(&self.random, message).expect("a signature").as_ref().to_vec(),
            Pair::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature).expect("a signature");
                signature
            }
        }
    }

    /// Returns a token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm(), "typ": "at+jwt", "kid": self.id}), claims)
    }

    /// Returns a token with a header of one's own.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", base64(&signature))
    }
}

/// What it publishes, and what it was asked.
struct Published {
    url: String,
    keys: Mutex<Vec<Value>>,
    asked: AtomicUsize,
}

/// A running authorization server.
pub(crate) struct Issuer {
    published: Arc<Published>,
}

impl Issuer {
    /// Starts one that publishes these keys.
    pub(crate) async fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/tenant", listener.local_addr().expect("an address"));
        let published = Arc::new(Published { url, keys: Mutex::default(), asked: AtomicUsize::new(0) });
        let issuer = Self { published: Arc::clone(&published) };
        issuer.publish(signers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&published)));
            }
        });
        issuer
    }

    /// Publishes these keys instead of those before.
    pub(crate) fn publish(&self, signers: &[&Signer]) {
        *self.published.keys.lock().expect("no panic") = signers.iter().map(|signer| signer.published()).collect();
    }

    /// Returns its identifier.
    pub(crate) fn id(&self) -> &str {
        &self.published.url
    }

    /// Returns how often its keys were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.published.asked.load(Ordering::SeqCst)
    }
}

async fn answer(mut stream: TcpStream, published: Arc<Published>) {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&part[..read]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let origin = published.url.trim_end_matches("/tenant");
    let (status, body) = match head.split(' ').nth(1).unwrap_or_default() {
        "/.well-known/openid-configuration/tenant" => ("200 OK", json!({"issuer": published.url, "jwks_uri": format!("{origin}/keys")})),
        "/keys" => {
            published.asked.fetch_add(1, Ordering::SeqCst);
            ("200 OK", json!({"keys": *published.keys.lock().expect("no panic")}))
        }
        _ => ("404 Not Found", json!({})),
    };
    let body = body.to_string();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // Whoever hung up does not want it.
    let _ = stream.write_all(answer.as_bytes()).await;
}
