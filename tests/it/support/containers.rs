//! Containers of the engine: what they see, and what they answer.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::docker;

/// What lies at a path, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub content: Thing,
    pub mode: u32,
    pub owner: (u64, u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    Folder,
    File(Vec<u8>),
    Link(String),
    Other,
}

pub type Tree = BTreeMap<String, Node>;

/// All that a container of an image would see.
pub fn tree_of(image: &str) -> Tree {
    let container = docker(&["create", image, "nothing"]);
    let mut export = Command::new("docker")
        .args(["export", &container])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tree = Tree::new();
    let mut archive = tar::Archive::new(export.stdout.take().unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry
            .path()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let content = match entry.header().entry_type() {
            tar::EntryType::Directory => Thing::Folder,
            tar::EntryType::Symlink => {
                let target = entry.link_name().unwrap().unwrap();
                Thing::Link(target.to_str().unwrap().to_owned())
            }
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                Thing::File(bytes)
            }
            _ => Thing::Other,
        };
        let header = entry.header();
        let node = Node {
            content,
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
        };
        tree.insert(path, node);
    }
    assert!(export.wait().unwrap().success());
    docker(&["rm", "--volumes", &container]);
    tree
}

/// Containers that end with the test.
#[derive(Default)]
pub struct Containers(Vec<String>);

impl Containers {
    /// Runs an image, and gives the port of the loopback where its own port is published.
    pub fn run(&mut self, image: &str, port: u16, environment: &[&str]) -> u16 {
        let published = format!("127.0.0.1::{port}");
        let mut arguments = vec!["run", "--detach", "--init", "--publish", &published];
        arguments.push("--add-host=host.docker.internal:host-gateway");
        for variable in environment {
            arguments.extend(["--env", variable]);
        }
        arguments.push(image);
        let id = docker(&arguments);
        self.0.push(id.clone());
        let address = docker(&["port", &id, &format!("{port}/tcp")]);
        address
            .lines()
            .next()
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    pub fn last(&self) -> &str {
        self.0.last().unwrap()
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for id in &self.0 {
            let _ = Command::new("docker").args(["rm", "--force", id]).output();
        }
    }
}

/// The page, as soon as it answers, which has to be within five seconds.
pub fn page(port: u16, path: &str) -> String {
    let start = Instant::now();
    loop {
        let url = format!("http://127.0.0.1:{port}{path}");
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--location",
                "--noproxy",
                "*",
                "--max-time",
                "5",
                &url,
            ])
            .output()
            .unwrap();
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{url} does not answer: {error}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
