//! The destination of images (a registry or a folder), and their references.

use std::path::{Path, PathBuf};

use super::{BuilderChoice, Error, Request};
use crate::event::Stage;
use oci::LAYOUT_PREFIX;

/// The destination of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationPlan {
    /// A registry.
    Registry {
        /// As given, with its scheme if it has one.
        address: String,
        /// Host, with port and path if any: the beginning of references.
        host: String,
        /// Whether the config allows plain HTTP to it.
        is_insecure: bool,
    },
    /// A folder that is an OCI image layout.
    Layout {
        /// As given: `oci:<dir>`.
        name: String,
        /// The folder's path.
        folder: PathBuf,
    },
}

impl DestinationPlan {
    /// Parses the registry's address; a layout's folder is relative to the project. An insecure
    /// registry is reached by plain HTTP unless its address has a scheme.
    pub fn new(project: &Path, given: &str, is_insecure: bool) -> Result<Self, Error> {
        let Some(folder) = given.strip_prefix(LAYOUT_PREFIX) else {
            let address = if is_insecure && !given.contains("://") {
                format!("http://{given}")
            } else {
                given.to_owned()
            };
            return Ok(Self::Registry {
                address,
                host: host(given)?,
                is_insecure,
            });
        };
        let folder = folder.trim_end_matches('/');
        // `skopeo` reads the part after a colon as the image's name.
        if folder.is_empty() || folder.contains(':') {
            return Err(Error::Address {
                value: given.escape_debug().to_string(),
                what: "registry",
                why: "`oci:` must be followed by a folder name without a colon".into(),
                help: "name a folder, relative to the project: `oci:.alokai/registry`",
            });
        }
        Ok(Self::Layout {
            name: format!("{LAYOUT_PREFIX}{folder}"),
            folder: project.join(folder),
        })
    }

    /// Checks that the run can use this destination: only this machine can read a folder.
    pub fn suits(&self, request: &Request, uses_console: bool) -> Result<(), Error> {
        let Self::Layout { name, .. } = self else {
            return Ok(());
        };
        let wrong = |why, help| {
            Err(Error::Folder {
                layout: name.clone(),
                why,
                help,
            })
        };
        if request.until >= Stage::Deploy && uses_console {
            wrong(
                "the console cannot pull images from it",
                "stop before the deploy with `--until push`, or deploy on this machine with `--local`",
            )
        } else if request.until >= Stage::Image && request.builder == BuilderChoice::Docker {
            wrong(
                "Docker does not write images into folders",
                "leave out `--builder docker`, or name a registry",
            )
        } else {
            Ok(())
        }
    }

    /// The beginning of references.
    pub fn name(&self) -> &str {
        match self {
            Self::Registry { host, .. } => host,
            Self::Layout { name, .. } => name,
        }
    }
}

/// The reference of an image: `<registry>/<repository>:<tag>`, or `oci:<dir>:<repository>:<tag>` in a
/// layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationReference {
    /// Host, with port and path if any, without a scheme; or `oci:` and a folder.
    pub registry: String,
    /// Repository.
    pub repository: String,
    /// Tag.
    pub tag: String,
}

impl DestinationReference {
    /// Registry and repository, without the tag.
    pub fn name(&self) -> String {
        let separator = if self.registry.starts_with(LAYOUT_PREFIX) {
            ':'
        } else {
            '/'
        };
        format!("{}{separator}{}", self.registry, self.repository)
    }

    /// Repository and tag: the image's name in a layout.
    pub fn within(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

impl std::fmt::Display for DestinationReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name(), self.tag)
    }
}

/// The registry without its scheme, because references have none.
fn host(registry: &str) -> Result<String, Error> {
    let bare = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"))
        .unwrap_or(registry)
        .trim_end_matches('/');
    // The part before an `@` may contain a password.
    let shown = bare.rsplit_once('@').map_or(bare, |(_, host)| host);
    let wrong = |why: &str| {
        Err(Error::Address {
            value: shown.escape_debug().to_string(),
            what: "registry",
            why: why.to_owned(),
            help: "use a host with an optional port and path, such as `registry.example.com`",
        })
    };
    if bare.contains('@') {
        wrong("it contains credentials; set `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD` instead")
    } else if bare.is_empty() || !bare.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
    {
        wrong("it has no host")
    } else if bare.contains("://") {
        wrong("only `http://` and `https://` are supported")
    } else if !bare
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '[' | ']'))
    {
        wrong("its host has characters that are not allowed in a host")
    } else {
        Ok(bare.to_owned())
    }
}
