//! Ten thousand agents that wait at once: each a long poll of its own on a connection of its own.
//!
//! That they waited is seen, not taken for granted: when memory is read none of them has an answer, and all of them get the answer of a
//! wait in which nothing came.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::figures::{BenchError, Figures, count, now, setup};
use crate::line::{Line, tool_call};
use crate::mcp::cpu_us;
use crate::slow_clients::mint;
use crate::startup;

/// Agents, as many as a project has.
const AGENTS: usize = 10_000;
/// Connections that agents are started over.
const STARTERS: usize = 16;
/// Seconds of a wait, the most there is.
const WAIT_S: u64 = 50;
/// Seconds after which the first wait is too near its end to be measured beside the last.
const GATHER_S_MAX: u64 = 40;
/// Milliseconds between two looks at whether the host is at rest.
const LOOK_MS: u64 = 250;
/// Milliseconds of processor time in which a host at rest stays between two looks.
const REST_CPU_MS: f64 = 25.0;
/// Seconds an answer may take after its wait is over.
const ANSWER_S: u64 = 60;
/// What stands in the answer of a wait in which nothing came.
const NOTHING: &[u8] = b"\"messages\":[]";

pub(super) async fn measure(folder: &Path, figures: &mut Figures) -> Result<(), BenchError> {
    let config = startup::configure(folder)?;
    let limits = format!("[server]\nconnections_max = {0}\nconnections_per_peer_max = {0}", AGENTS + 100);
    let text = std::fs::read_to_string(&config.file).map_err(setup)?;
    std::fs::write(&config.file, text.replace("[server]", &limits)).map_err(setup)?;
    let (mut host, _) = startup::start_host(&config).await?;
    let pid = host.id().unwrap_or_default();
    let address = SocketAddr::from(([127, 0, 0, 1], config.port));
    let token = mint(&config.file).await?;
    let starting = token.clone();
    tokio::task::spawn_blocking(move || start_all(address, &starting)).await.map_err(setup)?.map_err(setup)?;
    at_rest(pid, GATHER_S_MAX).await?;
    let started = startup::resident_mib(pid)?;
    let began = now();
    let waits = tokio::task::spawn_blocking(move || open_all(address, &token)).await.map_err(setup)?.map_err(setup)?;
    at_rest(pid, GATHER_S_MAX.saturating_sub(began.elapsed().as_secs())).await?;
    let waiting = startup::resident_mib(pid)?;
    let ended = tokio::task::spawn_blocking(move || end_all(waits));
    ended.await.map_err(setup)?.map_err(setup)?;
    host.kill().await.map_err(setup)?;
    figures.add("started_10k_rss_mib", started);
    figures.add("wait_10k_rss_mib", waiting);
    figures.add("waiting_agent_kib", (waiting - started) * 1_024.0 / count(AGENTS));
    figures.add("waiting_agents", count(AGENTS));
    Ok(())
}

fn name(n: usize) -> String {
    format!("waiting-{n}")
}

fn start_all(address: SocketAddr, token: &str) -> std::io::Result<()> {
    let start = |first: usize| {
        let mut line = Line::open(address)?;
        for n in (first..AGENTS).step_by(STARTERS) {
            line.call(&tool_call(token, "start", &json!({"name": name(n)})))?;
        }
        Ok::<(), std::io::Error>(())
    };
    std::thread::scope(|scope| {
        let start = &start;
        let starters: Vec<_> = (0..STARTERS).map(|first| scope.spawn(move || start(first))).collect();
        for starter in starters {
            starter.join().map_err(|_| std::io::Error::other("a client panicked"))??;
        }
        Ok(())
    })
}

fn open_all(address: SocketAddr, token: &str) -> std::io::Result<Vec<TcpStream>> {
    let open = |n| {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&tool_call(token, "wait_for_events", &json!({"agent": name(n), "max_s": WAIT_S})))?;
        Ok::<_, std::io::Error>(stream)
    };
    (0..AGENTS).map(open).collect()
}

/// Waits until the host has nothing more to do.
async fn at_rest(pid: u32, seconds_max: u64) -> Result<(), BenchError> {
    let began = now();
    let mut before = cpu_us(pid)?;
    while began.elapsed().as_secs() < seconds_max {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        let after = cpu_us(pid)?;
        if after - before < REST_CPU_MS * 1e3 {
            return Ok(());
        }
        before = after;
    }
    Err(setup("the host does not come to rest while the waits last: this machine is too slow for so many"))
}

/// Sees that nobody was answered yet, then that everybody is.
fn end_all(waits: Vec<TcpStream>) -> std::io::Result<()> {
    for wait in &waits {
        wait.set_nonblocking(true)?;
        match wait.peek(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(std::io::Error::other("a wait was over when memory was read")),
        }
        wait.set_nonblocking(false)?;
        wait.set_read_timeout(Some(Duration::from_secs(WAIT_S + ANSWER_S)))?;
    }
    for wait in waits {
        let mut line = Line::over(wait);
        let answer = line.result()?;
        if !answer.windows(NOTHING.len()).any(|part| part == NOTHING) {
            return Err(std::io::Error::other(format!("not the end of a wait: {}", String::from_utf8_lossy(answer))));
        }
    }
    Ok(())
}
