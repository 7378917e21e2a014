//! Carrying out what was read.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::config::{ImageConfig, is_signal, ports};
use super::context::BuildContext;
use super::copy::copy;
use super::error::{Error, Refusal};
use super::step::{ContainerCommand, CopyInstruction, Instruction, InstructionLine};
use super::tree::{ImageTree, PathConflict, resolve};
use super::words::{expand, expand_all};
use crate::{BaseTree, FileOwner, TreeEntry};

/// What a Dockerfile asks for that needs no command run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedDockerfile {
    pub(super) base: Option<String>,
    pub(super) platform: Option<String>,
    pub(super) escape: char,
    pub(super) lines: Vec<InstructionLine>,
    /// The line of `FROM`, as it would be refused.
    pub(super) from: Refusal,
    /// Arguments before `FROM`, which a stage has to ask for.
    pub(super) globals: BTreeMap<String, Option<String>>,
}

/// An image, but for its layers' blobs.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageChanges {
    /// The whole config: the base's, with its `config` section (and `author`) changed. `rootfs`,
    /// `history` and `created` are still the base's.
    pub config: Value,
    /// What goes into the one new layer, folders before what is in them, each path once. Also
    /// the base's folders that something is put into, as the base has them. None where the
    /// Dockerfile copies and makes nothing, and then there is no new layer.
    pub entries: Vec<TreeEntry>,
    /// A line for each step, of which as many have a layer as there are new layers: one or none.
    pub history: Vec<HistoryEntry>,
}

/// A step, for an image's `history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The instruction, variables expanded, and who carried it out: `USER node # alokai`.
    pub created_by: String,
    /// Whether no layer belongs to it. The last step that adds something has the layer of all.
    pub empty_layer: bool,
}

impl ParsedDockerfile {
    /// The image to build on, arguments expanded; nothing for `scratch`.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// What `FROM --platform` asks for.
    pub fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }

    /// Carries it out on a base image's config, which is `null` for `scratch`.
    pub fn apply(
        &self,
        base: &Value,
        tree: &BaseTree,
        context: &BuildContext,
    ) -> Result<ImageChanges, Error> {
        let config = ImageConfig::new(base)?;
        if let Some(trigger) = config.triggers()?.first() {
            return Err(Refusal {
                why: format!("the base image has `ONBUILD {}`", trigger.escape_debug()),
                ..self.from.clone()
            }
            .into());
        }
        let mut work = StageState {
            recipe: self,
            config,
            tree: ImageTree::new(tree),
            context,
            arguments: BTreeMap::new(),
            has_command: false,
        };
        let mut history = Vec::new();
        let mut last_layer = None;
        for (position, line) in self.lines.iter().enumerate() {
            if matches!(line.step, Instruction::Copy(_) | Instruction::Workdir(_)) {
                last_layer = Some(position);
            }
            history.push(HistoryEntry {
                created_by: format!("{} # alokai", work.step(line)?),
                empty_layer: true,
            });
        }
        let entries = work.tree.entries();
        if let Some(step) = last_layer
            .filter(|_| !entries.is_empty())
            .and_then(|last| history.get_mut(last))
        {
            step.empty_layer = false;
        }
        Ok(ImageChanges {
            config: work.config.end(),
            entries,
            history,
        })
    }
}

impl InstructionLine {
    /// This line, as one that asks for something in vain.
    pub(super) fn error(&self, problem: impl Into<String>, help: &str) -> Error {
        Error::InstructionLine {
            line: self.number,
            instruction: self.text.clone(),
            problem: problem.into(),
            help: help.into(),
        }
    }

    /// This line, as one that clashes with another, or with the base.
    pub(super) fn clash(&self, clash: PathConflict, help: &str) -> Error {
        match clash {
            PathConflict::Vain(problem) => self.error(problem, help),
            PathConflict::Docker(why) => self.refuse(&why).into(),
        }
    }

    /// This line, as one for Docker.
    pub(super) fn refuse(&self, why: &str) -> Refusal {
        Refusal {
            line: self.number,
            instruction: self.text.clone(),
            why: why.into(),
        }
    }
}

/// An image on its way.
struct StageState<'a> {
    recipe: &'a ParsedDockerfile,
    config: ImageConfig,
    tree: ImageTree<'a>,
    context: &'a BuildContext,
    /// Arguments that the stage has asked for.
    arguments: BTreeMap<String, Option<String>>,
    /// Whether this Dockerfile has a `CMD`, which an `ENTRYPOINT` after it leaves alone.
    has_command: bool,
}

impl StageState<'_> {
    /// A variable's value: the image's, before an argument's.
    fn lookup(&self, name: &str) -> Option<String> {
        match self.config.variable(name) {
            Some(value) => Some(value.to_owned()),
            None => self.arguments.get(name).cloned().flatten(),
        }
    }

    fn expand(&self, line: &InstructionLine, word: &str) -> Result<String, Error> {
        let lookup = |name: &str| self.lookup(name);
        expand(word, self.recipe.escape, &lookup)
            .map_err(|problem| line.error(problem, "give the variable a value in `ENV` or `ARG`"))
    }

    fn expand_list(&self, line: &InstructionLine, words: &[String]) -> Result<Vec<String>, Error> {
        words.iter().map(|word| self.expand(line, word)).collect()
    }

    fn expand_pairs(
        &self,
        line: &InstructionLine,
        pairs: &[(String, String)],
    ) -> Result<Vec<(String, String)>, Error> {
        let pair = |(name, value): &(String, String)| {
            Ok((self.expand(line, name)?, self.expand(line, value)?))
        };
        pairs.iter().map(pair).collect()
    }

    /// Carries out one step, and says what it was.
    fn step(&mut self, line: &InstructionLine) -> Result<String, Error> {
        match &line.step {
            Instruction::Arg(arguments) => self.arguments(line, arguments),
            Instruction::Env(pairs) => {
                // All of a line see the values from before it.
                let pairs = self.expand_pairs(line, pairs)?;
                let done = described("ENV", &pairs);
                if pairs.iter().any(|(name, _)| name.is_empty()) {
                    return Err(line.error("a variable has no name", "write `name=value`"));
                }
                for (name, value) in pairs {
                    self.config.set_variable(&name, value);
                }
                Ok(done)
            }
            Instruction::Label(pairs) => {
                let pairs = self.expand_pairs(line, pairs)?;
                let done = described("LABEL", &pairs);
                for (name, value) in pairs {
                    self.config.add("Labels", name, value.into())?;
                }
                Ok(done)
            }
            Instruction::Expose(words) => self.expose(line, words),
            Instruction::Workdir(path) => self.workdir(line, path),
            Instruction::User(name) => {
                let name = self.expand(line, name)?;
                self.config.set("User", name.as_str());
                Ok(format!("USER {name}"))
            }
            Instruction::StopSignal(signal) => {
                let signal = self.expand(line, signal)?;
                if !is_signal(&signal) {
                    let why = format!(
                        "`{}` is no signal that is known here",
                        signal.escape_debug()
                    );
                    return Err(line.refuse(&why).into());
                }
                self.config.set("StopSignal", signal.as_str());
                Ok(format!("STOPSIGNAL {signal}"))
            }
            Instruction::Volume(paths) => {
                let paths = self.expand_list(line, paths)?;
                for path in &paths {
                    let path = path.trim().to_owned();
                    if path.is_empty() {
                        return Err(line.error("a volume has no path", "name a folder"));
                    }
                    self.config.add("Volumes", path, Map::new().into())?;
                }
                Ok(format!("VOLUME {}", Value::from(paths)))
            }
            Instruction::Copy(step) => {
                let step = CopyInstruction {
                    adds: step.adds,
                    owner: match &step.owner {
                        Some(owner) => Some(self.expand(line, owner)?),
                        None => None,
                    },
                    sources: self.expand_list(line, &step.sources)?,
                    destination: self.expand(line, &step.destination)?,
                };
                copy(
                    line,
                    &step,
                    self.config.workdir(),
                    &mut self.tree,
                    self.context,
                )?;
                Ok(step.to_string())
            }
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

    fn arguments(
        &mut self,
        line: &InstructionLine,
        arguments: &[(String, Option<String>)],
    ) -> Result<String, Error> {
        let mut expanded = Vec::new();
        for (name, default) in arguments {
            let name = self.expand(line, name)?;
            let default = match default {
                Some(default) => Some(self.expand(line, default)?),
                None => None,
            };
            expanded.push((name, default));
        }
        let mut done = "ARG".to_owned();
        for (name, default) in expanded {
            done.push(' ');
            done.push_str(&name);
            if let Some(default) = &default {
                done.push('=');
                done.push_str(default);
            }
            let value = default.or_else(|| self.recipe.globals.get(&name).cloned().flatten());
            self.arguments.insert(name, value);
        }
        Ok(done)
    }

    fn expose(&mut self, line: &InstructionLine, words: &[String]) -> Result<String, Error> {
        let lookup = |name: &str| self.lookup(name);
        let mut expanded = Vec::new();
        for word in words {
            let words = expand_all(word, self.recipe.escape, &lookup);
            expanded.extend(words.map_err(|problem| line.error(problem, "name a port"))?);
        }
        for word in &expanded {
            let Some(ports) = ports(word) else {
                let why = format!("`{}` is no port such as `80/tcp`", word.escape_debug());
                return Err(line.refuse(&why).into());
            };
            for port in ports {
                self.config.add("ExposedPorts", port, Map::new().into())?;
            }
        }
        Ok(format!("EXPOSE {}", expanded.join(" ")))
    }

    fn workdir(&mut self, line: &InstructionLine, path: &str) -> Result<String, Error> {
        let path = self.expand(line, path)?;
        if path.is_empty() {
            return Err(line.error("it names no folder", "name one"));
        }
        let failed = |clash| line.clash(clash, "name another folder");
        // What is absolute stays as it is written, which is how Docker has it.
        let path = if path.starts_with('/') {
            path
        } else {
            let path = format!("{}/{path}", self.config.workdir());
            let clean = resolve(&path, |_| None).map_err(PathConflict::Vain);
            format!("/{}", clean.map_err(failed)?)
        };
        let folder = self.tree.resolve(&path).map_err(failed)?;
        self.tree
            .make_folders(&folder, FileOwner::default())
            .map_err(failed)?;
        self.config.set("WorkingDir", path.as_str());
        Ok(format!("WORKDIR {path}"))
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

fn described(name: &str, pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!(" {name}={value}"));
    format!("{name}{}", pairs.collect::<String>())
}

impl std::fmt::Display for ContainerCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exec(words) => Value::from(words.clone()).fmt(f),
            Self::Shell(line) => f.write_str(line),
        }
    }
}

impl std::fmt::Display for CopyInstruction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.adds { "ADD" } else { "COPY" })?;
        if let Some(owner) = &self.owner {
            write!(f, " --chown={owner}")?;
        }
        for word in self.sources.iter().chain([&self.destination]) {
            write!(f, " {word}")?;
        }
        Ok(())
    }
}
