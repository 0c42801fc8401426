//! Transitions of deliveries as commits: acks, nacks, what comes back, what goes to the next.

use std::sync::atomic::{AtomicBool, Ordering};

use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{AgentId, MessageId, ProjectId};
use pointsman_core::inbox::{Cause, Command, Delivery, DeliveryState, InboxError, Transition, Try};
use pointsman_core::limits::{INBOX_DELIVERIES_MAX, SETTLED_PER_WAIT_MAX};
use pointsman_core::message::{Address, Message};
use serde_json::{Value, json};

use super::line::Lines;
use super::route::{Choice, Question};
use super::{Messaging, Nack, Named, NotSettled, Settled, delivery_due, delivery_key, ended_key, inbox, message_key, ready_key};
use crate::ports::store::{Commit, Committed, DueChange, Expect, StoreError, Version};
use crate::service::agents::{Board, Tally};
use crate::service::failure::Failure;
use crate::service::kit::{Acting, CommitExt, Loaded};

/// Entries that one hand-out looks at before it commits what it has.
const LOOKED_AT_MAX: usize = 256;

/// What a transition adds to its agent's tally.
fn tally(transition: &Transition) -> Tally {
    match transition {
        Transition::Acked => Tally { acked: 1, nacked: 0 },
        Transition::GivenBack { cause, .. } | Transition::PassedOn { cause, .. } | Transition::DeadLettered { cause, .. }
            if matches!(cause, Cause::Nacked | Cause::Lapsed) =>
        {
            Tally { acked: 0, nacked: 1 }
        }
        Transition::Unchanged
        | Transition::HandedOut { .. }
        | Transition::GivenBack { .. }
        | Transition::PassedOn { .. }
        | Transition::DeadLettered { .. }
        | Transition::Expired
        | Transition::Held { .. }
        | Transition::Ready => Tally::default(),
    }
}

fn given_back(cause: &Cause) -> &'static str {
    match cause {
        Cause::Nacked => "message.nacked",
        Cause::Lapsed => "message.lapsed",
        Cause::Unclaimed => "message.unclaimed",
        Cause::Recalled => "message.recalled",
    }
}

/// Returns the type and the particulars of a transition's event.
fn described(transition: &Transition) -> Option<(&'static str, Value)> {
    Some(match transition {
        Transition::Unchanged => return None,
        Transition::HandedOut { attempt, until } => ("message.handed_out", json!({"attempt": attempt, "until": until.to_rfc3339()})),
        Transition::Acked => ("message.acked", json!({})),
        Transition::GivenBack { cause, reason, ready_at } => {
            (given_back(cause), json!({"reason": reason, "ready_at": ready_at.to_rfc3339()}))
        }
        Transition::PassedOn { cause, reason, next } => (given_back(cause), json!({"reason": reason, "passed_to": next.agent})),
        Transition::DeadLettered { cause, reason } => ("message.dead_lettered", json!({"reason": reason, "cause": cause})),
        Transition::Expired => ("message.expired", json!({})),
        Transition::Held { behind } => ("message.held", json!({"behind": behind})),
        Transition::Ready => ("message.ready", json!({})),
    })
}

/// Who caused a transition.
pub(super) struct By<'a> {
    pub(super) actor: Actor,
    pub(super) trace: Option<&'a str>,
}

impl<'a> By<'a> {
    pub(super) fn agent(acting: &'a Acting) -> Self {
        Self { actor: acting.agent.actor(), trace: Some(&acting.trace) }
    }

    pub(super) fn host() -> Self {
        Self { actor: Actor::host(), trace: None }
    }
}

impl Messaging {
    /// Adds a transition to a commit: the delivery, its index entries, its due entry, its event. Returns what the tally gains.
    pub(super) fn stage_transition(
        &self,
        commit: &mut Commit,
        before: &Loaded<Delivery>,
        after: &Delivery,
        transition: &Transition,
        by: &By<'_>,
    ) -> Tally {
        let Some((kind, mut data)) = described(transition) else { return Tally::default() };
        let (agent, message) = (after.agent, after.message);
        let key = delivery_key(agent, message);
        if after.is_live() {
            commit.replace(key, Some(before.version), after);
        } else {
            commit.expects.push((key.clone(), Expect::Version(before.version)));
            commit.deletes.push(key);
            commit.put(ended_key(agent, message), after);
        }
        match (before.value.is_ready(), after.is_ready()) {
            (true, false) => commit.deletes.push(ready_key(after)),
            (false, true) => commit.put(ready_key(after), &Named(message)),
            _ => {}
        }
        let terms = self.terms();
        let name = delivery_due(agent, message);
        match (before.value.due_at(&terms), after.due_at(&terms)) {
            (old, Some(at)) if old != Some(at) => commit.due.push(DueChange::Set { name, at }),
            (Some(_), None) => commit.due.push(DueChange::Clear { name }),
            _ => {}
        }
        let mut concerned = vec![after];
        match transition {
            Transition::DeadLettered { .. } => commit.put(format!("dead/{message}/{agent}"), after),
            Transition::PassedOn { next, .. } => {
                self.stage_delivery(commit, next);
                concerned.push(next);
            }
            Transition::Unchanged
            | Transition::HandedOut { .. }
            | Transition::Acked
            | Transition::GivenBack { .. }
            | Transition::Expired
            | Transition::Held { .. }
            | Transition::Ready => {}
        }
        data["agent"] = json!(agent);
        data["attempts"] = json!(after.attempts);
        data["sender"] = json!(after.sender);
        data["ack_required"] = json!(after.ack_required);
        data["inbox"] = inbox(concerned);
        let mut event = NewEvent::new(kind, by.actor.clone(), message, data).caused_by(message);
        event.trace = by.trace.map(str::to_owned);
        commit.events.push(event);
        tally(transition)
    }

    /// Returns whether an agent has or had a delivery of a message.
    pub(super) async fn has_had(&self, project: ProjectId, agent: AgentId, message: MessageId) -> Result<bool, Failure> {
        let live = self.kit.store.get(Some(project), &delivery_key(agent, message)).await?;
        Ok(live.is_some() || self.kit.store.get(Some(project), &ended_key(agent, message)).await?.is_some())
    }

    /// Makes sure that the next candidate of a delivery that is given back can have it: routes again when there is none left.
    /// A new decision is recorded in the commit.
    pub(super) async fn find_next(&self, commit: &mut Commit, board: &Board, delivery: &mut Delivery, by: &By<'_>) -> Result<(), Failure> {
        let project = commit.project.unwrap_or(ProjectId::from_bytes([0; 16]));
        self.skip_served(project, board, delivery).await?;
        let is_over = delivery.attempts >= self.terms().attempts_max || delivery.expires_at.is_some_and(|end| end <= self.kit.now());
        if !delivery.rest.is_empty() || is_over {
            return Ok(());
        }
        let Some(Address::Capability(expr)) = delivery.via.clone() else { return Ok(()) };
        let Some(message) = self.kit.load::<Message>(Some(project), &message_key(delivery.message)).await? else { return Ok(()) };
        let mut refused = delivery.refused.clone();
        refused.push(delivery.agent);
        let mut except = Vec::new();
        except.extend(message.value.from.agent);
        let routers = self.routers(&message.value).await?;
        let question = Question {
            message: &message.value,
            expr: &expr,
            routers: &routers,
            attempts: delivery.attempts,
            refused: &refused,
            except: &except,
        };
        let decision = self.choose(&board.roster(), &question);
        let (Choice::Ranked(chosen) | Choice::All(chosen)) = &decision.choice else { return Ok(()) };
        let has_room = |agent: AgentId| usize::try_from(board.load(agent)).is_ok_and(|load| load < INBOX_DELIVERIES_MAX);
        delivery.rest = chosen.iter().copied().filter(|agent| !refused.contains(agent) && has_room(*agent)).collect();
        self.skip_served(project, board, delivery).await?;
        if delivery.rest.is_empty() {
            return Ok(());
        }
        let mut data = decision.data();
        data["address"] = json!(delivery.via);
        data["rest"] = json!(delivery.rest);
        data["attempt"] = json!(delivery.attempts);
        data["sender"] = json!(delivery.sender);
        data["inbox"] = json!({});
        let mut event = NewEvent::new("message.routed", Actor::host(), delivery.message, data).caused_by(delivery.message);
        event.trace = by.trace.map(str::to_owned);
        commit.events.push(event);
        Ok(())
    }

    /// Takes those off the list who are gone, or had the message before.
    async fn skip_served(&self, project: ProjectId, board: &Board, delivery: &mut Delivery) -> Result<(), Failure> {
        while let Some(&next) = delivery.rest.first() {
            if board.agent(next).is_some() && !self.has_had(project, next, delivery.message).await? {
                break;
            }
            delivery.rest.remove(0);
        }
        Ok(())
    }

    /// Acks and gives back what an agent was handed. What does not fit is named in the answer; the rest is done, in one
    /// commit. Repeating it changes nothing.
    ///
    /// # Errors
    /// `too_many`, or [`Failure`].
    pub async fn settle(&self, acting: &Acting, ack: &[MessageId], nack: &[Nack]) -> Result<Settled, Failure> {
        let count = ack.len() + nack.len();
        if count > SETTLED_PER_WAIT_MAX {
            let why = format!("{count} acks and nacks at once, at most {SETTLED_PER_WAIT_MAX} are allowed");
            return Err(Failure::refused("too_many", why, "Send them in several calls."));
        }
        let mut commands: Vec<(MessageId, Option<&Nack>)> = Vec::new();
        let mut clashes = Vec::new();
        for (message, given_back) in ack.iter().map(|&id| (id, None)).chain(nack.iter().map(|nack| (nack.message, Some(nack)))) {
            match commands.iter().find(|(known, _)| *known == message) {
                None => commands.push((message, given_back)),
                Some((_, first)) if first.is_none() && given_back.is_some() => clashes.push(NotSettled {
                    message,
                    code: "contradiction".to_owned(),
                    why: format!("{message} is both acked and given back; it was acked"),
                }),
                Some(_) => {}
            }
        }
        let mut settled = self.decide_some(acting.project, |commit| self.decide_settle(acting, &commands, commit)).await?;
        settled.refused.extend(clashes);
        Ok(settled)
    }

    async fn decide_settle(
        &self,
        acting: &Acting,
        commands: &[(MessageId, Option<&Nack>)],
        mut commit: Commit,
    ) -> Result<(Commit, Settled), Failure> {
        let mut settled = Settled::default();
        let mut gained = Tally::default();
        let mut lines = Lines::default();
        let by = By::agent(acting);
        for &(message, nack) in commands {
            let found = self.load_delivery(acting.project, acting.agent.id, message).await?;
            let Some(before) = found else {
                settled.refused.push(self.not_there(acting, message).await?);
                continue;
            };
            let mut after = before.value.clone();
            if nack.is_some() && matches!(after.state, DeliveryState::Leased { .. }) {
                let board = self.agents.board(acting.project).await?;
                self.find_next(&mut commit, &board, &mut after, &by).await?;
            }
            match after.apply(self.kit.now(), &self.terms(), self.command(acting.agent.id, nack)) {
                Ok(transition) => {
                    let more = self.stage_step(&mut commit, &mut lines, &before, &after, &transition, &by).await?;
                    gained = Tally { acked: gained.acked + more.acked, nacked: gained.nacked + more.nacked };
                    if nack.is_some() { settled.nacked += 1 } else { settled.acked += 1 }
                }
                Err(error) => settled.refused.push(refused(message, &error)),
            }
        }
        self.close(&mut commit, lines).await?;
        Tally::raise(&self.kit, &mut commit, acting.agent.id, gained).await?;
        Ok((commit, settled))
    }

    /// Adds what an agent did with one delivery, an ack or the nack, to a commit under way, which settles no other one of
    /// that agent.
    ///
    /// # Errors
    /// `not_found`, `not_holder`, `not_handed_out`, `ended`.
    pub(in crate::service) async fn stage_settled(
        &self,
        commit: &mut Commit,
        acting: &Acting,
        message: MessageId,
        nack: Option<&Nack>,
    ) -> Result<(), Failure> {
        let unfit = |code: &'static str, why: String| Failure::refused(code, why, "Nothing is to be done: somebody else has it.");
        let Some(before) = self.load_delivery(acting.project, acting.agent.id, message).await? else {
            return Err(unfit("not_found", format!("{message} is not with {}", acting.agent.name)));
        };
        let by = By::agent(acting);
        let mut after = before.value.clone();
        if nack.is_some() && matches!(after.state, DeliveryState::Leased { .. }) {
            let board = self.agents.board(acting.project).await?;
            self.find_next(commit, &board, &mut after, &by).await?;
        }
        let command = self.command(acting.agent.id, nack);
        let transition = after.apply(self.kit.now(), &self.terms(), command).map_err(|error| unfit(code(&error), error.to_string()))?;
        if transition == Transition::Unchanged {
            return Err(unfit("ended", format!("{message} was settled before")));
        }
        let mut lines = Lines::default();
        let gained = self.stage_step(commit, &mut lines, &before, &after, &transition, &by).await?;
        self.close(commit, lines).await?;
        Tally::raise(&self.kit, commit, acting.agent.id, gained).await
    }

    fn command(&self, by: AgentId, nack: Option<&Nack>) -> Command {
        match nack {
            None => Command::Ack { by },
            Some(nack) => Command::Nack {
                by,
                delay_ms: nack.delay_s.map(|seconds| seconds.saturating_mul(1_000)),
                reason: if nack.reason.trim().is_empty() { "no reason given".to_owned() } else { nack.reason.chars().take(500).collect() },
                random: self.random(),
            },
        }
    }

    /// Returns an agent's delivery of a message, live or ended. The version is that of a live one.
    async fn load_delivery(&self, project: ProjectId, agent: AgentId, message: MessageId) -> Result<Option<Loaded<Delivery>>, Failure> {
        match self.kit.load(Some(project), &delivery_key(agent, message)).await? {
            Some(live) => Ok(Some(live)),
            None => self.kit.load(Some(project), &ended_key(agent, message)).await,
        }
    }

    async fn not_there(&self, acting: &Acting, message: MessageId) -> Result<NotSettled, Failure> {
        let known = self.kit.store.get(Some(acting.project), &message_key(message)).await?.is_some();
        let (code, why) = if known {
            ("not_holder", format!("{message} was not delivered to {}", acting.agent.name))
        } else {
            ("not_found", format!("there is no message {message}"))
        };
        Ok(NotSettled { message, code: code.to_owned(), why })
    }

    /// Gives an agent back what it was handed and has not acked, for when it lost that. Returns how many.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn recall(&self, acting: &Acting, tried: Try) -> Result<u32, Failure> {
        let (project, agent) = (acting.project, acting.agent.id);
        let leased = self.agents.board(project).await?.leased(agent);
        let by = &By::agent(acting);
        let mut recalled = 0;
        for chunk in leased.chunks(SETTLED_PER_WAIT_MAX) {
            recalled += self
                .decide_some(project, |mut commit| async move {
                    let mut count = 0;
                    let mut lines = Lines::default();
                    for &message in chunk {
                        let Some(before) = self.kit.load::<Delivery>(Some(project), &delivery_key(agent, message)).await? else { continue };
                        let mut after = before.value.clone();
                        if let Ok(transition) = after.apply(self.kit.now(), &self.terms(), Command::Recall(tried)) {
                            count += u32::from(transition != Transition::Unchanged);
                            self.stage_step(&mut commit, &mut lines, &before, &after, &transition, by).await?;
                        }
                    }
                    self.close(&mut commit, lines).await?;
                    Ok((commit, count))
                })
                .await?;
        }
        Ok(recalled)
    }

    /// Decides and commits like [`crate::service::kit::Kit::decide`], but commits nothing where nothing changes.
    pub(super) async fn decide_some<T, F>(&self, project: ProjectId, decide: impl Fn(Commit) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<(Commit, T), Failure>>,
    {
        let mut last = String::new();
        for _ in 0..super::DECISIONS_MAX {
            let (commit, answer) = decide(Commit { project: Some(project), ..Commit::default() }).await?;
            if commit.events.is_empty() && commit.puts.is_empty() && commit.deletes.is_empty() && commit.due.is_empty() {
                return Ok(answer);
            }
            match self.kit.store.commit(commit).await {
                Ok(Committed::Done { .. } | Committed::Replayed(_) | Committed::Kept) => return Ok(answer),
                Err(StoreError::Stale { key } | StoreError::Fenced { key }) => last = key,
                Err(other) => return Err(other.into()),
            }
        }
        Err(Failure::Contended { key: last, tries: super::DECISIONS_MAX })
    }

    /// Works off a delivery whose time has come.
    pub(super) async fn handle_delivery(&self, project: ProjectId, agent: AgentId, message: MessageId) -> Result<(), Failure> {
        let name = &delivery_due(agent, message);
        self.decide_some(project, |mut commit| async move {
            let Some(before) = self.kit.load::<Delivery>(Some(project), &delivery_key(agent, message)).await? else {
                commit.due.push(DueChange::Clear { name: name.clone() });
                return Ok((commit, ()));
            };
            let by = By::host();
            let mut after = before.value.clone();
            let lapses = matches!(after.state, DeliveryState::Leased { until, .. } if until <= self.kit.now());
            let board = self.agents.board(project).await?;
            if lapses {
                self.find_next(&mut commit, &board, &mut after, &by).await?;
            } else {
                self.skip_served(project, &board, &mut after).await?;
            }
            let transition = after.apply(self.kit.now(), &self.terms(), Command::Due).map_err(|error| self.unfit(&error))?;
            if transition == Transition::Unchanged {
                self.put_off(&mut commit, name, &before, after);
                return Ok((commit, ()));
            }
            let mut lines = Lines::default();
            let gained = self.stage_step(&mut commit, &mut lines, &before, &after, &transition, &by).await?;
            self.close(&mut commit, lines).await?;
            Tally::raise(&self.kit, &mut commit, agent, gained).await?;
            Ok((commit, ()))
        })
        .await
    }

    /// Moves a due entry that came too early; a shortened list of candidates is kept.
    fn put_off(&self, commit: &mut Commit, name: &str, before: &Loaded<Delivery>, after: Delivery) {
        if after != before.value {
            commit.replace(delivery_key(after.agent, after.message), Some::<Version>(before.version), &after);
        }
        commit.due.push(match after.due_at(&self.terms()) {
            Some(at) => DueChange::Set { name: name.to_owned(), at },
            None => DueChange::Clear { name: name.to_owned() },
        });
    }

    fn unfit(&self, error: &InboxError) -> Failure {
        Failure::refused("wrong_state", error.to_string(), "Nothing is to be done.")
    }

    /// Hands out the ready deliveries of an agent, the first `limit` of them that nothing of their thread stands before, with their
    /// messages.
    pub(in crate::service) async fn hand_out(&self, acting: &Acting, limit: usize) -> Result<Vec<super::Handed>, Failure> {
        // The board may be a commit behind: what it says is relied on once, then read.
        let trusts_board = AtomicBool::new(true);
        loop {
            let decide = |commit| self.decide_hand_out(acting, limit, trusts_board.swap(false, Ordering::Relaxed), commit);
            let (handed, more) = self.decide_some(acting.project, decide).await?;
            if !handed.is_empty() || !more {
                return Ok(handed);
            }
        }
    }

    /// Each one that has to wait behind another is held: it is met here once, not by every wait until then.
    async fn decide_hand_out(
        &self,
        acting: &Acting,
        limit: usize,
        trusts_board: bool,
        mut commit: Commit,
    ) -> Result<(Commit, (Vec<super::Handed>, bool)), Failure> {
        let (project, agent) = (acting.project, acting.agent.id);
        let is_moving = trusts_board && self.agents.board(project).await?.still(agent) == 0;
        let mut lines = if is_moving { Lines::empty() } else { Lines::default() };
        let mut handed = Vec::new();
        let (mut from, mut looked_at) = (String::new(), 0);
        let more = loop {
            let page = self.kit.store.range(Some(project), &super::ready_prefix(agent), &from, limit - handed.len()).await?;
            looked_at += page.entries.len();
            for (key, entry) in page.entries {
                let Named(id) = pointsman_core::value::decode(&entry.bytes)?;
                handed.extend(self.stage_hand_out(&mut commit, &mut lines, acting, key, id).await?);
            }
            match page.next {
                Some(next) if handed.len() < limit && looked_at < LOOKED_AT_MAX => from = next,
                next => break next.is_some(),
            }
        };
        self.close(&mut commit, lines).await?;
        Ok((commit, (handed, more)))
    }

    /// Adds the handing out of one delivery to a commit, or its being held.
    async fn stage_hand_out(
        &self,
        commit: &mut Commit,
        lines: &mut Lines,
        acting: &Acting,
        key: String,
        id: MessageId,
    ) -> Result<Option<super::Handed>, Failure> {
        let (project, agent) = (acting.project, acting.agent.id);
        let found = self.kit.load::<Delivery>(Some(project), &delivery_key(agent, id)).await?;
        let before = match found {
            Some(before) if before.value.is_ready() => before,
            // An entry that leads to nothing, as long as it does.
            other => {
                let version = other.map_or(Expect::Absent, |other| Expect::Version(other.version));
                commit.expects.push((delivery_key(agent, id), version));
                commit.deletes.push(key);
                return Ok(None);
            }
        };
        let behind = match before.value.thread {
            Some(thread) => self.line(Some(project), lines, agent, thread).await?.before(&before.value),
            None => None,
        };
        let (command, by) = match behind {
            Some(behind) => (Command::Hold { behind }, By::host()),
            None => (Command::HandOut, By::agent(acting)),
        };
        let mut after = before.value.clone();
        let Ok(transition) = after.apply(self.kit.now(), &self.terms(), command) else { return Ok(None) };
        self.stage_step(commit, lines, &before, &after, &transition, &by).await?;
        if key != ready_key(&after) {
            commit.deletes.push(key);
        }
        let Transition::HandedOut { attempt, until } = transition else { return Ok(None) };
        Ok(Some(super::Handed { message: self.message(project, id).await?, attempt, lease_until: until }))
    }
}

fn code(error: &InboxError) -> &'static str {
    match error {
        InboxError::NotHolder { .. } => "not_holder",
        InboxError::NotHandedOut { .. } => "not_handed_out",
        InboxError::Ended { .. } => "ended",
    }
}

fn refused(message: MessageId, error: &InboxError) -> NotSettled {
    NotSettled { message, code: code(error).to_owned(), why: error.to_string() }
}
