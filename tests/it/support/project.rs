//! A small project in its own folder, which each test builds up.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::run::{Arguments, Run, output_of};

/// A project in a temporary folder with its own git repository.
pub struct Project {
    // Dropped before the folder.
    _running: RunningStores,
    _folder: Option<tempfile::TempDir>,
    root: PathBuf,
    environment: Vec<(String, String)>,
}

/// Stops what a test has started on this machine: stores, and the HAProxy of other targets.
struct RunningStores(PathBuf);

impl Drop for RunningStores {
    fn drop(&mut self) {
        let lock = self.0.join(".alokai/local/process.lock");
        if lock.exists() {
            let mut stop = Command::new(env!("CARGO_BIN_EXE_alokai"));
            let stop = stop.args(["store", "stop"]).current_dir(&self.0);
            let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
            // A store whose lock a killed run has left is not stopped by the command.
            end(&lock, "__local");
        }
        end(&self.0.join(".alokai/proxy/haproxy.pid"), "haproxy");
    }
}

/// Ends the processes in a file if their arguments still have this word.
fn end(file: &Path, word: &str) {
    for id in std::fs::read_to_string(file)
        .unwrap_or_default()
        .split_whitespace()
    {
        let process = Path::new("/proc").join(id);
        let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(word) {
            let _ = Command::new("kill").arg(id).status();
            let start = Instant::now();
            while process.exists() && start.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// The build script of a middleware, which copies its source.
const MIDDLEWARE_BUILD: &str = r"
const fs = require('fs');
fs.mkdirSync('lib', { recursive: true });
fs.copyFileSync('src/index.js', 'lib/index.js');
fs.writeFileSync('lib/types.d.ts', 'export type Product = { name: string };');
";

const MIDDLEWARE: &str = r"
require('http').createServer((_, answer) => answer.end('middleware\n')).listen(process.env.PORT || 4000);
";

/// The build script of a frontend, which writes a folder like Next.js's standalone output, nested
/// as deep as the app is below the project.
const FRONTEND_BUILD: &str = r"
const fs = require('fs'), path = require('path');
const root = path.resolve('../../..');
const app = path.join('.next/standalone', path.relative(root, process.cwd()));
fs.mkdirSync(app, { recursive: true });
fs.mkdirSync('.next/static', { recursive: true });
fs.mkdirSync('.next/standalone/node_modules/next', { recursive: true });
fs.writeFileSync('.next/static/chunk.js', '');
fs.writeFileSync('.next/standalone/node_modules/next/package.json', '{}');
fs.writeFileSync(path.join(app, '.env.production'), 'A=1');
const texts = JSON.stringify(fs.readFileSync('texts.txt', 'utf8'));
fs.writeFileSync(path.join(app, 'server.js'),
  `require('http').createServer((_, answer) => answer.end(${texts})).listen(process.env.PORT || 3000);`);
";

impl Project {
    /// A repository with a config that has no stores.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder
            .path()
            .canonicalize()
            .expect("it exists")
            .join("project");
        std::fs::create_dir(&root).expect("a folder");
        let project = Self::at(root).file("alokai.config.json", r#"{ "stores": {} }"#);
        project.git("init --quiet --initial-branch=main");
        Self {
            _folder: Some(folder),
            ..project
        }
    }

    /// A project in a folder that the caller owns.
    pub fn at(root: PathBuf) -> Self {
        Self {
            _running: RunningStores(root.clone()),
            _folder: None,
            root,
            environment: Vec::new(),
        }
    }

    /// Two base apps, Playwright's tests, and a template `fashion` with the stores `us` and `eu`;
    /// committed. Every build is a short script of Node.
    pub fn shop() -> Self {
        Self::shop_named("acme")
    }

    /// The same with another prefix of the project names in the console.
    pub fn shop_named(name: &str) -> Self {
        let project = Self::new()
            .config(&shop_config(name))
            .file(".gitignore", "node_modules\n.out\nlib\n.next\n.env\n")
            .app(
                "storefront-middleware",
                r#""build": "node build.js", "start": "node lib/index.js""#,
            )
            .file("apps/storefront-middleware/build.js", MIDDLEWARE_BUILD)
            .file("apps/storefront-middleware/src/index.js", MIDDLEWARE)
            .app("storefront-unified-nextjs", r#""build": "node build.js""#)
            .file("apps/storefront-unified-nextjs/build.js", FRONTEND_BUILD)
            .file(
                "apps/storefront-unified-nextjs/texts.txt",
                "texts of the base\n",
            )
            .file(
                "apps/storefront-unified-nextjs/app/[locale]/page.tsx",
                "base page\n",
            )
            .file("apps/storefront-unified-nextjs/public/logo.svg", "<svg/>\n")
            .app("playwright", r#""test": "playwright test""#)
            .file(
                "apps/stores/fashion/storefront-unified-nextjs/header.tsx",
                "header of fashion\n",
            )
            .file(
                "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt",
                "texts of us\n",
            )
            .file(
                "apps/stores/fashion/stores/eu/storefront-unified-nextjs/texts.txt",
                "texts of eu\n",
            );
        project.commit();
        project
    }

    /// Writes a file, with its folders.
    pub fn file(self, path: &str, content: &str) -> Self {
        self.write(path, content);
        self
    }

    /// Writes the config.
    pub fn config(self, content: &str) -> Self {
        self.file("alokai.config.json", content)
    }

    /// Writes the `package.json` of a base app with these scripts.
    pub fn app(self, name: &str, scripts: &str) -> Self {
        let package = format!("{{\n  \"name\": \"{name}\",\n  \"scripts\": {{ {scripts} }}\n}}\n");
        self.file(&format!("apps/{name}/package.json"), &package)
    }

    /// Replaces the `build.js` of a base app.
    pub fn build_script(self, app: &str, script: &str) -> Self {
        self.file(&format!("apps/{app}/build.js"), script)
    }

    /// Writes the Dockerfile of the frontend, which both stores of [`Project::shop`] inherit.
    pub fn dockerfile(self, content: &str) -> Self {
        let path = "apps/stores/fashion/storefront-unified-nextjs/Dockerfile";
        self.file(path, content)
    }

    /// Adds a dependency to the `package.json` of a base app.
    pub fn dependency(self, app: &str, package: &str, range: &str) -> Self {
        let path = format!("apps/{app}/package.json");
        let mut manifest: Value = serde_json::from_str(&self.read(&path)).expect("plain JSON");
        manifest["dependencies"][package] = range.into();
        self.file(&path, &format!("{manifest:#}"))
    }

    /// Makes a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("below the project")).expect("folders");
        std::os::unix::fs::symlink(target, path).expect("a link");
        self
    }

    /// Declares variables of an app in `build.env`.
    pub fn env_of(self, app: &str, patterns: &[&str]) -> Self {
        self.setting("build", &json!({ "env": { app: patterns } }))
    }

    /// Sets a section of the config.
    pub fn setting(self, section: &str, value: &Value) -> Self {
        let config = self.read("alokai.config.json");
        let mut config: Value = serde_json::from_str(&config).expect("plain JSON");
        config[section] = value.clone();
        self.config(&format!("{config:#}"))
    }

    /// Sets a variable for runs of the program.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) {
        std::fs::remove_file(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Writes a file, with its folders.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("below the project")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }

    /// Lets a file be executed.
    pub fn make_executable(&self, path: &str) {
        std::fs::set_permissions(self.path(path), std::fs::Permissions::from_mode(0o755))
            .expect("it is ours");
    }

    /// Runs git in the project and returns its output.
    #[track_caller]
    pub fn git(&self, arguments: impl Arguments) -> String {
        git(&self.root, arguments)
    }

    /// Commits everything.
    pub fn commit(&self) {
        self.commit_as("change");
    }

    /// Commits everything with this message.
    pub fn commit_as(&self, message: &str) {
        self.git("add --all");
        self.git(&["commit", "--quiet", "--message", message]);
    }

    /// A clone with this many commits of the history.
    pub fn shallow_clone(&self, depth: &str) -> Self {
        let clone = Self::new();
        std::fs::remove_dir_all(&clone.root).expect("an empty project");
        let origin = format!("file://{}", self.root.display());
        let to = clone.root.to_str().expect("UTF-8");
        self.git(&["clone", "--quiet", "--depth", depth, &origin, to]);
        clone
    }

    /// The commit id of HEAD.
    pub fn sha(&self) -> String {
        self.git("rev-parse HEAD")
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file.
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Every file below a folder with its content, and every link with its target.
    pub fn tree(&self, folder: &str) -> BTreeMap<String, String> {
        let root = self.path(folder);
        let mut tree = BTreeMap::new();
        for entry in walkdir::WalkDir::new(&root) {
            let entry = entry.expect("readable");
            let path = entry
                .path()
                .strip_prefix(&root)
                .expect("below")
                .display()
                .to_string();
            if entry.file_type().is_symlink() {
                let target = std::fs::read_link(entry.path()).expect("a link");
                tree.insert(path, format!("-> {}", target.display()));
            } else if entry.file_type().is_file() {
                let content = std::fs::read(entry.path()).expect("readable");
                tree.insert(path, String::from_utf8_lossy(&content).into_owned());
            }
        }
        tree
    }

    /// Runs the program in the project and waits for its end.
    pub fn alokai(&self, arguments: impl Arguments) -> Run {
        self.command(arguments)
            .output()
            .expect("the program runs")
            .into()
    }

    /// Starts the program in the project.
    pub fn start(&self, arguments: impl Arguments) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    }

    /// The program in an environment without settings of this machine's user.
    pub fn command(&self, arguments: impl Arguments) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alokai"));
        command
            .args(arguments.words())
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.with_file_name(".home"))
            // npm's notice of a new version appears on some days in the output of scripts.
            .env("npm_config_update_notifier", "false")
            .stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }
}

/// Runs git without the settings of this machine's user.
#[track_caller]
pub fn git(folder: &Path, arguments: impl Arguments) -> String {
    let output = output_of(
        Command::new("git")
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
            .args(["-c", "commit.gpgsign=false"])
            // A detached maintenance process runs beside the program under test.
            .args(["-c", "maintenance.auto=false", "-c", "gc.auto=0"])
            .args(arguments.words())
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null"),
    );
    output.trim().to_owned()
}

/// The config of [`Project::shop`].
fn shop_config(name: &str) -> String {
    format!(
        r#"{{
  "stores": {{
    "us": {{ "deployment": {{ "projectName": "{name}-us", "cloudRegion": "us-east1", "framework": "nextjs" }} }},
    "eu": {{ "deployment": {{ "projectName": "{name}-eu", "cloudRegion": "europe-west1", "framework": "nextjs" }} }}
  }}
}}
"#
    )
}
