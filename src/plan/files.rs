//! Files beside a task's own that it can see: the project's, and those of workspace packages.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;

use globset::{Glob, GlobSetBuilder};

use super::Error;
use crate::cache::FileInput;
use crate::config::Project;
use crate::overlay::{ContentId, Layer, Lister, Owner};

/// Files at the top of a project that no script depends on. The config's effects are in the
/// compositions; of the lock file the slice counts.
const UNSEEN: [&str; 6] = [
    "alokai.config.json",
    "LICENSE",
    ".gitignore",
    ".gitattributes",
    ".dockerignore",
    ".gitlab-ci.yml",
];

/// Folders that patch what is installed.
const PATCHES: [&str; 2] = ["patches", ".yarn/patches"];

/// Files of a layer, with a prefix before their paths.
pub fn files(
    layer: &Layer,
    prefix: &str,
    keep: impl Fn(&str) -> bool,
) -> BTreeMap<String, FileInput> {
    let kept = layer.files.iter().filter(|(path, _)| keep(path));
    let input = |(path, file): (&Arc<str>, &Arc<crate::overlay::File>)| {
        let file = FileInput {
            id: format!("{} {}", file.mode(), file.id),
            layer: None,
        };
        (format!("{prefix}{path}"), file)
    };
    kept.map(input).collect()
}

/// Adds the files of a package that git ignores, but for what is installed in it.
pub fn everything(
    project: &Project,
    folder: &str,
    files: &mut BTreeMap<String, FileInput>,
) -> Result<(), Error> {
    let root = project.root.join(folder);
    let walk = walkdir::WalkDir::new(&root)
        .into_iter()
        .filter_entry(|entry| {
            let name = entry.file_name();
            !["node_modules", ".git", ".turbo", ".cache"]
                .iter()
                .any(|apart| name == *apart)
        });
    for entry in walk {
        let failed = |path: &Path, source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(&root).to_owned();
            failed(&path, error.into())
        })?;
        let inside = entry
            .path()
            .strip_prefix(&project.root)
            .ok()
            .and_then(Path::to_str);
        let Some(inside) = inside.filter(|_| entry.file_type().is_file()) else {
            continue;
        };
        let name = format!("//{inside}");
        if let Entry::Vacant(vacant) = files.entry(name) {
            let id = ContentId::of_file(entry.path());
            let id = id.map_err(|error| failed(entry.path(), error))?;
            let id = format!("100644 {id}");
            vacant.insert(FileInput { id, layer: None });
        }
    }
    Ok(())
}

/// A link at the top is read through: what it leads to is what a script reads.
fn follow(project: &Project, files: &mut BTreeMap<String, FileInput>) {
    for (path, file) in files {
        let place = project.root.join(path.trim_start_matches("//"));
        if file.id.starts_with("120000")
            && place.is_file()
            && let Ok(id) = ContentId::of_file(&place)
        {
            file.id = format!("{} {id}", file.id);
        }
    }
}

/// Files at the top of the project, patches, and what `build.globalDependencies` names.
pub fn project_files(
    project: &Project,
    lister: &Lister,
    notices: &mut Vec<String>,
) -> Result<BTreeMap<String, FileInput>, Error> {
    let is_seen = |path: &str| {
        let end = Path::new(path).extension();
        let is_text = end.is_some_and(|end| end == "md" || end == "log");
        !is_text && !UNSEEN.contains(&path)
    };
    let mut all = files(&lister.top()?, "//", is_seen);
    for folder in PATCHES {
        let (layer, _) = lister.layer(Owner::Base, folder)?;
        all.extend(files(&layer, &format!("//{folder}/"), |_| true));
    }
    follow(project, &mut all);
    for pattern in &project.settings.global_dependencies {
        let found = global_dependency(project, lister, pattern)?;
        if found.is_empty() {
            notices.push(format!(
                "`{}` in `build.globalDependencies` matches no file",
                pattern.escape_debug()
            ));
        }
        all.extend(found);
    }
    Ok(all)
}

/// Files that one entry of `build.globalDependencies` names; a folder means all that is in it.
fn global_dependency(
    project: &Project,
    lister: &Lister,
    given: &str,
) -> Result<BTreeMap<String, FileInput>, Error> {
    let wrong = || Error::GlobalDependencies {
        pattern: given.to_owned(),
    };
    let mut pattern = given.trim_start_matches("./").trim_matches('/').to_owned();
    if pattern.is_empty() || pattern.split('/').any(|part| part == "..") {
        return Err(wrong());
    }
    if project.root.join(&pattern).is_dir() {
        pattern.push_str("/**");
    }
    let glob = Glob::new(&pattern).map_err(|_| wrong())?;
    let globs = GlobSetBuilder::new()
        .add(glob)
        .build()
        .map_err(|_| wrong())?;
    // Only what comes before the first wildcard is looked through.
    let plain = pattern
        .find(['*', '?', '[', '{'])
        .map_or(&*pattern, |at| &pattern[..at]);
    let folder = plain.rfind('/').map_or("", |slash| &plain[..slash]);
    if folder.is_empty() && !pattern.contains('/') && !pattern.contains("**") {
        let mut found = files(&lister.top()?, "//", |path| globs.is_match(path));
        follow(project, &mut found);
        return Ok(found);
    }
    let (layer, _) = lister.layer(Owner::Base, folder)?;
    let prefix = if folder.is_empty() {
        "//".to_owned()
    } else {
        format!("//{folder}/")
    };
    let whole = |path: &str| format!("{}{path}", &prefix[2..]);
    Ok(files(&layer, &prefix, |path| globs.is_match(whole(path))))
}
