// The SBOM of the program as CycloneDX 1.5: the crates that are linked into it on any of the systems of a
// release, with licenses, checksums and dependencies. This is a script because cargo already has the graph, and
// the crates that write SBOMs take longer to compile than the program's own code.
//
//   node sbom.js > alokai.cdx.json
'use strict';

const { execFileSync } = require('child_process');
const fs = require('fs');
const path = require('path');

const root = path.resolve(__dirname, '../..');
const targets = [
  'x86_64-unknown-linux-gnu',
  'aarch64-unknown-linux-gnu',
  'x86_64-apple-darwin',
  'aarch64-apple-darwin',
];

const graph = JSON.parse(
  execFileSync(
    'cargo',
    ['metadata', '--format-version', '1', '--locked', ...targets.flatMap((one) => ['--filter-platform', one])],
    { cwd: root, maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'inherit'] },
  ),
);
const packages = new Map(graph.packages.map((one) => [one.id, one]));
const nodes = new Map(graph.resolve.nodes.map((one) => [one.id, one]));

// The checksums are only in the lock file.
const lock = fs.readFileSync(path.join(root, 'Cargo.lock'), 'utf8');
const checksums = new Map();
for (const block of lock.split('[[package]]')) {
  const field = (name) => new RegExp(`^${name} = "(.*)"$`, 'm').exec(block)?.[1];
  if (field('checksum')) checksums.set(`${field('name')}@${field('version')}`, field('checksum'));
}

/** The crates that a crate links: neither tests' nor build scripts'. */
const linked = (id) =>
  nodes
    .get(id)
    .deps.filter(({ dep_kinds: kinds }) => kinds.some(({ kind }) => kind === null))
    .map(({ pkg }) => pkg);

const own = graph.packages.find((one) => one.name === 'alokai').id;
const found = new Set([own]);
for (const id of found) for (const next of linked(id)) found.add(next);

const purl = (id) => {
  const { name, version } = packages.get(id);
  return `pkg:cargo/${name}@${version}`;
};
const component = (id, type) => {
  const one = packages.get(id);
  const checksum = checksums.get(`${one.name}@${one.version}`);
  return {
    type,
    'bom-ref': purl(id),
    name: one.name,
    version: one.version,
    ...(one.description && { description: one.description.trim().replace(/\s+/g, ' ') }),
    ...(one.license && { licenses: [{ expression: one.license.replaceAll('/', ' OR ') }] }),
    ...(checksum && { hashes: [{ alg: 'SHA-256', content: checksum }] }),
    purl: purl(id),
  };
};

const ids = [...found].sort((a, b) => (purl(a) < purl(b) ? -1 : 1));
const document = {
  bomFormat: 'CycloneDX',
  specVersion: '1.5',
  version: 1,
  metadata: { component: component(own, 'application') },
  components: ids.filter((id) => id !== own).map((id) => component(id, 'library')),
  dependencies: ids.map((id) => ({ ref: purl(id), dependsOn: [...new Set(linked(id).map(purl))].sort() })),
};
process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
