//! The first config of a project, and its pipeline: what the project already has, and the files that
//! `alokai init` proposes for it.
//!
//! [`propose`] only reads. It returns a [`Proposal`] with the whole content of each file, so that the
//! user sees every line before [`Proposal::write`] writes all files or none.

mod cloud;
mod config_text;
mod gitignore;
mod layout;
mod ports;
mod stores;
mod workflow;
mod write;

use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::config::{self, Project, ProjectFolders};
use crate::files::DiskFiles;
use crate::git::{self, Repository};
use crate::workspace::PackageManager;

/// A CI system for which a pipeline can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CiSystem {
    /// GitHub Actions.
    GitHub,
    /// GitLab CI.
    GitLab,
}

/// Why a config cannot be proposed or written.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The project has a config.
    #[error("`{}` already exists, and `init` never replaces a config", path.display())]
    #[diagnostic(
        code(alokai::init::exists),
        help(
            "edit the file, and check it with `alokai doctor`; for a pipeline beside it, run `alokai init --ci github` or `gitlab`; to start again, rename the file first"
        )
    )]
    Configured {
        /// The config.
        path: PathBuf,
    },
    /// The folder has no apps.
    #[error(
        "`{}` has no base apps: a base app is a folder `apps/<app>` with a `package.json`. Found: {found}",
        folder.display()
    )]
    #[diagnostic(code(alokai::init::layout), help("{help}"))]
    Layout {
        /// The folder that was searched.
        folder: PathBuf,
        /// What the folder has instead.
        found: String,
        /// What to do: mostly which files to move.
        help: String,
    },
    /// The file of the pipeline exists.
    #[error("`{}` already exists, and `init` never replaces a pipeline", path.display())]
    #[diagnostic(
        code(alokai::init::pipeline_exists),
        help("rename the file; a config is written without `--ci` too")
    )]
    PipelineExists {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(code(alokai::init::read), help("check the permissions of the file"))]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file cannot be written. All changes are undone.
    #[error("cannot write `{}`; no file was changed", path.display())]
    #[diagnostic(
        code(alokai::init::write),
        help("check the permissions of the folder and the free disk space, then run again")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file cannot be written, and another one that was already written cannot be restored.
    #[error(
        "cannot write `{}` ({source}), and cannot undo the change of `{}`",
        path.display(),
        left.display()
    )]
    #[diagnostic(
        code(alokai::init::left),
        help("undo the change by hand: `git status` lists it")
    )]
    Left {
        /// The file that cannot be written.
        path: PathBuf,
        /// The file that is still changed.
        left: PathBuf,
        /// Why the first cannot be written.
        source: std::io::Error,
    },
    /// A file has changed since it was shown.
    #[error("`{}` has changed since its change was shown; no file was changed", path.display())]
    #[diagnostic(
        code(alokai::init::changed),
        help("run `alokai init` again to see the new change")
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The folders under `apps/` have problems.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] config::Error),
    /// The repository cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] git::Error),
}

/// A value that was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found<T> {
    value: T,
    /// The file, and the line or the key in it.
    place: String,
}

/// A value of the config, and a comment that says where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Commented<T> {
    value: T,
    comment: Option<String>,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedFile {
    /// The absolute path.
    pub path: PathBuf,
    /// The path in messages, relative to the repository or the project.
    pub name: String,
    /// The content that it has now. `None` for a new file.
    pub old: Option<Vec<u8>>,
    /// The content to write.
    pub new: Vec<u8>,
}

/// Everything that `init` found, and the files that it proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The project.
    pub root: PathBuf,
    /// What was found, one fact in each entry: a title and a text.
    pub facts: Vec<(&'static str, String)>,
    /// The files, in the order in which they are written.
    pub files: Vec<ProposedFile>,
    /// What the user has to check or do.
    pub notes: Vec<String>,
}

/// What was found in a project.
struct Survey {
    root: PathBuf,
    /// The config, if the project has one.
    config: Option<Project>,
    /// The root of the repository, or the project if it is not in a repository.
    top: PathBuf,
    repository: Option<Repository>,
    folders: ProjectFolders,
    manager: PackageManager,
    lock_file: Option<&'static str>,
}

impl Survey {
    fn of(start: &Path, ci: Option<CiSystem>) -> Result<Self, Error> {
        let repository = Repository::around(start)?;
        let top = repository
            .as_ref()
            .and_then(|it| it.root().canonicalize().ok());
        let configured = Project::root_of(start).ok();
        let configured =
            configured.filter(|root| top.as_ref().is_none_or(|it| root.starts_with(it)));
        if let Some(root) = &configured
            && ci.is_none()
        {
            let path = root.join(config::FILE);
            return Err(Error::Configured { path });
        }
        let root = match &configured {
            Some(root) => root.clone(),
            None => layout::find_root(start, top.as_deref())?,
        };
        let config = configured.map(|root| Project::load(&root)).transpose()?;
        let folders = ProjectFolders::scan(&root)?;
        let field = folders.root.package_manager.as_deref();
        let manager = PackageManager::detect(&DiskFiles, &root, field);
        let manager = manager.unwrap_or(PackageManager::Npm);
        Ok(Self {
            top: top.unwrap_or_else(|| root.clone()),
            repository: Repository::around(&root)?,
            lock_file: manager.lock_file(&DiskFiles, &root),
            manager,
            folders,
            config,
            root,
        })
    }

    /// The path of the project in its repository, without a slash at the end. Empty at the root.
    fn below(&self) -> String {
        let inside = self.root.strip_prefix(&self.top).unwrap_or(Path::new(""));
        inside.to_string_lossy().into_owned()
    }

    fn file(&self, path: PathBuf, old: Option<Vec<u8>>, new: Vec<u8>) -> ProposedFile {
        let name = path.strip_prefix(&self.top).unwrap_or(&path);
        ProposedFile {
            name: name.to_string_lossy().into_owned(),
            path,
            old,
            new,
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let repository = match (&self.repository, self.below()) {
            (None, _) => "none; a deploy needs one, since a commit names its images".to_owned(),
            (Some(_), below) if below.is_empty() => "the project is its root".to_owned(),
            (Some(_), below) => format!("the project is its folder `{}`", below.escape_debug()),
        };
        let lock_file = self.lock_file.map_or_else(
            || "without a lock file".to_owned(),
            |name| format!("`{name}`"),
        );
        let mut facts: Vec<_> = self
            .folders
            .apps
            .iter()
            .map(|app| {
                (
                    "app",
                    format!("apps/{} ({})", app.name, layout::title(app.kind)),
                )
            })
            .collect();
        facts.push((
            "package manager",
            format!("{}, {lock_file}", self.manager.name()),
        ));
        facts.push(("git repository", repository));
        facts
    }
}

/// Reads the project that contains `start`, and proposes its config and its pipeline. A project that has a
/// config gets only the pipeline.
pub fn propose(start: &Path, ci: Option<CiSystem>) -> Result<Proposal, Error> {
    let survey = Survey::of(start, ci)?;
    let mut facts = survey.facts();
    let mut notes = Vec::new();
    let mut config = None;
    if survey.config.is_none() {
        let hints = cloud::search(&survey.top, &survey.root);
        let stores = stores::decide(&survey, &hints, &mut notes);
        facts.extend(hints.facts());
        config = Some(config_text::text(&survey, &stores));
    }
    let mut files = Vec::new();
    if let Some(file) = gitignore::propose(&survey, &mut notes)? {
        files.push(file);
    }
    if let Some(ci) = ci {
        files.push(workflow::propose(&survey, ci, &mut notes)?);
    }
    // The config is written last. If `init` is interrupted before, it can run again.
    if let Some(text) = config {
        files.push(survey.file(survey.root.join(config::FILE), None, text.into_bytes()));
    }
    for notice in &survey.folders.notices {
        notes.push(notice.to_string());
    }
    Ok(Proposal {
        root: survey.root,
        facts,
        files,
        notes,
    })
}

/// The content of a file; `None` where it does not exist.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
