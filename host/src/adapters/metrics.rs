//! Figures as text, in the form that Prometheus and its kin read (`OpenMetrics` 1.0).
//!
//! Must not know: where the figures come from.

use std::fmt::{self, Write};

use crate::ports::metrics::{Family, Value};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns figures as text.
#[must_use]
pub fn text(families: &[Family]) -> String {
    let mut text = String::with_capacity(4 << 10);
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        write_family(&mut text, family).expect("writing to memory does not fail");
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(out: &mut String, family: &Family) -> fmt::Result {
    let Family { name, help, samples } = family;
    let kind = match samples.first().map(|sample| &sample.value) {
        Some(Value::Counter(_)) => "counter",
        Some(Value::Histogram { .. }) => "histogram",
        Some(Value::Gauge(_)) | None => "gauge",
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    writeln!(out, "# HELP {name} {}", Escaped(help))?;
    for sample in samples {
        let labels = &sample.labels;
        match &sample.value {
            Value::Counter(count) => writeln!(out, "{name}_total{} {count}", Labels(labels, None))?,
            Value::Gauge(value) => writeln!(out, "{name}{} {value}", Labels(labels, None))?,
            Value::Histogram { buckets, sum, count } => {
                for (bound, below) in buckets {
                    writeln!(out, "{name}_bucket{} {below}", Labels(labels, Some(*bound)))?;
                }
                writeln!(out, "{name}_sum{} {sum}", Labels(labels, None))?;
                writeln!(out, "{name}_count{} {count}", Labels(labels, None))?;
            }
        }
    }
    Ok(())
}

/// A label set in braces; nothing where there is none.
struct Labels<'a>(&'a [(&'static str, String)], Option<f64>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "{";
        for (name, value) in self.0 {
            write!(f, "{between}{name}=\"{}\"", Escaped(value))?;
            between = ",";
        }
        if let Some(bound) = self.1 {
            if bound.is_infinite() {
                write!(f, "{between}le=\"+Inf\"")?;
            } else {
                write!(f, "{between}le=\"{bound:?}\"")?;
            }
            between = ",";
        }
        if between == "," { f.write_char('}') } else { Ok(()) }
    }
}

/// A text without what would end it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::metrics::Sample;

    #[test]
    fn figures_are_written_in_the_form_of_the_standard() {
        let families = [
            Family {
                name: "pointsman_tool_calls",
                help: "Calls of \"tools\".",
                samples: vec![Sample {
                    labels: vec![("tool", "a\"b\\\n".to_owned()), ("outcome", "ok".to_owned())],
                    value: Value::Counter(3),
                }],
            },
            Family { name: "pointsman_nothing", help: "None.", samples: Vec::new() },
            Family {
                name: "pointsman_seconds",
                help: "Time.",
                samples: vec![Sample {
                    labels: Vec::new(),
                    value: Value::Histogram { buckets: vec![(0.001, 1), (f64::INFINITY, 2)], sum: 0.5, count: 2 },
                }],
            },
        ];
        insta::assert_snapshot!(text(&families), @r#"
        # TYPE pointsman_tool_calls counter
        # HELP pointsman_tool_calls Calls of \"tools\".
        pointsman_tool_calls_total{tool="a\"b\\\n",outcome="ok"} 3
        # TYPE pointsman_seconds histogram
        # HELP pointsman_seconds Time.
        pointsman_seconds_bucket{le="0.001"} 1
        pointsman_seconds_bucket{le="+Inf"} 2
        pointsman_seconds_sum 0.5
        pointsman_seconds_count 2
        # EOF
        "#);
    }
}
