//! The objects of a store as text, for those who apply them by other means.

use serde_json::Value;

use super::error::Error;
use super::manifests::{ReleaseObjects, public_service};
use super::{names, owner};
use crate::config::Project;
use crate::target::ReleaseSpec;

/// The objects of a store with one release.
pub struct StoreManifests {
    /// The objects, in the order in which they are applied.
    pub objects: Vec<Value>,
    /// The Secrets that the objects name and that are not among them, with the names of their values.
    pub secrets: Vec<(String, Vec<String>)>,
}

/// The objects of a store whose public Service selects this release. No secret value is in them.
pub fn manifests(
    project: &Project,
    spec: &ReleaseSpec,
    settings: &[String],
) -> Result<StoreManifests, Error> {
    let owner = owner(project, &spec.store)?;
    let section = &project.settings.deploy.kubernetes;
    let release = ReleaseObjects {
        spec,
        owner: &owner,
        section,
        data: project.settings.deploy.data.as_ref(),
        namespace: section.namespace.as_deref().unwrap_or("default"),
        settings: settings.to_vec(),
    };
    let service = release.service();
    let ports = service["spec"]["ports"].clone();
    let storage = release.storage();
    let claim = storage.and_then(|storage| storage.object(release.namespace));
    let mut objects: Vec<Value> = claim.into_iter().chain([service]).collect();
    let mut secrets = Vec::new();
    for app in &spec.apps {
        objects.push(release.deployment(app)?);
        let values = release.secret_names(app);
        if !values.is_empty() {
            secrets.push((names::environment_secret(spec, app), values));
        }
    }
    if let Some(version) = &spec.settings {
        secrets.push((owner.settings(version), settings.to_vec()));
    }
    objects.extend(release.staged_routes().into_iter().map(|(_, it)| it));
    objects.push(public_service(&owner, release.namespace, &spec.id, &ports));
    objects.extend(release.public_routes().into_iter().map(|(_, it)| it));
    if section.namespace.is_none() {
        // `kubectl apply --namespace` chooses it.
        for object in &mut objects {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
        }
    }
    Ok(StoreManifests { objects, secrets })
}
