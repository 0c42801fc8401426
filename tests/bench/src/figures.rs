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

/// A named number.
#[derive(Debug)]
struct Figure {
    name: String,
    value: f64,
    target: Option<&'static str>,
}

/// Named numbers in the order they were measured.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.push(name, value, None);
    }

    /// Adds a number that has a target, `<= 6`, which is printed beside it.
    pub(crate) fn add_for(&mut self, name: &str, value: f64, target: &'static str) {
        self.push(name, value, Some(target));
    }

    fn push(&mut self, name: &str, value: f64, target: Option<&'static str>) {
        self.0.push(Figure { name: name.to_owned(), value: (value * 1_000.0).round() / 1_000.0, target });
    }

    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.iter().find(|figure| figure.name == name).map_or(f64::NAN, |figure| figure.value)
    }

    pub(crate) fn table(&self) -> String {
        let target = |figure: &Figure| figure.target.map(|target| format!("  (target {target})")).unwrap_or_default();
        self.0.iter().map(|figure| format!("{:>28}  {}{}\n", figure.name, figure.value, target(figure))).collect()
    }

    pub(crate) fn json(&self, suite: &str) -> Value {
        let figures: Map<String, Value> = self.0.iter().map(|figure| (figure.name.clone(), json!(figure.value))).collect();
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
