//! Why a run cannot be planned.

use std::path::PathBuf;

use miette::Diagnostic;

use super::select;

/// Why a run cannot be planned.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// No `--store`, no `--all`.
    #[error("no store is chosen")]
    #[diagnostic(
        code(alokai::plan::no_selection),
        help(
            "name stores with `--store us,eu`, or take all with `--all`; deployable here: {}",
            list(deployable)
        )
    )]
    NoSelection {
        /// What could be chosen.
        deployable: Vec<String>,
    },
    /// Chosen, and not possible.
    #[error("{}", all(problems))]
    #[diagnostic(
        code(alokai::plan::selection),
        help("{}deployable here: {}", hints(problems), list(deployable))
    )]
    Selection {
        /// Each wrong choice.
        problems: Vec<select::SelectionProblem>,
        /// What could be chosen.
        deployable: Vec<String>,
    },
    /// Nothing could be chosen.
    #[error("`{}` has no deployable store", config.display())]
    #[diagnostic(
        code(alokai::plan::no_deployable),
        help(
            "give a store a `deployment`: `\"us\": {{ \"deployment\": {{ \"projectName\": …, \"cloudRegion\": … }} }}`"
        )
    )]
    NoDeployable {
        /// The config file.
        config: PathBuf,
    },
    /// `--filter` is no pattern, or leaves nothing.
    #[error("{message}")]
    #[diagnostic(
        code(alokai::plan::filter),
        help(
            "patterns match `<app>-<store>`: `storefront-middleware-*`, `!playwright-*`; here: {}",
            list(units)
        )
    )]
    Filter {
        /// What is wrong.
        message: String,
        /// The names that could match.
        units: Vec<String>,
    },
    /// A deploy that would name images that this run does not push.
    #[error(
        "`--filter` leaves out {}, and a deploy needs every image of its store",
        list(left_out)
    )]
    #[diagnostic(
        code(alokai::plan::partial_deploy),
        help("push some units only with `--until push`, or leave out `--filter`")
    )]
    PartialDeploy {
        /// Units without an image.
        left_out: Vec<String>,
    },
    /// Frontends and middleware have to be built.
    #[error("{} no `build` script", lacking(apps))]
    #[diagnostic(
        code(alokai::plan::no_build_script),
        help(
            "add one to {}: `\"build\": \"next build\"`, `\"nuxt build\"`, `\"tsc\"`, or what makes it run",
            files(apps)
        )
    )]
    NoBuildScript {
        /// The base apps.
        apps: Vec<String>,
    },
    /// There is nothing to compose.
    #[error("there is no base app in `{}`", apps.display())]
    #[diagnostic(
        code(alokai::plan::no_apps),
        help("a base app is a folder `apps/<app>` with a `package.json`")
    )]
    NoApps {
        /// Where they belong.
        apps: PathBuf,
    },
    /// A store of which nothing would run.
    #[error("`{store}` has no app that an image is made of, so there is nothing to deploy")]
    #[diagnostic(
        code(alokai::plan::nothing_to_deploy),
        help("a frontend, a middleware, or another app with a `build` script makes one")
    )]
    NothingToDeploy {
        /// The store.
        store: String,
    },
    /// Two units would be pushed to one place.
    #[error("{} would have one and the same image `{reference}`", list(units))]
    #[diagnostic(
        code(alokai::plan::same_image),
        help(
            "give each store a `projectName` of its own, and each app a name of its own in `image.names`"
        )
    )]
    SameImage {
        /// The units.
        units: Vec<String>,
        /// The reference.
        reference: String,
    },
    /// An app that nobody can start.
    #[error("cannot tell how `{app}` is started")]
    #[diagnostic(
        code(alokai::plan::no_entry),
        help(
            "in `apps/{app}/package.json`, set `main`, or a `start` script of the form `node <file>`"
        )
    )]
    NoEntry {
        /// The base app.
        app: String,
    },
    /// Workspace packages that need each other.
    #[error("workspace packages depend on each other in a circle: {}", cycle.join(" → "))]
    #[diagnostic(
        code(alokai::plan::cycle),
        help("move what they share into a package of its own")
    )]
    Cycle {
        /// The circle, its first member again at the end.
        cycle: Vec<String>,
    },
    /// `store run`, and nobody has that script.
    #[error("no app of these stores has a script `{}`", script.escape_debug())]
    #[diagnostic(code(alokai::plan::no_script), help("scripts here: {}", list(known)))]
    NoScript {
        /// As given.
        script: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// `build.env` has something that is no pattern.
    #[error("`{pattern}` in `build.env` for `{app}` is no pattern")]
    #[diagnostic(
        code(alokai::plan::variables),
        help(
            "write a variable's name, or a beginning with a star: `SENTRY_*`; nothing is taken out with `!`"
        )
    )]
    Variables {
        /// App, package or `*`.
        app: String,
        /// As given.
        pattern: String,
    },
    /// `build.globalDependencies` has something that is no pattern.
    #[error("`{pattern}` in `build.globalDependencies` is no pattern")]
    #[diagnostic(
        code(alokai::plan::global_dependencies),
        help("write a path relative to the project, such as `config/**`")
    )]
    GlobalDependencies {
        /// As given.
        pattern: String,
    },
    /// A package manager that is not known.
    #[error("`packageManager` in `{}` names `{name}`, which is not known", path.display())]
    #[diagnostic(
        code(alokai::plan::package_manager),
        help("use npm, yarn, pnpm or bun, as in `npm@10.9.0`")
    )]
    PackageManager {
        /// The root `package.json`.
        path: PathBuf,
        /// What it says.
        name: String,
    },
    /// The tag would lie.
    #[error("the working tree has {} that {} in no commit, so the tag would lie: {}", changes(dirty.len()), if dirty.len() == 1 { "is" } else { "are" }, first_five(dirty))]
    #[diagnostic(
        code(alokai::plan::dirty),
        help("{}commit or stash, or pass `--allow-dirty` to tag `{}-dirty-<8 hex of the content>`", ignorable(dirty), sha.get(..12).unwrap_or(sha))
    )]
    Dirty {
        /// The paths.
        dirty: Vec<String>,
        /// HEAD.
        sha: String,
    },
    /// A Dockerfile that the config names and nobody can read.
    #[error("cannot read the Dockerfile `{}`", path.display())]
    #[diagnostic(
        code(alokai::plan::dockerfile),
        help("mend `image.dockerfile` in `alokai.config.json`; it is relative to the project")
    )]
    Dockerfile {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A Dockerfile that only Docker can carry out, where Docker is not to be asked.
    #[error("the image of `{unit}` cannot be made {into}: {place}: {why}")]
    #[diagnostic(
        code(alokai::plan::needs_docker),
        help(
            "leave that line out (what has to run can run in the app's `build` script), or let Docker make it: `--builder auto`, and a registry that is no folder"
        )
    )]
    NeedsDocker {
        /// Of which unit.
        unit: String,
        /// The line, its number and the Dockerfile.
        place: Box<str>,
        /// What stands in the way.
        why: Box<str>,
        /// By whom or to where.
        into: Box<str>,
    },
    /// Images in a folder, where somebody else is to get them.
    #[error("`{layout}` is a folder on this machine: {why}")]
    #[diagnostic(code(alokai::plan::folder), help("{help}"))]
    Folder {
        /// As given.
        layout: String,
        /// Who cannot do what with it.
        why: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// Part of an image's name that no registry takes.
    #[error("`{value}` is no valid {what}: {why}")]
    #[diagnostic(code(alokai::plan::address), help("{help}"))]
    Address {
        /// As given.
        value: String,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        why: String,
        /// What to write instead.
        help: &'static str,
    },
    /// A dirty file could not be read for the tag.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(code(alokai::plan::read), help("check that you may read it"))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The composition cannot be made.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Overlay(#[from] crate::overlay::Error),
    /// Git does not tell what is needed.
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

/// What else to do about a dirty tree: some files are better ignored than committed.
fn ignorable(dirty: &[String]) -> String {
    let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let of_git = |path: &&String| {
        name(path).starts_with(".env") || path.split('/').any(|part| part == "node_modules")
    };
    match dirty.iter().find(of_git) {
        Some(path) => format!(
            "let git ignore `{}` (in `.gitignore`), ",
            path.escape_debug()
        ),
        None => String::new(),
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
        "1 change".into()
    } else {
        format!("{count} changes")
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
