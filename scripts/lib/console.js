// Stands in for the console, which only its operator can run: a real HTTP server
// that answers the deploy call, and keeps what was sent.
//
//   node console.js <folder>
//
// It listens on a free port of the loopback, prints its address, and writes each
// deploy call to <folder>/<number>.json: method, path, content type and body.

const fs = require("fs");
const http = require("http");
const path = require("path");

const folder = process.argv[2];
if (!folder) {
  console.error("usage: node console.js <folder for the requests>");
  process.exit(2);
}
fs.mkdirSync(folder, { recursive: true });

// The body as JSON, or null where it is not JSON.
function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

let next = 0;
const server = http.createServer(async (request, response) => {
  const answer = (status, value) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(value));
  };
  if (request.method !== "PATCH") return answer(200, { service: "console" });
  const number = next++;
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const document = {
      method: request.method,
      path: request.url.split("?")[0],
      contentType: request.headers["content-type"] ?? null,
      body: parsed(Buffer.concat(chunks).toString("utf8")),
    };
    fs.writeFileSync(path.join(folder, `${number}.json`), `${JSON.stringify(document, null, 2)}\n`);
    answer(200, { status: "accepted" });
  } catch (error) {
    answer(500, { error: error.message });
  }
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
