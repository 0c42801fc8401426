//! The waker of an idle session: waits in the background, and ends with exit code 2 when there is something to come for.
//!
//! What it must remember between two turns stands in a file of the session: who waits now, so that an older waker gives way, and which
//! messages the session was woken for, so that it is woken once for each try of each.
//!
//! **Invariants:** of the wakers of one session only the newest wakes it; what was told is not told again; nothing is written to
//! standard error but what wakes, unless nothing does; it ends with the client.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::{HookArgs, Said};
use crate::cli::inbox::{Happened, Inbox, Seen, Unseen, note};
use crate::cli::{Trouble, write_atomically};
use crate::config::Environment;

/// Where Claude Code says how it was started, and what it says of a single run (`claude -p`): that waits for its hooks, also for those
/// in the background, so it would last as long as its waker (seen with 2.1.197).
const STARTED_AS: (&str, &str) = ("CLAUDE_CODE_ENTRYPOINT", "sdk-cli");
/// What wakes Claude Code.
const WAKE: u8 = 2;
/// Seconds of one look; after each it is seen whether anybody is left to wake.
const LOOK_S: u64 = 15;
/// Milliseconds an answer may take: somewhat more than a look.
const ANSWER_MS: u64 = 30_000;
/// Milliseconds for which a host that was never reached is tried: a restart, its plugins compiled anew.
const FIRST_MS: u64 = 45_000;
/// Milliseconds a waker waits at the most.
const WAIT_MS: u64 = 24 * 3_600_000;
/// Milliseconds without anything new after which a burst counts as one.
const SETTLE_MS: u64 = 300;
/// Times that a burst is given to settle.
const SETTLES_MAX: u32 = 10;
/// Milliseconds between two tries to reach a host that is away.
const PAUSE_MS: u64 = 1_000;
/// Seconds after which a session that nobody ended is forgotten.
const FORGOTTEN_S: u64 = 7 * 24 * 3_600;

/// What stands in a session's file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Note {
    /// The process that waits.
    waker: u32,
    /// Messages the session was woken for that still waited then, each with its try.
    told: BTreeSet<String>,
}

/// A session's file; without a place for it nothing is remembered.
struct Session(Option<PathBuf>);

impl Session {
    fn of(environment: &Environment, said: &Said) -> Self {
        let digest = blake3::hash(said.session().as_bytes()).to_hex();
        Self(environment.cache_dir().map(|folder| folder.join("wakers").join(format!("{}.json", &digest[..32]))))
    }

    fn read(&self) -> Note {
        let text = self.0.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Writes a note; returns the session, without a file when none can be written: what it is told then may be told twice.
    fn noted(self, note: &Note) -> Self {
        let (Some(file), Ok(text)) = (&self.0, serde_json::to_string(note)) else { return Self(None) };
        if write_atomically(file, &text).is_ok() { self } else { Self(None) }
    }

    /// Returns whether this process is the session's newest waker.
    fn is_ours(&self) -> bool {
        self.0.is_none() || self.read().waker == std::process::id()
    }

    /// Takes away what sessions left that nobody ended.
    fn sweep(&self) {
        let Some(folder) = self.0.as_deref().and_then(Path::parent) else { return };
        let Ok(files) = std::fs::read_dir(folder) else { return };
        for file in files.flatten() {
            let age = file.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age.as_secs() > FORGOTTEN_S) {
                drop(std::fs::remove_file(file.path()));
            }
        }
    }
}

/// Forgets a session that ended; its waker gives way.
pub(super) fn forget(environment: &Environment, said: &Said) {
    if let Some(file) = Session::of(environment, said).0 {
        // None is there when it never went idle.
        drop(std::fs::remove_file(file));
    }
}

/// Waits for something to wake the session for.
pub(super) async fn wait(environment: &Environment, args: &HookArgs, said: &Said) -> Result<ExitCode, Trouble> {
    let inbox = args.inbox.open(environment, ANSWER_MS)?;
    let session = Session::of(environment, said);
    session.sweep();
    let told = session.read().told;
    let session = session.noted(&Note { waker: std::process::id(), told: told.clone() });
    let mut waker = Waker { inbox, session, client: std::os::unix::process::parent_id(), happened: Happened::default() };
    let is_single_run = environment.get(STARTED_AS.0) == Some(STARTED_AS.1);
    let Some(seen) = waker.first(if is_single_run { 0 } else { FIRST_MS }).await? else { return Ok(ExitCode::SUCCESS) };
    waker.happened.take_in(seen);
    let mut is_news = tries(&waker.happened.waiting).difference(&told).next().is_some();
    let until = Instant::now() + Duration::from_millis(WAIT_MS);
    while Instant::now() < until {
        if is_news {
            waker.settle().await?;
            if waker.happened.unread > 0 || !waker.happened.events.is_empty() {
                return Ok(waker.wake());
            }
            waker.happened.told();
        }
        if is_single_run {
            break;
        }
        match waker.look(LOOK_S).await? {
            Some(news) => is_news = news,
            None => return Ok(ExitCode::SUCCESS),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns what tells the tries of waiting messages apart.
fn tries(waiting: &[Value]) -> BTreeSet<String> {
    waiting.iter().map(|one| format!("{}/{}", one["id"].as_str().unwrap_or_default(), one["attempt"])).collect()
}

struct Waker {
    inbox: Inbox,
    session: Session,
    /// The process that started this one.
    client: u32,
    happened: Happened,
}

impl Waker {
    /// Returns whether there is a session left for this waker to wake.
    fn is_wanted(&self) -> bool {
        self.session.is_ours() && std::os::unix::process::parent_id() == self.client
    }

    /// Looks what waits now, for as long as that may take; none: nobody can be reached, or is left to be woken.
    async fn first(&mut self, tried_ms: u64) -> Result<Option<Seen>, Trouble> {
        let until = Instant::now() + Duration::from_millis(tried_ms);
        loop {
            match self.inbox.peek(None, 0, &[]).await {
                Ok(seen) => return Ok(Some(seen)),
                Err(unseen @ Unseen::Away { .. }) if Instant::now() >= until => {
                    note("hook", &format!("{}; nothing wakes this session until its next turn ends", unseen.line()));
                    return Ok(None);
                }
                Err(unseen) => self.rest(unseen).await?,
            }
            if !self.is_wanted() || tried_ms == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits for anything new, however long the host is away; none: nobody is left to be woken.
    async fn look(&mut self, max_s: u64) -> Result<Option<bool>, Trouble> {
        loop {
            if !self.is_wanted() {
                return Ok(None);
            }
            match self.inbox.peek(self.happened.cursor.as_deref(), max_s, &[]).await {
                Ok(seen) => return Ok(Some(self.happened.take_in(seen))),
                Err(unseen) => self.rest(unseen).await?,
            }
        }
    }

    async fn rest(&self, unseen: Unseen) -> Result<(), Trouble> {
        match unseen {
            Unseen::Refused { why, advice } => Err(Trouble::failed(format!("{why}; {advice}"))),
            Unseen::Away { .. } | Unseen::NotStarted { .. } => {
                tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
                Ok(())
            }
        }
    }

    async fn settle(&mut self) -> Result<(), Trouble> {
        for _ in 0..SETTLES_MAX {
            tokio::time::sleep(Duration::from_millis(SETTLE_MS)).await;
            if self.look(0).await? != Some(true) {
                break;
            }
        }
        Ok(())
    }

    /// Wakes the session, unless a newer waker does.
    fn wake(self) -> ExitCode {
        if !self.is_wanted() {
            return ExitCode::SUCCESS;
        }
        self.session.noted(&Note { waker: 0, told: tries(&self.happened.waiting) });
        // The client shows the model what stands on standard error.
        eprintln!("{}", self.happened.says());
        ExitCode::from(WAKE)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_session_remembers_whom_it_waits_by_and_what_it_was_told() {
        let home = tempfile::tempdir().expect("a folder");
        let environment = Environment::of(&[("HOME", &home.path().to_string_lossy())], home.path());
        let said = Said(json!({"session_id": "s"}));
        let session = Session::of(&environment, &said);
        assert_eq!(session.read(), Note::default());
        let told = tries(&[json!({"id": "msg_1", "attempt": 1})]);
        let session = session.noted(&Note { waker: std::process::id(), told: told.clone() });
        assert!(session.is_ours());
        session.sweep();
        assert_eq!(session.read().told, told, "what is young stays");
        let again = tries(&[json!({"id": "msg_1", "attempt": 2})]);
        assert_eq!(again.difference(&told).count(), 1, "another try of it is news");
        forget(&environment, &said);
        assert!(!session.is_ours(), "its waker gives way");
        assert!(!Session::of(&environment, &Said(json!({"session_id": "t"}))).is_ours());
        let homeless = Session::of(&Environment::of(&[], home.path()), &said).noted(&Note::default());
        assert!(homeless.is_ours(), "without a place to remember it waits all the same");
    }
}
