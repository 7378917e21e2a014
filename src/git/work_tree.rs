//! Files of the working tree as git sees them: which it tracks, what it would store for their
//! content, and their executable bits.
//!
//! Attributes and settings may convert content on its way into the repository: line ends, or a
//! clean filter such as the one of Git LFS. Most files are not converted, and are hashed here.
//! For the others git itself is asked (`git hash-object`), since only git can run filters. What
//! it answers is written to a temporary object folder, and the repository stays as it is.

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

/// Bytes of the largest file that is compared with what git would check out. A larger one whose
/// line ends are not the stored ones counts as changed, as it does for git.
const LARGEST_TEXT: u64 = 16 << 20;

/// Variables that would lead git away from this work tree.
const FOREIGN: [&str; 6] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
];

/// The working tree of a repository.
pub struct WorkTree {
    /// Without links.
    root: PathBuf,
    index: GitIndex,
    /// Whether executable bits on disk count (`core.fileMode`).
    trusts_modes: bool,
    /// What settings, and attribute files outside of the work tree, ask for.
    everywhere: Arc<RequestedConversions>,
    /// What is asked for in a folder.
    folders: RwLock<HashMap<PathBuf, Arc<RequestedConversions>>>,
    objects: Arc<GitObjects>,
    hasher: Mutex<Option<HashObject>>,
}

/// What may happen to content between the working tree and the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Conversion {
    /// Nothing.
    None,
    /// CRLF becomes LF.
    LineEnds,
    /// Anything: a filter, an encoding, keywords.
    Any,
}

/// What attribute files and settings ask for, before their patterns are matched: few files have
/// a filter, and looking up the attributes of every file would take longer than all else.
#[derive(Debug, Clone, Default)]
struct RequestedConversions {
    /// Whether line ends are converted of some files.
    line_ends: bool,
    /// Endings (`.png`) of files of which anything may be converted.
    any: BTreeSet<String>,
    /// Whether patterns other than `*.<ending>` say of which.
    any_by_pattern: bool,
}

/// What attributes and settings ask for one file.
#[derive(Debug, Clone, Copy)]
struct ConversionRules {
    conversion: Conversion,
    /// Whether its line ends are never converted.
    is_binary: bool,
    /// Whether git decides by the content whether they are.
    is_auto: bool,
}

/// What git would store for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlob {
    /// The blob's id.
    pub id: Oid,
    /// Whether the content on disk may be another one, so that it has to be read from the
    /// work tree's objects.
    pub is_converted: bool,
}

impl Repository {
    /// The working tree, with the index as it is now.
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
            hasher: Mutex::default(),
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
        let mut asked = RequestedConversions {
            line_ends: !is_off,
            ..RequestedConversions::default()
        };
        of_files.for_each(|text| asked.add(&text));
        asked
    }
}

impl WorkTree {
    /// What git tracks.
    pub fn index(&self) -> &GitIndex {
        &self.index
    }

    /// The repository's objects, and those that git would add to them.
    pub fn objects(&self) -> &Arc<GitObjects> {
        &self.objects
    }

    /// A path as git has it, relative to the repository.
    pub fn inside<'p>(&self, file: &'p Path) -> Option<&'p str> {
        file.strip_prefix(&self.root).ok()?.to_str()
    }

    /// Whether git would store the file as executable.
    pub fn is_executable(&self, file: &Path, stamp: &Stamp) -> bool {
        if self.trusts_modes {
            return stamp.is_executable();
        }
        let tracked = self.inside(file).map(|path| self.index.is_executable(path));
        tracked.flatten().unwrap_or(false)
    }

    /// The blob id of the bytes on disk. The index is trusted only where nothing is converted.
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
            // Converting only ever removes bytes.
            Conversion::LineEnds => self.objects.size(id).is_ok_and(|size| size == stamp.size),
            Conversion::Any => false,
        })
    }

    /// What git would store for the file, however fresh the index is: the tracked blob, if the
    /// file is what is checked out for it or what makes it; else what the clean filters make.
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
        // Most files have no CRLF: then there is nothing to ask.
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

    /// Whether git leaves line ends alone that it would convert by `text=auto`: it does where
    /// the tracked blob is a text with CRLF. `git hash-object` does not look at the index.
    fn keeps_crlf(&self, tracked: Option<Oid>) -> bool {
        let small = |id: &Oid| {
            self.objects
                .size(*id)
                .is_ok_and(|size| size <= LARGEST_TEXT)
        };
        let blob = tracked.filter(small).map(|id| self.objects.blob(id));
        blob.is_some_and(|blob| blob.is_ok_and(|blob| is_crlf_text(&blob)))
    }

    /// What may be converted of a file, as far as can be told without matching patterns.
    fn conversion(&self, file: &Path) -> Conversion {
        let asked = self.asked(file.parent());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        asked.of(&name)
    }

    fn asked(&self, folder: Option<&Path>) -> Arc<RequestedConversions> {
        let Some(folder) = folder.filter(|folder| folder.starts_with(&self.root)) else {
            return Arc::clone(&self.everywhere);
        };
        let known = self.folders.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(folder) {
            return Arc::clone(known);
        }
        drop(known);
        let mut asked = if folder == self.root {
            Arc::clone(&self.everywhere)
        } else {
            self.asked(folder.parent())
        };
        let own = folder.join(".gitattributes");
        // Git takes a file that is not there from the index.
        let of_index = || {
            let id = self.index.id(self.inside(&own)?)?;
            self.objects.blob(id).ok()
        };
        if let Some(text) = std::fs::read(&own).ok().or_else(of_index) {
            Arc::make_mut(&mut asked).add(&text);
        }
        let mut known = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(folder.to_owned(), Arc::clone(&asked));
        asked
    }

    /// What is converted of one file, by its attributes.
    fn rules_of(&self, path: &str) -> io::Result<ConversionRules> {
        self.objects.ask(|repository| {
            let value = |name| {
                let flags = AttrCheckFlags::FILE_THEN_INDEX;
                let value = repository.get_attr(Path::new(path), name, flags)?;
                Ok::<_, git2::Error>(AttrValue::from_string(value))
            };
            let is_any = matches!(value("filter")?, AttrValue::String(_))
                || matches!(value("working-tree-encoding")?, AttrValue::String(_))
                || value("ident")? == AttrValue::True;
            let text = value("text")?;
            // In doubt git is asked, which knows all settings.
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

    /// What git makes of the file on its way into the repository.
    fn cleaned(&self, path: &str) -> io::Result<Oid> {
        let mut hasher = self.hasher.lock().unwrap_or_else(PoisonError::into_inner);
        let hasher = match &mut *hasher {
            Some(hasher) => hasher,
            none => none.insert(HashObject::start(&self.root, &self.objects)?),
        };
        hasher.ask(path)
    }

    /// Whether git would check the blob out as the file that is there, although it would not
    /// make that blob of it: line ends that were stored before there were attributes.
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
    /// Adds what the lines of an attribute file ask for.
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
    // libgit2 loses the system's error number; opening again brings it back.
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

/// Whether git takes the content for a text, and it has CRLF: `convert.c` in git.
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
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.arg("-C").arg(root).stdin(Stdio::null());
    command
}

/// A git that stores one file after another in a temporary folder, and says their ids.
struct HashObject {
    child: Child,
    /// Closed first, which ends the child.
    paths: Option<ChildStdin>,
    ids: BufReader<ChildStdout>,
    messages: PathBuf,
}

impl HashObject {
    fn start(root: &Path, objects: &GitObjects) -> io::Result<Self> {
        let folder = objects.own_folder()?;
        let messages = folder.join("messages");
        let stored = objects.ask(|repository| Ok(repository.commondir().join("objects")))?;
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
                    "git is needed to tell what it would store for a file with attributes, and \
                     cannot be started: {error}"
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

    fn ask(&mut self, path: &str) -> io::Result<Oid> {
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

/// A line of `--stdin-paths`: what would be misread is quoted as in C.
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
