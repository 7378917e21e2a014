//! No secret is in the ledger, in the pages of a registry, or in an exported build.

use std::io::Read;

use serde_json::json;

use super::builds;
use crate::deploy::unique;
use crate::release::Shop;
use crate::support::{FRONTEND, Project, base_reference, registry};

/// The bytes, and what they are after decompression.
pub fn readings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut readings = vec![bytes.to_vec()];
    if let Ok(text) = zstd::decode_all(bytes) {
        readings.push(text);
    }
    let mut text = Vec::new();
    if flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut text)
        .is_ok()
    {
        readings.push(text);
    }
    readings
}

#[track_caller]
pub fn lacks(what: &str, bytes: &[u8], secrets: &[&str]) {
    for text in readings(bytes) {
        for secret in secrets {
            let found = text.windows(secret.len()).any(|it| it == secret.as_bytes());
            assert!(!found, "{what} has `{secret}`");
        }
    }
}

#[test]
fn no_secret_is_in_the_ledger_its_pages_and_exports() {
    let Some(registry) = registry() else { return };
    let name = unique("silent");
    // Prints the file with the password, its environment, and an undeclared variable.
    let script = "console.log('it prints: ' + require('fs').readFileSync('../../../.env', 'utf8')); \
        console.log(JSON.stringify(process.env)); ";
    let frontend = Project::shop_named(&name).read(&format!("apps/{FRONTEND}/build.js"));
    let project = Project::shop_named(&name)
        .setting("image", &json!({ "base": base_reference().unwrap() }))
        .build_script(FRONTEND, &format!("{script}{frontend}"))
        .env("CLI_DOCKER_REGISTRY_URL", &registry.address)
        .env("CLI_CONSOLE_API_URL", "http://127.0.0.1:9")
        .env("UNDECLARED_TOKEN", "undeclared-token-value");
    let app_env = format!("apps/{FRONTEND}/.env");
    project.write(&app_env, "API_KEY=value-of-the-app-key\n");
    project.commit();
    let (user, password) = (&registry.user, &registry.password);
    let env = format!("CLI_CLOUD_USERNAME={user}\nCLI_CLOUD_PASSWORD={password}\n");
    project.write(".env", &env);
    let secrets = [
        &**password,
        "undeclared-token-value",
        "value-of-the-app-key",
    ];

    project
        .alokai("store deploy --store us --until push")
        .succeeds();
    let id = builds(&project, "")[0]["id"].as_str().unwrap().to_owned();
    let logs = project.alokai(&["store", "builds", "logs", &id]).succeeds();
    logs.stdout_contains("it prints: CLI_CLOUD_USERNAME=");
    for (path, _) in project.tree(".alokai/ledger") {
        let bytes = std::fs::read(project.path(".alokai/ledger").join(&path)).unwrap();
        lacks(&path, &bytes, &secrets);
    }
    let repository = format!("{name}-us-storefrontcloud-io/vue-storefront");
    let tags = registry
        .get(&format!("/v2/{repository}/tags/list"))
        .unwrap();
    let tags: serde_json::Value = serde_json::from_slice(&tags).unwrap();
    let pages = tags["tags"].as_array().unwrap().iter();
    let pages = pages.filter_map(|tag| tag.as_str().filter(|it| it.starts_with("alokai.")));
    let mut blobs = 0;
    for page in pages {
        let manifest = registry
            .get(&format!("/v2/{repository}/manifests/{page}"))
            .unwrap();
        lacks(page, &manifest, &secrets);
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            let bytes = registry
                .get(&format!("/v2/{repository}/blobs/{digest}"))
                .unwrap();
            lacks(digest, &bytes, &secrets);
            blobs += 1;
        }
    }
    assert!(blobs >= 2, "the page has records and a log");
    let export = project
        .command(&["store", "builds", "export", &id])
        .output()
        .unwrap();
    assert!(export.status.success());
    lacks("the export", &export.stdout, &secrets);
    let folder = tempfile::tempdir().unwrap();
    let layout = oci::unpack_layout(&*export.stdout, folder.path()).unwrap();
    let blobs = std::fs::read_dir(layout.folder().join("blobs/sha256")).unwrap();
    for blob in blobs {
        let path = blob.unwrap().path();
        lacks(
            &path.display().to_string(),
            &std::fs::read(&path).unwrap(),
            &secrets,
        );
    }
}

#[test]
fn no_value_of_a_setting_is_in_the_ledger_when_an_app_prints_it() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    let key = "KEY=-----\nab1cd\nef2gh\n-----";
    let set = ["store", "settings", "set", "--store", "us"];
    let values = ["PIN=47113", key, "TOK=secret-long-1"];
    shop.project
        .alokai(&[&set[..], &values].concat())
        .succeeds();
    shop.mood("us", "leaks");
    for deploy in [
        "store deploy --settings --store us",
        "store deploy --store us",
    ] {
        shop.commit(deploy);
        let run = shop.run(deploy).fails_with(1);
        // The screen has the lines of the app, in which long values are masked.
        run.stderr_contains("│ pin ");
        run.stderr_lacks("secret-long-1");
        run.stderr_lacks("ab1cd");
    }
    let history = shop.run("store history --json").succeeds();
    for secret in ["47113", "ab1cd", "ef2gh", "secret-long-1"] {
        history.stdout_lacks(secret);
        for (path, content) in shop.project.tree(".alokai/ledger/events") {
            assert!(!content.contains(secret), "{path} has `{secret}`");
        }
    }
    history.stdout_contains("is not healthy");
}
