//! What a Dockerfile can copy: the files of a build context, and the same as a tar for the
//! engine.

use std::path::{Path, PathBuf};

use crate::pipeline::failure::Io;
use crate::pipeline::prune::{FOLDER, files, odd};
use crate::plan::{Dockerfile, DockerfileSource};
use oci::dockerfile::Dockerignore;

/// Files of a build context.
pub struct ContextFiles {
    /// Paths in it, and where they lie.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// `.dockerignore`.
    pub ignored: Option<String>,
}

/// What a Dockerfile can copy: of the app's own the composed app, of others `.deploy` alone.
pub fn context_files(workdir: &Path, dockerfile: &Dockerfile) -> Result<ContextFiles, Io> {
    if !matches!(dockerfile.source, DockerfileSource::App(_)) {
        let below = |(path, file): (PathBuf, PathBuf)| (Path::new(FOLDER).join(path), file);
        let all = files(&workdir.join(FOLDER), |_| true)?.into_iter();
        return Ok(ContextFiles {
            files: all.map(below).collect(),
            ignored: None,
        });
    }
    Ok(ContextFiles {
        files: files(workdir, |_| true)?,
        ignored: std::fs::read_to_string(workdir.join(".dockerignore")).ok(),
    })
}

/// A build context on its way to the engine.
pub struct ContextArchive {
    /// The composed app.
    pub workdir: PathBuf,
    /// What is carried out.
    pub dockerfile: Dockerfile,
    /// Modification time of all files, in seconds.
    pub modified: u64,
}

impl ContextArchive {
    /// Writes it as a tar. Owners, times and modes are the same on every machine, so that the
    /// engine's cache knows files again.
    pub fn write(self, to: impl std::io::Write) -> Result<(), Io> {
        let mut tar = tar::Builder::new(std::io::BufWriter::with_capacity(256 * 1024, to));
        let context = &self.workdir;
        let text = self.dockerfile.text.as_bytes();
        let mut header = self.header(tar::EntryType::Regular, false);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, "Dockerfile", text)
            .map_err(Io::at("send", context))?;
        let ContextFiles { files, ignored } = context_files(context, &self.dockerfile)?;
        let ignore = Dockerignore::new(ignored.as_deref().unwrap_or_default());
        for (path, file) in files {
            if path != Path::new("Dockerfile") && ignore.sends(&path.to_string_lossy()) {
                self.append(&mut tar, &path, &file)?;
            }
        }
        let finished = tar
            .into_inner()
            .and_then(|mut writer| std::io::Write::flush(&mut writer));
        finished.map_err(Io::at("send", context))
    }

    fn append(
        &self,
        tar: &mut tar::Builder<impl std::io::Write>,
        path: &Path,
        file: &Path,
    ) -> Result<(), Io> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.symlink_metadata().map_err(Io::at("read", file))?;
        if metadata.is_symlink() {
            let target = std::fs::read_link(file).map_err(Io::at("read", file))?;
            let mut header = self.header(tar::EntryType::Symlink, true);
            return tar
                .append_link(&mut header, path, target)
                .map_err(Io::at("send", file));
        }
        if !metadata.is_file() {
            return Err(Io::at("send", file)(odd()));
        }
        let content = std::fs::File::open(file).map_err(Io::at("read", file))?;
        let mut header = self.header(
            tar::EntryType::Regular,
            metadata.permissions().mode() & 0o100 != 0,
        );
        header.set_size(metadata.len());
        tar.append_data(&mut header, path, content)
            .map_err(Io::at("send", file))
    }

    fn header(&self, kind: tar::EntryType, executable: bool) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_mtime(self.modified);
        header.set_size(0);
        header
    }
}
