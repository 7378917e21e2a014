//! Verification: every module that an entry loads is resolved inside `.deploy`, as Node does in an image.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use alokai::pipeline::unresolved;

use crate::support::{Project, Random, copy_of, output_of};

const UNTIL_PRUNE: &str = "store deploy --all --until prune";
const DEPLOY: &str = ".out/us/storefront-middleware/.deploy";

/// Writes files into an empty folder without a `node_modules` above it.
fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// The requests that are certain to fail, and whether Node starts the entry.
fn verdicts(folder: &Path, entry: &str) -> (Vec<String>, bool, String) {
    let missing = unresolved(folder, entry).unwrap().into_iter();
    let mut missing: Vec<_> = missing.map(|module| module.request.specifier).collect();
    missing.sort();
    let node = Command::new("node")
        .args(["--no-warnings", entry])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&node.stderr).into_owned();
    (missing, node.status.success(), said)
}

/// What is tested, the files with the entry first, and the requests that are certain to fail.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

/// Checks each case against Node.
fn agrees_with_node(cases: &[Case]) {
    for (name, files, expected) in cases {
        let folder = folder_of(files);
        let (missing, starts, said) = verdicts(folder.path(), files[0].0);
        assert_eq!(missing, *expected, "{name}");
        assert_eq!(starts, expected.is_empty(), "{name}: {said}");
    }
}

#[test]
fn a_module_that_is_certain_to_be_loaded_is_missing_where_node_says_so() {
    agrees_with_node(&[
        ("a package", &[("a.js", "require('gone')")], &["gone"]),
        (
            "a subpath",
            &[("a.js", "const { x } = require('@s/gone/x.js')")],
            &["@s/gone/x.js"],
        ),
        ("an import", &[("a.mjs", "import 'gone'")], &["gone"]),
        (
            "a re-export",
            &[("a.mjs", "export { x } from 'gone'")],
            &["gone"],
        ),
        (
            "all of a module",
            &[("a.mjs", "export * from './gone.js'")],
            &["./gone.js"],
        ),
        (
            "an import at the top that is awaited",
            &[("a.mjs", "await import('gone')")],
            &["gone"],
        ),
        (
            "a file",
            &[("a.js", "module.exports = { ...require('./gone') }")],
            &["./gone"],
        ),
        (
            "the path of a module",
            &[("a.js", "require.resolve('gone/package.json')")],
            &["gone/package.json"],
        ),
        (
            "a helper of TypeScript",
            &[("a.js", "var __i = (m) => m; const a = __i(require(`gone`))")],
            &["gone"],
        ),
        (
            "in a list after a condition",
            &[(
                "a.js",
                "if (process.env.NO) { x() }\nvar a = 1, b = [require('gone')]",
            )],
            &["gone"],
        ),
        (
            "the test of a condition",
            &[("a.js", "if (require('gone')) { }")],
            &["gone"],
        ),
        (
            "the heritage of a class",
            &[("a.js", "class A extends require('gone') {}")],
            &["gone"],
        ),
        (
            "a file that is required by another",
            &[
                ("a.js", "require('./b')"),
                ("b/index.js", "require('../c.json'); require('gone')"),
                ("c.json", "{}"),
            ],
            &["gone"],
        ),
        (
            "createRequire under another name",
            &[(
                "a.mjs",
                "import { createRequire as c } from 'node:module';\nconst r = c(import.meta.url);\nr('gone')",
            )],
            &["gone"],
        ),
        (
            "createRequire at once",
            &[(
                "a.mjs",
                "import m from 'module'; m.createRequire(import.meta.url)('gone')",
            )],
            &["gone"],
        ),
        (
            "an extension that an import has to name",
            &[("a.mjs", "import './b'"), ("b.js", "")],
            &["./b"],
        ),
        (
            "a folder, which an import cannot name",
            &[("a.mjs", "import './b'"), ("b/index.js", "")],
            &["./b"],
        ),
        (
            "a path that a package does not export",
            &[
                ("a.js", "require('p/x.js')"),
                (
                    "node_modules/p/package.json",
                    r#"{ "exports": { ".": "./x.js" } }"#,
                ),
                ("node_modules/p/x.js", ""),
            ],
            &["p/x.js"],
        ),
        (
            "a file that a package exports",
            &[
                ("a.mjs", "import 'p'"),
                (
                    "node_modules/p/package.json",
                    r#"{ "exports": { "import": "./gone.mjs", "require": "./x.js" } }"#,
                ),
                ("node_modules/p/x.js", ""),
            ],
            &["p"],
        ),
        (
            "an entry of imports",
            &[
                ("a.js", "require('#b')"),
                ("package.json", r##"{ "imports": { "#a": "./a.js" } }"##),
            ],
            &["#b"],
        ),
    ]);
}

#[test]
fn a_module_that_a_program_starts_without_is_not_missing() {
    agrees_with_node(&[
        ("try", &[("a.js", "try { require('gone') } catch {}")], &[]),
        (
            "a handler",
            &[("a.js", "try { require('fs') } catch { require('gone') }")],
            &[],
        ),
        (
            "a function",
            &[(
                "a.js",
                "function f() { return require('gone') }\nconst g = () => require('gone')",
            )],
            &[],
        ),
        (
            "a method",
            &[(
                "a.js",
                "class A { static f() { require('gone') } get x() { return require('gone') } }",
            )],
            &[],
        ),
        (
            "a condition",
            &[(
                "a.js",
                "if (process.env.NODE_ENV === 'no') require('gone'); else require('fs')",
            )],
            &[],
        ),
        (
            "a conjunction",
            &[("a.js", "process.env.NO && require('gone')")],
            &[],
        ),
        (
            "an alternative",
            &[(
                "a.js",
                "const a = process.env || require('gone'); let b = 1; b ??= require('gone')",
            )],
            &[],
        ),
        (
            "a choice",
            &[("a.js", "const a = process.env.NO ? require('gone') : 1")],
            &[],
        ),
        (
            "typeof require",
            &[(
                "a.mjs",
                "if (typeof require !== 'undefined') require('gone')",
            )],
            &[],
        ),
        (
            "a loop",
            &[("a.js", "for (const x of []) require('gone')")],
            &[],
        ),
        (
            "a switch",
            &[(
                "a.js",
                "switch (process.env.NO) { case 'x': require('gone') }",
            )],
            &[],
        ),
        (
            "an early end",
            &[("a.js", "if (!process.env.NO) { return }\nrequire('gone')")],
            &[],
        ),
        (
            "an early exit",
            &[(
                "a.js",
                "if (!process.env.NO) process.exit(0)\nrequire('gone')",
            )],
            &[],
        ),
        (
            "a promise with a handler",
            &[(
                "a.mjs",
                "import('gone').catch(() => {}); const f = () => import('gone')",
            )],
            &[],
        ),
        (
            "an awaited import in try",
            &[("a.mjs", "try { await import('gone') } catch {}")],
            &[],
        ),
        (
            "a variable",
            &[(
                "a.js",
                "const name = ['gone', 1].length > 5 ? 'gone' : 'fs'; require(name)",
            )],
            &[],
        ),
        (
            "a parameter",
            &[(
                "a.js",
                "(function (require) { require('./gone') })(() => 1)",
            )],
            &[],
        ),
        (
            "a variable of that name",
            &[(
                "a.js",
                "(0, () => { const require = () => 1; require('gone') })()",
            )],
            &[],
        ),
        (
            "a comment and a text",
            &[(
                "a.js",
                "// require('gone')\n`require('gone')`; /import 'gone'/",
            )],
            &[],
        ),
        (
            "an optional chain",
            &[("a.js", "globalThis.nothing?.(require('gone'))")],
            &[],
        ),
        (
            "modules of Node",
            &[(
                "a.mjs",
                "import 'node:fs/promises'; import 'path'; import { createRequire } from 'module'; createRequire(import.meta.url)('node:os')",
            )],
            &[],
        ),
        (
            "a file of a package that is loaded in try",
            &[
                ("a.js", "try { require('p') } catch {}"),
                ("node_modules/p/index.js", "require('gone')"),
            ],
            &[],
        ),
        (
            "a changed resolution",
            &[
                ("a.js", "require('./aliases'); require('@/b')"),
                (
                    "aliases.js",
                    "const m = require('module'), old = m._resolveFilename;\nm._resolveFilename = (name, ...rest) => old(name.replace('@', __dirname), ...rest)",
                ),
                ("b.js", ""),
            ],
            &[],
        ),
    ]);
}

#[test]
fn packages_resolve_as_node_resolves_them() {
    agrees_with_node(&[
        (
            "conditions",
            &[
                (
                    "a.mjs",
                    "import 'p'; import 'p/sub'; import 'p/any/x'; import { createRequire } from 'module';\nconst require = createRequire(import.meta.url);\nrequire('p'); require('p/cjs')",
                ),
                (
                    "node_modules/p/package.json",
                    r#"{ "exports": { ".": { "browser": "./gone.js", "import": "./p.mjs", "require": "./p.cjs" }, "./sub": { "node": { "default": "./s.mjs" } }, "./cjs": ["./p.cjs"], "./any/*": "./any/*.mjs" } }"#,
                ),
                ("node_modules/p/p.mjs", ""),
                ("node_modules/p/p.cjs", ""),
                ("node_modules/p/s.mjs", ""),
                ("node_modules/p/any/x.mjs", ""),
            ],
            &[],
        ),
        (
            "a package that names itself, and imports",
            &[
                ("a.js", "require('@s/p')"),
                (
                    "node_modules/@s/p/package.json",
                    r##"{ "name": "@s/p", "exports": { ".": "./a.js", "./b": "./b.js" }, "imports": { "#c": { "require": "./c.js" }, "#q": "q" } }"##,
                ),
                (
                    "node_modules/@s/p/a.js",
                    "require('@s/p/b'); require('#c'); require('#q')",
                ),
                ("node_modules/@s/p/b.js", ""),
                ("node_modules/@s/p/c.js", ""),
                ("node_modules/q/index.js", ""),
            ],
            &[],
        ),
        (
            "main in all its forms",
            &[
                (
                    "a.mjs",
                    "import 'm'; import 'dir'; import 'none'; import { createRequire } from 'module';\nconst r = createRequire(import.meta.url); r('m'); r('dir'); r('none'); r('wrong'); r('m/lib'); r('m/lib/m'); r('process/')",
                ),
                ("node_modules/m/package.json", r#"{ "main": "lib/m" }"#),
                ("node_modules/m/lib/m.js", ""),
                ("node_modules/m/lib/index.json", "{}"),
                ("node_modules/dir/package.json", r#"{ "main": "./lib" }"#),
                ("node_modules/dir/lib/index.js", ""),
                ("node_modules/none/index.js", ""),
                (
                    "node_modules/wrong/package.json",
                    r#"{ "main": "gone.js" }"#,
                ),
                ("node_modules/wrong/index.js", ""),
                ("node_modules/process/index.js", ""),
            ],
            &[],
        ),
        (
            "a nested version, and a data URL",
            &[
                (
                    "a.mjs",
                    "import 'data:text/javascript,1'; import 'p'; import './b.mjs?x=1'",
                ),
                ("b.mjs", ""),
                (
                    "node_modules/p/package.json",
                    r#"{ "type": "module", "main": "index.js" }"#,
                ),
                ("node_modules/p/index.js", "import 'q/only-here.js'"),
                ("node_modules/p/node_modules/q/only-here.js", ""),
                ("node_modules/q/index.js", ""),
            ],
            &[],
        ),
    ]);
}

/// A package that a random program requests.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `CommonJS` with `main`.
    Main,
    /// An ES module with `main`.
    Module,
    /// Both, by `exports`.
    Both,
}

fn is_module_file(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|end| end == "mjs")
}

/// A random program: an entry, files of its own, and packages. A file requests only files and
/// packages with a higher number, so that there are no cycles.
fn program(random: &mut Random) -> BTreeMap<String, String> {
    const NAMES: [&str; 5] = ["p0", "@s/p1", "p2", "@s/p3", "p4"];
    let forms: Vec<_> = NAMES
        .iter()
        .map(|_| random.pick(&[Form::Main, Form::Main, Form::Module, Form::Both]))
        .collect();
    let mut files = BTreeMap::new();
    let body = |random: &mut Random, is_module: bool, own: &[String], after: usize| {
        let mut text = String::from("var x = 0;\n");
        if is_module {
            text.push_str("import { createRequire as create } from 'node:module';\n");
        }
        for _ in 0..random.below(4) {
            let mut is_common = true;
            let specifier = match random.below(12) {
                0..=1 if !own.is_empty() => {
                    let file = &own[random.below(own.len())];
                    is_common = !is_module_file(file);
                    let stem = file.trim_end_matches(".js");
                    let whole = is_module || !is_common || random.once_in(2);
                    format!("./{}", if whole { file } else { stem })
                }
                2 if random.once_in(3) => "./gone.js".into(),
                3 if random.once_in(3) => "gone".into(),
                4 => random.pick(&["node:fs", "path", "fs/promises"]).into(),
                _ if after < NAMES.len() => {
                    let number = after + random.below(NAMES.len() - after);
                    is_common = forms[number] != Form::Module;
                    let end = match random.below(8) {
                        0 => "/sub.js",
                        1 => "/gone.js",
                        _ => "",
                    };
                    // The file `sub.js` of a package is what its `type` says.
                    format!("{}{end}", NAMES[number])
                }
                _ => continue,
            };
            let statement = if is_module {
                random.pick(&[
                    "import '<s>';",
                    "export * from '<s>';",
                    "import * as <n> from '<s>';",
                    "await import('<s>');",
                    "try { await import('<s>') } catch {}",
                    "const <n> = () => import('<s>');",
                    "import('<s>').catch(() => {});",
                    "if (process.env.NOT_SET) await import('<s>');",
                    "C;",
                ])
            } else if is_common {
                random.pick(&[
                    "require('<s>');",
                    "const <n> = [{ a: require('<s>') }];",
                    "try { require('<s>') } catch {}",
                    "function <n>() { require('<s>') }",
                    "x && require('<s>');",
                    "if (x) { require('<s>') }",
                    "require.resolve('<s>');",
                    "import('<s>').catch(() => {});",
                ])
            } else {
                "import('<s>').catch(() => {});"
            };
            let statement = match (statement, is_common) {
                ("C;", true) => "create(import.meta.url)('<s>');",
                ("C;", false) => "try { create(import.meta.url).resolve('<s>') } catch {}",
                (statement, _) => statement,
            };
            let name = format!("n{}", text.len());
            let _ = writeln!(
                text,
                "{}",
                statement.replace("<s>", &specifier).replace("<n>", &name)
            );
        }
        text
    };
    let own: Vec<_> = (0..4)
        .map(|number| format!("f{number}.{}", random.pick(&["js", "mjs"])))
        .collect();
    for (number, file) in own.iter().enumerate() {
        let text = body(random, is_module_file(file), &own[number + 1..], 0);
        files.insert(file.clone(), text);
    }
    for (number, name) in NAMES.iter().enumerate() {
        if random.once_in(7) {
            continue;
        }
        let folder = format!("node_modules/{name}");
        let manifest = match forms[number] {
            Form::Main => r#"{ "main": "main" }"#,
            Form::Module => r#"{ "type": "module", "main": "main.js" }"#,
            Form::Both => {
                r#"{ "exports": { ".": { "import": "./main.mjs", "default": "./main.js" }, "./sub.js": "./sub.js" } }"#
            }
        };
        files.insert(format!("{folder}/package.json"), manifest.into());
        let is_module = forms[number] == Form::Module;
        let mut add = |file: &str, is_module: bool, random: &mut Random| {
            let text = body(random, is_module, &[], number + 1);
            files.insert(format!("{folder}/{file}"), text);
        };
        add("main.js", is_module, random);
        add("sub.js", is_module, random);
        if forms[number] == Form::Both && !random.once_in(5) {
            add("main.mjs", true, random);
        }
    }
    files
}

#[test]
fn random_programs_start_in_node_exactly_where_nothing_is_missing() {
    let (mut fine, mut broken) = (0, 0);
    for seed in 0..120 {
        let files = program(&mut Random::new(seed));
        let entry = files.keys().find(|file| file.starts_with("f0.")).unwrap();
        let list: Vec<_> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let folder = folder_of(&list);
        let (missing, starts, said) = verdicts(folder.path(), entry);
        assert_eq!(
            missing.is_empty(),
            starts,
            "seed {seed}: missing are {missing:?}, and Node says: {said}\n{files:#?}"
        );
        if starts {
            fine += 1;
        } else {
            broken += 1;
        }
    }
    assert!(fine > 20 && broken > 10, "{fine} start, {broken} do not");
}

const PACKAGE: &str = r#"{ "name": "m", "scripts": { "build": "node build.js", "start": "node lib/index.js" }, "dependencies": { "own": "1" } }"#;

/// A middleware with this source, and packages that are installed at the root.
fn middleware(source: &str) -> Project {
    Project::shop()
        .file("apps/storefront-middleware/package.json", PACKAGE)
        .file("apps/storefront-middleware/build.js", "require('fs').cpSync('src', 'lib', { recursive: true })")
        .file("apps/storefront-middleware/src/index.js", source)
        // This lock file cannot be used, so installed packages are not in a key.
        .file("package-lock.json", "{}")
        .file("package.json", r#"{ "private": true, "workspaces": ["apps/*"], "dependencies": { "settings": "^16.1.0" }, "devDependencies": { "tool": "2" } }"#)
        .file("node_modules/own/package.json", r#"{ "name": "own", "version": "1.0.0" }"#)
        .file("node_modules/own/index.js", "")
        .file("node_modules/settings/package.json", r#"{ "name": "settings", "version": "16.1.2", "dependencies": { "inner": "1" } }"#)
        .file("node_modules/settings/config.js", "console.log('settings of', require('inner'))")
        .file("node_modules/settings/index.js", "")
        .file("node_modules/inner/package.json", r#"{ "name": "inner", "version": "1.0.0" }"#)
        .file("node_modules/inner/index.js", "module.exports = 'inner'")
        .file("node_modules/tool/package.json", r#"{ "name": "tool", "version": "2.0.0" }"#)
        .file("node_modules/tool/index.js", "console.log('tool')")
}

/// What the middleware of `us` prints when it is started in an empty folder.
fn started(project: &Project) -> String {
    let (_elsewhere, copy) = copy_of(&project.path(DEPLOY));
    output_of(Command::new("node").arg("lib/index.js").current_dir(copy))
}

#[test]
fn a_package_that_only_the_root_declares_is_copied_with_its_dependencies_and_named() {
    let project = middleware("require('settings/config'); require('own')");
    project.commit();
    let run = project.alokai(UNTIL_PRUNE).succeeds();
    run.stderr_contains(
        "`settings` is needed by `lib/index.js` of `storefront-middleware`, but it is declared only in the root `package.json`; it was copied to `.deploy`. Add `\"settings\": \"^16.1.0\"` to `dependencies` in `apps/storefront-middleware/package.json`",
    );
    run.stderr_lacks("`inner` is needed");
    assert_eq!(started(&project), "settings of inner\n");
    // Without verification, the program does not start.
    let project = project.setting("prune", &serde_json::json!({ "verify": "off" }));
    project.alokai(UNTIL_PRUNE).succeeds();
    assert!(!project.path(DEPLOY).join("node_modules/settings").exists());
}

#[test]
fn a_dev_dependency_that_is_certain_to_be_loaded_is_copied_and_another_one_is_not() {
    let certain = middleware("require('tool')");
    certain.commit();
    let run = certain.alokai(UNTIL_PRUNE).succeeds();
    run.stderr_contains("it is declared only in `devDependencies` of the root `package.json`");
    assert_eq!(started(&certain), "tool\n");

    let lazy = "exports.f = () => { require('tool'); require('settings') }; if (process.env.DEV) require('tool')";
    let lazy = middleware(lazy);
    lazy.commit();
    lazy.alokai(UNTIL_PRUNE).succeeds();
    assert!(!lazy.path(DEPLOY).join("node_modules/tool").exists());
    assert!(lazy.path(DEPLOY).join("node_modules/settings").exists());
}

#[test]
fn the_undeclared_dependency_of_a_package_is_copied() {
    let project = middleware("require('own')").file(
        "node_modules/own/index.js",
        "require('tool'); try { require('settings') } catch {}; exports.f = () => require('inner')",
    );
    project.commit();
    let run = project.alokai(UNTIL_PRUNE).succeeds();
    run.stderr_contains("`tool` is needed by `node_modules/own/index.js`");
    assert_eq!(started(&project), "tool\n");
    // Packages may have optional modules that tools use.
    assert!(!project.path(DEPLOY).join("node_modules/inner").exists());
}

#[test]
fn a_folder_of_packages_without_a_manifest_is_copied() {
    // As Prisma generates its client, and as a file without a manifest.
    let project = middleware("require('@prisma/client'); require('plain')")
        .file(
            "node_modules/@prisma/client/package.json",
            r#"{ "name": "@prisma/client", "version": "6.0.0" }"#,
        )
        .file(
            "node_modules/@prisma/client/index.js",
            "require('.prisma/client/default')",
        )
        .file(
            "node_modules/.prisma/client/default.js",
            "console.log('prisma')",
        )
        .file("node_modules/plain/index.js", "console.log('plain')");
    project.commit();
    project.alokai(UNTIL_PRUNE).succeeds();
    assert_eq!(started(&project), "prisma\nplain\n");
}

#[test]
fn an_app_that_imports_itself_by_its_package_name_is_not_copied_again() {
    let project = middleware("console.log(require('m/lib/x'))").file(
        "apps/storefront-middleware/src/x.js",
        "module.exports = 'x'",
    );
    project.commit();
    project.alokai(UNTIL_PRUNE).succeeds();
    assert_eq!(started(&project), "x\n");
    let own = project.path(DEPLOY).join("node_modules/m");
    assert!(own.is_symlink(), "a link and not a copy");
}

#[test]
fn secrets_of_a_workspace_package_stay_out() {
    let project = middleware("require('@acme/ui')")
        .file(
            "package.json",
            r#"{ "private": true, "workspaces": ["apps/*", "packages/*"] }"#,
        )
        .file(
            "packages/ui/package.json",
            r#"{ "name": "@acme/ui", "version": "1.0.0" }"#,
        )
        .file("packages/ui/index.js", "console.log('ui')")
        .file("packages/ui/.npmrc", "//registry/:_authToken=secret")
        .file("packages/ui/tls.key", "secret")
        .link("node_modules/@acme/ui", "../../packages/ui")
        .dependency("storefront-middleware", "@acme/ui", "*");
    project.commit();
    project.alokai(UNTIL_PRUNE).succeeds();
    assert_eq!(started(&project), "ui\n");
    let ui = project.path(DEPLOY).join("node_modules/@acme/ui");
    assert!(ui.join("index.js").exists());
    assert!(!ui.join(".npmrc").exists() && !ui.join("tls.key").exists());
}

#[test]
fn a_module_that_cannot_be_copied_is_an_error_with_its_remedy() {
    let project =
        middleware("import 'own'; import { x } from 'gone/x'; import './lost.js'; import 'other'")
            .file(
                "apps/storefront-middleware/package.json",
                &PACKAGE.replacen(
                    '{',
                    r#"{ "type": "module", "devDependencies": { "other": "3" }, "#,
                    1,
                ),
            )
            .file(
                "apps/storefront-middleware/build.js",
                "import { cpSync } from 'fs'; cpSync('src', 'lib', { recursive: true })",
            );
    project.commit();
    let run = project
        .alokai("store deploy --store us --until prune")
        .fails_with(1);
    insta::assert_snapshot!(run.diagnostic(&project));
    assert!(!project.exists(DEPLOY));
}

#[test]
fn a_file_beside_the_folder_of_the_entry_is_copied() {
    let project = middleware("require('../settings/default'); require('own')")
        .file(
            "apps/storefront-middleware/settings/default.js",
            "console.log(require('./more.json').text)",
        )
        .file(
            "apps/storefront-middleware/settings/more.json",
            r#"{ "text": "more" }"#,
        );
    project.commit();
    let run = project.alokai(UNTIL_PRUNE).succeeds();
    run.stderr_contains(
        "`lib/index.js` of `storefront-middleware` needs the file `settings/default.js`",
    );
    assert_eq!(started(&project), "more\n");
}

#[test]
fn a_file_that_the_drop_list_removed_is_copied_after_all() {
    let project = middleware("require('own')")
        .file(
            "node_modules/own/index.js",
            "require('./lib/' + 'x'); require('./lib/x')",
        )
        .file("node_modules/own/lib/x.js", "console.log('x')")
        .setting("prune", &serde_json::json!({ "drop": ["**/x.js"] }));
    project.commit();
    project.alokai(UNTIL_PRUNE).succeeds();
    assert_eq!(started(&project), "x\n");
}

/// What Next.js writes where `outputFileTracingRoot` is the folder of the store.
const NARROW: &str = r"
const fs = require('fs'), path = require('path');
const write = (file, text) => { fs.mkdirSync(path.dirname(file), { recursive: true }); fs.writeFileSync(file, text); };
const app = '.next/standalone/storefront-unified-nextjs/';
write(app + 'server.js', 'require(`next`); require(`./.next/server/pages/a.js`)');
write(app + '.next/server/pages/a.js', 'const m = { 1: (e) => { e.exports = require(`react`) } }; m[1]({}); module.exports = m');
write(app + '.next/server/pages/b.js', 'const m = { 2: (e) => { e.exports = require(`outside`) } }; module.exports = m');
write(app + 'package.json', JSON.stringify({ name: 'shop' }));
";

#[test]
fn packages_outside_of_the_tracing_root_are_copied() {
    let package =
        |name: &str, rest: &str| format!(r#"{{ "name": "{name}", "version": "1.0.0"{rest} }}"#);
    let project = Project::shop()
        .build_script("storefront-unified-nextjs", NARROW)
        .file("node_modules/next/package.json", &package("next", r#", "peerDependencies": { "react": "1" }, "optionalDependencies": { "@next/swc-x": "1" }"#))
        .file("node_modules/next/index.js", "require('react'); exports.f = () => require('typescript'); console.log('next')")
        .file("node_modules/react/package.json", &package("react", ""))
        .file("node_modules/react/index.js", "console.log('react')")
        .file("node_modules/outside/package.json", &package("outside", ""))
        .file("node_modules/outside/index.js", "")
        .file("node_modules/typescript/package.json", &package("typescript", ""))
        .file("node_modules/typescript/index.js", "")
        .file("node_modules/@next/swc-x/package.json", &package("@next/swc-x", ""));
    project.commit();
    let run = project.alokai(UNTIL_PRUNE).succeeds();
    run.stderr_contains(
        "the standalone output of `storefront-unified-nextjs` does not contain `next`, `outside`, `react`, because",
    );
    let deploy = project.path(".out/us/storefront-unified-nextjs/.deploy");
    let (_elsewhere, copy) = copy_of(&deploy);
    let said = output_of(Command::new("node").arg("server.js").current_dir(&copy));
    assert_eq!(said, "react\nnext\n");
    assert!(copy.join("node_modules/outside").exists());
    assert!(!copy.join("node_modules/typescript").exists());
    assert!(!copy.join("node_modules/@next").exists());
}

#[test]
fn an_older_version_of_a_dependency_is_copied_into_the_folder_of_its_package() {
    let project = middleware("require('settings/config'); require('own')")
        .file(
            "apps/storefront-middleware/package.json",
            &PACKAGE.replace(r#""own": "1""#, r#""own": "1", "inner": "1""#),
        )
        .file(
            "node_modules/settings/node_modules/inner/package.json",
            r#"{ "name": "inner", "version": "2.0.0" }"#,
        )
        .file(
            "node_modules/settings/node_modules/inner/index.js",
            "module.exports = 'inner 2'",
        );
    project.commit();
    project.alokai(UNTIL_PRUNE).succeeds();
    assert_eq!(started(&project), "settings of inner 2\n");
}

#[test]
fn tools_that_make_up_most_of_a_deploy_are_named() {
    let project = middleware("require('own')")
        .file(
            "apps/storefront-middleware/package.json",
            &PACKAGE.replace(r#""own": "1""#, r#""own": "1", "typescript": "5""#),
        )
        .file(
            "node_modules/typescript/package.json",
            r#"{ "name": "typescript", "version": "5.0.0" }"#,
        )
        .file(
            "node_modules/typescript/index.js",
            &"// compiler\n".repeat(1000),
        );
    project.commit();
    let run = project.alokai(UNTIL_PRUNE).succeeds();
    run.stderr_contains("in `.deploy` of `storefront-middleware` are build tools: `typescript`");
    let project = middleware("require('own')");
    project.commit();
    project
        .alokai(UNTIL_PRUNE)
        .succeeds()
        .stderr_lacks("tools for builds");
}

#[test]
fn a_verify_mode_that_is_not_valid_is_refused() {
    let project = Project::shop().setting("prune", &serde_json::json!({ "verify": "often" }));
    let run = project.alokai(UNTIL_PRUNE).fails_with(2);
    run.stderr_contains("verify");
}
