//! Which servers are believed to be who they say, and where secrets may go.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use reqwest::Certificate;

use super::Error;

/// What is trusted beside the certificates of the system.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Whether passwords and tokens may go to other machines over plain HTTP.
    pub allow_insecure: bool,
    /// A file of certificates, as PEM.
    pub ca: Option<PathBuf>,
    /// Folders as Docker's `certs.d`: `<folder>/<host>/*.crt`. They need not be there.
    pub folders: Vec<PathBuf>,
}

impl Trust {
    /// Certificates that are trusted in connections to that host.
    pub(super) fn certificates(&self, host: &str) -> Result<Vec<Certificate>, Error> {
        let wrong = |path: &Path, message: String| Error::Certificates {
            path: path.to_owned(),
            host: host.to_owned(),
            message,
        };
        let mut files: Vec<PathBuf> = self.ca.iter().cloned().collect();
        for folder in &self.folders {
            let folder = folder.join(host);
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                // What this user may not read is no affair of this user's.
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
                Err(error) => return Err(wrong(&folder, error.to_string())),
            };
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "crt")));
        }
        let mut certificates = Vec::new();
        for path in files {
            let text = std::fs::read(&path).map_err(|error| wrong(&path, error.to_string()))?;
            let mut found = Certificate::from_pem_bundle(&text)
                .map_err(|_| wrong(&path, "it is not PEM".into()))?;
            if found.is_empty() {
                return Err(wrong(&path, "it holds no certificate".into()));
            }
            certificates.append(&mut found);
        }
        Ok(certificates)
    }
}
