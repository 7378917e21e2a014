//! The variables of the apps of a release, for ports and addresses that are known only later.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use super::state::{ReleaseVariables, StoredVariable, ValuePart};
use crate::config::{AppReference, TemplatePart, ValueTemplate};
use crate::store::{AppKind, AppName, Framework};
use crate::target::{ReleaseSpec, ReleasedApp, SpecVariable};

/// The address on which an app of an image listens, for all networks of its container.
const ALL_INTERFACES: &str = "0.0.0.0";

/// The variables of all apps.
pub fn of(spec: &ReleaseSpec) -> ReleaseVariables {
    let apps = spec.apps.iter();
    apps.map(|app| (app.app.clone(), of_app(spec, app)))
        .collect()
}

fn of_app(spec: &ReleaseSpec, app: &ReleasedApp) -> BTreeMap<String, StoredVariable> {
    let mut variables = BTreeMap::new();
    for (name, variable) in &app.variables {
        let stored = match variable {
            SpecVariable::Secret(value) => {
                Some(StoredVariable::Secret(value.expose_secret().to_owned()))
            }
            SpecVariable::Template(template) => {
                let browser = browser_middleware(spec, app, name, template);
                browser.or_else(|| parts(spec, app, template).map(StoredVariable::Parts))
            }
        };
        // Without the app that a value names, the variable is not set.
        if let Some(stored) = stored {
            variables.insert(name.clone(), stored);
        }
    }
    let text = |text: &str| StoredVariable::Parts(vec![ValuePart::Text(text.into())]);
    let is_given = |variables: &BTreeMap<_, _>, name: &str| {
        matches!(variables.get(name), Some(StoredVariable::Parts(_)))
    };
    if !is_given(&variables, "NODE_ENV") {
        variables.insert("NODE_ENV".into(), text("production"));
    }
    let (ports, hosts): (&[&str], &[&str]) = match app.kind {
        AppKind::Frontend(Framework::Nextjs) => (&["PORT"], &["HOSTNAME"]),
        AppKind::Frontend(Framework::Nuxt) => (&["PORT", "NITRO_PORT"], &["HOST", "NITRO_HOST"]),
        AppKind::Middleware => (&["PORT", "API_PORT"], &[]),
        AppKind::Playwright | AppKind::Other => (&["PORT"], &[]),
    };
    // The old and the new release run at the same time, so each app has its own port.
    for name in ports {
        let port = StoredVariable::Parts(vec![ValuePart::Port(app.app.clone())]);
        variables.insert((*name).to_owned(), port);
    }
    // Apps listen on this machine only; other machines reach them through the proxy.
    for name in hosts {
        let is_wide = variables.get(*name) == Some(&text(ALL_INTERFACES));
        if is_wide || !is_given(&variables, name) {
            variables.insert((*name).to_owned(), text("localhost"));
        }
    }
    variables
}

/// The address of the middleware for browsers, if the variable has that of the middleware itself.
fn browser_middleware(
    spec: &ReleaseSpec,
    app: &ReleasedApp,
    name: &str,
    template: &ValueTemplate,
) -> Option<StoredVariable> {
    let middleware = spec.browser_middleware(app, name, template)?;
    middleware.path_prefix.as_ref()?;
    Some(StoredVariable::BrowserMiddleware(middleware.app.clone()))
}

/// The parts of a value. `None` if the store does not have an app that the value names.
fn parts(
    spec: &ReleaseSpec,
    own: &ReleasedApp,
    template: &ValueTemplate,
) -> Option<Vec<ValuePart>> {
    let named = |reference: &AppReference| -> Option<AppName> {
        spec.app(own, reference).map(|app| app.app.clone())
    };
    let parts = template.parts().iter().map(|part| {
        Some(match part {
            TemplatePart::Text(text) => ValuePart::Text(text.clone()),
            TemplatePart::Store => ValuePart::Text(spec.store.to_string()),
            TemplatePart::Port(app) => ValuePart::Port(named(app)?),
            TemplatePart::Url(app) => ValuePart::Address(named(app)?),
        })
    });
    parts.collect()
}
