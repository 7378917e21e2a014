// Many stores that become live in one deploy: the time of the stage that makes them live, and how much of
// it is this program's own. Apps and images are made in earlier stages, which are not measured.

const { spawn, spawnSync } = require("child_process");
const fs = require("fs");
const path = require("path");

const { smallStores, FRONTEND, MIDDLEWARE } = require("./small-stores.js");

const LIMIT = 2;
const COUNTS = [20, 200];
const PREPARED = { image: { dockerfile: "Dockerfile.scratch" } };
const DOCKERFILE = `FROM scratch
WORKDIR /app
COPY ./.deploy/ ./
ENTRYPOINT ["sh", "-c", "exec node $(ls server.js lib/index.js 2>/dev/null)"]
`;

// A target that has a file for each store and no process of its own: a shell without children.
// Its healthy app is one server for all stores.
const STUB = (port) => `#!/bin/sh
read -r input
store=\${input#*'"store":"'} store=\${store%%'"'*}
release=\${input#*'"id":"'} release=\${release%%'"'*}
active=.alokai/stub/$store
case $1 in
  capabilities) echo '{"staging":true,"seamless":true,"drain":true,"observes":true,"locks":true}' ;;
  observe)
    now=null
    if [ -e "$active" ]; then read -r now <"$active"; now="\\"$now\\""; fi
    echo "{\\"active\\":$now,\\"addresses\\":[\\"http://127.0.0.1:${port}\\"]}" ;;
  lock) echo '{"taken":true}' ;;
  stage) echo '{"replicas":[{"app":"${FRONTEND}","address":"http://127.0.0.1:${port}"},{"app":"${MIDDLEWARE}","address":"http://127.0.0.1:${port}"}]}' ;;
  switch) echo "$release" >"$active"; echo '{"switched":true}' ;;
  drained) echo '{"open":0}' ;;
esac
`;

// A server that answers everything, as an app of the target \`local\`.
const SERVER = 'require("http").createServer((_, response) => response.end("ok")).listen(process.env.PORT);\n';
const SERVERS = {
  [FRONTEND]: `fs.writeFileSync(folder + "/server.js", ${JSON.stringify(SERVER)});`,
  [MIDDLEWARE]: `fs.writeFileSync("lib/index.js", ${JSON.stringify(SERVER)});`,
};

module.exports = async ({ alokai, work, say, row, judged }) => {
  const tick = Number(spawnSync("getconf", ["CLK_TCK"], { encoding: "utf8" }).stdout);

  // Seconds of processor time of a process, without its children.
  function used(pid) {
    try {
      const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
      return (Number(fields[11]) + Number(fields[12])) / tick;
    } catch {
      return 0;
    }
  }

  // The background process of the target \`local\`.
  function background(project) {
    const socket = path.join(project, ".alokai/local/socket");
    if (!fs.existsSync(socket)) return null;
    for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      try {
        const words = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        if (fs.readlinkSync(`/proc/${pid}/cwd`) === project && words[0].endsWith("alokai") && !words.includes("deploy")) return pid;
      } catch {
        // It has ended meanwhile, or it belongs to another user.
      }
    }
    return null;
  }

  // Runs a deploy. Returns the duration of its last stage, and the program's own processor time in it.
  function deploy(project, rest, env) {
    return new Promise((resolve, reject) => {
      const child = spawn(alokai, ["store", "deploy", "--all", "--json", ...rest], { cwd: project, env: { ...process.env, ...env } });
      let own = 0;
      let result = null;
      let unread = "";
      const errors = [];
      child.stderr.on("data", (data) => errors.push(data));
      child.stdout.on("data", (data) => {
        const lines = (unread + data).split("\n");
        unread = lines.pop();
        for (const line of lines.filter((it) => it.startsWith("{"))) {
          const event = JSON.parse(line);
          if (event.stage !== "deploy") continue;
          if (event.event === "stage-started") own = used(child.pid) + used(background(project));
          if (event.event === "stage-finished") result = { wall: event.seconds, own: used(child.pid) + used(background(project)) - own };
        }
      });
      child.on("close", (code) => {
        if (code === 0 && result) resolve(result);
        else reject(new Error(`the deploy ended with ${code}: ${Buffer.concat(errors).toString().slice(-2000)}`));
      });
    });
  }

  // An image layout as the registry, so that no other process uses processor time.
  function registry(project) {
    const layout = path.join(project, "..", `${path.basename(project)}-layout`);
    fs.mkdirSync(path.join(layout, "blobs/sha256"), { recursive: true });
    fs.writeFileSync(path.join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    fs.writeFileSync(path.join(layout, "index.json"), '{"schemaVersion":2,"manifests":[]}');
    return { CLI_DOCKER_REGISTRY_URL: `oci:${layout}`, CLI_CONSOLE_API_URL: "http://127.0.0.1:9" };
  }

  const server = spawn(process.execPath, ["-e", `
    const server = require("http").createServer((_, response) => response.end("ok"));
    server.listen(0, "127.0.0.1", () => console.log(server.address().port));
  `]);
  const port = await new Promise((resolve) => server.stdout.once("data", (data) => resolve(String(data).trim())));
  try {
    for (const stores of COUNTS) {
      say(`${stores} stores, target command`);
      const project = path.join(work, `command-${stores}`);
      const deployed = { target: "command", command: ["sh", "target.sh"], watch: 0 };
      smallStores(project, stores, { ...PREPARED, deploy: deployed });
      fs.mkdirSync(path.join(project, ".alokai/stub"), { recursive: true });
      fs.writeFileSync(path.join(project, "target.sh"), STUB(port));
      const env = registry(project);
      await deploy(project, ["--allow-dirty"], env);
      const again = await deploy(project, ["--allow-dirty"], env);
      report(`${stores} stores at \`command\``, stores, again, "a shell script answers every verb");
    }
    for (const stores of COUNTS) {
      say(`${stores} stores, target local`);
      const project = path.join(work, `local-${stores}`);
      smallStores(project, stores, { ...PREPARED, deploy: { watch: 0 } }, SERVERS);
      fs.writeFileSync(path.join(project, "Dockerfile.scratch"), DOCKERFILE);
      const env = registry(project);
      try {
        const first = await deploy(project, ["--local", "--allow-dirty"], env);
        report(`${stores} stores at \`local\``, stores, first, "each app is a small Node server; the background process included");
      } finally {
        spawnSync(alokai, ["store", "stop"], { cwd: project, stdio: "ignore" });
      }
    }
  } finally {
    server.kill();
  }

  function report(what, stores, { wall, own }, how) {
    const target = stores === 200 ? judged(own, LIMIT, " s") : ["-", "-"];
    row(what, `${own.toFixed(2)} s own`, `${wall.toFixed(1)} s in total`, "-", ...target, how);
  }
};
