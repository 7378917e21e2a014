//! The inputs of a task beside its own files: files at the top of the project, files of workspace
//! packages, and files that `build.globalDependencies` names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

// globset, as for all patterns that are neither gitignore rules nor `.dockerignore` lines.
use globset::GlobBuilder;
use walkdir::WalkDir;

use super::Error;
use crate::cache::{FileInput, Key, KeyHasher};
use crate::config::Project;
use crate::disk::Stamp;
use crate::files::DiskFiles;
use crate::overlay::{ContentId, ContentSource, Layer, LayerReader, Owner};

/// Folders with patches of installed packages.
const PATCHES: [&str; 2] = ["patches", ".yarn/patches"];

/// Folders of tools: installed packages, caches, build output of frameworks.
const OF_TOOLS: [&str; 9] = [
    "node_modules",
    ".git",
    ".turbo",
    ".cache",
    ".next",
    ".nuxt",
    ".output",
    ".out",
    ".alokai",
];

/// Files at the top of a project that scripts seldom read. The content of such a file is an input
/// only of a script that opens it.
const SELDOM_READ: [&str; 6] = [
    "alokai.config.json",
    "LICENSE",
    ".gitignore",
    ".gitattributes",
    ".dockerignore",
    ".gitlab-ci.yml",
];

/// The most files of a folder at the top of the project that are watched while a script runs.
const MOST_FILES: usize = 10_000;

/// The identity of a file of which only the existence is an input, until a script opens the file.
pub const EXISTS_ONLY: &str = "is there";

/// Files that are inputs of a task together, each with its identity and stamp.
#[derive(Debug, Default)]
pub struct FileGroup {
    /// By path, with the prefix `//`.
    pub files: BTreeMap<String, FileInput>,
    /// A digest of paths and identities.
    pub digest: Key,
    /// Paths that must not change while a script runs.
    pub watched: Vec<WatchedPath>,
    /// The folder of the workspace package; empty for other groups.
    pub folder: String,
}

/// A path that must not change after the key was computed.
#[derive(Debug, Clone)]
pub struct WatchedPath {
    /// Absolute.
    pub path: PathBuf,
    /// Its state when the key was computed.
    pub state: PathState,
}

/// The state of a watched path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// The stamp of a file or link; `None` if the path was missing.
    File(Option<Stamp>),
    /// The names of a folder's files.
    Folder(BTreeSet<String>),
    /// It changed while it was read.
    Changed,
}

/// A file that is an input only of a script that opens it; or a folder, whose list of files is such an
/// input. The name of a folder ends with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionalFile {
    /// Its name in keys: `//.env`, `../storefront-middleware/types.ts`, `//config/`.
    pub name: String,
    /// Its path, absolute.
    pub place: PathBuf,
}

impl WatchedPath {
    fn file(path: PathBuf) -> Self {
        let state = PathState::File(Stamp::of(&path));
        Self { path, state }
    }

    /// The path that has changed, if one has.
    pub fn changed(&self) -> Option<PathBuf> {
        let is_same = match &self.state {
            PathState::File(stamp) => Stamp::of(&self.path) == *stamp,
            PathState::Folder(names) => {
                let now = names_in(&self.path);
                let mut other = now.symmetric_difference(names);
                return other.next().map(|name| self.path.join(name));
            }
            PathState::Changed => false,
        };
        (!is_same).then(|| self.path.clone())
    }
}

/// The names of the files in a folder.
fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !is_junk(name))
        .collect()
}

/// Whether it is a file that editors and systems leave behind, which no build reads.
fn is_junk(name: &str) -> bool {
    let end = Path::new(name).extension().and_then(|end| end.to_str());
    matches!(end, Some("swp" | "swx"))
        || name.ends_with('~')
        || [".DS_Store", "4913"].contains(&name)
}

impl FileGroup {
    fn new(files: BTreeMap<String, FileInput>, watched: Vec<WatchedPath>) -> Self {
        let mut hasher = KeyHasher::default();
        for (path, file) in &files {
            hasher.part(path.as_bytes());
            hasher.part(file.id.as_bytes());
        }
        Self {
            digest: hasher.end(),
            files,
            watched,
            folder: String::new(),
        }
    }
}

/// Collects the files of one group.
struct GroupCollector<'a> {
    project: &'a Path,
    files: BTreeMap<String, FileInput>,
    watched: Vec<WatchedPath>,
}

impl<'a> GroupCollector<'a> {
    fn new(project: &'a Path) -> Self {
        Self {
            project,
            files: BTreeMap::new(),
            watched: Vec::new(),
        }
    }

    /// Adds files of a layer.
    fn layer(&mut self, layer: &Layer, folder: &str, keep: impl Fn(&str) -> bool) {
        for (path, file) in layer.files.iter().filter(|(path, _)| keep(path)) {
            let inside = join(folder, path);
            let id = format!("{} {}", file.mode(), file.id);
            let mut watched = WatchedPath::file(self.project.join(&inside));
            if let ContentSource::Disk(path, listed) = &file.source
                && path.metadata().map(|it| Stamp::new(&it)).ok() != Some(*listed)
            {
                // The file has changed since its identity was computed.
                watched.state = PathState::Changed;
            }
            self.watched.push(watched);
            self.files
                .insert(format!("//{inside}"), FileInput { id, layer: None });
        }
    }

    /// Adds a file with its current content, unless the group has it. A link is followed.
    fn file(&mut self, inside: &str) -> Result<(), Error> {
        let name = format!("//{inside}");
        if self.files.contains_key(&name) {
            return Ok(());
        }
        let path = self.project.join(inside);
        let watched = WatchedPath::file(path.clone());
        let id = identity(&path).map_err(reading(&path))?;
        if path.is_symlink() {
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            self.watched.push(WatchedPath::file(real));
        }
        self.watched.push(watched);
        self.files.insert(name, FileInput { id, layer: None });
        Ok(())
    }

    /// Adds all files below a folder, ignored by git or not. Links are followed.
    fn everything(&mut self, folder: &str, of: FolderScan) -> Result<(), Error> {
        let root = self.project.join(folder);
        for entry in walk(&root, of) {
            // The target of a link to a parent folder is walked already.
            if entry
                .as_ref()
                .is_err_and(|error| error.loop_ancestor().is_some())
            {
                continue;
            }
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(&root).to_owned();
                reading(&path)(error.into())
            })?;
            let inside = entry.path().strip_prefix(self.project).ok();
            let Some(inside) = inside.and_then(Path::to_str) else {
                continue;
            };
            if entry.file_type().is_dir() {
                self.watched.push(WatchedPath {
                    path: entry.path().to_owned(),
                    state: PathState::Folder(names_in(entry.path())),
                });
            } else if entry.file_type().is_file() || entry.path().is_file() {
                self.file(inside)?;
            }
        }
        Ok(())
    }

    fn end(self) -> FileGroup {
        FileGroup::new(self.files, self.watched)
    }
}

fn join(folder: &str, path: &str) -> String {
    if folder.is_empty() {
        path.to_owned()
    } else {
        format!("{folder}/{path}")
    }
}

fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}

/// Which files of a folder are inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FolderScan {
    /// All but the files of tools.
    WithoutTools,
    /// For a folder that the user has named: all but files of git, of this program and of packages.
    Named,
}

fn walk(
    root: &Path,
    whose: FolderScan,
) -> impl Iterator<Item = walkdir::Result<walkdir::DirEntry>> + use<> {
    let walk = WalkDir::new(root).sort_by_file_name();
    let walk = walk.follow_links(whose == FolderScan::Named).into_iter();
    walk.filter_entry(move |entry| {
        let name = entry.file_name().to_string_lossy();
        let is_left_out = match whose {
            FolderScan::WithoutTools => OF_TOOLS.contains(&&*name) || is_junk(&name),
            FolderScan::Named => [".git", ".out", ".alokai", "node_modules"].contains(&&*name),
        };
        entry.depth() == 0 || !is_left_out
    })
}

/// Mode and content id of a file, as in a git tree; for a folder a digest of the names in it. A link is
/// followed.
pub fn identity(path: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = path.metadata()?;
    if metadata.is_dir() {
        let mut names = KeyHasher::default();
        let entries = std::fs::read_dir(path)?.flatten();
        let mut found: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !is_junk(name) && !OF_TOOLS.contains(&name.as_str()))
            .collect();
        found.sort();
        for name in &found {
            names.part(name.as_bytes());
        }
        return Ok(format!("040000 {}", names.end()));
    }
    let mode = if metadata.mode() & 0o100 == 0 {
        "100644"
    } else {
        "100755"
    };
    Ok(format!("{mode} {}", ContentId::of_file(path)?))
}

/// The files of a workspace package. For a package without a `build` script they include files that
/// git ignores, because apps import those.
pub fn package(
    project: &Project,
    lister: &LayerReader,
    folder: &str,
    is_built: bool,
) -> Result<FileGroup, Error> {
    let mut group = GroupCollector::new(&project.root);
    let (layer, _) = lister.layer(Owner::Base, folder)?;
    group.layer(&layer, folder, |_| true);
    if !is_built {
        group.everything(folder, FolderScan::WithoutTools)?;
    }
    Ok(FileGroup {
        folder: folder.to_owned(),
        ..group.end()
    })
}

/// A file of the project, or all files of a folder, that a config or a manifest names.
pub fn named(project: &Project, path: &str) -> Result<FileGroup, Error> {
    let mut group = GroupCollector::new(&project.root);
    if project.root.join(path).is_dir() {
        group.everything(path, FolderScan::Named)?;
    } else {
        group.file(path)?;
    }
    Ok(group.end())
}

/// The lock file, which must not change. The parts of it that a task uses are inputs on their own.
pub fn lock_file(project: &Project, name: &str) -> FileGroup {
    let watched = vec![WatchedPath::file(project.root.join(name))];
    FileGroup::new(BTreeMap::new(), watched)
}

/// Files at the top of the project, patches, and files that `build.globalDependencies` names; and
/// the files at the top that are inputs only of scripts that open them.
pub fn top(
    project: &Project,
    lister: &LayerReader,
    notices: &mut Vec<String>,
) -> Result<(FileGroup, Vec<OptionalFile>), Error> {
    let mut group = GroupCollector::new(&project.root);
    let mut optional = Vec::new();
    let manager = project.package_manager().ok();
    let lock_files = manager.map_or(&[][..], |manager| manager.lock_files());
    let seen_by_git = lister.top_files()?;
    let names = names_in(&project.root);
    for name in &names {
        let place = project.root.join(name);
        let end = Path::new(name).extension();
        let is_seldom_read = end.is_some_and(|end| end == "md" || end == "log")
            || SELDOM_READ.contains(&name.as_str());
        if lock_files.contains(&name.as_str()) || !place.is_file() {
            continue;
        }
        let is_seen = seen_by_git.files.contains_key(name.as_str());
        if is_seen && !is_seldom_read {
            group.file(name)?;
            continue;
        }
        if end.is_none_or(|end| end != "log") {
            // Its existence is an input: scripts check for files such as `.env.local`.
            let id = EXISTS_ONLY.to_owned();
            group
                .files
                .insert(format!("//{name}"), FileInput { id, layer: None });
        }
        let name = format!("//{name}");
        optional.push(OptionalFile { name, place });
    }
    group.watched.push(WatchedPath {
        path: project.root.clone(),
        state: PathState::Folder(names),
    });
    for folder in top_folders(project)? {
        match in_top_folder(project, lister, &folder)? {
            Some(files) => optional.extend(files),
            None => notices.push(format!(
                "`{folder}` has more than {MOST_FILES} files; files in it that builds read have to be in `build.globalDependencies`"
            )),
        }
    }
    for folder in PATCHES {
        let (layer, _) = lister.layer(Owner::Base, folder)?;
        group.layer(&layer, folder, |_| true);
    }
    for pattern in &project.settings.global_dependencies {
        if !global_dependency(project, pattern, &mut group)? {
            notices.push(format!(
                "`{}` in `build.globalDependencies` matches no file",
                pattern.escape_debug()
            ));
        }
    }
    optional.retain(|file| {
        let known = group.files.get(&file.name);
        known.is_none_or(|known| known.id == EXISTS_ONLY)
    });
    Ok((group.end(), optional))
}

/// The names of the folders at the top of the project that no other input covers.
fn top_folders(project: &Project) -> Result<Vec<String>, Error> {
    let mut folders = Vec::new();
    let entries = std::fs::read_dir(&project.root).map_err(reading(&project.root))?;
    for entry in entries {
        let entry = entry.map_err(reading(&project.root))?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_covered = OF_TOOLS.contains(&name.as_str()) || PATCHES.contains(&name.as_str());
        if is_folder && !is_covered && name != "apps" {
            folders.push(name);
        }
    }
    folders.sort();
    Ok(folders)
}

/// The files of a folder at the top of the project, which count when a script opens them; none if
/// there are too many. Files that git ignores and files of workspace packages are left out.
fn in_top_folder(
    project: &Project,
    lister: &LayerReader,
    folder: &str,
) -> Result<Option<Vec<OptionalFile>>, Error> {
    let start = format!("{folder}/");
    let mut packages = project.packages.iter();
    let files: BTreeSet<String> = if packages.any(|it| it.folder.starts_with(&start)) {
        names_in(&project.root.join(folder))
    } else if project.packages.iter().any(|it| it.folder == folder) {
        return Ok(Some(Vec::new()));
    } else {
        let (layer, _) = lister.layer(Owner::Base, folder)?;
        layer.files.keys().map(ToString::to_string).collect()
    };
    if files.len() > MOST_FILES {
        return Ok(None);
    }
    // A script that opens a file may have chosen it from the list of the folder.
    let above = files
        .iter()
        .flat_map(|path| Path::new(path).ancestors().skip(1));
    let folders: BTreeSet<&Path> = above.chain([Path::new("")]).collect();
    let folders = folders.into_iter().filter_map(Path::to_str);
    let folders = folders.map(join_folder);
    let optional = files
        .iter()
        .cloned()
        .chain(folders)
        .map(|path| OptionalFile {
            name: format!("//{folder}/{path}"),
            place: project.root.join(folder).join(path),
        });
    Ok(Some(optional.collect()))
}

/// The path with a `/` at the end, unless it is empty.
fn join_folder(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    }
}

/// Adds the files that match one entry of `build.globalDependencies`, ignored by git or not; a folder
/// means all files in it. Returns whether there are any.
fn global_dependency(
    project: &Project,
    given: &str,
    group: &mut GroupCollector,
) -> Result<bool, Error> {
    let wrong = || Error::GlobalDependencies {
        pattern: given.to_owned(),
    };
    let pattern = given.trim_start_matches("./").trim_matches('/').to_owned();
    if pattern.is_empty() || pattern.split('/').any(|part| part == "..") {
        return Err(wrong());
    }
    let named = project.root.join(&pattern);
    if named.is_dir() {
        group.everything(&pattern, FolderScan::Named)?;
        return Ok(true);
    }
    if named.is_file() {
        forget_name(group, &pattern);
        group.file(&pattern)?;
        return Ok(true);
    }
    let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
    let glob = glob.map_err(|_| wrong())?.compile_matcher();
    // Only the folder before the first wildcard is walked.
    let plain = pattern
        .find(['*', '?', '[', '{'])
        .map_or(&*pattern, |at| &pattern[..at]);
    let folder = plain.rfind('/').map_or("", |slash| &plain[..slash]);
    let root = project.root.join(folder);
    if !root.is_dir() {
        return Ok(false);
    }
    let depth = if pattern.contains("**") || pattern.contains('{') {
        usize::MAX
    } else {
        pattern.matches('/').count() + 1 - folder.split('/').filter(|it| !it.is_empty()).count()
    };
    let mut found = false;
    for entry in walk(&root, FolderScan::Named).filter_map(Result::ok) {
        if entry.depth() > depth {
            continue;
        }
        let inside = entry.path().strip_prefix(&project.root).ok();
        let Some(inside) = inside.and_then(Path::to_str) else {
            continue;
        };
        if entry.file_type().is_dir() {
            let state = PathState::Folder(names_in(entry.path()));
            let path = entry.path().to_owned();
            group.watched.push(WatchedPath { path, state });
        } else if glob.is_match(inside) && entry.path().is_file() {
            forget_name(group, inside);
            group.file(inside)?;
            found = true;
        }
    }
    Ok(found)
}

/// Removes a file of which only the name is an input, so its content can be added.
fn forget_name(group: &mut GroupCollector, inside: &str) {
    let name = format!("//{inside}");
    if group
        .files
        .get(&name)
        .is_some_and(|file| file.id == EXISTS_ONLY)
    {
        group.files.remove(&name);
    }
}

/// A base app that tasks depend on as a workspace package. Its files are inputs of scripts that open
/// them. Their names are always inputs, because they decide what an import finds.
#[derive(Debug)]
pub struct BaseAppFolder {
    /// A digest of the paths.
    pub names: Key,
    /// Relative to the project.
    pub folder: String,
}

/// Reads the base app in `folder`.
pub fn base_folder(lister: &LayerReader, folder: &str) -> Result<Arc<BaseAppFolder>, Error> {
    let (layer, _) = lister.layer(Owner::Base, folder)?;
    let mut names = KeyHasher::default();
    for path in layer.files.keys() {
        names.part(path.as_bytes());
    }
    Ok(Arc::new(BaseAppFolder {
        names: names.end(),
        folder: folder.to_owned(),
    }))
}

/// The files of a folder that are inputs only of scripts that open them.
pub fn optional_in(project: &Path, folder: &str) -> Vec<OptionalFile> {
    let root = project.join(folder);
    let entries = walk(&root, FolderScan::WithoutTools).filter_map(Result::ok);
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    let files = files.filter_map(|entry| {
        let inside = entry.path().strip_prefix(project).ok()?.to_str()?;
        Some(OptionalFile {
            name: format!("//{inside}"),
            place: entry.path().to_owned(),
        })
    });
    files.collect()
}

/// The name of the lock file, if the project has one.
pub fn lock_file_name(project: &Project) -> Option<&'static str> {
    let manager = project.package_manager().ok()?;
    manager.lock_file(&DiskFiles, &project.root)
}
