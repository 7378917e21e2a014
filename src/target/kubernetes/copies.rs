//! The values of `.env` files of a release, which its Secrets keep.

use std::borrow::Cow;

use super::KubernetesTarget;
use super::api::{Api, name_of};
use super::error::Error;
use super::kinds::SECRET;
use super::masks::secret_names;
use super::names::{StoreOwner, environment_secret_of};
use super::settings::values_of;
use super::steps::AppDeployment;
use crate::ledger::RecordId;
use crate::target::{EnvValues, ReleaseSpec, ReleasedApp, Settings};

impl KubernetesTarget {
    /// The release with the values of `.env` files that it was started with, or that the release of which it
    /// is a copy was started with. A release that starts for the first time has those of the working tree.
    pub(super) async fn with_kept_values<'s>(
        &self,
        api: &Api,
        owner: &StoreOwner,
        spec: &'s ReleaseSpec,
    ) -> Result<Cow<'s, ReleaseSpec>, Error> {
        let deployments = self.deployments(api, owner).await?;
        let kept_by = async |release: &RecordId, app: &ReleasedApp| {
            let mut all = deployments.iter();
            match all.find(|it| it.release == *release && it.app == app.app) {
                Some(found) => env_values(api, owner, found).await,
                None => Ok(None),
            }
        };
        let mut values = EnvValues::new();
        let mut is_lost = false;
        for app in &spec.apps {
            let kept = match (kept_by(&spec.id, app).await?, &spec.copy_of) {
                (None, Some(original)) => kept_by(original, app).await?,
                (own, _) => own,
            };
            match kept {
                Some(kept) => drop(values.insert(app.app.clone(), kept)),
                None => is_lost = true,
            }
        }
        if let Some(original) = spec.copy_of.as_ref().filter(|_| is_lost) {
            let events = &self.context.services.events;
            events.notice(spec.without_original(original));
        }
        if values.is_empty() {
            return Ok(Cow::Borrowed(spec));
        }
        Ok(Cow::Owned(spec.with_env_values(values)))
    }
}

/// The values of `.env` files that the pods of a Deployment have. None if their Secret was deleted.
async fn env_values(
    api: &Api,
    owner: &StoreOwner,
    deployment: &AppDeployment,
) -> Result<Option<Settings>, Error> {
    let name = environment_secret_of(name_of(&deployment.object));
    if !secret_names(&deployment.object).any(|it| it == name) {
        return Ok(Some(Settings::new()));
    }
    let secret = api.owned(SECRET, &name, owner).await?;
    secret.as_ref().map(values_of).transpose()
}
