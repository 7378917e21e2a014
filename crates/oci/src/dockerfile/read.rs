//! From text to steps.
//!
//! The grammar is `parse-dockerfile`'s, which knows all of BuildKit's. What the classic builder
//! does not do, or does otherwise, is refused here, so that no later step has to think of it.

use std::collections::BTreeMap;

use parse_dockerfile::{
    Command as ParsedCommand, Dockerfile, Flag, FromInstruction, HealthcheckArguments,
    HealthcheckInstruction, Instruction as ParsedInstruction, JsonOrStringArray, Source,
    UnescapedString,
};

use super::copy::{DOWNLOADS, is_address};
use super::error::Refusal;
use super::health::HealthCheck;
use super::recipe::ParsedDockerfile;
use super::step::{ContainerCommand, CopyInstruction, Instruction, InstructionLine};
use super::words::{expand, pairs, split};

/// Characters of a line that a message shows.
const SHOWN: usize = 60;

/// Variables that BuildKit sets, and the classic builder does not.
const PLATFORM: [&str; 8] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];

/// Reads a Dockerfile.
pub fn read(text: &str) -> Result<ParsedDockerfile, Refusal> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = parse_dockerfile::parse(text).map_err(|error| {
        let line = error.line().max(1);
        Refusal {
            line,
            instruction: shown(text.lines().nth(line - 1).unwrap_or_default()),
            why: format!("Docker does not understand it ({error:#})"),
        }
    })?;
    let directives = &parsed.parser_directives;
    if let Some(syntax) = &directives.syntax {
        let known = ["docker/dockerfile:1", "docker.io/docker/dockerfile:1"];
        if !known
            .iter()
            .any(|known| syntax.value.value.starts_with(known))
        {
            let place = InstructionPosition::new(text, syntax.value.span.start);
            return Err(place.refuse("another frontend reads it"));
        }
    }
    let reader = DockerfileReader::new(text, &parsed)?;
    let mut stages = parsed.stages();
    let Some(stage) = stages.next() else {
        return Err(InstructionPosition::new(text, 0).refuse("there is no `FROM`"));
    };
    if let Some(second) = stages.next() {
        return Err(reader
            .place(second.from.from.span.start)
            .refuse("it is a second stage"));
    }
    let (from, base, platform) = reader.from(stage.from)?;
    let lines = stage
        .instructions
        .iter()
        .map(|instruction| reader.line(instruction));
    Ok(ParsedDockerfile {
        base,
        platform,
        escape: reader.escape,
        lines: lines.collect::<Result<_, _>>()?,
        from,
        globals: reader.globals,
    })
}

/// The images that a Dockerfile begins its stages with, whether it can be carried out here or
/// not. Those that cannot be told are left out: they are Docker's to complain of.
pub fn bases(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Ok(parsed) = parse_dockerfile::parse(text) else {
        return Vec::new();
    };
    let Ok(reader) = DockerfileReader::new(text, &parsed) else {
        return Vec::new();
    };
    let mut stages = Vec::new();
    let mut bases = Vec::new();
    for stage in parsed.stages() {
        let found = reader.from(stage.from).ok();
        let base = found.and_then(|(_, base, _)| base);
        bases.extend(base.filter(|base| !stages.contains(base) && !bases.contains(base)));
        if let Some((_, name)) = &stage.from.as_ {
            stages.push(name.value.to_string());
        }
    }
    bases
}

/// Where an instruction stands.
struct InstructionPosition {
    line: usize,
    instruction: String,
}

impl InstructionPosition {
    fn new(text: &str, start: usize) -> Self {
        let before = text.get(..start).unwrap_or_default();
        let begin = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            line: before.matches('\n').count() + 1,
            instruction: shown(text[begin..].lines().next().unwrap_or_default()),
        }
    }

    fn refuse(&self, why: impl Into<String>) -> Refusal {
        Refusal {
            line: self.line,
            instruction: self.instruction.clone(),
            why: why.into(),
        }
    }
}

/// A line for a message.
fn shown(line: &str) -> String {
    let line = line.trim();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

struct DockerfileReader<'a> {
    text: &'a str,
    escape: char,
    /// Arguments before `FROM`.
    globals: BTreeMap<String, Option<String>>,
}

impl<'a> DockerfileReader<'a> {
    /// With the arguments before the first `FROM`.
    fn new(text: &'a str, parsed: &Dockerfile<'_>) -> Result<Self, Refusal> {
        let escape = parsed.parser_directives.escape.as_ref();
        let mut reader = Self {
            text,
            escape: escape.map_or('\\', |escape| escape.value.value),
            globals: BTreeMap::new(),
        };
        for argument in parsed.global_args() {
            let place = reader.place(argument.arg.span.start);
            for (name, default) in reader.arguments(&argument.arguments.value) {
                let default = match default {
                    Some(default) => Some(reader.global(&place, &default)?),
                    None => None,
                };
                reader.globals.insert(name, default);
            }
        }
        Ok(reader)
    }
}

impl DockerfileReader<'_> {
    fn place(&self, start: usize) -> InstructionPosition {
        InstructionPosition::new(self.text, start)
    }

    /// Expands a word outside of stages, where there are only global arguments.
    fn global(&self, place: &InstructionPosition, word: &str) -> Result<String, Refusal> {
        let unset = std::cell::RefCell::new(None);
        let lookup = |name: &str| {
            let value = self.globals.get(name).cloned().flatten();
            if value.is_none() && PLATFORM.contains(&name) {
                unset.replace(Some(name.to_owned()));
            }
            value
        };
        let expanded = expand(word, self.escape, &lookup).map_err(|why| place.refuse(why))?;
        match unset.take() {
            Some(name) => Err(place.refuse(format!("only BuildKit sets `{name}`"))),
            None => Ok(expanded),
        }
    }

    /// The line for messages, the base image and its platform.
    fn from(
        &self,
        from: &FromInstruction,
    ) -> Result<(Refusal, Option<String>, Option<String>), Refusal> {
        let place = self.place(from.from.span.start);
        let mut platform = None;
        for (name, value) in flags(&place, &from.options)? {
            if name != "platform" || value.is_empty() {
                return Err(place.refuse(format!("`--{name}` is not known")));
            }
            platform = Some(self.global(&place, &value)?);
        }
        if let Some((_, name)) = &from.as_ {
            let name = name.value.to_ascii_lowercase();
            let is_part =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_part) {
                return Err(place.refuse("the stage's name is none"));
            }
        }
        let base = self.global(&place, &from.image.value)?;
        if base.is_empty() {
            return Err(place.refuse("it names no image"));
        }
        let base = Some(base).filter(|base| base != "scratch");
        Ok((place.refuse(""), base, platform))
    }

    fn line(&self, instruction: &ParsedInstruction) -> Result<InstructionLine, Refusal> {
        let place = self.place(start(instruction));
        let step = self.step(&place, instruction)?;
        self.check(&place, &step)?;
        Ok(InstructionLine {
            number: place.line,
            text: place.instruction,
            step,
        })
    }

    fn step(
        &self,
        place: &InstructionPosition,
        instruction: &ParsedInstruction,
    ) -> Result<Instruction, Refusal> {
        let refuse = |why: &str| Err(place.refuse(why));
        Ok(match instruction {
            ParsedInstruction::Run(_) => return refuse("`RUN` runs a command"),
            ParsedInstruction::Onbuild(_) => return refuse("`ONBUILD` is for builds by others"),
            ParsedInstruction::Shell(_) => return refuse("`SHELL` changes how commands are run"),
            ParsedInstruction::From(_) => return refuse("it is a second stage"),
            ParsedInstruction::Arg(it) => {
                let arguments = self.arguments(&it.arguments.value);
                let is_unset = |(name, default): &&(String, Option<String>)| {
                    let global = self.globals.get(name).and_then(Option::as_ref);
                    PLATFORM.contains(&name.as_str()) && default.as_ref().or(global).is_none()
                };
                match arguments.iter().find(is_unset) {
                    Some((name, _)) => return refuse(&format!("only BuildKit sets `{name}`")),
                    None => Instruction::Arg(arguments),
                }
            }
            ParsedInstruction::Env(it) => Instruction::Env(self.pairs(place, &it.arguments.value)?),
            ParsedInstruction::Label(it) => {
                Instruction::Label(self.pairs(place, &it.arguments.value)?)
            }
            ParsedInstruction::Expose(it) => Instruction::Expose(texts(&it.arguments)),
            ParsedInstruction::Workdir(it) => Instruction::Workdir(it.arguments.value.to_string()),
            ParsedInstruction::User(it) => Instruction::User(it.arguments.value.to_string()),
            ParsedInstruction::Stopsignal(it) => {
                Instruction::StopSignal(it.arguments.value.to_string())
            }
            ParsedInstruction::Maintainer(it) => Instruction::Maintainer(it.name.value.to_string()),
            ParsedInstruction::Volume(it) => Instruction::Volume(match &it.arguments {
                JsonOrStringArray::Json(list) => texts(&list.value),
                JsonOrStringArray::String(list) => texts(list),
            }),
            ParsedInstruction::Cmd(it) => Instruction::Cmd(self.command(place, &it.arguments)?),
            ParsedInstruction::Entrypoint(it) => {
                Instruction::Entrypoint(self.command(place, &it.arguments)?)
            }
            ParsedInstruction::Healthcheck(it) => Instruction::Health(self.health(place, it)?),
            ParsedInstruction::Copy(it) => {
                Instruction::Copy(copy(place, false, &it.options, &it.src, &it.dest)?)
            }
            ParsedInstruction::Add(it) => {
                Instruction::Copy(copy(place, true, &it.options, &it.src, &it.dest)?)
            }
            _ => return refuse("it is an instruction of a later day"),
        })
    }

    fn arguments(&self, text: &str) -> Vec<(String, Option<String>)> {
        let named = |word: String| match word.split_once('=') {
            Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
            None => (word, None),
        };
        split(text, self.escape).into_iter().map(named).collect()
    }

    fn pairs(
        &self,
        place: &InstructionPosition,
        text: &str,
    ) -> Result<Vec<(String, String)>, Refusal> {
        pairs(text, self.escape).map_err(|why| place.refuse(why))
    }

    fn command(
        &self,
        place: &InstructionPosition,
        command: &ParsedCommand,
    ) -> Result<ContainerCommand, Refusal> {
        match command {
            ParsedCommand::Exec(words) => Ok(ContainerCommand::Exec(texts(&words.value))),
            ParsedCommand::Shell(line) => {
                let line = joined(line.value, self.escape);
                // Docker complains of a list of other things than texts.
                if line.is_empty() || serde_json::from_str::<Vec<serde_json::Value>>(&line).is_ok()
                {
                    return Err(place.refuse("it is no command"));
                }
                Ok(ContainerCommand::Shell(line))
            }
            _ => Err(place.refuse("it is a command of a later day")),
        }
    }

    fn health(
        &self,
        place: &InstructionPosition,
        health: &HealthcheckInstruction,
    ) -> Result<HealthCheck, Refusal> {
        let command = match &health.arguments {
            HealthcheckArguments::Cmd { arguments, .. } => Some(self.command(place, arguments)?),
            HealthcheckArguments::None { .. } => None,
            _ => return Err(place.refuse("it is a check of a later day")),
        };
        let options = flags(place, &health.options)?;
        let options = options
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        HealthCheck::new(command, options).map_err(|why| place.refuse(why))
    }

    /// That words can be expanded: what quotes leave open shows without any value.
    fn check(&self, place: &InstructionPosition, step: &Instruction) -> Result<(), Refusal> {
        let words: Vec<&String> = match step {
            Instruction::Arg(list) => list
                .iter()
                .flat_map(|(name, default)| [name].into_iter().chain(default))
                .collect(),
            Instruction::Env(list) | Instruction::Label(list) => list
                .iter()
                .flat_map(|(name, value)| [name, value])
                .collect(),
            Instruction::Expose(list) | Instruction::Volume(list) => list.iter().collect(),
            Instruction::Workdir(word)
            | Instruction::User(word)
            | Instruction::StopSignal(word) => vec![word],
            Instruction::Copy(copy) => {
                let sources = copy.sources.iter();
                sources
                    .chain(&copy.owner)
                    .chain([&copy.destination])
                    .collect()
            }
            _ => Vec::new(),
        };
        for word in words {
            expand(word, self.escape, &|_| Some("x".into())).map_err(|why| place.refuse(why))?;
        }
        Ok(())
    }
}

/// Options by name, each at most once.
fn flags(place: &InstructionPosition, flags: &[Flag]) -> Result<Vec<(String, String)>, Refusal> {
    let mut found: Vec<(String, String)> = Vec::new();
    for flag in flags {
        let name = flag.name.value.to_string();
        let Some(value) = &flag.value else {
            return Err(place.refuse(format!("`--{name}` needs BuildKit")));
        };
        if found.iter().any(|(other, _)| *other == name) {
            return Err(place.refuse(format!("`--{name}` stands twice")));
        }
        found.push((name, value.value.to_string()));
    }
    Ok(found)
}

fn copy(
    place: &InstructionPosition,
    adds: bool,
    options: &[Flag],
    sources: &[Source],
    destination: &UnescapedString,
) -> Result<CopyInstruction, Refusal> {
    let mut copy = CopyInstruction {
        adds,
        owner: None,
        sources: Vec::new(),
        destination: destination.value.to_string(),
    };
    for (name, value) in flags(place, options)? {
        match name.as_str() {
            "chown" => copy.owner = Some(value),
            "from" => return Err(place.refuse("`--from` copies from another image")),
            _ => return Err(place.refuse(format!("`--{name}` needs BuildKit"))),
        }
    }
    for source in sources {
        match source {
            Source::Path(path) if adds && is_address(&path.value) => {
                return Err(place.refuse(DOWNLOADS));
            }
            Source::Path(path) => copy.sources.push(path.value.to_string()),
            _ => return Err(place.refuse("a here-document needs BuildKit")),
        }
    }
    Ok(copy)
}

/// Where an instruction's keyword stands.
fn start(instruction: &ParsedInstruction) -> usize {
    let keyword = match instruction {
        ParsedInstruction::Add(it) => &it.add,
        ParsedInstruction::Arg(it) => &it.arg,
        ParsedInstruction::Cmd(it) => &it.cmd,
        ParsedInstruction::Copy(it) => &it.copy,
        ParsedInstruction::Entrypoint(it) => &it.entrypoint,
        ParsedInstruction::Env(it) => &it.env,
        ParsedInstruction::Expose(it) => &it.expose,
        ParsedInstruction::From(it) => &it.from,
        ParsedInstruction::Healthcheck(it) => &it.healthcheck,
        ParsedInstruction::Label(it) => &it.label,
        ParsedInstruction::Maintainer(it) => &it.maintainer,
        ParsedInstruction::Onbuild(it) => &it.onbuild,
        ParsedInstruction::Run(it) => &it.run,
        ParsedInstruction::Shell(it) => &it.shell,
        ParsedInstruction::Stopsignal(it) => &it.stopsignal,
        ParsedInstruction::User(it) => &it.user,
        ParsedInstruction::Volume(it) => &it.volume,
        ParsedInstruction::Workdir(it) => &it.workdir,
        _ => return 0,
    };
    keyword.span.start
}

fn texts(words: &[UnescapedString]) -> Vec<String> {
    words.iter().map(|word| word.value.to_string()).collect()
}

/// One line of several: what an escape at the end of a line continues, without the comments and
/// empty lines between.
fn joined(text: &str, escape: char) -> String {
    let mut joined = String::new();
    for line in text.lines() {
        let begins = line.trim_start();
        if !joined.is_empty() && (begins.is_empty() || begins.starts_with('#')) {
            continue;
        }
        let end = line.trim_end_matches([' ', '\t']);
        joined.push_str(end.strip_suffix(escape).unwrap_or(line));
    }
    joined.trim().to_owned()
}
