//! The one thread that writes: drains the queue, judges a group, syncs once, answers all, wakes.
//!
//! **Invariant:** nobody is answered before the group is durable, refused ones included: their refusal may rest on it.
//! **Invariant:** after a write of unknown outcome nothing is judged any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pointsman_core::limits::IDEMPOTENCY_KEPT_MS;
use pointsman_core::time::TimeMs;
use tokio::sync::{mpsc, oneshot};

use super::disk::DiskError;
use super::group::{Group, Verdict, Written};
use super::keys::{self, Last};
use super::{Core, RETRY_BROKEN_MS, RETRY_FULL_MS, unavailable};
use crate::ports::causes::chain;
use crate::ports::store::{Commit, StoreError};

/// Commits of one group.
const GROUP_COMMITS_MAX: usize = 256;
/// Bytes of one group, its last member aside.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Commits of a group after which the next one gathers for a moment: many write at once, and each sync less is time for all of them.
/// Who writes alone never waits for others (PostgreSQL's `commit_delay` and `commit_siblings`).
const GATHERING_COMMITS_MIN: usize = 4;
/// How long it gathers: less than a sync takes.
const GATHERING: Duration = Duration::from_micros(100);
/// Bytes of commits that wait.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Lapsed idempotency records removed with one group: more than one group can add.
const COLLECTED_MAX: usize = 2 * GROUP_COMMITS_MAX;

/// A commit that waits, and who waits for it.
struct Job {
    commit: Commit,
    bytes: usize,
    answer: oneshot::Sender<Verdict>,
}

/// The way to the writer.
pub(super) struct Queue {
    jobs: RwLock<Option<mpsc::Sender<Job>>>,
    queued_bytes: Arc<AtomicUsize>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Queue {
    /// Starts the writer.
    pub(super) fn start(core: Arc<Core>, last: Last, commits_queued_max: usize) -> std::io::Result<Self> {
        let (sender, jobs) = mpsc::channel(commits_queued_max.max(1));
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let writer =
            Writer { core, last, queued_bytes: Arc::clone(&queued_bytes), collect_from: keys::call_ages().0, collect_at: TimeMs(i64::MIN) };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run(jobs))?;
        Ok(Self { jobs: RwLock::new(Some(sender)), queued_bytes, thread: Mutex::new(Some(thread)) })
    }

    /// Hands a commit to the writer.
    ///
    /// # Errors
    /// `Unavailable` when the queue is full or closed: the commit will not happen.
    pub(super) fn push(&self, commit: Commit, bytes: usize) -> Result<oneshot::Receiver<Verdict>, StoreError> {
        let full = || unavailable(RETRY_FULL_MS, "too many commits wait".to_owned());
        let add = |queued: usize| (queued + bytes <= QUEUED_BYTES_MAX).then_some(queued + bytes);
        self.queued_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).map_err(|_| full())?;
        let (answer, answered) = oneshot::channel();
        let sent = match &*self.jobs.read() {
            Some(jobs) => jobs.try_send(Job { commit, bytes, answer }).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => full(),
                mpsc::error::TrySendError::Closed(_) => unavailable(RETRY_BROKEN_MS, "the store's writer has ended".to_owned()),
            }),
            None => Err(unavailable(RETRY_BROKEN_MS, "the store is closed".to_owned())),
        };
        sent.inspect_err(|_| {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        })?;
        Ok(answered)
    }

    /// Says whether commits are taken.
    pub(super) fn is_open(&self) -> bool {
        self.jobs.read().as_ref().is_some_and(|jobs| !jobs.is_closed())
    }

    /// Takes no more commits; the ones that wait are written. Returns the thread to join, once.
    pub(super) fn close(&self) -> Option<std::thread::JoinHandle<()>> {
        self.jobs.write().take();
        self.thread.lock().take()
    }
}

struct Writer {
    core: Arc<Core>,
    last: Last,
    queued_bytes: Arc<AtomicUsize>,
    /// Where the list of idempotency records by age starts.
    collect_from: Vec<u8>,
    /// Nothing is to be collected earlier.
    collect_at: TimeMs,
}

/// Tells the health that the writer panicked: a bug, after which nothing may be judged.
struct BreakOnPanic<'a>(&'a Core);

impl Drop for BreakOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.health.break_down("the store's writer panicked".to_owned());
        }
    }
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let core = Arc::clone(&self.core);
        let _guard = BreakOnPanic(&core);
        let mut last_commits = 0;
        while let Some(first) = jobs.blocking_recv() {
            if last_commits >= GATHERING_COMMITS_MIN {
                std::thread::park_timeout(GATHERING);
            }
            let (mut commits, mut answers, mut group_bytes) = (Vec::new(), Vec::new(), 0);
            let mut next = Some(first);
            while let Some(job) = next {
                self.queued_bytes.fetch_sub(job.bytes, Ordering::AcqRel);
                group_bytes += job.bytes;
                commits.push(job.commit);
                answers.push(job.answer);
                let more = commits.len() < GROUP_COMMITS_MAX && group_bytes < GROUP_BYTES_MAX;
                next = more.then(|| jobs.try_recv().ok()).flatten();
            }
            last_commits = commits.len();
            self.turn(commits, answers);
        }
    }

    fn turn(&mut self, commits: Vec<Commit>, answers: Vec<oneshot::Sender<Verdict>>) {
        let written = match self.core.health.check() {
            Ok(()) => self.write(commits).map_err(|error| {
                let why = chain(&error);
                tracing::error!(error = %why, "the store failed to write and takes no more commits until it is reopened");
                self.core.health.break_down(why.clone());
                unavailable(RETRY_BROKEN_MS, why)
            }),
            Err(broken) => Err(broken),
        };
        match written {
            Ok((verdicts, written)) => {
                for (answer, verdict) in answers.into_iter().zip(verdicts) {
                    // Whoever no longer waits reads on, or repeats the call.
                    let _ = answer.send(verdict);
                }
                if let Some(written) = written {
                    self.wake(written);
                }
            }
            Err(broken) => {
                for answer in answers {
                    let _ = answer.send(Err(broken.clone()));
                }
            }
        }
    }

    fn write(&mut self, commits: Vec<Commit>) -> Result<(Vec<Verdict>, Option<Effects>), DiskError> {
        let core = &*self.core;
        let mut group = Group::new(&core.disk, core.epoch, self.last);
        let verdicts = commits.into_iter().map(|commit| group.judge(commit, core.clock.now())).collect::<Result<Vec<_>, _>>()?;
        if group.accepted() == 0 {
            return Ok((verdicts, None));
        }
        let now = core.clock.now();
        if self.collect_at <= now {
            let (reached, next) = group.collect(&self.collect_from, now, COLLECTED_MAX)?;
            self.collect_from = reached;
            self.collect_at = next.unwrap_or(now + IDEMPOTENCY_KEPT_MS);
        }
        let written = group.commit()?;
        self.last = written.last;
        core.disk.mark_answered(written.last.version);
        core.heads.lock().extend(written.logs.iter().map(|(project, cursor)| (*project, *cursor)));
        let due_earlier = self.follow_due(&written)?;
        Ok((verdicts, Some(Effects { written, due_earlier })))
    }

    /// Finds the next due entry again. Before the one known, and the ones set since, there is none to look for.
    fn follow_due(&self, written: &Written) -> Result<bool, DiskError> {
        if !written.due.any {
            return Ok(false);
        }
        let core = &*self.core;
        let before = *core.next_due.lock();
        let set = written.due.earliest_set;
        let next = match before.into_iter().chain(set).min() {
            Some(from) => core.first_due(from)?,
            None => None,
        };
        *core.next_due.lock() = next;
        Ok(set.is_some_and(|set| before.is_none_or(|before| set <= before)))
    }

    fn wake(&self, effects: Effects) {
        for project in effects.written.logs.into_keys() {
            self.core.wakers.wake(project);
        }
        if effects.due_earlier {
            self.core.wakers.wake_due();
        }
    }
}

struct Effects {
    written: Written,
    due_earlier: bool,
}

impl Core {
    /// Returns when the first entry due at `from` or later is due.
    pub(super) fn first_due(&self, from: TimeMs) -> Result<Option<TimeMs>, DiskError> {
        let mut entries = self.disk.records.range(keys::due_from(from)..keys::due_until(TimeMs(i64::MAX)));
        entries.next().map(|entry| keys::due_of(&entry.key()?).map(|(at, ..)| at)).transpose()
    }
}
