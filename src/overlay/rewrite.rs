//! Editing the base app's `package.json` and `tsconfig.json` for the composed app.
//!
//! Both are edited as syntax trees that keep every token, so that order, indentation and comments
//! stay as they are.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstNode, CstRootNode};

/// The base app's `package.json`, split where a unit's name is inserted.
#[derive(Debug)]
pub struct PackageJsonTemplate {
    before: String,
    after: String,
}

impl PackageJsonTemplate {
    /// Parses the text and finds the place of `name`. The error is the reason.
    pub fn new(text: &str) -> Result<Self, String> {
        let strict = ParseOptions {
            allow_comments: false,
            allow_trailing_commas: false,
            ..ParseOptions::default()
        };
        let root = CstRootNode::parse(text, &strict).map_err(|error| error.to_string())?;
        let object = root.object_value().ok_or("it is not a JSON object")?;
        // No package has this name, so it occurs once.
        let mark = "\u{e000}name of the unit\u{e000}";
        let value = CstInputValue::from(mark);
        match object.get("name") {
            Some(property) => property.set_value(value),
            None => {
                object.insert(0, "name", value);
            }
        }
        let marked = root.to_string();
        let (before, after) = marked.split_once(mark).ok_or("its `name` cannot be set")?;
        Ok(Self {
            before: before.to_owned(),
            after: after.to_owned(),
        })
    }

    /// Adds text in front, such as a byte order mark.
    pub fn with_prefix(mut self, mark: &str) -> Self {
        self.before.insert_str(0, mark);
        self
    }

    /// The text with a unit's name. The name needs no escaping: names of apps and stores consist of
    /// letters, digits, `-`, `_` and `.`.
    pub fn named(&self, name: &str) -> String {
        [self.before.as_str(), name, &self.after].concat()
    }
}

/// The base app's `tsconfig.json` for the composed app, which is one folder deeper: relative paths
/// out of `apps/` get one more `../`. Sibling apps are siblings in `.out` too, so paths to them stay
/// the same.
pub fn tsconfig_json(text: &str) -> Result<String, String> {
    let root =
        CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| error.to_string())?;
    let Some(object) = root.object_value() else {
        return Ok(text.to_owned());
    };
    let base_url = object
        .object_value("compilerOptions")
        .and_then(|options| options.get("baseUrl"))
        .and_then(|property| property.value())
        .and_then(|value| value.as_string_lit())
        .and_then(|value| value.decoded_value().ok());
    for property in object.properties() {
        if let Some(value) = property.value() {
            deepen(&value, "");
        }
    }
    // Values of `paths` are relative to `baseUrl`. Where `baseUrl` itself leads out of `apps/`, it
    // already has its `../`, and the values stay.
    if let (Some(base), Some(options)) = (base_url, object.object_value("compilerOptions"))
        && let Some(paths) = options.object_value("paths")
        && leaves_apps(&base).is_none()
    {
        for property in paths.properties() {
            if let Some(value) = property.value() {
                deepen(&value, &base);
            }
        }
    }
    Ok(root.to_string())
}

/// Adds `../` to every string below `node` that needs it, except in `paths` that are relative to a
/// `baseUrl`.
fn deepen(node: &CstNode, base: &str) {
    if let Some(literal) = node.as_string_lit() {
        if let Ok(value) = literal.decoded_value()
            && let Some(offset) = leaves_apps(&join(base, &value))
        {
            let skip = if base.is_empty() { offset } else { 0 };
            let skip = skip.min(value.len());
            let deeper = format!("{}../{}", &value[..skip], &value[skip..]);
            if let Ok(json) = serde_json::to_string(&deeper) {
                literal.set_raw_value(json);
            }
        }
    } else if let Some(array) = node.as_array() {
        for element in array.elements() {
            deepen(&element, base);
        }
    } else if let Some(object) = node.as_object() {
        let based = object.get("baseUrl").is_some();
        for property in object.properties() {
            let name = property.decoded_name().unwrap_or_default();
            if name == "paths" && based {
                continue;
            }
            if let Some(value) = property.value() {
                deepen(&value, base);
            }
        }
    }
}

fn join(base: &str, value: &str) -> String {
    if base.is_empty() || !value.starts_with('.') {
        value.to_owned()
    } else {
        format!("{base}/{value}")
    }
}

/// For a path that leads two folders or more upwards (out of the app and out of `apps/`): the offset
/// at which `../` is inserted, behind a leading `${configDir}/`.
fn leaves_apps(path: &str) -> Option<usize> {
    const CONFIG_DIR: &str = "${configDir}/";
    let start = if path.starts_with(CONFIG_DIR) {
        CONFIG_DIR.len()
    } else {
        0
    };
    let relative = &path[start..];
    if start == 0 && !relative.starts_with('.') && !relative.contains("/../") {
        return None;
    }
    let mut depth = 0_i32;
    let mut lowest = 0;
    for part in relative.split('/') {
        match part {
            ".." => depth -= 1,
            "" | "." => {}
            _ => depth += 1,
        }
        lowest = lowest.min(depth);
    }
    let start = start + if relative.starts_with("./") { 2 } else { 0 };
    (lowest <= -2).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::{PackageJsonTemplate, tsconfig_json};

    #[test]
    fn the_name_changes_and_nothing_else() {
        let text =
            "{\n\t\"version\": \"1.0.0\",\n\t\"name\" : \"app\",\n\t\"z\": {\"name\": 1}\n}\n";
        let wanted = text.replace("\"app\"", "\"app-us\"");
        assert_eq!(
            PackageJsonTemplate::new(text).unwrap().named("app-us"),
            wanted
        );
    }

    #[test]
    fn tsconfig_paths_that_leave_apps_gain_a_folder() {
        let text = r#"{
  // shared
  "extends": "../../tsconfig.base.json",
  "compilerOptions": {
    "paths": {
      "@/*": ["./*"],
      "mw/*": ["../storefront-middleware/lib/*"], /* sibling */
      "theme": ["./../../packages/theme/src"],
    },
    "types": ["node"]
  },
  "include": ["**/*.ts", "${configDir}/../../types/*.d.ts"],
}
"#;
        let wanted = text
            .replace("\"../../tsconfig", "\"../../../tsconfig")
            .replace("./../../packages", "./../../../packages")
            .replace("${configDir}/../../", "${configDir}/../../../");
        assert_eq!(tsconfig_json(text).unwrap(), wanted);
    }

    #[test]
    fn tsconfig_paths_count_from_base_url() {
        let with = |base: &str, path: &str| {
            let text = format!(
                r#"{{"compilerOptions":{{"baseUrl":"{base}","paths":{{"a":["{path}"]}}}}}}"#
            );
            tsconfig_json(&text).unwrap()
        };
        // `src/../../sibling` stays in apps/; `../../packages` from `src` too needs three.
        assert!(
            with("src", "../../storefront-middleware/lib")
                .contains("\"../../storefront-middleware/lib\"")
        );
        assert!(with("src", "../../../packages/x").contains("\"../../../../packages/x\""));
        assert!(with("..", "../packages/x").contains("\"../../packages/x\""));
        let moved = with("../..", "packages/x");
        assert!(moved.contains(r#""baseUrl":"../../..""#) && moved.contains(r#"["packages/x"]"#));
    }
}
