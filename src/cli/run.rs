//! What `compose`, `build` and `deploy` share: plan, show or carry out, sum up.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::arguments::{EnvMode, Output, OutputLogs, Select, Work};
use super::changed::selection;
use super::environment::{self, Environment, Screen};
use super::{Error, answer};
use crate::cache::{Cache, RemoteCache, RemoteCacheSettings};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::{Events, Stage, seconds};
use crate::pipeline::{
    self, Access, CACHE, Clients, Context, Interrupt, Lock, Origin, ScriptEnvironment, Summary,
    forecast,
};
use crate::plan::{self, BUILD, Builder, Filter, Plan, Request, Script, Target};
use crate::report::{
    self, Bars, Deployed, Detail, Groups, Lines, Ndjson, Reporter, SummaryRow, SummaryTable,
};

/// How often it is looked whether everything has been reported.
const TICK: Duration = Duration::from_millis(5);

/// How long an interrupted run waits for its reader.
const STALLED: Duration = Duration::from_secs(2);

/// What a run is given beside its plan.
#[derive(Default)]
pub struct Surroundings {
    pub access: Access,
    pub scripts: ScriptEnvironment,
    pub remote: Option<RemoteCacheSettings>,
    /// Whether the config asks for scripts in a sandbox.
    pub sandbox: bool,
    /// What a person should know before it begins.
    pub notices: Vec<&'static str>,
}

impl Surroundings {
    /// As command line and environment have them.
    pub fn new(project: &Project, environment: &Environment, access: Access, work: &Work) -> Self {
        let mut notices = Vec::new();
        if environment.has_lonely_token() {
            notices.push(
                "`TURBO_TOKEN` is set, and neither `TURBO_API` nor a team: the remote cache is not used",
            );
        }
        let mut remote = environment.remote();
        let exposed = |remote: &RemoteCacheSettings| http_client::is_exposed(&remote.api);
        if !work.allow_insecure && remote.as_ref().is_some_and(exposed) {
            remote = None;
            notices.push(
                "`TURBO_API` is plain HTTP and not on this machine, so `TURBO_TOKEN` could be read on the way: the remote cache is not used (`--allow-insecure` uses it)",
            );
        }
        Self {
            access,
            scripts: environment.scripts(work.env_mode == EnvMode::Loose),
            remote,
            sandbox: project.settings.sandbox,
            notices,
        }
    }
}

/// The request of a command that stops at `until` and needs no registry.
pub fn request(project: &Project, select: &Select, until: Stage) -> Result<Request, AnyError> {
    Ok(Request {
        selection: selection(project, select)?,
        filter: Filter::new(select.filter.clone()),
        until,
        allow_dirty: false,
        registry: None,
        console: None,
        builder: Builder::Auto,
        local: false,
        attest: false,
        concurrency: None,
        script: Script::default(),
        surroundings: plan::Surroundings::default(),
    })
}

/// What a run is made of: the project and its `.env` as they are now, and what the command line
/// makes of them.
pub struct Prepared {
    pub project: Project,
    pub request: Request,
    pub surroundings: Surroundings,
}

impl Prepared {
    fn plan(&mut self, work: Option<&Work>) -> Result<Plan, AnyError> {
        let concurrency = work.and_then(|work| work.concurrency);
        self.request.concurrency = concurrency.map(usize::from);
        Ok(Plan::make(&self.project, &self.request)?)
    }
}

/// Prepares a run; asked once more by a run that has waited for another one.
pub type Prepare<'a> = &'a dyn Fn() -> Result<Prepared, AnyError>;

/// Plans, and prints the plan or carries it out.
pub fn run(prepare: Prepare, work: Option<&Work>, output: &Output) -> Result<(), AnyError> {
    let mut prepared = prepare()?;
    let plan = prepared.plan(work)?;
    if work.is_some_and(|work| work.dry_run) {
        let cache = Cache::new(plan.project.join(CACHE));
        let forecasts = forecast(&plan, &cache, work.is_some_and(|work| work.force));
        return if output.json {
            document(&plan::document(&plan, &forecasts))
        } else {
            answer(&plan::text(&plan, &forecasts))
        };
    }
    let (until, script) = (prepared.request.until, other_script(&prepared.request));
    let (summary, result) = carry_out((plan, prepared), prepare, work, output.json)?;
    let mut table = table(summary);
    table.script = script;
    let shown = show(&table, until, result.is_ok(), output.json);
    // A failed run stays a failed run although nobody reads its summary.
    result.map_err(AnyError::from).and(shown)
}

fn show(table: &SummaryTable, until: Stage, ok: bool, json: bool) -> Result<(), AnyError> {
    if json {
        let mut event = serde_json::to_value(table).unwrap_or_default();
        if let Some(object) = event.as_object_mut() {
            object.shift_insert(0, "event".into(), "summary".into());
            object.insert("ok".into(), ok.into());
        }
        answer(&format!("{event}\n"))
    } else if until > Stage::Compose && (ok || !table.units.is_empty()) {
        answer(&format!("\n{}", table.text()))
    } else {
        Ok(())
    }
}

/// Prints one JSON document.
pub fn document(value: &serde_json::Value) -> Result<(), AnyError> {
    answer(&format!("{value:#}\n"))
}

type Ended = (Summary, Result<(), pipeline::Error>);

fn carry_out(
    planned: (Plan, Prepared),
    prepare: Prepare,
    work: Option<&Work>,
    json: bool,
) -> Result<Ended, AnyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start { source })?;
    let detail = if work.is_some_and(|work| work.explain) {
        Detail::Full
    } else {
        Detail::Short
    };
    let reporter: Box<dyn Reporter> = match environment::screen() {
        _ if json => Box::new(Ndjson::new(std::io::stdout())),
        Screen::Terminal => Box::new(Bars::new(detail)),
        Screen::Plain => Box::new(Lines::new(std::io::stderr(), detail)),
        Screen::GitHub => Box::new(Groups::new(std::io::stderr(), detail)),
    };
    let (events, reporting) = report::start(reporter);
    let interrupt = Interrupt::default();
    listen(&interrupt)?;
    let around = Around {
        events,
        interrupt: interrupt.clone(),
        runtime: runtime.handle().clone(),
        work,
    };
    let ended = under_lock(planned, prepare, around);
    // The reporter ends when the last sender is gone. Somebody who has ended the run does not
    // wait for a reader that is stalled.
    let mut patience = STALLED;
    while !reporting.is_finished() && !patience.is_zero() {
        std::thread::sleep(TICK);
        if interrupt.stopped() {
            patience = patience.saturating_sub(TICK);
        }
    }
    runtime.shutdown_timeout(STALLED);
    ended
}

/// What there is around a run before its plan is final.
struct Around<'a> {
    events: Events,
    interrupt: Interrupt,
    runtime: tokio::runtime::Handle,
    work: Option<&'a Work>,
}

/// What was planned before another run ended may not hold after it: then all of it is decided
/// again, the choice of stores and what `.env` says among it.
fn under_lock(
    planned: (Plan, Prepared),
    prepare: Prepare,
    around: Around,
) -> Result<Ended, AnyError> {
    let (mut plan, mut prepared) = planned;
    let lock = match Lock::take(&plan.project, &around.events, &around.interrupt) {
        Ok(lock) => lock,
        Err(error) => return Ok((Summary::default(), Err(error))),
    };
    if lock.has_waited() {
        prepared = prepare()?;
        plan = prepared.plan(around.work)?;
    }
    let context = Arc::new(context(&plan, prepared, around)?);
    Ok(pipeline::run(&Arc::new(plan), &context, &lock))
}

fn context(plan: &Plan, prepared: Prepared, around: Around) -> Result<Context, Error> {
    let Around {
        events,
        interrupt,
        runtime,
        work,
    } = around;
    let Prepared {
        request,
        surroundings,
        ..
    } = prepared;
    let remote = match surroundings.remote.map(RemoteCache::new).transpose() {
        Ok(remote) => remote,
        Err(reason) => {
            events.notice(format!("the remote cache cannot be used: {reason}"));
            None
        }
    };
    for notice in surroundings.notices {
        events.notice(notice);
    }
    if surroundings.scripts.loose {
        events.notice(
            "`--env-mode loose`: scripts see variables that keys do not know, so results may be stale",
        );
    }
    Ok(Context {
        started: environment::started(),
        events,
        interrupt,
        runtime,
        keep_going: work.is_some_and(|work| work.keep_going),
        access: Access {
            registry: match &plan.target {
                Some(Target::Registry { address, .. }) => Some(address.clone()),
                _ => None,
            },
            ..surroundings.access
        },
        scripts: surroundings.scripts,
        cache: Cache::new(plan.project.join(CACHE)),
        remote,
        force: work.is_some_and(|work| work.force),
        warned: AtomicBool::new(false),
        clients: Clients::default(),
        script: other_script(&request),
        sandbox: if surroundings.sandbox || work.is_some_and(|work| work.sandbox) {
            Some(environment::own_program().map_err(|source| Error::Start { source })?)
        } else {
            None
        },
        replays: work.is_none_or(|work| work.output_logs == OutputLogs::Full),
    })
}

/// Ctrl-C, and the signals by which a CI ends a job: the first ends the run politely, the
/// second kills its children, the third ends this program wherever it is, as when nobody reads
/// its last words. They are heard on a thread of their own, which nothing else can keep busy.
fn listen(interrupt: &Interrupt) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    // `nohup` ignores it, and means it.
    if !environment::ignores_hangup() {
        kinds.push(SignalKind::hangup());
    }
    let interrupt = interrupt.clone();
    let (sender, listening) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let started = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match started {
            Ok(runtime) => runtime,
            Err(error) => return drop(sender.send(Err(error))),
        };
        runtime.block_on(async {
            let signals: Result<Vec<_>, _> = kinds.into_iter().map(signal).collect();
            let mut signals = match signals {
                Ok(signals) => signals,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let _ = sender.send(Ok(()));
            for count in 1.. {
                let next = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
                futures_util::future::select_all(next).await;
                if count > 2 {
                    environment::end_now();
                }
                interrupt.raise();
            }
        });
    });
    let ready = listening
        .recv()
        .unwrap_or_else(|_| Err(std::io::Error::other("no signals are heard")));
    ready.map_err(|source| Error::Start { source })
}

/// The script that was asked for, if it is another one than `build`.
fn other_script(request: &Request) -> Option<String> {
    let script = &request.script.name;
    (script != BUILD).then(|| script.clone())
}

fn table(summary: Summary) -> SummaryTable {
    SummaryTable {
        script: None,
        units: summary
            .units
            .into_iter()
            .map(|row| SummaryRow {
                store_id: row.unit.store.to_string(),
                app: row.unit.app.to_string(),
                build_seconds: row.build.map(seconds),
                cache: row.origin.map(|origin| match origin {
                    Origin::Script => "miss".into(),
                    Origin::Cache => "hit".into(),
                    Origin::Reused(maker) => format!("reused from {maker}"),
                }),
                was_there: row.was_there,
                deploy_bytes: row.deploy_size,
                image_bytes: row.image_size,
                digest: row.digest,
                reference: row.reference,
            })
            .collect(),
        deployed: summary
            .live
            .into_iter()
            .map(|live| Deployed {
                store_id: live.store.to_string(),
                address: live.address,
                commands: live.commands,
            })
            .collect(),
        hints: summary.hints,
        seconds: seconds(summary.elapsed),
        own_seconds: seconds(summary.own),
    }
}
