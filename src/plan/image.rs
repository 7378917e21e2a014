//! Images to make: their references, Dockerfiles and labels.

use std::path::PathBuf;

use crate::config::{BaseApp, Project};
use crate::git::Revision;
use crate::store::{AppKind, Framework, UnitId};

use super::select::Chosen;
use super::task::is_built;
use super::{Error, StorePlan};

/// The full name of an image: `<registry>/<repository>:<tag>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host, port and path if any, without a scheme.
    pub registry: String,
    /// Repository below it.
    pub repository: String,
    /// Tag.
    pub tag: String,
}

impl Reference {
    /// Registry and repository, without the tag.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}

/// Where a Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dockerfile {
    /// The default one; its context is `.deploy` alone.
    Default(String),
    /// `image.dockerfile` of the config, with its text.
    Project(PathBuf, String),
    /// `Dockerfile` of the composed app, so inheritable.
    App,
}

/// One image to make.
#[derive(Debug, Clone)]
pub struct ImagePlan {
    /// Of which unit.
    pub unit: UnitId,
    /// What the app is.
    pub kind: AppKind,
    /// Its full name; none when the run ends before images are made.
    pub reference: Option<Reference>,
    /// The file that Node starts, relative to `.deploy`.
    pub entry: String,
    /// The port that it listens on.
    pub port: u16,
    /// How it is made.
    pub dockerfile: Dockerfile,
    /// Labels of the image.
    pub labels: Vec<(&'static str, String)>,
    /// Modification time of files in the image, in seconds: the commit's.
    pub modified: i64,
}

/// Images of the chosen units.
pub fn images(
    project: &Project,
    stores: &[StorePlan],
    chosen: &Chosen,
    registry: &str,
    tag: Option<&str>,
    revision: Option<&Revision>,
) -> Result<Vec<ImagePlan>, Error> {
    let registry = host(registry)?;
    let dockerfile = match &project.settings.image.dockerfile {
        Some(path) => {
            let path = project.root.join(path);
            let text = std::fs::read_to_string(&path).map_err(|source| Error::Dockerfile {
                path: path.clone(),
                source,
            })?;
            Some(Dockerfile::Project(path, text))
        }
        None => None,
    };
    let mut images = Vec::new();
    for store in stores {
        for composition in &store.compositions {
            let Some(app) = project.app(&composition.unit.app) else {
                continue;
            };
            if !is_built(app.kind, &app.package) || !chosen.contains(&composition.unit) {
                continue;
            }
            let entry = entry(app)?;
            let port = port(project, app);
            let dockerfile = if composition.entries.contains_key("Dockerfile") {
                Dockerfile::App
            } else {
                dockerfile.clone().unwrap_or_else(|| {
                    Dockerfile::Default(default(
                        &project.settings.image.base,
                        app.kind,
                        &entry,
                        port,
                    ))
                })
            };
            let reference = tag.map(|tag| Reference {
                registry: registry.clone(),
                repository: format!(
                    "{}-storefrontcloud-io/{}",
                    store.deployment.project_name,
                    image_name(project, app)
                ),
                tag: tag.to_owned(),
            });
            let mut labels = vec![
                ("com.alokai.app", composition.unit.app.to_string()),
                ("com.alokai.store", composition.unit.store.to_string()),
            ];
            if let Some(revision) = revision {
                labels.push(("org.opencontainers.image.revision", revision.sha.clone()));
            }
            images.push(ImagePlan {
                unit: composition.unit.clone(),
                kind: app.kind,
                reference,
                entry,
                port,
                dockerfile,
                labels,
                modified: revision.map_or(0, |revision| revision.time),
            });
        }
    }
    for (position, image) in images.iter().enumerate() {
        let same =
            |other: &&ImagePlan| other.reference.is_some() && other.reference == image.reference;
        if let (Some(other), Some(reference)) =
            (images[..position].iter().find(same), &image.reference)
        {
            return Err(Error::SameImage {
                units: vec![format!("`{}`", other.unit), format!("`{}`", image.unit)],
                reference: reference.to_string(),
            });
        }
    }
    Ok(images)
}

/// The registry without its scheme, which Docker's references do not have.
fn host(registry: &str) -> Result<String, Error> {
    let bare = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"))
        .unwrap_or(registry)
        .trim_end_matches('/');
    // Whatever stands before an `@` may be a password.
    let shown = bare.rsplit_once('@').map_or(bare, |(_, host)| host);
    let wrong = |why: &str| {
        Err(Error::Address {
            value: shown.escape_debug().to_string(),
            what: "registry",
            why: why.to_owned(),
            help: "give a host, with a port or a path if need be: `registry.example.com`",
        })
    };
    if bare.contains('@') {
        wrong(
            "credentials do not belong into the address; use `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD`",
        )
    } else if bare.is_empty() || !bare.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
    {
        wrong("it names no host")
    } else if bare.contains("://") {
        wrong("only `http` and `https` are spoken")
    } else if !bare
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '[' | ']'))
    {
        wrong("it has characters that no host has")
    } else {
        Ok(bare.to_owned())
    }
}

fn image_name(project: &Project, app: &BaseApp) -> String {
    if let Some(name) = project.settings.image.names.get(app.name.as_str()) {
        return name.clone();
    }
    match app.kind {
        AppKind::Frontend(_) => "vue-storefront".into(),
        AppKind::Middleware => "vue-storefront-middleware".into(),
        _ => app.name.as_str().to_lowercase(),
    }
}

/// Where an app listens in its container.
fn port(project: &Project, app: &BaseApp) -> u16 {
    match app.kind {
        AppKind::Middleware => super::release::MIDDLEWARE_PORT,
        AppKind::Frontend(_) => 3000,
        _ => project
            .settings
            .console
            .apps
            .get(app.name.as_str())
            .map_or(3000, |app| app.port),
    }
}

/// The file that Node starts.
pub fn entry(app: &BaseApp) -> Result<String, Error> {
    let of_main = || {
        app.package
            .main
            .clone()
            .unwrap_or_else(|| "index.js".into())
    };
    let of_script = || {
        let file = started_file(app.package.scripts.get("start")?)?;
        // `node .` starts what `main` names.
        Some(if file == "." { of_main() } else { file })
    };
    let of_main = || app.package.main.clone();
    let inside = |file: Option<String>| {
        let file = file.map(|file| file.trim_start_matches("./").to_owned());
        let is_inside = |file: &String| {
            let mut parts = std::path::Path::new(file).components();
            !file.is_empty() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        file.filter(is_inside).ok_or_else(|| Error::NoEntry {
            app: app.name.to_string(),
        })
    };
    match app.kind {
        AppKind::Frontend(Framework::Nextjs) => Ok("server.js".into()),
        AppKind::Frontend(Framework::Nuxt) => Ok("server/index.mjs".into()),
        AppKind::Middleware => inside(of_script().or_else(of_main).or(Some("lib/index.js".into()))),
        _ => inside(of_script().or_else(of_main)),
    }
}

/// The file of `node [options] <file>`, or nothing where the script is another.
fn started_file(script: &str) -> Option<String> {
    /// Options whose value is the next word.
    const WITH_VALUE: [&str; 8] = [
        "-r",
        "--require",
        "--import",
        "--loader",
        "--experimental-loader",
        "--env-file",
        "-C",
        "--conditions",
    ];
    let mut words = script.split_whitespace();
    if words.next()? != "node" {
        return None;
    }
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word.trim_matches(['"', '\'']).to_owned());
        }
    }
    None
}

/// The default Dockerfile. The app's own user owns the files, since Next.js writes pages that
/// it renders again beside the ones that were built.
fn default(base: &str, kind: AppKind, entry: &str, port: u16) -> String {
    // Docker sets HOSTNAME to the container's id; Next.js would listen on that address alone.
    let host = match kind {
        AppKind::Frontend(Framework::Nextjs) => " HOSTNAME=0.0.0.0",
        _ => "",
    };
    let entry = serde_json::Value::from(entry);
    format!(
        "FROM {base}\n\
         ENV NODE_ENV=production PORT={port}{host}\n\
         WORKDIR /var/www\n\
         COPY --chown=node:node ./.deploy/ ./\n\
         USER node\n\
         EXPOSE {port}\n\
         ENTRYPOINT [\"node\", {entry}]\n"
    )
}
