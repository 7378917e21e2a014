// What `scripts/bench build` measures: builds of which nothing is left to do,
// beside turbo's on the same composed tree; the cost of keys; what prune makes,
// beside what npm installs for production.
"use strict";

const fs = require("fs");
const path = require("path");

const { STORES, FRONTEND, MIDDLEWARE, run, repository, twentyStores } = require("./twenty-stores.js");

// Bytes of the files below a folder.
function size(folder) {
  let bytes = 0;
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) bytes += size(full);
    else if (entry.isFile()) bytes += fs.statSync(full).size;
  }
  return bytes;
}

module.exports = function build({ alokai, root, work, rounds, say, row, ms, over, times, judged, time, alternate }) {
  const { shop, twenty, prebuilt, out } = twentyStores({ alokai, root, work, say });
  run(alokai, ["store", "build", "--all", "--jobs", "2"], twenty);

  say("the same composed tree for turbo");
  const tree = path.join(work, "turbo");
  fs.mkdirSync(tree);
  run(alokai, ["store", "compose", "--all"], twenty);
  for (const store of STORES) {
    for (const app of [FRONTEND, MIDDLEWARE, "playwright"]) {
      const made = ["node_modules", ".next", "lib", ".deploy"].map((name) => path.join(twenty, ".out", store, app, name));
      fs.cpSync(path.join(twenty, ".out", store, app), path.join(tree, "out", store, app), { recursive: true, filter: (file) => !made.includes(file) });
    }
  }
  fs.cpSync(prebuilt, path.join(tree, "prebuilt"), { recursive: true, verbatimSymlinks: true });
  fs.writeFileSync(path.join(tree, "package.json"), JSON.stringify({ name: "tree", private: true, packageManager: "npm@10.9.0", workspaces: ["out/*/*"] }));
  fs.writeFileSync(path.join(tree, "turbo.json"), JSON.stringify({ tasks: { build: { dependsOn: ["^build"], outputs: [".next/**", "!.next/cache/**", "lib/**"] } } }));
  fs.writeFileSync(path.join(tree, ".gitignore"), "node_modules\n.turbo\n.next\nlib\nprebuilt\n");
  run("npm", ["install", "--package-lock-only", "--no-audit", "--no-fund"], tree);
  repository(tree);
  const bin = path.join(work, "turbo-bin");
  run("npm", ["install", "--no-audit", "--no-fund", "--prefix", bin, "turbo@2"], work);
  const turbo = path.join(bin, "node_modules/.bin/turbo");
  process.env.TURBO_TELEMETRY_DISABLED = "1";
  run(turbo, ["run", "build"], tree);
  const again = run(turbo, ["run", "build"], tree);
  if (!again.includes("FULL TURBO")) throw new Error(`turbo has not everything cached:\n${again}`);
  const version = run(turbo, ["--version"], tree).trim();

  const noop = JSON.parse(run(alokai, ["store", "build", "--all", "--json"], twenty).trim().split("\n").pop());
  const misses = noop.units.filter((unit) => unit.cache !== "hit");
  if (misses.length > 0) throw new Error(`not everything is cached: ${JSON.stringify(misses)}`);
  const files = Number(run("sh", ["-c", "find .out -type f | wc -l"], twenty));

  say("no store has changed");
  const [mine, theirs] = alternate(
    2 * rounds,
    () => time([alokai, "store", "build", "--all"], twenty),
    () => time([turbo, "run", "build"], tree),
  );
  row(`no-op build of 20 stores, ${noop.units.length} results, ${files.toLocaleString("en")} files in \`.out\``, ms(mine), `\`turbo run build\` ${version}, all cached: ${ms(theirs)}`, times(over(mine, theirs)), ...judged(over(mine, theirs), 1), `median of ${2 * rounds}`);
  row("the same, own time", ms(noop.ownSeconds * 1000), "-", "-", ...judged(noop.ownSeconds, 1, " s"), "one run");

  say("nothing in place, everything in the cache");
  const clear = (folder, ...names) => names.forEach((name) => fs.rmSync(path.join(folder, name), { recursive: true, force: true }));
  const [restored, turboRestored] = alternate(
    Math.min(3, rounds),
    () => (clear(twenty, ".out", ".alokai/results", ".alokai/manifests"), time([alokai, "store", "build", "--all"], twenty)),
    () => {
      for (const store of STORES) clear(path.join(tree, "out", store), `${FRONTEND}/.next`, `${MIDDLEWARE}/lib`);
      return time([turbo, "run", "build"], tree);
    },
  );
  row("all results of 20 stores put back, compose included", ms(restored), `\`turbo run build\`: ${ms(turboRestored)}`, times(over(restored, turboRestored)), "-", "-", `median of ${Math.min(3, rounds)}`);

  say("the cost of keys");
  const keys = run("cargo", ["bench", "--quiet", "--bench", "keys"], root).trim();
  row("keys, for each 1,000 files that a task sees", keys, "-", "-", "-", "-", "median of 21");

  say("what prune makes");
  const only = ["--store", "us", "--filter", "storefront-middleware-*", "--until", "prune", "--json", "--allow-dirty"];
  const production = path.join(work, "production");
  fs.mkdirSync(production);
  for (const name of ["package.json", "lib"]) fs.cpSync(path.join(out(MIDDLEWARE), name), path.join(production, name), { recursive: true });
  run("npm", ["install", "--package-lock-only", "--no-audit", "--no-fund"], production);
  const prune = () => {
    const events = run(alokai, ["store", "deploy", ...only], shop).trim().split("\n").map((line) => JSON.parse(line));
    return events.find((event) => event.event === "stage-finished" && event.stage === "prune").seconds * 1000;
  };
  const [pruned, installed] = alternate(rounds, prune, () => time(["npm", "ci", "--omit=dev", "--no-audit", "--no-fund", "--prefer-offline"], production));
  fs.rmSync(path.join(production, "package-lock.json"));
  const bytes = [size(path.join(out(MIDDLEWARE), ".deploy")), size(production)];
  const megabytes = (value) => `${(value / 1e6).toFixed(1)} MB`;
  row("`.deploy` of the middleware, time", ms(pruned), `\`npm ci --omit=dev\`, its cache warm: ${ms(installed)}`, times(over(pruned, installed)), "-", "-", `median of ${rounds}`);
  row("`.deploy` of the middleware, bytes", megabytes(bytes[0]), `\`npm ci --omit=dev\`: ${megabytes(bytes[1])}`, times(bytes[0] / bytes[1]), ...judged(bytes[0] / bytes[1], 1), "one run");
};
