//! What tells of an image to whoever gets it: a list of the dependencies in it, and what it was
//! made of. Both are artifacts that refer to the image, and are the same to the byte whenever
//! the image is.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::builder::Image;
use super::destination::Destination;
use super::failure::StageError;
use super::preflight::PreparedRun;
use super::prune::{FOLDER, files};
use crate::event::Events;
use crate::plan::{ImagePlan, Plan};
use crate::workspace::installed;
use oci::{self, Descriptor, Digest, Manifest};

/// `CycloneDX` 1.6: <https://cyclonedx.org/docs/1.6/json/>.
const SBOM: &str = "application/vnd.cyclonedx+json";

/// in-toto: <https://github.com/in-toto/attestation>.
const STATEMENT: &str = "application/vnd.in-toto+json";

/// SLSA: <https://slsa.dev/spec/v1.0/provenance>.
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// Attaches both to an image that is where it goes, before it gets its name.
pub async fn attach(
    (plan, ready): (&Plan, &PreparedRun),
    planned: &ImagePlan,
    image: &Image,
    digest: Digest,
    destination: &Destination,
    events: &Events,
) -> Result<(), StageError> {
    let reference = &image.reference;
    let subject = destination.describe(reference, digest).await?;
    let folder = plan.workdir(&planned.unit).join(FOLDER);
    let working = events.working();
    let listing = tokio::task::spawn_blocking(move || {
        let _working = working;
        dependencies(&folder)
    });
    let listing = listing.await;
    let dependencies =
        listing.unwrap_or_else(|crashed| std::panic::resume_unwind(crashed.into_panic()))?;
    let predicate = ("in-toto.io/predicate-type", PROVENANCE);
    for (media_type, document, annotation) in [
        (SBOM, sbom(planned, &dependencies), None),
        (
            STATEMENT,
            provenance(plan, ready, planned, image, digest),
            Some(predicate),
        ),
    ] {
        let bytes = serde_json::to_vec(&document).unwrap_or_default();
        let blob = destination.put_bytes(reference, media_type, &bytes).await?;
        let config = destination.put_bytes(reference, oci::EMPTY, b"{}").await?;
        let mut manifest = Manifest::new(config, vec![blob]);
        manifest.artifact_type = Some(media_type.to_owned());
        manifest.subject = Some(Descriptor::new(
            &subject.media_type,
            subject.digest,
            subject.size,
        ));
        let annotation = annotation.into_iter();
        manifest.annotations = annotation
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        destination.attach(reference, &manifest).await?;
    }
    Ok(())
}

/// A package in `.deploy`.
#[derive(Debug, PartialEq, Eq)]
struct BomComponent {
    name: String,
    version: String,
    license: Option<String>,
}

/// Packages in a pruned folder, by their package URL; a manifest without a name or version is
/// part of another package.
fn dependencies(folder: &Path) -> Result<BTreeMap<String, BomComponent>, StageError> {
    let mut found = BTreeMap::new();
    for (path, file) in files(folder, |_| true)? {
        if !installed::is_manifest(&path) {
            continue;
        }
        let Ok(text) = std::fs::read(&file) else {
            continue;
        };
        let package: Value = serde_json::from_slice(&text).unwrap_or_default();
        let (Some(name), Some(version)) = (package["name"].as_str(), package["version"].as_str())
        else {
            continue;
        };
        let license = package["license"].as_str().map(str::to_owned);
        found.insert(
            purl(name, version),
            BomComponent {
                name: name.to_owned(),
                version: version.to_owned(),
                license,
            },
        );
    }
    Ok(found)
}

/// The package URL: <https://github.com/package-url/purl-spec>.
fn purl(name: &str, version: &str) -> String {
    let name = name.replace('@', "%40");
    let version = version.replace('+', "%2B");
    format!("pkg:npm/{name}@{version}")
}

fn sbom(planned: &ImagePlan, dependencies: &BTreeMap<String, BomComponent>) -> Value {
    let components = dependencies.iter().map(|(purl, dependency)| {
        let mut component = json!({
            "type": "library",
            "bom-ref": purl,
            "name": dependency.name,
            "version": dependency.version,
            "purl": purl,
        });
        if let Some(license) = &dependency.license {
            // Only what SPDX can read may be called an expression.
            component["licenses"] = match spdx::Expression::parse(license) {
                Ok(_) => json!([{ "expression": license }]),
                Err(_) => json!([{ "license": { "name": license } }]),
            };
        }
        component
    });
    let unit = &planned.unit;
    let version = planned.reference.as_ref().map(|reference| &reference.tag);
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": { "components": [{
                "type": "application", "name": "alokai", "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": {
                "type": "application",
                "bom-ref": unit.package_name(),
                "name": unit.package_name(),
                "version": version,
            },
        },
        "components": components.collect::<Vec<_>>(),
    })
}

fn provenance(
    plan: &Plan,
    ready: &PreparedRun,
    planned: &ImagePlan,
    image: &Image,
    digest: Digest,
) -> Value {
    let mut materials = Vec::new();
    if let Some(revision) = &plan.revision {
        materials.push(json!({ "name": "project", "digest": { "gitCommit": revision.sha } }));
    }
    materials.extend(
        ready
            .bases_of(planned)
            .map(|base| json!({ "name": base.name, "digest": { "sha256": base.digest.hex() } })),
    );
    let maker = if image.made.is_some() {
        "oci"
    } else {
        "docker"
    };
    let labels: Map<String, Value> = ready
        .labels(planned)
        .into_iter()
        .map(|(name, value)| (name, json!(value)))
        .collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": image.reference.name(),
            "digest": { "sha256": digest.hex() },
        }],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:alokai:store-deploy:v1",
                "externalParameters": {
                    "store": planned.unit.store,
                    "app": planned.unit.app,
                    "tag": image.reference.tag,
                    "platform": planned.platform.to_string(),
                    "dirty": !plan.is_clean(),
                },
                "internalParameters": {
                    "plan": plan.digest_of(&planned.unit),
                    "inputs": ready.inputs(planned),
                    "builder": maker,
                    "labels": labels,
                },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": { "id": concat!("urn:alokai:cli:", env!("CARGO_PKG_VERSION")) },
            },
        },
    })
}
