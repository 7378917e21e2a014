//! Parses a Dockerfile.
//!
//! `parse-dockerfile` knows BuildKit's whole grammar. Instructions and options that need Docker are
//! refused here, so that [`ParsedDockerfile::apply`] has only few reasons to refuse.

use std::collections::BTreeMap;

use parse_dockerfile::{
    Command as ParsedCommand, Dockerfile, Flag, FromInstruction, HealthcheckArguments,
    HealthcheckInstruction, Instruction as ParsedInstruction, JsonOrStringArray, Source,
    UnescapedString,
};

use super::apply::ParsedDockerfile;
use super::copy::{DOWNLOADS, is_address};
use super::error::Refusal;
use super::health::HealthCheck;
use super::instruction::{
    ContainerCommand, CopyInstruction, Instruction, InstructionLine, SourceLine,
};
use super::words::{expand, pairs, split};

/// Characters of a line that a message shows.
const SHOWN: usize = 60;

/// Variables that only BuildKit sets.
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

/// Parses a Dockerfile, or returns the first line that needs Docker.
pub fn read(text: &str) -> Result<ParsedDockerfile, Refusal> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = parse_dockerfile::parse(text).map_err(|error| {
        let line = error.line().max(1);
        Refusal {
            line,
            instruction: shown(text.lines().nth(line - 1).unwrap_or_default()),
            why: format!("it is not valid ({error:#})"),
        }
    })?;
    let directives = &parsed.parser_directives;
    if let Some(syntax) = &directives.syntax {
        let known = ["docker/dockerfile:1", "docker.io/docker/dockerfile:1"];
        if !known
            .iter()
            .any(|known| syntax.value.value.starts_with(known))
        {
            let line = source_line(text, syntax.value.span.start);
            return Err(line.refuse("the `syntax` directive selects an unsupported frontend"));
        }
    }
    let reader = DockerfileReader::new(text, &parsed)?;
    let mut stages = parsed.stages();
    let Some(stage) = stages.next() else {
        return Err(source_line(text, 0).refuse("there is no `FROM`"));
    };
    if let Some(second) = stages.next() {
        return Err(reader
            .line(second.from.from.span.start)
            .refuse("a second stage is not supported"));
    }
    let (from, base, platform) = reader.from(stage.from)?;
    let lines = stage
        .instructions
        .iter()
        .map(|instruction| reader.instruction_line(instruction));
    Ok(ParsedDockerfile {
        base,
        platform,
        escape: reader.escape,
        lines: lines.collect::<Result<_, _>>()?,
        from,
        globals: reader.globals,
    })
}

/// The base images of all stages, also of a Dockerfile that needs Docker. Names that cannot be
/// expanded are left out; Docker reports them as errors.
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

/// The line of an instruction that begins at this offset.
fn source_line(text: &str, start: usize) -> SourceLine {
    let before = text.get(..start).unwrap_or_default();
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    SourceLine {
        number: before.matches('\n').count() + 1,
        text: shown(text[begin..].lines().next().unwrap_or_default()),
    }
}

/// A line shortened for a message.
fn shown(line: &str) -> String {
    let line = line.trim();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

/// Reads the instructions of one Dockerfile.
struct DockerfileReader<'a> {
    text: &'a str,
    escape: char,
    /// Arguments before `FROM`.
    globals: BTreeMap<String, Option<String>>,
}

impl<'a> DockerfileReader<'a> {
    /// A reader that knows the arguments before the first `FROM`.
    fn new(text: &'a str, parsed: &Dockerfile<'_>) -> Result<Self, Refusal> {
        let escape = parsed.parser_directives.escape.as_ref();
        let mut reader = Self {
            text,
            escape: escape.map_or('\\', |escape| escape.value.value),
            globals: BTreeMap::new(),
        };
        for argument in parsed.global_args() {
            let line = reader.line(argument.arg.span.start);
            for (name, default) in reader.arguments(&argument.arguments.value) {
                let default = match default {
                    Some(default) => Some(reader.global(&line, &default)?),
                    None => None,
                };
                reader.globals.insert(name, default);
            }
        }
        Ok(reader)
    }
}

impl DockerfileReader<'_> {
    fn line(&self, start: usize) -> SourceLine {
        source_line(self.text, start)
    }

    /// Expands a word outside of a stage, where only global arguments have values.
    fn global(&self, line: &SourceLine, word: &str) -> Result<String, Refusal> {
        let unset = std::cell::RefCell::new(None);
        let lookup = |name: &str| {
            let value = self.globals.get(name).cloned().flatten();
            if value.is_none() && PLATFORM.contains(&name) {
                unset.replace(Some(name.to_owned()));
            }
            value
        };
        let expanded = expand(word, self.escape, &lookup).map_err(|why| line.refuse(why))?;
        match unset.take() {
            Some(name) => Err(line.refuse(format!("only BuildKit sets `{name}`"))),
            None => Ok(expanded),
        }
    }

    /// The line of `FROM`, the base image and its platform.
    fn from(
        &self,
        from: &FromInstruction,
    ) -> Result<(SourceLine, Option<String>, Option<String>), Refusal> {
        let line = self.line(from.from.span.start);
        let mut platform = None;
        for (name, value) in flags(&line, &from.options)? {
            if name != "platform" || value.is_empty() {
                return Err(line.refuse(format!("`--{name}` is not supported")));
            }
            platform = Some(self.global(&line, &value)?);
        }
        if let Some((_, name)) = &from.as_ {
            let name = name.value.to_ascii_lowercase();
            let is_part =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_part) {
                return Err(line.refuse("the name of the stage is not valid"));
            }
        }
        let base = self.global(&line, &from.image.value)?;
        if base.is_empty() {
            return Err(line.refuse("the name of the base image is empty"));
        }
        let base = Some(base).filter(|base| base != "scratch");
        Ok((line, base, platform))
    }

    fn instruction_line(
        &self,
        instruction: &ParsedInstruction,
    ) -> Result<InstructionLine, Refusal> {
        let line = self.line(start(instruction));
        let instruction = self.instruction(&line, instruction)?;
        self.check(&line, &instruction)?;
        Ok(InstructionLine { line, instruction })
    }

    fn instruction(
        &self,
        line: &SourceLine,
        instruction: &ParsedInstruction,
    ) -> Result<Instruction, Refusal> {
        let refuse = |why: &str| Err(line.refuse(why));
        Ok(match instruction {
            ParsedInstruction::Run(_) => {
                return refuse("`RUN` instructions are not supported without Docker");
            }
            ParsedInstruction::Onbuild(_) => return refuse("`ONBUILD` is not supported"),
            ParsedInstruction::Shell(_) => return refuse("`SHELL` is not supported"),
            ParsedInstruction::From(_) => return refuse("a second stage is not supported"),
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
            ParsedInstruction::Env(it) => Instruction::Env(self.pairs(line, &it.arguments.value)?),
            ParsedInstruction::Label(it) => {
                Instruction::Label(self.pairs(line, &it.arguments.value)?)
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
            ParsedInstruction::Cmd(it) => Instruction::Cmd(self.command(line, &it.arguments)?),
            ParsedInstruction::Entrypoint(it) => {
                Instruction::Entrypoint(self.command(line, &it.arguments)?)
            }
            ParsedInstruction::Healthcheck(it) => Instruction::Health(self.health(line, it)?),
            ParsedInstruction::Copy(it) => {
                Instruction::Copy(copy(line, false, &it.options, &it.src, &it.dest)?)
            }
            ParsedInstruction::Add(it) => {
                Instruction::Copy(copy(line, true, &it.options, &it.src, &it.dest)?)
            }
            _ => return refuse("the instruction is not supported"),
        })
    }

    fn arguments(&self, text: &str) -> Vec<(String, Option<String>)> {
        let named = |word: String| match word.split_once('=') {
            Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
            None => (word, None),
        };
        split(text, self.escape).into_iter().map(named).collect()
    }

    fn pairs(&self, line: &SourceLine, text: &str) -> Result<Vec<(String, String)>, Refusal> {
        pairs(text, self.escape).map_err(|why| line.refuse(why))
    }

    fn command(
        &self,
        line: &SourceLine,
        command: &ParsedCommand,
    ) -> Result<ContainerCommand, Refusal> {
        match command {
            ParsedCommand::Exec(words) => Ok(ContainerCommand::Exec(texts(&words.value))),
            ParsedCommand::Shell(words) => {
                let command = joined(words.value, self.escape);
                // Docker rejects a JSON list with items that are not strings.
                if command.is_empty()
                    || serde_json::from_str::<Vec<serde_json::Value>>(&command).is_ok()
                {
                    return Err(line.refuse("the command is not valid"));
                }
                Ok(ContainerCommand::Shell(command))
            }
            _ => Err(line.refuse("this form of a command is not supported")),
        }
    }

    fn health(
        &self,
        line: &SourceLine,
        health: &HealthcheckInstruction,
    ) -> Result<HealthCheck, Refusal> {
        let command = match &health.arguments {
            HealthcheckArguments::Cmd { arguments, .. } => Some(self.command(line, arguments)?),
            HealthcheckArguments::None { .. } => None,
            _ => return Err(line.refuse("this form of `HEALTHCHECK` is not supported")),
        };
        let options = flags(line, &health.options)?;
        let options = options
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        HealthCheck::new(command, options).map_err(|why| line.refuse(why))
    }

    /// Checks quotes and braces of all words before any variable has a value.
    fn check(&self, line: &SourceLine, instruction: &Instruction) -> Result<(), Refusal> {
        let words: Vec<&String> = match instruction {
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
            expand(word, self.escape, &|_| Some("x".into())).map_err(|why| line.refuse(why))?;
        }
        Ok(())
    }
}

/// Options by name. An option that occurs twice is refused.
fn flags(line: &SourceLine, flags: &[Flag]) -> Result<Vec<(String, String)>, Refusal> {
    let mut found: Vec<(String, String)> = Vec::new();
    for flag in flags {
        let name = flag.name.value.to_string();
        let Some(value) = &flag.value else {
            return Err(line.refuse(format!("`--{name}` needs BuildKit")));
        };
        if found.iter().any(|(other, _)| *other == name) {
            return Err(line.refuse(format!("`--{name}` occurs twice")));
        }
        found.push((name, value.value.to_string()));
    }
    Ok(found)
}

fn copy(
    line: &SourceLine,
    is_add: bool,
    options: &[Flag],
    sources: &[Source],
    destination: &UnescapedString,
) -> Result<CopyInstruction, Refusal> {
    let mut copy = CopyInstruction {
        is_add,
        owner: None,
        sources: Vec::new(),
        destination: destination.value.to_string(),
    };
    for (name, value) in flags(line, options)? {
        match name.as_str() {
            "chown" => copy.owner = Some(value),
            "from" => return Err(line.refuse("`--from` copies from another image")),
            _ => return Err(line.refuse(format!("`--{name}` needs BuildKit"))),
        }
    }
    for source in sources {
        match source {
            Source::Path(path) if is_add && is_address(&path.value) => {
                return Err(line.refuse(DOWNLOADS));
            }
            Source::Path(path) => copy.sources.push(path.value.to_string()),
            _ => return Err(line.refuse("a here-document needs BuildKit")),
        }
    }
    Ok(copy)
}

/// Offset of an instruction's keyword.
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

/// Joins lines that are continued by an escape at their end. Comments and empty lines between
/// them are removed.
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
