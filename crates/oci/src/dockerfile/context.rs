//! The build context: the files that `COPY` can copy.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::ignore::Dockerignore;
use super::pattern::FilePattern;
use super::tree::{is_below, resolve};
use crate::TreeContent;

/// A build context without the files that `.dockerignore` excludes, and without empty folders.
#[derive(Debug)]
pub struct BuildContext {
    root: PathBuf,
    files: BTreeMap<String, ContextFile>,
    folders: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

/// A file or a link of a context.
#[derive(Debug, Clone)]
pub(super) struct ContextFile {
    pub content: TreeContent,
    /// 0755 for a file that its owner may execute, 0644 for another file, 0777 for a link.
    pub mode: u32,
}

/// What a source names after its links are resolved.
pub(super) enum FoundSource<'a> {
    Folder(String),
    File(&'a ContextFile),
}

impl BuildContext {
    /// Reads the metadata of files. Each has its path in the context and its path on this
    /// machine. `root` is the folder that errors name.
    pub fn new(
        root: &Path,
        files: Vec<(PathBuf, PathBuf)>,
        dockerignore: Option<&str>,
    ) -> Result<Self, Error> {
        let ignore = Dockerignore::new(dockerignore.unwrap_or_default());
        let mut context = Self {
            root: root.to_owned(),
            files: BTreeMap::new(),
            folders: BTreeSet::new(),
            ignored: BTreeSet::new(),
        };
        for (path, from) in files {
            let Some(name) = path.to_str() else {
                if ignore.ignores(&path.to_string_lossy()) {
                    continue;
                }
                return Err(Error::NotUtf8 { path: from });
            };
            if ignore.ignores(name) {
                context.ignored.insert(name.to_owned());
                continue;
            }
            let file = ContextFile::read(from)?;
            for (end, _) in name
                .match_indices('/')
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
            {
                if !context.folders.insert(name[..end].to_owned()) {
                    break;
                }
            }
            context.files.insert(name.to_owned(), file);
        }
        Ok(context)
    }

    /// The folder of the context, for messages.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a source names. Links are resolved inside the context.
    pub(super) fn find(&self, path: &str) -> Result<Option<FoundSource<'_>>, String> {
        let link = |path: &str| match &self.files.get(path)?.content {
            TreeContent::Link { target } => Some(target.as_str()),
            _ => None,
        };
        let path = resolve(path, link)?;
        if path.is_empty() || self.folders.contains(&path) {
            return Ok(Some(FoundSource::Folder(path)));
        }
        Ok(self.files.get(&path).map(FoundSource::File))
    }

    /// Folders below a folder, with paths relative to it.
    pub(super) fn folders_in<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        let from = self
            .folders
            .range::<str, _>((Bound::Included(folder), Bound::Unbounded));
        let inside = from.take_while(move |path| path.starts_with(folder));
        inside.filter_map(move |path| relative_to(path, folder))
    }

    /// Files below a folder, with paths relative to it.
    pub(super) fn files_in<'a>(
        &'a self,
        folder: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a ContextFile)> {
        let from = self
            .files
            .range::<str, _>((Bound::Included(folder), Bound::Unbounded));
        let inside = from.take_while(move |(path, _)| path.starts_with(folder));
        inside.filter_map(move |(path, file)| Some((relative_to(path, folder)?, file)))
    }

    /// Paths of files and folders that match a pattern, sorted.
    pub(super) fn matching(&self, pattern: &FilePattern) -> BTreeSet<String> {
        let paths = self.files.keys().chain(&self.folders);
        paths
            .filter(|path| pattern.matches(path))
            .cloned()
            .collect()
    }

    /// Whether `.dockerignore` excludes this file, or a file of this folder.
    pub(super) fn ignores(&self, path: &str) -> bool {
        let Ok(path) = resolve(path, |_| None) else {
            return false;
        };
        self.ignored
            .range(path.clone()..)
            .take_while(|other| other.starts_with(&path))
            .any(|other| *other == path || is_below(other, &path))
    }
}

impl ContextFile {
    fn read(from: PathBuf) -> Result<Self, Error> {
        use std::os::unix::fs::PermissionsExt;
        let found = from.symlink_metadata().and_then(|metadata| {
            if metadata.is_symlink() {
                Ok((metadata, Some(std::fs::read_link(&from)?)))
            } else {
                Ok((metadata, None))
            }
        });
        match found {
            Ok((_, Some(target))) => match target.into_os_string().into_string() {
                Ok(target) => Ok(Self {
                    content: TreeContent::Link { target },
                    mode: 0o777,
                }),
                Err(_) => Err(Error::NotUtf8 { path: from }),
            },
            // To open a pipe blocks until another process writes to it.
            Ok((metadata, None)) if !metadata.is_file() => Err(Error::Read {
                path: from,
                source: std::io::Error::other("it is not a file, a folder or a link"),
            }),
            Ok((metadata, None)) => Ok(Self {
                mode: if metadata.permissions().mode() & 0o100 == 0 {
                    0o644
                } else {
                    0o755
                },
                content: TreeContent::File {
                    bytes: metadata.len(),
                    from,
                },
            }),
            Err(source) => Err(Error::Read { path: from, source }),
        }
    }
}

/// The path relative to a folder that contains it.
fn relative_to<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    if folder.is_empty() {
        return Some(path);
    }
    path.strip_prefix(folder)?.strip_prefix('/')
}
