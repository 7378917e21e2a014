//! `why`: who gives a file, whom it hides, which rule dropped it.

use crate::support::{Project, filtered};

fn shop() -> Project {
    let config = r#"{
  "stores": {
    "fashion": { "ignorePaths": ["*.svg"] },
    "us": {
      "ignorePaths": [
        "!public/logo.svg",
        "app/[locale]/page.tsx"
      ],
      "deployment": { "projectName": "a", "cloudRegion": "r" }
    }
  }
}
"#;
    let project = Project::shop()
        .config(config)
        .file(
            "apps/storefront-unified-nextjs/header.tsx",
            "header of base\n",
        )
        .file(
            "apps/stores/fashion/storefront-unified-nextjs/package.json",
            "{}",
        );
    project.commit();
    project.file(
        "apps/stores/fashion/stores/us/storefront-unified-nextjs/header.tsx",
        "new\n",
    )
}

/// The answer without what differs from run to run.
fn why(project: &Project, path: &str) -> String {
    let run = project.alokai(&["store", "why", "us", path]).succeeds();
    let text = filtered(&run.stdout, project);
    let words = text.split(' ').map(|word| {
        let is_sha = word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
        let is_date = word.starts_with("20") && word.ends_with(':') && word.len() == 11;
        if is_sha {
            "[sha]"
        } else if is_date {
            "[date]:"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn winner_hidden_layers_rules_and_special_files_are_told() {
    let project = shop();
    let app = "storefront-unified-nextjs";
    let answers = [
        "header.tsx",
        "app/[locale]/page.tsx",
        "public/logo.svg",
        "package.json",
    ]
    .map(|path| why(&project, &format!("{app}/{path}")));
    insta::assert_snapshot!(answers.join("\n"));
}

#[test]
fn an_unknown_path_names_the_nearest_ones() {
    let project = shop();
    let run = |path: &str| {
        let run = project.alokai(&["store", "why", "us", path]).fails_with(2);
        run.diagnostic(&project)
    };
    insta::assert_snapshot!(format!(
        "{}\n{}",
        run("storefront-unified-nextjs/haeder.tsx"),
        run("header.tsx")
    ));
}

#[test]
fn json_has_the_commit_that_last_changed_each_layer() {
    let project = Project::shop();
    let first = project.sha();
    project.write("apps/storefront-unified-nextjs/texts.txt", b"second\n");
    project.commit();
    let second = project.sha();
    project.write("elsewhere", b"third\n");
    project.commit();
    let path = "storefront-unified-nextjs/texts.txt";
    let json = project
        .alokai(&["store", "why", "us", path, "--json"])
        .succeeds()
        .json();
    assert_eq!(json["winner"]["layer"], "us");
    assert_eq!(json["winner"]["lastCommit"]["sha"], first);
    assert_eq!(json["hidden"][0]["layer"], "base");
    assert_eq!(json["hidden"][0]["lastCommit"]["sha"], second);
    assert_eq!(json["hidden"][0]["lastCommit"]["subject"], "change");
}

#[test]
fn a_path_may_be_one_that_a_shell_completes() {
    let project = shop();
    let app = "storefront-unified-nextjs";
    let plain = why(&project, &format!("{app}/header.tsx"));
    for path in [
        format!("apps/{app}/header.tsx"),
        format!("apps/stores/fashion/stores/us/{app}/header.tsx"),
        format!(".out/us/{app}/header.tsx"),
        project
            .path(&format!("apps/{app}/header.tsx"))
            .display()
            .to_string(),
    ] {
        assert_eq!(why(&project, &path), plain, "{path}");
    }
}
