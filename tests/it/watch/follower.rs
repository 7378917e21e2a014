//! A running `store compose --watch` or `store dev`, whose events are read as they come.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Arguments, Project};

/// The time within which a condition has to be met on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// The program while it follows changes. It is killed when the value is dropped.
pub struct Follower {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Follower {
    /// Starts the program, and waits until it watches.
    pub fn start(project: &Project, arguments: impl Arguments) -> Self {
        let mut command = project.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        Self::of(command)
    }

    /// The same for a command with `--json` that is prepared already.
    pub fn of(mut command: std::process::Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let events = Arc::<Mutex<Vec<Value>>>::default();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let written = Arc::clone(&events);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::Null);
                written.lock().expect("no panic").push(event);
            }
        });
        let follower = Self { child, events };
        follower.waits_for(0, "watching", |event| event["sync"] == "watching");
        follower
    }

    /// The number of events so far.
    pub fn mark(&self) -> usize {
        self.events.lock().expect("no panic").len()
    }

    /// The events since a mark.
    pub fn events_since(&self, mark: usize) -> Vec<Value> {
        self.events.lock().expect("no panic")[mark..].to_vec()
    }

    /// Waits for an event after a mark.
    #[track_caller]
    pub fn waits_for(&self, mark: usize, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let found = || {
            self.events_since(mark)
                .into_iter()
                .find(|event| is_it(event))
        };
        let mut result = None;
        eventually(
            || {
                result = found();
                result.is_some()
            },
            || format!("no event `{what}` in {:#?}", self.events_since(mark)),
        );
        result.expect("it was found")
    }

    /// Waits until everything was compared after a mark.
    #[track_caller]
    pub fn checked(&self, mark: usize) -> Value {
        self.waits_for(mark, "checked", |event| event["sync"] == "checked")
    }

    /// The changed files after a mark, as `app/path change stores`.
    pub fn files_since(&self, mark: usize) -> Vec<String> {
        let events = self.events_since(mark);
        let files = events.iter().filter_map(|event| event["files"].as_array());
        let line = |file: &Value| {
            let text = |name: &str| file[name].as_str().unwrap_or_default().to_owned();
            let stores = |name: &str| {
                let ids = file[name].as_array().into_iter().flatten();
                ids.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            };
            format!(
                "{}/{} {} {}>{} [{}] own [{}]",
                text("app"),
                text("path"),
                text("change"),
                text("layer"),
                text("nowFrom"),
                stores("stores"),
                stores("overriddenIn")
            )
        };
        files.flatten().map(line).collect()
    }

    /// Sends SIGINT and returns the exit code.
    pub fn interrupt(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // SIGINT first, so that the program ends its servers.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition is met.
#[track_caller]
pub fn eventually(mut is_met: impl FnMut() -> bool, message: impl FnOnce() -> String) {
    let start = Instant::now();
    while !is_met() {
        assert!(start.elapsed() < DEADLINE, "{}", message());
        std::thread::sleep(Duration::from_millis(10));
    }
}
