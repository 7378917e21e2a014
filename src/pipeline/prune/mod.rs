//! From what a build made to `.deploy`: a folder that runs by itself.
//!
//! Each is made under a temporary name, and takes the place of the one before whole.

mod closure;
mod copy;
mod dependency;
mod next;
mod nuxt;
mod server;
mod sizes;

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use rayon::prelude::*;

use self::copy::Copier;
pub use self::copy::{files, odd};
pub use self::sizes::Sizes;
use super::build::Built;
use super::context::Services;
use super::failure::{Io, StageError, StageResult};
use super::stored;
use crate::config::PruneRules;
use crate::disk;
use crate::event::{Event, Stage, Unit, bytes};
use crate::plan::{ImagePlan, Plan};
use crate::store::{AppKind, Framework, UnitId};
use oci::Digest;

/// The name of the pruned folder in a composed app.
pub const FOLDER: &str = ".deploy";

/// An app that runs by itself.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Store and app.
    pub unit: UnitId,
    /// The composed app's folder; `.deploy` lies in it.
    pub workdir: PathBuf,
    /// Bytes in `.deploy`.
    pub sizes: Sizes,
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
    /// Next.js made no standalone output.
    #[error("`{}` has no standalone output: `{}` is missing", app.display(), standalone.display())]
    #[diagnostic(
        code(alokai::prune::no_standalone),
        help(
            "set `output: \"standalone\"` in the app's next.config, and leave `distDir` at `.next`"
        )
    )]
    NoStandalone {
        /// The composed app.
        app: PathBuf,
        /// What is missing.
        standalone: PathBuf,
    },
    /// Standalone output without the app in it.
    #[error("no `server.js` for `{}` under `{}`", app.display(), standalone.display())]
    #[diagnostic(
        code(alokai::prune::no_server),
        help(
            "`outputFileTracingRoot` in next.config has to be a folder above the app, best the one with the lock file; then build again"
        )
    )]
    NoServer {
        /// The composed app.
        app: PathBuf,
        /// Where it was looked for.
        standalone: PathBuf,
    },
    /// Nuxt made no Node server.
    #[error("`{}` is missing", server.display())]
    #[diagnostic(
        code(alokai::prune::no_nitro),
        help(
            "Nuxt's `nitro.preset` has to be `node-server`, the default, and `ssr` must not generate a static site"
        )
    )]
    NoNitro {
        /// The file that was looked for.
        server: PathBuf,
    },
    /// The entry that Node shall start is not there.
    #[error("`{}` is missing after the build", entry.display())]
    #[diagnostic(
        code(alokai::prune::no_entry),
        help(
            "the app is started as its `start` script or `main` says; check that the build writes that file"
        )
    )]
    NoEntry {
        /// The file.
        entry: PathBuf,
    },
    /// Production dependencies that are not installed.
    #[error("{} not installed: {}", if missing.len() == 1 { "a dependency is" } else { "dependencies are" }, missing.join(", "))]
    #[diagnostic(
        code(alokai::prune::missing),
        help("install them with the project's package manager, such as `npm ci`")
    )]
    Missing {
        /// Each with the package that needs it.
        missing: Vec<String>,
    },
    /// More bytes than the config allows.
    #[error("`.deploy` has {}, {} more than its budget of {}; {why}", bytes(*size), bytes(size - budget), bytes(*budget))]
    #[diagnostic(
        code(alokai::prune::too_large),
        help(
            "`npm explain <name>`, `pnpm why` and `yarn why` tell who needs a package; replace it, or raise `prune.maxSize.{key}` in `alokai.config.json`"
        )
    )]
    TooLarge {
        /// Bytes.
        size: u64,
        /// Bytes.
        budget: u64,
        /// The key in `maxSize`.
        key: String,
        /// What grew, or what is large.
        why: String,
    },
    /// A `package.json` of a dependency.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Package(#[from] crate::config::Error),
    /// The disk.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
}

/// Where it is kept what each `.deploy` was made of, relative to the project.
pub const MADE_OF: &str = ".alokai/pruned";

/// Where it is kept what a unit's `.deploy` was made of.
fn made_of(project: &Path, unit: &UnitId) -> PathBuf {
    let name = format!("{}.json", unit.app);
    project.join(MADE_OF).join(unit.store.as_str()).join(name)
}

/// Whether `.deploy` is there, made of what the image would be made of.
pub fn is_of(plan: &Plan, image: &ImagePlan) -> bool {
    let kept: Option<Digest> = stored::read(&made_of(&plan.project, &image.unit))
        .ok()
        .flatten();
    kept == Some(image.inputs) && plan.workdir(&image.unit).join(FOLDER).is_dir()
}

/// Prunes every built unit that the plan makes an image of.
pub fn run(plan: &Plan, built: Vec<Built>, context: &Services) -> StageResult<Artifact> {
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
        .filter(|_| !context.interrupt.stopped())
        .map(|(built, image)| {
            let unit = Unit::app(Stage::Prune, &image.unit);
            let note = |artifact: &Artifact| Some(bytes(artifact.sizes.total()));
            let result = context.events.observe(&unit, note, || {
                one(&plan.project, &built.workdir.path, image, &plan.prune)
            });
            if let Ok(artifact) = &result {
                let largest = artifact.sizes.largest().into_iter();
                context.events.send(Event::Sizes {
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
    // It goes when it is empty; another unit's folder may not be in place yet otherwise.
    let _ = std::fs::remove_dir(plan.project.join(".out/.tmp"));
    results.into_iter().collect()
}

fn one(
    project: &Path,
    workdir: &Path,
    image: &ImagePlan,
    rules: &PruneRules,
) -> Result<Artifact, Error> {
    // Below `.out`, where the next compose sweeps what a killed run has left.
    let temporary = project.join(".out/.tmp");
    std::fs::create_dir_all(&temporary).map_err(Io::at("make the folder", &temporary))?;
    let fresh = tempfile::tempdir_in(&temporary).map_err(Io::at("make a folder in", &temporary))?;
    let copier = Copier::new(fresh.path(), rules);
    match image.kind {
        AppKind::Frontend(Framework::Nextjs) => {
            next::prune(workdir, &project.join(&image.built_in), &copier)?;
        }
        AppKind::Frontend(Framework::Nuxt) => nuxt::prune(workdir, &copier)?,
        _ => server::prune(project, workdir, &image.entry, &copier)?,
    }
    let sizes = copier.sizes();
    within_budget(project, &image.unit, &sizes, rules)?;
    // Readable for the container's user, which a temporary folder is not.
    let permissions = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(fresh.path(), permissions).map_err(Io::at("open", fresh.path()))?;
    let folder = workdir.join(FOLDER);
    let made_of = made_of(project, &image.unit);
    disk::remove_file(&made_of).map_err(Io::at("remove", &made_of))?;
    let old = tempfile::tempdir_in(&temporary).map_err(Io::at("make a folder in", &temporary))?;
    match std::fs::rename(&folder, old.path().join(FOLDER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Io::at("replace", &folder)(error).into());
        }
        _ => {}
    }
    let fresh = fresh.keep();
    std::fs::rename(&fresh, &folder).map_err(Io::at("write", &folder))?;
    sizes.remember(project, &image.unit)?;
    stored::write(&made_of, &image.inputs)?;
    Ok(Artifact {
        unit: image.unit.clone(),
        workdir: workdir.to_owned(),
        sizes,
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
