//! A result in the format of a remote cache: its archive, with its entry in front in a skippable
//! frame of zstd (RFC 8878, section 3.1.2), so that every reader of tar and zstd reads the archive.
//! A downloaded artifact is verified, its signature and each path, before the cache gets it.

use std::io::Read;

use ring::hmac;
use subtle::ConstantTimeEq;

use super::{CachedResult, Error, Key, archive};

/// The magic number of a skippable frame of zstd, in the byte order of the file.
const FRAME: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();

/// Bytes of the longest entry in front of an archive. A list of reads is long.
const LONGEST_ENTRY: usize = 1024 * 1024;

/// The signature of an artifact, made of its bytes as they come.
pub struct Signature(hmac::Context);

impl Signature {
    /// Starts the signature of an artifact of this length, in turbo's format of mid-2026: each part
    /// follows its own length, and the team is named by its id.
    pub fn new(secret: &str, team: &str, key: Key, length: u64) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut context = hmac::Context::with_key(&secret);
        for part in ["artifact-signature:v2", &key.to_string(), team] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        context.update(&length.to_le_bytes());
        Self(context)
    }

    /// Adds the next bytes of the artifact.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The signature's bytes.
    pub fn sign(self) -> impl AsRef<[u8]> {
        self.0.sign()
    }
}

/// The entry as a frame that readers of zstd skip.
pub fn front(entry: &CachedResult) -> Result<Vec<u8>, Error> {
    let failed = |error: serde_json::Error| Error::NotCacheable {
        reason: error.to_string(),
    };
    let text = serde_json::to_vec(entry).map_err(failed)?;
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    Ok([&FRAME[..], &length.to_le_bytes(), &text].concat())
}

/// The error for an artifact of another program.
pub fn unknown_format() -> Error {
    invalid("its format is not known")
}

fn invalid(reason: &str) -> Error {
    Error::Invalid {
        reason: reason.into(),
    }
}

/// The entry in front of an archive and where it ends; `None` until all of it was received.
pub fn parse_front(body: &[u8]) -> Result<Option<(CachedResult, usize)>, Error> {
    let Some((front, rest)) = body.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let (magic, length) = front.split_at(4);
    let length = length
        .iter()
        .rev()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    if magic != FRAME || length > LONGEST_ENTRY {
        return Err(unknown_format());
    }
    let Some(text) = rest.get(..length) else {
        return Ok(None);
    };
    let entry: CachedResult = serde_json::from_slice(text).map_err(|_| unknown_format())?;
    Ok(Some((entry, front.len() + length)))
}

/// Verifies the signature of a downloaded archive, and that it matches its entry in every path. The
/// cache must not get it before: tasks would be skipped for a result that turns out to be invalid.
pub fn verify(
    archive: &tempfile::NamedTempFile,
    entry: &CachedResult,
    signature: Option<(Signature, Vec<u8>)>,
) -> Result<(), Error> {
    let failed = || Error::at("read", archive.path());
    if let Some((mut signature, tag)) = signature {
        let mut file = archive.reopen().map_err(failed())?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut buffer).map_err(failed())?;
            if read == 0 {
                break;
            }
            signature.update(&buffer[..read]);
        }
        if !bool::from(signature.sign().as_ref().ct_eq(&tag)) {
            return Err(invalid("its signature is missing or wrong"));
        }
    }
    let file = archive.reopen().map_err(failed())?;
    archive::verify(file, &entry.expected())
}
