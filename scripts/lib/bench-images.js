// What `scripts/bench images` measures: making and pushing images without a
// daemon, beside `docker build` and `docker push` of the same `.deploy`, with the
// same Dockerfile, to the same registry.
"use strict";

const { spawnSync } = require("child_process");
const fs = require("fs");
const path = require("path");
const { STORES, FRONTEND, run, repository, twentyStores } = require("./twenty-stores.js");

const LARGE = 1e9; // bytes, of a file that makes an image large

module.exports = function images({ alokai, root, work, rounds, say, row, ms, over, times, judged, alternate, peak, settle }) {
  const needed = ["ALOKAI_REGISTRY", "ALOKAI_REGISTRY_USER", "ALOKAI_REGISTRY_PASSWORD", "ALOKAI_BASE_REFERENCE"];
  const missing = needed.filter((name) => !process.env[name]);
  if (missing.length > 0) throw new Error(`not set: ${missing.join(", ")}; eval "$(scripts/services up)" first`);
  const registry = process.env.ALOKAI_REGISTRY;
  const base = process.env.ALOKAI_BASE_REFERENCE;
  Object.assign(process.env, {
    CLI_CLOUD_USERNAME: process.env.ALOKAI_REGISTRY_USER,
    CLI_CLOUD_PASSWORD: process.env.ALOKAI_REGISTRY_PASSWORD,
    CLI_DOCKER_REGISTRY_URL: registry,
    DOCKER_CONFIG: path.join(work, "docker"),
  });
  const login = spawnSync("docker", ["login", "--username", process.env.CLI_CLOUD_USERNAME, "--password-stdin", registry], {
    input: process.env.CLI_CLOUD_PASSWORD,
    encoding: "utf8",
  });
  if (login.status !== 0) throw new Error(`docker login: ${login.stderr}`);
  run("docker", ["pull", "--quiet", base], work);

  const { twenty } = twentyStores({ alokai, root, work, say });
  const packed = path.join(twenty, ".alokai/cache/oci");
  const config = path.join(twenty, "alokai.config.json");
  let round = 0;
  // Repositories that nothing has been pushed to: names of their own, and a commit of its own.
  const anew = () => {
    round += 1;
    const stores = {};
    for (const store of STORES) {
      const projectName = `bench-${process.pid}-${round}-${store}`;
      stores[store] = { deployment: { projectName, cloudRegion: "europe-west1", framework: "nextjs" } };
    }
    fs.writeFileSync(config, JSON.stringify({ image: { base }, stores }, null, 2));
    repository(twenty);
  };
  // Milliseconds of the stages image and push.
  const deploy = (...stores) => {
    const rest = ["store", "deploy", ...stores, "--filter", `${FRONTEND}-*`, "--until", "push", "--json", "--output-logs", "new-only"];
    settle();
    const events = run(alokai, rest, twenty).trim().split("\n").map((line) => JSON.parse(line));
    const stages = events.filter((event) => event.event === "stage-finished" && ["image", "push"].includes(event.stage));
    const summary = events.pop();
    return { time: stages.reduce((sum, stage) => sum + stage.seconds * 1000, 0), summary };
  };
  anew();
  say("twenty builds that copy, one real base image");
  run(alokai, ["store", "build", "--all", "--filter", `${FRONTEND}-*`, "--jobs", "2"], twenty);
  deploy("--store", STORES[0]);

  // The same folder through Docker's own client.
  const context = path.join(work, "context");
  fs.cpSync(path.join(twenty, ".out", STORES[0], FRONTEND, ".deploy"), path.join(context, ".deploy"), { recursive: true, verbatimSymlinks: true });
  const plan = JSON.parse(run(alokai, ["store", "deploy", "--store", STORES[0], "--until", "push", "--dry-run", "--json"], twenty));
  const frontend = plan.images.find((image) => image.app === FRONTEND);
  fs.writeFileSync(path.join(context, "Dockerfile"), frontend.dockerfile.text);
  const docker = (kit) => {
    round += 1;
    const name = `${registry}/bench-${process.pid}-${round}-docker/vue-storefront:1`;
    settle();
    const start = performance.now();
    run("docker", ["build", "--quiet", "--no-cache", "--tag", name, context], work, { env: { ...process.env, DOCKER_BUILDKIT: kit } });
    run("docker", ["push", "--quiet", name], work);
    const elapsed = performance.now() - start;
    run("docker", ["rmi", "--force", name], work);
    return elapsed;
  };

  say("one store, whose layers nobody has");
  const first = () => {
    anew();
    fs.rmSync(path.join(packed, "layers"), { recursive: true, force: true });
    return deploy("--store", STORES[0]).time;
  };
  const kits = spawnSync("docker", ["buildx", "version"]).status === 0 ? ["0", "1"] : ["0"];
  const [mine, ...theirs] = alternate(rounds, first, ...kits.map((kit) => () => docker(kit)));
  const peer = Math.min(...theirs);
  const how = `median of ${rounds}`;
  const names = ["", "with BuildKit "];
  const beside = `\`docker build\` + \`docker push\`: ${theirs.map((time, kit) => names[kit] + ms(time)).join(", ")}`;
  row("image and push of the first store", ms(mine), beside, times(over(mine, peer)), ...judged(over(mine, peer), 0.45), how);

  say("and all it has not: the base image too");
  const cold = () => {
    anew();
    fs.rmSync(packed, { recursive: true, force: true });
    return deploy("--store", STORES[0]).time;
  };
  const [unknown] = alternate(Math.min(3, rounds), cold);
  row("the same, the base image brought and read first", ms(unknown), beside, times(over(unknown, peer)), "-", "-", `median of ${Math.min(3, rounds)}`);

  say("twenty stores");
  let summary = null;
  const all = () => {
    anew();
    fs.rmSync(path.join(packed, "layers"), { recursive: true, force: true });
    deploy("--store", STORES[0]);
    const further = deploy("--all");
    summary = further.summary;
    return further.time / (STORES.length - 1);
  };
  const [further] = alternate(Math.min(3, rounds), all);
  row("each further store that shares dependencies", ms(further), beside, times(over(further, peer)), ...judged(over(further, peer), 0.06), `19 at once, median of ${Math.min(3, rounds)}`);

  const again = deploy("--all").summary;
  const there = again.units.filter((unit) => unit.wasThere).length;
  row(`redeploy of 20 stores, nothing changed, ${there} images there, own time`, ms(again.ownSeconds * 1000), "-", "-", ...judged(again.ownSeconds, 1, " s"), "one run");

  say("what the registry has of it");
  const bytes = stored(summary.units);
  row("unique bytes of 20 stores in the registry, without the base", `${(bytes.all / 1e6).toFixed(1)} MB`, `dependencies once + own files: ${(bytes.least / 1e6).toFixed(1)} MB`, times(bytes.all / bytes.least), ...judged(bytes.all / bytes.least, 1.15), "one run");

  say("memory");
  const command = (...stores) => [alokai, "store", "deploy", ...stores, "--filter", `${FRONTEND}-*`, "--until", "push", "--output-logs", "new-only"];
  const memory = (name, ...stores) => {
    anew();
    fs.rmSync(packed, { recursive: true, force: true });
    const value = over(peak(command(...stores), twenty), 1e6);
    row(name, value === null ? "-" : `${value.toFixed(1)} MB`, "-", "-", ...judged(value, 64, " MB"), "one run");
  };
  memory("peak memory, 20 stores, nothing packed", "--all");
  const large = path.join(twenty, "apps/stores", STORES[0], FRONTEND, "public");
  fs.mkdirSync(large, { recursive: true });
  run("dd", ["if=/dev/urandom", `of=${path.join(large, "large.bin")}`, "bs=1M", `count=${LARGE / 1e6}`], work);
  memory("peak memory, one image with a file of 1 GB", "--store", STORES[0]);

  function stored(units) {
    const authorization = `Basic ${Buffer.from(`${process.env.CLI_CLOUD_USERNAME}:${process.env.CLI_CLOUD_PASSWORD}`).toString("base64")}`;
    const get = (url) =>
      JSON.parse(run("curl", ["-fsS", "--config", "-", `http://${registry}/v2/${url}`], work, {
        input: `header = "Authorization: ${authorization}"\nheader = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"\n`,
      }));
    const bases = baseLayers(get);
    const unique = new Map();
    let [dependencies, own] = [0, 0];
    for (const unit of units.filter((unit) => unit.reference)) {
      const repository = unit.reference.slice(registry.length + 1).split(":")[0];
      const manifest = get(`${repository}/manifests/${unit.digest}`);
      const layers = manifest.layers.filter((layer) => !bases.has(layer.digest));
      // The uppermost is the app's own; those of the first store stand for all dependencies.
      own += layers[layers.length - 1].size;
      if (dependencies === 0) dependencies = layers.slice(0, -1).reduce((sum, layer) => sum + layer.size, 0);
      for (const blob of [...layers, manifest.config]) unique.set(blob.digest, blob.size);
      unique.set(unit.digest, JSON.stringify(manifest).length);
    }
    const all = [...unique.values()].reduce((sum, size) => sum + size, 0);
    return { all, least: dependencies + own };
  }

  function baseLayers(get) {
    const [, repository, tag] = /^[^/]+\/(.*):([^:]*)$/.exec(base);
    return new Set(get(`${repository}/manifests/${tag}`).layers.map((layer) => layer.digest));
  }
};
