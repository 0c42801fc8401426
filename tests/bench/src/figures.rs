//! Named numbers, their medians, and how they are printed.

use std::time::Instant;

use pointsman::adapters::system::OsSystem;
use pointsman::ports::clock::System;
use serde_json::{Map, Value, json};
use thiserror::Error;

/// Why a suite could not be measured.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// Something the suite needs is not there or failed.
    #[error("{0}")]
    Setup(String),
}

/// Makes an error of anything that can be shown.
pub(crate) fn setup(error: impl std::fmt::Display) -> BenchError {
    BenchError::Setup(error.to_string())
}

/// Named numbers in the order they were measured.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(String, f64)>);

impl Figures {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.0.push((name.to_owned(), (value * 1_000.0).round() / 1_000.0));
    }

    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.iter().find(|(known, _)| known == name).map_or(f64::NAN, |(_, value)| *value)
    }

    pub(crate) fn table(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name:>28}  {value}\n")).collect()
    }

    pub(crate) fn json(&self, suite: &str) -> Value {
        let figures: Map<String, Value> = self.0.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({"suite": suite, "figures": figures})
    }
}

/// Returns a point to measure from.
pub(crate) fn now() -> Instant {
    OsSystem.instant()
}

/// Returns the median.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the sample below which so many of a hundred lie.
pub(crate) fn percentile(mut samples: Vec<f64>, percent: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

/// Returns a count as a figure.
pub(crate) fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Returns the median time of one call in µs: `samples` batches of `batch` calls, after one batch that does not count.
pub(crate) fn per_call_us(samples: usize, batch: u32, mut call: impl FnMut() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let mut times = Vec::with_capacity(samples);
    for sample in 0..=samples {
        let began = now();
        for _ in 0..batch {
            call()?;
        }
        if sample > 0 {
            times.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(batch));
        }
    }
    Ok(median(times))
}
