//! Which components are asked at which extension point, for which projects and kinds, in which order.
//!
//! Owns: the order and the choice. Must not know: what a component says, or how it is loaded.
//!
//! **Invariants:** whoever asks works with one snapshot to the end; whoever waits for a change is told after it can be read; the order is that of the file, then of what the API added,
//! then the host's defaults; a binding that is off, a shadow or in quarantine is not among those asked, except that a policy in
//! quarantine keeps its gates shut.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pointsman_core::path_glob::PathGlob;
use tokio::sync::watch;

use super::{ProviderBinding, ResidentBinding, covers};
use crate::ports::plugins::{Gate, Grant, World};
use crate::ports::registry::{Mode, OnFailure, PERMILLE};

/// A component in a place where it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// The plugin's name.
    pub plugin: String,
    /// Slugs of projects; empty: all.
    pub projects: Vec<String>,
    /// Kinds of messages (routers) or tasks (workflows, policies); empty: all.
    pub kinds: Vec<String>,
    /// Gates (policies); empty: all.
    pub gates: Vec<Gate>,
    /// Paths (mergers) or document keys (reconcilers); empty: all.
    pub patterns: Vec<PathGlob>,
    /// Whether it stands there by the host's defaults alone.
    pub is_default: bool,
}

impl Binding {
    /// Returns a binding to everything.
    #[must_use]
    pub fn of(plugin: impl Into<String>) -> Self {
        Self { plugin: plugin.into(), ..Self::default() }
    }

    fn is_for(&self, project: &str, kind: Option<&str>) -> bool {
        let fits = |kind: &str| self.kinds.iter().any(|known| known == kind);
        covers(&self.projects, project) && (self.kinds.is_empty() || kind.is_some_and(fits))
    }

    fn matches(&self, path: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(path))
    }
}

/// The rules a plugin is asked by, for whoever stands between the services and the components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is asked.
    pub mode: Mode,
    /// Beside which binding it is asked in shadow.
    pub shadow_of: Option<String>,
    /// Of how many calls in a thousand it is asked in shadow.
    pub share_permille: u16,
    /// What happens where it fails; none: what its extension point does by default.
    pub on_failure: Option<OnFailure>,
    /// Why it is not asked until an operator enables it.
    pub quarantine: Option<String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self { mode: Mode::Live, shadow_of: None, share_permille: PERMILLE, on_failure: None, quarantine: None }
    }
}

/// All bindings, each list in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Asked until one has an opinion.
    pub routers: Vec<Binding>,
    /// Tried on each conflicted path that matches.
    pub mergers: Vec<Binding>,
    /// Tried on each stale write whose key matches.
    pub reconcilers: Vec<Binding>,
    /// The first that fits gives names, messages, order.
    pub workflows: Vec<Binding>,
    /// Asked until one does not allow.
    pub policies: Vec<Binding>,
    /// Agents that live in the host.
    pub residents: Vec<ResidentBinding>,
    /// Offers to MCP clients.
    pub providers: Vec<ProviderBinding>,
    /// The rules of plugins that have any.
    pub rules: BTreeMap<String, Rule>,
}

impl Bindings {
    /// Returns the list of a world; none for one whose components are not asked in turn.
    #[must_use]
    pub fn list(&self, world: World) -> Option<&[Binding]> {
        match world {
            World::Router => Some(&self.routers),
            World::Merger => Some(&self.mergers),
            World::Reconciler => Some(&self.reconcilers),
            World::Workflow => Some(&self.workflows),
            World::Policy => Some(&self.policies),
            World::Agent | World::McpProvider => None,
        }
    }

    /// Adds a binding behind those that were written, before the host's defaults.
    pub fn add(&mut self, world: World, binding: Binding) {
        let list = match world {
            World::Router => &mut self.routers,
            World::Merger => &mut self.mergers,
            World::Reconciler => &mut self.reconcilers,
            World::Workflow => &mut self.workflows,
            World::Policy => &mut self.policies,
            World::Agent => {
                let Binding { plugin, projects, .. } = binding;
                return self.residents.push(ResidentBinding { plugin, projects, fetch_hosts: Vec::new(), lookups: Grant::Given });
            }
            World::McpProvider => {
                let Binding { plugin, projects, .. } = binding;
                let (allow_empty_namespace, lookups) = (false, Grant::Given);
                return self.providers.push(ProviderBinding { plugin, projects, allow_empty_namespace, lookups });
            }
        };
        let at = list.iter().position(|other| other.is_default).unwrap_or(list.len());
        list.insert(at, binding);
    }

    /// Returns the rule of a plugin.
    #[must_use]
    pub fn rule(&self, plugin: &str) -> Rule {
        self.rules.get(plugin).cloned().unwrap_or_default()
    }

    /// Returns whether a plugin is asked.
    #[must_use]
    pub fn is_asked(&self, plugin: &str) -> bool {
        self.rules.get(plugin).is_none_or(|rule| rule.mode == Mode::Live && rule.quarantine.is_none())
    }

    /// Returns whether any binding is for certain projects only; else nobody needs to know a project's slug.
    #[must_use]
    pub fn depend_on_project(&self) -> bool {
        let all = [&self.routers, &self.mergers, &self.reconcilers, &self.workflows, &self.policies];
        all.into_iter().flatten().any(|binding| !binding.projects.is_empty())
    }

    /// Returns the routers for a kind of message, in their order.
    #[must_use]
    pub fn routers(&self, project: &str, kind: &str) -> Vec<&str> {
        self.live(&self.routers, |binding| binding.is_for(project, Some(kind)))
    }

    /// Returns the mergers for a path, in their order.
    #[must_use]
    pub fn mergers(&self, project: &str, path: &str) -> Vec<&str> {
        self.live(&self.mergers, |binding| binding.is_for(project, None) && binding.matches(path))
    }

    /// Returns the reconcilers for a document's key, in their order.
    #[must_use]
    pub fn reconcilers(&self, project: &str, key: &str) -> Vec<&str> {
        self.live(&self.reconcilers, |binding| binding.is_for(project, None) && binding.matches(key))
    }

    /// Returns the workflow for a kind of task, or for what is of no one kind; none: the host's own words.
    #[must_use]
    pub fn workflow(&self, project: &str, kind: Option<&str>) -> Option<&str> {
        self.live(&self.workflows, |binding| binding.is_for(project, kind)).first().copied()
    }

    /// Returns the policies at a gate for a kind of task, in their order, those in quarantine included.
    #[must_use]
    pub fn policies(&self, project: &str, gate: Gate, kind: &str) -> Vec<&str> {
        let fits = |binding: &&Binding| {
            binding.is_for(project, Some(kind))
                && (binding.gates.is_empty() || binding.gates.contains(&gate))
                && self.rules.get(&binding.plugin).is_none_or(|rule| rule.mode == Mode::Live)
        };
        distinct(self.policies.iter().filter(fits))
    }

    /// Returns the agents that live in a project, each plugin once.
    #[must_use]
    pub fn residents(&self, project: &str) -> Vec<&ResidentBinding> {
        let mut seen = BTreeSet::new();
        let lives = |one: &&ResidentBinding| covers(&one.projects, project) && self.is_asked(&one.plugin);
        self.residents.iter().filter(lives).filter(|one| seen.insert(one.plugin.as_str())).collect()
    }

    /// Returns the components that offer MCP in a project, each plugin once.
    #[must_use]
    pub fn providers(&self, project: &str) -> Vec<&ProviderBinding> {
        let mut seen = BTreeSet::new();
        let offers = |one: &&ProviderBinding| covers(&one.projects, project) && self.is_asked(&one.plugin);
        self.providers.iter().filter(offers).filter(|one| seen.insert(one.plugin.as_str())).collect()
    }

    /// Returns how a component offers MCP in a project; none: it does not.
    #[must_use]
    pub fn provider(&self, project: &str, plugin: &str) -> Option<&ProviderBinding> {
        self.providers(project).into_iter().find(|one| one.plugin == plugin)
    }

    fn live<'a>(&'a self, list: &'a [Binding], fits: impl Fn(&Binding) -> bool) -> Vec<&'a str> {
        distinct(list.iter().filter(|binding| fits(binding) && self.is_asked(&binding.plugin)))
    }
}

/// Returns the plugins, each at its first place: one that passed will pass again.
fn distinct<'a>(bindings: impl Iterator<Item = &'a Binding>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    bindings.map(|binding| binding.plugin.as_str()).filter(|plugin| seen.insert(*plugin)).collect()
}

/// The bindings as they are now. Clones see each other's changes.
#[derive(Clone)]
pub struct BindingBook {
    now: Arc<ArcSwap<Bindings>>,
    /// How often they were replaced.
    replaced: Arc<watch::Sender<u64>>,
}

impl BindingBook {
    /// Returns the bindings as they are now.
    #[must_use]
    pub fn now(&self) -> Arc<Bindings> {
        self.now.load_full()
    }

    /// Replaces them all. What is loaded under their names may be something else, too, from here on.
    pub fn replace(&self, bindings: Bindings) {
        self.now.store(Arc::new(bindings));
        self.replaced.send_modify(|times| *times += 1);
    }

    /// Returns how often they were replaced.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        *self.replaced.borrow()
    }

    /// Returns what tells of each replacement, by how many there were.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }
}

impl Default for BindingBook {
    fn default() -> Self {
        Bindings::default().into()
    }
}

impl From<Bindings> for BindingBook {
    fn from(bindings: Bindings) -> Self {
        Self { now: Arc::new(ArcSwap::from_pointee(bindings)), replaced: Arc::new(watch::Sender::new(0)) }
    }
}

impl fmt::Debug for BindingBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

impl PartialEq for BindingBook {
    fn eq(&self, other: &Self) -> bool {
        self.now() == other.now()
    }
}

impl Eq for BindingBook {}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn bindings() -> Bindings {
        let default = |plugin| Binding { is_default: true, ..Binding::of(plugin) };
        Bindings {
            routers: vec![Binding { projects: texts(&["a"]), kinds: texts(&["review"]), ..Binding::of("mine") }, default("capability")],
            mergers: vec![Binding { patterns: vec!["*.md".parse().expect("a glob")], ..Binding::of("union") }, default("text")],
            workflows: vec![Binding { kinds: texts(&["bug"]), ..Binding::of("bugs") }, default("words")],
            policies: vec![Binding { gates: vec![Gate::Land], projects: texts(&["a"]), ..Binding::of("strict") }, default("policy")],
            ..Bindings::default()
        }
    }

    #[test]
    fn each_project_has_its_own_set() {
        let all = bindings();
        assert!(all.depend_on_project());
        assert_eq!(all.routers("a", "review"), ["mine", "capability"]);
        assert_eq!(all.routers("a", "note"), ["capability"]);
        assert_eq!(all.routers("b", "review"), ["capability"]);
        assert_eq!(all.mergers("b", "x.md"), ["union", "text"]);
        assert_eq!(all.mergers("b", "x.rs"), ["text"]);
        assert_eq!((all.workflow("a", Some("bug")), all.workflow("a", Some("task")), all.workflow("a", None)), {
            (Some("bugs"), Some("words"), Some("words"))
        });
        assert_eq!(all.policies("a", Gate::Land, ""), ["strict", "policy"]);
        assert_eq!(all.policies("a", Gate::Claim, ""), ["policy"]);
    }

    #[test]
    fn what_the_api_adds_stands_before_the_defaults_only() {
        let mut all = bindings();
        all.add(World::Router, Binding::of("added"));
        assert_eq!(all.routers("a", "review"), ["mine", "added", "capability"]);
    }

    #[test]
    fn agents_and_providers_live_where_they_are_bound_while_they_are_asked() {
        let mut all = Bindings::default();
        all.add(World::Agent, Binding { projects: texts(&["a"]), ..Binding::of("helper") });
        all.add(World::Agent, Binding::of("helper"));
        all.add(World::McpProvider, Binding::of("tools"));
        let names = |all: &Bindings, project: &str| {
            let residents = all.residents(project).into_iter().map(|one| one.plugin.clone());
            residents.chain(all.providers(project).into_iter().map(|one| one.plugin.clone())).collect::<Vec<_>>()
        };
        assert_eq!(names(&all, "a"), ["helper", "tools"], "each once");
        assert!(all.provider("a", "tools").is_some() && all.provider("a", "helper").is_none());
        all.rules.insert("helper".to_owned(), Rule { mode: Mode::Off, ..Rule::default() });
        all.rules.insert("tools".to_owned(), Rule { quarantine: Some("it traps".to_owned()), ..Rule::default() });
        assert_eq!(names(&all, "a"), Vec::<String>::new());
    }

    #[test]
    fn a_replacement_is_told_after_it_can_be_read() {
        let book = BindingBook::default();
        let mut changes = book.clone().changes();
        assert!(!changes.has_changed().expect("the book is there"));
        book.replace(bindings());
        assert!(changes.has_changed().expect("the book is there"));
        assert_eq!((*changes.borrow_and_update(), book.replaced(), &*book.now()), (1, 1, &bindings()));
    }

    #[test]
    fn what_is_off_is_not_listed_and_a_gate_in_quarantine_stays() {
        let mut all = bindings();
        let rule = |mode, quarantine: Option<&str>| Rule { mode, quarantine: quarantine.map(str::to_owned), ..Rule::default() };
        all.rules.insert("mine".to_owned(), rule(Mode::Shadow, None));
        all.rules.insert("words".to_owned(), rule(Mode::Off, None));
        all.rules.insert("policy".to_owned(), rule(Mode::Live, Some("it traps")));
        all.rules.insert("text".to_owned(), rule(Mode::Live, Some("it traps")));
        assert_eq!(all.routers("a", "review"), ["capability"]);
        assert_eq!(all.workflow("a", None), None);
        assert_eq!(all.mergers("a", "x.rs"), Vec::<&str>::new());
        assert_eq!(all.policies("a", Gate::Claim, ""), ["policy"], "a quarantine opens no gate");
        all.rules.insert("policy".to_owned(), rule(Mode::Off, None));
        assert_eq!(all.policies("a", Gate::Claim, ""), Vec::<&str>::new());
    }
}
