//! The section `hooks`: commands that run before and after the stages of a deploy.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::nearest;
use super::raw::HookEntry;
use super::start::is_variable_name;
use super::{BaseApp, apps_of};
use crate::store::{AppKind, AppName, Store, StoreId};

/// Variables with this prefix are set by this program.
const RESERVED: &str = "ALOKAI_";

/// Whether a hook runs before or after its stage.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum HookTime {
    /// Before the stage. If the hook fails, the stage does not start.
    #[default]
    Before,
    /// After the stage. If the hook fails, no later stage uses the products of the stage.
    After,
}

impl std::fmt::Display for HookTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// The stage of a hook.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum HookStage {
    /// The files of the store are written to `.out`.
    #[default]
    Compose,
    /// The `build` scripts run.
    Build,
    /// `.deploy` is made.
    Prune,
    /// The images are made.
    Image,
    /// The images are sent to the registry.
    Push,
    /// The release runs at the target and gets no traffic.
    Stage,
    /// The release gets the traffic.
    Release,
    /// An earlier release gets the traffic again, because of `alokai store rollback`.
    Rollback,
}

impl std::fmt::Display for HookStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Compose => "compose",
            Self::Build => "build",
            Self::Prune => "prune",
            Self::Image => "image",
            Self::Push => "push",
            Self::Stage => "stage",
            Self::Release => "release",
            Self::Rollback => "rollback",
        })
    }
}

/// Where a hook runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HookPlace {
    /// This machine, in the project's folder.
    #[default]
    Host,
    /// A container of the new image of an app.
    Image,
}

/// What the failure of a hook means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HookFailure {
    /// The store fails.
    #[default]
    Fail,
    /// The store continues, and the failure is reported.
    Continue,
}

/// A hook of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its number in the file, from 1.
    pub number: usize,
    /// Before or after the stage.
    pub when: HookTime,
    /// The stage.
    pub stage: HookStage,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The stores for which it runs. None for all.
    pub stores: Option<Vec<StoreId>>,
    /// Where it runs.
    pub place: HookPlace,
    /// The app whose image is used. None for the middleware, or the only app of the store.
    pub app: Option<AppName>,
    /// What its failure means.
    pub on_failure: HookFailure,
    /// Its time limit.
    pub timeout: Duration,
    /// Its own variables.
    pub env: Vec<(String, HookValue)>,
}

/// The value of a variable of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookValue(Vec<HookValuePart>);

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookValuePart {
    /// Text as it is.
    Text(String),
    /// The value of this variable of the environment.
    Variable(String),
}

impl HookValue {
    /// The parts, in order.
    pub fn parts(&self) -> &[HookValuePart] {
        &self.0
    }

    /// The names of the variables of the environment.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            HookValuePart::Text(_) => None,
            HookValuePart::Variable(name) => Some(name.as_str()),
        })
    }

    /// Reads a value. `$${` is the text `${`. The error is a message.
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if let Some(before) = rest[..at].strip_suffix('$') {
                literal.push_str(before);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let (name, behind) = rest[at + 2..]
                .split_once('}')
                .ok_or_else(|| format!("`{}` has a `${{` without a `}}`", text.escape_debug()))?;
            if !is_variable_name(name) {
                return Err(format!(
                    "`{}` is not a valid name of an environment variable",
                    name.escape_debug()
                ));
            }
            if !literal.is_empty() {
                parts.push(HookValuePart::Text(std::mem::take(&mut literal)));
            }
            parts.push(HookValuePart::Variable(name.to_owned()));
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(HookValuePart::Text(literal));
        }
        Ok(Self(parts))
    }
}

impl std::fmt::Display for HookValue {
    /// The value as it is written, without the values of variables.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            HookValuePart::Text(text) => f.write_str(&text.replace("${", "$${")),
            HookValuePart::Variable(name) => write!(f, "${{{name}}}"),
        })
    }
}

/// The names that a hook may use.
#[derive(Clone, Copy)]
pub struct HookScope<'a> {
    /// The stores of the project.
    pub stores: &'a [Store],
    /// The base apps of the project.
    pub apps: &'a [BaseApp],
}

/// A problem in the section `hooks`.
#[derive(Debug)]
pub struct HookProblem {
    /// Keys below `hooks`.
    pub pointer: Vec<String>,
    /// The message.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

/// Reads the section. Returns the hooks and all problems.
pub fn hooks(entries: &[HookEntry], scope: HookScope) -> (Vec<Hook>, Vec<HookProblem>) {
    let mut problems = Vec::new();
    let hooks = entries.iter().enumerate().map(|(position, entry)| {
        let mut reader = HookReader {
            position,
            entry,
            scope,
            problems: &mut problems,
        };
        reader.read()
    });
    let hooks = hooks.collect();
    (hooks, problems)
}

/// The app whose image a hook uses without `app`: the middleware, or the only app with an image.
pub fn default_app<'a>(apps: impl Iterator<Item = &'a BaseApp>) -> Option<&'a BaseApp> {
    let imaged: Vec<_> = apps
        .filter(|app| match app.kind {
            AppKind::Playwright => false,
            AppKind::Other => app.package.scripts.contains_key("build"),
            AppKind::Middleware | AppKind::Frontend(_) => true,
        })
        .collect();
    let mut middleware = imaged.iter().filter(|app| app.kind == AppKind::Middleware);
    match (middleware.next(), imaged.as_slice()) {
        (Some(app), _) => Some(app),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// Reads one hook.
struct HookReader<'a> {
    position: usize,
    entry: &'a HookEntry,
    scope: HookScope<'a>,
    problems: &'a mut Vec<HookProblem>,
}

impl HookReader<'_> {
    fn problem(&mut self, keys: &[&str], message: String, help: impl Into<String>) {
        let keys = keys.iter().map(|key| (*key).to_owned());
        self.problems.push(HookProblem {
            pointer: [self.position.to_string()]
                .into_iter()
                .chain(keys)
                .collect(),
            message,
            help: help.into(),
        });
    }

    fn read(&mut self) -> Hook {
        let entry = self.entry;
        self.command();
        if entry.timeout == 0 {
            let message = "`0` is not a valid time limit".to_owned();
            self.problem(
                &["timeout"],
                message,
                "write a number of seconds, such as 300",
            );
        }
        let app = self.image_app();
        Hook {
            number: self.position + 1,
            when: entry.when,
            stage: entry.stage,
            command: entry.command.clone(),
            stores: self.stores(),
            place: entry.place,
            app,
            on_failure: entry.on_failure,
            timeout: Duration::from_secs(entry.timeout.into()),
            env: self.env(),
        }
    }

    fn command(&mut self) {
        if self.entry.command.first().is_none_or(String::is_empty) {
            let message = "the hook has no program to run".to_owned();
            let help =
                r#"write the program and its arguments, such as `["npm", "run", "migrate"]`"#;
            self.problem(&["command"], message, help);
        }
        for (position, word) in self.entry.command.iter().enumerate() {
            if word.contains('\0') {
                let message = "an argument cannot contain a NUL character".to_owned();
                let position = position.to_string();
                self.problem(&["command", &position], message, "remove the character");
            }
        }
    }

    fn stores(&mut self) -> Option<Vec<StoreId>> {
        let mut found = Vec::new();
        let stores = self.scope.stores;
        for (position, id) in self.entry.stores.as_ref()?.iter().enumerate() {
            let keys = ["stores", &position.to_string()];
            match stores.iter().find(|store| store.id.as_str() == id) {
                Some(store) if store.deployment.is_some() => found.push(store.id.clone()),
                Some(_) => {
                    let message = format!("`{id}` is a template, which is never deployed");
                    self.problem(&keys, message, "name the stores that inherit from it");
                }
                None => {
                    let deployable = stores.iter().filter(|store| store.deployment.is_some());
                    let help = match nearest(id, deployable.map(|store| store.id.as_str())) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "use the id of a store; `alokai store list` lists them".into(),
                    };
                    let message = format!("there is no store `{}`", id.escape_debug());
                    self.problem(&keys, message, help);
                }
            }
        }
        Some(found)
    }

    /// Checks that the image of the hook exists at its time, and that it is known whose image it is.
    fn image_app(&mut self) -> Option<AppName> {
        let entry = self.entry;
        if entry.place == HookPlace::Host {
            if entry.app.is_some() {
                let message = "`app` is not used by a hook on this machine".to_owned();
                self.problem(&["app"], message, r#"add `"in": "image"`, or remove `app`"#);
            }
            return None;
        }
        if (entry.stage, entry.when) < (HookStage::Push, HookTime::After) {
            let message = format!(
                "the image does not exist {} the stage `{}`",
                entry.when, entry.stage
            );
            let help = "images can be used after `push`, and before and after `stage`, `release` and `rollback`";
            self.problem(&["in"], message, help);
        }
        let imaged = self.scope.apps.iter();
        let mut imaged = imaged.filter(|app| app.kind != AppKind::Playwright);
        let Some(name) = &entry.app else {
            let is_meant = |store: &&Store| {
                let mut named = entry.stores.iter().flatten();
                entry.stores.is_none() || named.any(|id| id == store.id.as_str())
            };
            let stores = self.scope.stores.iter().filter(is_meant);
            let apps = self.scope.apps;
            let mut unknown = stores.filter(|store| {
                let deployment = store.deployment.as_ref();
                deployment.is_some_and(|it| default_app(apps_of(apps, it.framework)).is_none())
            });
            if let Some(store) = unknown.next() {
                let message = format!(
                    "it is not known whose image is used: `{}` has several apps and no middleware",
                    store.id
                );
                self.problem(
                    &["in"],
                    message,
                    "add `app` with the name of a folder in `apps/`",
                );
            }
            return None;
        };
        let app = imaged.clone().find(|app| app.name.as_str() == name);
        if app.is_none() {
            let help = match nearest(name, imaged.by_ref().map(|app| app.name.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "use the name of a folder in `apps/` of which images are made".into(),
            };
            let message = format!("`{}` is not an app with an image", name.escape_debug());
            self.problem(&["app"], message, help);
        }
        app.map(|app| app.name.clone())
    }

    fn env(&mut self) -> Vec<(String, HookValue)> {
        let mut variables = Vec::new();
        for (name, value) in &self.entry.env {
            let keys = ["env", name.as_str()];
            if !is_variable_name(name) {
                let message = format!(
                    "`{}` is not a valid name of an environment variable",
                    name.escape_debug()
                );
                let help = "use letters, digits and `_`; the first character cannot be a digit";
                self.problem(&keys, message, help);
            } else if name.starts_with(RESERVED) {
                let message = format!("`{name}` cannot be set, because `{RESERVED}*` is reserved");
                self.problem(&keys, message, "choose another name");
            }
            match HookValue::parse(value) {
                Ok(_) if value.contains('\0') => {
                    let message = "a value cannot contain a NUL character".to_owned();
                    self.problem(&keys, message, "remove the character");
                }
                Ok(value) => variables.push((name.clone(), value)),
                Err(message) => {
                    let help =
                        "write `${NAME}` for the value of a variable, and `$${` for the text `${`";
                    self.problem(&keys, message, help);
                }
            }
        }
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::{HookValue, HookValuePart};

    #[test]
    fn values_have_text_and_variables_and_are_written_as_they_were_read() {
        let text = |text: &str| HookValuePart::Text(text.into());
        let variable = |name: &str| HookValuePart::Variable(name.into());
        for (written, parts) in [
            ("", vec![]),
            ("a$b", vec![text("a$b")]),
            ("${A}", vec![variable("A")]),
            (
                "x${A_1}${B}y",
                vec![text("x"), variable("A_1"), variable("B"), text("y")],
            ),
            ("$${A}", vec![text("${A}")]),
            ("a$${b${C}", vec![text("a${b"), variable("C")]),
        ] {
            let value = HookValue::parse(written).unwrap();
            assert_eq!(value.parts(), parts, "{written}");
            assert_eq!(value.to_string(), written);
        }
        for wrong in ["${", "${A", "${}", "${1}", "${A B}"] {
            assert!(HookValue::parse(wrong).is_err(), "{wrong}");
        }
    }
}
