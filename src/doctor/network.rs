//! The services that a deploy needs: registry, base image, targets, remote cache, Docker. They are
//! checked at the same time, each within a time limit.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{Diagnosis, Examination, ProblemKind, TIMEOUT};
use crate::config::Project;
use crate::pipeline::{self, DeployError, DeployFault, StageError};
use crate::plan::{self, DestinationPlan};
use crate::registry::Error as RegistryError;
use crate::store::TargetKind;
use crate::target::{self, TargetContext, target_of};
use oci_distribution::Error as ClientError;

/// The most seconds by which clocks may differ. Tokens of registries are valid for minutes.
const CLOCK_LIMIT: i64 = 300;

/// A diagnosis, and the clock difference if the response of the service has a date.
type Answer = (Diagnosis, Option<i64>);

/// Checks all services.
pub async fn check(subject: &Examination<'_>) -> Vec<Diagnosis> {
    let (Ok(project), Some(context)) = (subject.project, subject.targets) else {
        // Without a config the addresses are not known.
        return vec![engine(subject).await];
    };
    let destination = plan::destination_of(project, &subject.registry);
    let stores = stores_by_target(project);
    let has_console = stores.contains_key(TargetKind::Console.name());
    let others = stores.into_values();
    let others = others.filter(|(kind, _)| *kind != TargetKind::Console);
    let others = others.map(|(kind, count)| target(kind, count, context));
    let (registry, base, console, others, remote, docker) = tokio::join!(
        registry(project, subject, &destination),
        base(project, subject, &destination),
        async {
            if has_console {
                Some(console(project, subject).await)
            } else {
                None
            }
        },
        join_all(others),
        remote(subject),
        engine(subject),
    );
    let mut found = Vec::new();
    found.extend(credentials(subject, has_console));
    found.extend(base);
    let mut servers = Vec::new();
    if !matches!(destination, Ok(DestinationPlan::Layout { .. })) {
        servers.push(("registry", registry.1));
    }
    found.push(registry.0);
    if let Some((console, difference)) = console {
        servers.push(("console", difference));
        found.push(console);
    }
    found.extend(others);
    found.extend(remote);
    found.push(docker);
    found.extend(clock(&servers));
    found
}

/// The targets of the deployable stores, each with the number of its stores.
fn stores_by_target(project: &Project) -> BTreeMap<&'static str, (TargetKind, usize)> {
    let mut targets = BTreeMap::new();
    let deployments = project.stores.deployables().map(|it| it.deployment.iter());
    for deployment in deployments.flatten() {
        let kind = project.target_of(deployment);
        targets.entry(kind.name()).or_insert((kind, 0)).1 += 1;
    }
    targets
}

/// Checks a target as a deploy does before its first build.
async fn target(kind: TargetKind, stores: usize, context: &TargetContext) -> Diagnosis {
    let (check, next) = match kind {
        TargetKind::Console => ("console", "check `console` in `alokai.config.json`"),
        TargetKind::Local => ("target local", "check that `node` runs"),
        TargetKind::Docker => ("target docker", "check `DOCKER_HOST` and `deploy.docker`"),
        TargetKind::Swarm => ("target swarm", "check `DOCKER_HOST` and `deploy.swarm`"),
        TargetKind::Kubernetes => (
            "target kubernetes",
            "check `deploy.kubernetes`, and the cluster of `kubectl`",
        ),
        TargetKind::Command => ("target command", "check `deploy.command`"),
    };
    let context = context.clone();
    let asked = limited(check, next, async {
        // Making a target may ask a program.
        let made = tokio::task::spawn_blocking(move || target_of(kind, &context)).await;
        let made = made.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        Ok(made?.preflight().await?)
    });
    match asked.await {
        Ok(()) => {
            let noun = if stores == 1 { "store" } else { "stores" };
            Diagnosis::ok(check, format!("can be used by {stores} {noun}"))
        }
        Err(problem) => problem,
    }
}

/// The result of a request within the time limit.
async fn limited<T>(
    check: &'static str,
    next: &str,
    request: impl Future<Output = Result<T, StageError>>,
) -> Result<T, Diagnosis> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Diagnosis::of_error(check, kind(&error), &error)),
        Err(_) => Err(Diagnosis::problem(
            check,
            ProblemKind::External,
            format!("no response within {} s", TIMEOUT.as_secs()),
            next,
        )),
    }
}

fn kind(error: &StageError) -> ProblemKind {
    match error {
        StageError::Registry(
            RegistryError::PlainHttp { .. }
            | RegistryError::Client(
                ClientError::Certificates { .. } | ClientError::InvalidName { .. },
            ),
        )
        | StageError::Deploy(DeployError {
            fault: DeployFault::Input,
            ..
        }) => ProblemKind::Input,
        _ => ProblemKind::External,
    }
}

/// The console always needs credentials. Whether the registry does is known when it was asked.
fn credentials(subject: &Examination, has_console: bool) -> Option<Diagnosis> {
    const CHECK: &str = "credentials";
    let access = &subject.services.access;
    match &access.credentials {
        Some(credentials) => {
            let found = format!("set, for the user `{}`", credentials.user);
            Some(Diagnosis::ok(CHECK, found))
        }
        None => has_console.then(|| Diagnosis::problem(
            CHECK,
            ProblemKind::External,
            format!("not set: {}", access.missing.join(" and ")),
            "set them in the environment or in `.env`; only a deploy to the console needs them, and not `store deploy --local`",
        )),
    }
}

async fn registry(
    project: &Project,
    subject: &Examination<'_>,
    destination: &Result<DestinationPlan, plan::Error>,
) -> Answer {
    const CHECK: &str = "registry";
    let (address, host, is_insecure) = match destination {
        Ok(DestinationPlan::Registry {
            address,
            host,
            is_insecure,
        }) => (address.clone(), host, *is_insecure),
        Ok(DestinationPlan::Layout { name, .. }) => {
            let found = format!("`{name}` is a folder on this machine");
            return (Diagnosis::ok(CHECK, found), None);
        }
        Err(error) => return (Diagnosis::of_error(CHECK, ProblemKind::Input, error), None),
    };
    let is_allowed = is_insecure || subject.services.access.trust.allow_insecure;
    if !is_allowed && http_client::is_exposed(&address) {
        let error = RegistryError::PlainHttp {
            server: "registry",
            address,
            help: "use `https://`; for a registry without TLS in a private network, set `registry.insecure` in `alokai.config.json`",
        };
        return (Diagnosis::of_error(CHECK, ProblemKind::Input, &error), None);
    }
    let path = host
        .split_once('/')
        .map_or(String::new(), |(_, path)| format!("{path}/"));
    let repositories = plan::repositories_of(project).into_iter();
    let repositories: Vec<_> = repositories.map(|it| format!("{path}{it}")).collect();
    let asked = pipeline::registry(&address, &repositories, subject.services);
    let next = "check the address (`CLI_DOCKER_REGISTRY_URL`, or `registry.url` in `alokai.config.json`) and the network";
    match limited(CHECK, next, asked).await {
        Ok(client) => {
            let push = match repositories.len() {
                0 => "no store to push".to_owned(),
                1 => "push is allowed".to_owned(),
                count => format!("push is allowed to all {count} stores"),
            };
            let found = format!(
                "{} accepts requests {}; {push}",
                client.host(),
                client.account()
            );
            (Diagnosis::ok(CHECK, found), client.clock_difference())
        }
        Err(problem) => {
            let client = subject.services.client(&address).await.ok();
            let difference = client.and_then(|client| client.clock_difference());
            (problem, difference)
        }
    }
}

/// Not checked without a destination, in which the base image may be.
async fn base(
    project: &Project,
    subject: &Examination<'_>,
    destination: &Result<DestinationPlan, plan::Error>,
) -> Option<Diagnosis> {
    const CHECK: &str = "base image";
    let destination = destination.as_ref().ok()?;
    let name = &project.settings.image.base;
    let platform = &project.settings.platform;
    let root = &project.root;
    let asked = pipeline::base_image(root, destination, name, platform, subject.services);
    let next = "check `image.base` in `alokai.config.json` and the network";
    Some(match limited(CHECK, next, asked).await {
        Ok(Some(digest)) => {
            let digest = digest.to_string();
            let short = digest.get(..19).unwrap_or(&digest);
            Diagnosis::ok(CHECK, format!("{name} for {platform}: {short}"))
        }
        Ok(None) => Diagnosis::ok(CHECK, format!("{name}, in the Docker engine")),
        Err(problem) => problem,
    })
}

async fn console(project: &Project, subject: &Examination<'_>) -> Answer {
    const CHECK: &str = "console";
    let address = plan::console_of(project, &subject.console);
    if let Err(error) = plan::check_console(&address) {
        return (Diagnosis::of_error(CHECK, ProblemKind::Input, &error), None);
    }
    if !subject.services.access.trust.allow_insecure && http_client::is_exposed(&address) {
        let error = RegistryError::PlainHttp {
            server: "console",
            address,
            help: "use `https://` in `CLI_CONSOLE_API_URL` (or `console.url` in `alokai.config.json`)",
        };
        return (Diagnosis::of_error(CHECK, ProblemKind::Input, &error), None);
    }
    let next = "check the address (`CLI_CONSOLE_API_URL`, or `console.url` in `alokai.config.json`) and the network";
    match limited(CHECK, next, async {
        Ok(target::reach_console(&address)
            .await
            .map_err(target::Error::from)?)
    })
    .await
    {
        Ok(difference) => {
            let found = format!("{address} responds; the password is sent only by a deploy");
            (Diagnosis::ok(CHECK, found), difference)
        }
        Err(problem) => (problem, None),
    }
}

async fn remote(subject: &Examination<'_>) -> Option<Diagnosis> {
    const CHECK: &str = "remote cache";
    let next = "check `TURBO_API`, `TURBO_TEAM` and `TURBO_TOKEN`; builds work without it";
    let remote = match &subject.remote {
        Ok(Some(remote)) => remote,
        Ok(None) => return None,
        Err(reason) => return Some(Diagnosis::warning(CHECK, reason, next)),
    };
    Some(match tokio::time::timeout(TIMEOUT, remote.check()).await {
        Ok(Ok(())) => Diagnosis::ok(CHECK, "responds, and accepts the token"),
        Ok(Err(reason)) => Diagnosis::warning(CHECK, reason, next),
        Err(_) => {
            let reason = format!("no response within {} s", TIMEOUT.as_secs());
            Diagnosis::warning(CHECK, reason, next)
        }
    })
}

async fn engine(subject: &Examination<'_>) -> Diagnosis {
    const CHECK: &str = "docker";
    let asked = limited(
        CHECK,
        "check `DOCKER_HOST`",
        pipeline::engine(subject.services),
    )
    .await;
    match asked {
        Ok(engine) => {
            let version = engine.version.map_or(String::new(), |it| format!(" {it}"));
            Diagnosis::ok(CHECK, format!("engine{version} responds"))
        }
        Err(problem) if subject.services.access.docker.host.is_some() => Diagnosis {
            verdict: super::Verdict::Warning,
            ..problem
        },
        Err(_) => Diagnosis::ok(
            CHECK,
            "not available; only Dockerfiles with lines that need the engine require it",
        ),
    }
}

/// Not checked if no server is needed.
fn clock(servers: &[(&str, Option<i64>)]) -> Option<Diagnosis> {
    const CHECK: &str = "clock";
    if servers.is_empty() {
        return None;
    }
    let known = servers.iter().filter_map(|(name, it)| Some((name, (*it)?)));
    let Some((server, seconds)) = known.max_by_key(|(_, seconds)| seconds.abs()) else {
        return Some(Diagnosis::warning(
            CHECK,
            "not checked, because no response of the registry or the console has a date",
            "compare it with another clock: `date -u`",
        ));
    };
    let direction = if seconds < 0 { "behind" } else { "ahead of" };
    let by = seconds.abs();
    if by > CLOCK_LIMIT {
        return Some(Diagnosis::problem(
            CHECK,
            ProblemKind::External,
            format!(
                "{} min {direction} that of the {server}; tokens and certificates are refused",
                by / 60
            ),
            "set the clock: `timedatectl set-ntp true`",
        ));
    }
    Some(Diagnosis::ok(
        CHECK,
        format!("differs from that of the {server} by {by} s"),
    ))
}
