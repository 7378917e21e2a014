//! The closure of production dependencies, found in what is installed and laid out so that
//! Node finds for each package the very version that it finds now.
//!
//! The installed files are read, not the lock file: patches are in them, and every package
//! manager's layout (hoisted, nested, linked) is resolved by the one rule that Node has.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::Error;
use super::copy::{Copier, FileRole, files};
use super::dependency::{self, DependencyFiles};
use crate::config::PackageJson;
use crate::workspace::installed;

/// A package that is placed: where it lies now, and where it will lie.
struct PlacedPackage {
    /// Real folder.
    source: PathBuf,
    /// Below `.deploy`; empty for the app itself.
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
    let places = place(workdir, app)?;
    // Breadth first: where a package is met first, it lies; elsewhere it is linked to.
    let (mut targets, mut packages) = (Vec::new(), Vec::new());
    for (target, source, name) in &places.copies {
        if is_installed(project, source) {
            packages.push(DependencyFiles::read(name, source, &copier.rules.drop)?);
            targets.push(target);
        } else {
            workspace_package(source, target, copier)?;
        }
    }
    for (from, to) in &places.links {
        copier.link(from, to)?;
    }
    let written = files(&copier.path(Path::new("")), |_| true)?;
    let code: Vec<_> = written.into_iter().map(|(_, file)| file).collect();
    dependency::spare(&mut packages, &code, &copier.rules.drop)?;
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

/// Where packages will lie.
#[derive(Default)]
struct PackageLayout {
    /// Place below `.deploy`, real folder now, and name; each folder once.
    copies: Vec<(PathBuf, PathBuf, String)>,
    /// From a further place to the first.
    links: Vec<(PathBuf, PathBuf)>,
}

/// Finds a place for every production dependency.
fn place(workdir: &Path, app: &PackageJson) -> Result<PackageLayout, Error> {
    // From where a package lies in `.deploy` to where it comes from, and back.
    let mut sources = BTreeMap::<PathBuf, PathBuf>::new();
    let mut firsts = BTreeMap::<PathBuf, PathBuf>::new();
    let mut places = PackageLayout::default();
    let mut missing = Vec::new();
    let mut queue = VecDeque::from([PlacedPackage {
        source: workdir.to_owned(),
        target: PathBuf::new(),
        package: app.clone(),
    }]);
    // Breadth first: the app's own dependencies take the top, as they do now; and all of a
    // package's own folder is settled before anything inside looks around.
    while let Some(user) = queue.pop_front() {
        for (name, optional) in needs(&user.package) {
            let Some(source) = resolve(&user.source, name) else {
                if !optional {
                    let user = user.package.name.as_deref().unwrap_or("the app");
                    missing.push(format!("`{name}` (needed by `{user}`)"));
                }
                continue;
            };
            let own = user.target.join("node_modules").join(name);
            let target = match nearest(&sources, &user.target, name) {
                Some(seen) if *seen == source => continue,
                // Another version is nearer: this one goes into the user's own folder.
                Some(_) => own,
                // The top is for the version that the app finds there now.
                None if resolve(workdir, name).is_some_and(|top| top != source) => own,
                None => Path::new("node_modules").join(name),
            };
            sources.insert(target.clone(), source.clone());
            // One folder now is one folder then: Node resolves links before it looks around, so
            // a second copy would be a second module, and more bytes than are installed.
            if let Some(first) = firsts.get(&source) {
                places.links.push((target, first.clone()));
                continue;
            }
            let package = PackageJson::read(&source.join("package.json"))?;
            let copy = (target.clone(), source.clone(), name.to_owned());
            firsts.insert(source.clone(), target.clone());
            places.copies.push(copy);
            queue.push_back(PlacedPackage {
                source,
                target,
                package,
            });
        }
    }
    if missing.is_empty() {
        Ok(places)
    } else {
        Err(Error::Missing { missing })
    }
}

/// Names that the package loads at run time, and whether it can do without.
fn needs(package: &PackageJson) -> impl Iterator<Item = (&str, bool)> {
    let optional = &package.optional_dependencies;
    let required = package
        .dependencies
        .keys()
        .filter(|name| !optional.contains_key(*name))
        .map(|name| (name.as_str(), false));
    // A peer that is not installed is its user's decision.
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

/// Node's rule: `node_modules` of this folder, then of each folder above. Real paths, since
/// Node resolves links before it looks around.
fn resolve(from: &Path, name: &str) -> Option<PathBuf> {
    let real = from.canonicalize().ok()?;
    [from, &real].into_iter().find_map(|start| {
        start.ancestors().find_map(|folder| {
            let found = folder.join("node_modules").join(name);
            found
                .join("package.json")
                .is_file()
                .then(|| found.canonicalize().ok())?
        })
    })
}

/// What a package at `user` would find under `name` among those placed.
fn nearest<'a>(
    places: &'a BTreeMap<PathBuf, PathBuf>,
    user: &Path,
    name: &str,
) -> Option<&'a PathBuf> {
    user.ancestors()
        .find_map(|folder| places.get(&folder.join("node_modules").join(name)))
}

/// Whether a package manager put the package there, and not the project's own people.
fn is_installed(project: &Path, source: &Path) -> bool {
    installed::is_installed(source) || !source.starts_with(project)
}

fn workspace_package(source: &Path, target: &Path, copier: &Copier) -> Result<(), Error> {
    let nested = |path: &Path| path.ends_with("node_modules") || path.ends_with(".git");
    // A workspace package is linked to its sources; what `npm pack` would take is enough.
    let package = PackageJson::read(&source.join("package.json"))?;
    let published = published(&package);
    for (path, file) in files(source, |path| !nested(path))? {
        let is_source = !copier.takes(&path, FileRole::App);
        let wanted = match &published {
            Some(globs) => path == Path::new("package.json") || globs.is_match(&path),
            None => !is_source,
        };
        if wanted && (published.is_none() || !is_source) {
            copier.file(&file, &target.join(&path))?;
        }
    }
    Ok(())
}

/// The `files` of a package as globs; a folder stands for all that is in it.
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
