//! The repository port of a host that shares its store: what is at home here is done here, everything else is asked of the project's
//! home.
//!
//! **Invariant:** a host that cannot say that it is a project's home does nothing to that project's repository.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pointsman_core::ids::{FencingToken, MergeId, Oid, ProjectId, TaskId};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::wire::{self, Answer, Call, GitQuestion, Question};
use super::{Homes, Place};
use crate::ports::plugins::{CommitInfo, FileChange};
use crate::ports::repository::{
    BranchGrant, BranchMove, CheckReport, CheckSpec, FourSides, GitRequest, GitResponse, Landing, NewCommit, Origin, Repository,
    RepositoryError, TreeMerge,
};
use crate::ports::siblings::{SiblingError, Siblings, Streamed};

/// Times a home is looked for again after the host that was taken for it says that it is not.
const MOVES_MAX: u32 = 4;
/// Milliseconds after which to ask a home again that is away.
const RETRY_MS: u64 = 2_000;
/// Milliseconds to wait for a view that is newer than the one that named the wrong host.
const NEWS_MS: u64 = 500;

/// The repositories of all projects, wherever they are.
pub struct HomedRepository {
    local: Arc<dyn Repository>,
    siblings: Arc<dyn Siblings>,
    homes: Homes,
}

fn away(why: impl Into<String>) -> RepositoryError {
    RepositoryError::Away { why: why.into(), retry_after_ms: RETRY_MS }
}

impl HomedRepository {
    /// Returns the repositories that are here and those that siblings have.
    #[must_use]
    pub fn new(local: Arc<dyn Repository>, siblings: Arc<dyn Siblings>, homes: Homes) -> Self {
        Self { local, siblings, homes }
    }

    /// Asks a project's home; none: that is this host.
    async fn elsewhere<T: DeserializeOwned>(&self, project: ProjectId, call: impl FnOnce() -> Call) -> Result<Option<T>, RepositoryError> {
        let mut place = self.homes.find(project).await?;
        let mut question = None;
        let mut call = Some(call);
        for _ in 0..MOVES_MAX {
            let url = match &place {
                Place::Here => return Ok(None),
                Place::At { url } => url,
            };
            let asked = question.get_or_insert_with(|| {
                let call = call.take().expect("a question is put into words once");
                bytes::Bytes::from(wire::encode(&Question::Repository { project, call: call() }))
            });
            let answered = self.siblings.ask(url, asked.clone()).await.map_err(|error| away(error.to_string()))?;
            match wire::read(&answered) {
                Some(Answer::Done(done)) => {
                    let done = wire::decode(done).ok_or_else(|| away(format!("{url} answers in a form that is not known here")))?;
                    return Ok(Some(done));
                }
                Some(Answer::Refused(error)) => return Err(error),
                Some(Answer::NotHere) => place = self.look_again(project).await?,
                None => return Err(away(format!("{url} answers in a form that is not known here"))),
            }
        }
        Err(away(format!("the repository of {project} is moving")))
    }

    async fn look_again(&self, project: ProjectId) -> Result<Place, RepositoryError> {
        self.homes.news(Duration::from_millis(NEWS_MS)).await;
        self.homes.find(project).await
    }
}

#[async_trait]
impl Repository for HomedRepository {
    async fn create(&self, project: ProjectId, origin: Origin, target: Option<String>) -> Result<(String, Oid), RepositoryError> {
        self.local.create(project, origin, target).await
    }

    async fn has(&self, project: ProjectId) -> bool {
        self.local.has(project).await
    }

    async fn adopt(&self, project: ProjectId) -> Result<(), RepositoryError> {
        self.local.adopt(project).await
    }

    async fn branch_head(&self, project: ProjectId, branch: &str) -> Result<Option<Oid>, RepositoryError> {
        match self.elsewhere(project, || Call::BranchHead { branch: branch.to_owned() }).await? {
            Some(done) => Ok(done),
            None => self.local.branch_head(project, branch).await,
        }
    }

    async fn check_branch_name(&self, project: ProjectId, branch: &str) -> Result<(), RepositoryError> {
        match self.elsewhere(project, || Call::CheckBranchName { branch: branch.to_owned() }).await? {
            Some(done) => Ok(done),
            None => self.local.check_branch_name(project, branch).await,
        }
    }

    async fn grant(&self, project: ProjectId, grant: BranchGrant) -> Result<Oid, RepositoryError> {
        match self.elsewhere(project, || Call::Grant(grant.clone())).await? {
            Some(done) => Ok(done),
            None => self.local.grant(project, grant).await,
        }
    }

    async fn revoke(&self, project: ProjectId, task: TaskId, branch: &str, token: FencingToken) -> Result<(), RepositoryError> {
        match self.elsewhere(project, || Call::Revoke { task, branch: branch.to_owned(), token }).await? {
            Some(done) => Ok(done),
            None => self.local.revoke(project, task, branch, token).await,
        }
    }

    async fn write_commit(&self, project: ProjectId, commit: NewCommit) -> Result<Oid, RepositoryError> {
        match self.elsewhere(project, || Call::WriteCommit(commit.clone())).await? {
            Some(done) => Ok(done),
            None => self.local.write_commit(project, commit).await,
        }
    }

    async fn write_merge_commit(
        &self,
        project: ProjectId,
        tree: Oid,
        commit: NewCommit,
        candidate: Option<MergeId>,
    ) -> Result<Oid, RepositoryError> {
        match self.elsewhere(project, || Call::WriteMergeCommit { tree, commit: commit.clone(), candidate }).await? {
            Some(done) => Ok(done),
            None => self.local.write_merge_commit(project, tree, commit, candidate).await,
        }
    }

    async fn move_branch(&self, project: ProjectId, step: BranchMove) -> Result<(), RepositoryError> {
        match self.elsewhere(project, || Call::MoveBranch(step.clone())).await? {
            Some(done) => Ok(done),
            None => self.local.move_branch(project, step).await,
        }
    }

    async fn merge(&self, project: ProjectId, ours: Oid, theirs: Oid) -> Result<TreeMerge, RepositoryError> {
        match self.elsewhere(project, || Call::Merge { ours, theirs }).await? {
            Some(done) => Ok(done),
            None => self.local.merge(project, ours, theirs).await,
        }
    }

    async fn amend_tree(
        &self,
        project: ProjectId,
        tree: Oid,
        files: Vec<(String, Option<(u32, Vec<u8>)>)>,
    ) -> Result<Oid, RepositoryError> {
        let call = || {
            let packed = files.iter().map(|(path, file)| {
                let file = file.as_ref().map(|(mode, bytes)| (*mode, ByteBuf::from(bytes.clone())));
                (path.clone(), file)
            });
            Call::AmendTree { tree, files: packed.collect() }
        };
        match self.elsewhere(project, call).await? {
            Some(done) => Ok(done),
            None => self.local.amend_tree(project, tree, files).await,
        }
    }

    async fn four_sides(
        &self,
        project: ProjectId,
        base: Option<Oid>,
        ours: Oid,
        theirs: Oid,
        result_tree: Oid,
    ) -> Result<Vec<FourSides>, RepositoryError> {
        match self.elsewhere(project, || Call::FourSides { base, ours, theirs, result_tree }).await? {
            Some(done) => Ok(done),
            None => self.local.four_sides(project, base, ours, theirs, result_tree).await,
        }
    }

    async fn blob(&self, project: ProjectId, oid: Oid) -> Result<Vec<u8>, RepositoryError> {
        match self.elsewhere::<ByteBuf>(project, || Call::Blob { oid }).await? {
            Some(done) => Ok(done.into_vec()),
            None => self.local.blob(project, oid).await,
        }
    }

    async fn file(&self, project: ProjectId, commit: Oid, path: &str) -> Result<Option<Vec<u8>>, RepositoryError> {
        match self.elsewhere::<Option<ByteBuf>>(project, || Call::File { commit, path: path.to_owned() }).await? {
            Some(done) => Ok(done.map(ByteBuf::into_vec)),
            None => self.local.file(project, commit, path).await,
        }
    }

    async fn tree_of(&self, project: ProjectId, commit: Oid) -> Result<Oid, RepositoryError> {
        match self.elsewhere(project, || Call::TreeOf { commit }).await? {
            Some(done) => Ok(done),
            None => self.local.tree_of(project, commit).await,
        }
    }

    async fn is_ancestor(&self, project: ProjectId, ancestor: Oid, descendant: Oid) -> Result<bool, RepositoryError> {
        match self.elsewhere(project, || Call::IsAncestor { ancestor, descendant }).await? {
            Some(done) => Ok(done),
            None => self.local.is_ancestor(project, ancestor, descendant).await,
        }
    }

    async fn commits_between(&self, project: ProjectId, target: Oid, head: Oid, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        match self.elsewhere(project, || Call::CommitsBetween { target, head, limit }).await? {
            Some(done) => Ok(done),
            None => self.local.commits_between(project, target, head, limit).await,
        }
    }

    async fn changes(&self, project: ProjectId, target: Oid, head: Oid) -> Result<Vec<FileChange>, RepositoryError> {
        match self.elsewhere(project, || Call::Changes { target, head }).await? {
            Some(done) => Ok(done),
            None => self.local.changes(project, target, head).await,
        }
    }

    async fn run_check(&self, project: ProjectId, commit: Oid, check: CheckSpec) -> Result<CheckReport, RepositoryError> {
        match self.elsewhere(project, || Call::RunCheck { commit, check: check.clone() }).await? {
            Some(done) => Ok(done),
            None => self.local.run_check(project, commit, check).await,
        }
    }

    async fn land(&self, project: ProjectId, landing: Landing) -> Result<(), RepositoryError> {
        match self.elsewhere(project, || Call::Land(landing.clone())).await? {
            Some(done) => Ok(done),
            None => self.local.land(project, landing).await,
        }
    }

    async fn drop_candidate(&self, project: ProjectId, merge: MergeId) -> Result<(), RepositoryError> {
        match self.elsewhere(project, || Call::DropCandidate { merge }).await? {
            Some(done) => Ok(done),
            None => self.local.drop_candidate(project, merge).await,
        }
    }

    async fn receipt(&self, project: ProjectId, commit: Oid) -> Result<Option<String>, RepositoryError> {
        match self.elsewhere(project, || Call::Receipt { commit }).await? {
            Some(done) => Ok(done),
            None => self.local.receipt(project, commit).await,
        }
    }

    async fn serve(&self, request: GitRequest) -> Result<GitResponse, RepositoryError> {
        let url = match self.homes.find(request.project).await? {
            Place::Here => return self.local.serve(request).await,
            Place::At { url } => url,
        };
        let GitRequest { project, service, advertise, protocol, push, body } = request;
        let question = wire::encode(&GitQuestion { project, service, advertise, protocol, push });
        let streamed = self.siblings.serve(&url, question.into(), body).await;
        // The body is spent: where the repository has moved meanwhile, git's client asks again.
        match streamed.map_err(|error: SiblingError| away(error.to_string()))? {
            Streamed::Git(response) => Ok(response),
            Streamed::Instead(answer) => Err(match wire::read(&answer) {
                Some(Answer::Refused(error)) => error,
                Some(Answer::NotHere | Answer::Done(_)) | None => away(format!("the repository of {project} is moving")),
            }),
        }
    }
}
