//! Making an edit: all of its changes, or none.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;

use super::Error;
use super::change::{Change, NewContent, TreeEdit};
use super::journal::{Journal, Place, Step, VERSION, failed};
use crate::git::Repository;
use crate::overlay::{ContentId, holds_secret};

/// Makes all changes of an edit in the project, and lets git's index follow moves and removals: what
/// was tracked stays tracked under its new path. Contents are not staged.
///
/// After an error nothing is changed. The caller holds the project's lock.
pub fn apply(edit: &TreeEdit, project: &Path) -> Result<(), Error> {
    edit.verify(project)?;
    let place = Place::new(project);
    place.open()?;
    let mut plan = StepPlan::default();
    for change in &edit.changes {
        plan.add(project, change);
    }
    let journal = Journal {
        version: VERSION,
        command: edit.command.clone(),
        steps: plan.steps,
        moved: plan.moved,
        removed: plan.removed,
    };
    let repository = Repository::around(project)?;
    let index = repository
        .as_ref()
        .map(|it| it.changed_index(&journal.index_changes()))
        .transpose()?
        .flatten();
    for (path, content) in &plan.staged {
        stage(project, path, content)?;
    }
    for (path, backup) in &plan.backups {
        let file = project.join(path);
        std::fs::copy(&file, project.join(backup)).map_err(failed("read", &file))?;
    }
    place.write(&journal)?;
    let made = journal.make(project).and_then(|()| {
        place.note_made()?;
        index.map_or(Ok(()), |index| Ok(index.write()?))
    });
    if let Err(error) = made {
        let retracted = place.retract_made();
        journal.undo(project)?;
        retracted?;
        place.close()?;
        return Err(error);
    }
    // Everything is made. A journal that cannot be removed is completed by the next command.
    let _ = place.close();
    Ok(())
}

/// The steps of an edit, and the files that have to be staged for them.
#[derive(Default)]
struct StepPlan<'a> {
    steps: Vec<Step>,
    moved: Vec<(String, String)>,
    removed: Vec<String>,
    /// Paths of staged files, and what they contain.
    staged: Vec<(String, StagedContent<'a>)>,
    /// Files, and the paths of their copies.
    backups: Vec<(String, String)>,
    /// Folders that steps make.
    folders: BTreeSet<String>,
}

struct StagedContent<'a> {
    content: &'a NewContent,
    /// The file that is replaced, whose permissions stay.
    replaced: Option<&'a str>,
    /// Whether the file may have secrets, so that only its owner may read it.
    is_secret: bool,
}

impl<'a> StepPlan<'a> {
    fn add(&mut self, project: &Path, change: &'a Change) {
        match change {
            Change::MakeFolder { path } => self.make_folder(project, path),
            Change::Move { from, to } => {
                self.make_parents(project, to);
                self.moved.push((from.clone(), to.clone()));
                self.rename(from, to.clone());
            }
            Change::Remove { path, keep } => {
                let to = if let Some(keep) = keep {
                    self.make_parents(project, keep);
                    keep.clone()
                } else {
                    Place::name("removed", self.steps.len())
                };
                self.removed.push(path.clone());
                self.rename(path, to);
            }
            Change::RemoveEmptyFolder { path } => {
                self.steps
                    .push(Step::RemoveEmptyFolder { path: path.clone() });
            }
            Change::Write { path, old, new } => {
                self.make_parents(project, path);
                let number = self.steps.len();
                let id = ContentId::of(new.bytes());
                let staged = Place::name("new", number);
                let content = StagedContent {
                    content: new,
                    replaced: old.as_ref().map(|_| path.as_str()),
                    is_secret: is_secret(path),
                };
                self.staged.push((staged.clone(), content));
                let path = path.clone();
                self.steps.push(if old.is_some() {
                    let backup = Place::name("old", number);
                    self.backups.push((path.clone(), backup.clone()));
                    Step::Replace {
                        path,
                        staged,
                        backup,
                        id,
                    }
                } else {
                    Step::Create { path, staged, id }
                });
            }
        }
    }

    fn rename(&mut self, from: &str, to: String) {
        let from = from.to_owned();
        self.steps.push(Step::Rename { from, to });
    }

    fn make_parents(&mut self, project: &Path, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.make_folder(project, parent);
        }
    }

    /// Makes a folder and those above it, unless they exist or an earlier step makes them.
    fn make_folder(&mut self, project: &Path, folder: &str) {
        if self.folders.contains(folder) || project.join(folder).is_dir() {
            return;
        }
        self.make_parents(project, folder);
        self.folders.insert(folder.to_owned());
        self.steps.push(Step::MakeFolder {
            path: folder.to_owned(),
        });
    }
}

/// Whether the file may have secrets, by its name.
fn is_secret(path: &str) -> bool {
    holds_secret(path.rsplit('/').next().unwrap_or_default())
}

/// Writes a file under its temporary name.
fn stage(project: &Path, path: &str, staged: &StagedContent) -> Result<(), Error> {
    let path = project.join(path);
    let failed = failed("write", &path);
    let (bytes, executable) = match staged.content {
        NewContent::Link { target } => return symlink(target, &path).map_err(failed),
        NewContent::File { bytes, executable } => (bytes, *executable),
    };
    let mode = match (staged.is_secret, executable) {
        (true, _) => 0o600,
        (false, true) => 0o777,
        (false, false) => 0o666,
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(&path).map_err(&failed)?;
    file.write_all(bytes).map_err(&failed)?;
    if let Some(replaced) = staged.replaced {
        let replaced = project.join(replaced).metadata().map_err(&failed)?;
        file.set_permissions(replaced.permissions())
            .map_err(&failed)?;
    }
    Ok(())
}
