//! Pruning: the output of a build becomes `.deploy`, a folder that runs by itself.
//!
//! Each `.deploy` is written under a temporary name and replaces the previous one by a rename.

mod closure;
mod copy;
mod dependency;
mod next;
mod nuxt;
mod server;
mod sizes;
mod verify;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use rayon::prelude::*;

use self::copy::Copier;
pub use self::copy::{files, not_regular};
pub use self::sizes::Sizes;
use self::verify::Verification;
pub use self::verify::{MissingModule, ModuleRequest, RequestKind, RequestTime, unresolved};
use super::build::Built;
use super::failure::{Io, StageError, StageResult};
use super::services::Services;
use super::stored;
use crate::config::{PruneRules, VerifyMode};
use crate::disk;
use crate::event::{Event, EventSubject, Stage, bytes};
use crate::plan::{DEPLOYED_ENTRYPOINT, ImagePlan, Plan};
use crate::store::{AppKind, Framework, UnitId};
use oci::Digest;

/// The name of the pruned folder in a composed app.
pub const FOLDER: &str = ".deploy";

/// A pruned app.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Store and app.
    pub unit: UnitId,
    /// The composed app's folder, which contains `.deploy`.
    pub workdir: PathBuf,
    /// The sizes of what is in `.deploy`.
    pub sizes: Sizes,
    /// Messages about what was copied from outside of the app.
    pub notices: Vec<String>,
}

impl Artifact {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.unit
    }
}

/// Why an app cannot be pruned.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The build of a Next.js app has no standalone output.
    #[error("`{}` has no standalone output: `{}` is missing", app.display(), standalone.display())]
    #[diagnostic(
        code(alokai::prune::no_standalone),
        help(
            "in the app's next.config, remove `output` or set `output: \"standalone\"`, and leave `distDir` at `.next`; a store can override the file"
        )
    )]
    NoStandalone {
        /// The composed app.
        app: PathBuf,
        /// The missing folder.
        standalone: PathBuf,
    },
    /// The standalone output has no server for the app.
    #[error("`{}` has no `server.js` in its standalone output `{}`", app.display(), standalone.display())]
    #[diagnostic(
        code(alokai::prune::no_server),
        help(
            "set `outputFileTracingRoot` in the app's next.config to a folder above the app, preferably the folder with the lock file, and build again"
        )
    )]
    NoServer {
        /// The composed app.
        app: PathBuf,
        /// The standalone output.
        standalone: PathBuf,
    },
    /// The build of a Nuxt app has no Node server.
    #[error("the Nuxt build has no Node server: `{}` is missing", server.display())]
    #[diagnostic(
        code(alokai::prune::no_nitro),
        help(
            "set `nitro.preset` in the app's nuxt.config to `node-server` (the default), and do not generate a static site"
        )
    )]
    NoNitro {
        /// The missing file.
        server: PathBuf,
    },
    /// The build did not write the file that Node starts.
    #[error("the entry file `{}` does not exist after the build", entry.display())]
    #[diagnostic(
        code(alokai::prune::no_entry),
        help(
            "the `start` script or `main` in the app's `package.json` names the entry file; check that the build writes it"
        )
    )]
    NoEntry {
        /// The missing file.
        entry: PathBuf,
    },
    /// Some production dependencies are not installed.
    #[error("{} not installed: {}", if missing.len() == 1 { "a dependency is" } else { "dependencies are" }, missing.join(", "))]
    #[diagnostic(
        code(alokai::prune::missing),
        help("install them with the project's package manager, such as `npm ci`")
    )]
    Missing {
        /// Each with the package that needs it.
        missing: Vec<String>,
    },
    /// Some modules that the entry loads cannot be resolved in `.deploy`, and cannot be copied from the
    /// project.
    #[error("{} cannot be found in `.deploy`:{}", if missing.len() == 1 { "a module" } else { "modules" }, missing.concat())]
    #[diagnostic(
        code(alokai::prune::unresolved),
        help(
            "{help}; if the app's `Dockerfile` adds the module to the image, set `prune.verify` to `\"off\"`"
        )
    )]
    Unresolved {
        /// The modules, each on a line of its own, with the file that needs it.
        missing: Vec<String>,
        /// How to correct them.
        help: String,
    },
    /// `.deploy` is larger than its budget in the config.
    #[error("the size of `.deploy` is {}, which is {} over the limit of {}; {why}", bytes(*size), bytes(size - budget), bytes(*budget))]
    #[diagnostic(
        code(alokai::prune::too_large),
        help(
            "run `npm explain <name>`, `pnpm why` or `yarn why` to find out why a dependency is installed; remove the dependency, or raise `prune.maxSize.{key}` in `alokai.config.json`"
        )
    )]
    TooLarge {
        /// Bytes.
        size: u64,
        /// Bytes.
        budget: u64,
        /// The key in `maxSize`.
        key: String,
        /// The dependencies that grew, or the largest ones.
        why: String,
    },
    /// The `package.json` of a dependency cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Package(#[from] crate::config::Error),
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
}

/// The folder with the inputs digest of each `.deploy`, relative to the project.
pub const MADE_OF: &str = ".alokai/pruned";

/// The file with the inputs digest of a unit's `.deploy`.
fn made_of(project: &Path, unit: &UnitId) -> PathBuf {
    let name = format!("{}.json", unit.app);
    project.join(MADE_OF).join(unit.store.as_str()).join(name)
}

/// Whether the unit has a `.deploy` that was made from the inputs of this image.
pub fn is_current(plan: &Plan, image: &ImagePlan) -> bool {
    let kept: Option<Digest> = stored::read(&made_of(&plan.project, &image.unit))
        .ok()
        .flatten();
    kept == Some(image.inputs) && plan.workdir(&image.unit).join(FOLDER).is_dir()
}

/// Prunes every built unit for which the plan has an image.
pub fn run(plan: &Plan, built: Vec<Built>, services: &Services) -> StageResult<Artifact> {
    let work: Vec<_> = built
        .into_iter()
        .filter_map(|built| {
            let image = plan
                .images
                .iter()
                .find(|image| image.unit == *built.unit())?;
            Some((built, image))
        })
        .collect();
    let results: Vec<_> = work
        .into_par_iter()
        .filter(|_| !services.interrupt.stopped())
        .map(|(built, image)| {
            let unit = EventSubject::app(Stage::Prune, &image.unit);
            let note = |artifact: &Artifact| Some(bytes(artifact.sizes.total()));
            let result = services.events.observe(&unit, note, || {
                one(&plan.project, &built.workdir.path, image, &plan.prune)
            });
            if let Ok(artifact) = &result {
                let largest = artifact.sizes.largest().into_iter();
                services.events.send(Event::Sizes {
                    unit: unit.clone(),
                    total: artifact.sizes.total(),
                    own: artifact.sizes.own,
                    dependencies: largest
                        .map(|(name, size)| (name.to_owned(), size))
                        .collect(),
                });
            }
            (unit, result.map_err(StageError::from))
        })
        .collect();
    // Stores share apps, so a message about an app is sent once.
    let artifacts = results
        .iter()
        .filter_map(|(_, result)| result.as_ref().ok());
    let notices: BTreeSet<_> = artifacts.flat_map(|artifact| &artifact.notices).collect();
    for notice in notices {
        services.events.notice(notice);
    }
    // Succeeds only when the folder is empty.
    let _ = std::fs::remove_dir(plan.project.join(".out/.tmp"));
    results.into_iter().collect()
}

fn one(
    project: &Path,
    workdir: &Path,
    image: &ImagePlan,
    rules: &PruneRules,
) -> Result<Artifact, Error> {
    // The next compose empties this folder, and so removes what a killed run has left.
    let temporary = project.join(".out/.tmp");
    std::fs::create_dir_all(&temporary).map_err(Io::at("create the folder", &temporary))?;
    let fresh =
        tempfile::tempdir_in(&temporary).map_err(Io::at("create a folder in", &temporary))?;
    let copier = Copier::new(fresh.path(), rules);
    match image.kind {
        AppKind::Frontend(Framework::Nextjs) => {
            next::prune(workdir, &project.join(&image.built_in), &copier)?;
        }
        AppKind::Frontend(Framework::Nuxt) => nuxt::prune(workdir, &copier)?,
        _ => server::prune(project, workdir, &image.entry, &copier)?,
    }
    if let Some(path) = &image.entrypoint {
        copier.file(&workdir.join(path), Path::new(DEPLOYED_ENTRYPOINT))?;
    }
    let verification = Verification {
        project,
        workdir,
        image,
    };
    let mut notices = match rules.verify {
        VerifyMode::Off => Vec::new(),
        // With `Start`, the entries are also started, after all apps are pruned.
        VerifyMode::Resolve | VerifyMode::Start => verification.resolve(&copier)?,
    };
    let sizes = copier.sizes();
    notices.extend(sizes.name_compilers(&image.unit.app));
    within_budget(project, &image.unit, &sizes, rules)?;
    // Temporary folders are private, but the container's user has to read this one.
    let permissions = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(fresh.path(), permissions)
        .map_err(Io::at("set the permissions of", fresh.path()))?;
    let folder = workdir.join(FOLDER);
    let made_of = made_of(project, &image.unit);
    disk::remove_file(&made_of).map_err(Io::at("remove", &made_of))?;
    let old = tempfile::tempdir_in(&temporary).map_err(Io::at("create a folder in", &temporary))?;
    match std::fs::rename(&folder, old.path().join(FOLDER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Io::at("replace", &folder)(error).into());
        }
        _ => {}
    }
    let fresh = fresh.keep();
    std::fs::rename(&fresh, &folder).map_err(Io::at("write", &folder))?;
    sizes.save(project, &image.unit)?;
    stored::write(&made_of, &image.inputs)?;
    Ok(Artifact {
        unit: image.unit.clone(),
        workdir: workdir.to_owned(),
        sizes,
        notices,
    })
}

fn within_budget(
    project: &Path,
    unit: &UnitId,
    sizes: &Sizes,
    rules: &PruneRules,
) -> Result<(), Error> {
    let size = sizes.total();
    match rules.budget(&unit.app) {
        Some((key, budget)) if size > budget => Err(Error::TooLarge {
            size,
            budget,
            key: key.to_owned(),
            why: sizes.explain(Sizes::last(project, unit).as_ref()),
        }),
        _ => Ok(()),
    }
}
