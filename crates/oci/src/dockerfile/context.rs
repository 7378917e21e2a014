//! The files that `COPY` can take.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::ignore::Dockerignore;
use super::tree::{below, resolve};
use crate::TreeContent;

/// A build context, `.dockerignore` applied. Folders are there where files are in them, since
/// nothing else of them is ever sent to an engine.
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
    /// 0755 or 0644 by whether its owner may execute it, and 0777 of a link.
    pub mode: u32,
}

/// What a source names once its links are followed.
pub(super) enum FoundSource<'a> {
    Folder(String),
    File(&'a ContextFile),
}

impl BuildContext {
    /// Looks at the files of a folder: paths relative to it, with where they lie.
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
                // It may well be ignored: patterns are text, but lossily they match it.
                if ignore.ignores(&path.to_string_lossy()) {
                    continue;
                }
                return Err(Error::NotText { path: from });
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

    /// The folder, for messages.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a source names; links are followed, and lead no further than to the context's root.
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

    /// Folders below a folder, by their paths from there.
    pub(super) fn folders_in<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        let from = self
            .folders
            .range::<str, _>((Bound::Included(folder), Bound::Unbounded));
        let inside = from.take_while(move |path| path.starts_with(folder));
        inside.filter_map(move |path| inner(path, folder))
    }

    /// Files below a folder.
    pub(super) fn files_in<'a>(
        &'a self,
        folder: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a ContextFile)> {
        let from = self
            .files
            .range::<str, _>((Bound::Included(folder), Bound::Unbounded));
        let inside = from.take_while(move |(path, _)| path.starts_with(folder));
        inside.filter_map(move |(path, file)| Some((inner(path, folder)?, file)))
    }

    /// All paths, folders before what is in them, in the order of a walk.
    pub(super) fn walk(&self) -> Vec<&str> {
        let files = self.files.keys().map(String::as_str);
        let mut paths: Vec<&str> = files
            .chain(self.folders.iter().map(String::as_str))
            .collect();
        paths.sort_unstable_by(|a, b| a.split('/').cmp(b.split('/')));
        paths
    }

    /// Whether `.dockerignore` hides this file, or all files of this folder.
    pub(super) fn hides(&self, path: &str) -> bool {
        let Ok(path) = resolve(path, |_| None) else {
            return false;
        };
        self.ignored
            .range(path.clone()..)
            .take_while(|other| other.starts_with(&path))
            .any(|other| *other == path || below(other, &path))
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
                Err(_) => Err(Error::NotText { path: from }),
            },
            // Opening a pipe would wait for somebody to write to it.
            Ok((metadata, None)) if !metadata.is_file() => Err(Error::Read {
                path: from,
                source: std::io::Error::other("it is neither file, folder nor link"),
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

/// The path from a folder to what is below it.
fn inner<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    if folder.is_empty() {
        return Some(path);
    }
    path.strip_prefix(folder)?.strip_prefix('/')
}
