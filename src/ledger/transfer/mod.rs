//! Export and import: a tar moves a build to another registry, image layout or store.

mod export;
mod images;
mod import;

use std::path::{Path, PathBuf};

use miette::Diagnostic;

pub use export::{ExportedImage, export};
pub use images::ImagePlace;
pub use import::{ImportName, ImportedBuildFiles};
pub use oci::StoredImage;

use super::id::RecordId;
use crate::registry;
use crate::store::{AppName, StoreId};

/// Why a build cannot be exported, imported or removed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum BuildTransferError {
    /// The build did not end with images.
    #[error("the build {id} has no images, because it did not succeed")]
    #[diagnostic(
        code(alokai::transfer::no_images),
        help("`alokai store builds --status complete` lists the builds with images")
    )]
    NoImages {
        /// The build.
        id: RecordId,
    },
    /// An image was never pushed.
    #[error("the image of `{app}` in the build {id} was not pushed")]
    #[diagnostic(
        code(alokai::transfer::not_pushed),
        help(
            "images of a Docker engine cannot be exported; push them to a registry or an image layout first: `alokai store deploy --store {store} --until push`"
        )
    )]
    NotPushed {
        /// The build.
        id: RecordId,
        /// The app.
        app: AppName,
        /// The store.
        store: StoreId,
    },
    /// An image was removed.
    #[error("the image `{reference}` of the build {id} does not exist any more")]
    #[diagnostic(
        code(alokai::transfer::gone),
        help("check out the commit of the build and deploy it again")
    )]
    Gone {
        /// The build.
        id: RecordId,
        /// The image.
        reference: String,
    },
    /// The archive has other content than a build.
    #[error("the archive is not a valid build: {reason}")]
    #[diagnostic(
        code(alokai::transfer::archive),
        help("export the build again with `alokai store builds export`")
    )]
    Archive {
        /// What is wrong.
        reason: String,
    },
    /// The store has no app with this name.
    #[error("the store `{store}` has no app `{app}`, which the archive has an image for")]
    #[diagnostic(
        code(alokai::transfer::app),
        help("import the build into a store with the same apps")
    )]
    NoApp {
        /// The store.
        store: StoreId,
        /// The app.
        app: AppName,
    },
    /// The registry.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Registry(Box<registry::Error>),
    /// Files of images.
    #[error("the images of the build cannot be read or copied")]
    #[diagnostic(code(alokai::transfer::files), help("{help}"))]
    Files {
        /// The cause.
        source: Box<oci::Error>,
        /// What to do.
        help: String,
    },
    /// A file of this machine.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(alokai::transfer::file),
        help("check its permissions, and that the disk is not full")
    )]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
}

impl From<oci_distribution::Error> for BuildTransferError {
    fn from(error: oci_distribution::Error) -> Self {
        registry::Error::from(error).into()
    }
}

impl From<registry::Error> for BuildTransferError {
    fn from(error: registry::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl From<oci::Error> for BuildTransferError {
    fn from(source: oci::Error) -> Self {
        let help = source.help();
        let source = Box::new(source);
        Self::Files { source, help }
    }
}

impl BuildTransferError {
    /// An error while doing something with a file.
    fn at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
