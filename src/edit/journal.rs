//! The journal of an edit: what is being changed, so that a killed edit can be undone.
//!
//! ```text
//! .alokai/edit/journal.json   the steps; written before the first one, removed after the last one
//! .alokai/edit/made           exists once every step is made; then only git's index may be behind
//! .alokai/edit/new, old       contents of written files, after and before
//! .alokai/edit/removed        removed files and folders
//! ```
//!
//! No progress is recorded. New paths are never in paths that the same edit moves or removes, so what
//! exists on the disk says which steps were made.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::change::{KEPT, below};
use super::preconditions::{has_no_link, is_inside};
use crate::disk::{self, rename_new};
use crate::git::{IndexChange, Repository};
use crate::overlay::ContentId;

/// The folder of the journal, relative to the project.
const FOLDER: &str = ".alokai/edit";

/// One reversible step. Paths are relative to the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "camelCase")]
pub(super) enum Step {
    /// Makes a folder whose parent exists.
    MakeFolder { path: String },
    /// Renames a file or folder.
    Rename { from: String, to: String },
    /// Gives a staged file its name.
    Create {
        path: String,
        staged: String,
        id: ContentId,
    },
    /// Replaces a file by a staged file.
    Replace {
        path: String,
        staged: String,
        backup: String,
        id: ContentId,
    },
    /// Removes a folder, unless it has entries.
    RemoveEmptyFolder { path: String },
}

/// An edit on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Journal {
    pub version: u32,
    pub command: String,
    pub steps: Vec<Step>,
    pub moved: Vec<(String, String)>,
    pub removed: Vec<String>,
}

/// The version of the format of journals.
pub(super) const VERSION: u32 = 1;

/// What [`recover`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    command: String,
    is_completed: bool,
    /// Files that were changed after the interruption. They stay as they are.
    pub kept: Vec<String>,
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            is_completed,
            kept,
        } = self;
        let done = if *is_completed { "completed" } else { "undone" };
        write!(f, "`{command}` was interrupted; it is {done} now")?;
        if !kept.is_empty() {
            write!(f, ", except for files changed since: {}", kept.join("; "))?;
        }
        Ok(())
    }
}

/// Whether an edit of the project was interrupted, or is being made by another process.
pub fn is_interrupted(project: &Path) -> bool {
    project.join(FOLDER).join("journal.json").exists()
}

/// Undoes or completes an edit whose process was killed. The caller holds the project's lock.
pub fn recover(project: &Path) -> Result<Option<Recovery>, Error> {
    if !is_interrupted(project) {
        return Ok(None);
    }
    let place = Place::new(project);
    let journal = place.read()?;
    journal.verify(project)?;
    let is_completed = place.has_made_all();
    let repository = Repository::around(project)?;
    if let Some(repository) = &repository {
        repository.release_index()?;
    }
    let kept = if is_completed {
        let index = repository.as_ref();
        let index = index.map(|it| it.changed_index(&journal.index_changes()));
        if let Some(index) = index.transpose()?.flatten() {
            index.write()?;
        }
        Vec::new()
    } else {
        journal.undo(project)?
    };
    place.close()?;
    Ok(Some(Recovery {
        command: journal.command,
        is_completed,
        kept,
    }))
}

/// The folder of the journal.
pub(super) struct Place {
    folder: PathBuf,
}

impl Place {
    pub fn new(project: &Path) -> Self {
        Self {
            folder: project.join(FOLDER),
        }
    }

    /// Makes the folder anew. What is left of an edit that never started is removed.
    pub fn open(&self) -> Result<(), Error> {
        disk::remove(&self.folder).map_err(failed("remove", &self.folder))?;
        for name in ["new", "old", "removed"] {
            let folder = self.folder.join(name);
            std::fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        }
        Ok(())
    }

    /// The path of a file in the folder, relative to the project.
    pub fn name(kind: &str, number: usize) -> String {
        format!("{FOLDER}/{kind}/{number}")
    }

    /// Writes the journal. From now on the edit is undone if its process is killed.
    pub fn write(&self, journal: &Journal) -> Result<(), Error> {
        let path = self.folder.join("journal.json");
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            serde_json::to_writer_pretty(&mut file, journal)?;
            file.flush()?;
            file.as_file().sync_all()?;
            disk::persist(file, &path)
        };
        write().map_err(failed("write", &path))
    }

    fn read(&self) -> Result<Journal, Error> {
        let path = self.folder.join("journal.json");
        let text = std::fs::read(&path).map_err(failed("read", &path))?;
        let journal: Journal = serde_json::from_slice(&text)
            .map_err(|error| failed("read", &path)(std::io::Error::other(error)))?;
        if journal.version != VERSION {
            let reason = "another version of alokai wrote it; use that version once";
            return Err(failed("read", &path)(std::io::Error::other(reason)));
        }
        Ok(journal)
    }

    /// Notes that every step is made.
    pub fn note_made(&self) -> Result<(), Error> {
        let path = self.folder.join("made");
        std::fs::write(&path, "").map_err(failed("write", &path))
    }

    /// Takes the note back.
    pub fn retract_made(&self) -> Result<(), Error> {
        let path = self.folder.join("made");
        disk::remove_file(&path).map_err(failed("remove", &path))
    }

    fn has_made_all(&self) -> bool {
        self.folder.join("made").exists()
    }

    /// Ends the edit. Without the journal the rest of the folder means nothing.
    pub fn close(&self) -> Result<(), Error> {
        let journal = self.folder.join("journal.json");
        disk::remove_file(&journal).map_err(failed("remove", &journal))?;
        // What cannot be removed now is removed by the next edit.
        let _ = disk::remove(&self.folder);
        Ok(())
    }
}

impl Journal {
    pub fn index_changes(&self) -> Vec<IndexChange> {
        let moved = self.moved.iter().map(|(from, to)| IndexChange::Move {
            from: from.clone(),
            to: to.clone(),
        });
        let removed = self
            .removed
            .iter()
            .map(|path| IndexChange::Remove { path: path.clone() });
        moved.chain(removed).collect()
    }

    /// Fails if a step would change something outside of the project: the file may come from somebody
    /// else, in a repository that was cloned.
    fn verify(&self, project: &Path) -> Result<(), Error> {
        for path in self.steps.iter().flat_map(Step::paths) {
            let is_own = below(path, FOLDER).is_some_and(|rest| !rest.is_empty());
            if !(is_own || path == KEPT) || path.split('/').any(|name| name == "..") {
                is_inside(path)?;
            }
            has_no_link(project, path)?;
        }
        Ok(())
    }

    /// Makes all steps.
    pub fn make(&self, project: &Path) -> Result<(), Error> {
        self.steps.iter().try_for_each(|step| step.make(project))
    }

    /// Takes back the steps that were made, the last one first. Returns the files that somebody has
    /// changed since; they stay.
    pub fn undo(&self, project: &Path) -> Result<Vec<String>, Error> {
        let mut kept = Vec::new();
        for step in self.steps.iter().rev() {
            step.undo(project, &mut kept)
                .map_err(|(path, error)| Error::Stuck {
                    command: self.command.clone(),
                    path,
                    reason: error.to_string(),
                })?;
        }
        Ok(kept)
    }
}

type UndoResult = Result<(), (PathBuf, std::io::Error)>;

impl Step {
    /// All paths of the step.
    fn paths(&self) -> Vec<&str> {
        match self {
            Self::MakeFolder { path } | Self::RemoveEmptyFolder { path } => vec![path],
            Self::Rename { from, to } => vec![from, to],
            Self::Create { path, staged, .. } => vec![path, staged],
            Self::Replace {
                path,
                staged,
                backup,
                ..
            } => vec![path, staged, backup],
        }
    }

    fn make(&self, project: &Path) -> Result<(), Error> {
        let at = |path: &str| project.join(path);
        match self {
            Self::MakeFolder { path } => {
                std::fs::create_dir(at(path)).map_err(failed("create", &at(path)))
            }
            Self::Rename { from, to } => {
                rename_new(&at(from), &at(to)).map_err(failed("move", &at(from)))
            }
            Self::Create { path, staged, .. } => {
                rename_new(&at(staged), &at(path)).map_err(failed("create", &at(path)))
            }
            Self::Replace { path, staged, .. } => {
                std::fs::rename(at(staged), at(path)).map_err(failed("replace", &at(path)))
            }
            Self::RemoveEmptyFolder { path } => match std::fs::remove_dir(at(path)) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound
                    ) =>
                {
                    Err(failed("remove", &at(path))(error))
                }
                _ => Ok(()),
            },
        }
    }

    fn undo(&self, project: &Path, kept: &mut Vec<String>) -> UndoResult {
        let at = |path: &str| project.join(path);
        let is_there = |path: &str| at(path).symlink_metadata().is_ok();
        let undone = |path: &str, result: std::io::Result<()>| result.map_err(|it| (at(path), it));
        match self {
            Self::MakeFolder { path } => {
                // A folder in which somebody has made a file since stays.
                let _ = std::fs::remove_dir(at(path));
                Ok(())
            }
            Self::Rename { from, to } if is_there(to) => {
                // Somebody may have made the path again. An empty folder has nothing to lose.
                let _ = std::fs::remove_dir(at(from));
                if !is_there(from) {
                    return undone(to, rename_new(&at(to), &at(from)));
                }
                let stays = stays_at(project, to);
                if stays != *to {
                    let parent = project.join(KEPT);
                    undone(KEPT, std::fs::create_dir_all(parent))?;
                    undone(to, rename_new(&at(to), &at(&stays)))?;
                }
                kept.push(format!(
                    "`{from}`, which was made again; its content before the edit is in `{stays}`"
                ));
                Ok(())
            }
            Self::Create { path, staged, id } if !is_there(staged) && is_there(path) => {
                if is_content(&at(path), *id) {
                    return undone(path, disk::remove_file(&at(path)));
                }
                kept.push(format!("`{path}`"));
                Ok(())
            }
            Self::Replace {
                path,
                staged,
                backup,
                id,
            } if !is_there(staged) && is_there(backup) => {
                if is_content(&at(path), *id) {
                    return undone(path, std::fs::rename(at(backup), at(path)));
                }
                let stays = stays_at(project, backup);
                undone(KEPT, std::fs::create_dir_all(project.join(KEPT)))?;
                undone(backup, std::fs::rename(at(backup), at(&stays)))?;
                kept.push(format!(
                    "`{path}`, which was changed; its content before the edit is in `{stays}`"
                ));
                Ok(())
            }
            Self::RemoveEmptyFolder { path } => match std::fs::create_dir(at(path)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err((at(path), error)),
                _ => Ok(()),
            },
            Self::Rename { .. } | Self::Create { .. } | Self::Replace { .. } => Ok(()),
        }
    }
}

/// Where something that cannot be moved back stays: not in the folder of the journal, which is removed.
fn stays_at(project: &Path, path: &str) -> String {
    if below(path, FOLDER).is_none() {
        return path.to_owned();
    }
    let names = (1_u32..).map(|number| format!("{KEPT}/recovered-{number}"));
    let mut free = names.filter(|name| project.join(name).symlink_metadata().is_err());
    free.next().unwrap_or_else(|| path.to_owned())
}

/// Whether the file has this content; for a link, this target.
fn is_content(path: &Path, id: ContentId) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    match std::fs::read_link(path) {
        Ok(target) => ContentId::of(target.as_os_str().as_bytes()) == id,
        Err(_) => ContentId::of_file(path).is_ok_and(|now| now == id),
    }
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        doing,
        path: path.clone(),
        source,
    }
}
