//! The versions of this program, of Node and of the package manager.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nodejs_semver::{Range, Version};
use serde_json::Value;

use super::{Diagnosis, ProblemKind, TIMEOUT};
use crate::files::DiskFiles;
use crate::pipeline::ScriptEnvironment;
use crate::workspace::PackageManager;

/// Files that name the version of Node.
const NODE_FILES: [&str; 2] = [".nvmrc", ".node-version"];

/// The pause between two checks whether a program has ended.
const TICK: Duration = Duration::from_millis(10);

/// Checks the versions.
pub fn check(root: &Path, scripts: &ScriptEnvironment) -> Vec<Diagnosis> {
    let package = std::fs::read(root.join("package.json")).unwrap_or_default();
    let package: Value = serde_json::from_slice(&package).unwrap_or_default();
    let node = std::thread::scope(|scope| {
        let node = scope.spawn(|| node(root, &package, scripts));
        let manager = manager(root, &package, scripts);
        (node.join(), manager)
    });
    let (node, manager) = node;
    let node = node.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let own = Diagnosis::ok("alokai", env!("CARGO_PKG_VERSION"));
    vec![own, node, manager]
}

/// Why the version of a program is not known.
enum NoVersion {
    NotInstalled,
    Failed(String),
}

/// The output of `<program> --version` in the project, since version managers look for files there.
fn version_of(
    program: &str,
    root: &Path,
    scripts: &ScriptEnvironment,
) -> Result<String, NoVersion> {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .current_dir(root)
        .env_clear()
        .envs(scripts.seen(&[]))
        // Corepack asks before it downloads a package manager, and nothing may be downloaded here.
        .env("COREPACK_ENABLE_NETWORK", "0")
        .env("COREPACK_ENABLE_DOWNLOAD_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(NoVersion::NotInstalled);
        }
        Err(error) => return Err(NoVersion::Failed(error.to_string())),
    };
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begun.elapsed() > TIMEOUT {
            let _ = child.kill();
            let _ = child.wait();
            let seconds = TIMEOUT.as_secs();
            return Err(NoVersion::Failed(format!("no response within {seconds} s")));
        }
        std::thread::sleep(TICK);
    }
    let output = child.wait_with_output();
    let output = output.map_err(|error| NoVersion::Failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let line = text.lines().last().unwrap_or_default();
    if !output.status.success() || line.is_empty() {
        return Err(NoVersion::Failed(output.status.to_string()));
    }
    Ok(line.to_owned())
}

/// A version or range that a file requires, and the place.
struct Wanted {
    text: String,
    place: String,
}

fn wanted_node(root: &Path, package: &Value) -> Vec<Wanted> {
    let engines = package["engines"]["node"].as_str();
    let mut wanted: Vec<_> = engines
        .map(|text| Wanted {
            text: text.to_owned(),
            place: "`engines.node` in package.json".into(),
        })
        .into_iter()
        .collect();
    for name in NODE_FILES {
        let text = std::fs::read_to_string(root.join(name)).unwrap_or_default();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        wanted.extend(line.map(|line| Wanted {
            text: line.to_owned(),
            place: format!("`{name}`"),
        }));
    }
    wanted
}

fn node(root: &Path, package: &Value, scripts: &ScriptEnvironment) -> Diagnosis {
    let wanted = wanted_node(root, package);
    let installed = match version_of("node", root, scripts) {
        Ok(version) => version,
        Err(reason) => {
            let found = match reason {
                NoVersion::NotInstalled => "Node is not on the `PATH`".to_owned(),
                NoVersion::Failed(reason) => format!("`node --version` failed: {reason}"),
            };
            let version = wanted.first().map_or("22".into(), |it| it.text.clone());
            let next = format!("install Node {version}; scripts of apps run in it");
            return Diagnosis::problem("node", ProblemKind::External, found, next);
        }
    };
    let version = Version::parse(installed.trim_start_matches('v'));
    for Wanted { text, place } in &wanted {
        // Only version managers know names of releases, such as `lts/*`.
        let range = Range::parse(text.trim_start_matches('v'));
        let (Ok(version), Ok(range)) = (&version, range) else {
            continue;
        };
        if !range.satisfies(version) {
            return Diagnosis::warning(
                "node",
                format!("{installed}, but {place} requires {text}"),
                format!("install Node {text}, or correct {place}"),
            );
        }
    }
    let places: Vec<_> = wanted
        .iter()
        .map(|it| format!("{} requires {}", it.place, it.text))
        .collect();
    let why = if places.is_empty() {
        String::new()
    } else {
        format!(" ({})", places.join(", "))
    };
    Diagnosis::ok("node", format!("{installed}{why}"))
}

fn manager(root: &Path, package: &Value, scripts: &ScriptEnvironment) -> Diagnosis {
    const CHECK: &str = "package manager";
    let field = package["packageManager"].as_str();
    let manager = match PackageManager::detect(&DiskFiles, root, field) {
        Ok(manager) => manager,
        Err(unknown) => {
            return Diagnosis::problem(
                CHECK,
                ProblemKind::Input,
                format!(
                    "`packageManager` names `{}`, which is not supported",
                    unknown.0
                ),
                "use npm, Yarn, pnpm or bun in `packageManager` of package.json",
            );
        }
    };
    let program = match manager {
        PackageManager::Npm => "npm",
        PackageManager::Yarn | PackageManager::Berry => "yarn",
        PackageManager::Pnpm => "pnpm",
        PackageManager::Bun => "bun",
    };
    // `yarn@1.22.22+sha512.…`
    let wanted = field
        .and_then(|it| it.split_once('@'))
        .map(|(_, version)| version);
    let wanted = wanted.map(|it| it.split('+').next().unwrap_or(it));
    let install = match manager {
        PackageManager::Npm => "install npm, which comes with Node",
        PackageManager::Bun => "install bun: `npm install --global bun`",
        _ => "run `corepack enable`, then `corepack install` in the project",
    };
    match version_of(program, root, scripts) {
        Ok(version) => match wanted {
            Some(wanted) if wanted != version => Diagnosis::warning(
                CHECK,
                format!("{program} {version}, but `packageManager` requires {wanted}"),
                install,
            ),
            _ => Diagnosis::ok(CHECK, format!("{program} {version}")),
        },
        Err(NoVersion::NotInstalled) => Diagnosis::problem(
            CHECK,
            ProblemKind::External,
            format!("{program} is not on the `PATH`"),
            install,
        ),
        Err(NoVersion::Failed(reason)) => Diagnosis::problem(
            CHECK,
            ProblemKind::External,
            format!("`{program} --version` failed: {reason}"),
            install,
        ),
    }
}
