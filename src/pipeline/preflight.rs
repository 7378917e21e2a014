//! Before the first build: is everything there that the last stage will need? A wrong
//! password costs a second here, and an hour after the builds.
//!
//! What is asked here holds for the whole run: which digests bases have, who makes which image,
//! and which images are where they go already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bollard::Docker;
use futures_util::StreamExt;
use tokio::sync::OnceCell;

use super::attest;
use super::base::{Base, Missing, Sources};
use super::builder::{Builder, DockerBuilder, Image, OciBuilder, Order};
use super::context::Context;
use super::destination::{Destination, packed};
use super::failure::{Error, StageError};
use super::skip;
use super::{deploy, docker};
use crate::event::{Events, Stage};
use crate::plan::{Builder as Wish, ImagePlan, Maker, Plan, Target};
use crate::registry;
use crate::store::UnitId;
use oci::{Digest, dockerfile};

/// Bases and images that are asked for at the same time.
const AT_ONCE: usize = 8;

/// What stages after the build need, all of it there.
#[derive(Default)]
pub struct Ready {
    docker: OnceCell<DockerBuilder>,
    oci: Option<OciBuilder>,
    destination: Option<Arc<Destination>>,
    bases: BTreeMap<String, Arc<Base>>,
    /// Units whose images the engine makes.
    by_engine: BTreeSet<UnitId>,
    /// Images that are where they go already, made of the same.
    pub there: Vec<skip::There>,
}

impl Ready {
    /// Makes an image. What only the engine can do may show first when a Dockerfile meets its base
    /// and its files: `ADD` of an archive, or a signal that is not known here.
    pub async fn build(
        &self,
        plan: &Plan,
        order: Order<'_>,
        context: &Arc<Context>,
    ) -> Result<Image, StageError> {
        let image = order.image;
        if self.by_engine.contains(&image.unit) {
            return self.engine(context).await?.build(order).await;
        }
        let built = self
            .oci
            .as_ref()
            .expect("there for all others")
            .build(order)
            .await;
        let is_layout = matches!(plan.target, Some(Target::Layout { .. }));
        match built {
            Err(StageError::Dockerfile(dockerfile::Error::Refused(refusal)))
                if plan.builder == Wish::Auto && !is_layout =>
            {
                let line = image.dockerfile.line(&plan.project, &refusal);
                context
                    .events
                    .notice(format!("{line}, needs the Docker engine: {}", refusal.why));
                self.engine(context).await?.build(order).await
            }
            other => other,
        }
    }

    /// Who has made an image.
    pub fn maker(&self, image: &Image) -> &dyn Builder {
        match &image.made {
            Some(_) => self.oci.as_ref().expect("it has made it"),
            None => self.docker.get().expect("it has made it"),
        }
    }

    async fn engine(&self, context: &Arc<Context>) -> Result<&DockerBuilder, docker::Error> {
        self.docker
            .get_or_try_init(async || {
                let docker = docker::connect(context.access.docker.as_deref()).await?;
                Ok(DockerBuilder::new(docker, Arc::clone(context)))
            })
            .await
    }

    /// Labels of an image, with what its bases are in this run.
    pub fn labels(&self, image: &ImagePlan) -> BTreeMap<String, String> {
        let planned = image.labels.iter();
        let mut labels: BTreeMap<String, String> = planned
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        labels.insert(skip::INPUTS.into(), self.inputs(image));
        // The last `FROM` is what the image is made from.
        if let Some(base) = self.bases_of(image).last() {
            labels.insert(
                "org.opencontainers.image.base.name".into(),
                base.name.clone(),
            );
            labels.insert(
                "org.opencontainers.image.base.digest".into(),
                base.digest.to_string(),
            );
        }
        labels
    }

    /// The digest of everything that an image is made of.
    pub fn inputs(&self, image: &ImagePlan) -> String {
        let bases: Vec<_> = self
            .bases_of(image)
            .map(|base| base.digest.to_string())
            .collect();
        image.inputs_label(bases.iter().map(String::as_str))
    }

    /// The bases of an image, pinned.
    pub fn bases_of<'a>(&'a self, image: &'a ImagePlan) -> impl Iterator<Item = &'a Arc<Base>> {
        let keys = image.base_keys();
        keys.filter_map(|key| self.bases.get(&key))
    }

    /// Where images go.
    pub fn destination(&self) -> &Destination {
        self.destination.as_ref().expect("the run pushes")
    }

    /// Tells of an image what is in it and what it was made of.
    pub async fn attest(
        &self,
        plan: &Plan,
        planned: &ImagePlan,
        image: &Image,
        digest: Digest,
        events: &Events,
    ) -> Result<(), StageError> {
        let destination = self.destination();
        attest::attach((plan, self), planned, image, digest, destination, events).await
    }
}

/// Asks engine, registry and console at once, and reports everything that is missing; then
/// bases and images.
pub async fn check(plan: &Plan, context: &Arc<Context>) -> Result<Ready, Error> {
    let _outside = context.events.outside();
    let interrupted = || Error::Interrupted {
        stage: Stage::Compose,
        failures: Vec::new(),
    };
    tokio::select! {
        ready = all(plan, context) => ready,
        () = context.interrupt.stopping() => Err(interrupted()),
    }
}

async fn all(plan: &Plan, context: &Arc<Context>) -> Result<Ready, Error> {
    if plan.until < Stage::Image {
        return Ok(Ready::default());
    }
    // Before anything is asked, since a registry would see the password.
    let exposed = exposed(plan, context);
    if !exposed.is_empty() {
        return Err(Error::Preflight { problems: exposed });
    }
    let is_docker = |image: &ImagePlan| matches!(image.maker, Maker::Docker(_));
    let engine = async {
        if !plan.images.iter().any(is_docker) {
            return Ok(None);
        }
        let docker = docker::connect(context.access.docker.as_deref()).await?;
        Ok(Some(docker))
    };
    let (engine, destination, console) =
        tokio::join!(engine, destination(plan, context), console(plan, context));
    let mut problems = Vec::new();
    let mut kept = |error: StageError| problems.push(error);
    let is_engine_missing = engine.is_err();
    let docker = engine.map_err(&mut kept).ok().flatten();
    let destination = destination.map_err(&mut kept).ok().flatten();
    let _ = console.map_err(&mut kept);
    let mut ready = if is_engine_missing {
        Ready::default()
    } else {
        let found = bases(plan, docker, context).await;
        let kept = |mut more: Vec<_>| problems.append(&mut more);
        found.map_err(kept).unwrap_or_default()
    };
    let failed = |problems| Error::Preflight { problems };
    if !problems.is_empty() {
        return Err(failed(problems));
    }
    ready.destination = destination.map(Arc::new);
    ready.oci = Some(OciBuilder::new(
        packed(&plan.project),
        ready.bases.clone(),
        ready.destination.clone(),
    ));
    if plan.until >= Stage::Push
        && let Some(destination) = ready.destination.clone()
    {
        ready.there = skip::look(plan, &ready, &destination, context)
            .await
            .map_err(failed)?;
    }
    for line in for_docker(plan, &ready) {
        context.events.notice(line);
    }
    Ok(ready)
}

/// Addresses to which the password would go where everybody on the way can read it.
fn exposed(plan: &Plan, context: &Context) -> Vec<StageError> {
    if context.access.trust.allow_insecure {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if plan.until >= Stage::Push
        && let Some(Target::Registry {
            address,
            is_insecure: false,
            ..
        }) = &plan.target
        && http_client::is_exposed(address)
    {
        problems.push(registry::Error::PlainHttp {
            server: "registry",
            address: address.clone(),
            help: "use `https://`; for a registry in a network of your own that has no TLS, set `registry.insecure` in `alokai.config.json` or pass `--allow-insecure`",
        });
    }
    if plan.until >= Stage::Deploy && !plan.local && http_client::is_exposed(&plan.console) {
        problems.push(registry::Error::PlainHttp {
            server: "console",
            address: plan.console.clone(),
            help: "use `https://` in `CLI_CONSOLE_API_URL` (or `console.url` in `alokai.config.json`), or pass `--allow-insecure` in a network of your own",
        });
    }
    problems.into_iter().map(StageError::from).collect()
}

/// Whether the engine has an image.
async fn asked(
    docker: &mut Option<Docker>,
    name: &str,
    context: &Context,
) -> Result<(), docker::Error> {
    docker::has(connected(docker, context).await?, name).await
}

/// The engine, which is connected to if it is not yet.
async fn connected<'a>(
    docker: &'a mut Option<Docker>,
    context: &Context,
) -> Result<&'a Docker, docker::Error> {
    let engine = match docker.take() {
        Some(engine) => engine,
        None => docker::connect(context.access.docker.as_deref()).await?,
    };
    Ok(docker.insert(engine))
}

/// Lines that made images Docker's: each once, however many stores have it.
fn for_docker(plan: &Plan, ready: &Ready) -> BTreeSet<String> {
    let is_there = |image: &&ImagePlan| {
        let mut there = ready.there.iter();
        there.any(|there| there.pushed.unit == image.unit)
    };
    let made = plan.images.iter().filter(|image| !is_there(image));
    made.filter_map(|image| {
        let Maker::Docker(Some(refusal)) = &image.maker else {
            return None;
        };
        let line = image.dockerfile.line(&plan.project, refusal);
        Some(format!("{line}, needs the Docker engine: {}", refusal.why))
    })
    .collect()
}

/// Where images go, with a login that works.
async fn destination(plan: &Plan, context: &Context) -> Result<Option<Destination>, StageError> {
    let Some(target) = plan.target.as_ref().filter(|_| plan.until >= Stage::Push) else {
        return Ok(None);
    };
    let destination = Destination::new(target, context).await?;
    if let Destination::Layout(folder) = &destination {
        // Made now, since what is in its way would be in the way of the first image.
        folder.layout()?;
    }
    if let Destination::Registry { client, .. } = &destination {
        let unauthorized = match client.check().await {
            Err(error @ oci_distribution::Error::Unauthorized { .. }) => error,
            other => return Ok(other.map(|()| Some(destination))?),
        };
        // Nobody has said who we are.
        if context
            .access
            .logins()
            .for_host(client.host())
            .await?
            .is_none()
        {
            return Err(StageError::from(registry::Error::NoCredentials {
                server: format!("the registry `{}`", target.name()),
                missing: context.access.missing.clone(),
            }));
        }
        return Err(unauthorized.into());
    }
    Ok(Some(destination))
}

async fn console(plan: &Plan, context: &Context) -> Result<(), StageError> {
    if plan.until < Stage::Deploy || plan.local {
        return Ok(());
    }
    if context.access.credentials.is_none() {
        return Err(StageError::from(registry::Error::NoCredentials {
            server: format!("the console `{}`", plan.console),
            missing: context.access.missing.clone(),
        }));
    }
    Ok(deploy::reach(&plan.console).await?)
}

/// Resolves every base, and decides by that who makes which image: a base that only the engine
/// has is the engine's.
async fn bases(
    plan: &Plan,
    mut docker: Option<Docker>,
    context: &Arc<Context>,
) -> Result<Ready, Vec<StageError>> {
    let layout = match &plan.target {
        Some(Target::Layout { folder, .. }) => Some(folder.as_path()),
        _ => None,
    };
    let sources = Sources {
        project: &plan.project,
        layout,
        context,
    };
    // By its key: the name, and the engine's or our own.
    let mut wanted = BTreeMap::new();
    for image in &plan.images {
        let by_engine = matches!(image.maker, Maker::Docker(_));
        for (key, name) in image.base_keys().zip(&image.bases) {
            wanted.insert((key, by_engine), (name, &image.platform));
        }
    }
    let mut ready = Ready::default();
    let mut problems = Vec::new();
    let own = wanted.iter().filter(|((_, by_engine), _)| !by_engine);
    let found: Vec<_> = futures_util::stream::iter(own)
        .map(async |((key, _), (name, platform))| (key, name, sources.find(name, platform).await))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut in_engine = BTreeSet::new();
    for (key, name, result) in found {
        // An engine may know images that no registry has: those that were built here.
        let may_ask = plan.builder == Wish::Auto && layout.is_none();
        let error = match result {
            Ok(base) if may_ask && base.has_triggers() => {
                match connected(&mut docker, context).await {
                    Ok(_) => drop(in_engine.insert(key.clone())),
                    Err(error) => problems.push(error.into()),
                }
                context.events.notice(format!(
                    "Docker makes the images on `{name}`, whose `ONBUILD` may run something"
                ));
                continue;
            }
            Ok(base) => {
                ready.bases.insert(key.clone(), Arc::new(base));
                continue;
            }
            Err(error) => error,
        };
        let asked = if may_ask {
            Some(asked(&mut docker, name, context).await)
        } else {
            None
        };
        let engine = match asked {
            Some(Ok(())) => {
                context.events.notice(format!(
                    "Docker makes the images on `{name}`, which it has and no registry gives: {error}"
                ));
                in_engine.insert(key.clone());
                continue;
            }
            Some(Err(error)) => Some(Box::new(error)),
            None => None,
        };
        problems.push(StageError::from(Missing {
            name: (*name).clone(),
            own: Box::new(error),
            engine,
        }));
    }
    if let Some(engine) = &docker {
        for ((key, by_engine), (name, _)) in &wanted {
            if *by_engine || in_engine.contains(key) {
                match docker::provide(engine, name, context).await {
                    // One that other images are made from without the engine is known better.
                    Ok(base) => {
                        let known = ready.bases.entry(key.clone());
                        known.or_insert_with(|| Arc::new(base));
                    }
                    Err(error) => problems.push(error.into()),
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for image in &plan.images {
        let by_engine = matches!(image.maker, Maker::Docker(_));
        if by_engine || image.base_keys().any(|key| in_engine.contains(&key)) {
            ready.by_engine.insert(image.unit.clone());
        }
    }
    if let Some(docker) = docker {
        ready.docker = OnceCell::new_with(Some(DockerBuilder::new(docker, Arc::clone(context))));
    }
    Ok(ready)
}
