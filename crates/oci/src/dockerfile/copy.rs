//! `COPY`, and `ADD` where it does the same.

use std::io::Read;

use super::context::{BuildContext, ContextFile, FoundSource};
use super::error::Error;
use super::instruction::{CopyInstruction, SourceLine};
use super::pattern::{FilePattern, is_pattern};
use super::tree::{ImageTree, TreeEntryKind};
use crate::members::is_header;
use crate::{FileOwner, TreeContent, TreeEntry};

/// Why `ADD` of an address is refused.
pub(super) const DOWNLOADS: &str = "`ADD` downloads a file";

/// Bytes of a tar's header.
const HEADER: u64 = 512;

/// First bytes of compressed files, which `ADD` may unpack.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];

/// Applies a `COPY` whose words are expanded.
pub(super) fn copy(
    line: &SourceLine,
    copy: &CopyInstruction,
    workdir: &str,
    tree: &mut ImageTree,
    context: &BuildContext,
) -> Result<(), Error> {
    let owner = match copy.owner.as_deref() {
        None | Some("") => FileOwner::default(),
        Some(names) => owner(names, tree).map_err(|why| line.refuse(why))?,
    };
    let sources = sources(line, copy, context)?;
    if sources.len() > 1 && !copy.destination.ends_with('/') {
        let why = "it copies several sources to a destination without `/` at its end";
        return Err(line.refuse(why).into());
    }
    let destination = if copy.destination.starts_with('/') {
        copy.destination.clone()
    } else {
        format!("{workdir}/{}", copy.destination)
    };
    for path in sources {
        let target = tree.resolve(&destination);
        let target = target.map_err(|why| line.refuse(why))?;
        let copied = match find(line, &path, context)? {
            FoundSource::Folder(folder) => copy_folder(&folder, &target, owner, tree, context),
            FoundSource::File(file) => {
                if copy.is_add && is_archive(file)? {
                    return Err(line.refuse("`ADD` unpacks archives").into());
                }
                let is_into =
                    destination.ends_with('/') || tree.kind(&target) == Some(TreeEntryKind::Folder);
                let target = if is_into {
                    join(&target, base_name(&path))
                } else {
                    target
                };
                tree.make_folders(parent(&target), owner)
                    .and_then(|()| put(tree, target, owner, file))
            }
        };
        copied.map_err(|why| line.refuse(why))?;
    }
    Ok(())
}

/// The paths of the sources, patterns replaced by the paths that they match.
fn sources(
    line: &SourceLine,
    copy: &CopyInstruction,
    context: &BuildContext,
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for source in &copy.sources {
        if is_address(source) {
            let why = "its source is an address, which only `ADD` accepts";
            return Err(line
                .refuse(if copy.is_add { DOWNLOADS } else { why })
                .into());
        }
        let path = source.strip_prefix('/').unwrap_or(source);
        let path = path.strip_prefix("./").unwrap_or(path);
        if !is_pattern(path) {
            find(line, path, context)?;
            found.push(path.to_owned());
        } else if is_pattern(parent(path)) {
            return Err(line
                .refuse("wildcards in folder names of the source are not supported")
                .into());
        } else if let Some(pattern) = FilePattern::of_copy(path) {
            found.extend(context.matching(&pattern));
        }
    }
    if found.is_empty() {
        return Err(line.refuse("no file matches its source").into());
    }
    Ok(found)
}

/// Whether `ADD` downloads this source.
pub(super) fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

fn find<'a>(
    line: &SourceLine,
    path: &str,
    context: &'a BuildContext,
) -> Result<FoundSource<'a>, Error> {
    let found = context.find(path).map_err(|why| line.refuse(why))?;
    found.ok_or_else(|| Error::MissingSource {
        source_path: path.to_owned(),
        context: context.root().to_owned(),
        line: line.number,
        is_ignored: context.ignores(path),
    })
}

/// Copies the content of a folder.
fn copy_folder(
    folder: &str,
    target: &str,
    owner: FileOwner,
    tree: &mut ImageTree,
    context: &BuildContext,
) -> Result<(), String> {
    if tree.kind(parent(target)).is_none() && owner != FileOwner::default() {
        return Err(format!(
            "the owner of `/{}` depends on the Docker builder",
            parent(target)
        ));
    }
    let is_new = tree.kind(target).is_none();
    tree.make_folders(target, FileOwner::default())?;
    if is_new {
        put_folder(tree, target.to_owned(), owner)?;
    }
    for path in context.folders_in(folder) {
        put_folder(tree, join(target, path), owner)?;
    }
    for (path, file) in context.files_in(folder) {
        put(tree, join(target, path), owner, file)?;
    }
    Ok(())
}

fn put_folder(tree: &mut ImageTree, path: String, owner: FileOwner) -> Result<(), String> {
    tree.put(TreeEntry {
        path,
        owner,
        mode: 0o755,
        content: TreeContent::Folder,
    })
}

fn put(
    tree: &mut ImageTree,
    path: String,
    owner: FileOwner,
    file: &ContextFile,
) -> Result<(), String> {
    tree.put(TreeEntry {
        path,
        owner,
        mode: file.mode,
        content: file.content.clone(),
    })
}

/// The path of the folder that contains a path.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The last name of a path.
fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

fn join(folder: &str, path: &str) -> String {
    if folder.is_empty() {
        path.to_owned()
    } else {
        format!("{folder}/{path}")
    }
}

/// The owner that `--chown` names. For a user without a group, `BuildKit` takes the user's own
/// group and the classic builder the group with the user's name.
fn owner(names: &str, tree: &ImageTree) -> Result<FileOwner, String> {
    let base = tree.base();
    let look = |kind: &str, file: &str, name: &str, known: Option<u32>| {
        if let Ok(number) = name.parse::<u32>() {
            return Ok(number);
        }
        if tree.has_added(file) {
            return Err(format!(
                "an earlier instruction replaces `/{file}`, so user and group names cannot be resolved"
            ));
        }
        known.ok_or_else(|| format!("the base image has no {kind} `{name}`"))
    };
    let (user_name, group_name) = names.split_once(':').unwrap_or((names, names));
    let user = base.users.get(user_name);
    let group = base.groups.get(group_name).copied();
    if let Some(user) = user
        && names == user_name
        && group != Some(user.group)
    {
        return Err(format!(
            "the group of the user `{user_name}` depends on the Docker builder"
        ));
    }
    Ok(FileOwner {
        user: look("user", "etc/passwd", user_name, user.map(|user| user.user))?,
        group: look("group", "etc/group", group_name, group)?,
    })
}

/// Whether `ADD` may unpack this file, judged by its first bytes.
fn is_archive(file: &ContextFile) -> Result<bool, Error> {
    let TreeContent::File { from, .. } = &file.content else {
        return Ok(false);
    };
    let mut header = Vec::new();
    std::fs::File::open(from)
        .and_then(|file| file.take(HEADER).read_to_end(&mut header))
        .map_err(|source| Error::Read {
            path: from.clone(),
            source,
        })?;
    Ok(COMPRESSED.iter().any(|magic| header.starts_with(magic)) || is_header(&header))
}
