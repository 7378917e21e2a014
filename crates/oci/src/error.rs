//! Errors of images on disk.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Digest, Platform};

/// Why a part of an image cannot be written, found or read. [`Error::help`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be accessed.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// The attempted operation, such as `read`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// An entry that a layer cannot contain.
    #[error("`{}` cannot be in an image: {reason}", path.escape_debug())]
    Entry {
        /// Path in the image.
        path: String,
        /// What is wrong with the entry.
        reason: &'static str,
    },
    /// A file changed while it was packed.
    #[error("`{}` changed while it was packed", path.display())]
    Changed {
        /// Path on this machine.
        path: PathBuf,
    },
    /// A blob's content differs from its descriptor: another digest or another size.
    #[error("the blob `{}` does not match its descriptor: {reason}", path.display())]
    DigestMismatch {
        /// The blob's file.
        path: PathBuf,
        /// The difference.
        reason: String,
    },
    /// A blob does not exist.
    #[error("the blob `{digest}` is missing in `{}`", folder.display())]
    Missing {
        /// Digest of the blob.
        digest: Digest,
        /// The searched folder.
        folder: PathBuf,
    },
    /// A document is not of the expected kind.
    #[error("`{what}` is not a valid {kind}: {reason}")]
    Document {
        /// A path or a digest.
        what: String,
        /// The expected kind, such as `image index`.
        kind: &'static str,
        /// The parser's error, or what is missing.
        reason: String,
    },
    /// A folder is not an image layout.
    #[error("`{}` is not a valid OCI image layout: {reason}", folder.display())]
    Layout {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with the folder.
        reason: String,
        /// What to do.
        help: String,
    },
    /// A tar that is not an image layout.
    #[error("the archive is not a valid OCI image layout: {reason}")]
    Archive {
        /// What is wrong with the archive.
        reason: String,
    },
    /// A name that an image in a layout cannot have.
    #[error("`{}` is not a valid name for an image in a layout", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// A layout has no image, or several and none was chosen.
    #[error("the image layout `{}` has {}", folder.display(), count(names))]
    NotOne {
        /// Folder of the layout.
        folder: PathBuf,
        /// Names of its images. An image without a name has its digest here.
        names: Vec<String>,
    },
    /// An image does not exist for a platform.
    #[error("`{what}` does not exist for the platform `{platform}`")]
    Platform {
        /// The index or the image.
        what: String,
        /// The requested platform.
        platform: Platform,
        /// The platforms of the image.
        offered: Vec<String>,
    },
    /// A layer of a base image cannot be read.
    #[error("cannot read the layer `{layer}`: {reason}")]
    Layer {
        /// Digest of the layer.
        layer: Digest,
        /// What is wrong with the layer.
        reason: String,
    },
}

impl Error {
    /// What a user can do about the error.
    pub fn help(&self) -> String {
        match self {
            Self::Io { source, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "the disk is full: free some space and run again".into()
                }
                ErrorKind::PermissionDenied => {
                    "check the owner and the permissions of the file and its folder".into()
                }
                _ => "check the path; if another process changed it meanwhile, run again".into(),
            },
            Self::Entry { .. } => "rename, repair or remove the file from which it is made".into(),
            Self::Changed { .. } => "another process is writing to this file, such as a script that is still running; stop that process and run again"
                .into(),
            Self::DigestMismatch { .. } => {
                "remove the file; it is created or downloaded again when it is needed".into()
            }
            Self::Missing { .. } => "the image was copied without this blob; copy it again".into(),
            Self::Document { .. } => {
                "copy the image again, or write it again with the tool that made it".into()
            }
            Self::Layout { help, .. } => help.clone(),
            Self::Archive { .. } => {
                "export it again; a transfer that was cut leaves an incomplete archive".into()
            }
            Self::Name { .. } => "use letters and digits, separated by one of `-._:@+`, by `--` or by `/`"
                .into(),
            Self::NotOne { names, .. } if names.is_empty() => {
                "write an image to the layout first".into()
            }
            Self::NotOne { folder, names } => format!(
                "select an image with `oci:{}:<name>`; available names: {}",
                folder.display(),
                list(names)
            ),
            Self::Platform { offered, .. } if offered.is_empty() => {
                "the index has no image; choose another image".into()
            }
            Self::Platform { offered, .. } => format!("available platforms: {}", list(offered)),
            Self::Layer { .. } => "copy or download the image again; if the error persists, use another tool to build on this image"
                .into(),
        }
    }

    /// Converts an I/O error in `map_err`.
    pub(super) fn at(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

fn count(names: &[String]) -> String {
    match names.len() {
        0 => "no image".into(),
        count => format!("{count} images, and none is chosen"),
    }
}
