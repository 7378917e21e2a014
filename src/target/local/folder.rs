//! The folder `.alokai/local` of a project: what the target remembers.
//!
//! Only the owner can read it, since it has values of settings and of `.env` files.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::disk;
use crate::ledger::RecordId;
use crate::pipeline::{Io, own_folder};
use crate::store::{AppName, StoreId};

/// The longest path of a Unix socket in bytes that every system accepts.
const LONGEST_SOCKET: usize = 100;

/// The folder of the target, with the paths in it.
#[derive(Debug, Clone)]
pub struct LocalFolder {
    project: PathBuf,
    root: PathBuf,
}

impl LocalFolder {
    /// The folder of a project. Nothing is written.
    pub fn of(project: &Path) -> Self {
        Self {
            project: project.to_owned(),
            root: project.join(".alokai/local"),
        }
    }

    /// The project.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder.
    pub fn make(&self) -> Result<(), Error> {
        own_folder(&self.project)?;
        make_folder(&self.root)
    }

    /// Which releases are active and staged.
    pub fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// The processes of apps, which the next background process ends after a crash of this one.
    pub fn processes(&self) -> PathBuf {
        self.root.join("processes.json")
    }

    /// The file that the background process locks.
    pub fn process_lock(&self) -> PathBuf {
        self.root.join("process.lock")
    }

    /// The output of the background process.
    pub fn process_log(&self) -> PathBuf {
        self.root.join("process.log")
    }

    /// The locks of stores.
    pub fn locks(&self) -> PathBuf {
        self.root.join("locks.json")
    }

    /// Makes the folder for the data of a store, which outlives its releases, and returns its path.
    pub fn make_data(&self, store: &StoreId) -> Result<String, Error> {
        self.make()?;
        let all = self.root.join("data");
        make_folder(&all)?;
        let folder = all.join(store.as_str());
        make_folder(&folder)?;
        Ok(folder.display().to_string())
    }

    /// The layers that were pulled from a registry.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The variables of a release.
    pub fn environment(&self, store: &StoreId, release: &RecordId) -> PathBuf {
        let name = format!("environment/{store}/{}.json", release.as_str());
        self.root.join(name)
    }

    /// The settings of a version.
    pub fn settings(&self, store: &StoreId, version: &str) -> Result<PathBuf, Error> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if version.is_empty() || !version.chars().all(is_plain) {
            return Err(Error::SettingsVersion {
                version: version.to_owned(),
            });
        }
        Ok(self.root.join(format!("settings/{store}/{version}.json")))
    }

    /// The folder for the output of a release.
    pub fn logs(&self, store: &StoreId, release: &RecordId) -> PathBuf {
        self.root.join(format!("logs/{store}/{}", release.as_str()))
    }

    /// The output of an app.
    pub fn log(&self, store: &StoreId, release: &RecordId, app: &AppName) -> PathBuf {
        self.logs(store, release).join(format!("{app}.log"))
    }

    /// A path of the socket that is short enough for every system.
    pub fn socket(&self) -> Result<SocketPath, Error> {
        let path = self.root.join("socket");
        if path.as_os_str().len() <= LONGEST_SOCKET {
            return Ok(SocketPath { path, _link: None });
        }
        // A link to the folder shortens the path. Its folder is new and only for the current user.
        let link = tempfile::Builder::new().prefix("alokai-").tempdir();
        let temporary = std::env::temp_dir();
        let link = link.map_err(Io::at("create a folder in", &temporary))?;
        let short = link.path().join("l");
        std::os::unix::fs::symlink(&self.root, &short).map_err(Io::at("create", &short))?;
        Ok(SocketPath {
            path: short.join("socket"),
            _link: Some(link),
        })
    }
}

/// A path of the socket, which is valid until this value is dropped.
pub struct SocketPath {
    /// The path.
    pub path: PathBuf,
    _link: Option<tempfile::TempDir>,
}

/// Makes a folder that only its owner can read, with the folders above it.
fn make_folder(path: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(Io::at("create the folder", path))?;
    Ok(())
}

/// Reads a JSON file. `None` if it does not exist.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Io::at("read", path)(error).into()),
    };
    let value = serde_json::from_slice(&text);
    Ok(Some(value.map_err(|error| Error::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    })?))
}

/// Replaces a JSON file as a whole. Only its owner can read it. After a power cut there is the old file
/// or the new one.
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    use std::io::Write;
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let written = (|| {
        let text = serde_json::to_vec(value)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&text)?;
        let private = std::fs::Permissions::from_mode(0o600);
        file.as_file().set_permissions(private)?;
        file.as_file().sync_data()?;
        disk::persist(file, path)
    })();
    written.map_err(Io::at("write", path))?;
    Ok(())
}

/// Opens a file that only its owner can read, and creates it if it is missing.
pub fn open(path: &Path) -> Result<std::fs::File, Error> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).read(true).create(true).mode(0o600);
    Ok(options.open(path).map_err(Io::at("open", path))?)
}
