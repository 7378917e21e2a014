//! Attestations: the list of dependencies (SBOM) and the provenance of an image. Both are
//! artifacts that refer to the image, and equal images have equal attestations, byte by byte.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::base::PinnedBase;
use super::builder::{Image, PreparedImage};
use super::destination::Destination;
use super::failure::StageError;
use super::prune::{FOLDER, files};
use crate::event::Events;
use crate::plan::Plan;
use crate::workspace::installed;
use oci::{self, Descriptor, Digest, Manifest};

/// `CycloneDX` 1.6: <https://cyclonedx.org/docs/1.6/json/>.
const SBOM: &str = "application/vnd.cyclonedx+json";

/// in-toto: <https://github.com/in-toto/attestation>.
const STATEMENT: &str = "application/vnd.in-toto+json";

/// SLSA: <https://slsa.dev/spec/v1.0/provenance>.
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// Attaches both documents to an uploaded image.
pub async fn attach(
    plan: &Plan,
    image: &Image,
    digest: Digest,
    destination: &Destination,
    events: &Events,
) -> Result<(), StageError> {
    let reference = image.reference();
    let subject = destination.describe(reference, digest).await?;
    let folder = plan.workdir(image.unit()).join(FOLDER);
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
        (SBOM, sbom(&image.prepared, &dependencies), None),
        (STATEMENT, provenance(plan, image, digest), Some(predicate)),
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

/// A package in `.deploy`, as the SBOM lists it.
#[derive(Debug, PartialEq, Eq)]
struct BomComponent {
    name: String,
    version: String,
    license: Option<String>,
}

/// The packages in a pruned folder, by package URL. A manifest without a name or a version belongs
/// to another package.
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

fn sbom(image: &PreparedImage, dependencies: &BTreeMap<String, BomComponent>) -> Value {
    let components = dependencies.iter().map(|(purl, dependency)| {
        let mut component = json!({
            "type": "library",
            "bom-ref": purl,
            "name": dependency.name,
            "version": dependency.version,
            "purl": purl,
        });
        if let Some(license) = &dependency.license {
            // Only a valid SPDX expression is allowed in `expression`.
            component["licenses"] = match spdx::Expression::parse(license) {
                Ok(_) => json!([{ "expression": license }]),
                Err(_) => json!([{ "license": { "name": license } }]),
            };
        }
        component
    });
    let unit = &image.plan.unit;
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
                "version": image.reference.tag,
            },
        },
        "components": components.collect::<Vec<_>>(),
    })
}

/// The digest as a `DigestSet`, whose key is the name of the algorithm:
/// <https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md>.
fn digest_set(digest: Digest) -> Value {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').unwrap_or_default();
    json!({ algorithm: hex })
}

/// A base image as a material.
fn material(base: &PinnedBase) -> Value {
    json!({ "name": base.name, "digest": digest_set(base.digest) })
}

fn provenance(plan: &Plan, image: &Image, digest: Digest) -> Value {
    let prepared = &image.prepared;
    let planned = &prepared.plan;
    let reference = image.reference();
    let mut materials = Vec::new();
    if let Some(revision) = &plan.revision {
        materials.push(json!({ "name": "project", "digest": { "gitCommit": revision.sha } }));
    }
    materials.extend(prepared.bases.iter().map(material));
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": reference.name(),
            "digest": digest_set(digest),
        }],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:alokai:store-deploy:v1",
                "externalParameters": {
                    "store": planned.unit.store,
                    "app": planned.unit.app,
                    "tag": reference.tag,
                    "platform": planned.platform.to_string(),
                    "dirty": !plan.is_clean(),
                },
                "internalParameters": {
                    "plan": plan.digest_of(&planned.unit),
                    "inputs": prepared.inputs,
                    "builder": image.builder_name(),
                    "labels": prepared.labels,
                },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": { "id": concat!("urn:alokai:cli:", env!("CARGO_PKG_VERSION")) },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{PinnedBase, material};

    #[test]
    fn a_material_names_the_algorithm_of_its_digest() {
        for (algorithm, digits) in [("sha256", 64), ("sha512", 128)] {
            let hex = "0a".repeat(digits / 2);
            let base = PinnedBase {
                name: "example.com/node:24".into(),
                digest: format!("{algorithm}:{hex}").parse().unwrap(),
            };
            let expected = json!({ "name": "example.com/node:24", "digest": { algorithm: hex } });
            assert_eq!(material(&base), expected);
        }
    }
}
