// Many stores of two tiny apps: what is measured on them is what a store costs, not what its
// files do.
"use strict";

const { execFileSync } = require("child_process");
const fs = require("fs");
const path = require("path");

const FRONTEND = "storefront-unified-nextjs";
const MIDDLEWARE = "storefront-middleware";

// Scripts that take no time and leave what `prune` needs.
const SCRIPTS = {
  [FRONTEND]: `const fs = require("fs");
const folder = ".next/standalone";
fs.mkdirSync(folder + "/.next", { recursive: true });
fs.mkdirSync(".next/static", { recursive: true });
fs.writeFileSync(folder + "/server.js", "console.log(1)\\n");
fs.writeFileSync(folder + "/.next/BUILD_ID", "1");
fs.writeFileSync(".next/static/page.js", "page\\n");
`,
  [MIDDLEWARE]: `const fs = require("fs");
fs.mkdirSync("lib", { recursive: true });
fs.writeFileSync("lib/index.js", "console.log(1)\\n");
`,
};

// Writes and commits a project with so many stores. `config` is added to its config, `scripts` are
// run after an app's own.
function smallStores(folder, stores, config = {}, scripts = {}) {
  const write = (file, content) => {
    const full = path.join(folder, file);
    fs.mkdirSync(path.dirname(full), { recursive: true });
    fs.writeFileSync(full, typeof content === "string" ? content : JSON.stringify(content, null, 2));
  };
  for (const app of [FRONTEND, MIDDLEWARE]) {
    write(`apps/${app}/package.json`, { name: app, version: "1.0.0", private: true, scripts: { build: "node build.js" } });
    write(`apps/${app}/build.js`, SCRIPTS[app] + `{\n${scripts[app] ?? ""}}\n`);
    for (let file = 0; file < 5; file++) write(`apps/${app}/src/file-${file}.ts`, `export const file = ${file};\n`);
  }
  const ids = Array.from({ length: stores }, (_, number) => `store-${String(number).padStart(4, "0")}`);
  for (const id of ids) write(`apps/stores/${id}/${FRONTEND}/src/own.ts`, "export const own = 1;\n");
  const deployment = (id) => ({ projectName: `acme-${id}`, cloudRegion: "europe-west1", framework: "nextjs" });
  const deployable = Object.fromEntries(ids.map((id) => [id, { deployment: deployment(id) }]));
  write("alokai.config.json", { ...config, stores: deployable });
  write("package.json", { name: "acme", private: true, packageManager: "npm@10.9.0", workspaces: ["apps/*"] });
  write("package-lock.json", { name: "acme", lockfileVersion: 3, requires: true, packages: {} });
  write(".gitignore", "node_modules/\n.next/\nlib/\n.out/\n.alokai/\n");
  write("Dockerfile.scratch", 'FROM scratch\nWORKDIR /app\nCOPY ./.deploy/ ./\nENTRYPOINT ["node", "server.js"]\n');
  const git = (...rest) =>
    execFileSync("git", ["-c", "user.name=Bench", "-c", "user.email=bench@example.com", "-c", "gc.auto=0", ...rest], { cwd: folder });
  git("init", "--quiet");
  git("add", "--all");
  git("commit", "--quiet", "--message", "all");
  return ids;
}

module.exports = { smallStores, FRONTEND, MIDDLEWARE };
