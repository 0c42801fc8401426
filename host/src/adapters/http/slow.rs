//! Clients that do not read: a write that makes no progress ends the connection.
//!
//! Must not know what is written. **Invariant:** no timer runs while nothing waits to be written, so an idle stream may stay.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Seconds of silence after which the system asks whether the other end is still there.
const KEEPALIVE_S: u64 = 60;
/// Seconds between two such questions.
const KEEPALIVE_EVERY_S: u64 = 15;

/// Tells the system how to treat a connection: small writes leave at once, and one whose other end is gone without a word
/// is given up within `write_ms` of something unacknowledged.
///
/// # Errors
/// The connection is gone already.
pub(super) fn prepare(stream: &TcpStream, write_ms: u64) -> io::Result<()> {
    // Answers leave in one or two small segments: without this they wait for the client's delayed acknowledgement.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(KEEPALIVE_S)).with_interval(Duration::from_secs(KEEPALIVE_EVERY_S));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_millis(write_ms)))?;
    Ok(())
}

/// A connection whose writes must make progress.
pub(super) struct Paced<S> {
    inner: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    /// Returns the connection with its limit.
    pub(super) fn new(inner: S, write_ms: u64) -> Self {
        Self { inner, limit: Duration::from_millis(write_ms), stalled: None }
    }

    fn pace<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let limit = self.limit;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.pace(cx, polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.pace(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.pace(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.pace(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Milliseconds a client may stop reading, in these tests of paused time.
    const LIMIT_MS: u64 = 1_000;

    fn pair() -> (Paced<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(16);
        (Paced::new(near, LIMIT_MS), far)
    }

    /// Paused time is a feature that the product does not link, so that real time passes here, a second of it.
    #[tokio::test]
    async fn who_stops_reading_is_given_up() {
        let (mut near, mut far) = pair();
        let error = near.write_all(&[1; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut read = [0; 16];
        far.read_exact(&mut read).await.expect("what was written is there");
    }

    #[tokio::test]
    async fn who_reads_slowly_but_on_is_served() {
        let (mut near, mut far) = pair();
        let (written, read) = tokio::join!(near.write_all(&[1; 256]), async {
            let mut all = [0; 256];
            far.read_exact(&mut all).await.map(|_| all)
        });
        assert!(written.is_ok() && near.stalled.is_none());
        assert_eq!(read.expect("all of it"), [1; 256]);
    }
}
