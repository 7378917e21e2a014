//! Next.js: the standalone output with `server.js` at the top, its static files and `public`.
//!
//! Next nests the app in its output as it is nested below the tracing root (mostly the folder
//! of the lock file): `.next/standalone/.out/us/<app>/server.js`, with `node_modules` of every
//! folder above beside it. Here the app moves to the top and the rest keeps its place, so
//! every path is mapped, and links with it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::super::failure::Io;
use super::Error;
use super::copy::{Copier, FileRole, files};
use super::dependency::drops_traced;
use crate::config::PackageJson;
use crate::workspace::installed;
use virtual_path::normalize;

/// Copies the standalone output, flattened, `.next/static` and `public`.
///
/// `built_in` is the folder in which its script ran.
pub fn prune(workdir: &Path, built_in: &Path, copier: &Copier) -> Result<(), Error> {
    let standalone = workdir.join(".next/standalone");
    if !standalone.is_dir() {
        return Err(Error::NoStandalone {
            app: workdir.to_owned(),
            standalone,
        });
    }
    let Some(app) = find_app(built_in, &standalone) else {
        return Err(Error::NoServer {
            app: workdir.to_owned(),
            standalone,
        });
    };
    let mapping = StandaloneMapping::new(&standalone, app);

    // The app first: what lies at the same place afterwards was hidden from it before.
    let mut outer = Vec::new();
    let mut own = Vec::new();
    for (path, file) in files(&standalone, |_| true)? {
        if mapping.is_own_modules_link(&file) {
            continue;
        }
        if mapping.is_nearest(&file) {
            own.push(file);
        } else {
            outer.push((path, file));
        }
    }
    for file in own {
        mapping.copy(&file, copier)?;
    }
    let conflicts = mapping.conflicts()?;
    for (path, file) in outer {
        let package = package_of(&path);
        if package.is_some_and(|package| conflicts.contains(&package)) {
            continue;
        }
        // The workspace root's own manifest says nothing about the app.
        if path == Path::new("package.json") {
            continue;
        }
        mapping.copy(&file, copier)?;
    }
    for package in &conflicts {
        nest(&standalone, package, copier)?;
    }
    let whole = |_: &Path| false;
    let statics = workdir.join(".next/static");
    if statics.is_dir() {
        copier.folder(&statics, Path::new(".next/static"), FileRole::Asset, whole)?;
    }
    let public = workdir.join("public");
    if public.is_dir() {
        copier.folder(&public, Path::new("public"), FileRole::Asset, whole)?;
    }
    Ok(())
}

/// The app's folder in the standalone output: the longest end of its own path that has a
/// `server.js` there.
fn find_app(built_in: &Path, standalone: &Path) -> Option<PathBuf> {
    let parts: Vec<Component> = built_in
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    (0..=parts.len())
        .map(|start| standalone.join(parts[start..].iter().collect::<PathBuf>()))
        .find(|folder| folder.join("server.js").is_file())
}

/// Where paths of the standalone output go.
struct StandaloneMapping<'a> {
    standalone: &'a Path,
    /// The app's folder in it.
    app: PathBuf,
    /// Where the app's `node_modules` leads when it is a link to the base app's own.
    own_modules: Option<PathBuf>,
}

impl<'a> StandaloneMapping<'a> {
    fn new(standalone: &'a Path, app: PathBuf) -> Self {
        let link = app.join("node_modules");
        let own_modules = std::fs::read_link(&link)
            .ok()
            .map(|target| normalize(&app.join(target)));
        Self {
            standalone,
            app,
            own_modules,
        }
    }

    fn is_own_modules_link(&self, file: &Path) -> bool {
        self.own_modules.is_some() && file == self.app.join("node_modules")
    }

    /// Whether the app finds the file before those of the folders above it.
    fn is_nearest(&self, file: &Path) -> bool {
        file.starts_with(&self.app)
            || self
                .own_modules
                .as_ref()
                .is_some_and(|own| file.starts_with(own))
    }

    /// The place below `.deploy`.
    fn target(&self, file: &Path) -> PathBuf {
        if let Some(own) = &self.own_modules
            && let Ok(path) = file.strip_prefix(own)
        {
            return Path::new("node_modules").join(path);
        }
        let bases = [self.app.as_path(), self.standalone];
        let path = bases.iter().find_map(|base| file.strip_prefix(base).ok());
        path.unwrap_or(file).to_owned()
    }

    fn copy(&self, file: &Path, copier: &Copier) -> Result<(), Io> {
        let target = self.target(file);
        let is_dropped = || drops_traced(&copier.rules.drop, self.standalone, file);
        if !copier.takes(&target, FileRole::App) || is_dropped() {
            return Ok(());
        }
        let Ok(link) = std::fs::read_link(file) else {
            return copier.file(file, &target);
        };
        // A link keeps leading to the same file, wherever the two have moved.
        let to = self.target(&normalize(&file.parent().unwrap_or(file).join(link)));
        if copier.path(&target).symlink_metadata().is_ok() {
            return Ok(());
        }
        copier.link(&target, &to)
    }

    /// Packages that both the app and the root have: the app's takes the top, so the root's
    /// has to move below the packages that use it.
    fn conflicts(&self) -> Result<BTreeSet<PathBuf>, Io> {
        let own = match &self.own_modules {
            Some(own) => own.clone(),
            None => self.app.join("node_modules"),
        };
        let root = self.standalone.join("node_modules");
        if own == root || !own.is_dir() || !root.is_dir() {
            return Ok(BTreeSet::new());
        }
        let mut conflicts = BTreeSet::new();
        for (path, _) in files(&own, |_| true)? {
            if let Some(package) = package_of(&Path::new("node_modules").join(path))
                && root.join(&package).is_dir()
            {
                conflicts.insert(package);
            }
        }
        Ok(conflicts)
    }
}

/// The folder of the package at the top that a path in `node_modules` belongs to.
fn package_of(path: &Path) -> Option<PathBuf> {
    if !path.starts_with("node_modules") {
        return None;
    }
    let outermost = installed::packages(path).into_iter().next()?;
    let folder = outermost.folder.strip_prefix("node_modules").ok()?;
    Some(folder.to_owned())
}

/// Copies the root's version of a package into every package of the root that depends on it.
fn nest(standalone: &Path, package: &Path, copier: &Copier) -> Result<(), Error> {
    let root = standalone.join("node_modules");
    let name = package.to_string_lossy();
    for (path, file) in files(&root, |_| true)? {
        if path.file_name().is_none_or(|name| name != "package.json") {
            continue;
        }
        let Some(dependent) = path.parent().filter(|dependent| *dependent != package) else {
            continue;
        };
        // Manifests deeper in a package (`dist/esm/package.json`) are none of a package.
        let Ok(manifest) = PackageJson::read(&file) else {
            continue;
        };
        let uses = manifest.name.is_some()
            && (manifest.dependencies.contains_key(&*name)
                || manifest.peer_dependencies.contains_key(&*name)
                || manifest.optional_dependencies.contains_key(&*name));
        if uses
            && !root
                .join(dependent)
                .join("node_modules")
                .join(package)
                .exists()
        {
            let target = Path::new("node_modules")
                .join(dependent)
                .join("node_modules")
                .join(package);
            for (path, file) in files(&root.join(package), |_| true)? {
                if !drops_traced(&copier.rules.drop, standalone, &file) {
                    copier.file(&file, &target.join(path))?;
                }
            }
        }
    }
    Ok(())
}
