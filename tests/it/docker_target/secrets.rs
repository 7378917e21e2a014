//! Values of `.env` files and of settings: only the processes of their apps have them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::commands::change;
use super::killed::set_secret;
use super::{World, docker};
use crate::ledger::secrets::{lacks, readings};
use crate::support::{MIDDLEWARE, Project, Registry, own_port};

/// A middleware that prints its values, and answers with them.
const SERVER: &str = "
const values = JSON.stringify([process.env.COMMERCE_KEY, process.env.SECRET_SETTING]);
console.log('the values: ' + values);
require('http').createServer((_, answer) => answer.end(values)).listen(process.env.PORT || 4000);
";

/// Larger files and blobs are those of the base image.
const LARGEST: usize = 4 << 20;

/// Looks at the arguments of all processes until it is told to end. Returns those with one of the values,
/// and how many processes it has seen.
fn watch(values: &[String; 2], ends: &AtomicBool) -> (BTreeSet<String>, usize) {
    let (mut found, mut count) = (BTreeSet::new(), 0);
    while !ends.load(Ordering::SeqCst) {
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            count += usize::from(!arguments.is_empty());
            if values.iter().any(|value| arguments.contains(value)) {
                found.insert(arguments);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (found, count)
}

/// Deploys the store `us` with a value of a `.env` file and with a setting, and looks for both values in
/// what commands print, in arguments, and in files. Returns the values, and the files with one of them, which only their owner can read.
pub fn leave_no_value(project: &Project) -> ([String; 2], Vec<PathBuf>) {
    let values = ["key", "setting"].map(|kind| format!("{kind}-value-{}-x7", std::process::id()));
    let file = format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/.env");
    project.write(&file, format!("COMMERCE_KEY={}\n", values[0]));
    let own = project.path(&file);
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600)).unwrap();
    change(project, &format!("apps/{MIDDLEWARE}/src/index.js"), SERVER);
    let ends = Arc::new(AtomicBool::new(false));
    let (wanted, until) = (values.clone(), Arc::clone(&ends));
    let watching = std::thread::spawn(move || watch(&wanted, &until));

    let deployed = project.alokai("store deploy --store us").succeeds();
    let port = own_port(&deployed);
    set_secret(project, "SECRET_SETTING", &values[1]);
    for command in [
        "store deploy --store us --settings",
        "store deploy --store us --dry-run --json",
        "store deploy --store us --json",
        "store logs --store us",
        "store status --store us --json",
        "store releases --store us --json",
        "store builds --store us --json",
        "store history --store us --json",
        "store settings list --store us --json",
    ] {
        let run = project.alokai(command);
        assert_eq!(run.code, 0, "{command}: {}", run.stderr);
        for text in [&run.stdout, &run.stderr] {
            lacks(
                command,
                text.as_bytes(),
                &values.each_ref().map(String::as_str),
            );
        }
        if command.contains(" logs ") {
            run.stdout_contains("the values: [\"***\",\"***\"]");
        }
    }
    let page = World::page_at(port, "us.localhost", "/api/x");
    assert_eq!(page, format!("[\"{}\",\"{}\"]\n200", values[0], values[1]));
    ends.store(true, Ordering::SeqCst);
    let (seen, count) = watching.join().unwrap();
    assert!(seen.is_empty() && count > 100, "{seen:?}");

    let mut found = Vec::new();
    for path in crate::local_target::files(project.root()) {
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        if bytes.len() > LARGEST || path == own {
            continue;
        }
        let has_value = readings(&bytes).iter().any(|text| {
            let text = String::from_utf8_lossy(text);
            values.iter().any(|value| text.contains(value))
        });
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        // Only the owner has permissions.
        assert!(
            !has_value || mode.trailing_zeros() >= 6,
            "{mode:o} {}",
            path.display()
        );
        found.extend(has_value.then_some(path));
    }
    (values, found)
}

/// The manifests and blobs of a repository.
fn contents(registry: &Registry, repository: &str) -> Vec<Vec<u8>> {
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let tags = registry
        .get(&format!("/v2/{repository}/tags/list"))
        .unwrap();
    let tags = json(&tags)["tags"].as_array().unwrap().clone();
    let mut all = Vec::new();
    for tag in tags {
        let path = format!("/v2/{repository}/manifests/{}", tag.as_str().unwrap());
        let manifest = registry.get(&path).unwrap();
        let document = json(&manifest);
        let layers = document["layers"].as_array().into_iter().flatten();
        let blobs = layers.chain([&document["config"]]);
        let blobs = blobs.filter(|it| {
            it["size"]
                .as_u64()
                .is_some_and(|size| size < LARGEST as u64)
        });
        for blob in blobs {
            let digest = blob["digest"].as_str().unwrap();
            all.extend(registry.get(&format!("/v2/{repository}/blobs/{digest}")));
        }
        all.push(manifest);
    }
    all
}

#[test]
fn values_are_in_no_label_argument_file_record_and_image() {
    let Some(world) = World::new("values") else {
        return;
    };
    let (values, files) = leave_no_value(&world.project);
    println!("{files:?}");
    let values = values.each_ref().map(String::as_str);
    let repositories = world.registry.repositories(&world.name);
    assert_eq!(repositories.len(), 2, "{repositories:?}");
    for repository in repositories {
        let contents = contents(&world.registry, &repository);
        assert!(contents.len() > 2, "{repository}");
        for content in contents {
            lacks(&repository, &content, &values);
        }
    }
    let owner = format!("label=com.alokai.project={}-us", world.name);
    let shown = "{{json .Config.Labels}} {{json .Path}} {{json .Args}} {{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .HostConfig}} {{json .Config.Image}} {{json .NetworkSettings}} {{json .Mounts}}";
    for name in world.containers() {
        let text = docker(&["inspect", "--format", shown, &name]);
        assert!(text.contains("com.alokai.release"), "{text}");
        lacks(&name, text.as_bytes(), &values);
        let image = docker(&["inspect", "--format", "{{.Image}}", &name]);
        lacks(
            &image,
            docker(&["image", "inspect", &image]).as_bytes(),
            &values,
        );
        let history = docker(&["history", "--no-trunc", &image]);
        lacks(&image, history.as_bytes(), &values);
    }
    for kind in ["network", "volume"] {
        let names = docker(&[kind, "ls", "--quiet", "--filter", &owner]);
        assert!(!names.is_empty(), "{kind}");
        for name in names.lines() {
            lacks(name, docker(&[kind, "inspect", name]).as_bytes(), &values);
        }
    }
}
