// One list of tokens, three readers: style sheets, scripts and the type checker.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const read = (name) => readFileSync(new URL(name, import.meta.url), "utf8");
const write = (name, text) => writeFileSync(new URL(`dist/${name}`, import.meta.url), text);
const kebab = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

const tokens = JSON.parse(read("tokens.json"));
const variables = Object.entries(tokens).map(([name, value]) => `  --${kebab(name)}: ${value};\n`);
const types = Object.keys(tokens).map((name) => `  ${name}: string;\n`);

mkdirSync(new URL("dist/", import.meta.url), { recursive: true });
write("theme.css", `:root {\n${variables.join("")}}\n\n${read("theme.css")}`);
write("index.js", `export const tokens = ${JSON.stringify(tokens, null, 2)};\n`);
write("index.d.ts", `export interface Tokens {\n${types.join("")}}\nexport declare const tokens: Tokens;\n`);
