#!/usr/bin/env node
// Starts the program for the platform of this machine. The program is in a package of its own.
'use strict';

// A terminal sends a signal to the whole process group, and `kill` sends it to one process. Node does not
// report the sender, so every signal is forwarded. The program ignores a signal that is repeated within a
// short time.
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];

const platform = `${process.platform}-${process.arch}`;

/** The package with the program of a platform; undefined if there is none. */
function packageOf(manifest, platform) {
  return Object.keys(manifest.optionalDependencies).find((name) => name.endsWith(`/${platform}`));
}

/** Why there is no program, and what to do. */
function explanation(manifest, name) {
  if (!name) {
    const known = Object.keys(manifest.optionalDependencies).map((name) => name.split('/')[1]);
    return `alokai: this platform, ${platform}, is not supported. Supported platforms: ${known.join(', ')}

To use alokai without npm, build it from its source: \`cargo install --locked --path .\`
`;
  }
  const wanted = `${name}@${manifest.version}`;
  return `alokai: the package ${wanted} is not installed

It contains the program for ${platform}, and is an optional dependency of alokai. It is missing if
optional dependencies are left out, or if node_modules or the lock file is from another system.

To install it:
  npm     npm install --include=optional --no-save ${wanted}
  yarn 1  yarn install --force
  yarn 4  yarn config set supportedArchitectures --json '{"os":["current"],"cpu":["current"]}' && yarn install
  pnpm    pnpm install --force

If npm leaves it out again, the lock file does not list it:
  npm     rm -rf node_modules package-lock.json && npm install --include=optional
`;
}

/** The path of the program. Without one, prints why and ends with exit code 3. */
function program() {
  const manifest = require('./package.json');
  const name = packageOf(manifest, platform);
  try {
    if (name) return require.resolve(`${name}/bin/alokai`);
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
  }
  process.stderr.write(explanation(manifest, name));
  process.exit(3);
}

function start(path) {
  const child = require('child_process').spawn(path, process.argv.slice(2), { stdio: 'inherit' });
  const forward = (signal) => child.kill(signal);
  for (const signal of SIGNALS) process.on(signal, forward);
  child.on('error', (error) => {
    process.stderr.write(`alokai: cannot start ${path}: ${error.message}\n`);
    process.exit(3);
  });
  child.on('exit', (code, signal) => {
    if (!signal) process.exit(code);
    // This process ends with the same signal, so that its parent can read how the program ended.
    for (const signal of SIGNALS) process.off(signal, forward);
    process.kill(process.pid, signal);
    // Node ignores some signals. A shell reports a signal with this exit code.
    setTimeout(() => process.exit(128 + (require('os').constants.signals[signal] ?? 0)), 100);
  });
}

start(program());
