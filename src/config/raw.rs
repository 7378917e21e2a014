//! The config file as it is written. These types are the schema: `alokai.config.schema.json`
//! is generated from them, and the file is checked against the same.

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::prune::DROPPED;
use crate::store::Framework;

/// Keys are closed, but for `x-…`, which belong to the project and are not looked at.
fn closed(schema: &mut Schema) {
    schema.insert("additionalProperties".into(), false.into());
    schema.insert(
        "patternProperties".into(),
        serde_json::json!({ "^x-": true }),
    );
}

/// Serde fills in what is missing, so that it can be named; the schema still demands it.
fn require(schema: &mut Schema, key: &str) {
    schema.insert("required".into(), serde_json::json!([key]));
}

fn require_stores(schema: &mut Schema) {
    require(schema, "stores");
}

fn require_project_name(schema: &mut Schema) {
    require(schema, "projectName");
}

/// Settings of an Alokai multistore project.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(title = "alokai.config.json", transform = closed, transform = require_stores)]
pub struct ConfigFile {
    /// Where editors find the schema of this file.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// One entry a store; the key is the store's id, the name of its folder.
    pub stores: IndexMap<String, StoreEntry>,
    /// How images are made and named.
    pub image: ImageSection,
    /// Where images are pushed.
    pub registry: RegistrySection,
    /// The console that deploys them.
    pub console: ConsoleSection,
    /// How builds run.
    pub build: BuildSection,
    /// What is kept so that nothing is built twice.
    pub cache: CacheSection,
    /// What stays in `.deploy`.
    pub prune: PruneSection,
}

/// One store.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct StoreEntry {
    /// Makes the store deployable. A store without it is a template: it gives code to its descendants.
    pub deployment: Option<DeploymentEntry>,
    /// Ports for local development.
    pub local_ports: Option<LocalPorts>,
    /// Domain for local development.
    pub local_domain: Option<String>,
    /// Files that this store and its descendants do not inherit: gitignore rules, relative to
    /// the app folder, in which brackets are literal.
    pub ignore_paths: Vec<String>,
}

/// Where a store runs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed, transform = require_project_name)]
pub struct DeploymentEntry {
    /// The console's project, such as `acme-us`.
    pub project_name: Option<String>,
    /// The cloud region, such as `europe-west1`.
    pub cloud_region: Option<String>,
    /// Older spelling of `cloudRegion`.
    pub region: Option<String>,
    /// The frontend that the store runs; may be left out when the project has one frontend app.
    pub framework: Option<Framework>,
    /// Older spelling of `framework`.
    pub frontend: Option<Framework>,
}

/// Ports for local development.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct LocalPorts {
    /// Port of the middleware.
    pub middleware: Option<u16>,
    /// Port of the Next.js frontend.
    pub nextjs: Option<u16>,
    /// Port of the Nuxt frontend.
    pub nuxt: Option<u16>,
}

/// How images are made and named. Serialized for its defaults, which the schema shows.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct ImageSection {
    /// The image that the default Dockerfile starts from: a reference, or `oci:<dir>:<name>` for
    /// one in an OCI image layout, relative to the project.
    pub base: String,
    /// The platform that images are made for.
    pub platform: String,
    /// A Dockerfile, relative to the project, for apps that have none of their own.
    pub dockerfile: Option<String>,
    /// Image names by app, where they are not `vue-storefront`, `vue-storefront-middleware` or the app's name.
    pub names: IndexMap<String, String>,
}

impl Default for ImageSection {
    fn default() -> Self {
        Self {
            base: "node:22-alpine".into(),
            platform: "linux/amd64".into(),
            dockerfile: None,
            names: IndexMap::new(),
        }
    }
}

/// Where images are pushed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct RegistrySection {
    /// Host, and port if any; or `oci:<dir>` for a folder, an OCI image layout.
    /// `CLI_DOCKER_REGISTRY_URL` and `--docker-registry-url` win over it.
    pub url: Option<String>,
    /// Speaks plain HTTP with the registry of `url`, although it is another machine: everybody
    /// on the way can read the password and the images. It does not hold for a registry that a
    /// flag or the environment names. (A registry on this machine needs no TLS.)
    pub insecure: bool,
    /// A file with certificates (PEM), relative to the project, of the authority that has signed
    /// the registry's own. It is trusted beside the system's, and beside
    /// `/etc/docker/certs.d/<host>/*.crt` and `~/.config/docker/certs.d/<host>/*.crt`.
    pub ca: Option<String>,
}

/// The console that deploys images.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct ConsoleSection {
    /// Address; `CLI_CONSOLE_API_URL` and `--console-api-url` win over it.
    pub url: Option<String>,
    /// Where apps that are neither frontend nor middleware listen, by app.
    pub apps: IndexMap<String, AppImage>,
}

/// Where an additional app listens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct AppImage {
    /// Public path; by default `/<app>/`.
    pub path: Option<String>,
    /// Port inside the container.
    pub port: u16,
    /// Whether the app itself expects the path in front.
    pub has_base_path: bool,
}

impl Default for AppImage {
    fn default() -> Self {
        Self {
            path: None,
            port: 3000,
            has_base_path: false,
        }
    }
}

/// How builds run.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct BuildSection {
    /// How many scripts run at once, at most; by default as many as there are cores.
    pub concurrency: Option<u16>,
    /// Memory that all running scripts may take together, such as `3 GB`; by default what the
    /// machine, or the container, has free.
    pub max_memory: Option<String>,
    /// Variables that scripts see, by app (or workspace package), and for all of them under `*`:
    /// names, and patterns such as `SENTRY_*`. They are part of a result's key. `NODE_ENV`,
    /// `NEXT_PUBLIC_*` and `NUXT_PUBLIC_*` need not be named.
    pub env: IndexMap<String, Vec<String>>,
    /// Apps whose builds do not depend on which store they are for. Such an app is built under a
    /// neutral name in a neutral folder, and stores whose composed files are equal share one
    /// result. The result of every other app belongs to its store.
    pub shared: Vec<String>,
    /// Files beside apps and packages that builds read: globs, relative to the project, such as
    /// `config/**`. Files at the top of the project and `patches/` need not be named.
    pub global_dependencies: Vec<String>,
    /// Whether scripts can open nothing but what their keys know, as with `--sandbox`. It needs
    /// Linux 5.13 or newer.
    pub sandbox: bool,
}

/// What is kept so that nothing is built twice.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct CacheSection {
    /// What the cache may take on disk, such as `10 GB`.
    pub max_size: String,
    /// Days after which a result that was not used goes.
    pub max_age_days: u16,
}

impl Default for CacheSection {
    fn default() -> Self {
        Self {
            max_size: "10 GB".into(),
            max_age_days: 30,
        }
    }
}

/// What stays in `.deploy`, and how large it may get. Serialized for its defaults, which the
/// schema shows.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct PruneSection {
    /// Keeps `.env` and `.env.*` files, which are left out otherwise.
    pub keep_env: bool,
    /// What is left out of dependencies: globs against paths inside a package. `docs/` is a
    /// folder, `!` in front keeps, the last that matches decides. It replaces the default list;
    /// `[]` drops nothing.
    pub drop: Vec<String>,
    /// How large `.deploy` may get, by app, and `*` for all others: `150 MB`, `0.5 GiB`.
    pub max_size: IndexMap<String, String>,
}

impl Default for PruneSection {
    fn default() -> Self {
        Self {
            keep_env: false,
            drop: DROPPED.iter().map(|&glob| glob.to_owned()).collect(),
            max_size: IndexMap::new(),
        }
    }
}
