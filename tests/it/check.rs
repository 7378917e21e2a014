//! `check`, `clean` and `list`: what people ask of the hierarchy itself.

use crate::support::Project;

const NEXT: &str = "storefront-unified-nextjs";

/// A project with a finding of each code, except an unreadable config.
fn odd() -> Project {
    let config = r#"{
  "stores": {
    "fashion": { "localPorts": { "middleware": 4000 } },
    "us": {
      "deployment": { "projectName": "acme-us", "cloudRegion": "r" },
      "localPorts": { "nextjs": 4000 },
      "localDomain": "shop.local",
      "ignorePaths": [
        "no/such/file.tsx",
        "public/*.svg",
        "!public/logo.svg"
      ]
    },
    "eu": {
      "deployment": { "projectName": "acme-eu", "cloudRegion": "r" },
      "localDomain": "shop.local"
    },
    "Uk_1": { "deployment": { "projectName": "acme-uk", "cloudRegion": "r" } },
    "fashon": {}
  }
}
"#;
    let us = "apps/stores/fashion/stores/us";
    let project = Project::shop()
        .config(config)
        .file(&format!("{us}/{NEXT}/package.json"), "{}")
        .file(&format!("{us}/{NEXT}/public/logo.svg"), "<svg/>\n")
        .file(&format!("{us}/{NEXT}/Header.tsx"), "another case\n")
        .file(&format!("{us}/notes.txt"), "lost\n")
        .file(&format!("{us}/README.md"), "belongs here\n")
        .file(&format!("{us}/storefront-unified-nextj/x.ts"), "a typo\n")
        .file("packages/theme/index.ts", "export {}\n")
        .file(
            &format!("apps/{NEXT}/src/theme.ts"),
            "import '../texts';\n\nexport * from '../../../packages/theme';\nimport x from '../../storefront-middleware/lib/types';\n",
        )
        .file(&format!("apps/{NEXT}/old.tsx"), "old\n")
        .file(&format!("apps/stores/a/stores/b/stores/c/stores/d/{NEXT}/x.ts"), "deep\n");
    project.commit();
    let project = project.file(&format!("{us}/{NEXT}/old.tsx"), "old, us\n");
    project.commit();
    project.remove(&format!("apps/{NEXT}/old.tsx"));
    project.commit();
    project
}

#[test]
fn every_finding_has_its_position_and_its_remedy() {
    let project = odd();
    let run = project.alokai("store check").fails_with(1);
    let sha = project.sha();
    insta::assert_snapshot!(run.stdout.replace(&sha[..12], "[sha]"));
    let json = project.alokai("store check --json").fails_with(1).json();
    let mut codes: Vec<_> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["code"].as_str().unwrap())
        .collect();
    codes.sort_unstable();
    codes.dedup();
    let all = [
        "case-clash",
        "deep-chain",
        "ignore-rule",
        "import",
        "local-clash",
        "needless-override",
        "orphan",
        "outside-app",
        "own-package-json",
        "store-id",
        "unknown-store",
    ];
    assert_eq!(codes, all);
}

#[test]
fn code_scanning_gets_sarif_with_paths_of_the_repository() {
    let project = odd();
    let sarif = project.alokai("store check --sarif").fails_with(1).json();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let rules: Vec<_> = run["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["id"].clone())
        .collect();
    let results = run["results"].as_array().unwrap();
    assert!(results.len() > 10);
    for result in results {
        assert!(rules.contains(&result["ruleId"]), "{result}");
        let place = &result["locations"][0]["physicalLocation"];
        let file = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(project.exists(file), "{file}");
        assert!(place["region"]["startLine"].as_u64().unwrap() > 0);
    }
}

#[test]
fn unreadable_and_uncomposable_stores_are_findings() {
    let project = Project::shop();
    project.alokai("store check").succeeds();
    project.write(
        "alokai.config.json",
        b"{ \"stores\": { \"us\": { \"deploymnt\": {} } } }",
    );
    let run = project.alokai("store check").fails_with(1);
    run.stdout_contains("alokai.config.json:1");
    run.stdout_contains("[config]");

    let project = Project::shop()
        .link("apps/playwright/out", "/etc/hostname")
        .file("apps/stores/fashion/stores/us/lost.txt", "lost\n");
    let run = project.alokai("store check").fails_with(1);
    run.stdout_contains("outside the repository");
    assert!(
        run.stdout.contains("lost.txt"),
        "the rest is found too: {}",
        run.stdout
    );
    run.stderr_contains("not checked");
}

#[test]
fn clean_removes_what_was_made_and_nothing_else() {
    let project = Project::shop();
    project.alokai("store compose --all").succeeds();
    let sources = project.tree("apps");
    let run = project.alokai("store clean").succeeds();
    run.stdout_contains("removed .out\n");
    assert!(!project.exists(".out") && !project.exists(".alokai/manifests"));
    assert_eq!(project.tree("apps"), sources);
    assert!(project.git("status --porcelain").is_empty());
    let again = project.alokai("store clean").succeeds();
    assert_eq!(again.stdout, "nothing to remove\n");
    // A link is removed, and its target is not.
    let project = project.link(".out", "apps");
    project.alokai("store clean").succeeds();
    assert!(!project.exists(".out"));
    assert_eq!(project.tree("apps"), sources);
}
