//! `drift`: overrides whose original has changed since they were made.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::{Project, git};

const NEXT: &str = "storefront-unified-nextjs";

/// Twenty lines, some of them other than usual.
fn page(changes: &[(usize, &str)]) -> String {
    (0..20).fold(String::new(), |mut text, line| {
        let other = changes.iter().find(|(at, _)| *at == line);
        let _ = match other {
            Some((_, other)) => writeln!(text, "{other}"),
            None => writeln!(text, "line {line}"),
        };
        text
    })
}

fn base(path: &str) -> String {
    format!("apps/{NEXT}/{path}")
}

fn us(path: &str) -> String {
    format!("apps/stores/fashion/stores/us/{NEXT}/{path}")
}

/// `us` overrides `page.tsx` of the base with a line of its own.
fn shop() -> Project {
    let project = Project::shop().file(&base("page.tsx"), &page(&[]));
    project.commit();
    let project = project.file(&us("page.tsx"), &page(&[(3, "us line")]));
    commit(&project, "us: a page of its own");
    project
}

fn commit(project: &Project, message: &str) {
    git(project.root(), &["add", "--all"]);
    git(project.root(), &["commit", "--quiet", "--message", message]);
}

fn overrides(project: &Project) -> Vec<Value> {
    let json = project
        .alokai(&["store", "drift", "--json"])
        .succeeds()
        .json();
    json["overrides"].as_array().unwrap().clone()
}

fn standing(project: &Project, file: &str) -> String {
    let all = overrides(project);
    let one = all.iter().find(|one| one["file"] == file);
    one.map_or("none".into(), |one| {
        one["standing"].as_str().unwrap().to_owned()
    })
}

#[test]
fn an_override_is_behind_from_the_first_change_it_misses_to_the_merge() {
    let project = shop();
    assert_eq!(standing(&project, &us("page.tsx")), "current");

    project.write(&base("page.tsx"), page(&[(15, "mended")]).as_bytes());
    assert_eq!(
        standing(&project, &us("page.tsx")),
        "behind",
        "before any commit"
    );
    commit(&project, "base: mend a line");
    project.write(
        &base("page.tsx"),
        page(&[(15, "mended"), (10, "more")]).as_bytes(),
    );
    commit(&project, "base: more");
    let all = overrides(&project);
    let one = all
        .iter()
        .find(|one| one["file"] == us("page.tsx"))
        .unwrap();
    assert_eq!(one["standing"], "behind");
    assert_eq!(one["inheritsFrom"], "base");
    assert_eq!(one["uncommitted"], false);
    let subjects: Vec<_> = one["commits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["subject"])
        .collect();
    assert_eq!(subjects, ["base: more", "base: mend a line"]);

    let patch = project
        .alokai(&["store", "drift", "--patch"])
        .succeeds()
        .stdout;
    assert!(patch.contains("-line 15\n+mended\n"), "{patch}");
    assert!(
        !patch.contains("us line"),
        "only what the base changed: {patch}"
    );
    let failed = project
        .alokai(&["store", "drift", "--fail-on", "behind"])
        .fails_with(1);
    assert!(
        failed.stderr.contains("1 override is behind"),
        "{}",
        failed.stderr
    );

    project
        .alokai(&["store", "drift", "--merge", &us("page.tsx")])
        .succeeds();
    let merged = page(&[(3, "us line"), (15, "mended"), (10, "more")]);
    assert_eq!(project.read(&us("page.tsx")), merged);
    assert!(
        git(project.root(), &["diff", "--cached", "--name-only"]).is_empty(),
        "nothing is staged"
    );
    assert_eq!(
        standing(&project, &us("page.tsx")),
        "current",
        "before it is committed"
    );
    commit(&project, "us: take over");
    project
        .alokai(&["store", "drift", "--fail-on", "behind"])
        .succeeds();

    // Only what came after the merge is missed.
    project.write(
        &base("page.tsx"),
        page(&[(15, "mended"), (10, "more"), (0, "top")]).as_bytes(),
    );
    commit(&project, "base: top");
    let all = overrides(&project);
    let one = all
        .iter()
        .find(|one| one["file"] == us("page.tsx"))
        .unwrap();
    assert_eq!(one["commits"].as_array().unwrap().len(), 1, "{one}");
}

#[test]
fn a_conflict_is_marked_and_what_a_person_decided_counts() {
    let project = shop();
    project.write(
        &base("page.tsx"),
        page(&[(3, "base line"), (4, "new below")]).as_bytes(),
    );
    commit(&project, "base: the same line");
    let run = project
        .alokai(&["store", "drift", "--merge", &us("page.tsx")])
        .fails_with(1);
    assert!(run.stderr.contains("1 conflict"), "{}", run.stderr);
    let marked = project.read(&us("page.tsx"));
    assert!(
        marked.contains("<<<<<<< ") && marked.contains("us line\n"),
        "{marked}"
    );
    let again = project
        .alokai(&["store", "drift", "--merge", &us("page.tsx")])
        .fails_with(2);
    assert!(
        again.stderr.contains("conflict markers"),
        "{}",
        again.stderr
    );
    project.write(
        &us("page.tsx"),
        page(&[(3, "neither line"), (4, "new below")]).as_bytes(),
    );
    assert_eq!(standing(&project, &us("page.tsx")), "current");
    commit(&project, "us: decided");
    assert_eq!(standing(&project, &us("page.tsx")), "current");
    // An edit that has nothing to do with it takes nothing over.
    project.write(
        &base("page.tsx"),
        page(&[(3, "base again"), (4, "new below")]).as_bytes(),
    );
    commit(&project, "base: again");
    let own = page(&[(3, "neither line"), (4, "new below"), (18, "us below")]);
    project.write(&us("page.tsx"), own.as_bytes());
    commit(&project, "us: own");
    assert_eq!(standing(&project, &us("page.tsx")), "behind");
}

#[test]
fn needless_copies_orphans_and_additions_are_told_apart() {
    let project = shop()
        .file(&us("copy.tsx"), "same\n")
        .file(&base("copy.tsx"), "same\n")
        .file(&base("going.tsx"), "going\n")
        .file(&us("only-us.tsx"), "added\n");
    commit(&project, "more");
    let project = project.file(&us("going.tsx"), "going, us\n");
    commit(&project, "us: going");
    std::fs::remove_file(project.path(&base("going.tsx"))).unwrap();
    commit(&project, "base: gone");
    git(
        project.root(),
        &["rm", "--quiet", "-r", "--cached", &base("copy.tsx")],
    );
    std::fs::remove_file(project.path(&base("copy.tsx"))).unwrap();
    assert_eq!(
        standing(&project, &us("copy.tsx")),
        "orphan",
        "before any commit"
    );
    git(
        project.root(),
        &["checkout", "HEAD", "--", &base("copy.tsx")],
    );
    // What was removed before is no orphan's.
    let project = project.file(&us("later.tsx"), "later\n");
    commit(&project, "us: later");
    assert_eq!(standing(&project, &us("copy.tsx")), "identical");
    assert_eq!(standing(&project, &us("going.tsx")), "orphan");
    assert_eq!(standing(&project, &us("only-us.tsx")), "none");
    assert_eq!(standing(&project, &us("later.tsx")), "none");
    let text = project.alokai(&["store", "drift"]).succeeds().stdout;
    let text = text.lines().map(|line| {
        // The commit's sha and date.
        let mut words: Vec<_> = line.split(' ').collect();
        if let Some(sha) = words.get(4).filter(|word| word.len() == 12) {
            assert!(sha.chars().all(|c| c.is_ascii_hexdigit()));
            words[4] = "[sha]";
            words[5] = "[date]";
        }
        words.join(" ")
    });
    insta::assert_snapshot!(text.collect::<Vec<_>>().join("\n"));
}

#[test]
fn history_is_followed_through_a_move_of_the_store() {
    let project = shop();
    project.write(&base("page.tsx"), page(&[(15, "mended")]).as_bytes());
    commit(&project, "base: mend a line");
    git(
        project.root(),
        &["mv", "apps/stores/fashion/stores/us", "apps/stores/us"],
    );
    commit(&project, "us: moved to the top");
    let file = format!("apps/stores/us/{NEXT}/page.tsx");
    let all = overrides(&project);
    let one = all.iter().find(|one| one["file"] == json!(file)).unwrap();
    assert_eq!(one["standing"], "behind", "{one}");
    assert_eq!(one["commits"].as_array().unwrap().len(), 1);
}

#[test]
fn a_shallow_clone_says_how_far_its_history_goes() {
    let project = shop();
    project.write(&base("page.tsx"), page(&[(15, "mended")]).as_bytes());
    commit(&project, "base: mend a line");
    let clone = |depth: &str| {
        let shallow = Project::new();
        std::fs::remove_dir_all(shallow.root()).unwrap();
        let origin = format!("file://{}", project.root().display());
        let to = shallow.root().to_str().unwrap().to_owned();
        git(
            project.root(),
            &["clone", "--quiet", "--depth", depth, &origin, &to],
        );
        shallow
    };
    let two = clone("2");
    let run = two.alokai(&["store", "drift"]).succeeds();
    assert!(run.stdout.contains("1 behind"), "{}", run.stdout);
    assert!(
        run.stderr.contains("shallow") && run.stderr.contains("2 commits"),
        "{}",
        run.stderr
    );
    // The change itself is not in this one.
    let one = clone("1");
    let run = one.alokai(&["store", "drift"]).succeeds();
    assert!(!run.stdout.contains("behind"), "{}", run.stdout);
    assert!(run.stderr.contains("shallow"), "{}", run.stderr);
    let gate = one
        .alokai(&["store", "drift", "--fail-on", "behind"])
        .fails_with(3);
    assert!(
        gate.stderr.contains("history ends before"),
        "{}",
        gate.stderr
    );
}

#[test]
fn what_cannot_be_merged_is_named() {
    let project = shop();
    let run = |path: &str| {
        let run = project
            .alokai(&["store", "drift", "--merge", path])
            .fails_with(2);
        run.stderr
    };
    let unknown = run("apps/stores/us/page.tsx");
    assert!(
        unknown.contains("is not an override") && unknown.contains(&us("page.tsx")),
        "{unknown}"
    );
    let nothing = project
        .alokai(&["store", "drift", "--merge", &us("page.tsx")])
        .succeeds();
    assert!(
        nothing.stdout.contains("nothing to take over"),
        "{}",
        nothing.stdout
    );
    let stores = project
        .alokai(&["store", "drift", "-s", "uss"])
        .fails_with(2);
    assert!(
        stores.stderr.contains("did you mean `us`"),
        "{}",
        stores.stderr
    );
}

#[test]
fn what_a_merge_leaves_behind_on_a_branch_is_no_history() {
    let project = shop();
    git(project.root(), &["branch", "side"]);
    project.write(
        &us("page.tsx"),
        page(&[(3, "us line"), (5, "us more")]).as_bytes(),
    );
    commit(&project, "us: more");
    // On a branch the override is removed, and the merge keeps it.
    git(project.root(), &["checkout", "--quiet", "side"]);
    std::fs::remove_file(project.path(&us("page.tsx"))).unwrap();
    commit(&project, "side: remove it");
    git(project.root(), &["checkout", "--quiet", "main"]);
    git(
        project.root(),
        &[
            "merge",
            "--quiet",
            "--strategy",
            "ours",
            "-m",
            "keep it",
            "side",
        ],
    );
    project.write(&base("page.tsx"), page(&[(15, "mended")]).as_bytes());
    commit(&project, "base: mend a line");
    assert_eq!(standing(&project, &us("page.tsx")), "behind");

    // On another one the base is edited, and the merge keeps it removed.
    git(project.root(), &["checkout", "--quiet", "-b", "other"]);
    project.write(&base("page.tsx"), b"other\n");
    commit(&project, "other: edit the base");
    git(project.root(), &["checkout", "--quiet", "main"]);
    std::fs::remove_file(project.path(&base("page.tsx"))).unwrap();
    commit(&project, "base: gone");
    git(
        project.root(),
        &[
            "merge",
            "--quiet",
            "--strategy",
            "ours",
            "-m",
            "stay without",
            "other",
        ],
    );
    let all = overrides(&project);
    let one = all
        .iter()
        .find(|one| one["file"] == us("page.tsx"))
        .unwrap();
    assert_eq!(one["standing"], "orphan");
    assert_eq!(one["commits"][0]["subject"], "base: gone");
}

#[test]
fn another_store_under_an_old_id_has_a_history_of_its_own() {
    let project = shop();
    project.write(&base("page.tsx"), page(&[(15, "mended")]).as_bytes());
    commit(&project, "base: mend a line");
    let stores = "apps/stores/fashion/stores";
    git(
        project.root(),
        &["mv", &format!("{stores}/us"), &format!("{stores}/at")],
    );
    commit(&project, "us is at now");
    project.write(&us("page.tsx"), b"quite\nother\n");
    commit(&project, "another us");
    let at = format!("{stores}/at/{NEXT}/page.tsx");
    assert_eq!(standing(&project, &at), "behind");
    assert_eq!(standing(&project, &us("page.tsx")), "current");
}

#[test]
fn a_template_that_gave_up_its_file_is_remembered() {
    let project = shop();
    let fashion = |path: &str| format!("apps/stores/fashion/{NEXT}/{path}");
    project.write(&fashion("page.tsx"), page(&[(10, "fashion")]).as_bytes());
    commit(&project, "fashion: a page");
    project.write(
        &us("page.tsx"),
        page(&[(3, "us line"), (10, "fashion")]).as_bytes(),
    );
    commit(&project, "us: take it over");
    assert_eq!(standing(&project, &us("page.tsx")), "current");
    // Its folder for the app goes with its last files.
    git(project.root(), &["rm", "--quiet", "-r", &fashion("")]);
    commit(&project, "fashion: gives it up");
    let all = overrides(&project);
    let one = all
        .iter()
        .find(|one| one["file"] == us("page.tsx"))
        .unwrap();
    assert_eq!(one["standing"], "behind");
    let subjects: Vec<_> = one["commits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["subject"])
        .collect();
    assert_eq!(subjects, ["fashion: gives it up"]);
}

#[test]
fn a_link_to_elsewhere_is_no_override_that_could_be_merged_into() {
    let project = shop().file("shared/page.tsx", &page(&[(1, "shared")]));
    std::fs::remove_file(project.path(&us("page.tsx"))).unwrap();
    let project = project.link(&us("page.tsx"), "../../../../../../shared/page.tsx");
    commit(&project, "us: a link");
    project.write(&base("page.tsx"), page(&[(15, "mended")]).as_bytes());
    commit(&project, "base: mend a line");
    assert_eq!(standing(&project, &us("page.tsx")), "none");
    project
        .alokai(&["store", "drift", "--merge", &us("page.tsx")])
        .fails_with(2);
    assert!(project.path(&us("page.tsx")).is_symlink());
}
