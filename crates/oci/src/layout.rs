//! Image layouts: folders with images (`image-layout.md` of the OCI image specification), which
//! tools such as skopeo and umoci read and write.
//!
//! Unknown fields and entries of other tools in `index.json` are kept unchanged. An entry is
//! replaced only by an entry of the same name.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::collect::remove_unused;
use super::files::{persist, temporary};
use super::{
    Blobs, CollectedBlobs, Descriptor, Digest, Error, INDEX, Index, Manifest, is_index, is_manifest,
};

/// The annotation that names an image in a layout.
pub const NAME: &str = "org.opencontainers.image.ref.name";

/// The file that marks a folder as a layout.
pub(super) const MARK: &str = "oci-layout";

/// The file that lists a layout's images.
pub(super) const LIST: &str = "index.json";

/// Excludes the layout from git.
const IGNORED: &str = ".gitignore";

/// The version of the layout that is written.
pub(super) const VERSION: &str = "1.0.0";

/// An image layout on disk.
#[derive(Debug, Clone)]
pub struct Layout {
    blobs: Blobs,
    /// The last index that was read or written: a large index is slow to parse.
    known: Arc<Mutex<Option<LoadedIndex>>>,
}

/// A parsed index and the state of its file.
#[derive(Debug, Clone)]
struct LoadedIndex {
    stamp: IndexStamp,
    index: Arc<LayoutIndex>,
}

/// The index of a layout. Unlike [`crate::Index`], it keeps all that other tools have written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct LayoutIndex {
    schema_version: u32,
    #[serde(flatten)]
    other_fields: Map<String, Value>,
    #[serde(rename = "manifests")]
    entries: Vec<IndexEntry>,
}

impl LayoutIndex {
    /// The images and other documents that the index lists.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.entries.iter().map(IndexEntry::image)
    }
}

/// Inode, size and modification time of `index.json`. A writer always replaces the file, so another
/// index has another stamp.
type IndexStamp = (u64, u64, i64, i64);

/// An entry of `index.json`, with its text. An index of many images is copied and written for each change,
/// so a copy shares both, and the text is not formatted again.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    text: Arc<RawValue>,
    image: Arc<Descriptor>,
}

impl IndexEntry {
    /// The image or other document.
    pub fn image(&self) -> &Descriptor {
        &self.image
    }
}

impl Serialize for IndexEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IndexEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let image: Descriptor =
            serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
        Ok(Self {
            text: text.into(),
            image: image.into(),
        })
    }
}

/// Identifies an entry of the index: its name, or its digest if it has no name.
#[derive(PartialEq, Eq, Hash)]
enum IndexKey<'a> {
    Name(&'a str),
    Digest(&'a Digest),
}

impl<'a> IndexKey<'a> {
    fn of(image: &'a Descriptor) -> Self {
        let name = image.annotations.get(NAME);
        name.map_or(Self::Digest(&image.digest), |name| Self::Name(name))
    }
}

impl Layout {
    /// Opens an existing layout.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self::of(folder);
        let path = layout.folder().join(MARK);
        let mark = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let reason = if layout.folder().exists() {
                    "it has no file `oci-layout`"
                } else {
                    "it does not exist"
                };
                return Err(layout.wrong(
                    reason,
                    "name a folder that was written as an OCI image layout, for example by `skopeo copy … oci:<folder>`",
                ));
            }
            read => read.map_err(Error::at("read", &path))?,
        };
        layout.check(&mark)?;
        layout.index()?;
        Ok(layout)
    }

    /// Opens a layout, and creates it if the folder is missing or empty.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self::of(folder);
        let folder = layout.folder();
        std::fs::create_dir_all(folder).map_err(Error::at("create the folder", folder))?;
        let mut listed = std::fs::read_dir(folder).map_err(Error::at("read", folder))?;
        // Another process that creates the layout writes this file first.
        if listed.next().is_some() && !folder.join(MARK).exists() {
            return Err(layout.wrong(
                "it has other files",
                "name an empty folder, a folder that does not exist, or a layout",
            ));
        }
        let _lock = layout.lock()?;
        let ignored = folder.join(IGNORED);
        if !ignored.exists() {
            // In a git repository, the layout is not an uncommitted change.
            std::fs::write(&ignored, "*\n").map_err(Error::at("write", &ignored))?;
        }
        if !folder.join(LIST).exists() {
            let media_type = ("mediaType".to_owned(), INDEX.into());
            layout.replace(LayoutIndex {
                schema_version: 2,
                other_fields: Map::from_iter([media_type]),
                entries: Vec::new(),
            })?;
        }
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(Error::at("create the folder", &blobs))?;
        layout.index()?;
        Ok(layout)
    }

    fn of(folder: impl Into<PathBuf>) -> Self {
        Self {
            blobs: Blobs::new(folder),
            known: Arc::default(),
        }
    }

    /// The folder of the layout.
    pub fn folder(&self) -> &Path {
        self.blobs.folder()
    }

    /// The blobs of the layout.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The index of the layout. A file that has not changed is not parsed again.
    pub fn index(&self) -> Result<Arc<LayoutIndex>, Error> {
        let path = self.folder().join(LIST);
        let opened = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.wrong("it has no `index.json`", "write the layout again"));
            }
            opened => opened,
        };
        let mut file = opened.map_err(Error::at("read", &path))?;
        let stamp = stamp(&file).map_err(Error::at("read", &path))?;
        let mut known = self.known();
        if let Some(known) = known.as_ref().filter(|known| known.stamp == stamp) {
            return Ok(known.index.clone());
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)
            .map_err(Error::at("read", &path))?;
        let index = serde_json::from_slice(&text).map_err(|error| self.invalid_index(&error))?;
        let index = Arc::new(index);
        *known = Some(LoadedIndex {
            stamp,
            index: Arc::clone(&index),
        });
        Ok(index)
    }

    /// The image or index with this name.
    pub fn find(&self, name: &str) -> Result<Option<Descriptor>, Error> {
        let index = self.index()?;
        let is_named = |it: &&Descriptor| it.annotations.get(NAME).is_some_and(|own| own == name);
        Ok(index.images().find(is_named).cloned())
    }

    /// The only image or index of the layout. Several or none are an error.
    pub fn only(&self) -> Result<Descriptor, Error> {
        let index = self.index()?;
        let images = index.images().filter(|listed| {
            let is_image = is_manifest(&listed.media_type) || is_index(&listed.media_type);
            is_image && listed.artifact_type.is_none()
        });
        let images: Vec<&Descriptor> = images.collect();
        // An image with several names is one image.
        match images[..] {
            [only, ..] if images.iter().all(|image| image.digest == only.digest) => {
                Ok(only.clone())
            }
            _ => {
                let name = |image: &Descriptor| image.annotations.get(NAME).cloned();
                let names = images
                    .iter()
                    .map(|image| name(image).unwrap_or_else(|| image.digest.to_string()));
                Err(Error::NotOne {
                    folder: self.folder().to_owned(),
                    names: names.collect(),
                })
            }
        }
    }

    /// Adds an image to the index, like [`Self::put_all`].
    pub fn put(&self, name: Option<&str>, image: Descriptor) -> Result<(), Error> {
        self.put_all(&[self.listing(name, image)?])
    }

    /// An entry for an image, for [`Self::put_all`]. The image's manifest must be stored.
    pub fn listing(&self, name: Option<&str>, mut image: Descriptor) -> Result<IndexEntry, Error> {
        image.annotations.remove(NAME);
        if let Some(name) = name {
            if !is_name(name) {
                return Err(Error::Name {
                    name: name.to_owned(),
                });
            }
            image.annotations.insert(NAME.into(), name.into());
        }
        self.blobs.open(&image)?;
        let text = serde_json::value::to_raw_value(&image);
        let text = text.map_err(|error| self.invalid_index(&error))?;
        Ok(IndexEntry {
            text: text.into(),
            image: image.into(),
        })
    }

    /// Adds entries to the index. An entry replaces the entry with its name, or with its digest if it
    /// has no name. Other processes may do the same at the same time.
    pub fn put_all(&self, images: &[IndexEntry]) -> Result<(), Error> {
        let new = images
            .iter()
            .map(|entry| (IndexKey::of(&entry.image), entry));
        let mut new: IndexMap<_, _> = new.collect();
        let _lock = self.lock()?;
        let mut index = LayoutIndex::clone(&*self.index()?);
        // Replace at the same position, and remove further entries with the same key.
        let mut replaced = HashSet::new();
        index.entries.retain_mut(|entry| {
            let Some((position, _, image)) = new.get_full(&IndexKey::of(&entry.image)) else {
                return true;
            };
            *entry = IndexEntry::clone(image);
            replaced.insert(position)
        });
        let mut position = 0..;
        new.retain(|_, _| !replaced.contains(&position.next().unwrap_or_default()));
        index.entries.extend(new.into_values().cloned());
        self.replace(index)
    }

    /// Removes entries from the index, and returns how many. The blobs stay until [`Self::sweep`].
    /// Other processes may add entries at the same time.
    pub fn remove(&self, is_removed: impl Fn(&Descriptor) -> bool) -> Result<usize, Error> {
        let _lock = self.lock()?;
        let mut index = LayoutIndex::clone(&*self.index()?);
        let before = index.entries.len();
        index.entries.retain(|entry| !is_removed(&entry.image));
        let removed = before - index.entries.len();
        if removed > 0 {
            self.replace(index)?;
        }
        Ok(removed)
    }

    /// The blobs of an image or index that the layout does not have, with the image itself.
    pub fn missing(&self, image: &Descriptor) -> Result<Vec<Digest>, Error> {
        let mut missing = Vec::new();
        self.visit(image, &mut |blob| {
            if !self.blobs.path(&blob.digest).exists() {
                missing.push(blob.digest);
            }
        })?;
        Ok(missing)
    }

    /// Removes the blobs that no image of the index needs and that were not used for this time. A
    /// writer that has not yet added its image has used the blobs of the image.
    pub fn sweep(&self, unused_for: Duration) -> Result<CollectedBlobs, Error> {
        let _lock = self.lock()?;
        let mut needed = HashSet::new();
        for image in self.index()?.images() {
            self.visit(image, &mut |blob| {
                needed.insert(blob.digest);
            })?;
        }
        remove_unused(&self.blobs, unused_for, |digest| needed.contains(digest))
    }

    /// Visits the blobs of an image or index that exist and those that do not, the image itself first.
    fn visit(&self, image: &Descriptor, see: &mut dyn FnMut(&Descriptor)) -> Result<(), Error> {
        see(image);
        let is_document = is_manifest(&image.media_type) || is_index(&image.media_type);
        if !is_document || !self.blobs.path(&image.digest).exists() {
            return Ok(());
        }
        let bytes = self.blobs.read(image)?;
        let invalid = |error: &dyn std::fmt::Display| Error::Document {
            what: image.digest.to_string(),
            kind: "manifest",
            reason: error.to_string(),
        };
        if is_index(&image.media_type) {
            let index: Index = serde_json::from_slice(&bytes).map_err(|error| invalid(&error))?;
            let mut images = index.manifests.iter();
            return images.try_for_each(|image| self.visit(image, see));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| invalid(&error))?;
        see(&manifest.config);
        manifest.layers.iter().for_each(see);
        Ok(())
    }

    /// Copies a blob from other blobs after a check of its digest. Uses a hard link where the file
    /// system allows it.
    pub fn take_blob(&self, from: &Blobs, descriptor: &Descriptor) -> Result<(), Error> {
        if self.blobs.holds(descriptor) {
            return Ok(());
        }
        from.verify(descriptor)?;
        let mut source = from.open(descriptor)?;
        let temporary = self.blobs.temporary()?;
        let path = temporary.path().to_owned();
        // A hard link cannot replace an existing file, so it gets a temporary name first.
        let beside = path.with_extension("link");
        if std::fs::hard_link(from.path(&descriptor.digest), &beside).is_ok() {
            let to = self.blobs.path(&descriptor.digest);
            let renamed = std::fs::rename(&beside, &to).map_err(Error::at("write", &to));
            // `rename` keeps both names if they are links to the same file.
            let _ = std::fs::remove_file(&beside);
            return renamed;
        }
        std::io::copy(&mut source, &mut temporary.as_file()).map_err(Error::at("write", &path))?;
        self.blobs.take(temporary, descriptor)
    }

    /// Locks the layout for other processes until the file is dropped. The locked file exists in
    /// every layout and is never replaced.
    fn lock(&self) -> Result<File, Error> {
        let path = self.folder().join(MARK);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(Error::at("open", &path))?;
        file.lock().map_err(Error::at("lock", &path))?;
        let mut mark = Vec::new();
        let read = (&mut file).take(1 << 16).read_to_end(&mut mark);
        read.map_err(Error::at("read", &path))?;
        if mark.is_empty() {
            // The file is new, or a killed process has left it empty.
            let text = json!({"imageLayoutVersion": VERSION}).to_string();
            let written = file.rewind().and_then(|()| file.write_all(text.as_bytes()));
            written.map_err(Error::at("write", &path))?;
        } else {
            self.check(&mark)?;
        }
        Ok(file)
    }

    /// Checks the version of the layout.
    fn check(&self, mark: &[u8]) -> Result<(), Error> {
        let mark: Value = serde_json::from_slice(mark).unwrap_or_default();
        match mark["imageLayoutVersion"].as_str() {
            // Versions 1.x are backward compatible.
            Some(version) if version.starts_with("1.") => Ok(()),
            Some(version) => Err(self.wrong(
                &format!("its version `{version}` is not supported"),
                "write it with version 1.0.0, for example with skopeo",
            )),
            None => Err(self.wrong(
                "its file `oci-layout` has no `imageLayoutVersion`",
                "write the layout again",
            )),
        }
    }

    fn replace(&self, index: LayoutIndex) -> Result<(), Error> {
        let path = self.folder().join(LIST);
        let text = serde_json::to_vec(&index).map_err(|error| self.invalid_index(&error))?;
        let mut file = temporary(self.folder())?;
        file.write_all(&text).map_err(Error::at("write", &path))?;
        let stamp = stamp(file.as_file()).map_err(Error::at("read", &path))?;
        persist(file, &path)?;
        let index = Arc::new(index);
        *self.known() = Some(LoadedIndex { stamp, index });
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Option<LoadedIndex>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, reason: &str, help: &str) -> Error {
        Error::Layout {
            folder: self.folder().to_owned(),
            reason: reason.to_owned(),
            help: help.to_owned(),
        }
    }

    fn invalid_index(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::Document {
            what: self.folder().join(LIST).display().to_string(),
            kind: "image index",
            reason: reason.to_string(),
        }
    }
}

fn stamp(file: &File) -> std::io::Result<IndexStamp> {
    let metadata = file.metadata()?;
    Ok((
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

/// Whether the specification allows this name: `component ("/" component)*`, where a component is
/// words of letters and digits between separators.
fn is_name(name: &str) -> bool {
    name.split('/').all(|component| {
        let component = component.replace("--", "-");
        let mut words = component.split(|letter: char| "-._:@+".contains(letter));
        words.all(|word| !word.is_empty() && word.bytes().all(|it| it.is_ascii_alphanumeric()))
    })
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_those_of_the_specification() {
        for name in [
            "a",
            "v1.0",
            "a--b",
            "acme-us-storefrontcloud-io/vue-storefront:6ea406daada1cb8f9a323acebdb8c61c20404dd7",
            "127.0.0.1:5010/a/b:c",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "", "/a", "a/", "a//b", "-a", "a-", "a..b", "a---b", "a b", "ä", "a_-b",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
