//! A result as it goes to other machines: its archive, with its entry in a skippable frame of
//! zstd in front (RFC 8878, section 3.1.2), so that whatever reads tar and zstd reads the rest.
//! What comes is checked as a whole, signature and every path, before the cache takes it.

use std::io::Read;

use ring::hmac;
use subtle::ConstantTimeEq;

use super::{CachedResult, Error, Key, archive, is_digest};

/// What a skippable frame of zstd begins with, as it lies in the file.
const FRAME: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();

/// Bytes that an entry in front of an archive may have. A list of reads is long.
const LONGEST_ENTRY: usize = 1024 * 1024;

/// What the signature of a body of that length begins with, as turbo signs since the middle of
/// 2026: each part after its length, the team by its id.
pub fn signature(secret: &str, team: &str, key: Key, length: u64) -> hmac::Context {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&secret);
    for part in ["artifact-signature:v2", &key.to_string(), team] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    context.update(&length.to_le_bytes());
    context
}

/// The entry as a frame that readers of zstd skip.
pub fn front(entry: &CachedResult) -> Result<Vec<u8>, Error> {
    let failed = |error: serde_json::Error| Error::Unfit {
        reason: error.to_string(),
    };
    let text = serde_json::to_vec(entry).map_err(failed)?;
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    Ok([&FRAME[..], &length.to_le_bytes(), &text].concat())
}

/// What is no artifact of this program.
pub fn not_ours() -> Error {
    damaged("it is not one of ours")
}

fn damaged(reason: &str) -> Error {
    Error::Damaged {
        reason: reason.into(),
    }
}

/// The entry in front of an archive and where it ends, once all of it is there.
pub fn in_front(body: &[u8]) -> Result<Option<(CachedResult, usize)>, Error> {
    let Some((front, rest)) = body.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let (magic, length) = front.split_at(4);
    let length = length
        .iter()
        .rev()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    if magic != FRAME || length > LONGEST_ENTRY {
        return Err(not_ours());
    }
    let Some(text) = rest.get(..length) else {
        return Ok(None);
    };
    let entry: CachedResult = serde_json::from_slice(text).map_err(|_| not_ours())?;
    if !is_digest(&entry.blob) {
        return Err(not_ours());
    }
    Ok(Some((entry, front.len() + length)))
}

/// Whether a downloaded archive has the signature, and is what its entry says, every path in it
/// included. Only then the cache may have it: what is found damaged later has let tasks be left
/// out that a build needs.
pub fn check(
    archive: &tempfile::NamedTempFile,
    entry: &CachedResult,
    signature: Option<(hmac::Context, Vec<u8>)>,
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
            return Err(damaged("its signature is missing or wrong"));
        }
    }
    let file = archive.reopen().map_err(failed())?;
    archive::check(file, &entry.expected())
}
