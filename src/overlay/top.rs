//! Which names at the top of the project `.out` links to, so that `../../<name>` of a composed app
//! means what it means for the base app.

use std::path::Path;

/// Folders at the top of a project that `.out` never links to. `.out/.tmp` is a staging folder.
const NOT_LINKED: [&str; 5] = ["apps", ".out", ".alokai", ".tmp", ".turbo"];

/// Files by which tools find the root of a workspace. From a link to one of them, a tool would take
/// `.out` for the root.
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

/// The first letters of names that can hold secrets, and of folders of git and yarn.
const SECRET_STARTS: [&str; 11] = [
    ".env", ".npmrc", ".netrc", ".yarn", ".git", ".ssh", ".aws", ".docker", ".kube", ".gnupg",
    "id_rsa",
];

/// The ends of names of keys and certificates.
const SECRET_ENDS: [&str; 6] = ["pem", "key", "p12", "pfx", "jks", "keystore"];

/// Whether `.out` links to this name at the top of the project.
pub fn is_linked(name: &str) -> bool {
    let end = Path::new(name).extension().and_then(|end| end.to_str());
    !NOT_LINKED.contains(&name)
        && !ROOT_MARKERS.contains(&name)
        && !SECRET_STARTS.iter().any(|start| name.starts_with(start))
        && !end.is_some_and(|end| SECRET_ENDS.contains(&end))
}
