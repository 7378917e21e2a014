//! Folders below `.out` that are not symbolic links. A link or a file at the path of a composed
//! folder was created by another program; reading or writing through it could leave `.out`.

use std::collections::HashMap;
use std::path::PathBuf;

use super::super::failure::Io;

/// The folders of one store. Each is examined once.
pub struct RealFolders {
    /// `.out/<store>`.
    root: PathBuf,
    known: HashMap<String, bool>,
    /// The folder of the previous query, and its answer. Paths are queried in sorted order.
    last: Option<(String, bool)>,
}

impl RealFolders {
    /// Folders at and below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            known: HashMap::new(),
            last: None,
        }
    }

    /// The path of a folder. Joining an empty path would append a `/`, which follows a link.
    fn path(&self, folder: &str) -> PathBuf {
        if folder.is_empty() {
            self.root.clone()
        } else {
            self.root.join(folder)
        }
    }

    /// Whether every folder above the file `path` exists and is not a link.
    pub fn are_real(&mut self, path: &str) -> bool {
        let parent = path.rfind('/').map_or("", |slash| &path[..slash]);
        if let Some((last, real)) = &self.last
            && last == parent
        {
            return *real;
        }
        let real = self.look(path);
        self.last = Some((parent.to_owned(), real));
        real
    }

    fn look(&mut self, path: &str) -> bool {
        above(path).all(|folder| {
            if let Some(known) = self.known.get(folder) {
                return *known;
            }
            let metadata = self.path(folder).symlink_metadata();
            let real = metadata.is_ok_and(|metadata| metadata.is_dir());
            self.known.insert(folder.to_owned(), real);
            real
        })
    }

    /// Creates every folder above the file `path`. A file or link at the path of a folder is
    /// removed.
    pub fn make(&mut self, path: &str) -> Result<(), Io> {
        for folder in above(path) {
            if self.known.get(folder) == Some(&true) {
                continue;
            }
            let full = self.path(folder);
            match full.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => {
                    std::fs::remove_file(&full).map_err(Io::at("remove", &full))?;
                    std::fs::create_dir(&full).map_err(Io::at("create the folder", &full))?;
                }
                Err(_) => std::fs::create_dir(&full).map_err(Io::at("create the folder", &full))?,
            }
            self.known.insert(folder.to_owned(), true);
        }
        self.last = None;
        Ok(())
    }

    /// Removes a file, and then the folders that are empty without it. A file behind a link is
    /// not one that compose has written, so it is kept.
    pub fn remove(&mut self, path: &str) -> Result<(), Io> {
        if !self.are_real(path) {
            return Ok(());
        }
        let file = self.root.join(path);
        match std::fs::remove_file(&file) {
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory
                ) => {}
            other => other.map_err(Io::at("remove", &file))?,
        }
        for folder in above(path).collect::<Vec<_>>().into_iter().rev() {
            if folder.is_empty() || std::fs::remove_dir(self.path(folder)).is_err() {
                break;
            }
            self.known.remove(folder);
            self.last = None;
        }
        Ok(())
    }
}

/// The root (an empty path) and every folder above the file, outermost first.
fn above(path: &str) -> impl Iterator<Item = &str> {
    [""].into_iter()
        .chain(path.match_indices('/').map(|(end, _)| &path[..end]))
}
