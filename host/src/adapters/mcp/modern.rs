//! Revision 2026-07-28: each request stands alone.
//!
//! The order of the checks is the order in which a fault can be trusted: headers against body, then the revision, then the
//! method, then what the method needs (streamable HTTP, server validation; basic, `_meta`).

use serde_json::value::RawValue;

use super::answer::{self, Dress};
use super::envelope::{self, Meta, Params};
use super::errors::{Era, Fault, cut};
use super::{MODERN_VERSION, Mcp, headers};
use crate::ports::endpoint::Fields;
use crate::ports::surface::Caller;

/// The methods of this revision that we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// `server/discover`.
    Discover,
    /// `tools/list`.
    Tools,
    /// `tools/call`.
    Tool,
}

/// Checks headers, revision, method and `_meta`.
///
/// # Errors
/// The first fault found.
pub(super) fn check(fields: &dyn Fields, method: &str, params: &Params<'_>, meta: &Meta<'_>) -> Result<Call, Fault> {
    const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    let header = headers::required(fields, headers::PROTOCOL_VERSION, "MCP-Protocol-Version")?;
    let version = match meta.protocol_version.map(envelope::string) {
        None => None,
        Some(Some(version)) => Some(version),
        Some(None) => return Err(Fault::MetaInvalid { key: VERSION, expected: "a string" }),
    };
    if let Some(version) = &version
        && version != header
    {
        return Err(Fault::HeaderMismatch { name: "MCP-Protocol-Version", header: cut(header), body: cut(version) });
    }
    if header != MODERN_VERSION {
        return Err(Fault::UnsupportedVersion { requested: cut(header), era: Era::Modern });
    }
    headers::mirrors(fields, headers::METHOD, "Mcp-Method", method)?;
    let call = match method {
        "server/discover" => Call::Discover,
        "tools/list" => Call::Tools,
        "tools/call" => Call::Tool,
        _ => return Err(Fault::UnknownMethod { method: cut(method) }),
    };
    if version.is_none() {
        return Err(Fault::MetaInvalid { key: VERSION, expected: "a string" });
    }
    if !meta.client_capabilities.is_some_and(envelope::is_object) {
        return Err(Fault::MetaInvalid { key: "io.modelcontextprotocol/clientCapabilities", expected: "an object" });
    }
    if call == Call::Tool {
        let name = params.name.and_then(envelope::string).ok_or(Fault::InvalidParams { why: "`name` is not a string".into() })?;
        headers::mirrors_name(fields, &name)?;
    }
    Ok(call)
}

impl Mcp {
    /// Answers a checked request.
    pub(super) async fn modern(&self, caller: &Caller, call: Call, params: &Params<'_>, id: &RawValue) -> Result<Vec<u8>, Fault> {
        match call {
            Call::Discover => Ok(answer::result(id, &self.texts.discover)),
            Call::Tools if params.cursor.is_some() => Err(Fault::UnknownCursor),
            Call::Tools => Ok(answer::tools(id, &self.texts, &self.surface.tools(caller), Dress::Modern)),
            Call::Tool => {
                let answer = self.call_tool(caller, params).await?;
                Ok(answer::tool(id, &self.texts, &answer, Dress::Modern))
            }
        }
    }
}
