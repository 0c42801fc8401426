//! Standard input as lines, standard output as lines, each in a thread of its own: a read that blocks must not keep the program.
//!
//! Must not know JSON. **Invariants:** a line is read whole or reported as too long, and never held beyond its bound; lines are written
//! whole, in the order in which they were given.

use std::io::{BufRead, BufReader, Read, Write};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes of a line.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;
/// Lines that were read and wait to be taken.
const READ_MAX: usize = 4;
/// Lines that wait to be written.
const WAITING_MAX: usize = 64;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its end.
    Whole(Bytes),
    /// It had more than the bound.
    TooLong,
}

struct Lines<R> {
    input: BufReader<R>,
    bytes_max: usize,
}

impl<R: Read> Lines<R> {
    fn new(input: R, bytes_max: usize) -> Self {
        Self { input: BufReader::with_capacity(64 << 10, input), bytes_max }
    }

    /// Returns the next line that is not empty; none at the end. A last line may lack its end.
    fn next(&mut self) -> std::io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut is_skipping = false;
        loop {
            let there = self.input.fill_buf()?;
            let at_end = there.is_empty();
            let end = there.iter().position(|byte| *byte == b'\n');
            let piece = end.unwrap_or(there.len());
            if line.len() + piece > self.bytes_max {
                is_skipping = true;
                line = Vec::new();
            }
            if !is_skipping {
                line.extend_from_slice(&there[..piece]);
            }
            self.input.consume(piece + usize::from(end.is_some()));
            if end.is_none() && !at_end {
                continue;
            }
            if std::mem::take(&mut is_skipping) {
                return Ok(Some(Line::TooLong));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(Line::Whole(line.into())));
            }
            if at_end {
                return Ok(None);
            }
            line.clear();
        }
    }
}

/// Returns the lines of an input, as a thread reads them. They end with the input.
pub(super) fn read(input: impl Read + Send + 'static, bytes_max: usize) -> mpsc::Receiver<Line> {
    let (lines, taken) = mpsc::channel(READ_MAX);
    std::thread::spawn(move || {
        let mut input = Lines::new(input, bytes_max);
        // An input that cannot be read any more has ended.
        while let Ok(Some(line)) = input.next() {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    taken
}

/// Where lines are given to be written.
#[derive(Debug, Clone)]
pub(super) struct Output {
    lines: mpsc::Sender<Bytes>,
}

/// The thread that writes; it ends when the last [`Output`] is gone, or nobody reads.
pub(super) type Writer = std::thread::JoinHandle<std::io::Result<()>>;

impl Output {
    /// Returns where lines are given, and the thread that writes them.
    pub(super) fn to(out: impl Write + Send + 'static) -> (Self, Writer) {
        let (lines, waiting) = mpsc::channel(WAITING_MAX);
        (Self { lines }, std::thread::spawn(move || write(waiting, out)))
    }

    /// Gives a line, its end included. It is lost when nobody reads any more.
    pub(super) async fn write(&self, line: Bytes) {
        drop(self.lines.send(line).await);
    }

    /// Returns when nobody reads any more.
    pub(super) async fn closed(&self) {
        self.lines.closed().await;
    }
}

fn write(mut waiting: mpsc::Receiver<Bytes>, mut out: impl Write) -> std::io::Result<()> {
    while let Some(line) = waiting.blocking_recv() {
        out.write_all(&line)?;
        if waiting.is_empty() {
            out.flush()?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], bytes_max: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, bytes_max);
        std::iter::from_fn(|| lines.next().expect("a slice can be read")).collect()
    }

    #[test]
    fn lines_are_whole_or_too_long() {
        let whole = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
        assert_eq!(all(b"one\n\r\n\ntwo\r\nlast", 5), [whole("one"), whole("two\r"), whole("last")]);
        assert_eq!(all(b"12345\n123456\n1\n123456", 5), [whole("12345"), Line::TooLong, whole("1"), Line::TooLong]);
        assert_eq!(all(b"", 5), []);
        assert_eq!(all(&vec![b'x'; 1 << 20], 1 << 19), [Line::TooLong]);
    }

    #[tokio::test]
    async fn lines_are_written_in_order() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let (output, writer) = Output::to(file.reopen().expect("opened again"));
        for line in ["a\n", "b\n"] {
            output.write(Bytes::from_static(line.as_bytes())).await;
        }
        drop(output);
        writer.join().expect("the thread ends").expect("a file takes all");
        assert_eq!(std::fs::read_to_string(file.path()).expect("read"), "a\nb\n");
    }
}
