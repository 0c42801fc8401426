//! Passes connections on to a host, keeps what it answers, and loses answers when a test says so.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes passed on at once.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Default)]
struct State {
    answered: Vec<u8>,
    /// What a request has to contain for its answer to be lost.
    losing: Option<Vec<u8>>,
}

/// Stands between a host and whoever calls it.
pub struct Relay {
    url: String,
    state: Arc<Mutex<State>>,
}

fn held(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with it")
}

impl Relay {
    /// Starts one before the host at `url`, for as long as the test runs.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn before(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let own = format!("http://{}", listener.local_addr().expect("an address"));
        let authority = url.trim_start_matches("http://").to_owned();
        let state = Arc::<Mutex<State>>::default();
        let kept = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A host that is not there now closes what comes to it.
                let Ok(server) = TcpStream::connect(&authority).await else { continue };
                tokio::spawn(pass_on(client, server, Arc::clone(&kept)));
            }
        });
        Self { url: own, state }
    }

    /// Returns where it is reached.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns what the host answered so far.
    #[must_use]
    pub fn answered(&self) -> Vec<u8> {
        held(&self.state).answered.clone()
    }

    /// Loses, from now on, the answers to requests that contain this; to none with `None`.
    pub fn lose(&self, what: Option<&str>) {
        held(&self.state).losing = what.map(|what| what.as_bytes().to_vec());
    }
}

async fn pass_on(client: TcpStream, server: TcpStream, state: Arc<Mutex<State>>) {
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let asked = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(asking(from_client, to_server, Arc::clone(&asked)));
    answering(from_server, to_client, &asked, &state).await;
}

async fn asking(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Arc<Mutex<Vec<u8>>>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        asked.lock().expect("nobody panics with it").extend_from_slice(&piece[..bytes]);
        if to.write_all(&piece[..bytes]).await.is_err() {
            return;
        }
    }
}

/// Passes answers on until one is to be lost: then the connection ends without it.
async fn answering(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Mutex<Vec<u8>>, state: &Mutex<State>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        {
            let (asked, mut state) = (std::mem::take(&mut *asked.lock().expect("nobody panics with it")), held(state));
            let contains = |what: &Vec<u8>| asked.windows(what.len()).any(|part| part == what);
            if state.losing.as_ref().is_some_and(contains) {
                return;
            }
            state.answered.extend_from_slice(&piece[..bytes]);
        }
        if to.write_all(&piece[..bytes]).await.is_err() {
            return;
        }
    }
}
