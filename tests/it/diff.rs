//! `diff`: composed output against composed output.

use serde_json::json;

use crate::support::{Project, git};

const NEXT: &str = "storefront-unified-nextjs";

/// A shop in which `us` and `eu` differ in every way that a patch can express, and in a binary
/// file.
fn shop() -> Project {
    let lines: Vec<_> = (0..40).map(|line| format!("line {line}\n")).collect();
    let long = lines.concat();
    let us = format!("apps/stores/fashion/stores/us/{NEXT}");
    let eu = format!("apps/stores/fashion/stores/eu/{NEXT}");
    let project = Project::shop()
        .file(&format!("{us}/only us.tsx"), "one\n")
        .file(&format!("{us}/old-name.tsx"), &long)
        .file(
            &format!("{eu}/new-name.tsx"),
            &long.replace("line 7\n", "line seven\n"),
        )
        .file(&format!("{eu}/no-end.txt"), "no newline at the end")
        .file(&format!("{us}/run.sh"), "#!/bin/sh\n")
        .file(&format!("{eu}/run.sh"), "#!/bin/sh\n")
        .file(&format!("{us}/image.bin"), "\0us")
        .file(&format!("{eu}/image.bin"), "\0eu")
        .link(&format!("{eu}/link.txt"), "texts.txt");
    project.make_executable(&format!("{eu}/run.sh"));
    let config = project.read("alokai.config.json");
    let project = project.config(&config.replace(
        r#""eu": {"#,
        r#""eu": { "ignorePaths": ["app/[locale]/page.tsx"],"#,
    ));
    project.commit();
    project
}

#[test]
fn differences_are_grouped_by_what_gives_them() {
    let project = shop();
    let run = project.alokai("store diff us eu").succeeds();
    insta::assert_snapshot!(run.stdout);
    let run = project.alokai("store diff us eu --name-status").succeeds();
    insta::assert_snapshot!(run.stdout);
    let same = project.alokai("store diff us").succeeds();
    assert_eq!(
        same.stdout,
        "us at HEAD → us in the working tree: no composed file differs\n"
    );
}

#[test]
fn git_applies_the_patch_to_the_composed_tree() {
    let project = shop();
    project.alokai("store compose --all").succeeds();
    let run = project.alokai("store diff us eu --patch").succeeds();
    run.stdout_contains("rename from");
    assert!(
        !run.stdout.contains("image.bin"),
        "the patch has no binary file"
    );
    run.stderr_contains(&format!("{NEXT}/image.bin"));
    project.write("us-to-eu.patch", run.stdout.as_bytes());
    project.git("apply --directory=.out/us us-to-eu.patch");
    let (mut made, mut wanted) = (project.tree(".out/us"), project.tree(".out/eu"));
    let binary = format!("{NEXT}/image.bin");
    assert_ne!(made.remove(&binary), wanted.remove(&binary));
    assert_eq!(made, wanted);
    let executable = |path: &str| {
        use std::os::unix::fs::PermissionsExt;
        project.path(path).metadata().unwrap().permissions().mode() & 0o111
    };
    assert_eq!(executable(&format!(".out/us/{NEXT}/run.sh")), 0o111);
}

#[test]
fn a_store_is_compared_across_revisions_without_a_checkout() {
    let project = shop();
    project.write(&format!("apps/{NEXT}/public/logo.svg"), b"<svg>2</svg>\n");
    project.commit();
    project.write(
        &format!("apps/stores/fashion/{NEXT}/header.tsx"),
        b"not committed\n",
    );
    let json = |arguments: &str| {
        let all = format!("store diff us --json {arguments}");
        project.alokai(&all).succeeds().json()
    };
    assert_eq!(
        json("--since HEAD~1 --to HEAD")["files"],
        json!([{
            "status": "M", "path": format!("{NEXT}/public/logo.svg"), "binary": false, "added": 1, "removed": 1,
            "oldLayer": "base", "newLayer": "base", "because": "base",
        }])
    );
    let files = json("--since HEAD~1")["files"].clone();
    assert_eq!(files.as_array().unwrap().len(), 2, "{files}");
    assert_eq!(json("")["files"][0]["because"], "fashion");
    assert_eq!(json("--app storefront-middleware")["files"], json!([]));
    let patch = project.alokai("store diff us -p").succeeds().stdout;
    assert!(
        patch.contains("-header of fashion\n+not committed\n"),
        "{patch}"
    );
    // A revision can be compared although the working tree has no stores.
    project.git("stash --quiet");
    project.write("alokai.config.json", b"{ \"stores\": {} }");
    assert_eq!(
        json("--since HEAD~1 --to HEAD")["files"][0]["path"],
        format!("{NEXT}/public/logo.svg")
    );
    assert_eq!(json("--since HEAD")["files"][0]["status"], "D");
    project.git("checkout --quiet alokai.config.json");
    project.git("stash pop --quiet");
    let stat = project.alokai("store diff us --stat").succeeds().stdout;
    assert!(
        stat.contains("1 file changed, 1 insertion(+), 1 deletion(-)"),
        "{stat}"
    );
}

#[test]
fn statistics_equal_those_of_git() {
    let project = shop();
    project.write(
        "apps/playwright/very/long/way/to/a/folder/that/does/not/fit/into/eighty/columns.ts",
        "x\n".repeat(300).as_bytes(),
    );
    project.write("apps/playwright/é x.ts", b"x\n");
    project.alokai("store compose --all").succeeds();
    let ours = |arguments: &str| {
        let all = format!("store diff us eu {arguments}");
        project.alokai(&all).succeeds().stdout
    };
    // Git's own statistics of the composed trees.
    std::fs::create_dir(project.path("both")).unwrap();
    git(&project.path("both"), &["init", "--quiet"]);
    let copy = |store: &str| {
        let _ = std::fs::remove_dir_all(project.path("both/apps"));
        let from = project.path(&format!(".out/{store}"));
        let to = project.path("both/apps");
        assert!(
            std::process::Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(to)
                .status()
                .unwrap()
                .success()
        );
        git(&project.path("both"), &["add", "--all", "--force"]);
        git(
            &project.path("both"),
            &["commit", "--quiet", "--message", store],
        );
    };
    copy("us");
    copy("eu");
    let gits = |switch: &str| {
        let text = git(
            &project.path("both"),
            &["diff", "--relative=apps", switch, "HEAD~1", "HEAD"],
        );
        text.trim_end().to_owned()
    };
    let lines = |text: &str| {
        let lines = text.lines().map(|line| line.trim().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(lines(&ours("--stat")), lines(&gits("--stat")));
    let statuses = |text: &str| {
        // Git computes the similarity of two files in its own way.
        let lines = text
            .trim_end()
            .lines()
            .map(|line| match line.split_once('\t') {
                Some((status, path)) => format!("{} {path}", &status[..1]),
                None => line.to_owned(),
            });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(
        statuses(&ours("--name-status")),
        statuses(&gits("--name-status"))
    );
}

#[test]
fn what_cannot_be_compared_is_named() {
    let project = shop();
    let run = |arguments: &str| {
        let all = format!("store diff {arguments}");
        project.alokai(&all).fails_with(2).stderr
    };
    assert!(run("us uk").contains("no store `uk`"));
    assert!(run("fashion us").contains("is a template"));
    assert!(run("us eu --app web").contains("no app `web`"));
    assert!(run("us --since nowhere").contains("no commit `nowhere`"));
}

/// The peak memory of the program in bytes, as the kernel counts it.
fn peak(
    project: &crate::support::Project,
    arguments: impl crate::support::Arguments,
) -> (crate::support::Run, u64) {
    let mut command = project.command(arguments);
    let program = command.get_program().to_owned();
    let given: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    // A parent that waits only for the program and then prints the peak of its children.
    let script = "import resource, subprocess, sys\n\
                  code = subprocess.run(sys.argv[1:]).returncode\n\
                  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n\
                  print(peak, file=sys.stderr)\n\
                  sys.exit(code)";
    let environment: Vec<_> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command = std::process::Command::new("python3");
    command
        .args(["-c", script])
        .arg(program)
        .args(given)
        .current_dir(project.root())
        .env_clear()
        .envs(environment);
    let run: crate::support::Run = command.output().expect("python runs").into();
    let peak: u64 = run.stderr.lines().last().unwrap().parse().unwrap();
    (run, peak * 1024)
}

#[test]
fn a_binary_of_400_mb_takes_no_400_mb_of_memory() {
    const SIZE: u64 = 400_000_000;
    let project = crate::support::Project::shop();
    let video = project.path("apps/storefront-unified-nextjs/public/video.bin");
    let write = |size: u64| {
        let file = std::fs::File::create(&video).unwrap();
        file.set_len(size).unwrap();
    };
    write(SIZE);
    // The binary is read from the working tree and from a commit.
    let diff = ["store", "diff", "us", "--since", "HEAD", "--json"];
    for (old, new) in [(None, Some(SIZE)), (Some(SIZE), Some(SIZE - 1))] {
        let (run, peak) = peak(&project, &diff);
        let told = run.succeeds().json();
        let file = &told["files"][0];
        assert_eq!(file["binary"], true, "{told}");
        assert_eq!(file["oldBytes"].as_u64(), old, "{told}");
        assert_eq!(file["newBytes"].as_u64(), new, "{told}");
        assert!(peak < 150_000_000, "{peak} bytes");
        if old.is_none() {
            project.git("add --all");
            project.git("commit --quiet --message video");
            write(SIZE - 1);
        }
    }
}
