//! Slugs, commit messages and pull requests, safe for whatever a title or a note holds.

use std::fmt::Write as _;

use pointsman_sdk::workflow::{ChangeFacts, CommitFacts, FileChange, PullRequest, Task};

/// The longest first line of a commit message.
const SUBJECT_CHARS_MAX: usize = 72;
/// The longest line that is copied from an agent.
const LINE_CHARS_MAX: usize = 200;
/// The longest description that is copied.
const DESCRIPTION_CHARS_MAX: usize = 4_000;
/// Changed lines from which a change is called large.
const LARGE_LINES: u64 = 500;
/// Files from which a change is called wide.
const WIDE_FILES: usize = 20;

/// Returns a title as small letters, digits and single dashes, cut at a word where there is one.
pub(crate) fn slug(title: &str, chars_max: usize) -> String {
    let mut slug = String::new();
    for one in title.chars().flat_map(char::to_lowercase) {
        if one.is_ascii_alphanumeric() {
            slug.push(one);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    if slug.len() > chars_max {
        let whole_word = slug.as_bytes()[chars_max] == b'-';
        slug.truncate(chars_max);
        if !whole_word && let Some(end) = slug.rfind('-').filter(|end| *end >= chars_max / 2) {
            slug.truncate(end);
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// Returns a task's id as it may stand in a name.
pub(crate) fn id(text: &str) -> String {
    let id: String = text.chars().filter(|one| one.is_ascii_alphanumeric() || *one == '-').take(40).collect();
    let id = id.trim_matches('-');
    if id.is_empty() { "task".to_owned() } else { id.to_owned() }
}

/// Returns a text as one line without control characters, cut with an ellipsis.
fn one_line(text: &str, chars_max: usize) -> String {
    // Bidirectional controls can make a line read otherwise than it is.
    let hidden = |one: char| {
        one.is_control() || matches!(one, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let visible: String = text.chars().map(|one| if hidden(one) { ' ' } else { one }).collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= chars_max {
        return line;
    }
    let cut: String = line.chars().take(chars_max.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// Returns a text of several lines, trimmed, without control characters but line ends and tabs, cut.
fn paragraphs(text: &str, chars_max: usize) -> String {
    let visible = |one: &char| !one.is_control() || matches!(one, '\n' | '\t');
    let mut copied: String = text.trim().chars().filter(visible).take(chars_max).collect();
    if text.trim().chars().count() > chars_max {
        copied.push('…');
    }
    copied
}

/// Returns `title`, or the id where there is none.
fn title_of(task: &Task, chars_max: usize) -> String {
    let title = one_line(&task.title, chars_max);
    if title.is_empty() { id(&task.id) } else { title }
}

pub(crate) fn commit_message(facts: &CommitFacts) -> String {
    let note = paragraphs(&facts.note, DESCRIPTION_CHARS_MAX);
    let (first, rest) = note.split_once('\n').unwrap_or((&note, ""));
    let subject = one_line(first, SUBJECT_CHARS_MAX);
    let mut message = if subject.is_empty() { title_of(&facts.task, SUBJECT_CHARS_MAX) } else { subject.clone() };
    // A first line that was cut is said in full below.
    let body = if subject.ends_with('…') { note.as_str() } else { rest };
    push_paragraph(&mut message, body);
    push_trailers(&mut message, &facts.task, &facts.agent, &[]);
    message
}

pub(crate) fn merge_message(facts: &ChangeFacts, files_max: usize) -> String {
    let subject = format!("Merge {}: {}", id(&facts.task.id), facts.task.title);
    let mut message = one_line(&subject, SUBJECT_CHARS_MAX);
    let mut body = counts(facts);
    for change in facts.files.iter().take(files_max) {
        let _ = write!(body, "\n  {}", file_line(change));
    }
    body.push_str(&more(facts.files.len(), files_max));
    push_paragraph(&mut message, &body);
    for (name, lines) in [("Checked", &facts.checks), ("Conflicts", &facts.resolutions)] {
        if !lines.is_empty() {
            push_paragraph(&mut message, &format!("{name}:\n{}", listed(lines, "- ")));
        }
    }
    push_trailers(&mut message, &facts.task, &facts.agent, &facts.approvals);
    message
}

fn push_paragraph(message: &mut String, text: &str) {
    let text = text.trim();
    if !text.is_empty() {
        message.push_str("\n\n");
        message.push_str(text);
    }
}

fn push_trailers(message: &mut String, task: &Task, agent: &str, approvals: &[String]) {
    let _ = write!(message, "\n\nTask: {}\nAgent: {}\n", id(&task.id), one_line(agent, LINE_CHARS_MAX));
    for name in approvals {
        let _ = writeln!(message, "Reviewed-by: {}", one_line(name, LINE_CHARS_MAX));
    }
}

pub(crate) fn pull_request(facts: &ChangeFacts, files_max: usize) -> PullRequest {
    let task = &facts.task;
    let mut body = String::new();
    let commits: Vec<String> = facts.commits.iter().map(|one| format!("`{}` {}", short(&one.id), escaped(&one.subject))).collect();
    section(&mut body, "What", &format!("{}; `{}` into `{}`.", counts(facts), code(&facts.branch), code(&facts.target)));
    let description = paragraphs(&task.description, DESCRIPTION_CHARS_MAX);
    section(&mut body, "Why", if description.is_empty() { "The task says no more than its title." } else { &description });
    section(&mut body, "Tasks", &tasks(task));
    section(&mut body, "Commits", &listed(&commits, "- "));
    section(&mut body, "Files", &file_table(&facts.files, files_max));
    section(&mut body, "Risk", &listed(&risks(facts), "- "));
    section(&mut body, "Tests", &tests(facts));
    let resolutions: Vec<String> = facts.resolutions.iter().map(|line| escaped(line)).collect();
    let conflicts = if resolutions.is_empty() { "None.".to_owned() } else { listed(&resolutions, "- ") };
    section(&mut body, "Conflicts", &conflicts);
    let approvals: Vec<String> = facts.approvals.iter().map(|name| escaped(name)).collect();
    let reviewers = if approvals.is_empty() { "Nobody yet.".to_owned() } else { listed(&approvals, "- Approved by ") };
    section(&mut body, "Reviewers", &reviewers);
    let _ = writeln!(body, "Written for {} of {}.", one_line(&facts.agent, LINE_CHARS_MAX), id(&task.id));
    PullRequest { title: one_line(&format!("{}: {}", id(&task.id), task.title), SUBJECT_CHARS_MAX), body }
}

fn section(body: &mut String, name: &str, text: &str) {
    if !text.trim().is_empty() {
        let _ = write!(body, "## {name}\n\n{}\n\n", text.trim());
    }
}

fn listed(lines: &[String], mark: &str) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{mark}{}", one_line(line, LINE_CHARS_MAX))).collect();
    lines.join("\n")
}

/// Returns a text as it reads in Markdown: no line of it begins or ends a construct.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for one in one_line(text, LINE_CHARS_MAX).chars() {
        if matches!(one, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '@') {
            escaped.push('\\');
        }
        escaped.push(one);
    }
    escaped
}

/// Returns a text that may stand between back quotes.
fn code(text: &str) -> String {
    one_line(text, LINE_CHARS_MAX).replace('`', "'").replace('|', "¦")
}

fn short(commit: &str) -> String {
    commit.chars().filter(char::is_ascii_hexdigit).take(10).collect()
}

fn tasks(task: &Task) -> String {
    let mut lines = format!("- {} ({}), priority {}: {}", id(&task.id), escaped(&task.kind), task.priority, escaped(&task.title));
    for other in &task.depends_on {
        let _ = write!(lines, "\n- after {}", id(other));
    }
    lines
}

fn lines_of(facts: &ChangeFacts) -> (u64, u64) {
    facts.files.iter().fold((0, 0), |(added, removed), one| (added + u64::from(one.added), removed + u64::from(one.removed)))
}

fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

fn counts(facts: &ChangeFacts) -> String {
    let (added, removed) = lines_of(facts);
    format!("{} in {}, {added} lines added, {removed} removed", counted(facts.commits.len(), "commit"), counted(facts.files.len(), "file"))
}

fn file_line(change: &FileChange) -> String {
    format!("{} (+{} -{})", one_line(&change.path, LINE_CHARS_MAX), change.added, change.removed)
}

fn more(count: usize, max: usize) -> String {
    if count > max { format!("\n  and {} more", count - max) } else { String::new() }
}

/// Returns the files as a table, the most changed first.
fn file_table(files: &[FileChange], max: usize) -> String {
    if files.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<&FileChange> = files.iter().collect();
    sorted.sort_by_key(|one| std::cmp::Reverse(u64::from(one.added) + u64::from(one.removed)));
    let mut table = "| File | Added | Removed |\n| --- | ---: | ---: |".to_owned();
    for one in sorted.iter().take(max) {
        let _ = write!(table, "\n| `{}` | {} | {} |", code(&one.path), one.added, one.removed);
    }
    if files.len() > max {
        let _ = write!(table, "\n\nAnd {} more.", files.len() - max);
    }
    table
}

fn is_test(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    path.split(['/', '_', '.', '-']).any(|part| matches!(part, "test" | "tests" | "spec" | "specs" | "__tests__"))
}

/// Says what a reviewer should look at first, by rules that anybody can check.
fn risks(facts: &ChangeFacts) -> Vec<String> {
    let (added, removed) = lines_of(facts);
    let mut risks = Vec::new();
    let touches =
        |what: &dyn Fn(&str) -> bool| facts.files.iter().find(|one| what(&one.path.to_ascii_lowercase())).map(|one| code(&one.path));
    if added + removed >= LARGE_LINES {
        risks.push(format!("Large: {} lines changed.", added + removed));
    }
    if facts.files.len() >= WIDE_FILES {
        risks.push(format!("Wide: {} files.", facts.files.len()));
    }
    if removed > added.saturating_mul(2) && removed > 20 {
        risks.push(format!("Removes more than it adds: {removed} lines."));
    }
    let lock = |path: &str| path.ends_with(".lock") || path.ends_with("-lock.json") || path.ends_with("go.sum");
    let pipeline = |path: &str| {
        path.starts_with(".github/") || path.starts_with(".ci/") || path.contains("dockerfile") || path.ends_with(".gitlab-ci.yml")
    };
    let stored = |path: &str| path.contains("migration") || path.ends_with(".sql") || path.ends_with(".proto");
    for (what, found) in [
        ("Changes dependencies", touches(&lock)),
        ("Changes how the project is built or checked", touches(&pipeline)),
        ("Changes stored data or an interface", touches(&stored)),
    ] {
        if let Some(path) = found {
            risks.push(format!("{what}: `{path}`."));
        }
    }
    if !facts.resolutions.is_empty() {
        risks.push(format!("Was in conflict in {}.", counted(facts.resolutions.len(), "file")));
    }
    if !facts.files.is_empty() && !facts.files.iter().any(|one| is_test(&one.path)) {
        risks.push("No test is changed.".to_owned());
    }
    if risks.is_empty() {
        risks.push("Nothing stands out.".to_owned());
    }
    risks
}

fn tests(facts: &ChangeFacts) -> String {
    let mut lines: Vec<String> = facts.checks.iter().map(|line| escaped(line)).collect();
    lines.extend(facts.files.iter().filter(|one| is_test(&one.path)).take(10).map(|one| format!("Changes `{}`", code(&one.path))));
    if lines.is_empty() { "No check was run yet.".to_owned() } else { listed(&lines, "- ") }
}
