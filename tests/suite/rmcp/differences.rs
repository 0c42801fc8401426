//! Where rmcp's server and our host answer differently, and why ours is right or may be so.
//!
//! An entry speaks of some words of the two answers; a difference is explained when each word that differs is.

use crate::answers::Form;
use crate::calls::Call;

/// A difference that is meant.
pub(crate) struct Difference {
    /// The revisions, by a part of their names.
    version: &'static str,
    /// The departures; none: any call.
    departures: &'static [&'static str],
    /// Our answer, a word each for status, kind, what it says, the id, who says it. `.` is not spoken of; a `*` stands for anything.
    ours: &'static str,
    /// Their answer.
    theirs: &'static str,
    /// Sections and sentences of the specification.
    because: &'static str,
}

impl Difference {
    /// Returns which of the words that differ this explains.
    fn explains(&self, call: &Call, ours: &[&str], theirs: &[&str]) -> Vec<usize> {
        let departs = self.departures.is_empty() || call.departures.iter().any(|departure| self.departures.contains(&departure.name));
        let spoken =
            |pattern: &str, words: &[&str]| pattern.split(' ').zip(words).all(|(wanted, word)| wanted == "." || fits(wanted, word));
        if !departs || !call.version.date().contains(self.version) || !spoken(self.ours, ours) || !spoken(self.theirs, theirs) {
            return Vec::new();
        }
        let words = self.ours.split(' ').enumerate().filter(|(n, wanted)| *wanted != "." && ours[*n] != theirs[*n]);
        words.map(|(n, _)| n).collect()
    }

    /// Returns what it is about.
    pub(crate) fn shown(&self) -> String {
        format!("{} {:?}: ours `{}`, theirs `{}`: {}", self.version, self.departures, self.ours, self.theirs, self.because)
    }
}

/// Returns whether a word is as wanted.
fn fits(wanted: &str, word: &str) -> bool {
    match wanted.split_once('*') {
        None => wanted == word,
        Some((head, tail)) => word.len() >= head.len() + tail.len() && word.starts_with(head) && word.ends_with(tail),
    }
}

/// Returns the entries that together explain a difference, none when a word is left that no entry speaks of.
pub(crate) fn explained(call: &Call, ours: &Form, theirs: &Form) -> Option<Vec<usize>> {
    let (ours, theirs) = (ours.to_string(), theirs.to_string());
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (ours.split(' ').collect(), theirs.split(' ').collect());
    let mut open: Vec<usize> = (0..ours.len()).filter(|n| ours[*n] != theirs[*n]).collect();
    let mut entries = Vec::new();
    for (n, entry) in DIFFERENCES.iter().enumerate() {
        let words = entry.explains(call, &ours, &theirs);
        if open.iter().any(|word| words.contains(word)) {
            open.retain(|word| !words.contains(word));
            entries.push(n);
        }
    }
    open.is_empty().then_some(entries)
}

/// All of them; the first that speaks of a word explains it.
pub(crate) static DIFFERENCES: &[Difference] = &[
    Difference {
        version: "2025-03-26",
        departures: &["a batch"],
        ours: "20* * * * .",
        theirs: "415 * * * .",
        because: "2025-03-26, base protocol, batching: implementations \"MUST support receiving JSON-RPC batches\"; rmcp does not",
    },
    Difference {
        version: "20",
        departures: &["no Accept", "Accept: */*", "Accept: application/*, text/*", "Accept of JSON only", "Accept of JSON with weight 0"],
        ours: "20* * * * *",
        theirs: "406 * * * *",
        because: "the client \"MUST include an Accept header\" with both (sending messages); nothing tells the server to insist, and \
            RFC 9110, section 12.5.1, lets it answer as if there were no negotiation",
    },
    Difference {
        version: "2026-07-28",
        departures: &["GET of JSON only"],
        ours: "405 . . . .",
        theirs: "406 . . . .",
        because: "streamable HTTP, earlier revisions: \"HTTP GET or DELETE to the MCP endpoint: respond with 405 Method Not Allowed\"",
    },
    Difference {
        version: "20",
        departures: &["Content-Type with Latin-1"],
        ours: "415 * * * *",
        theirs: "200 * * * *",
        because: "transports: \"JSON-RPC messages MUST be UTF-8 encoded\"",
    },
    Difference {
        version: "20",
        departures: &["an id of 64 bits"],
        ours: "200 * * * *",
        theirs: "415 * * * *",
        because: "base protocol, requests: they \"MUST include a string or integer ID\", of any size; ours is echoed as it came",
    },
    Difference {
        version: "20",
        departures: &["id 1.0"],
        ours: "200 . . same .",
        theirs: "200 . . other .",
        because: "base protocol, responses: they \"MUST include the same ID as the request they correspond to\"",
    },
    Difference {
        version: "20",
        departures: &["params are null"],
        ours: "400 json error:-32600 same .",
        theirs: "* * * * *",
        because: "base protocol, requests: `params` is an object where it is there at all; else it is no request (JSON-RPC 2.0, section 5.1)",
    },
    Difference {
        version: "20",
        departures: &["a cursor that is a number"],
        ours: "200 . error:-32602 . *",
        theirs: "200 . result:* . *",
        because: "pagination, error handling: \"Invalid cursors SHOULD result in an error with code -32602 (Invalid params)\"",
    },
    Difference {
        version: "20",
        departures: &["no name", "a number as name", "arguments are an array"],
        ours: "* . error:-32602 . .",
        theirs: "* . error:-32601 . .",
        because: "JSON-RPC 2.0, section 5.1: -32602 is \"Invalid method parameter(s)\", -32601 \"The method does not exist\"; it does",
    },
    Difference {
        version: "20",
        departures: &["no protocolVersion", "a number as protocolVersion"],
        ours: "200 * error:-32602 * .",
        theirs: "400 * - * .",
        because: "JSON-RPC 2.0, section 5.1: -32602; rmcp takes it for a request that lacks its session",
    },
    Difference {
        version: "20",
        departures: &["no capabilities", "no clientInfo"],
        ours: "200 * result:* * .",
        theirs: "400 * - * .",
        because: "lifecycle, initialization: the client \"MUST\" send both; nothing tells the server to insist, and only the version decides",
    },
    Difference {
        version: "20",
        departures: &["the first protocolVersion"],
        ours: ". . result:*,protocolVersion=2025-11-25,serverInfo+session . .",
        theirs: ". . result:*,protocolVersion=2024-11-05,serverInfo+session . .",
        because: "lifecycle, version negotiation: else \"the server MUST respond with another protocol version it supports\"; 2024-11-05 \
            is not among ours, and has another transport",
    },
    Difference {
        version: "20",
        departures: &["another version header"],
        ours: "200 * result:*+session * .",
        theirs: "400 * error:-32600 * .",
        because: "transports, protocol version header: it is for \"all subsequent requests\", so that of `initialize` says nothing",
    },
    Difference {
        version: "20",
        departures: &["the stateless version header"],
        ours: "400 . error:-32020 . .",
        theirs: "400 . error:-32602 . .",
        because: "streamable HTTP, server validation: -32020 where \"required headers are missing\"; which of two faults is named is left open",
    },
    Difference {
        version: "20",
        departures: &["server/discover"],
        ours: "200 . error:-32601 . .",
        theirs: "400 . error:-32602 . .",
        because: "the sessions' revisions have no such method: JSON-RPC 2.0, section 5.1, -32601",
    },
    Difference {
        version: "2026-07-28",
        departures: &["initialize"],
        ours: "404 . error:-32601 . .",
        theirs: "400 . error:-32600 . .",
        because: "streamable HTTP, protocol version header: a server that \"does not implement the requested RPC method\" answers \"404 Not \
            Found\" and -32601; 2026-07-28 has no handshake (changelog, 2)",
    },
    Difference {
        version: "2026-07-28",
        departures: &["a session's version in _meta and header"],
        ours: "400 * error:-32022 * *",
        theirs: "200 * result:tools * *",
        because: "streamable HTTP, protocol version header: 400 and UnsupportedProtocolVersionError for a \"known version the server has \
            chosen not to support\"; we serve older ones in sessions only",
    },
    Difference {
        version: "2026-07-28",
        departures: &["no version header"],
        ours: "202 none - no .",
        theirs: "400 text - no .",
        because: "streamable HTTP, sending messages, note: \"header requirements for notification POSTs are not defined by this revision\"",
    },
    Difference {
        version: "20",
        departures: &["GET without a session"],
        ours: "405 . . . .",
        theirs: "400 . . . .",
        because: "transports, listening: a GET is answered with a stream, \"or else return HTTP 405 Method Not Allowed\"",
    },
    Difference {
        version: "20",
        departures: &["DELETE"],
        ours: "204 . . . .",
        theirs: "202 . . . .",
        because: "RFC 9110, section 9.3.5: 204 when it \"has been enacted\", 202 when it \"has not yet\"; session management names no status",
    },
    Difference {
        version: "20",
        departures: &["DELETE of an unknown session", "an unknown session", "an empty session"],
        ours: "404 * * . .",
        theirs: "202 * * . .",
        because: "session management: \"it MUST respond to requests containing that session ID with HTTP 404 Not Found\"",
    },
    Difference {
        version: "2025-03-26",
        departures: &[],
        ours: ". . result:content[text],isError=* . .",
        theirs: ". . result:*,structuredContent . .",
        because: "structured tool output came with 2025-06-18 (its changelog, 2)",
    },
    Difference {
        version: "2026-07-28",
        departures: &[],
        ours: ". . . . named",
        theirs: ". . . . -",
        because: "changelog, 2: servers \"SHOULD identify themselves in each result's `_meta`\"",
    },
    Difference {
        version: "20",
        departures: &[],
        ours: "400 . . . .",
        theirs: "415 . . . .",
        because: "sending messages: what cannot be accepted is answered with \"an HTTP error status code (e.g., 400 Bad Request)\"; 415 is \
            for the media type (RFC 9110, section 15.5.16), and that was right",
    },
    Difference {
        version: "20",
        departures: &[],
        ours: ". json . . .",
        theirs: ". events . . .",
        because: "sending messages: the server \"MUST either return Content-Type: text/event-stream [...] or Content-Type: application/json\"",
    },
    Difference {
        version: "20",
        departures: &[],
        ours: "4* json * * -",
        theirs: "4* text - no -",
        because: "sending messages: \"The HTTP response body MAY comprise a JSON-RPC error response\"; rmcp's is a text",
    },
];
