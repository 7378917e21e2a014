//! The real Docker engine and the real registry that `scripts/services` starts.

use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Project;

/// An authenticated registry on the loopback.
#[derive(Debug, Clone)]
pub struct Registry {
    pub address: String,
    pub user: String,
    pub password: String,
    pub base: String,
}

/// The registry, or nothing where there is none and nobody demands it.
pub fn registry() -> Option<Registry> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let found = variable("ALOKAI_TEST_REGISTRY").map(|address| Registry {
        address,
        user: variable("ALOKAI_TEST_REGISTRY_USER").expect("set with the registry"),
        password: variable("ALOKAI_TEST_REGISTRY_PASSWORD").expect("set with the registry"),
        base: variable("ALOKAI_TEST_BASE_IMAGE").unwrap_or_else(|| "node:22-alpine".into()),
    });
    if found.is_none() {
        let required = variable("ALOKAI_REQUIRE_DOCKER").is_some_and(|value| value == "1");
        assert!(
            !required,
            "ALOKAI_REQUIRE_DOCKER=1, and ALOKAI_TEST_REGISTRY is not set"
        );
        println!("skipped: no Docker; `scripts/test` starts what this test needs");
    }
    found
}

impl Registry {
    /// A project whose runs find this registry and this console.
    pub fn used_by(&self, project: Project, console: &str) -> Project {
        project
            .env("CLI_CLOUD_USERNAME", &self.user)
            .env("CLI_CLOUD_PASSWORD", &self.password)
            .env("CLI_DOCKER_REGISTRY_URL", &self.address)
            .env("CLI_CONSOLE_API_URL", console)
    }

    /// Tags of a repository, as another client sees them; none where it does not exist.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let name = format!("docker://{}/{repository}", self.address);
        // A file, and not an argument: another test looks for the password in all arguments.
        let login = BASE64.encode(format!("{}:{}", self.user, self.password));
        let document = serde_json::json!({ "auths": { &self.address: { "auth": login } } });
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), document.to_string()).expect("it is ours");
        let output = Command::new("skopeo")
            .args(["list-tags", "--tls-verify=false", "--authfile"])
            .arg(file.path())
            .arg(&name)
            .output()
            .expect("skopeo runs");
        if !output.status.success() {
            return Vec::new();
        }
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let tags = document["Tags"].as_array().expect("tags").iter();
        tags.map(|tag| tag.as_str().expect("text").to_owned())
            .collect()
    }

    /// Repositories whose name begins so. The catalogue is sorted, and goes on after `last`.
    pub fn repositories(&self, beginning: &str) -> Vec<String> {
        let mut curl = Command::new("curl")
            .args(["--silent", "--config", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl runs");
        let config = format!(
            "user = \"{}:{}\"\nurl = \"http://{}/v2/_catalog?n=100&last={beginning}\"\n",
            self.user, self.password, self.address
        );
        let mut stdin = curl.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, config.as_bytes()).expect("curl reads");
        drop(stdin);
        let output = curl.wait_with_output().expect("curl ends");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
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

/// Runs Docker's own client and gives what it prints.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker runs");
    assert!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
