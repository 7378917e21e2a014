//! The values of `.env` files of a release, which its containers keep.

use std::borrow::Cow;

use bollard::models::ContainerConfig;

use super::DockerTarget;
use super::engine::{AppContainer, Engine};
use super::error::Error;
use crate::ledger::RecordId;
use crate::target::labels::ENV_FILES;
use crate::target::{EnvValues, ReleaseSpec, ReleasedApp, Settings};

impl DockerTarget {
    /// The release with the values of `.env` files that it was started with, or that the release of which it
    /// is a copy was started with. A release that starts for the first time has those of the working tree.
    pub(super) async fn with_kept_values<'s>(
        &self,
        engine: &Engine,
        containers: &[AppContainer],
        spec: &'s ReleaseSpec,
    ) -> Result<Cow<'s, ReleaseSpec>, Error> {
        let mut values = EnvValues::new();
        let mut is_lost = false;
        for app in &spec.apps {
            let own = values_of(engine, containers, &spec.id, app).await?;
            let kept = match (own, &spec.copy_of) {
                (None, Some(original)) => values_of(engine, containers, original, app).await?,
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

/// The values of `.env` files that an app of a release has.
async fn values_of(
    engine: &Engine,
    containers: &[AppContainer],
    release: &RecordId,
    app: &ReleasedApp,
) -> Result<Option<Settings>, Error> {
    let mut all = containers.iter();
    let Some(container) = all.find(|it| it.release == *release && it.app == app.app) else {
        return Ok(None);
    };
    let found = engine.inspect(&container.id).await?;
    Ok(found.and_then(|found| env_values(&found.config?)))
}

/// The values of the variables that the label of a container names. None without the label.
fn env_values(config: &ContainerConfig) -> Option<Settings> {
    let names = config.labels.as_ref()?.get(ENV_FILES)?;
    let names: Vec<&str> = names.split(',').collect();
    let variables = config.env.iter().flatten();
    let variables = variables.filter_map(|variable| variable.split_once('='));
    let values = variables.filter(|(name, _)| names.contains(name));
    Some(
        values
            .map(|(name, value)| (name.to_owned(), value.to_owned().into()))
            .collect(),
    )
}
