//! Links to a base app's own `node_modules`.

use std::path::{Path, PathBuf};

use super::super::failure::Io;
use crate::overlay::Composition;

/// A link from a composed app to its base app's own `node_modules`.
pub struct NodeModulesLink {
    /// Relative to the store's folder.
    pub key: String,
    link: PathBuf,
    /// None takes a link away that is no longer wanted.
    target: Option<PathBuf>,
}

impl NodeModulesLink {
    /// Of one app of the store in `folder`.
    pub fn of(folder: &Path, composition: &Composition) -> Self {
        let app = &composition.unit.app;
        Self {
            key: format!("{app}/node_modules"),
            link: folder.join(app.as_str()).join("node_modules"),
            target: composition
                .own_node_modules
                .then(|| PathBuf::from(format!("../../../apps/{app}/node_modules"))),
        }
    }

    /// Whether it is not as it should be.
    pub fn differs(&self) -> bool {
        std::fs::read_link(&self.link).ok() != self.target
    }

    /// Whether the place is free. Tools keep caches in `node_modules/.cache`; a folder with
    /// nothing else gives way, one with packages does not.
    pub fn is_free(&self) -> Result<(), Io> {
        let is_link = self
            .link
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_symlink());
        if is_link || self.target.is_none() {
            return Ok(());
        }
        let Ok(mut entries) = std::fs::read_dir(&self.link) else {
            return Ok(());
        };
        let only_caches = entries.all(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with('.'))
        });
        if only_caches {
            return Ok(());
        }
        let error = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
        Err(Io::at("replace", &self.link)(error))
    }

    /// Makes it in the store's folder, which may still wait elsewhere.
    pub fn make_in(&self, folder: &Path) -> Result<(), Io> {
        let link = folder.join(&self.key);
        if std::fs::read_link(&link).ok() == self.target {
            return Ok(());
        }
        match link.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                std::fs::remove_file(&link).map_err(Io::at("remove", &link))?;
            }
            Ok(metadata) if metadata.is_file() => {
                std::fs::remove_file(&link).map_err(Io::at("remove", &link))?;
            }
            // Only caches, as the staging has seen.
            Ok(_) if self.target.is_some() => {
                std::fs::remove_dir_all(&link).map_err(Io::at("remove", &link))?;
            }
            _ => {}
        }
        let Some(target) = &self.target else {
            return Ok(());
        };
        std::os::unix::fs::symlink(target, &link).map_err(Io::at("link", &link))
    }
}
