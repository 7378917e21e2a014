//! `COPY`, and `ADD` where it does the same.
//!
//! What is merged, replaced and owned is as the classic builder has it. Two of its ways surprise:
//! folders that it makes on the way to a file get the owner of `--chown`, on the way to a copied
//! folder they are root's; and a copied folder takes the place of a link (`/bin`), where a
//! destination follows it.

use std::io::Read;

use super::context::{BuildContext, ContextFile, FoundSource};
use super::error::Error;
use super::pattern::{FilePattern, is_pattern};
use super::step::{CopyInstruction, InstructionLine};
use super::tree::{ImageTree, PathConflict, TreeEntryKind};
use crate::{FileOwner, TreeContent, TreeEntry};

/// Why `ADD` of an address is refused.
pub(super) const DOWNLOADS: &str = "`ADD` downloads";

/// The size of a tar's header.
const HEADER: usize = 512;

/// Carries out a `COPY` whose words are expanded.
pub(super) fn copy(
    line: &InstructionLine,
    copy: &CopyInstruction,
    workdir: &str,
    tree: &mut ImageTree,
    context: &BuildContext,
) -> Result<(), Error> {
    let owner = match copy.owner.as_deref() {
        None | Some("") => FileOwner::default(),
        Some(names) => owner(line, names, tree)?,
    };
    let sources = sources(line, copy, context)?;
    let name = if copy.adds { "ADD" } else { "COPY" };
    if sources.len() > 1 && !copy.destination.ends_with('/') {
        return Err(line.error(
            format!("`{name}` of several sources to one file"),
            "let the destination end with a `/`",
        ));
    }
    let destination = if copy.destination.starts_with('/') {
        copy.destination.clone()
    } else {
        format!("{workdir}/{}", copy.destination)
    };
    for path in sources {
        let failed = |clash| line.clash(clash, "change the source or the destination of this line");
        let mut target = tree.resolve(&destination).map_err(failed)?;
        match find(line, &path, context)? {
            FoundSource::Folder(folder) => {
                copy_folder(&folder, &target, owner, tree, context).map_err(failed)?;
            }
            FoundSource::File(file) => {
                if copy.adds && is_archive(file)? {
                    return Err(line.refuse("`ADD` unpacks archives").into());
                }
                if destination.ends_with('/') || tree.kind(&target) == Some(TreeEntryKind::Folder) {
                    target = join(&target, base_name(&path));
                }
                let parent = target.rfind('/').map_or("", |end| &target[..end]);
                tree.make_folders(parent, owner).map_err(failed)?;
                put(tree, target, owner, file).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// The sources, patterns resolved. A pattern that finds nothing is no error beside others.
fn sources(
    line: &InstructionLine,
    copy: &CopyInstruction,
    context: &BuildContext,
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for source in &copy.sources {
        if is_address(source) {
            let why = "its source is an address, which only `ADD` takes";
            return Err(line.refuse(if copy.adds { DOWNLOADS } else { why }).into());
        }
        let path = source.strip_prefix('/').unwrap_or(source);
        let path = path.strip_prefix("./").unwrap_or(path);
        if !is_pattern(path) {
            find(line, path, context)?;
            found.push(path.to_owned());
        } else if let Some(pattern) = FilePattern::of_copy(path) {
            let paths = context.walk().into_iter();
            found.extend(
                paths
                    .filter(|path| pattern.matches(path))
                    .map(str::to_owned),
            );
        }
    }
    if found.is_empty() {
        return Err(missing(line, &copy.sources.join(" "), context));
    }
    Ok(found)
}

/// Whether `ADD` would download it.
pub(super) fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

fn find<'a>(
    line: &InstructionLine,
    path: &str,
    context: &'a BuildContext,
) -> Result<FoundSource<'a>, Error> {
    match context.find(path) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(missing(line, path, context)),
        Err(problem) => Err(line.error(problem, "only what is in the build context can be copied")),
    }
}

fn missing(line: &InstructionLine, source: &str, context: &BuildContext) -> Error {
    let help = if context.hides(source) {
        "`.dockerignore` hides it: bring it back there with a line that begins with `!`"
    } else {
        "sources are relative to the build context; folders without files do not count"
    };
    Error::Missing {
        source_path: source.to_owned(),
        context: context.root().display().to_string(),
        line: line.number,
        help: help.into(),
    }
}

/// Copies what is in a folder.
fn copy_folder(
    folder: &str,
    target: &str,
    owner: FileOwner,
    tree: &mut ImageTree,
    context: &BuildContext,
) -> Result<(), PathConflict> {
    let is_new = tree.kind(target) != Some(TreeEntryKind::Folder);
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

fn put_folder(tree: &mut ImageTree, path: String, owner: FileOwner) -> Result<(), PathConflict> {
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
) -> Result<(), PathConflict> {
    tree.put(TreeEntry {
        path,
        owner,
        mode: file.mode,
        content: file.content.clone(),
    })
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

/// Whom `--chown` names. A user alone stands for the group of the same name too, which need not
/// be the user's own.
fn owner(line: &InstructionLine, names: &str, tree: &ImageTree) -> Result<FileOwner, Error> {
    let (user, group) = names.split_once(':').unwrap_or((names, names));
    let base = tree.base();
    let look = |kind, file, name: &str, known: &dyn Fn(&str) -> Option<u32>, all: String| {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        if tree.has_added(file) {
            return Err(line.refuse(&format!("`/{file}` was copied before")).into());
        }
        known(name).ok_or_else(|| Error::Unknown {
            kind,
            name: name.to_owned(),
            line: line.number,
            known: all,
        })
    };
    Ok(FileOwner {
        user: look(
            "user",
            "etc/passwd",
            user,
            &|name| base.users.get(name).map(|owner| owner.user),
            listed(base.users.keys()),
        )?,
        group: look(
            "group",
            "etc/group",
            group,
            &|name| base.groups.get(name).copied(),
            listed(base.groups.keys()),
        )?,
    })
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none that it names".into()
    } else {
        names.join(", ")
    }
}

/// Whether `ADD` would unpack this file, by its first bytes. What is compressed is taken for an
/// archive without a look inside.
fn is_archive(file: &ContextFile) -> Result<bool, Error> {
    let TreeContent::File { from, .. } = &file.content else {
        return Ok(false);
    };
    let mut header = Vec::new();
    std::fs::File::open(from)
        .and_then(|file| file.take(HEADER as u64).read_to_end(&mut header))
        .map_err(|source| Error::Read {
            path: from.clone(),
            source,
        })?;
    let compressed: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    Ok(compressed.iter().any(|magic| header.starts_with(magic)) || is_tar(&header))
}

/// Whether it is a tar's header: its sum is written in it.
fn is_tar(header: &[u8]) -> bool {
    let Some(written) = header.get(148..156).filter(|_| header.len() == HEADER) else {
        return false;
    };
    let written = String::from_utf8_lossy(written);
    let written = u32::from_str_radix(written.trim_matches([' ', '\0']), 8);
    let others = header[..148].iter().chain(&header[156..]);
    let sum: u32 = others.map(|byte| u32::from(*byte)).sum();
    // The field itself counts as eight spaces.
    written == Ok(sum + 8 * u32::from(b' '))
}
