//! `drift`: overrides whose original has changed since they were made.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::{Project, Run};

const NEXT: &str = "storefront-unified-nextjs";

/// A page of twenty lines with these changes.
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
    project.commit_as("us: a page of its own");
    project
}

fn overrides(project: &Project) -> Vec<Value> {
    let json = project.alokai("store drift --json").succeeds().json();
    json["overrides"].as_array().unwrap().clone()
}

/// The override at this path, as `drift --json` shows it.
#[track_caller]
fn override_at(project: &Project, file: &str) -> Value {
    let found = overrides(project)
        .into_iter()
        .find(|one| one["file"] == file);
    found.unwrap_or_else(|| panic!("`{file}` is not an override"))
}

/// The subjects of the commits that an override misses.
fn subjects(one: &Value) -> Vec<&Value> {
    let commits = one["commits"].as_array().unwrap().iter();
    commits.map(|commit| &commit["subject"]).collect()
}

/// Changes line 15 of the base's page and commits it.
fn mend_base(project: &Project) {
    project.write(&base("page.tsx"), page(&[(15, "mended")]));
    project.commit_as("base: mend a line");
}

/// Merges the base's changes into an override.
fn merge(project: &Project, file: &str) -> Run {
    project.alokai(&["store", "drift", "--merge", file])
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

    project.write(&base("page.tsx"), page(&[(15, "mended")]));
    assert_eq!(
        standing(&project, &us("page.tsx")),
        "behind",
        "an uncommitted change counts"
    );
    project.commit_as("base: mend a line");
    project.write(&base("page.tsx"), page(&[(15, "mended"), (10, "more")]));
    project.commit_as("base: more");
    let one = override_at(&project, &us("page.tsx"));
    assert_eq!(one["standing"], "behind");
    assert_eq!(one["inheritsFrom"], "base");
    assert_eq!(one["uncommitted"], false);
    assert_eq!(subjects(&one), ["base: more", "base: mend a line"]);

    let patch = project.alokai("store drift --patch").succeeds().stdout;
    assert!(patch.contains("-line 15\n+mended\n"), "{patch}");
    assert!(
        !patch.contains("us line"),
        "the patch has only the changes of the base: {patch}"
    );
    let failed = project.alokai("store drift --fail-on behind").fails_with(1);
    failed.stderr_contains("1 override is behind");

    merge(&project, &us("page.tsx")).succeeds();
    let merged = page(&[(3, "us line"), (15, "mended"), (10, "more")]);
    assert_eq!(project.read(&us("page.tsx")), merged);
    assert!(
        project.git("diff --cached --name-only").is_empty(),
        "nothing is staged"
    );
    assert_eq!(
        standing(&project, &us("page.tsx")),
        "current",
        "an uncommitted merge counts"
    );
    project.commit_as("us: take over");
    project.alokai("store drift --fail-on behind").succeeds();

    // Only the commits after the merge count.
    project.write(
        &base("page.tsx"),
        page(&[(15, "mended"), (10, "more"), (0, "top")]),
    );
    project.commit_as("base: top");
    let one = override_at(&project, &us("page.tsx"));
    assert_eq!(one["commits"].as_array().unwrap().len(), 1, "{one}");
}

#[test]
fn a_conflict_is_marked_and_what_a_person_decided_counts() {
    let project = shop();
    project.write(
        &base("page.tsx"),
        page(&[(3, "base line"), (4, "new below")]),
    );
    project.commit_as("base: the same line");
    let run = merge(&project, &us("page.tsx")).fails_with(1);
    run.stderr_contains("1 conflict");
    let marked = project.read(&us("page.tsx"));
    assert!(
        marked.contains("<<<<<<< ") && marked.contains("us line\n"),
        "{marked}"
    );
    let again = merge(&project, &us("page.tsx")).fails_with(2);
    again.stderr_contains("conflict markers");
    project.write(
        &us("page.tsx"),
        page(&[(3, "neither line"), (4, "new below")]),
    );
    assert_eq!(standing(&project, &us("page.tsx")), "current");
    project.commit_as("us: decided");
    assert_eq!(standing(&project, &us("page.tsx")), "current");
    // An unrelated edit does not take over the base's change.
    project.write(
        &base("page.tsx"),
        page(&[(3, "base again"), (4, "new below")]),
    );
    project.commit_as("base: again");
    let own = page(&[(3, "neither line"), (4, "new below"), (18, "us below")]);
    project.write(&us("page.tsx"), own);
    project.commit_as("us: own");
    assert_eq!(standing(&project, &us("page.tsx")), "behind");
}

#[test]
fn needless_copies_orphans_and_additions_are_told_apart() {
    let project = shop()
        .file(&us("copy.tsx"), "same\n")
        .file(&base("copy.tsx"), "same\n")
        .file(&base("going.tsx"), "going\n")
        .file(&us("only-us.tsx"), "added\n");
    project.commit_as("more");
    let project = project.file(&us("going.tsx"), "going, us\n");
    project.commit_as("us: going");
    project.remove(&base("going.tsx"));
    project.commit_as("base: gone");
    project.git(&["rm", "--quiet", "-r", "--cached", &base("copy.tsx")]);
    project.remove(&base("copy.tsx"));
    assert_eq!(
        standing(&project, &us("copy.tsx")),
        "orphan",
        "an uncommitted change counts"
    );
    project.git(&["checkout", "HEAD", "--", &base("copy.tsx")]);
    // A base file that was removed before the override existed makes no orphan.
    let project = project.file(&us("later.tsx"), "later\n");
    project.commit_as("us: later");
    assert_eq!(standing(&project, &us("copy.tsx")), "identical");
    assert_eq!(standing(&project, &us("going.tsx")), "orphan");
    assert_eq!(standing(&project, &us("only-us.tsx")), "none");
    assert_eq!(standing(&project, &us("later.tsx")), "none");
    let text = project.alokai("store drift").succeeds().stdout;
    let text = text.lines().map(|line| {
        // The commit's id and date.
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
    mend_base(&project);
    project.git("mv apps/stores/fashion/stores/us apps/stores/us");
    project.commit_as("us: moved to the top");
    let file = format!("apps/stores/us/{NEXT}/page.tsx");
    let one = override_at(&project, &file);
    assert_eq!(one["standing"], "behind", "{one}");
    assert_eq!(one["commits"].as_array().unwrap().len(), 1);
}

#[test]
fn a_shallow_clone_says_how_far_its_history_goes() {
    let project = shop();
    mend_base(&project);
    let two = project.shallow_clone("2");
    let run = two.alokai("store drift").succeeds();
    run.stdout_contains("1 behind");
    run.stderr_contains("shallow");
    run.stderr_contains("2 commits");
    // This clone does not contain the change itself.
    let one = project.shallow_clone("1");
    let run = one.alokai("store drift").succeeds();
    run.stdout_lacks("behind");
    run.stderr_contains("shallow");
    let gate = one.alokai("store drift --fail-on behind").fails_with(3);
    gate.stderr_contains("starts after");
}

#[test]
fn what_cannot_be_merged_is_named() {
    let project = shop();
    let run = |path: &str| merge(&project, path).fails_with(2).stderr;
    let unknown = run("apps/stores/us/page.tsx");
    assert!(
        unknown.contains("is not an override") && unknown.contains(&us("page.tsx")),
        "{unknown}"
    );
    let nothing = merge(&project, &us("page.tsx")).succeeds();
    nothing.stdout_contains("no missed changes");
    let stores = project.alokai("store drift -s uss").fails_with(2);
    stores.stderr_contains("did you mean `us`");
}

#[test]
fn changes_that_a_merge_did_not_take_are_not_in_the_history() {
    let project = shop();
    project.git("branch side");
    project.write(&us("page.tsx"), page(&[(3, "us line"), (5, "us more")]));
    project.commit_as("us: more");
    // A branch removes the override, and the merge keeps it.
    project.git("checkout --quiet side");
    project.remove(&us("page.tsx"));
    project.commit_as("side: remove it");
    project.git("checkout --quiet main");
    project.git("merge --quiet --strategy ours --no-edit side");
    mend_base(&project);
    assert_eq!(standing(&project, &us("page.tsx")), "behind");

    // Another branch edits the base, and the merge keeps the base removed.
    project.git("checkout --quiet -b other");
    project.write(&base("page.tsx"), b"other\n");
    project.commit_as("other: edit the base");
    project.git("checkout --quiet main");
    project.remove(&base("page.tsx"));
    project.commit_as("base: gone");
    project.git("merge --quiet --strategy ours --no-edit other");
    let one = override_at(&project, &us("page.tsx"));
    assert_eq!(one["standing"], "orphan");
    assert_eq!(one["commits"][0]["subject"], "base: gone");
}

#[test]
fn another_store_under_an_old_id_has_a_history_of_its_own() {
    let project = shop();
    mend_base(&project);
    let stores = "apps/stores/fashion/stores";
    project.git(&["mv", &format!("{stores}/us"), &format!("{stores}/at")]);
    project.commit_as("us is at now");
    project.write(&us("page.tsx"), b"quite\nother\n");
    project.commit_as("another us");
    let at = format!("{stores}/at/{NEXT}/page.tsx");
    assert_eq!(standing(&project, &at), "behind");
    assert_eq!(standing(&project, &us("page.tsx")), "current");
}

#[test]
fn a_template_that_gave_up_its_file_is_remembered() {
    let project = shop();
    let fashion = |path: &str| format!("apps/stores/fashion/{NEXT}/{path}");
    project.write(&fashion("page.tsx"), page(&[(10, "fashion")]));
    project.commit_as("fashion: a page");
    project.write(&us("page.tsx"), page(&[(3, "us line"), (10, "fashion")]));
    project.commit_as("us: take it over");
    assert_eq!(standing(&project, &us("page.tsx")), "current");
    // The template's folder for the app disappears with its last file.
    project.git(&["rm", "--quiet", "-r", &fashion("")]);
    project.commit_as("fashion: gives it up");
    let one = override_at(&project, &us("page.tsx"));
    assert_eq!(one["standing"], "behind");
    assert_eq!(subjects(&one), ["fashion: gives it up"]);
}

#[test]
fn a_link_is_not_an_override() {
    let project = shop().file("shared/page.tsx", &page(&[(1, "shared")]));
    project.remove(&us("page.tsx"));
    let project = project.link(&us("page.tsx"), "../../../../../../shared/page.tsx");
    project.commit_as("us: a link");
    mend_base(&project);
    assert_eq!(standing(&project, &us("page.tsx")), "none");
    merge(&project, &us("page.tsx")).fails_with(2);
    assert!(project.path(&us("page.tsx")).is_symlink());
}
