//! A build travels as one tar: between registries, image layouts and stores.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{LOCAL, builds, shop};
use crate::deploy::unique;
use crate::support::{
    FRONTEND, MIDDLEWARE, Project, Run, base_layout, base_reference, registry, second_registry,
};

/// Runs the program and returns the bytes of its standard output.
fn exported(project: &Project, id: &str) -> Vec<u8> {
    let output = project
        .command(&["store", "builds", "export", id])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    output.stdout
}

/// Runs the program with this standard input.
fn import(project: &Project, arguments: &str, archive: &[u8]) -> Run {
    let mut command = project.command(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(archive);
    child.wait_with_output().unwrap().into()
}

fn info(project: &Project, id: &str) -> Value {
    let info = ["store", "builds", "info", id, "--json"];
    project.alokai(&info).succeeds().json()
}

fn newest(project: &Project, options: &str) -> String {
    let list = builds(project, options);
    list[0]["id"].as_str().unwrap().to_owned()
}

fn digests(info: &Value) -> Vec<String> {
    let apps = [FRONTEND, MIDDLEWARE].map(|app| info["apps"][app]["digest"].clone());
    apps.iter()
        .map(|it| it.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_build_travels_through_a_pipe_to_another_registry_and_store() {
    let (Some(first), Some(second)) = (registry(), second_registry()) else {
        return;
    };
    let (here, there) = (unique("from"), unique("to"));
    let base = json!({ "base": base_reference().unwrap() });
    let project = Project::shop_named(&here).setting("image", &base);
    let project = first.used_by(project, "http://127.0.0.1:9");
    project.commit_as("Add a shop");
    project
        .alokai("store deploy --store us --until push")
        .succeeds();
    let id = newest(&project, "");
    let other = Project::shop_named(&there).setting("image", &base);
    let other = second.used_by(other, "http://127.0.0.1:9");
    other.commit();

    let archive = exported(&project, &id);
    let imported = import(&other, "store builds import --store eu", &archive).succeeds();
    let new = imported.stdout.trim().to_owned();
    assert_eq!(imported.stdout, format!("{new}\n"));
    assert_ne!(new, id);
    let (before, after) = (info(&project, &id), info(&other, &new));
    assert_eq!(digests(&before), digests(&after));
    assert_eq!(after["importedFrom"]["id"], id);
    assert_eq!(after["importedFrom"]["store"], "us");
    assert_eq!(after["commit"], before["commit"]);
    let tag = project.sha();
    let repository = format!("{there}-eu-storefrontcloud-io/vue-storefront");
    let reference = format!("{}/{repository}:{tag}", second.address);
    assert_eq!(after["apps"][FRONTEND]["reference"], reference);
    // The other registry gives the same image to other clients.
    let name = format!("docker://{reference}");
    let inspected = second.skopeo(&["inspect", "--tls-verify=false", &name]);
    let inspected: Value = serde_json::from_str(&inspected.unwrap()).unwrap();
    assert_eq!(inspected["Digest"], after["apps"][FRONTEND]["digest"]);
    // The output came with it, also for a third machine.
    let third = other.shallow_clone("1");
    let third = second.used_by(third, "http://127.0.0.1:9");
    for machine in [&other, &third] {
        let logs = machine
            .alokai(&["store", "builds", "logs", &new])
            .succeeds();
        logs.stdout_contains("> node build.js");
    }
    // The same build gives the same archive, and a tool that knows layouts reads it.
    assert_eq!(archive, exported(&project, &id));
    let file = other.path("build.tar");
    std::fs::write(&file, &archive).unwrap();
    let name = format!(
        "oci-archive:{}:{here}-us-storefrontcloud-io/vue-storefront:{tag}",
        file.display()
    );
    let inspected = second.skopeo(&["inspect", &name]).unwrap();
    assert!(inspected.contains(after["apps"][FRONTEND]["digest"].as_str().unwrap()));
}

#[test]
fn an_imported_build_never_takes_the_name_of_another_image() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    project
        .alokai("store deploy --all --local --until push")
        .succeeds();
    let (us, eu) = (
        newest(&project, "--store us"),
        newest(&project, "--store eu"),
    );
    let archive = exported(&project, &us);
    let run = import(&project, "store builds import --store eu --local", &archive);
    let new = run.succeeds().stdout.trim().to_owned();
    let (of_us, of_eu, copy) = (
        info(&project, &us),
        info(&project, &eu),
        info(&project, &new),
    );
    assert_eq!(digests(&of_us), digests(&copy));
    assert_ne!(digests(&of_eu), digests(&copy));
    let tag = format!("{}-{}", project.sha(), new.to_lowercase());
    assert_eq!(copy["tag"], tag);
    // Both builds of the store can be exported, so both have their own images.
    for (id, of) in [(&eu, &of_eu), (&new, &copy)] {
        let archive = exported(&project, id);
        let place = project.shallow_clone("1");
        let run = import(&place, "store builds import --store us --local", &archive);
        let id = run.succeeds().stdout.trim().to_owned();
        assert_eq!(digests(&info(&place, &id)), digests(of));
    }
}

#[test]
fn an_import_that_waits_for_its_input_holds_up_no_run() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    let mut child = project
        .command("store builds import --store us --local")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // The beginning of an archive.
    input.write_all(&[0; 100]).unwrap();
    let unpacks = || {
        let entries = std::fs::read_dir(project.path(".alokai"));
        let mut entries = entries.into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with("import-"))
    };
    while !unpacks() {
        assert!(child.try_wait().unwrap().is_none(), "it does not wait");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(alokai::pipeline::ProjectLock::take_now(project.root()).is_ok());
    drop(input);
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.code, 1, "{}", run.stderr);
}

#[test]
fn an_archive_that_was_cut_or_forged_leaves_nothing() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    project.alokai(LOCAL).succeeds();
    let id = newest(&project, "");
    let whole = exported(&project, &id);
    let place = project.shallow_clone("1");
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut archive = whole.clone();
        let found = archive
            .windows(from.len())
            .position(|it| it == from.as_bytes());
        let found = found.unwrap();
        archive[found..found + from.len()].copy_from_slice(to.as_bytes());
        archive
    };
    let digest = info(&project, &id)["apps"][FRONTEND]["digest"].clone();
    let digest = digest.as_str().unwrap();
    let other = format!("{}0000", &digest[..digest.len() - 4]);
    let archives = [
        Vec::new(),
        b"not a tar".to_vec(),
        whole[..700].to_vec(),
        whole[..whole.len() / 2].to_vec(),
        whole[..whole.len() - 4096].to_vec(),
        // A manifest that is not in the archive, and a config with other content.
        replaced(digest, &other),
        replaced("\"architecture\"", "\"Architecture\""),
        replaced("blobs/sha256/", "/lobs/sha256/"),
    ];
    for (number, archive) in archives.iter().enumerate() {
        let run = import(&place, "store builds import --store us --local", archive);
        assert!([1, 2].contains(&run.code), "{number}: {run:?}");
        assert_eq!(run.stdout, "", "{number}");
        // The error names the entry of the archive, and no temporary file.
        run.stderr_lacks("import-");
        assert!(!place.exists(".alokai/registry"), "{number}");
        assert!(!place.exists(".alokai/ledger/builds"), "{number}");
        let left = std::fs::read_dir(place.path(".alokai")).unwrap().flatten();
        let left = left.filter(|it| it.file_name().to_string_lossy().starts_with("import-"));
        assert_eq!(left.count(), 0, "{number}");
    }
    import(&place, "store builds import --store us --local", &whole).succeeds();
}

#[test]
fn what_cannot_travel_says_why() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base).build_script(FRONTEND, "process.exit(3)");
    project.commit();
    project.alokai(LOCAL).fails_with(1);
    let failed = newest(&project, "");
    let export = ["store", "builds", "export", &failed];
    let run = project.alokai(&export).fails_with(2);
    run.stderr_contains(&format!("the build {failed} has no images"));
    let run = import(&project, "store builds import --store fashion --local", b"");
    run.fails_with(2)
        .stderr_contains("the store `fashion` has no images");
    let run = import(&project, "store builds import --store su --local", b"");
    run.fails_with(2).stderr_contains("did you mean `us`?");
    // An image that nobody pushed.
    let project = shop(&base);
    project
        .alokai("store deploy --store us --local --until image")
        .succeeds();
    let run = project.alokai(&["store", "builds", "export", &newest(&project, "")]);
    run.fails_with(2).stderr_contains("was not pushed");
}

/// The same archive with another record, or another output.
fn forged(whole: &[u8], change: impl Fn(&mut Value, &mut Vec<u8>)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let layout = oci::unpack_layout(whole, &folder.path().join("layout")).unwrap();
    let mut index = oci::Index {
        manifests: layout.index().unwrap().images().cloned().collect(),
        ..oci::Index::default()
    };
    let is_record = |it: &&mut oci::Descriptor| it.artifact_type.is_some();
    let entry = index.manifests.iter_mut().find(is_record).unwrap();
    let blobs = layout.blobs();
    let manifest = blobs.read(entry).unwrap();
    let mut manifest: oci::Manifest = serde_json::from_slice(&manifest).unwrap();
    let record = zstd::decode_all(&*blobs.read(&manifest.config).unwrap()).unwrap();
    let mut record: Value = serde_json::from_slice(&record).unwrap();
    let mut log = blobs.read(&manifest.layers[0]).unwrap();
    change(&mut record, &mut log);
    let record = zstd::bulk::compress(format!("{record}\n").as_bytes(), 0).unwrap();
    let old = entry.digest;
    manifest.config = oci::Descriptor::of(&manifest.config.media_type, &record);
    manifest.layers[0] = oci::Descriptor::of(&manifest.layers[0].media_type, &log);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let forged = oci::Descriptor::of(oci::MANIFEST, &bytes);
    (entry.digest, entry.size) = (forged.digest, forged.size);
    let mut archive = Vec::new();
    let mut tar = oci::LayoutWriter::new(&mut archive, &index).unwrap();
    tar.blob(&forged, &mut &*bytes).unwrap();
    tar.blob(&manifest.config, &mut &*record).unwrap();
    tar.blob(&manifest.layers[0], &mut &*log).unwrap();
    let mut written = std::collections::BTreeSet::from([old, forged.digest]);
    for image in &index.manifests {
        if !written.insert(image.digest) {
            continue;
        }
        let bytes = blobs.read(image).unwrap();
        tar.blob(image, &mut &*bytes).unwrap();
        let image: oci::Manifest = serde_json::from_slice(&bytes).unwrap();
        for blob in image.layers.iter().chain([&image.config]) {
            if written.insert(blob.digest) {
                tar.blob(blob, &mut blobs.open(blob).unwrap()).unwrap();
            }
        }
    }
    tar.end().unwrap();
    archive
}

/// Makes the record name this output.
fn name_log(record: &mut Value, log: &[u8], bytes: usize) {
    record["log"]["digest"] = oci::Digest::of(log).to_string().into();
    record["log"]["size"] = log.len().into();
    record["log"]["bytes"] = bytes.into();
}

#[test]
fn a_forged_record_or_output_is_refused_before_anything_is_copied() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    project.alokai(LOCAL).succeeds();
    let whole = exported(&project, &newest(&project, ""));
    let place = project.shallow_clone("1");
    let bomb = |record: &mut Value, log: &mut Vec<u8>| {
        *log = zstd::bulk::compress(&vec![0; 200 << 20], 0).unwrap();
        name_log(record, log, 200 << 20);
    };
    let longer = |record: &mut Value, log: &mut Vec<u8>| {
        *log = zstd::bulk::compress(&vec![0; 200 << 20], 0).unwrap();
        name_log(record, log, 7);
    };
    let not_compressed = |record: &mut Value, log: &mut Vec<u8>| {
        *log = b"not compressed".to_vec();
        name_log(record, log, 14);
    };
    let archives = [
        (
            forged(&whole, bomb),
            "its output is not valid: it has more than",
        ),
        (forged(&whole, longer), "it does not have 7 bytes"),
        (forged(&whole, not_compressed), "cannot be decompressed"),
        (
            forged(&whole, |_, log| *log = b"other".to_vec()),
            "which its record does not name",
        ),
        (
            forged(&whole, |record, _| record["tag"] = "alokai.E1".into()),
            "`alokai.E1` is not a valid tag",
        ),
        (
            forged(&whole, |record, _| record["schemaVersion"] = 2.into()),
            "the schema version 2, which is not supported",
        ),
    ];
    for (archive, reason) in &archives {
        let run = import(&place, "store builds import --store us --local", archive);
        let run = run.fails_with(2);
        run.stderr_contains(reason);
        run.stderr_lacks("import-");
        assert!(!place.exists(".alokai/registry"), "{reason}");
        assert!(!place.exists(".alokai/ledger"), "{reason}");
    }
    // The same way of writing the archive, without a change.
    let same = forged(&whole, |_, _| {});
    import(&place, "store builds import --store us --local", &same).succeeds();
}
