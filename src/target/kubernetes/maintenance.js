const page = require("fs").readFileSync(process.env.PAGE);
const headers = {
  "content-type": "text/html; charset=utf-8",
  "content-length": page.length,
  "retry-after": "60",
  "cache-control": "no-store",
  // A reused connection still shows the page after the maintenance.
  connection: "close",
};
const server = require("http").createServer((request, response) => {
  // A body that is not read can end the connection before the answer has arrived.
  request.resume().on("end", () => response.writeHead(503, headers).end(page));
});
// Proxies send requests to this pod for a moment after SIGTERM.
process.on("SIGTERM", () => setTimeout(() => process.exit(), 10000));
server.listen(Number(process.env.PORT));
