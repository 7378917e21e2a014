//! Image layouts: images as a folder, as the OCI image specification has them
//! (`image-layout.md`), for tools such as skopeo and umoci.
//!
//! What others wrote into `index.json` is kept to the letter, also what this program does not
//! know: an entry is replaced by one of the same name, and by nothing else.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::blobs::temporary;
use super::{Blobs, Descriptor, Error, INDEX, Index, is_index, is_manifest};

/// The annotation that names an image in a layout.
pub const NAME: &str = "org.opencontainers.image.ref.name";

/// The file that makes a folder a layout.
const MARK: &str = "oci-layout";

/// The file that lists a layout's images.
const LIST: &str = "index.json";

/// What git is told about the folder.
const IGNORED: &str = ".gitignore";

/// The only version there is.
const VERSION: &str = "1.0.0";

/// An image layout on disk.
#[derive(Debug, Clone)]
pub struct Layout {
    blobs: Blobs,
    /// The list as it was last read or written, since it is parsed slowly and asked often.
    known: Arc<Mutex<Option<LoadedIndex>>>,
}

/// A list of images, and the state of the file that it was read from.
#[derive(Debug, Clone)]
struct LoadedIndex {
    stamp: IndexStamp,
    document: Arc<Value>,
    index: Arc<Index>,
}

/// What tells that `index.json` is another file: it is never written in place.
type IndexStamp = (u64, u64, i64, i64);

/// An entry of the list.
#[derive(Debug, Clone)]
pub struct IndexEntry(Value);

/// By what an entry of the list is replaced: its name, or its digest where it has no name.
#[derive(PartialEq, Eq, Hash)]
enum IndexKey {
    Name(String),
    Digest(String),
}

impl IndexKey {
    fn of(entry: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let name = text(&entry["annotations"][NAME]).map(Self::Name);
        name.or_else(|| text(&entry["digest"]).map(Self::Digest))
    }
}

impl Layout {
    /// The layout in this folder, which must be there.
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
                    "name a folder that `skopeo copy … oci:<folder>` or a build with `oci:` wrote",
                ));
            }
            read => read.map_err(Error::at("read", &path))?,
        };
        layout.check(&mark)?;
        layout.index()?;
        Ok(layout)
    }

    /// The layout in this folder, which is made if it is missing or empty.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self::of(folder);
        let folder = layout.folder();
        std::fs::create_dir_all(folder).map_err(Error::at("make the folder", folder))?;
        let mut listed = std::fs::read_dir(folder).map_err(Error::at("read", folder))?;
        // Whoever makes a layout makes this file first, so a folder in the making has it.
        if listed.next().is_some() && !folder.join(MARK).exists() {
            return Err(layout.wrong(
                "it holds other things",
                "name a folder that is empty, does not exist yet, or is a layout",
            ));
        }
        let _lock = layout.lock()?;
        let ignored = folder.join(IGNORED);
        if !ignored.exists() {
            // In a working tree it would count as a change that is in no commit.
            std::fs::write(&ignored, "*\n").map_err(Error::at("write", &ignored))?;
        }
        if !folder.join(LIST).exists() {
            let empty = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
            layout.replace(empty)?;
        }
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(Error::at("make the folder", &blobs))?;
        layout.index()?;
        Ok(layout)
    }

    fn of(folder: impl Into<PathBuf>) -> Self {
        Self {
            blobs: Blobs::new(folder),
            known: Arc::default(),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.blobs.folder()
    }

    /// What its images are made of.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// All that it lists.
    pub fn index(&self) -> Result<Arc<Index>, Error> {
        Ok(self.read()?.index)
    }

    /// What has this name: an image or an index.
    pub fn find(&self, name: &str) -> Result<Option<Descriptor>, Error> {
        let index = self.index()?;
        let is_named = |it: &&Descriptor| it.annotations.get(NAME).is_some_and(|own| own == name);
        Ok(index.manifests.iter().find(is_named).cloned())
    }

    /// The only image or index that there is, by whatever name.
    pub fn only(&self) -> Result<Descriptor, Error> {
        let mut images: Vec<Descriptor> = self.index()?.manifests.clone();
        images.retain(|listed| {
            let is_image = is_manifest(&listed.media_type) || is_index(&listed.media_type);
            is_image && listed.artifact_type.is_none()
        });
        // Several names of one image are one image.
        let first = images.first().cloned();
        match first {
            Some(only) if images.iter().all(|image| image.digest == only.digest) => Ok(only),
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

    /// Lists one image, as [`Self::put_all`] lists several.
    pub fn put(&self, name: Option<&str>, image: Descriptor) -> Result<(), Error> {
        self.put_all(&[self.listing(name, image)?])
    }

    /// How an image, whose blobs are there, will be listed.
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
        let entry = serde_json::to_value(&image);
        Ok(IndexEntry(entry.map_err(|error| self.no_index(&error))?))
    }

    /// Lists images, each in place of what had its name. One without a name is listed once. Other
    /// processes may do the same at the same time.
    pub fn put_all(&self, images: &[IndexEntry]) -> Result<(), Error> {
        let entries = images
            .iter()
            .map(|IndexEntry(entry)| (IndexKey::of(entry), Some(entry.clone())));
        let mut entries: IndexMap<_, _> = entries.collect();
        let _lock = self.lock()?;
        let mut document = Value::clone(&self.read()?.document);
        let Some(listed) = document.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(self.no_index(&"it has no `manifests`"));
        };
        // In the old place, so that the list changes where something has changed; once.
        listed.retain_mut(|other| match entries.get_mut(&IndexKey::of(other)) {
            Some(entry) => entry.take().map(|entry| *other = entry).is_some(),
            None => true,
        });
        listed.extend(entries.into_values().flatten());
        self.replace(document)
    }

    /// Takes a blob over from other blobs, if it is what its digest says: under a second name where
    /// the disk allows that, else as a copy.
    pub fn take_blob(&self, from: &Blobs, descriptor: &Descriptor) -> Result<(), Error> {
        if self.blobs.holds(descriptor) {
            return Ok(());
        }
        from.verify(descriptor)?;
        let mut source = from.open(descriptor)?;
        let temporary = self.blobs.temporary()?;
        let path = temporary.path().to_owned();
        // A link cannot take the place of the file that holds its name.
        let beside = path.with_extension("link");
        if std::fs::hard_link(from.path(&descriptor.digest), &beside).is_ok() {
            let to = self.blobs.path(&descriptor.digest);
            let renamed = std::fs::rename(&beside, &to).map_err(Error::at("write", &to));
            // Renaming one of two names of a file to the other leaves both.
            let _ = std::fs::remove_file(&beside);
            return renamed;
        }
        std::io::copy(&mut source, &mut temporary.as_file()).map_err(Error::at("write", &path))?;
        self.blobs.take(temporary, descriptor)
    }

    /// Holds other processes off until it is dropped. The file is there in every layout and never
    /// replaced.
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
            // Ours to make, or left behind so by a process that was killed.
            let text = json!({"imageLayoutVersion": VERSION}).to_string();
            let written = file.rewind().and_then(|()| file.write_all(text.as_bytes()));
            written.map_err(Error::at("write", &path))?;
        } else {
            self.check(&mark)?;
        }
        Ok(file)
    }

    /// Whether this is a version that can be read.
    fn check(&self, mark: &[u8]) -> Result<(), Error> {
        let mark: Value = serde_json::from_slice(mark).unwrap_or_default();
        match mark["imageLayoutVersion"].as_str() {
            // A later 1.x adds, and takes nothing away.
            Some(version) if version.starts_with("1.") => Ok(()),
            Some(version) => Err(self.wrong(
                &format!("it is of version `{version}`"),
                "write it with version 1.0.0, as skopeo does",
            )),
            None => Err(self.wrong(
                "its file `oci-layout` has no `imageLayoutVersion`",
                "write the layout again",
            )),
        }
    }

    fn read(&self) -> Result<LoadedIndex, Error> {
        let path = self.folder().join(LIST);
        let opened = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.wrong("it has no `index.json`", "write the layout again"));
            }
            opened => opened,
        };
        let mut file = opened.map_err(Error::at("read", &path))?;
        let stamp = stamp(&file).map_err(Error::at("read", &path))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.stamp == stamp) {
            return Ok(known.clone());
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)
            .map_err(Error::at("read", &path))?;
        let document = serde_json::from_slice(&text).map_err(|error| self.no_index(&error))?;
        let read = self.known(stamp, document)?;
        *known = Some(read.clone());
        Ok(read)
    }

    fn known(&self, stamp: IndexStamp, document: Value) -> Result<LoadedIndex, Error> {
        let index = Index::deserialize(&document).map_err(|error| self.no_index(&error))?;
        Ok(LoadedIndex {
            stamp,
            document: Arc::new(document),
            index: Arc::new(index),
        })
    }

    fn replace(&self, document: Value) -> Result<(), Error> {
        let path = self.folder().join(LIST);
        let mut file = temporary(self.folder())?;
        let written = file.write_all(document.to_string().as_bytes());
        written.map_err(Error::at("write", &path))?;
        let stamp = stamp(file.as_file()).map_err(Error::at("read", &path))?;
        let written = self.known(stamp, document)?;
        file.persist(&path)
            .map_err(|error| Error::at("write", &path)(error.error))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(written);
        Ok(())
    }

    fn wrong(&self, reason: &str, help: &str) -> Error {
        Error::Layout {
            folder: self.folder().to_owned(),
            reason: reason.to_owned(),
            help: help.to_owned(),
        }
    }

    fn no_index(&self, reason: &dyn std::fmt::Display) -> Error {
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

/// Whether the specification knows such a name: `component ("/" component)*`, where a component
/// is words of letters and digits between separators.
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
