//! What keys cost: planning a build less planning a compose, for each thousand files that its
//! tasks see. Prints one line for `scripts/bench`.
#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use alokai::config::Project;
use alokai::event::Stage;
use alokai::plan::{BuilderChoice, Filter, HostEnvironment, Plan, Request, Selection, Work};

/// Files of the one app.
const FILES: usize = 10_000;

/// How often each is measured.
const ROUNDS: usize = 21;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().canonicalize().expect("it is there");
    let app = root.join("apps/storefront-middleware");
    for number in 0..FILES {
        let folder = app.join(format!("src/{}", number % 100));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{number}.ts")), number.to_string()).expect("a file");
    }
    let package = r#"{ "name": "storefront-middleware", "main": "lib/index.js", "scripts": { "build": "tsc" } }"#;
    std::fs::write(app.join("package.json"), package).expect("a file");
    let config =
        r#"{ "stores": { "us": { "deployment": { "projectName": "us", "cloudRegion": "r" } } } }"#;
    std::fs::write(root.join("alokai.config.json"), config).expect("a file");
    git(&root, &["init", "--quiet"]);
    // Git trusts what it has seen only where the file is older than the index.
    std::thread::sleep(Duration::from_millis(1100));
    git(&root, &["add", "--all"]);

    let project = Project::load(&root).expect("a project");
    let plan = |until: Stage| {
        let request = Request {
            selection: Selection::All,
            filter: Filter::default(),
            until,
            allow_dirty: false,
            registry: None,
            console: None,
            builder: BuilderChoice::Auto,
            local: false,
            attest: false,
            concurrency: None,
            work: Work::default(),
            host: HostEnvironment::default(),
        };
        let started = Instant::now();
        let plan = Plan::make(&project, &request).expect("a plan");
        (started.elapsed(), plan)
    };
    let mut differences: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let (compose, _) = plan(Stage::Compose);
            let (build, _) = plan(Stage::Build);
            build.saturating_sub(compose)
        })
        .collect();
    differences.sort_unstable();
    let each = differences[ROUNDS / 2] * 1000 / u32::try_from(FILES).expect("a small number");
    println!("{:.2} ms", each.as_secs_f64() * 1000.0);
}

fn git(folder: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "git {arguments:?}"
    );
}
