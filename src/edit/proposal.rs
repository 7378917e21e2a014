//! An edit with everything that the user has to know before it is made.

use std::path::Path;
use std::sync::Arc;

use super::change::{Change, TreeEdit};
use super::simulation::EditedFiles;
use super::{ConfigText, Error};
use crate::compare::{Impact, ImpactSide, impact};
use crate::config::{FILE, Project};
use crate::files::{DiskFiles, FileTree};
use crate::git::Repository;
use crate::overlay::{Composer, LayerReader, Owner};
use crate::store::{Store, StoreId};

/// An edit, the project after it, and what it means.
#[derive(Debug, Clone)]
pub struct EditProposal {
    /// The changes.
    pub edit: TreeEdit,
    /// The project afterwards.
    pub after: Project,
    /// What it does to the compositions of stores.
    pub impact: Impact,
    /// Files that no other layer has, relative to the project. Only for a removal.
    pub only_here: Vec<String>,
    /// What the edit leaves behind, on this machine and elsewhere.
    pub left_behind: Vec<String>,
    /// What the user has to know or to check.
    pub notes: Vec<String>,
    /// What to do after the edit.
    pub next: Vec<String>,
    /// Paths that alokai made and that mean nothing afterwards, relative to the project.
    pub outdated: Vec<String>,
}

impl EditProposal {
    /// Simulates the edit of a project: reads the project afterwards, and compares the compositions of
    /// the stores `ids` and of their descendants. `former` gives the id that a store has now.
    pub fn new(
        project: &Project,
        edit: TreeEdit,
        ids: &[StoreId],
        former: &dyn Fn(&StoreId) -> StoreId,
    ) -> Result<Self, Error> {
        edit.verify(&project.root)?;
        let root = project.root.canonicalize().map_err(|source| Error::Io {
            doing: "read",
            path: project.root.clone(),
            source,
        })?;
        let files: Arc<dyn FileTree> =
            Arc::new(EditedFiles::new(&root, &edit, Arc::new(DiskFiles)));
        let after = Project::load_from(&*files, &root).map_err(|error| Error::Invalid {
            command: edit.command.clone(),
            causes: vec![error],
        })?;
        let repository = Repository::around(&root)?;
        let reader = || LayerReader::new(&root, repository.as_ref());
        let now = reader()?;
        let simulated = reader()?.simulating(files);
        let sides = [(project, &now), (&after, &simulated)]
            .map(|(project, reader)| ImpactSide { project, reader });
        let impact =
            impact(&sides[0], &sides[1], ids, former)?.map_err(|error| Error::Uncomposable {
                command: edit.command.clone(),
                causes: vec![error],
            })?;
        let [before, then] = &sides;
        if let Some(path) = revealed(before, then, ids, former)? {
            return Err(Error::Option {
                message: format!(
                    "git ignores `{}` now, and no rule ignores it in the new place",
                    path.escape_debug()
                ),
                help: "add a rule for the new place to `.gitignore` first, or remove the file; otherwise the next commit and the next image would have it".into(),
            });
        }
        Ok(Self {
            edit,
            impact,
            after,
            only_here: Vec::new(),
            left_behind: Vec::new(),
            notes: Vec::new(),
            next: Vec::new(),
            outdated: Vec::new(),
        })
    }
}

/// A file of the stores `ids`, or of their descendants, that git ignores only before the change.
fn revealed(
    before: &ImpactSide,
    after: &ImpactSide,
    ids: &[StoreId],
    former: &dyn Fn(&StoreId) -> StoreId,
) -> Result<Option<String>, Error> {
    let stores = after.project.stores.iter();
    let pairs = stores.filter_map(|new| {
        let lineage = after.project.stores.lineage(new);
        let is_moved = lineage.iter().any(|link| ids.contains(&link.id));
        let old = before.project.stores.get(former(&new.id).as_str());
        old.filter(|_| is_moved).map(|old| (old, new))
    });
    let (old, new): (Vec<_>, Vec<_>) = pairs.unzip();
    let layers = |side: &ImpactSide, stores: &[&Store]| {
        let composer = Composer::new(side.project, side.reader);
        composer
            .layers(stores, |_, _| None)
            .map(|(layers, _)| layers)
    };
    let (now, then) = (layers(before, &old)?, layers(after, &new)?);
    for (old, new) in old.into_iter().zip(new) {
        for app in &new.apps {
            let own = |store: &Store| (Owner::Store(store.id.clone()), app.clone());
            let (old_owner, new_owner) = (own(old).0, own(new).0);
            let known = now.get(&old_owner, app);
            let Some(later) = then.get(&new_owner, app) else {
                continue;
            };
            let mut paths = later.files.keys();
            let is_known = |path: &str| known.is_some_and(|it| it.files.contains_key(path));
            if let Some(path) = paths.find(|path| !is_known(path)) {
                let folder = old.folder_of(app).unwrap_or_default();
                return Ok(Some(format!("{folder}/{path}")));
            }
        }
    }
    Ok(None)
}

/// The config of a project, and its text after some changes.
pub struct ConfigEdit {
    old: String,
    text: ConfigText,
}

impl ConfigEdit {
    /// Reads the config.
    pub fn read(project: &Path) -> Result<Self, Error> {
        let path = project.join(FILE);
        let old = std::fs::read_to_string(&path).map_err(|source| Error::Io {
            doing: "read",
            path,
            source,
        })?;
        let text = ConfigText::parse(&old)?;
        Ok(Self { old, text })
    }

    /// The text to change.
    pub fn text(&self) -> &ConfigText {
        &self.text
    }

    /// The change of the file; `None` if the text is the same.
    pub fn change(self) -> Option<Change> {
        let new = self.text.text();
        (new != self.old).then(|| Change::Write {
            path: FILE.to_owned(),
            old: Some(self.old.into_bytes()),
            new: super::NewContent::text(new),
        })
    }
}

/// The same id before and after.
pub fn same_id(id: &StoreId) -> StoreId {
    id.clone()
}
