//! Many stores and one registry: common layers are stored once and sent once.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use serde_json::Value;

use crate::deploy::{Unique, unique};
use crate::support::{
    Before, FRONTEND, Project, Registry, Turn, base_reference, cutting, events, registry, rows,
};

/// A frontend whose standalone output has dependencies of a few megabytes, and its own server,
/// pages and texts.
const BUILD: &str = r"
const fs = require('fs'), path = require('path');
const root = path.resolve('../../..');
const app = path.join('.next/standalone', path.relative(root, process.cwd()));
// Data that hardly compresses and is equal in all stores.
const noise = (seed, length) => {
  const bytes = Buffer.alloc(length);
  for (let at = 0, x = seed; at < length; at++) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    bytes[at] = x >>> 16;
  }
  return bytes;
};
const put = (file, content) => {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, content);
};
const modules = '.next/standalone/node_modules';
put(path.join(modules, 'next/package.json'), '{ \'name\': \'next\', \'version\': \'15.0.0\' }'.replaceAll('\'', '\x22'));
put(path.join(modules, 'next/dist/server.js'), noise(1, 3e6));
put(path.join(modules, 'large/package.json'), '{ \'name\': \'large\', \'version\': \'1.0.0\' }'.replaceAll('\'', '\x22'));
put(path.join(modules, 'large/index.js'), noise(2, 4e6));
const texts = fs.readFileSync('texts.txt', 'utf8');
put('.next/static/chunk.js', noise(texts.length + texts.charCodeAt(9) * 31 + texts.charCodeAt(10), 2e5));
put(path.join(app, 'server.js'), `require('http').createServer((_, answer) => answer.end(${JSON.stringify(texts)})).listen(process.env.PORT || 3000);`);
";

/// Twenty stores whose images go to the real registry, under names that no other test has.
struct World {
    registry: Registry,
    /// The base image of all stores.
    base: String,
    name: Unique,
    project: Project,
}

impl World {
    fn new(name: &'static str) -> Option<Self> {
        let (registry, base) = (registry()?, base_reference()?);
        let name = unique(name);
        let project = registry.used_by(twenty(&name, &base), "http://127.0.0.1:9");
        Some(Self {
            registry,
            base,
            name,
            project,
        })
    }
}

fn twenty(name: &Unique, base: &str) -> Project {
    let mut stores = serde_json::Map::new();
    let mut project = Project::shop_named(name)
        .build_script("storefront-unified-nextjs", BUILD)
        .setting("image", &serde_json::json!({ "base": base }));
    for number in 1..=20 {
        let store = format!("shop-{number:02}");
        project = project.file(
            &format!("apps/stores/{store}/{FRONTEND}/texts.txt"),
            &format!("texts of {number:02}\n"),
        );
        let deployment = serde_json::json!({
            "projectName": format!("{name}-{store}"), "cloudRegion": "us-east1", "framework": "nextjs",
        });
        stores.insert(store, serde_json::json!({ "deployment": deployment }));
    }
    let project = project.setting("stores", &Value::Object(stores));
    project.commit();
    project
}

/// The layers of an image without those of its base image.
fn layers(registry: &Registry, row: &Value, base: &[Value]) -> Vec<(String, u64)> {
    let reference = row["reference"].as_str().unwrap();
    let path = reference.split_once('/').unwrap().1;
    let repository = path.rsplit_once(':').unwrap().0;
    let path = format!(
        "/v2/{repository}/manifests/{}",
        row["digest"].as_str().unwrap()
    );
    let manifest: Value = serde_json::from_slice(&registry.get(&path).unwrap()).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let own = layers
        .iter()
        .filter(|layer| !base.iter().any(|it| it["digest"] == layer["digest"]));
    own.map(|layer| {
        (
            layer["digest"].as_str().unwrap().to_owned(),
            layer["size"].as_u64().unwrap(),
        )
    })
    .collect()
}

fn base_layers(registry: &Registry, base: &str) -> Vec<Value> {
    let (_, path) = base.split_once('/').unwrap();
    let (repository, tag) = path.rsplit_once(':').unwrap();
    let raw = registry.skopeo(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{}/{repository}:{tag}", registry.address),
    ]);
    let manifest: Value = serde_json::from_str(&raw.unwrap()).unwrap();
    manifest["layers"].as_array().unwrap().clone()
}

#[test]
fn twenty_stores_share_their_dependencies() {
    let Some(world) = World::new("twenty") else {
        return;
    };
    let World {
        registry,
        base,
        name,
        project,
    } = &world;
    let log = std::env::var("ALOKAI_TEST_REGISTRY_LOG").unwrap_or_default();
    let begun = std::fs::metadata(&log).map_or(0, |log| log.len());
    let deploy = "store deploy --all --filter storefront-unified-* --until push --json";
    let run = project.alokai(deploy).succeeds();
    let mut rows = rows(&run);
    rows.retain(|unit, _| unit.ends_with(FRONTEND));
    assert_eq!(rows.len(), 20);

    let base = base_layers(registry, base);
    let images: Vec<_> = rows
        .values()
        .map(|row| layers(registry, row, &base))
        .collect();
    let unique: BTreeMap<&String, u64> = images
        .iter()
        .flatten()
        .map(|(digest, size)| (digest, *size))
        .collect();
    // The last layer belongs to the store; the layers below it are dependencies.
    let own: u64 = images.iter().map(|layers| layers.last().unwrap().1).sum();
    let below: Vec<_> = images
        .iter()
        .map(|layers| &layers[..layers.len() - 1])
        .collect();
    let dependencies: u64 = below[0].iter().map(|(_, size)| size).sum();
    assert!(
        dependencies > 6_000_000 && own > 3_000_000,
        "{dependencies} {own}"
    );
    assert!(below.iter().all(|layers| *layers == below[0]));
    let all: u64 = unique.values().sum();
    // At most 1.15 times, in integers.
    assert!(
        100 * all <= 115 * (dependencies + own),
        "{all} of {}",
        dependencies + own
    );

    // The log exists only if `scripts/services` started the registry.
    if log.is_empty() {
        return;
    }
    for (digest, _) in below[0] {
        let hex = digest.trim_start_matches("sha256:");
        // Other tests may push the same layer at the same time, under other names.
        let mut text = String::new();
        let mut file = std::fs::File::open(&log).unwrap();
        // The last lines are written shortly after the answers.
        for _ in 0..50 {
            file.seek(SeekFrom::Start(begun)).unwrap();
            text.clear();
            file.read_to_string(&mut text).unwrap();
            if count(&text, "POST", &["mount=", hex, name]) == 19 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(
            count(&text, "PUT", &["digest=", hex, name]),
            1,
            "uploads of {digest}"
        );
        assert_eq!(
            count(&text, "POST", &["mount=", hex, name]),
            19,
            "mounts of {digest}"
        );
    }
}

/// The number of requests in the log with status 201.
fn count(log: &str, method: &str, parts: &[&str]) -> usize {
    let is_one = |line: &&str| {
        line.contains(&format!("\"{method} /v2/"))
            && line.contains(" 201 ")
            && parts.iter().all(|part| line.contains(part))
    };
    log.lines().filter(is_one).count()
}

#[test]
fn packed_layers_are_not_packed_again() {
    let Some(world) = World::new("packed") else {
        return;
    };
    let project = &world.project;
    let deploy = "store deploy --store shop-01,shop-02 --filter storefront-unified-* --until push";
    project.alokai(deploy).succeeds();
    let packed = |project: &Project| project.tree(".alokai/cache/oci/layers").len();
    assert_eq!(
        packed(project),
        4,
        "framework, dependencies, and two of their own"
    );
    // A commit changes one store. The own layers of both stores are new, since files have the time
    // of the commit.
    project.write(
        &format!("apps/stores/shop-01/{FRONTEND}/texts.txt"),
        b"texts of 1x\n",
    );
    project.commit();
    project.alokai(deploy).succeeds();
    assert_eq!(packed(project), 6);
}

#[test]
fn a_push_through_a_bad_line_ends_right_and_an_interrupted_one_names_nothing() {
    let (Some(registry), Some(base)) = (registry(), base_reference()) else {
        return;
    };
    let name = unique("line");
    let deploy = "store deploy --store shop-01 --filter storefront-unified-* --until push --json";
    let repository = format!("{name}-shop-01-storefrontcloud-io/vue-storefront");
    let project = registry.used_by(twenty(&name, &base), "http://127.0.0.1:9");

    // A registry that refuses every upload: an error, and no tag.
    let refusing = Before::new(&registry.address, |seen| {
        if seen.is("PUT", "/blobs/uploads/") {
            Turn::error(500, "UNKNOWN")
        } else {
            Turn::Pass
        }
    });
    // The base image has the same address, so that the same login applies.
    let base_at =
        |address: &str| serde_json::json!({ "base": base.replace(&registry.address, address) });
    let behind = project
        .env("CLI_DOCKER_REGISTRY_URL", &refusing.address)
        .setting("image", &base_at(&refusing.address));
    behind.commit();
    let run = behind.alokai(deploy).fails_with(1);
    run.stderr_contains("the registry failed to process a request for");
    assert_eq!(registry.tags(&repository), Vec::<String>::new());

    // A connection that breaks every 300 kB, and a registry that fails at one request in twelve: more
    // often, six requests in a row may fail by chance, and then the push rightly ends. The base image
    // has the same address.
    let moody = Before::new(&registry.address, {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 24 {
            3 => Turn::error(500, "UNKNOWN"),
            14 => Turn::error(429, "TOOMANYREQUESTS"),
            _ => Turn::Pass,
        }
    });
    let line = cutting(&moody.address, 300_000);
    let behind = behind
        .env("CLI_DOCKER_REGISTRY_URL", &line)
        .setting("image", &base_at(&line));
    behind.commit();
    let run = behind.alokai(deploy).succeeds();
    let row = &rows(&run)[&format!("shop-01/{FRONTEND}")];
    assert_eq!(registry.tags(&repository), [behind.sha()]);
    // Another client reads every blob and compares the digests.
    let copied = tempfile::tempdir().unwrap();
    let to = format!("dir:{}", copied.path().display());
    let from = format!(
        "docker://{}/{repository}:{}",
        registry.address,
        behind.sha()
    );
    let copy = ["copy", "--quiet", "--src-tls-verify=false", &from, &to];
    registry.skopeo(&copy).expect("it is whole");
    assert!(row["digest"].as_str().unwrap().starts_with("sha256:"));
    assert!(!events(&run).is_empty());
}
