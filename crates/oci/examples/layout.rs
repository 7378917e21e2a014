//! Builds an image from a Dockerfile with `FROM scratch` and writes it as an OCI image layout:
//!
//! ```sh
//! cargo run -p oci --example layout -- Dockerfile context-folder layout-folder
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};

use oci::dockerfile::{BuildContext, read};
use oci::{BaseTree, CONFIG, Descriptor, LAYER, Layout, MANIFEST, Manifest, Platform, pack};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [dockerfile, context, layout] = arguments.as_slice() else {
        return Err("usage: layout <Dockerfile> <context folder> <layout folder>".into());
    };
    let image = build(dockerfile, context, layout)?;
    println!("{}", image.digest);
    Ok(())
}

fn build(dockerfile: &Path, context: &Path, layout: &Path) -> Result<Descriptor, Box<dyn Error>> {
    let parsed = read(&std::fs::read_to_string(dockerfile)?)?;
    if let Some(base) = parsed.base() {
        return Err(format!("this example has no base image `{base}`, only `scratch`").into());
    }
    let mut files = Vec::new();
    list(context, Path::new(""), &mut files)?;
    let context = BuildContext::new(context, files, None)?;
    let changes = parsed.apply(&Value::Null, &BaseTree::default(), &context)?;

    let layout = Layout::create(layout)?;
    let layer = pack(&changes.entries, 0, layout.blobs())?;
    let platform = Platform::default();
    let mut config = changes.config;
    config["os"] = json!(platform.os);
    config["architecture"] = json!(platform.architecture);
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [layer.diff_id] });
    let config = layout
        .blobs()
        .write(CONFIG, &serde_json::to_vec(&config)?)?;
    assert_eq!(layer.descriptor.media_type, LAYER);
    let manifest = Manifest::new(config, vec![layer.descriptor]);
    let image = layout
        .blobs()
        .write(MANIFEST, &serde_json::to_vec(&manifest)?)?;
    layout.put(Some("latest"), image.clone())?;
    Ok(image)
}

/// Lists the files of a folder: path in the context, and path on this machine.
fn list(folder: &Path, inside: &Path, files: &mut Vec<(PathBuf, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = inside.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &path, files)?;
        } else {
            files.push((path, entry.path()));
        }
    }
    Ok(())
}
