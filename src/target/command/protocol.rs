//! The JSON documents of the protocol: a release for the program, and the answers of the program.

use std::collections::BTreeMap;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{AppReference, TemplatePart, ValueTemplate};
use crate::target::{AppState, LockAnswer, LockClaim, ReleaseSpec, SpecVariable};

/// The answer to `lock`.
#[derive(Deserialize)]
pub struct LockReply {
    taken: bool,
    #[serde(default)]
    from: Option<LockClaim>,
    #[serde(default)]
    holder: Option<LockClaim>,
}

impl LockReply {
    /// The answer to this claim.
    pub fn answer(self, claim: &LockClaim) -> LockAnswer {
        if self.taken {
            return LockAnswer::Taken { from: self.from };
        }
        LockAnswer::Held(self.holder.unwrap_or_else(|| LockClaim {
            holder: String::new(),
            who: "a holder that the program does not name".into(),
            operation: "unknown".into(),
            since: Timestamp::now(),
            lease: claim.lease,
        }))
    }
}

/// The answer to `lock-holder`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct LockHolderReply {
    /// Who holds the lock.
    pub holder: Option<LockClaim>,
}

/// The answer to `switch`.
#[derive(Deserialize)]
pub struct SwitchReply {
    /// Whether the traffic was switched.
    #[serde(default = "yes")]
    pub switched: bool,
}

fn yes() -> bool {
    true
}

/// The answer to `drained`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct DrainReply {
    /// How many requests are open. `None` if the program does not know.
    pub open: Option<u64>,
}

/// The answer to `health`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct HealthReply {
    /// The state of each app.
    pub apps: Vec<AppState>,
}

/// The answer to `settings`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct SettingsReply {
    /// The values. `None` if the program does not have the version.
    pub settings: Option<BTreeMap<String, String>>,
}

/// How the health of an app is probed, in seconds.
#[derive(Serialize)]
struct ProbeDocument<'a> {
    path: &'a str,
    status: Option<u16>,
    interval: u64,
    timeout: u64,
    deadline: u64,
    consecutive: u32,
}

/// A release as JSON.
pub fn document(spec: &ReleaseSpec) -> Value {
    let apps = spec.apps.iter().map(|app| {
        let variables = app.variables.iter();
        let variables: Map<String, Value> = variables
            .map(|(name, value)| {
                let value = match value {
                    SpecVariable::Template(template) => json!({ "template": written(template) }),
                    SpecVariable::Secret(secret) => json!({ "secret": secret.expose_secret() }),
                };
                (name.clone(), value)
            })
            .collect();
        let health = &app.health;
        json!({
            "app": app.app,
            "kind": app.kind,
            "reference": app.reference,
            "digest": app.digest,
            "port": app.port,
            "pathPrefix": app.path_prefix,
            "stripsPrefix": app.strips_prefix,
            "variables": variables,
            "health": ProbeDocument {
                path: &health.path,
                status: health.status,
                interval: health.interval.as_secs(),
                timeout: health.timeout.as_secs(),
                deadline: health.deadline.as_secs(),
                consecutive: health.consecutive,
            },
        })
    });
    json!({
        "id": spec.id,
        "store": spec.store,
        "settings": spec.settings,
        "copyOf": spec.copy_of,
        "hosts": spec.hosts,
        "stopTimeout": spec.stop_timeout.as_secs(),
        "apps": apps.collect::<Value>(),
    })
}

/// A value as the config has it, with placeholders in braces.
fn written(template: &ValueTemplate) -> String {
    let parts = template.parts().iter().map(|part| match part {
        TemplatePart::Text(text) => text.replace('{', "{{").replace('}', "}}"),
        TemplatePart::Store => "{store}".into(),
        TemplatePart::Port(app) => placeholder(app, "port"),
        TemplatePart::Url(app) => placeholder(app, "url"),
    });
    parts.collect()
}

fn placeholder(app: &AppReference, value: &str) -> String {
    match app {
        AppReference::Own => format!("{{{value}}}"),
        AppReference::Middleware => format!("{{middleware.{value}}}"),
        AppReference::Frontend => format!("{{frontend.{value}}}"),
        AppReference::Named(name) => format!("{{{name}.{value}}}"),
    }
}
