//! The secrets of apps, which are replaced in their output.

use std::collections::BTreeMap;

use http_client::Redactor;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::KubernetesTarget;
use super::api::Api;
use super::error::Error;
use super::kinds::SECRET;
use super::names::{RELEASE, StoreOwner};
use super::settings::values_of;
use crate::ledger::RecordId;
use crate::redaction::{is_public, redactor};
use crate::store::AppName;

impl KubernetesTarget {
    /// The redactors of the apps of a release, which replace the values of their Secrets.
    pub(super) async fn redactors(
        &self,
        api: &Api,
        owner: &StoreOwner,
        release: &RecordId,
    ) -> Result<BTreeMap<AppName, Redactor>, Error> {
        let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut redactors = BTreeMap::new();
        for app in self.deployments(api, owner).await? {
            if app.release != *release {
                continue;
            }
            let mut own = Vec::new();
            for name in secret_names(&app.object) {
                if !known.contains_key(name) {
                    let secret = api.get(SECRET, name).await?;
                    let secret = secret.ok_or_else(|| Error::SecretMissing {
                        secret: name.to_owned(),
                        app: app.app.to_string(),
                    })?;
                    known.insert(name.to_owned(), secrets_of(&secret)?);
                }
                own.extend(known.get(name).cloned().unwrap_or_default());
            }
            let redactor = redactor(own.iter().map(String::as_str));
            redactors.insert(app.app, redactor);
        }
        Ok(redactors)
    }
}

/// The names of the Secrets whose values an app has.
pub fn secret_names(deployment: &Value) -> impl Iterator<Item = &str> {
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let sources = container["envFrom"].as_array().into_iter().flatten();
    sources.filter_map(|source| source["secretRef"]["name"].as_str())
}

/// The values of a Secret that are replaced. Only Secrets of a release have values for browsers.
fn secrets_of(secret: &Value) -> Result<Vec<String>, Error> {
    let is_of_release = secret["metadata"]["labels"][RELEASE].is_string();
    let values = values_of(secret)?.into_iter();
    let values = values.filter(|(name, _)| !is_of_release || !is_public(name));
    let values = values.map(|(_, value)| value.expose_secret().to_owned());
    Ok(values.collect())
}
