//! Releases: the console request for each store, as Alokai's public deploy action sends it.

use serde_json::{Map, Value, json};

use crate::config::{BaseApp, Project};
use crate::store::{AppKind, AppName, Framework, StoreId};

use super::image::ImagePlan;
use super::{Error, StorePlan};

/// The console if config, environment and flags name none.
pub const DEFAULT_CONSOLE: &str = "https://api.platform.vuestorefront.io";

/// The port on which a middleware listens in its container.
pub const MIDDLEWARE_PORT: u16 = 4000;

/// The console request of one store. It contains no credentials; [`Release::body`] adds them.
#[derive(Debug, Clone)]
pub struct Release {
    /// The store.
    pub store: StoreId,
    /// The URL of the request.
    pub url: String,
    /// The public address of the store.
    pub address: String,
    /// How to run each of its apps on this machine.
    pub runs: Vec<LocalRun>,
    tag: String,
    middleware: bool,
    additional: Map<String, Value>,
}

/// How to run an app on this machine, without a container.
#[derive(Debug, Clone)]
pub struct LocalRun {
    /// The app.
    pub app: AppName,
    /// Its folder, relative to the project.
    pub folder: String,
    /// The file that starts the app.
    pub entry: String,
    /// The port on which it listens.
    pub port: u16,
    is_frontend: bool,
}

/// Plans the releases of these stores.
pub fn releases(
    project: &Project,
    stores: &[StorePlan],
    images: &[ImagePlan],
    console: &str,
    tag: &str,
) -> Result<Vec<Release>, Error> {
    let console = checked(console)?;
    let mut left_out = Vec::new();
    let mut releases = Vec::new();
    for store in stores {
        // A release covers every app of the store, also apps that this run does not compose.
        let Some(known) = project.stores.get(store.id.as_str()) else {
            continue;
        };
        let mut release = Release::new(store, console, tag);
        let mut has_image = false;
        for app in project.apps_of(known) {
            let is_own =
                |image: &&ImagePlan| image.unit.store == store.id && image.unit.app == app.name;
            match images.iter().find(is_own) {
                Some(image) => {
                    has_image = true;
                    release.add(project, app, image);
                }
                None if super::task::is_built(app.kind, &app.package) => {
                    left_out.push(format!("`{}-{}`", app.name, store.id));
                }
                None => {}
            }
        }
        if !has_image && left_out.is_empty() {
            return Err(Error::NothingToDeploy {
                store: store.id.to_string(),
            });
        }
        releases.push(release);
    }
    if left_out.is_empty() {
        Ok(releases)
    } else {
        Err(Error::PartialDeploy { left_out })
    }
}

/// Checks the console's address, which must not contain credentials.
fn checked(console: &str) -> Result<&str, Error> {
    let console = console.trim_end_matches('/');
    let host = console
        .strip_prefix("https://")
        .or_else(|| console.strip_prefix("http://"))
        .unwrap_or_default();
    if !host.is_empty() && !console.contains(char::is_whitespace) && !host.contains('@') {
        return Ok(console);
    }
    // The part before an `@` may contain a password.
    let shown = console.rsplit_once('@').map_or(console, |(_, host)| host);
    Err(Error::Address {
        value: shown.escape_debug().to_string(),
        what: "console address",
        why: "it must be `https://` or `http://` and a host, without credentials".into(),
        help: "set `CLI_CONSOLE_API_URL` or `--console-api-url`, such as `https://api.platform.vuestorefront.io`",
    })
}

/// The port that `localPorts` of the store gives the app.
fn local_port(project: &Project, store: &StoreId, kind: AppKind) -> Option<u16> {
    let key = match kind {
        AppKind::Middleware => "middleware",
        AppKind::Frontend(Framework::Nextjs) => "nextjs",
        AppKind::Frontend(Framework::Nuxt) => "nuxt",
        _ => return None,
    };
    let mut local = project.local.iter();
    let (_, local) = local.find(|(id, _)| *id == *store.as_str())?;
    let port = local.ports.iter().find(|(app, _)| *app == key)?;
    Some(port.1)
}

impl Release {
    /// A release of the store without any app.
    fn new(store: &StorePlan, console: &str, tag: &str) -> Self {
        let project_name = &store.deployment.project_name;
        let region = &store.deployment.cloud_region;
        let instance = format!("{project_name}-{region}-gcp-storefrontcloud-io");
        Self {
            store: store.id.clone(),
            url: format!("{console}/cloud/instances/{instance}/deploy"),
            address: format!("https://{project_name}.{region}.gcp.storefrontcloud.io"),
            runs: Vec::new(),
            tag: tag.to_owned(),
            middleware: false,
            additional: Map::new(),
        }
    }

    /// Adds an app with its image.
    fn add(&mut self, project: &Project, app: &BaseApp, image: &ImagePlan) {
        self.middleware |= app.kind == AppKind::Middleware;
        self.runs.push(LocalRun {
            app: app.name.clone(),
            folder: format!(".out/{}/{}/.deploy", self.store, app.name),
            entry: image.entry.clone(),
            port: local_port(project, &self.store, app.kind).unwrap_or(image.port),
            is_frontend: app.kind.framework().is_some(),
        });
        if app.kind == AppKind::Other
            && let Some(reference) = &image.reference
        {
            let settings = project.settings.console.apps.get(app.name.as_str());
            let settings = settings.cloned().unwrap_or_default();
            self.additional.insert(
                app.name.to_string(),
                json!({
                    "name": app.name,
                    "tag": self.tag,
                    "image": reference.name(),
                    "path": settings.path.unwrap_or_else(|| format!("/{}/", app.name)),
                    "port": settings.port,
                    "has_base_path": settings.has_base_path,
                }),
            );
        }
    }

    /// The store's address when it runs on this machine.
    pub fn local_address(&self) -> String {
        let frontend = self.runs.iter().find(|run| run.is_frontend);
        let port = frontend.or(self.runs.first()).map_or(0, |run| run.port);
        format!("http://localhost:{port}")
    }

    /// The commands that start each app on this machine, in the project's folder.
    pub fn commands(&self) -> Vec<String> {
        let command =
            |run: &LocalRun| format!("PORT={} node {}/{}", run.port, run.folder, run.entry);
        self.runs.iter().map(command).collect()
    }

    /// The body of the request. The keys of the two variables are those of the public deploy action.
    pub fn body(&self, user: &str, password: &str) -> Value {
        let mut body = json!({
            "middleware": self.middleware,
            "cloudUserId": user,
            "cloudUserPassword": password,
            "dockerImageHash": self.tag,
            "env_var": {
                "03731de5-5ff9-49d9-a6e5-8af9c4fa75d9": {
                    "name": "NUXT_PUBLIC_ALOKAI_MIDDLEWARE_CDN_CACHE_BUSTING_ID",
                    "value": self.tag,
                    "is_secret": false,
                },
                "03731de5-5ff9-49d9-a6e5-8af9c4fa75": {
                    "name": "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_CDN_CACHE_BUSTING_ID",
                    "value": self.tag,
                    "is_secret": false,
                },
            },
        });
        if self.middleware {
            body["middlewareData"] =
                json!({ "path": "/api/", "port": MIDDLEWARE_PORT, "has_base_path": false });
        }
        if !self.additional.is_empty() {
            body["additionalApps"] = json!({ "apps": self.additional });
        }
        body
    }
}
