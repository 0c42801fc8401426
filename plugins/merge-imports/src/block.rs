//! Three-way merges of blocks of imports: sets of statements, group by group.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_sdk::merger::{HunkOutcome, Resolution};

use crate::statement::{Language, Statement};

/// A side, cut into groups of statements at its blank lines.
struct Block {
    /// Blank lines before the first group.
    head: String,
    groups: Vec<Vec<Statement>>,
    /// Blank lines between groups, each after the group of its number.
    gaps: Vec<String>,
    /// Blank lines after the last group.
    tail: String,
}

/// Merges a hunk; none when it is no block of imports.
pub(crate) fn merge(language: Language, base: &str, ours: &str, theirs: &str) -> Option<HunkOutcome> {
    let [base_block, our_block, their_block] = [read(language, base)?, read(language, ours)?, read(language, theirs)?];
    if our_block.groups.is_empty() && their_block.groups.is_empty() {
        return None;
    }
    let count = [&base_block, &our_block, &their_block].iter().map(|block| block.groups.len()).max().unwrap_or(0);
    // A side without any group stands for as many empty ones; else the groups must correspond.
    if [&base_block, &our_block, &their_block].iter().any(|block| !matches!(block.groups.len(), 0) && block.groups.len() != count) {
        return None;
    }
    let frame = if our_block.groups.is_empty() { &their_block } else { &our_block };
    let head = pick(&base_block.head, &our_block.head, &their_block.head)?;
    let tail = pick(&base_block.tail, &our_block.tail, &their_block.tail)?;
    let end = if ours.contains("\r\n") || (ours.is_empty() && theirs.contains("\r\n")) { "\r\n" } else { "\n" };
    let mut text = head.to_owned();
    for n in 0..count {
        let group = |block: &Block| block.groups.get(n).cloned().unwrap_or_default();
        let merged = match merge_group(language, &group(&base_block), &group(&our_block), &group(&their_block)) {
            Ok(merged) => merged,
            Err(reason) => return Some(HunkOutcome::Conflict(reason)),
        };
        for statement in merged {
            text.push_str(&statement.indent);
            text.push_str(&statement.text);
            text.push_str(end);
        }
        text.push_str(frame.gaps.get(n).map_or("", String::as_str));
    }
    text.push_str(tail);
    let reason = "its names stand in the result, in one statement with those of the other side";
    let [base, ours, theirs] = [base, ours, theirs].map(str::as_bytes);
    Some(HunkOutcome::Resolved(Resolution::reworded(text.into_bytes(), base, ours, theirs, reason)))
}

fn read(language: Language, side: &str) -> Option<Block> {
    let mut block = Block { head: String::new(), groups: Vec::new(), gaps: Vec::new(), tail: String::new() };
    let mut blank = String::new();
    let mut in_group = false;
    for line in side.split_inclusive('\n') {
        if line.trim().is_empty() {
            blank.push_str(line);
            in_group = false;
            continue;
        }
        let statement = Statement::read(language, line)?;
        if !in_group {
            if block.groups.is_empty() {
                block.head = std::mem::take(&mut blank);
            } else {
                block.gaps.push(std::mem::take(&mut blank));
            }
            block.groups.push(Vec::new());
            in_group = true;
        }
        block.groups.last_mut()?.push(statement);
    }
    block.tail = blank;
    Some(block)
}

/// Returns the version that one side alone changed; none when both did, differently.
fn pick<'a>(base: &'a str, ours: &'a str, theirs: &'a str) -> Option<&'a str> {
    if ours == theirs || theirs == base {
        Some(ours)
    } else if ours == base {
        Some(theirs)
    } else {
        None
    }
}

/// Statements of one group under what they import from.
fn by_key(group: &[Statement]) -> BTreeMap<&str, Vec<&Statement>> {
    let mut keys: BTreeMap<&str, Vec<&Statement>> = BTreeMap::new();
    for statement in group {
        keys.entry(&statement.key).or_default().push(statement);
    }
    keys
}

fn merge_group(language: Language, base: &[Statement], ours: &[Statement], theirs: &[Statement]) -> Result<Vec<Statement>, String> {
    let (in_base, in_ours, in_theirs) = (by_key(base), by_key(ours), by_key(theirs));
    let mut merged: BTreeMap<&str, Vec<Statement>> = BTreeMap::new();
    for key in in_base.keys().chain(in_ours.keys()).chain(in_theirs.keys()) {
        let [b, o, t] = [&in_base, &in_ours, &in_theirs].map(|side| side.get(key).cloned().unwrap_or_default());
        merged.insert(key, merge_key(&b, &o, &t)?);
    }
    refuse_clashes(&merged, ours, theirs)?;
    let statements = in_order(ours, theirs, &merged);
    Ok(sort_as_before(language, [base, ours, theirs], statements))
}

/// Merges the statements that import from one place.
fn merge_key(base: &[&Statement], ours: &[&Statement], theirs: &[&Statement]) -> Result<Vec<Statement>, String> {
    let texts = |side: &[&Statement]| -> Vec<String> { side.iter().map(|one| one.text.clone()).collect() };
    let owned = |side: &[&Statement]| -> Vec<Statement> { side.iter().copied().cloned().collect() };
    let (b, o, t) = (texts(base), texts(ours), texts(theirs));
    if o == t || b == t {
        return Ok(owned(ours));
    }
    if b == o {
        return Ok(owned(theirs));
    }
    let ([] | [_], [our], [their]) = (base, ours, theirs) else {
        return Err(format!("both sides changed how `{}` is imported", ours.first().or(theirs.first()).map_or("", |one| &one.text)));
    };
    let list = |one: &Statement| one.names.as_ref().map(|names| names.list.clone()).unwrap_or_default();
    let base_list = base.first().map(|one| list(one)).unwrap_or_default();
    let names = merge_names(&base_list, &list(our), &list(their));
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let joined = our.with_names(names).ok_or_else(|| format!("both sides changed `{}`", our.text))?;
    Ok(vec![joined])
}

/// Merges lists of names as sets; sorted when both sides' were, else theirs after ours.
fn merge_names(base: &[String], ours: &[String], theirs: &[String]) -> Vec<String> {
    let keep = |name: &&String| !base.contains(name) || (ours.contains(name) && theirs.contains(name));
    let mut names: Vec<String> = ours.iter().filter(keep).cloned().collect();
    names.extend(theirs.iter().filter(keep).filter(|name| !ours.contains(name)).cloned());
    for order in [name_order as fn(&str) -> (bool, String), |name| (false, name.to_owned()), |name| (false, name.to_lowercase())] {
        let sorted = |list: &[String]| list.is_sorted_by_key(|name| order(name));
        if sorted(ours) && sorted(theirs) {
            names.sort_by_key(|name| order(name));
            break;
        }
    }
    names
}

/// `self` first, then by text.
fn name_order(name: &str) -> (bool, String) {
    (name != "self", name.to_owned())
}

/// Refuses a result in which one name comes from two places, one of them each side's own.
fn refuse_clashes(merged: &BTreeMap<&str, Vec<Statement>>, ours: &[Statement], theirs: &[Statement]) -> Result<(), String> {
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, statements) in merged {
        for name in statements.iter().flat_map(|one| &one.binds) {
            places.entry(name).or_default().insert(key);
        }
    }
    let binds = |side: &[Statement], name: &str| -> BTreeSet<String> {
        side.iter().filter(|one| one.binds.iter().any(|bound| bound == name)).map(|one| one.key.clone()).collect()
    };
    for (name, from) in places.iter().filter(|(_, from)| from.len() > 1) {
        // A side that had them all already knows why.
        let all = |side: &[Statement]| from.iter().all(|key| binds(side, name).contains(*key));
        if !all(ours) && !all(theirs) {
            return Err(format!("the sides import `{name}` from different places"));
        }
    }
    Ok(())
}

/// Returns the merged statements in the order of ours, what theirs added after the neighbour it had there.
fn in_order(ours: &[Statement], theirs: &[Statement], merged: &BTreeMap<&str, Vec<Statement>>) -> Vec<Statement> {
    let known: BTreeSet<&str> = ours.iter().map(|one| one.key.as_str()).collect();
    let mut behind: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    let mut neighbour = None;
    for one in theirs {
        if known.contains(one.key.as_str()) {
            neighbour = Some(one.key.as_str());
        } else if !behind.values().any(|keys| keys.contains(&one.key.as_str())) {
            behind.entry(neighbour).or_default().push(&one.key);
        }
    }
    let in_theirs: BTreeSet<&str> = theirs.iter().map(|one| one.key.as_str()).collect();
    let mut order: Vec<&str> = Vec::new();
    let mut pending = behind.remove(&None).unwrap_or_default();
    for one in ours {
        let key = one.key.as_str();
        if order.contains(&key) {
            continue;
        }
        if in_theirs.contains(key) {
            order.append(&mut pending);
        }
        order.push(key);
        pending.extend(behind.remove(&Some(key)).unwrap_or_default());
    }
    order.append(&mut pending);
    order.into_iter().filter_map(|key| merged.get(key)).flatten().cloned().collect()
}

/// Sorts the statements as the sides had sorted theirs; leaves them where no order is seen.
fn sort_as_before(language: Language, sides: [&[Statement]; 3], mut statements: Vec<Statement>) -> Vec<Statement> {
    // Two lines are needed to see an order; includes may depend on theirs, so for C it must be seen.
    let seen = sides.iter().any(|side| side.len() > 1);
    if !seen && language == Language::C {
        return statements;
    }
    let orders: [fn(&Statement) -> String; 4] = [
        |one| one.text.clone(),
        |one| one.text.trim_end_matches(';').to_owned(),
        |one| one.text.to_lowercase(),
        |one| place_of(&one.text).to_owned(),
    ];
    for order in orders {
        if sides.iter().all(|side| side.is_sorted_by_key(order)) {
            statements.sort_by_key(order);
            break;
        }
    }
    statements
}

/// Returns what a statement imports from: its quoted part, else what follows its first word.
fn place_of(text: &str) -> &str {
    let quoted = text.find(['"', '\'']).map(|start| &text[start..]);
    quoted.unwrap_or_else(|| text.split_once(' ').map_or(text, |(_, rest)| rest))
}
