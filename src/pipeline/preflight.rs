//! Before the first build: is everything there that the last stage will need? A wrong
//! password costs a second here, and an hour after the builds.

use std::sync::Arc;

use bollard::Docker;

use super::context::Context;
use super::failure::{Error, StageError};
use super::{deploy, docker};
use crate::event::Stage;
use crate::plan::Plan;
use crate::registry;

/// Asks engine, registry and console at once, and reports everything that is missing. Gives the
/// connection to the engine, where the plan needs one.
pub async fn check(plan: &Plan, context: &Arc<Context>) -> Result<Option<Docker>, Error> {
    let _outside = context.events.outside();
    let engine = async {
        if plan.until < Stage::Image {
            return Ok(None);
        }
        let docker = docker::connect(context.access.docker.as_deref()).await?;
        Ok(Some(docker))
    };
    let login = async {
        if plan.until < Stage::Push {
            return Ok(());
        }
        let Some(credentials) = &context.access.credentials else {
            return Err(StageError::from(registry::Error::NoCredentials {
                whom: format!("the registry `{}`", plan.registry),
                missing: context.access.missing.clone(),
            }));
        };
        registry::login(&plan.registry, credentials)
            .await
            .map_err(StageError::from)
    };
    let console = async {
        if plan.until < Stage::Deploy {
            return Ok(());
        }
        deploy::reach(&plan.console).await.map_err(StageError::from)
    };
    let checks = async { tokio::join!(engine, login, console) };
    let (engine, login, console) = tokio::select! {
        results = checks => results,
        () = context.interrupt.stopping() => {
            return Err(Error::Interrupted { stage: Stage::Compose, failures: Vec::new() });
        }
    };
    let (docker, engine) = match engine {
        Ok(docker) => (docker, Ok(())),
        Err(error) => (None, Err(error)),
    };
    let problems: Vec<_> = [engine, login, console]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    if !problems.is_empty() {
        return Err(Error::Preflight { problems });
    }
    // Pulled now, or known to be missing now: the first image would need it anyway.
    if let (Some(docker), Some(base)) = (&docker, &plan.base) {
        let provided = docker::provide(docker, base, context);
        let provided = context
            .interrupt
            .unless_stopped(docker::Error::Interrupted, provided)
            .await;
        match provided {
            Err(docker::Error::Interrupted) => {
                return Err(Error::Interrupted {
                    stage: Stage::Compose,
                    failures: Vec::new(),
                });
            }
            other => other.map_err(|error| Error::Preflight {
                problems: vec![error.into()],
            })?,
        }
    }
    Ok(docker)
}
