//! Dockerfiles that are applied.

use serde_json::{Value, json};

use super::{apply, base, context, laid, tree};
use crate::BaseTree;
use crate::dockerfile::{BuildContext, Error, read};

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
            ("ENV NODE_ENV=production PORT=3000 HOSTNAME=0.0.0.0", true),
            ("WORKDIR /var/www", true),
            ("COPY --chown=node:node ./.deploy/ ./", false),
            ("USER node", true),
            ("EXPOSE 3000", true),
            ("ENTRYPOINT [\"node\",\"server.js\"]", true),
        ]
    );
}

#[test]
fn names_of_buildkit_without_an_effect_are_read() {
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
fn arguments_in_from_are_expanded() {
    let recipe =
        read("ARG V=22\nARG I=node:${V}-alpine\nARG N\nFROM --platform=linux/$V$N \"$I\"").unwrap();
    assert_eq!(recipe.base(), Some("node:22-alpine"));
    assert_eq!(recipe.platform(), Some("linux/22"));
    assert_eq!(read("FROM a").unwrap().platform(), None);
}

#[test]
fn scratch_is_a_base() {
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
fn a_base_with_onbuild_is_refused() {
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
        assert!(matches!(applied, Err(Error::BaseConfig { .. })), "{config}");
    }
}

#[test]
fn the_shell_form_uses_the_shell_of_the_base() {
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
fn folders_of_the_base_are_repeated_unchanged() {
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
fn the_last_instruction_that_adds_files_has_the_layer() {
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
fn add_of_an_archive_is_refused() {
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
fn copied_accounts_are_not_read() {
    let text = "FROM a\nCOPY etc/passwd /etc/passwd\nCOPY --chown=node f /x";
    assert!(matches!(
        apply(text, &["etc/passwd", "f"]),
        Err(Error::Refused(_))
    ));
    let text = "FROM a\nCOPY etc/passwd /etc/passwd\nCOPY --chown=1:2 f /x";
    assert!(apply(text, &["etc/passwd", "f"]).is_ok());
}

#[test]
fn a_file_that_replaces_a_folder_is_refused() {
    let text = "FROM a\nCOPY x /";
    let error = apply(text, &["x/home"]).unwrap_err().to_string();
    assert!(
        error.contains("`/home` is a folder and cannot be replaced by a file"),
        "{error}"
    );
    let error = apply(text, &["x/bin/tool"]).unwrap_err().to_string();
    assert!(
        error.contains("`/bin` is not a folder and cannot be replaced by a folder"),
        "{error}"
    );
}

#[test]
fn a_missing_source_is_named_with_its_reason() {
    let (folder, context) = context(&["d/x.log", "e"], "*.md\nd/*.log");
    let failed = |text: &str| {
        let error = read(text)
            .unwrap()
            .apply(&base(), &tree(), &context)
            .unwrap_err();
        (error.to_string(), error.help())
    };
    let place = folder.path().display();
    let (message, help) = failed("FROM a\nARG D=d\nCOPY $D/x.log /");
    assert_eq!(
        message,
        format!(
            "cannot copy `d/x.log` at line 3 of the Dockerfile: the build context `{place}` has no such file or folder"
        )
    );
    assert!(
        help.contains("`.dockerignore` excludes this path"),
        "{help}"
    );
    assert!(
        failed("FROM a\nCOPY ./d /")
            .1
            .contains("excludes this path")
    );
    assert!(!failed("FROM a\nCOPY f /").1.contains("excludes this path"));
    let (message, _) = failed("FROM a\nCOPY --chown=nobody e /");
    assert_eq!(
        message,
        "line 2 of the Dockerfile needs Docker: the base image has no user `nobody`: \
         `COPY --chown=nobody e /`"
    );
}
