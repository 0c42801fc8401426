//! The semaphore in front of a plugin: so many calls at once, and a bounded wait for one's turn.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// A plugin's slots.
#[derive(Debug)]
pub(super) struct Slots(Arc<Semaphore>);

impl Slots {
    /// Returns so many slots.
    pub(super) fn new(concurrency_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(concurrency_max)))
    }

    /// Takes a slot on the calling thread, which sleeps for at most `wait`. None when there is none.
    pub(super) fn take_here(&self, wait: Duration) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.0.try_acquire() {
            return Some(permit);
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut turn = pin!(self.0.acquire());
        let mut context = Context::from_waker(&waker);
        if let Poll::Ready(permit) = turn.as_mut().poll(&mut context) {
            return permit.ok();
        }
        std::thread::park_timeout(wait);
        match turn.as_mut().poll(&mut context) {
            Poll::Ready(permit) => permit.ok(),
            Poll::Pending => None,
        }
    }

    /// Takes a slot, waiting for at most `wait`. None when there is none.
    pub(super) async fn take(&self, wait: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.0).try_acquire_owned() {
            return Some(permit);
        }
        tokio::time::timeout(wait, Arc::clone(&self.0).acquire_owned()).await.ok()?.ok()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_waited_for_but_not_for_ever() {
        let slots = Slots::new(1);
        let held = slots.take_here(Duration::ZERO).expect("free");
        assert!(slots.take_here(Duration::from_millis(1)).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.take_here(Duration::from_secs(60)).is_some());
            drop(held);
            assert!(waiting.join().expect("no panic"));
        });
    }
}
