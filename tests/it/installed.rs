//! Prunes what real package managers install. The result is not larger than their own production
//! install, and its servers give the same answers over HTTP.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Project, Run, bytes_in, copy_of};

/// Dependencies with a scope, a peer, two versions of one package, a native module and a dev
/// dependency.
const DEPENDENCIES: &str = r#"
  "dependencies": {
    "@hapi/boom": "10.0.1",
    "ajv": "8.17.1",
    "ajv-formats": "3.0.1",
    "bufferutil": "4.0.9",
    "express": "4.21.2",
    "express-rate-limit": "7.5.1",
    "ms": "2.1.3"
  },
  "devDependencies": { "is-odd": "3.0.1" }"#;

const SERVER: &str = r"
const express = require('express'), boom = require('@hapi/boom'), bufferutil = require('bufferutil');
const { rateLimit } = require('express-rate-limit');
const Ajv = require('ajv'), formats = require('ajv-formats');
const app = express();
app.use(rateLimit({ windowMs: 60000, limit: 100 }));
const ajv = formats(new Ajv());
const version = (...path) => {
  const from = path.slice(0, -1).reduce((from, name) => require.resolve(name, { paths: [from] }), __filename);
  return require(require.resolve(path.at(-1) + '/package.json', { paths: [from] })).version;
};
app.get('/', (_, answer) => answer.json({ store: 'us' }));
app.get('/native', (_, answer) => {
  const out = Buffer.alloc(4);
  bufferutil.mask(Buffer.from('text'), Buffer.from([1, 2, 3, 4]), out, 0, 4);
  answer.json({ native: bufferutil.mask !== require('bufferutil/fallback').mask, out: out.toString('hex') });
});
app.get('/boom', (_, answer) => answer.status(404).json(boom.notFound('nothing').output.payload));
app.get('/valid/:address', (request, answer) =>
  answer.json(ajv.validate({ type: 'string', format: 'email' }, request.params.address)));
app.get('/versions', (_, answer) => answer.json({ own: version('ms'), inner: version('express', 'debug', 'ms') }));
app.get('/dev', (_, answer) => { try { require('is-odd'); answer.send('found'); } catch (error) { answer.send(error.code); } });
app.listen(0, '127.0.0.1', function () { console.log(this.address().port); });
";

const ROUTES: [&str; 7] = [
    "/",
    "/native",
    "/boom",
    "/valid/a@example.com",
    "/valid/nobody",
    "/versions",
    "/dev",
];

/// A project whose middleware has these dependencies.
fn project() -> Project {
    Project::new()
        .config(r#"{ "stores": { "us": { "deployment": { "projectName": "acme-us", "cloudRegion": "r" } } } }"#)
        .file(".gitignore", "node_modules\n.out\nlib\n.yarn\n.tools\n.store\n")
        .file(
            "package.json",
            r#"{ "name": "root", "version": "1.0.0", "private": true, "workspaces": ["apps/storefront-middleware"] }"#,
        )
        .file(
            "apps/storefront-middleware/package.json",
            &format!(
                r#"{{ "name": "storefront-middleware", "version": "1.0.0",
  "scripts": {{ "build": "node build.js", "start": "node lib/index.js" }}, {DEPENDENCIES} }}"#
            ),
        )
        .build_script("storefront-middleware",
            "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.copyFileSync('src/index.js', 'lib/index.js')",
        )
        .file("apps/storefront-middleware/src/index.js", SERVER)
}

#[track_caller]
fn run(folder: &Path, path: &str, command: &[&str]) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder)
        .env("PATH", path)
        .env("COREPACK_ENABLE_STRICT", "0")
        .env("YARN_ENABLE_IMMUTABLE_INSTALLS", "false")
        .env("CI", "1")
        .output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Run::from(output).succeeds();
}

/// Installs a package manager from npm's registry. Returns a `PATH` on which it comes first.
fn with_tool(project: &Project, tool: &str) -> String {
    let path = std::env::var("PATH").unwrap();
    let tools = project.root().with_file_name("tools");
    let folder = tools.to_str().unwrap();
    std::fs::create_dir_all(&tools).unwrap();
    let install = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--prefix",
        folder,
        tool,
    ];
    run(&tools, &path, &install);
    format!("{folder}/node_modules/.bin:{path}")
}

/// Installs everything in the project and prunes it, installs production dependencies alone in
/// a copy of it, and compares the two.
fn compare(name: &str, project: Project, path: &str, install: &[&str], production: &[&str]) {
    run(project.root(), path, install);
    project.commit();
    let (_elsewhere, theirs) = copy_of(project.root());
    let modules = ["node_modules", "apps/storefront-middleware/node_modules"];
    for folder in modules {
        let _ = std::fs::remove_dir_all(theirs.join(folder));
    }
    run(&theirs, path, production);
    let app = theirs.join("apps/storefront-middleware");
    run(&app, path, &["node", "build.js"]);

    let project = project.env("PATH", path);
    let pruned = project.alokai("store deploy --store us --until prune");
    println!("{}", pruned.succeeds().stderr);
    let deploy = project.path(".out/us/storefront-middleware/.deploy");
    let (_apart, ours) = copy_of(&deploy);

    let modules = modules.map(|folder| theirs.join(folder)).into_iter();
    let installed: u64 = modules
        .filter(|it| it.is_dir())
        .map(|it| bytes_in(&it))
        .sum();
    let manifest = app.join("package.json").metadata().unwrap().len();
    let production = installed + bytes_in(&app.join("lib")) + manifest;
    // The list drops nothing, so that packages which the layout doubles are seen.
    let config = project.read("alokai.config.json");
    let project = project.config(&config.replacen('{', r#"{ "prune": { "drop": [] },"#, 1));
    project.commit();
    let whole = project.alokai("store deploy --store us --until prune");
    whole.succeeds();
    let (pruned, whole) = (bytes_in(&ours), bytes_in(&deploy));
    println!(
        "{name}: .deploy {pruned} bytes, {whole} with nothing dropped; production install {production}"
    );
    assert!(pruned < whole, "{name}: {pruned} >= {whole}");
    assert!(whole <= production, "{name}: {whole} > {production}");

    let ours = Server::start(&ours);
    let theirs = Server::start(&app);
    for route in ROUTES {
        assert_eq!(ours.get(route), theirs.get(route), "{name}: {route}");
    }
    let native = ours.get("/native");
    assert!(native.contains(r#""native":true"#), "{native}");
    let versions = ours.get("/versions");
    assert!(
        versions.contains(r#"{"own":"2.1.3","inner":"2.0.0"}"#),
        "{versions}"
    );
    assert!(ours.get("/dev").contains("MODULE_NOT_FOUND"));
}

struct Server {
    child: Child,
    port: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new("node")
            .arg("lib/index.js")
            .current_dir(folder)
            .env_remove("NODE_PATH")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut port).unwrap();
        let port = port.trim().to_owned();
        assert!(!port.is_empty(), "{} does not start", folder.display());
        Self { child, port }
    }

    /// The status and the body of an answer.
    fn get(&self, route: &str) -> String {
        let url = format!("http://127.0.0.1:{}{route}", self.port);
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "5",
                "--noproxy",
                "*",
            ])
            .args(["--write-out", " %{http_code} %{content_type}", &url])
            .output()
            .unwrap();
        Run::from(output).succeeds().stdout
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn npm() {
    let path = std::env::var("PATH").unwrap();
    let install = ["npm", "install", "--no-audit", "--no-fund"];
    let production = ["npm", "ci", "--omit=dev", "--no-audit", "--no-fund"];
    compare("npm", project(), &path, &install, &production);
}

#[test]
fn pnpm() {
    let project = project().file(
        "pnpm-workspace.yaml",
        "packages: ['apps/storefront-middleware']\n",
    );
    let path = with_tool(&project, "pnpm@9");
    let store: PathBuf = project.root().with_file_name("pnpm-store");
    let store = format!("--store-dir={}", store.display());
    let install = ["pnpm", "install", "--no-frozen-lockfile", &store];
    let production = ["pnpm", "install", "--prod", "--frozen-lockfile", &store];
    compare("pnpm 9", project, &path, &install, &production);
}

#[test]
fn yarn_classic() {
    let project = project();
    let path = with_tool(&project, "yarn@1.22");
    let install = ["yarn", "install", "--non-interactive"];
    let production = [
        "yarn",
        "install",
        "--production",
        "--frozen-lockfile",
        "--non-interactive",
    ];
    compare("yarn 1", project, &path, &install, &production);
}

#[test]
fn yarn_berry_with_node_modules() {
    let settings = "nodeLinker: node-modules\nenableTelemetry: false\n";
    let project = project().file(".yarnrc.yml", settings);
    let path = with_tool(&project, "@yarnpkg/cli-dist@4");
    let install = ["yarn", "install"];
    let production = [
        "yarn",
        "workspaces",
        "focus",
        "--production",
        "storefront-middleware",
    ];
    compare("yarn 4", project, &path, &install, &production);
}
