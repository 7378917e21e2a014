//! What `start` and `test` share: the plan of servers, services, and tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arguments::AccessOptions;
use super::environment::{self, Environment, NodeVersion, surroundings};
use super::events::Live;
use super::services::local_services;
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::{Events, Stage};
use crate::overlay::Composition;
use crate::pipeline::{ARTIFACT_FOLDER, Access, ScriptEnvironment, Services, artifact_is_current};
use crate::plan::{
    self, BuilderChoice, DestinationPlan, Filter, Plan, Request, Selection, ServeMode, ServePlan,
};
use crate::report::{Detail, Lines, Ndjson, Reporter};
use crate::serve;
use crate::store::UnitId;

/// The project in which servers run, as it is now.
pub struct ServedProject {
    pub project: Project,
    pub environment: Environment,
    /// The environment of the user's shell.
    pub shell: ScriptEnvironment,
}

/// The folder of the project on the command line.
pub fn root(cwd: Option<&Path>) -> Result<PathBuf, AnyError> {
    Ok(Project::root_of(&environment::start(cwd)?)?)
}

impl ServedProject {
    /// Reads the project.
    pub fn load(root: &Path) -> Result<Self, AnyError> {
        let project = Project::load(root)?;
        let environment = Environment::load(root)?;
        let shell = environment.scripts(false);
        Ok(Self {
            project,
            environment,
            shell,
        })
    }

    /// The request for a plan of these stores up to a stage.
    pub fn request(&self, selection: Selection, filter: Filter, until: Stage) -> Request {
        let node =
            (until > Stage::Compose).then(|| NodeVersion::ask(&self.project.root, &self.shell));
        Request {
            selection,
            filter,
            until,
            allow_dirty: true,
            registry: self.environment.registry(&AccessOptions::default()),
            console: None,
            builder: BuilderChoice::Docker,
            local: false,
            attest: false,
            concurrency: None,
            work: plan::Work::default(),
            host: surroundings(&self.shell, node.flatten(), self.project.settings.sandbox),
        }
    }

    /// Plans servers that run the `.deploy` of each unit. Missing folders are an error, and outdated
    /// folders are notices.
    pub fn artifacts(&self, plan: &Plan, events: &Events) -> Result<ServePlan, AnyError> {
        let serve = ServePlan::new(&self.project, &chosen(plan), ServeMode::Artifacts)?;
        check_built(plan)?;
        let outdated = plan
            .images
            .iter()
            .filter(|image| !artifact_is_current(plan, image));
        let outdated: BTreeSet<_> = outdated.map(|image| &image.unit).collect();
        if !outdated.is_empty() {
            let stores: BTreeSet<_> = outdated.iter().map(|unit| unit.store.to_string()).collect();
            let stores: Vec<_> = stores.into_iter().collect();
            let outdated: Vec<_> = outdated.iter().map(ToString::to_string).collect();
            events.notice(format!(
                "`.deploy` was made from other files, variables or tools than the current ones: {}; to renew it, run `alokai store deploy --store {} --local --until prune`",
                outdated.join(", "),
                stores.join(",")
            ));
        }
        for notice in &serve.notices {
            events.notice(notice);
        }
        Ok(serve)
    }

    /// Plans servers that run the image of each unit.
    pub fn images(&self, plan: &Plan) -> Result<ServePlan, AnyError> {
        let images = plan.images.iter();
        let images = images
            .filter_map(|image| Some((image.unit.clone(), image.reference.as_ref()?.to_string())));
        let images: BTreeMap<UnitId, String> = images.collect();
        let mode = ServeMode::Images(&images);
        Ok(ServePlan::new(&self.project, &chosen(plan), mode)?)
    }

    /// The access to the registry of a plan's images.
    pub fn registry_access(&self, plan: &Plan) -> Access {
        let mut access = self.environment.access(&AccessOptions::default(), None);
        access.registry = match &plan.destination {
            Some(DestinationPlan::Registry { address, .. }) => Some(address.clone()),
            _ => None,
        };
        access
    }
}

/// The compositions of the units that have an image, which are the units to start.
pub fn chosen(plan: &Plan) -> Vec<Arc<Composition>> {
    let compositions = plan.compositions();
    let chosen = compositions.filter(|it| plan.image(&it.unit).is_some());
    chosen.cloned().collect()
}

/// Fails if a unit has no `.deploy`.
fn check_built(plan: &Plan) -> Result<(), serve::Error> {
    let is_missing = |unit| !plan.workdir(unit).join(ARTIFACT_FOLDER).is_dir();
    let units = plan.images.iter().map(|image| &image.unit);
    let missing: Vec<_> = units.filter(|unit| is_missing(unit)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let stores: BTreeSet<_> = missing.iter().map(|unit| unit.store.to_string()).collect();
    Err(serve::Error::NotBuilt {
        units: missing.iter().map(ToString::to_string).collect(),
        stores: stores.into_iter().collect(),
    })
}

/// The services of servers.
pub fn services(root: &Path, live: &Live, access: Access) -> Services {
    Services {
        access,
        ..local_services(live, root)
    }
}

/// A reporter that shows each line of each server.
pub fn reporter(json: bool) -> Box<dyn Reporter> {
    if json {
        Box::new(Ndjson::new(std::io::stdout()))
    } else {
        Box::new(Lines::new(std::io::stderr(), Detail::Short))
    }
}

/// Rows in columns of equal width. The first row is the head.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}
