//! Real folders below `.out`. A link or a file where a composed folder belongs was put there
//! by something else; reading or writing through it could leave `.out`.

use std::collections::HashMap;
use std::path::PathBuf;

use super::super::failure::Io;

/// Folders of one store, each looked at once.
pub struct RealFolders {
    /// `.out/<store>`.
    root: PathBuf,
    known: HashMap<String, bool>,
    /// The folder that was asked for last, and the answer: paths come sorted.
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

    /// A folder's path; joining the empty path would add a `/`, which follows a link.
    fn path(&self, folder: &str) -> PathBuf {
        if folder.is_empty() {
            self.root.clone()
        } else {
            self.root.join(folder)
        }
    }

    /// Whether every folder above the file `path` is there, and none is a link.
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

    /// Makes every folder above the file `path`; what else is in its place goes.
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
                    std::fs::create_dir(&full).map_err(Io::at("make the folder", &full))?;
                }
                Err(_) => std::fs::create_dir(&full).map_err(Io::at("make the folder", &full))?,
            }
            self.known.insert(folder.to_owned(), true);
        }
        self.last = None;
        Ok(())
    }

    /// Removes a file, and the folders that it leaves empty. Behind a link lies nothing of ours.
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

/// The root (as the empty path) and every folder above the file, outermost first.
fn above(path: &str) -> impl Iterator<Item = &str> {
    [""].into_iter()
        .chain(path.match_indices('/').map(|(end, _)| &path[..end]))
}
