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

/// The first letters of names that can hold secrets, in lower case.
const SECRET_STARTS: [&str; 20] = [
    ".env",
    ".npmrc",
    ".netrc",
    "_netrc",
    ".pypirc",
    ".pgpass",
    ".htpasswd",
    ".vault-token",
    ".sentryclirc",
    ".ssh",
    ".aws",
    ".azure",
    ".docker",
    ".kube",
    ".gnupg",
    ".vercel",
    "id_",
    "credentials.",
    "service-account",
    "terraform.tfstate",
];

/// The ends of names of keys and certificates, in lower case.
const SECRET_ENDS: [&str; 8] = ["pem", "key", "p12", "pfx", "p8", "ppk", "jks", "keystore"];

/// Whether a file or folder of this name can hold secrets.
pub fn holds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let end = Path::new(&name).extension().and_then(|end| end.to_str());
    SECRET_STARTS.iter().any(|start| name.starts_with(start))
        || end.is_some_and(|end| SECRET_ENDS.contains(&end))
}

/// Whether `.out` links to this name at the top of the project.
pub fn is_linked(name: &str) -> bool {
    let is_of_tool = [".git", ".yarn"]
        .iter()
        .any(|start| name.starts_with(start));
    !NOT_LINKED.contains(&name)
        && !ROOT_MARKERS.contains(&name)
        && !is_of_tool
        && !holds_secret(name)
}
