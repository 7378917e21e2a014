//! Servers on this machine: `store start`, `store test`, and the supervisor below them.

mod browser;
mod domains;
mod image;
mod run;
mod supervisor;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Arguments, FRONTEND, MIDDLEWARE, Project, output_of};

/// How long a test waits for a line or an end.
const LIMIT: Duration = Duration::from_mins(1);

/// A middleware that says `products of <port>`, and ends with code 3 at `/crash`.
const SERVER: &str = r"
const { API_PORT, PORT, NODE_ENV } = process.env;
console.log(`middleware ${process.pid} in ${NODE_ENV}`);
require('http').createServer((request, answer) => {
  if (request.url === '/crash') { console.error('the backend is gone'); process.exit(3); }
  answer.end('products of ' + (API_PORT ?? PORT));
}).listen(API_PORT ?? PORT);
";

/// A frontend that asks its middleware before it listens. `/browser` is the address of the middleware for
/// browsers. It has a child that outlives it.
const PAGE: &str = r"
const { PORT, HOSTNAME, NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL, NEXT_PUBLIC_ALOKAI_MIDDLEWARE_SSR_API_URL } = process.env;
const child = require('child_process').spawn('sleep', ['300']);
fetch(NEXT_PUBLIC_ALOKAI_MIDDLEWARE_SSR_API_URL).then((it) => it.text()).then((said) => {
  console.log(`frontend ${process.pid} ${child.pid}`);
  require('http').createServer((request, answer) =>
    answer.end(request.url === '/browser' ? NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL : `page with ${said}`)).listen(PORT, HOSTNAME);
});
";

/// Free ports of this machine.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let listeners = [(); COUNT].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners
        .each_ref()
        .map(|it| it.local_addr().unwrap().port())
}

/// The config of two stores on these ports: middleware and frontend of `us`, then of `eu`.
fn stores(name: &str, ports: [u16; 4]) -> Value {
    let store = |id: &str, middleware: u16, frontend: u16| {
        json!({
            "deployment": { "projectName": format!("{name}-{id}"), "cloudRegion": "r", "framework": "nextjs" },
            "localPorts": { "middleware": middleware, "nextjs": frontend },
        })
    };
    let [us, us_page, eu, eu_page] = ports;
    json!({ "us": store("us", us, us_page), "eu": store("eu", eu, eu_page) })
}

/// A shop with these servers on these ports.
fn shop(ports: [u16; 4]) -> Project {
    let page = json!(PAGE);
    let build = format!(
        r"
const fs = require('fs'), path = require('path');
const app = path.join('.next/standalone', path.relative(path.resolve('../../..'), process.cwd()));
fs.mkdirSync(app, {{ recursive: true }});
fs.mkdirSync('.next/static', {{ recursive: true }});
fs.mkdirSync('.next/standalone/node_modules/next', {{ recursive: true }});
fs.writeFileSync('.next/standalone/node_modules/next/package.json', '{{}}');
fs.writeFileSync(path.join(app, 'server.js'), {page});
"
    );
    let project = Project::shop()
        .setting("stores", &stores("acme", ports))
        .setting("start", &json!({ "timeout": 30 }))
        .build_script(FRONTEND, &build)
        .file(&format!("apps/{MIDDLEWARE}/src/index.js"), SERVER);
    project.commit();
    project
}

/// The same, with a `.deploy` of each app.
fn built_shop(ports: [u16; 4]) -> Project {
    let project = shop(ports);
    project
        .alokai("store deploy --all --until prune")
        .succeeds();
    project
}

/// A running command, with the lines of both its outputs.
struct Served {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Served {
    fn start(project: &Project, arguments: impl Arguments) -> Self {
        let mut child = project.start(arguments);
        let (sender, lines) = channel();
        forward(child.stdout.take().unwrap(), sender.clone());
        forward(child.stderr.take().unwrap(), sender);
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line with this text, which may have been printed already.
    #[track_caller]
    fn line(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = LIMIT.saturating_sub(start.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("{error}: no line with `{text}`:\n{}", self.seen.join("\n")),
            }
        }
    }

    fn interrupt(&self) {
        output_of(Command::new("kill").args(["-INT", &self.child.id().to_string()]));
    }

    /// Waits for the end, and returns the exit code and all lines.
    #[track_caller]
    fn end(mut self) -> (i32, String) {
        let start = Instant::now();
        while let Ok(line) = self
            .lines
            .recv_timeout(LIMIT.saturating_sub(start.elapsed()))
        {
            self.seen.push(line);
        }
        assert!(start.elapsed() < LIMIT, "it runs on");
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, self.seen.join("\n"))
    }
}

impl Drop for Served {
    /// Ends the servers of a test that has failed.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
            let _ = self.child.wait();
        }
    }
}

fn forward(pipe: impl Read + Send + 'static, sender: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default().chars().next();
    state.is_some_and(|state| state != 'Z')
}

/// The numbers in a line.
fn numbers(line: &str) -> Vec<&str> {
    let words = line.split_whitespace();
    words.filter(|word| word.parse::<u32>().is_ok()).collect()
}
