//! A run of the program: its arguments, and what it printed.

use std::process::{Command, Output};

use super::Project;

/// The arguments of a command: one line, which is split at its spaces, or a list of words.
pub trait Arguments: Copy {
    fn words(&self) -> Vec<&str>;
}

impl Arguments for &str {
    fn words(&self) -> Vec<&str> {
        self.split_whitespace().collect()
    }
}

impl Arguments for &String {
    fn words(&self) -> Vec<&str> {
        self.split_whitespace().collect()
    }
}

impl Arguments for &[&str] {
    fn words(&self) -> Vec<&str> {
        self.to_vec()
    }
}

impl Arguments for &Vec<&str> {
    fn words(&self) -> Vec<&str> {
        (*self).clone()
    }
}

impl<const COUNT: usize> Arguments for &[&str; COUNT] {
    fn words(&self) -> Vec<&str> {
        self.to_vec()
    }
}

/// The exit code and the output of a run of the program.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Run {
    /// Fails unless the exit code is 0.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.fails_with(0)
    }

    /// Fails unless this is the exit code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails unless standard error contains this text.
    #[track_caller]
    pub fn stderr_contains(&self, text: &str) -> &Self {
        contains("stderr", &self.stderr, text, true);
        self
    }

    /// Fails if standard error contains this text.
    #[track_caller]
    pub fn stderr_lacks(&self, text: &str) -> &Self {
        contains("stderr", &self.stderr, text, false);
        self
    }

    /// Fails unless standard output contains this text.
    #[track_caller]
    pub fn stdout_contains(&self, text: &str) -> &Self {
        contains("stdout", &self.stdout, text, true);
        self
    }

    /// Fails if standard output contains this text.
    #[track_caller]
    pub fn stdout_lacks(&self, text: &str) -> &Self {
        contains("stdout", &self.stdout, text, false);
        self
    }

    /// The last diagnostic, without what differs from run to run.
    pub fn diagnostic(&self, project: &Project) -> String {
        let start = self.stderr.find("alokai::").unwrap_or(0);
        filtered(&self.stderr[start..], project)
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}:\n{}", self.stdout))
    }
}

#[track_caller]
fn contains(name: &str, output: &str, text: &str, expected: bool) {
    let verb = if expected {
        "does not contain"
    } else {
        "contains"
    };
    assert_eq!(
        output.contains(text),
        expected,
        "{name} {verb} `{text}`:\n{output}"
    );
}

/// A text without what differs from run to run.
pub fn filtered(text: &str, project: &Project) -> String {
    let inputs = |line: &str| match line.split_once(r#""inputs": "sha256:"#) {
        // The version of Node is one of the inputs.
        Some((before, _)) => format!("{before}\"inputs\": \"[digest]\"\n"),
        None => line.to_owned(),
    };
    let text: String = text.split_inclusive('\n').map(inputs).collect();
    let mut text = text.replace(&project.root().display().to_string(), "[project]");
    if project.exists(".git/HEAD") {
        let head = Command::new("git")
            .args(["rev-parse", "--quiet", "--verify", "HEAD"])
            .current_dir(project.root())
            .output();
        let sha = head
            .map(|head| String::from_utf8_lossy(&head.stdout).trim().to_owned())
            .unwrap_or_default();
        if !sha.is_empty() {
            text = text.replace(&sha, "[sha]").replace(&sha[..12], "[sha 12]");
        }
    }
    text
}

/// The standard output of a command of another program; fails unless the command succeeds.
#[track_caller]
pub fn output_of(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
