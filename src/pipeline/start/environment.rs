//! The environment of a started app.
//!
//! From the lowest to the highest: `.env` files of the composed app, addresses of sibling apps,
//! `start.env`, the user's shell, and the variables that differ by app: ports, host names and
//! `NODE_ENV`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use http_client::Redactor;

use crate::pipeline::services::ScriptEnvironment;
use crate::plan::{
    BrowserTests, EnvFile, EnvFileError, KnownVariable, Launch, PlannedVariable, ServerPlan,
    StoreServers,
};
use crate::redaction::{is_public, redactor};

/// The variable with further folders in which Node searches for packages.
pub const MODULE_PATH: &str = "NODE_PATH";

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
        let secrets = AppSecrets::read(&server.env_files, &server.environment)?;
        // A container has an environment of its own, in which only variables of the app are replaced.
        let is_container = matches!(server.launch, Launch::Image { .. });
        Ok(Self::of(secrets, &store.known(server), shell, is_container))
    }

    /// The environment of a store's browser tests.
    pub fn of_tests(
        store: &StoreServers,
        tests: &BrowserTests,
        shell: &ScriptEnvironment,
    ) -> Result<Self, EnvFileError> {
        let secrets = AppSecrets::read(&tests.env_files, &tests.environment)?;
        let known = store.known_to_tests(tests);
        Ok(Self::of(secrets, &known, shell, false))
    }

    fn of(
        secrets: AppSecrets,
        known: &[KnownVariable],
        shell: &ScriptEnvironment,
        is_container: bool,
    ) -> Self {
        let given = secrets.values.keys();
        let given = given.chain(known.iter().map(|it| &it.name)).cloned();
        let given: BTreeSet<String> = given.collect();
        let values = secrets.values.into_iter();
        let mut variables: BTreeMap<String, OsString> =
            values.map(|(name, value)| (name, value.into())).collect();
        for known in known {
            variables.insert(known.name.clone(), (&known.value).into());
        }
        let is_passed = |name: &String| !is_container || given.contains(name);
        for (name, value) in shell.shell().filter(|(name, _)| is_passed(name)) {
            let replaced = known.iter().any(|it| it.name == *name && it.replaces_shell);
            if !replaced && (!value.is_empty() || !variables.contains_key(name)) {
                variables.insert(name.clone(), value.clone());
            }
        }
        variables.remove(MODULE_PATH);
        Self {
            variables,
            given: given.into_iter().collect(),
            redactor: secrets.redactor,
        }
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

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// All variables.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &OsString)> {
        self.variables.iter()
    }
}

/// The values of an app's `.env` files.
pub struct AppSecrets {
    /// The variables that are set from the files, with their values as they are now.
    pub values: BTreeMap<String, String>,
    /// Replaces the values of all files, also of those that the app reads itself.
    pub redactor: Redactor,
}

impl AppSecrets {
    /// Reads the files.
    pub fn read(
        files: &[EnvFile],
        environment: &BTreeMap<String, PlannedVariable>,
    ) -> Result<Self, EnvFileError> {
        let mut hidden = Vec::new();
        let mut values = BTreeMap::new();
        for (name, value) in read_all(files)? {
            if !is_public(&name) {
                hidden.push(value.clone());
            }
            if let Some(PlannedVariable::EnvFile(_)) = environment.get(&name) {
                values.insert(name, value);
            }
        }
        let redactor = redactor(hidden.iter().map(String::as_str));
        Ok(Self { values, redactor })
    }
}

fn read_all(files: &[EnvFile]) -> Result<Vec<(String, String)>, EnvFileError> {
    let read: Result<Vec<_>, _> = files.iter().map(EnvFile::values).collect();
    Ok(read?.concat())
}
