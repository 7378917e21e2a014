//! The environment of a started app.
//!
//! From the lowest to the highest: `.env` files of the composed app, addresses of sibling apps,
//! `start.env`, the user's shell, and the variables that differ by app: ports, host names and
//! `NODE_ENV`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use http_client::Redactor;

use crate::pipeline::services::ScriptEnvironment;
use crate::plan::{EnvFileError, Launch, ServerPlan, StoreServers};

/// The variable with further folders in which Node searches for packages.
pub const MODULE_PATH: &str = "NODE_PATH";

/// Values of `.env` files with fewer bytes are not replaced in output: they are mostly flags and
/// numbers, which also occur elsewhere in the output.
const SHORTEST_SECRET: usize = 6;

/// The variables of a started app, with their values.
pub struct ServerEnvironment {
    variables: BTreeMap<String, OsString>,
    /// The names of the variables that alokai sets.
    pub given: Vec<String>,
    /// Replaces values of `.env` files in output.
    pub redactor: Redactor,
}

impl ServerEnvironment {
    /// The environment of an app of the store.
    pub fn new(
        store: &StoreServers,
        server: &ServerPlan,
        shell: &ScriptEnvironment,
    ) -> Result<Self, EnvFileError> {
        let redactor = redactor(server)?;
        let secrets = secrets(server)?;
        let known = store.known(server);
        let given = secrets.keys().chain(known.iter().map(|it| &it.name));
        let mut given: Vec<String> = given.cloned().collect();
        given.sort_unstable();
        given.dedup();
        let secrets = secrets.into_iter();
        let mut variables: BTreeMap<String, OsString> =
            secrets.map(|(name, value)| (name, value.into())).collect();
        for known in &known {
            variables.insert(known.name.clone(), (&known.value).into());
        }
        // A container has an environment of its own, in which only variables of the app are replaced.
        let is_container = matches!(server.launch, Launch::Image { .. });
        let is_passed = |name: &String| !is_container || given.contains(name);
        for (name, value) in shell.shell().filter(|(name, _)| is_passed(name)) {
            let replaced = known.iter().any(|it| it.name == *name && it.replaces_shell);
            if !replaced && (!value.is_empty() || !variables.contains_key(name)) {
                variables.insert(name.clone(), value.clone());
            }
        }
        variables.remove(MODULE_PATH);
        Ok(Self {
            variables,
            given,
            redactor,
        })
    }

    /// The environment of a script of a workspace package: the user's shell.
    pub fn of_package(shell: &ScriptEnvironment) -> Self {
        let variables = shell.shell();
        Self {
            variables: variables
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            given: Vec::new(),
            redactor: Redactor::default(),
        }
    }

    /// All variables.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &OsString)> {
        self.variables.iter()
    }
}

/// Whether the value of the variable is public, because browsers receive it.
fn is_public(name: &str) -> bool {
    name.starts_with("NEXT_PUBLIC_") || name.starts_with("NUXT_PUBLIC_")
}

/// Replaces the values of all `.env` files of the app, also of those that the app reads itself.
fn redactor(server: &ServerPlan) -> Result<Redactor, EnvFileError> {
    let mut hidden = Vec::new();
    for file in &server.env_files {
        let values = file.values()?.into_iter();
        let is_hidden =
            |(name, value): &(String, String)| value.len() >= SHORTEST_SECRET && !is_public(name);
        hidden.extend(values.filter(is_hidden).map(|(_, value)| value));
    }
    Ok(Redactor::new(hidden.iter().map(String::as_str)))
}

/// The variables that the app has from its `.env` files, with their values as they are now.
pub fn secrets(server: &ServerPlan) -> Result<BTreeMap<String, String>, EnvFileError> {
    let mut values = BTreeMap::new();
    for file in &server.env_files {
        values.extend(file.values()?);
    }
    let planned: BTreeSet<&str> = server.secret_names().map(|(name, _)| name).collect();
    values.retain(|name, _| planned.contains(name.as_str()));
    Ok(values)
}
