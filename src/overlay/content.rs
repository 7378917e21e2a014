//! The identity of content: its git blob id. A file whose id the git index has is not read.

use std::fmt;
use std::path::Path;

use git2::{ObjectType, Oid};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A git blob id: SHA-1 of `blob <length>\0` and the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(Oid);

impl ContentId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        // Hashing fails only for object types that cannot be stored; a blob can be.
        Self(Oid::hash_object(ObjectType::Blob, bytes).unwrap_or(Oid::ZERO_SHA1))
    }

    /// The id of a file's content. The file is read in pieces.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        let failed = |error: git2::Error| {
            // libgit2 drops the system's error number. Opening the file again gives it.
            match std::fs::File::open(path) {
                Err(error) => error,
                Ok(_) => std::io::Error::other(error),
            }
        };
        Oid::hash_file(ObjectType::Blob, path)
            .map(Self)
            .map_err(failed)
    }

    /// The id as libgit2's type.
    pub fn oid(self) -> Oid {
        self.0
    }

    /// The first `digits` hexadecimal digits.
    pub fn short(&self, digits: usize) -> String {
        let mut text = self.0.to_string();
        text.truncate(digits);
        text
    }
}

impl From<Oid> for ContentId {
    fn from(id: Oid) -> Self {
        Self(id)
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Hexadecimal)
    }
}

/// Parses an id without allocating a string: a store's manifest has one id a file.
struct Hexadecimal;

impl Visitor<'_> for Hexadecimal {
    type Value = ContentId;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a git object id")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ContentId, E> {
        Oid::from_str(text).map(ContentId).map_err(E::custom)
    }
}

impl Serialize for ContentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
