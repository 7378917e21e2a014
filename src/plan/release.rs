//! The console's call, one a store: the request as Alokai's public deploy action makes it.

use serde_json::{Map, Value, json};

use crate::config::Project;
use crate::store::{AppKind, AppName, Framework, StoreId};

use super::image::ImagePlan;
use super::{Error, StorePlan};

/// The console where neither config, environment nor flag names one.
pub const DEFAULT_CONSOLE: &str = "https://api.platform.vuestorefront.io";

/// The port that a middleware listens on in its container.
pub const MIDDLEWARE_PORT: u16 = 4000;

/// One call of the console. The credentials join at the last moment, in [`Release::body`].
#[derive(Debug, Clone)]
pub struct Release {
    /// The store.
    pub store: StoreId,
    /// Where the request goes.
    pub url: String,
    /// Where visitors find the store.
    pub address: String,
    /// How each of its apps runs on this machine.
    pub runs: Vec<LocalRun>,
    tag: String,
    middleware: bool,
    additional: Map<String, Value>,
}

/// How an app runs on this machine, without a container.
#[derive(Debug, Clone)]
pub struct LocalRun {
    /// The app.
    pub app: AppName,
    /// Where it lies, relative to the project.
    pub folder: String,
    /// The file that Node starts.
    pub entry: String,
    /// Where it listens.
    pub port: u16,
    is_frontend: bool,
}

/// The calls for these stores.
pub fn releases(
    project: &Project,
    stores: &[StorePlan],
    images: &[ImagePlan],
    console: &str,
    tag: &str,
) -> Result<Vec<Release>, Error> {
    let console = console.trim_end_matches('/');
    let shown = console.rsplit_once('@').map_or(console, |(_, host)| host);
    let host = console
        .strip_prefix("https://")
        .or_else(|| console.strip_prefix("http://"))
        .unwrap_or_default();
    if host.is_empty() || console.contains(char::is_whitespace) || host.contains('@') {
        return Err(Error::Address {
            value: shown.escape_debug().to_string(),
            what: "console address",
            why: "it has to be `http(s)://` and a host, without credentials".into(),
            help: "set `CLI_CONSOLE_API_URL` or `--console-api-url`, such as `https://api.platform.vuestorefront.io`",
        });
    }
    let mut left_out = Vec::new();
    let mut releases = Vec::new();
    for store in stores {
        let mut middleware = false;
        let mut additional = Map::new();
        let mut runs = Vec::new();
        // Every app of the store, composed now or not: a release is of the whole store.
        let Some(known) = project.stores.get(store.id.as_str()) else {
            continue;
        };
        for app in project.apps_of(known) {
            let image = images
                .iter()
                .find(|image| image.unit.store == store.id && image.unit.app == app.name);
            let Some(image) = image else {
                if super::task::is_built(app.kind, &app.package) {
                    left_out.push(format!("`{}-{}`", app.name, store.id));
                }
                continue;
            };
            middleware |= app.kind == AppKind::Middleware;
            runs.push(LocalRun {
                app: app.name.clone(),
                folder: format!(".out/{}/{}/.deploy", store.id, app.name),
                entry: image.entry.clone(),
                port: local_port(project, &store.id, app.kind).unwrap_or(image.port),
                is_frontend: app.kind.framework().is_some(),
            });
            if app.kind == AppKind::Other
                && let Some(reference) = &image.reference
            {
                let listens = project
                    .settings
                    .console
                    .apps
                    .get(app.name.as_str())
                    .cloned();
                let listens = listens.unwrap_or_default();
                additional.insert(
                    app.name.to_string(),
                    json!({
                        "name": app.name,
                        "tag": tag,
                        "image": reference.name(),
                        "path": listens.path.unwrap_or_else(|| format!("/{}/", app.name)),
                        "port": listens.port,
                        "has_base_path": listens.has_base_path,
                    }),
                );
            }
        }
        if !images.iter().any(|image| image.unit.store == store.id) && left_out.is_empty() {
            return Err(Error::NothingToDeploy {
                store: store.id.to_string(),
            });
        }
        let project_name = &store.deployment.project_name;
        let region = &store.deployment.cloud_region;
        let instance = format!("{project_name}-{region}-gcp-storefrontcloud-io");
        releases.push(Release {
            store: store.id.clone(),
            url: format!("{console}/cloud/instances/{instance}/deploy"),
            address: format!("https://{project_name}.{region}.gcp.storefrontcloud.io"),
            runs,
            tag: tag.to_owned(),
            middleware,
            additional,
        });
    }
    if left_out.is_empty() {
        Ok(releases)
    } else {
        Err(Error::PartialDeploy { left_out })
    }
}

/// The port that the config gives an app of the store on developers' machines.
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
    /// Where the store is found when it runs on this machine.
    pub fn local_address(&self) -> String {
        let frontend = self.runs.iter().find(|run| run.is_frontend);
        let port = frontend.or(self.runs.first()).map_or(0, |run| run.port);
        format!("http://localhost:{port}")
    }

    /// What starts each app on this machine, from the project's folder.
    pub fn commands(&self) -> Vec<String> {
        let command =
            |run: &LocalRun| format!("PORT={} node {}/{}", run.port, run.folder, run.entry);
        self.runs.iter().map(command).collect()
    }

    /// The request's body. The two odd keys are the public action's own.
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
