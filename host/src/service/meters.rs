//! What the host counts of itself: calls of its tools by outcome and time. Counting takes a few atomic additions and no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::surface::tools::TOOLS;
use crate::ports::metrics::{Family, Measured, Sample, Value};

/// Upper bounds of the classes of time, in microseconds.
const BOUNDS_US: [u64; 10] = [50, 100, 250, 1_000, 5_000, 25_000, 100_000, 1_000_000, 10_000_000, 60_000_000];

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a result.
    Answered,
    /// With a refusal that the agent can act on.
    Refused,
    /// By a fault of the host.
    Failed,
}

impl Ending {
    const ALL: [(Self, &'static str); 3] = [(Self::Answered, "answered"), (Self::Refused, "refused"), (Self::Failed, "failed")];
}

#[derive(Debug, Default)]
struct Tool {
    endings: [AtomicU64; 3],
    classes: [AtomicU64; BOUNDS_US.len() + 1],
    took_us: AtomicU64,
}

/// The counters.
#[derive(Debug)]
pub struct Meters {
    tools: Box<[Tool]>,
}

impl Default for Meters {
    fn default() -> Self {
        Self { tools: TOOLS.iter().map(|_| Tool::default()).collect() }
    }
}

impl Meters {
    /// Counts a call of the tool at a position of [`TOOLS`].
    pub fn called(&self, tool: usize, ending: Ending, took_us: u64) {
        let Some(tool) = self.tools.get(tool) else { return };
        let at = match ending {
            Ending::Answered => 0,
            Ending::Refused => 1,
            Ending::Failed => 2,
        };
        tool.endings[at].fetch_add(1, Ordering::Relaxed);
        tool.classes[class(&BOUNDS_US, took_us)].fetch_add(1, Ordering::Relaxed);
        tool.took_us.fetch_add(took_us, Ordering::Relaxed);
    }
}

fn class(bounds_us: &[u64], took_us: u64) -> usize {
    bounds_us.iter().position(|bound| took_us <= *bound).unwrap_or(bounds_us.len())
}

/// Returns a histogram of seconds from counts by class of microseconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "sums of microseconds stay below 2^52 for a century")]
pub fn seconds(bounds_us: &[u64], classes: &[u64], took_us: u64) -> Value {
    let mut count = 0;
    let bounds = bounds_us.iter().map(|bound| *bound as f64 / 1e6).chain(std::iter::once(f64::INFINITY));
    let buckets = bounds.zip(classes).map(|(bound, inside)| {
        count += inside;
        (bound, count)
    });
    let buckets = buckets.collect();
    Value::Histogram { buckets, sum: took_us as f64 / 1e6, count }
}

impl Measured for Meters {
    fn families(&self) -> Vec<Family> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let used = || TOOLS.iter().zip(&self.tools).filter(|(_, tool)| tool.endings.iter().any(|ending| read(ending) > 0));
        let calls = used().flat_map(|(known, tool)| {
            Ending::ALL.iter().zip(&tool.endings).map(|((_, word), count)| Sample {
                labels: vec![("tool", known.name.to_owned()), ("outcome", (*word).to_owned())],
                value: Value::Counter(read(count)),
            })
        });
        let times = used().map(|(known, tool)| {
            let classes: Vec<u64> = tool.classes.iter().map(read).collect();
            Sample { labels: vec![("tool", known.name.to_owned())], value: seconds(&BOUNDS_US, &classes, read(&tool.took_us)) }
        });
        vec![
            Family { name: "pointsman_tool_calls", help: "Calls of the host's own tools by how they ended.", samples: calls.collect() },
            Family { name: "pointsman_tool_call_seconds", help: "How long calls of the host's own tools took.", samples: times.collect() },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_tool_outcome_and_time() {
        let meters = Meters::default();
        meters.called(0, Ending::Answered, 60);
        meters.called(0, Ending::Refused, 2_000);
        meters.called(usize::MAX, Ending::Failed, 0);
        let families = meters.families();
        let counts: Vec<_> = families[0].samples.iter().map(|sample| &sample.value).collect();
        assert_eq!(counts, [&Value::Counter(1), &Value::Counter(1), &Value::Counter(0)]);
        let Value::Histogram { buckets, sum, count } = &families[1].samples[0].value else { panic!("{families:?}") };
        assert_eq!((*count, *sum, buckets[0], buckets[1], buckets[4].1), (2, 0.002_06, (0.000_05, 0), (0.000_1, 1), 2));
        assert_eq!(families[1].samples.len(), 1, "tools that nobody called are left out");
    }
}
