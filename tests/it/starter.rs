//! A starter as shops use it, unchanged: yarn 1, Next.js and an express middleware, below the root
//! of its git repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::support::{
    FRONTEND, MIDDLEWARE, Project, Run, base_layout, copy_of, copy_tracked, git, run,
    starter_dependencies,
};

/// A copy of `fixtures/starter` in the folder `storefront` of a repository, with its dependencies
/// and with each `.env.example` copied to `.env`, as its developers do.
fn starter() -> (tempfile::TempDir, Project) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/starter");
    let (installed, yarn) = starter_dependencies();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let repository = folder.path().canonicalize().unwrap().join("repository");
    let root = repository.join("storefront");
    copy_tracked(&source, &root);
    std::fs::write(repository.join("README.md"), "The shops of Acme\n").unwrap();
    // Hard links are enough at the top. The folders of apps are copied, since a build that writes
    // into one of them must not reach other tests.
    copy(&installed, "node_modules", &root, "-al");
    for app in [FRONTEND, MIDDLEWARE, "playwright"] {
        copy(
            &installed.join("apps").join(app),
            "node_modules",
            &root.join("apps").join(app),
            "-a",
        );
        let example = root.join("apps").join(app).join(".env.example");
        if example.exists() {
            std::fs::copy(&example, example.with_file_name(".env")).unwrap();
        }
    }
    git(&repository, "init --quiet --initial-branch=main");
    git(&repository, "add --all");
    git(&repository, "commit --quiet --message starter");
    let path = format!("{}:{}", yarn.display(), std::env::var("PATH").unwrap());
    (folder, Project::at(root).env("PATH", &path))
}

fn copy(from: &Path, name: &str, to: &Path, option: &str) {
    let mut command = Command::new("cp");
    let status = command.arg(option).arg(from.join(name)).arg(to).status();
    assert!(status.unwrap().success());
}

/// Puts the base image beside the images of `--local` under the name that the project uses.
fn with_base_image(project: &Project, base: &str) {
    std::fs::create_dir(project.path(".alokai")).unwrap();
    let to = format!(
        "oci:{}:node:22-alpine",
        project.path(".alokai/registry").display()
    );
    run("skopeo", &["copy", "--quiet", base, &to]);
}

/// Every source, and every installed package: size and time of each file, target of each link.
fn sources(project: &Project) -> BTreeMap<PathBuf, String> {
    let made = [".out", ".alokai", "packages/format/dist"].map(|folder| project.path(folder));
    let entries = walkdir::WalkDir::new(project.root())
        .into_iter()
        .filter_entry(|entry| !made.iter().any(|made| made == entry.path()));
    let entries = entries.map(|entry| entry.unwrap());
    let entries = entries.filter(|entry| !entry.file_type().is_dir());
    entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            let time = metadata.modified().unwrap().duration_since(UNIX_EPOCH);
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let state = format!("{} {time:?} {}", metadata.len(), target.display());
            (entry.into_path(), state)
        })
        .collect()
}

/// A copy of a `.deploy` folder in an otherwise empty folder, in which its app runs.
struct Started {
    child: Child,
    port: u16,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Started {
    /// Starts a unit as its image does, with nothing in the environment but
    /// these settings and the port under the name that the app reads.
    fn new(
        project: &Project,
        unit: (&str, &str),
        port_name: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let (store, app_name) = unit;
        let deploy = project.path(&format!(".out/{store}/{app_name}/.deploy"));
        let entry = if app_name == FRONTEND {
            "server.js"
        } else {
            "lib/index.js"
        };
        let (folder, app) = copy_of(&deploy);
        for above in app.ancestors().skip(1) {
            assert!(!above.join("node_modules").exists(), "{}", above.display());
        }
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = port.local_addr().unwrap().port();
        let log = folder.path().join("log");
        let child = Command::new("node")
            .arg(entry)
            .current_dir(&app)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env(port_name, port.to_string())
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            log,
            _folder: folder,
        }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The status and the body of an answer, as soon as the app answers.
    #[track_caller]
    fn get(&mut self, path: &str) -> (String, String) {
        let start = Instant::now();
        loop {
            let output = Command::new("curl")
                .args(["--silent", "--location", "--noproxy", "*"])
                .args(["--max-time", "20", "--write-out", "\n%{http_code}"])
                .arg(format!("{}{path}", self.address()))
                .output()
                .unwrap();
            if output.status.success() {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let (body, status) = text.rsplit_once('\n').unwrap();
                return (status.to_owned(), body.to_owned());
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < Duration::from_secs(20),
                "{path} is not answered: {ended:?}\n{}",
                std::fs::read_to_string(&self.log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The body of an answer with status 200.
    #[track_caller]
    fn page(&mut self, path: &str) -> String {
        let (status, body) = self.get(path);
        let log = std::fs::read_to_string(&self.log).unwrap();
        assert_eq!(status, "200", "{path}: {body}\n{log}");
        body
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The class names in the stylesheets below a folder.
fn classes(folder: &Path) -> BTreeSet<String> {
    let class = regex::Regex::new(r"\.(-?[_a-zA-Z](?:[_a-zA-Z0-9-]|\\.)*)").unwrap();
    let mut names = BTreeSet::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|end| end == "css") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            names.extend(class.captures_iter(&text).map(|found| found[1].to_owned()));
        }
    }
    names
}

/// Builds the base app in place, as its developers do.
fn base_build(project: &Project) -> Run {
    let program = project.command("");
    let environment = program.get_envs();
    let environment = environment.filter_map(|(name, value)| Some((name, value?)));
    let mut yarn = Command::new("yarn");
    yarn.args(["--silent", "build"])
        .env_clear()
        .envs(environment);
    let folder = project.path(&format!("apps/{FRONTEND}"));
    let output = yarn.current_dir(folder).env("NEXT_TELEMETRY_DISABLED", "1");
    output.output().unwrap().into()
}

#[test]
fn an_unchanged_starter_is_deployed_and_its_pages_are_served_from_copies() {
    let Some(base) = base_layout() else { return };
    let (_folder, project) = starter();
    with_base_image(&project, &base);
    let before = sources(&project);
    let deployed = project.alokai("store deploy --store us,de --local --until push");
    deployed.succeeds();

    // What was written lies in `.out` and `.alokai`.
    let after = sources(&project);
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, state)| after.get(*path) != Some(*state))
        .map(|(path, _)| path)
        .chain(after.keys().filter(|path| !before.contains_key(*path)))
        .collect();
    assert!(changed.is_empty(), "sources changed: {changed:#?}");
    assert_eq!(project.git("status --porcelain"), "");

    for (store, types_from, product) in [("us", "us", "Mug"), ("de", "base", "Scarf")] {
        let key = format!("key-of-{store}");
        let settings = [("COMMERCE_API_KEY", key.as_str())];
        let mut middleware = Started::new(&project, (store, MIDDLEWARE), "API_PORT", &settings);
        assert!(middleware.page("/products").contains(product));

        let address = middleware.address();
        let settings = [("NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL", address.as_str())];
        let mut frontend = Started::new(&project, (store, FRONTEND), "PORT", &settings);
        let home = frontend.page("/");
        for text in [
            format!("data-header-from=\"{store}\""),
            format!("data-types-from=\"{types_from}\""),
            format!("data-key=\"{key}\""),
            product.to_owned(),
        ] {
            assert!(home.contains(&text), "{store}: `{text}` is not in {home}");
        }
        let deep = frontend.page("/en/some/where");
        assert!(deep.contains("data-slug=\"some/where\""), "{store}: {deep}");
        assert!(frontend.page("/en/checkout").contains("Checkout"));
        let sheet = home.split('"').find(|part| {
            let end = Path::new(part).extension();
            end.is_some_and(|end| end == "css")
        });
        let sheet = sheet.unwrap();
        assert!(frontend.page(sheet).contains(".bg-slate-700"));
        // `de` drops this page. The optional catch-all page answers in its place.
        let cards = frontend.page("/en/gift-cards");
        let is_dropped = cards.contains("data-slug=\"gift-cards\"");
        assert_eq!(is_dropped, store == "de", "{store}: {cards}");
    }

    // The base app still builds after the stores, and its styles are in each store.
    base_build(&project).succeeds();
    let of_base = classes(&project.path(&format!("apps/{FRONTEND}/.next/static")));
    let of_store = classes(&project.path(&format!(".out/us/{FRONTEND}/.deploy/.next/static")));
    // The component library alone names this class, so Tailwind has read it.
    assert!(of_base.contains("cursor-grab"), "{of_base:?}");
    let missing: Vec<_> = of_base.difference(&of_store).collect();
    assert!(
        missing.is_empty(),
        "{} of {} classes are missing: {missing:?}",
        missing.len(),
        of_base.len()
    );
}

#[test]
fn a_starter_has_no_findings() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/starter");
    let project = Project::new();
    copy_tracked(&source, project.root());
    // What the stylesheets are made of, without an installation.
    let ui = "node_modules/@storefront-ui/react/index.js";
    let project = project.file(ui, "");
    project.commit();
    let run = project.alokai("store check").succeeds();
    assert_eq!(run.stdout, "no problems found\n");
}
