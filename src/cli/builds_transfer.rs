//! `store builds export` and `store builds import`: a build as one tar, from one store or registry to
//! another.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;

use super::arguments::transfer::{BuildExportOptions, BuildImportOptions};
use super::builds::build;
use super::listing::records;
use super::shared_records::RegistryAccess;
use super::{Error, answer, environment};
use crate::config::{Project, nearest};
use crate::error::Error as AnyError;
use crate::event::{Stage, seconds};
use crate::ledger::{
    self, BuildRecord, BuildStatus, BuildTransferError, BuiltApp, ExportedImage, ImagePlace,
    ImportName, ImportedBuild, ImportedBuildFiles, LogFolder, Record, RecordFolder, RecordId,
    RecordKind, SCHEMA_VERSION, StoredImage, StoredRecord, TAG_PREFIX,
};
use crate::pipeline::{self, Io, ProjectLock};
use crate::plan::{self, DestinationPlan, DestinationReference, LOCAL_REGISTRY};
use crate::store::{AppKind, Store};

/// The prefix of folders with unpacked archives.
const UNPACKED: &str = "import-";

/// The longest tag.
const TAG_CHARACTERS: usize = 128;

pub fn export(
    project: &Project,
    registry: &RegistryAccess,
    options: &BuildExportOptions,
) -> Result<(), AnyError> {
    if environment::is_terminal() {
        return Err(Error::Terminal {
            what: "an archive cannot be written to",
            help: "send it to a file or a pipe: `alokai store builds export … > build.tar`",
        }
        .into());
    }
    let records = records(project, registry)?;
    let build = build(&records, &options.build)?;
    let images = images_of(project, registry, build)?;
    let logs = LogFolder::of_project(&project.root);
    if let Some(log) = &build.log
        && logs.compressed(log).is_ok_and(|log| log.is_none())
    {
        registry.fetch_log(project, &build.store, log);
    }
    let Some(record) = records.stored(&build.id) else {
        return Ok(());
    };
    let scratch = scratch(project, "export-")?;
    let output = std::io::stdout().lock();
    let exported = ledger::export(build, record, &images, &logs, scratch.path(), output);
    registry.wait(exported).map_err(failed)
}

/// The images of a build, where it was pushed.
fn images_of(
    project: &Project,
    registry: &RegistryAccess,
    build: &BuildRecord,
) -> Result<Vec<ExportedImage>, AnyError> {
    let id = || build.id.clone();
    if build.status != BuildStatus::Complete || build.apps.is_empty() {
        return Err(failed(BuildTransferError::NoImages { id: id() }));
    }
    let mut images = Vec::new();
    for (app, built) in &build.apps {
        let pushed = built
            .digest
            .clone()
            .filter(|_| build.reached >= Stage::Push);
        let name = built.reference.as_deref().and_then(StoredImage::parse);
        let (name, digest) = name.zip(pushed).ok_or_else(|| {
            failed(BuildTransferError::NotPushed {
                id: id(),
                app: app.clone(),
                store: build.store.clone(),
            })
        })?;
        let Some(place) = place_of(project, registry, &name)? else {
            return Err(failed(BuildTransferError::Gone {
                id: id(),
                reference: built.reference.clone().unwrap_or_default(),
            }));
        };
        images.push(ExportedImage {
            name,
            digest,
            place,
        });
    }
    Ok(images)
}

/// The place of an image. None for an image layout that does not exist.
pub fn place_of(
    project: &Project,
    registry: &RegistryAccess,
    name: &StoredImage,
) -> Result<Option<ImagePlace>, AnyError> {
    let Some(folder) = name.folder() else {
        return registry.images(&name.place).map(Some);
    };
    let folder = project.root.join(folder);
    if !folder.exists() {
        return Ok(None);
    }
    let layout = ImagePlace::open(&folder).map_err(failed)?;
    Ok(Some(layout))
}

pub fn import(
    project: &Project,
    registry: &RegistryAccess,
    options: &BuildImportOptions,
) -> Result<(), AnyError> {
    if environment::reads_terminal() {
        return Err(Error::Terminal {
            what: "an archive cannot be read from",
            help: "pass it as a file or a pipe: `alokai store builds import --store … < build.tar`",
        }
        .into());
    }
    if options.access.cloud_password_stdin {
        return Err(Error::PasswordAndArchive.into());
    }
    let store = deployable(project, &options.store)?;
    let local = DestinationPlan::new(&project.root, LOCAL_REGISTRY, false);
    let local = options.local.then_some(local).transpose()?;
    let Some(destination) = local.as_ref().or_else(|| registry.destination()) else {
        return Err(Error::NotDeployable {
            id: store.id.clone(),
        }
        .into());
    };
    let services = registry.services();
    let began = Instant::now();
    let folder = scratch(project, UNPACKED)?;
    let input = std::io::BufReader::with_capacity(256 << 10, std::io::stdin().lock());
    let files = ImportedBuildFiles::read(input, &folder.path().join("layout")).map_err(failed)?;
    // A pipe that stalls does not hold up the runs of this project.
    let _lock = ProjectLock::take(&project.root, &services.events, &services.interrupt)?;
    let id = RecordId::new(RecordKind::Build, Timestamp::now());
    let tag = tag_of(&files.build, &id)?;
    let mut names = names(project, store, destination, &files, &tag)?;
    // Everything is checked. From here on, files are copied.
    let place = match destination {
        DestinationPlan::Registry { host, .. } => registry.images(host)?,
        DestinationPlan::Layout { folder, .. } => ImagePlace::create(folder).map_err(failed)?,
    };
    let put = async {
        // Another build of the store may have this tag, such as one of the same commit.
        let targets = names.iter().map(|(name, _)| name);
        if files.is_taken(&place, targets).await? {
            let tag = format!("{tag}-{}", id.as_str().to_lowercase());
            for (name, reference) in &mut names {
                name.name.tag.clone_from(&tag);
                reference.tag.clone_from(&tag);
            }
        }
        let targets: Vec<_> = names.iter().map(|(name, _)| name).collect();
        files.put(&place, &targets).await
    };
    registry.wait(put).map_err(failed)?;
    let logs = LogFolder::of_project(&project.root);
    let has_log = files.put_log(&logs).map_err(failed)?;
    let record = imported(id.clone(), store, &files, &names, has_log, began);
    let record = StoredRecord::new(Record::Build(record)).map_err(|error| {
        failed(BuildTransferError::Archive {
            reason: error.to_string(),
        })
    })?;
    let folder = RecordFolder::of_project(&project.root);
    folder.append(&record).map_err(ledger::Error::from)?;
    registry.share_with(project, destination, &store.id);
    answer(&format!("{id}\n"))
}

/// A store that has images.
fn deployable<'a>(project: &'a Project, id: &str) -> Result<&'a Store, AnyError> {
    let Some(store) = project.stores.get(id) else {
        let ids = project.stores.iter().map(|store| store.id.as_str());
        return Err(Error::NoStore {
            id: id.to_owned(),
            nearest: nearest(id, ids).map(str::to_owned),
        }
        .into());
    };
    if store.deployment.is_none() {
        let id = store.id.clone();
        return Err(Error::NotDeployable { id }.into());
    }
    Ok(store)
}

/// The tag of the build, which the archive may have made up.
fn tag_of(build: &BuildRecord, id: &RecordId) -> Result<String, AnyError> {
    let Some(tag) = &build.tag else {
        return Ok(id.as_str().to_lowercase());
    };
    // Tags of pages with records begin like that.
    let is_page = tag.to_lowercase().starts_with(TAG_PREFIX);
    let is_valid = !is_page
        && tag.starts_with(|it: char| it.is_ascii_alphanumeric())
        && tag.len() + id.as_str().len() < TAG_CHARACTERS
        && tag
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || "._-".contains(it));
    if is_valid {
        return Ok(tag.clone());
    }
    let reason = format!("`{}` is not a valid tag", tag.escape_debug());
    Err(failed(BuildTransferError::Archive { reason }))
}

/// The names of the images by the rules of the store: at the destination, and as the record has them.
fn names(
    project: &Project,
    store: &Store,
    destination: &DestinationPlan,
    files: &ImportedBuildFiles,
    tag: &str,
) -> Result<Vec<(ImportName, DestinationReference)>, AnyError> {
    let mut names = Vec::new();
    for (app, _) in files.apps() {
        let repository = plan::image_repository(project, store, app).ok_or_else(|| {
            failed(BuildTransferError::NoApp {
                store: store.id.clone(),
                app: app.clone(),
            })
        })?;
        let reference = DestinationReference {
            registry: destination.name().to_owned(),
            repository,
            tag: tag.to_owned(),
        };
        let name = StoredImage::parse(&reference.to_string()).ok_or_else(|| {
            let reason = format!("`{reference}` is not a valid name for an image");
            failed(BuildTransferError::Archive { reason })
        })?;
        let app = app.clone();
        names.push((ImportName { name, app }, reference));
    }
    // A release of a store is all of its apps.
    let mut apps = project.apps_of(store);
    let missing = apps.find(|app| {
        let mut images = names.iter();
        app.kind != AppKind::Playwright && !images.any(|(name, _)| name.app == app.name)
    });
    match missing {
        None => Ok(names),
        Some(app) => {
            let reason = format!(
                "it has no image for the app `{}` of the store `{}`",
                app.name, store.id
            );
            Err(failed(BuildTransferError::Archive { reason }))
        }
    }
}

/// The record of an imported build.
fn imported(
    id: RecordId,
    store: &Store,
    files: &ImportedBuildFiles,
    names: &[(ImportName, DestinationReference)],
    has_log: bool,
    began: Instant,
) -> BuildRecord {
    let from = &files.build;
    let apps = names.iter().filter_map(|(name, reference)| {
        let built = from.apps.get(&name.app)?;
        let app = BuiltApp {
            reference: Some(reference.to_string()),
            seconds: None,
            cache: Some("imported".into()),
            ..built.clone()
        };
        Some((name.app.clone(), app))
    });
    let apps: BTreeMap<_, _> = apps.collect();
    BuildRecord {
        schema_version: SCHEMA_VERSION,
        started: id.made_at(),
        id,
        store: store.id.clone(),
        status: BuildStatus::Complete,
        seconds: seconds(began.elapsed()),
        commit: from.commit.clone(),
        tag: names.first().map(|(name, _)| name.name.tag.clone()),
        apps,
        composition: from.composition.clone(),
        plan: from.plan.clone(),
        start: None,
        imported_from: Some(ImportedBuild {
            id: from.id.clone(),
            store: from.store.clone(),
            actor: from.actor.clone(),
        }),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        actor: environment::actor(),
        reached: Stage::Push,
        failures: Vec::new(),
        log: from.log.clone().filter(|_| has_log),
    }
}

/// A folder for temporary files below `.alokai`. Those of killed processes are removed.
fn scratch(project: &Project, prefix: &str) -> Result<tempfile::TempDir, AnyError> {
    let own = pipeline::own_folder(&project.root).map_err(pipeline::Error::from)?;
    sweep(&own, prefix);
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(&own);
    let folder = folder.map_err(Io::at("create a folder in", &own));
    Ok(folder.map_err(pipeline::Error::from)?)
}

/// The age at which a temporary folder counts as abandoned.
const ABANDONED: std::time::Duration = std::time::Duration::from_hours(24);

fn sweep(own: &Path, prefix: &str) {
    for entry in std::fs::read_dir(own).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(prefix);
        let age = entry.metadata().and_then(|metadata| metadata.modified());
        let age = age.ok().and_then(|time| time.elapsed().ok());
        if is_ours && age.is_some_and(|age| age > ABANDONED) {
            // What cannot be removed is removed the next time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// An error of a transfer.
pub fn failed(error: BuildTransferError) -> AnyError {
    ledger::Error::from(error).into()
}
