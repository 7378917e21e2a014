//! `doctor`: checks everything that a deploy needs.

use std::sync::Arc;

use serde_json::json;

use super::Error;
use super::arguments::{DoctorOptions, Global};
use super::build::is_for_this_machine;
use super::environment::{self, Environment};
use super::run::{document, remote_of};
use super::services::services_without_run;
use super::show::Page;
use crate::cache::RemoteCache;
use crate::compare::PatchLineKind;
use crate::config::Project;
use crate::doctor::{Diagnosis, Examination, ProblemKind, Verdict, examine};
use crate::error::Error as AnyError;
use crate::plan::{self, DestinationPlan, LOCAL_REGISTRY};
use crate::target::TargetContext;

/// The width of the column with the name of the check.
const NAMES: usize = 19;

pub fn doctor(global: &Global, options: &DoctorOptions) -> Result<(), AnyError> {
    let start = environment::start(global.cwd.as_deref())?;
    if let Ok(root) = Project::root_of(&start) {
        super::settle(&root)?;
    }
    let project = Project::find(&start);
    // A project whose config is not valid still has a folder and a `.env` file.
    let root = Project::root_of(&start).unwrap_or(start);
    let environment = Environment::load(&root)?;
    let password = options.access.password()?;
    let mut access = environment.access(&options.access, password);
    let mut registry = environment.registry(&options.access);
    if let Ok(project) = &project {
        let stores: Vec<_> = project.stores.deployables().collect();
        if is_for_this_machine(project, &stores, registry.as_ref()) {
            registry = Some(LOCAL_REGISTRY.into());
        }
    }
    if let Ok(project) = &project {
        let ca = project.settings.registry.ca.as_ref();
        access.trust.ca = ca.map(|ca| project.root.join(ca));
        if let Ok(DestinationPlan::Registry { address, .. }) =
            plan::destination_of(project, &registry)
        {
            access.registry = Some(address);
        }
    }
    let (remote, notices) = remote_of(&environment, false);
    let remote = match (remote, notices.first()) {
        (None, Some(notice)) => Err((*notice).to_owned()),
        (None, None) => Ok(None),
        (Some(settings), _) => RemoteCache::new(settings).map(Some),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start { source })?;
    let mut services = services_without_run(&root, access, runtime.handle().clone());
    // The services also redact the token of the remote cache.
    let remote = remote.map(|remote| services.remote = remote);
    let services = Arc::new(services);
    let targets = project.as_ref().ok().map(|project| TargetContext {
        project: Arc::new(project.clone()),
        services: Arc::clone(&services),
        console: plan::console_of(project, &environment.console(&options.access)),
        plan: None,
        local: environment::local_client(&root),
        examines: true,
    });
    let subject = Examination {
        root: &root,
        project: project.as_ref(),
        scripts: &environment.scripts(false),
        services: &services,
        targets: targets.as_ref(),
        remote: remote.map(|()| services.remote.as_ref()),
        registry,
        console: environment.console(&options.access),
    };
    let found = examine(&subject);
    // A program that does not answer is not awaited.
    runtime.shutdown_background();
    if options.json {
        document(&json!({
            "schemaVersion": 1,
            "ok": !found.iter().any(|it| matches!(it.verdict, Verdict::Problem(_))),
            "checks": found,
        }))?;
    } else {
        show(&found)?;
    }
    result(&found)
}

fn show(found: &[Diagnosis]) -> Result<(), AnyError> {
    let mut page = Page::unpaged();
    for diagnosis in found {
        let colour = match diagnosis.verdict {
            Verdict::Ok => PatchLineKind::Added,
            Verdict::Warning => PatchLineKind::Hunk,
            Verdict::Problem(_) => PatchLineKind::Removed,
        };
        let label = format!("{:7}  ", diagnosis.verdict.name());
        let name = format!("{:NAMES$}", diagnosis.check);
        page.row((colour, &label), &name, &diagnosis.found);
        if let Some(next) = &diagnosis.next {
            let indent = " ".repeat(label.len() + NAMES);
            page.paragraph(&format!("{indent}next: "), next);
        }
    }
    let count =
        |wanted: fn(&Verdict) -> bool| found.iter().filter(|it| wanted(&it.verdict)).count();
    let (warnings, problems) = (
        count(|it| *it == Verdict::Warning),
        count(|it| matches!(it, Verdict::Problem(_))),
    );
    page.plain(&format!(
        "\n{} {}, {} {}\n",
        problems,
        if problems == 1 { "problem" } else { "problems" },
        warnings,
        if warnings == 1 { "warning" } else { "warnings" },
    ));
    page.show()
}

/// The exit code. Wrong input takes precedence over a missing service or program.
fn result(found: &[Diagnosis]) -> Result<(), AnyError> {
    let of = |kind| {
        found
            .iter()
            .filter(move |it| it.verdict == Verdict::Problem(kind))
            .count()
    };
    let (input, external) = (of(ProblemKind::Input), of(ProblemKind::External));
    let count = input + external;
    if count == 0 {
        return Ok(());
    }
    Err(Error::NotReady {
        count,
        is_input: input > 0,
    }
    .into())
}
