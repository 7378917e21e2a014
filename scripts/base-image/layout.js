// Writes <work>/layout, an OCI image layout, around the one layer that
// `layout` next to this file made: <work>/layer.tar and layer.tar.gz.
"use strict";

const { createHash } = require("crypto");
const fs = require("fs");
const path = require("path");

const [work, name] = process.argv.slice(2);
const layout = path.join(work, "layout");
const blobs = path.join(layout, "blobs/sha256");
fs.mkdirSync(blobs, { recursive: true });

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");

function blob(mediaType, bytes) {
  const hex = digest(bytes);
  fs.writeFileSync(path.join(blobs, hex), bytes);
  return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
}
const document = (mediaType, value) => blob(mediaType, Buffer.from(JSON.stringify(value)));

const platform = {
  architecture: { x64: "amd64", ia32: "386", ppc64: "ppc64le" }[process.arch] ?? process.arch,
  os: "linux",
  ...{ arm64: { variant: "v8" }, arm: { variant: "v7" } }[process.arch],
};
const created = new Date(0).toISOString().replace(".000", ""); // the bytes must not depend on the day

const layer = blob("application/vnd.oci.image.layer.v1.tar+gzip", fs.readFileSync(path.join(work, "layer.tar.gz")));
const config = document("application/vnd.oci.image.config.v1+json", {
  created,
  ...platform,
  config: {
    Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    Cmd: ["node"],
    Labels: { "com.alokai.stand-in": `node ${process.version} of the build machine; not the official image` },
  },
  rootfs: { type: "layers", diff_ids: [`sha256:${digest(fs.readFileSync(path.join(work, "layer.tar")))}`] },
  history: [{ created, created_by: "scripts/base-image/layout" }],
});
const manifest = document("application/vnd.oci.image.manifest.v1+json", {
  schemaVersion: 2,
  mediaType: "application/vnd.oci.image.manifest.v1+json",
  config,
  layers: [layer],
});

const write = (file, value) => fs.writeFileSync(path.join(layout, file), JSON.stringify(value));
write("oci-layout", { imageLayoutVersion: "1.0.0" });
write("index.json", {
  schemaVersion: 2,
  mediaType: "application/vnd.oci.image.index.v1+json",
  manifests: [{ ...manifest, platform, annotations: { "org.opencontainers.image.ref.name": name } }],
});
