//! Merging two commits into an accounted tree: git's merge, then the operator's strategies for what git left, then hunk
//! accounting over every path that both sides touched.
//!
//! **Invariant:** a tree leaves here without conflicts only if each changed hunk of both sides is in it or named.

use std::collections::BTreeMap;

use pointsman_core::accounting::{Discard, FileAccount, Side, account};
use pointsman_core::ids::{Oid, ProjectId};
use pointsman_core::merge::Conflict;
use pointsman_core::merge_text::{Labels, is_binary, marker_line, merge3};
use pointsman_core::task::Resolution;

use super::MergeQueue;
use super::receipt::FileReceipt;
use crate::ports::plugins::{FileOutcome, HunkOutcome, MergeDiscard, MergeFile, MergeHunk, MergeScope};
use crate::ports::repository::{ConflictKind, ConflictedPath, FileVersion, FourSides};
use crate::service::failure::Failure;

/// Bytes of a file that strategies are asked about.
const STRATEGY_BYTES_MAX: usize = 8 << 20;
/// New files that are tried as the other end of a rename.
const RENAMES_TRIED_MAX: usize = 64;

/// What a file becomes by an agent's word.
#[derive(Debug, Clone)]
pub struct Manual {
    /// Its content.
    pub(super) content: Content,
    /// `agent NAME`.
    pub(super) by: String,
}

/// Content given, or a blob that is there; none: no file.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Given.
    Bytes(Vec<u8>),
    /// There.
    Blob(Option<Oid>),
}

/// A merge of two commits.
pub(super) struct Prepared {
    /// The merge base it was accounted against.
    pub(super) base: Option<Oid>,
    /// The merged tree; only meaningful without conflicts.
    pub(super) tree: Oid,
    /// What is left for the agent.
    pub(super) conflicts: Vec<Conflict>,
    /// Files that both sides touched, or that a strategy made.
    pub(super) files: Vec<FileReceipt>,
    /// Paths only the target touched, taken as they are.
    pub(super) only_ours: u32,
    /// Paths only the branch touched, taken as they are.
    pub(super) only_theirs: u32,
    /// What was resolved, for the task's record.
    pub(super) resolutions: Vec<Resolution>,
}

/// A resolved file on its way into the tree.
struct Resolved {
    bytes: Option<Vec<u8>>,
    by: String,
    digest: Option<String>,
    discards: Vec<Discard>,
    manual: bool,
}

impl MergeQueue {
    /// Merges `theirs` into `ours`.
    pub(super) async fn prepare(
        &self,
        project: ProjectId,
        ours: Oid,
        theirs: Oid,
        manual: &BTreeMap<String, Manual>,
    ) -> Result<Prepared, Failure> {
        let merged = self.kit.repository.merge(project, ours, theirs).await?;
        let mut conflicts = Vec::new();
        let mut resolved: BTreeMap<String, Resolved> = BTreeMap::new();
        let mut amended = Vec::new();
        for conflicted in &merged.conflicts {
            let outcome = match manual.get(&conflicted.path) {
                Some(word) => Ok(self.by_hand(project, word).await?),
                None => self.by_strategy(project, conflicted).await?,
            };
            match outcome {
                Ok(file) => {
                    let mode = mode_of(conflicted);
                    amended.push((conflicted.path.clone(), file.bytes.clone().map(|bytes| (mode, bytes))));
                    resolved.insert(conflicted.path.clone(), file);
                }
                Err(reasons) => conflicts.push(conflict(conflicted, reasons)),
            }
        }
        let mut prepared = Prepared {
            base: merged.base,
            tree: merged.tree,
            conflicts,
            files: Vec::new(),
            only_ours: 0,
            only_theirs: 0,
            resolutions: Vec::new(),
        };
        if prepared.conflicts.is_empty() {
            prepared.tree = self.kit.repository.amend_tree(project, merged.tree, amended).await?;
            self.account_tree(project, ours, theirs, &mut prepared, &mut resolved).await?;
        }
        Ok(prepared)
    }

    async fn by_hand(&self, project: ProjectId, word: &Manual) -> Result<Resolved, Failure> {
        let bytes = match &word.content {
            Content::Bytes(bytes) => Some(bytes.clone()),
            Content::Blob(Some(blob)) => Some(self.kit.repository.blob(project, *blob).await?),
            Content::Blob(None) => None,
        };
        Ok(Resolved { bytes, by: word.by.clone(), digest: None, discards: Vec::new(), manual: true })
    }

    /// Asks the strategies for a file, in order; the reasons when none has an answer that holds.
    async fn by_strategy(&self, project: ProjectId, conflicted: &ConflictedPath) -> Result<Result<Resolved, Vec<String>>, Failure> {
        let mut reasons = vec![format!("git: {}", kind_words(conflicted.kind))];
        let (Some(ours), Some(theirs)) = (conflicted.ours, conflicted.theirs) else { return Ok(Err(reasons)) };
        let regular = |file: &FileVersion| matches!(file.mode, 0o100_644 | 0o100_755);
        if !regular(&ours) || !regular(&theirs) || conflicted.base.is_some_and(|base| !regular(&base)) {
            return Ok(Err(reasons));
        }
        let base = match conflicted.base {
            Some(base) => Some(self.kit.repository.blob(project, base.oid).await?),
            None => None,
        };
        let ours = self.kit.repository.blob(project, ours.oid).await?;
        let theirs = self.kit.repository.blob(project, theirs.oid).await?;
        let sides = [base.as_deref().unwrap_or_default(), &ours, &theirs];
        if sides.iter().any(|side| is_binary(side) || side.len() > STRATEGY_BYTES_MAX) {
            reasons.push("binary or very large: strategies are not asked".to_owned());
            return Ok(Err(reasons));
        }
        let mut open = OpenFile::new(&conflicted.path, base, ours, theirs);
        let slug = self.kit.slug(project).await?;
        let bindings = self.kit.settings.bindings.now();
        for plugin in bindings.mergers(&slug, &conflicted.path) {
            match self.ask_merger(plugin, &mut open).await {
                Ok((bytes, discards)) => match open.verify(&bytes, &discards) {
                    Ok(()) => {
                        let digest = self.kit.plugins.loaded().get(plugin).map(|(_, reference, _)| reference.digest.clone());
                        return Ok(Ok(Resolved { bytes: Some(bytes), by: format!("plugin {plugin}"), digest, discards, manual: false }));
                    }
                    Err(why) => {
                        open.forget();
                        reasons.push(format!("{plugin}: the answer was refused: {why}"));
                    }
                },
                Err(why) => reasons.push(format!("{plugin}: {why}")),
            }
        }
        Ok(Err(reasons))
    }

    async fn ask_merger(&self, plugin: &str, open: &mut OpenFile) -> Result<(Vec<u8>, Vec<Discard>), String> {
        let description = self.kit.plugins.merger(plugin).map_err(|failure| failure.to_string())?;
        match description.scope {
            MergeScope::Hunks => {
                let (positions, hunks) = open.unresolved();
                let answers = self.kit.plugins.merge_hunks(plugin, &open.path, hunks).await.map_err(|failure| failure.to_string())?;
                open.take(&positions, answers)
            }
            MergeScope::File => {
                let file = MergeFile {
                    path: open.path.clone(),
                    base: open.base.clone(),
                    ours: open.ours.clone(),
                    theirs: open.theirs.clone(),
                    so_far: open.marked(),
                };
                match self.kit.plugins.merge_file(plugin, file).await.map_err(|failure| failure.to_string())? {
                    FileOutcome::Resolved(bytes, discards) => Ok((bytes, discards.into_iter().map(discard).collect())),
                    FileOutcome::Conflicts(places) => Err(format!("conflicts: {}", places.join("; "))),
                    FileOutcome::Declined(why) => Err(format!("declined: {why}")),
                    FileOutcome::Regenerate(argv, _) => Err(format!("asks for `{}`, which no runner takes yet", argv.join(" "))),
                }
            }
        }
    }

    /// Accounts for every path; a path whose account is not whole goes back to the agent.
    async fn account_tree(
        &self,
        project: ProjectId,
        ours: Oid,
        theirs: Oid,
        prepared: &mut Prepared,
        resolved: &mut BTreeMap<String, Resolved>,
    ) -> Result<(), Failure> {
        let sides = self.kit.repository.four_sides(project, prepared.base, ours, theirs, prepared.tree).await?;
        for four in &sides {
            if four.base == four.ours && four.result == four.theirs {
                prepared.only_theirs += 1;
            } else if four.base == four.theirs && four.result == four.ours {
                prepared.only_ours += 1;
            } else {
                let by = resolved.remove(&four.path);
                self.account_path(project, &sides, four, by, prepared).await?;
            }
        }
        Ok(())
    }

    async fn account_path(
        &self,
        project: ProjectId,
        sides: &[FourSides],
        four: &FourSides,
        by: Option<Resolved>,
        prepared: &mut Prepared,
    ) -> Result<(), Failure> {
        let discards = by.as_ref().map(|by| by.discards.clone()).unwrap_or_default();
        let mut account = self.account_four(project, four.base, four.ours, four.theirs, four.result, &discards).await?;
        let mut renamed_to = None;
        if !account.is_whole() && four.result.is_none() {
            (account, renamed_to) = self.account_renamed(project, sides, four, account).await?;
        }
        let mode_lost = lost_mode(four);
        let left_out: Vec<String> =
            account.lost().map(|(side, lost)| format!("{} line {}: {}", side_word(side), lost.at.side_line + 1, lost.excerpt)).collect();
        let manual = by.as_ref().is_some_and(|by| by.manual);
        if !manual && (!account.is_whole() || mode_lost) {
            let mut reasons: Vec<String> = left_out.iter().map(|lost| format!("hunk accounting: the merge would lose {lost}")).collect();
            if mode_lost {
                reasons.push("hunk accounting: the merge would lose a change of the file's mode".to_owned());
            }
            if reasons.is_empty() {
                reasons.push("hunk accounting: the merge would drop lines that nobody changed".to_owned());
            }
            prepared.conflicts.push(Conflict {
                path: four.path.clone(),
                kind: "accounting".to_owned(),
                base: four.base.map(|file| file.oid),
                ours: four.ours.map(|file| file.oid),
                theirs: four.theirs.map(|file| file.oid),
                reasons,
            });
            return Ok(());
        }
        if let Some(by) = &by {
            prepared.resolutions.push(Resolution { path: four.path.clone(), by: by.by.clone(), left_out });
        }
        prepared.files.push(FileReceipt {
            path: four.path.clone(),
            renamed_to,
            resolved_by: by.as_ref().map(|by| by.by.clone()),
            plugin_digest: by.and_then(|by| by.digest),
            account,
        });
        Ok(())
    }

    async fn account_four(
        &self,
        project: ProjectId,
        base: Option<FileVersion>,
        ours: Option<FileVersion>,
        theirs: Option<FileVersion>,
        result: Option<FileVersion>,
        discards: &[Discard],
    ) -> Result<FileAccount, Failure> {
        let base = self.content(project, base).await?;
        let ours = self.content(project, ours).await?;
        let theirs = self.content(project, theirs).await?;
        let result = self.content(project, result).await?;
        Ok(account(base.as_deref(), ours.as_deref(), theirs.as_deref(), result.as_deref(), discards))
    }

    /// Returns a file's content; a submodule's is the name of its commit.
    async fn content(&self, project: ProjectId, file: Option<FileVersion>) -> Result<Option<Vec<u8>>, Failure> {
        match file {
            None => Ok(None),
            Some(file) if file.mode == 0o160_000 => Ok(Some(format!("submodule {}\0", file.oid).into_bytes())),
            Some(file) => Ok(Some(self.kit.repository.blob(project, file.oid).await?)),
        }
    }

    /// Looks for the file that a path went to: one that a side added, in which the account becomes whole.
    async fn account_renamed(
        &self,
        project: ProjectId,
        sides: &[FourSides],
        four: &FourSides,
        found: FileAccount,
    ) -> Result<(FileAccount, Option<String>), Failure> {
        let moved = sides.iter().filter(|to| to.base.is_none() && to.result.is_some() && (to.ours.is_none() || to.theirs.is_none()));
        for to in moved.take(RENAMES_TRIED_MAX) {
            let (ours, theirs) = if to.ours.is_some() { (to.ours, four.theirs) } else { (four.ours, to.theirs) };
            let tried = self.account_four(project, four.base, ours, theirs, to.result, &[]).await?;
            if tried.is_whole() {
                return Ok((tried, Some(to.path.clone())));
            }
        }
        Ok((found, None))
    }
}

/// A file in which strategies resolve hunk by hunk.
struct OpenFile {
    path: String,
    base: Option<Vec<u8>>,
    ours: Vec<u8>,
    theirs: Vec<u8>,
    taken: Vec<Option<Vec<u8>>>,
    discards: Vec<Discard>,
}

impl OpenFile {
    fn new(path: &str, base: Option<Vec<u8>>, ours: Vec<u8>, theirs: Vec<u8>) -> Self {
        let conflicts = merge3(base.as_deref().unwrap_or_default(), &ours, &theirs).conflicts().count();
        Self { path: path.to_owned(), base, ours, theirs, taken: vec![None; conflicts], discards: Vec::new() }
    }

    fn merged(&self) -> pointsman_core::merge_text::Merged<'_> {
        merge3(self.base.as_deref().unwrap_or_default(), &self.ours, &self.theirs)
    }

    fn unresolved(&self) -> (Vec<usize>, Vec<MergeHunk>) {
        let merged = self.merged();
        let open = merged.conflicts().enumerate().filter(|(position, _)| self.taken[*position].is_none());
        open.map(|(position, conflict)| {
            let hunk = MergeHunk {
                base: conflict.base.bytes.to_vec(),
                ours: conflict.ours.bytes.to_vec(),
                theirs: conflict.theirs.bytes.to_vec(),
            };
            (position, hunk)
        })
        .unzip()
    }

    /// Takes a merger's answers; the whole file when nothing is left, else why something is.
    fn take(&mut self, positions: &[usize], answers: Vec<HunkOutcome>) -> Result<(Vec<u8>, Vec<Discard>), String> {
        let mut why = String::new();
        for (position, answer) in positions.iter().zip(answers) {
            match answer {
                HunkOutcome::Resolved(bytes, discards) => {
                    self.taken[*position] = Some(bytes);
                    self.discards.extend(discards.into_iter().map(discard));
                }
                HunkOutcome::Conflict(reason) => why = reason,
                HunkOutcome::Declined => why = if why.is_empty() { "declined".to_owned() } else { why },
            }
        }
        let left = self.taken.iter().filter(|taken| taken.is_none()).count();
        if left > 0 {
            return Err(format!("{left} of {} places left: {why}", self.taken.len()));
        }
        let bytes = self.merged().assemble(&self.taken).map_err(|unresolved| format!("{unresolved:?}"))?;
        Ok((bytes, self.discards.clone()))
    }

    fn forget(&mut self) {
        self.taken.iter_mut().for_each(|taken| *taken = None);
        self.discards.clear();
    }

    fn marked(&self) -> Vec<u8> {
        self.merged().marked(&Labels { ours: "target", base: "base", theirs: "branch" })
    }

    /// Judges an answer: no markers, within size, each change in it or named.
    fn verify(&self, bytes: &[u8], discards: &[Discard]) -> Result<(), String> {
        let had_markers = marker_line(&self.ours).is_some() || marker_line(&self.theirs).is_some();
        if let (Some(line), false) = (marker_line(bytes), had_markers) {
            return Err(format!("a conflict marker in line {}", line + 1));
        }
        if bytes.len() > self.ours.len() + self.theirs.len() + self.base.as_ref().map_or(0, Vec::len) {
            return Err("larger than all sides together".to_owned());
        }
        let account = account(self.base.as_deref(), Some(&self.ours), Some(&self.theirs), Some(bytes), discards);
        match account.lost().next() {
            Some((side, lost)) => Err(format!("it loses a change of {}: {}", side_word(side), lost.excerpt)),
            None if !account.is_whole() => Err("it drops lines that nobody changed".to_owned()),
            None => Ok(()),
        }
    }
}

fn discard(discard: MergeDiscard) -> Discard {
    Discard { side: if discard.of_ours { Side::Ours } else { Side::Theirs }, text: discard.text, reason: discard.reason }
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::Ours => "the target",
        Side::Theirs => "the branch",
    }
}

fn kind_words(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::Content => "both sides changed the same lines",
        ConflictKind::AddAdd => "both sides added it, differently",
        ConflictKind::ModifyDelete => "one side changed it, the other deleted it",
        ConflictKind::Rename => "renames disagree",
        ConflictKind::FileDirectory => "a file here, a directory there",
        ConflictKind::Other => "different types or modes, or not text",
    }
}

fn conflict(conflicted: &ConflictedPath, reasons: Vec<String>) -> Conflict {
    let kind = serde_json::to_value(conflicted.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    Conflict {
        path: conflicted.path.clone(),
        kind: kind.unwrap_or_default(),
        base: conflicted.base.map(|file| file.oid),
        ours: conflicted.ours.map(|file| file.oid),
        theirs: conflicted.theirs.map(|file| file.oid),
        reasons,
    }
}

/// Returns the mode of a resolved file: the one a side changed, else the common one.
fn mode_of(conflicted: &ConflictedPath) -> u32 {
    let modes = (conflicted.base.map(|f| f.mode), conflicted.ours.map(|f| f.mode), conflicted.theirs.map(|f| f.mode));
    match modes {
        (Some(base), Some(ours), Some(theirs)) => {
            if ours == base {
                theirs
            } else {
                ours
            }
        }
        (_, Some(mode), _) | (_, None, Some(mode)) => mode,
        (Some(mode), None, None) => mode,
        (None, None, None) => 0o100_644,
    }
}

/// Returns whether one side changed a file's mode and the result does not have it.
fn lost_mode(four: &FourSides) -> bool {
    let (Some(base), Some(ours), Some(theirs), Some(result)) = (four.base, four.ours, four.theirs, four.result) else { return false };
    let changed = [ours.mode, theirs.mode].into_iter().filter(|mode| *mode != base.mode);
    changed.into_iter().any(|mode| result.mode != mode)
}
