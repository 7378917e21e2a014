//! Browser tests: the Playwright tests of a store against its apps, which run on ports of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use serde::Deserialize;

use super::{Error, RestartPolicy, StoreTestFailure, Supervisor, SupervisorOptions, TestProblem};
use crate::event::{Event, ServerId, TestCounts, seconds};
use crate::pipeline::{
    CommandEnd, ScriptEnvironment, ServerCommand, ServerEnvironment, ServerStart, Services,
    StartError, free_ports,
};
use crate::plan::{BrowserTests, ServePlan, StoreServers};

/// The reporter that writes the names of failed tests to a file.
const REPORTER: &str = include_str!("reporter.cjs");

/// The variable of Playwright with a reporter that is added to those of the project.
const ADDED_REPORTER: &str = "PW_TEST_REPORTER";

/// The variable with the file for the results.
const RESULTS: &str = "ALOKAI_TEST_RESULTS";

/// The name of the file with the results, in the composed app.
const RESULTS_FILE: &str = "alokai-results.json";

/// The results of one store's tests.
#[derive(Debug)]
pub struct StoreTests {
    /// The store and the app with the tests.
    pub tests: ServerId,
    /// The results, as far as they are known.
    pub counts: TestCounts,
    /// Wall time in seconds, without the start of the servers.
    pub seconds: f64,
}

/// Runs the browser tests of several stores.
pub struct BrowserRun<'a> {
    /// The apps that the tests visit.
    pub plan: &'a ServePlan,
    /// The tests, one for each store and Playwright app.
    pub tests: &'a [BrowserTests],
    /// The number of stores that are tested at once.
    pub concurrency: usize,
    /// The user's environment.
    pub shell: &'a ScriptEnvironment,
    /// The services of the run.
    pub services: &'a Arc<Services>,
}

/// What the reporter writes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WrittenResults {
    passed: usize,
    flaky: usize,
    skipped: usize,
    failed: Vec<String>,
    errors: Vec<String>,
}

impl BrowserRun<'_> {
    /// Tests the stores. A failure in one store does not end the tests of other stores.
    pub async fn run(self) -> (Vec<StoreTests>, Result<(), Error>) {
        let reporter = match write_reporter() {
            Ok(reporter) => reporter,
            Err(source) => return (Vec::new(), Err(Error::Reporter { source })),
        };
        // All ports are chosen at once, so that no two stores get the same port.
        let counts = self.plan.stores.iter().map(|store| store.servers.len());
        let mut ports = match free_ports(counts.sum()).await {
            Ok(ports) => ports.into_iter(),
            Err(error) => return (Vec::new(), Err(error.into())),
        };
        let stores = self.plan.stores.iter().map(|store| {
            let ports: Vec<u16> = ports.by_ref().take(store.servers.len()).collect();
            store.on_ports(&ports)
        });
        let stores: Vec<_> = stores.collect();
        let runs = stores.into_iter().map(|servers| {
            let tests = self.tests.iter();
            let tests = tests.filter(|it| it.unit.store == servers.store).collect();
            StoreRun {
                run: &self,
                tests,
                servers,
                reporter: &reporter,
            }
        });
        let running = stream::iter(runs.map(StoreRun::run)).buffer_unordered(self.concurrency);
        let results: Vec<_> = running.collect().await;
        if self.services.interrupt.stopped() {
            return (Vec::new(), Err(Error::Interrupted));
        }
        let (mut done, mut failures) = (Vec::new(), Vec::new());
        for (tests, failed) in results {
            done.extend(tests);
            failures.extend(failed);
        }
        done.sort_by(|one: &StoreTests, other| one.tests.cmp(&other.tests));
        failures.sort_by(|one: &StoreTestFailure, other| one.tests.cmp(&other.tests));
        let result = if failures.is_empty() {
            Ok(())
        } else {
            Err(Error::Tests { failures })
        };
        (done, result)
    }
}

/// Writes the reporter to a temporary file.
fn write_reporter() -> std::io::Result<tempfile::TempPath> {
    let mut file = tempfile::Builder::new()
        .prefix("alokai-")
        .suffix(".cjs")
        .tempfile()?;
    std::io::Write::write_all(&mut file, REPORTER.as_bytes())?;
    Ok(file.into_temp_path())
}

/// The tests of one store.
struct StoreRun<'a> {
    run: &'a BrowserRun<'a>,
    tests: Vec<&'a BrowserTests>,
    servers: StoreServers,
    reporter: &'a Path,
}

type StoreResults = (Vec<StoreTests>, Vec<StoreTestFailure>);

impl StoreRun<'_> {
    /// Starts the apps, runs the tests, and stops the apps.
    async fn run(self) -> StoreResults {
        let services = self.run.services;
        let Some(first) = self.tests.first().filter(|_| !services.interrupt.stopped()) else {
            return (Vec::new(), Vec::new());
        };
        let not_served = |error| StoreTestFailure {
            tests: ServerId::app(&first.unit),
            problem: TestProblem::Servers(Box::new(error)),
        };
        let options = SupervisorOptions {
            policy: RestartPolicy::Never,
            shell: self.run.shell.clone(),
        };
        let plan = ServePlan {
            stores: vec![self.servers.clone()],
            packages: Vec::new(),
            notices: Vec::new(),
            ..self.run.plan.clone()
        };
        let mut supervisor = Supervisor::start(&plan, options, services);
        let is_ready = supervisor.ready().await;
        let handle = supervisor.handle();
        let ended = supervisor.ended();
        tokio::pin!(ended);
        if !is_ready {
            let failed = ended.await.err().map(not_served);
            return (Vec::new(), failed.into_iter().collect());
        }
        let tests = self.test();
        tokio::pin!(tests);
        tokio::select! {
            results = &mut tests => {
                handle.stop();
                let _ = ended.await;
                results
            }
            ended = &mut ended => {
                if services.interrupt.stopped() {
                    // The tests are interrupted too, and have time to end their browsers.
                    return tests.await;
                }
                // The tests of an app that does not run are killed.
                (Vec::new(), ended.err().map(not_served).into_iter().collect())
            }
        }
    }

    async fn test(&self) -> StoreResults {
        let (mut done, mut failures) = (Vec::new(), Vec::new());
        for tests in &self.tests {
            let id = ServerId::app(&tests.unit);
            let started = Instant::now();
            let (counts, problem) = match self.run_script(tests, &id).await {
                Ok((end, written)) => judge(end, written),
                Err(error) => (TestCounts::default(), Some(TestProblem::Start(error))),
            };
            if problem.is_none() && counts == TestCounts::default() {
                self.run.services.events.notice(format!(
                    "{id}: `{}` succeeded, but no test has reported a result; check that it runs Playwright in this environment",
                    tests.command.join(" ")
                ));
            }
            let seconds = seconds(started.elapsed());
            self.run.services.events.send(Event::Tested {
                tests: id.clone(),
                counts: counts.clone(),
                seconds,
            });
            failures.extend(problem.map(|problem| StoreTestFailure {
                tests: id.clone(),
                problem,
            }));
            done.push(StoreTests {
                tests: id,
                counts,
                seconds,
            });
        }
        (done, failures)
    }

    /// Runs the tests of one app, and returns the results that the reporter has written.
    async fn run_script(
        &self,
        tests: &BrowserTests,
        id: &ServerId,
    ) -> Result<(CommandEnd, Option<WrittenResults>), StartError> {
        let run = self.run;
        let project = &run.plan.project;
        let folder = project.join(&tests.folder);
        let results = folder.join(RESULTS_FILE);
        // The results of an earlier run are not those of this run.
        let _ = std::fs::remove_file(&results);
        let mut environment = ServerEnvironment::of_tests(&self.servers, tests, run.shell)?;
        environment.set(ADDED_REPORTER, self.reporter);
        environment.set(RESULTS, &results);
        let command = ServerCommand {
            command: &tests.command,
            folder: &folder,
            environment: &environment,
            log: log(project, tests),
            reported: Some(id.clone()),
        };
        let start = ServerStart {
            project,
            limit: run.plan.start_timeout,
            interrupt: &run.services.interrupt,
            reported: Some(id.clone()),
            services: run.services,
        };
        let end = start.to_end(command).await?;
        let written = std::fs::read(&results).ok();
        let written = written.and_then(|text| serde_json::from_slice(&text).ok());
        Ok((end, written))
    }
}

fn log(project: &Path, tests: &BrowserTests) -> PathBuf {
    project.join(format!(".alokai/logs/test/{}.log", tests.unit))
}

/// The results of the tests, and their problem if they failed.
fn judge(end: CommandEnd, written: Option<WrittenResults>) -> (TestCounts, Option<TestProblem>) {
    let written = written.unwrap_or_default();
    let counts = TestCounts {
        passed: written.passed,
        flaky: written.flaky,
        skipped: written.skipped,
        failed: written.failed,
    };
    let problem = if end.success {
        None
    } else if counts.failed.is_empty() && written.errors.is_empty() {
        Some(TestProblem::Command(Box::new(end)))
    } else {
        Some(TestProblem::Failed {
            tests: counts.failed.clone(),
            errors: written.errors,
            log: end.command.log,
        })
    };
    (counts, problem)
}
