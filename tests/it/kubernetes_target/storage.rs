//! The data of a store against a real API server: the claim outlives releases, and a change of the config that
//! the cluster does not carry out is an error.

use alokai::target::Target;
use reqwest::Method;
use serde_json::{Value, json};

use super::releases::until;
use super::{World, release, us};

const APPS: &str = "apis/apps/v1";
const CORE: &str = "api/v1";
const CLASSES: &str = "apis/storage.k8s.io/v1/storageclasses";
const VOLUMES: &str = "api/v1/persistentvolumes";

fn with_storage(storage: &Value) -> Value {
    json!({ "probe": "readiness", "storage": storage })
}

/// The claim that the store has, by the name that the docs tell.
fn claim(world: &World) -> Value {
    let path = world.path(CORE, "persistentvolumeclaims");
    let name = format!("{}-us-us-data", world.namespace);
    world.ask(Method::GET, &format!("{path}/{name}"), None).1
}

/// Changes a text in the config.
fn configure(world: &World, before: &str, after: &str) {
    let text = std::fs::read_to_string(world.project.path("alokai.config.json")).unwrap();
    let changed = text.replace(before, after);
    assert_ne!(changed, text);
    world.project.write("alokai.config.json", changed);
}

#[test]
fn the_data_of_a_store_outlives_its_releases() {
    let Some(world) = World::with("data", &with_storage(&json!({}))) else {
        return;
    };
    let (target, _kubelet) = (world.target(), world.kubelet());
    let (first, second) = (release(), release());
    // The first of two equal applies is written twice by this version of the server.
    world.stage(&target, &first);
    world.stage(&target, &first);
    let made = claim(&world);
    assert_eq!(made["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(made["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert!(made["metadata"]["ownerReferences"].is_null(), "{made}");
    world.switch(&target, &first);
    world.stage(&target, &second);
    world.switch(&target, &second);
    let deployments = world.objects(APPS, "deployments");
    assert_eq!(deployments.len(), 6);
    for deployment in deployments {
        let pod = &deployment["spec"]["template"]["spec"];
        let volume = &pod["volumes"][0]["persistentVolumeClaim"]["claimName"];
        assert_eq!(*volume, made["metadata"]["name"], "{deployment}");
        let mount = &pod["containers"][0]["volumeMounts"][0];
        assert_eq!(mount["mountPath"], "/data");
    }
    // A rollback to a kept release, and the end of all other releases.
    world.wait(target.retire(&us(), &first.id, true)).unwrap();
    world.stage(&target, &first);
    world.switch(&target, &first);
    world.wait(target.retire(&us(), &second.id, false)).unwrap();
    until("the release is gone", || {
        world.objects(APPS, "deployments").len() == 3
    });
    let now = claim(&world);
    for key in ["uid", "resourceVersion"] {
        assert_eq!(now["metadata"][key], made["metadata"][key], "{now}");
    }
}

#[test]
fn a_claim_that_cannot_be_changed_is_named_before_the_release_is_made() {
    let storage = with_storage(&json!({ "class": "slow" }));
    let Some(world) = World::with("fixed", &storage) else {
        return;
    };
    let spec = release();
    world.wait(world.target().stage(&spec)).unwrap();
    let before = claim(&world);
    configure(&world, "\"slow\"", "\"fast\"");
    let next = release();
    let error = world.wait(world.target().stage(&next)).unwrap_err();
    let text = error.to_string();
    let name = before["metadata"]["name"].as_str().unwrap();
    assert!(text.contains(name) && text.contains("immutable"), "{text}");
    assert_eq!(claim(&world)["spec"], before["spec"]);
    let next = next.id.as_str().to_lowercase();
    for (group, kind) in [(APPS, "deployments"), (CORE, "services")] {
        let names = world.names(group, kind);
        assert!(names.iter().all(|it| !it.contains(&next)), "{names:?}");
    }
}

/// A class with one volume, which claims get at once.
struct StorageClass<'a> {
    world: &'a World,
}

impl<'a> StorageClass<'a> {
    fn make(world: &'a World, expands: bool) -> Self {
        let name = world.namespace.as_str();
        let class = json!({
            "metadata": { "name": name },
            "provisioner": "kubernetes.io/no-provisioner",
            "allowVolumeExpansion": expands,
        });
        let volume = json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": { "storage": "5Gi" },
                "hostPath": { "path": "/tmp" },
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": name,
            },
        });
        for (path, object) in [(CLASSES, class), (VOLUMES, volume)] {
            let (status, answer) = world.ask(Method::POST, path, Some(&object));
            assert_eq!(status, 201, "{answer}");
        }
        Self { world }
    }
}

impl Drop for StorageClass<'_> {
    fn drop(&mut self) {
        for path in [CLASSES, VOLUMES] {
            let path = format!("{path}/{}", self.world.namespace);
            self.world.ask(Method::DELETE, &path, None);
        }
    }
}

#[test]
fn a_claim_grows_where_its_class_allows_it() {
    for expands in [true, false] {
        let name = if expands { "growing" } else { "rigid" };
        // The name of the class is that of the namespace.
        let class = format!("{name}-{}", std::process::id());
        let storage = with_storage(&json!({ "class": class }));
        let Some(world) = World::with(name, &storage) else {
            return;
        };
        let _class = StorageClass::make(&world, expands);
        let spec = release();
        world.wait(world.target().stage(&spec)).unwrap();
        until("the claim gets its volume", || {
            claim(&world)["status"]["phase"] == "Bound"
        });
        configure(
            &world,
            "\"class\":",
            "\"size\": \"2Gi\",\n          \"class\":",
        );
        let size = || claim(&world)["spec"]["resources"]["requests"]["storage"].clone();
        let target = world.target();
        if expands {
            // The API server learns of a new class a little later.
            until("the claim grows", || {
                world.wait(target.stage(&spec)).is_ok()
            });
            assert_eq!(size(), "2Gi");
        } else {
            let error = world.wait(target.stage(&spec)).unwrap_err().to_string();
            assert!(
                error.contains("cannot be changed") && error.contains("resize"),
                "{error}"
            );
            assert_eq!(size(), "1Gi");
        }
    }
}

#[test]
fn an_existing_claim_is_used_as_it_is() {
    let storage = json!({ "claim": "shared", "accessMode": "ReadWriteMany" });
    let Some(world) = World::with("existing", &with_storage(&storage)) else {
        return;
    };
    let (target, spec) = (world.target(), release());
    let error = world.wait(target.stage(&spec)).unwrap_err().to_string();
    assert!(error.contains("`shared` does not exist"), "{error}");
    let path = world.path(CORE, "persistentvolumeclaims");
    let object = json!({
        "metadata": { "name": "shared" },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    assert_eq!(world.ask(Method::POST, &path, Some(&object)).0, 201);
    let error = world.wait(target.stage(&spec)).unwrap_err().to_string();
    assert!(error.contains("it has ReadWriteOnce"), "{error}");
    assert!(world.names(APPS, "deployments").is_empty());

    let shared = format!("{path}/shared");
    world.ask(Method::DELETE, &shared, None);
    until("the claim is gone", || {
        world.ask(Method::GET, &shared, None).0 == 404
    });
    let mut object = object;
    object["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    assert_eq!(world.ask(Method::POST, &path, Some(&object)).0, 201);
    let before = world.ask(Method::GET, &shared, None).1;
    world.wait(target.stage(&spec)).unwrap();
    let pod = &world.objects(APPS, "deployments")[0]["spec"]["template"]["spec"];
    assert_eq!(
        pod["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "shared"
    );
    // Its stores do not see each other's files.
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["subPath"], "us");
    let now = world.ask(Method::GET, &shared, None).1;
    assert_eq!(now["metadata"], before["metadata"]);
}
