//! What components offer to MCP clients, as it stands now: checked, namespaced, in a fixed order; and the news of a project.
//!
//! Must not know transports, nor what an offer does.
//!
//! New offers are checked, then stored by whoever makes them, then installed. What was checked holds only as long as nobody else
//! installs meanwhile; so those who change a project's offers while it is served take turns: see `residents::standing`.
//!
//! **Invariants:** every list that can be read here was checked as a whole: a component's new offers replace its old ones
//! together or not at all; no name stands twice, whoever offers it; news of a change comes after the change can be read.

mod check;
mod news;
mod template;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use pointsman_core::ids::ProjectId;
use tokio::sync::broadcast;

pub use check::{Checked, Prompt, Resource, Template, Tool};

use super::failure::Failure;
use super::kit::Kit;
use super::settings::{BindingBook, Settings};
use crate::ports::offering::News;
use crate::ports::provider::Offers;
use crate::ports::store::Version;

/// What all components offer in one project.
#[derive(Debug, Default)]
pub struct ProjectOffers {
    by_plugin: BTreeMap<String, Installed>,
    /// Rises with every change.
    pub generation: u64,
}

/// What one component offers, and since when.
#[derive(Debug, Clone, Default)]
struct Installed {
    checked: Checked,
    /// The version it was stored at; 0: it is what the component offered first.
    version: Version,
}

impl ProjectOffers {
    /// Returns the tools by their full names.
    pub fn tools(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.by_plugin.values().flat_map(|one| &one.checked.tools)
    }

    /// Returns the resources.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.by_plugin.values().flat_map(|one| &one.checked.resources)
    }

    /// Returns the resource templates.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        self.by_plugin.values().flat_map(|one| &one.checked.templates)
    }

    /// Returns the prompts.
    pub fn prompts(&self) -> impl Iterator<Item = &Prompt> {
        self.by_plugin.values().flat_map(|one| &one.checked.prompts)
    }

    /// Returns the tool of a full name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools().find(|tool| tool.full_name == name)
    }

    /// Returns the prompt of a full name.
    #[must_use]
    pub fn prompt(&self, name: &str) -> Option<&Prompt> {
        self.prompts().find(|prompt| prompt.full_name == name)
    }

    /// Returns the component that has a resource: one that lists it, else one whose template fits.
    #[must_use]
    pub fn owner_of(&self, uri: &str) -> Option<&str> {
        let listed = self.resources().find(|resource| resource.uri == uri).map(|resource| resource.plugin.as_str());
        listed.or_else(|| self.templates().find(|template| template.fits(uri)).map(|template| template.plugin.as_str()))
    }
}

/// The offers of all components, by project.
#[derive(Debug, Default)]
pub struct OfferBook {
    /// Which components may offer under bare names.
    bindings: BindingBook,
    projects: RwLock<HashMap<ProjectId, Arc<ProjectOffers>>>,
    hubs: Mutex<HashMap<ProjectId, broadcast::Sender<News>>>,
}

impl OfferBook {
    /// Returns an empty book, in which the components that the operator allows to may offer under bare names.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { bindings: settings.bindings.clone(), ..Self::default() }
    }

    /// Returns what is offered in a project.
    #[must_use]
    pub fn of(&self, project: ProjectId) -> Arc<ProjectOffers> {
        self.projects.read().get(&project).cloned().unwrap_or_default()
    }

    /// Checks what a component is to offer in a project, against the rules and against what others offer there now. Changes
    /// nothing.
    ///
    /// # Errors
    /// What is wrong with the new offers, in words for the component's author.
    pub fn check(&self, project: ProjectId, plugin: &str, offers: Offers) -> Result<Checked, String> {
        let may_be_bare = |plugin: &str| self.bindings.now().providers.iter().any(|one| one.plugin == plugin && one.allow_empty_namespace);
        if offers.namespace.is_empty() && !may_be_bare(plugin) {
            return Err("`namespace` is empty, which the operator has to allow by `allow_empty_namespace`".to_owned());
        }
        let checked = Checked::of(plugin, offers)?;
        let now = self.of(project);
        checked.clashes(now.by_plugin.iter().filter(|(name, _)| *name != plugin).map(|(_, other)| &other.checked))?;
        Ok(checked)
    }

    /// Replaces what a component offers in a project by what was checked; whoever listens is told what changed. `version` is
    /// that of the stored form, 0 where there is none: what is older than what stands here is passed over.
    pub fn install(&self, project: ProjectId, plugin: &str, checked: Checked, version: Version) {
        self.put(project, plugin, Installed { checked, version }, |standing| standing.version <= version);
    }

    /// Replaces what a component offers in a project, whatever stands there: it is another component than the one that offered that,
    /// or bound anew. Else as [`OfferBook::install`].
    pub fn begin(&self, project: ProjectId, plugin: &str, checked: Checked, version: Version) {
        self.put(project, plugin, Installed { checked, version }, |_| true);
    }

    fn put(&self, project: ProjectId, plugin: &str, installed: Installed, gives_way: impl Fn(&Installed) -> bool) {
        let mut projects = self.projects.write();
        let before = projects.get(&project).cloned().unwrap_or_default();
        if before.by_plugin.get(plugin).is_some_and(|standing| !gives_way(standing)) {
            return;
        }
        let mut by_plugin = before.by_plugin.clone();
        let checked = installed.checked.clone();
        let old = by_plugin.insert(plugin.to_owned(), installed).unwrap_or_default();
        projects.insert(project, Arc::new(ProjectOffers { by_plugin, generation: before.generation + 1 }));
        drop(projects);
        for news in checked.changes(&old.checked) {
            self.announce(project, news);
        }
    }

    /// Returns the version of what a component offers in a project; 0: nothing, or what it offered first.
    #[must_use]
    pub fn version(&self, project: ProjectId, plugin: &str) -> Version {
        self.of(project).by_plugin.get(plugin).map_or(0, |standing| standing.version)
    }

    /// Returns the newest version of all that is offered in a project.
    #[must_use]
    pub fn newest(&self, project: ProjectId) -> Version {
        self.of(project).by_plugin.values().map(|standing| standing.version).max().unwrap_or(0)
    }

    /// Takes back everything a component offers in a project.
    pub fn remove(&self, project: ProjectId, plugin: &str) {
        let mut projects = self.projects.write();
        let Some(before) = projects.get(&project).cloned() else { return };
        let mut by_plugin = before.by_plugin.clone();
        let Some(old) = by_plugin.remove(plugin) else { return };
        projects.insert(project, Arc::new(ProjectOffers { by_plugin, generation: before.generation + 1 }));
        drop(projects);
        for news in Checked::default().changes(&old.checked) {
            self.announce(project, news);
        }
    }

    /// Tells whoever listens in a project.
    pub fn announce(&self, project: ProjectId, news: News) {
        if let Some(hub) = self.hubs.lock().get(&project) {
            // Nobody listening is no mistake.
            drop(hub.send(news));
        }
    }

    /// Returns the news of a project from now on, those that its event log brings included.
    ///
    /// # Errors
    /// [`Failure`] when the log's end cannot be found.
    pub async fn news(self: &Arc<Self>, kit: &Kit, project: ProjectId) -> Result<broadcast::Receiver<News>, Failure> {
        news::subscribe(self, kit, project).await
    }
}
