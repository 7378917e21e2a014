//! `store settings`: variables of stores whose values only the target has.

use std::fmt::Write as _;
use std::io::Read;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::arguments::Global;
use super::arguments::questions::{
    SetOptions, SettingsCommand, SettingsDiffOptions, StatusOptions, UnsetOptions,
};
use super::environment::{self, tell};
use super::listing::stored_records;
use super::operation::RecordedOperation;
use super::releases::release;
use super::run::document;
use super::store_targets::StoreTargets;
use super::{Error, answer};
use crate::config::is_variable_name;
use crate::error::Error as AnyError;
use crate::ledger::{RecordFolder, RecordSet, ReleaseRecord};
use crate::release::{self, SettingDifference, SettingsChange, StoreSettings};
use crate::store::{Store, StoreId};
use crate::target::{Settings, Target, place_options};

pub fn settings(global: &Global, command: &SettingsCommand) -> Result<(), AnyError> {
    match command {
        SettingsCommand::Set(options) => {
            let change = SettingsChange::Set(values(options)?);
            change_all(
                &StoreTargets::new(global, options.target.chosen())?,
                &change,
            )
        }
        SettingsCommand::Unset(options) => change_all(
            &StoreTargets::new(global, options.target.chosen())?,
            &removed(options),
        ),
        SettingsCommand::List(options) => list(global, options),
        SettingsCommand::Diff(options) => diff(global, options),
    }
}

/// The values of the command line and of standard input.
fn values(options: &SetOptions) -> Result<Settings, Error> {
    let mut settings = Settings::new();
    let mut add = |name: &str, value: String| {
        if !is_variable_name(name) {
            return Err(Error::SettingName {
                name: name.to_owned(),
            });
        }
        if value.contains('\0') {
            return Err(Error::SettingValue {
                name: name.to_owned(),
            });
        }
        settings.insert(name.to_owned(), SecretString::from(value));
        Ok(())
    };
    for assignment in &options.values {
        // The value may be missing because somebody has typed only a secret.
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(Error::SettingWithoutValue);
        };
        add(name, value.to_owned())?;
    }
    if let Some(name) = &options.secret {
        let mut value = String::new();
        let read = std::io::stdin().read_to_string(&mut value);
        read.map_err(|_| Error::NoSecret { name: name.clone() })?;
        let value = value.strip_suffix('\n').unwrap_or(&value);
        let value = value.strip_suffix('\r').unwrap_or(value);
        if value.is_empty() {
            return Err(Error::NoSecret { name: name.clone() });
        }
        add(name, value.to_owned())?;
    }
    Ok(settings)
}

fn removed(options: &UnsetOptions) -> SettingsChange {
    if options.all {
        SettingsChange::Clear
    } else {
        SettingsChange::Unset(options.names.iter().cloned().collect())
    }
}

fn change_all(targets: &StoreTargets, change: &SettingsChange) -> Result<(), AnyError> {
    let stores = targets.named()?;
    targets.registry.pull(&targets.project);
    for store in stores {
        change_of(targets, store, change)?;
    }
    Ok(())
}

fn change_of(
    targets: &StoreTargets,
    store: &Store,
    change: &SettingsChange,
) -> Result<(), AnyError> {
    let target = targets.of(store)?;
    let id = &store.id;
    let (records, actor) = (
        targets.registry.live_records(&targets.project),
        environment::actor(),
    );
    let settings = StoreSettings {
        store: id,
        target: target.as_ref(),
        records: &records,
        actor: &actor,
    };
    settings.check()?;
    let name = match change {
        SettingsChange::Set(_) => "settings set",
        SettingsChange::Unset(_) | SettingsChange::Clear => "settings unset",
    };
    let operation = RecordedOperation::start(&targets.project, id, target.name(), name);
    let changed = {
        let services = targets.registry.services();
        let recorded = (&services.events, Some(operation.id()));
        targets.registry.wait(settings.change(change, recorded))
    };
    let release = changed.as_ref().ok().and_then(Option::as_ref);
    let failure = changed.as_ref().err().map(ToString::to_string);
    operation.end(failure.as_deref(), release.map(|release| &release.id));
    targets.registry.share(&targets.project, id);
    match changed? {
        Some(release) => {
            answer(&format!("{}\n", release.id))?;
            let known = release::Records::read(&records).unwrap_or_default();
            let next = next_step(id, (target.name(), Some(&release)), &known);
            tell(&format!(
                "{id}: the release {} has the new settings; {next}",
                release.id
            ));
        }
        None => tell(&format!("{id}: the settings are unchanged")),
    }
    Ok(())
}

/// The command that makes a release with new settings live.
fn next_step(
    store: &StoreId,
    (target, release): (&str, Option<&ReleaseRecord>),
    records: &RecordSet,
) -> String {
    let known = records.targets();
    let is_pinned = known
        .get(store, target)
        .is_some_and(|history| history.state.pin.is_some());
    let place = place_options(store, target);
    match release.filter(|_| is_pinned) {
        Some(release) => format!(
            "the store is pinned: `alokai store release {} {place}` makes them live and removes the pin",
            release.id
        ),
        None => format!("`alokai store deploy --settings {place}` makes them live"),
    }
}

/// The release that is live, and the release whose settings the next deploy has.
struct Versions<'a> {
    active: Option<&'a ReleaseRecord>,
    latest: Option<&'a ReleaseRecord>,
}

impl<'a> Versions<'a> {
    fn of(
        targets: &StoreTargets,
        store: &Store,
        records: &'a RecordSet,
        target: &dyn Target,
    ) -> Result<Self, AnyError> {
        let (folder, actor) = (
            RecordFolder::of_project(&targets.project.root),
            environment::actor(),
        );
        let settings = StoreSettings {
            store: &store.id,
            target,
            records: &folder,
            actor: &actor,
        };
        settings.check()?;
        let active = targets.registry.wait(settings.active(records))?;
        Ok(Self {
            active: active.as_ref().and_then(|id| records.release(id)),
            latest: settings.latest(records, active.as_ref()),
        })
    }

    fn is_live(&self) -> bool {
        version(self.active) == version(self.latest)
    }
}

fn version(release: Option<&ReleaseRecord>) -> Option<&str> {
    release?.settings.as_deref()
}

fn list(global: &Global, options: &StatusOptions) -> Result<(), AnyError> {
    let targets = StoreTargets::new(global, options.target.chosen())?;
    let stores = targets.stores()?;
    targets.registry.pull(&targets.project);
    let records = stored_records(&targets.project)?;
    let (mut text, mut values) = (String::new(), Vec::new());
    for store in stores {
        let target = targets.of(store)?;
        if !target.capabilities().settings {
            let (id, target) = (&store.id, target.name());
            let _ = writeln!(text, "{id}  {target}  the target has no settings");
            values.push(json!({ "storeId": id, "target": target, "active": null, "latest": null }));
            continue;
        }
        let versions = Versions::of(&targets, store, &records, target.as_ref())?;
        let (active, latest) = (versions.active, versions.latest);
        let side = |release: Option<&ReleaseRecord>| match release {
            None => Value::Null,
            Some(release) => json!({
                "release": release.id,
                "version": release.settings,
                "names": release.setting_names,
            }),
        };
        values.push(json!({
            "storeId": store.id,
            "target": target.name(),
            "active": side(active),
            "latest": side(latest),
        }));
        // Writing to a string cannot fail.
        let id = &store.id;
        let _ = match version(latest) {
            None => writeln!(text, "{id}  {}  no settings", target.name()),
            Some(version) => writeln!(text, "{id}  {}  version {version}", target.name()),
        };
        for name in latest.iter().flat_map(|release| &release.setting_names) {
            let _ = writeln!(text, "  {name}");
        }
        if !versions.is_live() {
            let _ = writeln!(
                text,
                "  not live; {}",
                next_step(id, (target.name(), latest), &records)
            );
        }
    }
    if options.json {
        return document(&json!({ "schemaVersion": 1, "stores": values }));
    }
    answer(&text)
}

fn diff(global: &Global, options: &SettingsDiffOptions) -> Result<(), AnyError> {
    let targets = StoreTargets::new(global, options.target.chosen())?;
    let stores = targets.named()?;
    targets.registry.pull(&targets.project);
    let records = stored_records(&targets.project)?;
    let (mut text, mut values) = (String::new(), Vec::new());
    for store in stores {
        let target = targets.of(store)?;
        let (old, new) = if let (Some(old), Some(new)) = (&options.old, &options.new) {
            (Some(release(&records, old)?), Some(release(&records, new)?))
        } else {
            let versions = Versions::of(&targets, store, &records, target.as_ref())?;
            (versions.active, versions.latest)
        };
        let (folder, actor) = (
            RecordFolder::of_project(&targets.project.root),
            environment::actor(),
        );
        let settings = StoreSettings {
            store: &store.id,
            target: target.as_ref(),
            records: &folder,
            actor: &actor,
        };
        let compared = settings.compare(version(old), version(new));
        let differences = targets.registry.wait(compared)?;
        values.push(json!({
            "storeId": store.id,
            "target": target.name(),
            "old": old.map(|release| &release.id),
            "new": new.map(|release| &release.id),
            "settings": differences,
        }));
        let name = |release: Option<&ReleaseRecord>| {
            release.map_or("nothing".to_owned(), |release| release.id.to_string())
        };
        let _ = writeln!(text, "{}  {} → {}", store.id, name(old), name(new));
        if differences.is_empty() {
            text.push_str("  no setting differs\n");
        }
        for (name, difference) in differences {
            let sign = match difference {
                SettingDifference::Added => '+',
                SettingDifference::Removed => '-',
                SettingDifference::Changed => '~',
            };
            let _ = writeln!(text, "  {sign} {name}");
        }
    }
    if options.json {
        return document(&json!({ "schemaVersion": 1, "stores": values }));
    }
    answer(&text)
}
