// The steps of the GitHub Action in action.yml.
//
//   node action.js install    installs alokai from npm, unless the project has it, and puts it on the PATH
//   node action.js run        runs `alokai store …`; writes outputs and the summary of the job
//
// Inputs come from INPUT_…, and nothing is passed through a shell.
'use strict';

const { spawn, spawnSync } = require('child_process');
const fs = require('fs');
const path = require('path');

const input = (name) => (process.env[`INPUT_${name}`] ?? '').trim();
const isTrue = (name) => input(name) === 'true';

function fail(message) {
  console.log(`::error::${message}`);
  process.exit(2);
}

function install() {
  const own = path.resolve('node_modules/.bin');
  const version = input('VERSION');
  let bin = own;
  if (version || !fs.existsSync(path.join(own, 'alokai'))) {
    const wanted = version || 'latest';
    if (!/^[\w.~^-]+$/.test(wanted)) fail('the input `version` is not a valid version of a package');
    const tools = process.env.RUNNER_TOOL_CACHE || process.env.RUNNER_TEMP;
    const folder = path.join(tools, 'alokai', wanted);
    fs.mkdirSync(folder, { recursive: true });
    const words = ['install', '--no-audit', '--no-fund', '--include=optional', '--prefix', folder];
    const npm = spawnSync('npm', [...words, `alokai@${wanted}`], { stdio: 'inherit' });
    if (npm.status !== 0) fail(`npm cannot install alokai@${wanted}`);
    bin = path.join(folder, 'node_modules/.bin');
  }
  fs.appendFileSync(process.env.GITHUB_PATH, `${bin}\n`);
}

/** The environment of alokai: credentials of inputs win over those of the job. */
function environment() {
  const found = Object.entries(process.env).filter(([name]) => !name.startsWith('INPUT_'));
  const own = Object.fromEntries(found);
  for (const name of ['CLOUD_USERNAME', 'CLOUD_PASSWORD']) {
    if (input(name)) own[`CLI_${name}`] = input(name);
  }
  return own;
}

/** Runs alokai, shows what it prints, and returns its exit code and standard output. */
function alokai(words) {
  return new Promise((resolve) => {
    const child = spawn('alokai', words, { env: environment(), stdio: ['ignore', 'pipe', 'inherit'] });
    // The runner stops a step with signals to this process alone, so they are forwarded.
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part) => {
      text += part;
      process.stdout.write(part);
    });
    child.on('error', (error) => fail(`alokai cannot be started: ${error.message}`));
    child.on('close', (code) => resolve({ code: code ?? 1, text }));
  });
}

function output(name, value) {
  fs.appendFileSync(process.env.GITHUB_OUTPUT, `${name}=${JSON.stringify(value)}\n`);
}

function summary(words, { code, text }) {
  const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  const title = escaped(['alokai', ...words].join(' ').replace(/\s+/g, ' '));
  const result = code === 0 ? '' : `\n\nExit code ${code}; the errors are in the log of the step.`;
  // An empty line ends HTML in Markdown.
  const lines = escaped(text.trim()).replace(/\n(?=\n)/g, '\n&#8203;');
  const block = lines && `\n\n<pre>\n${lines}\n</pre>`;
  fs.appendFileSync(process.env.GITHUB_STEP_SUMMARY, `<h3><code>${title}</code></h3>${block}${result}\n\n`);
}

/** The references of images are the words of the summary that stand alone in their lines. */
function references(text) {
  return text.split('\n').filter((line) => /^\S+:[0-9a-f]{40}(-dirty-[0-9a-f]{8})?$/.test(line));
}

async function run() {
  const since = input('SINCE') ? [`--since=${input('SINCE')}`] : [];
  const more = input('ARGUMENTS').split('\n').map((line) => line.trim()).filter(Boolean);
  const command = input('COMMAND');
  const asksForChanged = command === 'changed';
  const words = ['store', command];
  if (isTrue('CHANGED') || asksForChanged) {
    const question = ['store', 'changed', '--condensed', ...since, ...(asksForChanged ? more : [])];
    const answer = await alokai(question);
    summary(question, answer);
    if (answer.code !== 0) process.exit(answer.code);
    const changed = JSON.parse(answer.text);
    output('changed', changed);
    if (asksForChanged) return;
    if (!changed.length) return output('references', []);
    words.push(`--store=${changed.join(',')}`);
  } else if (isTrue('ALL')) {
    words.push('--all');
  } else if (input('STORES')) {
    words.push(`--store=${input('STORES')}`);
  }
  words.push(...more);
  const answer = await alokai(words);
  output('references', references(answer.text));
  summary(words, answer);
  process.exit(answer.code);
}

({ install, run })[process.argv[2]]();
