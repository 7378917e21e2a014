//! The configuration of Caddy.

use std::process::Command;

use alokai::proxy::caddyfile;

use super::support::store;

#[test]
fn a_caddyfile_has_a_block_for_each_store() {
    let mut us = store("us", 3000, 4000);
    let mut docs = us.apps[0].clone();
    docs.path_prefix = Some("/docs".into());
    docs.port = 6000;
    us.apps.push(docs);
    let text = caddyfile(&[us, store("eu", 3001, 4001)]);
    insta::assert_snapshot!(text);
}

#[test]
fn a_hostile_host_or_path_is_not_in_a_caddyfile() {
    let mut us = store("us", 3000, 4000);
    us.hosts.extend([
        "a {\n}\nimport /etc/passwd".into(),
        "*".into(),
        "{$HOME}".into(),
        String::new(),
    ]);
    us.apps[1].path_prefix = Some("/api {\n}".into());
    let mut nothing = store("none", 1, 2);
    nothing.hosts = vec!["a b".into()];
    let text = caddyfile(&[us, nothing]);
    for part in ["import", "*", "$HOME", "a b", "/api", "4000"] {
        assert!(!text.contains(part), "{part} is in {text}");
    }
    assert!(text.contains("\nus.localhost, us.local {\n"), "{text}");
}

#[test]
fn caddy_accepts_the_caddyfile() {
    if Command::new("caddy").arg("version").output().is_err() {
        eprintln!("skipped: Caddy is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Caddyfile");
    std::fs::write(
        &file,
        caddyfile(&[store("us", 3000, 4000), store("eu", 3001, 4001)]),
    )
    .unwrap();
    let adapted = Command::new("caddy")
        .args(["adapt", "--validate", "--adapter", "caddyfile", "--config"])
        .arg(&file)
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&adapted.stderr);
    assert!(adapted.status.success(), "{errors}");
    assert!(!errors.contains("not formatted"), "{errors}");
    let config: serde_json::Value = serde_json::from_slice(&adapted.stdout).unwrap();
    let text = config.to_string();
    for part in [
        "us.localhost",
        "eu.local",
        "localhost:4001",
        "strip_path_prefix",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
