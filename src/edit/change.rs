//! An edit as a value: the list of changes that it makes, before anything is changed.

use serde::{Serialize, Serializer};

/// A change of the working tree. All paths are relative to the project, with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum Change {
    /// Makes a folder, and the folders above it.
    MakeFolder {
        /// The folder.
        path: String,
    },
    /// Moves a file, or a folder with everything in it: tracked, untracked and ignored files.
    Move {
        /// The path now.
        from: String,
        /// The path afterwards. The folders above it are made.
        to: String,
    },
    /// Writes a file whole. The folders above it are made.
    Write {
        /// The file.
        path: String,
        /// The content now; `None` for a new file. The edit fails if the content has changed.
        #[serde(skip)]
        old: Option<Vec<u8>>,
        /// The content afterwards.
        new: NewContent,
    },
    /// Removes a file, or a folder with everything in it.
    Remove {
        /// The file or folder.
        path: String,
        /// Where it is kept: a path in [`KEPT`]. `None` where nothing in it would be lost.
        #[serde(rename = "keptAt", skip_serializing_if = "Option::is_none")]
        keep: Option<String>,
    },
    /// Removes a folder if it is empty once the changes before are made.
    RemoveEmptyFolder {
        /// The folder.
        path: String,
    },
}

/// The line `alokai store …` of these words, which a shell splits into the same words.
pub fn command_line(words: &[&str]) -> String {
    let quoted = shlex::try_join(words.iter().copied());
    // Only a zero byte cannot be quoted, and an argument has none.
    let line = quoted.unwrap_or_else(|_| words.join(" "));
    format!("alokai store {line}")
}

/// The folder for removed files that no commit has, relative to the project.
pub const KEPT: &str = ".alokai/removed";

/// The content that a file gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewContent {
    /// A regular file. A file that exists keeps its permissions.
    File {
        /// The content.
        bytes: Vec<u8>,
        /// Whether everybody who can read a new file can execute it.
        executable: bool,
    },
    /// A symbolic link. It never replaces a file.
    Link {
        /// The target, as written in the link.
        target: String,
    },
}

impl NewContent {
    /// A regular file that is not executable.
    pub fn text(bytes: impl Into<Vec<u8>>) -> Self {
        Self::File {
            bytes: bytes.into(),
            executable: false,
        }
    }

    /// The content; for a link, the target.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::File { bytes, .. } => bytes,
            Self::Link { target } => target.as_bytes(),
        }
    }
}

impl Serialize for NewContent {
    /// The type and the size: documents for people and scripts do not repeat contents.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = match self {
            Self::File { bytes, executable } => {
                serde_json::json!({ "kind": "file", "bytes": bytes.len(), "executable": executable })
            }
            Self::Link { target } => serde_json::json!({ "kind": "link", "target": target }),
        };
        value.serialize(serializer)
    }
}

/// An ordered list of changes that are made together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEdit {
    /// The command, for messages: `alokai store move us --parent root`.
    pub command: String,
    /// The changes, in the order in which they are made.
    pub changes: Vec<Change>,
}

impl Change {
    /// One line for people.
    pub fn line(&self) -> String {
        match self {
            Self::MakeFolder { path } => format!("make folder  {}", path.escape_debug()),
            Self::Move { from, to } => {
                format!(
                    "move         {} → {}",
                    from.escape_debug(),
                    to.escape_debug()
                )
            }
            Self::Write {
                path, old: None, ..
            } => format!("create       {}", path.escape_debug()),
            Self::Write { path, .. } => format!("edit         {}", path.escape_debug()),
            Self::Remove { path, keep: None } => format!("remove       {}", path.escape_debug()),
            Self::Remove {
                path,
                keep: Some(keep),
            } => format!(
                "remove       {} (kept in {})",
                path.escape_debug(),
                keep.escape_debug()
            ),
            Self::RemoveEmptyFolder { path } => {
                format!("remove       {} (empty)", path.escape_debug())
            }
        }
    }

    /// The paths that the change reads, writes or removes.
    pub(super) fn paths(&self) -> Vec<&str> {
        match self {
            Self::MakeFolder { path }
            | Self::Write { path, .. }
            | Self::RemoveEmptyFolder { path }
            | Self::Remove { path, keep: None } => vec![path],
            Self::Move { from, to } => vec![from, to],
            Self::Remove {
                path,
                keep: Some(keep),
            } => vec![path, keep],
        }
    }
}

impl TreeEdit {
    /// An edit without changes.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            changes: Vec::new(),
        }
    }

    /// The changes for people, one on each line.
    pub fn text(&self) -> String {
        self.changes
            .iter()
            .map(|change| change.line() + "\n")
            .collect()
    }

    /// The document for scripts.
    pub fn document(&self) -> serde_json::Value {
        let changes = self.changes.iter().map(|change| {
            let mut value = serde_json::to_value(change).unwrap_or_default();
            if let (Change::Write { old, .. }, Some(object)) = (change, value.as_object_mut()) {
                object.insert("isNew".into(), old.is_none().into());
            }
            value
        });
        changes.collect()
    }
}

/// The rest of `path` below `folder`: empty for the folder itself, `None` for a path outside of it.
pub(super) fn below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() {
        Some(rest)
    } else {
        rest.strip_prefix('/')
    }
}
