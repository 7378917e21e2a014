//! `store test`.

use std::path::Path;
use std::sync::Arc;

use super::arguments::{Global, SINCE, TestOptions};
use super::environment::tell;
use super::events::{Live, live_with};
use super::serving::{ServedProject, columns, reporter, root, services};
use super::{Error, answer};
use crate::compare::{self, Comparison};
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::{self, PipelineOptions, ProjectLock, Services};
use crate::plan::{BrowserTests, Filter, Plan, Selection, ServePlan, TestArguments};
use crate::serve::{self, BrowserRun, StoreTests};
use crate::store::AppKind;

pub fn test(global: &Global, options: &TestOptions) -> Result<(), AnyError> {
    let reporter = reporter(options.output.json);
    live_with(reporter, |live| run(global, options, &live))
}

fn run(global: &Global, options: &TestOptions, live: &Live) -> Result<(), AnyError> {
    let root = root(global.cwd.as_deref())?;
    let lock = ProjectLock::take(&root, &live.events, &live.interrupt)?;
    let served = ServedProject::load(&root)?;
    let selection = selection(&root, options)?;
    if matches!(&selection, Selection::Exactly(ids) if ids.is_empty()) {
        return Ok(());
    }
    let access = served.environment.secrets();
    let services = Arc::new(services(&root, live, access));
    let planned = plan(&served, selection, options, &services)?;
    compose(planned.tests_plan, &services, &lock)?;
    let run = BrowserRun {
        plan: &planned.servers,
        tests: &planned.tests,
        concurrency: options.concurrency.map_or_else(stores_at_once, usize::from),
        shell: &served.shell,
        services: &services,
    };
    let (results, result) = services.wait(run.run());
    let shown = if options.output.json || results.is_empty() {
        Ok(())
    } else {
        answer(&table(&results))
    };
    result?;
    shown
}

/// The servers and the tests of a run.
struct PlannedTests {
    /// The plan that composes the tests.
    tests_plan: Plan,
    servers: ServePlan,
    tests: Vec<BrowserTests>,
}

fn plan(
    served: &ServedProject,
    selection: Selection,
    options: &TestOptions,
    services: &Services,
) -> Result<PlannedTests, AnyError> {
    let project = &served.project;
    let apps = project.apps.iter();
    let apps = apps.filter(|app| app.kind == AppKind::Playwright);
    let patterns: Vec<String> = apps.map(|app| format!("{}-*", app.name)).collect();
    if patterns.is_empty() {
        return Err(serve::Error::NoTests.into());
    }
    let request = served.request(selection.clone(), Filter::new(patterns), Stage::Compose);
    let tests_plan = Plan::make(project, &request)?;
    if options.ui && tests_plan.stores.len() != 1 {
        return Err(Error::UiOfSeveralStores.into());
    }
    let request = served.request(selection, Filter::default(), Stage::Prune);
    let plan = Plan::make(project, &request)?;
    let servers = served.artifacts(&plan, &services.events)?;
    let arguments = TestArguments {
        ui: options.ui,
        others: options.arguments.clone(),
    };
    let compositions: Vec<_> = tests_plan.compositions().cloned().collect();
    let tests = BrowserTests::plan(project, &compositions, &servers.stores, &arguments)?;
    Ok(PlannedTests {
        tests_plan,
        servers,
        tests,
    })
}

/// Composes the tests.
fn compose(plan: Plan, services: &Arc<Services>, lock: &ProjectLock) -> Result<(), AnyError> {
    let options = Arc::new(PipelineOptions::default());
    let (_, composed) = pipeline::run(
        &Arc::new(plan),
        services,
        &options,
        pipeline::without_targets(),
        lock,
    );
    Ok(composed?)
}

/// The stores of the command line.
fn selection(root: &Path, options: &TestOptions) -> Result<Selection, AnyError> {
    if options.since.is_none() && options.to.is_none() {
        return Ok(options.named());
    }
    let since = options.since.as_deref().unwrap_or(SINCE);
    let comparison = Comparison {
        since: since.to_owned(),
        to: options.to.clone(),
        ..Comparison::default()
    };
    let answered = compare::changed(root, &comparison)?;
    for notice in &answered.notices {
        tell(&format!("note: {notice}"));
    }
    let changed = answered.stores.iter();
    let ids: Vec<String> = changed.map(|store| store.store_id.to_string()).collect();
    tell(&match ids.as_slice() {
        [] => format!("note: no store has changed since `{since}`"),
        ids => format!("note: changed since `{since}`: {}", ids.join(", ")),
    });
    Ok(Selection::Exactly(ids))
}

/// How many stores are tested at once by default: Playwright itself uses half of the cores.
fn stores_at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).max(2)
}

fn table(results: &[StoreTests]) -> String {
    let head = [
        "store", "app", "passed", "failed", "flaky", "skipped", "time",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for result in results {
        let store = result.tests.store.as_ref();
        let counts = &result.counts;
        rows.push(vec![
            store.map(ToString::to_string).unwrap_or_default(),
            result.tests.name.clone(),
            counts.passed.to_string(),
            counts.failed.len().to_string(),
            counts.flaky.to_string(),
            counts.skipped.to_string(),
            crate::report::duration(result.seconds),
        ]);
    }
    format!("\n{}", columns(&rows))
}
