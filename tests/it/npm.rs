//! The npm packages of `scripts/release`: published to a registry on the loopback, installed by each package
//! manager, and the program called through the launcher.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::build::{has_no_process, processes_in};
use crate::support::{MIDDLEWARE, Project, base_layout, folder, installed, is_there, output_of};

/// The folder of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The name of this platform in packages.
fn platform() -> String {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let cpu = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{system}-{cpu}")
}

/// The packages of the program under test, made once for all test processes.
fn packed() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_alokai"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm-release");
    std::fs::create_dir_all(&out).unwrap();
    let lock = std::fs::File::create(out.join("lock")).unwrap();
    lock.lock().unwrap();
    // Newer than the program, the launcher and the scripts.
    let order = out.join("npm/publish-order");
    let time = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let sources = [
        "npm/alokai.js",
        "npm/README.md",
        "scripts/release",
        "scripts/lib/npm-packages.js",
    ];
    let sources = sources.iter().map(|name| repository().join(name));
    let newest = sources
        .chain([program.to_owned()])
        .filter_map(|path| time(&path));
    if time(&order) < newest.max() {
        let mut release = Command::new(repository().join("scripts/release"));
        release.args(["--only", "npm", "--program"]).arg(program);
        output_of(release.arg("--out").arg(&out));
    }
    out.join("npm")
}

/// A registry of npm packages that has ours.
pub struct Packages {
    address: String,
    /// The home of the user whose `.npmrc` names the registry.
    home: tempfile::TempDir,
    server: Child,
    _input: ChildStdin,
}

impl Drop for Packages {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Packages {
    pub fn publish() -> Self {
        let script = repository().join("tests/it/support/npm-registry.js");
        let mut server = Command::new("node")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        said.read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let home = folder();
        let host = address.trim_start_matches("http:");
        let npmrc = format!("registry={address}\n{host}/:_authToken=x\nupdate-notifier=false\n");
        std::fs::write(home.path().join(".npmrc"), npmrc).unwrap();
        let packages = Self {
            address,
            home,
            _input: server.stdin.take().unwrap(),
            server,
        };
        let folder = packed();
        let order = std::fs::read_to_string(folder.join("publish-order")).unwrap();
        for name in order.lines() {
            let mut npm = packages.command(&folder, None, "npm");
            output_of(
                npm.args(["publish", "--access", "public"])
                    .arg(folder.join(name)),
            );
        }
        packages
    }

    /// A program in a folder, which finds this registry and no other settings.
    pub fn command(&self, folder: &Path, programs: Option<&Path>, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap();
        let path = programs.map_or(path.clone(), |first| format!("{}:{path}", first.display()));
        let found = programs
            .map(|first| first.join(program))
            .filter(|own| own.exists());
        let mut command = Command::new(found.unwrap_or_else(|| program.into()));
        command
            .current_dir(folder)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("npm_config_registry", &self.address)
            .env("YARN_NPM_REGISTRY_SERVER", &self.address)
            .env("YARN_UNSAFE_HTTP_WHITELIST", "127.0.0.1")
            .env("YARN_ENABLE_TELEMETRY", "false")
            .env("YARN_ENABLE_IMMUTABLE_INSTALLS", "false")
            .stdin(Stdio::null());
        command
    }
}

/// A package manager, as npm's registry has it.
struct Manager {
    package: &'static str,
    program: &'static str,
    add: &'static [&'static str],
    /// What comes before a call of alokai.
    call: &'static [&'static str],
    /// Leaves the package of the platform out.
    omit: &'static [&'static [&'static str]],
}

impl Manager {
    /// Its `node_modules/.bin`.
    fn programs(&self) -> PathBuf {
        installed(&[self.package]).join("node_modules/.bin")
    }
}

const NPM: Manager = Manager {
    package: "npm@10",
    program: "npm",
    add: &["npm", "install", "-D", "alokai"],
    call: &["npx", "--no-install", "alokai"],
    omit: &[&["npm", "install", "--omit=optional"]],
};

const YARN_1: Manager = Manager {
    package: "yarn@1.22.22",
    program: "yarn 1",
    add: &["yarn", "add", "-D", "alokai"],
    call: &["yarn", "--silent", "alokai"],
    omit: &[&["yarn", "install", "--ignore-optional"]],
};

/// With its default, Plug'n'Play, where packages lie in archives.
const YARN_4: Manager = Manager {
    package: "@yarnpkg/cli-dist@4",
    program: "yarn 4",
    add: &["yarn", "add", "-D", "alokai"],
    call: &["yarn", "alokai"],
    omit: &[
        &[
            "yarn",
            "config",
            "set",
            "supportedArchitectures",
            "--json",
            r#"{"os":["aix"],"cpu":["ppc64"]}"#,
        ],
        &["yarn", "install"],
    ],
};

const PNPM: Manager = Manager {
    package: "pnpm@9",
    program: "pnpm",
    add: &["pnpm", "add", "-D", "alokai"],
    call: &["pnpm", "alokai"],
    omit: &[&["pnpm", "install", "--no-optional"]],
};

/// Installs alokai in the shop by a package manager, calls it, leaves the platform's package out, and follows
/// the advice of the launcher.
fn installs(manager: &Manager) {
    let packages = Packages::publish();
    let project = Project::shop().file("package.json", r#"{ "name": "acme", "private": true }"#);
    project.write("yarn.lock", "");
    let programs = manager.programs();
    let command = |words: &[&str]| {
        let mut command = packages.command(project.root(), Some(&programs), words[0]);
        command.args(&words[1..]);
        command
    };
    let alokai = |words: &[&str]| command(&[manager.call, words].concat());
    output_of(&mut command(manager.add));
    let manifest: Value = serde_json::from_str(&project.read("package.json")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        manifest["devDependencies"],
        json!({ "alokai": format!("^{version}") })
    );
    let said = output_of(&mut alokai(&["--version"]));
    assert_eq!(said, format!("alokai {version}\n"));
    let tree = output_of(&mut alokai(&["store", "list"]));
    assert_eq!(tree, project.alokai("store list").succeeds().stdout);
    // The exit code of the program is the one of the launcher.
    let wrong = alokai(&["store", "build"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");

    let _ = std::fs::remove_dir_all(project.path("node_modules"));
    for words in manager.omit {
        output_of(&mut command(words));
    }
    let missing = alokai(&["--version"]).output().unwrap();
    let advice = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(3), "{advice}");
    let name = format!("@alokai-cli/{}@{version}", platform());
    assert!(
        advice.contains(&format!("the package {name} is not installed")),
        "{advice}"
    );
    let line = advice.lines().find_map(|line| {
        let line = line.trim_start().strip_prefix(manager.program)?;
        Some(line.trim_start())
    });
    let line = line.unwrap_or_else(|| panic!("{advice}"));
    output_of(&mut command(&["sh", "-c", line]));
    let said = output_of(&mut alokai(&["--version"]));
    assert_eq!(said, format!("alokai {version}\n"), "after `{line}`");
}

#[test]
fn npm_installs_a_program_that_runs() {
    installs(&NPM);
}

#[test]
fn yarn_1_installs_a_program_that_runs() {
    installs(&YARN_1);
}

#[test]
fn yarn_4_installs_a_program_that_runs() {
    installs(&YARN_4);
}

#[test]
fn pnpm_installs_a_program_that_runs() {
    installs(&PNPM);
}

/// The launcher beside a package of the platform, as npm would install them; without npm.
struct Launcher {
    folder: tempfile::TempDir,
}

impl Launcher {
    /// A launcher whose program is this file.
    fn of(program: &Path) -> Self {
        let launcher = Self { folder: folder() };
        let bin = launcher
            .folder
            .path()
            .join("node_modules/@alokai-cli")
            .join(platform())
            .join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(program, bin.join("alokai")).unwrap();
        launcher.with_dependencies(&[&platform()])
    }

    fn with_dependencies(self, platforms: &[&str]) -> Self {
        let own = self.folder.path().join("node_modules/alokai");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::copy(repository().join("npm/alokai.js"), own.join("alokai.js")).unwrap();
        let packages = platforms
            .iter()
            .map(|name| (format!("@alokai-cli/{name}"), "1.0.0".into()));
        let packages: serde_json::Map<String, Value> = packages.collect();
        let manifest = json!({ "version": "1.0.0", "optionalDependencies": packages });
        std::fs::write(own.join("package.json"), manifest.to_string()).unwrap();
        self
    }

    fn script(&self) -> PathBuf {
        self.folder.path().join("node_modules/alokai/alokai.js")
    }

    /// The launcher of the program under test in a project, in a process group of its own.
    fn start(project: &Project, arguments: &str) -> (Self, Child) {
        let launcher = Self::of(Path::new(env!("CARGO_BIN_EXE_alokai")));
        let mut command = Command::new("node");
        command.arg(launcher.script()).args(arguments.split(' '));
        let of_project = project.command("");
        command.current_dir(project.root()).env_clear();
        for (name, value) in of_project.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        (launcher, child)
    }
}

/// Runs a script of the shell in place of the program.
fn through_launcher(script: &str) -> std::process::Output {
    let folder = folder();
    let program = folder.path().join("program");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    output_of(Command::new("chmod").arg("+x").arg(&program));
    let launcher = Launcher::of(&program);
    Command::new("node")
        .arg(launcher.script())
        .args(["a b", "$c"])
        .output()
        .unwrap()
}

#[test]
fn the_launcher_forwards_arguments_exit_codes_and_signals() {
    let run = through_launcher("printf '[%s]' \"$@\"; echo error >&2; exit 7");
    assert_eq!(run.status.code(), Some(7));
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "[a b][$c]");
    assert_eq!(String::from_utf8(run.stderr).unwrap(), "error\n");
    for (name, number) in [
        ("KILL", 9),
        ("TERM", 15),
        ("INT", 2),
        ("HUP", 1),
        ("ABRT", 6),
    ] {
        let run = through_launcher(&format!("kill -{name} $$; sleep 1"));
        assert_eq!(run.status.signal(), Some(number), "{name}: {run:?}");
    }
}

#[test]
fn the_launcher_names_the_platforms_that_are_supported() {
    let launcher = Launcher { folder: folder() }.with_dependencies(&["plan9-mips", "linux-s390x"]);
    let run = Command::new("node")
        .arg(launcher.script())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(3));
    let said = String::from_utf8(run.stderr).unwrap();
    let wanted = format!(
        "this platform, {}, is not supported. Supported platforms: plan9-mips, linux-s390x",
        platform()
    );
    assert!(said.contains(&wanted), "{said}");
}

/// A script that says how it ends, and takes a moment for it.
const POLITE: &str = "process.on('SIGTERM', () => setTimeout(() => { require('fs').writeFileSync('ended', 'politely'); process.exit(1) }, 1000)); \
    require('child_process').spawn('sleep', ['300'], { stdio: 'inherit' }); console.log('begun'); setInterval(() => {}, 1000)";

/// Waits for the end of a process.
fn ended(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a build through the launcher, by `to`: the launcher's process, or its group as a terminal
/// does it. The script ends politely, so the signal counted once, and no process is left.
fn interrupted(signal: &str, to: impl Fn(u32) -> String) {
    let project = Project::shop().build_script("storefront-middleware", POLITE);
    let (_launcher, mut child) = Launcher::start(&project, "store build --store us");
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(
        lines.any(|line| line.contains("build: begun")),
        "it never began"
    );
    let rest = std::thread::spawn(move || lines.count());
    output_of(Command::new("kill").args([signal, "--", &to(child.id())]));
    let status = ended(&mut child);
    rest.join().unwrap();
    assert_eq!(status.code(), Some(130), "{signal}: {status}");
    has_no_process(&project);
    assert_eq!(
        project.read(&format!(".out/us/{MIDDLEWARE}/ended")),
        "politely"
    );
}

#[test]
fn a_signal_to_the_launcher_alone_reaches_the_program() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        interrupted(signal, |pid| pid.to_string());
    }
}

#[test]
fn ctrl_c_in_a_terminal_is_counted_once_through_the_launcher() {
    interrupted("-INT", |pid| format!("-{pid}"));
}

#[test]
fn a_second_ctrl_c_through_the_launcher_kills() {
    let deaf = "process.on('SIGTERM', () => {}); console.log('begun'); setInterval(() => {}, 1000)";
    let project = Project::shop().build_script("storefront-middleware", deaf);
    let (_launcher, mut child) = Launcher::start(&project, "store build --store us");
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(
        lines.any(|line| line.contains("build: begun")),
        "it never began"
    );
    let rest = std::thread::spawn(move || lines.count());
    let group = format!("-{}", child.id());
    let start = Instant::now();
    for _ in 0..2 {
        output_of(Command::new("kill").args(["-INT", "--", &group]));
        std::thread::sleep(Duration::from_secs(1));
    }
    // Sooner than the 10 seconds after which a script is killed anyway.
    while !processes_in(&project.path(".out")).is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(9),
            "the script still runs"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ended(&mut child).code(), Some(130));
    rest.join().unwrap();
}

#[test]
fn stores_are_deployed_through_the_launcher() {
    let Some(base) = base_layout() else { return };
    let packages = Packages::publish();
    let project = Project::shop()
        .file("package.json", r#"{ "name": "acme", "private": true }"#)
        .setting("image", &json!({ "base": base }))
        .setting("deploy", &json!({ "watch": 0 }));
    let npm = |words: &[&str]| {
        let mut command = packages.command(project.root(), None, words[0]);
        command.args(&words[1..]);
        command
    };
    output_of(&mut npm(NPM.add));
    project.commit();
    let said = output_of(&mut npm(&[
        "npx",
        "--no-install",
        "alokai",
        "store",
        "deploy",
        "--all",
        "--local",
    ]));
    assert!(said.contains("deployed us: http://us.localhost"), "{said}");
    let stop = ["npx", "--no-install", "alokai", "store", "stop"];
    let said = output_of(&mut npm(&stop));
    assert_eq!(said, "stopped eu\nstopped us\n");
    has_no_process(&project);
}

#[test]
fn a_release_has_everything_that_it_promises() {
    let out = folder();
    let mut release = Command::new(repository().join("scripts/release"));
    release
        .args(["--only", "archives", "--only", "sbom", "--program"])
        .arg(env!("CARGO_BIN_EXE_alokai"))
        .arg("--out")
        .arg(out.path());
    output_of(&mut release);
    // A second run replaces what the first one wrote.
    output_of(&mut release);
    let name = format!("alokai-{}-{}", env!("CARGO_PKG_VERSION"), platform());
    output_of(
        Command::new("sha256sum")
            .args(["-c", "SHA256SUMS"])
            .current_dir(out.path()),
    );
    let archive = out.path().join(format!("{name}.tar.gz"));
    output_of(
        Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(out.path()),
    );
    let unpacked = out.path().join(&name);
    for file in [
        "alokai",
        "LICENSE",
        "README.md",
        "completions/alokai.bash",
        "completions/_alokai",
        "completions/alokai.fish",
        "completions/alokai.ps1",
        "man/alokai.1",
        "man/alokai-store-deploy.1",
    ] {
        assert!(unpacked.join(file).is_file(), "{file}");
    }
    let hidden = unpacked.join("man/alokai-__complete.1");
    assert!(!hidden.exists());
    let said = output_of(Command::new(unpacked.join("alokai")).arg("--version"));
    assert_eq!(said, format!("alokai {}\n", env!("CARGO_PKG_VERSION")));
    let sbom = out
        .path()
        .join(format!("alokai-{}.cdx.json", env!("CARGO_PKG_VERSION")));
    let sbom: Value = serde_json::from_str(&std::fs::read_to_string(sbom).unwrap()).unwrap();
    assert_eq!(sbom["metadata"]["component"]["name"], "alokai");
    let crates = sbom["components"].as_array().unwrap();
    let names: Vec<&str> = crates
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    // Linked on Linux alone; linked everywhere; a dependency of tests alone.
    assert!(names.contains(&"landlock") && names.contains(&"libgit2-sys"));
    assert!(!names.contains(&"proptest"), "{names:?}");
    let unlicensed: Vec<_> = crates
        .iter()
        .filter(|one| one["licenses"].is_null())
        .collect();
    assert!(unlicensed.is_empty(), "{unlicensed:?}");
}

#[test]
fn a_program_of_another_version_is_refused() {
    let folder = folder();
    let out = folder.path().join("out");
    let release = |program: &Path| -> String {
        let mut release = Command::new(repository().join("scripts/release"));
        release.args(["--only", "npm", "--program"]).arg(program);
        let run = release.arg("--out").arg(&out).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(1), "{said}");
        said
    };
    let program = folder.path().join("alokai");
    std::fs::write(&program, "#!/bin/sh\necho alokai 0.0.1\n").unwrap();
    output_of(Command::new("chmod").arg("+x").arg(&program));
    let said = release(&program);
    assert!(
        said.contains("is alokai 0.0.1, and Cargo.toml has"),
        "{said}"
    );
    // A program that was built on another machine for an earlier release.
    let other = out.join("programs/plan9-mips");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::copy(&program, other.join("alokai")).unwrap();
    std::fs::write(other.join("version"), "0.0.1\n").unwrap();
    let said = release(Path::new(env!("CARGO_BIN_EXE_alokai")));
    assert!(
        said.contains("plan9-mips") && said.contains("another version"),
        "{said}"
    );
}

#[test]
fn scripts_of_a_release_have_no_findings() {
    if !is_there("shellcheck") {
        return;
    }
    let mut check = Command::new("shellcheck");
    check
        .args(["-x", "scripts/release"])
        .current_dir(repository());
    output_of(&mut check);
}
