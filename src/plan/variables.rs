//! The environment variables that a script sees. Declared variables are part of the key of its
//! result; a short list of system variables is passed on and is not part of the key. No other
//! variable is passed on, so a result cannot depend on an undeclared one.

use std::collections::BTreeMap;

// globset, as for all patterns that are neither gitignore rules nor `.dockerignore` lines.
use globset::{Glob, GlobSet, GlobSetBuilder};

use super::Error;
use crate::cache::Key;
use crate::config::Project;
use crate::store::{AppKind, Framework};

/// Declared for every app and package by default.
const IMPLICIT: &str = "NODE_ENV";

/// Declared by default: the variables that a framework inlines into its builds.
fn of_framework(kind: AppKind) -> Option<&'static str> {
    match kind {
        AppKind::Frontend(Framework::Nextjs) => Some("NEXT_PUBLIC_*"),
        AppKind::Frontend(Framework::Nuxt) => Some("NUXT_PUBLIC_*"),
        _ => None,
    }
}

/// System variables: paths, user, language, terminal, network, and settings of package managers. They
/// are not part of a key.
const SYSTEM: [&str; 46] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PWD",
    "TMPDIR",
    "TMP",
    "TEMP",
    "LANG",
    "LC_*",
    "LANGUAGE",
    "TZ",
    "TERM",
    "COLORTERM",
    "COLUMNS",
    "NO_COLOR",
    "FORCE_COLOR",
    "CI",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "XDG_*",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "NODE_OPTIONS",
    "COREPACK_*",
    "npm_config_*",
    "NPM_CONFIG_*",
    "PNPM_HOME",
    "YARN_*",
    "BUN_INSTALL",
    "NVM_*",
    "VOLTA_HOME",
    "NEXT_TELEMETRY_DISABLED",
    "NUXT_TELEMETRY_DISABLED",
];

/// The declared variables of every app and package.
#[derive(Debug, Clone)]
pub struct DeclaredVariables {
    all: GlobSet,
    own: Vec<(String, GlobSet)>,
}

impl DeclaredVariables {
    /// Reads `build.env`.
    pub fn new(project: &Project) -> Result<Self, Error> {
        let declared = |name: &str| -> Vec<&str> {
            let env = project.settings.env.iter().filter(|(of, _)| of == name);
            env.flat_map(|(_, patterns)| patterns)
                .map(String::as_str)
                .collect()
        };
        let mut own = Vec::new();
        for app in &project.apps {
            let patterns = declared(app.name.as_str()).into_iter();
            let patterns = patterns.chain(of_framework(app.kind));
            own.push((app.name.to_string(), globs(app.name.as_str(), patterns)?));
        }
        for package in &project.packages {
            let patterns = declared(&package.name).into_iter();
            own.push((package.name.clone(), globs(&package.name, patterns)?));
        }
        let all = declared("*").into_iter().chain([IMPLICIT]);
        Ok(Self {
            all: globs("*", all)?,
            own,
        })
    }

    /// The names of the declared variables that are set for this app or package, each with a digest of
    /// its value. An empty value counts as not set.
    pub fn of(&self, name: &str, environment: &BTreeMap<String, String>) -> BTreeMap<String, Key> {
        let own = self
            .own
            .iter()
            .find(|(of, _)| of == name)
            .map(|(_, globs)| globs);
        let is_declared =
            |name: &str| self.all.is_match(name) || own.is_some_and(|globs| globs.is_match(name));
        environment
            .iter()
            .filter(|(name, value)| !value.is_empty() && is_declared(name))
            .map(|(name, value)| (name.clone(), Key::of(value.as_bytes())))
            .collect()
    }
}

fn globs<'a>(of: &str, patterns: impl Iterator<Item = &'a str>) -> Result<GlobSet, Error> {
    let mut globs = GlobSetBuilder::new();
    let wrong = |pattern: &str| Error::Variables {
        app: of.to_owned(),
        pattern: pattern.to_owned(),
    };
    let mut last = "";
    for pattern in patterns {
        last = pattern;
        if pattern.is_empty() || pattern.starts_with('!') {
            return Err(wrong(pattern));
        }
        globs.add(Glob::new(pattern).map_err(|_| wrong(pattern))?);
    }
    globs.build().map_err(|_| wrong(last))
}

/// Whether the variable is a system variable.
pub fn is_system(name: &str) -> bool {
    SYSTEM.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *known,
    })
}
