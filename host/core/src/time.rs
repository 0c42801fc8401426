//! Time as a value: milliseconds since 1970 by the store's clock. Nobody here reads a clock.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeMs(pub i64);

impl TimeMs {
    /// Returns the milliseconds from `earlier` to `self`, 0 when it is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Returns the RFC 3339 form, in UTC with milliseconds.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let nanos = i128::from(self.0) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| self.0.to_string())
    }

    /// Returns the time an RFC 3339 text names.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }
}

impl Add<u64> for TimeMs {
    type Output = Self;

    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms))
    }
}

impl Sub<u64> for TimeMs {
    type Output = Self;

    fn sub(self, ms: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(ms))
    }
}

impl fmt::Display for TimeMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Returns a duration the way people write it: `40 ms`, `1.2 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn span(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    let both = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {smaller}"),
    };
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{seconds}.{} s", ms % 1_000 / 100),
        60_000..3_600_000 => both(minutes, "min", seconds % 60, "s"),
        3_600_000..86_400_000 => both(hours, "h", minutes % 60, "min"),
        86_400_000.. => both(hours / 24, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let shown = [0, 999, 1_000, 1_250, 59_999, 60_000, 185_000, 3_600_000, 7_500_000, 86_400_000, 273_600_000].map(span);
        assert_eq!(shown, ["0 ms", "999 ms", "1.0 s", "1.2 s", "59.9 s", "1 min", "3 min 5 s", "1 h", "2 h 5 min", "1 d", "3 d 4 h"]);
    }

    proptest! {
        #[test]
        fn rfc3339_reads_back(ms in 0i64..253_402_300_799_000) {
            prop_assert_eq!(TimeMs::from_rfc3339(&TimeMs(ms).to_rfc3339()), Some(TimeMs(ms)));
        }
    }
}
