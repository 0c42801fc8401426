use pointsman_core::agent::AgentRecord;
use pointsman_core::event::{Actor, Cursor, NewEvent, Provenance};
use pointsman_core::ids::{AgentId, FencingToken, Oid, PrincipalId, ThreadId};
use pointsman_core::merge::{Conflict, MergeState};
use pointsman_core::message::SenderContext;
use pointsman_core::task::Claim;
use serde_json::json;

use super::*;

const SENT: TimeMs = TimeMs(1_800_000_000_000);

fn agent(n: u8) -> AgentId {
    AgentId::from_bytes([n; 16])
}

fn names() -> Names {
    Names([(1, "ana"), (2, "bo"), (3, "carl")].map(|(n, name)| (agent(n).to_string(), name.to_owned())).into())
}

fn by(n: u8, name: &str) -> Actor {
    Actor { principal: Some(PrincipalId::from_bytes([9; 16])), agent: Some(agent(n)), name: name.to_owned(), provenance: Provenance::Agent }
}

fn question() -> Message {
    let project = ProjectId::from_bytes([5; 16]);
    Message {
        id: MessageId::new(SENT, [1; 10]),
        project,
        thread: ThreadId::new(SENT, [2; 10]),
        kind: "question".to_owned(),
        from: by(1, "ana"),
        to: vec!["rust".parse().expect("an address")],
        subject: "Which parser?".to_owned(),
        body: json!("…"),
        attachments: Vec::new(),
        paths: Vec::new(),
        tags: Vec::new(),
        correlation: None,
        headers: std::collections::BTreeMap::default(),
        priority: 4,
        expires_at: None,
        ack_required: false,
        reply_to: None,
        causation: None,
        context: SenderContext::default(),
        sent_at: SENT,
    }
}

/// A log: each event so many milliseconds after the one before.
fn log(events: Vec<(u64, NewEvent)>) -> Vec<Event> {
    let mut at = SENT;
    let event = |(seq, (after, event)): (u64, (u64, NewEvent))| {
        at = at + after;
        Event { cursor: Cursor { epoch: 0, seq }, at, project: ProjectId::from_bytes([5; 16]), event }
    };
    (1..).zip(events).map(event).collect()
}

fn about(kind: &str, actor: Actor, data: Value) -> NewEvent {
    NewEvent::new(kind, actor, question().id, data)
}

/// ana asks whoever knows rust; bo gives it back; carl acks it.
fn passed_on() -> Vec<(u64, NewEvent)> {
    let (bo, carl) = (agent(2), agent(3));
    vec![
        (0, about("message.sent", by(1, "ana"), json!({"to": ["rust"], "kind": "question", "subject": "Which parser?"}))),
        (
            0,
            about(
                "message.routed",
                Actor::host(),
                json!({"address": "rust", "decision": "ranked", "reason": "it is idle", "router": {"name": "routing-capability", "digest": "d"},
                       "asked": [], "agents": [bo], "rest": [carl], "inbox": {bo.to_string(): "ready"}}),
            ),
        ),
        (
            40,
            about(
                "message.handed_out",
                by(2, "bo"),
                json!({"agent": bo, "attempt": 1, "until": "2027-01-15T08:10:00Z", "inbox": {bo.to_string(): "leased"}}),
            ),
        ),
        (
            2_500,
            about(
                "message.nacked",
                by(2, "bo"),
                json!({"agent": bo, "reason": "not my parser", "passed_to": carl, "inbox": {bo.to_string(): "gone", carl.to_string(): "ready"}}),
            ),
        ),
        (
            60_000,
            about(
                "message.handed_out",
                by(3, "carl"),
                json!({"agent": carl, "attempt": 2, "until": "2027-01-15T08:11:02Z", "inbox": {carl.to_string(): "leased"}}),
            ),
        ),
        (1_000, about("message.acked", by(3, "carl"), json!({"agent": carl, "inbox": {carl.to_string(): "gone"}}))),
    ]
}

fn stands_after(steps: usize, only: Option<AgentId>) -> Stands {
    let events = log(passed_on().into_iter().take(steps).collect());
    let now = events.last().map_or(SENT, |event| event.at) + 5_000;
    stands::message(&question(), &events, &names(), only, now)
}

#[test]
fn a_message_is_told_step_by_step() {
    let events = log(passed_on());
    let told: Vec<(u64, String)> = steps(&events, &names()).into_iter().map(|step| (step.after_ms, step.says)).collect();
    let id = question().id;
    assert_eq!(
        told,
        [
            (0, format!("ana sent {id} (question) to rust: “Which parser?”")),
            (0, "routed by router `routing-capability` for `rust` to bo, then carl: it is idle".to_owned()),
            (40, "handed out to bo (try 1), to be acked until 2027-01-15T08:10:00Z".to_owned()),
            (2_500, "given back by bo: not my parser; passed to carl".to_owned()),
            (60_000, "handed out to carl (try 2), to be acked until 2027-01-15T08:11:02Z".to_owned()),
            (1_000, "acked by carl".to_owned()),
        ]
    );
}

#[test]
fn it_is_said_where_a_message_stands_and_whose_move_it_is() {
    for (steps, says, move_of) in [
        (2, "It has lain in the inbox of bo for 5.0 s, to be taken by wait_for_events. It is the move of bo.", Some("bo")),
        (3, "bo has had it for 5.0 s and has not acked it; it comes back at 2027-01-15T08:10:00Z. It is the move of bo.", Some("bo")),
        (4, "It has lain in the inbox of carl for 5.0 s, to be taken by wait_for_events. It is the move of carl.", Some("carl")),
        (6, "It was acked by carl, 1 min 3 s after it was sent. Nothing is left to do.", None),
    ] {
        let stands = stands_after(steps, None);
        assert_eq!((stands.says.as_str(), stands.move_of.as_deref()), (says, move_of), "after {steps} steps");
    }
    let with_bo = stands_after(6, Some(agent(2)));
    assert_eq!(with_bo.says, "bo no longer has it: it went to the next one. Nothing is left to do.");
}

#[test]
fn what_nobody_took_says_who_could() {
    let routed = |decision: &str, reason: &str| {
        let data =
            json!({"address": "rust", "decision": decision, "reason": reason, "router": null, "asked": [], "agents": [], "inbox": {}});
        about("message.routed", Actor::host(), data)
    };
    let of = |events: Vec<(u64, NewEvent)>| stands::message(&question(), &log(events), &names(), None, SENT + 65_000);
    let waits = of(vec![(0, routed("nobody", "nobody has rust"))]);
    assert!(waits.says.contains("1 min 5 s") && waits.says.contains("nobody has rust"), "{}", waits.says);
    assert_eq!(waits.move_of.as_deref(), Some("any agent that can take it"));
    let dropped = of(vec![(0, routed("drop", "too old"))]);
    assert_eq!((dropped.says.as_str(), dropped.move_of.as_deref()), ("Nobody got it (too old). It is the move of ana.", Some("ana")));
    let expired = about("message.expired", Actor::host(), json!({"addresses": ["rust"], "inbox": {}}));
    let expired = of(vec![(0, routed("nobody", "nobody has rust")), (50, expired)]);
    assert_eq!(expired.move_of, None);
    let bo = agent(2);
    let data = json!({"agent": bo, "attempts": 8, "reason": "it crashed me", "cause": "nacked", "inbox": {bo.to_string(): "gone"}});
    let dead = of(vec![(0, about("message.dead_lettered", by(2, "bo"), data))]);
    assert!(dead.says.contains("dead letter: bo") && dead.move_of.as_deref() == Some("an operator"), "{}", dead.says);
}

fn task() -> Task {
    let claim = Claim {
        agent: agent(2),
        agent_name: "bo".to_owned(),
        principal: PrincipalId::from_bytes([9; 16]),
        token: FencingToken { epoch: 0, n: 1 },
        until: SENT + 1_800_000,
    };
    Task {
        id: TaskId(3),
        title: "Parse".to_owned(),
        description: String::new(),
        kind: "feature".to_owned(),
        priority: 4,
        labels: Vec::new(),
        acceptance: Vec::new(),
        depends_on: Vec::new(),
        paths: Vec::new(),
        shared_paths: Vec::new(),
        state: TaskState::Claimed,
        claim: Some(claim),
        fence: FencingToken { epoch: 0, n: 1 },
        branch: Some("feature/T-3".to_owned()),
        base: None,
        head: None,
        progress: 30,
        note: String::new(),
        reviews: Vec::new(),
        resolutions: Vec::new(),
        merges: vec![MergeId(2)],
        created_by: "ana".to_owned(),
        created_at: SENT,
        updated_at: SENT,
    }
}

fn merge_in(outcome: MergeState) -> Merge {
    Merge {
        id: MergeId(2),
        task: TaskId(3),
        agent: agent(2),
        agent_name: "bo".to_owned(),
        branch: "feature/T-3".to_owned(),
        head: Oid([7; 20]),
        target: "main".to_owned(),
        outcome,
        passed: Vec::new(),
        queued_at: SENT,
        updated_at: SENT,
    }
}

#[test]
fn a_task_s_state_names_who_is_next() {
    let now = SENT + 90_000;
    let says = |task: &Task, merge: Option<&Merge>, waits_for: &[Task]| stands::task(task, merge, waits_for, now);
    let working = says(&task(), None, &[]);
    assert!(working.says.starts_with("bo works on T-3 (30 %)") && working.move_of.as_deref() == Some("bo"), "{}", working.says);
    let open = Task { state: TaskState::Open, claim: None, ..task() };
    assert_eq!(says(&open, None, &[]).says, "T-3 has been open for 1 min 30 s: nobody holds it. It is the move of any agent.");
    let needed = Task { id: TaskId(1), branch: None, ..open.clone() };
    assert!(says(&open, None, &[needed]).says.contains("comes after T-1, which nobody has begun"));
    let conflict =
        Conflict { path: "a.rs".to_owned(), kind: "content".to_owned(), base: None, ours: None, theirs: None, reasons: Vec::new() };
    let conflicted = merge_in(MergeState::Conflicted { ours: Oid([1; 20]), conflicts: vec![conflict] });
    let back = says(&task(), Some(&conflicted), &[]);
    assert!(back.says.contains("back with bo") && back.says.contains("`main` in a.rs"), "{}", back.says);

    let submitted = Task { state: TaskState::Submitted, ..task() };
    let waiting = MergeState::Waiting { rule: "one-review".to_owned(), why: "nobody approved it".to_owned(), ours: Oid([1; 20]) };
    let waits = says(&submitted, Some(&merge_in(waiting)), &[]);
    assert_eq!(waits.move_of.as_deref(), Some("a reviewer"));
    assert!(waits.says.contains("waited for 1 min 30 s for an approval (`one-review`: nobody approved it)"), "{}", waits.says);
    let queued = merge_in(MergeState::Queued);
    assert_eq!(says(&submitted, Some(&queued), &[]).move_of.as_deref(), Some("the host"));
    let first = Task { id: TaskId(1), ..task() };
    let behind = says(&submitted, Some(&queued), &[first]);
    assert_eq!((behind.says.as_str(), behind.move_of.as_deref()), ("M-2 waits until T-1 landed. It is the move of bo.", Some("bo")));
    let landed = Task { state: TaskState::Landed, claim: None, updated_at: SENT + 60_000, ..task() };
    let over = says(&landed, Some(&merge_in(MergeState::Landed { commit: Oid([0xab; 20]) })), &[]);
    assert_eq!(over.says, "T-3 landed 1 min after it was created: M-2 is on `main` as ababababab. Nothing is left to do.");
}

#[test]
fn an_earlier_merge_is_over() {
    let refused = merge_in(MergeState::Refused { rule: "branch_moved".to_owned(), why: "it moved".to_owned() });
    let newer = Task { merges: vec![MergeId(2), MergeId(5)], ..task() };
    assert_eq!(stands::merge(&refused, &task(), &[], SENT).move_of.as_deref(), Some("bo"));
    let over = stands::merge(&refused, &newer, &[], SENT);
    assert!(over.move_of.is_none() && over.says.contains("M-5 took its place"), "{}", over.says);
}

#[test]
fn every_type_has_words_and_an_unknown_one_its_name() {
    let of = |kind: &str, subject: &str, data: Value| {
        let mut events = log(vec![(0, NewEvent::new(kind, by(2, "bo"), subject, data))]);
        words::of(&events.remove(0), &names())
    };
    assert_eq!(
        of("task.created", "T-3", json!({"title": "Parse", "depends_on": ["T-1"]})),
        "T-3 created by bo: “Parse”, to come after T-1"
    );
    assert_eq!(
        of("task.reviewed", "T-3", json!({"approves": true, "head": "ab".repeat(20), "comment": "good"})),
        "approved by bo at ababababab: good"
    );
    assert_eq!(
        of("merge.checked", "M-2", json!({"check": "test", "passed": false, "took_ms": 1_500})),
        "M-2: check `test` failed in 1.5 s"
    );
    assert_eq!(of("branch.refused", "T-3", json!({"commit": "ab", "why": "a\nb"})), "commit ab refused: a b");
    assert_eq!(of("weather.changed", "x", json!({})), "bo: weather changed");
    let long = of("task.progressed", "T-3", json!({"progress": 5, "note": "n".repeat(500)}));
    assert!(long.starts_with("bo is at 5 %: nnn") && long.ends_with('…') && long.chars().count() < 150, "{long}");
}

#[test]
fn a_delivery_s_chain_leaves_the_others_out() {
    let bo = AgentRecord {
        id: agent(2),
        principal: PrincipalId::from_bytes([9; 16]),
        principal_name: String::new(),
        provenance: Provenance::Agent,
        name: "bo".to_owned(),
        capabilities: Vec::new(),
        teams: Vec::new(),
        topics: Vec::new(),
        model: None,
        tasks: Vec::new(),
        started_at: SENT,
        acked: 0,
        nacked: 0,
    };
    let subject = Subject::Delivery(Box::new(question()), Arc::new(bo));
    let events = log(passed_on());
    let kinds = |subject: &Subject| -> Vec<String> {
        let mut merges = BTreeSet::new();
        events.iter().filter(|event| subject.has(event, &mut merges)).map(|event| event.event.kind.clone()).collect()
    };
    assert_eq!(kinds(&subject), ["message.sent", "message.routed", "message.handed_out", "message.nacked"]);
    assert_eq!(kinds(&Subject::Message(Box::new(question()))).len(), 6);
}
