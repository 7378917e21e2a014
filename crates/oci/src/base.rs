//! Reads the parts of a base image's tree that another layer needs: users, groups, folders and
//! links. The image is not unpacked.
//!
//! Layers are read from the lowest to the highest. A higher layer adds entries, replaces them, and
//! removes them with whiteouts.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::members::TarReader;
use super::stack::LayerStack;
use super::{Blobs, Descriptor, Digest, Error, FileOwner, Hasher, Manifest};

/// Users, groups, folders and links of a base image. Paths have no slash at either end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct BaseTree {
    /// Users of `etc/passwd`, with their primary group.
    pub users: BTreeMap<String, FileOwner>,
    /// Groups of `etc/group`.
    pub groups: BTreeMap<String, u32>,
    /// Every folder except the root. A layer repeats each folder in which it adds an entry. For a
    /// folder that a layer leaves out, an engine creates one with the owner root and the mode 0755,
    /// so nobody else could write to `tmp`.
    pub folders: BTreeMap<String, FolderAttributes>,
    /// Every symbolic link, with its target as it is written.
    pub links: BTreeMap<String, String>,
}

/// Owner and permissions of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderAttributes {
    /// Owner.
    pub owner: FileOwner,
    /// Permissions: `0o755`, `0o1777`.
    pub mode: u32,
}

impl Default for FolderAttributes {
    /// The attributes of a folder that no layer names, as an engine creates it.
    fn default() -> Self {
        Self {
            owner: FileOwner::default(),
            mode: 0o755,
        }
    }
}

/// A layer of a base image.
pub struct BaseLayer<R> {
    /// Its media type is the compression, its digest names the layer in errors.
    pub descriptor: Descriptor,
    /// Digest of its tar, from the image's config.
    pub diff_id: Digest,
    /// The compressed bytes.
    pub content: R,
}

impl BaseTree {
    /// Reads layers from the lowest to the highest. Each tar must have the digest `diff_id`.
    pub fn read<R: Read>(
        layers: impl IntoIterator<Item = Result<BaseLayer<R>, Error>>,
    ) -> Result<Self, Error> {
        let mut stack = LayerStack::default();
        for layer in layers {
            let BaseLayer {
                descriptor,
                diff_id,
                content,
            } = layer?;
            let wrong = |reason: String| Error::Layer {
                layer: descriptor.digest,
                reason,
            };
            let plain = plain(&descriptor.media_type, content).map_err(wrong)?;
            let mut reader = BufReader::with_capacity(
                256 << 10,
                HashingReader {
                    inner: plain,
                    hasher: Hasher::like(&diff_id),
                },
            );
            let read = read_layer(&mut stack, &mut reader);
            read.map_err(|error| wrong(error.to_string()))?;
            let found = reader.into_inner().hasher.end();
            if found != diff_id {
                return Err(wrong(format!(
                    "the digest of its tar is `{found}`, and the image's config has `{diff_id}`"
                )));
            }
        }
        let remains = stack.end();
        let mut tree = Self {
            folders: remains.folders,
            links: remains.links,
            ..Self::default()
        };
        for (name, [user, group]) in records(&remains.passwd) {
            let owner = FileOwner { user, group };
            tree.users.entry(name).or_insert(owner);
        }
        for (name, [group]) in records(&remains.group) {
            tree.groups.entry(name).or_insert(group);
        }
        Ok(tree)
    }

    /// Reads an image whose config and layers are stored as blobs.
    pub fn of_image(manifest: &Manifest, blobs: &Blobs) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Document {
            what: manifest.config.digest.to_string(),
            kind: "image config",
            reason,
        };
        let config: Value = serde_json::from_slice(&blobs.read(&manifest.config)?)
            .map_err(|error| wrong(error.to_string()))?;
        let diff_ids: Vec<Digest> = serde_json::from_value(config["rootfs"]["diff_ids"].clone())
            .map_err(|error| wrong(format!("`rootfs.diff_ids` is not valid: {error}")))?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(wrong(format!(
                "it lists {} layers, and the manifest lists {}",
                diff_ids.len(),
                manifest.layers.len()
            )));
        }
        let layers = manifest.layers.iter().zip(diff_ids);
        Self::read(layers.map(|(descriptor, diff_id)| {
            Ok(BaseLayer {
                descriptor: descriptor.clone(),
                diff_id,
                content: blobs.open(descriptor)?,
            })
        }))
    }
}

/// Reads a layer to its last byte.
fn read_layer(stack: &mut LayerStack, reader: &mut impl BufRead) -> std::io::Result<()> {
    let mut members = TarReader::new(&mut *reader);
    while let Some(member) = members.next()? {
        stack.add(member, &mut members)?;
    }
    stack.end_layer();
    // Bytes after the end of the tar are part of the layer's digest.
    std::io::copy(reader, &mut std::io::sink())?;
    Ok(())
}

/// Decompresses a layer by the suffix of its OCI or Docker media type.
pub(super) fn plain<'a>(
    media_type: &str,
    content: impl Read + 'a,
) -> Result<Box<dyn Read + 'a>, String> {
    let ending = media_type.rsplit_once(['+', '.']);
    match ending.map(|(_, ending)| ending) {
        Some("gzip") => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(256 << 10, content),
        ))),
        Some("zstd") => {
            let decoder = zstd::Decoder::new(content);
            Ok(Box::new(decoder.map_err(|error| error.to_string())?))
        }
        Some("tar") => Ok(Box::new(content)),
        _ => Err(format!(
            "its media type `{}` is not supported",
            media_type.escape_debug()
        )),
    }
}

struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

/// Lines of `etc/passwd` and `etc/group`: a name, a password and numbers. Other lines are skipped,
/// as the system does.
fn records<const N: usize>(text: &[u8]) -> impl Iterator<Item = (String, [u32; N])> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let mut numbers = fields.skip(1);
        let mut found = [0; N];
        for number in &mut found {
            *number = numbers.next()?.parse().ok()?;
        }
        Some((name.to_owned(), found))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tar::{EntryType, Header};

    use super::{BaseLayer, BaseTree};
    use crate::{Descriptor, Digest, Error, FileOwner};

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

    /// A tar with members: `a/` is a folder, `a -> b` a link, `a=b` a file with content.
    fn tar(members: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for member in members {
            let (path, content) = member.split_once('=').unwrap_or((member, ""));
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            let (path, target) = path.split_once(" -> ").unwrap_or((path, ""));
            header.set_entry_type(match target {
                "" if path.ends_with('/') => EntryType::Directory,
                "" => EntryType::Regular,
                _ => EntryType::Symlink,
            });
            // `Header::set_path` rejects `..`.
            let gnu = header.as_gnu_mut().expect("it is one");
            gnu.name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_link_name_literal(target).expect("short");
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    fn of_tars(tars: &[Vec<u8>]) -> Result<BaseTree, Error> {
        BaseTree::read(tars.iter().map(|tar| {
            Ok(BaseLayer {
                descriptor: Descriptor::of(TAR, tar),
                diff_id: Digest::of(tar),
                content: &tar[..],
            })
        }))
    }

    /// The folders and links of layers as one line.
    #[track_caller]
    fn of(layers: &[&[&str]]) -> String {
        let tars: Vec<_> = layers.iter().map(|members| tar(members)).collect();
        let tree = of_tars(&tars).expect("it can be read");
        let links = tree.links.iter().map(|(path, to)| format!("{path}->{to}"));
        let all: Vec<_> = tree.folders.keys().cloned().chain(links).collect();
        all.join(" ")
    }

    #[test]
    fn later_layers_add_replace_and_remove() {
        assert_eq!(of(&[]), "");
        assert_eq!(
            of(&[&["./", "./a/", "/b/", "c/d/e", "b//./f/"]]),
            "a b b/f c c/d"
        );
        assert_eq!(of(&[&["a/b/", "a/c/"], &["a/.wh.b"]]), "a a/c");
        assert_eq!(of(&[&["a/b/", "a-/", "a0/"], &[".wh.a"]]), "a- a0");
        assert_eq!(
            of(&[&["a/b/", "a/l -> b", "c/"], &["a/", "a/.wh..wh..opq"]]),
            "a c"
        );
        assert_eq!(of(&[&["a/b/", "l -> a"], &[".wh..wh..opq", "c/"]]), "c");
        // A whiteout removes from lower layers, wherever it is in its own layer.
        assert_eq!(of(&[&["a/b/"], &["a/c/", "a/.wh..wh..opq"]]), "a a/c");
        assert_eq!(of(&[&["a/b/"], &["a/b/c/", "a/.wh.b"]]), "a a/b a/b/c");
        // A file or a link replaces a folder, and a folder replaces a link.
        assert_eq!(of(&[&["a/b/"], &["a"]]), "");
        assert_eq!(of(&[&["a/b/"], &["a -> c"]]), "a->c");
        assert_eq!(of(&[&["a -> c"], &["a/b/"]]), "c c/b a->c");
        assert_eq!(of(&[&["a -> c"], &["a/", "a/b/"]]), "a a/b");
        assert_eq!(of(&[&["a/b/", "a"]]), "");
        assert_eq!(of(&[&["a -> b", "a"]]), "");
        assert_eq!(of(&[&["a/", ".wh..wh.plnk", "a/.wh..wh.aufs"]]), "a");
    }

    #[test]
    fn links_in_paths_are_resolved() {
        assert_eq!(
            of(&[&["usr/lib/", "lib -> usr/lib"], &["lib/x/y"]]),
            "usr usr/lib usr/lib/x lib->usr/lib"
        );
        assert_eq!(of(&[&["a -> /b", "a/c/"]]), "b b/c a->/b");
        assert_eq!(
            of(&[&["d/a -> ../../../../b", "d/a/c/"]]),
            "b b/c d d/a->../../../../b"
        );
        assert_eq!(of(&[&["b/c/", "a -> b"], &["a/.wh.c"]]), "b a->b");
    }

    #[test]
    fn link_loops_and_paths_outside_the_root_are_harmless() {
        assert_eq!(of(&[&["a -> b", "b -> a", "a/c/", "d/"]]), "d a->b b->a");
        assert_eq!(of(&[&["a -> a", "a/a/a/"]]), "a->a");
        assert_eq!(of(&[&["../../x/", "a/../../y/"]]), "x y");
    }

    #[test]
    fn accounts_are_read_from_the_highest_layer() {
        let passwd = "etc/passwd=root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1001::/:/bin/sh\n\
                      node:x:7:7::/:\n+nis\nbroken:x:one:2:\n";
        let lower = tar(&[passwd, "etc/group=root:x:0:\nnode:x:1001:node,a\n"]);
        let tree = of_tars(std::slice::from_ref(&lower)).expect("it can be read");
        let names = [("node", 1000, 1001), ("root", 0, 0)];
        let users = names.map(|(name, user, group)| (name.to_owned(), FileOwner { user, group }));
        assert_eq!(tree.users, users.into());
        let groups = [("node".to_owned(), 1001), ("root".to_owned(), 0)];
        assert_eq!(tree.groups, groups.into());

        let other = tar(&["./etc/passwd=me:x:5:6::/:\n"]);
        let tree = of_tars(&[lower.clone(), other]).expect("it can be read");
        let me = ("me".to_owned(), FileOwner { user: 5, group: 6 });
        assert_eq!(tree.users, [me].into());
        assert_eq!(tree.groups, groups_of(&lower));
        for gone in [".wh.etc", "etc/.wh..wh..opq", "etc", "etc/.wh.passwd"] {
            let tree = of_tars(&[lower.clone(), tar(&[gone])]).expect("it can be read");
            assert!(tree.users.is_empty(), "{gone}");
        }
    }

    fn groups_of(tar: &[u8]) -> std::collections::BTreeMap<String, u32> {
        let tree = of_tars(&[tar.to_vec()]).expect("it can be read");
        tree.groups
    }

    /// A tar with one folder whose owner needs more than seven octal digits.
    fn owned(user: u64, group: u64, in_records: bool) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o750);
        if in_records {
            let (user, group) = (user.to_string(), group.to_string());
            let records = [("uid", user.as_bytes()), ("gid", group.as_bytes())];
            builder.append_pax_extensions(records).expect("memory");
        } else {
            // GNU tar writes them in base 256.
            header.set_uid(user);
            header.set_gid(group);
        }
        header.set_path("data/").expect("short");
        header.set_cksum();
        builder.append(&header, &b""[..]).expect("memory");
        builder.into_inner().expect("memory")
    }

    #[test]
    fn a_folder_keeps_an_owner_with_a_large_number() {
        for user in [(1 << 21) - 1, 1 << 21, 1_000_000_000, u64::from(u32::MAX)] {
            for in_records in [false, true] {
                let tree = of_tars(&[owned(user, user - 1, in_records)]).expect("it can be read");
                let owner = tree.folders["data"].owner;
                let found = (u64::from(owner.user), u64::from(owner.group));
                assert_eq!(found, (user, user - 1), "records: {in_records}");
            }
        }
    }

    #[test]
    fn every_compression_is_read_and_every_digest_checked() {
        let plain = tar(&["a/b/"]);
        let mut gzip = Vec::new();
        for half in [&plain[..700], &plain[700..]] {
            let mut encoder =
                flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::default());
            encoder.write_all(half).expect("memory");
            encoder.finish().expect("memory");
        }
        let zstd = zstd::encode_all(&plain[..], 3).expect("memory");
        let read = |media_type: &str, bytes: &[u8], diff_id: Digest| {
            BaseTree::read([Ok(BaseLayer {
                descriptor: Descriptor::of(media_type, bytes),
                diff_id,
                content: bytes,
            })])
        };
        for (media_type, bytes) in [
            (TAR, &plain),
            ("application/vnd.docker.image.rootfs.diff.tar", &plain),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip),
            ("application/vnd.oci.image.layer.v1.tar+gzip", &gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", &zstd),
        ] {
            let tree = read(media_type, bytes, Digest::of(&plain)).expect(media_type);
            assert_eq!(tree.folders.len(), 2, "{media_type}");
            let other = read(media_type, bytes, Digest::of(b"")).expect_err("another digest");
            let message = other.to_string();
            assert!(message.contains("config has"), "{message}");
            let short = read(media_type, &bytes[..bytes.len() / 2], Digest::of(&plain));
            assert!(matches!(short, Err(Error::Layer { .. })), "{short:?}");
        }
        let unknown = read("application/x-tar+lzma", &plain, Digest::of(&plain));
        assert!(matches!(unknown, Err(Error::Layer { .. })), "{unknown:?}");
    }

    #[test]
    fn hostile_tars_are_errors_before_they_use_memory() {
        let refused = |tar: Vec<u8>| {
            let error = of_tars(&[tar]).expect_err("it is hostile");
            assert!(matches!(error, Error::Layer { .. }), "{error:?}");
            error.to_string()
        };
        let alone = |kind: EntryType, size: u64| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let long = refused(alone(EntryType::GNULongName, 1 << 40));
        assert!(long.contains("a member has 1099511627776 bytes"), "{long}");
        refused(alone(EntryType::XHeader, 1 << 40));
        refused(alone(EntryType::Regular, u64::MAX));
        refused(alone(EntryType::Regular, 1));
        refused(alone(EntryType::Regular, 0)[..100].to_vec());
        refused(vec![1; 2048]);
        for records in [
            "x",
            "9999 path=a\n",
            "3 a",
            "7 path\n",
            "11 size=-1\n",
            "9 uid=x\n",
            "18 gid=4294967296\n",
            "0 a=b\n",
        ] {
            let mut tar = alone(EntryType::XHeader, records.len() as u64);
            tar.extend_from_slice(records.as_bytes());
            tar.resize(1024, 0);
            refused(tar);
        }
        // Each parent of a deep path is a folder; together the paths exceed the limit.
        let mut deep = tar::Builder::new(Vec::new());
        for number in 0..40 {
            let path = format!("{number}/{}", "a/".repeat(2000));
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            header.set_cksum();
            let records = [("path", path.as_bytes())];
            deep.append_pax_extensions(records).expect("memory");
            deep.append(&header, &b""[..]).expect("memory");
        }
        let deep = refused(deep.into_inner().expect("memory"));
        assert!(deep.contains("too long"), "{deep}");
    }
}
