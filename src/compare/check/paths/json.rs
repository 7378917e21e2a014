//! Paths in config files that are data: JSON with comments, the scripts of a `package.json`, and
//! YAML.

use jsonc_parser::ast::{Object, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::{PathReference, line_of, relative};

/// The paths in a JSON file in `folder`, which is relative to the app. None if it cannot be parsed.
pub fn paths(folder: &str, text: &str) -> Option<Vec<PathReference>> {
    let options = ParseOptions::default();
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options).ok()?;
    let mut found = Vec::new();
    if let Some(value) = &parsed.value {
        collect(value, folder, text, &mut found);
    }
    Some(found)
}

/// The paths in the scripts of a `package.json` in `folder`.
pub fn paths_of_scripts(folder: &str, text: &str) -> Option<Vec<PathReference>> {
    let options = ParseOptions::default();
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options).ok()?;
    let mut found = Vec::new();
    let scripts = parsed.value.as_ref().and_then(Value::as_object);
    let scripts = scripts.and_then(|package| package.get_object("scripts"));
    for script in scripts.iter().flat_map(|scripts| &scripts.properties) {
        let Some(command) = script.value.as_string_lit() else {
            continue;
        };
        let line = line_of(text, script.range().start);
        let is_end = |c: char| c.is_whitespace() || "'\"`=:;&|()<>,".contains(c);
        for path in command.value.split(is_end).filter_map(relative) {
            let path = format!("{folder}/{path}");
            found.push(PathReference { path, line });
        }
    }
    Some(found)
}

/// The paths in a YAML file in `folder`.
pub fn paths_of_yaml(folder: &str, text: &str) -> Option<Vec<PathReference>> {
    let document: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    let mut texts = Vec::new();
    let mut waiting = vec![&document];
    while let Some(value) = waiting.pop() {
        match value {
            serde_json::Value::String(text) => texts.push(text),
            serde_json::Value::Array(values) => waiting.extend(values),
            serde_json::Value::Object(values) => waiting.extend(values.values()),
            _ => {}
        }
    }
    let found = texts.into_iter().filter_map(|value| {
        let path = format!("{folder}/{}", relative(value)?);
        let line = line_of(text, text.find(value.as_str()).unwrap_or(0));
        Some(PathReference { path, line })
    });
    Some(found.collect())
}

fn collect(value: &Value, folder: &str, text: &str, found: &mut Vec<PathReference>) {
    match value {
        Value::StringLit(literal) => {
            if let Some(path) = relative(&literal.value) {
                let path = format!("{folder}/{path}");
                let line = line_of(text, literal.range.start);
                found.push(PathReference { path, line });
            }
        }
        Value::Array(array) => {
            for element in &array.elements {
                collect(element, folder, text, found);
            }
        }
        Value::Object(object) => {
            let base = base_url(object);
            for property in &object.properties {
                // The paths of a `tsconfig.json` are relative to its `baseUrl`.
                let base = base.filter(|_| property.name.as_str() == "paths");
                let folder = base.map_or(folder.to_owned(), |base| format!("{folder}/{base}"));
                collect(&property.value, &folder, text, found);
            }
        }
        _ => {}
    }
}

fn base_url<'v>(object: &'v Object) -> Option<&'v str> {
    object.get_string("baseUrl").map(|base| base.value.as_ref())
}
