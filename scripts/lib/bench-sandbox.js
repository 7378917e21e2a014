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
  // Seconds of the frontend's script, with everything that is done for it alone.
  const build = (...flags) => {
    fs.rmSync(path.join(folder, ".out/us", APP, ".next"), { recursive: true, force: true });
    settle();
    const words = ["store", "build", "--store", "us", "--filter", `${APP}-us`, "--force", "--json", ...flags];
    const ended = spawnSync(alokai, words, { cwd: folder, encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "inherit"] });
    const summary = JSON.parse(ended.stdout.trim().split("\n").pop());
    if (!summary.ok) throw new Error(ended.stdout);
    return summary.units.find((unit) => unit.app === APP).buildSeconds;
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
    say(`round ${round}: ${mine.at(-1)} s in a sandbox, ${theirs.at(-1)} s without`);
  }
  const ratio = over(median(mine), median(theirs));
  row("Next.js build of the example in a sandbox", `${median(mine).toFixed(1)} s`, `without: ${median(theirs).toFixed(1)} s`, ratio.toFixed(3), ...judged(ratio, 1.03), `median of ${rounds}`);
};
