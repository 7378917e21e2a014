//! Changes of `alokai.config.json` that keep its comments and its formatting.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstObjectProp, CstRootNode, ObjectPropName};

use super::Error;
use crate::config::FILE;

/// The text of a config as a syntax tree that has every token.
pub struct ConfigText {
    root: CstRootNode,
    stores: CstObject,
    /// The bytes in front of the text, such as a byte order mark.
    mark: &'static str,
}

impl ConfigText {
    /// Parses the text of a config.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let failed = |reason: String| Error::ConfigText { reason };
        let (mark, text) = match text.strip_prefix('\u{feff}') {
            Some(text) => ("\u{feff}", text),
            None => ("", text),
        };
        let root = CstRootNode::parse(text, &ParseOptions::default())
            .map_err(|error| failed(error.to_string()))?;
        let stores = root
            .object_value()
            .and_then(|object| object.object_value("stores"))
            .ok_or_else(|| failed(format!("`{FILE}` has no object `stores`")))?;
        Ok(Self { root, stores, mark })
    }

    /// Adds a store after the last one.
    pub fn add_store(&self, id: &str, entry: CstInputValue) {
        self.stores.append(id, entry);
    }

    /// Removes the entry of a store, if there is one.
    pub fn remove_store(&self, id: &str) {
        if let Some(entry) = self.stores.get(id) {
            entry.remove();
        }
    }

    /// Gives the entry of a store another id, if there is an entry.
    pub fn rename_store(&self, old: &str, new: &str) {
        let Some(property) = self.stores.get(old) else {
            return;
        };
        if let Some(ObjectPropName::String(literal)) = property.name() {
            literal.set_raw_value(quoted(new));
        }
        let domain = self.value_of(new, "localDomain");
        let Some(literal) = domain.and_then(|property| property.value()?.as_string_lit()) else {
            return;
        };
        let value = literal.decoded_value().unwrap_or_default();
        let rest = value.strip_prefix(&host_label(old));
        if let Some(rest) = rest.filter(|rest| rest.starts_with('.')) {
            literal.set_raw_value(quoted(&format!("{}{rest}", host_label(new))));
        }
    }

    fn value_of(&self, id: &str, key: &str) -> Option<CstObjectProp> {
        self.stores.object_value(id)?.get(key)
    }

    /// The text, with every comment.
    pub fn text(&self) -> String {
        format!("{}{}", self.mark, self.root)
    }
}

/// An id as a part of a host name. Characters that are not allowed in it are replaced by `-`.
pub fn host_label(id: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let label: String = id.chars().map(allowed).collect();
    label.trim_matches('-').to_ascii_lowercase()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
