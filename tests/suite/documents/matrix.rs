//! Every way to a document against the rules: for policies made at random, each principal is let in where the rules say so and nowhere else;
//! and who may not read a document hears, to the letter, what it hears of one that does not exist.

use std::collections::BTreeSet;

use pointsman_core::capability::Capability;
use pointsman_core::context::DocumentKey;
use pointsman_core::context::rules::{Operation, Party, Place, Rule, Rules, Who};
use pointsman_core::event::Provenance;
use pointsman_core::ids::AgentId;
use pointsman_tests::{Agent, CallError, Client, Era, Host, Setup};
use serde_json::{Value, json};

use super::{CHUNKS, Documents, conflict, framed, no_conflict};

/// What policies are made from.
const SEED: u64 = 0x5eed_d0c5;
const POLICIES: u64 = 4;
const VERSION: &str = "2026-07-28";
/// The documents; beside each stands one that does not exist, of the same folder, so that every rule is about both.
const FOLDERS: [&str; 10] =
    ["plan", "decisions", "secret", "team/rust", "human", "open", "private/ana", "private/ben", "agents/ana", "agents/hum"];
const REAL: &str = "real";
const NONE: &str = "none";

/// A xorshift generator (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 8).expect("64 bits") % limit
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// A rule as it is written.
struct Written {
    keys: Vec<&'static str>,
    lists: [(&'static str, Option<Vec<&'static str>>); 5],
}

impl Written {
    /// Returns the rule of each principal's own document, which it may always try to rename.
    fn scratch() -> Self {
        let all = || Some(vec!["all"]);
        let lists = [("read", all()), ("write", all()), ("resolve", None), ("administer", all()), ("owners", None)];
        Self { keys: vec!["scratch/**"], lists }
    }

    fn random(dice: &mut Dice) -> Self {
        const GLOBS: [&str; 12] = [
            "**",
            "plan/**",
            "decisions/**",
            "secret/*",
            "team/**",
            "human/**",
            "open/*",
            "private/**",
            "private/ben/*",
            "agents/**",
            "*/*",
            "agents/ana/**",
        ];
        const WHO: [&str; 13] = [
            "all",
            "agent:ana",
            "agent:ben",
            "agent:worker",
            "principal:ci",
            "principal:hum",
            "role:human",
            "role:agent",
            "plugin:ana",
            "architect",
            "all(rust, architect)",
            "not(rust)",
            "rust",
        ];
        let mut list = |name| {
            let listed = match dice.below(5) {
                0 | 1 => None,
                2 => Some(Vec::new()),
                count => Some((2..count).chain([0]).map(|_| dice.one(&WHO)).collect()),
            };
            (name, listed)
        };
        let lists = ["read", "write", "resolve", "administer", "owners"].map(&mut list);
        let keys = (0..=dice.below(2)).map(|_| dice.one(&GLOBS)).collect();
        Self { keys, lists }
    }

    fn toml(&self) -> String {
        let mut text = format!("[[context.rule]]\nkeys = {}\n", json!(self.keys));
        for (name, list) in &self.lists {
            if let Some(list) = list {
                text.push_str(&format!("{name} = {}\n", json!(list)));
            }
        }
        text
    }

    fn rule(&self) -> Rule {
        let of = |place: usize| {
            let parse = |text: &&str| text.parse::<Who>().expect("somebody");
            self.lists[place].1.as_ref().map(|list| list.iter().map(parse).collect::<Vec<Who>>())
        };
        Rule {
            keys: self.keys.iter().map(|glob| glob.parse().expect("a glob")).collect(),
            read: of(0),
            write: of(1),
            resolve: of(2),
            administer: of(3),
            owners: of(4),
            ..Rule::default()
        }
    }
}

/// A policy: as the host reads it, and as the oracle does.
struct Policy {
    toml: String,
    rules: Rules,
}

impl Policy {
    fn of(shared: &[&str], written: &[Written]) -> Self {
        let rules: String = written.iter().map(Written::toml).collect();
        let toml = format!("[limits]\nrequests_per_s = 0\n[context]\nshared = {}\n{rules}", json!(shared));
        let shared = shared.iter().map(|glob| glob.parse().expect("a glob")).collect();
        Self { toml, rules: Rules { shared, rules: written.iter().map(Written::rule).collect() } }
    }

    fn random(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut written = vec![Written::scratch()];
        written.extend((0..5).map(|_| Written::random(&mut dice)));
        Self::of(&["plan/**", "team/**", "human/**"], &written)
    }

    fn may(&self, who: &Principal, operation: Operation, key: &str, creator: Option<AgentId>) -> bool {
        let key: DocumentKey = key.parse().expect("a key");
        self.rules.may(&who.party(), operation, Place { project: "demo", key: &key, creator })
    }

    fn owns(&self, who: &Principal, key: &str, creator: Option<AgentId>) -> bool {
        let key: DocumentKey = key.parse().expect("a key");
        self.rules.is_owner(&who.party(), Place { project: "demo", key: &key, creator })
    }
}

/// Somebody who tries everything.
struct Principal {
    agent: Agent,
    id: AgentId,
    principal: &'static str,
    provenance: Provenance,
    capabilities: Vec<Capability>,
    documents: Documents,
    /// Where the log stood before there was any document.
    begin: String,
}

impl Principal {
    async fn new(host: &Host, name: &'static str, principal: &'static str, provenance: Provenance, capabilities: &[&str]) -> Self {
        let human: &[&str] = if provenance == Provenance::Human { &["--human"] } else { &[] };
        let out = host.command(&[&["agent", "add", principal, "--json"], human].concat());
        let token = serde_json::from_slice::<Value>(&out.stdout).expect("JSON")["secret"].as_str().expect("a secret").to_owned();
        let agent = host.agent_with(name, &token, capabilities).await;
        let started = agent.call("start", json!({"name": name, "capabilities": capabilities})).await;
        let text = |field: &str| started[field].as_str().expect("a text").to_owned();
        Self {
            id: text("id").parse().expect("an id"),
            begin: text("cursor"),
            principal,
            provenance,
            capabilities: capabilities.iter().map(|text| text.parse().expect("a capability")).collect(),
            documents: Documents::of(host, &token),
            agent,
        }
    }

    fn party(&self) -> Party<'_> {
        Party {
            agent: Some(self.id),
            name: &self.agent.name,
            principal: self.principal,
            provenance: self.provenance,
            capabilities: &self.capabilities,
        }
    }

    /// Calls a tool; returns the code and all that was said. The code of what was done is `done`.
    async fn call(&self, tool: &str, arguments: Value) -> (String, String) {
        match self.agent.client.call(tool, arguments).await {
            Ok(answer) => ("done".to_owned(), answer["result"].to_string()),
            Err(CallError::Tool { code, result, .. }) => (code, result.to_string()),
            Err(other) => ("error".to_owned(), other.to_string()),
        }
    }

    async fn http(&self, method: &str, path: String, media_type: &str, body: Vec<u8>) -> (String, String) {
        let answer = self.documents.ask(method, &path, &[("content-type", media_type)], body).await;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        let code = match answer.status {
            200 => "done".to_owned(),
            _ => answer.json()["code"].as_str().map_or_else(|| answer.status.to_string(), str::to_owned),
        };
        (code, said)
    }

    /// Asks for something of MCP that is no tool.
    async fn rpc(&self, host: &Host, method: &str, name: &str, mut params: Value) -> Value {
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let client = Client::new(&format!("{}/mcp", host.url()), "", Era::Modern).expect("a client");
        let authorization = format!("Bearer {}", self.agent.token);
        let mut headers = vec![
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", VERSION),
            ("mcp-method", method),
        ];
        if !name.is_empty() {
            headers.push(("mcp-name", name));
        }
        client.raw(body, &headers).await.expect("an answer").json()
    }
}

/// The stage: a host whose documents were all made while everything was open.
struct Stage {
    host: Host,
    keeper: Principal,
    all: Vec<Principal>,
    conflicts: Vec<String>,
    before: String,
}

const OPEN: &str =
    "[limits]\nrequests_per_s = 0\n[context]\n[[context.rule]]\nkeys = [\"**\", \"private/**\"]\nread = [\"all\"]\nwrite = [\"all\"]\n";

fn key(folder: &str, leaf: &str) -> String {
    format!("{folder}/{leaf}")
}

impl Stage {
    async fn set() -> Self {
        let host = Host::start_with(Setup { config: OPEN.to_owned() }).await;
        let keeper = Principal::new(&host, "keeper", "keeper", Provenance::Agent, &[]).await;
        let all = vec![
            Principal::new(&host, "ana", "ana", Provenance::Agent, &["architect", "rust"]).await,
            Principal::new(&host, "ben", "ben", Provenance::Agent, &["rust"]).await,
            Principal::new(&host, "worker", "ci", Provenance::Agent, &[]).await,
            Principal::new(&host, "hum", "hum", Provenance::Human, &["architect"]).await,
        ];
        let mut conflicts = Vec::new();
        for folder in FOLDERS {
            conflicts.push(conflict(&keeper.agent, &key(folder, REAL)).await);
        }
        for who in &all {
            let own = format!("scratch/{}", who.agent.name);
            who.agent.call("write_context", json!({"key": own, "base_version": 0, "text": "mine\n"})).await;
        }
        let mut stage = Self { host, keeper, all, conflicts, before: String::new() };
        stage.before = stage.state().await;
        stage
    }

    /// Starts the host again under another policy.
    async fn govern(&mut self, from: &str, to: &str) {
        let file = self.host.folder().join("pointsman.toml");
        let config = std::fs::read_to_string(&file).expect("a configuration");
        assert!(config.contains(from), "the policy stands in the configuration");
        std::fs::write(&file, config.replace(from, to)).expect("written");
        self.host.restart().await;
    }

    /// Returns everything there is, as somebody sees it who may read all.
    async fn state(&self) -> String {
        let mut all = self.keeper.call("lookup", json!({"uri": "context"})).await.1;
        for folder in FOLDERS {
            all.push_str(&self.keeper.call("lookup", json!({"uri": format!("context/{}?history", key(folder, REAL))})).await.1);
        }
        all + &self.keeper.call("lookup", json!({"uri": "context_conflicts"})).await.1
    }
}

/// What was tried, who tried it, and on what.
struct Try<'a> {
    policy: &'a Policy,
    who: &'a Principal,
    folder: &'a str,
}

impl Try<'_> {
    fn place(&self, what: &str) -> String {
        format!("{what} by {} on {}\n{}", self.who.agent.name, self.folder, self.policy.toml)
    }

    /// Sees that something was let through or not; what is closed to its reader sounds like what is not there.
    fn judge(&self, what: &str, allowed: bool, can_read: bool, real: (String, String), none: (String, String), denial: &[&str]) {
        assert_eq!(!denial.contains(&real.0.as_str()), allowed, "{} is to be {allowed}: {real:?}", self.place(what));
        if !can_read {
            assert_eq!((real.0, real.1.replace(&format!("/{REAL}"), &format!("/{NONE}"))), none, "{}", self.place(what));
        }
    }
}

/// Tries every way to read one document.
async fn try_reading(stage: &Stage, of: &Try<'_>, creator: AgentId, conflict: &str) {
    let who = of.who;
    let [real, none] = [REAL, NONE].map(|leaf| key(of.folder, leaf));
    let can_read = of.policy.may(who, Operation::Read, &real, Some(creator));
    for form in ["", "@1", "@2", "@3", "?lines=1-1", "?bytes=0-2", "?since=1", "?history", "?pointer=/a", "?since=x", "@x", "?nonsense"] {
        let [there, absent] = [&real, &none].map(|key| who.call("lookup", json!({"uri": format!("context/{key}{form}")})));
        let (there, absent) = (there.await, absent.await);
        // Some forms fail for whoever may read, too.
        let fits = matches!(form, "" | "@1" | "@2" | "?lines=1-1" | "?bytes=0-2" | "?since=1" | "?history");
        if fits {
            of.judge(form, can_read, can_read, there, absent, &["not_found", "forbidden"]);
        } else {
            of.judge(form, true, can_read, there, absent, &[]);
        }
    }
    let [there, absent] = [conflict, &no_conflict()].map(|id| who.call("lookup", json!({"uri": format!("context_conflict/{id}")})));
    let (there, absent) = (there.await, absent.await);
    assert_eq!(there.0 == "done", can_read, "{}", of.place("context_conflict"));
    if !can_read {
        assert_eq!((there.0, there.1.replace(conflict, &no_conflict())), absent, "{}", of.place("context_conflict"));
    }
    for path in ["", "?version=1", "?chunks", "?version=2&chunks"] {
        let [there, absent] = [&real, &none].map(|key| who.http("GET", format!("{key}{path}"), "text/plain", Vec::new()));
        of.judge(&format!("GET {path}"), can_read, can_read, there.await, absent.await, &["not_found", "forbidden"]);
    }
    let head = who.documents.ask("HEAD", &real, &[("range", "bytes=0-1"), ("if-range", "\"1-0\"")], Vec::new()).await;
    assert_eq!(head.status == 404, !can_read, "{}", of.place("HEAD"));
    assert_eq!(can_read, head.header("etag").is_some(), "{}", of.place("HEAD"));

    let uri = |key: &str| format!("pointsman://context/{key}");
    let there = who.rpc(&stage.host, "resources/read", &uri(&real), json!({"uri": uri(&real)})).await;
    let absent = who.rpc(&stage.host, "resources/read", &uri(&none), json!({"uri": uri(&none)})).await;
    let code =
        |answer: &Value| if answer["result"]["contents"].is_array() { "done".to_owned() } else { answer["error"]["code"].to_string() };
    assert_eq!(code(&there) == "done", can_read, "{}: {there}", of.place("resources/read"));
    if !can_read {
        assert_eq!(there.to_string().replace(&real, &none), absent.to_string(), "{}", of.place("resources/read"));
    }
    let template = json!({"ref": {"type": "ref/resource", "uri": "pointsman://context/{+key}"},
        "argument": {"name": "key", "value": format!("{}/", of.folder)}});
    let completed = who.rpc(&stage.host, "completion/complete", "", template).await;
    let values = completed["result"]["completion"]["values"].as_array().cloned().unwrap_or_else(|| unreachable!("{completed}"));
    assert_eq!(values.contains(&json!(real)), can_read, "{}: {completed}", of.place("completion"));
    let listed = [
        who.call("lookup", json!({"uri": format!("context?prefix={}/", of.folder)})).await,
        who.http("GET", format!("?prefix={}/", of.folder), "text/plain", Vec::new()).await,
    ];
    for (code, said) in listed {
        assert_eq!((code.as_str(), said.contains(&real)), ("done", can_read), "{}: {said}", of.place("a list"));
    }
}

/// Tries every way to change one document, each so that it would fail later where it is let in.
async fn try_changing(of: &Try<'_>, creator: AgentId, conflict: &str) {
    let who = of.who;
    let [real, none] = [REAL, NONE].map(|leaf| key(of.folder, leaf));
    let may = |operation| of.policy.may(who, operation, &real, Some(creator));
    let (read, write, resolve, administer) =
        (may(Operation::Read), may(Operation::Write), may(Operation::Resolve), may(Operation::Administer));
    let ends = write && (of.policy.owns(who, &real, Some(creator)) || administer);
    let own = format!("scratch/{}", who.agent.name);
    let probes: Vec<(&str, bool, Value)> = vec![
        ("text", write, json!({"base_version": 999, "text": "x"})),
        ("value", write, json!({"base_version": 999, "value": {"x": 1}})),
        ("base64", write, json!({"base_version": 999, "base64": "eA=="})),
        ("patch", write, json!({"base_version": 999, "patch": "--- a\n+++ b\n"})),
        ("restore", write, json!({"restore": 999})),
        ("expires", ends, json!({"base_version": 999, "text": "x", "expires_in_s": 60})),
        ("label", write, json!({"base_version": 999, "text": "x", "label": "l"})),
        ("delete", administer, json!({"base_version": 999, "delete": true})),
        ("rename", administer, json!({"base_version": 999, "rename_to": "scratch/new"})),
        ("resolves", resolve && write, json!({"base_version": 999, "text": "x", "resolves": no_conflict()})),
        ("take theirs", resolve, json!({"base_version": 2, "take": "theirs", "resolves": no_conflict()})),
        ("take ours", resolve, json!({"base_version": 2, "take": "ours", "resolves": no_conflict()})),
        ("hand", resolve, json!({"hand_to": "keeper", "resolves": no_conflict()})),
    ];
    for (what, allowed, more) in probes {
        let request = |key: &str| {
            let mut request = json!({"key": key});
            request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            request
        };
        let [there, absent] = [&real, &none].map(|key| who.call("write_context", request(key)));
        let (there, absent) = (there.await, absent.await);
        assert_ne!(there.0, "done", "{}", of.place(what));
        of.judge(what, allowed, read, there, absent, &["forbidden"]);
        let [there, absent] = [&real, &none].map(|key| who.call("write_context", json!({"documents": [request(key)]})));
        of.judge(&format!("{what}, of a batch"), allowed, read, there.await, absent.await, &["forbidden"]);
    }
    if !resolve {
        let [there, absent] = [conflict, &no_conflict()]
            .map(|id| who.call("write_context", json!({"key": real, "base_version": 2, "take": "theirs", "resolves": id})));
        assert_eq!(there.await, absent.await, "{}", of.place("a real conflict"));
    }
    let renaming = |to: &str| json!({"key": own, "base_version": 999, "rename_to": to});
    let [there, absent] = [&real, &none].map(|key| who.call("write_context", renaming(key)));
    of.judge("rename onto it", write, read, there.await, absent.await, &["forbidden"]);
    for expected in [0, 1, 2, 999] {
        let request = |key: &str| json!({"key": own, "base_version": 999, "text": "x", "expects": {key: expected}});
        let [there, absent] = [&real, &none].map(|key| who.call("write_context", request(key)));
        of.judge("expects", read, read, there.await, absent.await, &["not_found", "forbidden"]);
    }

    let unknown = pointsman_core::context::content::ChunkHash::of(b"never brought").to_string();
    let named = json!({"chunks": [unknown]}).to_string().into_bytes();
    for (what, method, query, media_type, body) in [
        ("PUT", "PUT", "?base_version=999", "text/plain", b"x".to_vec()),
        ("PUT chunks", "PUT", "?base_version=999", CHUNKS, named.clone()),
        ("missing", "POST", "?missing", "application/json", named),
        ("chunks", "POST", "?chunks", "application/octet-stream", framed(&[b"brought"])),
    ] {
        let [there, absent] = [&real, &none].map(|key| who.http(method, format!("{key}{query}"), media_type, body.clone()));
        of.judge(what, write, read, there.await, absent.await, &["forbidden"]);
    }
}

/// Sees what one hears of all documents: lists, conflicts, events.
async fn try_hearing(stage: &Stage, policy: &Policy, who: &Principal) {
    let may_read = |folder: &&str| policy.may(who, Operation::Read, &key(folder, REAL), Some(stage.keeper.id));
    let readable: BTreeSet<String> = FOLDERS.iter().filter(|folder| may_read(folder)).map(|folder| key(folder, REAL)).collect();
    let ours = |all: BTreeSet<String>| all.into_iter().filter(|key| key.ends_with(REAL)).collect::<BTreeSet<_>>();
    let keys = |text: &str, field: &str| {
        let listed: Value = serde_json::from_str(text).expect("JSON");
        let listed = listed.get("documents").unwrap_or(&listed).as_array().cloned().expect("a list");
        ours(listed.iter().filter_map(|one| Some(one[field].as_str()?.trim_start_matches("ctx:").to_owned())).collect())
    };
    let place = |what: &str| format!("{what} by {}\n{}", who.agent.name, policy.toml);
    assert_eq!(keys(&who.call("lookup", json!({"uri": "context"})).await.1, "key"), readable, "{}", place("context"));
    assert_eq!(keys(&who.call("lookup", json!({"uri": "context_conflicts"})).await.1, "key"), readable, "{}", place("conflicts"));
    assert_eq!(keys(&who.http("GET", String::new(), "text/plain", Vec::new()).await.1, "key"), readable, "{}", place("GET"));
    let (mut subjects, mut after) = (BTreeSet::new(), who.begin.clone());
    loop {
        let whole = who.agent.whole("lookup", json!({"uri": format!("events/{after}")})).await;
        let of_documents = whole["result"].as_array().expect("events").iter().filter(|event| event["type"] != "context.denied");
        subjects.extend(of_documents.filter_map(|event| Some(event["subject"].as_str()?.strip_prefix("ctx:")?.to_owned())));
        match whole["more"].as_str().and_then(|more| more.rsplit_once('/')) {
            Some((_, next)) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(ours(subjects), readable, "{}", place("events"));
    let (mut subjects, mut after) = (BTreeSet::new(), who.begin.clone());
    loop {
        let heard = who.agent.call("wait_for_events", json!({"watch": ["**"], "after": after, "max_s": 0})).await;
        let events = heard["events"].as_array().expect("events");
        subjects.extend(events.iter().filter_map(|event| Some(event["subject"].as_str()?.strip_prefix("ctx:")?.to_owned())));
        let next = heard["cursor"].as_str().expect("a cursor").to_owned();
        if events.is_empty() && next == after {
            break;
        }
        after = next;
    }
    assert_eq!(ours(subjects), readable, "{}", place("wait_for_events"));
}

async fn try_everything(stage: &Stage, policy: &Policy) {
    for who in &stage.all {
        try_hearing(stage, policy, who).await;
        for (folder, conflict) in FOLDERS.iter().zip(&stage.conflicts) {
            let of = Try { policy, who, folder };
            try_reading(stage, &of, stage.keeper.id, conflict).await;
            try_changing(&of, stage.keeper.id, conflict).await;
        }
    }
}

#[tokio::test]
async fn every_way_to_a_document_asks_the_rules() {
    println!("seed {SEED:#x}");
    let mut stage = Stage::set().await;
    let mut stands = OPEN.to_owned();
    for n in 0..POLICIES {
        let policy = Policy::random(SEED + n);
        stage.govern(&stands, &policy.toml).await;
        stands.clone_from(&policy.toml);
        try_everything(&stage, &policy).await;
    }
    stage.govern(&stands, OPEN).await;
    assert_eq!(stage.state().await, stage.before, "nothing that was refused changed anything");
}

/// What the rules mean, written by hand: `rwsa`, whoever may read, write, settle, administer.
#[tokio::test]
async fn the_rules_mean_what_the_page_says() {
    let mut stage = Stage::set().await;
    let some = |names: &[&'static str]| Some(names.to_vec());
    let rule = |keys: &'static str, lists: [Option<Vec<&'static str>>; 4]| {
        let [read, write, resolve, administer] = lists;
        let lists = [("read", read), ("write", write), ("resolve", resolve), ("administer", administer), ("owners", None)];
        Written { keys: vec![keys], lists }
    };
    let policy = Policy::of(
        &["plan/**", "team/**"],
        &[
            Written::scratch(),
            rule("decisions/**", [some(&["all"]), some(&["role:human", "architect"]), some(&["architect"]), None]),
            rule("secret/**", [some(&["principal:ci"]), some(&["all"]), None, some(&["agent:worker"])]),
            rule("private/ben/**", [some(&["agent:ana"]), None, None, None]),
        ],
    );
    for (folder, expected) in [
        ("plan", ["rws-", "rws-", "rws-", "rws-"]),
        ("decisions", ["rws-", "r---", "r---", "rws-"]),
        ("secret", ["----", "----", "rw-a", "----"]),
        ("human", ["----", "----", "----", "----"]),
        ("private/ana", ["rwsa", "----", "----", "----"]),
        ("private/ben", ["r---", "----", "----", "----"]),
        ("agents/ana", ["rws-", "r---", "r---", "r---"]),
        ("agents/hum", ["r---", "r---", "r---", "rws-"]),
    ] {
        for (who, expected) in stage.all.iter().zip(expected) {
            let flag =
                |(operation, letter)| if policy.may(who, operation, &key(folder, REAL), Some(stage.keeper.id)) { letter } else { '-' };
            let shown: String = Operation::ALL.into_iter().zip("rwsa".chars()).map(flag).collect();
            assert_eq!(shown, expected, "{} on {folder}", who.agent.name);
        }
    }
    stage.govern(OPEN, &policy.toml).await;
    try_everything(&stage, &policy).await;
}
