//! The router `routing-rules`: an ordered list of rules, the first that fits and reaches somebody decides.
//!
//! A rule says when it holds (kind, author, tags, paths, priority) and where the message goes: to the agents with a
//! capability, to an agent, to a team, to nobody, or to later. Within one condition any value may fit; all
//! conditions of a rule must. **Invariant:** names are compared as symbols; texts of paths are asked for only
//! when a rule that got that far has path patterns.

use std::cell::OnceCell;

use pointsman_sdk::Plugin;
use pointsman_sdk::glob::Glob;
use pointsman_sdk::router::{Candidate, Candidates, Message, Ranking, Router, Symbol, Verdict};
use serde::Deserialize;

/// The most rules.
const RULES_MAX: usize = 200;
/// The most names a verdict may rank.
const RANKED_MAX: usize = 1_000;
/// The highest priority of a message.
const PRIORITY_MAX: u8 = 9;

/// What the operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many agents a verdict ranks at most.
    pub ranked_max: usize,
    /// The rules, in the order they are tried.
    pub rules: Vec<RuleConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self { ranked_max: 16, rules: Vec::new() }
    }
}

/// One rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Its name, for the reason of a verdict.
    pub name: String,
    /// When it holds; always, when nothing is said.
    #[serde(default)]
    pub when: When,
    /// Where the message goes.
    pub to: Target,
    /// Whether one or all of those get it.
    #[serde(default)]
    pub deliver: Deliver,
}

/// The conditions of a rule. An empty list is no condition.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Kinds of messages.
    pub kind: Vec<String>,
    /// Sending agents.
    pub author: Vec<String>,
    /// Labels, one of which the message has.
    pub tags: Vec<String>,
    /// Path patterns, one of which fits a path of the message.
    pub paths: Vec<String>,
    /// The lowest priority.
    pub priority_min: Option<u8>,
    /// The highest priority.
    pub priority_max: Option<u8>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// To agents that have a capability of this name.
    Capability(String),
    /// To the agent of this name.
    Agent(String),
    /// To members of this team.
    Team(String),
    /// To whoever satisfies the address.
    Able,
    /// To nobody.
    Drop,
    /// Ask again after so many milliseconds.
    DeferMs(u32),
}

/// How many of those that a rule names get a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deliver {
    /// The first that takes it; the least busy is asked first.
    #[default]
    First,
    /// All.
    All,
}

/// The router.
#[derive(Debug)]
pub struct RoutingRules {
    ranked_max: usize,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    kinds: Vec<Symbol>,
    authors: Vec<Symbol>,
    tags: Vec<Symbol>,
    paths: Vec<Glob>,
    priorities: std::ops::RangeInclusive<u8>,
    to: Goal,
    deliver: Deliver,
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    Capability(Symbol),
    Agent(Symbol),
    Team(Symbol),
    Able,
    Drop,
    DeferMs(u32),
}

impl Plugin for RoutingRules {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.ranked_max == 0 || config.ranked_max > RANKED_MAX {
            return Err(format!("`ranked_max` is 1 to {RANKED_MAX}"));
        }
        if config.rules.len() > RULES_MAX {
            return Err(format!("there are at most {RULES_MAX} rules, not {}", config.rules.len()));
        }
        let named = |rule: RuleConfig| {
            let name = rule.name.clone();
            Rule::new(rule).map_err(|error| format!("the rule {name:?}: {error}"))
        };
        let rules = config.rules.into_iter().map(named).collect::<Result<_, _>>()?;
        Ok(Self { ranked_max: config.ranked_max, rules })
    }
}

impl Rule {
    fn new(config: RuleConfig) -> Result<Self, String> {
        let When { kind, author, tags, paths, priority_min, priority_max } = config.when;
        let priorities = priority_min.unwrap_or(0)..=priority_max.unwrap_or(PRIORITY_MAX);
        if priorities.is_empty() || *priorities.end() > PRIORITY_MAX {
            return Err(format!("priorities go from 0 to {PRIORITY_MAX}, the lowest first"));
        }
        Ok(Self {
            name: config.name,
            kinds: Symbol::intern_all(&kind)?,
            authors: Symbol::intern_all(&author)?,
            tags: Symbol::intern_all(&tags)?,
            paths: Glob::all(&paths)?,
            priorities,
            to: match config.to {
                Target::Capability(name) => Goal::Capability(Symbol::intern(&name)?),
                Target::Agent(name) => Goal::Agent(Symbol::intern(&name)?),
                Target::Team(name) => Goal::Team(Symbol::intern(&name)?),
                Target::Able => Goal::Able,
                Target::Drop => Goal::Drop,
                Target::DeferMs(delay_ms) => Goal::DeferMs(delay_ms),
            },
            deliver: config.deliver,
        })
    }

    fn holds(&self, message: &Message<'_>, paths: &OnceCell<Vec<String>>) -> bool {
        let any = |wanted: &[Symbol], one: Symbol| wanted.is_empty() || wanted.contains(&one);
        self.priorities.contains(&message.priority())
            && any(&self.kinds, message.kind())
            && any(&self.authors, message.author())
            && (self.tags.is_empty() || message.tags().any(|tag| self.tags.contains(&tag)))
            && (self.paths.is_empty() || {
                let paths = paths.get_or_init(|| message.paths().map(Symbol::name).collect());
                paths.iter().any(|path| self.paths.iter().any(|glob| glob.matches(path)))
            })
    }

    fn reaches(&self, one: &Candidate<'_>) -> bool {
        match self.to {
            Goal::Capability(name) => one.capabilities().any(|other| other == name),
            Goal::Agent(name) => one.agent() == name,
            Goal::Team(name) => one.teams().any(|other| other == name),
            Goal::Able => one.satisfies(),
            Goal::Drop | Goal::DeferMs(_) => false,
        }
    }
}

impl Router for RoutingRules {
    fn route(&self, message: &Message<'_>, candidates: &Candidates<'_>) -> Verdict {
        let paths = OnceCell::new();
        let mut held = 0_u32;
        for rule in self.rules.iter().filter(|rule| rule.holds(message, &paths)) {
            held += 1;
            match rule.to {
                Goal::Drop => return Verdict::drop(format!("rule {}", rule.name)),
                Goal::DeferMs(delay_ms) => return Verdict::defer(delay_ms, format!("rule {}", rule.name)),
                Goal::Capability(_) | Goal::Agent(_) | Goal::Team(_) | Goal::Able => {}
            }
            let reached = || candidates.iter().filter(|one| !one.refused() && one.agent() != message.author() && rule.reaches(one));
            if reached().next().is_none() {
                continue;
            }
            return match rule.deliver {
                Deliver::First => {
                    let mut ranking = Ranking::best_of(self.ranked_max);
                    reached().for_each(|one| ranking.add(&one, one.load().saturating_add(one.open_reviews())));
                    let reason = format!("rule {}: reaches {}", rule.name, ranking.added());
                    Verdict::ranked(ranking.positions(), reason)
                }
                Deliver::All => {
                    let all: Vec<u32> = reached().map(|one| one.position()).collect();
                    let reason = format!("rule {}: reaches {}", rule.name, all.len());
                    Verdict::broadcast(all, reason)
                }
            };
        }
        Verdict::pass(if held == 0 { "no rule holds".to_owned() } else { format!("{held} rules hold and reach nobody") })
    }
}

pointsman_sdk::export_router!(RoutingRules);

#[cfg(test)]
mod tests {
    use pointsman_sdk::router::{CandidateFacts, Decision, MessageFacts, Question};
    use proptest::prelude::*;

    use super::*;

    const RULES: &str = r#"{"rules":[
        {"name":"night","when":{"priority_max":1},"to":{"defer-ms":60000}},
        {"name":"spam","when":{"kind":["chatter"],"author":["bot"]},"to":"drop"},
        {"name":"docs","when":{"paths":["docs/**","*.md"]},"to":{"capability":"prose"}},
        {"name":"alarm","when":{"tags":["outage"],"priority_min":8},"to":{"team":"core"},"deliver":"all"},
        {"name":"lead","when":{"kind":["request"]},"to":{"agent":"ana"}},
        {"name":"rest","when":{"kind":["request"]},"to":"able"}
    ]}"#;

    fn candidates() -> [CandidateFacts<'static>; 3] {
        [
            CandidateFacts { agent: "ana", load: 2, teams: &["core"], capabilities: &["prose"], ..CandidateFacts::default() },
            CandidateFacts { agent: "bob", load: 1, capabilities: &["rust", "prose"], ..CandidateFacts::default() },
            CandidateFacts { agent: "cleo", teams: &["web", "core"], ..CandidateFacts::default() },
        ]
    }

    fn ask(message: &MessageFacts<'_>) -> (Decision, String) {
        let router = RoutingRules::from_json(RULES).expect("fits");
        let verdict = Question::new(message, &candidates()).ask(&router);
        (verdict.decision, verdict.reason)
    }

    #[test]
    fn the_first_rule_that_holds_and_reaches_decides() {
        let plain = MessageFacts { kind: "question", ..MessageFacts::default() };
        assert_eq!(ask(&plain), (Decision::Pass, "no rule holds".to_owned()));
        assert_eq!(ask(&MessageFacts { priority: 1, ..plain }), (Decision::Defer(60_000), "rule night".to_owned()));
        assert_eq!(ask(&MessageFacts { kind: "chatter", author: "bot", ..plain }), (Decision::Drop, "rule spam".to_owned()));
        assert_eq!(
            ask(&MessageFacts { paths: &["src/a.rs", "docs/x/y.txt"], ..plain }),
            (Decision::Ranked(vec![1, 0]), "rule docs: reaches 2".to_owned())
        );
        assert_eq!(ask(&MessageFacts { paths: &["src/a.rs"], ..plain }).0, Decision::Pass);
        assert_eq!(ask(&MessageFacts { tags: &["outage"], priority: 9, ..plain }).0, Decision::Broadcast(vec![0, 2]));
        assert_eq!(ask(&MessageFacts { kind: "request", ..plain }), (Decision::Ranked(vec![0]), "rule lead: reaches 1".to_owned()));
        let by_ana = MessageFacts { kind: "request", author: "ana", ..plain };
        assert_eq!(ask(&by_ana), (Decision::Ranked(vec![2, 1]), "rule rest: reaches 2".to_owned()));
    }

    #[test]
    fn rules_that_reach_nobody_pass() {
        let router = RoutingRules::from_json(r#"{"rules":[{"name":"x","to":{"team":"none"}}]}"#).expect("fits");
        let verdict = Question::new(&MessageFacts::default(), &candidates()).ask(&router);
        assert_eq!((verdict.decision, verdict.reason.as_str()), (Decision::Pass, "1 rules hold and reach nobody"));
    }

    #[test]
    fn wrong_rules_are_refused_by_name() {
        for (json, what) in [
            (r#"{"rules":[{"name":"a","to":"nowhere"}]}"#, "unknown variant `nowhere`"),
            (r#"{"rules":[{"name":"a","when":{"path":["x"]},"to":"drop"}]}"#, "unknown field `path`"),
            (r#"{"rules":[{"name":"a","when":{"paths":["x**"]},"to":"drop"}]}"#, "the rule \"a\": in the path pattern"),
            (r#"{"rules":[{"name":"a","when":{"priority_min":5,"priority_max":4},"to":"drop"}]}"#, "the lowest first"),
            (r#"{"rules":[{"name":"a","to":{"agent":""}}]}"#, "empty name"),
            (r#"{"ranked_max":0}"#, "1 to 1000"),
        ] {
            let error = RoutingRules::from_json(json).expect_err(json);
            assert!(error.contains(what), "{json}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nobody_gets_what_they_sent_or_refused(author in 0..3_usize, refused in 0..3_usize, priority in 0..10_u8, path in "[a-z]{1,3}(/[a-z.]{1,4})?") {
            let mut facts = candidates();
            facts[refused].refused = true;
            let message = MessageFacts { kind: "request", author: facts[author].agent, priority, paths: &[&path], ..MessageFacts::default() };
            let router = RoutingRules::from_json(RULES).expect("fits");
            if let Decision::Ranked(positions) | Decision::Broadcast(positions) = Question::new(&message, &facts).ask(&router).decision {
                prop_assert!(positions.iter().all(|position| *position as usize != author && *position as usize != refused));
            }
        }
    }
}
