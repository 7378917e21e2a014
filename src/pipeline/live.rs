//! The last stage where everything stays on this machine: a record of what would be live, and
//! how to run it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::deploy::{LiveStore, is_due};
use super::failure::{StageError, StageResult};
use super::push::Pushed;
use super::services::Services;
use super::stored;
use crate::event::{EventSubject, Stage};
use crate::plan::{Plan, Release};

/// Where the record lies, relative to the project.
pub const RECORD: &str = ".alokai/live.json";

/// Everything that would be live, by store.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LiveRecord {
    schema_version: u32,
    stores: BTreeMap<String, LiveStoreRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LiveStoreRecord {
    tag: String,
    since: String,
    apps: BTreeMap<String, LiveAppRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LiveAppRecord {
    image: String,
    digest: String,
    folder: String,
    command: Vec<String>,
    port: u16,
}

/// Records every store whose images are all there. Stores of earlier runs stay.
pub fn run(plan: &Plan, pushed: &[Pushed], services: &Arc<Services>) -> StageResult<LiveStore> {
    let path = plan.project.join(RECORD);
    let mut settled = StageResult::default();
    let due = plan
        .releases
        .iter()
        .filter(|release| is_due(plan, release, pushed));
    for release in due {
        let unit = EventSubject::store(Stage::Deploy, &release.store);
        let note = |live: &LiveStore| Some(live.address.clone());
        let result = services.events.observe(&unit, note, || {
            let mut record: LiveRecord = stored::read(&path)?.unwrap_or_default();
            record.schema_version = 1;
            record
                .stores
                .insert(release.store.to_string(), of(plan, release, pushed));
            stored::write(&path, &record)?;
            Ok::<_, super::failure::Io>(LiveStore {
                store: release.store.clone(),
                address: release.local_address(),
                commands: release.commands(),
            })
        });
        settled.add(unit, result.map_err(StageError::from));
    }
    settled
}

fn of(plan: &Plan, release: &Release, pushed: &[Pushed]) -> LiveStoreRecord {
    let apps = release.runs.iter().filter_map(|run| {
        let mut pushed = pushed.iter();
        let image = pushed.find(|it| it.unit.store == release.store && it.unit.app == run.app)?;
        let record = LiveAppRecord {
            image: image.reference.to_string(),
            digest: image.digest.to_string(),
            folder: run.folder.clone(),
            command: vec!["node".into(), run.entry.clone()],
            port: run.port,
        };
        Some((run.app.to_string(), record))
    });
    LiveStoreRecord {
        tag: plan.tag.clone().unwrap_or_default(),
        since: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
        apps: apps.collect(),
    }
}
