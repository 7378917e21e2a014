// Checks objects of the kind HTTPRoute, from standard input, by the schema in a folder with the npm package.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const folder = `${process.argv[1]}/node_modules/@kubernetes-models/gateway-api/`;
const { HTTPRoute } = await import(pathToFileURL(`${folder}gateway.networking.k8s.io/v1/index.js`));
for (const route of JSON.parse(readFileSync(0, "utf8"))) new HTTPRoute(route).validate();
