// Twenty stores with real sizes and builds that take no time: one store of the example is built
// for real, and the others' scripts leave what that has left, with a text of the store's own.
"use strict";

const { spawnSync } = require("child_process");
const fs = require("fs");
const path = require("path");

const STORES = Array.from({ length: 20 }, (_, index) => `shop-${String(index + 1).padStart(2, "0")}`);
const FRONTEND = "storefront-unified-nextjs";
const MIDDLEWARE = "storefront-middleware";

// A script that takes as little time as it can, and leaves what the real one left.
const COPY = (output) => `
import fs from "node:fs";
import path from "node:path";
const prebuilt = path.resolve("../../../prebuilt", path.basename(process.cwd()));
fs.cpSync(prebuilt, ".", { recursive: true, verbatimSymlinks: true });
${output}
`;
// Standalone output lies as deep as the app, so it has the store's folder in it.
const FOR_STORE = `
const standalone = path.resolve(".next/standalone/.out");
fs.renameSync(path.join(standalone, "us"), path.join(standalone, path.basename(path.dirname(process.cwd()))));
fs.writeFileSync(".next/static/store.txt", fs.readFileSync("texts/store.ts"));`;

function run(program, rest, cwd, more = {}) {
  const ended = spawnSync(program, rest, { cwd, encoding: "utf8", maxBuffer: 1 << 28, ...more });
  if (ended.status === 0) return ended.stdout;
  throw new Error(`${program} ${rest.join(" ")} in ${cwd}: ${ended.stderr ?? ended.error}`);
}

const repository = (folder) => {
  const git = (...rest) => run("git", ["-c", "user.name=Bench", "-c", "user.email=bench@example.com", "-c", "gc.auto=0", ...rest], folder);
  git("init", "--quiet");
  git("add", "--all");
  git("commit", "--quiet", "--message", "all");
};

function twentyStores({ alokai, root, work, say }) {
  const example = path.join(root, "apps-example");
  const shop = path.join(work, "shop");
  const left = ["node_modules", ".out", ".alokai", "dist"];
  const copyExample = (to) =>
    fs.cpSync(example, to, { recursive: true, filter: (file) => !left.includes(path.basename(file)) });
  copyExample(shop);
  run("cp", ["-a", path.join(example, "node_modules"), shop], work);
  repository(shop);

  say("one real build of a store, about a minute");
  run(alokai, ["store", "build", "--store", "us"], shop);
  const out = (app) => path.join(shop, ".out/us", app);

  say("twenty stores whose scripts leave what that build left");
  const twenty = path.join(work, "twenty");
  copyExample(twenty);
  const prebuilt = path.join(twenty, "prebuilt");
  for (const [app, output] of [[FRONTEND, ".next"], [MIDDLEWARE, "lib"]]) {
    fs.cpSync(path.join(out(app), output), path.join(prebuilt, app, output), { recursive: true, verbatimSymlinks: true });
    const file = path.join(twenty, "apps", app, "package.json");
    const manifest = JSON.parse(fs.readFileSync(file));
    manifest.scripts.build = "node build.mjs";
    for (const kind of ["dependencies", "devDependencies"]) manifest[kind] = {};
    fs.writeFileSync(file, JSON.stringify(manifest, null, 2));
    fs.writeFileSync(path.join(twenty, "apps", app, "build.mjs"), COPY(app === FRONTEND ? FOR_STORE : ""));
  }
  fs.rmSync(path.join(prebuilt, FRONTEND, ".next/cache"), { recursive: true, force: true });
  fs.rmSync(path.join(twenty, "apps/stores"), { recursive: true });
  fs.rmSync(path.join(twenty, "apps/storefront-unified-nuxt"), { recursive: true });
  const stores = {};
  for (const store of STORES) {
    const texts = path.join(twenty, "apps/stores", store, FRONTEND, "texts");
    fs.mkdirSync(texts, { recursive: true });
    fs.writeFileSync(path.join(texts, "store.ts"), `export const name = "${store}";\n`);
    stores[store] = { deployment: { projectName: store, cloudRegion: "europe-west1", framework: "nextjs" } };
  }
  fs.writeFileSync(path.join(twenty, "alokai.config.json"), JSON.stringify({ stores }, null, 2));
  fs.appendFileSync(path.join(twenty, ".gitignore"), "\nprebuilt\n");
  repository(twenty);

  return { shop, twenty, prebuilt, out };
}

module.exports = { STORES, FRONTEND, MIDDLEWARE, run, repository, twentyStores };
