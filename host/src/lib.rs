//! Pointsman: the host for many coding agents on one repository.
//!
//! `core` decides, `service` loads, commits and runs effects, `adapters` touch the world, `app` puts them together.

pub mod adapters;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
mod json_schema;
pub mod plugin_build;
pub mod plugin_cases;
pub mod ports;
pub mod service;
pub mod shipped;
pub mod telemetry;
