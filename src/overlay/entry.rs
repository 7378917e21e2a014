//! One path of a composition: who gives it, and what it becomes on its way.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::Error;
use super::content::ContentId;
use super::layer::{ContentSource, FileKind, LayerFile};
use super::merge::MergedPath;
use super::rewrite;
use crate::disk::Stamp;
use crate::git::GitObjects;
use crate::store::UnitId;

/// Files that always come from the base app and cannot be dropped.
pub(super) const FROM_BASE: [&str; 2] = ["package.json", "tsconfig.json"];

/// Whether the file always comes from the base app.
pub fn is_from_base(path: &str) -> bool {
    FROM_BASE.contains(&path)
}

/// One path of a composition. There are very many: a file that comes as it is shares its
/// layer's.
#[derive(Debug, Clone)]
pub struct Entry {
    winner: u16,
    hidden: Box<[u16]>,
    file: Arc<LayerFile>,
    edited: Option<Arc<EditedFile>>,
}

/// A file that is edited on its way.
#[derive(Debug)]
pub(super) struct EditedFile {
    id: ContentId,
    text: String,
}

/// Where a composed file's content comes from.
#[derive(Debug, Clone, Copy)]
pub enum EntryContent<'a> {
    /// Copied from this file.
    Copy(&'a Arc<Path>, Stamp),
    /// The blob with the entry's id, when composed from a commit.
    Blob(&'a GitObjects),
    /// Edited on its way.
    Text(&'a str),
    /// A link; its target is in the entry's kind.
    Link,
}

impl Entry {
    /// What a unit has at a path. `folder` is the base app's, for messages.
    pub(super) fn new(
        unit: &UnitId,
        path: &str,
        merged: MergedPath,
        edits: &BaseEdits,
        folder: &Path,
    ) -> Result<Self, Error> {
        // A path has far fewer folders above it than layers can be counted in 16 bits.
        #[expect(clippy::cast_possible_truncation, reason = "there are few layers")]
        let narrow = |layer: usize| layer as u16;
        Ok(Self {
            winner: narrow(merged.winner),
            hidden: merged.hidden.into_iter().map(narrow).collect(),
            edited: edited(unit, path, merged.file, edits, || folder.join(path))?,
            file: Arc::clone(merged.file),
        })
    }

    /// A unit's `package.json` under another name.
    pub fn renamed(&self, name: &str) -> Result<Self, String> {
        let Some(edited) = &self.edited else {
            return Ok(self.clone());
        };
        let (bom, json) = edited
            .text
            .split_at(if edited.text.starts_with('\u{feff}') {
                3
            } else {
                0
            });
        let text = rewrite::PackageJsonTemplate::new(json)?
            .after(bom)
            .named(name);
        let id = ContentId::of(text.as_bytes());
        Ok(Self {
            edited: Some(Arc::new(EditedFile { id, text })),
            ..self.clone()
        })
    }

    /// Index of the layer that gives it.
    pub fn winner(&self) -> usize {
        usize::from(self.winner)
    }

    /// Indices of the layers that it hides, outermost first.
    pub fn hidden(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.hidden.iter().map(|layer| usize::from(*layer))
    }

    /// File or link.
    pub fn kind(&self) -> &FileKind {
        &self.file.kind
    }

    /// Identity of the composed content.
    pub fn id(&self) -> ContentId {
        self.edited
            .as_ref()
            .map_or(self.file.id, |edited| edited.id)
    }

    /// Identity of the content before it was edited on its way, which takes no store's name in.
    pub fn source_id(&self) -> ContentId {
        self.file.id
    }

    /// Where the content comes from.
    pub fn body(&self) -> EntryContent<'_> {
        match (&self.edited, &self.file.source) {
            (Some(edited), _) => EntryContent::Text(&edited.text),
            (None, ContentSource::Disk(path, stamp)) => EntryContent::Copy(path, *stamp),
            (None, ContentSource::Blob(objects) | ContentSource::Stored(objects, _)) => {
                EntryContent::Blob(objects)
            }
            (None, ContentSource::Link) => EntryContent::Link,
        }
    }

    /// The composed content; a link's target.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        match &self.edited {
            Some(edited) => Ok(edited.text.as_bytes().to_vec()),
            None => self.file.read(),
        }
    }

    /// How long the composed content is, in bytes, without reading it.
    pub fn size(&self) -> std::io::Result<u64> {
        match (self.body(), self.kind()) {
            (EntryContent::Copy(_, stamp), _) => Ok(stamp.size),
            (EntryContent::Text(text), _) => Ok(text.len() as u64),
            (EntryContent::Blob(objects), FileKind::File { .. }) => objects.size(self.id().oid()),
            (_, FileKind::Link { target }) => Ok(target.len() as u64),
            (EntryContent::Link, FileKind::File { .. }) => Ok(0),
        }
    }

    /// Git's mode of it, in octal.
    pub fn mode(&self) -> &'static str {
        self.file.mode()
    }

    /// Whether both give the same content in the same way.
    pub fn is_like(&self, other: &Self) -> bool {
        self.id() == other.id() && self.kind() == other.kind()
    }
}

/// Base files that are edited on their way, by where they lie in memory: each is parsed once,
/// however many units take it.
pub(super) type BaseEdits = RwLock<HashMap<usize, Arc<BaseEdit>>>;

/// What comes of a base file.
#[derive(Debug)]
pub(super) enum BaseEdit {
    /// Another text for each unit.
    Package(rewrite::PackageJsonTemplate),
    /// The same for all.
    Same(Arc<EditedFile>),
}

/// The edited text of a file that is edited on its way. `place` is where the file lies, for
/// messages.
fn edited(
    unit: &UnitId,
    path: &str,
    file: &Arc<LayerFile>,
    edits: &BaseEdits,
    place: impl FnOnce() -> PathBuf,
) -> Result<Option<Arc<EditedFile>>, Error> {
    if !is_from_base(path) || matches!(file.kind, FileKind::Link { .. }) {
        return Ok(None);
    }
    let key = Arc::as_ptr(file).addr();
    let known = {
        let edits = edits.read().unwrap_or_else(PoisonError::into_inner);
        edits.get(&key).cloned()
    };
    let edit = if let Some(edit) = known {
        edit
    } else {
        let edit = Arc::new(edit(path, file, &place())?);
        let mut edits = edits.write().unwrap_or_else(PoisonError::into_inner);
        edits.insert(key, Arc::clone(&edit));
        edit
    };
    Ok(Some(match &*edit {
        BaseEdit::Package(package) => {
            let text = package.named(&unit.package_name());
            let id = ContentId::of(text.as_bytes());
            Arc::new(EditedFile { id, text })
        }
        BaseEdit::Same(edited) => Arc::clone(edited),
    }))
}

fn edit(path: &str, file: &LayerFile, place: &Path) -> Result<BaseEdit, Error> {
    let text = file.read().map_err(|source| Error::Read {
        path: place.to_owned(),
        source,
    })?;
    let edit = |text: &str| {
        // A BOM is no JSON; it stays in front, as everything else stays.
        let (bom, json) = text.split_at(if text.starts_with('\u{feff}') { 3 } else { 0 });
        if path == "package.json" {
            let package = rewrite::PackageJsonTemplate::new(json)?;
            return Ok(BaseEdit::Package(package.after(bom)));
        }
        let text = format!("{bom}{}", rewrite::tsconfig_json(json)?);
        let id = ContentId::of(text.as_bytes());
        Ok(BaseEdit::Same(Arc::new(EditedFile { id, text })))
    };
    std::str::from_utf8(&text)
        .map_err(|_| "it is not valid UTF-8".to_owned())
        .and_then(edit)
        .map_err(|reason| Error::Rewrite {
            path: place.to_owned(),
            reason,
        })
}
