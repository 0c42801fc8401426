//! What a host answers its siblings.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use serde_bytes::ByteBuf;

use super::Homes;
use super::wire::{self, GitQuestion, Question};
use crate::ports::registry::Components;
use crate::ports::repository::{ByteStream, GitRequest, Repository};
use crate::ports::sessions::SessionEars;
use crate::ports::siblings::{SiblingSurface, Streamed};

/// Answers siblings.
pub struct Visits {
    homes: Homes,
    local: Arc<dyn Repository>,
    components: Arc<dyn Components>,
    ears: OnceLock<Arc<dyn SessionEars>>,
}

impl Visits {
    /// Returns what answers from the repositories and components that are here.
    #[must_use]
    pub fn new(homes: Homes, local: Arc<dyn Repository>, components: Arc<dyn Components>) -> Self {
        Self { homes, local, components, ears: OnceLock::new() }
    }

    /// Has words that clients said elsewhere heard by these. To be called once.
    pub fn listen(&self, ears: Arc<dyn SessionEars>) {
        drop(self.ears.set(ears));
    }
}

#[async_trait]
impl SiblingSurface for Visits {
    async fn answer(&self, question: Bytes) -> Option<Vec<u8>> {
        Some(match wire::decode(&question)? {
            Question::Repository { project, .. } if !self.homes.is_here(project) => wire::not_here(),
            Question::Repository { project, call } => wire::perform(&self.local, project, call).await,
            Question::Session { project, session, word } => {
                let heard = match self.ears.get() {
                    Some(ears) => ears.hear(project, &session, word).await,
                    None => false,
                };
                wire::answer(Ok(heard))
            }
            Question::Component { digest } => {
                let kept = self.components.kept(&digest).await;
                wire::answer(Ok(kept.map(|component| ByteBuf::from(component.to_vec()))))
            }
            Question::Queue { project } if !self.homes.is_here(project) => wire::not_here(),
            Question::Queue { .. } => {
                self.homes.queue_bell().notify_one();
                wire::answer(Ok(()))
            }
        })
    }

    async fn serve(&self, question: Bytes, body: ByteStream) -> Option<Streamed> {
        let GitQuestion { project, service, advertise, protocol, push } = wire::decode(&question)?;
        if !self.homes.is_here(project) {
            return Some(Streamed::Instead(wire::not_here().into()));
        }
        let served = self.local.serve(GitRequest { project, service, advertise, protocol, push, body }).await;
        Some(match served {
            Ok(response) => Streamed::Git(response),
            Err(error) => Streamed::Instead(wire::answer::<()>(Err(error)).into()),
        })
    }
}
