// What `scripts/bench scale` measures: what a run costs when there is much of one thing: stores,
// images, output, commits, files to put back.
"use strict";

const { spawnSync } = require("child_process");
const fs = require("fs");
const path = require("path");
const { smallStores, FRONTEND, MIDDLEWARE } = require("./small-stores.js");

// One script for all stores: thousands would take hours.
const SHARED = { build: { shared: [FRONTEND, MIDDLEWARE] } };

const LOG = 300; // megabytes that a script prints
const COMMITS = 20_000;
const BEHIND = 333; // commits that one override misses
const OVERRIDES = 10;

module.exports = function scale({ alokai, work, rounds, say, row, over, times, judged, aside, settle }) {
  const MB = (bytes) => (bytes === null ? "-" : `${(bytes / 1e6).toFixed(1)} MB`);
  const seconds = (value) => (value === null ? "-" : `${value.toFixed(2)} s`);
  const folder = (name) => path.join(work, name);

  // Seconds of wall time and of CPU, and bytes of memory, that a command took; null when it did
  // not end well. Its output goes to a file, as into a pipe that is read.
  function usage(command, cwd, env = {}) {
    const python =
      "import resource, subprocess, sys, time\n" +
      "begin = time.time()\n" +
      "out = open(sys.argv[1], 'w')\n" +
      "code = subprocess.call(sys.argv[2:], stdout=out, stderr=out)\n" +
      "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n" +
      "print(time.time() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss)\n" +
      "sys.exit(code)";
    settle();
    const rest = ["-c", python, folder("output"), ...command];
    const ended = spawnSync("python3", rest, { cwd, env: { ...process.env, ...env }, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
    if (ended.status !== 0) {
      say(`${command.join(" ")}: ${ended.error ?? fs.readFileSync(folder("output"), "utf8").slice(-500)}`);
      return { wall: null, cpu: null, memory: null };
    }
    const [wall, cpu, kibibytes] = ended.stdout.trim().split(" ").map(Number);
    return { wall, cpu, memory: kibibytes * 1024 };
  }

  const median = (values) => (values.includes(null) ? null : [...values].sort((a, b) => a - b)[values.length >> 1]);
  // Medians of some figures of several steps, one step after the other in each round. The first
  // round warms and does not count.
  function alternate(figures, ...steps) {
    const [, ...runs] = Array.from({ length: rounds + 1 }, () => steps.map((step) => step()));
    return figures.flatMap((figure) =>
      steps.map((_, index) => {
        const column = runs.map((run) => run[index][figure]);
        say(`  ${figure}: ${column.map((value) => value?.toFixed(2) ?? "-").join(", ")}`);
        return median(column);
      }),
    );
  }
  const how = `median of ${rounds}`;
  const ratio = (name, mine, what, theirs, limit) =>
    row(name, seconds(mine), `${what}: ${seconds(theirs)}`, times(over(mine, theirs)), ...judged(over(mine, theirs), limit), how);
  const build = [alokai, "store", "build", "--all"];

  // Everything was built and is in place.
  function stores() {
    const built = (count) => {
      say(`${count} stores, built once`);
      smallStores(folder(`stores-${count}`), count, SHARED);
      usage(build, folder(`stores-${count}`));
      return () => usage(build, folder(`stores-${count}`));
    };
    const [few, many] = alternate(["cpu"], built(500), built(2000));
    ratio("all-hit build of 2,000 stores, CPU", many, "500 stores", few, 4.2);
    row("the same", seconds(many), "-", "-", ...judged(many, 1.5, " s"), how);
  }

  // The folder is another one each time, and so is what was pruned.
  function images() {
    const project = folder("images");
    say("1,000 images of 500 stores");
    smallStores(project, 500, { ...SHARED, image: { dockerfile: "Dockerfile.scratch" } });
    usage(build, project);
    let round = 0;
    const push = (...more) => {
      round += 1;
      aside(path.join(project, ".out"));
      const command = [alokai, "store", "deploy", "--all", "--until", "push", ...more];
      return usage(command, project, { CLI_DOCKER_REGISTRY_URL: `oci:${folder(`pushed-${round}`)}` });
    };
    const [mine, without, cpu, less] = alternate(["wall", "cpu"], () => push(), () => push("--no-attest"));
    ratio("1,000 images to a folder, with provenance", mine, "without", without, 1.15);
    ratio("the same, CPU", cpu, "without", less, 1.15);
  }

  // A script that prints much, run and printed again.
  function output() {
    const printing = (megabytes) => {
      const project = folder(`output-${megabytes}`);
      const print =
        `const fs = require("fs"), line = Buffer.from("x".repeat(99) + "\\n");\n` +
        `for (let n = 0; n < ${megabytes * 10_000}; n++) fs.writeSync(1, line);\n`;
      smallStores(project, 1, {}, { [FRONTEND]: print });
      return project;
    };
    const [small, large] = [printing(0), printing(LOG)];
    for (const [name, env, more] of [
      ["plain", {}, []],
      ["GitHub groups", { GITHUB_ACTIONS: "true" }, []],
      ["`--json`", {}, ["--json"]],
    ]) {
      say(`${LOG} MB of output, ${name}`);
      for (const turn of ["run", "replay"]) {
        const [less, most] = [small, large].map((project) => usage([...build, ...(turn === "run" ? ["--force"] : []), ...more], project, env).memory);
        const value = less === null || most === null ? null : (most - less) / 1e6;
        row(`peak memory with a log of ${LOG} MB, ${turn}, ${name}`, MB(most), `without: ${MB(less)}`, "-", ...judged(value, 64, " MB more"), "one run");
      }
    }
  }

  // Ten overrides, of which one misses 333 of 20,000 commits.
  function drift() {
    say(`${COMMITS} commits`);
    const project = folder("drift");
    const originals = history(project);
    const log = ["git", "log", "--oneline", "--", ...originals];
    const [mine, theirs] = alternate(["wall"], () => usage([alokai, "store", "drift", "--json"], project), () => usage(log, project));
    ratio(`\`drift\`, ${COMMITS.toLocaleString("en")} commits, ${OVERRIDES} overrides, one behind by ${BEHIND}`, mine, "`git log --oneline --` the originals", theirs, 3);
    const memory = usage([alokai, "store", "drift", "--json"], project).memory;
    row("the same, peak memory", MB(memory), "-", "-", ...judged(over(memory, 1e6), 150, " MB"), "one run");
  }

  function history(project) {
    const size = (seed) => 20 + ((seed * 7919) % 60);
    const stores = Array.from({ length: 20 }, (_, index) => `s${String(index).padStart(2, "0")}`);
    const files = new Map();
    const text = (name, lines) => Array.from({ length: lines }, (_, line) => `line ${line} of ${name} ${(line * 7919 + name.length) % 9973}`);
    const place = (number) => `src/d${number % 17}/e${number % 5}/f${number}.ts`;
    for (let number = 0; number < 640; number++) files.set(`apps/${FRONTEND}/${place(number)}`, text(`f${number}`, size(number)));
    for (const store of stores) {
      for (let number = 0; number < 30; number++) files.set(`apps/stores/${store}/${FRONTEND}/src/own/g${number}.ts`, text(store + number, 30));
    }
    const originals = Array.from({ length: OVERRIDES }, (_, number) => `apps/${FRONTEND}/${place(number)}`);
    const others = [...files.keys()].filter((file) => !originals.includes(file));
    fs.mkdirSync(project);
    const git = (...rest) => {
      const ended = spawnSync("git", rest, { cwd: project, stdio: ["ignore", "ignore", "inherit"] });
      if (ended.status !== 0) throw new Error(`git ${rest.join(" ")}`);
    };
    git("init", "--quiet", "--initial-branch", "main");
    const stream = fs.openSync(folder("stream"), "w");
    const commit = (number, changes) => {
      const parts = changes.map(([file, lines]) => {
        const content = Array.isArray(lines) ? `${lines.join("\n")}\n` : lines;
        return `M 100644 inline ${file}\ndata ${Buffer.byteLength(content)}\n${content}\n`;
      });
      const message = `change ${number}`;
      const head = `commit refs/heads/main\ncommitter A <a@example.com> ${1_700_000_000 + number * 60} +0000\ndata ${message.length}\n${message}\n`;
      fs.writeSync(stream, head + parts.join(""));
    };
    const deployment = (store) => ({ projectName: `acme-${store}`, cloudRegion: "europe-west1", framework: "nextjs" });
    const config = { stores: Object.fromEntries(stores.map((store) => [store, { deployment: deployment(store) }])) };
    commit(0, [
      ...files,
      ["alokai.config.json", JSON.stringify(config)],
      ["package.json", '{"name":"acme","private":true,"workspaces":["apps/*"]}'],
      [`apps/${FRONTEND}/package.json`, `{"name":"${FRONTEND}","version":"1.0.0"}`],
      [".gitignore", ".out/\n.alokai/\n"],
    ]);
    commit(1, originals.map((file, index) => {
      const lines = [...files.get(file)];
      lines[3] = "ours";
      return [file.replace(`apps/${FRONTEND}`, `apps/stores/${stores[index]}/${FRONTEND}`), lines];
    }));
    const every = Math.floor((COMMITS - 2) / BEHIND);
    let behind = 0;
    for (let number = 2; number < COMMITS; number++) {
      const misses = behind < BEHIND && number % every === 0;
      if (misses) behind += 1;
      const file = misses ? originals[0] : others[(number * 7919) % others.length];
      const lines = files.get(file);
      lines[6 + (number % (lines.length - 6))] = `changed by ${number}`;
      commit(number, [[file, lines]]);
    }
    fs.closeSync(stream);
    const read = fs.openSync(folder("stream"), "r");
    const imported = spawnSync("git", ["fast-import", "--quiet"], { cwd: project, stdio: [read, "ignore", "inherit"] });
    if (imported.status !== 0) throw new Error("git fast-import");
    git("repack", "-adq");
    git("checkout", "--quiet", "--force", "main");
    return originals;
  }

  // Results of twenty stores, 700 files each, from the cache into an empty `.out`.
  function back() {
    const project = folder("back");
    say("twenty stores with 700 files each");
    smallStores(project, 20, {}, { [FRONTEND]: FILES });
    usage(build, project);
    let round = 0;
    const restored = () => {
      for (const name of [".out", ".alokai/results", ".alokai/manifests"]) aside(path.join(project, name));
      return usage(build, project);
    };
    const copied = () => {
      round += 1;
      fs.mkdirSync(folder(`copy-${round}`));
      return usage(["cp", "-a", ".out", folder(`copy-${round}`)], project);
    };
    const [mine, theirs] = alternate(["wall"], restored, copied);
    ratio("results of 20 stores put back, compose included", mine, "`cp -a` of the same files into an empty folder", theirs, 1.1);
  }

  drift();
  back();
  stores();
  images();
  output();
};

// Files as a bundler leaves them: many small ones, some of 40 kB, the store's id in each.
const FILES = `const fs = require("fs"), path = require("path");
const store = path.basename(path.dirname(process.cwd()));
let seed = 7;
const next = () => (seed = (seed * 1103515245 + 12345) & 0x7fffffff);
const words = Array.from({ length: 400 }, () => "w" + next().toString(36));
for (let number = 0; number < 700; number++) {
  const folder = ".next/server/d" + (number % 40) + "/e" + (number % 7);
  fs.mkdirSync(folder, { recursive: true });
  const parts = ["// " + store + "\\n"];
  for (let size = next() % (next() % 3 === 0 ? 40000 : 4000); size > 0; size -= 8) parts.push(words[next() % 400] + " ");
  fs.writeFileSync(folder + "/f" + number + ".js", parts.join(""));
}
`;
