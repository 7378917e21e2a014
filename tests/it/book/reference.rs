//! The generated parts of the reference: the config from its schema, the command line from clap.

use std::fmt::Write as _;

use alokai::cli::Arguments;
use clap::{Arg, ArgAction, Command, CommandFactory};
use serde_json::Value;

use super::pages::Page;
use super::{RENEW, renews};

const BEGIN: &str = "<!-- generated: do not edit until the end mark -->\n";
const END: &str = "<!-- end of the generated part -->\n";

/// Compares the generated part of a page, or renews it.
fn check(path: &str, fresh: &str) {
    let page = Page::read(path);
    let (before, rest) = page.text.split_once(BEGIN).expect("a begin mark");
    let (committed, after) = rest.split_once(END).expect("an end mark");
    if committed == fresh {
        return;
    }
    assert!(renews(), "{path} is stale; {RENEW}");
    page.write(&format!("{before}{BEGIN}{fresh}{END}{after}"));
}

#[test]
fn the_page_of_the_config_is_the_schemas() {
    let schema = serde_json::to_value(alokai::config::schema()).unwrap();
    check("docs/src/configuration.md", &config(&schema));
}

#[test]
fn the_page_of_the_command_line_is_claps() {
    let mut command = Arguments::command();
    command.build();
    let mut text = String::new();
    section(&command, &mut text);
    check("docs/src/command-line.md", &text);
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// The object that a schema refers to.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let reference = schema["$ref"].as_str();
    let option = schema["anyOf"][0]["$ref"].as_str();
    match reference.or(option) {
        Some(reference) => {
            let name = reference.trim_start_matches("#/$defs/");
            &root["$defs"][name]
        }
        None => schema,
    }
}

/// A key of the config.
struct Key<'a> {
    path: String,
    schema: &'a Value,
    is_required: bool,
}

/// A table for each section of the config.
fn config(root: &Value) -> String {
    let mut text = String::new();
    for (name, schema) in root["properties"].as_object().unwrap() {
        let mut keys = Vec::new();
        collect(name, schema, root, is_required(root, name), &mut keys);
        let _ = write!(text, "\n## `{name}`\n\n");
        text += "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
        let mut long = String::new();
        for key in &keys {
            let schema = resolved(key.schema, root);
            let default = match &key.schema["default"] {
                _ if key.is_required => "required".to_owned(),
                Value::Null | Value::Object(_) => String::new(),
                default if default.to_string().len() > 40 => {
                    let _ = write!(
                        long,
                        "\nThe default of `{}`:\n\n```json\n{default:#}\n```\n",
                        key.path
                    );
                    "see below".to_owned()
                }
                default => format!("`{}`", default.to_string().replace('"', "")),
            };
            let meaning = key.schema["description"].as_str();
            let meaning = meaning
                .or(schema["description"].as_str())
                .unwrap_or_default();
            let (kind, meaning) = (kind(schema), cell(meaning));
            let _ = writeln!(text, "| `{}` | {kind} | {default} | {meaning} |", key.path);
        }
        text += &long;
    }
    text += "\n";
    text
}

fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema["required"].as_array();
    required.is_some_and(|names| names.iter().any(|required| required == name))
}

/// A key and all keys below it.
fn collect<'a>(
    path: &str,
    schema: &'a Value,
    root: &'a Value,
    is_required_here: bool,
    keys: &mut Vec<Key<'a>>,
) {
    let object = resolved(schema, root);
    keys.push(Key {
        path: path.to_owned(),
        schema,
        is_required: is_required_here,
    });
    for (name, below) in object["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        collect(&path, below, root, is_required(object, name), keys);
    }
    let more = &object["additionalProperties"];
    if more["$ref"].is_string() {
        let name = if path == "stores" { "<id>" } else { "<app>" };
        collect(&format!("{path}.{name}"), more, root, false, keys);
    }
    let items = resolved(&object["items"], root);
    for (name, below) in items["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}[].{name}");
        collect(&path, below, root, is_required(items, name), keys);
    }
}

/// What a value is, in words.
fn kind(schema: &Value) -> String {
    if let Some(values) = schema["oneOf"].as_array() {
        let names = values
            .iter()
            .map(|value| value["const"].as_str().unwrap_or_default());
        return names
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let kind = match &schema["type"] {
        Value::String(kind) => kind.as_str(),
        Value::Array(kinds) => kinds[0].as_str().unwrap_or_default(),
        _ => "",
    };
    match kind {
        "array" if schema["items"]["type"] == "string" => "list of strings".into(),
        "array" => "list of objects".into(),
        "object" if schema["additionalProperties"]["type"] == "array" => "object of lists".into(),
        "object" if schema["additionalProperties"]["type"] == "string" => {
            "object of strings".into()
        }
        "integer" => "number".into(),
        kind => kind.to_owned(),
    }
}

/// A command and all that are below it.
fn section(command: &Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let _ = write!(text, "\n## `{name}`\n\n");
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, "{}", sentence(&about));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let _ = write!(text, "\n```text\n{usage}\n```\n");
    let below: Vec<_> = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set() && below.get_name() != "help")
        .collect();
    if !below.is_empty() {
        *text += "\n| command | does |\n| --- | --- |\n";
        for one in &below {
            let name = one.get_bin_name().unwrap_or(one.get_name());
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            let anchor = name.replace(' ', "-");
            let _ = writeln!(text, "| [`{name}`](#{anchor}) | {} |", cell(&about));
        }
    }
    options(command, text);
    for one in below {
        section(one, text);
    }
    if name == "alokai" {
        *text += "\n";
    }
}

/// The arguments and options of a command, in the groups of its help. Those that work with every
/// command are listed once, at the top.
fn options(command: &Command, text: &mut String) {
    let is_top = command.get_name() == "alokai";
    let mut shown: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| is_shown(argument) && (is_top || !argument.is_global_set()))
        .collect();
    // As in the help: arguments, options, and then each heading once.
    let headings: Vec<_> = shown.iter().map(|it| it.get_help_heading()).collect();
    shown.sort_by_key(|argument| {
        let heading = argument.get_help_heading();
        let place = heading.and_then(|_| headings.iter().position(|it| *it == heading));
        (
            !argument.is_positional(),
            place.map_or(0, |place| place + 1),
        )
    });
    let mut group = None;
    for argument in shown {
        let title = match argument.get_help_heading() {
            Some(heading) => heading,
            None if argument.is_positional() => "Arguments",
            None => "Options",
        };
        if group != Some(title) {
            let _ = write!(text, "\n**{title}**\n\n");
            group = Some(title);
        }
        option(argument, text);
    }
}

fn is_shown(argument: &Arg) -> bool {
    !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version")
}

/// A sentence ends with a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with('.') {
        return text.to_owned();
    }
    format!("{text}.")
}

/// One option with its meaning and its values.
fn option(argument: &Arg, text: &mut String) {
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let value = match argument.get_value_names() {
        Some(names) if takes_value => format!("<{}>", names[0]),
        _ => String::new(),
    };
    let mut names: Vec<String> = Vec::new();
    names.extend(argument.get_short().map(|short| format!("`-{short}`")));
    let long = argument
        .get_long()
        .map(|long| format!("`{}`", format!("--{long} {value}").trim()));
    names.extend(long);
    let aliases = argument.get_visible_aliases().unwrap_or_default();
    names.extend(aliases.iter().map(|alias| format!("`--{alias}`")));
    if argument.is_positional() {
        names.push(format!("`{value}`"));
    }
    let help = argument.get_long_help().or(argument.get_help());
    let help = help
        .map(|help| help.to_string().replace('\n', " "))
        .unwrap_or_default();
    let _ = write!(text, "- {}: {}", names.join(", "), sentence(&help));
    let default = argument.get_default_values().first();
    if let Some(default) = default.filter(|_| takes_value) {
        let _ = write!(text, " Default: `{}`.", default.to_string_lossy());
    }
    *text += "\n";
    let values = argument.get_possible_values();
    if !takes_value {
        return;
    }
    for value in values.iter().filter(|value| !value.is_hide_set()) {
        let help = value
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let line = format!("  - `{}`: {}", value.get_name(), sentence(&help));
        let _ = writeln!(text, "{}", line.trim_end_matches(": "));
    }
}
