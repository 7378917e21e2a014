//! Links from composed apps to the `node_modules` of their base apps.

use std::path::{Path, PathBuf};

use super::super::failure::Io;
use crate::overlay::Composition;

/// The link from a composed app to the `node_modules` folder of its base app.
pub struct NodeModulesLink {
    /// Relative to the store's folder.
    pub key: String,
    link: PathBuf,
    /// None where the base app has no such folder; a link from an earlier run is then removed.
    target: Option<PathBuf>,
}

impl NodeModulesLink {
    /// The link of one app of the store in `folder`.
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

    /// Whether the link on disk differs from this one.
    pub fn differs(&self) -> bool {
        std::fs::read_link(&self.link).ok() != self.target
    }

    /// Fails where a folder with packages is at the path of the link. A folder that has only
    /// hidden entries, such as the caches in `node_modules/.cache`, can be replaced.
    pub fn check_replaceable(&self) -> Result<(), Io> {
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

    /// Creates the link in `folder`, which is the store's folder or the staged copy of it.
    pub fn create_in(&self, folder: &Path) -> Result<(), Io> {
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
            // It has only caches: `check_replaceable` has run before.
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
