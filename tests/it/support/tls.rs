//! A registry over TLS with a certificate of an unknown authority.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::output_of;

/// A registry over TLS without a login, which is stopped with the test.
pub struct TlsRegistry {
    /// Host and port.
    pub address: String,
    /// The certificate of the authority as PEM.
    pub ca: PathBuf,
    folder: tempfile::TempDir,
    child: Child,
}

pub fn openssl(folder: &Path, arguments: &[&str]) {
    output_of(Command::new("openssl").args(arguments).current_dir(folder));
}

/// Makes an authority and its certificate for the loopback.
fn certificates(folder: &Path) {
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=test authority"];
    let to = ["-keyout", "ca.key", "-out", "ca.crt"];
    let may = [
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ];
    openssl(folder, &[&ca[..], &key, &to, &may].concat());
    let request = [
        "req",
        "-subj",
        "/CN=localhost",
        "-keyout",
        "own.key",
        "-out",
        "own.csr",
    ];
    openssl(folder, &[&request[..], &key].concat());
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
    std::fs::write(folder.join("names"), names).expect("it is ours");
    let signed = [
        "x509",
        "-req",
        "-in",
        "own.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-days",
        "2",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "own.crt",
    ];
    openssl(folder, &signed);
}

impl TlsRegistry {
    /// Starts an empty registry, or returns `None` if the program is not installed.
    pub fn start() -> Option<Self> {
        let is_there = |program: &str| {
            let mut which = Command::new("which");
            which.arg(program).stdout(Stdio::null());
            which.status().is_ok_and(|status| status.success())
        };
        if !is_there("docker-registry") || !is_there("openssl") {
            let required = std::env::var("ALOKAI_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
            assert!(!required, "no docker-registry, or no openssl");
            println!("skipped: no docker-registry, or no openssl");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        certificates(folder.path());
        // The port is free now, and no other process is likely to take it meanwhile.
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let config = format!(
            "version: 0.1\nlog: {{ level: warn, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: '{0}/data' }} }}\n\
             http: {{ addr: '{address}', tls: {{ certificate: '{0}/own.crt', key: '{0}/own.key' }} }}\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("registry.yml"), config).expect("it is ours");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("registry.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self {
            ca: folder.path().join("ca.crt"),
            address,
            folder,
            child,
        };
        registry.wait();
        Some(registry)
    }

    /// Waits until curl gets an answer.
    fn wait(&self) {
        let begun = Instant::now();
        let asks = || {
            let mut curl = Command::new("curl");
            curl.args([
                "--silent",
                "--fail",
                "--noproxy",
                "*",
                "--output",
                "/dev/null",
            ])
            .arg("--cacert")
            .arg(&self.ca)
            .arg(format!("https://{}/v2/", self.address));
            curl.status().expect("curl runs").success()
        };
        while !asks() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The bytes of a blob on the disk of the registry.
    pub fn stored(&self, hex: &str) -> Option<Vec<u8>> {
        let blobs = "data/docker/registry/v2/blobs/sha256";
        let path = format!("{blobs}/{}/{hex}/data", &hex[..2]);
        std::fs::read(self.folder.path().join(path)).ok()
    }
}

impl Drop for TlsRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
