//! Images and layers that something has damaged, and files that no image can have.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::deploy::unique;
use crate::support::{Project, base_layout, base_reference, docker, is_there, registry};

const DEPLOY: [&str; 6] = ["store", "deploy", "--store", "us", "--until", "push"];

/// A shop on the base of a layout, that writes its images into a folder.
fn shop() -> Option<Project> {
    let project = Project::shop().setting("image", &json!({ "base": base_layout()? }));
    project.commit();
    Some(project.env("CLI_DOCKER_REGISTRY_URL", "oci:out"))
}

/// Files of a folder, the largest first.
fn largest(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.metadata().unwrap().len()));
    files
}

/// Turns one byte around, in a file of its own: the others that share its content stay.
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
    project.alokai(&DEPLOY).succeeds();
    for layer in largest(&project.path(".alokai/cache/oci/blobs/sha256")) {
        alter(&layer);
    }
    let project = project.env("CLI_DOCKER_REGISTRY_URL", "oci:other");
    // Each run finds the first one of those that are left, and forgets it.
    let mut runs = 0;
    loop {
        let run = project.alokai(&[&DEPLOY[..], &["--force"]].concat());
        if run.code == 0 {
            break;
        }
        assert!(
            run.stderr
                .contains("does not match its descriptor: the digest of its content is"),
            "{}",
            run.stderr
        );
        runs += 1;
        assert!(runs < 10, "it never heals");
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
    project.alokai(&DEPLOY).succeeds();
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
        let run = project.alokai(&DEPLOY).succeeds();
        assert!(
            !run.stdout.contains("2 images were there"),
            "{way}: {}",
            run.stdout
        );
        let run = project.alokai(&DEPLOY).succeeds();
        assert!(
            run.stdout.contains("2 images were there"),
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
fn what_is_in_the_way_of_a_layout_is_found_before_the_first_build() {
    let Some(project) = shop() else { return };
    for way in [
        "oci:apps",
        "oci:alokai.config.json",
        "oci:alokai.config.json/x",
    ] {
        let project = Project::at(project.root().to_owned()).env("CLI_DOCKER_REGISTRY_URL", way);
        let run = project.alokai(&DEPLOY).fails_with(3);
        assert!(
            run.stderr.contains("before anything was built"),
            "{way}: {}",
            run.stderr
        );
        assert!(!project.exists(".out"), "{way}");
    }
    // A layout in the project is no change of it.
    project.alokai(&DEPLOY).succeeds();
    project.alokai(&DEPLOY).succeeds();
}

#[test]
fn a_folder_is_for_this_machine_alone() {
    let Some(project) = shop() else { return };
    for (more, why) in [
        (
            &["--until", "deploy"][..],
            "the console cannot get images from it",
        ),
        (
            &["--until", "push", "--builder", "docker"],
            "Docker does not write images into folders",
        ),
    ] {
        let deploy = [&["store", "deploy", "--store", "us", "--dry-run"], more].concat();
        let run = project.alokai(&deploy).fails_with(2);
        assert!(run.stderr.contains(why), "{}", run.stderr);
    }
}

#[test]
fn a_pipe_that_a_build_leaves_is_named_and_not_waited_for() {
    let Some(project) = shop() else { return };
    let build = project.read("apps/storefront-middleware/build.js");
    let build =
        format!("{build}\nrequire('child_process').execSync('rm -f lib/pipe; mkfifo lib/pipe');\n");
    let project = project.file("apps/storefront-middleware/build.js", &build);
    project.commit();
    let run = project.alokai(&DEPLOY).fails_with(1);
    assert!(
        run.stderr.contains("lib/pipe") && run.stderr.contains("neither file, folder nor link"),
        "{}",
        run.stderr
    );
}

#[test]
fn one_base_serves_both_who_needs_docker_and_who_does_not() {
    let (Some(registry), Some(base)) = (registry(), base_reference()) else {
        return;
    };
    let name = unique("both");
    let dockerfile = format!(
        "FROM {base}\nCOPY .deploy /srv\nRUN id -u\nUSER node\nENTRYPOINT [\"node\", \"/srv/server.js\"]\n"
    );
    let project = Project::shop_named(&name)
        .setting("image", &json!({ "base": base }))
        .file(
            "apps/stores/fashion/storefront-unified-nextjs/Dockerfile",
            &dockerfile,
        );
    project.commit();
    let project = registry.used_by(project, "http://127.0.0.1:9");
    let run = project.alokai(&DEPLOY).succeeds();
    assert!(
        run.stderr.contains("needs the Docker engine"),
        "{}",
        run.stderr
    );
    for app in ["vue-storefront", "vue-storefront-middleware"] {
        let tags = registry.tags(&format!("{name}-us-storefrontcloud-io/{app}"));
        assert_eq!(tags, [project.sha()]);
    }
}

#[test]
fn what_shows_late_that_it_needs_docker_goes_to_docker_then() {
    let (Some(registry), Some(base)) = (registry(), base_reference()) else {
        return;
    };
    let name = unique("late");
    let dockerfile = format!(
        "FROM {base}\nCOPY .deploy /srv\nSTOPSIGNAL SIGRTMIN+3\nUSER node\nENTRYPOINT [\"node\", \"/srv/server.js\"]\n"
    );
    let project = Project::shop_named(&name).file(
        "apps/stores/fashion/storefront-unified-nextjs/Dockerfile",
        &dockerfile,
    );
    project.commit();
    let project = registry.used_by(project, "http://127.0.0.1:9");
    let only = [&DEPLOY[..], &["--filter", "storefront-unified-*"]].concat();
    let run = project.alokai(&only).succeeds();
    assert!(
        run.stderr.contains("line 3 of") && run.stderr.contains("needs the Docker engine"),
        "{}",
        run.stderr
    );
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
