//! The real Docker engine and the real registry that `scripts/services` starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Arguments, Project, output_of};

/// An authenticated registry on the loopback.
#[derive(Debug, Clone)]
pub struct Registry {
    pub address: String,
    pub user: String,
    pub password: String,
    pub base: String,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The value of a variable. Without it, the test is skipped, or fails if `ALOKAI_REQUIRE_DOCKER=1`.
fn wanted(name: &str) -> Option<String> {
    let found = variable(name);
    if found.is_none() {
        let required = variable("ALOKAI_REQUIRE_DOCKER").is_some_and(|value| value == "1");
        assert!(!required, "ALOKAI_REQUIRE_DOCKER=1, and {name} is not set");
        println!("skipped: no {name}; `scripts/test` starts what this test needs");
    }
    found
}

/// The registry, or `None` if the test is skipped.
pub fn registry() -> Option<Registry> {
    wanted("ALOKAI_TEST_REGISTRY").map(|address| Registry {
        address,
        user: variable("ALOKAI_TEST_REGISTRY_USER").expect("set with the registry"),
        password: variable("ALOKAI_TEST_REGISTRY_PASSWORD").expect("set with the registry"),
        base: variable("ALOKAI_TEST_BASE_IMAGE").unwrap_or_else(|| "node:22-alpine".into()),
    })
}

/// Another implementation of a registry: it lists referrers itself, needs no login and does not
/// mount blobs.
pub fn second_registry() -> Option<Registry> {
    let first = registry()?;
    wanted("ALOKAI_TEST_SECOND_REGISTRY").map(|address| Registry { address, ..first })
}

/// Both registries, and the base image in an OCI layout.
pub fn registries_and_base() -> Option<(Registry, Registry, String)> {
    Some((registry()?, second_registry()?, base_layout()?))
}

/// The base image in the registry, by its full name.
pub fn base_reference() -> Option<String> {
    wanted("ALOKAI_TEST_BASE_REFERENCE")
}

/// The base image in an OCI layout, as `image.base` names it.
pub fn base_layout() -> Option<String> {
    wanted("ALOKAI_TEST_BASE_LAYOUT")
}

impl Registry {
    /// A project whose runs find this registry and this console.
    pub fn used_by(&self, project: Project, console: &str) -> Project {
        project
            .env("CLI_CLOUD_USERNAME", &self.user)
            .env("CLI_CLOUD_PASSWORD", &self.password)
            .env("CLI_DOCKER_REGISTRY_URL", &self.address)
            .env("CLI_CONSOLE_API_URL", console)
            // The public addresses of the stores do not exist.
            .env("CLI_CONSOLE_NO_WAIT", "1")
    }

    /// The same registry, reached through another address.
    pub fn at(&self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ..self.clone()
        }
    }

    /// Makes a folder with a `config.json` of Docker that contains the login.
    pub fn login(&self, place: &Path) -> PathBuf {
        let folder = place.join("login");
        std::fs::create_dir(&folder).expect("it is ours");
        let document = self.logins().to_string();
        std::fs::write(folder.join("config.json"), document).expect("it is ours");
        folder
    }

    fn logins(&self) -> serde_json::Value {
        let login = BASE64.encode(format!("{}:{}", self.user, self.password));
        serde_json::json!({ "auths": { &self.address: { "auth": login } } })
    }

    /// The tags of a repository as another client sees them; empty if the repository does not
    /// exist. Tags of the referrers fallback (`sha256-…`) and of records (`alokai.…`) are left out.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let name = format!("docker://{}/{repository}", self.address);
        let Some(text) = self.skopeo(&["list-tags", "--tls-verify=false", &name]) else {
            return Vec::new();
        };
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let tags = document["Tags"].as_array().expect("tags").iter();
        tags.map(|tag| tag.as_str().expect("text").to_owned())
            .filter(|tag| !tag.starts_with("sha256-") && !tag.starts_with("alokai."))
            .collect()
    }

    /// The output of skopeo with the login of this registry, or `None` if it fails.
    pub fn skopeo(&self, arguments: &[&str]) -> Option<String> {
        // The login is in a file, because another test searches all process arguments for the
        // password.
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), self.logins().to_string()).expect("it is ours");
        let output = Command::new("skopeo")
            .args(arguments)
            .arg("--authfile")
            .arg(file.path())
            .output()
            .expect("skopeo runs");
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(stdout)
    }

    /// Copies an image into a repository (`<repository>:<tag>`), as another client does.
    #[track_caller]
    pub fn put_image(&self, image: &str, name: &str, more: &[&str]) {
        let to = format!("docker://{}/{name}", self.address);
        let copy = ["copy", "--quiet", "--dest-tls-verify=false", image, &to];
        self.skopeo(&[&copy, more].concat())
            .expect("a copied image");
    }

    /// The body of the registry's answer to a GET of this path, or `None` if it refuses.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        let mut curl = Command::new("curl")
            .args(["--silent", "--fail", "--noproxy", "*", "--config", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl runs");
        let kinds = [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ];
        let kinds = kinds.join(", ");
        let config = format!(
            "user = \"{}:{}\"\nurl = \"http://{}{path}\"\nheader = \"Accept: {kinds}\"\n",
            self.user, self.password, self.address
        );
        let mut stdin = curl.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, config.as_bytes()).expect("curl reads");
        drop(stdin);
        let output = curl.wait_with_output().expect("curl ends");
        output.status.success().then_some(output.stdout)
    }

    /// The repositories whose name starts with a text. The catalogue is sorted and starts after
    /// `last`.
    pub fn repositories(&self, beginning: &str) -> Vec<String> {
        let path = format!("/v2/_catalog?n=100&last={beginning}");
        let document = self.get(&path).expect("a catalogue");
        let document: serde_json::Value = serde_json::from_slice(&document).expect("JSON");
        let all = document["repositories"]
            .as_array()
            .expect("repositories")
            .iter();
        let names = all.filter_map(|name| name.as_str());
        names
            .filter(|name| name.starts_with(beginning))
            .map(str::to_owned)
            .collect()
    }
}

/// The output of Docker's own client.
#[track_caller]
pub fn docker(arguments: impl Arguments) -> String {
    let output = output_of(Command::new("docker").args(arguments.words()));
    output.trim().to_owned()
}
