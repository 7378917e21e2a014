//! Unusual and hostile trees give a clear error or a right result, and never a write outside
//! `.out`.

use std::os::unix::ffi::OsStrExt;

use crate::support::{Project, Random, git};

const NEXT: &str = "apps/storefront-unified-nextjs";
const OUT: &str = ".out/us/storefront-unified-nextjs";

fn compose(project: &Project) -> crate::support::Run {
    project.alokai("store compose --store us")
}

#[test]
fn names_with_anything_but_a_slash_are_composed() {
    let long = "n".repeat(255);
    let names = [
        "new\nline.ts",
        "quote's \"and\" `more`.ts",
        "tab\tand\u{7f}.ts",
        " blanks ",
        "-rf",
        "*?[x]{y}!#",
        "ünïcödé 🦀",
        long.as_str(),
    ];
    let mut project = Project::shop();
    for name in names {
        project = project.file(&format!("{NEXT}/odd/{name}"), name);
    }
    compose(&project).succeeds();
    for name in names {
        assert_eq!(project.read(&format!("{OUT}/odd/{name}")), name);
    }
    project.commit();
    for command in [
        &["store", "changed", "--since", "HEAD~1", "--json"][..],
        &["store", "check", "--json"],
        &["store", "diff", "us", "--since", "HEAD~1", "--json"],
        &["store", "diff", "us", "--since", "HEAD~1"],
        &[
            "store",
            "why",
            "us",
            "storefront-unified-nextjs/odd/new\nline.ts",
        ],
    ] {
        let run = project.alokai(command).succeeds();
        let lines = run
            .stdout
            .lines()
            .filter(|line| line.starts_with("line.ts"));
        assert_eq!(
            lines.count(),
            0,
            "a name breaks a line of {command:?}:\n{}",
            run.stdout
        );
    }
}

#[test]
fn special_files_are_named() {
    let project = Project::shop();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        project.path(&format!("{NEXT}/pipe")),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let name = std::ffi::OsStr::from_bytes(b"not-\xff-text.ts");
    std::fs::write(project.path(NEXT).join(name), "").unwrap();
    let run = compose(&project).fails_with(2);
    run.stderr_contains("pipe` is not a file");
    run.stderr_contains("is not valid UTF-8");
    assert!(!project.exists(".out/us"));
}

#[test]
fn store_ids_cannot_lead_out_of_their_folder() {
    for id in ["../us", "..", "a/b", "/etc", ".", "us\u{0}"] {
        let config = serde_json::json!({ "stores": { id: {
            "deployment": { "projectName": "acme", "cloudRegion": "r" },
        } } });
        let project = Project::shop().config(&config.to_string());
        let run = project.alokai("store compose --all").fails_with(2);
        assert!(
            run.stderr.contains("is not a valid store id"),
            "{id}: {}",
            run.stderr
        );
        assert!(!project.exists(".out"));
    }
}

#[test]
fn a_file_of_two_gigabytes_with_nothing_in_it_is_composed() {
    let project = Project::shop();
    let file = std::fs::File::create(project.path(&format!("{NEXT}/huge.bin"))).unwrap();
    file.set_len(2 << 30).unwrap();
    compose(&project).succeeds();
    let composed = project.path(&format!("{OUT}/huge.bin"));
    assert_eq!(composed.metadata().unwrap().len(), 2 << 30);
}

#[test]
fn a_layer_that_changes_while_it_is_read_is_an_error_or_composed_right_by_the_next() {
    let project = Project::shop();
    let path = |number: usize| format!("{NEXT}/moving/{number}.ts");
    for number in 0..200 {
        project.write(&path(number), b"0");
    }
    project.commit();
    let random = &mut Random::new(11);
    let mut refused = 0;
    for round in 0..10 {
        let mut child = project.start("store compose --store us");
        for _ in 0..2_000 {
            let number = random.below(200);
            let content = "x".repeat(1 + random.below(9));
            // With a rename, as editors write, and in place.
            if random.once_in(2) {
                let beside = project.path(&format!("{NEXT}/../../beside"));
                std::fs::write(&beside, &content).unwrap();
                std::fs::rename(&beside, project.path(&path(number))).unwrap();
            } else {
                std::fs::write(project.path(&path(number)), &content).unwrap();
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
        }
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            refused += 1;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // The change is noticed after hashing or during it.
            let is_told = said.contains("changed during the compose")
                || said.contains("nothing changes it meanwhile");
            assert!(is_told, "round {round}: {said}");
        }
        compose(&project).succeeds();
        for number in 0..200 {
            let composed = project.read(&format!("{OUT}/moving/{number}.ts"));
            assert_eq!(
                composed,
                project.read(&path(number)),
                "round {round}, file {number}"
            );
        }
    }
    eprintln!("{refused} of 10 runs were refused");
}

#[test]
fn a_sparse_checkout_is_no_smaller_composition() {
    let project = Project::shop();
    let keep = [
        "sparse-checkout",
        "set",
        "--no-cone",
        "/*",
        "!/apps/stores/fashion/stores/us",
    ];
    git(project.root(), &keep);
    assert!(!project.exists("apps/stores/fashion/stores/us"));
    let run = project.alokai("store compose --all").fails_with(2);
    run.stderr_contains("the checkout is sparse");
    run.stderr_contains("git sparse-checkout");
}

#[test]
fn a_linked_folder_of_this_tools_own_is_not_used() {
    let project = Project::shop().file("elsewhere/manifests/precious", "p");
    let project = project.link(".alokai", "elsewhere");
    for command in ["store clean", "store compose --all"] {
        let run = project.alokai(command).fails_with(1);
        run.stderr_contains("it is a symbolic link");
    }
    assert_eq!(project.read("elsewhere/manifests/precious"), "p");
    assert!(!project.exists("elsewhere/lock"));
}
