//! Why an override cannot be made, removed or moved. Nothing was changed.

use miette::Diagnostic;

use crate::overlay::Owner;
use crate::store::StoreId;

/// Why an override cannot be made, removed or moved. Nothing was changed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum OverrideError {
    /// `package.json` or `tsconfig.json`.
    #[error("`{path}` cannot be overridden: it always comes from the base app")]
    #[diagnostic(
        code(alokai::edit::from_base),
        help("change the file of the base app; it applies to all stores")
    )]
    FromBase {
        /// `<app>/<path>`.
        path: String,
    },
    /// The store has the file.
    #[error("`{store}` already has `{}`", file.escape_debug())]
    #[diagnostic(
        code(alokai::edit::overridden),
        help("edit that file; it overrides {}", hidden.as_ref().map_or_else(|| "no file".to_owned(), |file| format!("`{}`", file.escape_debug())))
    )]
    Overridden {
        /// The store.
        store: StoreId,
        /// The file, relative to the project.
        file: String,
        /// The file that it overrides.
        hidden: Option<String>,
    },
    /// A rule drops the path in the store.
    #[error("`{store}` does not have `{}`: {rule} drops it", path.escape_debug())]
    #[diagnostic(
        code(alokai::edit::dropped),
        help(
            "remove the rule, or bring the path back with a rule that starts with `!`: it also drops overrides"
        )
    )]
    Dropped {
        /// The store.
        store: StoreId,
        /// `<app>/<path>`.
        path: String,
        /// The rule, with the store that has it.
        rule: String,
    },
    /// The path is a folder.
    #[error("`{}` is a folder with {files} {}", path.escape_debug(), if *files == 1 { "file" } else { "files" })]
    #[diagnostic(
        code(alokai::edit::folder),
        help(
            "name its files, as few as possible: an override no longer gets the changes of the file that it hides. A shell expands `apps/<app>/<folder>/*`"
        )
    )]
    Folder {
        /// `<app>/<path>`.
        path: String,
        /// How many files the composition has in it.
        files: usize,
    },
    /// The path is a folder of the store.
    #[error("`{}` is a folder, in which `{store}` has {files} {}", path.escape_debug(), if *files == 1 { "file" } else { "files" })]
    #[diagnostic(
        code(alokai::edit::own_folder),
        help(
            "name its files; `--revert` without paths removes all needless overrides of the store"
        )
    )]
    OwnFolder {
        /// The store.
        store: StoreId,
        /// `<app>/<path>`.
        path: String,
        /// How many files the store's layer has in it.
        files: usize,
    },
    /// The layer of `--from` does not have the path.
    #[error("{from} has no `{}`", path.escape_debug())]
    #[diagnostic(code(alokai::edit::not_in_layer), help("{}", in_layers(layers)))]
    NotInLayer {
        /// The layer.
        from: Owner,
        /// `<app>/<path>`.
        path: String,
        /// The layers that the store inherits the path from, nearest first.
        layers: Vec<Owner>,
    },
    /// Git ignores the new file, so it is not a part of the layer.
    #[error("git ignores `{}`, so it is not composed", file.escape_debug())]
    #[diagnostic(
        code(alokai::edit::ignored),
        help("change the rule in `.gitignore`; `git check-ignore --verbose <file>` shows it")
    )]
    Ignored {
        /// The file, relative to the project.
        file: String,
    },
    /// The store does not have the file.
    #[error("`{store}` has no `{}` of its own", path.escape_debug())]
    #[diagnostic(
        code(alokai::edit::no_override),
        help("{}", if nearest.is_empty() { "`alokai store overlays` lists the overrides".to_owned() } else { format!("similar files of the store: `{}`", nearest.join("`, `")) })
    )]
    NoOverride {
        /// The store.
        store: StoreId,
        /// `<app>/<path>`.
        path: String,
        /// The most similar files that it has.
        nearest: Vec<String>,
    },
    /// A file that is not an override.
    #[error("`{}` hides no file, so there is nothing to revert to", file.escape_debug())]
    #[diagnostic(
        code(alokai::edit::addition),
        help("to remove a file that only the store has, use `git rm <file>`")
    )]
    Addition {
        /// The file, relative to the project.
        file: String,
    },
    /// An override that is not the same as the file that it hides.
    #[error("`{}` differs from `{}` ({difference})", file.escape_debug(), hidden.escape_debug())]
    #[diagnostic(
        code(alokai::edit::differs),
        help(
            "only needless overrides are reverted. To give up the changes, remove the file with `git rm <file>`; `git diff --no-index <hidden file> <file>` shows them"
        )
    )]
    Differs {
        /// The override, relative to the project.
        file: String,
        /// The hidden file, relative to the project.
        hidden: String,
        /// How far they are apart.
        difference: String,
    },
    /// An override that is the same as the file that it hides.
    #[error("`{}` is the same as `{}`, which it hides", file.escape_debug(), hidden.escape_debug())]
    #[diagnostic(
        code(alokai::edit::needless),
        help("remove it with `alokai store override --revert <store> <app>/<path>`")
    )]
    Needless {
        /// The override, relative to the project.
        file: String,
        /// The hidden file, relative to the project.
        hidden: String,
    },
    /// Stores that do not have the file get another one if it moves up.
    #[error("`{}` cannot be moved up to {to}: {} another file", file.escape_debug(), gets(stores))]
    #[diagnostic(
        code(alokai::edit::disagree),
        help(
            "an override moves up only if each store keeps its files. Give these stores overrides of their own first: `alokai store override <store> <app>/<path>`"
        )
    )]
    Disagree {
        /// The override, relative to the project.
        file: String,
        /// The layer above.
        to: Owner,
        /// The stores.
        stores: Vec<String>,
    },
    /// Stores that do not have the path get the file if it moves up.
    #[error("`{}` cannot be moved up to {to}: {} a new file", file.escape_debug(), gets(stores))]
    #[diagnostic(
        code(alokai::edit::new_file),
        help(
            "a file moves up only if each store keeps its files. Leave it where it is, or first add `{}` to `ignorePaths` of these stores in `alokai.config.json`",
            path.escape_debug()
        )
    )]
    NewFile {
        /// The file, relative to the project.
        file: String,
        /// Its path in the app.
        path: String,
        /// The layer above.
        to: Owner,
        /// The stores.
        stores: Vec<String>,
    },
    /// A symbolic link whose target is outside the app.
    #[error("`{}` is, or leads through, a symbolic link out of its app", file.escape_debug())]
    #[diagnostic(
        code(alokai::edit::link),
        help("its target depends on the place of the link; replace the link by the file first")
    )]
    Link {
        /// The link, relative to the project.
        file: String,
    },
}

fn gets(stores: &[String]) -> String {
    let names = stores.join(", ");
    if stores.len() == 1 {
        format!("the store {names} gets")
    } else {
        format!("the stores {names} get")
    }
}

fn in_layers(layers: &[Owner]) -> String {
    let names: Vec<_> = layers.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        "no layer that the store inherits from has it".into()
    } else {
        format!("layers with this file: {}", names.join(", "))
    }
}
