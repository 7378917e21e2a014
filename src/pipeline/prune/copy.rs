//! Copies files into a new `.deploy`, counts their bytes and leaves out what no image needs.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::super::failure::Io;
use super::sizes::Sizes;
use crate::config::PruneRules;
use crate::workspace::installed;
use virtual_path::relative;

/// Copies files into one folder.
pub struct Copier<'a> {
    root: &'a Path,
    /// The rules of the config.
    pub rules: &'a PruneRules,
    sizes: RefCell<Sizes>,
    origins: RefCell<BTreeMap<PathBuf, PathBuf>>,
}

/// The role of a file in the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRole {
    /// A file of the app. Source files are left out.
    App,
    /// A file of a dependency. No kind of file is left out.
    Dependency,
    /// A file that is served unchanged. A `.ts` file is a video here, not a source file.
    Asset,
}

impl<'a> Copier<'a> {
    /// Copies into `root`, an empty folder.
    pub fn new(root: &'a Path, rules: &'a PruneRules) -> Self {
        Self {
            root,
            rules,
            sizes: RefCell::default(),
            origins: RefCell::default(),
        }
    }

    /// The sizes of what was copied.
    pub fn sizes(self) -> Sizes {
        self.sizes.into_inner()
    }

    /// The copied files: the path in the root, and the path that it was copied from.
    pub fn origins(&self) -> Ref<'_, BTreeMap<PathBuf, PathBuf>> {
        self.origins.borrow()
    }

    /// The absolute path of a path in the root.
    pub fn path(&self, to: &Path) -> PathBuf {
        self.root.join(to)
    }

    /// Whether the file belongs in an image.
    pub fn takes(&self, path: &Path, origin: FileRole) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == ".env" || name.starts_with(".env.") {
            return self.rules.keep_env;
        }
        let in_dependency = installed::is_installed(path);
        let is_source = [".ts", ".tsx", ".mts", ".cts", ".vue"]
            .iter()
            .any(|end| name.ends_with(end));
        origin != FileRole::App || in_dependency || !is_source
    }

    /// Copies one file or link to `to`, relative to the root. An existing path is kept.
    pub fn file(&self, from: &Path, to: &Path) -> Result<(), Io> {
        let path = to;
        let to = self.root.join(path);
        if to.symlink_metadata().is_ok() {
            return Ok(());
        }
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).map_err(Io::at("create the folder", folder))?;
        }
        let metadata = from.symlink_metadata().map_err(Io::at("read", from))?;
        if metadata.is_symlink() {
            let target = std::fs::read_link(from).map_err(Io::at("read", from))?;
            return std::os::unix::fs::symlink(target, &to).map_err(Io::at("link", &to));
        }
        if !metadata.is_file() {
            return Err(Io::at("copy", from)(not_regular()));
        }
        let bytes = std::fs::copy(from, &to).map_err(|error| match std::fs::File::open(from) {
            Err(error) => Io::at("read", from)(error),
            Ok(_) => Io::at("write", &to)(error),
        })?;
        self.sizes.borrow_mut().add(path, bytes);
        let mut origins = self.origins.borrow_mut();
        origins.insert(path.to_owned(), from.to_owned());
        Ok(())
    }

    /// Creates a link at `from` that leads to `to`. Both are relative to the root.
    pub fn link(&self, from: &Path, to: &Path) -> Result<(), Io> {
        let folder = from.parent().unwrap_or(Path::new(""));
        let path = self.root.join(from);
        let above = self.root.join(folder);
        std::fs::create_dir_all(&above).map_err(Io::at("create the folder", &above))?;
        std::os::unix::fs::symlink(relative(folder, to), &path).map_err(Io::at("link", &path))
    }

    /// Copies the files of a folder to `to`, relative to the root, except those that `leave_out`
    /// selects by their path in the folder.
    pub fn folder(
        &self,
        from: &Path,
        to: &Path,
        origin: FileRole,
        leave_out: impl Fn(&Path) -> bool,
    ) -> Result<(), Io> {
        for (path, file) in files(from, |path| !leave_out(path))? {
            let to = to.join(&path);
            if self.takes(&to, origin) {
                self.file(&file, &to)?;
            }
        }
        Ok(())
    }
}

/// The error for a pipe, a socket or a device, which cannot be in an image. Opening a pipe waits
/// for a writer.
pub fn not_regular() -> std::io::Error {
    std::io::Error::other("it is not a file, a folder or a symbolic link")
}

/// Lists the files and links below `root`, each with its path in it. Folders that `enter` refuses
/// are not opened, and links are not followed.
pub fn files(root: &Path, enter: impl Fn(&Path) -> bool) -> Result<Vec<(PathBuf, PathBuf)>, Io> {
    let inner = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    let mut files = Vec::new();
    let walk = WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || enter(&inner(entry.path())));
    for entry in walk {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(root).to_owned();
            Io::at("read", &path)(error.into())
        })?;
        if !entry.file_type().is_dir() {
            files.push((inner(entry.path()), entry.into_path()));
        }
    }
    Ok(files)
}
