//! Images are the same for both builders and all destinations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::deploy::{Unique, unique};
use crate::support::{
    Containers, FRONTEND, MIDDLEWARE, Project, Run, base_layout, base_reference, docker, folder,
    is_there, page, registries_and_base, registry, rows, second_registry, tree_of,
};

/// The fields of an image config that decide how a container runs.
const BEHAVIOUR: [&str; 12] = [
    "User",
    "WorkingDir",
    "Entrypoint",
    "Cmd",
    "Env",
    "ExposedPorts",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Volumes",
    "Shell",
    "OnBuild",
];

/// A Dockerfile with all instructions that run nothing.
const DOCKERFILE: &str = r#"
FROM {base}
ARG PORT=8080
LABEL maker="a team" com.example.empty=""
ENV NODE_ENV=production PORT=$PORT GREETING="hello ${PORT}"
WORKDIR /srv/app
COPY . .
COPY --chown=1001:1002 ./.deploy/ live/
COPY --chown=node texts.txt header.tsx /etc/shop/
WORKDIR live
USER 1001
EXPOSE 8080/tcp 9229
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD ["node", "-e", "process.exit(0)"]
ENTRYPOINT ["node"]
CMD ["server.js"]
"#;

/// A shop with this base image and project names that no other run has.
fn shop(name: &Unique, base: &str) -> Project {
    Project::shop_named(name).setting("image", &json!({ "base": base }))
}

/// The same with a store `plain` that uses the default Dockerfile, and with a Dockerfile that `us`
/// inherits.
fn shop_with_a_dockerfile(name: &Unique, base: &str) -> Project {
    let deployment = |store: &str| {
        json!({ "deployment": {
            "projectName": format!("{name}-{store}"), "cloudRegion": "us-east1", "framework": "nextjs",
        }})
    };
    let stores = json!({ "us": deployment("us"), "plain": deployment("plain") });
    let texts = "apps/stores/plain/storefront-unified-nextjs/texts.txt";
    let project = shop(name, base)
        .setting("stores", &stores)
        .file(texts, "texts of plain\n")
        .file(
            "apps/stores/fashion/storefront-unified-nextjs/Dockerfile",
            &DOCKERFILE.replace("{base}", base),
        )
        .file(
            "apps/storefront-unified-nextjs/.dockerignore",
            "# all but\n*.js\n**/page.tsx\n!.deploy/server.js\n.next\n",
        )
        .file("apps/storefront-unified-nextjs/tools/run", "#!/bin/sh\n");
    project.make_executable("apps/storefront-unified-nextjs/tools/run");
    project.commit();
    project
}

/// The fields of the engine's image that decide how a container runs.
fn behaviour(image: &str) -> BTreeMap<&'static str, Value> {
    let inspected: Value = serde_json::from_str(&docker(&["image", "inspect", image])).unwrap();
    let config = &inspected[0]["Config"];
    // `null`, an empty list and an empty text are equal.
    let is_said = |value: &Value| {
        !(value.is_null() || *value == json!([]) || *value == json!({}) || *value == json!(""))
    };
    let mut all: BTreeMap<_, _> = BEHAVIOUR
        .map(|key| (key, config[key].clone()))
        .into_iter()
        .filter(|(_, value)| is_said(value))
        .collect();
    all.insert("Architecture", inspected[0]["Architecture"].clone());
    all.insert("Os", inspected[0]["Os"].clone());
    all
}

/// The paths at which two images differ. Fails unless both contain this file.
fn differences(one: &str, other: &str, file: &str) -> Vec<String> {
    let (one, other) = (tree_of(one), tree_of(other));
    assert!(
        one.contains_key("etc/passwd") && one.contains_key(file),
        "{file}"
    );
    let paths: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differing = paths
        .into_iter()
        .filter(|path| one.get(*path) != other.get(*path));
    differing
        .map(|path| {
            let told = [&one, &other].map(|tree| {
                let node = tree.get(path);
                node.map(|node| format!("{:o} {:?}", node.mode, node.owner))
            });
            format!("{path}: {told:?}")
        })
        .collect()
}

/// The status, the headers and the body without the date.
fn answer(port: u16) -> String {
    page(port, "/");
    let url = format!("http://127.0.0.1:{port}/");
    let curl = ["--silent", "--include", "--noproxy", "*", &url];
    let output = Command::new("curl").args(curl).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("Date:"));
    lines.collect::<Vec<_>>().join("\n")
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().expect("text")
}

#[test]
fn containers_behave_the_same_whoever_made_their_images() {
    let (Some(registry), Some(second), Some(base)) =
        (registry(), second_registry(), base_reference())
    else {
        return;
    };
    let name = unique("both");
    let place = folder();
    let login = registry.login(place.path());
    let project = registry
        .used_by(shop_with_a_dockerfile(&name, &base), "http://127.0.0.1:9")
        // The base image is not in the second registry.
        .env("DOCKER_CONFIG", login.to_str().unwrap());
    let deploy = |builder: &str, to: &str| {
        let mut arguments = vec!["store", "deploy", "--store", "us,plain", "--until", "push"];
        arguments.extend(["--json", "--builder", builder, "--docker-registry-url", to]);
        rows(&project.alokai(&arguments).succeeds())
    };
    let by_docker = deploy("docker", &registry.address);
    let by_oci = deploy("oci", &second.address);
    assert_eq!(by_oci.len(), 4);
    // The image is the same below a path of the registry and in another registry.
    let aside = deploy("oci", &format!("{}/aside", registry.address));
    for (unit, row) in &by_oci {
        assert_eq!(row["digest"], aside[unit]["digest"], "{unit}");
        assert_ne!(row["digest"], by_docker[unit]["digest"], "{unit}");
    }

    let mut containers = Containers::default();
    let mut ports = Vec::new();
    for (unit, port, file) in [
        (format!("us/{FRONTEND}"), 8080, "srv/app/live/server.js"),
        (format!("plain/{FRONTEND}"), 3000, "var/www/server.js"),
        (format!("plain/{MIDDLEWARE}"), 4000, "var/www/lib/index.js"),
    ] {
        let [theirs, ours] = [&by_docker, &by_oci].map(|rows| text(&rows[&unit], "reference"));
        docker(&["pull", "--quiet", ours]);
        let behaviours = [theirs, ours].map(behaviour);
        assert_eq!(behaviours[0], behaviours[1], "{unit}");
        let labels = &behaviours[0]["Labels"];
        assert_eq!(labels["org.opencontainers.image.revision"], project.sha());
        assert_eq!(labels["org.opencontainers.image.base.name"], base);
        let is_own = unit.starts_with("us/");
        assert_eq!(behaviours[0].contains_key("Healthcheck"), is_own, "{unit}");
        assert_eq!(
            differences(theirs, ours, file),
            Vec::<String>::new(),
            "{unit}"
        );
        let both = [theirs, ours].map(|image| containers.run(image, port, &[]));
        ports.push((unit, both));
    }
    for (unit, both) in &ports {
        let [theirs, ours] = both.map(answer);
        assert_eq!(theirs, ours, "{unit}");
        let text = match unit.as_str() {
            "us/storefront-unified-nextjs" => "texts of us",
            "plain/storefront-unified-nextjs" => "texts of plain",
            _ => "middleware",
        };
        assert!(ours.starts_with("HTTP/1.1 200 OK"), "{ours}");
        assert!(ours.contains(text), "{ours}");
    }
}

#[test]
fn other_tools_read_pushed_images() {
    let Some((registry, second, base)) = registries_and_base() else {
        return;
    };
    let name = unique("others");
    let project = shop(&name, &base);
    project.commit();
    let mut containers = Containers::default();
    for registry in [registry, second] {
        let console = "http://127.0.0.1:9";
        let project = registry.used_by(Project::at(project.root().to_owned()), console);
        let mut deploy = vec![
            "store", "deploy", "--store", "us", "--until", "push", "--json",
        ];
        deploy.extend([
            "--builder",
            "oci",
            "--filter",
            "storefront-unified-nextjs-*",
        ]);
        let rows = rows(&project.alokai(&deploy).succeeds());
        let row = &rows["us/storefront-unified-nextjs"];
        let (reference, digest) = (text(row, "reference"), text(row, "digest"));

        let from = format!("docker://{reference}");
        let inspected = registry.skopeo(&["inspect", "--tls-verify=false", &from]);
        let inspected: Value = serde_json::from_str(&inspected.expect("an image")).unwrap();
        assert_eq!(inspected["Digest"], digest);
        assert_eq!(inspected["Labels"]["com.alokai.store"], "us");
        assert_eq!(inspected["Architecture"], "amd64");

        let place = folder();
        let copy = place.path().join("copy");
        let to = format!("dir:{}", copy.display());
        let all = ["copy", "--quiet", "--src-tls-verify=false", &from, &to];
        registry.skopeo(&all).expect("all of it");
        let layers = inspected["Layers"].as_array().unwrap().iter();
        let sizes = layers.map(|layer| {
            let hex = layer.as_str().unwrap().trim_start_matches("sha256:");
            copy.join(hex).metadata().unwrap().len()
        });
        assert_eq!(row["imageBytes"], sizes.sum::<u64>());

        let login = registry.login(place.path());
        docker(&[
            "--config",
            login.to_str().unwrap(),
            "pull",
            "--quiet",
            reference,
        ]);
        let port = containers.run(reference, 3000, &[]);
        assert_eq!(page(port, "/"), "texts of us\n");
    }
}

/// A copy of a project and its repository whose files are written in another order.
fn copy_backwards(project: &Project, to: &Path) -> Project {
    let entries = walkdir::WalkDir::new(project.root()).sort_by(|one, other| {
        // A folder is written before its content.
        other.file_name().cmp(one.file_name())
    });
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(project.root()).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
    Project::at(to.to_owned())
}

/// The entries of a layout's index: names, digests and annotations.
fn listed(project: &Project, layout: &str) -> Vec<Value> {
    let index: Value =
        serde_json::from_str(&project.read(&format!("{layout}/index.json"))).unwrap();
    let mut listed = index["manifests"].as_array().unwrap().clone();
    // The records of a run have its time.
    listed.retain(|manifest| {
        let name = manifest["annotations"]["org.opencontainers.image.ref.name"].as_str();
        !name.is_some_and(|name| name.contains(":alokai.E"))
    });
    listed.sort_by_key(|manifest| manifest["digest"].to_string());
    listed
}

#[test]
fn a_run_elsewhere_on_another_day_makes_the_same_images() {
    let Some(base) = base_layout() else { return };
    if !is_there("faketime") {
        return;
    }
    let place = folder();
    let first = Project::shop().setting("image", &json!({ "base": base }));
    first.commit();
    let second = copy_backwards(&first, &place.path().join("elsewhere/and/deeper"));
    let on = |project: &Project, day: &str, umask: &str, zone: &str| {
        let alokai = project.command("store deploy --all --until push --json");
        let script = format!("umask {umask}; exec faketime --exclude-monotonic '{day}' \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh"])
            .arg(alokai.get_program())
            .args(alokai.get_args())
            .args(["--docker-registry-url", "oci:out"])
            .current_dir(project.root())
            .env_clear()
            .env("TZ", zone)
            .envs(
                alokai
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        let run: Run = command.output().unwrap().into();
        run.succeeds()
    };
    on(&first, "2027-02-28 23:59:00", "022", "UTC");
    on(&second, "2031-07-01 12:00:00", "077", "Asia/Tokyo");
    let [one, other] = [&first, &second].map(|project| listed(project, "out"));
    // Four images, each with an SBOM and a provenance.
    assert_eq!(one.len(), 12);
    assert_eq!(one, other);
}

/// A project in which only one frontend needs the engine.
fn with_a_command(base: &str) -> Project {
    let text = format!("# Ours\nFROM {base}\nCOPY .deploy /srv\nRUN id -u\n");
    let project = Project::shop()
        .setting("image", &json!({ "base": base }))
        .dockerfile(&text);
    project.commit();
    project
}

const LINE: &str =
    "line 4 of apps/stores/fashion/storefront-unified-nextjs/Dockerfile, `RUN id -u`";

#[test]
fn a_line_that_runs_something_is_named() {
    let project = with_a_command("127.0.0.1:9/base:1");
    let dry = "store deploy --store us --dry-run";
    let run = project.alokai(dry).succeeds();
    let because = "by Docker, because of line 4 of its Dockerfile, `RUN id -u`: ";
    assert_eq!(run.stdout.matches(because).count(), 1, "{}", run.stdout);

    let run = project.alokai(&format!("{dry} --json")).succeeds();
    let plan = run.json();
    let images = plan["images"].as_array().unwrap();
    let builder = |app: &str| {
        let mut images = images.iter();
        &images.find(|image| image["app"] == app).unwrap()["builder"]
    };
    assert_eq!(builder(MIDDLEWARE), &json!({ "name": "oci" }));
    let because = &builder(FRONTEND)["because"];
    assert_eq!(builder(FRONTEND)["name"], "docker");
    assert_eq!(
        (&because["line"], &because["instruction"]),
        (&json!(4), &json!("RUN id -u"))
    );

    for (more, into) in [
        (["--builder", "oci"], "with `--builder oci`"),
        (["--docker-registry-url", "oci:out"], "for `oci:out`"),
    ] {
        let deploy = ["store", "deploy", "--store", "us", "--until", "push"];
        let run = project.alokai(&[&deploy[..], &more[..]].concat());
        let run = run.fails_with(2);
        let told = run.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains("alokai::plan::needs_docker"), "{told}");
        assert!(told.contains(into) && told.contains(LINE), "{told}");
    }
    assert!(!project.exists(".out") && !project.exists("out"));
}

/// Another name of an image in the engine, which is removed with the test.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

#[test]
fn images_that_need_the_engine_are_built_by_it() {
    let Some(registry) = registry() else { return };
    let name = unique("engine");
    // The registry answers that it has no such image.
    let base = Named(format!("{}/engine-only/{}:1", registry.address, &*name));
    docker(&["tag", &registry.base, &base.0]);
    let project = with_a_command(&base.0);
    let config = project
        .read("alokai.config.json")
        .replace("\"acme-", &format!("\"{name}-"));
    let project = registry.used_by(project.config(&config), "http://127.0.0.1:9");
    project.commit();
    let deploy = ["store", "deploy", "--store", "us", "--until", "push"];
    let run = project.alokai(&deploy).succeeds();
    let notes: Vec<_> = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("note: "))
        .collect();
    assert_eq!(notes.len(), 2, "{}", run.stderr);
    let known = format!("note: images based on `{}`", base.0);
    assert!(notes[0].starts_with(&known), "{notes:?}");
    assert!(
        notes[1].starts_with(&format!("note: {LINE}, needs the Docker engine: ")),
        "{notes:?}"
    );
    for app in ["vue-storefront", "vue-storefront-middleware"] {
        let tags = registry.tags(&format!("{name}-us-storefrontcloud-io/{app}"));
        assert_eq!(tags, [project.sha()]);
    }
    // Without an engine, the error says that the base image was not found.
    let project = project.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let run = project.alokai(
        &[
            &deploy[..],
            &["--filter", "*middleware*", "--builder", "oci"],
        ]
        .concat(),
    );
    let run = run.fails_with(3);
    run.stderr_contains("does not have it (404)");
}

#[test]
fn the_engine_is_not_given_a_base_from_a_layout() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let project = Project::shop().setting("image", &json!({ "base": base }));
    project.commit();
    let project = registry.used_by(project, "http://127.0.0.1:9");
    let deploy = "store deploy --store us --until push --builder docker";
    let run = project.alokai(deploy).fails_with(3);
    let told = run.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("OCI image layout, which Docker cannot read"),
        "{told}"
    );
    assert!(!project.exists(".out"), "nothing is composed");
}
