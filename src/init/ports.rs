//! The ports that apps of a project listen on, as far as scripts and settings name them.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use super::Found;
use crate::config::BaseApp;
use crate::store::{AppKind, Framework};

/// Files with settings of an app, in the order in which they are searched.
const ENV_FILES: [&str; 5] = [
    ".env.local",
    ".env.development",
    ".env",
    ".env.example",
    ".env.sample",
];

const NUXT_CONFIGS: [&str; 3] = ["nuxt.config.ts", "nuxt.config.js", "nuxt.config.mjs"];

/// The port of an app: from its scripts, its `.env` files, or the config of Nuxt.
pub fn of(root: &Path, app: &BaseApp) -> Option<Found<u16>> {
    let folder = format!("apps/{}", app.name);
    in_scripts(&folder, app)
        .or_else(|| in_env_files(root, &folder, app.kind))
        .or_else(|| in_nuxt_config(root, &folder, app.kind))
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

fn in_scripts(folder: &str, app: &BaseApp) -> Option<Found<u16>> {
    static PORT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:(?:^|\s)(?:-p|--port)[ =]|\b(?:API_|NUXT_|NITRO_)?PORT=)(\d{2,5})\b")
            .expect("a test uses this constant")
    });
    ["dev", "start"].into_iter().find_map(|name| {
        let script = app.package.scripts.get(name)?;
        let port = PORT.captures(script)?;
        Some(Found {
            value: number(&port[1])?,
            place: format!("{folder}/package.json (script `{name}`)"),
        })
    })
}

fn in_env_files(root: &Path, folder: &str, kind: AppKind) -> Option<Found<u16>> {
    static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"^\s*(?:export\s+)?([A-Z_]+)\s*=\s*["']?(\d{2,5})["']?\s*(?:#.*)?$"#)
            .expect("a test uses this constant")
    });
    let names: &[&str] = match kind {
        AppKind::Middleware => &["API_PORT", "PORT"],
        AppKind::Frontend(Framework::Nuxt) => &["NUXT_PORT", "NITRO_PORT", "PORT"],
        _ => &["PORT"],
    };
    ENV_FILES.into_iter().find_map(|file| {
        let file = format!("{folder}/{file}");
        let text = std::fs::read(root.join(&file)).ok()?;
        let text = String::from_utf8_lossy(&text);
        names.iter().find_map(|name| {
            let lines = text.lines().enumerate();
            // As dotenv reads it: of two assignments, the later one counts.
            let last = lines
                .filter_map(|(index, line)| Some((index, ASSIGNMENT.captures(line)?)))
                .filter(|(_, found)| &found[1] == *name)
                .last();
            let (index, found) = last?;
            Some(Found {
                value: number(&found[2])?,
                place: format!("{file}:{} (`{name}`)", index + 1),
            })
        })
    })
}

fn in_nuxt_config(root: &Path, folder: &str, kind: AppKind) -> Option<Found<u16>> {
    static PORT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"devServer\s*:\s*\{[^}]*\bport\s*:\s*(\d{2,5})")
            .expect("a test uses this constant")
    });
    if kind != AppKind::Frontend(Framework::Nuxt) {
        return None;
    }
    NUXT_CONFIGS.into_iter().find_map(|file| {
        let file = format!("{folder}/{file}");
        let text = std::fs::read_to_string(root.join(&file)).ok()?;
        let port = PORT.captures(&text)?;
        Some(Found {
            value: number(&port[1])?,
            place: format!("{file} (`devServer.port`)"),
        })
    })
}
