//! Logins of a kubeconfig, and the permissions that are needed.

use std::path::PathBuf;

use alokai::target::{Settings, Target};
use reqwest::Method;
use serde_json::{Value, json};

use super::{World, release, us};

/// The page of the docs, which lists the permissions.
const PAGE: &str = include_str!("../../../docs/src/kubernetes.md");

/// A kubeconfig whose current context is this one.
fn with_context(world: &World, folder: &tempfile::TempDir, context: &str) -> PathBuf {
    let text = std::fs::read_to_string(&world.kubeconfig).unwrap();
    let path = folder.path().join(context);
    let current = format!("current-context: {context}");
    std::fs::write(&path, text.replace("current-context: token", &current)).unwrap();
    path
}

#[test]
fn a_token_and_a_certificate_are_accepted_and_other_logins_are_explained() {
    let Some(world) = World::new("logins") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let check = |path: &PathBuf| world.wait(world.target_of(path).preflight());
    for context in ["token", "certificate"] {
        check(&with_context(&world, &folder, context)).unwrap();
    }
    let error = check(&with_context(&world, &folder, "guest")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("no permission") && error.contains("guest"),
        "{error}"
    );

    // A login that the server does not know.
    let text = std::fs::read_to_string(&world.kubeconfig).unwrap();
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, text.replace("{token: ", "{token: x")).unwrap();
    let error = check(&wrong).unwrap_err().to_string();
    assert!(error.contains("does not accept the login"), "{error}");

    // A server whose certificate the system does not trust.
    let (before, after) = text.split_once(", certificate-authority-data: ").unwrap();
    let (_, after) = after.split_once('}').unwrap();
    std::fs::write(&wrong, format!("{before}}}{after}")).unwrap();
    let error = check(&wrong).unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
}

#[test]
fn the_permissions_of_the_docs_are_enough() {
    let section = json!({ "ingress": {}, "storage": {} });
    let Some(world) = World::with("permissions", &section) else {
        return;
    };
    let (_, role) = PAGE.split_once("## Permissions\n\n```yaml\n").unwrap();
    let (role, _) = role.split_once("```").unwrap();
    let mut role: Value = serde_saphyr::from_str(role).unwrap();
    role["metadata"]["namespace"] = world.namespace.as_str().into();
    let group = "apis/rbac.authorization.k8s.io/v1";
    let binding = json!({
        "metadata": { "name": "alokai" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "alokai" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "guest" }],
    });
    for (kind, object) in [("roles", role), ("rolebindings", binding)] {
        let path = world.path(group, kind);
        let (status, answer) = world.ask(Method::POST, &path, Some(&object));
        assert_eq!(status, 201, "{answer}");
    }
    let folder = tempfile::tempdir().unwrap();
    let target = world.target_of(&with_context(&world, &folder, "guest"));
    world.wait(target.preflight()).unwrap();
    let settings: Settings = [("KEY".to_owned(), "v".to_owned().into())].into();
    world
        .wait(target.store_settings(&us(), "R1", &settings))
        .unwrap();
    let (mut first, second) = (release(), release());
    first.settings = Some("R1".into());
    let kubelet = world.kubelet();
    for spec in [&first, &second] {
        let staged = world.wait(target.stage(spec)).unwrap();
        let start = std::time::Instant::now();
        // The request reaches the Service, behind which no pod has an address.
        while !world
            .answer(&staged.replicas[0].address)
            .1
            .contains("no endpoints")
        {
            assert!(start.elapsed() < super::LIMIT);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        world.switch(&target, spec);
        world.wait(target.health(&us(), &spec.id)).unwrap();
    }
    for page in [Some("page"), None] {
        world.wait(target.maintenance(&us(), page)).unwrap();
    }
    drop(kubelet);
    world.wait(target.retire(&us(), &first.id, true)).unwrap();
    world.wait(target.retire(&us(), &first.id, false)).unwrap();
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active, Some(second.id));
    assert!(observed.kept.is_empty() && observed.staged.is_empty());
}
