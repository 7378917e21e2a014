// Asks for a page over eight connections that stay open, until it gets SIGTERM. Then it
// prints how many requests it has sent, and how many of them were lost: those without a
// whole answer with status 200.
//
//   node count-requests.js <address of the page>
//
// The name of the host is not resolved, because not every machine resolves *.localhost.
"use strict";

const http = require("http");

const { hostname, host, port, pathname } = new URL(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
let [sent, lost, ends] = [0, 0, false];

// Asks once. Returns whether the whole page arrived with status 200.
const ask = () =>
  new Promise((done) => {
    const request = http.get({ agent, host: "127.0.0.1", port: port || 80, path: pathname, headers: { host } }, (answer) => {
      answer.on("data", () => {});
      answer.on("end", () => done(answer.statusCode === 200 && answer.complete));
      answer.on("error", () => done(false));
    });
    request.setTimeout(10000, () => request.destroy());
    request.on("error", () => done(false));
  });

const visitor = async () => {
  while (!ends) {
    sent += 1;
    if (!(await ask())) lost += 1;
  }
};

process.on("SIGTERM", () => (ends = true));
Promise.all(Array.from({ length: 8 }, visitor)).then(() => {
  console.log(`${hostname}: ${lost} of ${sent} requests were lost`);
  process.exit(lost === 0 && sent > 0 ? 0 : 1);
});
