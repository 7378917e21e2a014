//! Artifacts of the remote cache: their signature, and hostile ones.

use std::io::Read;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac};
use serde_json::Value;

use super::{KEY, TEAM};
use crate::support::{RemoteCache, output_of};

/// The tag that turbo computes for a body, by an independent implementation.
pub fn tag(key: &str, hash: &str, team: &str, body: &std::path::Path) -> String {
    const SCRIPT: &str = "
        const [key, hash, team, body] = process.argv.slice(1);
        const hmac = require('crypto').createHmac('sha256', key);
        for (const part of ['artifact-signature:v2', hash, team, require('fs').readFileSync(body)]) {
          const length = Buffer.alloc(8);
          length.writeBigUInt64LE(BigInt(Buffer.byteLength(part)));
          hmac.update(length).update(part);
        }
        process.stdout.write(hmac.digest('base64'));";
    let mut node = Command::new("node");
    output_of(node.args(["-e", SCRIPT, key, hash, team]).arg(body))
}

/// An artifact: the entry in front of the archive.
pub fn artifact(body: &[u8]) -> (Value, Vec<u8>) {
    let length = u32::from_le_bytes(body[4..8].try_into().unwrap());
    let end = 8 + usize::try_from(length).unwrap();
    let entry = serde_json::from_slice(&body[8..end]).expect("the entry is JSON");
    (entry, body[end..].to_vec())
}

/// The body of an artifact whose entry matches its archive.
pub fn body(mut entry: Value, archive: &[u8]) -> Vec<u8> {
    let digest = digest::digest(&digest::SHA256, archive);
    let digest = digest.as_ref().iter();
    let mut plain = Vec::new();
    zstd::Decoder::new(archive)
        .unwrap()
        .read_to_end(&mut plain)
        .unwrap();
    let mut tar = tar::Archive::new(&plain[..]);
    let sizes = tar.entries().unwrap().map(|member| member.unwrap().size());
    let digits = digest.map(|byte| format!("{byte:02x}"));
    entry["blob"] = digits.collect::<Vec<_>>().concat().into();
    entry["length"] = archive.len().into();
    entry["bytes"] = sizes.sum::<u64>().into();
    let text = entry.to_string();
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    [
        &0x184D_2A50_u32.to_le_bytes()[..],
        &length,
        text.as_bytes(),
        archive,
    ]
    .concat()
}

/// Uploads an artifact with a valid signature.
pub fn plant(cache: &RemoteCache, hash: &str, body: &[u8]) {
    let path = cache.store(TEAM).join(hash);
    std::fs::write(&path, body).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    for part in [&b"artifact-signature:v2"[..], hash.as_bytes(), b"", body] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let tag = BASE64.encode(context.sign().as_ref());
    std::fs::write(path.with_extension("tag"), tag).unwrap();
}

/// An archive with hostile members; its links lead to the root.
pub fn archive(members: &[(&str, tar::EntryType)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(0);
        // The API of the crate refuses such names.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if *kind == tar::EntryType::Symlink {
            header.set_link_name_literal("/").unwrap();
        }
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
    }
    zstd::encode_all(&builder.into_inner().unwrap()[..], 3).unwrap()
}
