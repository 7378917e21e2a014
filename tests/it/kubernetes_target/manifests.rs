//! The objects of a store: as snapshots, and by the schemas of the newest Kubernetes.

use std::io::Write;
use std::process::{Command, Stdio};

use alokai::config::Project as Config;
use alokai::target::SpecVariable;
use alokai::target::kubernetes::{StoreManifests, manifests};
use serde_json::{Value, json};

use super::{release_with, target};
use crate::support::Project;

/// Checks objects of the Gateway API.
const CHECK: &str = include_str!("check-routes.mjs");

fn with_routes() -> Value {
    json!({
        "namespace": "shops",
        "replicas": { "*": 2, "storefront-middleware": 3 },
        "resources": { "*": { "requests": { "cpu": "100m" }, "limits": { "memory": "512Mi" } } },
        "imagePullSecrets": ["registry"],
        "ingress": {
            "class": "nginx",
            "annotations": { "cert-manager.io/cluster-issuer": "letsencrypt" },
            "tlsSecret": "{store}-tls",
        },
        "storage": { "size": "10Gi", "class": "nfs", "accessMode": "ReadWriteMany" },
        "gateway": { "name": "public", "namespace": "gateways", "sectionName": "https", "tls": true },
    })
}

fn objects(section: &Value) -> StoreManifests {
    let deploy = json!({ "target": "kubernetes", "kubernetes": section });
    objects_with(&deploy, &["PRICE".into()])
}

/// The objects of a store that has these settings, and another value of `DATA_DIR` in a `.env` file.
fn objects_with(deploy: &Value, settings: &[String]) -> StoreManifests {
    let project = Project::shop().setting("deploy", deploy);
    let config = Config::load(project.root()).unwrap();
    let mut spec = release_with("R01KBN6XG0ABCDEFG".parse().unwrap());
    spec.settings = Some("R01KBN6XG0ABCDEF0".into());
    let secret = SpecVariable::Secret("/of-the-file".to_owned().into());
    spec.apps[2].variables.insert("DATA_DIR".into(), secret);
    manifests(&config, &spec, settings).unwrap()
}

#[test]
fn the_objects_of_a_store() {
    let made = objects(&with_routes());
    insta::assert_snapshot!(format!("{:#}", json!(made.objects)));
    let plain = objects(&json!({})).objects;
    assert!(plain.iter().all(|it| it["metadata"]["namespace"].is_null()));
    let kinds: Vec<_> = plain
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "Service",
            "Deployment",
            "Deployment",
            "Deployment",
            "Service"
        ]
    );
}

/// The pods of the Deployments.
fn pods(made: &StoreManifests) -> Vec<&Value> {
    let objects = made.objects.iter();
    let deployments = objects.filter(|it| it["kind"] == "Deployment");
    deployments.map(|it| &it["spec"]["template"]).collect()
}

/// The value of a variable of a pod.
fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let all = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let found = all.iter().find(|it| it["name"] == name)?;
    found["value"].as_str()
}

#[test]
fn the_pods_of_a_store_share_one_claim_and_run_on_one_node_if_they_have_to() {
    let deploy = |data: Value, storage: Value| {
        json!({
            "target": "kubernetes",
            "data": data,
            "kubernetes": { "storage": storage },
        })
    };
    let data = json!({ "path": "/srv/files" });
    let made = objects_with(&deploy(data.clone(), json!({})), &[]);
    let claims = made.objects.iter();
    let claims = claims.filter(|it| it["kind"] == "PersistentVolumeClaim");
    let claims: Vec<_> = claims.collect();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0]["metadata"]["name"], "acme-us-us-data");
    for pod in pods(&made) {
        assert_eq!(variable(pod, "DATA_DIR"), Some("/srv/files"));
        assert_eq!(pod["spec"]["securityContext"]["fsGroup"], 1000);
        let affinity = &pod["spec"]["affinity"]["podAffinity"];
        let term = &affinity["requiredDuringSchedulingIgnoredDuringExecution"][0];
        // The first pod of all has to fit its own rule.
        let labels = term["labelSelector"]["matchLabels"].as_object().unwrap();
        assert!(!labels.is_empty());
        for (name, value) in labels {
            assert_eq!(pod["metadata"]["labels"][name], *value, "{pod}");
        }
    }
    // The value of the file is not in the Secret either.
    let secrets = json!(
        made.secrets
            .iter()
            .map(|(_, names)| names)
            .collect::<Vec<_>>()
    );
    assert_eq!(secrets, json!([["TOKEN"], []]));

    // A setting wins.
    let made = objects_with(&deploy(data.clone(), json!({})), &["DATA_DIR".into()]);
    assert!(
        pods(&made)
            .iter()
            .all(|it| variable(it, "DATA_DIR").is_none())
    );

    let wide = json!({ "accessMode": "ReadWriteMany", "fsGroup": null, "claim": "{store}-files" });
    let made = objects_with(&deploy(data, wide), &[]);
    for pod in pods(&made) {
        let pod = &pod["spec"];
        assert!(pod["affinity"].is_null() && pod["securityContext"].is_null());
        let claim = &pod["volumes"][0]["persistentVolumeClaim"]["claimName"];
        assert_eq!(*claim, "us-files");
        let mount = &pod["containers"][0]["volumeMounts"][0];
        assert_eq!(*mount, json!({ "name": "data", "mountPath": "/srv/files" }));
    }
    assert!(
        made.objects
            .iter()
            .all(|it| it["kind"] != "PersistentVolumeClaim")
    );

    for without in [
        deploy(Value::Null, json!({})),
        deploy(json!({}), Value::Null),
    ] {
        let made = objects_with(&without, &[]);
        assert!(
            made.objects
                .iter()
                .all(|it| it["kind"] != "PersistentVolumeClaim")
        );
        for pod in pods(&made) {
            assert!(pod["spec"]["volumes"].is_null(), "{pod}");
            assert_eq!(variable(pod, "DATA_DIR"), None);
        }
        // The value of the file is left.
        assert!(made.secrets.iter().any(|(_, names)| names[0] == "DATA_DIR"));
    }
}

#[test]
fn secrets_are_named_and_their_values_are_not_printed() {
    let made = objects(&with_routes());
    let text = json!(made.objects).to_string();
    assert!(!text.contains("s3cret"), "{text}");
    let names: Vec<_> = made
        .secrets
        .iter()
        .map(|(_, names)| names.join(" "))
        .collect();
    assert_eq!(names, ["TOKEN", "PRICE"]);
    for (secret, _) in &made.secrets {
        assert!(text.contains(secret), "{secret}");
    }
    // Settings win: a value of `env` would hide that of the Secret.
    assert!(!text.contains("$$(PORT)"), "{text}");
}

#[test]
fn controllers_remove_the_path_of_an_app_in_their_own_way() {
    let rewrites = |name: &str| {
        let section = json!({ "ingress": { "rewrite": name } });
        let objects = objects(&section).objects;
        let routes = objects.into_iter().filter(|it| it["kind"] == "Ingress");
        let routes = routes.map(|it| {
            let rule = &it["spec"]["rules"][0]["http"]["paths"];
            let paths = rule.as_array().unwrap().iter();
            let paths: Vec<_> = paths.map(|it| it["path"].as_str().unwrap()).collect();
            let annotations = it["metadata"]["annotations"].as_object();
            let values = annotations.into_iter().flat_map(|it| it.values());
            let values: Vec<_> = values.map(|it| it.as_str().unwrap()).collect();
            format!("{} {}", paths.join(" "), values.join(" "))
        });
        routes.collect::<Vec<_>>()
    };
    insta::assert_debug_snapshot!(["nginx", "haproxy", "none"].map(rewrites));
}

#[test]
fn an_image_in_a_folder_is_refused() {
    let project = Project::shop().setting("deploy", &json!({ "target": "kubernetes" }));
    let config = Config::load(project.root()).unwrap();
    let mut spec = release_with("R01KBN6XG0ABCDEFG".parse().unwrap());
    spec.apps[0].reference = "oci:.alokai/registry:us:1".into();
    let error = manifests(&config, &spec, &[]).err().unwrap().to_string();
    assert!(error.contains("is not in a registry"), "{error}");
}

#[test]
fn wrong_values_in_the_config_are_reported_together() {
    let section = json!({ "namespace": "My Shops", "replicas": { "*": 0 }, "gateway": { "name": "Public" }, "storage": { "size": "big" } });
    let deploy = json!({ "kubernetes": section });
    let project = Project::shop().setting("deploy", &deploy);
    let run = project.alokai("store list").fails_with(2);
    for text in ["`My Shops`", "`0`", "`Public`", "`big`"] {
        assert!(run.stderr.contains(text), "{}", run.stderr);
    }
}

/// The value of a variable that `scripts/kubernetes` exports.
fn schemas(variable: &str) -> Option<String> {
    let found = std::env::var(variable).ok();
    if found.is_none() {
        println!("skipped: {variable} is not set; `scripts/test --kubernetes` sets it");
    }
    found
}

#[test]
fn the_objects_are_valid_by_strict_schemas_of_old_and_new_versions() {
    let Some(program) = schemas("ALOKAI_TEST_KUBERNETES_VALIDATE") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut all = objects(&with_routes()).objects;
    all.retain(|it| it["kind"] != "HTTPRoute");
    let files = all.iter().enumerate().map(|(number, object)| {
        let path = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&path, object.to_string()).unwrap();
        path
    });
    let files: Vec<_> = files.collect();
    for version in ["1.25", "1.37"] {
        let mut command = Command::new(&program);
        command.args(["--strict", "-k", version]).args(&files);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{version}: {text}");
        assert_eq!(
            text.matches("passed").count(),
            files.len(),
            "{version}: {text}"
        );
    }
}

#[test]
fn routes_are_valid_by_the_schema_of_the_gateway_api() {
    let Some(folder) = schemas("ALOKAI_TEST_GATEWAY_SCHEMAS") else {
        return;
    };
    let mut routes = objects(&with_routes()).objects;
    routes.retain(|it| it["kind"] == "HTTPRoute");
    assert_eq!(routes.len(), 2);
    let check = |routes: &Value| {
        let mut node = Command::new("node")
            .args(["--input-type=module", "--eval", CHECK, &folder])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = routes.to_string();
        node.stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = node.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(text)
    };
    check(&json!(routes)).unwrap();
    routes[0]["spec"]["rules"][0]["backendRefs"][0]["port"] = "web".into();
    let error = check(&json!(routes)).unwrap_err();
    assert!(error.contains("port"), "{error}");
}

/// A target without a cluster says what it searched.
#[test]
fn a_missing_kubeconfig_is_named() {
    use alokai::target::Target;
    let project = Project::shop().setting("deploy", &json!({ "target": "kubernetes" }));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let missing = project.path("nowhere");
    let target = target(&project, &missing, runtime.handle());
    let error = runtime.block_on(target.preflight()).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}
