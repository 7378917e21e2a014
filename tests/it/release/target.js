// A target for tests: the state of each store is a file, and what a release does is its mood.
const fs = require('fs');

const folder = '.alokai/target';
fs.mkdirSync(folder, { recursive: true });
// A run that is killed leaves its verb running, so tests wait for its end.
const running = `${folder}/running.${process.pid}`;
fs.writeFileSync(running, '');
process.on('exit', () => fs.rmSync(running, { force: true }));
const request = JSON.parse(fs.readFileSync(0, 'utf8'));
const { verb, store, release } = request;
const id = release && (release.id || release);
const read = (file) => {
  try { return JSON.parse(fs.readFileSync(file, 'utf8')); } catch { return undefined; }
};
const replace = (file, value) => {
  const temporary = `${file}.${process.pid}`;
  fs.writeFileSync(temporary, JSON.stringify(value));
  fs.renameSync(temporary, file);
};
const sleep = (milliseconds) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
const setup = read(`${folder}/setup.json`);
const file = `${folder}/${store}.json`;
const state = read(file) || { active: null, token: 0, releases: {}, kept: [], settings: {} };
const mood = (state.releases[id] || {}).mood || (setup.moods || {})[store];
const save = () => replace(file, state);
const fail = (message) => { process.stderr.write(`${message}\n`); process.exit(1); };
if (process.argv[2] !== verb) fail('the verb is also the last argument');
if (process.env.CLI_CLOUD_PASSWORD) fail('the password is in the environment');
if (store) fs.appendFileSync(`${folder}/${store}.log`, `${verb} ${id || ''}\n`);

const lockFile = `${folder}/${store}.lock`;
const holderOf = () => {
  const held = read(lockFile);
  return held && { ...held, over: Date.now() - held.at > held.claim.lease * 1000 };
};
const takeLock = () => {
  const mine = `${lockFile}.${process.pid}`;
  fs.writeFileSync(mine, JSON.stringify({ claim: request.claim, at: Date.now() }));
  const held = holderOf();
  let from = null;
  if (held && held.claim.holder !== request.claim.holder) {
    if (!held.over) return { taken: false, holder: held.claim };
    from = held.claim;
    fs.rmSync(lockFile, { force: true });
  } else if (held) {
    fs.renameSync(mine, lockFile);
    return { taken: true, from: null };
  }
  try { fs.linkSync(mine, lockFile); } catch { return { taken: false, holder: holderOf().claim }; }
  return { taken: true, from };
};

const verbs = {
  capabilities: () => ({
    staging: true, seamless: true, drain: true, observes: true, locks: true, settings: true,
    ...setup.capabilities,
  }),
  preflight: () => (setup.preflight ? fail(setup.preflight) : {}),
  observe: () => (mood === 'deaf' && sleep(60000)) || ({
    active: state.active,
    addresses: [`http://${store}.example`],
    staged: Object.keys(state.releases).filter((it) => it !== state.active)
      .map((it) => ({ release: it, address: `http://${it}.example` })),
    kept: state.kept,
    maintenance: Boolean(state.page),
    token: String(state.token),
  }),
  lock: takeLock,
  unlock: () => {
    const held = holderOf();
    if (held && held.claim.holder === request.holder) fs.rmSync(lockFile);
    return {};
  },
  'lock-holder': () => {
    const held = holderOf();
    // Another run takes the lock as soon as this answer is written.
    if (held && setup.nextHolder) replace(lockFile, { claim: setup.nextHolder, at: held.at });
    return { holder: held && !held.over ? held.claim : null };
  },
  stage: () => {
    if (mood === 'refuses') fail('no room for another release');
    if (mood === 'slow') sleep(1500);
    state.releases[id] ||= { mood, apps: release.apps.map((it) => it.app), images: release.apps.map((it) => it.digest), settings: release.settings };
    state.kept = state.kept.filter((it) => it !== id);
    save();
    const address = ['unhealthy', 'leaks'].includes(mood) ? setup.bad : setup.good;
    if (setup.addressless) return { replicas: [], address: null };
    return { replicas: state.releases[id].apps.map((app) => ({ app, address })), address: `http://${id}.example` };
  },
  switch: () => {
    if ((setup.capabilities || {}).staging === false) {
      state.releases[id] ||= { mood, apps: release.apps.map((it) => it.app), settings: release.settings };
    }
    if (!state.releases[id]) fail(`${id} is not staged`);
    if (mood === 'loses') { state.token += 1; save(); }
    if (String(state.token) !== request.token) return { switched: false };
    state.active = id;
    state.token += 1;
    save();
    if (mood === 'hangs') sleep(3000);
    if (mood === 'silent') fail('the connection was lost');
    return { switched: true };
  },
  drained: () => ({ open: mood === 'busy' ? 3 : 0 }),
  retire: () => {
    if (state.active === id) fail(`${id} gets the traffic`);
    delete state.releases[id];
    state.kept = state.kept.filter((it) => it !== id);
    if (request.kept) state.kept.push(id);
    save();
    return {};
  },
  health: () => {
    const values = state.settings[(state.releases[id] || {}).settings] || {};
    const leak = `pin ${values.PIN} ${values.KEY} ${values.TOK}`.split('\n');
    const ended = mood === 'ends' || mood === 'leaks' || (mood === 'dies' && state.active === id);
    const tail = mood === 'leaks' ? leak : Array.from({ length: 50 }, (_, number) => `line ${number + 1} of the app`);
    return {
      apps: ((state.releases[id] || {}).apps || []).map((app) => ({
        app, running: !ended, ended: ended ? 'exited with code 3' : null,
        restarts: mood === 'restarts' && state.active === id ? Date.now() % 1000000000 : 0, tail,
      })),
    };
  },
  'store-settings': () => {
    state.settings[request.version] ||= request.settings;
    save();
    return {};
  },
  settings: () => ({ settings: state.settings[request.version] || null }),
  maintenance: () => {
    state.page = request.page;
    save();
    return {};
  },
};
// One line for each app, the last app first. Followed, it prints a line whenever it can.
const logs = () => {
  const { apps, settings } = state.releases[id];
  const { KEY } = state.settings[settings] || {};
  const print = (line) => fs.writeSync(1, `${JSON.stringify(line)}\n`);
  const wanted = apps.filter((it) => !request.app || it === request.app);
  wanted.reverse().forEach((app, number) => {
    const at = `2026-01-02T03:04:0${9 - number}Z`;
    if (request.since && Date.parse(at) < Date.parse(request.since)) return;
    print({ app, replica: number + 1, at, line: `key ${KEY} \u001b[31mtoken ${setup.token}` });
  });
  while (request.follow) {
    print({ app: wanted[0], at: new Date().toISOString(), line: `${id} goes on` });
    sleep(50);
  }
  if (mood === 'silent') fail('the output was lost');
};
if (verb === 'logs' && (setup.capabilities || {}).logs) logs();
else if (!verbs[verb]) process.exit(64);
else process.stdout.write(JSON.stringify(verbs[verb]()));
