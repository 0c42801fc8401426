//! A plain HTTP/1.1 client for calls that are written beforehand: it costs the machine as little as it can beside the host.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

/// What stands in the answer to a call that succeeded.
const RESULT: &[u8] = b"\"isError\":false";
/// Bytes of an answer's head and body that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Returns a request of the stateless revision, head and body.
pub(crate) fn request(token: &str, method: &str, name: Option<&str>, params: &Value) -> Vec<u8> {
    let mut params = params.clone();
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let name = name.map(|name| format!("mcp-name: {name}\r\n")).unwrap_or_default();
    format!(
        "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         authorization: Bearer {token}\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\n{name}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Returns the request that calls a tool.
pub(crate) fn tool_call(token: &str, tool: &str, arguments: &Value) -> Vec<u8> {
    request(token, "tools/call", Some(tool), &json!({"name": tool, "arguments": arguments}))
}

/// A connection that allocates nothing per call.
pub(crate) struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Returns a line over a connection on which something was asked before.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, buffer: vec![0; READ_BYTES] }
    }

    /// Sends a request and returns the body of its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request)?;
        self.answer()
    }

    /// Sends a call and returns the body of its answer, which has to be a result.
    pub(crate) fn call(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request)?;
        self.result()
    }

    /// Returns the body of the next answer, which has to be a result.
    pub(crate) fn result(&mut self) -> Result<&[u8]> {
        let body = self.answer()?;
        if body.windows(RESULT.len()).any(|part| part == RESULT) {
            Ok(body)
        } else {
            Err(broken(&format!("the call has no result: {}", String::from_utf8_lossy(body))))
        }
    }

    fn answer(&mut self) -> Result<&[u8]> {
        let mut read = 0;
        loop {
            read += self.more(read)?;
            let Some(head) = self.buffer[..read].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            if !self.buffer.starts_with(b"HTTP/1.1 200") {
                return Err(broken(&String::from_utf8_lossy(&self.buffer[..read])));
            }
            let length = length(&self.buffer[..head]).ok_or_else(|| broken("no content-length"))?;
            let body = head + 4;
            while read < body + length {
                read += self.more(read)?;
            }
            return Ok(&self.buffer[body..body + length]);
        }
    }

    /// Reads on behind what was read; an answer larger than the buffer is none that is expected here.
    fn more(&mut self, read: usize) -> Result<usize> {
        match self.stream.read(&mut self.buffer[read..])? {
            0 => Err(broken("the connection ended, or the answer is too large")),
            more => Ok(more),
        }
    }
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn length(head: &[u8]) -> Option<usize> {
    let lines = head.split(|byte| *byte == b'\n');
    let name = b"content-length:";
    let line = lines.into_iter().find(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name))?;
    std::str::from_utf8(&line[name.len()..]).ok()?.trim().parse().ok()
}
