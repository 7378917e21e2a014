//! Finds base apps, stores and workspace packages in the folder tree.

use std::io::ErrorKind;
use std::path::Path;

use crate::files::{DiskFiles, FileTree, PathKind};
use crate::store::{AppKind, AppName, StoreId};
use crate::workspace::PackageManager;
use crate::workspace::folders::WorkspaceGlobs;

use super::package::PackageJson;
use super::problem::{Error, Notice, NoticePlace, Problem};
use super::{BaseApp, WorkspacePackage};

/// The folder of a store. Nested folders are nested stores.
#[derive(Debug, Clone)]
pub struct StoreFolder {
    /// The folder's name.
    pub id: StoreId,
    /// The store that this store is nested in.
    pub parent: Option<StoreId>,
    /// Relative to the project, with `/`.
    pub path: String,
    /// The folders in it, except `stores`.
    pub folders: Vec<String>,
}

/// Everything that was found in the folder tree.
#[derive(Debug, Clone, Default)]
pub struct ProjectFolders {
    /// Folders of `apps/` with a `package.json`, by name.
    pub apps: Vec<BaseApp>,
    /// Folders of stores, parents before children.
    pub stores: Vec<StoreFolder>,
    /// Folders of the workspace with a named `package.json`, sorted. Base apps are not among them.
    pub packages: Vec<WorkspacePackage>,
    /// Problems that are not errors.
    pub notices: Vec<Notice>,
    /// The root `package.json`. Empty if there is none.
    pub root: PackageJson,
}

impl ProjectFolders {
    /// Reads the folder tree of a project on disk, which need not have a config.
    pub fn scan(root: &Path) -> Result<Self, Error> {
        scan(&DiskFiles, root)
    }
}

/// Reads the folder tree of the project in `root`.
pub fn scan(files: &dyn FileTree, root: &Path) -> Result<ProjectFolders, Error> {
    let mut found = ProjectFolders::default();
    let mut problems = Vec::new();
    let apps = root.join("apps");
    for name in subfolders(files, &apps, &mut problems)? {
        let package = apps.join(&name).join("package.json");
        if name == "stores" {
            continue;
        }
        if !files.is_file(&package) {
            found.notices.push(Notice {
                message: format!("`apps/{name}` is not a base app, since it has no `package.json`"),
                place: NoticePlace::Folder(format!("apps/{name}")),
            });
            continue;
        }
        match AppName::new(&name) {
            Ok(name) => {
                let package = match PackageJson::read_from(files, &package) {
                    Ok(package) => package,
                    Err(error) => {
                        problems.push(broken(&error));
                        continue;
                    }
                };
                let kind = AppKind::detect(&name, |wanted| {
                    package.build_dependencies().any(|d| d == wanted)
                });
                found.apps.push(BaseApp {
                    name,
                    kind,
                    package,
                });
            }
            Err(error) => problems.push(Problem::new(
                error.to_string(),
                format!("rename the folder `apps/{}`", name.escape_debug()),
            )),
        }
    }
    let file = root.join("package.json");
    if files.is_file(&file) {
        found.root = PackageJson::read_from(files, &file)?;
    }
    packages(files, root, &mut found)?;
    stores(
        files,
        root,
        "apps/stores",
        None,
        &mut found.stores,
        &mut problems,
    )?;
    if problems.is_empty() {
        Ok(found)
    } else {
        Err(Error::Folders {
            path: apps,
            problems,
        })
    }
}

/// Finds the packages of the workspace. Folders in `apps/` are apps or stores.
fn packages(files: &dyn FileTree, root: &Path, found: &mut ProjectFolders) -> Result<(), Error> {
    let field = found.root.package_manager.as_deref();
    let manager = PackageManager::detect(files, root, field);
    let pnpm = manager == Ok(PackageManager::Pnpm);
    let failed = |source| Error::Workspace {
        path: root.to_owned(),
        source,
    };
    let globs = WorkspaceGlobs::read(files, root, &found.root.workspaces, pnpm);
    let folders = globs
        .and_then(|globs| globs.find(files, root))
        .map_err(failed)?;
    for folder in folders {
        if folder == "apps" || folder.starts_with("apps/") {
            continue;
        }
        let file = root.join(&folder).join("package.json");
        let package = PackageJson::read_from(files, &file)?;
        let Some(name) = package.name.clone() else {
            continue;
        };
        if let Some(other) = found.packages.iter().find(|other| other.name == name) {
            found.notices.push(Notice {
                message: format!(
                    "`{folder}` and `{used}` have the same package name `{name}`; only `{used}` is used",
                    used = other.folder
                ),
                place: NoticePlace::Folder(folder),
            });
            continue;
        }
        found.packages.push(WorkspacePackage {
            name,
            folder,
            package,
        });
    }
    Ok(())
}

/// The problem of a `package.json` that cannot be read.
fn broken(error: &Error) -> Problem {
    let reason = std::error::Error::source(error).map(|source| format!(": {source}"));
    Problem::new(
        format!("{error}{}", reason.unwrap_or_default()),
        "fix the file",
    )
}

fn stores(
    files: &dyn FileTree,
    root: &Path,
    folder: &str,
    parent: Option<&StoreId>,
    found: &mut Vec<StoreFolder>,
    problems: &mut Vec<Problem>,
) -> Result<(), Error> {
    for name in subfolders(files, &root.join(folder), problems)? {
        let path = format!("{folder}/{name}");
        let id = match StoreId::new(&name) {
            Ok(id) => id,
            Err(error) => {
                problems.push(Problem::new(
                    error.to_string(),
                    format!("rename the folder `{}`", path.escape_debug()),
                ));
                continue;
            }
        };
        let mut folders = subfolders(files, &root.join(&path), problems)?;
        folders.retain(|name| name != "stores");
        found.push(StoreFolder {
            id: id.clone(),
            parent: parent.cloned(),
            path: path.clone(),
            folders,
        });
        let below = format!("{path}/stores");
        stores(files, root, &below, Some(&id), found, problems)?;
    }
    Ok(())
}

/// The names of the folders in `folder`, sorted. Empty if `folder` does not exist. Hidden folders
/// are left out. Links are not followed, since a link upwards would make a store its own parent;
/// a link to a folder is a problem.
fn subfolders(
    files: &dyn FileTree,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Result<Vec<String>, Error> {
    let entries = match files.entries(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(|source| Error::Read {
            path: folder.to_owned(),
            source,
        })?,
    };
    let mut names = Vec::new();
    for (name, node) in entries {
        let path = folder.join(&name);
        let name = name.to_string_lossy().into_owned();
        if name.starts_with('.') || name == "node_modules" {
            continue;
        }
        if node == PathKind::Folder {
            names.push(name);
        } else if node == PathKind::Link && files.is_folder(&path) {
            problems.push(Problem::new(
                format!(
                    "`{}` is a link to a folder, but apps and stores must be real folders",
                    path.display()
                ),
                "replace the link by the folder, or remove it",
            ));
        }
    }
    Ok(names)
}
