//! `--sandbox`: a script can open only the files in its key, and the error names what was refused.

use std::process::Command;

use crate::support::{Project, Run};

const FRONTEND: &str = "apps/storefront-unified-nextjs";
const MIDDLEWARE: &str = "apps/storefront-middleware";

/// A shop whose middleware builds its output and then runs this line of JavaScript. Relative paths
/// start in `.out/us/storefront-middleware`.
fn shop(line: &str) -> Project {
    let project = Project::shop();
    let build = project.read(&format!("{MIDDLEWARE}/build.js"));
    let project = project
        .file(
            &format!("{MIDDLEWARE}/build.js"),
            &format!("{build}\n{line}\n"),
        )
        // Other files at the top of the project count when they are opened.
        .file(
            ".gitignore",
            "node_modules\n.out\nlib\n.next\n.env\nconfig\ntools\n",
        )
        .file("config/prices.json", "{ \"price\": 1 }\n")
        .file("config/more/taxes.json", "{ \"tax\": 2 }\n");
    project.commit();
    project
}

fn build(project: &Project) -> Run {
    let filter = "storefront-middleware-us";
    project.alokai(&[
        "store",
        "build",
        "-s",
        "us",
        "--filter",
        filter,
        "--sandbox",
    ])
}

/// A line of JavaScript that copies a file into the result.
fn reads(path: &str) -> String {
    format!("fs.writeFileSync('lib/read.txt', fs.readFileSync({path:?}));")
}

#[test]
fn an_undeclared_file_is_named_with_the_line_that_declares_it() {
    let project = shop(&reads("../../../config/prices.json"));
    let run = build(&project).fails_with(1);
    let said = [
        "reading `config/prices.json`",
        r#"declare it in `alokai.config.json`: `"build": { "globalDependencies": ["config/prices.json"] }`"#,
        "alokai::build::undeclared",
    ];
    for text in said {
        assert!(run.stderr.contains(text), "{text}: {}", run.stderr);
    }
    assert!(!project.exists(".out/us/storefront-middleware/lib/read.txt"));

    let declared = serde_json::json!({ "globalDependencies": ["config/prices.json"] });
    let project = project.setting("build", &declared);
    build(&project).succeeds();
    let read = project.read(".out/us/storefront-middleware/lib/read.txt");
    assert_eq!(read, "{ \"price\": 1 }\n");
}

#[test]
fn without_the_sandbox_the_same_script_ends_well() {
    let project = shop(&reads("../../../config/prices.json"));
    let filter = "storefront-middleware-us";
    project
        .alokai(&["store", "build", "-s", "us", "--filter", filter])
        .succeeds();
}

#[test]
fn the_config_asks_for_it_as_the_flag_does() {
    let project = shop(&reads("../../../config/prices.json"))
        .setting("build", &serde_json::json!({ "sandbox": true }));
    let run = project.alokai("store build -s us").fails_with(1);
    run.stderr_contains("reading `config/prices.json`");
}

#[test]
fn a_declared_folder_may_be_listed_and_read() {
    let line = "fs.writeFileSync('lib/read.txt', fs.readdirSync('../../../config').concat(fs.readdirSync('../../../config/more')).join());\n\
                fs.readFileSync('../../../config/more/taxes.json');";
    let project = shop(line).setting(
        "build",
        &serde_json::json!({ "globalDependencies": ["config"] }),
    );
    build(&project).succeeds();
    let read = project.read(".out/us/storefront-middleware/lib/read.txt");
    assert_eq!(read, "more,prices.json,taxes.json");
}

#[test]
fn every_refused_file_is_named_with_what_helps() {
    let paths = [
        (
            "../../../apps/storefront-unified-nextjs/texts.txt",
            "it is a source file of the base app `storefront-unified-nextjs`",
        ),
        (
            "../../../apps/stores/fashion/storefront-unified-nextjs/header.tsx",
            "it is a source file of a store",
        ),
        (
            "../../eu/storefront-unified-nextjs/texts.txt",
            "this path is in the store `eu`",
        ),
        (
            "../storefront-unified-nextjs/texts.txt",
            "this path is in the app `storefront-unified-nextjs`, which is not built before this app",
        ),
        (
            "../../../.git/HEAD",
            "a script cannot read the `.git` folder",
        ),
        (
            "../../../tools/notes.txt",
            r#"declare it in `alokai.config.json`: `"build": { "globalDependencies": ["tools/notes.txt"] }`"#,
        ),
        ("../../../../beside.txt", "this path is outside the project"),
    ];
    for (path, mend) in paths {
        let project = shop(&reads(path)).file("tools/notes.txt", "words\n");
        std::fs::write(project.root().with_file_name("beside.txt"), "beside\n").unwrap();
        // All stores are composed before the script runs in the sandbox.
        project.alokai("store compose --all").succeeds();
        let run = build(&project).fails_with(1);
        let name = std::path::Path::new(path)
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        let named = run
            .stderr
            .lines()
            .any(|line| line.contains("reading `") && line.contains(name));
        assert!(named, "{path}: {}", run.stderr);
        assert!(run.stderr.contains(mend), "{path}: {}", run.stderr);
    }
}

#[test]
fn a_folder_that_is_in_no_key_is_not_listed() {
    let run = build(&shop("fs.readdirSync('../../../config')")).fails_with(1);
    let said = r#"`config`: declare it in `alokai.config.json`: `"build": { "globalDependencies": ["config"] }`"#;
    run.stderr_contains(said);
    let run = build(&shop("fs.readdirSync('../../..')")).fails_with(1);
    let said = "a script cannot list the root folder of the project";
    run.stderr_contains(said);
}

#[test]
fn a_link_leads_no_further_than_its_end_is_granted() {
    // The script makes the link, since the composition refuses such a link.
    let line = format!(
        "fs.symlinkSync('../../../config/prices.json', 'way');\n{}",
        reads("way")
    );
    let run = build(&shop(&line)).fails_with(1);
    run.stderr_contains("reading `config/prices.json`");
}

#[test]
fn a_script_writes_nowhere_but_in_its_own_folder() {
    for path in [
        "../../../apps/storefront-middleware/made.txt",
        "../../../made.txt",
        "../made.txt",
    ] {
        let project = shop(&format!("fs.writeFileSync({path:?}, 'made');"));
        let run = build(&project).fails_with(1);
        let inside = project
            .root()
            .join(".out/us/storefront-middleware")
            .join(path);
        let inside = virtual_path::normalize(&inside);
        let shown = inside
            .strip_prefix(project.root())
            .unwrap()
            .display()
            .to_string();
        assert!(
            run.stderr.contains(&format!("`{shown}`")),
            "{path}: {}",
            run.stderr
        );
        run.stderr_contains(
            "a script can write only in its own folder, `.out/us/storefront-middleware`",
        );
        assert!(!inside.exists());
    }
    // A readable file is not writable.
    let project = shop("fs.writeFileSync('../../../tsconfig.base.json', '{}');")
        .file("tsconfig.base.json", "{ }");
    let run = build(&project).fails_with(1);
    run.stderr_contains("writing `tsconfig.base.json`");
    assert_eq!(project.read("tsconfig.base.json"), "{ }");
}

#[test]
fn system_toolchain_and_temporary_files_are_there() {
    let line = "fs.readFileSync('/etc/hostname');\n\
        const home = require('os').tmpdir();\n\
        fs.writeFileSync(home + '/x', 'x');\n\
        fs.renameSync(home + '/x', 'lib/x');\n\
        fs.writeFileSync('/dev/null', 'x');\n\
        require('child_process').execSync('npm --version && git --version && ls /usr >/dev/null');\n\
        fs.readFileSync('../../../package-lock.json');";
    let project = shop(line).file("package.json", "{}\n").file(
        "package-lock.json",
        "{ \"lockfileVersion\": 3, \"packages\": {} }\n",
    );
    build(&project).succeeds();
}

#[test]
fn the_home_folder_is_private_but_for_settings_of_package_managers() {
    let project = shop(&reads("../../../../.home/.npmrc"));
    let home = project.root().with_file_name(".home");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join(".npmrc"), "fund=false\n").unwrap();
    std::fs::write(home.join(".secret"), "secret\n").unwrap();
    build(&project).succeeds();
    let project = project.file(
        &format!("{MIDDLEWARE}/build.js"),
        "require('fs').readFileSync(process.env.HOME + '/.secret')",
    );
    let run = build(&project).fails_with(1);
    run.stderr_contains(".home/.secret`: this path is outside the project");
}

/// A shop with a workspace package that is linked as npm does it. `dependency` says whether the
/// middleware depends on the package.
fn with_package(dependency: bool) -> Project {
    let project = shop("fs.writeFileSync('lib/read.txt', require('@acme/prices').price + '');")
        .file("package.json", r#"{ "workspaces": ["packages/*"] }"#)
        .file(
            "packages/prices/package.json",
            r#"{ "name": "@acme/prices", "main": "index.js" }"#,
        )
        .file("packages/prices/index.js", "exports.price = 5;")
        .link("node_modules/@acme/prices", "../../packages/prices");
    let dependencies = if dependency {
        r#", "dependencies": { "@acme/prices": "*" }"#
    } else {
        ""
    };
    project.file(
        &format!("{MIDDLEWARE}/package.json"),
        &format!(r#"{{ "name": "storefront-middleware", "scripts": {{ "build": "node build.js" }}{dependencies} }}"#),
    )
}

#[test]
fn a_workspace_package_is_read_only_where_it_is_a_dependency() {
    let run = build(&with_package(false)).fails_with(1);
    let said = "the workspace package `@acme/prices` is not a dependency of this package";
    run.stderr_contains(said);
    let project = with_package(true);
    build(&project).succeeds();
    assert_eq!(
        project.read(".out/us/storefront-middleware/lib/read.txt"),
        "5"
    );
}

#[test]
fn a_link_is_read_through_where_the_key_has_what_it_leads_to() {
    let line = |read: &str| {
        format!("exports.price = require('fs').readFileSync(__dirname + '/{read}', 'utf8');")
    };
    let project = with_package(true)
        .link("packages/prices/linked.json", "../../config/prices.json")
        .link("packages/prices/folder", "../../config")
        // A link to a file that git ignores is not followed.
        .file(".gitignore", "node_modules\n.out\nlib\n.next\n.env\n")
        .file("packages/prices/index.js", &line("linked.json"));
    let made = ".out/us/storefront-middleware/lib/read.txt";
    build(&project).succeeds();
    assert_eq!(project.read(made), "{ \"price\": 1 }\n");
    // The key contains the target: other content gives another result.
    project.write("config/prices.json", b"other");
    build(&project).succeeds();
    assert_eq!(project.read(made), "other");

    let project = project.file("packages/prices/index.js", &line("folder/more/taxes.json"));
    build(&project).succeeds();
    project.write("config/more/taxes.json", b"more");
    build(&project).succeeds();
    assert_eq!(project.read(made), "more");

    // If the target of a link is ignored and not declared, it is not in the key.
    let project = project
        .file(".gitignore", "node_modules\n.out\nlib\n.next\nsecret\n")
        .file("secret/prices.json", "secret")
        .file(
            "packages/prices/index.js",
            &line("../../secret/prices.json"),
        );
    let run = build(&project).fails_with(1);
    let said = "reading `secret/prices.json`";
    run.stderr_contains(said);
}

#[test]
fn a_frontend_reads_what_its_middleware_made_and_nothing_beside() {
    let line = |path: &str| format!("fs.readFileSync('../storefront-middleware/{path}');");
    let frontend = |path: &str| {
        let project = Project::shop();
        let build = project.read(&format!("{FRONTEND}/build.js"));
        project.file(
            &format!("{FRONTEND}/build.js"),
            &format!("{build}\n{}", line(path)),
        )
    };
    let sandboxed = "store build -s us --sandbox";
    frontend("lib/types.d.ts").alokai(sandboxed).succeeds();
    frontend("src/index.js").alokai(sandboxed).succeeds();
    // A file that no script and no composition made.
    let project = frontend(".cache/left.txt");
    project
        .alokai("store build -s us --filter storefront-middleware-us")
        .succeeds();
    project.write(".out/us/storefront-middleware/.cache/left.txt", b"left");
    let run = project.alokai(sandboxed).fails_with(1);
    run.stderr_contains("reading `.out/us/storefront-middleware/.cache/left.txt`");
}

#[test]
fn a_script_that_continues_without_a_refused_file_gets_a_note() {
    let project = shop(
        "try { fs.readFileSync('../../../config/prices.json') } catch (error) { console.log(error.message) }",
    );
    let run = build(&project).succeeds();
    let said = "the sandbox denied access to `config/prices.json`, and the script continued without it; declare it in `alokai.config.json`:";
    run.stderr_contains(said);
}

#[test]
fn a_failure_that_names_no_file_says_how_to_find_it() {
    let project =
        shop("try { fs.readFileSync('../../../config/prices.json') } catch { process.exit(3) }");
    let run = build(&project).fails_with(1);
    for text in [
        "exited with code 3",
        "the script failed in the sandbox",
        "strace -f -e trace=%file",
    ] {
        run.stderr_contains(text);
    }
}

#[test]
fn a_sandboxed_result_is_used_in_sandboxes_only() {
    let project = shop("");
    build(&project).succeeds();
    let again = "store build -s us --filter storefront-middleware-us";
    // A sandboxed result is not used without a sandbox, since the script may have continued without
    // a refused file.
    let run = project.alokai(again).succeeds();
    run.stdout_contains("1 built");
    assert!(build(&project).succeeds().stdout.contains("1 cache hit"));
}

#[test]
fn a_program_that_is_not_there_is_named_as_without_a_sandbox() {
    let project = shop("").env("PATH", "/nowhere");
    let run = build(&project).fails_with(3);
    run.stderr_contains("alokai::build::start");
    run.stderr_contains("check that `npm` is installed");
}

/// A kernel without Landlock: a seccomp filter answers its first system call with `ENOSYS`, as
/// kernels before 5.13 and some container profiles do.
const WITHOUT_LANDLOCK: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, ENOSYS, LANDLOCK_CREATE_RULESET = 0x7fff0000, 0x00050000, 38, 444
code = [(0x20, 0, 0, 0), (0x15, 0, 1, LANDLOCK_CREATE_RULESET), (0x06, 0, 0, SECCOMP_RET_ERRNO | ENOSYS), (0x06, 0, 0, SECCOMP_RET_ALLOW)]
program = b"".join(struct.pack("HBBI", *line) for line in code)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
given = Filter(len(code), program)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(given), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_kernel_without_it_is_an_error_before_anything_is_built() {
    let project = shop("");
    let program = project.command("store build -s us --sandbox");
    let mut command = Command::new("python3");
    command
        .arg("-c")
        .arg(WITHOUT_LANDLOCK)
        .arg(program.get_program())
        .args(program.get_args());
    let variables = program
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command
        .env_clear()
        .envs(variables)
        .current_dir(project.root());
    let Ok(output) = command.output() else {
        println!("skipped: no python3, which puts the filter on");
        return;
    };
    let run = Run::from(output).fails_with(3);
    for text in [
        "alokai::build::no_sandbox",
        "older than Linux 5.13",
        "without `--sandbox` and `build.sandbox`",
    ] {
        run.stderr_contains(text);
    }
    assert!(!project.exists(".out"));
}
