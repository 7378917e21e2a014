//! All six stages against the real engine and the real registry, with light apps.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Console, Project, Registry, docker, registry};

/// A lower-case name that differs in every test run, so that a registry can be used repeatedly.
/// When it is dropped, images whose name starts with it are removed.
pub struct Unique(String);

pub fn unique(name: &str) -> Unique {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Unique(format!(
        "{name}-{}-{}",
        std::process::id(),
        now.as_micros() % 1_000_000
    ))
}

impl std::ops::Deref for Unique {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Unique {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Drop for Unique {
    fn drop(&mut self) {
        let all = docker(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
        let own = all
            .lines()
            .filter(|line| line.contains(&format!("/{}-", self.0)));
        for image in own.filter_map(|line| line.split(' ').next_back()) {
            let _ = std::process::Command::new("docker")
                .args(["rmi", "--force", image])
                .output();
        }
    }
}

/// A shop whose images go to the real registry, under a name that no other test has.
struct World {
    registry: Registry,
    console: Console,
    name: Unique,
    project: Project,
}

impl World {
    fn new(name: &'static str) -> Option<Self> {
        let (registry, console) = (registry()?, Console::start());
        let name = unique(name);
        let project = registry.used_by(Project::shop_named(&name), &console.address);
        Some(Self {
            registry,
            console,
            name,
            project,
        })
    }
}

/// The request body of SPEC §6 for these values, written out and not computed by the program.
pub fn request_body(user: &str, password: &str, tag: &str) -> Value {
    json!({
        "middleware": true,
        "cloudUserId": user, "cloudUserPassword": password, "dockerImageHash": tag,
        "env_var": {
            "03731de5-5ff9-49d9-a6e5-8af9c4fa75d9": { "name": "NUXT_PUBLIC_ALOKAI_MIDDLEWARE_CDN_CACHE_BUSTING_ID", "value": tag, "is_secret": false },
            "03731de5-5ff9-49d9-a6e5-8af9c4fa75": { "name": "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_CDN_CACHE_BUSTING_ID", "value": tag, "is_secret": false }
        },
        "middlewareData": { "path": "/api/", "port": 4000, "has_base_path": false }
    })
}

#[test]
fn two_stores_are_pushed_and_deployed() {
    let Some(World {
        registry,
        console,
        name,
        project,
    }) = World::new("deploy")
    else {
        return;
    };
    let run = project.alokai("store deploy --store us,eu").succeeds();
    let sha = project.sha();

    let wanted: BTreeSet<String> = ["us", "eu"]
        .iter()
        .flat_map(|store| {
            ["vue-storefront", "vue-storefront-middleware"]
                .map(|app| format!("{name}-{store}-storefrontcloud-io/{app}"))
        })
        .collect();
    assert_eq!(
        registry
            .repositories(&name)
            .into_iter()
            .collect::<BTreeSet<_>>(),
        wanted
    );
    for repository in &wanted {
        let mut tags = registry.tags(repository);
        // Tags of referrers.
        tags.retain(|tag| !tag.starts_with("sha256-"));
        assert_eq!(tags, [sha.as_str()]);
        run.stdout_contains(&format!("{}/{repository}:{sha}", registry.address));
    }

    let requests = console.requests();
    let paths: Vec<_> = requests
        .iter()
        .map(|request| request.path.clone())
        .collect();
    assert_eq!(
        paths,
        [
            format!("/cloud/instances/{name}-us-us-east1-gcp-storefrontcloud-io/deploy"),
            format!("/cloud/instances/{name}-eu-europe-west1-gcp-storefrontcloud-io/deploy"),
        ]
    );
    for request in &requests {
        assert_eq!(
            (request.method.as_str(), request.content_type.as_str()),
            ("PATCH", "application/json")
        );
        assert_eq!(
            request.body,
            request_body(&registry.user, &registry.password, &sha)
        );
    }

    let image = format!(
        "{}/{name}-us-storefrontcloud-io/vue-storefront:{sha}",
        registry.address
    );
    let inspected: Value = serde_json::from_str(&docker(&["image", "inspect", &image])).unwrap();
    let config = &inspected[0]["Config"];
    assert_eq!(config["User"], "node");
    assert_eq!(config["WorkingDir"], "/var/www");
    assert_eq!(config["Entrypoint"], json!(["node", "server.js"]));
    assert_eq!(config["Labels"]["org.opencontainers.image.revision"], sha);
    assert_eq!(config["Labels"]["com.alokai.store"], "us");
    assert_eq!(
        config["Labels"]["com.alokai.app"],
        "storefront-unified-nextjs"
    );
    // A second deploy of the same tag.
    project.alokai("store deploy --store us,eu").succeeds();
    assert_eq!(console.requests().len(), 4);
}

#[test]
fn a_dockerfile_of_the_app_is_inherited_and_used() {
    let Some(registry) = registry() else { return };
    let name = unique("dockerfile");
    let dockerfile = format!(
        "FROM {}\nCOPY . /everything\nCOPY .deploy /srv\nUSER node\nENTRYPOINT [\"node\", \"/srv/server.js\"]\n",
        registry.base
    );
    let project = Project::shop_named(&name).dockerfile(&dockerfile).file(
        "apps/storefront-unified-nextjs/.dockerignore",
        "# everything but\n*.js\napp\n",
    );
    project.commit();
    let project = registry.used_by(project, "http://127.0.0.1:9");
    project
        .alokai("store deploy --store us --until image --filter *nextjs*")
        .succeeds();
    let image = format!(
        "{}/{name}-us-storefrontcloud-io/vue-storefront:{}",
        registry.address,
        project.sha()
    );
    let files = docker(&[
        "run",
        "--rm",
        "--entrypoint",
        "find",
        &image,
        "/everything",
        "/srv",
        "-type",
        "f",
    ]);
    let files: BTreeSet<_> = files.lines().collect();
    assert!(
        files.contains("/srv/server.js") && files.contains("/everything/texts.txt"),
        "{files:?}"
    );
    assert!(
        !files
            .iter()
            .any(|file| file.starts_with("/everything/app/")),
        "{files:?}"
    );
    assert!(!files.contains("/everything/build.js"), "{files:?}");
    docker(&["rmi", "--force", &image]);
}

#[test]
fn two_deploys_at_once_do_not_disturb_each_other() {
    let Some(World {
        registry,
        console,
        name,
        project,
    }) = World::new("twice")
    else {
        return;
    };
    let arguments = "store deploy --all";
    let runs = [project.start(arguments), project.start(arguments)];
    for run in runs {
        let run: crate::support::Run = run.wait_with_output().unwrap().into();
        run.succeeds();
    }
    assert_eq!(console.requests().len(), 4);
    let image = format!(
        "{}/{name}-us-storefrontcloud-io/vue-storefront:{}",
        registry.address,
        project.sha()
    );
    let texts = docker(&["run", "--rm", "--entrypoint", "cat", &image, "server.js"]);
    assert!(texts.contains("texts of us"), "{texts}");
}
