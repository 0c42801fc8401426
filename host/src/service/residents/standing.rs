//! What components offer, as it stands in the store, and how the offers of a project are brought in step with it.
//!
//! Offers are checked against what others offer, so those who change them take turns: each change rests on the one before, by
//! the version of the record `offers-turn`. Whoever finds that a turn was taken whose offers are not installed here installs
//! them first: the one who took it may be about to, may never have heard that it was stored, or may be another replica.

use pointsman_core::ids::ProjectId;

use super::record::{OFFERS, OFFERS_TURN, OffersTurn, StoredOffers, offers_key};
use crate::ports::provider::Offers;
use crate::ports::store::{Commit, Version};
use crate::service::failure::Failure;
use crate::service::kit::CommitExt;
use crate::service::offers::Checked;
use crate::service::surface::Services;

/// Components whose offers are read at once.
const COMPONENTS_MAX: usize = 1_000;

/// Checks new offers of a component and adds them to a commit, which is done only if nobody else changed the project's offers
/// meanwhile.
///
/// # Errors
/// The inner error says what is wrong with the offers; the outer one is the store's.
pub(super) async fn stage(
    services: &Services,
    project: ProjectId,
    plugin: &str,
    commit: &mut Commit,
    offers: Offers,
) -> Result<Result<Checked, String>, Failure> {
    let turn = services.kit.load::<OffersTurn>(Some(project), OFFERS_TURN).await?.map(|found| found.version);
    if turn.is_some_and(|turn| services.offers.newest(project) < turn) {
        catch_up(services, project).await?;
    }
    let checked = services.offers.check(project, plugin, offers);
    if checked.is_ok() {
        commit.replace(OFFERS_TURN, turn, &OffersTurn { plugin: plugin.to_owned() });
    }
    Ok(checked)
}

/// Installs the stored offers of a project that are newer than those installed.
///
/// # Errors
/// [`Failure`].
pub(super) async fn catch_up(services: &Services, project: ProjectId) -> Result<(), Failure> {
    let slug = services.agents.project(project).await?.slug;
    let bindings = services.kit.settings.bindings.now();
    let bound = |plugin: &str| bindings.provider(&slug, plugin).is_some();
    let all = services.kit.load_all::<StoredOffers>(Some(project), OFFERS, COMPONENTS_MAX).await?;
    for (key, found) in all {
        let Some(plugin) = key.strip_prefix(OFFERS).filter(|plugin| bound(plugin)) else { continue };
        if !is_of(services, plugin, &found.value.digest) || services.offers.version(project, plugin) >= found.version {
            continue;
        }
        match services.offers.check(project, plugin, found.value.offers) {
            Ok(checked) => services.offers.install(project, plugin, checked, found.version),
            Err(why) => tracing::warn!(%project, plugin, why, "stored offers are passed over"),
        }
    }
    Ok(())
}

/// Returns what a provider offered last, if this component did, and when it was stored.
pub(super) async fn last(services: &Services, project: ProjectId, plugin: &str) -> Result<Option<(Offers, Version)>, Failure> {
    let stored = services.kit.load::<StoredOffers>(Some(project), &offers_key(plugin)).await?;
    Ok(stored.filter(|found| is_of(services, plugin, &found.value.digest)).map(|found| (found.value.offers, found.version)))
}

/// Returns whether the component with this digest is the one that is loaded as a plugin.
fn is_of(services: &Services, plugin: &str, digest: &str) -> bool {
    services.kit.plugins.loaded().get(plugin).is_some_and(|(_, reference, _)| reference.digest == digest)
}
