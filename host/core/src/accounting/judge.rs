//! Compares what a result should hold with what it holds.
//!
//! Owns: which lines of which change are missing, which removed lines are back, which untouched lines are gone.
//! Must not know: discards, and how findings are told.
//! Invariant: a line of the result pays for at most one expected line, or for one of each side in a contested
//! gap; each free line is spent once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use imara_diff::Token;

use super::align::{Alignment, Spots};
use super::plan::{Gap, GapKind, Origin, Plan};
use super::{Side, Texts};
use crate::merge_text::{index, without_end};

/// What is wrong with a result.
pub(super) struct Findings {
    /// One for each of our changes.
    pub(super) ours: Vec<HunkFinding>,
    /// One for each of their changes.
    pub(super) theirs: Vec<HunkFinding>,
    /// Untouched base lines that are gone, in order.
    pub(super) dropped: Vec<u32>,
    /// Lines of the result that nothing accounts for.
    pub(super) novel_lines: u32,
    /// Whether a removed line is back of which it cannot be told which side removed it.
    pub(super) undecided: bool,
}

/// What became of a change.
#[derive(Clone, Debug, Default)]
pub(super) struct HunkFinding {
    /// Added lines of the side that are not in the result, in order.
    pub(super) missing: Vec<u32>,
    /// Removed lines of the base that are in the result again, in order.
    pub(super) restored: Vec<u32>,
    /// Whether the other side changed the same place.
    pub(super) shared: bool,
}

impl Findings {
    fn side(&mut self, side: Side) -> &mut [HunkFinding] {
        match side {
            Side::Ours => &mut self.ours,
            Side::Theirs => &mut self.theirs,
        }
    }
}

/// Returns what is wrong with the result, as `plan` reads the sides' changes; in doubt it is not `spared`
/// whose change is lost.
pub(super) fn judge(texts: &Texts<'_>, plan: &Plan, spots: &Spots, spared: Side) -> Findings {
    let mut findings = Findings {
        ours: vec![HunkFinding::default(); plan.ours.len()],
        theirs: vec![HunkFinding::default(); plan.theirs.len()],
        dropped: Vec::new(),
        novel_lines: 0,
        undecided: false,
    };
    for gap in plan.gaps.iter().filter(|gap| gap.kind != GapKind::Single) {
        for side in [Side::Ours, Side::Theirs] {
            for hunk in gap.hunks(side) {
                findings.side(side)[hunk as usize].shared = true;
            }
        }
    }
    if plan.tokens != texts.result.tokens { Judge::new(texts, plan, spots, findings, spared).run() } else { findings }
}

struct Judge<'a> {
    texts: &'a Texts<'a>,
    plan: &'a Plan,
    spots: &'a Spots,
    findings: Findings,
    /// Who is blamed last.
    spared: Side,
    alignment: Alignment,
    /// The bounds of each gap's window, before and after.
    earliest: Vec<u32>,
    latest: Vec<u32>,
    /// The places of the result's lines that nothing has accounted for yet.
    free: HashMap<Token, BTreeSet<u32>>,
    free_count: u32,
    /// The places of lines that were free until a contested gap took them.
    spent: HashMap<Token, BTreeSet<u32>>,
    /// Last lines without a line end, each with the same line in the result that has one.
    endings: Vec<(Token, Token)>,
    /// Lines that are back after a side removed them.
    back: HashSet<Token>,
}

impl<'a> Judge<'a> {
    fn new(texts: &'a Texts<'a>, plan: &'a Plan, spots: &'a Spots, findings: Findings, spared: Side) -> Self {
        let result = &texts.result.tokens;
        let added = |line: u32| plan.origins.get(line as usize).is_some_and(|origin| !matches!(origin, Origin::Kept(_)));
        let alignment = Alignment::new(&plan.tokens, result, texts.interner.num_tokens(), added);
        let mut free: HashMap<Token, BTreeSet<u32>> = HashMap::new();
        let mut free_count = 0;
        for (position, (token, taken)) in result.iter().zip(&alignment.taken).enumerate() {
            if !taken {
                free.entry(*token).or_default().insert(index(position));
                free_count += 1;
            }
        }
        Self {
            earliest: alignment.earliest(&plan.tokens, result),
            latest: alignment.latest(&plan.tokens, result),
            texts,
            plan,
            spots,
            findings,
            spared,
            alignment,
            free,
            free_count,
            spent: HashMap::new(),
            endings: endings(texts),
            back: HashSet::new(),
        }
    }

    fn run(mut self) -> Findings {
        for gap in &self.plan.gaps {
            match gap.kind {
                GapKind::Contested => self.contested(gap),
                GapKind::Single | GapKind::Same => self.plain(gap),
            }
        }
        self.kept();
        for gap in &self.plan.gaps {
            self.removed(gap);
        }
        self.removed_for_good();
        let free = self.free_count;
        let mut findings = self.findings;
        let restored: usize = findings.ours.iter().chain(&findings.theirs).map(|hunk| hunk.restored.len()).sum();
        findings.novel_lines = free.saturating_sub(index(restored));
        for hunk in findings.ours.iter_mut().chain(&mut findings.theirs) {
            hunk.missing.sort_unstable();
            hunk.restored.sort_unstable();
        }
        findings.dropped.sort_unstable();
        findings
    }

    /// Returns the stretch of the result that a gap's lines can stand in.
    fn window(&self, gap: &Gap) -> Range<u32> {
        self.earliest[gap.expected.start as usize]..self.latest[gap.expected.end as usize]
    }

    fn is_matched(&self, line: u32) -> bool {
        self.alignment.places[line as usize].is_some()
    }

    fn miss(&mut self, line: u32, sides: &[Side], gap: &Gap) {
        let origin = self.plan.origins[line as usize];
        let mut blamed = false;
        for side in sides {
            if let Some(addition) = origin.of(*side) {
                self.findings.side(*side)[addition.hunk as usize].missing.push(addition.line);
                blamed = true;
            }
        }
        if !blamed {
            // A line that both sides kept at different places of a gap they made the same.
            self.findings.dropped.push(gap.base.start);
        }
    }

    /// Every line expected in a gap that is not contested has to stand there, in order.
    fn plain(&mut self, gap: &Gap) {
        for line in gap.expected.clone() {
            if !self.is_matched(line) {
                self.miss(line, &[Side::Ours, Side::Theirs], gap);
            }
        }
    }

    /// In a contested gap each side's lines have to be there, each as often as that side adds it; in which
    /// order is for the merger to say, and a line that both add may stand there once or twice.
    fn contested(&mut self, gap: &Gap) {
        let mut needs: BTreeMap<u32, Need> = BTreeMap::new();
        for line in gap.expected.clone() {
            let need = needs.entry(self.plan.tokens[line as usize].0).or_default();
            let origin = self.plan.origins[line as usize];
            need.ours += u32::from(origin.of(Side::Ours).is_some());
            need.theirs += u32::from(origin.of(Side::Theirs).is_some());
            if self.is_matched(line) {
                need.have += 1;
            } else {
                need.open.push(line);
            }
        }
        let window = self.window(gap);
        for (token, need) in &mut needs {
            let token = Token(*token);
            for token in [Some(token), self.other_ending(token)].into_iter().flatten() {
                while need.have < need.ours + need.theirs && self.spend(token, &window) {
                    need.have += 1;
                }
            }
            for (side, wanted) in [(Side::Ours, need.ours), (Side::Theirs, need.theirs)] {
                let lacking = wanted.saturating_sub(need.have) as usize;
                let of_side = |line: &&u32| self.plan.origins[**line as usize].of(side).is_some();
                let lines: Vec<u32> = need.open.iter().filter(of_side).rev().take(lacking).copied().collect();
                for line in lines {
                    self.miss(line, &[side], gap);
                }
            }
        }
    }

    /// Returns the same line with, or without, its line end: which of two additions comes last, and so has
    /// none, changes when they are combined.
    fn other_ending(&self, token: Token) -> Option<Token> {
        self.endings.iter().find_map(|(bare, ended)| match token {
            token if token == *bare => Some(*ended),
            token if token == *ended => Some(*bare),
            _ => None,
        })
    }

    /// Takes a free line of the window for a gap.
    fn spend(&mut self, token: Token, window: &Range<u32>) -> bool {
        let Some(free) = self.free.get_mut(&token) else {
            return false;
        };
        let Some(place) = free.range(window.clone()).next().copied() else {
            return false;
        };
        free.remove(&place);
        self.free_count -= 1;
        self.spent.entry(token).or_default().insert(place);
        true
    }

    fn kept(&mut self) {
        for (line, origin) in self.plan.origins.iter().enumerate() {
            if let (Origin::Kept(base_line), None) = (origin, self.alignment.places[line]) {
                self.findings.dropped.push(*base_line);
            }
        }
    }

    /// Finds removed lines that stand in their gap's window beyond what is expected there.
    fn removed(&mut self, gap: &Gap) {
        let window = self.window(gap);
        if gap.base.is_empty() {
            return;
        }
        let mut own: HashMap<Token, u32> = HashMap::new();
        let mut matched = 0;
        for line in gap.expected.clone().filter(|line| self.is_matched(*line)) {
            *own.entry(self.plan.tokens[line as usize]).or_default() += 1;
            matched += 1;
        }
        if matched == window.len() {
            return;
        }
        let mut removed: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for base_line in gap.base.clone() {
            removed.entry(self.texts.base.tokens[base_line as usize].0).or_default().push(base_line);
        }
        for (token, base_lines) in removed {
            let token = Token(token);
            let spent = self.spent.get(&token);
            // What this gap spent is its own; what others spent here stands in for their lines.
            let spent = spent.map_or(0, |spent| spent.range(window.clone()).count());
            let all = self.spots.count_in(token, &window);
            let extra = all.saturating_sub(own.get(&token).copied().unwrap_or(0) + index(spent));
            if extra > 0 {
                self.back.insert(token);
                self.blame(base_lines, extra as usize);
            }
        }
    }

    /// Notes that so many of some equal removed lines are back. Where it cannot be told which, the spared
    /// side's are the last to be blamed.
    fn blame(&mut self, mut base_lines: Vec<u32>, back: usize) {
        let other = match self.spared {
            Side::Ours => Side::Theirs,
            Side::Theirs => Side::Ours,
        };
        let removes = |side: Side, line: u32| self.plan.removing(side, line).is_some();
        let only_spared = |line: &u32| removes(self.spared, *line) && !removes(other, *line);
        base_lines.sort_by_key(|line| only_spared(line));
        let undecided = base_lines.iter().any(|line| only_spared(line) != only_spared(&base_lines[0]));
        self.findings.undecided |= undecided && back < base_lines.len();
        for base_line in base_lines.into_iter().take(back) {
            restore(&mut self.findings, self.plan, base_line);
        }
    }

    /// Finds lines that a side removed everywhere and the result has somewhere, with nothing to account for
    /// them. Lines without a letter or digit are too common to mean anything away from their place.
    fn removed_for_good(&mut self) {
        let telling = |token: Token| self.texts.interner[token].iter().any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
        let free = self.free.iter().filter(|(_, places)| !places.is_empty()).map(|(token, _)| *token);
        let found: HashSet<Token> = free.filter(|token| telling(*token) && !self.back.contains(token)).collect();
        if !found.is_empty() {
            self.blame_removed(&found);
        }
    }

    fn blame_removed(&mut self, found: &HashSet<Token>) {
        let has =
            |side: Side| -> HashSet<Token> { self.texts.side(side).tokens.iter().filter(|token| found.contains(token)).copied().collect() };
        let present = [has(Side::Ours), has(Side::Theirs)];
        let mut blamed = HashSet::new();
        for gap in &self.plan.gaps {
            for base_line in gap.base.clone() {
                let token = self.texts.base.tokens[base_line as usize];
                let gone = !present.iter().all(|side| side.contains(&token));
                if gone && found.contains(&token) && blamed.insert(token) {
                    restore(&mut self.findings, self.plan, base_line);
                }
            }
        }
    }
}

/// Returns the last lines that have no line end, each with its twin in the result that has one.
fn endings(texts: &Texts<'_>) -> Vec<(Token, Token)> {
    let line = |token: Token| texts.interner[token];
    let lasts = [&texts.base, &texts.ours, &texts.theirs, &texts.result].map(|text| text.tokens.last().copied());
    let endless: HashSet<Token> = lasts.into_iter().flatten().filter(|token| !line(*token).ends_with(b"\n")).collect();
    let twin = |bare: &Token| {
        let ended = texts.result.tokens.iter().find(|other| *other != bare && without_end(line(**other)) == line(*bare));
        ended.map(|ended| (*bare, *ended))
    };
    endless.iter().filter_map(twin).collect()
}

/// Notes that a removed base line is back, against each change that removed it.
fn restore(findings: &mut Findings, plan: &Plan, base_line: u32) {
    for side in [Side::Ours, Side::Theirs] {
        if let Some(hunk) = plan.removing(side, base_line) {
            findings.side(side)[hunk].restored.push(base_line);
        }
    }
}

/// What a contested gap needs of one line.
#[derive(Default)]
struct Need {
    /// How often our side adds it.
    ours: u32,
    /// How often their side adds it.
    theirs: u32,
    /// How often the result has it there.
    have: u32,
    /// The expected lines that are not matched.
    open: Vec<u32>,
}
