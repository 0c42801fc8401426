//! The hints: who waits for which log. Must not know what happened, only that something did.
//!
//! **Invariant:** at most twice as many logs are remembered as are waited for (and [`SWEPT_MIN`]).

use std::collections::HashMap;

use parking_lot::Mutex;
use pointsman_core::ids::ProjectId;
use tokio::sync::watch;

/// Below so many remembered logs nobody sweeps.
const SWEPT_MIN: usize = 64;

/// Who waits.
#[derive(Debug)]
pub struct Wakers {
    logs: Mutex<Logs>,
    due: watch::Sender<u64>,
}

#[derive(Debug)]
struct Logs {
    by_project: HashMap<Option<ProjectId>, watch::Sender<u64>>,
    sweep_at: usize,
}

impl Default for Wakers {
    fn default() -> Self {
        Self { logs: Mutex::new(Logs { by_project: HashMap::new(), sweep_at: SWEPT_MIN }), due: watch::channel(0).0 }
    }
}

impl Wakers {
    /// Returns a receiver for a log.
    pub fn watch(&self, project: Option<ProjectId>) -> watch::Receiver<u64> {
        let mut logs = self.logs.lock();
        if logs.by_project.len() >= logs.sweep_at {
            logs.by_project.retain(|_, sender| sender.receiver_count() > 0);
            logs.sweep_at = SWEPT_MIN.max(2 * logs.by_project.len());
        }
        logs.by_project.entry(project).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Returns a receiver for due entries.
    pub fn watch_due(&self) -> watch::Receiver<u64> {
        self.due.subscribe()
    }

    /// Wakes who waits for a log; forgets a log nobody waits for.
    pub fn wake(&self, project: Option<ProjectId>) {
        let mut logs = self.logs.lock();
        let Some(sender) = logs.by_project.get(&project) else { return };
        if sender.receiver_count() == 0 {
            logs.by_project.remove(&project);
        } else {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Wakes everyone: what happened meanwhile is not known.
    pub fn wake_all(&self) {
        for sender in self.logs.lock().by_project.values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
        self.wake_due();
    }

    /// Wakes who waits for due entries.
    pub fn wake_due(&self) {
        self.due.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(number: u64) -> Option<ProjectId> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Some(ProjectId::from_bytes(bytes))
    }

    #[test]
    fn logs_nobody_waits_for_are_forgotten() {
        let wakers = Wakers::default();
        let mut kept = wakers.watch(None);
        for number in 0..10_000 {
            drop(wakers.watch(project(number)));
        }
        assert!(wakers.logs.lock().by_project.len() <= SWEPT_MIN);
        wakers.wake(None);
        assert!(kept.has_changed().expect("the sender lives"));
        kept.mark_unchanged();

        let dropped = wakers.watch(project(1));
        drop(dropped);
        wakers.wake(project(1));
        assert!(!wakers.logs.lock().by_project.contains_key(&project(1)));
        assert!(!kept.has_changed().expect("the sender lives"));
    }
}
