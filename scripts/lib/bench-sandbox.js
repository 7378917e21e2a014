// What `scripts/bench sandbox` measures: a Next.js build of the example in a
// sandbox, beside the same build without one.
"use strict";

const { execFileSync, spawnSync } = require("child_process");
const fs = require("fs");
const path = require("path");

const APP = "storefront-unified-nextjs";

// The example in a repository of its own, with what is installed.
function example(root, work) {
  const source = path.join(root, "apps-example");
  const folder = path.join(work, "example");
  const git = (cwd, ...words) => execFileSync("git", ["-c", "user.name=bench", "-c", "user.email=bench@example.com", ...words], { cwd, encoding: "utf8" });
  for (const file of git(source, "ls-files").trim().split("\n")) {
    fs.mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    fs.copyFileSync(path.join(source, file), path.join(folder, file));
  }
  execFileSync("cp", ["-a", path.join(source, "node_modules"), folder]);
  git(folder, "init", "--quiet");
  git(folder, "add", "--all");
  git(folder, "commit", "--quiet", "--message", "example");
  return folder;
}

module.exports = function sandbox({ alokai, root, work, rounds, say, row, over, judged, settle }) {
  const folder = example(root, work);
  const spent = path.join(work, "spent");
  const timed = fs.existsSync("/usr/bin/time") ? ["/usr/bin/time", "--output", spent, "--format", "%U %S"] : [];
  // Seconds of the frontend's script, with everything that is done for it alone; and of all
  // cores in the whole run, which other work on the machine disturbs less.
  const build = (...flags) => {
    fs.rmSync(path.join(folder, ".out/us", APP, ".next"), { recursive: true, force: true });
    settle();
    const words = ["store", "build", "--store", "us", "--filter", `${APP}-us`, "--force", "--json", ...flags];
    const [program, ...rest] = [...timed, alokai, ...words];
    const ended = spawnSync(program, rest, { cwd: folder, encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "inherit"] });
    const summary = JSON.parse(ended.stdout.trim().split("\n").pop());
    if (!summary.ok) throw new Error(ended.stdout);
    const seconds = summary.units.find((unit) => unit.app === APP).buildSeconds;
    const cores = timed.length > 0 ? fs.readFileSync(spent, "utf8").trim().split(" ") : [];
    return { seconds, cores: cores.length > 0 ? cores.reduce((sum, value) => sum + Number(value), 0) : null };
  };
  const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  say("one build of each for nothing");
  build();
  build("--sandbox");
  const [mine, theirs] = [[], []];
  for (let round = 1; round <= rounds; round++) {
    // Which goes first changes, since a machine gets slower or faster meanwhile.
    const steps = [() => mine.push(build("--sandbox")), () => theirs.push(build())];
    for (const step of round % 2 ? steps : steps.reverse()) step();
    say(`round ${round}: ${mine.at(-1).seconds} s in a sandbox, ${theirs.at(-1).seconds} s without`);
  }
  const ratio = (name, which, limit) => {
    const [one, other] = [mine, theirs].map((all) => (all.some((it) => it[which] === null) ? null : median(all.map((it) => it[which]))));
    const value = over(one, other);
    const shown = (it) => (it === null ? "-" : `${it.toFixed(1)} s`);
    row(name, shown(one), `without: ${shown(other)}`, value?.toFixed(3) ?? "-", ...judged(value, limit), `median of ${rounds}`);
  };
  ratio("Next.js build of the example in a sandbox", "seconds", 1.03);
  ratio("the same with what it needs (`tsc`, the theme), time of all cores", "cores", 1.03);
};
