//! The text of the first config, with a comment for each value that says where it comes from.

use std::fmt::Write as _;
use std::path::Path;

use super::stores::NewStore;
use super::{Commented, Survey};

/// The name of the schema in the installed npm package.
const SCHEMA: &str = "node_modules/alokai/alokai.config.schema.json";

/// The text of `alokai.config.json`.
pub fn text(survey: &Survey, stores: &[NewStore]) -> String {
    let mut text =
        String::from("// Written by `alokai init`. Comments and trailing commas are allowed.\n{\n");
    if let Some(schema) = schema(&survey.root, &survey.top) {
        let _ = writeln!(text, "  \"$schema\": {},", quoted(&schema));
    }
    text += "  \"stores\": {\n";
    for (index, store) in stores.iter().enumerate() {
        let comma = if index + 1 < stores.len() { "," } else { "" };
        one(store, comma, &mut text);
    }
    text += "  }\n}\n";
    text
}

/// The path of the installed schema, relative to the config. A reference to a file that does not
/// exist would be a warning in every editor.
fn schema(root: &Path, top: &Path) -> Option<String> {
    let mut folders = root
        .ancestors()
        .take_while(|folder| folder.starts_with(top));
    let up = folders.position(|folder| folder.join(SCHEMA).is_file())?;
    Some(match up {
        0 => format!("./{SCHEMA}"),
        up => format!("{}{SCHEMA}", "../".repeat(up)),
    })
}

fn one(store: &NewStore, comma: &str, text: &mut String) {
    if let Some(comment) = &store.comment {
        let _ = writeln!(text, "    // {}", safe(comment));
    }
    let _ = writeln!(text, "    {}: {{", quoted(&store.id));
    let mut lines = vec![
        line("projectName", &store.project_name, |it| quoted(it)),
        line("cloudRegion", &store.cloud_region, |it| quoted(it)),
    ];
    lines.extend(
        store
            .framework
            .iter()
            .map(|it| line("framework", it, |it| quoted(&it.to_string()))),
    );
    let ports = store
        .ports
        .iter()
        .map(|(key, port)| line(key, port, ToString::to_string));
    let ports: Vec<_> = ports.collect();
    object(
        "deployment",
        &lines,
        if ports.is_empty() { "" } else { "," },
        text,
    );
    if !ports.is_empty() {
        object("localPorts", &ports, "", text);
    }
    let _ = writeln!(text, "    }}{comma}");
}

/// An object with one value on each line.
fn object(name: &str, lines: &[(String, Option<String>)], comma: &str, text: &mut String) {
    let _ = writeln!(text, "      {}: {{", quoted(name));
    for (index, (value, comment)) in lines.iter().enumerate() {
        if let Some(comment) = comment {
            let _ = writeln!(text, "        // {}", safe(comment));
        }
        let comma = if index + 1 < lines.len() { "," } else { "" };
        let _ = writeln!(text, "        {value}{comma}");
    }
    let _ = writeln!(text, "      }}{comma}");
}

fn line<T>(
    key: &str,
    value: &Commented<T>,
    shown: impl Fn(&T) -> String,
) -> (String, Option<String>) {
    let text = format!("{}: {}", quoted(key), shown(&value.value));
    (text, value.comment.clone())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A comment that cannot end its line.
fn safe(comment: &str) -> String {
    comment.replace(
        |c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}',
        " ",
    )
}
