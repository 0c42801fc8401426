//! What this host has committed lately, synced to its own disk before it is answered: what Redis loses at a failover, or with the
//! tail of a file, is handed in again from here.
//!
//! ```text
//! FOLDER/host              the host's name among the others, made once
//! FOLDER/lock              held by the host that writes
//! FOLDER/epoch             the last epoch that the host joined
//! FOLDER/0000000001.log    records: bytes (u32), the first 8 bytes of BLAKE3 over the payload, the payload
//! ```
//! A record that is not whole ends its file: nothing behind it was answered.
//!
//! **Invariants:** an append is answered after its sync, in the order of the appends; files beyond [`FILES_MAX`] go, the oldest
//! first, so what is kept is bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::entry::{Entry, Place};

/// Bytes after which a file is full.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that are kept.
const FILES_MAX: usize = 8;
/// Bytes before the payload of a record.
const HEAD: usize = 12;

type Told = Box<dyn FnOnce(bool) + Send>;

enum Work {
    Append { records: Vec<u8>, told: Told },
    Read { reply: oneshot::Sender<io::Result<Vec<(Place, Entry)>>> },
}

/// The journal.
pub(super) struct Journal {
    /// Held as long as the journal is open: two hosts cannot write one.
    _lock: File,
    folder: PathBuf,
    host: String,
    epoch: AtomicU64,
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Journal {
    /// Opens the journal in a folder, which is made where it is missing; a new one is of a host of this name.
    pub(super) fn open(folder: &Path, new_name: &str) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
        lock.try_lock().map_err(|error| io::Error::other(format!("another host has it: {error}")))?;
        let host = text(&folder.join("host"), new_name)?;
        let epoch = text(&folder.join("epoch"), "0")?.parse().map_err(io::Error::other)?;
        let files = Files::open(folder)?;
        let (work, queue) = channel();
        let thread = std::thread::Builder::new().name("redis-journal".to_owned()).spawn(move || run(files, &queue))?;
        Ok(Self { _lock: lock, folder: folder.to_owned(), host, epoch: AtomicU64::new(epoch), work: Some(work), thread: Some(thread) })
    }

    /// Returns the host's name.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the last epoch that the host joined; 0: none.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Notes that the host joined an epoch: all that it did in earlier ones is there.
    pub(super) fn joined(&self, epoch: u64) -> io::Result<()> {
        if self.epoch() != epoch {
            write_text(&self.folder.join("epoch"), &epoch.to_string())?;
            self.epoch.store(epoch, Ordering::Release);
        }
        Ok(())
    }

    /// Appends what was done, and tells when it is synced, or that it could not be.
    pub(super) fn append(&self, done: &[(Place, Entry)], told: impl FnOnce(bool) + Send + 'static) {
        let mut records = Vec::with_capacity(done.iter().map(|(_, entry)| entry.bytes() + 256).sum());
        for (place, entry) in done {
            frame(*place, entry, &mut records);
        }
        let work = self.work.as_ref().expect("it is taken at the drop only");
        if let Err(unsent) = work.send(Work::Append { records, told: Box::new(told) })
            && let Work::Append { told, .. } = unsent.0
        {
            told(false);
        }
    }

    /// Returns everything that is kept, the oldest first.
    pub(super) async fn read(&self) -> io::Result<Vec<(Place, Entry)>> {
        let (reply, answer) = oneshot::channel();
        let work = self.work.as_ref().expect("it is taken at the drop only");
        let gone = || io::Error::other("the journal's thread is gone");
        work.send(Work::Read { reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Returns the text of a file, which is written where it is missing.
fn text(path: &Path, new: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => write_text(path, new),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_text(path, new),
        Err(error) => Err(error),
    }
}

/// Writes a file as a whole: a half-written one is never read.
fn write_text(path: &Path, text: &str) -> io::Result<String> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(text.to_owned())
}

fn run(mut files: Files, queue: &Receiver<Work>) {
    while let Ok(first) = queue.recv() {
        let mut told: Vec<Told> = Vec::new();
        let mut records = Vec::new();
        let mut readers = Vec::new();
        for work in std::iter::once(first).chain(queue.try_iter()) {
            match work {
                Work::Append { records: more, told: one } => {
                    records.extend(more);
                    told.push(one);
                }
                Work::Read { reply } => readers.push(reply),
            }
        }
        let written = if records.is_empty() { Ok(()) } else { files.append(&records) };
        if let Err(error) = &written {
            tracing::error!(%error, "the journal beside Redis cannot be written");
        }
        told.into_iter().for_each(|told| told(written.is_ok()));
        for reply in readers {
            // Whoever asked may be gone.
            let _ = reply.send(files.read());
        }
    }
}

/// The files of a journal.
struct Files {
    folder: PathBuf,
    /// Their numbers, the last one is written to.
    numbers: Vec<u64>,
    file: File,
    bytes: u64,
}

impl Files {
    fn open(folder: &Path) -> io::Result<Self> {
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        // What the last run left may end in half a record: a new file is begun.
        let number = numbers.last().map_or(1, |last| last + 1);
        numbers.push(number);
        let mut files = Self { folder: folder.to_owned(), file: create(folder, number)?, numbers, bytes: 0 };
        files.forget()?;
        Ok(files)
    }

    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if self.bytes >= FILE_BYTES_MAX {
            let number = self.numbers.last().map_or(1, |last| last + 1);
            self.file = create(&self.folder, number)?;
            self.numbers.push(number);
            self.bytes = 0;
            self.forget()?;
        }
        let written = self.file.write_all(records).and_then(|()| self.file.sync_data());
        match &written {
            Ok(()) => self.bytes += u64::try_from(records.len()).unwrap_or(u64::MAX),
            // What stands there now is not known: the next append begins a file.
            Err(_) => self.bytes = FILE_BYTES_MAX,
        }
        written
    }

    fn forget(&mut self) -> io::Result<()> {
        while self.numbers.len() > FILES_MAX {
            fs::remove_file(path(&self.folder, self.numbers[0]))?;
            self.numbers.remove(0);
        }
        Ok(())
    }

    fn read(&self) -> io::Result<Vec<(Place, Entry)>> {
        let mut entries = Vec::new();
        for number in &self.numbers {
            let bytes = fs::read(path(&self.folder, *number))?;
            entries.extend(unframe(&bytes).0);
        }
        Ok(entries)
    }
}

/// Writes a record: an entry behind its length and the digest of both its place and itself.
pub(super) fn frame(place: Place, entry: &Entry, records: &mut Vec<u8>) {
    let at = records.len();
    records.extend([0; HEAD]);
    entry.write(place, records);
    let (head, payload) = records[at..].split_at_mut(HEAD);
    head[..4].copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    head[4..].copy_from_slice(&blake3::hash(payload).as_bytes()[..8]);
}

/// Returns the records up to the first that is not whole, and the bytes that they take.
pub(super) fn unframe(bytes: &[u8]) -> (Vec<(Place, Entry)>, usize) {
    let (mut entries, mut rest) = (Vec::new(), bytes);
    while let Some((head, behind)) = rest.split_at_checked(HEAD) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let Some((payload, behind)) = usize::try_from(length).ok().and_then(|length| behind.split_at_checked(length)) else { break };
        if blake3::hash(payload).as_bytes()[..8] != head[4..] {
            break;
        }
        let Some(entry) = Entry::read(payload) else {
            tracing::error!("a record beside Redis is of a form that this host does not know");
            break;
        };
        entries.push(entry);
        rest = behind;
    }
    (entries, bytes.len() - rest.len())
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.log"))
}

fn create(folder: &Path, number: u64) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path(folder, number))?;
    // The file's name has to be on disk, too.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use pointsman_core::time::TimeMs;

    use super::*;

    fn entry(text: &str) -> Entry {
        Entry { space: "host".to_owned(), call: String::new(), call_key: String::new(), only_adds: true, lists: vec![text.into()] }
    }

    fn place(version: u64) -> Place {
        Place { epoch: 1, version, seq: version, at: TimeMs(5) }
    }

    async fn append(journal: &Journal, version: u64) -> bool {
        let (told, hears) = oneshot::channel();
        journal.append(&[(place(version), entry("text"))], move |is_synced| {
            let _ = told.send(is_synced);
        });
        hears.await.expect("it tells")
    }

    async fn versions(journal: &Journal) -> Vec<u64> {
        journal.read().await.expect("it is read").into_iter().map(|(place, _)| place.version).collect()
    }

    #[tokio::test]
    async fn what_was_synced_is_read_back_and_a_half_record_ends_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path(), "first").expect("it opens");
        assert!(append(&journal, 1).await && append(&journal, 2).await);
        assert_eq!((versions(&journal).await, journal.host()), (vec![1, 2], "first"));
        drop(journal);
        let file = path(folder.path(), 1);
        let bytes = fs::read(&file).expect("it is there");
        fs::write(&file, &bytes[..bytes.len() - 3]).expect("it is cut");
        let journal = Journal::open(folder.path(), "second").expect("it opens again");
        assert!(append(&journal, 3).await);
        assert_eq!((versions(&journal).await, journal.host()), (vec![1, 3], "first"));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        for version in 1..=12 {
            assert!(append(&Journal::open(folder.path(), "host").expect("it opens"), version).await);
        }
        let journal = Journal::open(folder.path(), "host").expect("it opens");
        assert_eq!(versions(&journal).await, [6, 7, 8, 9, 10, 11, 12]);
    }
}
