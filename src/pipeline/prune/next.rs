//! Next.js: the standalone output with `server.js` at the top, the static files and `public`.
//!
//! In the standalone output, the app has the same path below the root as it has below the tracing
//! root (usually the folder of the lock file): `.next/standalone/.out/us/<app>/server.js`, beside
//! the `node_modules` of every folder above. In `.deploy` the app is at the top and everything
//! else keeps its path, so all paths and links are mapped.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::super::failure::Io;
use super::Error;
use super::copy::{Copier, FileRole, files};
use super::dependency::drops_traced;
use crate::config::PackageJson;
use crate::files::{DiskFiles, FileTree as _};
use crate::workspace::installed::{self, NODE_MODULES};
use virtual_path::normalize;

/// Copies the standalone output with the app at the top, `.next/static` and `public`. `built_in` is
/// the folder in which the build script ran.
pub fn prune(workdir: &Path, built_in: &Path, copier: &Copier) -> Result<(), Error> {
    let standalone = workdir.join(".next/standalone");
    if !standalone.is_dir() {
        return Err(Error::NoStandalone {
            app: workdir.to_owned(),
            standalone,
        });
    }
    // Links are resolved, so that targets of links can be compared with this path.
    let standalone = DiskFiles
        .real(&standalone)
        .map_err(Io::at("resolve", &standalone))?;
    let Some(app) = find_app(built_in, &standalone) else {
        return Err(Error::NoServer {
            app: workdir.to_owned(),
            standalone,
        });
    };
    let mapping = StandaloneMapping::new(&standalone, app);

    // The app's files come first. A file of a folder above at the same path was hidden from the app
    // by its own file, so it is left out.
    let mut outer = Vec::new();
    let mut own = Vec::new();
    for (path, file) in files(&standalone, |_| true)? {
        if file.starts_with(&mapping.app) {
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
        // The manifest of the workspace root does not describe the app.
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

/// The app's folder in the standalone output: the longest suffix of the app's path that has a
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

/// The mapping of paths in the standalone output to paths in `.deploy`.
struct StandaloneMapping<'a> {
    standalone: &'a Path,
    /// The app's folder in the standalone output.
    app: PathBuf,
}

impl<'a> StandaloneMapping<'a> {
    fn new(standalone: &'a Path, app: PathBuf) -> Self {
        Self { standalone, app }
    }

    /// The path in `.deploy`.
    fn target(&self, file: &Path) -> PathBuf {
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
        // The link has to lead to the same file, so its target is mapped too. The target is not
        // resolved: it can go through another link, which is mapped by itself.
        let to = self.target(&normalize(&file.parent().unwrap_or(file).join(link)));
        if copier.path(&target).symlink_metadata().is_ok() {
            return Ok(());
        }
        copier.link(&target, &to)
    }

    /// The packages that the app and the root both have. The app's version takes the top level, so
    /// the root's version is copied below the packages that depend on it.
    fn conflicts(&self) -> Result<BTreeSet<PathBuf>, Io> {
        let own = self.app.join(NODE_MODULES);
        let root = self.standalone.join(NODE_MODULES);
        if own == root || !own.is_dir() || !root.is_dir() {
            return Ok(BTreeSet::new());
        }
        let mut conflicts = BTreeSet::new();
        for (path, _) in files(&own, |_| true)? {
            if let Some(package) = package_of(&Path::new(NODE_MODULES).join(path))
                && root.join(&package).is_dir()
            {
                conflicts.insert(package);
            }
        }
        Ok(conflicts)
    }
}

/// The folder of the outermost package of a path, relative to `node_modules`.
fn package_of(path: &Path) -> Option<PathBuf> {
    let outermost = installed::packages(path).into_iter().next()?;
    let folder = outermost.folder.strip_prefix(NODE_MODULES).ok()?;
    Some(folder.to_owned())
}

/// Copies the root's version of a package into every package of the root that depends on it.
fn nest(standalone: &Path, package: &Path, copier: &Copier) -> Result<(), Error> {
    let root = standalone.join(NODE_MODULES);
    let name = package.to_string_lossy();
    for (path, file) in files(&root, |_| true)? {
        if path.file_name().is_none_or(|name| name != "package.json") {
            continue;
        }
        let Some(dependent) = path.parent().filter(|dependent| *dependent != package) else {
            continue;
        };
        // A manifest without a name, such as `dist/esm/package.json`, is part of another package.
        let Ok(manifest) = PackageJson::read(&file) else {
            continue;
        };
        let uses = manifest.name.is_some()
            && (manifest.dependencies.contains_key(&*name)
                || manifest.peer_dependencies.contains_key(&*name)
                || manifest.optional_dependencies.contains_key(&*name));
        let nested = installed::folder_of(dependent, &name);
        if uses && !root.join(&nested).exists() {
            let target = Path::new(NODE_MODULES).join(nested);
            for (path, file) in files(&root.join(package), |_| true)? {
                if !drops_traced(&copier.rules.drop, standalone, &file) {
                    copier.file(&file, &target.join(path))?;
                }
            }
        }
    }
    Ok(())
}
