//! Releases: the console request for each store, as Alokai's public deploy action sends it.

use serde_json::{Map, Value, json};

use crate::config::{BaseApp, Project};
use crate::store::{AppKind, Deployment, StoreId, TargetKind};

use super::image::ImagePlan;
use super::{Error, StorePlan};

/// The console if config, environment and flags name none.
pub const DEFAULT_CONSOLE: &str = "https://api.platform.vuestorefront.io";

/// The port on which a middleware listens in its container.
pub const MIDDLEWARE_PORT: u16 = 4000;

/// A store that a run makes live.
#[derive(Debug, Clone)]
pub struct PlannedRelease {
    /// The store.
    pub store: StoreId,
    /// Where it runs.
    pub target: TargetKind,
    /// The request to the console, if the store runs there.
    pub console: Option<ConsoleRequest>,
}

/// The console request of one store. It contains no credentials; [`ConsoleRequest::body`] adds them.
#[derive(Debug, Clone)]
pub struct ConsoleRequest {
    /// The URL of the request.
    pub url: String,
    /// The public address of the store.
    pub address: String,
    tag: String,
    middleware: bool,
    additional: Map<String, Value>,
}

/// Plans the releases of these stores.
pub fn releases(
    project: &Project,
    stores: &[StorePlan],
    images: &[ImagePlan],
    console: &str,
    tag: &str,
) -> Result<Vec<PlannedRelease>, Error> {
    let mut left_out = Vec::new();
    let mut releases = Vec::new();
    for store in stores {
        // A release covers every app of the store, also apps that this run does not compose.
        let Some(known) = project.stores.get(store.id.as_str()) else {
            continue;
        };
        let mut names = Vec::new();
        let mut is_whole = true;
        for app in project.apps_of(known) {
            let is_own =
                |image: &&ImagePlan| image.unit.store == store.id && image.unit.app == app.name;
            match images.iter().find(is_own) {
                Some(image) => names.extend(image.reference.as_ref().map(|it| (app, it.name()))),
                None if super::task::is_built(app.kind, &app.package) => {
                    is_whole = false;
                    left_out.push(format!("`{}-{}`", app.name, store.id));
                }
                None => {}
            }
        }
        if names.is_empty() && is_whole {
            return Err(Error::NothingToDeploy {
                store: store.id.to_string(),
            });
        }
        let request = || ConsoleRequest::new(project, &store.deployment, &names, console, tag);
        let is_console = store.target == TargetKind::Console;
        releases.push(PlannedRelease {
            store: store.id.clone(),
            target: store.target,
            console: is_console.then(request).transpose()?,
        });
    }
    if left_out.is_empty() {
        Ok(releases)
    } else {
        Err(Error::PartialDeploy { left_out })
    }
}

/// Checks the console's address, which must not contain credentials.
pub fn check_console(console: &str) -> Result<&str, Error> {
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

impl ConsoleRequest {
    /// The request for the apps of a store, each with the name of its image, without the tag.
    pub fn new(
        project: &Project,
        deployment: &Deployment,
        apps: &[(&BaseApp, String)],
        console: &str,
        tag: &str,
    ) -> Result<Self, Error> {
        let console = check_console(console)?;
        let project_name = &deployment.project_name;
        let region = &deployment.cloud_region;
        let instance = format!("{project_name}-{region}-gcp-storefrontcloud-io");
        let mut request = Self {
            url: format!("{console}/cloud/instances/{instance}/deploy"),
            address: deployment.address.clone().unwrap_or_else(|| {
                format!("https://{project_name}.{region}.gcp.storefrontcloud.io")
            }),
            tag: tag.to_owned(),
            middleware: false,
            additional: Map::new(),
        };
        for (app, image) in apps {
            request.add(project, app, image);
        }
        Ok(request)
    }

    /// The tag of the images.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Adds an app with its image.
    fn add(&mut self, project: &Project, app: &BaseApp, image: &str) {
        self.middleware |= app.kind == AppKind::Middleware;
        if app.kind == AppKind::Other {
            let settings = project.settings.console.apps.get(app.name.as_str());
            let settings = settings.cloned().unwrap_or_default();
            self.additional.insert(
                app.name.to_string(),
                json!({
                    "name": app.name,
                    "tag": self.tag,
                    "image": image,
                    "path": settings.path.unwrap_or_else(|| format!("/{}/", app.name)),
                    "port": settings.port,
                    "has_base_path": settings.has_base_path,
                }),
            );
        }
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
