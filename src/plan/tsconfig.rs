//! Files outside an app that its TypeScript configs name: by `extends`, `references`, and every other
//! relative path (`include`, `paths`, `typeRoots` …).

use std::collections::BTreeSet;
use std::path::Path;

use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde_json::Value;

use virtual_path::normalize;

/// Whether the name is that of a TypeScript or JavaScript config.
pub fn is_config(path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let is_json = Path::new(name).extension().is_some_and(|end| end == "json");
    is_json && (name.starts_with("tsconfig") || name.starts_with("jsconfig"))
}

/// The files and folders that a config names, directly or through other configs, relative to the
/// project. `folders` are the folders to which its paths may be relative. Paths in `apps`, `.out` and
/// `node_modules` are left out, because other inputs cover them.
pub fn named_paths(project: &Path, text: &[u8], folders: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<(Vec<u8>, Vec<String>)> = vec![(text.to_vec(), folders.to_vec())];
    while let Some((text, folders)) = waiting.pop() {
        let text = String::from_utf8_lossy(&text);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let Ok(config) = parse_to_serde_value::<Value>(text, &ParseOptions::default()) else {
            continue;
        };
        let mut paths = Vec::new();
        strings(&config, &mut paths);
        for path in paths {
            for folder in &folders {
                let Some(inside) = place(project, folder, path) else {
                    continue;
                };
                if !found.insert(inside.clone()) {
                    continue;
                }
                let file = project.join(&inside);
                let config = if file.is_dir() {
                    file.join("tsconfig.json")
                } else {
                    file.clone()
                };
                if let Ok(text) = std::fs::read(&config)
                    && config.extension().is_some_and(|end| end == "json")
                {
                    let folder = config.parent().and_then(|it| it.strip_prefix(project).ok());
                    let folder = folder.and_then(Path::to_str).unwrap_or_default();
                    waiting.push((text, vec![folder.to_owned()]));
                }
            }
        }
    }
    found
}

/// Whether a config names a file in the package of this name.
pub fn names(text: &[u8], package: &str) -> bool {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let Ok(config) = parse_to_serde_value::<Value>(text, &ParseOptions::default()) else {
        return false;
    };
    let mut paths = Vec::new();
    strings(&config, &mut paths);
    paths.iter().any(|path| {
        let rest = path.strip_prefix(package);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// All strings in a JSON document.
fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(values) => values.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

/// The path in the project that a relative path in a config means, up to its first wildcard; none if
/// nothing is there or another input covers it.
fn place(project: &Path, folder: &str, path: &str) -> Option<String> {
    if !path.starts_with('.') {
        return None;
    }
    let plain = path.split('*').next()?;
    let plain = if plain.len() < path.len() {
        plain.rsplit_once('/').map_or(".", |(folder, _)| folder)
    } else {
        plain
    };
    let full = normalize(&project.join(folder).join(plain));
    let with_end = || {
        let mut name = full.clone().into_os_string();
        name.push(".json");
        std::path::PathBuf::from(name)
    };
    let full = if full.exists() { full } else { with_end() };
    let inside = full.strip_prefix(project).ok()?.to_str()?;
    let first = inside.split('/').next()?;
    let is_left_out = ["", "apps", ".out", ".git", ".alokai", "node_modules"].contains(&first)
        || inside.split('/').any(|part| part == "node_modules");
    (!is_left_out && full.exists()).then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{is_config, named_paths};

    #[test]
    fn configs_name_files_outside_the_app() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "config/base.json",
            r#"{ "extends": ["./strict", "./more.json"] }"#,
        );
        write("config/strict.json", "{ /* nothing */ }");
        write(
            "config/more.json",
            r#"{ "references": [{ "path": "../shared" }] }"#,
        );
        write(
            "shared/tsconfig.json",
            r#"{ "include": ["../types/**/*.d.ts"] }"#,
        );
        write("types/global.d.ts", "");
        write("node_modules/x/tsconfig.json", "");
        write("apps/other/tsconfig.json", "");
        let text = r#"{
            "extends": "../../config/base.json", // a comment
            "references": [{ "path": "../other" }],
            "compilerOptions": { "baseUrl": "../..", "paths": { "x": ["../../node_modules/x/*"] } },
        }"#;
        let found = named_paths(&root, text.as_bytes(), &["apps/app".into()]);
        let expected = [
            "config/base.json",
            "config/more.json",
            "config/strict.json",
            "shared",
            "types",
        ];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
        assert!(named_paths(&root, b"not JSON", &["apps/app".into()]).is_empty());
        assert!(is_config("src/tsconfig.build.json") && !is_config("package.json"));
    }
}
