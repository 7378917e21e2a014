// What `scripts/bench warm` measures: two clones of one project as CI machines,
// with a remote cache between them. The first machine builds; then a file of the
// store changes, and the second machine builds it, with the tool cache of the
// first machine and without one.
"use strict";

const { execFileSync, spawn, spawnSync } = require("child_process");
const fs = require("fs");
const path = require("path");

const APP = "storefront-unified-nextjs";
const SERVER = "turborepo-remote-cache@2.12.0";
const TOKEN = "bench-token";
const PAGES = 12;
const SHARED = 10;
const PER_PAGE = 44;
// Without this key Next.js 15 generates a key in every build on a CI machine, and never uses its cache.
const SECRET = "NEXT_SERVER_ACTIONS_ENCRYPTION_KEY";
const COMPONENTS = SHARED + PAGES * PER_PAGE;

const git = (cwd, ...words) => execFileSync("git", ["-c", "user.name=bench", "-c", "user.email=bench@example.com", ...words], { cwd, encoding: "utf8" });

// A component as a shop has them: types, state, effects, markup.
function component(number) {
  const rows = Array.from({ length: 12 }, (_, row) => `
export function row${row}Of${number}(items: Item[], chosen: Chosen): Summary {
  const matching = items.filter((item) => item.price > ${row * 7 + number % 13} && (chosen.color === undefined || item.color === chosen.color));
  const total = matching.reduce((sum, item) => sum + item.price * (1 - (chosen.discount ?? 0) / ${100 + row}), 0);
  const names = matching.map((item, index) => \`\${index + 1}. \${item.name} (\${item.tags.join(", ")})\`);
  switch (chosen.order) {
    case "price": matching.sort((one, other) => one.price - other.price); break;
    case "name": matching.sort((one, other) => one.name.localeCompare(other.name)); break;
    default: matching.reverse();
  }
  return { total, names, first: matching[0]?.id ?? "none-${number}-${row}", count: matching.length };
}`);
  const markup = Array.from({ length: 12 }, (_, row) => `
      <section className="flex flex-col gap-${row} md:flex-row" aria-label="part ${number} row ${row}" onClick={() => setOpen(!open)}>
        <h3 className={open ? "text-lg font-bold" : "text-sm"}>{row${row}Of${number}(items, chosen).first}</h3>
        <ul>{row${row}Of${number}(items, chosen).names.map((name) => <li key={name} data-row="${row}">{name}</li>)}</ul>
        <button type="button" disabled={count > ${row + 3}} onClick={() => setCount((value) => value + ${row + 1})}>add {count}</button>
      </section>`);
  return `"use client";
import { useCallback, useEffect, useMemo, useState } from "react";
export type Item = { id: string; name: string; price: number; color?: string; tags: string[] };
export type Chosen = { color?: string; discount?: number; order?: "price" | "name" };
export type Summary = { total: number; names: string[]; first: string; count: number };
${rows.join("\n")}

export function Part${number}({ items, chosen }: { items: Item[]; chosen: Chosen }) {
  const [open, setOpen] = useState(false);
  const [count, setCount] = useState(${number});
  const summary = useMemo(() => row0Of${number}(items, chosen), [items, chosen]);
  const close = useCallback(() => setOpen(false), []);
  useEffect(() => { if (count > 10) close(); }, [count, close]);
  return (
    <div data-part="${number}" data-total={summary.total}>${markup.join("")}
    </div>
  );
}
`;
}

// A page uses components of its own and some that all pages share.
function page(number) {
  const own = Array.from({ length: PER_PAGE }, (_, index) => SHARED + number * PER_PAGE + index);
  const parts = [...Array(SHARED).keys(), ...own];
  return `${parts.map((part) => `import { Part${part} } from "../../../components/parts/Part${part}";`).join("\n")}
export const dynamic = "force-dynamic";
export default function Page() {
  const items = [{ id: "a", name: "page ${number}", price: ${number}, tags: ["x"] }];
  return <main>${parts.map((part) => `<Part${part} items={items} chosen={{}} />`).join("")}</main>;
}
`;
}

// The example with some 600 files more, in a repository of its own.
function origin(root, work) {
  const source = path.join(root, "apps-example");
  const folder = path.join(work, "origin");
  for (const file of git(source, "ls-files").trim().split("\n")) {
    fs.mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    fs.copyFileSync(path.join(source, file), path.join(folder, file));
  }
  const app = path.join(folder, "apps", APP);
  const write = (file, text) => {
    fs.mkdirSync(path.dirname(path.join(app, file)), { recursive: true });
    fs.writeFileSync(path.join(app, file), text);
  };
  for (let number = 0; number < COMPONENTS; number++) write(`components/parts/Part${number}.tsx`, component(number));
  for (let number = 0; number < PAGES; number++) write(`app/[locale]/page-${number}/page.tsx`, page(number));
  const config = path.join(folder, "alokai.config.json");
  const declared = `{\n  "build": { "env": { "*": ["${SECRET}"] } },`;
  fs.writeFileSync(config, fs.readFileSync(config, "utf8").replace("{", declared));
  git(folder, "init", "--quiet", "--initial-branch=main");
  git(folder, "add", "--all");
  git(folder, "commit", "--quiet", "--message", "example");
  return folder;
}

// The remote cache from npm, on a port that it chooses. `stop` ends it.
function server(work) {
  const folder = path.join(work, "server");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "package.json"), '{ "private": true }');
  execFileSync("npm", ["install", "--no-audit", "--no-fund", "--silent", SERVER], { cwd: folder, stdio: "ignore" });
  const said = path.join(folder, "said");
  const output = fs.openSync(said, "w");
  const env = {
    PATH: process.env.PATH, HOST: "127.0.0.1", PORT: "0", TURBO_TOKEN: TOKEN, BODY_LIMIT: String(1 << 30),
    STORAGE_PROVIDER: "local", STORAGE_PATH: path.join(folder, "store"), STORAGE_PATH_USE_TMP_FOLDER: "false",
  };
  const child = spawn(process.execPath, ["node_modules/turborepo-remote-cache/dist/cli.js"], { cwd: folder, env, stdio: ["ignore", output, output] });
  const stop = () => child.kill();
  process.on("exit", stop);
  for (let turn = 0; turn < 200; turn++) {
    const found = /Server listening at ([^"\s]+)/.exec(fs.readFileSync(said, "utf8"));
    if (found) return { api: found[1], stop };
    spawnSync("sleep", ["0.1"]);
  }
  throw new Error(fs.readFileSync(said, "utf8"));
}

module.exports = function warm({ alokai, root, work, rounds, say, row, over, judged, settle }) {
  const from = origin(root, work);
  const { api, stop } = server(work);
  // A CI system checks out at the same path on every machine.
  const machine = path.join(work, "machine");
  const clone = () => {
    fs.rmSync(machine, { recursive: true, force: true });
    git(work, "clone", "--quiet", from, machine);
    execFileSync("cp", ["-a", path.join(root, "apps-example/node_modules"), machine]);
  };
  const spent = path.join(work, "spent");
  const timed = fs.existsSync("/usr/bin/time") ? ["/usr/bin/time", "--output", spent, "--format", "%U %S"] : [];
  // Seconds of the whole command, with every download and upload; and of all cores, which other
  // work on the machine disturbs less.
  const build = (team) => {
    settle();
    const words = ["store", "build", "--store", "us", "--json"];
    const [program, ...rest] = [...timed, alokai, ...words];
    const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1", [SECRET]: Buffer.alloc(32, "bench").toString("base64") };
    for (const name of Object.keys(env)) if (name.startsWith("TURBO_")) delete env[name];
    if (team) Object.assign(env, { TURBO_API: api, TURBO_TOKEN: TOKEN, TURBO_TEAM: team });
    const begun = performance.now();
    const ended = spawnSync(program, rest, { cwd: machine, env, encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "inherit"] });
    const seconds = (performance.now() - begun) / 1000;
    const events = ended.stdout.trim().split("\n").map((line) => JSON.parse(line));
    const summary = events.pop();
    if (!summary?.ok) throw new Error(ended.stdout);
    const unit = summary.units.find((it) => it.app === APP);
    if (unit.cache !== "miss") throw new Error(`the frontend is a ${unit.cache}`);
    const notes = events.filter((event) => event.event === "notice");
    for (const note of notes) say(note.message);
    const used = timed.length > 0 ? fs.readFileSync(spent, "utf8").trim().split(/\s+/).slice(-2) : [];
    return { seconds, cores: used.length > 0 ? used.reduce((sum, it) => sum + Number(it), 0) : null, cache: unit.toolCache };
  };
  let edits = 0;
  const edit = () => {
    const file = path.join(from, "apps", APP, `components/parts/Part${SHARED}.tsx`);
    fs.appendFileSync(file, `export const edit${(edits += 1)} = ${edits};\n`);
    git(from, "commit", "--quiet", "--all", "--message", `edit ${edits}`);
  };
  const [cold, warm] = [[], []];
  let bytes = null;
  try {
    for (let round = 1; round <= rounds; round++) {
      const team = `round-${round}`;
      clone();
      const first = build(team);
      edit();
      clone();
      warm.push(build(team));
      const { cache } = warm.at(-1);
      if (cache?.from !== "remote") throw new Error("the second machine got no tool cache");
      bytes = cache.bytes;
      // The same commit on a machine without the remote cache.
      clone();
      cold.push(build());
      if (cold.at(-1).cache) throw new Error("the cold build had a tool cache");
      const shown = (it) => `${it.seconds.toFixed(1)} s (cores ${it.cores?.toFixed(1) ?? "-"} s)`;
      say(`round ${round}: first machine ${shown(first)}, second machine ${shown(warm.at(-1))}, cold ${shown(cold.at(-1))}`);
    }
  } finally {
    stop();
  }
  const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  const ratio = (name, which) => {
    const [one, other] = [warm, cold].map((all) => (all.some((it) => it[which] === null) ? null : middle(all.map((it) => it[which]))));
    const value = over(one, other);
    const shown = (it) => (it === null ? "-" : `${it.toFixed(1)} s`);
    row(name, shown(one), `cold: ${shown(other)}`, value?.toFixed(3) ?? "-", ...judged(value, 0.55), `median of ${rounds}`);
  };
  const size = `${COMPONENTS + PAGES} files, tool cache of ${(bytes / 1e6).toFixed(0)} MB`;
  ratio(`changed store on a second machine, Next.js (${size})`, "seconds");
  ratio("the same, time of all cores", "cores");
};
