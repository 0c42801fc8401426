//! Sending: a request becomes a message, its addresses become deliveries, all of it one commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_core::agent::AgentRecord;
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{AgentId, MessageId, ProjectId, ThreadId};
use pointsman_core::inbox::{Delivery, Place};
use pointsman_core::limits::{
    DEFERRED_RETRY_MS, INBOX_DELIVERIES_MAX, INBOX_FULL_RETRY_MS, MESSAGE_EXPIRY_S_MAX, MESSAGES_PER_SEND_MAX, RECIPIENTS_MAX,
};
use pointsman_core::message::{Address, Message, MessageError, PRIORITY_NORMAL, SenderContext, lower_headers};
use pointsman_core::task::Task;
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::route::{Choice, Decision, Question};
use super::{
    BatchReceipt, DUE, HostMessage, KIND_DEFAULT, Messaging, NotRouted, NotRoutedCode, REVIEW_REQUEST, Routed, SendBatch, SendReceipt,
    SendRequest, fit_line, inbox, message_key, stage_message,
};
use crate::ports::store::{Commit, Committed, DueChange, WhenAway};
use crate::service::agents::{AWAY_RETRY_MS, Board};
use crate::service::claims::holding;
use crate::service::failure::{Failure, Refusal};
use crate::service::kit::{Acting, CommitExt, Kit, Loaded, Once, check_idempotency_key};
use crate::service::tasks::task_key;

/// Where deferred messages stand.
pub(super) const DEFERRED: &str = "dfr/";
/// Deferred messages routed by one due entry.
const DEFERRED_AT_ONCE: usize = 1_000;
/// The longest time between two tries to route a deferred message.
const DEFERRED_RETRY_MS_MAX: u64 = 10 * 60 * 1_000;
/// The due entry that routes all deferred messages of a project.
pub(super) const ROUTE_NOW: &str = "message/route";

fn deferred_key(message: MessageId) -> String {
    format!("{DEFERRED}{message}")
}

fn deferred_due(message: MessageId) -> String {
    format!("{DUE}deferred/{message}")
}

/// Addresses of a message that nobody could take yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Deferred {
    addresses: Vec<Address>,
    place: Place,
    tries: u32,
    except: Vec<AgentId>,
}

impl Stored for Deferred {
    const NAME: &'static str = "deferred message";
}

/// Makes all deferred messages of the commit's project due now, if there are any.
pub(in crate::service) async fn stage_route_now(kit: &Kit, commit: &mut Commit) -> Result<(), Failure> {
    let page = kit.store.range(commit.project, DEFERRED, "", 1).await?;
    if !page.entries.is_empty() {
        commit.due.push(DueChange::Set { name: ROUTE_NOW.to_owned(), at: kit.now() });
    }
    Ok(())
}

/// What one address comes to.
struct Route {
    address: Address,
    decision: Decision,
    /// Who gets it for this address, and for none before.
    fresh: Vec<AgentId>,
    /// Who would have got it, with room in the inbox.
    full: Vec<String>,
}

/// What the addresses of a message come to.
#[derive(Default)]
struct Plan {
    deliveries: BTreeMap<AgentId, Delivery>,
    routes: Vec<Route>,
    routed: Vec<Routed>,
    deferred: Vec<NotRouted>,
    dropped: Vec<NotRouted>,
}

impl Plan {
    /// Returns the event of each decision.
    fn events(&self, message: &Message, attempt: u32) -> Vec<NewEvent> {
        let event = |Route { address, decision, fresh, full }: &Route| {
            let mut data = decision.data();
            let rest: Vec<AgentId> = match &decision.choice {
                Choice::Ranked(ranked) => ranked.iter().skip(1).copied().collect(),
                Choice::All(_) | Choice::Nobody | Choice::Drop | Choice::Defer(_) => Vec::new(),
            };
            data["kind"] = json!(message.kind);
            data["address"] = json!(address);
            data["agents"] = json!(fresh);
            data["full"] = json!(full);
            data["rest"] = json!(rest);
            data["attempt"] = json!(attempt);
            data["sender"] = json!(message.from.agent);
            data["inbox"] = inbox(fresh.iter().filter_map(|agent| self.deliveries.get(agent)));
            NewEvent::new("message.routed", Actor::host(), message.id, data).caused_by(message.id)
        };
        self.routes.iter().map(event).collect()
    }
}

impl From<MessageError> for Failure {
    fn from(error: MessageError) -> Self {
        let field = error.field();
        let data = json!({"field": field});
        Self::refused_with("bad_message", error.to_string(), format!("Correct `{field}` and send again."), data)
    }
}

impl Messaging {
    /// Sends a message of an agent.
    ///
    /// # Errors
    /// `bad_address`, `bad_message`, `not_found`, `inbox_full`, `key_reused`.
    pub async fn send(&self, acting: &Acting, request: &SendRequest) -> Result<SendReceipt, Failure> {
        check_idempotency_key(request.idempotency_key.as_deref())?;
        let once = request.idempotency_key.as_ref().map(|key| acting.once("send_message", key, request));
        if let Some(once) = &once
            && let Some(answered) = self.sent_before(acting, once).await?
        {
            return Ok(answered);
        }
        let message = self.compose(acting, request).await?;
        self.post(&message, &[acting.agent.id], once.as_ref(), Some(&acting.trace)).await
    }

    /// Returns what an earlier call was answered. While the store is away, the commit finds that out when it is back.
    async fn sent_before<T: DeserializeOwned>(&self, acting: &Acting, once: &Once) -> Result<Option<T>, Failure> {
        match self.kit.answered(acting.project, once).await {
            Err(Failure::Unavailable { .. }) if self.kit.store.is_away() => Ok(None),
            known => known,
        }
    }

    /// Sends messages of an agent, all of them or none, in one commit.
    ///
    /// # Errors
    /// As [`Messaging::send`], naming the first message that is refused; `too_many`.
    pub async fn send_all(&self, acting: &Acting, batch: &SendBatch) -> Result<BatchReceipt, Failure> {
        check_batch(batch)?;
        let once = batch.idempotency_key.as_ref().map(|key| acting.once("send_message", key, batch));
        if let Some(once) = &once
            && let Some(answered) = self.sent_before(acting, once).await?
        {
            return Ok(answered);
        }
        let mut commit = Commit { project: Some(acting.project), when_away: WhenAway::Keep, ..Commit::default() };
        let mut receipt = BatchReceipt { messages: Vec::with_capacity(batch.messages.len()) };
        for (i, request) in batch.messages.iter().enumerate() {
            let staged = Box::pin(self.stage_send(&mut commit, acting, request)).await;
            receipt.messages.push(staged.map_err(|failure| of_message(i, failure))?);
        }
        commit.idempotency = once.map(|once| once.record(&receipt));
        match self.kit.store.commit(commit).await? {
            Committed::Done { .. } => Ok(receipt),
            Committed::Replayed(stored) => Ok(serde_json::from_slice(&stored).unwrap_or(receipt)),
            Committed::Kept => {
                receipt.messages.iter_mut().for_each(|message| message.kept = true);
                Ok(receipt)
            }
        }
    }

    /// Sends a message of the host.
    ///
    /// # Errors
    /// As [`Messaging::send`].
    pub async fn send_as_host(&self, project: ProjectId, host: HostMessage) -> Result<SendReceipt, Failure> {
        let now = self.kit.now();
        let message = Message {
            id: MessageId::new(now, self.kit.system.id_bytes()),
            project,
            thread: ThreadId::new(now, self.kit.system.id_bytes()),
            kind: host.kind,
            from: Actor::host(),
            to: host.to,
            subject: fit_line(&host.subject),
            body: host.body,
            paths: host.paths,
            tags: Vec::new(),
            priority: host.priority,
            expires_at: None,
            ack_required: false,
            reply_to: None,
            causation: host.causation,
            correlation: None,
            attachments: Vec::new(),
            headers: BTreeMap::new(),
            context: SenderContext::default(),
            sent_at: now,
        };
        message.check()?;
        self.post(&message, &host.except, None, None).await
    }

    pub(super) async fn compose(&self, acting: &Acting, request: &SendRequest) -> Result<Message, Failure> {
        let now = self.kit.now();
        let answered = match request.reply_to {
            Some(id) => Some(self.message(acting.project, id).await?),
            None => None,
        };
        let context = self.context_of(acting, request).await?;
        let causation = match (&answered, context.task) {
            (Some(answered), _) => Some(answered.id.to_string()),
            (None, Some(task)) => Some(task.to_string()),
            (None, None) => None,
        };
        let message = Message {
            id: MessageId::new(now, self.kit.system.id_bytes()),
            project: acting.project,
            thread: self.thread_of(acting.project, request, answered.as_ref()).await?,
            kind: request.kind.clone().unwrap_or_else(|| KIND_DEFAULT.to_owned()),
            from: acting.agent.actor(),
            to: recipients(request, answered.as_ref())?,
            subject: subject(request, answered.as_ref()),
            body: request.body.clone(),
            paths: request.paths.clone(),
            tags: request.tags.clone(),
            priority: request.priority.unwrap_or(PRIORITY_NORMAL),
            expires_at: expiry(request, now)?,
            ack_required: request.ack_required,
            reply_to: request.reply_to,
            causation,
            correlation: request.correlation.clone().or_else(|| answered.and_then(|answered| answered.correlation)),
            attachments: request.attachments.clone(),
            headers: lower_headers(&request.headers)?,
            context,
            sent_at: now,
        };
        message.check()?;
        Ok(message)
    }

    /// Returns where the sender stands, by the host's records: the one task it holds, or that one of several which it names.
    async fn context_of(&self, acting: &Acting, request: &SendRequest) -> Result<SenderContext, Failure> {
        let held = holding(&self.kit, &self.agents, acting.project, acting.agent.id).await?;
        let task = match (request.task, &*held) {
            (Some(task), held) if held.iter().any(|held| held.task == task) => Some(task),
            // What it holds may not be known now.
            (Some(_), _) if self.kit.store.is_away() => return Err(Failure::Unavailable { retry_after_ms: AWAY_RETRY_MS }),
            (Some(task), _) => {
                return Err(MessageError::Malformed { field: "task", why: format!("{} does not hold {task}", acting.agent.name) }.into());
            }
            (None, [only]) => Some(only.task),
            (None, _) => None,
        };
        let mut context = SenderContext { task, model: acting.agent.model.clone(), ..SenderContext::default() };
        let Some(task) = task else { return Ok(context) };
        match self.kit.load::<Task>(Some(acting.project), &task_key(task)).await {
            Ok(found) => {
                let task = found.map(|found| found.value);
                context.head = task.as_ref().and_then(|task| task.head).map(|head| head.to_string());
                context.branch = task.and_then(|task| task.branch);
            }
            // Without them it is sent all the same.
            Err(Failure::Unavailable { .. }) if self.kit.store.is_away() => {}
            Err(failure) => return Err(failure),
        }
        Ok(context)
    }

    async fn thread_of(&self, project: ProjectId, request: &SendRequest, answered: Option<&Message>) -> Result<ThreadId, Failure> {
        match (request.thread, answered) {
            (Some(thread), Some(answered)) if thread != answered.thread => Err(Failure::refused(
                "bad_message",
                format!("`reply_to` is of thread {}, not of {thread}", answered.thread),
                "Leave `thread` out: an answer stays in its thread.",
            )),
            (_, Some(answered)) => Ok(answered.thread),
            (Some(thread), None) => {
                let known = self.kit.store.range(Some(project), &format!("msg-thread/{thread}/"), "", 1).await?;
                if known.entries.is_empty() {
                    return Err(Failure::refused("not_found", format!("there is no thread {thread}"), "Leave `thread` out to begin one."));
                }
                Ok(thread)
            }
            (None, None) => Ok(ThreadId::new(self.kit.now(), self.kit.system.id_bytes())),
        }
    }

    async fn post(&self, message: &Message, except: &[AgentId], once: Option<&Once>, trace: Option<&str>) -> Result<SendReceipt, Failure> {
        let mut commit = Commit { project: Some(message.project), when_away: WhenAway::Keep, ..Commit::default() };
        let receipt = self.stage_post(&mut commit, message, except, trace).await?;
        commit.idempotency = once.map(|once| once.record(&receipt));
        match self.kit.store.commit(commit).await? {
            Committed::Done { .. } => Ok(receipt),
            Committed::Replayed(stored) => Ok(serde_json::from_slice(&stored).unwrap_or(receipt)),
            Committed::Kept => Ok(SendReceipt { kept: true, ..receipt }),
        }
    }

    pub(super) async fn stage_post(
        &self,
        commit: &mut Commit,
        message: &Message,
        except: &[AgentId],
        trace: Option<&str>,
    ) -> Result<SendReceipt, Failure> {
        let board = self.agents.board_as_known(message.project).await?;
        let place = self.next_place(message);
        stage_message(commit, message, place, trace);
        let plan = self.plan(&board, message, &message.to, place, except).await?;
        self.stage_plan(commit, message, &plan, 0);
        self.stage_deferred(commit, message, &plan, Deferred { addresses: Vec::new(), place, tries: 0, except: except.to_vec() });
        let Plan { routed, deferred, dropped, .. } = plan;
        Ok(SendReceipt { message: message.id, thread: message.thread, routed, deferred, dropped, kept: false })
    }

    fn stage_plan(&self, commit: &mut Commit, message: &Message, plan: &Plan, attempt: u32) {
        plan.deliveries.values().for_each(|delivery| self.stage_delivery(commit, delivery));
        commit.events.extend(plan.events(message, attempt));
    }

    /// Stores what the plan could not route; it is tried again after some time, and when an agent starts.
    fn stage_deferred(&self, commit: &mut Commit, message: &Message, plan: &Plan, mut deferred: Deferred) {
        let retry_at = plan.deferred.iter().filter_map(|waiting| waiting.retry_at).min();
        let Some(retry_at) = retry_at else { return };
        deferred.addresses = plan.deferred.iter().map(|waiting| waiting.address.clone()).collect();
        commit.put(deferred_key(message.id), &deferred);
        let at = message.expires_at.map_or(retry_at, |end| end.min(retry_at));
        commit.due.push(DueChange::Set { name: deferred_due(message.id), at });
    }

    /// Decides who gets a message for each of its addresses.
    async fn plan(
        &self,
        board: &Board,
        message: &Message,
        addresses: &[Address],
        place: Place,
        except: &[AgentId],
    ) -> Result<Plan, Failure> {
        let routers = self.routers(message).await?;
        let mut plan = Plan::default();
        // Who is addressed by name is found without the others.
        let by_name = addresses.iter().all(|address| matches!(address, Address::Agent(_)));
        let seats = if by_name { Vec::new() } else { board.roster() };
        for address in addresses {
            let others = || seats.iter().filter(|seat| !except.contains(&seat.agent.id));
            let decision = match address {
                Address::Agent(name) => direct(board, name)?,
                Address::Everyone => all(others().map(|seat| seat.agent.id).collect(), "it is for everyone", "there is no other agent"),
                Address::Topic(topic) => {
                    let subscribed = others().filter(|seat| seat.agent.topics.contains(topic));
                    all(subscribed.map(|seat| seat.agent.id).collect(), "it subscribed", "nobody subscribed")
                }
                Address::Capability(expr) => {
                    self.choose(&seats, &Question { message, expr, routers: &routers, attempts: 0, refused: &[], except })
                }
            };
            self.apply(&mut plan, board, message, address, decision, place)?;
        }
        Ok(plan)
    }

    fn apply(
        &self,
        plan: &mut Plan,
        board: &Board,
        message: &Message,
        address: &Address,
        decision: Decision,
        place: Place,
    ) -> Result<(), Failure> {
        let now = self.kit.now();
        let code = match &decision.choice {
            Choice::Drop | Choice::Defer(_) => NotRoutedCode::Router,
            Choice::Nobody | Choice::Ranked(_) | Choice::All(_) if decision.are_full => NotRoutedCode::InboxFull,
            Choice::Nobody | Choice::Ranked(_) | Choice::All(_) => NotRoutedCode::Nobody,
        };
        let none = |retry_at| NotRouted {
            address: address.clone(),
            code: Some(code),
            agent: None,
            retry_after_s: None,
            reason: decision.reason.clone(),
            retry_at,
        };
        let (mut fresh, dropped_before) = (Vec::new(), plan.dropped.len());
        match &decision.choice {
            Choice::Drop => plan.dropped.push(none(None)),
            Choice::Nobody if matches!(address, Address::Capability(_)) => plan.deferred.push(none(Some(now + DEFERRED_RETRY_MS))),
            Choice::Nobody => plan.dropped.push(none(None)),
            Choice::Defer(ms) => plan.deferred.push(none(Some(now + u64::from(*ms)))),
            Choice::Ranked(ranked) => fresh.extend(self.give(plan, board, message, address, &decision, ranked, place)?),
            Choice::All(all) => {
                for agent in all {
                    fresh.extend(self.give(plan, board, message, address, &decision, &[*agent], place)?);
                }
            }
        }
        let full = plan.dropped[dropped_before..].iter().filter_map(|dropped| dropped.agent.clone()).collect();
        plan.routes.push(Route { address: address.clone(), decision, fresh, full });
        Ok(())
    }

    /// Plans the delivery to the first of `ranked`; whoever has one of this message already keeps that one.
    #[expect(clippy::too_many_arguments, reason = "the grounds of one delivery")]
    fn give(
        &self,
        plan: &mut Plan,
        board: &Board,
        message: &Message,
        address: &Address,
        decision: &Decision,
        ranked: &[AgentId],
        place: Place,
    ) -> Result<Option<AgentId>, Failure> {
        let Some(delivery) = Delivery::new(self.kit.now(), message.id, ranked, place) else { return Ok(None) };
        let agent = delivery.agent;
        let name = board.agent(agent).map_or_else(|| agent.to_string(), |record| record.name.clone());
        let is_full = usize::try_from(board.load(agent)).is_ok_and(|load| load >= INBOX_DELIVERIES_MAX);
        if is_full && !plan.deliveries.contains_key(&agent) {
            let not_routed = inbox_full(address, name);
            if matches!(address, Address::Agent(_)) {
                return Err(not_routed.refusal());
            }
            plan.dropped.push(not_routed);
            return Ok(None);
        }
        let router = decision.router.as_ref().map(|router| router.name.clone());
        plan.routed.push(Routed { agent: name, id: agent, address: address.clone(), reason: decision.reason.clone(), router });
        let via = matches!(address, Address::Capability(_)).then(|| address.clone());
        if let Some(planned) = plan.deliveries.get_mut(&agent) {
            if planned.via.is_none() {
                planned.via = via;
                planned.rest = delivery.rest;
            }
            return Ok(None);
        }
        let delivery = Delivery {
            expires_at: message.expires_at,
            via,
            sender: message.from.agent,
            ack_required: message.ack_required,
            is_review: message.kind == REVIEW_REQUEST,
            thread: Some(message.thread),
            ..delivery
        };
        plan.deliveries.insert(agent, delivery);
        Ok(Some(agent))
    }

    /// Routes all deferred messages of a project that somebody can take now.
    pub(super) async fn route_deferred(&self, project: ProjectId) -> Result<(), Failure> {
        let all = self.kit.load_all::<Deferred>(Some(project), DEFERRED, DEFERRED_AT_ONCE).await?;
        for (key, _) in all {
            if let Some(message) = key.strip_prefix(DEFERRED).and_then(|id| id.parse().ok()) {
                self.route_one_deferred(project, message).await?;
            }
        }
        Ok(())
    }

    /// Routes one deferred message, or puts it off again.
    pub(super) async fn route_one_deferred(&self, project: ProjectId, id: MessageId) -> Result<(), Failure> {
        self.kit.decide(|| self.decide_deferred(project, id)).await?;
        Ok(())
    }

    async fn decide_deferred(&self, project: ProjectId, id: MessageId) -> Result<(Commit, ()), Failure> {
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        let key = deferred_key(id);
        let stored = self.kit.load::<Deferred>(Some(project), &key).await?;
        let message = self.kit.load::<Message>(Some(project), &message_key(id)).await?;
        let (Some(Loaded { value: deferred, version }), Some(message)) = (stored, message.map(|message| message.value)) else {
            commit.due.push(DueChange::Clear { name: deferred_due(id) });
            return Ok((commit, ()));
        };
        commit.expects.push((key.clone(), crate::ports::store::Expect::Version(version)));
        if message.is_expired(self.kit.now()) {
            commit.deletes.push(key);
            commit.due.push(DueChange::Clear { name: deferred_due(id) });
            let data =
                json!({"addresses": deferred.addresses, "sender": message.from.agent, "ack_required": message.ack_required, "inbox": {}});
            commit.events.push(NewEvent::new("message.expired", Actor::host(), id, data).caused_by(id));
            return Ok((commit, ()));
        }
        let board = self.agents.board(project).await?;
        let mut except = deferred.except.clone();
        let mut plan = loop {
            let plan = self.plan(&board, &message, &deferred.addresses, deferred.place, &except).await?;
            let known = except.len();
            for &agent in plan.deliveries.keys() {
                if self.has_had(project, agent, id).await? {
                    except.push(agent);
                }
            }
            if except.len() == known {
                break plan;
            }
        };
        let tries = deferred.tries + 1;
        let back_off = (DEFERRED_RETRY_MS << tries.min(16)).min(DEFERRED_RETRY_MS_MAX);
        for (waiting, Route { decision, .. }) in
            plan.deferred.iter_mut().zip(plan.routes.iter().filter(|route| is_deferred(&route.decision)))
        {
            if decision.choice == Choice::Nobody {
                waiting.retry_at = Some(self.kit.now() + back_off);
            }
        }
        if plan.deferred.is_empty() {
            commit.deletes.push(key);
            commit.due.push(DueChange::Clear { name: deferred_due(id) });
        } else {
            self.stage_deferred(&mut commit, &message, &plan, Deferred { tries, ..deferred });
        }
        // Nothing is recorded of a try that changed nothing.
        plan.routes.retain(|route| !is_deferred(&route.decision));
        self.stage_plan(&mut commit, &message, &plan, 0);
        Ok((commit, ()))
    }
}

/// Returns that an agent's inbox takes nothing more now.
fn inbox_full(address: &Address, name: String) -> NotRouted {
    NotRouted {
        address: address.clone(),
        code: Some(NotRoutedCode::InboxFull),
        reason: format!("the inbox of `{name}` is full"),
        agent: Some(name),
        retry_after_s: Some(INBOX_FULL_RETRY_MS / 1_000),
        retry_at: None,
    }
}

impl NotRouted {
    fn refusal(self) -> Failure {
        let retry_after_s = self.retry_after_s.unwrap_or_default();
        let data = json!({"address": self.address, "agent": self.agent, "retry_after_ms": retry_after_s * 1_000});
        let advice =
            format!("Address somebody else, or send it again in {retry_after_s} s or later: there is room when it has acked some.");
        Failure::refused_with("inbox_full", self.reason, advice, data)
    }
}

fn check_batch(batch: &SendBatch) -> Result<(), Failure> {
    check_idempotency_key(batch.idempotency_key.as_deref())?;
    if batch.messages.is_empty() || batch.messages.len() > MESSAGES_PER_SEND_MAX {
        let why = format!("`messages` has {} entries, 1 to {MESSAGES_PER_SEND_MAX} are allowed", batch.messages.len());
        return Err(Failure::refused("too_many", why, "Send them in several calls, each with a key of its own."));
    }
    if batch.messages.iter().any(|message| message.idempotency_key.is_some()) {
        let why = "a message of several has an `idempotency_key` of its own";
        return Err(Failure::refused("bad_argument", why, "Give one `idempotency_key` beside `messages`: they are sent all or none."));
    }
    Ok(())
}

/// Returns why one message of several was refused, saying which it was.
fn of_message(i: usize, failure: Failure) -> Failure {
    match failure {
        Failure::Refused(refusal) => {
            let Refusal { code, why, advice, data } = *refusal;
            let mut data = data.unwrap_or_else(|| json!({}));
            if data.is_object() {
                data["position"] = json!(i);
            }
            Failure::refused_with(code, format!("`messages[{i}]`: {why}; none was sent"), advice, data)
        }
        other @ (Failure::Unavailable { .. }
        | Failure::Damaged(_)
        | Failure::Repository(_)
        | Failure::Plugin(_)
        | Failure::Contended { .. }) => other,
    }
}

fn is_deferred(decision: &Decision) -> bool {
    matches!(decision.choice, Choice::Nobody | Choice::Defer(_))
}

fn direct(board: &Board, name: &str) -> Result<Decision, Failure> {
    match board.named(name) {
        Some(agent) => Ok(Decision::host(Choice::Ranked(vec![agent.id]), "the sender named it")),
        None => Err(unknown_agent(name, board.roster().into_iter().map(|seat| seat.agent))),
    }
}

fn unknown_agent(name: &str, known: impl Iterator<Item = Arc<AgentRecord>>) -> Failure {
    let names: Vec<String> = known.take(20).map(|agent| agent.name.clone()).collect();
    let advice = if names.is_empty() {
        "No agent has started here yet; address a capability, it is delivered when somebody who has it starts.".to_owned()
    } else {
        format!("The agents here are {}; or address a capability.", names.join(", "))
    };
    Failure::refused("not_found", format!("no agent of this project is called `{name}`"), advice)
}

fn all(agents: Vec<AgentId>, why: &str, why_none: &str) -> Decision {
    if agents.is_empty() { Decision::host(Choice::Nobody, why_none) } else { Decision::host(Choice::All(agents), why) }
}

fn recipients(request: &SendRequest, answered: Option<&Message>) -> Result<Vec<Address>, Failure> {
    if request.to.is_empty()
        && let Some(answered) = answered
    {
        return match answered.from.agent {
            Some(agent) => Ok(vec![Address::Agent(agent.to_string())]),
            None => Err(Failure::refused("bad_address", "the host does not read answers", "Name whom it is for in `to`.")),
        };
    }
    if request.to.len() > RECIPIENTS_MAX {
        return Err(MessageError::TooLong { field: "to", actual: request.to.len(), max: RECIPIENTS_MAX, unit: "addresses" }.into());
    }
    let mut addresses: Vec<Address> = Vec::new();
    for text in &request.to {
        let address = text.parse::<Address>().map_err(|error| {
            Failure::refused("bad_address", error.to_string(), "Write `agent:NAME`, `topic:NAME`, `all` or a capability such as `rust`.")
        })?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn subject(request: &SendRequest, answered: Option<&Message>) -> String {
    let first_line = || request.body.as_str().and_then(|body| body.lines().find(|line| !line.trim().is_empty())).map(fit_line);
    let reply = || answered.map(|answered| fit_line(&format!("Re: {}", answered.subject.trim_start_matches("Re: "))));
    request.subject.clone().or_else(reply).or_else(first_line).unwrap_or_default()
}

fn expiry(request: &SendRequest, now: TimeMs) -> Result<Option<TimeMs>, Failure> {
    match request.expires_in_s {
        Some(actual) if !(1..=MESSAGE_EXPIRY_S_MAX).contains(&actual) => {
            Err(MessageError::OutOfRange { field: "expires_in_s", actual, min: 1, max: MESSAGE_EXPIRY_S_MAX }.into())
        }
        given => Ok(given.map(|seconds| now + seconds * 1_000)),
    }
}
