//! An engine that is reached by TLS and by ssh. The traffic goes through a real HAProxy and a real sshd.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{World, free_port};
use crate::support::{MIDDLEWARE, Project, engine_socket, openssl, output_of};

/// A middleware with a line of output.
const PRINTING: &str = "console.log('the middleware prints');
require('http').createServer((_, answer) => answer.end('middleware\\n')).listen(4000);
";

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server, and waits until it accepts connections.
fn start(command: &mut Command, port: u16) -> Server {
    let started = command.stdin(Stdio::null()).process_group(0).spawn();
    let mut server = Server(started.expect("it is installed"));
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert_eq!(server.0.try_wait().unwrap(), None, "it ended");
        assert!(begun.elapsed() < Duration::from_secs(20), "no connection");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

/// Deploys, reads output and rolls back, all through this engine.
fn live_through(world: &World, project: &Project) {
    project.alokai("store deploy --store us").succeeds();
    assert_eq!(world.page("/"), "texts of us\n\n200");
    let source = format!("apps/{MIDDLEWARE}/src/index.js");
    project.write(&source, PRINTING);
    super::commands::change(project, super::commands::TEXTS, "second texts\n");
    project.alokai("store deploy --store us").succeeds();
    assert_eq!(world.page("/"), "second texts\n\n200");
    let run = project.alokai("store logs --store us").succeeds();
    run.stdout_contains("the middleware prints");
    project.alokai("store rollback --store us").succeeds();
    assert_eq!(world.page("/"), "texts of us\n\n200");
    assert_eq!(super::commands::running(world).lines().count(), 2);
}

/// Makes an authority, and certificates of the server and of a client, with the names of Docker.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let run = |line: &str| openssl(folder, &line.split_whitespace().collect::<Vec<_>>());
    let authority = "req -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem";
    let may = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
    run(&format!("{authority} {key} {may}"));
    for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
        let names = format!("subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n");
        fs::write(folder.join("names"), names).unwrap();
        run(&format!(
            "req -subj /CN={name} -keyout {name}.key -out {name}.csr {key}"
        ));
        let by = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
        run(&format!("x509 -req -in {name}.csr {by} -out {name}.pem"));
    }
    let both = ["server.pem", "server.key"].map(|name| fs::read(folder.join(name)).unwrap());
    fs::write(folder.join("both.pem"), both.concat()).unwrap();
    fs::rename(folder.join("client.key"), folder.join("key.pem")).unwrap();
    fs::rename(folder.join("client.pem"), folder.join("cert.pem")).unwrap();
}

#[test]
fn an_engine_behind_tls_needs_the_certificates_of_docker() {
    let (Some(world), Some(socket)) = (World::new("tls"), engine_socket()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    certificates(at);
    let port = free_port();
    let config = format!(
        "defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen engine
  bind 127.0.0.1:{port} ssl crt {at}/both.pem ca-file {at}/ca.pem verify required
  server engine unix@{socket}
",
        at = at.display(),
    );
    fs::write(at.join("haproxy.cfg"), config).unwrap();
    let mut haproxy = Command::new("haproxy");
    let _haproxy = start(
        haproxy.arg("-db").arg("-f").arg(at.join("haproxy.cfg")),
        port,
    );
    let host = format!("tcp://127.0.0.1:{port}");
    let place = at.to_str().unwrap().to_owned();
    let project = world.project.shallow_clone("10");
    let project = world
        .registry
        .used_by(project, "http://127.0.0.1:9")
        .env("DOCKER_HOST", &host)
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", &place);
    live_through(&world, &project);

    // Without a certificate of the client, by plain TCP, and from a server of another authority.
    let deploy = "store deploy --store us";
    fs::rename(at.join("cert.pem"), at.join("moved.pem")).unwrap();
    let run = project.alokai(deploy).fails_with(3);
    run.stderr_contains("cert.pem");
    run.stderr_contains("DOCKER_CERT_PATH");
    fs::rename(at.join("moved.pem"), at.join("cert.pem")).unwrap();
    fs::rename(at.join("ca.pem"), at.join("moved.pem")).unwrap();
    fs::copy(at.join("cert.pem"), at.join("ca.pem")).unwrap();
    let run = project.alokai(deploy).fails_with(3);
    run.stderr_contains("alokai::docker::unreachable");
    let project = project.env("DOCKER_TLS_VERIFY", "");
    let run = project.alokai(deploy).fails_with(3);
    run.stderr_contains("alokai::docker::unreachable");
    assert_eq!(world.page("/"), "texts of us\n\n200");
}

#[test]
fn an_engine_on_another_machine_is_reached_by_the_systems_ssh() {
    let (Some(world), Some(socket)) = (World::new("ssh"), engine_socket()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let key = |name: &str| {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        output_of(keygen.arg(at.join(name)));
    };
    key("host");
    key("own");
    fs::copy(at.join("own.pub"), at.join("authorized")).unwrap();
    // sshd needs an empty folder for its child processes.
    let _ = fs::create_dir("/run/sshd");
    let port = free_port();
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f", "/dev/null", "-o", "StrictModes=no"])
        .args(["-o", "PidFile=none", "-o", "ListenAddress=127.0.0.1", "-p"])
        .arg(port.to_string())
        .arg("-h")
        .arg(at.join("host"))
        .arg("-o")
        .arg(format!("AuthorizedKeysFile={}/authorized", at.display()))
        .stderr(fs::File::create(at.join("log")).unwrap());
    let _sshd = start(&mut sshd, port);
    // The settings of this user's ssh are not touched.
    let host = fs::read_to_string(at.join("host.pub")).unwrap();
    fs::write(at.join("known"), format!("[127.0.0.1]:{port} {host}")).unwrap();
    let config = format!(
        "UserKnownHostsFile {at}/known\nIdentityFile {at}/own\nIdentitiesOnly yes\n",
        at = at.display()
    );
    fs::write(at.join("config"), config).unwrap();
    let project = world.project.shallow_clone("10");
    let project = world.registry.used_by(project, "http://127.0.0.1:9");
    let ssh = format!(
        "#!/bin/sh\nexec /usr/bin/ssh -F {}/config \"$@\"\n",
        at.display()
    );
    let programs = tempfile::tempdir().unwrap();
    let program = programs.path().join("ssh");
    fs::write(&program, ssh).unwrap();
    output_of(Command::new("chmod").arg("+x").arg(&program));
    let path = std::env::var("PATH").unwrap();
    let user = output_of(Command::new("id").arg("-un"));
    let address = format!("ssh://{}@127.0.0.1:{port}{socket}", user.trim());
    let project = project
        .env("PATH", &format!("{}:{path}", programs.path().display()))
        .env("DOCKER_HOST", &address);
    live_through(&world, &project);

    // The host's key has changed.
    let other = fs::read_to_string(at.join("own.pub")).unwrap();
    fs::write(at.join("known"), format!("[127.0.0.1]:{port} {other}")).unwrap();
    let run = project.alokai("store deploy --store us").fails_with(3);
    run.stderr_contains("Host key verification failed");
    // A wrong user.
    fs::write(at.join("known"), format!("[127.0.0.1]:{port} {host}")).unwrap();
    let project = project.env(
        "DOCKER_HOST",
        &format!("ssh://nobody-here@127.0.0.1:{port}"),
    );
    let run = project.alokai("store deploy --store us").fails_with(3);
    run.stderr_contains("Permission denied");
    let project = project.env("DOCKER_HOST", "ssh://-oProxyCommand=true");
    let run = project.alokai("store deploy --store us").fails_with(3);
    run.stderr_contains("is not a valid address of a Docker engine");
    assert_eq!(world.page("/"), "texts of us\n\n200");
}
