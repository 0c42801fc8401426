//! Bodies: those that come, whole or as a stream, within their limits, and those that go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use super::HttpLimits;
use super::depth::is_deeper;
use super::encode::{Coding, Sent, sent};
use crate::ports::endpoint::{BodyError, BodySource, EventSource};
use crate::ports::repository::ByteStream;

/// Bytes of a streamed answer that are sent at once.
const CHUNK_BYTES: usize = 32 << 10;
/// Compressed bytes that are expanded at once; at most a thousandfold.
const GUNZIP_STEP_BYTES: usize = 4 << 10;
/// Bytes of a body that is copied out of the connection's buffer.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// Milliseconds for reading away what is left of a refused request, so that the client reads the answer.
const DISCARD_MS: u64 = 2_000;
/// Bytes read away.
const DISCARD_BYTES_MAX: u64 = 64 << 20;

/// A request's body, to be read whole.
pub(super) struct WholeBody {
    incoming: Incoming,
    sent: Sent,
    bytes_max: usize,
    read_ms: u64,
    depth_max: usize,
}

impl WholeBody {
    /// Returns the body of a request with these headers, with its limits.
    pub(super) fn new(incoming: Incoming, headers: &HeaderMap, limits: &HttpLimits) -> Self {
        let (bytes_max, read_ms, depth_max) = (limits.body_bytes_max, limits.body_read_ms, limits.json_depth_max);
        Self { incoming, sent: sent(headers), bytes_max, read_ms, depth_max }
    }

    async fn collect(&mut self) -> Result<Bytes, BodyError> {
        let too_large = BodyError::TooLarge { limit_bytes: self.bytes_max };
        if self.incoming.size_hint().lower() > self.bytes_max as u64 {
            return Err(too_large);
        }
        let mut first = Bytes::new();
        // Most bodies come in one piece.
        let mut rest = BytesMut::new();
        while let Some(frame) = self.incoming.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if first.len().max(rest.len()) + data.len() > self.bytes_max {
                return Err(too_large);
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if rest.is_empty() {
                rest.reserve(first.len() + data.len() + self.incoming.size_hint().lower() as usize);
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        Ok(match (rest.is_empty(), first.len()) {
            (false, _) => rest.freeze(),
            // Else it would hold the whole of the connection's buffer for as long as its call waits.
            (true, ..=COPIED_BYTES_MAX) => Bytes::copy_from_slice(&first),
            (true, _) => first,
        })
    }

    /// Reads away what was not read: a client that is still sending would miss the answer.
    pub(super) async fn discard(&mut self) {
        if self.incoming.is_end_stream() {
            return;
        }
        let drain = async {
            let mut left = DISCARD_BYTES_MAX;
            while let Some(Ok(frame)) = self.incoming.frame().await {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > left {
                    return;
                }
                left -= bytes;
            }
        };
        // Bounded either way; the connection is closed when something is left.
        drop(tokio::time::timeout(Duration::from_millis(DISCARD_MS), drain).await);
    }
}

#[async_trait]
impl BodySource for WholeBody {
    async fn read_all(&mut self) -> Result<Bytes, BodyError> {
        if self.sent == Sent::Unknown {
            return Err(BodyError::UnknownEncoding);
        }
        let limit_ms = self.read_ms;
        let collected = tokio::time::timeout(Duration::from_millis(limit_ms), self.collect()).await;
        let mut body = collected.unwrap_or(Err(BodyError::TimedOut { limit_ms }))?;
        if let Sent::As(coding) = self.sent {
            body = expand(coding, body, self.bytes_max).await?;
        }
        if is_deeper(&body, self.depth_max) { Err(BodyError::TooDeep { limit: self.depth_max }) } else { Ok(body) }
    }
}

/// Decompresses a body where that holds nobody up: a few bytes may become many.
async fn expand(coding: Coding, body: Bytes, bytes_max: usize) -> Result<Bytes, BodyError> {
    let expanded = tokio::task::spawn_blocking(move || coding.expand(&body, bytes_max)).await;
    expanded.unwrap_or(Err(BodyError::Damaged))
}

/// A request's body as a stream, with a limit on its size and on each wait for the client.
pub(super) struct StreamedBody {
    incoming: Incoming,
    chunk: Bytes,
    left: u64,
    wait_ms: u64,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl StreamedBody {
    /// Returns the body with its limits.
    pub(super) fn new(incoming: Incoming, bytes_max: u64, wait_ms: u64) -> Self {
        Self { incoming, chunk: Bytes::new(), left: bytes_max, wait_ms, waiting: None }
    }

    /// Returns the next bytes, none at the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(Some(Ok(frame))) => {
                    self.waiting = None;
                    let Ok(data) = frame.into_data() else { continue };
                    if data.is_empty() {
                        continue;
                    }
                    self.left = match self.left.checked_sub(data.len() as u64) {
                        Some(left) => left,
                        None => return Poll::Ready(Err(too_large())),
                    };
                    return Poll::Ready(Ok(Some(data)));
                }
                Poll::Pending => {
                    let wait_ms = self.wait_ms;
                    let timer = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(wait_ms))));
                    ready!(timer.as_mut().poll(cx));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending")));
                }
            }
        }
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "the body is larger than the host takes")
}

/// Moves what fits from `chunk` to `buf`.
fn take(chunk: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let bytes = chunk.len().min(buf.remaining());
    buf.put_slice(&chunk[..bytes]);
    chunk.advance(bytes);
}

impl AsyncRead for StreamedBody {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() {
            match ready!(self.poll_chunk(cx))? {
                Some(chunk) => self.chunk = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        take(&mut self.chunk, buf);
        Poll::Ready(Ok(()))
    }
}

/// A gzip-compressed body, expanded as it is read, with a limit on what comes out.
pub(super) struct GunzippedBody {
    body: StreamedBody,
    compressed: Bytes,
    decoder: MultiGzDecoder<Vec<u8>>,
    expanded: Bytes,
    left: u64,
    ended: bool,
}

impl GunzippedBody {
    /// Returns the expanded body.
    pub(super) fn new(body: StreamedBody, bytes_max: u64) -> Self {
        let decoder = MultiGzDecoder::new(Vec::new());
        Self { body, compressed: Bytes::new(), decoder, expanded: Bytes::new(), left: bytes_max, ended: false }
    }

    fn poll_expand(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.expanded.is_empty() && !self.ended {
            if self.compressed.is_empty() {
                match ready!(self.body.poll_chunk(cx))? {
                    Some(chunk) => self.compressed = chunk,
                    None => {
                        self.decoder.try_finish()?;
                        self.ended = true;
                    }
                }
            }
            let step = self.compressed.split_to(self.compressed.len().min(GUNZIP_STEP_BYTES));
            io::Write::write_all(&mut self.decoder, &step)?;
            let out = std::mem::take(self.decoder.get_mut());
            self.left = self.left.checked_sub(out.len() as u64).ok_or_else(too_large)?;
            self.expanded = Bytes::from(out);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for GunzippedBody {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_expand(cx))?;
        take(&mut self.expanded, buf);
        Poll::Ready(Ok(()))
    }
}

/// A body that goes.
pub(super) enum ReplyBody {
    /// Known.
    Whole(Bytes),
    /// Read as it is sent.
    Stream {
        /// From where.
        from: ByteStream,
        /// What was read.
        buffer: BytesMut,
    },
    /// Pieces as they come.
    Events(Box<dyn EventSource>),
}

impl ReplyBody {
    /// Returns a known body.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }

    /// Returns a body read from a stream.
    pub(super) fn stream(from: ByteStream) -> Self {
        Self::Stream { from, buffer: BytesMut::new() }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Events(source) => Poll::Ready(ready!(source.poll_next(cx)).map(|piece| Ok(Frame::data(piece)))),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream { from, buffer } => {
                buffer.resize(CHUNK_BYTES, 0);
                let mut space = ReadBuf::new(buffer);
                ready!(from.as_mut().poll_read(cx, &mut space))?;
                let read = space.filled().len();
                if read == 0 {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(Frame::data(buffer.split_to(read).freeze()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream { .. } | Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream { .. } | Self::Events(_) => SizeHint::default(),
        }
    }
}
