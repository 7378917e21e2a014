// What `scripts/bench dev` measures: the time from the write of a source file to the rename of the
// last composed file, in a project of 100 stores of which four are kept in step; and the processor
// time while nothing changes.
"use strict";

const { spawn } = require("child_process");
const fs = require("fs");
const path = require("path");

const FRONTEND = "storefront-unified-nextjs";
const EDITS = 200;
const IDLE_SECONDS = 30;

const pause = new Int32Array(new SharedArrayBuffer(4));
const sleep = (milliseconds) => Atomics.wait(pause, 0, 0, milliseconds);
const delay = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Seconds of processor time of a process, all threads.
function spent(pid) {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const contentOf = (file) => {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return null;
  }
};

// Milliseconds until every file has the content. Polling sleeps, so that it does not take a core.
function until(files, content) {
  const start = performance.now();
  for (const file of files) {
    while (contentOf(file) !== content) {
      if (performance.now() - start > 20000) throw new Error(`${file} does not follow`);
      sleep(0.3);
    }
  }
  return performance.now() - start;
}

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

// A number from 0 to below 1, the same ones in every run.
let state = 1;
function random() {
  state = (state * 48271) % 2147483647;
  return state / 2147483647;
}

module.exports = async function dev({ alokai, work, generate, say, row, ms, judged, settle }) {
  const folder = path.join(work, "dev");
  fs.mkdirSync(folder);
  say("generating 100 stores");
  const { ids, shared } = generate(folder, { stores: 100, seed: 1 });
  // Two of one template and two of others.
  const running = [0, 10, 1, 2].map((index) => ids[index]);
  settle();
  const words = ["store", "compose", "--watch", "--json", "--store", running.join(",")];
  const child = spawn(alokai, words, { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  let checks = 0;
  await new Promise((resolve, reject) => {
    child.on("exit", () => reject(new Error("alokai has ended")));
    let text = "";
    child.stdout.on("data", (chunk) => {
      text += chunk;
      const lines = text.split("\n");
      text = lines.pop();
      for (const line of lines.map((line) => JSON.parse(line))) {
        if (line.sync === "checked") checks += 1;
        if (line.sync === "watching") {
          say(`${line.folders} folders are watched`);
          resolve();
        }
      }
    });
  });
  child.removeAllListeners("exit");
  const out = (id, file) => path.join(folder, ".out", id, FRONTEND, file);
  const own = (id) => {
    const found = [];
    const walk = (place) => {
      for (const entry of fs.readdirSync(place, { withFileTypes: true })) {
        const full = path.join(place, entry.name);
        if (entry.isDirectory() && entry.name !== "node_modules") {
          if (entry.name === id) found.push(full);
          else walk(full);
        }
      }
    };
    walk(path.join(folder, "apps/stores"));
    return path.join(found[0], FRONTEND);
  };
  const places = Object.fromEntries(running.map((id) => [id, own(id)]));
  const times = { base: [], store: [], remove: [] };
  for (let edit = 0; edit < EDITS; edit++) {
    // Some edits come during the check that follows a quiet second.
    await delay(100 + random() * 1400);
    const content = `export const edit = ${edit};\n`;
    const id = running[edit % running.length];
    const kind = ["base", "store", "remove"][edit % 3];
    if (kind === "base") {
      fs.writeFileSync(path.join(folder, shared.source), content);
      times.base.push(until(running.map((store) => out(store, shared.file)), content));
    } else if (kind === "store") {
      const file = path.join(places[id], shared.file);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, content);
      times.store.push(until([out(id, shared.file)], content));
      times.last = { id, file, before: contentOf(path.join(folder, shared.source)) };
    } else {
      fs.rmSync(times.last.file);
      times.remove.push(until([out(times.last.id, shared.file)], times.last.before));
    }
  }
  const all = [...times.base, ...times.store, ...times.remove];
  const result = (name, values) => {
    const [half, most] = [percentile(values, 0.5), percentile(values, 0.95)];
    row(`${name}: write to rename, median`, ms(half), "-", "-", ...judged(half, 30, " ms"), `${values.length} edits`);
    row("the same, 95 %", ms(most), "-", "-", ...judged(most, 120, " ms"), `largest ${ms(Math.max(...values))}`);
  };
  result("100 stores, four in step, all edits", all);
  result("a base file, for four stores", times.base);
  result("a new override of one store", times.store);
  result("a removed override", times.remove);

  const burst = path.join(places[running[0]], "burst/of/new/folders");
  fs.mkdirSync(burst, { recursive: true });
  const started = performance.now();
  for (let number = 0; number < 300; number++) fs.writeFileSync(path.join(burst, `${number}.ts`), `${number}\n`);
  const written = performance.now() - started;
  const files = Array.from({ length: 300 }, (_, number) => number);
  for (const number of files) until([out(running[0], `burst/of/new/folders/${number}.ts`)], `${number}\n`);
  row("300 files in new folders, until the last is composed", ms(performance.now() - started), `writing them: ${ms(written)}`, "-", "-", "-", "one run");

  await delay(3000);
  const before = checks;
  const cpu = spent(child.pid);
  await delay(IDLE_SECONDS * 1000);
  const share = ((spent(child.pid) - cpu) / IDLE_SECONDS) * 100;
  row("processor time while nothing changes", `${share.toFixed(2)} %`, "-", "-", ...judged(share, 0.5, " %"), `${IDLE_SECONDS} s, ${checks - before} checks`);
  const memory = /VmHWM:\s+(\d+)/.exec(fs.readFileSync(`/proc/${child.pid}/status`, "utf8"));
  row("peak memory", `${(Number(memory[1]) / 1000).toFixed(1)} MB`, "-", "-", "-", "-", "one run");
  const ended = new Promise((resolve) => child.on("exit", resolve));
  child.kill("SIGINT");
  await ended;
};
