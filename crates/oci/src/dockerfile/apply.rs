//! Applies a parsed Dockerfile to a base image.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::config::{ImageConfig, is_signal, ports};
use super::context::BuildContext;
use super::copy::copy;
use super::error::Error;
use super::instruction::{
    ContainerCommand, CopyInstruction, Instruction, InstructionLine, SourceLine,
};
use super::tree::{ImageTree, resolve};
use super::words::expand;
use crate::{BaseTree, FileOwner, TreeEntry};

/// A Dockerfile of one stage that runs no commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedDockerfile {
    pub(super) base: Option<String>,
    pub(super) platform: Option<String>,
    pub(super) escape: char,
    pub(super) from: SourceLine,
    pub(super) lines: Vec<InstructionLine>,
    /// Arguments before `FROM`; the stage sees those that it declares with `ARG`.
    pub(super) globals: BTreeMap<String, Option<String>>,
}

/// What a Dockerfile changes in its base image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageChanges {
    /// The base image's config with its `config` section and `author` changed. `rootfs`, `history`
    /// and `created` are still those of the base image.
    pub config: Value,
    /// The entries of the new layer: each path once, folders before their content. Folders of
    /// the base image in which an entry is added are included unchanged. Empty where the
    /// Dockerfile adds no files and folders.
    pub entries: Vec<TreeEntry>,
    /// An entry for each instruction after `FROM`.
    pub history: Vec<HistoryEntry>,
}

/// An instruction in an image's `history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The instruction with its variables expanded: `USER node`.
    pub created_by: String,
    /// Whether no layer belongs to the instruction. The layer belongs to the last instruction
    /// that can add files.
    pub empty_layer: bool,
}

impl ParsedDockerfile {
    /// The base image, arguments expanded. `None` for `scratch`.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The value of `FROM --platform`.
    pub fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }

    /// Applies the instructions to a base image: its config (`null` for `scratch`) and its tree.
    pub fn apply(
        &self,
        base: &Value,
        tree: &BaseTree,
        context: &BuildContext,
    ) -> Result<ImageChanges, Error> {
        let config = ImageConfig::new(base)?;
        if let Some(trigger) = config.triggers()?.first() {
            let why = format!("the base image has `ONBUILD {}`", trigger.escape_debug());
            return Err(self.from.refuse(why).into());
        }
        let mut stage = StageState {
            dockerfile: self,
            config,
            tree: ImageTree::new(tree),
            context,
            arguments: BTreeMap::new(),
            has_command: false,
        };
        let mut history = Vec::new();
        for InstructionLine { line, instruction } in &self.lines {
            history.push(HistoryEntry {
                created_by: stage.apply(line, instruction)?,
                empty_layer: true,
            });
        }
        let entries = stage.tree.entries();
        let adds_files = |line: &InstructionLine| {
            matches!(
                line.instruction,
                Instruction::Copy(_) | Instruction::Workdir(_)
            )
        };
        if !entries.is_empty()
            && let Some(last) = self.lines.iter().rposition(adds_files)
        {
            history[last].empty_layer = false;
        }
        Ok(ImageChanges {
            config: stage.config.end(),
            entries,
            history,
        })
    }
}

/// The image after the instructions that were applied so far.
struct StageState<'a> {
    dockerfile: &'a ParsedDockerfile,
    config: ImageConfig,
    tree: ImageTree<'a>,
    context: &'a BuildContext,
    /// Arguments that the stage has declared.
    arguments: BTreeMap<String, Option<String>>,
    /// Whether this Dockerfile has a `CMD`. An `ENTRYPOINT` removes only the base image's `CMD`.
    has_command: bool,
}

impl StageState<'_> {
    /// Applies one instruction and returns it with its variables expanded.
    fn apply(&mut self, line: &SourceLine, instruction: &Instruction) -> Result<String, Error> {
        match instruction {
            Instruction::Arg(arguments) => self.arg(line, arguments),
            Instruction::Env(pairs) => self.env(line, pairs),
            Instruction::Label(pairs) => self.label(line, pairs),
            Instruction::Expose(words) => self.expose(line, words),
            Instruction::Workdir(path) => self.workdir(line, path),
            Instruction::User(name) => {
                let name = self.expand(line, name)?;
                self.config.set("User", name.as_str());
                Ok(format!("USER {name}"))
            }
            Instruction::StopSignal(signal) => self.stop_signal(line, signal),
            Instruction::Volume(paths) => self.volume(line, paths),
            Instruction::Copy(instruction) => self.copy(line, instruction),
            Instruction::Entrypoint(command) => {
                let words = self.command(command)?;
                self.config.set("Entrypoint", words);
                if !self.has_command {
                    self.config.remove("Cmd");
                }
                Ok(format!("ENTRYPOINT {command}"))
            }
            Instruction::Cmd(command) => {
                let words = self.command(command)?;
                self.config.set("Cmd", words);
                self.has_command = true;
                Ok(format!("CMD {command}"))
            }
            Instruction::Health(health) => {
                self.config.set("Healthcheck", health.value());
                Ok(match &health.command {
                    Some(command) => format!("HEALTHCHECK CMD {command}"),
                    None => "HEALTHCHECK NONE".into(),
                })
            }
            Instruction::Maintainer(name) => {
                self.config.set_author(name);
                Ok(format!("MAINTAINER {name}"))
            }
        }
    }

    fn expand(&self, line: &SourceLine, word: &str) -> Result<String, Error> {
        // Both have a value only where `ENV` follows `ARG`: see `arg`.
        let lookup = |name: &str| match self.config.variable(name) {
            Some(value) => Some(value.to_owned()),
            None => self.arguments.get(name).cloned().flatten(),
        };
        let expanded = expand(word, self.dockerfile.escape, &lookup);
        Ok(expanded.map_err(|why| line.refuse(why))?)
    }

    fn expand_list(&self, line: &SourceLine, words: &[String]) -> Result<Vec<String>, Error> {
        words.iter().map(|word| self.expand(line, word)).collect()
    }

    fn expand_option(
        &self,
        line: &SourceLine,
        word: Option<&String>,
    ) -> Result<Option<String>, Error> {
        word.map(|word| self.expand(line, word)).transpose()
    }

    /// Expands names and values. All words of a line see the values from before the line.
    fn expand_pairs(
        &self,
        line: &SourceLine,
        pairs: &[(String, String)],
    ) -> Result<Vec<(String, String)>, Error> {
        let pair = |(name, value): &(String, String)| {
            Ok((self.expand(line, name)?, self.expand(line, value)?))
        };
        pairs.iter().map(pair).collect()
    }

    fn arg(
        &mut self,
        line: &SourceLine,
        arguments: &[(String, Option<String>)],
    ) -> Result<String, Error> {
        let mut expanded = Vec::new();
        for (name, default) in arguments {
            let name = self.expand(line, name)?;
            expanded.push((name, self.expand_option(line, default.as_ref())?));
        }
        let mut created_by = "ARG".to_owned();
        for (name, default) in expanded {
            created_by.push(' ');
            created_by.push_str(&name);
            if let Some(default) = &default {
                created_by.push('=');
                created_by.push_str(default);
            }
            let global = || self.dockerfile.globals.get(&name).cloned().flatten();
            let value = default.or_else(global);
            if value.is_some() && self.config.variable(&name).is_some() {
                let why = format!(
                    "`{name}` is set by both `ARG` and `ENV`, and the value depends on the Docker builder"
                );
                return Err(line.refuse(why).into());
            }
            self.arguments.insert(name, value);
        }
        Ok(created_by)
    }

    fn env(&mut self, line: &SourceLine, pairs: &[(String, String)]) -> Result<String, Error> {
        let pairs = self.expand_pairs(line, pairs)?;
        if pairs.iter().any(|(name, _)| name.is_empty()) {
            return Err(line.refuse("a variable has no name").into());
        }
        let created_by = joined("ENV", &pairs);
        for (name, value) in pairs {
            self.config.set_variable(&name, value);
        }
        Ok(created_by)
    }

    fn label(&mut self, line: &SourceLine, pairs: &[(String, String)]) -> Result<String, Error> {
        let pairs = self.expand_pairs(line, pairs)?;
        let created_by = joined("LABEL", &pairs);
        for (name, value) in pairs {
            self.config.add("Labels", name, value.into())?;
        }
        Ok(created_by)
    }

    fn expose(&mut self, line: &SourceLine, words: &[String]) -> Result<String, Error> {
        let words = self.expand_list(line, words)?;
        for word in &words {
            let ports = ports(word).ok_or_else(|| {
                let word = word.escape_debug();
                line.refuse(format!("`{word}` is not a port such as `80/tcp`"))
            })?;
            for port in ports {
                self.config.add("ExposedPorts", port, Map::new().into())?;
            }
        }
        Ok(format!("EXPOSE {}", words.join(" ")))
    }

    fn workdir(&mut self, line: &SourceLine, path: &str) -> Result<String, Error> {
        let refuse = |why: String| line.refuse(why);
        let path = self.expand(line, path)?;
        if path.is_empty() {
            return Err(line.refuse("the working directory is empty").into());
        }
        // Docker does not normalize an absolute path.
        let path = if path.starts_with('/') {
            path
        } else {
            let path = format!("{}/{path}", self.config.workdir());
            format!("/{}", resolve(&path, |_| None).map_err(refuse)?)
        };
        let folder = self.tree.resolve(&path).map_err(refuse)?;
        let user = self.config.user();
        if self.tree.kind(&folder).is_none() && !["", "0", "root"].contains(&user) {
            let why = "the owner of a folder that `WORKDIR` creates after `USER` depends on the Docker builder";
            return Err(line.refuse(why).into());
        }
        let made = self.tree.make_folders(&folder, FileOwner::default());
        made.map_err(refuse)?;
        self.config.set("WorkingDir", path.as_str());
        Ok(format!("WORKDIR {path}"))
    }

    fn stop_signal(&mut self, line: &SourceLine, signal: &str) -> Result<String, Error> {
        let signal = self.expand(line, signal)?;
        if !is_signal(&signal) {
            let why = format!("`{}` is not a known signal", signal.escape_debug());
            return Err(line.refuse(why).into());
        }
        self.config.set("StopSignal", signal.as_str());
        Ok(format!("STOPSIGNAL {signal}"))
    }

    fn volume(&mut self, line: &SourceLine, paths: &[String]) -> Result<String, Error> {
        let paths = self.expand_list(line, paths)?;
        for path in &paths {
            let path = path.trim().to_owned();
            if path.is_empty() {
                return Err(line.refuse("the path of a volume is empty").into());
            }
            self.config.add("Volumes", path, Map::new().into())?;
        }
        Ok(format!("VOLUME {}", Value::from(paths)))
    }

    fn copy(&mut self, line: &SourceLine, written: &CopyInstruction) -> Result<String, Error> {
        let expanded = CopyInstruction {
            is_add: written.is_add,
            owner: self.expand_option(line, written.owner.as_ref())?,
            sources: self.expand_list(line, &written.sources)?,
            destination: self.expand(line, &written.destination)?,
        };
        let workdir = self.config.workdir();
        copy(line, &expanded, workdir, &mut self.tree, self.context)?;
        Ok(expanded.to_string())
    }

    fn command(&self, command: &ContainerCommand) -> Result<Vec<String>, Error> {
        match command {
            ContainerCommand::Exec(words) => Ok(words.clone()),
            ContainerCommand::Shell(line) => {
                let mut words = self.config.shell()?;
                words.push(line.clone());
                Ok(words)
            }
        }
    }
}

fn joined(name: &str, pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!(" {name}={value}"));
    format!("{name}{}", pairs.collect::<String>())
}
