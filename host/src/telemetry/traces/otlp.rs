//! A batch of spans as OTLP's JSON (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"): ids in hexadecimal, 64-bit numbers as
//! texts, enumerations as numbers.

use data_encoding::HEXLOWER;
use serde_json::{Value as Json, json};

use super::{Running, Value};

/// The status of what failed.
const FAILED: u8 = 2;

/// Whose spans they are.
pub(super) struct Resource {
    pub(super) host: String,
}

/// Returns the body of a request that hands these over.
pub(super) fn request(resource: &Resource, spans: &[Running]) -> Vec<u8> {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let version = env!("CARGO_PKG_VERSION");
    let of = [text("service.name", "pointsman"), text("service.version", version), text("service.instance.id", &resource.host)];
    let spans: Vec<Json> = spans.iter().map(span).collect();
    let scope = json!({"scope": {"name": "pointsman", "version": version}, "spans": spans});
    let all = json!({"resourceSpans": [{"resource": {"attributes": of}, "scopeSpans": [scope]}]});
    all.to_string().into_bytes()
}

fn span(span: &Running) -> Json {
    let attributes: Vec<Json> = span.attributes.iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect();
    let mut all = json!({
        "traceId": HEXLOWER.encode(&span.trace),
        "spanId": HEXLOWER.encode(&span.id),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.begun_ns.to_string(),
        "endTimeUnixNano": span.ended_ns.to_string(),
        "attributes": attributes,
        "status": {},
    });
    if let Some(parent) = &span.parent {
        all["parentSpanId"] = HEXLOWER.encode(parent).into();
    }
    if let Some(why) = &span.failed {
        all["status"] = json!({"code": FAILED, "message": why});
    }
    all
}

fn any(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Whole(whole) => json!({"intValue": whole.to_string()}),
        Value::Float(float) => json!({"doubleValue": float}),
        Value::Switch(switch) => json!({"boolValue": switch}),
    }
}
