//! The samples are what the package managers wrote for one small workspace (hashes cut short),
//! `before` and `after` `docs` got `is-odd` as well: `web` (react 18, `@acme/ui`, ms 2.0.0),
//! `docs` (react 17, debug 4, fsevents where it can be installed), `@acme/ui` (debug 2, clsx as
//! `join`, a package with react as its peer, and react as its own peer).

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{LockedFolder, Lockfile, Workspace, join};

struct LockfileSample {
    manager: &'static str,
    file: &'static str,
    before: &'static str,
    after: &'static str,
}

macro_rules! samples {
    ($($manager:literal $file:literal,)*) => {
        [$(LockfileSample {
            manager: $manager,
            file: $file,
            before: include_str!(concat!("../../../fixtures/lockfiles/", $manager, "/before")),
            after: include_str!(concat!("../../../fixtures/lockfiles/", $manager, "/after")),
        },)*]
    };
}

const SAMPLES: [LockfileSample; 7] = samples! {
    "npm" "package-lock.json",
    "pnpm-6" "pnpm-lock.yaml",
    "pnpm-9" "pnpm-lock.yaml",
    "yarn-1" "yarn.lock",
    "yarn-3" "yarn.lock",
    "yarn-4" "yarn.lock",
    "bun" "bun.lock",
};

fn workspace(added: bool) -> Workspace<'static> {
    let folder = |path, name, needs: &[(&'static str, &'static str)]| LockedFolder {
        path,
        name: Some(name),
        needs: needs.to_vec(),
    };
    let mut docs = vec![
        ("debug", "4.3.4"),
        ("react", "17.0.2"),
        ("fsevents", "2.3.2"),
    ];
    if added {
        docs.push(("is-odd", "3.0.1"));
    }
    let web = [("react", "18.3.1"), ("@acme/ui", "*"), ("ms", "2.0.0")];
    let ui = [
        ("debug", "^2.6.0"),
        ("use-sync-external-store", "1.2.0"),
        ("join", "npm:clsx@2.1.1"),
    ];
    Workspace {
        folders: vec![
            folder("", "shop", &[("picocolors", "1.0.0")]),
            folder("apps/web", "web", &web),
            folder("apps/docs", "docs", &docs),
            folder("packages/ui", "@acme/ui", &ui),
        ],
        resolutions: Vec::new(),
    }
}

fn slice(sample: &LockfileSample, text: &str, folder: &str) -> Option<BTreeMap<String, String>> {
    let workspace = workspace(text == sample.after);
    Lockfile::parse(sample.file, text.as_bytes(), &workspace)?.reach(&[folder])
}

/// Names and versions alone, so that all managers can be held against one list.
fn names(sample: &LockfileSample, folder: &str) -> BTreeSet<String> {
    let slice = slice(sample, sample.before, folder).expect(sample.manager);
    let plain = |key: &String| {
        let key = key.split('(').next().unwrap_or_default();
        match key.split_once("@patch:") {
            Some((name, _)) => format!("{name} patched"),
            None => key.replace("@npm:", "@"),
        }
    };
    slice.keys().map(plain).collect()
}

#[test]
fn a_slice_has_what_the_folder_reaches_and_nothing_else() {
    for sample in &SAMPLES {
        let mut expected = vec![
            "clsx@2.1.1",
            "debug@2.6.9",
            "js-tokens@4.0.0",
            "loose-envify@1.4.0",
            "ms@2.0.0",
            "react@18.3.1",
            "use-sync-external-store@1.2.0",
            "workspace:apps/web",
            "workspace:packages/ui",
        ];
        // npm hoists the react of `docs`, and that is the one that `@acme/ui` gets.
        if names(sample, "apps/web").contains("react@17.0.2") {
            assert_eq!(sample.manager, "npm");
            expected.extend(["react@17.0.2", "object-assign@4.1.1"]);
        }
        let expected = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(names(sample, "apps/web"), expected, "{}", sample.manager);

        let mut expected = vec![
            "debug@4.3.4",
            "fsevents@2.3.2",
            "js-tokens@4.0.0",
            "loose-envify@1.4.0",
            "ms@2.1.2",
            "object-assign@4.1.1",
            "react@17.0.2",
            "workspace:apps/docs",
        ];
        if matches!(sample.manager, "yarn-3" | "yarn-4") {
            expected.push("fsevents patched");
        }
        let expected = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(names(sample, "apps/docs"), expected, "{}", sample.manager);

        let root = names(sample, "");
        let expected = ["picocolors@1.0.0", "workspace:"];
        assert_eq!(
            root,
            expected.map(str::to_owned).into(),
            "{}",
            sample.manager
        );
    }
}

#[test]
fn each_debug_gets_its_own_ms() {
    for sample in &SAMPLES {
        for (folder, debug, ms) in [
            ("apps/web", "2.6.9", "2.0.0"),
            ("apps/docs", "4.3.4", "2.1.2"),
        ] {
            let slice = slice(sample, sample.before, folder).expect(sample.manager);
            let debug = format!("@{debug}");
            let pin = |key: &str| key.replace("npm:", "").ends_with(&debug);
            let (_, pin) = slice
                .iter()
                .find(|(key, _)| pin(key))
                .expect(sample.manager);
            let pin = pin.replace("npm:", "");
            assert!(
                pin.ends_with(&format!(" ms@{ms}")),
                "{}: {pin}",
                sample.manager
            );
        }
    }
}

#[test]
fn a_dependency_of_another_app_leaves_the_slice() {
    for sample in &SAMPLES {
        for folder in ["apps/web", "packages/ui", ""] {
            let before = slice(sample, sample.before, folder);
            assert!(before.is_some(), "{} {folder}", sample.manager);
            let after = slice(sample, sample.after, folder);
            assert_eq!(before, after, "{} {folder}", sample.manager);
        }
        let before = slice(sample, sample.before, "apps/docs");
        let after = slice(sample, sample.after, "apps/docs");
        assert_ne!(before, after, "{}", sample.manager);
    }
}

#[test]
fn another_version_deep_down_changes_the_slice() {
    for sample in &SAMPLES {
        // Its name does not have a 4.0.0 of its own anywhere else in the samples.
        let bumped = sample.before.replace("4.0.0", "4.0.1");
        let before = slice(sample, sample.before, "apps/web");
        let after = slice(sample, &bumped, "apps/web");
        assert_ne!(before, after, "{}", sample.manager);
        // The root does not reach it.
        let before = slice(sample, sample.before, "");
        assert_eq!(before, slice(sample, &bumped, ""), "{}", sample.manager);
    }
}

#[test]
fn what_is_not_known_lets_the_whole_file_count() {
    for sample in &SAMPLES {
        assert_eq!(slice(sample, sample.before, "apps/none"), None);
        // Its entry is gone, what needs it is still there.
        let mut gone = sample.before.to_owned();
        for entry in [
            "node_modules/js-tokens",
            "  /js-tokens@",
            "  js-tokens@",
            "\n\"js-tokens@",
            "\"js-tokens\": [\"",
        ] {
            gone = gone.replace(entry, &entry.replace("js-tokens", "gone"));
        }
        assert_eq!(slice(sample, &gone, "apps/web"), None, "{}", sample.manager);
        assert!(slice(sample, &gone, "").is_some(), "{}", sample.manager);
        for garbage in ["", "{}", "<<<<<<< ours", "a: [", "\u{0}", "- 1"] {
            assert_eq!(slice(sample, garbage, ""), None, "{}", sample.manager);
        }
        let deep = "[".repeat(100_000);
        assert_eq!(slice(sample, &deep, ""), None, "{}", sample.manager);
    }
    let workspace = Workspace::default();
    let old = br#"{"lockfileVersion": 1, "packages": {}}"#;
    assert!(Lockfile::parse("package-lock.json", old, &workspace).is_none());
    let old = b"lockfileVersion: 5.4\n";
    assert!(Lockfile::parse("pnpm-lock.yaml", old, &workspace).is_none());
    assert!(Lockfile::parse("bun.lockb", b"#!/usr/bin/env bun", &workspace).is_none());
}

#[test]
fn resolutions_below_some_packages_are_not_followed() {
    for (key, followed) in [
        ("ms", true),
        ("**/ms", true),
        ("@acme/ui", true),
        ("is-odd@npm:3.0.1", true),
        ("debug/ms", false),
        ("@acme/ui/debug", false),
        ("debug/**/ms", false),
        ("@acme", false),
    ] {
        for sample in SAMPLES.iter().filter(|sample| sample.file == "yarn.lock") {
            let mut workspace = workspace(false);
            workspace.resolutions.push(key);
            let lockfile = Lockfile::parse(sample.file, sample.before.as_bytes(), &workspace);
            assert_eq!(lockfile.is_some(), followed, "{} {key}", sample.manager);
        }
    }
}

#[test]
fn links_are_joined_within_the_project() {
    assert_eq!(
        join("apps/web", "../../packages/ui").as_deref(),
        Some("packages/ui")
    );
    assert_eq!(join("", ".").as_deref(), Some(""));
    assert_eq!(join("apps", "../../elsewhere"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn nothing_panics(
        sample in 0..SAMPLES.len(),
        cut in any::<prop::sample::Index>(),
        length in 0..40_usize,
        put in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let sample = &SAMPLES[sample];
        let mut text = sample.before.as_bytes().to_vec();
        let from = cut.index(text.len());
        let to = (from + length).min(text.len());
        text.splice(from..to, put.iter().copied());
        for text in [&text, &put] {
            if let Some(lockfile) = Lockfile::parse(sample.file, text, &workspace(false)) {
                let _ = lockfile.reach(&["", "apps/web", "apps/docs"]);
            }
        }
    }
}
