//! A wire between a host and a server that can be cut.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A wire to a server: a port that forwards to it.
pub(super) struct Wire {
    port: u16,
    server: u16,
    running: Option<Running>,
}

struct Running {
    accepting: JoinHandle<()>,
    carried: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Wire {
    pub(super) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("an address").port();
        let mut wire = Self { port, server, running: None };
        wire.run(listener);
        wire
    }

    fn run(&mut self, listener: TcpListener) {
        let (server, carried) = (self.server, Arc::new(Mutex::new(Vec::new())));
        let all = Arc::clone(&carried);
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                all.lock().push(tokio::spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(("127.0.0.1", server)).await {
                        // Either end may go at any time.
                        let _ = copy_bidirectional(&mut client, &mut there).await;
                    }
                }));
            }
        });
        self.running = Some(Running { accepting, carried });
    }

    /// Cuts all connections, and lets none come.
    pub(super) async fn cut(&mut self) {
        let Some(Running { accepting, carried }) = self.running.take() else { return };
        accepting.abort();
        let _ = accepting.await;
        carried.lock().drain(..).for_each(|carried| carried.abort());
    }

    /// Cuts all connections, and lets those that come lead to another server.
    pub(super) async fn lead_to(&mut self, server: u16) {
        self.cut().await;
        self.server = server;
        self.mend().await;
    }

    /// Lets connections come again.
    pub(super) async fn mend(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port is free again");
        self.run(listener);
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
