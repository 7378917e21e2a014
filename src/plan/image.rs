//! Images to make: their references, Dockerfiles and labels.

use std::path::{Path, PathBuf};

use crate::config::{BaseApp, Project};
use crate::git::Revision;
use crate::overlay::{Composition, EntryContent};
use crate::store::{AppKind, Framework, UnitId};
use oci::dockerfile::{self, ParsedDockerfile, Refusal};
use oci::{Digest, Hasher, Platform};

use super::select::ChosenUnits;
use super::target::{DestinationPlan, DestinationReference};
use super::task::{BUILD, Task, is_built, neutral_folder};
use super::{Error, StorePlan};

/// What an image is made from that is made from nothing.
pub const SCRATCH: &str = "scratch";

/// A Dockerfile, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Whose.
    pub source: DockerfileSource,
    /// As written.
    pub text: String,
}

/// Where a Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// The default one; its context is `.deploy` alone.
    Default,
    /// `image.dockerfile` of the config; its context is `.deploy` alone.
    Project(PathBuf),
    /// `Dockerfile` of the composed app, so inheritable; this is the layer's file.
    App(PathBuf),
}

impl Dockerfile {
    /// How people are told of it.
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

    /// How people are told of a line that only Docker can carry out.
    pub fn line(&self, project: &Path, refusal: &Refusal) -> String {
        let Refusal {
            line, instruction, ..
        } = refusal;
        format!("line {line} of {}, `{instruction}`", self.name(project))
    }
}

/// Who is to make images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuilderChoice {
    /// This program where a Dockerfile allows it, else the Docker engine.
    #[default]
    Auto,
    /// This program alone.
    Oci,
    /// The Docker engine alone.
    Docker,
}

/// How one image is made.
#[derive(Debug, Clone)]
pub enum ImageMaker {
    /// By this program: nothing has to run for it.
    Oci(ParsedDockerfile),
    /// By the Docker engine; with the line that needs it, or because it was asked for.
    Docker(Option<Refusal>),
}

/// One image to make.
#[derive(Debug, Clone)]
pub struct ImagePlan {
    /// Of which unit.
    pub unit: UnitId,
    /// What the app is.
    pub kind: AppKind,
    /// Its full name; none when the run ends before images are made.
    pub reference: Option<DestinationReference>,
    /// Where its build script runs, relative to the project.
    pub built_in: String,
    /// The file that Node starts, relative to `.deploy`.
    pub entry: String,
    /// The port that it listens on.
    pub port: u16,
    /// How it is made.
    pub dockerfile: Dockerfile,
    /// By whom.
    pub maker: ImageMaker,
    /// Images that it is made from, as its Dockerfile names them.
    pub bases: Vec<String>,
    /// What it runs on.
    pub platform: Platform,
    /// Of everything that decides what is in it, but for what its bases are at the time.
    pub inputs: Digest,
    /// Labels of the image.
    pub labels: Vec<(&'static str, String)>,
    /// Modification time of files in the image, in seconds: the commit's.
    pub modified: i64,
}

impl ImagePlan {
    /// What its bases are known by in one run: name and platform, in the order of [`Self::bases`].
    pub fn base_keys(&self) -> impl Iterator<Item = String> {
        self.bases
            .iter()
            .map(|base| format!("{base} {}", self.platform))
    }

    /// The label that says what the image is made of. `bases` are digests, in the order of
    /// [`Self::bases`].
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

/// What images are planned from.
pub struct ImagePlanner<'a> {
    /// The project.
    pub project: &'a Project,
    /// Stores that take part.
    pub stores: &'a [StorePlan],
    /// Units that take part.
    pub chosen: &'a ChosenUnits,
    /// Their scripts, with keys.
    pub tasks: &'a [Task],
    /// Where images go.
    pub target: &'a DestinationPlan,
    /// Their tag; none when the run ends before images are made.
    pub tag: Option<&'a str>,
    /// The commit.
    pub revision: Option<&'a Revision>,
    /// Who is to make them.
    pub builder: BuilderChoice,
}

impl ImagePlanner<'_> {
    /// Images of the chosen units.
    pub fn images(&self) -> Result<Vec<ImagePlan>, Error> {
        let dockerfile = match &self.project.settings.image.dockerfile {
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
        };
        let mut images = Vec::new();
        for store in self.stores {
            for composition in &store.compositions {
                let Some(app) = self.project.app(&composition.unit.app) else {
                    continue;
                };
                if is_built(app.kind, &app.package) && self.chosen.contains(&composition.unit) {
                    images.push(self.image(store, composition, app, dockerfile.clone())?);
                }
            }
        }
        no_name_twice(&images)?;
        Ok(images)
    }

    fn image(
        &self,
        store: &StorePlan,
        composition: &Composition,
        app: &BaseApp,
        dockerfile: Option<Dockerfile>,
    ) -> Result<ImagePlan, Error> {
        let unit = &composition.unit;
        let entry = entry(app)?;
        let port = port(self.project, app);
        let file = match (own_dockerfile(composition)?, dockerfile) {
            (Some(own), _) => own,
            (None, Some(project)) => project,
            (None, None) => Dockerfile {
                source: DockerfileSource::Default,
                text: default(&self.project.settings.image.base, app.kind, &entry, port),
            },
        };
        let reference = self.tag.map(|tag| DestinationReference {
            registry: self.target.name().to_owned(),
            repository: format!(
                "{}-storefrontcloud-io/{}",
                store.deployment.project_name,
                image_name(self.project, app)
            ),
            tag: tag.to_owned(),
        });
        let mut labels = vec![
            ("com.alokai.app", unit.app.to_string()),
            ("com.alokai.store", unit.store.to_string()),
        ];
        if let Some(revision) = self.revision {
            labels.push(("org.opencontainers.image.revision", revision.sha.clone()));
        }
        // Who makes it matters only where it is made.
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
            built_in: if self
                .project
                .settings
                .shared
                .iter()
                .any(|it| it == app.name.as_str())
            {
                neutral_folder(&app.name)
            } else {
                format!(".out/{unit}")
            },
            unit: unit.clone(),
            kind: app.kind,
            reference,
            entry,
            port,
            dockerfile: file,
            platform: match &maker {
                ImageMaker::Oci(recipe) => recipe.platform().and_then(|it| it.parse().ok()),
                ImageMaker::Docker(_) => None,
            }
            .unwrap_or_else(|| self.project.settings.platform.clone()),
            maker,
            bases,
            labels,
            modified: self.revision.map_or(0, |revision| revision.time),
        })
    }

    fn maker(&self, unit: &UnitId, file: &Dockerfile) -> Result<ImageMaker, Error> {
        if self.builder == BuilderChoice::Docker {
            return Ok(ImageMaker::Docker(None));
        }
        let refusal = match dockerfile::read(&file.text) {
            Ok(recipe) => return Ok(ImageMaker::Oci(recipe)),
            Err(refusal) => refusal,
        };
        // The engine pushes to registries, and to nothing else.
        let is_layout = matches!(self.target, DestinationPlan::Layout { .. });
        if self.builder == BuilderChoice::Auto && !is_layout {
            return Ok(ImageMaker::Docker(Some(refusal)));
        }
        let into = if is_layout {
            format!("into `{}`, which Docker does not write", self.target.name())
        } else {
            "by `--builder oci`".into()
        };
        Err(Error::NeedsDocker {
            unit: unit.to_string(),
            place: file.line(&self.project.root, &refusal).into(),
            why: refusal.why.into(),
            into: into.into(),
        })
    }

    /// The digest of everything that decides what is in the image: what its script sees, how
    /// the result is pruned, and how it is made an image.
    fn inputs(&self, unit: &UnitId, dockerfile: &Dockerfile, entry: &str) -> Digest {
        let is_own = |task: &&Task| task.script == BUILD && task.subject.unit() == Some(unit);
        let task = self.tasks.iter().find(is_own);
        let prune = &self.project.settings.prune;
        let document = serde_json::json!({
            "build": task.map(|task| task.source_digest),
            "drop": prune.drop.written(),
            "keepEnv": prune.keep_env,
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

fn no_name_twice(images: &[ImagePlan]) -> Result<(), Error> {
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
