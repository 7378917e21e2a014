//! The types of the config file. `alokai.config.schema.json` is generated from them, and the
//! config file is checked against that schema.

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::hooks::{HookFailure, HookPlace, HookStage, HookTime};
use super::kubernetes::KubernetesSection;
use super::prune::DROPPED;
use crate::store::{Framework, TargetKind};

/// Forbids unknown keys, except `x-…`, which are ignored.
pub(super) fn closed(schema: &mut Schema) {
    schema.insert("additionalProperties".into(), false.into());
    schema.insert(
        "patternProperties".into(),
        serde_json::json!({ "^x-": true }),
    );
}

/// Makes a key required in the schema. Serde has a default, so that a missing key is reported
/// with the other problems.
fn require(schema: &mut Schema, key: &str) {
    schema.insert("required".into(), serde_json::json!([key]));
}

fn require_stores(schema: &mut Schema) {
    require(schema, "stores");
}

fn require_project_name(schema: &mut Schema) {
    require(schema, "projectName");
}

fn require_hook(schema: &mut Schema) {
    let keys = serde_json::json!(["when", "stage", "command"]);
    schema.insert("required".into(), keys);
}

/// Settings of an Alokai multistore project.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(title = "alokai.config.json", transform = closed, transform = require_stores)]
pub struct ConfigFile {
    /// The schema of this file, for editors.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// The stores. The key is the id of the store, which is the name of its folder.
    pub stores: IndexMap<String, StoreEntry>,
    /// How images are made and named.
    pub image: ImageSection,
    /// Where images are pushed.
    pub registry: RegistrySection,
    /// The console that deploys them.
    pub console: ConsoleSection,
    /// How builds run.
    pub build: BuildSection,
    /// Limits of the cache of results and of tool caches.
    pub cache: CacheSection,
    /// What `.deploy` contains.
    pub prune: PruneSection,
    /// How apps are started on this machine.
    pub start: StartSection,
    /// Where stores run, and how a release becomes live.
    pub deploy: DeploySection,
    /// Commands that run before and after the stages of a deploy, for each store, in this order.
    pub hooks: Vec<HookEntry>,
}

/// One store.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct StoreEntry {
    /// Where the store runs. A store without a deployment is a template for its descendants.
    pub deployment: Option<DeploymentEntry>,
    /// Ports for local development.
    pub local_ports: Option<LocalPorts>,
    /// A host name of the store: for local development, and at the targets `local`, `docker`, `swarm` and
    /// `kubernetes`. Each store has its own.
    pub local_domain: Option<String>,
    /// Files that this store and its descendants do not inherit: gitignore rules, relative to
    /// the app folder. Brackets are literal.
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
    /// The frontend of the store. Not needed if the project has one frontend app.
    pub framework: Option<Framework>,
    /// Older spelling of `framework`.
    pub frontend: Option<Framework>,
    /// Where the store runs, if not at `deploy.target`.
    pub target: Option<TargetKind>,
    /// The public address of the store, such as `https://shop.example.com`, if it differs from the address
    /// that the console assigns. A deploy to the console waits until this address answers.
    pub address: Option<String>,
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

/// How images are made and named.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct ImageSection {
    /// The base image of the default Dockerfile: a reference, or `oci:<dir>:<name>` for an image
    /// in an OCI image layout, relative to the project.
    pub base: String,
    /// The platform of the images.
    pub platform: String,
    /// The Dockerfile of apps without their own, relative to the project.
    pub dockerfile: Option<String>,
    /// Image names by app. The defaults are `vue-storefront` for frontends,
    /// `vue-storefront-middleware` for the middleware, and the name of the app for other apps.
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
    /// The host with an optional port, or `oci:<dir>` for a folder with an OCI image layout.
    /// `CLI_DOCKER_REGISTRY_URL` and `--docker-registry-url` override it.
    pub url: Option<String>,
    /// Uses plain HTTP for the registry in `url`, even if it is on another machine. The password
    /// and the images are sent unencrypted. Registries from options and environment variables
    /// are not affected. A registry on this machine needs no TLS.
    pub insecure: bool,
    /// A PEM file with CA certificates for the registry, relative to the project. They are
    /// trusted in addition to those of the system, of `/etc/docker/certs.d/<host>/*.crt` and of
    /// `~/.config/docker/certs.d/<host>/*.crt`.
    pub ca: Option<String>,
}

/// The console that deploys images.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct ConsoleSection {
    /// The address. `CLI_CONSOLE_API_URL` and `--console-api-url` override it.
    pub url: Option<String>,
    /// Addresses of apps that are neither frontend nor middleware, by app.
    pub apps: IndexMap<String, AppImage>,
}

/// The address of an additional app.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct AppImage {
    /// The public path. The default is `/<app>/`.
    pub path: Option<String>,
    /// The port in the container.
    pub port: u16,
    /// Whether the app expects requests with the public path.
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
    /// The most scripts that run at once. The default is the number of cores.
    pub concurrency: Option<u16>,
    /// The memory limit of all running scripts together, such as `3 GB`. The default is the free
    /// memory of the machine or the container.
    pub max_memory: Option<String>,
    /// Environment variables for scripts, by app or workspace package, or `*` for all: names, and
    /// patterns such as `SENTRY_*`. They are part of the key of a result. `NODE_ENV`,
    /// `NEXT_PUBLIC_*` and `NUXT_PUBLIC_*` are always included.
    pub env: IndexMap<String, Vec<String>>,
    /// Apps whose build does not depend on the store. Such an app is built in a neutral folder
    /// under a neutral name, and stores with equal composed files share one result.
    pub shared: Vec<String>,
    /// Globs of other files that builds read, relative to the project, such as `config/**`.
    /// Files at the top of the project and `patches/` are always included.
    pub global_dependencies: Vec<String>,
    /// Whether scripts can open only their declared inputs, as with `--sandbox`. Requires Linux
    /// 5.13 or newer.
    pub sandbox: bool,
}

/// Limits of the cache of results.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct CacheSection {
    /// The most disk space of the cache, such as `10 GB`.
    pub max_size: String,
    /// The days after which an unused result is removed.
    pub max_age_days: u16,
    /// The most disk space of the caches that the tools of one app or package keep, such as
    /// `.next/cache/webpack`, unpacked. Larger ones are not kept. `0 MB` keeps none.
    pub max_tool_cache_size: String,
    /// The days after which the tool caches of an app or a package are no longer used.
    pub max_tool_cache_age_days: u16,
}

impl Default for CacheSection {
    fn default() -> Self {
        Self {
            max_size: "10 GB".into(),
            max_age_days: 30,
            max_tool_cache_size: "1 GB".into(),
            max_tool_cache_age_days: 7,
        }
    }
}

/// What `.deploy` contains, and its size limits.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct PruneSection {
    /// Whether `.env` and `.env.*` files are kept.
    pub keep_env: bool,
    /// Files of dependencies that are dropped: globs for paths in a package. `docs/` means a
    /// folder, a leading `!` keeps files, and the last match decides. The list replaces the
    /// default list; `[]` drops nothing.
    pub drop: Vec<String>,
    /// The size limit of `.deploy` by app, and `*` for all other apps: `150 MB`, `0.5 GiB`.
    pub max_size: IndexMap<String, String>,
    /// How `.deploy` is verified before it is used. `resolve`: every module that the entry loads is
    /// resolved inside `.deploy`, as Node does in an image. `start`: a copy of `.deploy` is also
    /// started, in a folder for temporary files. `off`: no verification, for apps whose Dockerfile
    /// adds modules to the image.
    pub verify: VerifyMode,
}

/// How `.deploy` is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VerifyMode {
    /// The modules that the entry loads are resolved.
    #[default]
    Resolve,
    /// The modules are resolved, and the entry is started.
    Start,
    /// Nothing is verified.
    Off,
}

impl Default for PruneSection {
    fn default() -> Self {
        Self {
            keep_env: false,
            drop: DROPPED.iter().map(|&glob| glob.to_owned()).collect(),
            max_size: IndexMap::new(),
            verify: VerifyMode::default(),
        }
    }
}

/// How apps are started on this machine.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct StartSection {
    /// Environment variables of started apps by app, and `*` for all apps. A value may have
    /// placeholders, such as `{port}`, `{store}` and `{middleware.url}`.
    pub env: IndexMap<String, IndexMap<String, String>>,
    /// The time limit, in seconds, for a started app to accept connections on its port.
    pub timeout: u16,
}

impl Default for StartSection {
    fn default() -> Self {
        Self {
            env: IndexMap::new(),
            timeout: 60,
        }
    }
}

/// Where stores run, and how a release becomes live.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct DeploySection {
    /// The target of all stores without `deployment.target`.
    pub target: TargetKind,
    /// The earlier releases of a store that can be made live again quickly.
    pub keep: u16,
    /// The time limit, in seconds, for open requests of the earlier release to end.
    pub drain: u16,
    /// The seconds for which a new release is watched after it got the traffic. If it fails meanwhile,
    /// the earlier release gets the traffic again.
    pub watch: u16,
    /// The seconds that an app has to end by itself before it is killed.
    pub stop_timeout: u16,
    /// How the health of apps is probed, by app, and `*` for all other apps.
    pub health: IndexMap<String, HealthEntry>,
    /// Groups of stores that become live one after another, by name.
    pub waves: IndexMap<String, Vec<String>>,
    /// The program of the target `command`, with its arguments.
    pub command: Vec<String>,
    /// The engine and the proxy of the target `docker`.
    pub docker: DockerSection,
    /// The manager and the proxy of the target `swarm`.
    pub swarm: SwarmSection,
    /// The cluster of the target `kubernetes`, and what is made in it.
    pub kubernetes: KubernetesSection,
    /// The folder of each store that outlives its releases, at the targets `docker`, `swarm` and `local`, and
    /// at `kubernetes` with `deploy.kubernetes.storage`. With `null` there is none.
    pub data: Option<DataSection>,
}

impl Default for DeploySection {
    fn default() -> Self {
        Self {
            target: TargetKind::Console,
            keep: 3,
            drain: 30,
            watch: 10,
            stop_timeout: 10,
            health: IndexMap::new(),
            waves: IndexMap::new(),
            command: Vec::new(),
            docker: DockerSection::default(),
            swarm: SwarmSection::default(),
            kubernetes: KubernetesSection::default(),
            data: Some(DataSection::default()),
        }
    }
}

/// A folder of each store that all of its releases share.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct DataSection {
    /// The path of the folder in containers. Every app has the path of its folder in `DATA_DIR`, also at the target `local`.
    pub path: String,
    /// At the targets `docker` and `swarm`: an absolute folder of the engine's machine, in which each store has a
    /// folder of its own, or the start of the names of volumes. Without it, the volumes are
    /// `alokai-<project>-<store>-data`.
    pub source: Option<String>,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            path: "/data".into(),
            source: None,
        }
    }
}

/// The engine and the proxy of the target `docker`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct DockerSection {
    /// The address of the engine, such as `ssh://deploy@shop.example`. Without it, `DOCKER_HOST` or the local
    /// socket is used.
    pub host: Option<String>,
    /// The IP address of the engine's machine on which containers publish their ports. The proxy and the
    /// health probes connect to it.
    pub address: String,
    /// The proxy that switches the traffic. With `null`, containers have the ports of `localPorts`, and a
    /// switch interrupts the store.
    pub proxy: Option<ProxySection>,
}

impl Default for DockerSection {
    fn default() -> Self {
        Self {
            host: None,
            address: "127.0.0.1".into(),
            proxy: Some(ProxySection::default()),
        }
    }
}

/// The manager and the proxy of the target `swarm`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct SwarmSection {
    /// The address of a manager, such as `ssh://deploy@shop.example`. Without it, `DOCKER_HOST` or the local
    /// socket is used.
    pub host: Option<String>,
    /// The proxy that switches the traffic.
    pub proxy: ProxySection,
}

/// The HAProxy of the targets `docker` and `swarm`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct ProxySection {
    /// Where it listens: arguments of `bind` in a config of HAProxy, such as
    /// `*:443 ssl crt /etc/ssl/shop.pem`.
    pub bind: Vec<String>,
    /// The folder of its config, map files and sockets, relative to the project. The default is
    /// `.alokai/proxy`. Projects with the same folder share one proxy.
    pub folder: Option<String>,
}

impl Default for ProxySection {
    fn default() -> Self {
        Self {
            bind: vec!["127.0.0.1:8080".into()],
            folder: None,
        }
    }
}

/// How the health of an app is probed.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct HealthEntry {
    /// The path of the requests.
    pub path: String,
    /// The expected status. Without it, every status below 500 is accepted.
    pub status: Option<u16>,
    /// The seconds between two requests.
    pub interval: u16,
    /// The time limit of a request in seconds.
    pub timeout: u16,
    /// The time limit of all requests in seconds.
    pub deadline: u16,
    /// The successful requests in a row that are needed.
    pub consecutive: u16,
}

impl Default for HealthEntry {
    fn default() -> Self {
        Self {
            path: "/".into(),
            status: None,
            interval: 1,
            timeout: 5,
            deadline: 60,
            consecutive: 2,
        }
    }
}

/// A command that runs before or after a stage of each store.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed, transform = require_hook)]
pub struct HookEntry {
    /// Whether it runs before or after the stage.
    pub when: HookTime,
    /// The stage. It does not run for a store for which the stage has nothing to do.
    pub stage: HookStage,
    /// The program and its arguments. No shell reads them.
    pub command: Vec<String>,
    /// The stores for which it runs. Without it, the hook runs for all stores.
    pub stores: Option<Vec<String>>,
    /// Where it runs: on this machine in the project's folder, or in a container of the new image of an
    /// app.
    #[serde(rename = "in")]
    pub place: HookPlace,
    /// The app whose image is used with `"in": "image"`. The default is the middleware, or the only app
    /// of the store.
    pub app: Option<String>,
    /// Whether the store fails with the hook.
    pub on_failure: HookFailure,
    /// The time limit in seconds.
    pub timeout: u16,
    /// Environment variables. `${NAME}` in a value stands for a variable of the environment of this
    /// program; such a value is replaced by `***` in output.
    pub env: IndexMap<String, String>,
}

impl Default for HookEntry {
    fn default() -> Self {
        Self {
            when: HookTime::default(),
            stage: HookStage::default(),
            command: Vec::new(),
            stores: None,
            place: HookPlace::default(),
            app: None,
            on_failure: HookFailure::default(),
            timeout: 300,
            env: IndexMap::new(),
        }
    }
}
