//! One MCP call over HTTP: processor time against a bare JSON echo on the same library and against the official SDK, allocations,
//! the size of the tool list, and what a client costs that only listens.
//!
//! The no-op is `lookup` of the agents with one of them: a shipped tool, authenticated, its answer with lease and unread count.
//! Each baseline is a process of its own that is asked with the same body by the same client, in turn with the host.

mod baselines;

use std::alloc::{GlobalAlloc, Layout, System as SystemAllocator};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pointsman::adapters::system::raise_open_files;
use pointsman::config::{Config, Environment, Flags};
use pointsman_client::{Client, Era};
use serde_json::json;

pub(crate) use self::baselines::{serve_echo, serve_rmcp};

use self::baselines::Baseline;
use crate::figures::{BenchError, Figures, median, now, setup};
use crate::line::{Line, request, tool_call};
use crate::slow_clients::mint;
use crate::startup;

/// Calls of one sample.
const CALLS: u32 = 4_000;
/// Samples behind each median, host and baselines in turn.
const SAMPLES: usize = 9;
/// Clients that only listen.
const LISTENERS: usize = 10_000;
/// Listeners that are opened at once.
const OPENED_AT_ONCE: usize = 200;
/// Milliseconds the host idles before its memory is read.
const IDLE_MS: u64 = 2_000;

/// Counts what is allocated in this process.
pub(crate) struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; this one passes everything on")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { SystemAllocator.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { SystemAllocator.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { SystemAllocator.realloc(pointer, layout, bytes) }
    }
}

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    raise_open_files().map_err(setup)?;
    let folder = tempfile::tempdir().map_err(setup)?;
    let config = startup::configure(folder.path())?;
    let limits = format!("[server]\nconnections_max = {0}\nconnections_per_peer_max = {0}", LISTENERS + 100);
    let text = std::fs::read_to_string(&config.file).map_err(setup)?;
    std::fs::write(&config.file, text.replace("[server]", &limits)).map_err(setup)?;
    let (mut host, _) = startup::start_host(&config).await?;
    let host_pid = host.id().unwrap_or_default();
    let address = SocketAddr::from(([127, 0, 0, 1], config.port));
    let token = mint(&config.file).await?;
    begin(&config.file, &address, &token).await?;
    let echo = Baseline::start("--serve-echo").await?;
    let rmcp = Baseline::start("--serve-rmcp").await?;

    let mut figures = Figures::default();
    let request = call(&token);
    figures.add("answer_bytes", answer_bytes(address, &request).await?);
    figures.add("rmcp_answer_bytes", answer_bytes(rmcp.address, &request).await?);
    let (mut ours, mut bare, mut official, mut per_s) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for sample in 0..=SAMPLES {
        let began = now();
        let cpu = cpu_us_per_call(host_pid, address, &request).await?;
        let took_s = began.elapsed().as_secs_f64();
        let echo_cpu = cpu_us_per_call(echo.pid(), echo.address, &request).await?;
        let rmcp_cpu = cpu_us_per_call(rmcp.pid(), rmcp.address, &request).await?;
        if sample > 0 {
            ours.push(cpu);
            bare.push(echo_cpu);
            official.push(rmcp_cpu);
            per_s.push(f64::from(CALLS) / took_s);
        }
    }
    figures.add("host_cpu_us", median(ours));
    figures.add("hyper_echo_cpu_us", median(bare));
    figures.add("rmcp_cpu_us", median(official));
    figures.add("cpu_ratio_vs_hyper_echo", figures.get("host_cpu_us") / figures.get("hyper_echo_cpu_us"));
    figures.add("cpu_ratio_vs_rmcp", figures.get("host_cpu_us") / figures.get("rmcp_cpu_us"));
    figures.add("calls_per_s_one_connection", median(per_s));
    figures.add("tools_list_bytes", size_of_list(address, &token).await?);
    figures.add("idle_connection_kib", listeners(address, &token, host_pid).await?);
    echo.end().await?;
    rmcp.end().await?;
    host.kill().await.map_err(setup)?;
    figures.add("allocs_per_call", allocations(folder.path()).await?);
    Ok(figures)
}

/// Starts an agent, so that the no-op has somebody to show.
async fn begin(_: &Path, address: &SocketAddr, token: &str) -> Result<(), BenchError> {
    let client = Client::new(&format!("http://{address}/mcp"), token, Era::Modern).map_err(setup)?;
    client.call("start", json!({"name": "bench"})).await.map_err(setup)?;
    Ok(())
}

fn call(token: &str) -> Vec<u8> {
    tool_call(token, "lookup", &json!({"uri": "agents"}))
}

async fn drive(address: SocketAddr, request: &[u8]) -> Result<(), BenchError> {
    let request = request.to_vec();
    let driven = tokio::task::spawn_blocking(move || {
        let mut line = Line::open(address)?;
        for _ in 0..CALLS {
            line.ask(&request)?;
        }
        std::io::Result::Ok(())
    });
    driven.await.map_err(setup)?.map_err(setup)
}

/// Drives one sample; returns the processor time of a call in µs.
async fn cpu_us_per_call(pid: u32, address: SocketAddr, request: &[u8]) -> Result<f64, BenchError> {
    let before = cpu_us(pid)?;
    drive(address, request).await?;
    Ok((cpu_us(pid)? - before) / f64::from(CALLS))
}

/// Returns the length of the answer to a call, which has to be a result.
async fn answer_bytes(address: SocketAddr, request: &[u8]) -> Result<f64, BenchError> {
    let request = request.to_vec();
    let asked = tokio::task::spawn_blocking(move || {
        let mut line = Line::open(address)?;
        line.call(&request).map(<[u8]>::len)
    });
    let length = asked.await.map_err(setup)?.map_err(setup)?;
    Ok(f64::from(u32::try_from(length).unwrap_or(u32::MAX)))
}

async fn size_of_list(address: SocketAddr, token: &str) -> Result<f64, BenchError> {
    let request = request(token, "tools/list", None, &json!({}));
    let length =
        tokio::task::spawn_blocking(move || Line::open(address)?.ask(&request).map(<[u8]>::len)).await.map_err(setup)?.map_err(setup)?;
    Ok(f64::from(u32::try_from(length).unwrap_or(u32::MAX)))
}

/// Returns the processor time of all threads of a process in µs (the first field of `schedstat`, in ns).
pub(crate) fn cpu_us(pid: u32) -> Result<f64, BenchError> {
    let mut total_ns = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).map_err(setup)? {
        let stat = std::fs::read_to_string(task.map_err(setup)?.path().join("schedstat")).unwrap_or_default();
        total_ns += stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(total_ns / 1e3)
}

/// Returns how many KiB more the host holds for each client that only listens.
async fn listeners(address: SocketAddr, token: &str, pid: u32) -> Result<f64, BenchError> {
    let listen = request(token, "subscriptions/listen", None, &json!({"notifications": {"toolsListChanged": true}}));
    let before = startup::resident_mib(pid)?;
    let opened = tokio::task::spawn_blocking(move || {
        let mut open = Vec::with_capacity(LISTENERS);
        for _ in 0..LISTENERS / OPENED_AT_ONCE {
            let first = open.len();
            for _ in 0..OPENED_AT_ONCE {
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(&listen)?;
                open.push(stream);
            }
            // Each has its acknowledgement before the next ones come.
            for stream in &mut open[first..] {
                stream.read_exact(&mut [0; 64])?;
            }
        }
        std::io::Result::Ok(open)
    });
    let opened = opened.await.map_err(setup)?.map_err(setup)?;
    tokio::time::sleep(Duration::from_millis(IDLE_MS)).await;
    let after = startup::resident_mib(pid)?;
    drop(opened);
    let count = f64::from(u32::try_from(LISTENERS).unwrap_or(u32::MAX));
    Ok((after - before) * 1_024.0 / count)
}

/// Runs the host in this process and counts what a call allocates; the client allocates nothing.
async fn allocations(folder: &Path) -> Result<f64, BenchError> {
    let config = startup::configure(&folder.join("counted"))?;
    let environment = Environment::of(&[("HOME", &folder.to_string_lossy())], folder);
    let loaded = Config::load(&environment, &Flags { config: Some(config.file.clone()), ..Flags::default() }).map_err(setup)?;
    let host = tokio::spawn(pointsman::app::up(loaded, None, None));
    startup::until_ready(config.port).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], config.port));
    let token = mint(&config.file).await?;
    begin(&config.file, &address, &token).await?;
    let request = call(&token);
    drive(address, &request).await?;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drive(address, &request).await?;
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    host.abort();
    let count = f64::from(u32::try_from(after - before).unwrap_or(u32::MAX));
    Ok(count / f64::from(CALLS))
}
