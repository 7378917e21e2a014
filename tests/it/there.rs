//! Images that are there already: made of the same they are left alone, made of something else
//! their names are not taken from them.

use serde_json::{Value, json};

use crate::deploy::{Unique, unique};
use crate::support::{
    Console, FRONTEND, MIDDLEWARE, Project, Registry, Run, base_layout, base_reference, begun,
    registry, rows,
};

const DEPLOY: [&str; 5] = ["store", "deploy", "--store", "us", "--json"];

/// A shop whose frontend sees a variable, and what it deploys to.
struct World {
    registry: Registry,
    name: Unique,
    console: Console,
    project: Project,
}

impl World {
    fn new(base: &str) -> Option<Self> {
        let (registry, console) = (registry()?, Console::start());
        let name = unique("there");
        let project = Project::shop_named(&name)
            .setting("image", &json!({ "base": base.replace("{name}", &name) }))
            .env_of(FRONTEND, &["GREETING"]);
        project.commit();
        let project = registry.used_by(project, &console.address);
        Some(Self {
            registry,
            name,
            console,
            project,
        })
    }

    fn deploy(&self, more: &[&str]) -> Run {
        self.project.alokai(&[&DEPLOY[..], more].concat())
    }

    /// With a value of the variable that the frontend sees.
    fn greeting(&self, greeting: &str, more: &[&str]) -> Run {
        let mut command = self.project.command(&[&DEPLOY[..], more].concat());
        command.env("GREETING", greeting).output().unwrap().into()
    }

    fn repository(&self, app: &str) -> String {
        format!("{}-us-storefrontcloud-io/{app}", self.name)
    }

    /// What a tag of the frontend names.
    fn digest(&self, tag: &str) -> String {
        let repository = self.repository("vue-storefront");
        let path = format!("/v2/{repository}/manifests/{tag}");
        let manifest = self.registry.get(&path).expect("a manifest");
        oci::Digest::of(&manifest).to_string()
    }

    /// Puts the base image somewhere, as another client does.
    fn put(&self, base: &str, repository: &str, more: &[&str]) {
        let to = format!("docker://{}/{repository}", self.registry.address);
        let copy = ["copy", "--quiet", "--dest-tls-verify=false", base, &to];
        self.registry
            .skopeo(&[&copy, more].concat())
            .expect("it is copied");
    }
}

/// Fails unless nothing was done because a name is taken; gives what was told.
#[track_caller]
fn taken(run: Run) -> String {
    let run = run.fails_with(2);
    assert_eq!(begun(&run), Vec::<String>::new());
    let lines = run
        .stderr
        .lines()
        .map(|line| line.trim_start_matches([' ', '│', '×', '╰', '─', '▶']));
    let told = lines.collect::<Vec<_>>().join(" ");
    assert!(told.contains("alokai::image::taken"), "{told}");
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_there_is_not_made_again() {
    let Some(base) = base_reference() else { return };
    let Some(world) = World::new(&base) else {
        return;
    };
    let first = rows(&world.deploy(&[]).succeeds());
    assert_eq!(first.len(), 2);
    assert_eq!(world.console.requests().len(), 1);

    // Another machine, as good as.
    for folder in [".out", ".alokai"] {
        std::fs::remove_dir_all(world.project.path(folder)).unwrap();
    }
    let run = world.deploy(&[]).succeeds();
    assert_eq!(begun(&run), ["push", "deploy"]);
    assert!(!world.project.exists(".out"), "something was composed");
    for (unit, row) in rows(&run) {
        assert_eq!(row["wasThere"], true);
        assert_eq!(row["buildSeconds"], Value::Null);
        for field in ["digest", "reference", "imageBytes"] {
            assert_eq!(row[field], first[&unit][field], "{field}");
        }
    }
    let requests = world.console.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].body, requests[1].body);
    let run = world.project.alokai(&DEPLOY[..4]).succeeds();
    let said = "\n2 images were there already, made of the same\n";
    assert!(run.stdout.contains(said), "{}", run.stdout);

    // Of two stores only the other is made.
    let both = ["store", "deploy", "--store", "us,eu", "--json"];
    let run = world.project.alokai(&both).succeeds();
    let was_there: Vec<_> = rows(&run)
        .into_values()
        .map(|row| row["wasThere"].clone())
        .collect();
    assert_eq!(was_there, [false, false, true, true]);
    assert!(!world.project.exists(".out/us") && world.project.exists(".out/eu"));
    assert_eq!(world.console.requests().len(), 5);
}

#[test]
fn a_name_is_not_taken_from_what_was_made_of_something_else() {
    let Some(base) = base_reference() else { return };
    let Some(world) = World::new(&base) else {
        return;
    };
    let sha = world.project.sha();
    let first = rows(&world.greeting("hello", &[]).succeeds());
    let before = world.digest(&sha);
    let own = format!(
        "`{}/{}:{sha}`",
        world.registry.address,
        world.repository("vue-storefront")
    );

    // The commit and its Dockerfile are the same, and a variable is not.
    let told = taken(world.greeting("goodbye", &[]));
    assert!(
        told.contains(&format!(
            "{own} is already the tag of another image: the digest of its inputs was sha256:"
        )),
        "{told}"
    );
    assert!(!told.contains("middleware"), "{told}");
    assert!(told.contains("pass `--force`"), "{told}");
    // Nor is it in a file that git ignores.
    world.project.write(".env", b"GREETING=good evening\n");
    assert!(taken(world.deploy(&[])).contains(&own));
    assert_eq!(world.digest(&sha), before);
    assert_eq!(world.console.requests().len(), 1);

    let forced = rows(&world.deploy(&["--force"]).succeeds());
    let unit = format!("us/{FRONTEND}");
    assert_eq!(forced[&unit]["wasThere"], false);
    assert_eq!(forced[&unit]["digest"], world.digest(&sha));
    assert_ne!(world.digest(&sha), before);
    let unit = format!("us/{MIDDLEWARE}");
    // Any script may read an ignored file at the top of the project.
    assert_ne!(forced[&unit]["digest"], first[&unit]["digest"]);
    assert_eq!(begun(&world.deploy(&[]).succeeds()), ["push", "deploy"]);

    // What is in no commit cannot be made again, so its name stays.
    world.project.write(
        "apps/storefront-unified-nextjs/texts.txt",
        b"not committed\n",
    );
    let dirty = world.deploy(&["--allow-dirty"]).succeeds();
    let reference = rows(&dirty)[&format!("us/{FRONTEND}")]["reference"].clone();
    let tag = reference
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    assert!(tag.starts_with(&format!("{sha}-dirty-")), "{tag}");
    let before = world.digest(&tag);
    for more in [&["--allow-dirty"][..], &["--allow-dirty", "--force"]] {
        let told = taken(world.greeting("hello", more));
        assert!(told.contains(&tag) && !told.contains("--force"), "{told}");
    }
    assert_eq!(world.digest(&tag), before);
}

#[test]
fn what_others_made_is_told_apart() {
    let Some(base) = base_layout() else { return };
    let Some(world) = World::new(&base) else {
        return;
    };
    let sha = world.project.sha();
    let name = format!("{}:{sha}", world.repository("vue-storefront"));
    world.put(&base, &name, &[]);
    let before = world.digest(&sha);
    let told = taken(world.deploy(&[]));
    assert!(told.contains(&name), "{told}");
    assert!(
        told.contains(&format!(
            "is already the tag of another image: {before} has no label `com.alokai.inputs`"
        )),
        "{told}"
    );
    world.deploy(&["--force"]).succeeds();
    assert_ne!(world.digest(&sha), before);
}

#[test]
fn a_base_that_moved_is_named_as_the_reason() {
    let (Some(layout), Some(registry)) = (base_layout(), registry()) else {
        return;
    };
    let base = format!("{}/bases/{{name}}:22", registry.address);
    let Some(world) = World::new(&base) else {
        return;
    };
    let name = format!("bases/{}:22", world.name);
    let digest = || {
        let path = format!("/v2/bases/{}/manifests/22", world.name);
        let manifest = world.registry.get(&path).expect("a manifest");
        oci::Digest::of(&manifest)
    };
    world.put(&layout, &name, &[]);
    let old = digest();
    world.deploy(&["--builder", "oci"]).succeeds();
    // The same in other words, which have another digest.
    world.put(&layout, &name, &["--format", "v2s2"]);
    let new = digest();
    assert_ne!(old, new);
    let told = taken(world.deploy(&["--builder", "oci"]));
    let reason = format!(
        "its base image `{}/{name}` was {old} and is now {new}",
        world.registry.address
    );
    assert!(told.contains(&reason), "{told}");
    assert_eq!(told.matches(&reason).count(), 2, "both images: {told}");
}

#[test]
fn a_store_is_not_deployed_for_what_is_there_of_it() {
    let Some(base) = base_layout() else { return };
    let Some(world) = World::new(&base) else {
        return;
    };
    let build = format!("apps/{FRONTEND}/build.js");
    let fails = "if (process.env.GREETING === 'fail') process.exit(1);\n";
    let script = fails.to_owned() + &world.project.read(&build);
    world.project.write(&build, script.as_bytes());
    world.project.commit();
    let middleware = ["--filter", "storefront-middleware-*", "--until", "push"];
    world.deploy(&middleware).succeeds();
    let run = world.greeting("fail", &["--keep-going"]).fails_with(1);
    assert!(!begun(&run).is_empty());
    assert_eq!(world.console.requests().len(), 0, "{}", run.stdout);
}
