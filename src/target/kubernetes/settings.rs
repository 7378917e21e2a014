//! The settings of a store: one Secret for each version, which the cluster never changes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::KubernetesTarget;
use super::api::name_of;
use super::error::Error;
use super::kinds::SECRET;
use crate::store::StoreId;
use crate::target::Settings;

impl KubernetesTarget {
    /// Stores settings under a version. Equal settings may be stored again. False if the version has other
    /// values.
    pub(super) async fn write_settings(
        &self,
        store: &StoreId,
        version: &str,
        settings: &Settings,
    ) -> Result<bool, Error> {
        let (api, owner) = (self.api()?, self.owner(store)?);
        let values: BTreeMap<_, _> = settings
            .iter()
            .map(|(name, value)| (name, value.expose_secret()))
            .collect();
        let secret = json!({
            "apiVersion": SECRET.version,
            "kind": SECRET.name,
            "metadata": {
                "name": owner.settings(version),
                "namespace": api.namespace,
                "labels": owner.labels(),
            },
            "type": "Opaque",
            "immutable": true,
            "stringData": values,
        });
        if api.create(SECRET, &secret).await?.is_some() {
            return Ok(true);
        }
        let known = self.read_settings(store, version).await?;
        Ok(known.is_some_and(|known| {
            let known = known
                .iter()
                .map(|(name, value)| (name, value.expose_secret()));
            known.eq(values)
        }))
    }

    /// The settings of a version, if the cluster has them.
    pub(super) async fn read_settings(
        &self,
        store: &StoreId,
        version: &str,
    ) -> Result<Option<Settings>, Error> {
        let (api, owner) = (self.api()?, self.owner(store)?);
        let name = owner.settings(version);
        let secret = api.owned(SECRET, &name, &owner).await?;
        secret.as_ref().map(values_of).transpose()
    }
}

/// The values of a Secret.
pub fn values_of(secret: &Value) -> Result<Settings, Error> {
    let Value::Object(data) = &secret["data"] else {
        return Ok(Settings::new());
    };
    let values = data.iter().map(|(key, value)| {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| Error::Refused {
            doing: format!("read {}", SECRET.object(name_of(secret))),
            status: 200,
            message: format!("the value of `{}` is not text", key.escape_debug()),
        })?;
        Ok((key.clone(), SecretString::from(text)))
    });
    values.collect()
}
