//! Events of keeping `.out` in step with changing sources.

use serde::Serialize;

use crate::store::{AppName, StoreId};

/// What happened while `.out` is kept in step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "sync",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum SyncEvent {
    /// Folders are watched from now on.
    Watching {
        /// How many.
        folders: usize,
        /// The stores that are kept in step.
        stores: Vec<StoreId>,
    },
    /// Files of `.out` follow changed files.
    Files {
        /// One for each changed file.
        files: Vec<SyncedFile>,
    },
    /// `.out` cannot follow a change, and stays as it is.
    Failed {
        /// The error, in one or more lines.
        message: String,
    },
    /// The last error is resolved.
    Mended,
    /// One second without a change has passed, and `.out` equals a new compose.
    Checked {
        /// Files in `.out` that differed although no source had changed, and were written or removed.
        repaired: usize,
        /// The first of these files, relative to the project.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        repaired_files: Vec<String>,
        /// Files whose change was found only now, since the file system did not report it.
        late: usize,
    },
}

/// A changed file of a layer, and the stores whose composed file changed with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncedFile {
    /// The app.
    pub app: AppName,
    /// The path in the app.
    pub path: String,
    /// What happened to it.
    #[serde(flatten)]
    pub change: FileChange,
    /// The stores whose composed file changed.
    pub stores: Vec<StoreId>,
    /// Stores below the layer that have a file of their own at this path.
    pub overridden_in: Vec<StoreId>,
}

/// What happened to a file. Layers are `base` or the id of a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(
    tag = "change",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
pub enum FileChange {
    /// The file was added or edited.
    Written {
        /// The layer that gives it.
        layer: String,
    },
    /// The file was removed from a layer.
    Removed {
        /// The layer.
        layer: String,
        /// The layer that gives the file now; none if no layer has it.
        now_from: Option<String>,
    },
    /// A rule of `ignorePaths` drops the file.
    Dropped,
}

/// The most files that are listed one a line.
const LISTED_FILES: usize = 10;

/// The most stores that are named in a line.
const NAMED_STORES: usize = 6;

impl SyncEvent {
    /// The event as text, one or more lines: each file, or only the first ones. None for an event that is
    /// not shown to people.
    pub fn text(&self, in_full: bool) -> Option<String> {
        Some(match self {
            Self::Watching { folders, stores } => {
                format!("watching {folders} folders for {}", names(stores))
            }
            Self::Files { files } => {
                let listed = if in_full { files.len() } else { LISTED_FILES };
                let mut lines: Vec<_> = files.iter().take(listed).map(line).collect();
                let rest = files.len().saturating_sub(listed);
                if rest > 0 {
                    lines.push(format!("… and {rest} more files"));
                }
                lines.join("\n")
            }
            Self::Failed { message } => format!("`.out` is not in step: {message}"),
            Self::Mended => "`.out` is in step again".into(),
            Self::Checked { repaired: 0, .. } => return None,
            Self::Checked {
                repaired,
                repaired_files,
                ..
            } => {
                let what = match repaired {
                    1 => "1 file in `.out` differed from its source and was corrected".to_owned(),
                    _ => format!(
                        "{repaired} files in `.out` differed from their sources and were corrected"
                    ),
                };
                format!("{what}{}", named(repaired_files, *repaired))
            }
        })
    }
}

/// `app/Header.tsx  fashion → us, eu (outlet has its own)`.
fn line(file: &SyncedFile) -> String {
    let what = match &file.change {
        FileChange::Written { layer } => layer.clone(),
        FileChange::Removed {
            layer,
            now_from: Some(now),
        } => format!("removed from {layer}, now from {now}"),
        FileChange::Removed {
            layer,
            now_from: None,
        } => format!("removed from {layer}"),
        FileChange::Dropped => "dropped by `ignorePaths`".into(),
    };
    let stores = match file.stores.as_slice() {
        [] => "no store".into(),
        stores => names(stores),
    };
    let own = match file.overridden_in.as_slice() {
        [] => String::new(),
        [one] => format!(" ({one} has its own)"),
        several => format!(" ({} have their own)", names(several)),
    };
    let path = file.path.escape_debug();
    format!("{}/{path}  {what} → {stores}{own}", file.app)
}

/// `: .out/us/web/a.ts, .out/us/web/b.ts and 2 more`.
fn named(files: &[String], count: usize) -> String {
    if files.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = files
        .iter()
        .map(|file| file.escape_debug().to_string())
        .collect();
    let shown = shown.join(", ");
    match count.saturating_sub(files.len()) {
        0 => format!(": {shown}"),
        rest => format!(": {shown} and {rest} more"),
    }
}

fn names(stores: &[StoreId]) -> String {
    let shown = stores.iter().take(NAMED_STORES).map(ToString::to_string);
    let shown = shown.collect::<Vec<_>>().join(", ");
    match stores.len().saturating_sub(NAMED_STORES) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::{FileChange, SyncEvent, SyncedFile};
    use crate::store::{AppName, StoreId};

    fn ids(names: &[&str]) -> Vec<StoreId> {
        names.iter().map(|it| StoreId::new(it).unwrap()).collect()
    }

    fn file(change: FileChange, stores: &[&str], own: &[&str]) -> SyncedFile {
        SyncedFile {
            app: AppName::new("web").unwrap(),
            path: "Header.tsx".into(),
            change,
            stores: ids(stores),
            overridden_in: ids(own),
        }
    }

    #[test]
    fn a_line_names_the_layer_the_stores_and_the_overrides() {
        let written = || FileChange::Written {
            layer: "fashion".into(),
        };
        let removed = |now: Option<&str>| FileChange::Removed {
            layer: "us".into(),
            now_from: now.map(str::to_owned),
        };
        let files = vec![
            file(written(), &["us", "eu"], &["outlet"]),
            file(written(), &[], &["us", "eu"]),
            file(removed(Some("fashion")), &["us"], &[]),
            file(removed(None), &["us"], &[]),
            file(
                FileChange::Dropped,
                &["a", "b", "c", "d", "e", "f", "g"],
                &[],
            ),
        ];
        let expected = "web/Header.tsx  fashion → us, eu (outlet has its own)
web/Header.tsx  fashion → no store (us, eu have their own)
web/Header.tsx  removed from us, now from fashion → us
web/Header.tsx  removed from us → us
web/Header.tsx  dropped by `ignorePaths` → a, b, c, d, e, f and 1 more";
        let text = SyncEvent::Files { files }.text(false);
        assert_eq!(text.as_deref(), Some(expected));
    }

    #[test]
    fn corrected_files_are_named() {
        let text = |repaired, files: &[&str]| {
            let repaired_files = files.iter().map(|it| (*it).to_owned()).collect();
            let event = SyncEvent::Checked {
                repaired,
                repaired_files,
                late: 0,
            };
            event.text(false)
        };
        assert_eq!(text(0, &[]), None);
        assert_eq!(
            text(1, &[".out/us/web/a.ts"]).as_deref(),
            Some("1 file in `.out` differed from its source and was corrected: .out/us/web/a.ts")
        );
        let several = text(4, &[".out/us/a", ".out/us/b", ".out/us/c"]).unwrap();
        assert!(
            several.ends_with("corrected: .out/us/a, .out/us/b, .out/us/c and 1 more"),
            "{several}"
        );
    }

    #[test]
    fn many_files_are_counted_and_not_listed() {
        let change = FileChange::Dropped;
        let files = vec![file(change, &["us"], &[]); 300];
        let event = SyncEvent::Files { files };
        assert_eq!(event.text(true).unwrap().lines().count(), 300);
        let text = event.text(false).unwrap();
        assert_eq!(text.lines().count(), 11);
        assert!(text.ends_with("… and 290 more files"), "{text}");
    }
}
