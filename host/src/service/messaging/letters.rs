//! Dead letters of a project: listed, looked into, revived, purged.
//!
//! ```text
//! dead/<message>/<agent>       the dead letter; its agent's fin/ entry stands beside it
//! revived: dead/ and fin/ go, dlv/ and rdy/ come, in one commit: it is the same delivery, live again
//! routed anew: as above for the heir; the fin/ entry of whoever had it last says to whom it was passed on
//! purged:  dead/ goes, fin/ stays until the message is pruned, so that the agent is never given it a second time
//! ```
//!
//! **Invariant:** who has an entry below `dead/` has one below `fin/` and none below `dlv/`; a second revival or purge meets no
//! entry and changes nothing.

use pointsman_core::dead_letter::{Heir, LetterError, Revived, revive};
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{AgentId, MessageId, ProjectId};
use pointsman_core::inbox::{Delivery, DeliveryState};
use pointsman_core::limits::INBOX_DELIVERIES_MAX;
use pointsman_core::message::{Address, Message};
use pointsman_core::time::TimeMs;
use serde_json::{Value, json};

use super::figures::Counted;
use super::route::{Choice, Question};
use super::{Messaging, Named, delivery_due, delivery_key, ended_key, inbox, ready_key};
use crate::ports::letters::{LetterEnd, LetterEvent, LetterVerb, ReplayTo};
use crate::ports::store::{Commit, DueChange, Expect};
use crate::service::agents::Board;
use crate::service::failure::Failure;
use crate::service::kit::{CommitExt, Loaded};

/// Where dead letters stand.
pub(super) const LETTERS: &str = "dead/";
/// Dead letters looked at for one page.
const SCANNED_MAX: usize = 2_000;
/// Entries read at once.
const PAGE_ENTRIES: usize = 256;
/// Events read at once.
const PAGE_EVENTS: usize = 512;
/// Events looked through for what became of one message.
const HISTORY_SCANNED_MAX: usize = 200_000;
/// Events of one message that are told.
const HISTORY_MAX: usize = 1_000;

pub(super) fn letter_key(message: MessageId, agent: AgentId) -> String {
    format!("{LETTERS}{message}/{agent}")
}

/// Which dead letters of a project.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// Of this agent.
    pub agent: Option<AgentId>,
    /// Of messages of this kind.
    pub kind: Option<String>,
    /// Given up then or before.
    pub until: Option<TimeMs>,
    /// Of this message.
    pub message: Option<MessageId>,
}

/// A dead letter with its message.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The delivery that was given up.
    pub delivery: Delivery,
    /// When.
    pub dead_at: TimeMs,
    /// What the last try ended with.
    pub reason: String,
    /// What was to be delivered.
    pub message: Message,
}

/// One page of a project's dead letters.
#[derive(Debug, Clone, Default)]
pub struct Letters {
    /// The oldest message first.
    pub letters: Vec<Letter>,
    /// Where the next page starts; none: this was the last.
    pub next: Option<String>,
}

/// What becomes of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterChange {
    /// In a word.
    pub end: LetterEnd,
    /// Who has it now.
    pub to: Option<AgentId>,
    /// Why it is as before.
    pub why: Option<String>,
}

impl LetterChange {
    fn unchanged(why: impl Into<String>) -> Self {
        Self { end: LetterEnd::Unchanged, to: None, why: Some(why.into()) }
    }

    fn refused(why: impl Into<String>) -> Self {
        Self { end: LetterEnd::Refused, to: None, why: Some(why.into()) }
    }
}

/// Who gets a letter, as it was decided.
struct Heirs {
    agent: AgentId,
    rest: Vec<AgentId>,
    had: Option<Loaded<Delivery>>,
}

impl Messaging {
    /// Returns dead letters of a project from a place on, at most `limit`. Looks at a bounded number of them, so that a page may be
    /// short and not the last.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn letters(&self, project: ProjectId, filter: &LetterFilter, from: &str, limit: usize) -> Result<Letters, Failure> {
        let prefix = filter.message.map_or_else(|| LETTERS.to_owned(), |message| format!("{LETTERS}{message}/"));
        let (mut found, mut scanned, mut from) = (Vec::new(), 0, from.to_owned());
        loop {
            let page = self.kit.store.range(Some(project), &prefix, &from, PAGE_ENTRIES).await?;
            for (key, entry) in page.entries {
                if found.len() >= limit || scanned >= SCANNED_MAX {
                    return Ok(Letters { letters: found, next: Some(key) });
                }
                scanned += 1;
                let delivery: Delivery = pointsman_core::value::decode(&entry.bytes)?;
                found.extend(self.letter_of(project, filter, delivery).await?);
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(Letters { letters: found, next: None }),
            }
        }
    }

    async fn letter_of(&self, project: ProjectId, filter: &LetterFilter, delivery: Delivery) -> Result<Option<Letter>, Failure> {
        let DeliveryState::DeadLettered { at: dead_at, reason } = delivery.state.clone() else { return Ok(None) };
        let fits = filter.agent.is_none_or(|agent| agent == delivery.agent) && filter.until.is_none_or(|until| dead_at <= until);
        if !fits {
            return Ok(None);
        }
        let message = match self.message(project, delivery.message).await {
            Ok(message) => message,
            // Pruned between the two reads.
            Err(Failure::Refused(_)) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let is_kind = filter.kind.as_ref().is_none_or(|kind| *kind == message.kind);
        Ok(is_kind.then_some(Letter { delivery, dead_at, reason, message }))
    }

    /// Counts the dead letters of a project, up to `limit`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn count_letters(&self, project: ProjectId, limit: usize) -> Result<usize, Failure> {
        let (mut count, mut from) = (0, String::new());
        loop {
            let page = self.kit.store.range(Some(project), LETTERS, &from, limit - count).await?;
            count += page.entries.len();
            match page.next {
                Some(next) if count < limit => from = next,
                _ => return Ok(count),
            }
        }
    }

    /// Returns what the log says of a message, the oldest first, and whether it was read to its end.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn history(&self, message: &Message) -> Result<(Vec<LetterEvent>, bool), Failure> {
        let project = message.project;
        let board = self.agents.board(project).await?;
        let subject = message.id.to_string();
        let mut after = self.cursor_at(project, message.sent_at).await?;
        let (mut told, mut scanned) = (Vec::new(), 0);
        loop {
            let page = self.kit.store.events(Some(project), after, PAGE_EVENTS).await?;
            let Some(last) = page.last() else { return Ok((told, true)) };
            after = last.cursor;
            scanned += page.len();
            for event in page.into_iter().filter(|event| event.event.subject == subject) {
                let data = &event.event.data;
                let agent = data.get("agent").and_then(Value::as_str).and_then(|id| id.parse::<AgentId>().ok());
                told.push(LetterEvent {
                    at: event.at,
                    kind: event.event.kind.clone(),
                    by: event.event.actor.name.clone(),
                    agent: agent.map(|agent| name_of(&board, agent)),
                    attempt: ["attempt", "attempts"].iter().find_map(|field| data.get(*field)?.as_u64()),
                    reason: data.get("reason").and_then(Value::as_str).map(str::to_owned),
                });
            }
            if scanned >= HISTORY_SCANNED_MAX || told.len() >= HISTORY_MAX {
                return Ok((told, false));
            }
        }
    }

    /// Delivers a dead letter again, or takes it off the list. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Failure`]; what does not fit is said in the answer.
    pub async fn change_letter(
        &self,
        project: ProjectId,
        message: MessageId,
        agent: AgentId,
        verb: LetterVerb,
    ) -> Result<LetterChange, Failure> {
        let changed = self
            .decide_some(project, |mut commit| async move {
                let key = letter_key(message, agent);
                let Some(letter) = self.kit.load::<Delivery>(Some(project), &key).await? else {
                    return Ok((commit, LetterChange::unchanged("it is no dead letter any more")));
                };
                commit.expects.push((key.clone(), Expect::Version(letter.version)));
                commit.deletes.push(key);
                match verb {
                    LetterVerb::Purge => {
                        commit.events.push(ended("message.purged", &letter.value, json!({})));
                        Ok((commit, LetterChange { end: LetterEnd::Purged, to: None, why: None }))
                    }
                    LetterVerb::Replay(to) => self.decide_revival(commit, &letter.value, to).await,
                }
            })
            .await?;
        match changed.end {
            LetterEnd::Revived => self.figures.add(Counted::Revived, 1),
            LetterEnd::Purged => self.figures.add(Counted::Purged, 1),
            LetterEnd::Unchanged | LetterEnd::Refused => {}
        }
        Ok(changed)
    }

    async fn decide_revival(&self, mut commit: Commit, letter: &Delivery, to: ReplayTo) -> Result<(Commit, LetterChange), Failure> {
        let project = commit.project.unwrap_or(ProjectId::from_bytes([0; 16]));
        let nothing = |change| (Commit { project: Some(project), ..Commit::default() }, change);
        let message = match self.message(project, letter.message).await {
            Ok(message) => message,
            Err(Failure::Refused(refusal)) => return Ok(nothing(LetterChange::refused(refusal.why))),
            Err(failure) => return Err(failure),
        };
        let own_key = ended_key(letter.agent, letter.message);
        let Some(own) = self.kit.load::<Delivery>(Some(project), &own_key).await? else {
            return Ok(nothing(LetterChange::unchanged("it is no dead letter any more")));
        };
        let board = self.agents.board(project).await?;
        let heirs = match to {
            ReplayTo::Same => None,
            ReplayTo::Anew => match self.heirs(&board, letter, &message).await? {
                Ok(heirs) => heirs,
                Err(why) => return Ok(nothing(LetterChange::refused(why))),
            },
        };
        let heir = heirs.as_ref().map_or(Heir::Same, |heirs| Heir::Routed {
            agent: heirs.agent,
            rest: &heirs.rest,
            had: heirs.had.as_ref().map(|had| &had.value),
        });
        let Revived { live, left } = match revive(letter, self.kit.now(), heir) {
            Ok(revived) => revived,
            Err(error @ LetterError::NotDead { .. }) => return Ok(nothing(LetterChange::unchanged(error.to_string()))),
            Err(error @ (LetterError::Over { .. } | LetterError::Served { .. })) => {
                return Ok(nothing(LetterChange::refused(error.to_string())));
            }
        };
        if usize::try_from(board.load(live.agent)).is_ok_and(|load| load >= INBOX_DELIVERIES_MAX) {
            return Ok(nothing(LetterChange::refused(format!("the inbox of `{}` is full", name_of(&board, live.agent)))));
        }
        commit.expects.push((own_key.clone(), Expect::Version(own.version)));
        match &left {
            Some(left) => commit.put(own_key, left),
            None => commit.deletes.push(own_key),
        }
        self.stage_revived(&mut commit, &live, heirs.as_ref().filter(|_| left.is_some()));
        let data = json!({
            "from": letter.agent, "kind": message.kind, "attempts_before": letter.attempts, "inbox": inbox([&live]),
            "reason": if left.is_some() { "routed anew" } else { "to the same agent" },
        });
        commit.events.push(ended("message.revived", &live, data));
        Ok((commit, LetterChange { end: LetterEnd::Revived, to: Some(live.agent), why: None }))
    }

    /// Adds a delivery that lives again to a commit: in the place of the heir's ended one, where it had one.
    fn stage_revived(&self, commit: &mut Commit, live: &Delivery, heirs: Option<&Heirs>) {
        match heirs {
            Some(Heirs { had: None, .. }) => self.stage_delivery(commit, live),
            Some(Heirs { had: Some(had), .. }) => {
                let key = ended_key(live.agent, live.message);
                commit.expects.push((key.clone(), Expect::Version(had.version)));
                commit.deletes.push(key);
                self.stage_live(commit, live);
            }
            None => self.stage_live(commit, live),
        }
    }

    fn stage_live(&self, commit: &mut Commit, live: &Delivery) {
        commit.replace(delivery_key(live.agent, live.message), None, live);
        commit.put(ready_key(live), &Named(live.message));
        if let Some(at) = live.due_at(&self.terms()) {
            commit.due.push(DueChange::Set { name: delivery_due(live.agent, live.message), at });
        }
    }

    /// Decides who gets a letter that is routed anew: the first of those chosen now that can have it. None: it goes to the agent
    /// its sender named. An error says why nobody can.
    async fn heirs(&self, board: &Board, letter: &Delivery, message: &Message) -> Result<Result<Option<Heirs>, String>, Failure> {
        let Some(Address::Capability(expr)) = &letter.via else { return Ok(Ok(None)) };
        let except: Vec<AgentId> = message.from.agent.into_iter().collect();
        let routers = self.routers(message).await?;
        let question = Question { message, expr, routers: &routers, attempts: 0, refused: &[], except: &except };
        let decision = self.choose(&board.roster(), &question);
        let (Choice::Ranked(chosen) | Choice::All(chosen)) = &decision.choice else {
            return Ok(Err(format!("nobody gets it: {}", decision.reason)));
        };
        for (i, &agent) in chosen.iter().enumerate() {
            let rest = chosen[i + 1..].to_vec();
            if agent == letter.agent {
                return Ok(Ok(Some(Heirs { agent, rest, had: None })));
            }
            if self.kit.store.get(Some(message.project), &delivery_key(agent, message.id)).await?.is_some() {
                continue;
            }
            let had = self.kit.load::<Delivery>(Some(message.project), &ended_key(agent, message.id)).await?;
            if Heir::may_be(had.as_ref().map(|had| &had.value)) {
                return Ok(Ok(Some(Heirs { agent, rest, had })));
            }
        }
        Ok(Err("all whom it is routed to had it before".to_owned()))
    }
}

/// Returns an agent's name, or its id when nobody knows it.
pub(super) fn name_of(board: &Board, agent: AgentId) -> String {
    board.agent(agent).map_or_else(|| agent.to_string(), |agent| agent.name.clone())
}

/// Returns the event of an operator's act on a delivery.
fn ended(kind: &str, delivery: &Delivery, mut data: Value) -> NewEvent {
    data["agent"] = json!(delivery.agent);
    data["attempts"] = json!(delivery.attempts);
    data["sender"] = json!(delivery.sender);
    data["ack_required"] = json!(delivery.ack_required);
    NewEvent::new(kind, Actor::host(), delivery.message, data).caused_by(delivery.message)
}
