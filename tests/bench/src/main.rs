//! `pointsman-bench SUITE`: measures the host against baselines of the same run, and prints one JSON object last.
//!
//! A figure is a median over many samples; each ratio stands beside both its absolutes. Nothing here passes or fails: the
//! targets stand in the issues and the roadmap, of the newer suites also beside the figures, the machine's mood in the spread.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

mod context;
mod figures;
mod hostile;
mod line;
mod mcp;
mod messaging;
mod plugins;
mod recorded;
mod redis;
mod routing;
mod slow_clients;
mod stage;
mod startup;
mod syncs;

use figures::{BenchError, Figures};

#[global_allocator]
static ALLOCATOR: mcp::Counting = mcp::Counting;

/// Measures one suite.
#[derive(Debug, Parser)]
#[command(name = "pointsman-bench", after_help = "Build the host first: cargo build --release")]
struct Arguments {
    /// Which suite.
    #[arg(required_unless_present_any = ["serve_echo", "serve_rmcp", "raw_commits", "raw_writes"])]
    suite: Option<Suite>,
    /// Serve a baseline of `mcp`, the bare echo; the suite starts it so.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    serve_echo: Option<std::net::SocketAddr>,
    /// Serve the other baseline of `mcp`, the official SDK.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    serve_rmcp: Option<std::net::SocketAddr>,
    /// Commit what a store holds once more, without a host: the baseline of `messaging`, which starts it so.
    #[arg(long, hide = true, num_args = 2, value_names = ["STORE", "SYNCS"])]
    raw_commits: Option<Vec<std::path::PathBuf>>,
    /// The same for writes of documents: the baseline of `context`.
    #[arg(long, hide = true, num_args = 2, value_names = ["STORE", "SYNCS"])]
    raw_writes: Option<Vec<std::path::PathBuf>>,
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
    /// Calls through all that stands around a component, a reload, a merge against its library.
    Plugins,
    /// One call over HTTP: processor time, allocations, sizes, ten thousand listeners.
    Mcp,
    /// Fifty good clients alone, and beside a thousand slow or half-dead ones.
    SlowClients,
    /// Fifty good clients beside traffic through the shipped plugins, and through hostile ones.
    Hostile,
    /// Durable sends, round trips, sent to seen, ten thousand waiting agents: on the embedded store.
    Messaging,
    /// Durable writes of documents, written to seen, the bytes an edit moves, stale writes: on the embedded store.
    Context,
    /// The store on Redis: sends and sent to seen across two replicas, against the commands they cannot do without.
    Redis,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Routing => "routing",
            Self::Plugins => "plugins",
            Self::Mcp => "mcp",
            Self::SlowClients => "slow_clients",
            Self::Hostile => "hostile",
            Self::Messaging => "messaging",
            Self::Context => "context",
            Self::Redis => "redis",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(suite) = arguments.suite else {
        let served = match (arguments.serve_echo, arguments.serve_rmcp, arguments.raw_commits, arguments.raw_writes) {
            (Some(address), ..) => mcp::serve_echo(address).await,
            (None, Some(address), ..) => mcp::serve_rmcp(address).await,
            (None, None, Some(paths), _) => messaging::commit_again(&paths).await,
            (None, None, None, Some(paths)) => context::commit_again(&paths).await,
            (None, None, None, None) => Ok(()),
        };
        return if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    let measured: Result<Figures, BenchError> = match suite {
        Suite::Startup => startup::measure().await,
        Suite::Routing => routing::measure().await,
        Suite::Plugins => plugins::measure().await,
        Suite::Mcp => mcp::measure().await,
        Suite::SlowClients => slow_clients::measure().await,
        Suite::Hostile => hostile::measure().await,
        Suite::Messaging => messaging::measure().await,
        Suite::Context => context::measure().await,
        Suite::Redis => redis::measure().await,
    };
    match measured {
        Ok(figures) => {
            if !arguments.json {
                eprint!("{}", figures.table());
            }
            println!("{}", figures.json(suite.name()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pointsman-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
