//! Looking things up: messages by id, thread and age; what is unread; what died.

use pointsman_core::ids::{AgentId, MessageId, ProjectId, ThreadId};
use pointsman_core::inbox::Delivery;
use pointsman_core::message::Message;

use super::{Messaging, Named, message_key};
use crate::service::failure::Failure;

/// Messages one look-up returns at the most.
const MESSAGES_MAX: usize = 200;
/// Dead letters one look-up returns at the most.
const DEAD_LETTERS_MAX: usize = 1_000;

/// Which messages are looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// Those of a thread, oldest first; none: of all threads, newest first.
    pub thread: Option<ThreadId>,
    /// At most so many; 0: as many as there may be.
    pub limit: usize,
}

impl Messaging {
    /// Returns a message.
    ///
    /// # Errors
    /// `not_found`, or `gone` where it may have been removed after its time.
    pub async fn message(&self, project: ProjectId, id: MessageId) -> Result<Message, Failure> {
        let found = self.kit.load::<Message>(Some(project), &message_key(id)).await?;
        match found {
            Some(found) => Ok(found.value),
            None => Err(self.missing(project, id).await),
        }
    }

    /// Returns messages.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn messages(&self, project: ProjectId, filter: &MessageFilter) -> Result<Vec<Message>, Failure> {
        let limit = if filter.limit == 0 { MESSAGES_MAX } else { filter.limit.min(MESSAGES_MAX) };
        let prefix = match filter.thread {
            Some(thread) => format!("msg-thread/{thread}/"),
            None => "msg-new/".to_owned(),
        };
        let mut found = Vec::new();
        for (_, named) in self.kit.load_all::<Named>(Some(project), &prefix, limit).await? {
            // One may be removed between the two reads.
            found.extend(self.found(project, named.value.0).await?);
        }
        Ok(found)
    }

    /// Returns how many deliveries an agent's next waits would hand out.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn unread(&self, project: ProjectId, agent: AgentId) -> Result<u32, Failure> {
        Ok(self.agents.board_as_known(project).await?.ready(agent))
    }

    /// Returns what an agent was handed and has neither acked nor given back, the oldest first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn held(&self, project: ProjectId, agent: AgentId) -> Result<Vec<MessageId>, Failure> {
        Ok(self.agents.board(project).await?.leased(agent))
    }

    /// Returns the deliveries that were tried too often, the oldest message first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn dead_letters(&self, project: ProjectId) -> Result<Vec<Delivery>, Failure> {
        let all = self.kit.load_all::<Delivery>(Some(project), "dead/", DEAD_LETTERS_MAX).await?;
        Ok(all.into_iter().map(|(_, found)| found.value).collect())
    }
}
