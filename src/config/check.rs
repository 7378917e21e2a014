//! Checks the config file against the generated schema, and reports every problem.
//!
//! A schema library is not used: the check needs the spans of the JSONC tree and the nearest key
//! for help texts, and supports only the keywords that our own types generate.

use std::path::Path;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use miette::{NamedSource, SourceSpan};
use serde_json::Value as Json;

use super::problem::{Error, Problem};
use super::raw::ConfigFile;

/// JSON with comments and trailing commas, and no other extension.
fn options() -> ParseOptions {
    ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// The JSON schema of the config file: the content of `alokai.config.schema.json`.
pub fn schema() -> Json {
    schemars::schema_for!(ConfigFile).to_value()
}

/// Parses the text, or returns all problems.
pub fn parse(path: &Path, text: &str) -> Result<ConfigFile, Error> {
    let text = text.trim_start_matches('\u{feff}');
    let invalid = |problems| Error::Invalid {
        path: path.to_owned(),
        text: NamedSource::new(path.to_string_lossy(), text.to_owned()).with_language("json"),
        problems,
    };
    let syntax = |error: jsonc_parser::errors::ParseError| {
        let place = Some(span(error.range()));
        let message = error.kind().to_string().to_lowercase();
        invalid(vec![
            Problem::new(
                message,
                "write JSON; comments and trailing commas are allowed",
            )
            .at(place),
        ])
    };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options()).map_err(syntax)?;
    let Some(root) = parsed.value else {
        return Err(invalid(vec![Problem::new(
            "the file is empty",
            r#"start with `{ "stores": {} }`"#,
        )]));
    };
    let schema = schema();
    let mut walk = SchemaCheck {
        root: &schema,
        problems: Vec::new(),
    };
    walk.value(&root, &schema, "the file");
    if !walk.problems.is_empty() {
        return Err(invalid(walk.problems));
    }
    jsonc_parser::parse_to_serde_value::<ConfigFile>(text, &options()).map_err(syntax)
}

/// The span of the value of a JSON pointer. It is looked up only for an error message.
pub fn locate(text: &str, pointer: &[&str]) -> Option<SourceSpan> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options()).ok()?;
    let root = parsed.value?;
    let mut at = &root;
    for key in pointer {
        let next = match at {
            Value::Object(object) => object.get(key).map(|property| &property.value),
            Value::Array(array) => key
                .parse()
                .ok()
                .and_then(|index: usize| array.elements.get(index)),
            _ => return Some(span(at.range())),
        };
        // A missing key is reported at its object.
        let Some(next) = next else {
            break;
        };
        at = next;
    }
    Some(match at {
        // Only the opening brace: the excerpt of a whole object would be too long.
        Value::Object(object) => (object.range.start, 1).into(),
        other => span(other.range()),
    })
}

fn span(range: Range) -> SourceSpan {
    (range.start, range.end - range.start).into()
}

struct SchemaCheck<'a> {
    root: &'a Json,
    problems: Vec<Problem>,
}

impl<'a> SchemaCheck<'a> {
    /// Follows `$ref`, and in `anyOf` (an optional type) the branch that is not null.
    fn deref(&self, schema: &'a Json) -> &'a Json {
        if let Some(reference) = schema["$ref"].as_str() {
            let pointer = reference.trim_start_matches('#');
            return self.deref(self.root.pointer(pointer).unwrap_or(&Json::Null));
        }
        if let Some(branches) = schema["anyOf"].as_array() {
            let real = branches.iter().find(|branch| branch["type"] != "null");
            return self.deref(real.unwrap_or(&Json::Null));
        }
        schema
    }

    fn value(&mut self, value: &Value, schema: &'a Json, name: &str) {
        let nullable = schema["anyOf"].is_array()
            || schema["type"]
                .as_array()
                .is_some_and(|types| types.iter().any(|one| one == "null"));
        if nullable && matches!(value, Value::NullKeyword(_)) {
            return;
        }
        let schema = self.deref(schema);
        let expected = match &schema["type"] {
            Json::Array(types) => types
                .iter()
                .find_map(|one| one.as_str().filter(|t| *t != "null")),
            one => one.as_str(),
        };
        let mut wrong = |message: String, help: String| {
            self.problems
                .push(Problem::new(message, help).at(Some(span(value.range()))));
        };
        match (value, expected) {
            (Value::Object(object), Some("object")) => self.object(object, schema, name),
            (Value::Array(array), Some("array")) => {
                for element in &array.elements {
                    self.value(element, &schema["items"], name);
                }
            }
            (Value::StringLit(text), Some("string") | None) => {
                let allowed = choices(schema);
                if !allowed.is_empty() && !allowed.contains(&text.value.as_ref()) {
                    wrong(
                        format!(
                            "`{}` is not a valid value of {name}",
                            text.value.escape_debug()
                        ),
                        format!("use one of: {}", allowed.join(", ")),
                    );
                }
            }
            (Value::NumberLit(number), Some("integer")) => {
                let maximum = schema["maximum"].as_u64().unwrap_or(u64::MAX);
                if number.value.parse::<u64>().is_ok_and(|n| n <= maximum) {
                    return;
                }
                wrong(
                    format!("`{}` is not a valid value of {name}", number.value),
                    format!("use a whole number from 0 to {maximum}"),
                );
            }
            (Value::BooleanLit(_), Some("boolean")) => {}
            (_, expected) => wrong(
                format!(
                    "{name} is {}, but {} is expected",
                    kind(value),
                    article(expected.unwrap_or("string"))
                ),
                format!("write {}", article(expected.unwrap_or("string"))),
            ),
        }
    }

    /// Checks the keys of an object.
    fn object(&mut self, object: &Object, schema: &'a Json, name: &str) {
        for (position, property) in object.properties.iter().enumerate() {
            let key = property.name.as_str();
            let before = &object.properties[..position];
            if before.iter().any(|other| other.name.as_str() == key) {
                let message = format!("the key `{}` occurs twice", key.escape_debug());
                let place = Some(span(property.name.range()));
                let help = "remove one of them";
                self.problems.push(Problem::new(message, help).at(place));
            }
            self.property(property, schema);
        }
        for key in schema["required"].as_array().into_iter().flatten() {
            let key = key.as_str().unwrap_or_default();
            if object.get(key).is_none() {
                self.problems.push(
                    Problem::new(
                        format!("{name} has no `{key}`"),
                        format!("add `\"{key}\"`: {}", describe(&schema["properties"][key])),
                    )
                    .at(Some((object.range.start, 1).into())),
                );
            }
        }
    }

    fn property(&mut self, property: &ObjectProp, schema: &'a Json) {
        let key = property.name.as_str();
        let name = format!("`{key}`");
        if let Some(known) = schema["properties"].get(key) {
            return self.value(&property.value, known, &name);
        }
        match &schema["additionalProperties"] {
            Json::Object(_) => {
                self.value(&property.value, &schema["additionalProperties"], &name);
            }
            _ if key.starts_with("x-") => {}
            _ => {
                let known: Vec<&str> = schema["properties"]
                    .as_object()
                    .into_iter()
                    .flat_map(|properties| properties.keys().map(String::as_str))
                    .collect();
                self.problems.push(
                    Problem::new(
                        format!("unknown key `{}`", key.escape_debug()),
                        match nearest(key, known.iter().copied()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => format!(
                                "valid keys: {}; custom keys start with `x-`",
                                known.join(", ")
                            ),
                        },
                    )
                    .at(Some(span(property.name.range()))),
                );
            }
        }
    }
}

/// The known name that is most similar, if one is similar enough.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| {
            let (wrong, known) = (wrong.to_lowercase(), name.to_lowercase());
            // Two swapped letters are the most frequent typo. In short names the similarity is
            // low after it.
            let is_slip = strsim::osa_distance(&wrong, &known) == 1 && wrong.len() == known.len();
            let likeness = strsim::jaro_winkler(&wrong, &known);
            let likeness = if is_slip {
                likeness.max(0.81)
            } else {
                likeness
            };
            (likeness, name)
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The values of an `enum`, or the `const`s of a `oneOf`, which schemars makes of a documented enum.
fn choices(schema: &Json) -> Vec<&str> {
    let plain = schema["enum"].as_array().into_iter().flatten();
    let documented = schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| &one["const"]);
    plain.chain(documented).filter_map(Json::as_str).collect()
}

fn describe(schema: &Json) -> &str {
    schema["description"].as_str().unwrap_or("it is required")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::StringLit(_) => "a string",
        Value::NumberLit(_) => "a number",
        Value::BooleanLit(_) => "a boolean",
        Value::Object(_) => "an object",
        Value::Array(_) => "an array",
        Value::NullKeyword(_) => "null",
    }
}

fn article(name: &str) -> String {
    match name {
        "object" | "array" | "integer" => format!("an {name}"),
        other => format!("a {other}"),
    }
}
