//! The shell script by which a user starts an app of `--local`.
//!
//! It is a script and not a command line, because it contains the values of `.env` files: only the owner
//! can read the file, and the values do not appear in a terminal, a log or a list of processes.

use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::Error;
use super::environment::{AppSecrets, MODULE_PATH};
use crate::config::is_variable_name;
use crate::disk;
use crate::pipeline::failure::Io;
use crate::plan::{Launch, Plan, ServerPlan, StoreServers};

/// The credentials of this program, which an app must not get from the user's shell.
const CREDENTIALS: [&str; 4] = [
    "CLI_CLOUD_USERNAME",
    "CLI_CLOUD_PASSWORD",
    "TURBO_TOKEN",
    "TURBO_REMOTE_CACHE_SIGNATURE_KEY",
];

/// Writes the start script of an app. Returns the names of variables that a shell cannot set.
pub fn write(plan: &Plan, store: &StoreServers, server: &ServerPlan) -> Result<Vec<String>, Error> {
    // Scripts and images have commands of their own, which need no copy.
    let Launch::Artifact { folder, entry } = &server.launch else {
        return Ok(Vec::new());
    };
    let mut settings = Vec::new();
    let mut left_out = Vec::new();
    for (name, value) in AppSecrets::read(&server.env_files, &server.environment)?.values {
        if is_variable_name(&name) {
            settings.push(assignment(&name, &value, false));
        } else {
            left_out.push(name);
        }
    }
    let known = store.known(server).into_iter();
    settings.extend(known.map(|it| assignment(&it.name, &it.value, it.replaces_shell)));
    let text = text(server, (folder, entry), &settings.concat());
    let path = plan.project.join(server.script());
    let folder = path.parent().unwrap_or(&plan.project);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(Io::at("create the folder", folder))?;
    // Only the owner can read a new file. An existing file keeps its permissions.
    disk::remove_file(&path).map_err(Io::at("replace", &path))?;
    write_file(&path, &text)?;
    Ok(left_out)
}

fn write_file(path: &Path, text: &str) -> Result<(), Io> {
    disk::write_atomically(path, text.as_bytes()).map_err(Io::at("write", path))
}

/// A text in single quotes, in which a shell expands nothing.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn assignment(name: &str, value: &str, replaces_shell: bool) -> String {
    let value = quoted(value);
    if replaces_shell {
        format!("export {name}={value}\n")
    } else {
        format!("[ -n \"${{{name}-}}\" ] || {name}={value}\nexport {name}\n")
    }
}

fn text(server: &ServerPlan, (folder, entry): (&str, &str), settings: &str) -> String {
    let mut text = String::new();
    let unit = &server.unit;
    let folder = quoted(folder);
    let entry = quoted(entry);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        r#"# Starts {unit} at {address}. Written by `alokai store deploy --local`, and removed
# by `alokai store clean`. It has values of `.env` files: do not share it.
set -eu
cd "$(dirname "$0")/../../.."
alokai_deploy=$PWD/{folder}
trap 'exit 130' HUP INT TERM
alokai_copy=$(mktemp -d)
trap 'rm -rf "$alokai_copy"' EXIT
# As in a container, no package outside of `.deploy` is found.
alokai_above=$(cd "$alokai_copy" && pwd -P)
until [ "$alokai_above" = / ]; do
  alokai_above=$(dirname "$alokai_above")
  if [ -e "${{alokai_above%/}}/node_modules" ]; then
    echo "set TMPDIR to another folder: there is a node_modules in $alokai_above" >&2
    exit 1
  fi
done
unset {MODULE_PATH} {credentials}
cp -RP "$alokai_deploy/." "$alokai_copy"
cd "$alokai_copy"
{settings}node {entry} &
server=$!
trap 'kill "$server" 2>/dev/null || :' HUP INT TERM
status=0
wait "$server" || status=$?
# A signal ends the first `wait` before the app has ended.
wait "$server" 2>/dev/null || :
exit "$status"
"#,
        address = server.address(),
        credentials = CREDENTIALS.join(" "),
    );
    text
}
