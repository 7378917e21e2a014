//! The targets of stores, for commands that ask them outside of a deploy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::arguments::Global;
use super::arguments::questions::ChosenTargets;
use super::ask_targets::{KnownTarget, TargetsByKind};
use super::environment::{self, Environment};
use super::events::Live;
use super::project;
use super::shared_records::RegistryAccess;
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::pipeline::ScriptEnvironment;
use crate::plan::{self, Selection};
use crate::release;
use crate::store::{Store, StoreId, TargetKind};
use crate::target::{self, Target, TargetContext, target_of};

/// The chosen stores of a project, and what their targets are made from.
pub struct StoreTargets {
    /// The project.
    pub project: Arc<Project>,
    /// The registry with the records of other machines.
    pub registry: RegistryAccess,
    /// The environment of scripts, of which hooks see a part.
    pub scripts: ScriptEnvironment,
    context: TargetContext,
    local: bool,
    chosen: Selection,
    /// The targets of the chosen stores, or why there is none.
    targets: BTreeMap<&'static str, KnownTarget>,
}

impl StoreTargets {
    /// The stores and the targets of the command line.
    pub fn new(global: &Global, options: ChosenTargets) -> Result<Self, AnyError> {
        Self::with_events(global, options, None)
    }

    /// The same, with the events and the interruption of a run.
    pub fn with_events(
        global: &Global,
        options: ChosenTargets,
        live: Option<&Live>,
    ) -> Result<Self, AnyError> {
        Self::of_project(project(global)?, options, live)
    }

    /// The same for a project that is loaded.
    pub fn of_project(
        (project, environment): (Project, Environment),
        options: ChosenTargets,
        live: Option<&Live>,
    ) -> Result<Self, AnyError> {
        let password = options.access.password()?;
        let registry = (password, live);
        let registry =
            RegistryAccess::with_password(&project, &environment, options.access, registry)?;
        let console = plan::console_of(&project, &environment.console(options.access));
        let project = Arc::new(project);
        let context = TargetContext {
            project: Arc::clone(&project),
            services: registry.services(),
            console,
            plan: None,
            local: environment::local_client(&project.root),
            examines: false,
        };
        let chosen = Selection::Stores(options.stores.to_vec());
        if !options.stores.is_empty() {
            chosen.stores(&project)?;
        }
        let mut targets = Self {
            project,
            registry,
            scripts: environment.scripts(false),
            context,
            local: options.local,
            chosen,
            targets: BTreeMap::new(),
        };
        let mut known = TargetsByKind::new(&targets.context);
        let stores = targets.stores()?.into_iter();
        let kinds = stores.map(|store| targets.kind(store));
        let kinds = kinds.map(|kind| (kind.name(), known.of(kind)));
        targets.targets = kinds.collect();
        Ok(targets)
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

    /// Stores that run on this machine and are not in the project, since they were renamed or removed.
    pub fn running_without_config(&self) -> Result<Vec<StoreId>, AnyError> {
        let remembered = self.context.local.remembered();
        let remembered =
            remembered.map_err(|error| release::Error::from(target::Error::from(error)))?;
        let running = remembered
            .stores
            .into_iter()
            .filter(|(id, store)| store.runs() && self.project.stores.get(id.as_str()).is_none());
        Ok(running.map(|(id, _)| id).collect())
    }

    /// The kind of the target of a store.
    pub fn kind(&self, store: &Store) -> TargetKind {
        let deployment = store.deployment.as_ref();
        match deployment {
            Some(deployment) if !self.local => self.project.target_of(deployment),
            _ => TargetKind::Local,
        }
    }

    /// The target of a store, or why there is none.
    pub fn known(&self, store: &Store) -> KnownTarget {
        let missing = || Err("the store is not selected".to_owned());
        let target = self.targets.get(self.kind(store).name());
        target.cloned().unwrap_or_else(missing)
    }

    /// Checks that the targets of the chosen stores can be used.
    pub fn preflight(&self) -> Result<(), AnyError> {
        for target in self.targets.values().flatten() {
            let checked = self.registry.wait(target.preflight());
            checked.map_err(release::Error::from)?;
        }
        Ok(())
    }

    /// The target of a store.
    pub fn of(&self, store: &Store) -> Result<Arc<dyn Target>, AnyError> {
        if let Ok(target) = self.known(store) {
            return Ok(target);
        }
        let target = target_of(self.kind(store), &self.context);
        Ok(target.map_err(release::Error::from)?)
    }
}
