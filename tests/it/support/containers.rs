//! Containers of the engine: their files and their answers.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::docker;

/// An entry of a tree, with its owner.
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

/// The whole tree of a container of an image.
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

/// Containers that are removed with the test.
#[derive(Default)]
pub struct Containers(Vec<String>);

impl Containers {
    /// Runs an image and returns the port of the loopback on which its port is published.
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

    /// A field of the container that was started last, as a Go template names it.
    pub fn inspect(&self, template: &str) -> String {
        docker(&["inspect", "--format", template, self.last()])
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

/// The page of an app. Fails unless it answers within five seconds.
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
