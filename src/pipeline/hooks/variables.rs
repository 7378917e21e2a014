//! The environment of a hook.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use http_client::Redactor;
use secrecy::ExposeSecret;

use super::{Error, HookContext};
use crate::config::{HookValue, HookValuePart};
use crate::pipeline::services::ScriptEnvironment;
use crate::plan::HookPlan;
use crate::redaction::redactor;
use crate::store::AppName;

/// The variables of a hook.
pub struct HookVariables {
    /// Ids and references, and the hook's own variables.
    own: BTreeMap<String, String>,
    /// The settings of the release.
    settings: BTreeMap<String, String>,
    /// Values that output must not show.
    secrets: Vec<String>,
}

impl HookVariables {
    /// Collects the variables. A variable of the config wins over a setting of the release.
    pub fn new(
        hook: &HookPlan,
        context: &HookContext,
        scripts: &ScriptEnvironment,
    ) -> Result<Self, Error> {
        missing(hook, scripts).map_or(Ok(()), Err)?;
        let mut own = BTreeMap::from([
            ("ALOKAI_STORE".to_owned(), hook.store.to_string()),
            ("ALOKAI_STAGE".to_owned(), hook.stage.to_string()),
            ("ALOKAI_WHEN".to_owned(), hook.when.to_string()),
        ]);
        let ids = [
            ("ALOKAI_BUILD", &context.build),
            ("ALOKAI_RELEASE", &context.release),
        ];
        for (name, id) in ids {
            own.extend(id.clone().map(|id| (name.to_owned(), id)));
        }
        for (app, image) in &context.images {
            own.insert(image_variable(app), image.pinned());
        }
        let mut secrets: Vec<String> = Vec::new();
        for (name, value) in &hook.env {
            let text = filled(value, scripts);
            let variables = value.variables();
            secrets.extend(variables.filter_map(|variable| value_of(variable, scripts)));
            own.insert(name.clone(), text);
        }
        let settings = context.settings.iter();
        let settings: BTreeMap<String, String> = settings
            .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
            .collect();
        secrets.extend(settings.values().cloned());
        Ok(Self {
            own,
            settings,
            secrets,
        })
    }

    /// Replaces the secrets of the hook in its output.
    pub fn redactor(&self) -> Redactor {
        redactor(self.secrets.iter().map(String::as_str))
    }

    /// The environment on this machine: also the variables of the system.
    pub fn on_host(self, scripts: &ScriptEnvironment) -> HookEnvironment {
        let redactor = self.redactor();
        HookEnvironment::new(self.own, redactor, scripts)
    }

    /// The environment in an unpacked image on this machine: also the variables of the system, those of
    /// the image, and the settings.
    pub fn in_unpacked(
        self,
        of_image: &BTreeMap<String, String>,
        scripts: &ScriptEnvironment,
    ) -> HookEnvironment {
        let redactor = self.redactor();
        let mut all = of_image.clone();
        all.extend(self.settings);
        all.extend(self.own);
        HookEnvironment::new(all, redactor, scripts)
    }

    /// The environment in a container, as `NAME=value`, in addition to that of the image.
    pub fn in_container(mut self) -> Vec<String> {
        self.settings.extend(self.own);
        let all = self.settings.into_iter();
        all.map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// The environment of a hook on this machine.
pub struct HookEnvironment {
    /// All variables.
    pub all: ScriptEnvironment,
    /// Replaces the secrets of the hook in its output.
    pub redactor: Redactor,
}

impl HookEnvironment {
    fn new(own: BTreeMap<String, String>, redactor: Redactor, scripts: &ScriptEnvironment) -> Self {
        let seen = scripts.seen(&[]);
        let mut all: BTreeMap<String, OsString> = seen
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let own = own.into_iter();
        all.extend(own.map(|(name, value)| (name, value.into())));
        Self {
            all: ScriptEnvironment {
                all,
                from_file: BTreeSet::new(),
                loose: true,
            },
            redactor,
        }
    }
}

/// The error for variables of the environment that the hook needs and that are not set.
pub fn missing(hook: &HookPlan, scripts: &ScriptEnvironment) -> Option<Error> {
    let names = hook.env.iter().flat_map(|(_, value)| value.variables());
    let missing: BTreeSet<String> = names
        .filter(|name| value_of(name, scripts).is_none())
        .map(|name| format!("`{name}`"))
        .collect();
    (!missing.is_empty()).then(|| Error::Variables {
        hook: Error::name(hook),
        names: missing.into_iter().collect(),
    })
}

/// The value of a variable of the environment. An empty one counts as not set.
fn value_of(name: &str, scripts: &ScriptEnvironment) -> Option<String> {
    let value = scripts.all.get(name)?;
    let value = value.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

fn filled(value: &HookValue, scripts: &ScriptEnvironment) -> String {
    let parts = value.parts().iter().map(|part| match part {
        HookValuePart::Text(text) => text.clone(),
        HookValuePart::Variable(name) => value_of(name, scripts).unwrap_or_default(),
    });
    parts.collect()
}

/// The variable with the reference of an app's image: `ALOKAI_IMAGE_STOREFRONT_MIDDLEWARE`.
fn image_variable(app: &AppName) -> String {
    let upper = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    let name: String = app.as_str().chars().map(upper).collect();
    format!("ALOKAI_IMAGE_{name}")
}
