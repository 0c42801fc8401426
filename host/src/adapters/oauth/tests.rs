//! An issuer that says what it is told to, when it is told to.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

struct Plain;

impl System for Plain {
    fn random(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own clock")]
    fn instant(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

fn today() -> TimeMs {
    TimeMs(1_790_000_000_000)
}

fn base64(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed"))
    }

    fn published(&self, id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64(self.0.public_key().as_ref())})
    }

    fn token(&self, id: &str) -> String {
        let head = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": id}).to_string();
        let claims = json!({"iss": "https://as", "sub": "ana", "aud": "here", "exp": today().0 / 1_000 + 600}).to_string();
        let message = format!("{}.{}", base64(head.as_bytes()), base64(claims.as_bytes()));
        format!("{message}.{}", base64(self.0.sign(message.as_bytes()).as_ref()))
    }
}

/// Publishes a document; answers nobody while there is none.
struct Publisher {
    url: String,
    document: watch::Sender<Option<Value>>,
    asked: watch::Sender<usize>,
}

impl Publisher {
    async fn start(document: Option<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let publisher = Self { url, document: watch::Sender::new(document), asked: watch::Sender::new(0) };
        let (document, asked) = (publisher.document.clone(), publisher.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut document = document.subscribe();
                let asked = asked.clone();
                tokio::spawn(async move {
                    // The request is small and comes at once.
                    let read = stream.read(&mut [0; 4096]).await;
                    asked.send_modify(|asked| *asked += 1);
                    let Ok(there) = document.wait_for(Option::is_some).await.map(|there| there.clone()) else { return };
                    let body = there.unwrap_or_default().to_string();
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    drop((read, stream.write_all(answer.as_bytes()).await));
                });
            }
        });
        publisher
    }

    fn issuer(&self, refresh_min_ms: u64) -> Arc<OAuthIssuer> {
        let options = OAuthOptions { issuer: "https://as".to_owned(), jwks_uri: Some(self.url.clone()), leeway_s: 0, refresh_min_ms };
        Arc::new(OAuthIssuer::new(options, Arc::new(Plain), today).expect("TLS is there"))
    }

    async fn until_asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        let reached = tokio::time::timeout(DEADLINE, asked.wait_for(|asked| *asked >= times)).await;
        reached.expect("it is asked in time").expect("the sender lives");
    }
}

async fn check(issuer: &OAuthIssuer, token: &str) -> Result<String, GrantError> {
    issuer.check(token, &["here".to_owned()]).await.map(|grant| grant.subject)
}

#[test]
fn metadata_is_looked_for_where_the_standards_put_it() {
    assert_eq!(
        metadata_urls("https://as.example.org"),
        ["https://as.example.org/.well-known/oauth-authorization-server", "https://as.example.org/.well-known/openid-configuration"]
    );
    assert_eq!(metadata_urls("https://as.example.org/"), metadata_urls("https://as.example.org"));
    assert_eq!(
        metadata_urls("https://as.example.org/t/1"),
        [
            "https://as.example.org/.well-known/oauth-authorization-server/t/1",
            "https://as.example.org/.well-known/openid-configuration/t/1",
            "https://as.example.org/t/1/.well-known/openid-configuration"
        ]
    );
}

#[tokio::test]
async fn who_hangs_up_does_not_make_the_host_ask_again() {
    let signer = Signer::new(1);
    let publisher = Publisher::start(None).await;
    let issuer = publisher.issuer(3_600_000);
    let (asking, token) = (Arc::clone(&issuer), signer.token("strange"));
    let first = tokio::spawn(async move { check(&asking, &token).await });
    publisher.until_asked(1).await;
    first.abort();
    assert!(first.await.is_err(), "its client is gone");
    publisher.document.send_replace(Some(json!({"keys": [signer.published("k")]})));
    assert!(matches!(check(&issuer, &signer.token("strange")).await, Err(GrantError::Invalid { .. })));
    assert_eq!(check(&issuer, &signer.token("k")).await, Ok("ana".to_owned()), "what was fetched for nobody is kept");
    assert_eq!(*publisher.asked.borrow(), 1);
}

#[tokio::test]
async fn keys_that_are_withdrawn_are_good_no_longer() {
    let signer = Signer::new(1);
    let publisher = Publisher::start(Some(json!({"keys": [signer.published("k")]}))).await;
    let issuer = publisher.issuer(0);
    let token = signer.token("k");
    assert_eq!(check(&issuer, &token).await, Ok("ana".to_owned()));
    publisher.document.send_replace(Some(json!({"keys": "broken"})));
    assert!(matches!(check(&issuer, &signer.token("new")).await, Err(GrantError::Unavailable { .. })));
    assert_eq!(check(&issuer, &token).await, Ok("ana".to_owned()), "a document that is no key set withdraws nothing");
    publisher.document.send_replace(Some(json!({"keys": []})));
    assert!(matches!(check(&issuer, &signer.token("new")).await, Err(GrantError::Unavailable { .. })), "nothing can be checked");
    assert!(check(&issuer, &token).await.is_err(), "not even what was checked a moment ago");
}

#[tokio::test]
async fn keys_come_from_this_machine_for_an_issuer_elsewhere() {
    let signer = Signer::new(1);
    let publisher = Publisher::start(Some(json!({"keys": [signer.published("k")]}))).await;
    assert_eq!(check(&publisher.issuer(0), &signer.token("k")).await, Ok("ana".to_owned()), "the issuer itself is an https:// URL");
}
