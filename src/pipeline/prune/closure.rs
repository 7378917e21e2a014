//! The closure of an app's production dependencies, copied to `.deploy` in a layout in which Node
//! resolves every package to the version that it resolves to now.
//!
//! The installed files are the source, not the lock file. They contain applied patches, and Node's
//! resolution rule is the same for every package manager's layout (hoisted, nested, linked).

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::Error;
use super::copy::{Copier, FileRole, files};
use super::dependency::{self, DependencyFiles};
use crate::config::PackageJson;
use crate::overlay;
use crate::workspace::installed::{self, NODE_MODULES};

/// A package with a place in `.deploy`.
struct PlacedPackage {
    /// Its folder now, with links resolved.
    source: PathBuf,
    /// Its folder in `.deploy`; empty for the app itself.
    target: PathBuf,
    package: PackageJson,
}

/// Copies all production dependencies of the app in `workdir`.
pub fn copy(
    project: &Path,
    workdir: &Path,
    app: &PackageJson,
    copier: &Copier,
) -> Result<(), Error> {
    let layout = lay_out(workdir, app)?;
    let (mut targets, mut packages) = (Vec::new(), Vec::new());
    for (target, source, name) in &layout.copies {
        if is_installed(project, source) {
            packages.push(DependencyFiles::read(name, source, &copier.rules.drop)?);
            targets.push(target);
        } else {
            workspace_package(source, target, copier)?;
        }
    }
    for (from, to) in &layout.links {
        copier.link(from, to)?;
    }
    let written = files(&copier.path(Path::new("")), |_| true)?;
    let code: Vec<_> = written.into_iter().map(|(_, file)| file).collect();
    dependency::keep_mentioned(&mut packages, &code, &copier.rules.drop)?;
    for (target, package) in targets.iter().zip(&packages) {
        for (path, file) in package.kept(&copier.rules.drop) {
            let to = target.join(path);
            if copier.takes(&to, FileRole::Dependency) {
                copier.file(file, &to)?;
            }
        }
    }
    Ok(())
}

/// The places of all packages in `.deploy`.
#[derive(Default)]
struct PackageLayout {
    /// The folder in `.deploy`, the folder now, and the name. Each folder occurs once.
    copies: Vec<(PathBuf, PathBuf, String)>,
    /// Links from further places of a package to the first.
    links: Vec<(PathBuf, PathBuf)>,
}

/// Finds a place for every production dependency.
fn lay_out(workdir: &Path, app: &PackageJson) -> Result<PackageLayout, Error> {
    // From the folder in `.deploy` to the folder now, and from the folder now to the first folder
    // in `.deploy`.
    let mut sources = BTreeMap::<PathBuf, PathBuf>::new();
    let mut firsts = BTreeMap::<PathBuf, PathBuf>::new();
    let mut layout = PackageLayout::default();
    let mut missing = Vec::new();
    let mut queue = VecDeque::from([PlacedPackage {
        source: workdir.to_owned(),
        target: PathBuf::new(),
        package: app.clone(),
    }]);
    // Breadth first, so that the app's own dependencies take the top level, as they do now, and
    // that a package's `node_modules` is complete before the packages inside it are resolved.
    while let Some(user) = queue.pop_front() {
        for (name, optional) in runtime_dependencies(&user.package) {
            let Some(source) = installed::resolve(&user.source, name) else {
                if !optional {
                    let user = user.package.name.as_deref().unwrap_or("the app");
                    missing.push(format!("`{name}` (needed by `{user}`)"));
                }
                continue;
            };
            let own = installed::folder_of(&user.target, name);
            let target = match nearest(&sources, &user.target, name) {
                Some(seen) if *seen == source => continue,
                // Another version hides the top level, so this one goes into the dependent's folder.
                Some(_) => own,
                // The top level is for the version that the app itself resolves to.
                None if installed::resolve(workdir, name).is_some_and(|top| top != source) => own,
                None => installed::folder_of(Path::new(""), name),
            };
            sources.insert(target.clone(), source.clone());
            // A folder is copied once and linked from its other places. Node resolves links before
            // it loads a module, so a second copy is a second instance of the module.
            if let Some(first) = firsts.get(&source) {
                layout.links.push((target, first.clone()));
                continue;
            }
            let package = PackageJson::read(&source.join("package.json"))?;
            let copy = (target.clone(), source.clone(), name.to_owned());
            firsts.insert(source.clone(), target.clone());
            layout.copies.push(copy);
            queue.push_back(PlacedPackage {
                source,
                target,
                package,
            });
        }
    }
    if missing.is_empty() {
        Ok(layout)
    } else {
        Err(Error::Missing { missing })
    }
}

/// The names of the packages that this one loads at run time, and whether each is optional.
pub fn runtime_dependencies(package: &PackageJson) -> impl Iterator<Item = (&str, bool)> {
    let optional = &package.optional_dependencies;
    let required = package
        .dependencies
        .keys()
        .filter(|name| !optional.contains_key(*name))
        .map(|name| (name.as_str(), false));
    // A project may leave a peer dependency out, so a missing one is not an error.
    let peers = package
        .peer_dependencies
        .keys()
        .filter(|name| !package.is_optional_peer(name));
    let optional = optional
        .keys()
        .chain(peers)
        .map(|name| (name.as_str(), true));
    required.chain(optional)
}

/// The package that `name` resolves to from the folder `user` in `.deploy`.
fn nearest<'a>(
    places: &'a BTreeMap<PathBuf, PathBuf>,
    user: &Path,
    name: &str,
) -> Option<&'a PathBuf> {
    user.ancestors()
        .find_map(|folder| places.get(&installed::folder_of(folder, name)))
}

/// Whether a package manager has installed the package; otherwise it is a workspace package.
pub fn is_installed(project: &Path, source: &Path) -> bool {
    installed::is_installed(source) || !source.starts_with(project)
}

/// Copies the files of a workspace package that `npm pack` selects.
pub fn workspace_package(source: &Path, target: &Path, copier: &Copier) -> Result<(), Error> {
    let nested = |path: &Path| path.ends_with(NODE_MODULES) || path.ends_with(".git");
    let package = PackageJson::read(&source.join("package.json"))?;
    let published = published(&package);
    for (path, file) in files(source, |path| !nested(path))? {
        let is_source = !copier.takes(&path, FileRole::App);
        let wanted = match &published {
            Some(globs) => path == Path::new("package.json") || globs.is_match(&path),
            // npm never publishes `.npmrc`; keys and tokens have no place in an image either.
            None => !is_source && !path.iter().any(holds_secret),
        };
        if wanted && (published.is_none() || !is_source) {
            copier.file(&file, &target.join(&path))?;
        }
    }
    Ok(())
}

fn holds_secret(name: &OsStr) -> bool {
    name.to_str().is_some_and(overlay::holds_secret)
}

/// The `files` of a package as globs. A folder stands for everything in it.
///
/// `globset` is used here as for `prune.drop` and the globs of the config. npm matches `files` by
/// `minimatch`, with braces and classes, which the wildcards of git (`gix_glob`) do not have.
fn published(package: &PackageJson) -> Option<GlobSet> {
    let mut globs = GlobSetBuilder::new();
    for pattern in package.files.as_ref()? {
        let pattern = pattern
            .trim_start_matches("./")
            .trim_start_matches('/')
            .trim_end_matches('/');
        for pattern in [pattern.to_owned(), format!("{pattern}/**")] {
            if let Ok(glob) = Glob::new(&pattern) {
                globs.add(glob);
            }
        }
    }
    if let Some(main) = &package.main
        && let Ok(glob) = Glob::new(main.trim_start_matches("./"))
    {
        globs.add(glob);
    }
    globs.build().ok()
}
