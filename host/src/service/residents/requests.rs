//! Requests that resident agents ask for: which may be made, and what they may cost. Pure.
//!
//! A request is made at least once: after a restart, or when its answer could not be stored, it is made again, the same to the
//! byte. It carries an `Idempotency-Key` by which whoever is asked can tell.
//!
//! **Invariant:** nothing is asked of a host that the operator did not grant, loopback included.

use pointsman_core::ids::{AgentId, ProjectId};

use crate::ports::fetch::{FetchLimits, FetchRequest, FetchUrl};
use crate::service::failure::Failure;

/// What one request may cost.
pub(super) const LIMITS: FetchLimits = FetchLimits { body_bytes_max: 1 << 20, limit_ms: 10_000 };
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Header fields of a request, and the bytes of all.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Methods that may be asked for.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Header fields that are the host's to set.
const RESERVED: [&str; 8] =
    ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "proxy-authorization"];

/// The header field by which a repeated request is known (draft-ietf-httpapi-idempotency-key-header, section 2.1).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Adds to a request what makes it known again: the same for one request, another for each that an agent asks for later, under
/// the same id or not. One that the agent gave itself stays.
pub(super) fn mark(request: &mut FetchRequest, project: ProjectId, agent: AgentId, id: &str, asked_by: &str) {
    if request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(IDEMPOTENCY_KEY)) {
        return;
    }
    let mut hasher = blake3::Hasher::new_derive_key("pointsman resident request 2026");
    for part in [project.to_string().as_str(), agent.to_string().as_str(), id, asked_by] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let digest = data_encoding::HEXLOWER.encode(&hasher.finalize().as_bytes()[..16]);
    // A string of RFC 8941, as the draft asks for.
    request.headers.push((IDEMPOTENCY_KEY.to_owned(), format!("\"{digest}\"")));
}

/// Returns a request that may be made.
///
/// # Errors
/// `bad_argument`, `not_granted`.
pub(super) fn granted_request(
    granted: &[String],
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Result<FetchRequest, Failure> {
    let bad = |why: String| Failure::refused("bad_argument", why, "Correct the request.");
    if !METHODS.contains(&method) {
        return Err(bad(format!("`{}` is none of {}", method.escape_default(), METHODS.join(", "))));
    }
    let url = FetchUrl::parse(url).map_err(|error| bad(error.to_string()))?;
    let is_granted = |host: &String| host.eq_ignore_ascii_case(&url.host) || host.eq_ignore_ascii_case(&url.authority());
    if !granted.iter().any(is_granted) {
        let why = format!("`{}` is not granted", url.authority());
        return Err(Failure::refused("not_granted", why, "The operator grants hosts in `fetch_hosts` of the `[[agent]]`."));
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(bad(format!("the body has {} bytes, at most {BODY_BYTES_MAX} are sent", body.len())));
    }
    let header_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || header_bytes > HEADER_BYTES_MAX {
        return Err(bad(format!("{} header fields of {header_bytes} bytes; at most {HEADERS_MAX} of {HEADER_BYTES_MAX}", headers.len())));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    for (name, value) in headers {
        if name.is_empty() || !name.bytes().all(token) || !value.bytes().all(visible) {
            return Err(bad(format!("`{}` is no header field", name.escape_default())));
        }
        if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(bad(format!("the header field `{name}` is the host's to set")));
        }
    }
    Ok(FetchRequest { method: method.to_owned(), url, headers: headers.to_vec(), body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(granted: &[&str], method: &str, url: &str, header: (&str, &str)) -> Result<String, String> {
        let granted: Vec<String> = granted.iter().map(|&host| host.to_owned()).collect();
        let headers = [(header.0.to_owned(), header.1.to_owned())];
        match granted_request(&granted, method, url, &headers, b"x") {
            Ok(request) => Ok(request.url.authority()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn only_granted_hosts_are_asked() {
        let accept = ("Accept", "text/plain");
        assert_eq!(code(&["example.com"], "GET", "http://Example.com:81/", accept), Ok("example.com:81".to_owned()));
        assert_eq!(code(&["example.com:81"], "GET", "http://example.com:81/", accept), Ok("example.com:81".to_owned()));
        for (granted, url) in [
            (["example.com:81"], "http://example.com/"),
            (["example.com"], "http://sub.example.com/"),
            (["example.com"], "http://127.0.0.1/"),
            (["localhost"], "http://[::1]/"),
        ] {
            let refused = code(&granted, "GET", url, accept).expect_err(url);
            assert!(refused.starts_with("not_granted: "), "{refused}");
        }
        assert!(code(&["example.com"], "GET", "https://example.com/", accept).is_ok());
    }

    #[test]
    fn a_request_is_known_again_and_no_other_is_taken_for_it() {
        let (project, agent) = (ProjectId::from_bytes([1; 16]), AgentId::from_bytes([2; 16]));
        let plain = granted_request(&["a".to_owned()], "GET", "http://a/", &[], b"").expect("it may be made");
        let marked = |id: &str, asked_by: &str| {
            let mut request = plain.clone();
            mark(&mut request, project, agent, id, asked_by);
            request.headers.pop().expect("it is marked")
        };
        let (name, key) = marked("q", "log:1.2");
        assert_eq!((name.as_str(), key.len()), ("idempotency-key", 34));
        assert_eq!(marked("q", "log:1.2").1, key);
        for (id, asked_by) in [("q", "log:1.3"), ("r", "log:1.2"), ("ql", "og:1.2")] {
            assert_ne!(marked(id, asked_by).1, key, "{id} {asked_by}");
        }
        let mut own = FetchRequest { headers: vec![("Idempotency-Key".to_owned(), "mine".to_owned())], ..plain.clone() };
        mark(&mut own, project, agent, "q", "log:1.2");
        assert_eq!(own.headers, [("Idempotency-Key".to_owned(), "mine".to_owned())]);
    }

    #[test]
    fn nothing_is_smuggled() {
        let url = "http://a/";
        for (method, name, value) in
            [("CONNECT", "accept", "x"), ("GET", "Host", "b"), ("GET", "a b", "x"), ("GET", "a", "x\r\nb: c"), ("get", "a", "b")]
        {
            assert!(code(&["a"], method, url, (name, value)).expect_err(name).starts_with("bad_argument"), "{method} {name}");
        }
    }
}
