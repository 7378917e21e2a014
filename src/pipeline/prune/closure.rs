//! The closure of production dependencies, found in what is installed and laid out so that
//! Node finds for each package the very version that it finds now.
//!
//! The installed files are read, not the lock file: patches are in them, and every package
//! manager's layout (hoisted, nested, linked) is resolved by the one rule that Node has.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::Error;
use super::copy::{Copier, Origin, files};
use crate::config::PackageJson;

/// Folders that a package may nest in another's before it looks endless.
const DEEPEST: usize = 64;

/// A package that is placed: where it lies now, and where it will lie.
struct Placed {
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
    // From where a package lies in `.deploy` to where it comes from.
    let mut places = BTreeMap::<PathBuf, PathBuf>::new();
    let mut missing = Vec::new();
    let mut queue = VecDeque::from([Placed {
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
            let target = match nearest(&places, &user.target, name) {
                Some(seen) if *seen == source => continue,
                // Another version is nearer: this one goes into the user's own folder.
                Some(_) => own,
                // The top is for the version that the app finds there now.
                None if resolve(workdir, name).is_some_and(|top| top != source) => own,
                None => Path::new("node_modules").join(name),
            };
            if target
                .components()
                .filter(|part| part.as_os_str() == "node_modules")
                .count()
                > DEEPEST
            {
                return Err(Error::Nesting {
                    package: name.to_owned(),
                });
            }
            let package = PackageJson::read(&source.join("package.json"))?;
            places.insert(target.clone(), source.clone());
            queue.push_back(Placed {
                source,
                target,
                package,
            });
        }
    }
    if !missing.is_empty() {
        return Err(Error::Missing { missing });
    }
    for (target, source) in &places {
        package(project, source, target, copier)?;
    }
    Ok(())
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

fn package(project: &Path, source: &Path, target: &Path, copier: &Copier) -> Result<(), Error> {
    let installed = source
        .components()
        .any(|part| part.as_os_str() == "node_modules");
    let nested = |path: &Path| path.ends_with("node_modules") || path.ends_with(".git");
    if installed || !source.starts_with(project) {
        copier.folder(source, target, Origin::Dependency, nested)?;
        return Ok(());
    }
    // A workspace package is linked to its sources; what `npm pack` would take is enough.
    let package = PackageJson::read(&source.join("package.json"))?;
    let published = published(&package);
    for (path, file) in files(source, |path| !nested(path))? {
        let is_source = !copier.takes(&path, Origin::App);
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
