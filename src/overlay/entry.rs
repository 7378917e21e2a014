//! One path of a composition: the layer that gives it, and its composed content.

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

/// Files that always come from the base app. No rule can drop them.
pub(super) const FROM_BASE: [&str; 2] = ["package.json", "tsconfig.json"];

/// Whether the file always comes from the base app.
pub fn is_from_base(path: &str) -> bool {
    FROM_BASE.contains(&path)
}

/// One path of a composition. A large project has hundreds of thousands of them, so an entry
/// shares its layer's file.
#[derive(Debug, Clone)]
pub struct Entry {
    winner: u16,
    hidden: Box<[u16]>,
    file: Arc<LayerFile>,
    edited: Option<Arc<EditedFile>>,
}

/// The composed content of a file that is edited (`package.json`, `tsconfig.json`).
#[derive(Debug)]
pub(super) struct EditedFile {
    id: ContentId,
    text: String,
}

/// Where the content of a composed file comes from.
#[derive(Debug, Clone, Copy)]
pub enum EntryContent<'a> {
    /// This file of the working tree, with its stamp when the layer was read.
    Copy(&'a Arc<Path>, Stamp),
    /// The git blob with the entry's id.
    Blob(&'a GitObjects),
    /// This text, edited from the base app's file.
    Text(&'a str),
    /// These bytes, of a file that exists only in a simulated change.
    Memory(&'a [u8]),
    /// The entry is a link; its kind has the target.
    Link,
}

impl Entry {
    /// The entry of a unit at a path. `folder` is the base app's folder, for error messages.
    pub(super) fn new(
        unit: &UnitId,
        path: &str,
        merged: MergedPath,
        edits: &BaseEdits,
        folder: &Path,
    ) -> Result<Self, Error> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "each layer is a folder above the store's, and a path has fewer than 65,536"
        )]
        let narrow = |layer: usize| layer as u16;
        Ok(Self {
            winner: narrow(merged.winner),
            hidden: merged.hidden.into_iter().map(narrow).collect(),
            edited: edited(unit, path, merged.file, edits, || folder.join(path))?,
            file: Arc::clone(merged.file),
        })
    }

    /// The same `package.json` with another `name`. The error is the reason.
    pub fn renamed(&self, name: &str) -> Result<Self, String> {
        let Some(edited) = &self.edited else {
            return Ok(self.clone());
        };
        let (mark, json) = split_mark(&edited.text);
        let template = rewrite::PackageJsonTemplate::new(json)?;
        let text = template.with_prefix(mark).named(name);
        let id = ContentId::of(text.as_bytes());
        Ok(Self {
            edited: Some(Arc::new(EditedFile { id, text })),
            ..self.clone()
        })
    }

    /// Index of the layer that gives the file.
    pub fn winner(&self) -> usize {
        usize::from(self.winner)
    }

    /// Indices of the layers whose file is hidden, outermost first.
    pub fn hidden(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.hidden.iter().map(|layer| usize::from(*layer))
    }

    /// Whether it is a file or a link.
    pub fn kind(&self) -> &FileKind {
        &self.file.kind
    }

    /// Identity of the composed content.
    pub fn id(&self) -> ContentId {
        self.edited
            .as_ref()
            .map_or(self.file.id, |edited| edited.id)
    }

    /// Identity of the layer's content, before it is edited. It does not depend on the store's name.
    pub fn source_id(&self) -> ContentId {
        self.file.id
    }

    /// Where the composed content comes from.
    pub fn content(&self) -> EntryContent<'_> {
        match (&self.edited, &self.file.source) {
            (Some(edited), _) => EntryContent::Text(&edited.text),
            (None, ContentSource::Disk(path, stamp)) => EntryContent::Copy(path, *stamp),
            (None, ContentSource::Blob(objects) | ContentSource::Stored(objects, _)) => {
                EntryContent::Blob(objects)
            }
            (None, ContentSource::Memory(content)) => EntryContent::Memory(content),
            (None, ContentSource::Link) => EntryContent::Link,
        }
    }

    /// Reads the composed content; for a link, the target.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        match &self.edited {
            Some(edited) => Ok(edited.text.as_bytes().to_vec()),
            None => self.file.read(),
        }
    }

    /// Length of the composed content in bytes. The content is not read.
    pub fn size(&self) -> std::io::Result<u64> {
        match &self.edited {
            Some(edited) => Ok(edited.text.len() as u64),
            None => self.file.size(),
        }
    }

    /// The mode in git, in octal.
    pub fn mode(&self) -> &'static str {
        self.file.mode()
    }

    /// Whether both have the same content and kind.
    pub fn is_like(&self, other: &Self) -> bool {
        self.id() == other.id() && self.kind() == other.kind()
    }
}

/// Parsed base files, by the address of the layer's file in memory: each file is parsed once,
/// however many units have it.
pub(super) type BaseEdits = RwLock<HashMap<usize, Arc<BaseEdit>>>;

/// A parsed base file.
#[derive(Debug)]
pub(super) enum BaseEdit {
    /// `package.json`, whose text differs by unit.
    PackageJson(rewrite::PackageJsonTemplate),
    /// `tsconfig.json`, whose text is the same for every unit.
    TsconfigJson(Arc<EditedFile>),
}

/// The edited content for a unit; `None` for a file that is composed as it is. `location` is the
/// file's path, for error messages.
fn edited(
    unit: &UnitId,
    path: &str,
    file: &Arc<LayerFile>,
    edits: &BaseEdits,
    location: impl FnOnce() -> PathBuf,
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
        let edit = Arc::new(edit(path, file, &location())?);
        let mut edits = edits.write().unwrap_or_else(PoisonError::into_inner);
        edits.insert(key, Arc::clone(&edit));
        edit
    };
    Ok(Some(match &*edit {
        BaseEdit::PackageJson(package) => {
            let text = package.named(&unit.package_name());
            let id = ContentId::of(text.as_bytes());
            Arc::new(EditedFile { id, text })
        }
        BaseEdit::TsconfigJson(edited) => Arc::clone(edited),
    }))
}

/// Splits off a byte order mark, which is not JSON and stays in front of an edited text.
fn split_mark(text: &str) -> (&str, &str) {
    match text.strip_prefix('\u{feff}') {
        Some(json) => ("\u{feff}", json),
        None => ("", text),
    }
}

fn edit(path: &str, file: &LayerFile, location: &Path) -> Result<BaseEdit, Error> {
    let text = file.read().map_err(|source| Error::Read {
        path: location.to_owned(),
        source,
    })?;
    let edit = |text: &str| {
        let (mark, json) = split_mark(text);
        if path == "package.json" {
            let package = rewrite::PackageJsonTemplate::new(json)?;
            return Ok(BaseEdit::PackageJson(package.with_prefix(mark)));
        }
        let text = format!("{mark}{}", rewrite::tsconfig_json(json)?);
        let id = ContentId::of(text.as_bytes());
        Ok(BaseEdit::TsconfigJson(Arc::new(EditedFile { id, text })))
    };
    std::str::from_utf8(&text)
        .map_err(|_| "it is not valid UTF-8".to_owned())
        .and_then(edit)
        .map_err(|reason| Error::Rewrite {
            path: location.to_owned(),
            reason,
        })
}
