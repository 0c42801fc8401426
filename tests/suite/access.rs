//! Who is let in, who is told why not, and what each may cost: the real binary, before real keys, certificates and clocks.

#[path = "access/issuer.rs"]
mod issuer;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use issuer::{Issuer, Signer};
use pointsman_client::{Client, RawAnswer};
use pointsman_tests::{Agent, CallError, DEADLINE_S, Era, Host, Setup, free_port, pointsman};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERSION: &str = "2026-07-28";

/// Returns the seconds since 1970, from the only clock a token knows.
#[expect(clippy::disallowed_methods, reason = "tokens are judged by the wall clock, so their times are made from it")]
fn now_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the end of time")
}

/// Posts a request to a path of the host, with or without an `Authorization` header.
async fn post(host: &Host, path: &str, authorization: Option<&str>, method: &str, params: Value) -> RawAnswer {
    let mut params = params;
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}});
    let name = params["name"].as_str().unwrap_or_default().to_owned();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    post_body(host, path, authorization, &[("mcp-method", method), ("mcp-name", &name)], body).await
}

async fn post_body(host: &Host, path: &str, authorization: Option<&str>, more: &[(&str, &str)], body: String) -> RawAnswer {
    let client = Client::new(&format!("{}{path}", host.url()), "", Era::Modern).expect("a client");
    let mut headers =
        vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream"), ("mcp-protocol-version", VERSION)];
    headers.extend(more.iter().filter(|(_, value)| !value.is_empty()));
    headers.extend(authorization.map(|value| ("authorization", value)));
    client.raw(body, &headers).await.expect("an answer")
}

/// Asks for the tools.
async fn list(host: &Host, path: &str, token: &str) -> RawAnswer {
    post(host, path, Some(&format!("Bearer {token}")), "tools/list", json!({})).await
}

async fn get(host: &Host, path: &str) -> RawAnswer {
    let client = Client::new(&host.url(), "", Era::Modern).expect("a client");
    client.request("GET", path, &[], Vec::new().into()).await.expect("an answer")
}

fn tools(answer: &RawAnswer) -> Vec<String> {
    let listed = answer.json()["result"]["tools"].as_array().cloned().unwrap_or_default();
    listed.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect()
}

fn challenge(answer: &RawAnswer) -> String {
    answer.header("www-authenticate").unwrap_or_default().to_owned()
}

/// A host that takes tokens of an authorization server.
struct Trusting {
    host: Host,
    issuer: Issuer,
    signer: Arc<Signer>,
}

const SCOPES: &str = "required_scopes = [\"mcp\"]\nkeys_interval_s = 0\nleeway_s = 0\n\
    [[auth.grant]]\nscope = \"work\"\nprojects = [\"demo\"]\n[[auth.grant]]\nscope = \"all\"\ntoolsets = [\"files\"]\n\
    [[project]]\nslug = \"other\"\n";

impl Trusting {
    async fn start(signer: Arc<Signer>, more: &str) -> Self {
        let issuer = Issuer::start(&[&signer]).await;
        let config = format!("[auth]\nissuer = \"{}\"\n{more}", issuer.id());
        let host = Host::start_with(Setup { config }).await;
        Self { host, issuer, signer }
    }

    /// Returns the claims of a token for plain `/mcp`, good for ten minutes.
    fn claims(&self, subject: &str, scope: &str) -> Value {
        json!({
            "iss": self.issuer.id(), "sub": subject, "aud": format!("{}/mcp", self.host.url()), "scope": scope, "client_id": "tests",
            "iat": now_s(), "exp": now_s() + 600,
        })
    }

    fn token(&self, subject: &str, scope: &str) -> String {
        self.signer.token(&self.claims(subject, scope))
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_issuer_audience_and_time_only() {
    let trusting = Trusting::start(Signer::es256("k1"), SCOPES).await;
    let host = &trusting.host;
    let with = |name: &str, value: Value| {
        let mut claims = trusting.claims("ana", "mcp work");
        claims[name] = value;
        trusting.signer.token(&claims)
    };
    let url = host.url();
    assert_eq!(list(host, "/mcp", &trusting.token("ana", "mcp work")).await.status, 200);
    assert_eq!(list(host, "/mcp/demo", &with("aud", json!(["https://elsewhere", format!("{url}/mcp/demo")]))).await.status, 200);
    assert_eq!(list(host, "/mcp", &with("nbf", json!(now_s() - 5))).await.status, 200);
    assert_eq!(list(host, "/mcp", &with("scp", json!(["mcp", "work"]))).await.status, 200);

    let elsewhere = Signer::es256("k1");
    let forged = elsewhere.token(&trusting.claims("ana", "mcp work"));
    let unknown = Signer::eddsa("k9").token(&trusting.claims("ana", "mcp work"));
    let secret = trusting.signer.token_with(&json!({"alg": "HS256", "kid": "k1"}), &trusting.claims("ana", "mcp work"));
    let none = trusting.signer.token_with(&json!({"alg": "none", "kid": "k1"}), &trusting.claims("ana", "mcp work"));
    let for_a_client = json!({"alg": "ES256", "kid": "k1", "typ": "JWT"});
    let identity = trusting.signer.token_with(&for_a_client, &{
        let mut claims = trusting.claims("ana", "mcp work");
        claims["nonce"] = json!("n");
        claims
    });
    let critical = trusting.signer.token_with(&json!({"alg": "ES256", "kid": "k1", "crit": ["x"]}), &trusting.claims("ana", "mcp work"));
    let id_token = trusting.signer.token_with(&json!({"alg": "ES256", "kid": "k1", "typ": "dpop+jwt"}), &trusting.claims("ana", "mcp"));
    let good = trusting.token("ana", "mcp work");
    let unsigned = format!("{}.", good.rsplit_once('.').expect("three parts").0);
    for (path, token, why) in [
        ("/mcp", with("aud", json!("https://elsewhere/mcp")), "not meant for this endpoint"),
        ("/mcp", with("aud", json!(format!("{url}/mcp/demo"))), "not meant for this endpoint"),
        ("/mcp/other", with("aud", json!(format!("{url}/mcp/demo"))), "not meant for this endpoint"),
        ("/mcp", with("aud", Value::Null), "no `aud`"),
        ("/mcp", with("iss", json!("https://elsewhere")), "another authorization server"),
        ("/mcp", with("iss", Value::Null), "no `iss`"),
        ("/mcp", with("exp", json!(now_s() - 2)), "expired"),
        ("/mcp", with("exp", Value::Null), "no `exp`"),
        ("/mcp", with("nbf", json!(now_s() + 300)), "not valid yet"),
        ("/mcp", with("iss", json!([trusting.issuer.id()])), "cannot be read"),
        ("/mcp", with("sub", Value::Null), "no `sub`"),
        ("/mcp", with("sub", json!("")), "no `sub`"),
        ("/mcp", forged, "signature is wrong"),
        ("/mcp", unknown, "no key of the authorization server"),
        ("/mcp", secret, "not signed by RS256"),
        ("/mcp", none, "not signed by RS256"),
        ("/mcp", critical, "extensions that are not known"),
        ("/mcp", id_token, "another use than access"),
        ("/mcp", identity, "ID token"),
        ("/mcp", unsigned, "neither a token of this host"),
        ("/mcp", format!("x{good}"), "header cannot be read"),
    ] {
        let answer = list(host, path, &token).await;
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, 401, "{why}: {message}");
        assert!(message.contains(why), "{why}: {message}");
        let challenge = challenge(&answer);
        assert!(challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""), "{challenge}");
        let metadata = format!("resource_metadata=\"{url}/.well-known/oauth-protected-resource{path}\"");
        let scopes = if path == "/mcp/other" { "scope=\"mcp all\"" } else { "scope=\"mcp work\"" };
        assert!(challenge.contains(&metadata) && challenge.contains(scopes), "as many as a 403 would name: {challenge}");
        assert!(!message.contains(&token) && !host.log().contains(&token), "a token is never shown");
    }
}

#[tokio::test]
async fn keys_rotate_and_strange_keys_do_not_make_the_host_ask_for_ever() {
    let (first, second, third) = (Signer::rs256("2026-10"), Signer::es256("2026-11"), Signer::eddsa("2026-12"));
    let trusting = Trusting::start(Arc::clone(&first), "").await;
    let claims = trusting.claims("ana", "");
    assert_eq!(list(&trusting.host, "/mcp", &first.token(&claims)).await.status, 200);
    let asked = trusting.issuer.asked();
    // The interval between two fetches is ten seconds here: the first unknown key may cause one, the rest none.
    for n in 0..20 {
        assert_eq!(list(&trusting.host, "/mcp", &Signer::es256(&format!("strange-{n}")).token(&claims)).await.status, 401);
    }
    assert!(trusting.issuer.asked() <= asked + 1, "{} fetches", trusting.issuer.asked() - asked);

    let eager = Trusting::start(Arc::clone(&first), "keys_interval_s = 0\n").await;
    let claims = eager.claims("ana", "");
    assert_eq!(list(&eager.host, "/mcp", &first.token(&claims)).await.status, 200);
    eager.issuer.publish(&[&second, &third]);
    assert_eq!(list(&eager.host, "/mcp", &second.token(&claims)).await.status, 200, "a new key is found at once");
    assert_eq!(list(&eager.host, "/mcp", &third.token(&claims)).await.status, 200);
    let mut later = claims.clone();
    later["jti"] = json!("another");
    assert_eq!(list(&eager.host, "/mcp", &first.token(&later)).await.status, 401, "one that was withdrawn is good no longer");
}

#[tokio::test]
async fn scopes_open_projects_and_toolsets_and_all_that_are_missing_are_named_at_once() {
    let trusting = Trusting::start(Signer::eddsa("k1"), SCOPES).await;
    let host = &trusting.host;
    for (path, scope, missing) in [
        ("/mcp", "", "mcp work"),
        ("/mcp", "work", "mcp work"),
        ("/mcp", "mcp", "mcp work"),
        ("/mcp/other", "mcp work", "mcp all"),
        ("/mcp/other", "", "mcp all"),
        ("/mcp/nothing-here", "mcp work", "mcp all"),
        ("/mcp/nothing-here", "", "mcp all"),
    ] {
        let answer = list(host, path, &trusting.token("ana", scope)).await;
        let challenge = challenge(&answer);
        assert_eq!(answer.status, 403, "{path} `{scope}`: {challenge}");
        assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
        assert!(challenge.contains(&format!("scope=\"{missing}\"")), "{path} `{scope}`: {challenge}");
        assert!(challenge.contains(&format!("/.well-known/oauth-protected-resource{path}\"")), "{challenge}");
        assert_eq!(answer.json()["error"]["data"]["code"], "insufficient_scope");
    }
    let narrow = list(host, "/mcp", &trusting.token("ana", "mcp work")).await;
    let wide = list(host, "/mcp/other", &trusting.token("ana", "all mcp")).await;
    assert_eq!((narrow.status, wide.status), (200, 200));
    let has_files = |answer: &RawAnswer| tools(answer).contains(&"commit_files".to_owned());
    assert!(!has_files(&narrow) && has_files(&wide));
    let hidden = list(host, "/mcp/nothing-here", &trusting.token("ana", "mcp all")).await;
    assert_eq!((hidden.status, hidden.json()["error"]["data"]["code"].clone()), (403, json!("forbidden")));
    assert_eq!(list(host, "/mcp", &host.token("ben")).await.status, 200, "the host's own tokens are good as before");
}

#[tokio::test]
async fn clients_find_the_authorization_server_and_only_when_there_is_one() {
    let trusting = Trusting::start(Signer::es256("k1"), SCOPES).await;
    let host = &trusting.host;
    let url = host.url();
    for (path, resource) in [("", "/mcp"), ("/mcp", "/mcp"), ("/mcp/demo", "/mcp/demo")] {
        let answer = get(host, &format!("/.well-known/oauth-protected-resource{path}")).await;
        let document = answer.json();
        assert_eq!((answer.status, &document["resource"]), (200, &json!(format!("{url}{resource}"))));
        assert_eq!(document["authorization_servers"], json!([trusting.issuer.id()]));
        assert_eq!(document["scopes_supported"], json!(["mcp", "work", "all"]));
        assert_eq!(document["bearer_methods_supported"], json!(["header"]));
    }
    assert_eq!(get(host, "/.well-known/oauth-protected-resource/git").await.status, 404);
    let bare = post(host, "/mcp", None, "tools/list", json!({})).await;
    assert_eq!(bare.status, 401);
    assert!(!challenge(&bare).contains("error="), "no error where nothing was tried (RFC 6750): {}", challenge(&bare));
    assert!(challenge(&bare).contains("resource_metadata="));

    let token = trusting.token("ana", "mcp work");
    for query in [format!("?access_token={token}"), format!("?a=b&token={token}"), "?x=pmt_abc".to_owned()] {
        for header in [None, Some(format!("Bearer {token}"))] {
            let answer = post(host, &format!("/mcp{query}"), header.as_deref(), "tools/list", json!({})).await;
            assert_eq!((answer.status, answer.json()["code"].clone()), (400, json!("token_in_query")));
            assert!(challenge(&answer).contains("invalid_request"));
        }
    }
    assert!(!host.log().contains(&token));

    let plain = Host::start().await;
    for path in ["", "/mcp", "/mcp/demo"] {
        assert_eq!(get(&plain, &format!("/.well-known/oauth-protected-resource{path}")).await.status, 404);
    }
    let bare = post(&plain, "/mcp", None, "tools/list", json!({})).await;
    assert_eq!((bare.status, challenge(&bare)), (401, "Bearer realm=\"pointsman\"".to_owned()));
    let foreign = list(&plain, "/mcp", &token).await;
    assert!(!challenge(&foreign).contains("resource_metadata"));
    assert!(foreign.json()["error"]["message"].as_str().unwrap_or_default().contains("this host has none configured"));
}

/// Opens a legacy session; returns its id.
async fn session(host: &Host, token: &str) -> String {
    session_of(host, token, "2025-11-25").await
}

async fn session_of(host: &Host, token: &str, revision: &str) -> String {
    let params = json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string();
    let client = Client::new(&format!("{}/mcp", host.url()), "", Era::Legacy).expect("a client");
    let authorization = format!("Bearer {token}");
    let headers =
        [("content-type", "application/json"), ("accept", "application/json, text/event-stream"), ("authorization", &*authorization)];
    let answer = client.raw(body, &headers).await.expect("an answer");
    answer.header("mcp-session-id").expect("a session").to_owned()
}

async fn ping(host: &Host, token: &str, session: &str) -> u16 {
    post_session(host, token, session, "2025-11-25", r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#.to_owned()).await.status
}

async fn post_session(host: &Host, token: &str, session: &str, revision: &str, body: String) -> RawAnswer {
    let client = Client::new(&format!("{}/mcp", host.url()), "", Era::Legacy).expect("a client");
    let authorization = format!("Bearer {token}");
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", &*authorization),
        ("mcp-session-id", session),
        ("mcp-protocol-version", revision),
    ];
    client.raw(body, &headers).await.expect("an answer")
}

#[tokio::test]
async fn anothers_session_and_anothers_handle_are_refused() {
    let trusting = Trusting::start(Signer::es256("k1"), "").await;
    let host = &trusting.host;
    let own = host.token("ana");
    let tokens = [("ana", own), ("sub-ana", trusting.token("ana", "")), ("sub-ben", trusting.token("ben", ""))];
    let mut sessions = Vec::new();
    let mut agents = Vec::new();
    for (name, token) in &tokens {
        sessions.push(session(host, token).await);
        let client = Client::new(&format!("{}/mcp", host.url()), token, Era::Modern).expect("a client");
        let agent = Agent { name: (*name).to_owned(), token: token.clone(), client };
        let started = agent.call("start", json!({"name": name})).await;
        agents.push((agent, started["handle"].as_str().expect("a handle").to_owned()));
    }
    for (i, (_, token)) in tokens.iter().enumerate() {
        for (j, session) in sessions.iter().enumerate() {
            assert_eq!(ping(host, token, session).await, if i == j { 200 } else { 404 }, "session {j} with token {i}");
        }
        for (j, (_, handle)) in agents.iter().enumerate() {
            let ask = json!({"uri": "events", "agent": handle});
            if i == j {
                agents[i].0.call("lookup", ask).await;
            } else {
                let code = agents[i].0.refused("lookup", ask).await;
                assert_eq!(code, "not_yours", "handle {j} with token {i}");
            }
        }
    }
    // A client that refreshed its token is the same caller.
    let mut renewed = trusting.claims("ana", "");
    renewed["exp"] = json!(now_s() + 1_200);
    assert_eq!(ping(host, &trusting.signer.token(&renewed), &sessions[1]).await, 200);
    let taken = agents[2].0.refused("start", json!({"name": "ana"})).await;
    assert_eq!(taken, "name_taken");
}

#[tokio::test]
async fn own_tokens_end_by_time_and_by_hand_and_open_their_projects_only() {
    let host = Host::start_with(Setup { config: "[[project]]\nslug = \"other\"\n".to_owned() }).await;
    let secret = |args: &[&str]| {
        let out = host.command(&[&["agent", "add", "--json"], args].concat());
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        answer["secret"].as_str().map(str::to_owned).expect("a secret")
    };
    let scoped = secret(&["ana", "--project", "other"]);
    assert_eq!(list(&host, "/mcp", &scoped).await.status, 200);
    assert_eq!(list(&host, "/mcp/other", &scoped).await.status, 200);
    for closed in ["/mcp/demo", "/mcp/nothing-here"] {
        let answer = list(&host, closed, &scoped).await;
        assert_eq!((answer.status, answer.json()["error"]["data"]["code"].clone()), (403, json!("forbidden")), "{closed}");
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert!(!tools(&list(&host, "/mcp", &scoped).await).contains(&"commit_files".to_owned()), "a toolset that was not granted");

    let short = secret(&["ben", "--expires", "2s"]);
    host.eventually("the end of the token", || async { list(&host, "/mcp", &short).await.status == 401 }).await;
    let expired = list(&host, "/mcp", &short).await;
    assert!(challenge(&expired).contains("error=\"invalid_token\", error_description=\"it has expired\""), "{}", challenge(&expired));

    assert!(host.command(&["agent", "revoke", "ana"]).status.success());
    let revoked = list(&host, "/mcp", &scoped).await;
    assert_eq!(revoked.status, 401, "at once");
    assert!(challenge(&revoked).contains("it was revoked"), "{}", challenge(&revoked));

    let mut kept = Vec::new();
    let mut folders = vec![host.folder().join("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { kept.extend(std::fs::read(entry.path()).unwrap_or_default()) }
        }
    }
    let digits = scoped.trim_start_matches("pmt_").as_bytes();
    assert!(!kept.windows(digits.len()).any(|window| window == digits), "the secret is stored nowhere");
    assert!(!host.log().contains(&scoped));
}

#[tokio::test]
async fn mistakes_of_client_configurations_are_named() {
    let host = Host::start().await;
    for (authorization, hint) in [
        (None, "no bearer token"),
        (Some("Bearer ${POINTSMAN_TOKEN}"), "environment variable"),
        (Some("Bearer $POINTSMAN_TOKEN"), "environment variable"),
        (Some("Bearer "), "unset or empty"),
        (Some("pmt_abc"), "`Bearer ` is missing"),
        (Some("Bearer \"pmt_abc\""), "quotes"),
        (Some("Bearer sk-abc"), "start with `pmt_`"),
        (Some("Bearer pmt_abc"), "knows no such token"),
    ] {
        let answer = post(&host, "/mcp", authorization, "tools/list", json!({})).await;
        let error = answer.json()["error"].clone();
        assert_eq!(answer.status, 401, "{authorization:?}");
        assert!(error["message"].as_str().unwrap_or_default().contains(hint), "{authorization:?}: {error}");
        assert!(challenge(&answer).starts_with("Bearer realm=\"pointsman\""), "{authorization:?}");
    }
    let bare = post(&host, "/mcp", None, "tools/list", json!({})).await.json();
    let advice = bare["error"]["data"]["do"].as_str().unwrap_or_default().to_owned();
    assert!(advice.contains("`headers`") && advice.contains("${VAR}") && advice.contains("pointsman connect"), "{advice}");
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_back() {
    let host = Host::start_with(Setup { config: "[limits]\nrequests_per_s = 1\nburst = 4\n".to_owned() }).await;
    let (ana, ben) = (host.token("ana"), host.token("ben"));
    let mut refused = None;
    for _ in 0..20 {
        let answer = list(&host, "/mcp", &ana).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("more than four at once are too many");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let error = refused.json()["error"].clone();
    assert_eq!(error["data"]["code"], "too_many_requests");
    assert!(error["code"].is_i64() && error["data"]["do"].is_string(), "{error}");
    assert_eq!(list(&host, "/mcp", &ben).await.status, 200, "another's calls are its own");
    host.eventually("a call's turn", || async { list(&host, "/mcp", &ana).await.status == 200 }).await;
}

#[tokio::test]
async fn each_call_of_a_batch_counts() {
    let host = Host::start_with(Setup { config: "[limits]\nrequests_per_s = 1\nburst = 6\n".to_owned() }).await;
    let token = host.token("ana");
    let session = session_of(&host, &token, "2025-03-26").await;
    let calls: Vec<Value> = (1..=20).map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).collect();
    let answer = post_session(&host, &token, &session, "2025-03-26", json!(calls).to_string()).await;
    assert_eq!(answer.status, 200);
    let answers = answer.json().as_array().cloned().expect("a batch");
    assert_eq!(answers.iter().map(|one| one["id"].as_u64()).collect::<Vec<_>>(), (1..=20).map(Some).collect::<Vec<_>>());
    assert!(answers[0]["result"].is_object(), "{}", answers[0]);
    assert_eq!(answers[19]["error"]["data"]["code"], "too_many_requests");
}

#[tokio::test]
async fn an_address_that_guesses_waits_and_its_good_neighbours_do_not() {
    let host = Host::start_with(Setup { config: "[limits]\nfailures_per_min = 1\nfailures_burst = 5\n".to_owned() }).await;
    let (known, late) = (host.token("ana"), host.token("ben"));
    assert_eq!(list(&host, "/mcp", &known).await.status, 200);
    for n in 0..5 {
        assert_eq!(list(&host, "/mcp", &format!("pmt_guess{n}")).await.status, 401);
    }
    let held_up = list(&host, "/mcp", "pmt_guess").await;
    assert_eq!((held_up.status, held_up.json()["code"].clone()), (429, json!("too_many_failures")));
    let wait_s: u64 = held_up.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&wait_s), "{wait_s}");
    assert_eq!(list(&host, "/mcp", &late).await.status, 429, "a credential nobody saw yet might be a guess");
    assert_eq!(list(&host, "/mcp", &known).await.status, 200, "one that was accepted is not");
    assert_eq!(post(&host, "/mcp", None, "tools/list", json!({})).await.status, 401, "who shows none does not guess");
    assert_eq!(list(&host, "/mcp", "eyJh.eyJp.c2ln").await.status, 401, "a signature cannot be guessed");
    assert_eq!(get(&host, "/git/demo.git/info/refs?service=git-upload-pack").await.status, 401, "git asks once without");
    assert_eq!(get(&host, "/readyz").await.status, 200);
}

#[tokio::test]
async fn a_token_that_opens_nothing_is_counted_as_any_other() {
    let trusting = Trusting::start(Signer::es256("k1"), &format!("{SCOPES}[limits]\nrequests_per_s = 1\nburst = 2\n")).await;
    let token = trusting.token("ana", "");
    let mut answered = Vec::new();
    for _ in 0..20 {
        answered.push(list(&trusting.host, "/mcp", &token).await.status);
    }
    assert!(answered.starts_with(&[403]) && answered.contains(&429), "{answered:?}");
}

#[tokio::test]
async fn a_stream_ends_soon_after_its_token() {
    let host = Host::start().await;
    let token = host.token("ana");
    let client = Client::new(&format!("{}/mcp", host.url()), &token, Era::Modern).expect("a client");
    let params = json!({"notifications": {"toolsListChanged": true}, "_meta": {
        "io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}).to_string();
    let headers = [("mcp-protocol-version", VERSION), ("mcp-method", "subscriptions/listen")];
    let mut stream = client.open("POST", &headers, body.into()).await.expect("a stream");
    let first = stream.event().await.expect("it goes on").expect("an event");
    assert!(first.contains("acknowledged"), "{first}");
    assert!(host.command(&["agent", "revoke", "ana"]).status.success());
    let last = tokio::time::timeout(Duration::from_secs(2 * DEADLINE_S), stream.event()).await.expect("it ends though nothing happens");
    let last = last.expect("it ends well").expect("a response");
    assert!(last.contains("\"id\":1") && last.contains("unauthorized"), "{last}");
    assert_eq!(stream.event().await.expect("it ends well"), None);
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_read() {
    let mut host = Host::start().await;
    let file = host.folder().join("pointsman.toml");
    let config = std::fs::read_to_string(&file).expect("a configuration");
    let named = config.replace("[server]", "[server]\nallowed_origins = [\"https://tools.example.com\"]");
    std::fs::write(&file, named).expect("written");
    host.restart().await;
    let client = Client::new(&host.url(), "", Era::Modern).expect("a client");
    let asks = |origin: &'static str| {
        [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", "authorization")]
    };
    let preflight = client.request("OPTIONS", "/mcp", &asks("https://tools.example.com"), Vec::new().into()).await.expect("an answer");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("https://tools.example.com")));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization"));
    let foreign = client.request("OPTIONS", "/mcp", &asks("https://evil.example.com"), Vec::new().into()).await.expect("an answer");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
    let origin = [("mcp-method", "tools/list"), ("origin", "https://tools.example.com")];
    let refused = post_body(&host, "/mcp", None, &origin, "{}".to_owned()).await;
    assert_eq!((refused.status, refused.header("vary")), (401, Some("Origin")), "a refusal can be read too");
    assert!(refused.header("access-control-expose-headers").is_some_and(|names| names.contains("WWW-Authenticate")));
    let plain = post_body(&host, "/mcp", None, &[], "{}".to_owned()).await;
    assert_eq!((plain.status, plain.header("access-control-allow-origin"), plain.header("vary")), (401, None, None));
}

#[tokio::test]
async fn callers_without_a_token_are_let_in_only_when_asked_for_and_only_from_here() {
    let mut host = Host::start().await;
    let file = host.folder().join("pointsman.toml");
    let config = std::fs::read_to_string(&file).expect("a configuration");
    assert_eq!(post(&host, "/mcp", None, "tools/list", json!({})).await.status, 401);
    std::fs::write(&file, format!("{}\n[[project]]\nslug = \"other\"\n", config.replace("[server]", "[server]\nanonymous = true")))
        .expect("written");
    host.restart().await;
    let listed = post(&host, "/mcp", None, "tools/list", json!({})).await;
    assert_eq!(listed.status, 200);
    assert!(tools(&listed).contains(&"commit_files".to_owned()), "every toolset is open");
    assert_eq!(post(&host, "/mcp/other", None, "tools/list", json!({})).await.status, 200, "and every project");
    for era in [Era::Modern, Era::Legacy] {
        let client = Client::new(&format!("{}/mcp", host.url()), "", era).expect("a client");
        client.connect().await.expect("it connects");
        let name = format!("{era:?}").to_lowercase();
        client.call("start", json!({"name": name})).await.expect("it starts");
    }
    let wrong = list(&host, "/mcp", "pmt_wrong").await;
    assert_eq!(wrong.status, 401, "a token that is shown is checked");
    for (header, value) in [("host", "evil.example.com"), ("origin", "http://evil.example.com")] {
        let client = Client::new(&format!("{}/mcp", host.url()), "", Era::Modern).expect("a client");
        let foreign = client.raw("{}", &[("content-type", "application/json"), (header, value)]).await.expect("an answer");
        // Two `Host` lines are as foreign as a wrong one.
        assert!(matches!(foreign.status, 400 | 403), "{header}: {}", foreign.status);
    }
    let open = config.replace("127.0.0.1", "0.0.0.0").replace("[server]", "[server]\nanonymous = true");
    std::fs::write(&file, open).expect("written");
    let out = host.command(&["up"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("`server.anonymous` lets everybody in"), "{said}");
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_depth() {
    let host = Host::start_with(Setup { config: "[limits]\njson_depth_max = 10\n".to_owned() }).await;
    let authorization = format!("Bearer {}", host.token("ana"));
    let send = |body: String| post_body(&host, "/mcp", Some(&authorization), &[("mcp-method", "tools/list")], body);
    for deep in [format!("{{\"a\":{}{}}}", "[".repeat(10), "]".repeat(10)), "[".repeat(1 << 20), "{\"a\":".repeat(100_000)] {
        let answer = send(deep).await;
        assert_eq!((answer.status, answer.json()["error"]["data"]["code"].clone()), (400, json!("body_too_deep")));
    }
    let large = send(format!("\"{}\"", "x".repeat(9 << 20))).await;
    assert_eq!((large.status, large.json()["error"]["data"]["code"].clone()), (413, json!("body_too_large")));
    assert_eq!(list(&host, "/mcp", authorization.trim_start_matches("Bearer ")).await.status, 200);
}

/// Reads until the host ends the connection; returns what came.
async fn until_ended(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is an end too.
    let read = tokio::time::timeout(Duration::from_secs(DEADLINE_S), stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "the host did not end the connection");
    all
}

#[tokio::test]
async fn clients_that_do_not_send_or_do_not_read_are_given_up() {
    let mut host = Host::start().await;
    let file = host.folder().join("pointsman.toml");
    let config = std::fs::read_to_string(&file).expect("a configuration");
    let limits = "[server]\nheader_timeout_ms = 400\nbody_timeout_ms = 400\nwrite_timeout_ms = 400\nconnections_per_peer_max = 3";
    let token = host.token("ana");
    std::fs::write(&file, config.replace("[server]", limits)).expect("written");
    host.restart().await;
    let address = host.url().trim_start_matches("http://").to_owned();
    let connect = || async { TcpStream::connect(&address).await.expect("connects") };
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\naccept: application/json\r\nauthorization: Bearer {token}\r\n"
    );

    let mut silent = connect().await;
    assert!(until_ended(&mut silent).await.is_empty(), "nothing was said, nothing is answered");
    drop(silent);
    let mut half_a_head = connect().await;
    half_a_head.write_all(&head.as_bytes()[..20]).await.expect("sent");
    until_ended(&mut half_a_head).await;
    drop(half_a_head);
    let mut half_a_body = connect().await;
    half_a_body.write_all(format!("{head}content-length: 100\r\n\r\n{{").as_bytes()).await.expect("sent");
    let answer = String::from_utf8_lossy(&until_ended(&mut half_a_body).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timed_out"), "{answer}");
    drop(half_a_body);

    // Requests without end, and not one answer read: the buffers between fill up, and the host has to wait to write.
    let mut deaf = connect().await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}}});
    let body = body.to_string();
    let request =
        format!("{head}mcp-protocol-version: {VERSION}\r\nmcp-method: tools/list\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let sending =
        tokio::time::timeout(Duration::from_secs(DEADLINE_S), async { while deaf.write_all(request.as_bytes()).await.is_ok() {} });
    assert!(sending.await.is_ok(), "the host did not end the connection");
    drop(deaf);

    let mut held = Vec::new();
    let refused = loop {
        let mut next = connect().await;
        let mut first = [0; 12];
        next.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        next.read_exact(&mut first).await.expect("an answer");
        if first == *b"HTTP/1.1 429" {
            break String::from_utf8_lossy(&until_ended(&mut next).await).into_owned();
        }
        held.push(next);
        assert!(held.len() <= 3, "a fourth connection of one address is one too many");
    };
    assert!(refused.contains("your address has as many connections"), "{refused}");
}

/// Makes a certificate for this machine; returns it as clients trust it.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    // The key first: the host looks at both before it reads them again.
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
    CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("a certificate")
}

/// Asks `/readyz` over TLS, trusting one certificate.
async fn ready_over_tls(port: u16, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("protocols");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn until_served(port: u16, trusted: &CertificateDer<'static>) -> String {
    let served = async {
        loop {
            if let Ok(answer) = ready_over_tls(port, trusted).await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2 * DEADLINE_S), served).await.expect("served in time")
}

#[tokio::test]
async fn tls_is_spoken_and_a_new_certificate_is_taken_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = certify(folder.path());
    let port = free_port();
    let config = format!(
        "config_version = 1\n[server]\nbind = \"127.0.0.1:{port}\"\n[server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[data]\ndir = \"data\"\n[[project]]\nslug = \"demo\"\n"
    );
    let file = folder.path().join("pointsman.toml");
    std::fs::write(&file, &config).expect("written");
    let up = || {
        let mut command = tokio::process::Command::from(pointsman(&["up"]));
        command.arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    };
    let mut host = up().stderr(Stdio::null()).spawn().expect("the host starts");
    let answer = until_served(port, &first).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
    plain.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let told = String::from_utf8_lossy(&until_ended(&mut plain).await).into_owned();
    assert!(told.starts_with("HTTP/1.1 400") && told.contains("https://"), "{told}");

    let second = certify(folder.path());
    let hang_up = std::process::Command::new("kill").args(["-HUP", &host.id().expect("it runs").to_string()]).status();
    assert!(hang_up.expect("a signal is sent").success());
    until_served(port, &second).await;
    assert!(ready_over_tls(port, &first).await.is_err(), "the old one is served no longer");
    let third = certify(folder.path());
    until_served(port, &third).await;
    std::fs::write(folder.path().join("key.pem"), "broken").expect("written");
    assert!(ready_over_tls(port, &third).await.is_ok(), "a broken renewal changes nothing");
    host.kill().await.expect("it ends");

    let out = up().output().await.expect("it runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("`server.tls` cannot be used") && said.contains("key.pem"), "{said}");
}

#[tokio::test]
async fn a_host_whose_authorization_server_is_away_serves_its_own_tokens() {
    let config = format!("[auth]\nissuer = \"http://127.0.0.1:{}\"\n", free_port());
    let host = Host::start_with(Setup { config }).await;
    assert_eq!(list(&host, "/mcp", &host.token("ana")).await.status, 200);
    let token = Signer::es256("k1").token(&json!({"iss": "x", "sub": "ana", "aud": "x", "exp": now_s() + 60}));
    let answer = list(&host, "/mcp", &token).await;
    assert_eq!(answer.status, 503, "whether it is good cannot be found out");
    assert!(answer.header("retry-after").is_some());
    let client = Client::new(&format!("{}/mcp", host.url()), &token, Era::Modern).expect("a client");
    assert!(matches!(client.call("start", json!({})).await, Err(CallError::Refused { status: 503, .. })));
}
