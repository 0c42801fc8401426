//! Where the calls of a plugin run that took too long of late: one at a time, on a thread that everything else goes before.
//!
//! It knows no plugin. **Invariants:** whoever waits for a turn waits for a bounded time, in a line of bounded length; work
//! that was given up before its turn is not done; a worker of the async runtime that waits here is stood in for.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

/// Work in line.
const LINE_MAX: usize = 64;
/// Added to the thread's niceness: whatever else wants to run gets nine parts of ten (sched(7)).
const NICENESS: i32 = 10;

/// The highest niceness there is.
const NICENESS_MAX: i32 = 19;
/// Nanoseconds of a slice: the shortest that the kernel takes (sched_setattr(2)).
const SLICE_NS: u64 = 100_000;

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

type Work = Box<dyn FnOnce() + Send>;
type Ended<R> = Result<R, Box<dyn Any + Send>>;

/// A place in the line; given up when it goes.
struct Place(Arc<AtomicU8>);

impl Place {
    /// Moves on from waiting; false when that is over.
    fn turn(&self, next: u8) -> bool {
        self.0.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turn(GIVEN_UP);
    }
}

/// A thread of low priority and the line before it. The thread starts with the first work and ends with the lane, once it
/// has done what was in line.
#[derive(Debug)]
pub(super) struct Lane {
    name: &'static str,
    line: OnceLock<Option<SyncSender<Work>>>,
}

impl Lane {
    /// Returns a lane without a thread as yet.
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, line: OnceLock::new() }
    }

    /// Does work on the lane; none when its turn does not come within `wait`.
    pub(super) async fn run<R: Send + 'static>(&self, wait: Duration, work: impl FnOnce() -> R + Send + 'static) -> Option<R> {
        let (told, mut ended) = oneshot::channel();
        let place = self.enter(work, move |end| drop(told.send(end)))?;
        let end = match tokio::time::timeout(wait, &mut ended).await {
            Ok(end) => end.ok(),
            Err(_) if place.turn(GIVEN_UP) => None,
            Err(_) => ended.await.ok(),
        };
        end.map(answer)
    }

    /// As [`Lane::run`], for a thread that may sleep, or a worker of the async runtime whose tasks then go on elsewhere.
    pub(super) fn run_here<R: Send + 'static>(&self, wait: Duration, work: impl FnOnce() -> R + Send + 'static) -> Option<R> {
        let (told, ended) = sync_channel(1);
        let place = self.enter(work, move |end| drop(told.send(end)))?;
        let end = asleep(|| match ended.recv_timeout(wait) {
            Ok(end) => Some(end),
            Err(RecvTimeoutError::Timeout) if place.turn(GIVEN_UP) => None,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => ended.recv().ok(),
        });
        end.map(answer)
    }

    /// Puts work in line; none when the line is full, or there is no thread.
    fn enter<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
        tell: impl FnOnce(Ended<R>) + Send + 'static,
    ) -> Option<Place> {
        let state = Arc::new(AtomicU8::new(WAITING));
        let (place, turn) = (Place(Arc::clone(&state)), Place(state));
        let work = Box::new(move || {
            if turn.turn(BEGUN) {
                tell(catch_unwind(AssertUnwindSafe(work)));
            }
        });
        let line = self.line.get_or_init(|| start(self.name)).as_ref()?;
        line.try_send(work).ok().map(|()| place)
    }
}

fn answer<R>(end: Ended<R>) -> R {
    end.unwrap_or_else(|panic| resume_unwind(panic))
}

fn start(name: &'static str) -> Option<SyncSender<Work>> {
    let (line, work): (_, Receiver<Work>) = sync_channel(LINE_MAX);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        yield_to_others(NICENESS);
        work.into_iter().for_each(|work| work());
    });
    if let Err(error) = &thread {
        tracing::error!(%error, name, "there is no thread for slow plugins; their calls are refused");
    }
    thread.ok().map(|_| line)
}

/// Adds to the niceness of the calling thread, which never gets it back, and has it run for short slices: whoever wakes up beside it does
/// not wait for the end of a long one.
pub(super) fn yield_to_others(niceness: i32) {
    // On Linux it is each thread's own (setpriority(2), "C library/kernel differences").
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    if set_slice((own + niceness).min(NICENESS_MAX)).is_ok() {
        return;
    }
    if let Err(error) = rustix::process::nice(niceness) {
        tracing::warn!(%error, "a thread for slow work has the priority of any other");
    }
}

/// Sets niceness and slice of the calling thread. A kernel before 6.12 leaves the slice as it is.
#[expect(
    unsafe_code,
    reason = "no library wraps this call; the kernel reads the structure, whose size stands in it, and keeps nothing of it"
)]
fn set_slice(niceness: i32) -> io::Result<()> {
    let wish = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0),
        sched_policy: libc::SCHED_OTHER.unsigned_abs(),
        sched_flags: 0,
        sched_nice: niceness,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (this_thread, no_flags) = (0, 0);
    match unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const wish, no_flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the calling thread sleep: where it is a worker, others take its tasks over.
fn asleep<R>(sleep: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(sleep),
        Ok(_) | Err(_) => sleep(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn work_is_done_one_at_a_time_with_low_priority() {
        let lane = Lane::new("test-lane");
        let niceness = |who| rustix::process::getpriority_process(who).expect("a priority");
        let own = niceness(None);
        let on_lane = lane.run_here(LONG, move || niceness(None)).expect("a turn");
        assert_eq!(on_lane, (own + NICENESS).min(19));
        assert_eq!(niceness(None), own, "only the lane's thread yields");
    }

    #[test]
    fn a_turn_that_does_not_come_is_given_up_and_its_work_not_done() {
        let lane = Lane::new("test-lane");
        let (go, held) = channel::<()>();
        let (begun, has_begun) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lane.run_here(LONG, move || {
                    begun.send(()).expect("somebody waits");
                    held.recv().is_err()
                })
            });
            has_begun.recv().expect("it begins");
            let (done, was_done) = channel::<()>();
            assert_eq!(lane.run_here(Duration::from_millis(1), move || done.send(())), None);
            drop(go);
            assert_eq!(lane.run_here(LONG, || 7), Some(7));
            assert!(was_done.recv().is_err(), "dropped, not done");
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_full_line_is_an_answer_and_a_waiting_worker_is_stood_in_for() {
        let lane = Arc::new(Lane::new("test-lane"));
        let (go, held) = channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let first = Arc::clone(&lane);
        let holding = tokio::spawn(async move {
            let work = move || {
                let _gone = begun.send(());
                held.recv().is_err()
            };
            // On the runtime's only worker.
            first.run_here(LONG, work)
        });
        has_begun.await.expect("it begins");
        tokio::spawn(async {}).await.expect("another task runs meanwhile");
        let places: Vec<_> = (0..LINE_MAX).map(|_| lane.enter(|| (), |_| ()).expect("a place")).collect();
        assert_eq!(lane.run(LONG, || ()).await, None);
        drop((go, places));
        assert_eq!(holding.await.expect("no panic"), Some(true));
        // Those who gave up are passed over one by one, so the line may be full for a moment.
        while lane.run(LONG, || 7).await != Some(7) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_panic_is_the_callers() {
        let lane = Lane::new("test-lane");
        let panic = catch_unwind(AssertUnwindSafe(|| lane.run_here(LONG, || resume_unwind(Box::new("gone")))));
        assert!(panic.is_err());
        assert_eq!(lane.run_here(LONG, || 7), Some(7));
    }
}
