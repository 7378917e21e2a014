//! Damaged images and layers, and files that no image can contain.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::deploy::{Unique, unique};
use crate::support::{Project, Registry, base_layout, base_reference, docker, is_there, registry};

const DEPLOY: &str = "store deploy --store us --until push";

/// A shop whose base image is in a layout and whose images go to a folder.
fn shop() -> Option<Project> {
    let project = Project::shop().setting("image", &json!({ "base": base_layout()? }));
    project.commit();
    Some(project.env("CLI_DOCKER_REGISTRY_URL", "oci:out"))
}

/// The files of a folder, largest first.
fn largest(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.metadata().unwrap().len()));
    files
}

/// Inverts one byte in a new copy of the file, so that hard links to its content stay unchanged.
fn alter(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[!bytes[bytes.len() / 2]], bytes.len() as u64 / 2)
        .unwrap();
}

#[test]
fn a_layer_that_was_altered_is_in_no_image_and_packed_again() {
    let Some(project) = shop() else { return };
    project.alokai(DEPLOY).succeeds();
    for layer in largest(&project.path(".alokai/cache/oci/blobs/sha256")) {
        alter(&layer);
    }
    let project = project.env("CLI_DOCKER_REGISTRY_URL", "oci:other");
    // Each run finds the first damaged blob that is left and removes it.
    let mut runs = 0;
    loop {
        let run = project.alokai(&format!("{DEPLOY} --force"));
        if run.code == 0 {
            break;
        }
        run.stderr_contains("does not match its descriptor: the digest of its content is");
        runs += 1;
        assert!(runs < 10, "the run finds damage again and again");
    }
    assert!(runs > 0);
    for blob in largest(&project.path("other/blobs/sha256")) {
        let found = oci::Digest::of(&std::fs::read(&blob).unwrap());
        assert_eq!(blob.file_name().unwrap().to_str().unwrap(), found.hex());
    }
}

#[test]
fn an_image_that_is_not_whole_is_made_again() {
    let Some(project) = shop() else { return };
    project.alokai(DEPLOY).succeeds();
    let blobs = project.path("out/blobs/sha256");
    let read = |blob: &PathBuf| {
        let bytes = std::fs::read(blob).unwrap();
        String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned()
    };
    let of_kind = |part: &str| {
        let all = largest(&blobs);
        let found = all.iter().find(|blob| read(blob).contains(part));
        found
            .cloned()
            .unwrap_or_else(|| panic!("no blob has {part}"))
    };
    let ways: [(&str, &dyn Fn()); 3] = [
        ("without a layer", &|| {
            std::fs::remove_file(&largest(&blobs)[1]).unwrap();
        }),
        ("without a config", &|| {
            std::fs::remove_file(of_kind(r#""rootfs""#)).unwrap();
        }),
        ("with another manifest", &|| {
            alter(&of_kind(r#""com.alokai.store":"us""#));
        }),
    ];
    for (way, damage) in ways {
        damage();
        let run = project.alokai(DEPLOY).succeeds();
        assert!(
            !run.stdout.contains("2 images exist already"),
            "{way}: {}",
            run.stdout
        );
        let run = project.alokai(DEPLOY).succeeds();
        assert!(
            run.stdout.contains("2 images exist already"),
            "{way}: {}",
            run.stdout
        );
    }
    if is_there("skopeo") {
        let name = format!(
            "acme-us-storefrontcloud-io/vue-storefront:{}",
            project.sha()
        );
        let from = format!("oci:{}:{name}", project.path("out").display());
        let to = format!("dir:{}", project.path(".copied").display());
        let copy = ["copy", "--quiet", &from, &to];
        let mut skopeo = std::process::Command::new("skopeo");
        assert!(skopeo.args(copy).status().unwrap().success());
    }
}

#[test]
fn an_unusable_path_of_a_layout_is_found_before_the_first_build() {
    let Some(project) = shop() else { return };
    for way in [
        "oci:apps",
        "oci:alokai.config.json",
        "oci:alokai.config.json/x",
    ] {
        let project = Project::at(project.root().to_owned()).env("CLI_DOCKER_REGISTRY_URL", way);
        let run = project.alokai(DEPLOY).fails_with(3);
        assert!(
            run.stderr.contains("before anything was built"),
            "{way}: {}",
            run.stderr
        );
        assert!(!project.exists(".out"), "{way}");
    }
    // A layout in the project does not make its tree dirty.
    project.alokai(DEPLOY).succeeds();
    project.alokai(DEPLOY).succeeds();
}

#[test]
fn a_folder_as_destination_excludes_the_console_and_docker() {
    let Some(project) = shop() else { return };
    for (more, why) in [
        ("--until deploy", "the console cannot pull images from it"),
        (
            "--until push --builder docker",
            "Docker does not write images into folders",
        ),
    ] {
        let deploy = format!("store deploy --store us --dry-run {more}");
        let run = project.alokai(&deploy).fails_with(2);
        run.stderr_contains(why);
    }
}

#[test]
fn a_named_pipe_in_an_image_is_an_error_and_not_opened() {
    let Some(project) = shop() else { return };
    let build = project.read("apps/storefront-middleware/build.js");
    let build =
        format!("{build}\nrequire('child_process').execSync('rm -f lib/pipe; mkfifo lib/pipe');\n");
    let project = project.build_script("storefront-middleware", &build);
    project.commit();
    let run = project.alokai(DEPLOY).fails_with(1);
    run.stderr_contains("lib/pipe");
    run.stderr_contains("not a file, a folder or a link");
}

/// The registry, the base image in it, and a name that no other test has.
fn world(name: &'static str) -> Option<(Registry, String, Unique)> {
    Some((registry()?, base_reference()?, unique(name)))
}

/// The Dockerfile of a frontend with one more instruction, in line 3.
fn with_instruction(base: &str, instruction: &str) -> String {
    format!(
        "FROM {base}\nCOPY .deploy /srv\n{instruction}\nUSER node\nENTRYPOINT [\"node\", \"/srv/server.js\"]\n"
    )
}

#[test]
fn both_builders_use_the_same_base_image() {
    let Some((registry, base, name)) = world("both") else {
        return;
    };
    let dockerfile = with_instruction(&base, "RUN id -u");
    let project = Project::shop_named(&name)
        .setting("image", &json!({ "base": base }))
        .dockerfile(&dockerfile);
    project.commit();
    let project = registry.used_by(project, "http://127.0.0.1:9");
    let run = project.alokai(DEPLOY).succeeds();
    run.stderr_contains("needs the Docker engine");
    for app in ["vue-storefront", "vue-storefront-middleware"] {
        let tags = registry.tags(&format!("{name}-us-storefrontcloud-io/{app}"));
        assert_eq!(tags, [project.sha()]);
    }
}

#[test]
fn an_instruction_that_is_refused_late_is_left_to_docker() {
    let Some((registry, base, name)) = world("late") else {
        return;
    };
    let dockerfile = with_instruction(&base, "STOPSIGNAL SIGRTMIN+3");
    let project = Project::shop_named(&name).dockerfile(&dockerfile);
    project.commit();
    let project = registry.used_by(project, "http://127.0.0.1:9");
    let only = format!("{DEPLOY} --filter storefront-unified-*");
    let run = project.alokai(&only).succeeds();
    run.stderr_contains("line 3 of");
    run.stderr_contains("needs the Docker engine");
    let repository = format!("{name}-us-storefrontcloud-io/vue-storefront");
    assert_eq!(registry.tags(&repository), [project.sha()]);
    let image = format!("{}/{repository}:{}", registry.address, project.sha());
    let signal = docker(&[
        "image",
        "inspect",
        "--format",
        "{{.Config.StopSignal}}",
        &image,
    ]);
    assert_eq!(signal, "SIGRTMIN+3");
}
