//! Why a run cannot be planned.

use std::path::PathBuf;

use miette::Diagnostic;

use super::select;

/// A composed `.env` file cannot be read.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("cannot read `{file}` of `{unit}`")]
#[diagnostic(
    code(alokai::plan::env_file),
    help("check that the file exists and that you have permission to read it")
)]
pub struct EnvFileError {
    /// Store and app.
    pub unit: String,
    /// The file, relative to the app.
    pub file: String,
    /// The cause.
    pub source: std::io::Error,
}

/// Why a run cannot be planned.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Neither `--store` nor `--all` is given.
    #[error("no store is selected")]
    #[diagnostic(
        code(alokai::plan::no_selection),
        help(
            "select stores with `--store us,eu`, or all stores with `--all`; deployable stores: {}",
            list(deployable)
        )
    )]
    NoSelection {
        /// The stores that can be selected.
        deployable: Vec<String>,
    },
    /// Stores that cannot be selected.
    #[error("{}", all(problems))]
    #[diagnostic(
        code(alokai::plan::selection),
        help("{}deployable stores: {}", hints(problems), list(deployable))
    )]
    Selection {
        /// Why, one for each store.
        problems: Vec<select::SelectionProblem>,
        /// The stores that can be selected.
        deployable: Vec<String>,
    },
    /// The project has no deployable store.
    #[error("`{}` has no deployable store", config.display())]
    #[diagnostic(
        code(alokai::plan::no_deployable),
        help(
            "add a `deployment` to a store: `\"us\": {{ \"deployment\": {{ \"projectName\": …, \"cloudRegion\": … }} }}`"
        )
    )]
    NoDeployable {
        /// The config file.
        config: PathBuf,
    },
    /// `--filter` is not a valid pattern, or matches no unit.
    #[error("{message}")]
    #[diagnostic(
        code(alokai::plan::filter),
        help(
            "patterns match `<app>-<store>`: `storefront-middleware-*`, `!playwright-*`; units: {}",
            list(units)
        )
    )]
    Filter {
        /// What is wrong.
        message: String,
        /// The names that patterns can match.
        units: Vec<String>,
    },
    /// A deploy of a store without all of its images.
    #[error(
        "`--filter` excludes {}, but a deploy needs all images of a store",
        list(left_out)
    )]
    #[diagnostic(
        code(alokai::plan::partial_deploy),
        help("to push only some units, pass `--until push`; to deploy, leave out `--filter`")
    )]
    PartialDeploy {
        /// Units without an image.
        left_out: Vec<String>,
    },
    /// A frontend or a middleware without a `build` script.
    #[error("{} no `build` script", lacking(apps))]
    #[diagnostic(
        code(alokai::plan::no_build_script),
        help(
            "add one to {}, such as `\"build\": \"next build\"`, `\"nuxt build\"` or `\"tsc\"`",
            files(apps)
        )
    )]
    NoBuildScript {
        /// The base apps.
        apps: Vec<String>,
    },
    /// The project has no base app.
    #[error("`{}` has no base app", apps.display())]
    #[diagnostic(
        code(alokai::plan::no_apps),
        help("a base app is a folder `apps/<app>` with a `package.json`")
    )]
    NoApps {
        /// The folder of base apps.
        apps: PathBuf,
    },
    /// A store without an app to deploy.
    #[error("the store `{store}` cannot be deployed: none of its apps is built into an image")]
    #[diagnostic(
        code(alokai::plan::nothing_to_deploy),
        help("images are built for frontends, middlewares and other apps with a `build` script")
    )]
    NothingToDeploy {
        /// The store.
        store: String,
    },
    /// Two units with the same image reference.
    #[error("{} have the same image reference `{reference}`", list(units))]
    #[diagnostic(
        code(alokai::plan::same_image),
        help(
            "set a different `projectName` for each store, and a different name for each app in `image.names`"
        )
    )]
    SameImage {
        /// The units.
        units: Vec<String>,
        /// The reference.
        reference: String,
    },
    /// An app without a known entry file.
    #[error("cannot find the entry file of `{app}`")]
    #[diagnostic(
        code(alokai::plan::no_entry),
        help(
            "in `apps/{app}/package.json`, add `main` or a `start` script of the form `node <file>`"
        )
    )]
    NoEntry {
        /// The base app.
        app: String,
    },
    /// A dependency cycle of workspace packages.
    #[error("workspace packages have a dependency cycle: {}", cycle.join(" → "))]
    #[diagnostic(
        code(alokai::plan::cycle),
        help("move the shared code into a separate package")
    )]
    Cycle {
        /// The names in the cycle; the last one is the first one again.
        cycle: Vec<String>,
    },
    /// `store run` with a script that no app has.
    #[error("no app of the selected stores has the script `{}`", script.escape_debug())]
    #[diagnostic(
        code(alokai::plan::no_script),
        help("available scripts: {}", list(known))
    )]
    NoScript {
        /// As given.
        script: String,
        /// The scripts that the apps have.
        known: Vec<String>,
    },
    /// Apps without a `dev` script.
    #[error("{} no `dev` script", lacking(apps))]
    #[diagnostic(
        code(alokai::plan::no_dev_script),
        help(
            "add it to {}, such as `\"dev\": \"next dev\"`, or leave the apps out with `--filter`",
            files(apps)
        )
    )]
    NoDevScript {
        /// The names of the apps.
        apps: Vec<String>,
    },
    /// `build.env` has an invalid pattern.
    #[error("`{pattern}` in `build.env` for `{app}` is not a valid pattern")]
    #[diagnostic(
        code(alokai::plan::variables),
        help(
            "use the name of a variable or a prefix with `*`, such as `SENTRY_*`; `!` is not supported"
        )
    )]
    Variables {
        /// App, package or `*`.
        app: String,
        /// As given.
        pattern: String,
    },
    /// `build.globalDependencies` has an invalid pattern.
    #[error("`{pattern}` in `build.globalDependencies` is not a valid pattern")]
    #[diagnostic(
        code(alokai::plan::global_dependencies),
        help("write a path relative to the project, such as `config/**`")
    )]
    GlobalDependencies {
        /// As given.
        pattern: String,
    },
    /// A package manager that is not supported.
    #[error("`packageManager` in `{}` is `{name}`, which is not supported", path.display())]
    #[diagnostic(
        code(alokai::plan::package_manager),
        help("use npm, yarn, pnpm or bun, as in `npm@10.9.0`")
    )]
    PackageManager {
        /// The root `package.json`.
        path: PathBuf,
        /// The value of the field.
        name: String,
    },
    /// The working tree has uncommitted changes.
    #[error("the working tree has {}, so the images would not match the commit in their tag: {}", changes(dirty.len()), first_five(dirty))]
    #[diagnostic(
        code(alokai::plan::dirty),
        help("{}commit or stash the changes, or pass `--allow-dirty` to use the tag `{}-dirty-<8 hex digits of the content>`", ignorable(dirty), sha.get(..12).unwrap_or(sha))
    )]
    Dirty {
        /// The paths.
        dirty: Vec<String>,
        /// The commit of HEAD.
        sha: String,
    },
    /// A Dockerfile that cannot be read.
    #[error("cannot read the Dockerfile `{}`", path.display())]
    #[diagnostic(
        code(alokai::plan::dockerfile),
        help("check `image.dockerfile` in `alokai.config.json`; it is relative to the project")
    )]
    Dockerfile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A composed `.env` file cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    EnvFile(#[from] EnvFileError),
    /// Apps with a callback in both folders.
    #[error("callbacks exist twice:\n  {}", twice.join("\n  "))]
    #[diagnostic(
        code(alokai::plan::callbacks),
        help(
            "keep the files below `.alokai/` or those below `.artifakt/`; a store leaves an inherited file out with `ignorePaths`"
        )
    )]
    Callbacks {
        /// Each app with the two files and their layers.
        twice: Vec<String>,
    },
    /// A Dockerfile that only Docker supports, in a run that does not use Docker.
    #[error("the image of `{unit}` cannot be built {into}: {place}: {why}")]
    #[diagnostic(
        code(alokai::plan::needs_docker),
        help(
            "remove that line (the app's `build` script can run the command); or leave the Dockerfile out of a store with `\"ignorePaths\": [\"/Dockerfile\"]`, so that the default one is used; or build the image with Docker: pass `--builder auto`, and use a registry instead of a folder"
        )
    )]
    NeedsDocker {
        /// The unit.
        unit: String,
        /// The line, with its number and the Dockerfile.
        place: Box<str>,
        /// Why this program cannot carry it out.
        why: Box<str>,
        /// The destination or the builder that excludes Docker.
        into: Box<str>,
    },
    /// A folder as destination, where a later step cannot use it.
    #[error("the destination `{layout}` is a folder on this machine: {why}")]
    #[diagnostic(code(alokai::plan::folder), help("{help}"))]
    Folder {
        /// As given.
        layout: String,
        /// Which step, and why.
        why: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// An invalid address.
    #[error("`{value}` is not a valid {what}: {why}")]
    #[diagnostic(code(alokai::plan::address), help("{help}"))]
    Address {
        /// As given.
        value: String,
        /// What it is the address of.
        what: &'static str,
        /// What is wrong.
        why: String,
        /// What to write instead.
        help: &'static str,
    },
    /// Stores with the name of something at the top of the project, to which `.out` has a link.
    #[error(
        "{} a file or folder at the top of the project has the same name",
        taken_ids(taken)
    )]
    #[diagnostic(
        code(alokai::plan::store_id),
        help(
            "rename the store, or `{}`: beside the stores, `.out` has links to what is at the top of the project",
            project.join(taken.first().map_or("", String::as_str)).display()
        )
    )]
    StoreIdsAtTop {
        /// The project.
        project: PathBuf,
        /// The ids.
        taken: Vec<String>,
    },
    /// A file that cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(alokai::plan::read),
        help("check that you are allowed to read it")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The stores cannot be composed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Overlay(#[from] crate::overlay::Error),
    /// The repository cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] crate::git::Error),
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

fn all(problems: &[select::SelectionProblem]) -> String {
    let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
    all.join("; ")
}

fn hints(problems: &[select::SelectionProblem]) -> String {
    problems
        .iter()
        .filter_map(select::SelectionProblem::hint)
        .flat_map(|hint| [hint, "; "])
        .collect()
}

/// Advice for a dirty working tree with a file that should be ignored rather than committed.
fn ignorable(dirty: &[String]) -> String {
    let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let of_git = |path: &&String| {
        name(path).starts_with(".env") || path.split('/').any(|part| part == "node_modules")
    };
    match dirty.iter().find(of_git) {
        Some(path) => format!("add `{}` to `.gitignore`, ", path.escape_debug()),
        None => String::new(),
    }
}

fn taken_ids(taken: &[String]) -> String {
    match taken {
        [id] => format!("`{id}` is not a valid store id:"),
        ids => format!("{} are not valid store ids:", list(ids)),
    }
}

fn lacking(apps: &[String]) -> String {
    let quoted: Vec<_> = apps.iter().map(|app| format!("`{app}`")).collect();
    format!(
        "{} {}",
        quoted.join(" and "),
        if apps.len() == 1 { "has" } else { "have" }
    )
}

fn files(apps: &[String]) -> String {
    let files: Vec<_> = apps
        .iter()
        .map(|app| format!("`apps/{app}/package.json`"))
        .collect();
    files.join(" and ")
}

fn changes(count: usize) -> String {
    if count == 1 {
        "1 uncommitted change".into()
    } else {
        format!("{count} uncommitted changes")
    }
}

fn first_five(paths: &[String]) -> String {
    let mut shown: Vec<_> = paths
        .iter()
        .take(5)
        .map(|path| format!("`{}`", path.escape_debug()))
        .collect();
    if paths.len() > 5 {
        shown.push(format!("and {} more", paths.len() - 5));
    }
    shown.join(", ")
}
