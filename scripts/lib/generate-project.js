// Writes a project of many stores to measure on, committed to git.
//
//   node scripts/lib/generate-project.js <empty folder> [stores] [seed]
//
// The same seed gives the same bytes and the same commits; a store's files do
// not depend on how many stores there are. Base apps of 621 files and 2.7 MB;
// every deployable store lies in one of ten templates, so a composed app has
// three layers. Templates and stores give 40 files each, 32 of them in the
// place of a base file. The last commit changes one file of a store and one
// base file that no store overrides.

"use strict";
const { execFileSync } = require("child_process");
const { createHash } = require("crypto");
const fs = require("fs");
const path = require("path");

const BASE_BYTES = 2.7e6;
const TEMPLATES = 10;
const FRONTEND = "storefront-unified-nextjs";

// Files beside package.json and tsconfig.json: how many, where (`*` is a word),
// and the bytes that half of them exceed.
const APPS = {
  [FRONTEND]: [
    [1, "next.config.mjs", 2000],
    [1, "tailwind.config.ts", 1500],
    [1, "middleware.ts", 1500],
    [1, "app/[locale]/layout.tsx", 3000],
    [20, "app/[locale]/(default)/*/page.tsx", 3500],
    [12, "app/[locale]/(default)/*/loading.tsx", 600],
    [14, "app/[locale]/(default)/my-account/*/[id]/page.tsx", 4000],
    [10, "app/[locale]/(compact)/*/[[...slug]]/page.tsx", 3500],
    [8, "app/[locale]/(compact)/checkout/*/layout.tsx", 1200],
    [6, "app/api/*/route.ts", 1500],
    [94, "components/*/*.tsx", 3500],
    [21, "components/*/index.ts", 120],
    [40, "components/ui/*/*.tsx", 2500],
    [24, "components/cms/*/*.tsx", 3000],
    [36, "hooks/*/use-*.ts", 2000],
    [30, "sdk/modules/*/*.ts", 2200],
    [24, "helpers/*.ts", 1500],
    [16, "types/*.ts", 1200],
    [12, "messages/en/*.json", 4000],
    [12, "messages/de/*.json", 4500],
    [8, "styles/*.css", 2500],
    [24, "public/images/*.webp", 18000],
    [14, "public/icons/*.svg", 1500],
  ],
  "storefront-middleware": [
    [1, "middleware.config.ts", 2500],
    [1, "src/index.ts", 1500],
    [8, "integrations/*/config.ts", 1800],
    [16, "extensions/*/*.ts", 2500],
    [20, "api/methods/*/*.ts", 2500],
    [8, "api/*/index.ts", 400],
    [9, "types/*.ts", 1500],
  ],
  playwright: [
    [1, "playwright.config.ts", 2500],
    [32, "tests/*/*.spec.ts", 4000],
    [28, "page-objects/*/*.page.ts", 3000],
    [20, "page-objects/components/*.ts", 2000],
    [30, "mocks/*/*.json", 5000],
    [12, "utils/*.ts", 1500],
  ],
};

// Files of one store or template; a new one goes where the pattern says.
const OWN = [
  { app: FRONTEND, overrides: 22, additions: 6, pattern: "components/*/*.tsx" },
  { app: "storefront-middleware", overrides: 7, additions: 1, pattern: "api/methods/*/*.ts" },
  { app: "playwright", overrides: 3, additions: 1, pattern: "tests/*/*.spec.ts" },
];
const NOT_OVERRIDDEN = ["package.json", "tsconfig.json", "app/[locale]/layout.tsx"];

const WORDS = (
  "account address banner basket billing brand bundle button cart category checkout consent coupon " +
  "currency customer dialog discount facet favourite filter footer gallery header hero image inventory " +
  "invoice item label layout listing locale login menu newsletter notice order page payment picker price " +
  "product profile promotion quantity quote rating recommendation register returns review search section " +
  "shipping size slider stock summary tax teaser token variant voucher wishlist"
).split(" ");

// mulberry32: numbers from 0 to below 1, the same ones for the same name.
function randomFor(name) {
  let state = createHash("sha256").update(name).digest().readUInt32LE();
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const below = (random, limit) => Math.floor(random() * limit);
const word = (random, among = WORDS.length) => WORDS[below(random, among)];

// A path that `taken` has not; it has it afterwards. Folders are one of few
// words and so are shared, files are two of all.
function newPath(random, pattern, taken) {
  for (;;) {
    const candidate = pattern
      .replace(/\*(?=\/)/g, () => word(random, 24))
      .replace("*", () => `${word(random)}-${word(random)}`);
    if (!taken.has(candidate)) {
      taken.add(candidate);
      return candidate;
    }
  }
}

// Around the typical size: most within a third and the threefold, a few far above.
const spread = (random, typical) => typical * 6 ** (random() + random() + random() - 1.5);

// Files are pieces of one text, or of one noise that no compression makes smaller.
function contents(seed) {
  const random = randomFor(`${seed}/contents`);
  let code = "";
  while (code.length < 1 << 20) {
    const [a, b, c, d] = [word, word, word, word].map((any) => any(random));
    code += `export const ${a}_${b} = use_${c}(${below(random, 1e6)}, "${d} ${a}", { ${b}: true });\n`;
  }
  const noise = Buffer.from(Array.from({ length: 1 << 20 }, () => below(random, 256)));

  return function content(pick, file, owner, size) {
    const from = (pool) => below(pick, pool.length - size);
    if (file.endsWith(".webp")) {
      const start = from(noise);
      return noise.subarray(start, start + size);
    }
    const start = from(code);
    const text = `/* ${owner} ${file} */\n${code.slice(start, start + size)}`.slice(0, size);
    if (!file.endsWith(".json")) return text;
    return `{"_":"${text.replace(/["\n]/g, " ")}`.slice(0, size - 2) + '"}';
  };
}

const json = (value) => `${JSON.stringify(value, null, 2)}\n`;

function packageOf(app) {
  return json({
    name: app,
    version: "1.0.0",
    private: true,
    scripts: { build: "node build.mjs", lint: "eslint .", test: "vitest run" },
    dependencies: Object.fromEntries(WORDS.map((name) => [`@acme/${name}`, "^1.0.0"])),
  });
}

const TSCONFIG = json({
  extends: "../../tsconfig.base.json",
  compilerOptions: { baseUrl: ".", paths: { "@/*": ["./*"] } },
  include: ["**/*.ts", "**/*.tsx"],
});

// The base apps' files with their sizes, those of the whole scaled to BASE_BYTES.
function baseFiles(seed) {
  const random = randomFor(`${seed}/base`);
  const files = Object.entries(APPS).flatMap(([app, kinds]) => {
    const taken = new Set();
    return kinds.flatMap(([count, pattern, typical]) =>
      Array.from({ length: count }, () => ({
        app,
        file: newPath(random, pattern, taken),
        size: spread(random, typical),
      })),
    );
  });
  const fixed = Object.keys(APPS).reduce((sum, app) => sum + packageOf(app).length + TSCONFIG.length, 0);
  const scale = (BASE_BYTES - fixed) / files.reduce((sum, { size }) => sum + size, 0);
  for (const file of files) file.size = Math.max(32, Math.round(file.size * scale));
  return files;
}

// The 40 files of one store or template.
function ownFiles(random, base) {
  return OWN.flatMap(({ app, overrides, additions, pattern }) => {
    const inherited = base.filter(({ app: of, file }) => of === app && !NOT_OVERRIDDEN.includes(file));
    const chosen = Array.from({ length: overrides }, () => {
      const [{ file, size }] = inherited.splice(below(random, inherited.length), 1);
      return { app, file, size: Math.max(32, Math.round(size * (0.7 + random() * 0.6))) };
    });
    const taken = new Set(base.filter(({ app: of }) => of === app).map(({ file }) => file));
    const added = Array.from({ length: additions }, () => ({
      app,
      file: newPath(random, pattern, taken),
      size: Math.round(spread(random, 3000)),
    }));
    return [...chosen, ...added];
  });
}

/**
 * Writes the project into `folder` and commits it.
 *
 * Returns the ids of the deployable stores, a base file that no store
 * overrides, and a store with a frontend file that it overrides; the last
 * commit changes both files. They are `{ app, file, source }`, `source`
 * relative to `folder`.
 */
function generate(folder, { stores = 100, seed = 1 } = {}) {
  const folders = new Set();
  function write(file, content) {
    const full = path.join(folder, file);
    const parent = path.dirname(full);
    if (!folders.has(parent)) {
      fs.mkdirSync(parent, { recursive: true });
      folders.add(parent);
    }
    fs.writeFileSync(full, content);
  }

  const content = contents(seed);
  const base = baseFiles(seed);
  const random = randomFor(`${seed}/base contents`);
  for (const { app, file, size } of base) write(`apps/${app}/${file}`, content(random, file, "base", size));
  for (const app of Object.keys(APPS)) {
    write(`apps/${app}/package.json`, packageOf(app));
    write(`apps/${app}/tsconfig.json`, TSCONFIG);
  }

  function writeStore(id, place) {
    const pick = randomFor(`${seed}/${id}`);
    const files = ownFiles(pick, base);
    for (const { app, file, size } of files) write(`${place}/${app}/${file}`, content(pick, file, id, size));
    return files[0];
  }
  const template = (number) => `brand-${number % TEMPLATES}`;
  for (let number = 0; number < TEMPLATES; number++) {
    writeStore(template(number), `apps/stores/${template(number)}`);
  }
  const ids = Array.from({ length: stores }, (_, number) => `store-${String(number).padStart(4, "0")}`);
  const overrides = ids.map((id, number) => {
    const place = `apps/stores/${template(number)}/stores/${id}`;
    const { app, file } = writeStore(id, place);
    return { id, app, file, source: `${place}/${app}/${file}` };
  });

  const deployment = (id) => ({ projectName: `acme-${id}`, cloudRegion: "europe-west1", framework: "nextjs" });
  write(
    "alokai.config.json",
    json({ stores: Object.fromEntries(ids.map((id) => [id, { deployment: deployment(id) }])) }),
  );
  write("package.json", json({ name: "acme", private: true, workspaces: ["apps/*"] }));
  write("tsconfig.base.json", json({ compilerOptions: { strict: true, module: "esnext" } }));
  write(".gitignore", "node_modules/\n.out/\n.alokai/\n");

  const git = gitIn(folder);
  git("init", "-q", "-b", "main");
  git("add", "-A");
  git("commit", "-qm", "The project");
  const file = NOT_OVERRIDDEN[2];
  const shared = { app: FRONTEND, file, source: `apps/${FRONTEND}/${file}` };
  const store = overrides[stores >> 1];
  for (const { source } of [shared, store]) fs.appendFileSync(path.join(folder, source), "// changed\n");
  git("commit", "-qam", "One file of a store, one of the base");
  // One pack, as in a clone.
  git("repack", "-adq");
  return { ids, shared, store };
}

// git without this user's settings and hooks, and at one fixed time. Its
// maintenance would run on beside what is measured.
function gitIn(cwd) {
  const person = { NAME: "bench", EMAIL: "bench@localhost", DATE: "2026-01-01T12:00:00Z" };
  const env = { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };
  for (const [key, value] of Object.entries(person)) {
    env[`GIT_AUTHOR_${key}`] = env[`GIT_COMMITTER_${key}`] = value;
  }
  const quiet = ["-c", "maintenance.auto=false", "-c", "gc.auto=0"];
  return (...command) => execFileSync("git", [...quiet, ...command], { cwd, env, stdio: ["ignore", "ignore", "inherit"] });
}

module.exports = { generate };

if (require.main === module) {
  const [folder, stores, seed] = process.argv.slice(2);
  if (!folder) {
    console.error("usage: generate-project.js <empty folder> [stores] [seed]");
    process.exit(2);
  }
  fs.mkdirSync(folder, { recursive: true });
  const { ids, shared, store } = generate(folder, { stores: Number(stores) || 100, seed: Number(seed) || 1 });
  console.log(json({ stores: ids.length, shared, store }).trimEnd());
}
