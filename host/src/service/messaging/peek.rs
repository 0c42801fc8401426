//! Looking on an agent's behalf: what waits for it and what it would hear of, without taking any of it. For wakers, which see to
//! it that the agent itself comes and takes.
//!
//! **Invariants:** nothing is handed out, settled or touched; a look ends no wait of the agent, and none ends a look.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::{MessageId, TaskId};
use pointsman_core::inbox::Delivery;
use pointsman_core::limits::EVENTS_PER_WAIT_MAX;
use pointsman_core::time::TimeMs;
use serde::Serialize;

use super::interest::{Arrivals, Interest, KeyRules};
use super::wait::{Heard, globs, max_s};
use super::{Messaging, Named, delivery_key, ready_prefix};
use crate::service::failure::Failure;
use crate::service::kit::Acting;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct PeekRequest {
    /// Seconds to wait for it: 0 to 50, 45 when not given.
    pub max_s: Option<u64>,
    /// The cursor of the last answer; none: what waits now, else what happens from now on.
    pub after: Option<Cursor>,
    /// Globs of context keys whose writes count.
    pub watch: Vec<String>,
}

/// A message that waits, without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Which.
    pub id: MessageId,
    /// Its kind.
    pub kind: String,
    /// Who sent it.
    pub from: String,
    /// One line.
    pub subject: String,
    /// Which try its next handing out is, from 1.
    pub attempt: u32,
    /// When it was sent.
    #[serde(with = "crate::ports::wire_time")]
    pub sent_at: TimeMs,
}

/// What there is.
#[derive(Debug, Clone, PartialEq)]
pub struct PeekAnswer {
    /// The next ones the agent would be handed, at most 20.
    pub waiting: Vec<Waiting>,
    /// Deliveries that became ready since the cursor.
    pub arrived: u32,
    /// What else the agent would hear of, oldest first.
    pub events: Vec<Arc<Event>>,
    /// To be given as `after` by the next look.
    pub cursor: Cursor,
    /// Whether there are events behind `cursor` that were not looked at.
    pub more: bool,
}

impl Messaging {
    /// Waits until there is something for the agent to come for. `holds` returns the tasks it holds, beside those its record names: the
    /// agent works on meanwhile, so they are asked for again and again.
    ///
    /// # Errors
    /// `bad_argument`, or [`Failure`].
    pub async fn peek<F>(&self, acting: &Acting, request: &PeekRequest, holds: impl Fn() -> F + Send + Sync) -> Result<PeekAnswer, Failure>
    where
        F: Future<Output = Result<Vec<TaskId>, Failure>> + Send,
    {
        let watch = globs(&request.watch)?;
        let max_s = max_s(request.max_s)?;
        let start = self.agents.board(acting.project).await?.cursor();
        let slug = self.kit.slug(acting.project).await?;
        let mut hint = self.kit.store.watch(Some(acting.project));
        let deadline = tokio::time::sleep(Duration::from_secs(max_s));
        tokio::pin!(deadline);
        let mut is_over = max_s == 0;
        // One that it held when the look began concerns it to its end.
        let mut tasks: Vec<TaskId> = Vec::new();
        let mut heard = Heard { events: Vec::new(), cursor: request.after.map_or(start, |after| after.min(start)), more: false };
        loop {
            hint.borrow_and_update();
            let board = self.agents.board(acting.project).await?;
            let agent = board.agent(acting.agent.id);
            let agent = agent.as_deref().unwrap_or(&acting.agent);
            let held = holds().await?;
            tasks.extend(held.into_iter().filter(|task| !tasks.contains(task)).collect::<Vec<_>>());
            let keys = Some(KeyRules { rules: &self.kit.settings.context.rules, slug: &slug });
            let interest = Interest { agent, tasks: &tasks, watch: &watch, arrivals: Arrivals::Told, keys };
            heard = self.listen(acting, heard.cursor, &interest).await?;
            let waits_already = request.after.is_none() && board.ready(acting.agent.id) > 0;
            if is_over || waits_already || !heard.events.is_empty() || heard.more {
                let Heard { events, cursor, more } = heard;
                let (arrivals, events): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| interest.is_arrival(&event.event));
                let arrived = u32::try_from(arrivals.len()).unwrap_or(u32::MAX);
                return Ok(PeekAnswer { waiting: self.waiting(acting).await?, arrived, events, cursor, more });
            }
            tokio::select! {
                changed = hint.changed() => if changed.is_err() { hint = self.kit.store.watch(Some(acting.project)) },
                () = &mut deadline => is_over = true,
            }
        }
    }

    /// Returns the next messages the agent would be handed.
    async fn waiting(&self, acting: &Acting) -> Result<Vec<Waiting>, Failure> {
        let (project, agent) = (acting.project, acting.agent.id);
        let mut waiting = Vec::new();
        for (_, named) in self.kit.load_all::<Named>(Some(project), &ready_prefix(agent), EVENTS_PER_WAIT_MAX).await? {
            let id = named.value.0;
            // Handed out or ended between the two reads: it waits no more.
            let Some(delivery) = self.kit.load::<Delivery>(Some(project), &delivery_key(agent, id)).await? else { continue };
            if !delivery.value.is_ready() {
                continue;
            }
            let message = self.message(project, id).await?;
            waiting.push(Waiting {
                id,
                kind: message.kind,
                from: message.from.name,
                subject: message.subject,
                attempt: delivery.value.attempts + 1,
                sent_at: message.sent_at,
            });
        }
        Ok(waiting)
    }
}
