//! The password is found nowhere: not in output, logs, plans, `.out`, images, or arguments.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::deploy::unique;
use crate::support::{Console, Project, docker, registry};

/// Searches the arguments and environments of all processes in a folder for the password, except
/// the program itself, until the flag is set. (Processes of other tests may have the password.)
fn watch(
    needle: String,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<(usize, BTreeSet<String>)> {
    std::thread::spawn(move || {
        let (mut children, mut found) = (0, BTreeSet::new());
        while !stop.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let cwd = std::fs::read_link(entry.path().join("cwd"));
                let read = |file: &str| {
                    let mut text = Vec::new();
                    let _ = std::fs::File::open(entry.path().join(file))
                        .and_then(|mut file| file.read_to_end(&mut text));
                    String::from_utf8_lossy(&text).into_owned()
                };
                let arguments = read("cmdline");
                // Between `fork` and `exec`, a child of this test is still this test.
                let test = std::env::current_exe().unwrap();
                let own = arguments.starts_with(env!("CARGO_BIN_EXE_alokai"))
                    || arguments.starts_with(test.to_str().unwrap());
                if own || !cwd.is_ok_and(|cwd| cwd.starts_with(&folder)) {
                    continue;
                }
                children += 1;
                let environment = read("environ");
                let names_us = environment.contains("CLI_CLOUD_USERNAME=");
                if arguments.contains(&needle) || environment.contains(&needle) || names_us {
                    found.insert(arguments.replace('\0', " "));
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        (children, found)
    })
}

#[test]
fn the_password_is_found_nowhere() {
    let Some(registry) = registry() else { return };
    // The console refuses and repeats the request in its answer, as careless servers do.
    let console = Console::answering(422, "cannot take {{request}}");
    let name = unique("secrets");
    // The build prints its environment and the `.env` of the project.
    let build = "console.log(JSON.stringify(process.env)); console.log(require('fs').readFileSync('../../../.env', 'utf8')); \
        const end = Date.now() + 300; while (Date.now() < end); \
        require('fs').mkdirSync('lib', { recursive: true }); require('fs').writeFileSync('lib/index.js', '')";
    let project = Project::shop_named(&name).build_script("storefront-middleware", build);
    project.commit();
    let needle = registry.password.clone();
    let env = format!(
        "CLI_CLOUD_USERNAME={}\nCLI_CLOUD_PASSWORD={needle}\n",
        registry.user
    );
    let project = project
        .file(".env", &env)
        .env("CLI_DOCKER_REGISTRY_URL", &registry.address)
        .env("CLI_CONSOLE_API_URL", &console.address);

    let stop = Arc::new(AtomicBool::new(false));
    let watching = watch(needle.clone(), project.root().to_owned(), Arc::clone(&stop));
    let mut texts = Vec::new();
    for arguments in [
        "store deploy --store us",
        "store deploy --store us --json",
        "store deploy --store us --dry-run",
        "store deploy --store us --dry-run --json",
    ] {
        let run = project.alokai(arguments);
        texts.push((format!("stdout of {arguments:?}"), run.stdout));
        texts.push((format!("stderr of {arguments:?}"), run.stderr));
    }
    stop.store(true, Ordering::Relaxed);
    let (children, seen) = watching.join().unwrap();
    assert!(children > 0, "no child was ever looked at");
    assert!(seen.is_empty(), "seen in processes: {seen:?}");

    // The console got the password, and the error shows its answer.
    assert_eq!(console.requests()[0].body["cloudUserPassword"], needle);
    assert!(
        texts[1].1.contains("cannot take {") && texts[1].1.contains("***"),
        "{}",
        texts[1].1
    );
    for folder in [".out", ".alokai"] {
        texts.extend(
            project
                .tree(folder)
                .into_iter()
                .map(|(path, text)| (format!("{folder}/{path}"), text)),
        );
    }
    for app in ["vue-storefront", "vue-storefront-middleware"] {
        let image = format!(
            "{}/{name}-us-storefrontcloud-io/{app}:{}",
            registry.address,
            project.sha()
        );
        texts.push((
            format!("history of {image}"),
            docker(&["history", "--no-trunc", &image]),
        ));
        texts.push((
            format!("config of {image}"),
            docker(&["image", "inspect", &image]),
        ));
    }
    for (place, text) in texts {
        assert!(!text.contains(&needle), "the password is in {place}");
    }
}

#[test]
fn the_password_may_come_from_standard_input() {
    use std::io::Write;
    let Some(registry) = registry() else { return };
    let console = Console::start();
    let name = unique("stdin");
    let project = registry
        .used_by(Project::shop_named(&name), &console.address)
        .env("CLI_CLOUD_PASSWORD", "");
    let arguments = "store deploy --store us --cloud-password-stdin";
    let mut command = project.command(arguments);
    command.stdin(std::process::Stdio::piped());
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", registry.password).unwrap();
    drop(stdin);
    let run: crate::support::Run = child.wait_with_output().unwrap().into();
    run.succeeds();
    assert_eq!(
        console.requests()[0].body["cloudUserPassword"],
        registry.password
    );

    let nothing = project.alokai(arguments).fails_with(2);
    insta::assert_snapshot!(nothing.diagnostic(&project));
}
