//! The files of the working tree as git sees them: which files it tracks, which content it stores for
//! them, and their executable bits.
//!
//! By attributes and settings, git converts content before it stores it: line ends, or a clean filter
//! such as that of Git LFS. Most files are not converted and are hashed here. For the other files
//! `git hash-object` is called, since only git can run filters. The objects that it writes go to a
//! temporary folder; the repository is not changed.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use git2::{AttrCheckFlags, AttrValue, ObjectType, Oid};

use super::index::GitIndex;
use super::tree::GitObjects;
use super::{Error, Repository};
use crate::disk::Stamp;

/// Size in bytes of the largest file that is compared with git's checkout of its blob. A larger file
/// with converted line ends counts as changed, as it does for git.
const LARGEST_TEXT: u64 = 16 << 20;

/// Environment variables that make git use another repository or working tree.
const REDIRECTING: [&str; 6] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
];

/// The working tree of a repository.
pub struct WorkTree {
    /// With links resolved.
    root: PathBuf,
    index: GitIndex,
    /// Whether executable bits on disk count (`core.fileMode`).
    trusts_modes: bool,
    /// The conversions of all files, by settings and by attribute files outside of the working tree.
    everywhere: Arc<RequestedConversions>,
    /// The conversions in each folder.
    folders: RwLock<HashMap<PathBuf, Arc<RequestedConversions>>>,
    objects: Arc<GitObjects>,
    /// Started when needed.
    hash_object: Mutex<Option<HashObject>>,
}

/// How content is converted between the working tree and the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Conversion {
    /// It stays the same.
    None,
    /// CRLF becomes LF.
    LineEnds,
    /// In any way: by a filter, an encoding or keywords.
    Any,
}

/// The conversions that attribute files and settings request, without matching patterns. It is a quick
/// first test: few files are converted, and looking up the attributes of every file takes longer than
/// reading all layers.
#[derive(Debug, Clone, Default)]
struct RequestedConversions {
    /// Whether the line ends of some files are converted.
    line_ends: bool,
    /// File name endings (`.png`) of files with any other conversion.
    any: BTreeSet<String>,
    /// Whether other patterns than `*.<ending>` request such conversions.
    any_by_pattern: bool,
}

/// How one file is converted, by its attributes.
#[derive(Debug, Clone, Copy)]
struct ConversionRules {
    conversion: Conversion,
    /// Whether line ends are never converted (`-text`).
    is_binary: bool,
    /// Whether git decides by the content if line ends are converted (`text=auto`).
    is_auto: bool,
}

/// The blob that git stores for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlob {
    /// The blob's id.
    pub id: Oid,
    /// Whether the content on disk can differ from the blob, so that the content has to be read from
    /// [`WorkTree::objects`].
    pub is_converted: bool,
}

impl Repository {
    /// The working tree, with the current index.
    pub fn work_tree(&self) -> Result<WorkTree, Error> {
        let trusts_modes = self
            .inner
            .config()
            .and_then(|config| config.get_bool("core.filemode"));
        Ok(WorkTree {
            root: self.real_root.clone(),
            index: self.index()?,
            trusts_modes: trusts_modes.unwrap_or(true),
            everywhere: Arc::new(self.converted_everywhere()),
            folders: RwLock::default(),
            objects: self.objects(),
            hash_object: Mutex::default(),
        })
    }

    fn converted_everywhere(&self) -> RequestedConversions {
        let setting = self.setting("core.autocrlf").unwrap_or_default();
        let is_off = ["", "false", "no", "off", "0"].contains(&setting.to_lowercase().as_str());
        let config = self.inner.config();
        let own = config.and_then(|config| config.get_path("core.attributesFile"));
        let own = own.ok().or_else(|| {
            gix_path::env::xdg_config("attributes", &mut |name| gix_path::env::var(name))
        });
        let files = [
            Some("/etc/gitattributes".into()),
            own,
            Some(self.inner.commondir().join("info/attributes")),
        ];
        let of_files = files.into_iter().flatten();
        let of_files = of_files.filter_map(|file| std::fs::read(file).ok());
        let mut requested = RequestedConversions {
            line_ends: !is_off,
            ..RequestedConversions::default()
        };
        of_files.for_each(|text| requested.add(&text));
        requested
    }
}

impl WorkTree {
    /// The index.
    pub fn index(&self) -> &GitIndex {
        &self.index
    }

    /// The repository's objects, and the temporary objects that conversions give.
    pub fn objects(&self) -> &Arc<GitObjects> {
        &self.objects
    }

    /// The path relative to the repository; `None` for a path outside of it.
    pub fn inside<'p>(&self, file: &'p Path) -> Option<&'p str> {
        file.strip_prefix(&self.root).ok()?.to_str()
    }

    /// Whether git stores the file as executable.
    pub fn is_executable(&self, file: &Path, stamp: &Stamp) -> bool {
        if self.trusts_modes {
            return stamp.is_executable();
        }
        let tracked = self.inside(file).map(|path| self.index.is_executable(path));
        tracked.flatten().unwrap_or(false)
    }

    /// The blob id of the bytes on disk. The index's id is used only where git does not convert the file.
    pub fn on_disk(&self, file: &Path, stamp: &Stamp) -> io::Result<Oid> {
        if let Some(path) = self.inside(file)
            && let Some(id) = self.index.unchanged(path, stamp)
            && self.is_verbatim(file, path, id, stamp)?
        {
            return Ok(id);
        }
        hash(file)
    }

    /// Whether an unchanged file has the same bytes as its blob.
    fn is_verbatim(&self, file: &Path, path: &str, id: Oid, stamp: &Stamp) -> io::Result<bool> {
        let mut conversion = self.conversion(file);
        if conversion == Conversion::Any {
            conversion = self.rules_of(path)?.conversion;
        }
        Ok(match conversion {
            Conversion::None => true,
            // Converting line ends removes bytes, so an equal size means equal content.
            Conversion::LineEnds => self.objects.size(id).is_ok_and(|size| size == stamp.size),
            Conversion::Any => false,
        })
    }

    /// The blob that git stores for the file, even where the index is outdated: the tracked blob if git
    /// checks it out as this file or stores it for this file; else the result of the clean filters.
    pub fn stored(&self, file: &Path, stamp: &Stamp) -> io::Result<StoredBlob> {
        let verbatim = |id| StoredBlob {
            id,
            is_converted: false,
        };
        let Some(path) = self.inside(file) else {
            return hash(file).map(verbatim);
        };
        let in_folder = self.conversion(file);
        if let Some(id) = self.index.unchanged(path, stamp) {
            let is_converted = in_folder != Conversion::None;
            return Ok(StoredBlob { id, is_converted });
        }
        let raw = hash(file)?;
        let tracked = self.index.id(path);
        if in_folder == Conversion::None || tracked == Some(raw) {
            return Ok(verbatim(raw));
        }
        // Most files have no CRLF, so their attributes do not matter.
        let is_plain = in_folder == Conversion::LineEnds && !has_crlf(file)?;
        if is_plain {
            return Ok(verbatim(raw));
        }
        let rules = self.rules_of(path)?;
        let has_no_ends = || Ok::<_, io::Error>(!has_crlf(file)?);
        let is_verbatim = match rules.conversion {
            Conversion::None => true,
            Conversion::LineEnds => has_no_ends()? || (rules.is_auto && self.keeps_crlf(tracked)),
            Conversion::Any => false,
        };
        if is_verbatim {
            return Ok(verbatim(raw));
        }
        let mut id = self.cleaned(path)?;
        if !rules.is_binary
            && let Some(tracked) = tracked.filter(|tracked| *tracked != id)
            && self.is_checked_out(path, tracked, file, stamp)?
        {
            id = tracked;
        }
        let is_converted = true;
        Ok(StoredBlob { id, is_converted })
    }

    /// Whether git keeps CRLF in spite of `text=auto`: it does where the tracked blob is a text with
    /// CRLF. `git hash-object` does not read the index, so it does not know.
    fn keeps_crlf(&self, tracked: Option<Oid>) -> bool {
        let small = |id: &Oid| {
            self.objects
                .size(*id)
                .is_ok_and(|size| size <= LARGEST_TEXT)
        };
        let blob = tracked.filter(small).map(|id| self.objects.blob(id));
        blob.is_some_and(|blob| blob.is_ok_and(|blob| is_crlf_text(&blob)))
    }

    /// The strongest conversion that is possible for a file, without matching patterns.
    fn conversion(&self, file: &Path) -> Conversion {
        let requested = self.requested(file.parent());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        requested.of(&name)
    }

    fn requested(&self, folder: Option<&Path>) -> Arc<RequestedConversions> {
        let Some(folder) = folder.filter(|folder| folder.starts_with(&self.root)) else {
            return Arc::clone(&self.everywhere);
        };
        let known = self.folders.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(folder) {
            return Arc::clone(known);
        }
        drop(known);
        let mut requested = if folder == self.root {
            Arc::clone(&self.everywhere)
        } else {
            self.requested(folder.parent())
        };
        let own = folder.join(".gitattributes");
        // Where the file does not exist, git reads the attributes from the index.
        let of_index = || {
            let id = self.index.id(self.inside(&own)?)?;
            self.objects.blob(id).ok()
        };
        if let Some(text) = std::fs::read(&own).ok().or_else(of_index) {
            Arc::make_mut(&mut requested).add(&text);
        }
        let mut known = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(folder.to_owned(), Arc::clone(&requested));
        requested
    }

    /// How one file is converted, by its attributes.
    fn rules_of(&self, path: &str) -> io::Result<ConversionRules> {
        self.objects.with_handle(|repository| {
            let value = |name| {
                let flags = AttrCheckFlags::FILE_THEN_INDEX;
                let value = repository.get_attr(Path::new(path), name, flags)?;
                Ok::<_, git2::Error>(AttrValue::from_string(value))
            };
            let is_any = matches!(value("filter")?, AttrValue::String(_))
                || matches!(value("working-tree-encoding")?, AttrValue::String(_))
                || value("ident")? == AttrValue::True;
            let text = value("text")?;
            // `text` may also depend on settings, so only `-text` is taken for no conversion here.
            let is_binary = text == AttrValue::False;
            Ok(ConversionRules {
                conversion: match is_any {
                    true => Conversion::Any,
                    false if is_binary => Conversion::None,
                    false => Conversion::LineEnds,
                },
                is_binary,
                is_auto: match text {
                    AttrValue::String(value) => value == "auto",
                    AttrValue::Unspecified => value("eol")? == AttrValue::Unspecified,
                    _ => false,
                },
            })
        })
    }

    /// The blob that git's conversions give for the file.
    fn cleaned(&self, path: &str) -> io::Result<Oid> {
        let process = self.hash_object.lock();
        let mut process = process.unwrap_or_else(PoisonError::into_inner);
        let process = match &mut *process {
            Some(process) => process,
            none => none.insert(HashObject::start(&self.root, &self.objects)?),
        };
        process.hash(path)
    }

    /// Whether git checks the blob out as the file's current content, although it does not store that
    /// blob for it. This happens with line ends that were committed before there were attributes.
    fn is_checked_out(&self, path: &str, id: Oid, file: &Path, stamp: &Stamp) -> io::Result<bool> {
        if stamp.size > LARGEST_TEXT {
            return Ok(false);
        }
        let now = std::fs::read(file)?;
        let output = git(&self.root)
            .args(["cat-file", "--filters", &format!("--path={path}")])
            .arg(id.to_string())
            .stderr(Stdio::null())
            .output()?;
        Ok(output.status.success() && output.stdout == now)
    }
}

impl RequestedConversions {
    /// Adds the conversions that an attribute file requests.
    fn add(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        for line in text.trim_start_matches('\u{feff}').lines() {
            let mut words = line.split_whitespace();
            let Some(pattern) = words.next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            let conversions = words.map(|word| {
                let name = word.trim_start_matches(['-', '!']);
                match name.split('=').next() {
                    Some("filter" | "ident" | "working-tree-encoding") => Conversion::Any,
                    Some("text" | "eol" | "crlf") => Conversion::LineEnds,
                    _ => Conversion::None,
                }
            });
            let conversion = conversions.max().unwrap_or(Conversion::None);
            self.line_ends |= conversion >= Conversion::LineEnds;
            if conversion == Conversion::Any {
                match ending(pattern) {
                    // `core.ignoreCase` may be on.
                    Some(ending) => drop(self.any.insert(ending.to_ascii_lowercase())),
                    None => self.any_by_pattern = true,
                }
            }
        }
    }

    fn of(&self, name: &str) -> Conversion {
        let is_listed = || {
            let name = name.to_ascii_lowercase();
            self.any.iter().any(|ending| name.ends_with(ending))
        };
        if self.any_by_pattern || is_listed() {
            Conversion::Any
        } else if self.line_ends {
            Conversion::LineEnds
        } else {
            Conversion::None
        }
    }
}

/// `.png` of the pattern `*.png`.
fn ending(pattern: &str) -> Option<&str> {
    let ending = pattern.strip_prefix('*')?;
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    (ending.starts_with('.') && ending.chars().all(is_plain)).then_some(ending)
}

fn hash(file: &Path) -> io::Result<Oid> {
    // libgit2 drops the system's error number. Opening the file again gives it.
    Oid::hash_file(ObjectType::Blob, file).map_err(|error| match File::open(file) {
        Err(error) => error,
        Ok(_) => io::Error::other(error),
    })
}

fn has_crlf(file: &Path) -> io::Result<bool> {
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 64 << 10];
    let mut ends_in_cr = false;
    loop {
        let length = file.read(&mut buffer)?;
        let some = &buffer[..length];
        if length == 0 {
            return Ok(false);
        }
        if (ends_in_cr && some[0] == b'\n') || some.windows(2).any(|pair| pair == b"\r\n") {
            return Ok(true);
        }
        ends_in_cr = some.last() == Some(&b'\r');
    }
}

/// Whether the content is a text with CRLF, by the rules of `convert.c` in git.
fn is_crlf_text(content: &[u8]) -> bool {
    let content = content.strip_suffix(b"\x1a").unwrap_or(content);
    let (mut printable, mut others, mut ends) = (0_usize, 0_usize, 0_usize);
    let mut bytes = content.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' if bytes.peek() == Some(&&b'\n') => {
                ends += 1;
                bytes.next();
            }
            b'\r' | 0 => return false,
            b'\n' => {}
            b'\x08' | b'\t' | b'\x1b' | b'\x0c' => printable += 1,
            ..32 | 127 => others += 1,
            _ => printable += 1,
        }
    }
    ends > 0 && printable >> 7 >= others
}

fn git(root: &Path) -> Command {
    let mut command = Command::new("git");
    for name in REDIRECTING {
        command.env_remove(name);
    }
    command.arg("-C").arg(root).stdin(Stdio::null());
    command
}

/// A running `git hash-object`, which stores files in a temporary folder and prints their ids.
struct HashObject {
    child: Child,
    /// Its standard input. Closing it ends the process.
    paths: Option<ChildStdin>,
    ids: BufReader<ChildStdout>,
    messages: PathBuf,
}

impl HashObject {
    fn start(root: &Path, objects: &GitObjects) -> io::Result<Self> {
        let folder = objects.temporary_folder()?;
        let messages = folder.join("messages");
        let stored =
            objects.with_handle(|repository| Ok(repository.commondir().join("objects")))?;
        let mut child = git(root)
            .args(["-c", "core.safecrlf=false"])
            .args(["hash-object", "-w", "--stdin-paths"])
            .env("GIT_OBJECT_DIRECTORY", folder)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", stored)
            .env("GIT_FLUSH", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages)?)
            .spawn()
            .map_err(|error| {
                let reason = format!(
                    "git cannot be started, but is needed to convert files that have git attributes: \
                     {error}"
                );
                io::Error::new(error.kind(), reason)
            })?;
        let missing = || io::Error::other("a pipe to git is missing");
        let ids = child.stdout.take().ok_or_else(missing)?;
        Ok(Self {
            paths: child.stdin.take(),
            ids: BufReader::new(ids),
            child,
            messages,
        })
    }

    fn hash(&mut self, path: &str) -> io::Result<Oid> {
        let line = quoted(path);
        let sent = self.paths.as_mut().map_or(Ok(()), |paths| {
            paths.write_all(line.as_bytes())?;
            paths.flush()
        });
        let mut id = String::new();
        let read = sent.and_then(|()| self.ids.read_line(&mut id));
        if let (Ok(1..), Ok(id)) = (read, Oid::from_str(id.trim())) {
            return Ok(id);
        }
        let messages = std::fs::read(&self.messages).unwrap_or_default();
        let messages = String::from_utf8_lossy(&messages);
        let reason = format!("`git hash-object` failed: {}", messages.trim());
        Err(io::Error::other(reason))
    }
}

impl Drop for HashObject {
    fn drop(&mut self) {
        self.paths = None;
        let _ = self.child.wait();
    }
}

/// A line for `--stdin-paths`. A path that git would misread is quoted as in C.
fn quoted(path: &str) -> String {
    if !path.starts_with('"') && !path.contains('\n') {
        return format!("{path}\n");
    }
    let escaped = path
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"\n")
}
