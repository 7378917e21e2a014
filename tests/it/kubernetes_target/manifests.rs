//! The objects of a store: as snapshots, and by the schemas of the newest Kubernetes.

use std::io::Write;
use std::process::{Command, Stdio};

use alokai::config::Project as Config;
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
        "gateway": { "name": "public", "namespace": "gateways", "sectionName": "https", "tls": true },
    })
}

fn objects(section: &Value) -> StoreManifests {
    let deploy = json!({ "target": "kubernetes", "kubernetes": section });
    let project = Project::shop().setting("deploy", &deploy);
    let config = Config::load(project.root()).unwrap();
    let mut spec = release_with("R01KBN6XG0ABCDEFG".parse().unwrap());
    spec.settings = Some("R01KBN6XG0ABCDEF0".into());
    manifests(&config, &spec, &["PRICE".into()]).unwrap()
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
    let section =
        json!({ "namespace": "My Shops", "replicas": { "*": 0 }, "gateway": { "name": "Public" } });
    let deploy = json!({ "kubernetes": section });
    let project = Project::shop().setting("deploy", &deploy);
    let run = project.alokai("store list").fails_with(2);
    for text in ["`My Shops`", "`0`", "`Public`"] {
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
