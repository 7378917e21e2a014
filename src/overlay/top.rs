//! The names at the top of the project to which `.out` has links, so that `../../<name>` leads to the same
//! place from a composed app and from its base app.

use std::path::Path;

/// Folders at the top of a project to which `.out` never has a link. `.out/.tmp` is a staging folder.
const NOT_LINKED: [&str; 5] = ["apps", ".out", ".alokai", ".tmp", ".turbo"];

/// Files by which tools find the root of a workspace. With a link to such a file, a tool takes `.out`
/// for the root.
const ROOT_MARKERS: [&str; 13] = [
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "bun.lockb",
    "pnpm-workspace.yaml",
    "lerna.json",
    "nx.json",
    "rush.json",
    "turbo.json",
    ".pnp.cjs",
    ".pnp.loader.mjs",
];

/// Prefixes of files that can contain secrets, and of files of git and yarn.
const SECRET_PREFIXES: [&str; 11] = [
    ".env", ".npmrc", ".netrc", ".yarn", ".git", ".ssh", ".aws", ".docker", ".kube", ".gnupg",
    "id_rsa",
];

/// File extensions of keys and certificates.
const SECRET_EXTENSIONS: [&str; 6] = ["pem", "key", "p12", "pfx", "jks", "keystore"];

/// Whether `.out` has a link to this name at the top of the project.
pub fn is_linked(name: &str) -> bool {
    let end = Path::new(name).extension().and_then(|end| end.to_str());
    !NOT_LINKED.contains(&name)
        && !ROOT_MARKERS.contains(&name)
        && !SECRET_PREFIXES.iter().any(|start| name.starts_with(start))
        && !end.is_some_and(|end| SECRET_EXTENSIONS.contains(&end))
}
