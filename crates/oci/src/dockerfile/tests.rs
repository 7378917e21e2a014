//! The rules, one by one. What the engine makes of the same Dockerfiles is asked in
//! `tests/it/dockerfile.rs`.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::health::duration;
use super::pattern::FilePattern;
use super::words::{expand, expand_all};
use super::{BuildContext, Dockerignore, Error, ImageChanges, read};
use crate::{BaseTree, FileOwner, FolderAttributes, TreeContent};

const NODE: FileOwner = FileOwner {
    user: 1000,
    group: 1000,
};

/// A base image's tree, as `node:22` has it where it matters.
fn tree() -> BaseTree {
    let folder = |owner, mode| FolderAttributes { owner, mode };
    let root = FileOwner::default();
    let mut tree = BaseTree::default();
    tree.users.insert("node".into(), NODE);
    tree.users.insert(
        "guest".into(),
        FileOwner {
            user: 405,
            group: 100,
        },
    );
    tree.groups.insert("node".into(), 1000);
    tree.groups.insert("users".into(), 100);
    for (path, folder) in [
        ("var", folder(root, 0o755)),
        ("tmp", folder(root, 0o1777)),
        ("home", folder(root, 0o755)),
        ("home/node", folder(NODE, 0o755)),
        ("usr", folder(root, 0o755)),
        ("usr/bin", folder(root, 0o755)),
    ] {
        tree.folders.insert(path.into(), folder);
    }
    tree.links.insert("bin".into(), "usr/bin".into());
    tree.links.insert("var/tmp".into(), "/tmp".into());
    tree
}

fn base() -> Value {
    json!({
        "architecture": "amd64",
        "config": {
            "Env": ["PATH=/bin", "NODE_VERSION=22"],
            "Cmd": ["node"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Unheard": 1
        },
        "rootfs": { "type": "layers", "diff_ids": [] }
    })
}

/// A folder with these files; a name that ends in `*` may be executed, `a -> b` is a link.
fn context(files: &[&str], dockerignore: &str) -> (tempfile::TempDir, BuildContext) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mut listed = Vec::new();
    for file in files {
        let (name, target) = match file.split_once(" -> ") {
            Some((name, target)) => (name, Some(target)),
            None => (*file, None),
        };
        let path = folder.path().join(name.trim_end_matches('*'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = target {
            std::os::unix::fs::symlink(target, &path).unwrap();
        } else {
            std::fs::write(&path, name).unwrap();
            let mode = if name.ends_with('*') { 0o700 } else { 0o600 };
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        listed.push((PathBuf::from(name.trim_end_matches('*')), path));
    }
    let context = BuildContext::new(folder.path(), listed, Some(dockerignore)).unwrap();
    (folder, context)
}

fn apply(text: &str, files: &[&str]) -> Result<ImageChanges, Error> {
    let (_folder, context) = context(files, "");
    read(text)?.apply(&base(), &tree(), &context)
}

/// Entries as `path kind-or-source mode owner`.
fn laid(applied: &ImageChanges) -> Vec<String> {
    let entries = applied.entries.iter().map(|entry| {
        let content = match &entry.content {
            TreeContent::Folder => "/".to_owned(),
            TreeContent::Link { target } => format!(" -> {target}"),
            TreeContent::File { from, .. } => {
                format!(
                    " = {}",
                    std::fs::read_to_string(from).unwrap_or_else(|_| name(from))
                )
            }
        };
        format!(
            "{}{content} {:o} {}",
            entry.path, entry.mode, entry.owner.user
        )
    });
    entries.collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn the_default_dockerfile() {
    let text = "FROM node:22-alpine\n\
         ENV NODE_ENV=production PORT=3000 HOSTNAME=0.0.0.0\n\
         WORKDIR /var/www\n\
         COPY --chown=node:node ./.deploy/ ./\n\
         USER node\n\
         EXPOSE 3000\n\
         ENTRYPOINT [\"node\", \"server.js\"]\n";
    let files = [
        ".deploy/server.js",
        ".deploy/bin/run*",
        ".deploy/now -> bin/run",
        "other",
    ];
    let applied = apply(text, &files).unwrap();
    assert_eq!(read(text).unwrap().base(), Some("node:22-alpine"));
    assert_eq!(
        applied.config,
        json!({
            "architecture": "amd64",
            "config": {
                "Env": [
                    "PATH=/bin", "NODE_VERSION=22", "NODE_ENV=production", "PORT=3000",
                    "HOSTNAME=0.0.0.0"
                ],
                "Entrypoint": ["node", "server.js"],
                "WorkingDir": "/var/www",
                "User": "node",
                "ExposedPorts": { "3000/tcp": {} },
                "Unheard": 1
            },
            "rootfs": { "type": "layers", "diff_ids": [] }
        })
    );
    assert_eq!(
        laid(&applied),
        [
            "var/ 755 0",
            "var/www/ 755 0",
            "var/www/bin/ 755 1000",
            "var/www/bin/run = run 755 1000",
            "var/www/now -> bin/run 777 1000",
            "var/www/server.js = server.js 644 1000",
        ]
    );
    let history: Vec<_> = applied
        .history
        .iter()
        .map(|step| (step.created_by.as_str(), step.empty_layer))
        .collect();
    assert_eq!(
        history,
        [
            (
                "ENV NODE_ENV=production PORT=3000 HOSTNAME=0.0.0.0 # alokai",
                true
            ),
            ("WORKDIR /var/www # alokai", true),
            ("COPY --chown=node:node ./.deploy/ ./ # alokai", false),
            ("USER node # alokai", true),
            ("EXPOSE 3000 # alokai", true),
            ("ENTRYPOINT [\"node\",\"server.js\"] # alokai", true),
        ]
    );
}

/// Dockerfiles, their line that is refused, and why.
const REFUSED: &[(&str, usize, &str)] = &[
    ("FROM a\nRUN npm ci --omit=dev", 2, "`RUN` runs a command"),
    ("FROM a AS b\n\n# c\nFROM d", 4, "it is a second stage"),
    (
        "FROM a\nCOPY --from=b /x /y",
        2,
        "`--from` copies from another image",
    ),
    ("FROM a\nCOPY --link x y", 2, "`--link` needs BuildKit"),
    ("FROM a\nCOPY --link=true x y", 2, "`--link` needs BuildKit"),
    (
        "FROM a\nCOPY --chmod=755 x y",
        2,
        "`--chmod` needs BuildKit",
    ),
    (
        "FROM a\nCOPY --chown=1 --chown=2 x y",
        2,
        "`--chown` stands twice",
    ),
    ("FROM a\nADD https://a.b/c /x", 2, "`ADD` downloads"),
    (
        "FROM a\nONBUILD USER x",
        2,
        "`ONBUILD` is for builds by others",
    ),
    (
        "FROM a\nSHELL [\"/bin/bash\", \"-c\"]",
        2,
        "`SHELL` changes how commands are run",
    ),
    (
        "FROM a\nCOPY <<E /x\nhello\nE\n",
        2,
        "a here-document needs BuildKit",
    ),
    (
        "# syntax=somebody/else:1\nFROM a",
        1,
        "another frontend reads it",
    ),
    ("FROM a:$TARGETARCH", 1, "only BuildKit sets `TARGETARCH`"),
    (
        "FROM --platform=$BUILDPLATFORM a",
        1,
        "only BuildKit sets `BUILDPLATFORM`",
    ),
    ("FROM a\nARG TARGETOS", 2, "only BuildKit sets `TARGETOS`"),
    (
        "FROM a\nENV A=${B#c}",
        2,
        "`#` in `${B…}` is only known to BuildKit",
    ),
    ("FROM a\nENV A=\"b", 2, "a `\"` is missing"),
    ("FROM a\nENV A=${b", 2, "a `}` is missing"),
    ("FROM a\nENV A=${}", 2, "a `${` without a name"),
    ("FROM a\nENV A", 2, "`A` has no value"),
    ("FROM a\nLABEL =b", 2, "`=b` has no name"),
    ("FROM a\nCMD [1]", 2, "it is no command"),
    ("FROM a\nCMD", 2, "it is no command"),
    (
        "FROM a\nHEALTHCHECK --interval=1 CMD x",
        2,
        "`--interval` has no value that Docker takes",
    ),
    (
        "FROM a\nHEALTHCHECK --retries=0 CMD x",
        2,
        "`--retries` has no value that Docker takes",
    ),
    (
        "FROM a\nHEALTHCHECK --start-interval=1s CMD x",
        2,
        "`--start-interval` is not known to every engine",
    ),
    (
        "FROM a\nHEALTHCHECK --retries=1 NONE",
        2,
        "`--retries` has no place here",
    ),
    ("FROM $a", 1, "it names no image"),
    ("FROM a AS 1", 1, "the stage's name is none"),
    (
        "FROM a\nEXPOSE 80:80",
        2,
        "`80:80` is no port such as `80/tcp`",
    ),
    (
        "FROM a\nEXPOSE 70000",
        2,
        "`70000` is no port such as `80/tcp`",
    ),
    (
        "FROM a\nSTOPSIGNAL SIGNOTHING",
        2,
        "`SIGNOTHING` is no signal that is known here",
    ),
    (
        "FROM a\nEXPOSE",
        2,
        "Docker does not understand it (EXPOSE instruction requires at least one argument)",
    ),
    (
        "FROM a\nFETCH b",
        2,
        "Docker does not understand it (unknown instruction 'FETCH')",
    ),
    (
        "",
        1,
        "Docker does not understand it (expected at least one FROM instruction)",
    ),
];

#[test]
fn what_docker_alone_can_do_is_refused() {
    for &(text, line, why) in REFUSED {
        let Err(Error::Refused(refusal)) = apply(text, &["x"]) else {
            panic!("{text}");
        };
        assert_eq!((refusal.line, refusal.why.as_str()), (line, why), "{text}");
        let written = text.lines().nth(line - 1).unwrap_or_default();
        assert_eq!(refusal.instruction, written, "{text}");
    }
}

#[test]
fn a_refusal_shows_a_line_and_no_more() {
    let text = format!("FROM a\n  RUN {}", "x".repeat(200));
    let refusal = read(&text).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        format!(
            "line 2 of the Dockerfile needs Docker: `RUN` runs a command: `RUN {}…`",
            "x".repeat(56)
        )
    );
}

#[test]
fn what_is_known_of_buildkit_only_by_name_is_read() {
    for text in [
        "# syntax=docker/dockerfile:1\n# check=skip=all\nFROM a AS b",
        "# syntax = docker/dockerfile:1.7-labs\nFROM a",
        "ARG TARGETARCH=x\nFROM a-$TARGETARCH\nARG TARGETARCH",
        "FROM a\nARG TARGETARCH=x",
    ] {
        assert!(read(text).is_ok(), "{text}");
    }
}

#[test]
fn the_base_comes_with_its_arguments() {
    let recipe =
        read("ARG V=22\nARG I=node:${V}-alpine\nARG N\nFROM --platform=linux/$V$N \"$I\"").unwrap();
    assert_eq!(recipe.base(), Some("node:22-alpine"));
    assert_eq!(recipe.platform(), Some("linux/22"));
    assert_eq!(read("FROM a").unwrap().platform(), None);
}

#[test]
fn nothing_is_a_base_too() {
    let (_folder, context) = context(&["a"], "");
    let recipe = read("FROM scratch\nCOPY a /b/\nCMD [\"/b/a\"]").unwrap();
    assert_eq!(recipe.base(), None);
    let applied = recipe
        .apply(&Value::Null, &BaseTree::default(), &context)
        .unwrap();
    assert_eq!(laid(&applied), ["b/ 755 0", "b/a = a 644 0"]);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        applied.config,
        json!({ "config": { "Env": [path], "Cmd": ["/b/a"] } })
    );
}

#[test]
fn a_base_that_wants_more_is_left_to_docker() {
    let (_folder, context) = context(&["a"], "");
    let config = json!({ "config": { "OnBuild": ["RUN npm ci"] } });
    let error = read("# a\nFROM b")
        .unwrap()
        .apply(&config, &tree(), &context)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2 of the Dockerfile needs Docker: the base image has `ONBUILD RUN npm ci`: `FROM b`"
    );
    for config in [
        json!([]),
        json!({ "config": 1 }),
        json!({ "config": { "Env": 1 } }),
        json!({ "config": { "OnBuild": [1] } }),
    ] {
        let applied = read("FROM b").unwrap().apply(&config, &tree(), &context);
        assert!(matches!(applied, Err(Error::Base { .. })), "{config}");
    }
}

#[test]
fn the_shell_of_the_base_runs_lines() {
    let (_folder, context) = context(&[], "");
    let config = json!({ "config": { "Shell": ["/bin/bash", "-c"] } });
    let applied = read("FROM a\nCMD x y")
        .unwrap()
        .apply(&config, &tree(), &context)
        .unwrap();
    assert_eq!(
        applied.config["config"]["Cmd"],
        json!(["/bin/bash", "-c", "x y"])
    );
}

#[test]
fn folders_of_the_base_are_repeated_as_they_are() {
    let applied = apply("FROM a\nCOPY f /home/node/\nCOPY f /var/tmp/g", &["f"]).unwrap();
    assert_eq!(
        laid(&applied),
        [
            "home/ 755 0",
            "home/node/ 755 1000",
            "home/node/f = f 644 0",
            "tmp/ 1777 0",
            "tmp/g = f 644 0",
        ]
    );
}

#[test]
fn one_step_has_the_layer() {
    let layers = |text: &str| {
        let applied = apply(text, &["f"]).unwrap();
        let steps = applied.history.iter().map(|step| !step.empty_layer);
        (steps.collect::<Vec<_>>(), applied.entries.len())
    };
    assert_eq!(layers("FROM a\nUSER b"), (vec![false], 0));
    assert_eq!(layers("FROM a\nWORKDIR /tmp"), (vec![false], 0));
    assert_eq!(layers("FROM a\nWORKDIR /n\nUSER b"), (vec![true, false], 1));
    let text = "FROM a\nCOPY f /n/\nCOPY f /n/\nARG x=1";
    assert_eq!(layers(text), (vec![false, true, false], 2));
}

#[test]
fn an_archive_is_for_docker_to_unpack() {
    let (folder, _) = context(&["plain", "d/inside.tar"], "");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    tar.append_data(&mut header, "x", std::io::empty()).unwrap();
    let tar = tar.into_inner().unwrap();
    std::fs::write(folder.path().join("d/inside.tar"), &tar).unwrap();
    std::fs::write(folder.path().join("packed"), b"\x1f\x8b\x08rest").unwrap();
    let files = ["plain", "packed", "d/inside.tar"];
    let files = files.map(|file| (file.into(), folder.path().join(file)));
    let context = BuildContext::new(folder.path(), files.to_vec(), None).unwrap();
    for (text, is_refused) in [
        ("ADD plain /x", false),
        ("ADD d /x", false),
        ("ADD packed /x", true),
        ("ADD d/inside.tar /x", true),
        ("ADD p* /x/", true),
        ("COPY packed d/inside.tar /x/", false),
    ] {
        let applied = read(&format!("FROM a\n{text}"))
            .unwrap()
            .apply(&base(), &tree(), &context);
        assert_eq!(
            matches!(applied, Err(Error::Refused(_))),
            is_refused,
            "{text}"
        );
    }
}

#[test]
fn who_is_copied_over_is_not_known() {
    let text = "FROM a\nCOPY etc/passwd /etc/passwd\nCOPY --chown=node f /x";
    assert!(matches!(
        apply(text, &["etc/passwd", "f"]),
        Err(Error::Refused(_))
    ));
    let text = "FROM a\nCOPY etc/passwd /etc/passwd\nCOPY --chown=1:2 f /x";
    assert!(apply(text, &["etc/passwd", "f"]).is_ok());
}

#[test]
fn a_folder_that_became_a_file_is_no_folder_again() {
    let text = "FROM a\nCOPY x /\nCOPY y /";
    let error = apply(text, &["x/home", "y/home/z"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("is a folder again"), "{error}");
}

#[test]
fn what_is_missing_is_named_and_perhaps_hidden() {
    use miette::Diagnostic;
    let (folder, context) = context(&["d/x.log", "e"], "*.md\nd/*.log");
    let failed = |text: &str| {
        let error = read(text)
            .unwrap()
            .apply(&base(), &tree(), &context)
            .unwrap_err();
        (error.to_string(), error.help().unwrap().to_string())
    };
    let place = folder.path().display();
    let (message, help) = failed("FROM a\nARG D=d\nCOPY $D/x.log /");
    assert_eq!(
        message,
        format!(
            "cannot copy `d/x.log` at line 3 of the Dockerfile: nothing in `{place}` is called so"
        )
    );
    assert!(help.contains("`.dockerignore` hides it"), "{help}");
    assert!(failed("FROM a\nCOPY ./d /").1.contains("hides it"));
    assert!(!failed("FROM a\nCOPY f /").1.contains("hides it"));
    let (message, help) = failed("FROM a\nCOPY --chown=nobody e /");
    assert_eq!(
        message,
        "`nobody` at line 2 of the Dockerfile is no user of the base image"
    );
    assert_eq!(
        help,
        "the base image has `guest`, `node`; a number needs no name"
    );
}

#[test]
fn what_is_sent_and_what_is_copied() {
    let ignore = Dockerignore::new("*\n!src\n**/*.md\n");
    for (path, ignored, sent) in [
        ("Dockerfile", true, true),
        (".dockerignore", true, true),
        ("sub/Dockerfile", true, false),
        ("src/a", false, true),
        ("src/a.md", true, false),
        ("other", true, false),
    ] {
        assert_eq!(
            (ignore.ignores(path), ignore.sends(path)),
            (ignored, sent),
            "{path}"
        );
    }
}

#[test]
fn durations_are_go_s() {
    for (text, nanoseconds) in [
        ("0", Some(0)),
        ("1ns", Some(1)),
        ("1.5h", Some(5_400_000_000_000)),
        ("+1m30s", Some(90_000_000_000)),
        (".5s", Some(500_000_000)),
        ("1.s", Some(1_000_000_000)),
        ("3µs2us", Some(5_000)),
        ("", None),
        ("+", None),
        ("1", None),
        (".s", None),
        ("-1s", None),
        ("1 s", None),
        ("1d", None),
        ("9999999h", None),
        ("99999999999999999999s", None),
    ] {
        assert_eq!(duration(text), nanoseconds, "{text}");
    }
}

/// Text of what Dockerfiles are made of.
fn dockerfile_like() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "FROM a\n",
        "FROM ",
        "ARG ",
        "ENV ",
        "LABEL ",
        "COPY ",
        "ADD ",
        "WORKDIR ",
        "USER ",
        "CMD ",
        "ENTRYPOINT ",
        "EXPOSE ",
        "HEALTHCHECK ",
        "STOPSIGNAL ",
        "VOLUME ",
        "RUN ",
        "ONBUILD ",
        "SHELL ",
        "MAINTAINER ",
        "--chown=",
        "--interval=",
        "NONE",
        "<<E",
        "E",
        "\\\n",
        "\\",
        "`",
        "# escape=`\n",
        "# syntax=",
        "\n",
        "\r\n",
        " ",
        "\t",
        "$",
        "${",
        "}",
        ":-",
        ":+",
        ":?",
        ":",
        "'",
        "\"",
        "[",
        "]",
        "[\"",
        "\", \"",
        "\"]",
        ",",
        "=",
        "a",
        "b/",
        "..",
        "/",
        "*",
        "**",
        "?",
        "!",
        "#",
        "é",
        "\u{2028}",
        "\u{feff}",
        "1",
        "80-90",
        "/udp",
        "1m",
        "x=y",
        "\0",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![any::<String>(), dockerfile_like()]) {
        let context = BuildContext::new(Path::new("/"), Vec::new(), Some(&text)).unwrap();
        for text in [text.clone(), format!("FROM a\n{text}")] {
            if let Ok(recipe) = read(&text) {
                let _ = recipe.apply(&base(), &tree(), &context);
            }
        }
    }

    #[test]
    fn no_word_makes_it_panic(
        word in prop_oneof![any::<String>(), dockerfile_like()],
        path in any::<String>(),
    ) {
        let lookup = |name: &str| (name != "b").then(|| name.to_owned());
        let _ = expand(&word, '\\', &lookup);
        let _ = expand_all(&word, '`', &lookup);
        let _ = Dockerignore::new(&word).ignores(&path);
        let _ = FilePattern::of_copy(&word).is_some_and(|pattern| pattern.matches(&path));
        let _ = duration(&word);
    }

    /// A word without anything special is itself, and so is one that is quoted.
    #[test]
    fn plain_words_stay(word in "[a-zA-Z0-9_./:=-]{0,20}", quoted in "[^'\\x00]{0,20}") {
        let lookup = |_: &str| None;
        prop_assert_eq!(expand(&word, '\\', &lookup), Ok(word));
        prop_assert_eq!(expand(&format!("'{quoted}'"), '\\', &lookup), Ok(quoted));
    }

    /// What a name says literally it matches, and a pattern of stars matches what has no slash.
    #[test]
    fn patterns_of_names(name in "[a-zé./]{1,12}") {
        let is_match = |pattern: &str| FilePattern::of_copy(pattern).unwrap().matches(&name);
        prop_assert!(is_match(&name));
        prop_assert_eq!(is_match("*"), !name.contains('/'));
        prop_assert!(FilePattern::of_ignore("**").unwrap().matches(&name));
    }
}

#[test]
fn depth_is_bounded() {
    let deep = "${a:-".repeat(100_000);
    assert!(expand(&deep, '\\', &|_| None).is_err());
    let fine = format!("{}x{}", "${a:-".repeat(20), "}".repeat(20));
    assert_eq!(expand(&fine, '\\', &|_| None), Ok("x".into()));
}
