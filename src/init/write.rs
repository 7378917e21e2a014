//! Writing all files of a proposal, or none.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Error, Proposal, ProposedFile, read_if_there};
use crate::disk;

/// The permissions of a new file, which the system masks with the umask.
const PERMISSIONS: u32 = 0o666;

/// A file whose content is on the disk under a temporary name.
struct Staged<'a> {
    file: &'a ProposedFile,
    temporary: NamedTempFile,
}

impl Proposal {
    /// Writes all files. After an error no file and no folder is changed.
    ///
    /// All contents are written under temporary names first, so that a full disk or a missing
    /// permission is found before the first file is replaced.
    pub fn write(&self) -> Result<(), Error> {
        let mut folders = Vec::new();
        let result = self.stage(&mut folders).and_then(place);
        if result.is_err() {
            // A folder into which another process has written in the meantime stays.
            for folder in folders.iter().rev() {
                let _ = std::fs::remove_dir(folder);
            }
        }
        result
    }

    fn stage(&self, folders: &mut Vec<PathBuf>) -> Result<Vec<Staged<'_>>, Error> {
        let mut staged = Vec::new();
        for file in &self.files {
            let failed = |source| Error::Write {
                path: file.path.clone(),
                source,
            };
            let folder = file.path.parent().unwrap_or(Path::new("."));
            create_folders(folder, folders).map_err(failed)?;
            let mut builder = tempfile::Builder::new();
            builder.permissions(std::fs::Permissions::from_mode(PERMISSIONS));
            let mut temporary = builder.tempfile_in(folder).map_err(failed)?;
            temporary.write_all(&file.new).map_err(failed)?;
            if file.old.is_some() {
                let permissions = file.path.metadata().map_err(failed)?.permissions();
                temporary
                    .as_file()
                    .set_permissions(permissions)
                    .map_err(failed)?;
            }
            staged.push(Staged { file, temporary });
        }
        Ok(staged)
    }
}

/// Creates a folder and those above it, and adds the new ones to the list.
fn create_folders(folder: &Path, created: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folders(parent, created)?;
    }
    std::fs::create_dir(folder)?;
    created.push(folder.to_owned());
    Ok(())
}

/// Gives each file its name. If that fails, the files before it get their old content back.
fn place(staged: Vec<Staged<'_>>) -> Result<(), Error> {
    let mut placed: Vec<&ProposedFile> = Vec::new();
    for Staged { file, temporary } in staged {
        match put(file, temporary) {
            Ok(()) => placed.push(file),
            Err(error) => return Err(undo(&placed, error)),
        }
    }
    Ok(())
}

fn put(file: &ProposedFile, temporary: NamedTempFile) -> Result<(), Error> {
    if read_if_there(&file.path)? != file.old {
        return Err(Error::Changed {
            path: file.path.clone(),
        });
    }
    let result = if file.old.is_some() {
        disk::persist(temporary, &file.path)
    } else {
        // A file that another process has created in the meantime is not replaced.
        let created = temporary.persist_noclobber(&file.path);
        created.map(drop).map_err(|failed| failed.error)
    };
    result.map_err(|source| Error::Write {
        path: file.path.clone(),
        source,
    })
}

fn undo(placed: &[&ProposedFile], error: Error) -> Error {
    for file in placed.iter().rev() {
        let undone = match &file.old {
            Some(old) => disk::write_atomically(&file.path, old),
            None => disk::remove_file(&file.path),
        };
        if undone.is_err() {
            let (path, source) = match error {
                Error::Write { path, source } => (path, source),
                Error::Changed { path } => (path, std::io::Error::other("it has changed")),
                other => return other,
            };
            return Error::Left {
                path,
                left: file.path.clone(),
                source,
            };
        }
    }
    error
}
