//! What the apps of a release print, and why they do not run.

use std::collections::BTreeSet;

use bollard::models::{Task, TaskState};
use futures_util::future::try_join_all;
use secrecy::ExposeSecret;

use super::SwarmTarget;
use super::error::Error;
use super::manager::{AppService, Manager, has_failed, is_running, reason, state};
use super::progress::failed_update;
use super::settings::SealedKind;
use crate::ledger::RecordId;
use crate::redaction::redactor;
use crate::store::StoreId;
use crate::target::docker::output::{ended, exited, send_lines};
use crate::target::labels::StoreLabels;
use crate::target::{AppState, LogQuery, Settings};

impl SwarmTarget {
    /// The state of each app of a release.
    pub(super) async fn app_states(
        &self,
        store: &StoreId,
        release: &RecordId,
    ) -> Result<Vec<AppState>, Error> {
        let (manager, owner) = (self.manager().await?, self.owner(store)?);
        let mut states = Vec::new();
        let mut services = manager.app_services(&owner).await?;
        services.retain(|service| service.release == *release);
        // A copy has values that the working tree does not have.
        let hidden = self.env_values(&owner, store, &services).await;
        let hidden = hidden.map(|it| redactor(it.values().map(ExposeSecret::expose_secret)));
        for service in services {
            let mut state = app_state(manager, service).await?;
            // Lines whose secrets are not known are not shown.
            state.tail = hidden.as_ref().map_or_else(
                |_| Vec::new(),
                |hidden| state.tail.iter().map(|line| hidden.redact(line)).collect(),
            );
            states.push(state);
        }
        states.sort_by(|a, b| a.app.cmp(&b.app));
        Ok(states)
    }

    /// Sends the output of the wanted apps. Values of settings and of `.env` files are replaced.
    pub(super) async fn app_lines(&self, wanted: &LogQuery) -> Result<(), Error> {
        let (manager, owner) = (self.manager().await?, self.owner(&wanted.store)?);
        let release = match &wanted.release {
            Some(release) => Some(release.clone()),
            None => self.active(manager, &owner, &wanted.store).await?,
        };
        let mut services = manager.app_services(&owner).await?;
        services.retain(|service| {
            let is_app = wanted.app.as_ref().is_none_or(|app| *app == service.app);
            release.as_ref() == Some(&service.release) && is_app
        });
        let mut settings = Settings::new();
        for version in services.iter().filter_map(|it| it.settings.as_deref()) {
            let known = self.read_settings(&wanted.store, version).await?;
            settings.extend(known.unwrap_or_default());
        }
        let env = self.env_values(&owner, &wanted.store, &services).await?;
        settings.extend(env);
        let values = settings.values().map(ExposeSecret::expose_secret);
        let redactor = &redactor(values);
        let reading = services.iter().map(|service| {
            let pieces = manager.output(&service.id, wanted.follow, wanted.since);
            send_lines(pieces, &service.app, redactor, wanted)
        });
        try_join_all(reading).await?;
        Ok(())
    }
}

impl SwarmTarget {
    /// The values of `.env` files of these services, which their output must not show.
    async fn env_values(
        &self,
        owner: &StoreLabels,
        store: &StoreId,
        services: &[AppService],
    ) -> Result<Settings, Error> {
        let sealed = self.sealed(SealedKind::Env, self.manager().await?, owner, store);
        let releases: BTreeSet<&str> = services.iter().filter_map(AppService::env_of).collect();
        let mut values = Settings::new();
        for release in releases {
            let known = sealed.read(release).await?;
            values.extend(known.ok_or_else(|| Error::EnvMissing {
                store: store.clone(),
                release: release.to_owned(),
            })?);
        }
        Ok(values)
    }
}

async fn app_state(manager: &Manager, service: AppService) -> Result<AppState, Error> {
    let tasks = manager.tasks(&service.id).await?;
    let running = tasks.iter().rev().find(|task| is_running(task));
    let failed = tasks.iter().rev().find(|task| has_failed(task));
    let wrong = not_as_asked(&service, running);
    let ended = match (wrong, running, failed) {
        (Some(wrong), ..) => Some(wrong),
        (None, Some(_), _) => None,
        (None, None, _) if !service.is_wanted() => Some("was stopped".to_owned()),
        (None, None, Some(task)) => Some(how_it_ended(manager, task).await),
        (None, None, None) => Some("was not started".to_owned()),
    };
    let restarts = tasks.iter().filter(|task| has_failed(task)).count();
    Ok(AppState {
        app: service.app.clone(),
        running: ended.is_none(),
        ended,
        restarts: u32::try_from(restarts).unwrap_or(u32::MAX),
        tail: manager.tail(&service.id).await,
    })
}

/// Why a service does not run as requested, if another program has changed it.
fn not_as_asked(service: &AppService, running: Option<&Task>) -> Option<String> {
    let image =
        running.and_then(|task| task.spec.as_ref()?.container_spec.as_ref()?.image.as_ref());
    let is_other = image.is_some_and(|image| *image != service.image);
    match failed_update(service.update.as_ref()) {
        // A rollback by Swarm may have restored the requested image.
        Some((state, message)) if is_other || running.is_none() => Some(format!(
            "was updated by another program, and Swarm did not finish the update ({state}): {message}"
        )),
        _ if is_other => {
            image.map(|image| format!("runs the image `{image}` instead of `{}`", service.image))
        }
        _ => None,
    }
}

/// How a task ended. The engine of this node also knows whether memory was the cause.
async fn how_it_ended(manager: &Manager, task: &Task) -> String {
    let status = task.status.as_ref();
    let container = status.and_then(|it| it.container_status.as_ref());
    let id = container.and_then(|it| it.container_id.as_deref());
    if let Some(id) = id
        && state(task) != TaskState::REJECTED
        && let Ok(Some(found)) = manager.engine.inspect(id).await
        && let Some(state) = found.state
    {
        return ended(&state);
    }
    let code = container.and_then(|it| it.exit_code);
    match (code, state(task)) {
        (Some(code), TaskState::FAILED | TaskState::COMPLETE) => exited(code),
        _ => format!("was not started: {}", reason(task)),
    }
}
