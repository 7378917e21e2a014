//! The labels of the objects that this program creates in an engine.

use std::collections::HashMap;

use crate::config::Project;
use crate::store::StoreId;

/// The label with the project name.
pub const PROJECT: &str = "com.alokai.project";
/// The label with the id of the store.
pub const STORE: &str = "com.alokai.store";
/// The label with the name of the app. Only apps have it.
pub const APP: &str = "com.alokai.app";
/// The label with the id of the release.
pub const RELEASE: &str = "com.alokai.release";
/// The label with the published port.
pub const PORT: &str = "com.alokai.port";
/// The label with the names of the variables whose values are secrets.
pub const SECRETS: &str = "com.alokai.secrets";
/// The label with the names of the variables whose values are those of `.env` files.
pub const ENV_FILES: &str = "com.alokai.env-files";
/// The label with the version of the settings.
pub const SETTINGS: &str = "com.alokai.settings";

/// The label with the identity of the proxy of a store.
pub const PROXY: &str = "com.alokai.proxy";
/// The label with the machine and the folder of this proxy.
pub const PROXY_PLACE: &str = "com.alokai.proxy-place";

/// The owner of objects in an engine: a store of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLabels {
    /// The project name of the store's deployment.
    pub project: String,
    /// The store.
    pub store: String,
}

impl StoreLabels {
    /// The labels of a store. None if it is not a deployable store of the project.
    pub fn of(project: &Project, store: &StoreId) -> Option<Self> {
        let known = project.stores.get(store.as_str())?;
        let deployment = known.deployment.as_ref()?;
        Some(Self {
            project: deployment.project_name.clone(),
            store: store.to_string(),
        })
    }

    /// The labels.
    pub fn map(&self) -> HashMap<String, String> {
        HashMap::from([
            (PROJECT.to_owned(), self.project.clone()),
            (STORE.to_owned(), self.store.clone()),
        ])
    }

    /// The labels in the form that filters of the engine have: `key=value`.
    pub fn filters(&self) -> impl Iterator<Item = String> {
        self.map()
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
    }

    /// `<project>/<store>`: the key in the routing table.
    pub fn key(&self) -> String {
        format!("{}/{}", self.project, self.store)
    }

    /// `<project>-<store>`: a part of names in the engine.
    pub fn name(&self) -> String {
        format!("{}-{}", self.project, self.store)
    }
}
