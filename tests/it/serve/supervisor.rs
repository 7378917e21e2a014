//! The supervisor with `dev` scripts: order, restarts, and new plans.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use alokai::cache::Cache;
use alokai::config::Project as Config;
use alokai::event::{Event, Events, ServerId, ServerState, Stage};
use alokai::pipeline::{Access, Interrupt, RegistryClients, ScriptEnvironment, Services};
use alokai::plan::{
    BuilderChoice, Filter, HostEnvironment, Plan, Request, Selection, ServeMode, ServePlan, Work,
};
use alokai::serve::{Error, RestartPolicy, Supervisor, SupervisorOptions};

use super::{LIMIT, SERVER, free_ports, is_alive, numbers, stores};
use crate::support::{FRONTEND, MIDDLEWARE, Project, page};

/// A shop whose apps run `node server.js` for development.
fn dev_shop(ports: [u16; 4]) -> Project {
    let frontend = "console.log(`frontend ${process.pid} ${process.env.OWN}`); \
        require('http').createServer((_, it) => it.end('page')).listen(process.env.PORT);";
    let dev = r#""dev": "node server.js""#;
    Project::shop()
        .setting("stores", &stores("acme", ports))
        .app(MIDDLEWARE, dev)
        .file(&format!("apps/{MIDDLEWARE}/server.js"), SERVER)
        .app(FRONTEND, dev)
        .file(&format!("apps/{FRONTEND}/server.js"), frontend)
}

/// The servers of the project's stores, composed.
fn plan(project: &Project) -> ServePlan {
    try_plan(project).unwrap()
}

fn try_plan(project: &Project) -> Result<ServePlan, alokai::plan::Error> {
    project.alokai("store compose --all").succeeds();
    let config = Config::load(project.root()).unwrap();
    let request = Request {
        selection: Selection::All,
        filter: Filter::default(),
        until: Stage::Compose,
        allow_dirty: true,
        registry: None,
        console: None,
        builder: BuilderChoice::Auto,
        local: false,
        attest: false,
        concurrency: None,
        work: Work::default(),
        host: HostEnvironment::default(),
    };
    let plan = Plan::make(&config, &request).unwrap();
    let compositions: Vec<_> = plan.compositions().cloned().collect();
    ServePlan::new(&config, &compositions, ServeMode::Development)
}

/// A supervisor on a runtime of its own, and its events.
struct Supervised {
    supervisor: Supervisor,
    interrupt: Interrupt,
    services: Arc<Services>,
    events: Receiver<Event>,
    seen: Vec<Event>,
    runtime: tokio::runtime::Runtime,
}

impl Supervised {
    fn start(project: &Project, plan: &ServePlan, policy: RestartPolicy) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let (events, received) = Events::channel();
        let (sender, forwarded) = channel();
        std::thread::spawn(move || received.for_each(|event| drop(sender.send(event))));
        let interrupt = Interrupt::default();
        let services = Arc::new(Services {
            started: Instant::now(),
            events,
            interrupt: interrupt.clone(),
            runtime: runtime.handle().clone(),
            access: Access::default(),
            cache: Cache::new(project.path(".alokai/cache")),
            remote: None,
            clients: RegistryClients::default(),
            warned: false.into(),
        });
        let path = std::env::var_os("PATH").unwrap();
        let shell = ScriptEnvironment {
            all: [("PATH".to_owned(), path)].into(),
            ..ScriptEnvironment::default()
        };
        let options = SupervisorOptions { policy, shell };
        Self {
            supervisor: Supervisor::start(plan, options, &services),
            interrupt,
            services,
            events: forwarded,
            seen: Vec::new(),
            runtime,
        }
    }

    /// The next event that `wanted` accepts.
    #[track_caller]
    fn next<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            match self
                .events
                .recv_timeout(LIMIT.saturating_sub(start.elapsed()))
            {
                Ok(event) => {
                    let found = wanted(&event);
                    self.seen.push(event);
                    if let Some(found) = found {
                        return found;
                    }
                }
                Err(error) => panic!("{error}: the event never came: {:#?}", self.seen),
            }
        }
    }

    #[track_caller]
    fn state(&mut self, app: &str, is_wanted: impl Fn(&ServerState) -> bool) -> ServerState {
        self.next(|event| match event {
            Event::Server { server, state } if server.to_string() == app && is_wanted(state) => {
                Some(state.clone())
            }
            _ => None,
        })
    }

    #[track_caller]
    fn ready(&mut self, app: &str) {
        self.state(app, |state| matches!(state, ServerState::Ready { .. }));
    }

    /// The next line of a server with this text.
    #[track_caller]
    fn line(&mut self, app: &str, text: &str) -> String {
        self.next(|event| match event {
            Event::ServerOutput { server, line } if server.to_string() == app => {
                line.contains(text).then(|| line.clone())
            }
            _ => None,
        })
    }

    fn end(self) -> (Result<(), Error>, Vec<Event>) {
        let ended = self.runtime.block_on(self.supervisor.ended());
        drop(self.services);
        self.runtime.shutdown_background();
        let mut seen = self.seen;
        seen.extend(self.events);
        (ended, seen)
    }
}

fn unit(store: &str, app: &str) -> String {
    format!("{store}/{app}")
}

#[test]
fn a_server_that_ended_is_started_again_and_the_others_run_on() {
    let ports = free_ports();
    let project = dev_shop(ports);
    let plan = plan(&project);
    let mut run = Supervised::start(&project, &plan, RestartPolicy::WithBackoff);
    let (middleware, frontend) = (unit("us", MIDDLEWARE), unit("us", FRONTEND));
    run.line(&middleware, "in development");
    assert!(run.runtime.block_on(run.supervisor.ready()));
    let crash = || {
        let _ = std::process::Command::new("curl")
            .args(["--silent", &format!("http://127.0.0.1:{}/crash", ports[0])])
            .output();
    };
    for pause in [1, 2] {
        crash();
        let ended = run.state(&middleware, |state| {
            matches!(state, ServerState::Ended { .. })
        });
        let ServerState::Ended { how } = ended else {
            unreachable!()
        };
        assert_eq!(how, "`npm run dev` exited with code 3");
        let again = run.state(&middleware, |it| {
            matches!(it, ServerState::Restarting { .. })
        });
        assert_eq!(again, ServerState::Restarting { in_seconds: pause });
        run.ready(&middleware);
    }
    page(ports[0], "/");
    run.supervisor.handle().stop();
    let (ended, events) = run.end();
    ended.unwrap();
    let starts = |app: &str| {
        let is_start = |event: &&Event| matches!(event, Event::Server { server, state: ServerState::Starting } if server.to_string() == app);
        events.iter().filter(is_start).count()
    };
    assert_eq!((starts(&middleware), starts(&frontend)), (3, 1));
    assert_eq!(starts(&unit("eu", MIDDLEWARE)), 1);
}

#[test]
fn a_frontend_waits_for_its_middleware_and_a_command_restarts_one_server() {
    let ports = free_ports();
    let project = dev_shop(ports);
    let mut run = Supervised::start(&project, &plan(&project), RestartPolicy::WithBackoff);
    assert!(run.runtime.block_on(run.supervisor.ready()));
    let handle = run.supervisor.handle();
    let frontend = unit("us", FRONTEND);
    let id = ServerId {
        store: Some(alokai::store::StoreId::new("us").unwrap()),
        name: FRONTEND.into(),
    };
    let pid = run.line(&frontend, "frontend");
    handle.restart(id);
    run.state(&frontend, |state| *state == ServerState::Stopped);
    run.ready(&frontend);
    assert!(!numbers(&pid).into_iter().any(is_alive), "{pid}");
    run.interrupt.raise();
    let (ended, events) = run.end();
    assert!(matches!(ended, Err(Error::Interrupted)));
    for store in ["us", "eu"] {
        let position = |app: &str, wanted: fn(&ServerState) -> bool| {
            let is_one = |event: &Event| matches!(event, Event::Server { server, state } if server.to_string() == unit(store, app) && wanted(state));
            events.iter().position(is_one).unwrap()
        };
        let ready = position(MIDDLEWARE, |it| matches!(it, ServerState::Ready { .. }));
        assert!(ready < position(FRONTEND, |it| *it == ServerState::Starting));
    }
    let is_again = |event: &&Event| {
        matches!(
            event,
            Event::Server {
                state: ServerState::Restarting { .. },
                ..
            }
        )
    };
    assert_eq!(
        events.iter().find(is_again),
        None,
        "a command is not a crash"
    );
}

#[test]
fn a_new_plan_restarts_only_what_differs() {
    let ports = free_ports();
    let project = dev_shop(ports);
    let mut run = Supervised::start(&project, &plan(&project), RestartPolicy::WithBackoff);
    assert!(run.runtime.block_on(run.supervisor.ready()));
    // The frontend of `us` has another port, and `eu` does not exist any more.
    let [us, us_page, ..] = ports;
    let [other] = free_ports();
    let mut config: serde_json::Value =
        serde_json::from_str(&project.read("alokai.config.json")).unwrap();
    config["stores"]["us"]["localPorts"]["nextjs"] = other.into();
    config["stores"].as_object_mut().unwrap().remove("eu");
    let project = project.config(&config.to_string());
    run.supervisor.handle().replace(plan(&project));
    let url = format!("http://localhost:{other}");
    run.state(
        &unit("us", FRONTEND),
        |state| matches!(state, ServerState::Ready { url: Some(it), .. } if *it == url),
    );
    assert_eq!(page(other, "/"), "page");
    page(us, "/");
    for port in [us_page, ports[2], ports[3]] {
        assert!(
            std::net::TcpStream::connect(("127.0.0.1", port)).is_err(),
            "{port}"
        );
    }
    run.supervisor.handle().stop();
    let (ended, events) = run.end();
    ended.unwrap();
    let is_of_middleware = |event: &&Event| matches!(event, Event::Server { server, state: ServerState::Starting } if server.to_string() == unit("us", MIDDLEWARE));
    assert_eq!(events.iter().filter(is_of_middleware).count(), 1);
}

#[test]
fn packages_are_watched_and_a_missing_dev_script_is_an_error() {
    let ports = free_ports();
    let project = dev_shop(ports)
        .file("package.json", r#"{ "name": "shop", "workspaces": ["apps/*", "packages/*"] }"#)
        .file(
            "packages/ui/package.json",
            r#"{ "name": "ui", "scripts": { "watch": "node -e \"console.log('watching'); setInterval(() => {}, 1000)\"" } }"#,
        )
        .file("packages/unused/package.json", r#"{ "name": "unused", "scripts": { "dev": "exit 1" } }"#)
        .dependency(FRONTEND, "ui", "*");
    let serve = plan(&project);
    let names: Vec<_> = serve
        .packages
        .iter()
        .map(|it| (it.name.as_str(), it.folder.clone()))
        .collect();
    assert_eq!(
        names,
        [("ui", PathBuf::from("packages/ui").display().to_string())]
    );
    let mut run = Supervised::start(&project, &serve, RestartPolicy::Never);
    run.line("ui", "watching");
    assert!(run.runtime.block_on(run.supervisor.ready()));
    run.interrupt.raise();
    assert!(matches!(run.end().0, Err(Error::Interrupted)));

    let project = project.app(FRONTEND, r#""build": "true""#);
    let error = try_plan(&project).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{FRONTEND}` has no `dev` script")
    );
}
