//! `store manifests`: the objects of a store in a Kubernetes cluster, for those who apply them by other means.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::arguments::Global;
use super::arguments::kubernetes::ManifestsOptions;
use super::environment::tell;
use super::listing::records;
use super::run::document;
use super::shared_records::RegistryAccess;
use super::{Error, answer, environment, project};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::ledger::{BuildRecord, BuildStatus, RecordId, RecordSet, ReleaseReason, ReleaseRecord};
use crate::plan::Selection;
use crate::release::{self, Chosen, chosen, new_release, spec_of};
use crate::store::{StoreId, TargetKind};
use crate::target;
use crate::target::kubernetes::{StoreManifests, manifests as objects_of};

/// The name of the target, as releases have it.
fn target_name() -> &'static str {
    TargetKind::Kubernetes.name()
}

pub fn manifests(global: &Global, options: &ManifestsOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let selection = Selection::Stores(vec![options.store.clone()]);
    let stores = selection.stores(&project)?;
    let registry = RegistryAccess::new(&project, &environment, &options.access)?;
    let records = records(&project, &registry)?;
    for store in stores {
        let (build, release) = release_of(&records, &store.id, options.id.as_deref())?;
        print(&project, build, &release, options.json)?;
    }
    Ok(())
}

/// The release that is meant. A build becomes a release with an id of its own, which is always the same.
fn release_of<'r>(
    records: &'r RecordSet,
    store: &StoreId,
    wanted: Option<&str>,
) -> Result<(&'r BuildRecord, ReleaseRecord), AnyError> {
    let latest = || {
        let mut builds = records.builds().rev();
        builds.find(|it| it.store == *store && it.status == BuildStatus::Complete)
    };
    let build = match wanted {
        Some(wanted) => match chosen(records, store, target_name(), wanted)? {
            Chosen::Release(known) => return Ok((known.build, known.release.clone())),
            Chosen::Build(build) => build,
        },
        None => latest().ok_or_else(|| Error::NoCompleteBuild {
            store: store.clone(),
        })?,
    };
    let targets = records.targets();
    let live = targets.last_live(store, target_name());
    let settings = records.next_settings(store, target_name(), live);
    let actor = environment::actor();
    let reason = ReleaseReason::Deploy;
    let mut release = new_release(build, target_name(), reason, settings, &actor);
    release.id = id_of(&build.id).unwrap_or(release.id);
    Ok((build, release))
}

/// The id of a build as the id of a release.
fn id_of(build: &RecordId) -> Option<RecordId> {
    let rest = build.as_str().get(1..)?;
    format!("R{rest}").parse().ok()
}

fn print(
    project: &Project,
    build: &BuildRecord,
    release: &ReleaseRecord,
    json: bool,
) -> Result<(), AnyError> {
    let spec = spec_of(project, None, build, release)?;
    let made = objects_of(project, &spec, &release.setting_names);
    let made = made.map_err(|error| release::Error::from(target::Error::from(error)))?;
    if json {
        for line in missing(&made) {
            tell(&format!("note: {line}"));
        }
        return document(&json!({ "apiVersion": "v1", "kind": "List", "items": made.objects }));
    }
    let mut text = String::new();
    for line in missing(&made) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# {line}");
    }
    for object in &made.objects {
        let _ = write!(text, "---\n{}", yaml(object)?);
    }
    answer(&text)
}

/// The Secrets that have to be made by other means.
fn missing(made: &StoreManifests) -> impl Iterator<Item = String> {
    made.secrets.iter().map(|(secret, names)| {
        let names = names.join(", ");
        format!("the Secret `{secret}` is needed, and its values are not printed: {names}")
    })
}

fn yaml(object: &Value) -> Result<String, Error> {
    let text = serde_saphyr::to_string(object);
    text.map(|text| format!("{}\n", text.trim_end()))
        .map_err(|error| Error::Yaml {
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{id_of, yaml};

    #[test]
    fn yaml_has_the_same_values_as_json() {
        let object = json!({
            "texts": ["yes", "no", "null", "1", "1.0", "0x1", "~", "", " a ", "a: b", "# c", "- d", "{}", "a\nb\n", "'", "\"", "%", "é"],
            "numbers": [0, 3000, -1],
            "others": [true, false, null, [], {}],
            "yes": { "1": "on", "a: b": "/api(/|$)(.*)" },
        });
        let text = yaml(&object).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, object, "{text}");
    }

    #[test]
    fn a_build_is_always_the_same_release() {
        let build = "B01KBN6XG0ABCDEFG".parse().unwrap();
        assert_eq!(id_of(&build).unwrap().as_str(), "R01KBN6XG0ABCDEFG");
    }
}
