//! The images of a run: their references, Dockerfiles, builders and labels.

use std::path::{Path, PathBuf};

use crate::config::{BaseApp, Project};
use crate::git::Revision;
use crate::overlay::{Composition, EntryContent};
use crate::store::{AppKind, Deployment, Framework, UnitId};
use oci::dockerfile::{self, ParsedDockerfile, Refusal};
use oci::{Digest, Hasher, Platform};

use super::select::ChosenUnits;
use super::target::{DestinationPlan, DestinationReference};
use super::task::{Task, is_built, neutral_folder};
use super::task_map::TaskMap;
use super::{Error, StorePlan, callbacks};

/// The base of an image that has none: the scratch image.
pub const SCRATCH: &str = "scratch";

/// A Dockerfile, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Where it comes from.
    pub source: DockerfileSource,
    /// Its text.
    pub text: String,
}

/// Where a Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// The default Dockerfile. Its build context is `.deploy`.
    Default,
    /// `image.dockerfile` of the config. Its build context is `.deploy`.
    Project(PathBuf),
    /// `Dockerfile` of the composed app. The path is that of the layer's file.
    App(PathBuf),
}

impl Dockerfile {
    /// Its name in messages.
    fn name(&self, project: &Path) -> String {
        match &self.source {
            DockerfileSource::Default => "the default Dockerfile".into(),
            DockerfileSource::Project(path) | DockerfileSource::App(path) => path
                .strip_prefix(project)
                .unwrap_or(path)
                .display()
                .to_string(),
        }
    }

    /// The name in messages of a line that only Docker supports.
    pub fn line(&self, project: &Path, refusal: &Refusal) -> String {
        let Refusal {
            line, instruction, ..
        } = refusal;
        format!("line {line} of {}, `{instruction}`", self.name(project))
    }
}

/// The image builder that the user has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuilderChoice {
    /// This program if it supports the Dockerfile, else the Docker engine.
    #[default]
    Auto,
    /// Only this program.
    Oci,
    /// Only the Docker engine.
    Docker,
}

/// The builder of one image.
#[derive(Debug, Clone)]
pub enum ImageMaker {
    /// This program, which carries out the Dockerfile's recipe.
    Oci(ParsedDockerfile),
    /// The Docker engine: because of a line that only it supports, or because it was chosen.
    Docker(Option<Refusal>),
}

/// One image to build.
#[derive(Debug, Clone)]
pub struct ImagePlan {
    /// The unit.
    pub unit: UnitId,
    /// The kind of the app.
    pub kind: AppKind,
    /// Its reference; none if the run ends before the image stage.
    pub reference: Option<DestinationReference>,
    /// The folder in which its build script runs, relative to the project.
    pub built_in: String,
    /// The file that starts the app, relative to `.deploy`.
    pub entry: String,
    /// The script of the composed app that starts before the app, relative to the app. It is copied to
    /// [`super::DEPLOYED_ENTRYPOINT`] in `.deploy`.
    pub entrypoint: Option<String>,
    /// The port on which it listens.
    pub port: u16,
    /// Its Dockerfile.
    pub dockerfile: Dockerfile,
    /// Its builder.
    pub maker: ImageMaker,
    /// Its base images, as the Dockerfile names them.
    pub bases: Vec<String>,
    /// Its platform.
    pub platform: Platform,
    /// The digest of all inputs but the digests of base images.
    pub inputs: Digest,
    /// The labels of the image.
    pub labels: Vec<(&'static str, String)>,
    /// The modification time of files in the image, in seconds: the time of the commit.
    pub modified: i64,
}

impl ImagePlan {
    /// A key for each base image in this run: name and platform, in the order of [`Self::bases`].
    pub fn base_keys(&self) -> impl Iterator<Item = String> {
        self.bases
            .iter()
            .map(|base| format!("{base} {}", self.platform))
    }

    /// The label with the digest of all inputs. `bases` are the digests of the base images, in the
    /// order of [`Self::bases`].
    pub fn inputs_label<'a>(&self, bases: impl Iterator<Item = &'a str>) -> String {
        let mut hasher = Hasher::default();
        hasher.update(self.inputs.to_string().as_bytes());
        for base in bases {
            hasher.update(b"\n");
            hasher.update(base.as_bytes());
        }
        hasher.end().to_string()
    }
}

/// Plans the images of a run.
pub struct ImagePlanner<'a> {
    /// The project.
    pub project: &'a Project,
    /// Stores that take part.
    pub stores: &'a [StorePlan],
    /// Units that take part.
    pub chosen: &'a ChosenUnits,
    /// The tasks of the plan.
    pub tasks: &'a TaskMap<Task>,
    /// The destination of images.
    pub destination: &'a DestinationPlan,
    /// Their tag; none if the run ends before the image stage.
    pub tag: Option<&'a str>,
    /// The commit.
    pub revision: Option<&'a Revision>,
    /// The builder that the user has chosen.
    pub builder: BuilderChoice,
}

impl ImagePlanner<'_> {
    /// The images of the chosen units.
    pub fn images(&self) -> Result<Vec<ImagePlan>, Error> {
        let dockerfile = self.project_dockerfile()?;
        let mut images = Vec::new();
        for store in self.stores {
            for composition in &store.compositions {
                let Some(app) = self.project.app(&composition.unit.app) else {
                    continue;
                };
                if is_built(app.kind, &app.package) && self.chosen.contains(&composition.unit) {
                    images.push(self.image(store, composition, app, dockerfile.as_ref())?);
                }
            }
        }
        check_references(&images)?;
        Ok(images)
    }

    /// The Dockerfile that the config names.
    fn project_dockerfile(&self) -> Result<Option<Dockerfile>, Error> {
        Ok(match &self.project.settings.image.dockerfile {
            Some(path) => {
                let path = self.project.root.join(path);
                let text = std::fs::read_to_string(&path).map_err(|source| Error::Dockerfile {
                    path: path.clone(),
                    source,
                })?;
                let source = DockerfileSource::Project(path);
                Some(Dockerfile { source, text })
            }
            None => None,
        })
    }

    fn image(
        &self,
        store: &StorePlan,
        composition: &Composition,
        app: &BaseApp,
        dockerfile: Option<&Dockerfile>,
    ) -> Result<ImagePlan, Error> {
        let unit = &composition.unit;
        let entry = entry(app)?;
        let port = container_port(self.project, app);
        let script = callbacks::find(composition, callbacks::ENTRYPOINT);
        let file = match (own_dockerfile(composition)?, dockerfile) {
            (Some(own), _) => own,
            (None, Some(project)) => project.clone(),
            (None, None) => Dockerfile {
                source: DockerfileSource::Default,
                text: DefaultDockerfile {
                    base: &self.project.settings.image.base,
                    kind: app.kind,
                    entry: &entry,
                    port,
                    has_script: script.is_some(),
                }
                .text(),
            },
        };
        // Another Dockerfile has an entrypoint of its own.
        let entrypoint = script.filter(|_| file.source == DockerfileSource::Default);
        let reference = self.tag.map(|tag| DestinationReference {
            registry: self.destination.name().to_owned(),
            repository: repository(self.project, &store.deployment, app),
            tag: tag.to_owned(),
        });
        // Before the image stage there is nothing to build, so the Dockerfile need not be supported.
        let maker = match self.tag {
            Some(_) => self.maker(unit, &file)?,
            None => ImageMaker::Docker(None),
        };
        let bases = match &maker {
            ImageMaker::Oci(recipe) => vec![recipe.base().unwrap_or(SCRATCH).to_owned()],
            ImageMaker::Docker(_) => dockerfile::bases(&file.text),
        };
        Ok(ImagePlan {
            inputs: self.inputs(unit, &file, &entry),
            built_in: self.built_in(unit),
            labels: self.labels(unit),
            unit: unit.clone(),
            kind: app.kind,
            reference,
            entry,
            entrypoint,
            port,
            dockerfile: file,
            platform: match &maker {
                ImageMaker::Oci(recipe) => recipe.platform().and_then(|it| it.parse().ok()),
                ImageMaker::Docker(_) => None,
            }
            .unwrap_or_else(|| self.project.settings.platform.clone()),
            maker,
            bases,
            modified: self.revision.map_or(0, |revision| revision.time),
        })
    }

    fn built_in(&self, unit: &UnitId) -> String {
        let mut shared = self.project.settings.shared.iter();
        if shared.any(|app| app == unit.app.as_str()) {
            neutral_folder(&unit.app)
        } else {
            format!(".out/{unit}")
        }
    }

    fn labels(&self, unit: &UnitId) -> Vec<(&'static str, String)> {
        let mut labels = vec![
            ("com.alokai.app", unit.app.to_string()),
            ("com.alokai.store", unit.store.to_string()),
        ];
        if let Some(revision) = self.revision {
            labels.push(("org.opencontainers.image.revision", revision.sha.clone()));
        }
        labels
    }

    fn maker(&self, unit: &UnitId, file: &Dockerfile) -> Result<ImageMaker, Error> {
        if self.builder == BuilderChoice::Docker {
            return Ok(ImageMaker::Docker(None));
        }
        let refusal = match dockerfile::read(&file.text) {
            Ok(recipe) => return Ok(ImageMaker::Oci(recipe)),
            Err(refusal) => refusal,
        };
        // The engine pushes only to registries.
        let is_layout = matches!(self.destination, DestinationPlan::Layout { .. });
        if self.builder == BuilderChoice::Auto && !is_layout {
            return Ok(ImageMaker::Docker(Some(refusal)));
        }
        let into = if is_layout {
            format!(
                "for `{}`, because Docker does not write to a folder",
                self.destination.name()
            )
        } else {
            "with `--builder oci`".into()
        };
        Err(Error::NeedsDocker {
            unit: unit.to_string(),
            place: file.line(&self.project.root, &refusal).into(),
            why: refusal.why.into(),
            into: into.into(),
        })
    }

    /// The digest of the image's inputs: those of its build script, the rules of pruning, and the
    /// Dockerfile.
    fn inputs(&self, unit: &UnitId, dockerfile: &Dockerfile, entry: &str) -> Digest {
        let is_own = |task: &&Task| task.work.is_build() && task.subject.unit() == Some(unit);
        let task = self.tasks.values().find(is_own);
        let prune = &self.project.settings.prune;
        let document = serde_json::json!({
            "build": task.map(|task| task.source_digest),
            "drop": prune.drop.written(),
            "keepEnv": prune.keep_env,
            "verify": prune.verify,
            "entry": entry,
            "dockerfile": dockerfile.text,
            "platform": self.project.settings.image.platform,
        });
        Digest::of(document.to_string().as_bytes())
    }
}

/// The `Dockerfile` of the composed app, if it has one.
fn own_dockerfile(composition: &Composition) -> Result<Option<Dockerfile>, Error> {
    let Some(entry) = composition.entries.get("Dockerfile") else {
        return Ok(None);
    };
    let path = match entry.content() {
        EntryContent::Copy(path, _) => path.to_path_buf(),
        _ => PathBuf::from("Dockerfile"),
    };
    let text = entry.read().and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not valid UTF-8"))
    });
    let text = text.map_err(|source| Error::Dockerfile {
        path: path.clone(),
        source,
    })?;
    let source = DockerfileSource::App(path);
    Ok(Some(Dockerfile { source, text }))
}

/// Checks that each image has a reference of its own.
fn check_references(images: &[ImagePlan]) -> Result<(), Error> {
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
    Ok(())
}

/// The repository of an app's images, below the path of the registry.
pub fn repository(project: &Project, deployment: &Deployment, app: &BaseApp) -> String {
    format!(
        "{}-storefrontcloud-io/{}",
        deployment.project_name,
        image_name(project, app)
    )
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

/// The port on which an app listens in its container.
pub fn container_port(project: &Project, app: &BaseApp) -> u16 {
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

/// The file that starts the app.
pub fn entry(app: &BaseApp) -> Result<String, Error> {
    let of_main = || {
        app.package
            .main
            .clone()
            .unwrap_or_else(|| "index.js".into())
    };
    let of_script = || {
        let file = started_file(app.package.scripts.get("start")?)?;
        // `node .` starts the file that `main` names.
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

/// The file of a script `node [options] <file>`; none for any other script.
fn started_file(script: &str) -> Option<String> {
    /// Options with a value as the next word.
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

/// The default Dockerfile.
struct DefaultDockerfile<'a> {
    base: &'a str,
    kind: AppKind,
    entry: &'a str,
    port: u16,
    /// Whether the entrypoint script of the app runs first.
    has_script: bool,
}

impl DefaultDockerfile<'_> {
    /// The text. The container's user owns the files, because Next.js writes pages that it renders again
    /// beside the built ones.
    fn text(&self) -> String {
        let Self {
            base,
            kind,
            entry,
            port,
            has_script,
        } = self;
        // Docker sets HOSTNAME to the container's id, and Next.js listens only on that address.
        let host = match kind {
            AppKind::Frontend(Framework::Nextjs) => " HOSTNAME=0.0.0.0",
            _ => "",
        };
        let script: &[&str] = if *has_script {
            &["/bin/sh", callbacks::DEPLOYED_ENTRYPOINT]
        } else {
            &[]
        };
        let words = script.iter().copied().chain(["node", entry]);
        let words: Vec<_> = words
            .map(|word| serde_json::Value::from(word).to_string())
            .collect();
        format!(
            "FROM {base}\n\
             ENV NODE_ENV=production PORT={port}{host}\n\
             WORKDIR /var/www\n\
             COPY --chown=node:node ./.deploy/ ./\n\
             USER node\n\
             EXPOSE {port}\n\
             ENTRYPOINT [{}]\n",
            words.join(", ")
        )
    }
}
