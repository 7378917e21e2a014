//! Keys, by which results of tasks are found.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a key. 128 bits make a collision practically impossible.
const LENGTH: usize = 16;

/// The key of a task: the first half of a SHA-256, written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; LENGTH]);

impl Key {
    /// The key of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = KeyHasher::default();
        hasher.part(bytes);
        hasher.end()
    }

    /// The key of the list of files that scripts with this key have opened.
    #[must_use]
    pub fn of_reads(self) -> Self {
        let mut hasher = KeyHasher::default();
        hasher.part(b"reads");
        hasher.part(&self.0);
        hasher.end()
    }

    /// The key completed by the files that were opened, each with the identity of its content.
    #[must_use]
    pub fn with_reads<'a>(self, reads: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut hasher = KeyHasher::default();
        hasher.part(&self.0);
        for (path, identity) in reads {
            hasher.part(path.as_bytes());
            hasher.part(identity.as_bytes());
        }
        hasher.end()
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Key {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = "a key has 32 hexadecimal digits";
        if text.len() != 2 * LENGTH || !text.is_ascii() {
            return Err(invalid);
        }
        let mut key = [0; LENGTH];
        for (position, byte) in key.iter_mut().enumerate() {
            let digits = &text[2 * position..2 * position + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid)?;
        }
        Ok(Self(key))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes parts one after another, each with its length, so that `ab`, `c` differs from `a`, `bc`.
pub struct KeyHasher(Context);

impl Default for KeyHasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl KeyHasher {
    /// Adds the next part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The key of all parts.
    pub fn end(self) -> Key {
        let digest = self.0.finish();
        let mut key = [0; LENGTH];
        for (to, from) in key.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Key(key)
    }
}

/// Identity of the files that a task wrote: paths, kinds, whether they are executable, and
/// content. Times, owners and the log are not part of it, so it is the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OutputDigest(Key);

impl fmt::Display for OutputDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Computes an [`OutputDigest`] of files in the order of their paths.
#[derive(Default)]
pub struct OutputHasher(KeyHasher);

impl OutputHasher {
    /// Adds a link.
    pub fn link(&mut self, path: &str, target: &[u8]) {
        self.0.part(b"link");
        self.0.part(path.as_bytes());
        self.0.part(target);
    }

    /// Adds a folder, without its content.
    pub fn folder(&mut self, path: &str) {
        self.0.part(b"folder");
        self.0.part(path.as_bytes());
    }

    /// Adds a file; `size` bytes of content must follow. Of the mode only the owner's right to
    /// execute counts: the rest depends on the umask.
    pub fn file(&mut self, path: &str, mode: u32, size: u64) {
        let kind: &[u8] = if mode & 0o100 == 0 {
            b"file"
        } else {
            b"program"
        };
        self.0.part(kind);
        self.0.part(path.as_bytes());
        self.0.0.update(&size.to_le_bytes());
    }

    /// Adds the next bytes of a file's content.
    pub fn content(&mut self, piece: &[u8]) {
        self.0.0.update(piece);
    }

    /// The digest of all files.
    pub fn end(self) -> OutputDigest {
        OutputDigest(self.0.end())
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, KeyHasher};

    #[test]
    fn a_key_is_parsed_from_its_text() {
        let key = Key::of(b"x");
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("é".repeat(16).parse::<Key>().is_err());
        assert!("0".repeat(31).parse::<Key>().is_err());
    }

    #[test]
    fn parts_are_kept_apart() {
        let key = |parts: &[&str]| {
            let mut hasher = KeyHasher::default();
            for part in parts {
                hasher.part(part.as_bytes());
            }
            hasher.end()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }
}
