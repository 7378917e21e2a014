// Ten thousand records of one store: the first list of a machine that has none of them, and later lists.
// With ALOKAI_TEST_REGISTRY (`scripts/services` starts one) they are in a registry, otherwise in an
// image layout.

const { execFileSync, spawnSync } = require("child_process");
const fs = require("fs");
const path = require("path");

const RECORDS = 10_000;
const BATCH = 80;
const DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

module.exports = ({ alokai, work, rounds, say, row, ms, judged, peak, settle }) => {
  const address = process.env.ALOKAI_TEST_REGISTRY;
  const name = `bench${process.pid}`;
  const environment = {
    ...process.env,
    CLI_DOCKER_REGISTRY_URL: address ?? `oci:${path.join(work, "layout")}`,
    CLI_CLOUD_USERNAME: process.env.ALOKAI_TEST_REGISTRY_USER ?? "user",
    CLI_CLOUD_PASSWORD: process.env.ALOKAI_TEST_REGISTRY_PASSWORD ?? "password",
    CLI_CONSOLE_API_URL: "http://127.0.0.1:9",
  };
  Object.assign(process.env, environment);
  const writer = project(path.join(work, "writer"), name);
  if (!address) layout(path.join(work, "layout"));
  say(`writing ${RECORDS} records to ${address ?? "an image layout"}`);
  for (let first = 0; first < RECORDS / 4; first += BATCH / 4) {
    for (let number = first; number < first + BATCH / 4; number++) deploy(writer, number);
    execFileSync(alokai, ["store", "history", "--push"], { cwd: writer, stdio: "ignore" });
  }
  const limit = ["--limit", "20"];
  for (const [what, command] of [
    ["builds", ["store", "builds", ...limit]],
    ["releases", ["store", "releases", ...limit]],
    ["history", ["store", "history", ...limit]],
  ]) {
    const first = [];
    const later = [];
    for (let round = 0; round < rounds; round++) {
      const reader = project(path.join(work, `${what}-${round}`), name);
      first.push(timed([alokai, ...command], reader, settle));
      later.push(timed([alokai, ...command], reader, settle));
    }
    const reader = path.join(work, `${what}-0`);
    const memory = [peak([alokai, ...command], project(path.join(work, `${what}-m`), name)), peak([alokai, ...command], reader)];
    const most = Math.max(...memory) / 2 ** 20;
    row(`${what}, first list of 10,000 records`, ms(median(first)), "-", "-", ...judged(median(first), 5000, " ms"), `median of ${rounds}`);
    row(`${what}, later lists`, ms(median(later)), "-", "-", ...judged(median(later), 300, " ms"), `median of ${rounds}`);
    row(`${what}, memory`, `${most.toFixed(0)} MiB`, "-", "-", ...judged(most, 64, " MiB"), "the larger of both");
  }
  const pages = JSON.parse(newestIndex(path.join(work, "builds-0")));
  const tags = Object.keys(pages.pages).length;
  row("tags of records", `${tags}`, "-", "-", ...judged(tags, 300), "as the last list has read them");
};

function newestIndex(folder) {
  const pages = path.join(folder, ".alokai/ledger/pages");
  const files = fs.readdirSync(pages).map((file) => path.join(pages, file));
  return fs.readFileSync(files.sort((a, b) => fs.statSync(b).size - fs.statSync(a).size)[0], "utf8");
}

function timed(command, cwd, settle) {
  settle();
  const start = performance.now();
  const ended = spawnSync(command[0], command.slice(1), { cwd, stdio: "ignore" });
  return ended.status === 0 ? performance.now() - start : null;
}

function median(values) {
  if (values.includes(null)) return null;
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function project(folder, name) {
  fs.mkdirSync(path.join(folder, "apps/storefront-middleware"), { recursive: true });
  const deployment = { projectName: name, cloudRegion: "europe-west1" };
  fs.writeFileSync(path.join(folder, "alokai.config.json"), JSON.stringify({ stores: { us: { deployment } } }));
  fs.writeFileSync(path.join(folder, "apps/storefront-middleware/package.json"), '{ "name": "storefront-middleware" }');
  return folder;
}

function layout(folder) {
  fs.mkdirSync(path.join(folder, "blobs/sha256"), { recursive: true });
  fs.writeFileSync(path.join(folder, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  fs.writeFileSync(path.join(folder, "index.json"), '{"schemaVersion":2,"manifests":[]}');
}

// An id: nine digits of time, and seven that make it unique.
function id(letter, milliseconds, unique) {
  let time = "";
  for (let digit = 8; digit >= 0; digit--) time += DIGITS[Math.floor(milliseconds / 32 ** digit) % 32];
  return `${letter}${time}000000${DIGITS[unique]}`;
}

function deploy(folder, number) {
  const at = 1_760_000_000_000 + number * 60_000;
  const actor = { user: "deployer", host: "runner-1", run: `https://ci.example.com/runs/${number}` };
  const common = { schemaVersion: 1, store: "us", actor };
  const digest = `sha256:${number.toString(16).padStart(64, "0")}`;
  const sha = number.toString(16).padStart(40, "0");
  const [start, build, release, end] = [id("E", at, 1), id("B", at, 2), id("R", at, 3), id("E", at, 4)];
  const app = { reference: `r.example.com/acme/middleware:${sha}`, digest, inputs: digest, seconds: 4.2, cache: "miss", deployBytes: 1, imageBytes: 2 };
  const records = [
    ["events", { kind: "event", id: start, what: "started", operation: "deploy", lease: 60, folder: "" }],
    ["builds", { kind: "build", id: build, status: "complete", started: new Date(at).toISOString(), seconds: 42.5, commit: { sha, subject: `Change number ${number}`, dirty: false }, tag: sha, apps: { "storefront-middleware": app }, composition: digest, plan: digest, start, tool: "0.1.0", reached: "deploy" }],
    ["releases", { kind: "release", id: release, target: "console", build, reason: "deploy" }],
    ["events", { kind: "event", id: end, what: "ended", start, succeeded: true }],
  ];
  for (const [kind, record] of records) {
    const ledger = path.join(folder, ".alokai/ledger", kind);
    fs.mkdirSync(ledger, { recursive: true });
    fs.writeFileSync(path.join(ledger, `${record.id}.json`), `${JSON.stringify({ ...record, ...common })}\n`);
  }
}
