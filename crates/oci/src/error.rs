//! What can go wrong with images on this machine's disk.

use std::path::{Path, PathBuf};

use miette::Diagnostic;

use super::{Digest, Platform};

/// Why an image's parts could not be written, found or read.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The disk.
    #[error("cannot {doing} `{}`", path.display())]
    #[diagnostic(help("{}", what_now(source)))]
    Io {
        /// Such as `read`.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// An entry that no layer can have.
    #[error("`{}` cannot be in an image: {reason}", path.escape_debug())]
    Entry {
        /// In the image.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file became another one under our hands.
    #[error("`{}` changed while it was packed", path.display())]
    #[diagnostic(help(
        "something still writes there, such as a script that was left running; end it and run again"
    ))]
    Changed {
        /// On this machine.
        path: PathBuf,
    },
    /// A blob that is not what its digest says.
    #[error("the blob `{}` is damaged: {reason}", path.display())]
    #[diagnostic(help("remove the file; it is made or fetched again when it is needed"))]
    DigestMismatch {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob that is named and not there.
    #[error("the blob `{digest}` is not in `{}`", folder.display())]
    #[diagnostic(help("what names it was copied without it; copy the image again as a whole"))]
    Missing {
        /// Of the blob.
        digest: Digest,
        /// Where it should be.
        folder: PathBuf,
    },
    /// A document of an image that cannot be read as what it should be.
    #[error("`{what}` is no {kind}: {reason}")]
    #[diagnostic(help("copy the image again, or let the tool write it again that wrote it"))]
    Document {
        /// A path or a digest.
        what: String,
        /// Such as `image index`.
        kind: &'static str,
        /// The parser's word, or what is missing.
        reason: String,
    },
    /// A folder that is no image layout.
    #[error("`{}` is no OCI image layout: {reason}", folder.display())]
    #[diagnostic(help("{help}"))]
    Layout {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        help: String,
    },
    /// A name that the specification does not know.
    #[error("`{}` cannot name an image in a layout", name.escape_debug())]
    #[diagnostic(help(
        "letters and digits, joined by one of `-._:@+` or by `--`, in parts separated by `/`"
    ))]
    Name {
        /// As it was given.
        name: String,
    },
    /// A layout that should have one image and has none or several.
    #[error("the image layout `{}` has {}", folder.display(), count(names))]
    #[diagnostic(help("{}", choice(folder, names)))]
    NotOne {
        /// Of the layout.
        folder: PathBuf,
        /// Those there are; images without a name by their digest.
        names: Vec<String>,
    },
    /// An image that is not offered for the platform.
    #[error("`{what}` is not there for `{platform}`")]
    #[diagnostic(help("it is there for {}", list(offered)))]
    Platform {
        /// The index or the image.
        what: String,
        /// The one that was asked for.
        platform: Platform,
        /// Those there are.
        offered: Vec<String>,
    },
    /// A layer of a base image that cannot be understood.
    #[error("cannot read the layer `{layer}`: {reason}")]
    #[diagnostic(help(
        "remove the image from the cache or copy it again; if it was built so, \
                       another tool has to build it"
    ))]
    Layer {
        /// Its digest.
        layer: Digest,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// For `map_err`.
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

fn what_now(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space and run again"
        }
        std::io::ErrorKind::PermissionDenied => "check who owns the file and its folder",
        _ => "check the path; if something else changed it meanwhile, run again",
    }
}

fn list(words: &[String]) -> String {
    if words.is_empty() {
        return "nothing that is known".into();
    }
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

fn count(names: &[String]) -> String {
    match names.len() {
        0 => "no image".into(),
        count => format!("{count} images, and none was chosen"),
    }
}

fn choice(folder: &Path, names: &[String]) -> String {
    if names.is_empty() {
        return "write an image into it first".into();
    }
    format!(
        "say which one: `oci:{}:<name>` with {}",
        folder.display(),
        list(names)
    )
}
