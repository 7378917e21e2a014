// A registry of npm packages on the loopback, as far as npm, yarn and pnpm ask one: publishing, the
// document of a package, its tarballs, and its tags. It keeps everything in memory.
//
//   node npm-registry.js     prints its address; ends with its standard input
'use strict';

const http = require('http');

const packages = new Map(); // name -> document
const tarballs = new Map(); // path -> bytes

function publish(name, body) {
  const known = packages.get(name) ?? { name, 'dist-tags': {}, versions: {}, time: {} };
  for (const [file, { data }] of Object.entries(body._attachments)) {
    tarballs.set(`/${name}/-/${file}`, Buffer.from(data, 'base64'));
  }
  for (const [version, manifest] of Object.entries(body.versions)) {
    if (known.versions[version]) return 409;
    // Where clients look for a tarball is derived from the address by which they asked.
    const file = new URL(manifest.dist.tarball).pathname.split('/-/')[1];
    known.versions[version] = { ...manifest, dist: { ...manifest.dist, tarball: `/${name}/-/${file}` } };
    known.time[version] = new Date(0).toISOString();
  }
  Object.assign(known['dist-tags'], body['dist-tags']);
  packages.set(name, known);
  return 201;
}

function document(name, host) {
  const known = structuredClone(packages.get(name));
  for (const { dist } of Object.values(known.versions)) {
    dist.tarball = `http://${host}${dist.tarball}`;
  }
  return known;
}

function answer(request, body) {
  const path = decodeURIComponent(new URL(request.url, 'http://registry').pathname);
  const name = path.slice(1);
  if (request.method === 'PUT' && !name.startsWith('-/')) {
    if (!request.headers.authorization) return [401, { error: 'log in first' }];
    return [publish(name, JSON.parse(body)), { ok: true }];
  }
  const tags = /^-\/package\/(.*)\/dist-tags$/.exec(name)?.[1];
  if (tags && packages.has(tags)) return [200, packages.get(tags)['dist-tags']];
  if (tarballs.has(path)) return [200, tarballs.get(path)];
  if (packages.has(name)) return [200, document(name, request.headers.host)];
  return [404, { error: 'not found' }];
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const [status, content] = answer(request, Buffer.concat(parts));
    const isTarball = Buffer.isBuffer(content);
    const type = isTarball ? 'application/octet-stream' : 'application/json';
    response.writeHead(status, { 'content-type': type });
    response.end(isTarball ? content : JSON.stringify(content));
  });
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
process.stdin.on('end', () => process.exit(0)).resume();
