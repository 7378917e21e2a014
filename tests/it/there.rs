//! Images that exist already: with equal inputs they are not made again, with other inputs their
//! tags are not moved.

use serde_json::{Value, json};

use crate::deploy::{Unique, unique};
use crate::support::{
    Console, FRONTEND, MIDDLEWARE, Project, Registry, Run, base_layout, base_reference, begun,
    registry, rows,
};

const DEPLOY: &str = "store deploy --store us --json";

/// A shop whose frontend gets a variable, with its registry and its console.
struct World {
    registry: Registry,
    name: Unique,
    console: Console,
    project: Project,
}

impl World {
    /// A world with this base image, or `None` without a base image or a registry.
    fn new(base: Option<String>) -> Option<Self> {
        let (base, registry, console) = (base?, registry()?, Console::start());
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

    fn deploy(&self, more: &str) -> Run {
        self.project.alokai(&format!("{DEPLOY} {more}"))
    }

    /// Deploys with this value of the frontend's variable.
    fn greeting(&self, greeting: &str, more: &str) -> Run {
        let mut command = self.project.command(&format!("{DEPLOY} {more}"));
        command.env("GREETING", greeting).output().unwrap().into()
    }

    fn repository(&self, app: &str) -> String {
        format!("{}-us-storefrontcloud-io/{app}", self.name)
    }

    /// The digest of a tag of the frontend.
    fn digest(&self, tag: &str) -> String {
        let repository = self.repository("vue-storefront");
        let path = format!("/v2/{repository}/manifests/{tag}");
        let manifest = self.registry.get(&path).expect("a manifest");
        oci::Digest::of(&manifest).to_string()
    }

    /// Copies the base image to a repository, as another client does.
    fn put(&self, repository: &str, more: &[&str]) {
        let base = base_layout().expect("a base image");
        self.registry.put_image(&base, repository, more);
    }
}

/// Fails unless the run did nothing because a tag exists. Returns the diagnostic.
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
fn existing_images_are_not_made_again() {
    let Some(world) = World::new(base_reference()) else {
        return;
    };
    let first = rows(&world.deploy("").succeeds());
    assert_eq!(first.len(), 2);
    assert_eq!(world.console.requests().len(), 1);

    // Without local state, as on another machine.
    for folder in [".out", ".alokai"] {
        std::fs::remove_dir_all(world.project.path(folder)).unwrap();
    }
    let run = world.deploy("").succeeds();
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
    let run = world.project.alokai("store deploy --store us").succeeds();
    let said = "\n2 images exist already, made from the same inputs\n";
    run.stdout_contains(said);

    // Only the images of the second store are made.
    let both = "store deploy --store us,eu --json";
    let run = world.project.alokai(both).succeeds();
    let was_there: Vec<_> = rows(&run)
        .into_values()
        .map(|row| row["wasThere"].clone())
        .collect();
    assert_eq!(was_there, [false, false, true, true]);
    assert!(!world.project.exists(".out/us") && world.project.exists(".out/eu"));
    assert_eq!(world.console.requests().len(), 5);
}

#[test]
fn a_tag_of_an_image_with_other_inputs_is_not_moved() {
    let Some(world) = World::new(base_reference()) else {
        return;
    };
    let sha = world.project.sha();
    let first = rows(&world.greeting("hello", "").succeeds());
    let before = world.digest(&sha);
    let own = format!(
        "`{}/{}:{sha}`",
        world.registry.address,
        world.repository("vue-storefront")
    );

    // The commit and the Dockerfile are the same; a variable differs.
    let told = taken(world.greeting("goodbye", ""));
    assert!(
        told.contains(&format!(
            "the image {own} already exists and is different: the digest of its inputs was sha256:"
        )),
        "{told}"
    );
    assert!(!told.contains("middleware"), "{told}");
    assert!(told.contains("pass `--force`"), "{told}");
    // The same with an ignored file.
    world.project.write(".env", b"GREETING=good evening\n");
    assert!(taken(world.deploy("")).contains(&own));
    assert_eq!(world.digest(&sha), before);
    assert_eq!(world.console.requests().len(), 1);

    let forced = rows(&world.deploy("--force").succeeds());
    let unit = format!("us/{FRONTEND}");
    assert_eq!(forced[&unit]["wasThere"], false);
    assert_eq!(forced[&unit]["digest"], world.digest(&sha));
    assert_ne!(world.digest(&sha), before);
    let unit = format!("us/{MIDDLEWARE}");
    // Every script may read an ignored file at the top of the project.
    assert_ne!(forced[&unit]["digest"], first[&unit]["digest"]);
    assert_eq!(begun(&world.deploy("").succeeds()), ["push", "deploy"]);

    // Uncommitted content cannot be built again, so its tag is never moved.
    world.project.write(
        "apps/storefront-unified-nextjs/texts.txt",
        b"not committed\n",
    );
    let dirty = world.deploy("--allow-dirty").succeeds();
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
    for more in ["--allow-dirty", "--allow-dirty --force"] {
        let told = taken(world.greeting("hello", more));
        assert!(told.contains(&tag) && !told.contains("--force"), "{told}");
    }
    assert_eq!(world.digest(&tag), before);
}

#[test]
fn images_of_other_tools_are_recognised() {
    let Some(world) = World::new(base_layout()) else {
        return;
    };
    let sha = world.project.sha();
    let name = format!("{}:{sha}", world.repository("vue-storefront"));
    world.put(&name, &[]);
    let before = world.digest(&sha);
    let told = taken(world.deploy(""));
    assert!(told.contains(&name), "{told}");
    assert!(
        told.contains(&format!(
            "already exists and is different: {before} has no label `com.alokai.inputs`"
        )),
        "{told}"
    );
    world.deploy("--force").succeeds();
    assert_ne!(world.digest(&sha), before);
}

#[test]
fn a_base_that_moved_is_named_as_the_reason() {
    let registry = base_layout().and(registry());
    let base = registry.map(|registry| format!("{}/bases/{{name}}:22", registry.address));
    let Some(world) = World::new(base) else {
        return;
    };
    let name = format!("bases/{}:22", world.name);
    let digest = || {
        let path = format!("/v2/bases/{}/manifests/22", world.name);
        let manifest = world.registry.get(&path).expect("a manifest");
        oci::Digest::of(&manifest)
    };
    world.put(&name, &[]);
    let old = digest();
    world.deploy("--builder oci").succeeds();
    // The same image in another format, which has another digest.
    world.put(&name, &["--format", "v2s2"]);
    let new = digest();
    assert_ne!(old, new);
    let told = taken(world.deploy("--builder oci"));
    let reason = format!(
        "its base image `{}/{name}` was {old} and is now {new}",
        world.registry.address
    );
    assert!(told.contains(&reason), "{told}");
    assert_eq!(told.matches(&reason).count(), 2, "both images: {told}");
}

#[test]
fn a_store_with_a_failed_build_is_not_deployed_although_some_images_exist() {
    let Some(world) = World::new(base_layout()) else {
        return;
    };
    let build = format!("apps/{FRONTEND}/build.js");
    let fails = "if (process.env.GREETING === 'fail') process.exit(1);\n";
    let script = fails.to_owned() + &world.project.read(&build);
    world.project.write(&build, script.as_bytes());
    world.project.commit();
    let middleware = "--filter storefront-middleware-* --until push";
    world.deploy(middleware).succeeds();
    let run = world.greeting("fail", "--keep-going").fails_with(1);
    assert!(!begun(&run).is_empty());
    assert_eq!(world.console.requests().len(), 0, "{}", run.stdout);
}
