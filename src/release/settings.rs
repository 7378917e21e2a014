//! The settings of stores: variables of their apps whose values only the target has.
//!
//! A change makes a release with the same build and another version of the settings. Nothing runs until
//! that release is made live.

use std::collections::{BTreeMap, BTreeSet};

use miette::Diagnostic;
use secrecy::ExposeSecret;

use super::lease::locked;
use super::records::{Records, ReleaseJournal};
use crate::event::Events;
use crate::ledger::{
    Actor, BuildRecord, BuildStatus, Record, RecordId, RecordKind, RecordSet, ReleaseReason,
    ReleaseRecord, SCHEMA_VERSION, StoredRecord, continue_after, next_moment,
};
use crate::store::StoreId;
use crate::target::{Settings, Target, place_options};

/// The variables from which apps take their port and their address.
const RESERVED: [&str; 6] = [
    "PORT",
    "HOST",
    "HOSTNAME",
    "NITRO_PORT",
    "NITRO_HOST",
    "API_PORT",
];

/// Why settings cannot be read or changed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SettingsError {
    /// The target has no settings.
    #[error("the target `{target}` of `{store}` does not store settings")]
    #[diagnostic(
        code(alokai::settings::unsupported),
        help(
            "the targets `docker`, `swarm`, `kubernetes`, `local` and `command` store settings; for the console, set the variables in the console"
        )
    )]
    Unsupported {
        /// The target.
        target: &'static str,
        /// The store.
        store: StoreId,
    },
    /// The store has no build at this target that a release could have.
    #[error("the store `{store}` has no complete build, and a release of settings needs one")]
    #[diagnostic(
        code(alokai::settings::no_build),
        help(
            "`alokai store deploy {} --no-release` makes a build and does not make it live",
            place_options(store, target)
        )
    )]
    NoBuild {
        /// The target.
        target: &'static str,
        /// The store.
        store: StoreId,
    },
    /// The target does not have a version any more.
    #[error("the target `{target}` does not have version {version} of the settings of `{store}`")]
    #[diagnostic(
        code(alokai::settings::lost),
        help(
            "remove them with `alokai store settings unset --all {}`, then set all of them again",
            place_options(store, target)
        )
    )]
    Lost {
        /// The target.
        target: &'static str,
        /// The store.
        store: StoreId,
        /// The version.
        version: String,
    },
    /// A name that is not set.
    #[error("the setting `{name}` of `{store}` is not set")]
    #[diagnostic(
        code(alokai::settings::not_set),
        help(
            "`alokai store settings list {}` lists the names",
            place_options(store, target)
        )
    )]
    NotSet {
        /// The target.
        target: &'static str,
        /// The store.
        store: StoreId,
        /// The name.
        name: String,
    },
    /// The program sets the variable itself.
    #[error("`{name}` cannot be a setting, because the port or the address of an app is in it")]
    #[diagnostic(
        code(alokai::settings::reserved),
        help("use another name; the target chooses the ports and the addresses of the apps")
    )]
    Reserved {
        /// The name.
        name: String,
    },
    /// The record of the release cannot be written.
    #[error("the release of the settings cannot be recorded: {reason}")]
    #[diagnostic(
        code(alokai::settings::not_recorded),
        help("check the permissions of `.alokai/ledger`, and that the disk is not full")
    )]
    NotRecorded {
        /// Why.
        reason: String,
    },
}

/// Another content of the settings.
#[derive(Debug, Clone)]
pub enum SettingsChange {
    /// These names get these values.
    Set(Settings),
    /// These names are removed.
    Unset(BTreeSet<String>),
    /// All names are removed.
    Clear,
}

/// The settings of one store at its target.
pub struct StoreSettings<'a> {
    /// The store.
    pub store: &'a StoreId,
    /// Where it runs.
    pub target: &'a dyn Target,
    /// Where records are.
    pub records: &'a dyn Records,
    /// Who acts.
    pub actor: &'a Actor,
}

/// How the value of a name differs between two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingDifference {
    /// Only the new version has it.
    Added,
    /// Only the old version has it.
    Removed,
    /// Its value differs.
    Changed,
}

impl StoreSettings<'_> {
    /// Fails if the target has no settings.
    pub fn check(&self) -> Result<(), super::Error> {
        if self.target.capabilities().settings {
            return Ok(());
        }
        Err(SettingsError::Unsupported {
            target: self.target.name(),
            store: self.store.clone(),
        }
        .into())
    }

    /// Makes a release with the changed settings and the build that is live, under the lock of the store.
    /// Returns None if they are unchanged. The events belong to the recorded start of a
    /// run.
    pub async fn change(
        &self,
        change: &SettingsChange,
        (events, run): (&Events, Option<&RecordId>),
    ) -> Result<Option<ReleaseRecord>, super::Error> {
        self.check()?;
        if let SettingsChange::Set(settings) = change
            && let Some(name) = RESERVED.iter().find(|name| settings.contains_key(**name))
        {
            let name = (*name).to_owned();
            return Err(SettingsError::Reserved { name }.into());
        }
        let journal = ReleaseJournal {
            records: self.records,
            store: self.store,
            target: self.target.name(),
            actor: self.actor,
            run,
            events,
        };
        let work = self.change_recorded(change);
        locked(self.target, "settings", &journal, work).await
    }

    async fn change_recorded(
        &self,
        change: &SettingsChange,
    ) -> Result<Option<ReleaseRecord>, super::Error> {
        let records = self.records.read()?;
        continue_after(&records);
        let active = self.active(&records).await?;
        let latest = self.latest(&records, active.as_ref());
        let version = latest.and_then(|latest| latest.settings.as_deref());
        let settings = match (change, version) {
            (SettingsChange::Clear, None) => return Ok(None),
            (SettingsChange::Clear, Some(_)) => Settings::new(),
            (change, version) => {
                let old = match version {
                    Some(version) => self.of_version(version).await?,
                    None => Settings::new(),
                };
                let new = self.changed(&old, change)?;
                if differences(&old, &new).is_empty() {
                    return Ok(None);
                }
                new
            }
        };
        let build = self.build(&records, active.as_ref())?;
        let id = RecordId::new(RecordKind::Release, next_moment());
        let is_set = !settings.is_empty();
        if is_set {
            let stored = self
                .target
                .store_settings(self.store, id.as_str(), &settings);
            stored.await?;
        }
        let release = ReleaseRecord {
            schema_version: SCHEMA_VERSION,
            settings: is_set.then(|| id.to_string()),
            id,
            store: self.store.clone(),
            target: self.target.name().to_owned(),
            build,
            setting_names: settings.into_keys().collect(),
            reason: ReleaseReason::Settings,
            copy_of: None,
            staged_only: false,
            previous: active,
            actor: self.actor.clone(),
        };
        let not_recorded = |reason: String| SettingsError::NotRecorded { reason };
        let record = StoredRecord::new(Record::Release(release.clone()))
            .map_err(|error| not_recorded(error.to_string()))?;
        let written = self.records.append(&record);
        written.map_err(|error| not_recorded(error.to_string()))?;
        Ok(Some(release))
    }

    fn changed(&self, old: &Settings, change: &SettingsChange) -> Result<Settings, SettingsError> {
        let mut new = old.clone();
        match change {
            SettingsChange::Set(values) => new.extend(values.clone()),
            SettingsChange::Unset(names) => {
                for name in names {
                    new.remove(name).ok_or_else(|| SettingsError::NotSet {
                        target: self.target.name(),
                        store: self.store.clone(),
                        name: name.clone(),
                    })?;
                }
            }
            SettingsChange::Clear => new.clear(),
        }
        Ok(new)
    }

    /// The settings of a version.
    async fn of_version(&self, version: &str) -> Result<Settings, super::Error> {
        let settings = self.target.settings(self.store, version).await?;
        let lost = || SettingsError::Lost {
            target: self.target.name(),
            store: self.store.clone(),
            version: version.to_owned(),
        };
        Ok(settings.ok_or_else(lost)?)
    }

    /// The release that is live: asked of the target if it can tell.
    pub async fn active(&self, records: &RecordSet) -> Result<Option<RecordId>, super::Error> {
        if self.target.capabilities().observes {
            return Ok(self.target.observe(self.store).await?.active);
        }
        let targets = records.targets();
        let history = targets.get(self.store, self.target.name());
        Ok(history.and_then(|history| history.state.active.clone()))
    }

    /// The release whose settings the next release has. `active` is the release that is live.
    pub fn latest<'r>(
        &self,
        records: &'r RecordSet,
        active: Option<&RecordId>,
    ) -> Option<&'r ReleaseRecord> {
        let targets = records.targets();
        let target = self.target.name();
        let live = active.or_else(|| targets.last_live(self.store, target));
        records.next_settings(self.store, target, live)
    }

    /// The build that is live, or else that of the settings, or the newest one.
    fn build(
        &self,
        records: &RecordSet,
        active: Option<&RecordId>,
    ) -> Result<RecordId, SettingsError> {
        let live = active.and_then(|active| records.release(active));
        if let Some(release) = live.or_else(|| self.latest(records, active)) {
            return Ok(release.build.clone());
        }
        let is_own = |build: &&BuildRecord| {
            build.store == *self.store && build.status == BuildStatus::Complete
        };
        let build = records.builds().rev().find(is_own);
        let missing = || SettingsError::NoBuild {
            target: self.target.name(),
            store: self.store.clone(),
        };
        Ok(build.ok_or_else(missing)?.id.clone())
    }

    /// The names whose values differ between two versions.
    pub async fn compare(
        &self,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<BTreeMap<String, SettingDifference>, super::Error> {
        self.check()?;
        if old == new {
            return Ok(BTreeMap::new());
        }
        let (mut sides, versions) = (Vec::new(), [old, new]);
        for version in versions {
            sides.push(match version {
                Some(version) => self.of_version(version).await?,
                None => Settings::new(),
            });
        }
        Ok(differences(&sides[0], &sides[1]))
    }
}

fn differences(old: &Settings, new: &Settings) -> BTreeMap<String, SettingDifference> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let difference = |name: &String| match (old.get(name), new.get(name)) {
        (None, _) => Some(SettingDifference::Added),
        (_, None) => Some(SettingDifference::Removed),
        (Some(old), Some(new)) => {
            let is_same = old.expose_secret() == new.expose_secret();
            (!is_same).then_some(SettingDifference::Changed)
        }
    };
    let names = names.into_iter();
    names
        .filter_map(|name| Some((name.clone(), difference(name)?)))
        .collect()
}
