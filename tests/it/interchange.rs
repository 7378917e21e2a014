//! Other tools read the images of this program, and this program reads theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use oci::{
    BaseTree, Blobs, CONFIG, Descriptor, FileOwner, FolderAttributes, Layout, MANIFEST, Manifest,
    PackedLayer, Platform, TreeContent, TreeEntry, pack, resolve,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{TIME, docker, folder, hard, is_root, is_there, registry, run, same};

/// The base image of the engine as skopeo writes it, or `None` without an engine.
fn base() -> Option<(TempDir, Layout, String)> {
    let registry = registry()?;
    let place = folder();
    let path = place.path().join("base");
    let to = format!("oci:{}:base", path.display());
    let from = format!("docker-daemon:{}", registry.base);
    run("skopeo", &["copy", "--quiet", &from, &to]);
    let layout = Layout::open(path).expect("skopeo's layout");
    Some((place, layout, registry.base))
}

fn here() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    format!("linux/{architecture}").parse().expect("a platform")
}

/// The lines as a set of paths without a leading slash.
fn paths(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.trim_start_matches('/'));
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_base_image_is_known_as_its_container_sees_it() {
    let Some((_place, layout, name)) = base() else {
        return;
    };
    let listed = layout.find("base").expect("read").expect("skopeo named it");
    assert_eq!(layout.only().expect("one"), listed);
    let read = |descriptor: &Descriptor| layout.blobs().read(descriptor);
    let (_, manifest) = resolve(&listed, &here(), read).expect("an image");
    let tree = BaseTree::of_image(&manifest, layout.blobs()).expect("the layout is readable");

    let sh = |script: &str| docker(&["run", "--rm", "--entrypoint", "sh", &name, "-c", script]);
    let script = "find / -xdev -type d | while read f; do stat -c '%n %a %u:%g' \"$f\"; done";
    let mut folders = paths(&sh(script));
    let shown = tree.folders.iter().map(|(path, folder)| {
        let FolderAttributes { owner, mode } = folder;
        format!("{path} {mode:o} {}:{}", owner.user, owner.group)
    });
    let mut own: BTreeSet<String> = shown.collect();
    // A tree has no entry for the root, and the engine adds these paths.
    for made in [" ", "dev ", "proc ", "sys "] {
        folders.retain(|folder| !folder.starts_with(made));
        own.retain(|folder| !folder.starts_with(made));
    }
    assert_eq!(own, folders);

    let script =
        r#"find / -xdev -type l | while read -r link; do echo "$link $(readlink "$link")"; done"#;
    let links = sh(script);
    let links: BTreeMap<String, String> = links
        .lines()
        .filter_map(|line| line.trim_start_matches('/').split_once(' '))
        .map(|(path, target)| (path.to_owned(), target.to_owned()))
        // The engine adds this link.
        .filter(|(path, _)| path != "etc/mtab" || tree.links.contains_key(path))
        .collect();
    assert_eq!(tree.links, links);

    let passwd = sh("cat /etc/passwd");
    let users = passwd.lines().map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let number = |place: usize| fields[place].parse().expect("a number");
        let owner = FileOwner {
            user: number(2),
            group: number(3),
        };
        (fields[0].to_owned(), owner)
    });
    assert_eq!(tree.users, users.collect());
    let group = sh("cat /etc/group");
    let groups = group.lines().map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields[0].to_owned(), fields[2].parse().expect("a number"))
    });
    assert_eq!(tree.groups, groups.collect());
    assert!(tree.users.contains_key("node"), "{:?}", tree.users);
}

/// The base image with one more layer, in a layout.
fn on_top_of(base: &Layout, layer: &PackedLayer, store: &Blobs, to: &Path) -> (Layout, Manifest) {
    let listed = base.only().expect("one");
    let read = |descriptor: &Descriptor| base.blobs().read(descriptor);
    let (_, mut manifest) = resolve(&listed, &here(), read).expect("an image");
    let config = read(&manifest.config).expect("there");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    let diff_ids = config["rootfs"]["diff_ids"].as_array_mut();
    diff_ids.expect("a list").push(json!(layer.diff_id));
    if let Some(history) = config["history"].as_array_mut() {
        history.push(json!({"created_by": "a test"}));
    }
    let layout = Layout::create(to).expect("made");
    for below in &manifest.layers {
        layout.take_blob(base.blobs(), below).expect("taken");
    }
    layout.take_blob(store, &layer.descriptor).expect("taken");
    manifest.layers.push(layer.descriptor.clone());
    let blobs = layout.blobs();
    manifest.config = blobs
        .write(CONFIG, config.to_string().as_bytes())
        .expect("written");
    manifest.media_type = MANIFEST.into();
    (layout, manifest)
}

#[test]
fn other_tools_read_layouts_of_this_program() {
    let Some((place, base, _)) = base() else {
        return;
    };
    let registry = registry().expect("there is a base");
    let store = Blobs::new(place.path().join("store"));
    let entries = hard(place.path());
    let layer = pack(&entries, TIME, &store).expect("packed");
    let (layout, manifest) = on_top_of(&base, &layer, &store, &place.path().join("made"));
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    let image = layout.blobs().write(MANIFEST, &bytes).expect("written");
    let sha = "5".repeat(40);
    let name = format!("acme-us-storefrontcloud-io/vue-storefront:{sha}");
    layout.put(Some(&name), image.clone()).expect("listed");
    let tree = BaseTree::of_image(&manifest, layout.blobs()).expect("the layout is readable");
    for entry in &entries {
        let is_folder = entry.content == TreeContent::Folder;
        assert_eq!(
            tree.folders.contains_key(&entry.path),
            is_folder,
            "{}",
            entry.path
        );
    }

    // skopeo.
    let made = layout.folder().to_str().expect("text").to_owned();
    let from = format!("oci:{made}:{name}");
    let inspected = run("skopeo", &["inspect", &from]);
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected["Digest"], json!(image.digest));
    let copy = place.path().join("copy");
    let to = format!("dir:{}", copy.display());
    run("skopeo", &["copy", "--quiet", &from, &to]);
    let copied = copy.join(layer.descriptor.digest.hex()).metadata();
    assert_eq!(copied.expect("copied").len(), layer.descriptor.size);

    // umoci.
    if is_there("umoci") {
        assert_eq!(run("umoci", &["ls", "--layout", &made]).trim(), name);
        let bundle = place.path().join("bundle");
        let mut unpack = vec!["unpack"];
        if !is_root() {
            unpack.push("--rootless");
        }
        let image = format!("{made}:{name}");
        unpack.extend(["--image", &image, bundle.to_str().expect("text")]);
        run("umoci", &unpack);
        same(&entries, &bundle.join("rootfs"));
    }

    // The engine reads from a layout and from a registry.
    let process = std::process::id();
    let tag = format!("{}/layers-{process}/made:1", registry.address);
    let to = format!("docker-daemon:{tag}");
    run("skopeo", &["copy", "--quiet", &from, &to]);
    in_the_engine(&tag, &entries);
    let login = registry.login(place.path());
    let file = login.join("config.json");
    let to = format!("docker://{tag}");
    let mut copy = vec!["copy", "--quiet", "--dest-tls-verify=false", "--authfile"];
    copy.extend([file.to_str().expect("text"), &from, &to]);
    run("skopeo", &copy);
    let login = login.to_str().expect("text");
    docker(&["--config", login, "pull", "--quiet", &tag]);
    in_the_engine(&tag, &entries);
}

/// Fails unless a container contains the entries. Removes the image.
fn in_the_engine(image: &str, entries: &[TreeEntry]) {
    let script = "cd / && find app -exec stat -c '%a %u %g %Y %s %n' {} + | sort";
    let found = docker(&["run", "--rm", "--entrypoint", "sh", image, "-c", script]);
    docker(&["rmi", image]);
    let found: BTreeMap<&str, Vec<&str>> = found
        .lines()
        .map(|line| {
            let mut fields = line.splitn(6, ' ');
            let numbers: Vec<&str> = fields.by_ref().take(5).collect();
            (fields.next().expect("a path"), numbers)
        })
        .collect();
    assert_eq!(found.len(), entries.len());
    for entry in entries {
        let numbers = &found[entry.path.as_str()];
        let mode = format!("{:o}", entry.mode);
        let owner = [entry.owner.user, entry.owner.group].map(|number| number.to_string());
        assert_eq!(
            numbers[..3],
            [mode.as_str(), &owner[0], &owner[1]],
            "{}",
            entry.path
        );
        assert_eq!(numbers[3], TIME.to_string(), "{}", entry.path);
        if let TreeContent::File { bytes, .. } = &entry.content {
            assert_eq!(numbers[4], bytes.to_string(), "{}", entry.path);
        }
    }
}
