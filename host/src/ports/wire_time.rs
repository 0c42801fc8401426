//! Times as operators read them: RFC 3339. For `#[serde(with = "wire_time")]`, and `wire_time::option` where there may be none.

use pointsman_core::time::TimeMs;
use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes a time.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(at: &TimeMs, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&at.to_rfc3339())
}

/// Reads a time.
///
/// # Errors
/// It is no RFC 3339 text.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TimeMs, D::Error> {
    let text = String::deserialize(from)?;
    TimeMs::from_rfc3339(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no time (RFC 3339)")))
}

/// Times that may be missing.
pub mod option {
    use super::{Deserialize, Deserializer, Serializer, TimeMs, de};

    /// Writes a time, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(at: &Option<TimeMs>, to: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => to.serialize_some(&at.to_rfc3339()),
            None => to.serialize_none(),
        }
    }

    /// Reads a time, or null.
    ///
    /// # Errors
    /// It is no RFC 3339 text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TimeMs>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let read = |text: String| TimeMs::from_rfc3339(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no time (RFC 3339)")));
        text.map(read).transpose()
    }
}
