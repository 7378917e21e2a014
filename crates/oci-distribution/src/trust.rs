//! Which servers are trusted, and where credentials may be sent.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use reqwest::Certificate;

use super::Error;

/// What is trusted beside the system's certificate authorities.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Whether credentials may be sent to other machines over plain HTTP.
    pub allow_insecure: bool,
    /// A file of certificates, as PEM.
    pub ca: Option<PathBuf>,
    /// Folders like Docker's `certs.d`, with files `<folder>/<host>/*.crt`. A folder need not exist.
    pub folders: Vec<PathBuf>,
}

impl Trust {
    /// Certificates that are trusted in connections to this host.
    pub(super) fn certificates(&self, host: &str) -> Result<Vec<Certificate>, Error> {
        let unusable = |path: &Path, message: String| Error::Certificates {
            path: path.to_owned(),
            host: host.to_owned(),
            message,
        };
        let mut files: Vec<PathBuf> = self.ca.iter().cloned().collect();
        for folder in &self.folders {
            let folder = folder.join(host);
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                // A folder that only another user may read is not meant for this user.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound
                            | ErrorKind::NotADirectory
                            | ErrorKind::PermissionDenied
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(unusable(&folder, error.to_string())),
            };
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "crt")));
        }
        let mut certificates = Vec::new();
        for path in files {
            let text = std::fs::read(&path).map_err(|error| unusable(&path, error.to_string()))?;
            let mut found = Certificate::from_pem_bundle(&text)
                .map_err(|_| unusable(&path, "the file is not valid PEM".into()))?;
            if found.is_empty() {
                return Err(unusable(&path, "the file has no certificates".into()));
            }
            certificates.append(&mut found);
        }
        Ok(certificates)
    }
}
