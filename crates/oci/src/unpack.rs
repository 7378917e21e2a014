//! Unpacks layers into a folder of this machine.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use tar::{Archive, EntryType};

use super::base::plain;
use super::{Blobs, Descriptor, Error};

/// The start of the names with which a layer removes paths of lower layers.
const WHITEOUT: &str = ".wh.";

/// Unpacks a layer of these blobs into a folder, after a check of its digest. A path that exists is
/// replaced. Files belong to the current user.
///
/// A member that lies outside of the folder, also by way of a link, is an error. So is a member that
/// removes a path of a lower layer, or is not a file, a folder or a link.
pub fn unpack(layer: &Descriptor, blobs: &Blobs, to: &Path) -> Result<(), Error> {
    blobs.verify(layer)?;
    let wrong = |reason: String| Error::Layer {
        layer: layer.digest,
        reason,
    };
    let content = plain(&layer.media_type, blobs.open(layer)?).map_err(wrong)?;
    unpack_tar(content, to).map_err(|error| wrong(error.to_string()))
}

fn unpack_tar(content: impl Read, to: &Path) -> std::io::Result<()> {
    let mut archive = Archive::new(content);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    // A folder without write permission still gets its content.
    let mut folders = Vec::new();
    for member in archive.entries()? {
        let mut member = member?;
        let path = member.path()?.into_owned();
        let name = path.file_name().and_then(|name| name.to_str());
        let kind = member.header().entry_type();
        let refused = |why: &str| {
            let text = format!("`{}` {why}", path.display().to_string().escape_debug());
            std::io::Error::other(text)
        };
        if name.is_some_and(|name| name.starts_with(WHITEOUT)) {
            return Err(refused("removes a path of a lower layer"));
        }
        match kind {
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::GNUSparse
            | EntryType::Symlink
            | EntryType::Link => {
                if !member.unpack_in(to)? {
                    return Err(refused("is outside of the folder"));
                }
            }
            EntryType::Directory => {
                let mode = member.header().mode()?;
                if path.components().any(|part| part == Component::ParentDir) {
                    return Err(refused("is outside of the folder"));
                }
                if member.unpack_in(to)? {
                    folders.push((to.join(&path), mode));
                }
            }
            EntryType::XGlobalHeader => {}
            _ => return Err(refused("is not a file, a folder or a link")),
        }
    }
    for (folder, mode) in folders.into_iter().rev() {
        // The owner keeps the right to write, so that the folder can be removed again.
        std::fs::set_permissions(folder, Permissions::from_mode(mode & 0o777 | 0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tar::{Builder, EntryType, Header};

    use super::unpack_tar;

    fn tar(members: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, content) in members {
            let mut header = Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(if *kind == EntryType::Directory {
                0o555
            } else {
                0o644
            });
            // The builder refuses a hostile path, so it is written here.
            let name = &mut header.as_ustar_mut().expect("ustar").name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            let body = if *kind == EntryType::Regular {
                content.as_bytes()
            } else {
                if !content.is_empty() {
                    header.set_link_name_literal(content).expect("short");
                }
                &[]
            };
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body).expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    fn refused(members: &[(&str, EntryType, &str)]) -> String {
        let root = tempfile::tempdir().expect("a folder");
        let to = root.path().join("to");
        std::fs::create_dir(&to).expect("a folder");
        let error = unpack_tar(&tar(members)[..], &to).expect_err("it is hostile");
        let outside = root.path().join("out");
        assert!(!outside.exists(), "{members:?}");
        error.to_string()
    }

    #[test]
    fn files_folders_and_links_are_unpacked_over_each_other() {
        let to = tempfile::tempdir().expect("a folder");
        let read = |path: &str| std::fs::read_to_string(to.path().join(path)).expect(path);
        let members = [
            ("app/", EntryType::Directory, ""),
            ("app/a", EntryType::Regular, "one"),
            ("app/link", EntryType::Symlink, "a"),
            ("app/hard", EntryType::Link, "app/a"),
        ];
        unpack_tar(&tar(&members)[..], to.path()).expect("it is valid");
        assert_eq!(
            [read("app/a"), read("app/link"), read("app/hard")],
            ["one"; 3]
        );
        unpack_tar(&tar(&[("app/a", EntryType::Regular, "two")])[..], to.path())
            .expect("it is valid");
        assert_eq!(read("app/link"), "two");
    }

    #[test]
    fn a_member_outside_of_the_folder_is_refused() {
        for members in [
            &[("../out", EntryType::Regular, "x")][..],
            &[("../out/", EntryType::Directory, "")],
            &[
                ("up", EntryType::Symlink, ".."),
                ("up/out", EntryType::Regular, "x"),
            ],
        ] {
            refused(members);
        }
        let gone = refused(&[("app/.wh.a", EntryType::Regular, "")]);
        assert_eq!(gone, "`app/.wh.a` removes a path of a lower layer");
        let device = refused(&[("out", EntryType::Char, "")]);
        assert_eq!(device, "`out` is not a file, a folder or a link");
    }
}
