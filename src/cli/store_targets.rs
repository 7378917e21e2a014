//! The targets of stores, for commands that ask them outside of a deploy.

use std::sync::Arc;

use super::arguments::Global;
use super::arguments::questions::TargetOptions;
use super::run::Live;
use super::shared_records::RegistryAccess;
use super::{environment, project};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::plan::{self, Selection};
use crate::release;
use crate::store::{Store, TargetKind};
use crate::target::{Target, TargetContext, target_of};

/// The chosen stores of a project, and what their targets are made from.
pub struct StoreTargets {
    /// The project.
    pub project: Arc<Project>,
    /// The registry with the records of other machines.
    pub registry: RegistryAccess,
    context: TargetContext,
    local: bool,
    chosen: Selection,
}

impl StoreTargets {
    /// The stores and the targets of the command line.
    pub fn new(global: &Global, options: &TargetOptions) -> Result<Self, AnyError> {
        Self::with_events(global, options, None)
    }

    /// The same, with the events and the interruption of a run.
    pub fn with_events(
        global: &Global,
        options: &TargetOptions,
        live: Option<&Live>,
    ) -> Result<Self, AnyError> {
        let (project, environment) = project(global)?;
        let registry = RegistryAccess::with_events(&project, &environment, &options.access, live)?;
        let console = plan::console_of(&project, &environment.console(&options.access));
        let project = Arc::new(project);
        let context = TargetContext {
            project: Arc::clone(&project),
            services: registry.services(),
            console,
            plan: None,
            local: environment::local_client(&project.root),
        };
        let chosen = Selection::Stores(options.stores.clone());
        if !options.stores.is_empty() {
            chosen.stores(&project)?;
        }
        Ok(Self {
            project,
            registry,
            context,
            local: options.local,
            chosen,
        })
    }

    /// The chosen stores: those that the command line names, or all deployable stores.
    pub fn stores(&self) -> Result<Vec<&Store>, AnyError> {
        match &self.chosen {
            Selection::Stores(ids) if ids.is_empty() => {
                Ok(self.project.stores.deployables().collect())
            }
            _ => self.named(),
        }
    }

    /// The chosen stores. It is an error if the command line names none.
    pub fn named(&self) -> Result<Vec<&Store>, AnyError> {
        Ok(self.chosen.stores(&self.project)?)
    }

    /// The kind of the target of a store.
    pub fn kind(&self, store: &Store) -> TargetKind {
        let deployment = store.deployment.as_ref();
        match deployment {
            Some(deployment) if !self.local => plan::target_of(&self.project, deployment),
            _ => TargetKind::Local,
        }
    }

    /// The target of a store.
    pub fn of(&self, store: &Store) -> Result<Arc<dyn Target>, AnyError> {
        let target = target_of(self.kind(store), &self.context);
        Ok(target.map_err(release::Error::from)?)
    }
}
