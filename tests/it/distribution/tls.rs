//! A real registry over TLS, whose certificate authority the system does not know.

use std::path::{Path, PathBuf};

use oci_distribution::{Client, Error, Trust};
use serde_json::json;

use super::Image;
use crate::support::{Project, TlsRegistry, base_layout};

fn client(registry: &TlsRegistry, trust: &Trust) -> Result<Client, Error> {
    let address = format!("https://{}", registry.address);
    super::trusting(&address, None, trust)
}

/// A folder like Docker's `certs.d` with this file for this registry.
fn certs(folder: &Path, registry: &TlsRegistry, name: &str) -> PathBuf {
    let place = folder.join("certs.d").join(&registry.address);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(&registry.ca, place.join(name)).unwrap();
    folder.join("certs.d")
}

#[tokio::test]
async fn an_authority_is_trusted_where_it_is_named() {
    let Some(registry) = TlsRegistry::start() else {
        return;
    };
    let error = client(&registry, &Trust::default()).unwrap().check().await;
    assert!(matches!(error, Err(Error::Unreachable { .. })), "{error:?}");
    let folder = tempfile::tempdir().unwrap();
    let by_file = Trust {
        ca: Some(registry.ca.clone()),
        ..Trust::default()
    };
    let by_folder = Trust {
        folders: vec![
            folder.path().join("none"),
            certs(folder.path(), &registry, "ca.crt"),
        ],
        ..Trust::default()
    };
    for trust in [by_file, by_folder] {
        let client = client(&registry, &trust).unwrap();
        let image = Image::new(5_000_000);
        image.push(&client, "a").await.unwrap();
        assert!(image.is_whole(&client, "a").await);
        let stored = registry.stored(&image.layer.digest.hex());
        assert_eq!(stored, Some(std::fs::read(image.path()).unwrap()));
    }
    // The certificate of another registry, and the certificate of a client.
    let other = tempfile::tempdir().unwrap();
    let trust = Trust {
        folders: vec![certs(other.path(), &registry, "client.cert")],
        ..Trust::default()
    };
    assert!(client(&registry, &trust).unwrap().check().await.is_err());
}

#[test]
fn a_file_that_holds_no_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    for text in [None, Some(""), Some("no certificate")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let trust = Trust {
            ca: Some(path.clone()),
            ..Trust::default()
        };
        let error = super::trusting("registry.example.com", None, &trust).unwrap_err();
        assert!(matches!(error, Error::Certificates { .. }), "{error}");
        assert!(error.to_string().contains("ca.pem"), "{error}");
    }
}

#[test]
fn the_program_finds_authorities_in_the_config_and_in_dockers_folders() {
    let (Some(registry), Some(base)) = (TlsRegistry::start(), base_layout()) else {
        return;
    };
    let deploy = "store deploy --store us --until push";
    let project = Project::shop().setting("image", &json!({ "base": base }));
    let url = format!("https://{}", registry.address);
    let project = project.setting("registry", &json!({ "url": url }));
    project.commit();
    project.alokai(deploy).fails_with(3);

    let project = project.setting("registry", &json!({ "url": url, "ca": "ca.pem" }));
    project.commit();
    let run = project.alokai(deploy).fails_with(2);
    run.stderr_contains("ca.pem`");
    std::fs::copy(&registry.ca, project.path("ca.pem")).unwrap();
    project.commit();
    project.alokai(deploy).succeeds();

    // Another commit, so that other images are pushed. The home folder is beside the project.
    let project = project.setting("registry", &json!({ "url": url }));
    project.commit();
    let docker = project.root().with_file_name(".home/.config/docker");
    certs(&docker, &registry, "ca.crt");
    project.alokai(deploy).succeeds();
}
