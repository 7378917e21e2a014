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
            "import '../texts';\n\nexport * from '../../../apps/playwright/package.json';\nimport x from '../../storefront-middleware/lib/types';\nexport * from '../../../packages/theme';\n",
        )
        .file(
            &format!("apps/{NEXT}/vite.config.ts"),
            "export default { envDir: '../../../' };\n",
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
        "config-path",
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

#[test]
fn folders_that_differ_by_case_are_one_finding() {
    let project = Project::shop()
        .file(&format!("apps/{NEXT}/components/Header.tsx"), "")
        .file(&format!("apps/{NEXT}/components/Footer.tsx"), "")
        .file(&format!("apps/{NEXT}/components/forms/Input.tsx"), "");
    for file in ["Header.tsx", "Links.tsx", "forms/Input.tsx"] {
        let path = format!("apps/stores/fashion/{NEXT}/Components/{file}");
        project.write(&path, "other");
    }
    let json = project.alokai("store check --json").fails_with(1).json();
    let findings = json["findings"].as_array().unwrap().iter();
    let clashes: Vec<_> = findings.filter(|it| it["code"] == "case-clash").collect();
    assert_eq!(clashes.len(), 1, "{clashes:#?}");
    // The folder that comes later is named; capital letters come first.
    assert_eq!(clashes[0]["file"], format!("apps/{NEXT}/components"));
    let message = clashes[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("`Components` and `components` of "),
        "{message}"
    );
}

/// The findings of a code: file, line and message.
fn found(project: &Project, code: &str) -> Vec<String> {
    let json = project.alokai("store check --json").json();
    let findings = json["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["code"] == code)
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            assert!(!text("help").is_empty());
            format!("{}:{} {}", text("file"), finding["line"], text("message"))
        })
        .collect()
}

#[test]
fn paths_of_configs_that_lead_elsewhere_from_out_are_found() {
    // The config file, its text, and where its paths lead: to what in place, to what composed.
    let app = format!("apps/{NEXT}");
    let out = format!("`.out/<store>/{NEXT}`");
    let cases: &[(&str, &str, &[&str])] = &[
        // What lies at the top of the project has a link, and apps are siblings.
        (
            "tailwind.config.js",
            "module.exports = { content: ['./app/**', '../../packages/ui/**/*.js', '../../node_modules/x'] }",
            &[],
        ),
        (
            "a.config.js",
            "module.exports = ['../storefront-middleware/lib', '..', '../']",
            &[],
        ),
        (
            "a.config.mjs",
            "import path from 'node:path';\nimport { fileURLToPath } from 'node:url';\nexport default { root: path.join(fileURLToPath(import.meta.url), '../../') }",
            &[],
        ),
        (
            "a.config.ts",
            "const root = path.resolve(__dirname, '../..');\nexport default { theme: path.join(root, 'packages') }",
            &[],
        ),
        (
            "a.config.ts",
            "import x from '../../packages/x';\nconst y = require('../../../y'), z = join(unknown(), '../..'), q = 'a'.replace('../..', '')",
            &[],
        ),
        // The project itself, and what is around it.
        (
            "next.config.mjs",
            "import path from 'path';\n\nexport default { outputFileTracingRoot: path.join(import.meta.dirname, '../..') }",
            &["3 `../..` the folder of the project > `.out`"],
        ),
        (
            "a.config.ts",
            "const root = path.resolve(__dirname, '../..');\nexport default { root }",
            &["1 `../..` the folder of the project > `.out`"],
        ),
        (
            "vite.config.ts",
            "export default { fs: new URL('../../', import.meta.url).pathname,\n dir: `${__dirname}/../../../around/x` }",
            &[
                "1 `../..` the folder of the project > `.out`",
                "2 `../../../around/x` `../around/x` > `around/x`",
            ],
        ),
        (
            "jest.config.js",
            "module.exports = { moduleNameMapper: { '^x/(.*)$': '<rootDir>/../../../around/$1' } }",
            &["1 `../../../around` `../around` > `around`"],
        ),
        // Names without a link.
        (
            "vitest.config.ts",
            "config({ path: '../../.env' })",
            &["1 `../../.env` `.env` > nothing"],
        ),
        (
            "playwright.config.ts",
            "export default { a: '../../apps/playwright/x' }",
            &["1 `../../apps/playwright/x` `apps/playwright/x` > nothing"],
        ),
        (
            "postcss.config.cjs",
            "module.exports = '../stores/fashion'",
            &["1 `../stores/fashion` `apps/stores/fashion` > nothing"],
        ),
        // Data.
        (
            ".eslintrc.json",
            "{\n  // comment\n  \"extends\": [\"../../.eslintrc.base.json\",\n \"../../../around/x\"]\n}",
            &["4 `../../../around/x` `../around/x` > `around/x`"],
        ),
        (
            ".eslintrc.yml",
            "root: true\nextends: ../../../around/x\n",
            &["2 `../../../around/x` `../around/x` > `around/x`"],
        ),
        (
            "tsconfig.json",
            "{ \"extends\": \"../../tsconfig.base.json\", \"include\": [\"../..\", \"../../../around/x\"] }",
            &[],
        ),
        (
            "tsconfig.build.json",
            "{ \"extends\": \"../../tsconfig.base.json\", \"include\": [\"../../../around/*.ts\"] }",
            &["1 `../../../around` `../around` > `around`"],
        ),
        (
            "package.json",
            "{\n \"name\": \"x\",\n \"main\": \"../../../around/x\",\n \"scripts\": {\n  \"a\": \"cp ../../packages/ui/x .\",\n  \"b\": \"cd ../.. && x --config=../../yarn.lock\" } }",
            &[
                "6 `../../yarn.lock` `yarn.lock` > nothing",
                "6 `../..` the folder of the project > `.out`",
            ],
        ),
        // Other files are no config files.
        (
            "src/paths.ts",
            "export const around = '../../../../around/x'",
            &[],
        ),
    ];
    let project = Project::shop()
        .file("packages/ui/x", "")
        .file("yarn.lock", "")
        .file(".env", "A=1\n")
        .file("../around/x", "");
    for (name, text, wanted) in cases {
        let path = format!("{app}/{name}");
        let before = project.exists(&path).then(|| project.read(&path));
        project.write(&path, text);
        let wanted: Vec<String> = wanted
            .iter()
            .map(|line| {
                let (line, rest) = line.split_once(' ').unwrap();
                let (written, places) = rest.split_once("` ").unwrap();
                let (place, composed) = places.split_once(" > ").unwrap();
                format!("{path}:{line} the path {written}` leads to {place} from `{app}`, and to {composed} from {out}")
            })
            .collect();
        assert_eq!(found(&project, "config-path"), wanted, "{name}: {text}");
        match before {
            Some(before) => project.write(&path, before),
            None => project.remove(&path),
        }
    }
}

#[test]
fn paths_of_configs_are_judged_by_store_and_by_the_file_that_wins() {
    let config = r#"{ "stores": {
        "us": { "deployment": { "projectName": "a", "cloudRegion": "r", "framework": "nextjs" } },
        "eu": { "deployment": { "projectName": "b", "cloudRegion": "r", "framework": "nuxt" } } } }"#;
    let nuxt = "storefront-unified-nuxt";
    let project = Project::shop()
        .config(config)
        .app(nuxt, r#""build": "true""#)
        .file(
            "apps/stores/us/storefront-middleware/x.config.js",
            "module.exports = '../../../../packages/ui'",
        )
        .file("packages/ui/x", "")
        .file(
            "apps/storefront-middleware/y.config.js",
            &format!("module.exports = ['../{NEXT}/texts.txt', '../playwright']"),
        );
    std::fs::remove_dir_all(project.path("apps/stores/fashion")).unwrap();
    let middleware = "storefront-middleware";
    assert_eq!(
        found(&project, "config-path"),
        [
            format!(
                "apps/{middleware}/y.config.js:1 the path `../{NEXT}/texts.txt` leads to `apps/{NEXT}/texts.txt` from `apps/{middleware}`, and to nothing from `.out/eu/{middleware}`"
            ),
            format!(
                "apps/stores/us/{middleware}/x.config.js:1 the path `../../../../packages/ui` leads to `packages/ui` from `apps/{middleware}`, and to `../packages/ui` from `.out/<store>/{middleware}`"
            ),
        ]
    );
}
