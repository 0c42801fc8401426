//! `pointsman-bench SUITE`: measures the host against baselines of the same run, and prints one JSON object last.
//!
//! A figure is a median over many samples; each ratio stands beside both its absolutes. Nothing here passes or fails: the
//! targets stand in the issues and the roadmap, the machine's mood in the spread.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

mod figures;
mod routing;
mod slow_clients;
mod startup;

use figures::{BenchError, Figures};

/// Measures one suite.
#[derive(Debug, Parser)]
#[command(name = "pointsman-bench", after_help = "Build the host first: cargo build --release")]
struct Arguments {
    /// Which suite.
    suite: Suite,
    /// Print only the JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Suite {
    /// Time to ready, idle memory, number of crates.
    Startup,
    /// A router asked through the whole host path, against the same rule in Rust and an empty call.
    Routing,
    /// Fifty good clients alone, and beside a thousand slow or half-dead ones.
    SlowClients,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Routing => "routing",
            Self::SlowClients => "slow_clients",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured: Result<Figures, BenchError> = match arguments.suite {
        Suite::Startup => startup::measure().await,
        Suite::Routing => routing::measure().await,
        Suite::SlowClients => slow_clients::measure().await,
    };
    match measured {
        Ok(figures) => {
            if !arguments.json {
                eprint!("{}", figures.table());
            }
            println!("{}", figures.json(arguments.suite.name()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pointsman-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
