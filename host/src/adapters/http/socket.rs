//! The operator's socket: `admin.sock` in the data folder, on which the API is spoken without a token.
//!
//! Owns: the socket file, its mode, its connections. Must not know: what the requests do.
//!
//! **Invariants:** only the data folder's owner can connect; requests and their reading are bounded; whoever binds holds
//! the data folder's lock, so a socket file that is there already belongs to a host that died.

mod client;

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::client::AdminClient;
use super::rest::Rest;
use super::{HttpLimits, Traces};
use crate::ports::clock::System;

/// The socket's name in the data folder.
const SOCKET: &str = "admin.sock";
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Milliseconds a client has to send its request.
const REQUEST_MS: u64 = 10_000;
/// Clients at once.
const CLIENTS_MAX: usize = 16;

/// The way to a socket that may lie deeper than the 107 bytes a socket's address takes: through the open folder.
struct Address {
    path: PathBuf,
    _folder: std::fs::File,
}

fn address(data_dir: &Path) -> io::Result<Address> {
    let folder = std::fs::File::open(data_dir)?;
    Ok(Address { path: PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())), _folder: folder })
}

/// Returns a listener on the data folder's socket. Call it with the folder's lock held.
///
/// # Errors
/// When the folder cannot be written.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let address = address(data_dir)?;
    match std::fs::remove_file(&address.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&address.path)?;
    std::fs::set_permissions(&address.path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the API until `stop`, then ends what is under way and removes the socket.
pub async fn serve(listener: UnixListener, data_dir: PathBuf, rest: Rest, system: Arc<dyn System>, stop: CancellationToken) {
    let traces = Arc::new(Traces::new(&*system));
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept(), if clients.len() < CLIENTS_MAX => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(connection(stream, rest.clone(), Arc::clone(&traces), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "admin socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    while clients.join_next().await.is_some() {}
    rest.drain().await;
    drop(listener);
    if let Ok(address) = address(&data_dir) {
        let _ = std::fs::remove_file(&address.path);
    }
}

async fn connection(stream: UnixStream, rest: Rest, traces: Arc<Traces>, stop: CancellationToken) {
    let limits = HttpLimits { body_bytes_max: BODY_BYTES_MAX, body_read_ms: REQUEST_MS, ..HttpLimits::default() };
    let service = service_fn(move |request| {
        let (rest, trace) = (rest.clone(), traces.next());
        async move { Ok::<_, std::convert::Infallible>(rest.answer(request, &limits, &trace).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(REQUEST_MS))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin client went away");
    }
}

#[cfg(test)]
mod tests;
