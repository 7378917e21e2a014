// Writes and packs the npm packages of a release: the launcher, and one package for each platform.
//
//   node npm-packages.js <cargo metadata of this workspace, without dependencies> <programs> <to>
//
// <programs> has one folder for each platform, such as linux-x64, with the file `alokai`. The launcher
// depends on the packages of these platforms. The tarballs are written to <to>. In the list `publish-order`
// the launcher is the last, because its dependencies have to be published first.
'use strict';

const { execFileSync } = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');

const SCOPE = '@alokai-cli';
const NAME = 'alokai';
const root = path.resolve(__dirname, '../..');

const [metadataFile, programs, to] = process.argv.slice(2);
const metadata = JSON.parse(fs.readFileSync(metadataFile, 'utf8'));
const crate = metadata.packages.find((one) => one.name === NAME);
const shared = {
  version: crate.version,
  description: crate.description,
  license: crate.license,
  ...(crate.repository && { repository: { type: 'git', url: `git+${crate.repository}.git` } }),
};

/** Packs a folder with these files and this manifest, and returns the name of the tarball. */
function pack(manifest, files) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'alokai-npm-'));
  try {
    for (const [name, from, mode] of [...files, ['LICENSE', path.join(root, 'LICENSE'), 0o644]]) {
      const file = path.join(folder, name);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.copyFileSync(from, file);
      fs.chmodSync(file, mode);
    }
    fs.writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    const said = execFileSync('npm', ['pack', '--json', '--pack-destination', path.resolve(to)], {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const packed = JSON.parse(said);
    // npm 11 prints a list, npm 12 an object by name.
    return (Array.isArray(packed) ? packed : Object.values(packed))[0].filename;
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

fs.rmSync(to, { recursive: true, force: true });
fs.mkdirSync(to, { recursive: true });
const platforms = fs
  .readdirSync(programs)
  .filter((name) => fs.existsSync(path.join(programs, name, NAME)))
  .sort();
if (!platforms.length) throw new Error(`there is no program in ${programs}`);

const tarballs = platforms.map((platform) => {
  const [system, cpu] = platform.split('-');
  const manifest = {
    name: `${SCOPE}/${platform}`,
    ...shared,
    description: `The program of alokai for ${platform}`,
    os: [system],
    cpu: [cpu],
    files: ['bin'],
    // Yarn's Plug'n'Play keeps packages in archives, from which no program can be executed.
    preferUnplugged: true,
  };
  return pack(manifest, [[`bin/${NAME}`, path.join(programs, platform, NAME), 0o755]]);
});
const launcher = {
  name: NAME,
  ...shared,
  bin: { [NAME]: 'alokai.js' },
  files: ['alokai.js', 'alokai.config.schema.json'],
  engines: { node: '>=18' },
  optionalDependencies: Object.fromEntries(
    platforms.map((platform) => [`${SCOPE}/${platform}`, crate.version]),
  ),
};
tarballs.push(
  pack(launcher, [
    ['alokai.js', path.join(root, 'npm/alokai.js'), 0o755],
    ['README.md', path.join(root, 'npm/README.md'), 0o644],
    // The `$schema` of configs that `alokai init` writes.
    ['alokai.config.schema.json', path.join(root, 'alokai.config.schema.json'), 0o644],
  ]),
);
fs.writeFileSync(path.join(to, 'publish-order'), tarballs.map((name) => `${name}\n`).join(''));
