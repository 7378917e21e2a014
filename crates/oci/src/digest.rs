//! Digests: what content is known by.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256, SHA512};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What digests are made with. The specification registers these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The digest of some content, written `sha256:` and 64 lower-case hexadecimal digits, or `sha512:`
/// and 128. What is made here is SHA-256; others name content by either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// Zeros behind the shorter one.
    bytes: [u8; 64],
}

impl Digest {
    /// The SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.end()
    }

    /// The digest of these bytes by this one's algorithm.
    #[must_use]
    pub fn like(&self, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::like(self);
        hasher.update(bytes);
        hasher.end()
    }

    /// The digits alone, as a blob's file is called.
    pub fn hex(&self) -> String {
        let name = self.algorithm.name();
        self.to_string().split_off(name.len() + 1)
    }

    /// The folder of a layout in which blobs with such digests lie: `blobs/sha256`.
    pub fn folder(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Sha256 => "blobs/sha256",
            Algorithm::Sha512 => "blobs/sha512",
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm.name())?;
        let mut bytes = self.bytes[..self.algorithm.bytes()].iter();
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{}` is not a sha256 or sha512 digest", text.escape_debug());
        let (name, digits) = text.split_once(':').ok_or_else(wrong)?;
        let mut algorithms = Algorithm::ALL.into_iter();
        let algorithm = algorithms.find(|algorithm| algorithm.name() == name);
        let algorithm = algorithm.ok_or_else(wrong)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 2 * algorithm.bytes() || !digits.bytes().all(is_digit) {
            return Err(wrong());
        }
        let mut bytes = [0; 64];
        for (position, byte) in bytes[..algorithm.bytes()].iter_mut().enumerate() {
            let digits = &digits[2 * position..2 * position + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self { algorithm, bytes })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Makes the digest of content that comes in pieces.
pub struct Hasher {
    algorithm: Algorithm,
    context: Context,
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Algorithm::Sha256)
    }
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        let context = Context::new(match algorithm {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha512 => &SHA512,
        });
        Self { algorithm, context }
    }

    /// For content that is to be compared with this digest.
    pub fn like(digest: &Digest) -> Self {
        Self::new(digest.algorithm)
    }

    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of everything taken.
    pub fn end(self) -> Digest {
        let made = self.context.finish();
        let mut bytes = [0; 64];
        bytes[..made.as_ref().len()].copy_from_slice(made.as_ref());
        Digest {
            algorithm: self.algorithm,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn a_digest_is_what_it_is_written_as() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        assert_eq!(Digest::of(b"").hex(), empty[7..]);
        // As `sha512sum` prints it.
        let longer = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
            47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
        let parsed: Digest = longer.parse().unwrap();
        assert_eq!(parsed.to_string(), longer);
        assert_eq!(parsed, parsed.like(b""));
        assert_eq!(parsed.hex(), longer[7..]);
        assert_ne!(parsed, Digest::of(b""));
        for wrong in [
            "",
            "sha256:",
            &empty[7..],
            &empty.to_uppercase(),
            "sha512:00",
            &longer.replace("sha512", "sha256"),
            &empty.replace("sha256", "sha512"),
            &longer.replace("sha512", "sha384"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
