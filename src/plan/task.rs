//! One script to run, with everything that is decided about it.

use super::task_map::TaskId;
use crate::cache::Key;
use crate::config::PackageJson;
use crate::store::{AppKind, AppName, Framework, UnitId};

/// The name of the script that builds an app.
const BUILD: &str = "build";

/// What a run does with its apps, and what one of its tasks does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Work {
    /// Run the `build` script. Later stages make images of its result.
    #[default]
    Build,
    /// Run the `build` scripts of the workspace packages that the apps need, and none of the apps.
    /// Development servers read the results of these scripts.
    Packages,
    /// Run another script (`store run`). No later stage uses its result.
    Script(Script),
}

/// A script other than `build`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its name in `package.json`.
    pub name: String,
    /// The arguments after its name.
    pub arguments: Vec<String>,
}

impl Work {
    /// The work of running this script; the script `build` is [`Work::Build`].
    pub fn script(name: String, arguments: Vec<String>) -> Self {
        if name == BUILD {
            Self::Build
        } else {
            Self::Script(Script { name, arguments })
        }
    }

    /// The script's name in `package.json`.
    pub fn name(&self) -> &str {
        match self {
            Self::Build | Self::Packages => BUILD,
            Self::Script(script) => &script.name,
        }
    }

    /// The script's name, unless it is `build`.
    pub fn other_script(&self) -> Option<&str> {
        match self {
            Self::Build | Self::Packages => None,
            Self::Script(script) => Some(&script.name),
        }
    }

    /// Whether the script is `build`.
    pub fn is_build(&self) -> bool {
        matches!(self, Self::Build | Self::Packages)
    }

    /// The arguments of the script.
    pub fn arguments(&self) -> &[String] {
        match self {
            Self::Build | Self::Packages => &[],
            Self::Script(script) => &script.arguments,
        }
    }
}

/// One script to run.
#[derive(Debug, Clone)]
pub struct Task {
    /// The package or the unit that has the script.
    pub subject: Subject,
    /// The script.
    pub work: Work,
    /// Whether the user asked for it. Other tasks run only if a task that was asked for needs them.
    pub is_wanted: bool,
    /// Why the result is never cached, if it is not.
    pub never_cached: Option<String>,
    /// Whether the app is shared: it is built without a store's name, and every store can use the
    /// result.
    pub shared: bool,
    /// Which other apps of its store the script may read.
    pub sibling_access: SiblingAccess,
    /// The command that runs before `command`: that of `build.sh`, if the app has this file.
    pub before: Option<Vec<String>>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Folder of the sources, relative to the project: the base app or the package.
    pub source: String,
    /// Names of the dependencies that must be installed.
    pub dependencies: Vec<String>,
    /// Names of the workspace packages whose files the script may read.
    pub packages: Vec<String>,
    /// Names of the declared variables that are set. The script sees them and the system's
    /// variables.
    pub variables: Vec<String>,
    /// Variables that alokai sets for the script, with their values.
    pub settings: &'static [(&'static str, &'static str)],
    /// A digest of all inputs of this task and of its upstream tasks. The key of a result differs:
    /// for upstream tasks it contains their results and not their inputs.
    pub source_digest: Key,
    /// Folder of the result, relative to the project.
    pub folder: String,
    /// Tasks that must end before this one starts.
    pub needs: Vec<TaskId>,
    /// All tasks that this one needs directly or indirectly. The script can read their results.
    pub upstream: Vec<TaskId>,
}

/// What alokai sets for builds of Next.js: the output that runs by itself is the default. A config that
/// names another `output` wins.
const NEXTJS_BUILD: [(&str, &str); 1] = [("NEXT_PRIVATE_STANDALONE", "1")];

/// The variables that alokai sets for the script of an app.
pub fn settings(kind: AppKind, work: &Work) -> &'static [(&'static str, &'static str)] {
    match kind {
        AppKind::Frontend(Framework::Nextjs) if work.is_build() => &NEXTJS_BUILD,
        _ => &[],
    }
}

/// The folder in which a shared app is built. No store's id begins with `_`.
pub fn neutral_folder(app: &AppName) -> String {
    format!(".out/_{app}/{app}")
}

/// Which other apps of its store a script may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiblingAccess {
    /// Only apps that the task needs.
    Needed,
    /// Also the middleware, although the plan does not build it.
    Middleware,
    /// All apps.
    All,
}

/// The package or unit that has a task's script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A workspace package, by name. It is built once for all stores.
    Package(String),
    /// One app of one store.
    Unit(UnitId),
}

impl Task {
    /// The commands, in the order in which they run.
    pub fn commands(&self) -> impl Iterator<Item = &Vec<String>> {
        self.before.iter().chain([&self.command])
    }

    /// The name of the task in its key. For a shared app it contains no store.
    pub fn key_name(&self) -> String {
        match self.shared_key_name() {
            Some(name) if self.shared => name,
            _ => self.name(),
        }
    }

    /// The name in the key if the app were shared; none for a package.
    pub fn shared_key_name(&self) -> Option<String> {
        let unit = self.subject.unit()?;
        Some(format!("shared {}#{}", unit.app, self.work.name()))
    }

    /// The folder in which the script runs, relative to the project. It is as deep as the folder of
    /// the result, so relative paths lead to the same place from both.
    pub fn run_folder(&self) -> String {
        match &self.subject {
            Subject::Unit(unit) if self.shared => neutral_folder(&unit.app),
            _ => self.folder.clone(),
        }
    }

    /// Whether the scripts of both tasks run in one folder.
    pub fn runs_where(&self, other: &Self) -> bool {
        match (self.subject.unit(), other.subject.unit()) {
            (Some(unit), Some(theirs)) if self.shared && other.shared => unit.app == theirs.app,
            _ => self.shared == other.shared && self.folder == other.folder,
        }
    }

    /// The name of the task: `us/storefront-middleware` or a package's name. A script other than
    /// `build` follows after a `#`.
    pub fn name(&self) -> String {
        match self.work.other_script() {
            None => self.subject.to_string(),
            Some(script) => format!("{}#{script}", self.subject),
        }
    }
}

impl Subject {
    /// The app's or the package's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Package(name) => name,
            Self::Unit(unit) => unit.app.as_str(),
        }
    }

    /// The unit; none for a package.
    pub fn unit(&self) -> Option<&UnitId> {
        match self {
            Self::Package(_) => None,
            Self::Unit(unit) => Some(unit),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Package(name) => f.write_str(name),
            Self::Unit(unit) => unit.fmt(f),
        }
    }
}

/// Whether units of this app are built. A frontend and a middleware always are, another app is if
/// it has a `build` script, and Playwright tests never are.
pub fn is_built(kind: AppKind, package: &PackageJson) -> bool {
    match kind {
        AppKind::Frontend(_) | AppKind::Middleware => true,
        AppKind::Playwright => false,
        AppKind::Other => has_build_script(package),
    }
}

/// Whether the package has a `build` script.
pub fn has_build_script(package: &PackageJson) -> bool {
    package.scripts.contains_key(BUILD)
}
