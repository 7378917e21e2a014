//! Attestations of images: the SBOM and the provenance.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use oci::Digest;
use serde_json::{Value, json};

use crate::deploy::{Unique, unique};
use crate::support::{FRONTEND, Project, Registry, installed, registries_and_base, rows, run};

const SBOM: &str = "application/vnd.cyclonedx+json";
const STATEMENT: &str = "application/vnd.in-toto+json";
const UNIT: &str = "us/storefront-unified-nextjs";

/// Adds packages to the standalone output, as Next.js traces them from an app's dependencies.
const PACKAGES: &str = r"
const packages = {
  'next': { name: 'next', version: '15.1.0', license: 'MIT' },
  'sharp': { name: 'sharp', version: '0.33.0', license: '(Apache-2.0 OR LGPL-3.0-or-later)' },
  'sharp/node_modules/next': { name: 'next', version: '14.0.0', license: 'MIT' },
  '@acme/theme': { name: '@acme/theme', version: '1.2.3-beta.1+build.5', license: 'SEE LICENSE IN LICENSE' },
  '@acme/old': { name: '@acme/old', version: '0.0.1', license: { type: 'BSD', url: 'https://example.com' } },
  '@acme/own': { name: '@acme/own', version: '2.0.0' },
  'next/dist/compiled/part': { name: 'part', version: '1.0.0' },
  '.pnpm/stored@3.0.0/node_modules/stored': { name: 'stored', version: '3.0.0' },
  '.pnpm/@acme+stored@3.0.0/node_modules/@acme/stored': { name: '@acme/stored', version: '3.0.0' },
  '.nitro/second@2.0.0': { name: 'second', version: '2.0.0' },
  '.nitro/@acme/second@2.0.0': { name: '@acme/second', version: '2.0.0' },
  '@acme/own/node_modules/@acme/bundled': { name: '@acme/bundled', version: '0.1.0' },
  'nobody': { private: true },
};
for (const [folder, content] of Object.entries(packages)) {
  const at = path.join('.next/standalone/node_modules', folder);
  fs.mkdirSync(at, { recursive: true });
  fs.writeFileSync(path.join(at, 'package.json'), JSON.stringify(content));
}
";

/// Validates a document with the library of `CycloneDX`.
const VALIDATE: &str = r"
const { Validation, Spec } = require('@cyclonedx/cyclonedx-library');
const text = require('fs').readFileSync(0, 'utf8');
new Validation.JsonStrictValidator(Spec.Version.v1dot6).validate(text).then(error => {
  if (error) { console.error(JSON.stringify(error)); process.exit(1); }
});
";

/// Both registries, the base image, and a shop under a name that no other test has.
fn world(name: &'static str) -> Option<(Registry, Registry, String, Unique, Project)> {
    let (registry, second, base) = registries_and_base()?;
    let name = unique(name);
    let project = shop(&name, &base);
    Some((registry, second, base, name, project))
}

fn shop(name: &Unique, base: &str) -> Project {
    let project = Project::shop_named(name).setting("image", &json!({ "base": base }));
    let build = format!("apps/{FRONTEND}/build.js");
    let script = project.read(&build) + PACKAGES;
    let project = project.file(&build, &script);
    project.commit();
    project
}

/// Deploys the frontend and returns its digest.
fn deployed(project: &Project, more: &str) -> String {
    let until_push = "store deploy --store us --until push --json";
    let arguments = format!("{until_push} --filter storefront-unified-nextjs-* {more}");
    let rows = rows(&project.alokai(&arguments).succeeds());
    rows[UNIT]["digest"].as_str().expect("text").to_owned()
}

fn repository(name: &Unique) -> String {
    format!("{name}-us-storefrontcloud-io/vue-storefront")
}

/// A document of a registry. Fails unless it has the digest that the path names.
fn document(registry: &Registry, path: &str) -> Option<Value> {
    let bytes = registry.get(path)?;
    if let Some((list, digest)) = path.split_once("sha256:")
        && !list.ends_with("/referrers/")
    {
        assert_eq!(Digest::of(&bytes).hex(), digest, "{path}");
    }
    Some(serde_json::from_slice(&bytes).expect("JSON"))
}

/// The attestations of an image by media type: the descriptor in the list and the document.
fn attached(
    registry: &Registry,
    name: &Unique,
    digest: &str,
    list: &str,
) -> BTreeMap<String, (Value, Value)> {
    let repository = repository(name);
    let path = format!("/v2/{repository}/{list}");
    let Some(index) = document(registry, &path) else {
        return BTreeMap::new();
    };
    assert_eq!(
        index["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    let list = index["manifests"].as_array().expect("a list");
    let mut attached = BTreeMap::new();
    for listed in list {
        let path = format!(
            "/v2/{repository}/manifests/{}",
            listed["digest"].as_str().unwrap()
        );
        let manifest = document(registry, &path).expect("what is listed");
        assert_eq!(manifest["artifactType"], listed["artifactType"]);
        let subject = &manifest["subject"];
        assert_eq!(subject["digest"], digest);
        let image = registry.get(&format!("/v2/{repository}/manifests/{digest}"));
        assert_eq!(subject["size"], image.expect("the image").len());
        assert_eq!(
            subject["mediaType"],
            "application/vnd.oci.image.manifest.v1+json"
        );
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1);
        let path = format!(
            "/v2/{repository}/blobs/{}",
            layers[0]["digest"].as_str().unwrap()
        );
        let kind = layers[0]["mediaType"].as_str().unwrap().to_owned();
        let content = document(registry, &path).expect("its content");
        let before = attached.insert(kind, (listed.clone(), content));
        // One of the registries lists a referrer twice if it was sent twice.
        assert!(
            before.is_none_or(|(before, _)| before == *listed),
            "two attestations of one media type"
        );
    }
    attached
}

#[test]
fn an_image_comes_with_its_dependencies_and_its_origin() {
    let Some((registry, second, base, name, project)) = world("attested") else {
        return;
    };
    let inspected: Value = serde_json::from_str(&run("skopeo", &["inspect", &base])).unwrap();
    let base_digest = inspected["Digest"]
        .as_str()
        .unwrap()
        .trim_start_matches("sha256:");
    let mut all = Vec::new();
    for (registry, has_api) in [(registry, false), (second, true)] {
        let project = Project::at(project.root().to_owned());
        let project = registry.used_by(project, "http://127.0.0.1:9");
        let digest = deployed(&project, "");
        let list = if has_api {
            format!("referrers/{digest}")
        } else {
            format!("manifests/{}", digest.replace(':', "-"))
        };
        let first = attached(&registry, &name, &digest, &list);
        let kinds: Vec<&str> = first.keys().map(String::as_str).collect();
        assert_eq!(kinds, [SBOM, STATEMENT]);
        lists_what_is_in_it(&first[SBOM].1, &project);
        let (listed, statement) = &first[STATEMENT];
        let provenance = "https://slsa.dev/provenance/v1";
        assert_eq!(
            listed["annotations"]["in-toto.io/predicate-type"],
            provenance
        );
        let subject = format!("{}/{}", registry.address, repository(&name));
        tells_the_origin(statement, &subject, &digest);
        let materials = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
        let wanted = json!([
            { "name": "project", "digest": { "gitCommit": project.sha() } },
            { "name": base, "digest": { "sha256": base_digest } },
        ]);
        assert_eq!(*materials, wanted);

        // A second build, alone or with other stores, gives the same attestation, which is attached
        // once.
        deployed(&project, "--force");
        project
            .alokai("store deploy --all --until push --force")
            .succeeds();
        assert_eq!(attached(&registry, &name, &digest, &list), first);
        all.push(first);
    }
    assert_eq!(
        all[0][SBOM], all[1][SBOM],
        "of the same image at another place"
    );
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The name and the version of every `package.json` below a `node_modules`, found by a plain walk.
fn manifests(folder: &std::path::Path) -> BTreeSet<(String, String)> {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    let manifests = files.filter(|file| {
        file.file_name() == "package.json"
            && file.path().to_string_lossy().contains("/node_modules/")
    });
    let read = |file: walkdir::DirEntry| {
        let manifest: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        let name = manifest["name"].as_str()?.to_owned();
        Some((name, manifest["version"].as_str()?.to_owned()))
    };
    manifests.filter_map(read).collect()
}

fn lists_what_is_in_it(sbom: &Value, project: &Project) {
    let components = sbom["components"].as_array().expect("a list");
    let wanted = [
        ("pkg:npm/%40acme/bundled@0.1.0", json!(null)),
        ("pkg:npm/%40acme/old@0.0.1", json!(null)),
        ("pkg:npm/%40acme/own@2.0.0", json!(null)),
        ("pkg:npm/%40acme/second@2.0.0", json!(null)),
        ("pkg:npm/%40acme/stored@3.0.0", json!(null)),
        (
            "pkg:npm/%40acme/theme@1.2.3-beta.1%2Bbuild.5",
            json!([{ "license": { "name": "SEE LICENSE IN LICENSE" } }]),
        ),
        ("pkg:npm/next@14.0.0", json!([{ "expression": "MIT" }])),
        ("pkg:npm/next@15.1.0", json!([{ "expression": "MIT" }])),
        // A bundler copied this package into another one.
        ("pkg:npm/part@1.0.0", json!(null)),
        ("pkg:npm/second@2.0.0", json!(null)),
        (
            "pkg:npm/sharp@0.33.0",
            json!([{ "expression": "(Apache-2.0 OR LGPL-3.0-or-later)" }]),
        ),
        ("pkg:npm/stored@3.0.0", json!(null)),
    ];
    let listed: Vec<_> = components
        .iter()
        .map(|component| {
            (
                component["purl"].as_str().unwrap(),
                component["licenses"].clone(),
            )
        })
        .collect();
    assert_eq!(listed, wanted);
    // The SBOM lists every package that is in `.deploy`.
    let named: BTreeSet<_> = components
        .iter()
        .map(|component| (text(&component["name"]), text(&component["version"])))
        .collect();
    let deploy = project.path(&format!(".out/us/{FRONTEND}/.deploy"));
    assert_eq!(named, manifests(&deploy));
    let theme = components
        .iter()
        .find(|component| component["name"] == "@acme/theme")
        .expect("the SBOM lists the package");
    assert_eq!(
        (&theme["name"], &theme["version"]),
        (&json!("@acme/theme"), &json!("1.2.3-beta.1+build.5"))
    );
    // The components are those of `.deploy` and not those of the project.
    let deploy = project.tree(&format!(".out/us/{FRONTEND}/.deploy/node_modules"));
    let files: BTreeSet<&str> = deploy.keys().map(String::as_str).collect();
    assert!(
        files.contains("sharp/node_modules/next/package.json"),
        "{files:?}"
    );
    let made = &sbom["metadata"]["component"];
    assert_eq!(
        (&made["name"], &made["version"]),
        (
            &json!("storefront-unified-nextjs-us"),
            &json!(project.sha())
        )
    );

    let library = installed(&[
        "@cyclonedx/cyclonedx-library@10.3.0",
        "ajv@8.20.0",
        "ajv-formats@3.0.1",
        "ajv-formats-draft2019@1.6.1",
    ]);
    let mut node = Command::new("node")
        .args(["-e", VALIDATE])
        .current_dir(library)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut stdin = node.stdin.take().expect("a pipe");
    stdin
        .write_all(sbom.to_string().as_bytes())
        .expect("node reads");
    drop(stdin);
    let output = node.wait_with_output().expect("node ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no valid CycloneDX 1.6: {told}");
}

fn tells_the_origin(statement: &Value, subject: &str, digest: &str) {
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let hex = digest.trim_start_matches("sha256:");
    let wanted = json!([{ "name": subject, "digest": { "sha256": hex } }]);
    assert_eq!(statement["subject"], wanted);
    let predicate = &statement["predicate"];
    let builder = concat!("urn:alokai:cli:", env!("CARGO_PKG_VERSION"));
    assert_eq!(predicate["runDetails"]["builder"]["id"], builder);
    let build = &predicate["buildDefinition"];
    let given = &build["externalParameters"];
    assert_eq!(
        (&given["store"], &given["app"]),
        (&json!("us"), &json!(FRONTEND))
    );
    assert_eq!(
        (&given["platform"], &given["dirty"]),
        (&json!("linux/amd64"), &json!(false))
    );
    let own = &build["internalParameters"];
    for field in ["plan", "inputs"] {
        let digest = own[field].as_str().expect("a digest");
        assert!(digest.parse::<Digest>().is_ok(), "{field}: {digest}");
    }
    assert_eq!(own["labels"]["com.alokai.inputs"], own["inputs"]);
    assert_eq!(own["builder"], "oci");
}

#[test]
fn no_attest_attaches_nothing() {
    let Some((registry, second, _, name, project)) = world("bare") else {
        return;
    };
    let to = |registry: &Registry| {
        let project = Project::at(project.root().to_owned());
        deployed(
            &registry.used_by(project, "http://127.0.0.1:9"),
            "--no-attest",
        )
    };
    let digest = to(&registry);
    let tag = format!("manifests/{}", digest.replace(':', "-"));
    assert!(attached(&registry, &name, &digest, &tag).is_empty());
    let list = format!("referrers/{}", to(&second));
    assert!(attached(&second, &name, &digest, &list).is_empty());

    let local = "store deploy --store us --local --until push --no-attest";
    project.alokai(local).succeeds();
    let index: Value = serde_json::from_str(&project.read(".alokai/registry/index.json")).unwrap();
    // The layout also has the records of the run.
    let name = |it: &&Value| it["annotations"]["org.opencontainers.image.ref.name"].to_string();
    let manifests = index["manifests"].as_array().unwrap().iter();
    let images = manifests.filter(|it| !name(it).contains("alokai."));
    assert_eq!(images.count(), 2);
}
