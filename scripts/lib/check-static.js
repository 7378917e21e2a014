// Checks a static program for Linux: it has no interpreter and no shared libraries, and it resolves host names
// by /etc/hosts and DNS in a root without any other program or library.
//
//   node check-static.js <program>
//
// The check of DNS needs root, for port 53. Exit: 0 all checks passed, 1 a check failed.
'use strict';

const { execFileSync, spawn } = require('child_process');
const dgram = require('dgram');
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');

const program = process.argv[2];
const DNS = '127.0.0.77';

function fail(text) {
  console.error(`release: ${text}`);
  process.exit(1);
}

/** Whether an ELF file of 64 bits asks for an interpreter, which loads libraries. */
function hasInterpreter(bytes) {
  const [offset, size, count] = [Number(bytes.readBigUInt64LE(32)), bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  const types = Array.from({ length: count }, (_, at) => bytes.readUInt32LE(offset + at * size));
  return types.includes(3); // PT_INTERP
}

/** Answers every question for an address with 127.0.0.1. */
function nameserver() {
  const socket = dgram.createSocket('udp4');
  socket.on('message', (message, sender) => {
    let end = 12;
    while (message[end]) end += message[end] + 1;
    const isIpv4 = message.readUInt16BE(end + 1) === 1;
    const head = Buffer.from(message.subarray(0, 12));
    head.writeUInt16BE(0x8180, 2);
    [1, isIpv4 ? 1 : 0, 0, 0].forEach((count, at) => head.writeUInt16BE(count, 4 + 2 * at));
    const address = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    const parts = [head, message.subarray(12, end + 5), ...(isIpv4 ? [address] : [])];
    socket.send(Buffer.concat(parts), sender.port, sender.address);
  });
  return new Promise((resolve) => {
    socket.on('error', () => resolve(undefined)).bind(53, DNS, () => resolve(socket));
  });
}

/** Starts a deploy in the root; its checks ask the registry under this name. */
function deploy(root, name, port) {
  const environment = {
    CLI_CLOUD_USERNAME: 'user',
    CLI_CLOUD_PASSWORD: 'password',
    CLI_DOCKER_REGISTRY_URL: `http://${name}:${port}`,
    CLI_CONSOLE_API_URL: `http://${name}:${port}`,
  };
  const words = ['-r', '--root', root, '/alokai', '--cwd', '/project', 'store', 'deploy', '--all', '--allow-insecure'];
  return new Promise((resolve) => {
    let said = '';
    const child = spawn('unshare', words, { env: { PATH: process.env.PATH, ...environment } });
    child.stderr.on('data', (data) => (said += data));
    child.on('close', () => resolve(said));
  });
}

async function main() {
  if (hasInterpreter(fs.readFileSync(program))) fail(`${program} is not static`);
  try {
    execFileSync('unshare', ['-r', 'true'], { stdio: 'ignore' });
  } catch {
    console.error('release: names of hosts are not checked: unshare cannot change the root here');
    return;
  }
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'alokai-static-'));
  process.on('exit', () => fs.rmSync(root, { recursive: true, force: true }));
  const put = (name, text) => {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), text);
  };
  fs.copyFileSync(program, path.join(root, 'alokai'));
  fs.cpSync(path.resolve(__dirname, '../../fixtures/shop'), path.join(root, 'project'), { recursive: true });
  const git = (...words) => execFileSync('git', ['-C', path.join(root, 'project'), ...words], { stdio: 'ignore' });
  git('init', '--quiet');
  git('add', '--all');
  git('-c', 'user.name=Check', '-c', 'user.email=check@example.com', 'commit', '--quiet', '--message', 'The shop');
  put('etc/ssl/certs/ca-certificates.crt', fs.readFileSync('/etc/ssl/certs/ca-certificates.crt'));
  // As in many distributions: modules that are libraries, which a static program cannot load.
  put('etc/nsswitch.conf', 'hosts: files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns\n');

  const asked = new Set();
  const server = http.createServer((request, response) => {
    asked.add(request.headers.host.split(':')[0]);
    response.writeHead(401).end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();

  put('etc/hosts', '127.0.0.1 registry-of-hosts\n');
  put('etc/resolv.conf', '');
  let said = await deploy(root, 'registry-of-hosts', port);
  if (!asked.has('registry-of-hosts')) fail(`${program} does not find a host by /etc/hosts:\n${said}`);
  const socket = await nameserver();
  if (socket) {
    put('etc/resolv.conf', `nameserver ${DNS}\n`);
    said = await deploy(root, 'registry.example', port);
    if (!asked.has('registry.example')) fail(`${program} does not find a host by DNS:\n${said}`);
    socket.close();
  } else {
    console.error('release: DNS is not checked: port 53 cannot be used here');
  }
  server.close();
  console.error(`release: static, and hosts are found by /etc/hosts${socket ? ' and DNS' : ''} in an empty root`);
}

main();
