use proptest::prelude::*;

use super::*;
use crate::time::TimeMs;

fn key(text: &str) -> DocumentKey {
    text.parse().expect("a key")
}

fn globs(texts: &[&str]) -> Vec<PathGlob> {
    texts.iter().map(|text| text.parse().expect("a glob")).collect()
}

fn who(texts: &[&str]) -> Option<Vec<Who>> {
    Some(texts.iter().map(|text| text.parse().expect("it names somebody")).collect())
}

fn about(keys: &[&str]) -> Rule {
    Rule { keys: globs(keys), ..Rule::default() }
}

fn under(rules: Vec<Rule>) -> Rules {
    Rules { rules, ..Rules::default() }
}

fn id(number: u8) -> AgentId {
    AgentId::new(TimeMs(1), [number; 10])
}

fn agent<'a>(number: u8, name: &'a str, principal: &'a str, capabilities: &'a [Capability]) -> Party<'a> {
    Party { agent: Some(id(number)), name, principal, provenance: Provenance::Agent, capabilities }
}

/// Returns the words of what a party may do with a key of the project `demo` whose document somebody began, or nobody yet.
fn may(rules: &Rules, party: &Party<'_>, text: &str, creator: Option<AgentId>) -> String {
    let key = key(text);
    let place = Place { project: "demo", key: &key, creator };
    let words = Operation::ALL.into_iter().filter(|operation| rules.may(party, *operation, place)).map(Operation::word);
    words.collect::<Vec<_>>().join(" ")
}

const EVERYTHING: &str = "read write resolve administer";

#[test]
fn a_text_names_somebody_and_is_printed_back() {
    for (text, expected) in [
        ("all", Who::Everybody),
        ("agent:ana", Who::Agent("ana".to_owned())),
        ("agent:Ana-2.x_y", Who::Agent("Ana-2.x_y".to_owned())),
        ("principal:ci", Who::Principal("ci".to_owned())),
        ("plugin:triage", Who::Plugin("triage".to_owned())),
        ("role:human", Who::Role(Provenance::Human)),
        ("role:agent", Who::Role(Provenance::Agent)),
        ("role:plugin", Who::Role(Provenance::Plugin)),
        ("architect", Who::Capable("architect".parse().expect("an expression"))),
        ("all(rust, any(review, not(security)))", Who::Capable("all(rust,any(review,not(security)))".parse().expect("an expression"))),
        ("rust@^1.80{async=yes}", Who::Capable("rust@^1.80{async=yes}".parse().expect("an expression"))),
        ("rust{at=https://h:1}", Who::Capable("rust{at=https://h:1}".parse().expect("an expression"))),
        ("agent", Who::Capable("agent".parse().expect("an expression"))),
    ] {
        let parsed: Who = text.parse().expect(text);
        assert_eq!(parsed, expected, "{text}");
        assert_eq!(parsed.to_string(), text);
        let wire = serde_json::to_string(&parsed).expect("it is a text");
        assert_eq!(wire, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Who>(&wire).expect("its own text"), parsed);
    }
    assert_eq!(" agent:ana ".parse::<Who>().expect("spaces around it are nothing").to_string(), "agent:ana");
}

#[test]
fn a_text_that_names_nobody_says_why() {
    let said = |text: &str| text.parse::<Who>().expect_err(text).to_string();
    let name = "a name is 1 to 64 characters of A-Z, a-z, 0-9, `-`, `_`, `.`, the first a letter or digit";
    for text in ["agent:", "agent:a b", "agent: ana", "agent:.ana", "agent:a/b", "agent:ä", "principal:*", "plugin:a:b"] {
        assert_eq!(said(text), format!("`{text}` names nobody: {name}"));
    }
    for role in ["", "human", "Human", "human "] {
        let text = format!("role:{role}x");
        assert_eq!(said(&text), format!("`{text}` is none of `role:human`, `role:agent`, `role:plugin`"));
    }
    assert_eq!(said("role:host"), "`role:host` is none of `role:human`, `role:agent`, `role:plugin`", "the host may everything anyhow");
    for text in ["", "  ", "All", "topic:x", "agents:ana", "Agent:ana", "all(", "all()", "not(a, b)", "a b", "*"] {
        assert!(said(text).starts_with("it is none of `all`, `agent:NAME`, `principal:NAME`"), "{text}: {}", said(text));
    }
    let long = format!("agent:{}", "a".repeat(200));
    assert!(said(&long).len() < 200, "what was read is cut: {}", said(&long));
    assert!(serde_json::from_str::<Who>("\"role:host\"").is_err());
}

#[test]
fn each_form_names_those_it_says() {
    let (rust, none) = ([Capability { name: "rust".to_owned(), version: None, attributes: Default::default() }], []);
    let ana = agent(1, "ana", "lab", &rust);
    let ben = Party { provenance: Provenance::Human, ..agent(2, "ben", "lab", &none) };
    let resident = Party { provenance: Provenance::Plugin, ..agent(3, "triage", "triage", &none) };
    // Named like an agent, and none: a component, a person's credential, a credential without a name.
    let component = Party { agent: None, name: "ana", principal: "", provenance: Provenance::Plugin, capabilities: &none };
    let person = Party { agent: None, name: "ben", principal: "ben", provenance: Provenance::Human, capabilities: &none };
    for (text, expected) in [
        ("all", [true, true, true, true, true]),
        ("agent:ana", [true, false, false, false, false]),
        ("agent:ben", [false, true, false, false, false]),
        ("agent:triage", [false, false, true, false, false]),
        ("principal:lab", [true, true, false, false, false]),
        ("principal:ben", [false, false, false, false, true]),
        ("plugin:triage", [false, false, true, false, false]),
        ("plugin:ana", [false, false, false, true, false]),
        ("role:agent", [true, false, false, false, false]),
        ("role:human", [false, true, false, false, true]),
        ("role:plugin", [false, false, true, true, false]),
        ("rust", [true, false, false, false, false]),
        ("not(rust)", [false, true, true, true, true]),
    ] {
        let named = who(&[text]).expect("a list");
        assert_eq!([ana, ben, resident, component, person].map(|party| party.is_among(&named)), expected, "{text}");
    }
    assert!(!ana.is_among(&[]), "an empty list names nobody");
    let nameless = Party { principal: "", ..ana };
    assert!(!nameless.is_among(&[Who::Principal(String::new())]), "whose principal is not known is nobody's");
}

#[test]
fn without_rules_all_is_shared_but_what_is_named_after_somebody() {
    let rules = Rules::default();
    let (ana, ben) = (agent(1, "ana", "lab", &[]), agent(2, "ben", "lab", &[]));
    let component = Party { agent: None, provenance: Provenance::Plugin, ..ana };
    for (text, creator, of_ana, of_ben, of_component) in [
        ("plan", None, EVERYTHING, EVERYTHING, EVERYTHING),
        ("plan/api", Some(id(1)), EVERYTHING, "read write resolve", "read write resolve"),
        ("plan/api", Some(id(9)), "read write resolve", "read write resolve", "read write resolve"),
        ("private/ana", None, EVERYTHING, "", ""),
        ("private/ana/notes/today", Some(id(1)), EVERYTHING, "", ""),
        ("private/ana/notes", Some(id(2)), EVERYTHING, "", ""),
        ("private/ben/x", None, "", EVERYTHING, ""),
        ("private/anabel/x", None, "", "", ""),
        ("private/Ana/x", None, "", "", ""),
        ("private/x/ana", None, "", "", ""),
        ("agents/ana", None, "read write resolve", "read", "read"),
        ("agents/ana/now", Some(id(1)), "read write resolve", "read", "read"),
        ("agents/anabel", None, "read", "read", "read"),
        // These only look like those.
        ("private", None, EVERYTHING, EVERYTHING, EVERYTHING),
        ("agents", None, EVERYTHING, EVERYTHING, EVERYTHING),
        ("privates/ana/x", None, EVERYTHING, EVERYTHING, EVERYTHING),
        ("x/private/ana", None, EVERYTHING, EVERYTHING, EVERYTHING),
    ] {
        for (party, expected) in [(&ana, of_ana), (&ben, of_ben), (&component, of_component)] {
            assert_eq!(may(&rules, party, text, creator), expected, "{text} begun by {creator:?}, {party:?}");
        }
        let host = Party { agent: None, name: "host", principal: "", provenance: Provenance::Host, capabilities: &[] };
        assert_eq!(may(&rules, &host, text, creator), EVERYTHING, "{text}");
    }
}

#[test]
fn what_is_not_shared_is_closed_until_a_rule_opens_it() {
    let ana = agent(1, "ana", "lab", &[]);
    let mut rules = Rules { shared: globs(&["plan", "notes/*"]), rules: Vec::new() };
    for (text, expected) in [
        ("plan", EVERYTHING),
        ("plan/api", EVERYTHING),
        ("notes/a", EVERYTHING),
        ("notes/a/b", ""),
        ("secrets", ""),
        ("agents/ben", "read"),
        ("private/ana/x", EVERYTHING),
    ] {
        assert_eq!(may(&rules, &ana, text, None), expected, "{text}");
    }
    rules.shared.clear();
    rules.rules = vec![Rule { read: who(&["all"]), write: who(&["agent:ana"]), ..about(&["secrets"]) }];
    assert_eq!(may(&rules, &ana, "secrets/x", Some(id(1))), "read write", "what a rule does not speak of stays closed");
    assert_eq!(may(&rules, &ana, "plan", None), "");
}

#[test]
fn of_each_thing_the_first_rule_that_says_it_holds() {
    let rules = under(vec![
        Rule { write: who(&["agent:ana"]), stale: Some(Stale::Refuse), ..about(&["plan/api"]) },
        Rule { projects: vec!["other".to_owned()], write: who(&[]), versions_max: Some(9), expires_ms: Some(9), ..about(&["**"]) },
        Rule {
            write: who(&["agent:ben"]),
            resolve: who(&["agent:ben"]),
            stale: Some(Stale::LastWriter),
            versions_max: Some(0),
            ..about(&["plan/**"])
        },
        Rule { resolve: who(&[]), administer: who(&["role:human"]), versions_max: Some(7), expires_ms: Some(60_000), ..about(&["**"]) },
    ]);
    let (ana, ben) = (agent(1, "ana", "lab", &[]), agent(2, "ben", "lab", &[]));
    for (text, of_ana, of_ben) in
        [("plan/api", "read write", "read resolve"), ("plan/x", "read", "read write resolve"), ("notes", "read write", "read write")]
    {
        for (party, expected) in [(&ana, of_ana), (&ben, of_ben)] {
            assert_eq!(may(&rules, party, text, Some(party.agent.expect("an agent"))), expected, "{text}");
        }
    }
    for (project, text, stale, versions_max, expires_ms) in [
        ("demo", "plan/api", Stale::Refuse, 1, 60_000),
        ("demo", "plan/x", Stale::LastWriter, 1, 60_000),
        ("demo", "notes", Stale::Merge, 7, 60_000),
        ("other", "plan/x", Stale::LastWriter, 9, 9),
    ] {
        let key = key(text);
        assert_eq!(rules.stale(project, &key), stale, "{project} {text}");
        assert_eq!(rules.versions_max(project, &key), versions_max, "{project} {text}");
        assert_eq!(rules.expires_ms(project, &key), Some(expires_ms), "{project} {text}");
    }
    let (none, plan) = (Rules::default(), key("plan"));
    assert_eq!((none.stale("demo", &plan), none.versions_max("demo", &plan), none.expires_ms("demo", &plan)), (Stale::Merge, 200, None));
}

#[test]
fn who_may_not_read_may_do_nothing() {
    let rules = under(vec![
        Rule { read: who(&["agent:ben"]), ..about(&["sealed"]) },
        Rule { write: who(&["all"]), resolve: who(&["all"]), administer: who(&["all"]), ..about(&["**"]) },
    ]);
    let (ana, ben) = (agent(1, "ana", "lab", &[]), agent(2, "ben", "lab", &[]));
    assert_eq!(may(&rules, &ana, "sealed", Some(id(1))), "", "not even who began it");
    assert_eq!(may(&rules, &ben, "sealed", Some(id(1))), EVERYTHING);
    assert_eq!(may(&rules, &ben, "private/ana/x", None), "", "to let all write opens nothing that is private");
    assert_eq!(may(&rules, &ben, "agents/ana", None), EVERYTHING);
}

#[test]
fn a_rule_comes_before_what_a_key_is_named_after() {
    let rules = under(vec![
        Rule { read: who(&["role:human"]), ..about(&["private/**"]) },
        Rule { write: who(&["role:human"]), ..about(&["agents/**"]) },
    ]);
    let ana = agent(1, "ana", "lab", &[]);
    let person = Party { agent: None, name: "eve", principal: "eve", provenance: Provenance::Human, capabilities: &[] };
    assert_eq!(may(&rules, &ana, "private/ana/x", None), "");
    assert_eq!(may(&rules, &person, "private/ana/x", None), "read");
    assert_eq!(may(&rules, &ana, "agents/ana", None), "read resolve");
    assert_eq!(may(&rules, &person, "agents/ana", None), "read write");
}

#[test]
fn owners_are_who_began_it_and_whom_a_rule_names() {
    let rules = under(vec![
        Rule { owners: who(&["agent:ben"]), ..about(&["plan"]) },
        Rule { owners: who(&["agent:ana"]), ..about(&["plan/**", "notes"]) },
    ]);
    let (ana, ben) = (agent(1, "ana", "lab", &[]), agent(2, "ben", "lab", &[]));
    let nobody = Party { agent: None, provenance: Provenance::Human, ..ana };
    for (text, creator, expected) in [
        ("plan/api", None, [false, true, false]),
        ("plan/api", Some(id(1)), [true, true, false]),
        ("notes", Some(id(2)), [true, true, false]),
        ("else", None, [false, false, false]),
        ("else", Some(id(9)), [false, false, false]),
    ] {
        let key = key(text);
        let place = Place { project: "demo", key: &key, creator };
        assert_eq!([ana, ben, nobody].map(|party| rules.is_owner(&party, place)), expected, "{text} begun by {creator:?}");
    }
    assert_eq!(may(&rules, &ben, "plan", Some(id(9))), EVERYTHING, "an owner administers");
    assert_eq!(may(&rules, &ana, "plan", Some(id(9))), "read write resolve");
}

#[test]
fn stale_policies_have_their_words() {
    for (stale, word) in
        [(Stale::Merge, "merge"), (Stale::Refuse, "refuse"), (Stale::LastWriter, "last-writer"), (Stale::OwnerWins, "owner-wins")]
    {
        assert_eq!(serde_json::to_value(stale).expect("a word"), word);
        assert_eq!(serde_json::from_value::<Stale>(word.into()).expect("its own word"), stale);
    }
}

/// Texts that name somebody, and which of [`PARTIES`] each names.
const NAMES: [(&str, [bool; 5]); 9] = [
    ("all", [true, true, true, true, true]),
    ("agent:ana", [true, false, false, false, false]),
    ("agent:ben", [false, true, false, false, false]),
    ("principal:lab", [true, true, false, false, false]),
    ("plugin:ana", [false, false, false, true, false]),
    ("role:human", [false, true, false, false, true]),
    ("role:plugin", [false, false, true, true, false]),
    ("rust", [true, false, false, false, false]),
    ("any(review, rust)", [true, true, false, false, false]),
];

/// Two agents, an agent that is a component, a component and a person's credential that act for no agent.
const PARTIES: [(Option<u8>, &str, &str, Provenance, &str); 5] = [
    (Some(1), "ana", "lab", Provenance::Agent, "rust"),
    (Some(2), "ben", "lab", Provenance::Human, "review"),
    (Some(3), "triage", "", Provenance::Plugin, "sorting"),
    (None, "ana", "", Provenance::Plugin, "sorting"),
    (None, "ben", "ben", Provenance::Human, "sorting"),
];

const GLOBS: [&str; 8] = ["**", "plan", "plan/*", "*/ana/**", "private/**", "agents/ana", "*", "private/ben"];
/// Keys, and which of [`GLOBS`] mean each.
const KEYS: [(&str, [bool; 8]); 8] = [
    ("plan", [true, true, false, false, false, false, true, false]),
    ("plan/api", [true, true, true, false, false, false, false, false]),
    ("plan/ana/x", [true, true, false, true, false, false, false, false]),
    ("private/ana/x", [true, false, false, true, true, false, false, false]),
    ("private/ben", [true, false, false, false, true, false, false, true]),
    ("agents/ana", [true, false, false, false, false, true, false, false]),
    ("agents/ben/now", [true, false, false, false, false, false, false, false]),
    ("private", [true, false, false, false, false, false, true, false]),
];
const PROJECTS: [&str; 2] = ["demo", "other"];
const STALE: [Stale; 4] = [Stale::Merge, Stale::Refuse, Stale::LastWriter, Stale::OwnerWins];

/// A rule in numbers: places in the tables above.
#[derive(Debug, Clone)]
struct Drawn {
    globs: Vec<usize>,
    projects: Vec<usize>,
    /// Read, write, resolve, administer, owners.
    named: [Option<Vec<usize>>; 5],
    stale: Option<usize>,
    versions_max: Option<u64>,
    expires_ms: Option<u64>,
}

impl Drawn {
    fn rule(&self) -> Rule {
        let named = |list: &Option<Vec<usize>>| who(&list.as_ref()?.iter().map(|at| NAMES[*at].0).collect::<Vec<_>>());
        let [read, write, resolve, administer, owners] = &self.named;
        Rule {
            keys: self.globs.iter().map(|at| GLOBS[*at].parse().expect("a glob")).collect(),
            projects: self.projects.iter().map(|at| PROJECTS[*at].to_owned()).collect(),
            read: named(read),
            write: named(write),
            resolve: named(resolve),
            administer: named(administer),
            owners: named(owners),
            stale: self.stale.map(|at| STALE[at]),
            versions_max: self.versions_max,
            expires_ms: self.expires_ms,
        }
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let named = || prop::option::of(prop::collection::vec(0..NAMES.len(), 0..3));
    (
        prop::collection::vec(0..GLOBS.len(), 0..3),
        prop::collection::vec(0..PROJECTS.len(), 0..2),
        [named(), named(), named(), named(), named()],
        (prop::option::of(0..STALE.len()), prop::option::of(0_u64..3), prop::option::of(0_u64..3)),
    )
        .prop_map(|(globs, projects, named, (stale, versions_max, expires_ms))| Drawn {
            globs,
            projects,
            named,
            stale,
            versions_max,
            expires_ms,
        })
}

/// What holds at one place, for each of [`PARTIES`].
#[derive(Debug, PartialEq)]
struct Held {
    may: [[bool; 4]; 5],
    owner: [bool; 5],
    stale: Stale,
    versions_max: u64,
    expires_ms: Option<u64>,
}

/// Writes down what holds without rules, then lets the rules write over it, the last one first.
fn oracle(shared: &[usize], rules: &[Drawn], at_key: usize, project: usize, creator: Option<u8>) -> Held {
    let (key, meant) = KEYS[at_key];
    let is_creator = PARTIES.map(|(agent, ..)| creator.is_some() && agent == creator);
    let is_shared = shared.iter().any(|at| meant[*at]);
    // By operation; none: nobody says.
    let mut said: [Option<[bool; 5]>; 5] = [None; 5];
    let (mut stale, mut versions_max, mut expires_ms) = (Stale::Merge, 200, None);
    for rule in rules.iter().rev() {
        let is_elsewhere = !rule.projects.is_empty() && !rule.projects.contains(&project);
        if is_elsewhere || !rule.globs.iter().any(|at| meant[*at]) {
            continue;
        }
        for (thing, named) in rule.named.iter().enumerate() {
            let is_meant = |at: &usize| meant[*at] && (!key.starts_with("private/") || GLOBS[*at].starts_with("private/"));
            if let Some(named) = named
                && (thing == 4 || rule.globs.iter().any(is_meant))
            {
                said[thing] = Some(std::array::from_fn(|party| named.iter().any(|at| NAMES[*at].1[party])));
            }
        }
        stale = rule.stale.map_or(stale, |at| STALE[at]);
        versions_max = rule.versions_max.unwrap_or(versions_max);
        expires_ms = rule.expires_ms.or(expires_ms);
    }
    let owner: [bool; 5] = std::array::from_fn(|party| is_creator[party] || said[4].is_some_and(|named| named[party]));
    let parts: Vec<&str> = key.split('/').collect();
    let default = |party: usize, operation: usize| {
        let is_namesake = PARTIES[party].0.is_some() && parts.get(1) == Some(&PARTIES[party].1);
        match (parts[0], parts.len()) {
            ("private", 2..) => is_namesake,
            ("agents", 2..) => operation == 0 || (is_namesake && operation < 3),
            _ => is_shared && (operation < 3 || owner[party] || creator.is_none()),
        }
    };
    let one = |party: usize, operation: usize| said[operation].map_or_else(|| default(party, operation), |named| named[party]);
    let may = std::array::from_fn(|party| std::array::from_fn(|operation| one(party, 0) && one(party, operation)));
    Held { may, owner, stale, versions_max: if versions_max == 0 { 1 } else { versions_max }, expires_ms }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_holds_agrees_with_writing_it_down(
        shared in prop::collection::vec(0..GLOBS.len(), 0..3),
        drawn in prop::collection::vec(drawn(), 0..5),
        at_key in 0..KEYS.len(),
        project in 0..PROJECTS.len(),
        creator in prop::option::of(1_u8..5),
    ) {
        let rules = Rules {
            shared: shared.iter().map(|at| GLOBS[*at].parse().expect("a glob")).collect(),
            rules: drawn.iter().map(Drawn::rule).collect(),
        };
        let key = key(KEYS[at_key].0);
        let place = Place { project: PROJECTS[project], key: &key, creator: creator.map(id) };
        let capabilities: Vec<Vec<Capability>> = PARTIES.iter().map(|party| vec![party.4.parse().expect("a capability")]).collect();
        let parties: [Party<'_>; 5] = std::array::from_fn(|at| {
            let (agent, name, principal, provenance, _) = PARTIES[at];
            Party { agent: agent.map(id), name, principal, provenance, capabilities: &capabilities[at] }
        });
        let held = Held {
            may: parties.map(|party| Operation::ALL.map(|operation| rules.may(&party, operation, place))),
            owner: parties.map(|party| rules.is_owner(&party, place)),
            stale: rules.stale(place.project, &key),
            versions_max: rules.versions_max(place.project, &key),
            expires_ms: rules.expires_ms(place.project, &key),
        };
        prop_assert_eq!(&held, &oracle(&shared, &drawn, at_key, project, creator));

        let host = Party { agent: None, name: "", principal: "", provenance: Provenance::Host, capabilities: &[] };
        prop_assert!(Operation::ALL.into_iter().all(|operation| rules.may(&host, operation, place)));
        if rules.are_open() && !key.as_str().starts_with(PRIVATE) {
            prop_assert!(parties.iter().all(|party| rules.may(party, Operation::Read, place)));
        }
        if !rules.depend_on_project() {
            let elsewhere = Place { project: PROJECTS[1 - project], ..place };
            prop_assert_eq!(held.may, parties.map(|party| Operation::ALL.map(|operation| rules.may(&party, operation, elsewhere))));
        }
    }

    #[test]
    fn any_text_names_somebody_or_nobody(text in "(all|agent|principal|plugin|role|rust)?[:(]?[a-z:,()@{}= .-]{0,8}") {
        if let Ok(named) = text.parse::<Who>() {
            prop_assert_eq!(named.to_string().parse::<Who>(), Ok(named));
        }
    }
}
