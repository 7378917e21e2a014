//! The last stage where everything stays on this machine: a record of what would be live, and
//! the scripts that start it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::failure::StageError;
use super::services::Services;
use super::{start, stored};
use crate::plan::{Launch, Plan, StoreServers};
use crate::store::{AppName, StoreId};

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
    /// The command, which runs in a copy of `folder`.
    command: Vec<String>,
    port: u16,
    #[serde(default)]
    address: String,
    /// The script that starts it.
    #[serde(default)]
    script: String,
    /// The variables whose values are not secrets.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// The names of variables with the `.env` file that has the value.
    #[serde(default)]
    env_files: BTreeMap<String, String>,
}

/// Reference and digest of the image of each app.
type AppImages = BTreeMap<AppName, (String, String)>;

/// Records one store, and writes the scripts that start its apps. The records of other stores stay.
pub fn write_start_scripts(
    plan: &Plan,
    store: &StoreId,
    images: &AppImages,
    services: &Services,
) -> Result<(), StageError> {
    let Some(servers) = plan.servers_of(store) else {
        return Ok(());
    };
    for server in &servers.servers {
        for name in start::write_script(plan, servers, server)? {
            services.events.notice(format!(
                "{}: `{name}` of a `.env` file is not set when the app is started, because a shell cannot set a variable with this name",
                server.unit
            ));
        }
    }
    let path = plan.project.join(RECORD);
    let mut record: LiveRecord = stored::read(&path)?.unwrap_or_default();
    record.schema_version = 1;
    let store = servers.store.to_string();
    record.stores.insert(store, of(plan, servers, images));
    stored::write(&path, &record)?;
    Ok(())
}

fn of(plan: &Plan, servers: &StoreServers, images: &AppImages) -> LiveStoreRecord {
    let apps = servers.servers.iter().filter_map(|server| {
        let (reference, digest) = images.get(&server.unit.app)?;
        let Launch::Artifact { folder, entry } = &server.launch else {
            return None;
        };
        let known = servers.known(server).into_iter();
        let from_files = server.secret_names();
        let record = LiveAppRecord {
            image: reference.clone(),
            digest: digest.clone(),
            folder: folder.clone(),
            command: vec!["node".into(), entry.clone()],
            port: server.port,
            address: server.address(),
            script: server.script(),
            environment: known.map(|it| (it.name, it.value)).collect(),
            env_files: from_files
                .map(|(name, file)| (name.to_owned(), file.to_owned()))
                .collect(),
        };
        Some((server.unit.app.to_string(), record))
    });
    LiveStoreRecord {
        tag: plan.tag.clone().unwrap_or_default(),
        since: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
        apps: apps.collect(),
    }
}
