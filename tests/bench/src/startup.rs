//! How fast the host is there, how much it takes when nobody calls, of how many crates it is made.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::figures::{BenchError, Figures, median, now, setup};

/// Starts that count, after one that fills the code cache.
const STARTS: usize = 7;
/// Milliseconds a start may take before the suite gives up.
const READY_MS_MAX: u128 = 60_000;
/// Milliseconds the host idles before its memory is read.
const IDLE_MS: u64 = 1_500;

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    let folder = tempfile::tempdir().map_err(setup)?;
    let config = configure(folder.path())?;
    let mut ready = Vec::new();
    let mut resident = Vec::new();
    for start in 0..=STARTS {
        let (mut child, ready_ms) = start_host(&config).await?;
        if start > 0 {
            ready.push(ready_ms);
            tokio::time::sleep(Duration::from_millis(IDLE_MS)).await;
            resident.push(resident_mib(child.id().unwrap_or_default())?);
        }
        child.kill().await.map_err(setup)?;
    }
    let mut figures = Figures::default();
    figures.add("ready_ms", median(ready));
    figures.add("rss_idle_mib", median(resident));
    figures.add("crates", crates().await?);
    Ok(figures)
}

/// A configuration and where its host will listen.
pub(crate) struct Configured {
    pub(crate) file: PathBuf,
    pub(crate) port: u16,
}

pub(crate) fn configure(folder: &Path) -> Result<Configured, BenchError> {
    std::fs::create_dir_all(folder).map_err(setup)?;
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).map_err(setup)?.port();
    let file = folder.join("pointsman.toml");
    let data = serde_json::Value::from(folder.join("data").to_string_lossy()).to_string();
    let config =
        // One credential makes all calls of a bench.
        format!("config_version = 1\n[server]\nbind = \"127.0.0.1:{port}\"\n[limits]\nrequests_per_s = 0\n[data]\ndir = {data}\n[[project]]\nslug = \"bench\"\n");
    std::fs::write(&file, config).map_err(setup)?;
    Ok(Configured { file, port })
}

pub(crate) async fn start_host(config: &Configured) -> Result<(Child, f64), BenchError> {
    start_host_with(config, |_| {}).await
}

/// Starts a host by a command that is made ready first.
pub(crate) async fn start_host_with(config: &Configured, prepare: impl FnOnce(&mut Command)) -> Result<(Child, f64), BenchError> {
    let own = std::env::current_exe().map_err(setup)?;
    let binary = own.with_file_name("pointsman");
    let mut command = Command::new(&binary);
    command.arg("up").arg("--config").arg(&config.file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    prepare(&mut command);
    let began = now();
    let child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| setup(format!("{} cannot be started ({error}): cargo build --release first", binary.display())))?;
    until_ready(config.port).await?;
    Ok((child, began.elapsed().as_secs_f64() * 1e3))
}

/// Waits until a host on this port is ready.
pub(crate) async fn until_ready(port: u16) -> Result<(), BenchError> {
    let began = now();
    let url = format!("http://127.0.0.1:{port}/readyz");
    while began.elapsed().as_millis() < READY_MS_MAX {
        if let Ok((200, _)) = pointsman_client::get(&url).await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(setup("the host did not become ready"))
}

pub(crate) fn resident_mib(pid: u32) -> Result<f64, BenchError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(setup)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    kib.map(|kib| kib / 1_024.0).ok_or_else(|| setup("no VmRSS in the process status"))
}

async fn crates() -> Result<f64, BenchError> {
    let tree = Command::new("cargo")
        .args(["tree", "-e", "normal", "-p", "pointsman", "--prefix", "none", "--no-dedupe"])
        .output()
        .await
        .map_err(setup)?;
    let listed = String::from_utf8_lossy(&tree.stdout).into_owned();
    let mut names: Vec<&str> = listed.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { Err(setup("cargo tree printed nothing")) } else { Ok(f64::from(u32::try_from(names.len()).unwrap_or(u32::MAX))) }
}
