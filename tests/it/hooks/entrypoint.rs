//! `entrypoint.sh` of composed apps: it starts the app in the container, and signals arrive.

use serde_json::json;

use super::noted;
use crate::deploy::unique;
use crate::support::{
    Containers, MIDDLEWARE, Project, base_layout, base_reference, docker, page, registry,
};

/// A middleware that says how it ends.
const SERVER: &str = r"
process.on('SIGTERM', () => { console.log('app got SIGTERM'); process.exit(43); });
require('http').createServer((_, answer) => answer.end(process.env.PREPARED + ' as ' + process.pid)).listen(process.env.PORT);
";

const SCRIPT: &str = "export PREPARED=\"by entrypoint.sh with $*\"\nexec \"$@\"\n";

fn shop(base: &str, name: &str) -> Project {
    Project::shop_named(name)
        .setting("image", &json!({ "base": base }))
        .file(&format!("apps/{MIDDLEWARE}/src/index.js"), SERVER)
        .file(
            &format!("apps/{MIDDLEWARE}/.artifakt/entrypoint.sh"),
            SCRIPT,
        )
}

#[test]
fn the_app_gets_signals_through_entrypoint_sh() {
    let (Some(registry), Some(base)) = (registry(), base_reference()) else {
        return;
    };
    let name = unique("entry");
    let project = shop(&base, &name);
    project.commit();
    let project = registry.used_by(project, "http://127.0.0.1:9");
    project
        .alokai("store deploy --store us --until push")
        .succeeds();
    let image = format!(
        "{}/{name}-us-storefrontcloud-io/vue-storefront-middleware:{}",
        registry.address,
        project.sha()
    );
    // Without `--init`, the script is process 1, and the app replaces it.
    let folder = crate::support::folder();
    let login = registry.login(folder.path()).display().to_string();
    docker(&["--config", &login, "pull", "--quiet", &image]);
    let id = docker(&["run", "--detach", "--publish", "127.0.0.1::4000", &image]);
    let address = docker(&["port", &id, "4000/tcp"]);
    let port = address.lines().next().unwrap().rsplit(':').next().unwrap();
    let answer = page(port.parse().unwrap(), "/");
    assert_eq!(answer, "by entrypoint.sh with node lib/index.js as 1");
    docker(&["stop", "--time", "30", &id]);
    let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &id]);
    assert_eq!(code, "43");
    assert_eq!(docker(&["logs", &id]), "app got SIGTERM");
    docker(&["rm", &id]);
    docker(&["rmi", "--force", &image]);
}

#[test]
fn a_store_overrides_and_leaves_out_entrypoint_sh() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base, "acme").file(
        &format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/.artifakt/entrypoint.sh"),
        "echo us\nexec \"$@\"\n",
    );
    let config = project.read("alokai.config.json").replacen(
        "\"eu\": {",
        "\"eu\": { \"ignorePaths\": [\"/.artifakt/entrypoint.sh\"],",
        1,
    );
    let project = project.config(&config);
    project.commit();
    project
        .alokai("store deploy --all --until prune")
        .succeeds();
    let deployed = |store: &str| format!(".out/{store}/{MIDDLEWARE}/.deploy/.alokai/entrypoint.sh");
    assert_eq!(project.read(&deployed("us")), "echo us\nexec \"$@\"\n");
    assert!(!project.exists(&deployed("eu")));
    let plan = project
        .alokai("store deploy --all --until image --dry-run --json")
        .succeeds()
        .json();
    let images = plan["images"].as_array().unwrap();
    let of = |store: &str| {
        let is_it =
            |image: &&serde_json::Value| image["storeId"] == store && image["app"] == MIDDLEWARE;
        let image = images.iter().find(is_it).unwrap();
        image["dockerfile"]["text"]
            .as_str()
            .unwrap()
            .lines()
            .last()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        of("us"),
        r#"ENTRYPOINT ["/bin/sh", ".alokai/entrypoint.sh", "node", "lib/index.js"]"#
    );
    assert_eq!(of("eu"), r#"ENTRYPOINT ["node", "lib/index.js"]"#);
}

#[test]
fn a_base_image_without_a_shell_is_an_error() {
    if base_layout().is_none() {
        return;
    }
    let project = shop("oci:no-shell:base", "acme");
    project.write("no-shell.js", NO_SHELL);
    let made = std::process::Command::new("node")
        .arg(project.path("no-shell.js"))
        .current_dir(project.root())
        .status()
        .unwrap();
    assert!(made.success());
    project.remove("no-shell.js");
    project.commit();
    let run = project
        .alokai("store deploy --store us --until image --docker-registry-url oci:.alokai/images")
        .fails_with(1);
    run.stderr_contains("`.artifakt/entrypoint.sh` of `us/storefront-middleware` needs `/bin/sh`, which the base image `oci:no-shell:base` does not have")
        .stderr_contains("alokai::base::no_shell");
    // Without the script, the base image can be used.
    project.remove(&format!("apps/{MIDDLEWARE}/.artifakt/entrypoint.sh"));
    project.commit();
    project
        .alokai("store deploy --store us --until image --docker-registry-url oci:.alokai/images")
        .succeeds();
    assert_eq!(noted(&project), [""; 0]);
    drop(Containers::default());
}

/// Writes an image layout whose only layer has a user and no program.
const NO_SHELL: &str = r"
const fs = require('fs'), crypto = require('crypto');
const blobs = 'no-shell/blobs/sha256';
fs.mkdirSync(blobs, { recursive: true });
const put = (bytes, mediaType) => {
  const hex = crypto.createHash('sha256').update(bytes).digest('hex');
  fs.writeFileSync(`${blobs}/${hex}`, bytes);
  return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(bytes) };
};
const member = (name, content) => {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write('0000644\0', 100); header.write('0000000\0', 108); header.write('0000000\0', 116);
  header.write(content.length.toString(8).padStart(11, '0') + '\0', 124);
  header.write('00000000000\0', 136); header.write('        ', 148); header.write('0', 156);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(sum.toString(8).padStart(6, '0') + '\0 ', 148);
  const body = Buffer.alloc(Math.ceil(content.length / 512) * 512);
  body.write(content);
  return Buffer.concat([header, body]);
};
const tar = Buffer.concat([
  member('etc/passwd', 'node:x:1000:1000::/:\n'), member('etc/group', 'node:x:1000:\n'),
  member('usr/local/bin/node', 'node'), Buffer.alloc(1024)]);
const layer = put(tar, 'application/vnd.oci.image.layer.v1.tar');
const config = put(JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: [layer.digest] } }), 'application/vnd.oci.image.config.v1+json');
const manifest = put(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config, layers: [layer] }), 'application/vnd.oci.image.manifest.v1+json');
fs.writeFileSync('no-shell/oci-layout', JSON.stringify({ imageLayoutVersion: '1.0.0' }));
manifest.annotations = { 'org.opencontainers.image.ref.name': 'base' };
fs.writeFileSync('no-shell/index.json', JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
";
