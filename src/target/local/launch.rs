//! How the apps of a release are started: their folders, variables and secrets.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::Error;
use super::app::AppStart;
use super::folder::{self, LocalFolder};
use super::state::{AppRecord, ReleaseEnvironment, ReleaseState, StoredVariable, ValuePart};
use crate::ledger::RecordId;
use crate::pipeline::{Io, isolated_folder};
use crate::redaction::{is_public, redactor};
use crate::store::StoreId;

/// The variable with further folders in which Node searches for packages.
const MODULE_PATH: &str = "NODE_PATH";

/// Settings with their values.
pub type SettingValues = BTreeMap<String, String>;

/// What is needed to start the apps of a release.
pub struct ReleaseStart<'a> {
    /// The folder of the target.
    pub place: &'a LocalFolder,
    /// The store.
    pub store: &'a StoreId,
    /// The release.
    pub id: &'a RecordId,
    /// The release's state.
    pub release: &'a ReleaseState,
    /// The address at which browsers reach the store.
    pub public: &'a str,
}

/// Unpacks all apps into a new folder with no `node_modules` above it.
pub fn unpack(release: &ReleaseState) -> Result<PathBuf, Error> {
    let first = release.apps.first().map_or("", |it| it.app.as_str());
    let folder = isolated_folder(Path::new(first))?;
    for app in &release.apps {
        app.image.unpack(&folder.path().join(app.app.as_str()))?;
    }
    Ok(folder.keep())
}

/// Locks a folder until the file is dropped. Programs that remove old temporary files spare it meanwhile.
pub fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    file.try_lock_shared().ok().map(|()| file)
}

/// Whether all apps are unpacked in the folder.
pub fn is_unpacked(release: &ReleaseState, folder: &Path) -> bool {
    let mut apps = release.apps.iter();
    apps.all(|app| {
        let unpacked = folder.join(app.app.as_str());
        app.image.workdir(&unpacked).is_dir() && app.image.command(&unpacked).is_ok()
    })
}

impl ReleaseStart<'_> {
    /// How each app is started.
    pub fn apps(&self, unpacked: &Path) -> Result<Vec<AppStart>, Error> {
        let path = self.place.environment(self.store, self.id);
        let environment: Option<ReleaseEnvironment> = folder::read(&path)?;
        let environment = environment.unwrap_or_default();
        let settings = match &self.release.settings {
            None => SettingValues::new(),
            Some(version) => {
                let path = self.place.settings(self.store, version)?;
                folder::read(&path)?.ok_or_else(|| Error::NoSettings {
                    store: self.store.clone(),
                    version: version.clone(),
                })?
            }
        };
        let apps = self.release.apps.iter();
        apps.map(|app| self.app(app, &environment, &settings, unpacked))
            .collect()
    }

    fn app(
        &self,
        app: &AppRecord,
        environment: &ReleaseEnvironment,
        settings: &SettingValues,
        unpacked: &Path,
    ) -> Result<AppStart, Error> {
        let root = unpacked.join(app.app.as_str());
        let mut variables = environment.system.clone();
        variables.extend(app.image.variables(&root));
        let mut secrets = Vec::new();
        for (name, variable) in environment.apps.get(&app.app).into_iter().flatten() {
            if let StoredVariable::Secret(value) = variable
                && !is_public(name)
            {
                secrets.push(value.as_str());
            }
            // Without the app that a value names, the variable is not set.
            if let Some(value) = self.value(variable) {
                variables.insert(name.clone(), value);
            }
        }
        secrets.extend(settings.values().map(String::as_str));
        variables.extend(settings.clone());
        variables.remove(MODULE_PATH);
        Ok(AppStart {
            app: app.app.clone(),
            command: app.image.command(&root)?,
            folder: app.image.workdir(&root),
            variables,
            redactor: redactor(secrets),
            log: self.place.log(self.store, self.id, &app.app),
            stop_timeout: self.release.stop_timeout,
        })
    }

    fn value(&self, variable: &StoredVariable) -> Option<String> {
        let parts = match variable {
            StoredVariable::Secret(value) => return Some(value.clone()),
            StoredVariable::BrowserMiddleware(app) => {
                let mut apps = self.release.apps.iter();
                let app = apps.find(|it| it.app == *app)?;
                let prefix = app.path_prefix.as_deref()?;
                return Some(format!("{}{}", self.public, prefix.trim_end_matches('/')));
            }
            StoredVariable::Parts(parts) => parts.iter(),
        };
        let texts = parts.map(|part| match part {
            ValuePart::Text(text) => Some(text.clone()),
            ValuePart::Port(app) => Some(self.release.port_of(app)?.to_string()),
            ValuePart::Address(app) => {
                let port = self.release.port_of(app)?;
                Some(format!("http://localhost:{port}"))
            }
        });
        texts.collect()
    }
}

/// Removes an unpacked folder.
pub fn remove_unpacked(folder: &Path) -> Result<(), Error> {
    if folder.exists() {
        crate::disk::remove(folder).map_err(Io::at("remove", folder))?;
    }
    Ok(())
}
