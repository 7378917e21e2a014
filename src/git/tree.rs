//! Reading the files of commits, without a checkout.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::num::NonZero;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use git2::{ObjectType, Oid};

use crate::files::{FileState, FileTree, PathKind, not_found};

impl std::fmt::Debug for GitObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Objects")
    }
}

/// The objects of a repository, for any thread. Each tree is parsed once, however many commits have
/// it.
pub struct GitObjects {
    /// The `.git` folder.
    path: PathBuf,
    /// One handle per thread, opened when needed: a handle of libgit2 is for one thread at a time.
    handles: Vec<Mutex<Option<RepositoryHandle>>>,
    folders: RwLock<HashMap<Oid, Arc<GitFolder>>>,
    /// Temporary objects: the content that git's filters give. Removed with this value.
    temporary: OnceLock<tempfile::TempDir>,
}

struct RepositoryHandle {
    repository: git2::Repository,
    /// Whether it also reads the temporary objects.
    reads_temporary: bool,
}

/// The entries of a tree object, sorted by name.
type GitFolder = Vec<(OsString, GitEntry)>;

/// An entry of a tree object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GitEntry {
    id: Oid,
    kind: GitEntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GitEntryKind {
    Folder,
    Link,
    File { executable: bool },
}

/// The files of one commit.
#[derive(Clone)]
pub struct Tree {
    objects: Arc<GitObjects>,
    /// The working tree's root, with links resolved. Paths are below it.
    root: PathBuf,
    top: Oid,
    /// Trees of folders that were found, so that their entries are not searched from the root again.
    folders: Arc<RwLock<HashMap<PathBuf, Oid>>>,
}

impl GitObjects {
    /// The objects of the repository with this `.git` folder.
    pub(super) fn new(path: &Path) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            path: path.to_owned(),
            handles: (0..threads).map(|_| Mutex::default()).collect(),
            folders: RwLock::default(),
            temporary: OnceLock::new(),
        }
    }

    /// The temporary folder for objects. Objects in it are read like the repository's.
    pub(super) fn temporary_folder(&self) -> io::Result<&Path> {
        if self.temporary.get().is_none() {
            // If two threads come here at once, the second folder is empty and dropped.
            let _ = self.temporary.set(tempfile::tempdir()?);
        }
        let folder = self.temporary.get().map(tempfile::TempDir::path);
        folder.ok_or_else(|| io::Error::other("there is no temporary folder"))
    }

    /// Calls a function with a handle that no other thread uses.
    pub(super) fn with_handle<T>(
        &self,
        read: impl FnOnce(&git2::Repository) -> Result<T, git2::Error>,
    ) -> io::Result<T> {
        let free = self
            .handles
            .iter()
            .find_map(|handle| handle.try_lock().ok());
        // A handle that another thread panicked with can be used: it only reads.
        let mut handle = free.unwrap_or_else(|| {
            let first = self.handles[0].lock();
            first.unwrap_or_else(PoisonError::into_inner)
        });
        let handle = match &mut *handle {
            Some(handle) => handle,
            none => none.insert(RepositoryHandle {
                repository: git2::Repository::open(&self.path).map_err(io::Error::other)?,
                reads_temporary: false,
            }),
        };
        let temporary = self.temporary.get().and_then(|it| it.path().to_str());
        if let Some(temporary) = temporary.filter(|_| !handle.reads_temporary) {
            let added = handle.repository.odb();
            let added = added.and_then(|odb| odb.add_disk_alternate(temporary));
            added.map_err(io::Error::other)?;
            handle.reads_temporary = true;
        }
        read(&handle.repository).map_err(io::Error::other)
    }

    /// Size of a blob in bytes.
    pub fn size(&self, id: Oid) -> io::Result<u64> {
        self.with_handle(|repository| Ok(repository.odb()?.read_header(id)?.0 as u64))
    }

    /// The content of a blob.
    pub fn blob(&self, id: Oid) -> io::Result<Vec<u8>> {
        self.with_handle(|repository| Ok(repository.find_blob(id)?.content().to_vec()))
    }

    fn folder(&self, id: Oid) -> io::Result<Arc<GitFolder>> {
        let known = self.folders.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = known.get(&id) {
            return Ok(Arc::clone(folder));
        }
        drop(known);
        let folder = Arc::new(self.parse(id)?);
        let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        folders.insert(id, Arc::clone(&folder));
        Ok(folder)
    }

    fn parse(&self, id: Oid) -> io::Result<GitFolder> {
        let mut folder = self.with_handle(|repository| {
            let tree = repository.find_tree(id)?;
            let mut folder = GitFolder::with_capacity(tree.len());
            for entry in &tree {
                let kind = match (entry.kind(), entry.filemode()) {
                    (Some(ObjectType::Tree), _) => GitEntryKind::Folder,
                    (_, 0o120_000) => GitEntryKind::Link,
                    (Some(ObjectType::Blob), mode) => GitEntryKind::File {
                        executable: mode & 0o100 != 0,
                    },
                    // The files of a submodule are in another repository.
                    _ => continue,
                };
                let name = OsString::from_vec(entry.name_bytes().to_vec());
                let id = entry.id();
                folder.push((name, GitEntry { id, kind }));
            }
            Ok(folder)
        })?;
        folder.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(folder)
    }

    /// Adds the files below `prefix` in which two trees differ. Equal subtrees are not read.
    fn differences(
        &self,
        old: Option<Oid>,
        new: Option<Oid>,
        prefix: &Path,
        found: &mut Vec<ChangedFile>,
    ) -> io::Result<()> {
        let open = |id: Option<Oid>| id.map(|id| self.folder(id)).transpose();
        let (old, new) = (
            open(old)?.unwrap_or_default(),
            open(new)?.unwrap_or_default(),
        );
        let mut names: Vec<&OsString> =
            old.iter().chain(new.iter()).map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (was, is) = (find(&old, name), find(&new, name));
            if was == is {
                continue;
            }
            let path = prefix.join(name);
            let folder = |item: Option<GitEntry>| item.filter(|it| it.kind == GitEntryKind::Folder);
            let (old_folder, new_folder) = (folder(was), folder(is));
            if old_folder.is_some() || new_folder.is_some() {
                let id = |item: Option<GitEntry>| item.map(|it| it.id);
                self.differences(id(old_folder), id(new_folder), &path, found)?;
            }
            let is_file =
                |item: Option<GitEntry>| item.is_some_and(|it| it.kind != GitEntryKind::Folder);
            if is_file(was) || is_file(is) {
                found.push(ChangedFile {
                    path,
                    is_removed: !is_file(is),
                });
            }
        }
        Ok(())
    }
}

/// A file in which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Relative to the repository's root.
    pub path: PathBuf,
    /// Whether the new tree does not have it.
    pub is_removed: bool,
}

impl Tree {
    pub(super) fn new(objects: Arc<GitObjects>, root: PathBuf, tree: Oid) -> Self {
        Self {
            objects,
            root,
            top: tree,
            folders: Arc::default(),
        }
    }

    /// The id of the tree itself.
    pub fn root_id(&self) -> Oid {
        self.top
    }

    /// The files below `folder` in which this tree differs from an earlier one. `folder` is relative to
    /// the repository's root.
    pub fn since(&self, old: &Self, folder: &Path) -> io::Result<Vec<ChangedFile>> {
        let top = |tree: &Self| {
            let item = tree.find(&tree.root.join(folder))?;
            Ok::<_, io::Error>(
                item.filter(|it| it.kind == GitEntryKind::Folder)
                    .map(|it| it.id),
            )
        };
        let mut found = Vec::new();
        let (old, new) = (top(old)?, top(self)?);
        if old != new {
            self.objects.differences(old, new, folder, &mut found)?;
        }
        Ok(found)
    }

    /// The repository's objects.
    pub fn objects(&self) -> &Arc<GitObjects> {
        &self.objects
    }

    /// The id of a file's blob or a folder's tree; `None` where the path does not exist.
    pub fn id(&self, path: &Path) -> io::Result<Option<Oid>> {
        Ok(self.find(path)?.map(|item| item.id))
    }

    /// The blob of a file; `None` where there is no file. The path is relative to the repository.
    pub fn blob_at(&self, path: &str) -> io::Result<Option<Oid>> {
        let item = self.find(&self.root.join(path))?;
        Ok(item
            .filter(|it| it.kind != GitEntryKind::Folder)
            .map(|it| it.id))
    }

    /// The entry at a path, whose folders have to be free of links.
    fn find(&self, path: &Path) -> io::Result<Option<GitEntry>> {
        if path == self.root {
            return Ok(Some(GitEntry {
                id: self.top,
                kind: GitEntryKind::Folder,
            }));
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let known = {
            let folders = self.folders.read().unwrap_or_else(PoisonError::into_inner);
            folders.get(parent).copied()
        };
        let folder = if known.is_some() {
            known
        } else if parent.starts_with(&self.root) {
            let found = self.find(parent)?;
            found
                .filter(|it| it.kind == GitEntryKind::Folder)
                .map(|it| it.id)
        } else {
            None
        };
        let Some(folder) = folder else {
            return Ok(None);
        };
        let found = find(&*self.objects.folder(folder)?, name);
        if let Some(item) = found.filter(|it| it.kind == GitEntryKind::Folder) {
            let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
            folders.insert(path.to_owned(), item.id);
        }
        Ok(found)
    }

    fn item(&self, path: &Path) -> io::Result<GitEntry> {
        self.find(path)?.ok_or_else(|| not_found(path))
    }
}

fn find(folder: &GitFolder, name: &OsStr) -> Option<GitEntry> {
    let position = folder.binary_search_by(|(known, _)| known.as_os_str().cmp(name));
    position.ok().map(|position| folder[position].1)
}

impl GitEntry {
    fn path_kind(self) -> PathKind {
        match self.kind {
            GitEntryKind::Folder => PathKind::Folder,
            GitEntryKind::Link => PathKind::Link,
            GitEntryKind::File { executable } => PathKind::File(FileState::Committed {
                blob: self.id,
                executable,
            }),
        }
    }
}

impl FileTree for Tree {
    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        // The repository's root has its links resolved, so the folders above it are not links.
        if self.root.starts_with(path) {
            return Ok(PathKind::Folder);
        }
        self.item(path).map(GitEntry::path_kind)
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<(OsString, PathKind)>> {
        let item = self.item(folder)?;
        if item.kind != GitEntryKind::Folder {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let folder = self.objects.folder(item.id)?;
        Ok(folder
            .iter()
            .map(|(name, item)| (name.clone(), item.path_kind()))
            .collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let item = self.item(&self.real(path)?)?;
        if item.kind == GitEntryKind::Folder {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.objects.blob(item.id)
    }

    fn target(&self, link: &Path) -> io::Result<PathBuf> {
        let item = self.item(link)?;
        let text = self.objects.blob(item.id)?;
        Ok(PathBuf::from(OsStr::from_bytes(&text)))
    }

    fn has_ignored(&self) -> bool {
        false
    }
}
