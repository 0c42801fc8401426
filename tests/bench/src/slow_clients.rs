//! What clients that send slowly, stop reading or say nothing cost the others: 50 good clients alone, and beside 1,000 such.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pointsman::adapters::system::raise_open_files;
use pointsman_client::{Client, Era};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::figures::{BenchError, Figures, median, now, setup};
use crate::startup;

/// Clients that behave.
const GOOD: usize = 50;
/// Clients that do not.
const BAD: usize = 1_000;
/// Milliseconds between two calls of a good client, about.
const PACE_MS: u64 = 40;
/// Seconds of one measurement.
const MEASURE_S: u64 = 6;
/// Measurements alone and beside the others, in turn; the figures are medians.
const ROUNDS: usize = 3;
/// Milliseconds the slow ones have to be there before it is measured.
const GATHER_MS_MAX: u128 = 30_000;
/// Milliseconds between two bytes of one that sends slowly.
const TRICKLE_MS: u64 = 200;

/// Bytes that a client which does not read takes into its buffer.
const RECEIVE_BYTES: u32 = 4 << 10;

const LIMITS: &str = "[server]\nconnections_max = 4096\nconnections_per_peer_max = 4096\nheader_timeout_ms = 3000\n\
                      body_timeout_ms = 3000\nwrite_timeout_ms = 3000";

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    raise_open_files().map_err(setup)?;
    let folder = tempfile::tempdir().map_err(setup)?;
    let config = startup::configure(folder.path())?;
    let text = std::fs::read_to_string(&config.file).map_err(setup)?;
    std::fs::write(&config.file, text.replace("[server]", LIMITS)).map_err(setup)?;
    let (mut child, _) = startup::start_host(&config).await?;
    let token = mint(&config.file).await?;
    let address = format!("127.0.0.1:{}", config.port);
    good(&address, &token, 1).await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let crowd = Crowd::new(&address, &token);
    for _ in 0..ROUNDS {
        alone.push(good(&address, &token, MEASURE_S).await?);
        let gathered = crowd.gather().await?;
        beside.push(good(&address, &token, MEASURE_S).await?);
        drop(gathered);
    }
    child.kill().await.map_err(setup)?;
    let of = |rounds: &[Latencies], which: fn(&Latencies) -> f64| median(rounds.iter().map(which).collect());
    let mut figures = Figures::default();
    figures.add("good_p50_alone_ms", of(&alone, |round| round.p50_ms));
    figures.add("good_p99_alone_ms", of(&alone, |round| round.p99_ms));
    figures.add("good_p50_beside_ms", of(&beside, |round| round.p50_ms));
    figures.add("good_p99_beside_ms", of(&beside, |round| round.p99_ms));
    figures.add("p99_ratio", figures.get("good_p99_beside_ms") / figures.get("good_p99_alone_ms"));
    figures.add("good_calls_per_s", of(&beside, |round| round.per_s));
    figures.add("bad_clients", f64::from(u32::try_from(BAD).unwrap_or(u32::MAX)));
    let opened = crowd.opened.load(Ordering::Relaxed);
    figures.add("bad_connections", f64::from(u32::try_from(opened).unwrap_or(u32::MAX)));
    Ok(figures)
}

pub(crate) async fn mint(config: &Path) -> Result<String, BenchError> {
    let binary = std::env::current_exe().map_err(setup)?.with_file_name("pointsman");
    let out = Command::new(binary).args(["agent", "add", "bench", "--json", "--config"]).arg(config).output().await.map_err(setup)?;
    let answer: Value = serde_json::from_slice(&out.stdout).map_err(setup)?;
    answer["secret"].as_str().map(str::to_owned).ok_or_else(|| setup("no token was minted"))
}

pub(crate) struct Latencies {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) per_s: f64,
}

/// Lets the good clients call for some seconds.
pub(crate) async fn good(address: &str, token: &str, seconds: u64) -> Result<Latencies, BenchError> {
    let mut clients = JoinSet::new();
    for n in 0..GOOD {
        let client = Client::new(&format!("http://{address}/mcp"), token, Era::Modern).map_err(setup)?;
        clients.spawn(async move {
            let name = format!("good-{n}");
            client.call("start", json!({"name": name})).await.map_err(setup)?;
            let began = now();
            let mut took_ms = Vec::new();
            while began.elapsed().as_secs() < seconds {
                let called = now();
                client.call("lookup", json!({"uri": "tasks", "agent": name})).await.map_err(setup)?;
                took_ms.push(called.elapsed().as_secs_f64() * 1e3);
                // Apart from each other, so that they are not one burst.
                tokio::time::sleep(Duration::from_millis(PACE_MS + u64::try_from(n % 7).unwrap_or(0))).await;
            }
            Ok::<_, BenchError>(took_ms)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = clients.join_next().await {
        all.extend(ended.map_err(setup)??);
    }
    all.sort_by(f64::total_cmp);
    let at = |share: usize| all.get(all.len() * share / 100).copied().unwrap_or(f64::NAN);
    let count = f64::from(u32::try_from(all.len()).unwrap_or(u32::MAX));
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let per_s = count / seconds as f64;
    Ok(Latencies { p50_ms: at(50), p99_ms: at(99), per_s })
}

/// Those who do not behave. Whom the host cuts comes back.
struct Crowd {
    address: Arc<str>,
    /// The head of a call without its end, and the whole of one.
    requests: Arc<[Vec<u8>; 2]>,
    opened: Arc<AtomicU64>,
}

impl Crowd {
    fn new(address: &str, token: &str) -> Self {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}).to_string();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\n\
             content-length: {}\r\n",
            body.len()
        );
        let whole = format!("{head}\r\n{body}").into_bytes();
        Self { address: address.into(), requests: Arc::new([head.into_bytes(), whole]), opened: Arc::default() }
    }

    /// Lets them come, and waits until nearly all are there. They go when what is returned is dropped.
    async fn gather(&self) -> Result<DropGuard, BenchError> {
        let stop = CancellationToken::new();
        let here: Arc<AtomicU64> = Arc::default();
        for n in 0..BAD {
            let (address, requests) = (Arc::clone(&self.address), Arc::clone(&self.requests));
            let (opened, here, stop) = (Arc::clone(&self.opened), Arc::clone(&here), stop.clone());
            let again = async move {
                loop {
                    let Ok(stream) = connect(n, &address).await else {
                        tokio::time::sleep(Duration::from_millis(TRICKLE_MS)).await;
                        continue;
                    };
                    opened.fetch_add(1, Ordering::Relaxed);
                    here.fetch_add(1, Ordering::Relaxed);
                    misbehave(n, stream, &requests).await;
                    here.fetch_sub(1, Ordering::Relaxed);
                }
            };
            tokio::spawn(async move {
                tokio::select! { () = again => {}, () = stop.cancelled() => {} }
            });
        }
        let guard = stop.drop_guard();
        let began = now();
        let enough = u64::try_from(BAD * 9 / 10).unwrap_or(0);
        while here.load(Ordering::Relaxed) < enough {
            if began.elapsed().as_millis() > GATHER_MS_MAX {
                return Err(setup("the slow clients did not all connect"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(guard)
    }
}

/// Connects; those that will not read take little at once, so that the host feels it.
async fn connect(n: usize, address: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if n % 5 > 2 {
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    }
    socket.connect(address.parse().map_err(std::io::Error::other)?).await
}

/// Takes a connection in one of the ways clients go wrong, until the host ends it.
async fn misbehave(n: usize, mut stream: TcpStream, requests: &[Vec<u8>; 2]) {
    let [head, whole] = requests;
    // What ends any of these is the host's doing.
    let _ = match n % 5 {
        // Says nothing.
        0 => stream.read(&mut [0; 1]).await.map(|_| ()),
        // Never ends its head.
        1 => trickle(&mut stream, head).await,
        // Never ends its body.
        2 => match stream.write_all(&whole[..head.len() + 4]).await {
            Ok(()) => trickle(&mut stream, &whole[head.len() + 4..]).await,
            Err(error) => Err(error),
        },
        // Asks, and reads a byte now and then.
        3 => match stream.write_all(whole).await {
            Ok(()) => nibble(&mut stream).await,
            Err(error) => Err(error),
        },
        // Asks for a great deal and reads nothing.
        _ => match stream.write_all(&whole.repeat(40)).await {
            Ok(()) => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
}

async fn trickle(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(Duration::from_millis(TRICKLE_MS)).await;
    }
    Ok(())
}

async fn nibble(stream: &mut TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 1]).await? > 0 {
        tokio::time::sleep(Duration::from_millis(TRICKLE_MS)).await;
    }
    Ok(())
}
