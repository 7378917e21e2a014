//! The errors of commands.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::compare::OverrideState;
use crate::store::StoreId;

/// Errors of the command line, the environment and standard output.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The folder given with `--cwd` does not exist or is not a folder.
    #[error("`{}` is not a folder", path.display())]
    #[diagnostic(
        code(alokai::cli::cwd),
        help("set `--cwd` to the folder of a project, or to a folder in it")
    )]
    Cwd {
        /// As given.
        path: PathBuf,
    },
    /// `.env` cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(code(alokai::cli::env_file), help("check the permissions of the file"))]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// `--cloud-password-stdin` is given, but standard input is empty.
    #[error("`--cloud-password-stdin` is given, but standard input has no password")]
    #[diagnostic(
        code(alokai::cli::password),
        help(
            "pipe the password in: `echo \"$PASSWORD\" | alokai store deploy … --cloud-password-stdin`"
        )
    )]
    NoPassword,
    /// `compose --check` found differences.
    #[error("`.out` is not up to date; files to write: {write}, files to remove: {remove}")]
    #[diagnostic(
        code(alokai::cli::differs),
        help("run the same command without `--check` to update `.out`")
    )]
    Differs {
        /// Files to write.
        write: usize,
        /// Files to remove.
        remove: usize,
    },
    /// `drift --fail-on` found overrides.
    #[error("{}", overrides(*count, *standing))]
    #[diagnostic(code(alokai::cli::drift), help("{}", help_for(*standing)))]
    Drift {
        /// How many.
        count: usize,
        /// Their kind.
        standing: OverrideState,
    },
    /// `drift --fail-on` cannot tell, since the clone is shallow.
    #[error("the history of this clone starts after {} made, so `drift` cannot determine whether an override is behind", if *count == 1 { "1 override was".to_owned() } else { format!("{count} overrides were") })]
    #[diagnostic(
        code(alokai::cli::history_ends),
        help(
            "fetch the whole history: `git fetch --unshallow` (actions/checkout: `fetch-depth: 0`; GitLab: `GIT_DEPTH: 0`)"
        )
    )]
    HistoryEnds {
        /// How many.
        count: usize,
    },
    /// `check` found problems.
    #[error("found {count} {}", if *count == 1 { "problem" } else { "problems" })]
    #[diagnostic(
        code(alokai::cli::findings),
        help("each problem is listed above, with its place and how to fix it")
    )]
    Findings {
        /// How many.
        count: usize,
    },
    /// A merge has conflicts.
    #[error("`{path}` was merged with {count} {}", if *count == 1 { "conflict" } else { "conflicts" })]
    #[diagnostic(
        code(alokai::cli::conflicts),
        help("resolve the conflicts between `<<<<<<<` and `>>>>>>>`, then commit the file")
    )]
    Conflicts {
        /// The override.
        path: String,
        /// How many.
        count: usize,
    },
    /// The cache cannot be read or written.
    #[error("{source}")]
    #[diagnostic(
        code(alokai::cli::cache),
        help("check the permissions of `.alokai/cache`; it is safe to remove the whole folder")
    )]
    Cache {
        /// The cause.
        source: crate::cache::Error,
    },
    /// A store does not exist.
    #[error("there is no store `{}`", id.escape_debug())]
    #[diagnostic(code(alokai::cli::no_store), help("{}", nearest.as_ref().map_or_else(|| "`alokai store list` lists the stores".into(), |near| format!("did you mean `{near}`?"))))]
    NoStore {
        /// As given.
        id: String,
        /// The nearest one.
        nearest: Option<String>,
    },
    /// An archive would go to a terminal, or come from one.
    #[error("{what} a terminal")]
    #[diagnostic(code(alokai::cli::terminal), help("{help}"))]
    Terminal {
        /// What does not work.
        what: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// The password and an archive cannot both come from standard input.
    #[error("`--cloud-password-stdin` cannot be used with an archive on standard input")]
    #[diagnostic(
        code(alokai::cli::password_and_archive),
        help("set `CLI_CLOUD_PASSWORD` in the environment or in `.env`")
    )]
    PasswordAndArchive,
    /// A store without `deployment` has no images.
    #[error("the store `{id}` has no images, because it has no `deployment` in the config")]
    #[diagnostic(
        code(alokai::cli::not_deployable),
        help("choose a store that is deployed: `alokai store list` shows them")
    )]
    NotDeployable {
        /// The store.
        id: StoreId,
    },
    /// `manifests` needs a build.
    #[error("the store `{store}` has no complete build")]
    #[diagnostic(
        code(alokai::cli::no_complete_build),
        help("`alokai store deploy --store {store} --until push` makes one")
    )]
    NoCompleteBuild {
        /// The store.
        store: StoreId,
    },
    /// An object cannot be written as YAML.
    #[error("an object cannot be written as YAML: {reason}")]
    #[diagnostic(code(alokai::cli::yaml), help("print it as JSON with `--json`"))]
    Yaml {
        /// The cause.
        reason: String,
    },
    /// `builds prune` has no rule.
    #[error("no rule says which builds to remove")]
    #[diagnostic(
        code(alokai::cli::no_prune_rule),
        help("pass at least one of `--keep N`, `--older-than 30d` and `--max-size 20GB`")
    )]
    NoPruneRule,
    /// `history --push` cannot send records.
    #[error("the records cannot be sent to the registry: {reason}")]
    #[diagnostic(
        code(alokai::cli::not_sent),
        help("check the address of the registry, and that `CLI_CLOUD_USERNAME` may push to it")
    )]
    NotSent {
        /// Why.
        reason: String,
    },
    /// The target of a store has no locks.
    #[error("the target `{target}` of `{store}` has no locks")]
    #[diagnostic(
        code(alokai::cli::no_locks),
        help("the targets `docker`, `swarm`, `kubernetes`, `local` and `command` have locks")
    )]
    NoLocks {
        /// The target.
        target: &'static str,
        /// The store.
        store: StoreId,
    },
    /// The target of a store has no output of apps.
    #[error("the target `{target}` of `{store}` does not support `store logs`")]
    #[diagnostic(
        code(alokai::cli::no_logs),
        help(
            "the targets `docker`, `swarm`, `kubernetes`, `local`, and `command` with the capability `logs` support it; the console shows output on its own pages"
        )
    )]
    NoLogs {
        /// The target.
        target: &'static str,
        /// The store.
        store: StoreId,
    },
    /// The target of a store has no page for maintenance.
    #[error("the target `{target}` of `{store}` does not support a maintenance page")]
    #[diagnostic(
        code(alokai::cli::no_maintenance),
        help(
            "the targets `docker` with `deploy.docker.proxy`, `swarm`, `kubernetes`, `local`, and `command` with the capability `maintenance` support it"
        )
    )]
    NoMaintenance {
        /// The target.
        target: &'static str,
        /// The store.
        store: StoreId,
    },
    /// No release of a store is live.
    #[error("no release of `{store}` is live at the target `{target}`")]
    #[diagnostic(
        code(alokai::cli::nothing_live),
        help(
            "`alokai store status {}` shows what the store has",
            crate::target::place_options(store, target)
        )
    )]
    NothingLive {
        /// The store.
        store: StoreId,
        /// The target.
        target: &'static str,
    },
    /// An app does not exist.
    #[error("there is no app `{}`", app.escape_debug())]
    #[diagnostic(code(alokai::cli::no_app), help("{}", nearest.as_ref().map_or_else(|| "`alokai store list` lists the apps".into(), |near| format!("did you mean `{near}`?"))))]
    NoApp {
        /// As given.
        app: String,
        /// The nearest one.
        nearest: Option<String>,
    },
    /// The page for maintenance cannot be read.
    #[error("cannot read the page `{}`", path.display())]
    #[diagnostic(
        code(alokai::cli::page),
        help("`--page` is a file with HTML in UTF-8, relative to the current folder")
    )]
    Page {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The page for maintenance has no text.
    #[error("the page `{}` is empty", path.display())]
    #[diagnostic(
        code(alokai::cli::empty_page),
        help("write HTML into it, or leave `--page` out")
    )]
    EmptyPage {
        /// The file.
        path: PathBuf,
    },
    /// The user ended a command that prints until it is ended.
    #[error("interrupted")]
    #[diagnostic(code(alokai::cli::stopped))]
    Stopped,
    /// A name of a setting that is not a name of a variable.
    #[error("`{}` is not a valid name of a setting", name.escape_debug())]
    #[diagnostic(
        code(alokai::cli::setting_name),
        help("a name has letters, digits and `_`, and does not start with a digit")
    )]
    SettingName {
        /// As given.
        name: String,
    },
    /// A value that cannot be in a variable.
    #[error("the value of the setting `{name}` has a NUL character")]
    #[diagnostic(
        code(alokai::cli::setting_value),
        help("variables cannot have this character; encode the value, such as with base64")
    )]
    SettingValue {
        /// The name.
        name: String,
    },
    /// An argument of `settings set` without `=`. It is not repeated, because it may be a secret.
    #[error("an argument of `settings set` is not `KEY=VALUE`")]
    #[diagnostic(
        code(alokai::cli::setting_without_value),
        help("write `KEY=VALUE`, or `--secret KEY` and pipe the value in")
    )]
    SettingWithoutValue,
    /// `--secret` is given, but standard input is empty.
    #[error("`--secret {name}` is given, but standard input has no text")]
    #[diagnostic(
        code(alokai::cli::no_secret),
        help(
            "pipe the value in: `echo \"$VALUE\" | alokai store settings set --secret {name} --store …`"
        )
    )]
    NoSecret {
        /// The name.
        name: String,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    #[diagnostic(
        code(alokai::cli::write),
        help("check the permissions, and that the disk is not full")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// `init` needs a confirmation, but standard input is not a terminal.
    #[error(
        "`init` cannot ask for confirmation, because standard input is not a terminal; no file was changed"
    )]
    #[diagnostic(
        code(alokai::cli::unconfirmed),
        help("read the changes above, then run the command again with `--yes`")
    )]
    Unconfirmed,
    /// `--open` needs an editor.
    #[error("no editor is set; no file was changed")]
    #[diagnostic(
        code(alokai::cli::no_editor),
        help("set the variable `VISUAL` or `EDITOR`, such as `EDITOR=vi`, or leave `--open` out")
    )]
    NoEditor,
    /// The editor fails.
    #[error("the editor `{editor}` failed: {reason}")]
    #[diagnostic(
        code(alokai::cli::editor),
        help("the overrides are written; check the variables `VISUAL` and `EDITOR`")
    )]
    Editor {
        /// The command.
        editor: String,
        /// Why.
        reason: String,
    },
    /// An edit of the tree needs a confirmation, but standard input is not a terminal.
    #[error(
        "cannot ask for confirmation, because standard input is not a terminal; nothing was changed"
    )]
    #[diagnostic(
        code(alokai::cli::unconfirmed_edit),
        help(
            "read the changes above, then run the command again with `--yes`; `--dry-run` only shows them"
        )
    )]
    UnconfirmedEdit,
    /// The project has changed between showing an edit and making it.
    #[error("the project has changed since the changes were shown; nothing was changed")]
    #[diagnostic(
        code(alokai::cli::edit_changed),
        help("run the command again to see the new changes")
    )]
    EditChanged,
    /// An argument is missing, and there is no terminal to ask on.
    #[error("{what} is missing")]
    #[diagnostic(code(alokai::cli::missing_argument), help("usage: {usage}"))]
    MissingArgument {
        /// What is missing.
        what: &'static str,
        /// The command with its arguments.
        usage: &'static str,
    },
    /// An answer that a question does not have.
    #[error("`{}` is not a valid answer", answer.escape_debug())]
    #[diagnostic(code(alokai::cli::answer), help("answer {expected}"))]
    Answer {
        /// The answer.
        answer: String,
        /// The answers that the question has.
        expected: String,
    },
    /// `doctor` found problems.
    #[error("a deploy is not possible: {count} {}", if *count == 1 { "problem" } else { "problems" })]
    #[diagnostic(
        code(alokai::cli::not_ready),
        help("each problem is listed above, with what to do next")
    )]
    NotReady {
        /// The number of problems.
        count: usize,
        /// Whether the config or the command line is wrong.
        is_input: bool,
    },
    /// `test --ui` with several stores.
    #[error("`--ui` opens the tests of one store, but several stores are selected")]
    #[diagnostic(
        code(alokai::cli::ui),
        help("select one store: `alokai store test --store <id> --ui`")
    )]
    UiOfSeveralStores,
    /// Standard output is closed.
    #[error("cannot write to standard output")]
    #[diagnostic(code(alokai::cli::output))]
    Output {
        /// The error of the system.
        source: std::io::Error,
    },
    /// A script cannot be started in its sandbox. The parent process reads the reason from a file.
    #[error("cannot start a script in its sandbox: {reason}")]
    #[diagnostic(
        code(alokai::cli::sandbox),
        help("this command is internal; use `alokai store build --sandbox`")
    )]
    Sandbox {
        /// The reason.
        reason: String,
    },
    /// The asynchronous runtime or the signal handlers cannot be set up.
    #[error("cannot set up threads and signal handlers: {source}")]
    #[diagnostic(
        code(alokai::cli::start),
        help("check the limits of your user: `ulimit -a`")
    )]
    Start {
        /// The error of the system.
        source: std::io::Error,
    },
}

fn overrides(count: usize, standing: OverrideState) -> String {
    match (count, standing) {
        (1, OverrideState::Orphan) => "1 override is an orphan".into(),
        (count, OverrideState::Orphan) => format!("{count} overrides are orphans"),
        (1, standing) => format!("1 override is {standing}"),
        (count, standing) => format!("{count} overrides are {standing}"),
    }
}

fn help_for(standing: OverrideState) -> &'static str {
    match standing {
        OverrideState::Orphan => "remove the override, or move it to the new place of the file",
        OverrideState::Identical => "remove the override: the store inherits the same file",
        OverrideState::Behind | OverrideState::Current => {
            "run `alokai store drift --patch` to show the missed changes, or `--merge <path>` to merge them"
        }
    }
}
