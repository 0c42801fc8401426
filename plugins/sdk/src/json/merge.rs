//! The structural three-way merge: objects by key, lists by the rule that fits their place.

use std::collections::{BTreeMap, BTreeSet};

use super::print::{Layout, Merged, print};
use super::{Kind, Node};

/// How a list that both sides changed is merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArrayRule {
    /// Both sides must say the same.
    #[default]
    Equal,
    /// Order has no meaning and each item stands once: additions and removals of both sides hold.
    Set,
    /// Items are objects told apart by this member; each is merged by itself.
    By(String),
}

/// Which rule holds where.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// For lists that no pattern names.
    pub default: ArrayRule,
    /// JSON pointers, in which a part `*` stands for any key or index, and their rules. The first match holds.
    pub at: Vec<(String, ArrayRule)>,
}

/// A place where both sides disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// Why it is one.
    pub reason: &'static str,
    /// The text in the base; none where nothing stood.
    pub base: Option<String>,
    /// The text on the target's side; none where it was removed.
    pub ours: Option<String>,
    /// The text on the branch's side; none where it was removed.
    pub theirs: Option<String>,
}

/// Merges three documents and returns the text of the result, laid out as `ours`, without a line end.
///
/// `base` is none where both sides started from nothing.
///
/// # Errors
/// All places where the sides disagree.
pub fn merge<'a>(base: Option<&'a Node<'a>>, ours: &'a Node<'a>, theirs: &'a Node<'a>, rules: &Rules) -> Result<String, Vec<Conflict>> {
    let mut merger = Merger { rules, path: Vec::new(), conflicts: Vec::new() };
    let merged = merger.value(base, Some(ours), Some(theirs));
    if !merger.conflicts.is_empty() {
        return Err(merger.conflicts);
    }
    let layout = Layout::of(ours.raw, ours);
    Ok(merged.map_or_else(String::new, |tree| print(&tree, layout)))
}

struct Merger<'r> {
    rules: &'r Rules,
    path: Vec<String>,
    conflicts: Vec<Conflict>,
}

/// The values of one container, by what tells them apart.
type Entries<'a> = Vec<(String, &'a Node<'a>)>;

impl Merger<'_> {
    fn value<'a>(&mut self, base: Option<&'a Node<'a>>, ours: Option<&'a Node<'a>>, theirs: Option<&'a Node<'a>>) -> Option<Merged<'a>> {
        let raw = |node: Option<&'a Node<'a>>| node.map(|node| Merged::Raw(node.raw));
        if same(ours, theirs) || same(base, theirs) {
            return raw(ours);
        }
        if same(base, ours) {
            return raw(theirs);
        }
        let (Some(our), Some(their)) = (ours, theirs) else {
            self.conflict("one side removed what the other changed", base, ours, theirs);
            return raw(ours.or(theirs));
        };
        match (&our.kind, &their.kind) {
            (Kind::Object(_), Kind::Object(_)) if base.is_none_or(|base| matches!(base.kind, Kind::Object(_))) => {
                Some(self.object(base, our, their))
            }
            (Kind::Array(_), Kind::Array(_)) if base.is_none_or(|base| matches!(base.kind, Kind::Array(_))) => self.array(base, our, their),
            _ if base.is_none() => {
                self.conflict("both sides added this, differently", base, ours, theirs);
                raw(ours)
            }
            _ => {
                self.conflict("both sides changed this, differently", base, ours, theirs);
                raw(ours)
            }
        }
    }

    fn object<'a>(&mut self, base: Option<&'a Node<'a>>, ours: &'a Node<'a>, theirs: &'a Node<'a>) -> Merged<'a> {
        let base_entries = base.map_or_else(Vec::new, members);
        let (our_entries, their_entries) = (members(ours), members(theirs));
        let mut key_texts: BTreeMap<String, &'a str> = BTreeMap::new();
        for node in [theirs, ours] {
            if let Kind::Object(list) = &node.kind {
                key_texts.extend(list.iter().map(|member| (member.key.clone(), member.key_raw)));
            }
        }
        let sorted = is_sorted(&our_entries) && is_sorted(&their_entries) && our_entries.len().max(their_entries.len()) > 1;
        let mut merged = self.entries(&base_entries, &our_entries, &their_entries, |key, _| key.to_owned());
        if sorted {
            merged.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let members = merged.into_iter().filter_map(|(key, value)| Some((*key_texts.get(&key)?, value))).collect();
        Merged::Object { like: fuller(ours, theirs), members }
    }

    fn array<'a>(&mut self, base: Option<&'a Node<'a>>, ours: &'a Node<'a>, theirs: &'a Node<'a>) -> Option<Merged<'a>> {
        let rule = self.rule();
        let keyed = |node: &'a Node<'a>| keyed_items(node, &rule);
        let base_entries = base.map_or_else(|| Some(Vec::new()), keyed);
        let (Some(base_entries), Some(our_entries), Some(their_entries)) = (base_entries, keyed(ours), keyed(theirs)) else {
            let reason = if rule == ArrayRule::Equal {
                "both sides changed this list"
            } else {
                "both sides changed this list, and its items cannot be told apart by its rule"
            };
            self.conflict(reason, base, Some(ours), Some(theirs));
            return Some(Merged::Raw(ours.raw));
        };
        let merged = self.entries(&base_entries, &our_entries, &their_entries, |key, sides| {
            let index = sides.iter().find_map(|side| side.iter().position(|(other, _)| other == key));
            index.map_or_else(|| "-".to_owned(), |index| index.to_string())
        });
        Some(Merged::Array { like: fuller(ours, theirs), items: merged.into_iter().map(|(_, value)| value).collect() })
    }

    /// Merges the values of a container one by one and gives them in the order of `ours`, with what `theirs`
    /// added after the neighbour it was added behind.
    fn entries<'a>(
        &mut self,
        base: &Entries<'a>,
        ours: &Entries<'a>,
        theirs: &Entries<'a>,
        segment: impl Fn(&str, [&Entries<'a>; 3]) -> String,
    ) -> Vec<(String, Merged<'a>)> {
        let index = |entries: &Entries<'a>| -> BTreeMap<String, &'a Node<'a>> { entries.iter().cloned().collect() };
        let (in_base, in_ours, in_theirs) = (index(base), index(ours), index(theirs));
        let mut merged = Vec::new();
        for key in order(base, ours, theirs) {
            let node = |side: &BTreeMap<String, &'a Node<'a>>| side.get(key).copied();
            let (b, o, t) = (node(&in_base), node(&in_ours), node(&in_theirs));
            self.path.push(segment(key, [base, ours, theirs]));
            if let Some(value) = self.value(b, o, t) {
                merged.push((key.to_owned(), value));
            }
            self.path.pop();
        }
        merged
    }

    fn rule(&self) -> ArrayRule {
        let fits = |pattern: &str| {
            let parts: Vec<&str> = if pattern.is_empty() { Vec::new() } else { pattern.split('/').skip(1).collect() };
            parts.len() == self.path.len() && parts.iter().zip(&self.path).all(|(part, name)| *part == "*" || **part == escape(name))
        };
        self.rules.at.iter().find(|(pattern, _)| fits(pattern)).map_or_else(|| self.rules.default.clone(), |(_, rule)| rule.clone())
    }

    fn conflict(&mut self, reason: &'static str, base: Option<&Node<'_>>, ours: Option<&Node<'_>>, theirs: Option<&Node<'_>>) {
        let mut pointer = String::new();
        for part in &self.path {
            pointer.push('/');
            pointer.push_str(&escape(part));
        }
        let text = |node: Option<&Node<'_>>| node.map(|node| node.raw.to_owned());
        self.conflicts.push(Conflict { pointer, reason, base: text(base), ours: text(ours), theirs: text(theirs) });
    }
}

fn same(a: Option<&Node<'_>>, b: Option<&Node<'_>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same(b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Escapes a part of a JSON pointer.
fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

fn members<'a>(node: &'a Node<'a>) -> Entries<'a> {
    match &node.kind {
        Kind::Object(members) => members.iter().map(|member| (member.key.clone(), &member.value)).collect(),
        Kind::Plain | Kind::Text(_) | Kind::Array(_) => Vec::new(),
    }
}

/// Returns the items of a list by what tells them apart under a rule; none when that fails.
fn keyed_items<'a>(node: &'a Node<'a>, rule: &ArrayRule) -> Option<Entries<'a>> {
    let Kind::Array(items) = &node.kind else { return None };
    let key_of = |item: &Node<'_>| match rule {
        ArrayRule::Equal => None,
        ArrayRule::Set => Some(item.canonical()),
        ArrayRule::By(name) => item.get(name).filter(|key| !matches!(key.kind, Kind::Array(_) | Kind::Object(_))).map(Node::canonical),
    };
    let mut seen = BTreeSet::new();
    items
        .iter()
        .map(|item| {
            let key = key_of(item)?;
            seen.insert(key.clone()).then_some((key, item))
        })
        .collect()
}

/// Returns the keys of both sides: the order of `ours`, additions of `theirs` after their neighbour, behind
/// what `ours` added there.
fn order<'e>(base: &Entries<'_>, ours: &'e Entries<'_>, theirs: &'e Entries<'_>) -> Vec<&'e str> {
    let keys = |entries: &'e Entries<'_>| -> BTreeSet<&'e str> { entries.iter().map(|(key, _)| key.as_str()).collect() };
    let (in_ours, in_theirs) = (keys(ours), keys(theirs));
    let in_base: BTreeSet<&str> = base.iter().map(|(key, _)| key.as_str()).collect();
    let mut behind: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    let mut neighbour = None;
    for (key, _) in theirs {
        if in_ours.contains(key.as_str()) {
            neighbour = Some(key.as_str());
        } else {
            behind.entry(neighbour).or_default().push(key);
        }
    }
    let mut order = Vec::new();
    // Without any neighbour in common there is no place before one, so additions come last.
    let mut pending = if neighbour.is_some() { behind.remove(&None).unwrap_or_default() } else { Vec::new() };
    for (key, _) in ours {
        if in_base.contains(key.as_str()) || in_theirs.contains(key.as_str()) {
            order.append(&mut pending);
        }
        order.push(key.as_str());
        pending.extend(behind.remove(&Some(key.as_str())).unwrap_or_default());
    }
    order.append(&mut pending);
    order.extend(behind.remove(&None).unwrap_or_default());
    order
}

fn is_sorted(entries: &Entries<'_>) -> bool {
    entries.is_sorted_by(|a, b| a.0 <= b.0)
}

/// Returns the side whose layout says more: the one that is not empty.
fn fuller<'a>(ours: &'a Node<'a>, theirs: &'a Node<'a>) -> &'a Node<'a> {
    let empty = |node: &Node<'_>| node.raw.len() <= 2;
    if empty(ours) { theirs } else { ours }
}
