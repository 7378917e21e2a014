//! An image's config while steps change it. What is not known here stays as it is.

use serde_json::{Map, Value};

use super::error::Error;

/// Where programs are, in an image that does not say it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names of signals, without `SIG`.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// The whole config, with its section for containers apart.
pub(super) struct ImageConfig {
    whole: Map<String, Value>,
    section: Map<String, Value>,
    /// Variables in their order.
    env: Vec<(String, String)>,
}

impl ImageConfig {
    /// Begins with a base image's; `null` where there is none.
    pub fn new(base: &Value) -> Result<Self, Error> {
        let object = |value: Option<&Value>, what: &str| match value {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(_) => Err(wrong(what)),
        };
        let whole = object(Some(base), "it is no object")?;
        let section = object(whole.get("config"), "`config` is no object")?;
        let mut env: Vec<(String, String)> = Vec::new();
        for variable in list(&section, "Env")? {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            env.push((name.into(), value.into()));
        }
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.extend(
                PATH.split_once('=')
                    .map(|(name, value)| (name.into(), value.into())),
            );
        }
        Ok(Self {
            whole,
            section,
            env,
        })
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let mut all = self.env.iter();
        all.find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// `ENV`: takes the place of the variable of this name.
    pub fn set_variable(&mut self, name: &str, value: String) {
        match self.env.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.env.push((name.into(), value)),
        }
    }

    /// Instructions that the base image has for those who build on it.
    pub fn triggers(&self) -> Result<Vec<String>, Error> {
        list(&self.section, "OnBuild")
    }

    /// What a line for the shell begins with.
    pub fn shell(&self) -> Result<Vec<String>, Error> {
        let shell = list(&self.section, "Shell")?;
        if shell.is_empty() {
            return Ok(vec!["/bin/sh".into(), "-c".into()]);
        }
        Ok(shell)
    }

    /// `WorkingDir`; empty where there is none.
    pub fn workdir(&self) -> &str {
        let workdir = self.section.get("WorkingDir").and_then(Value::as_str);
        workdir.unwrap_or_default()
    }

    /// Sets what one word or list says.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.section.insert(key.into(), value.into());
    }

    /// Takes something out.
    pub fn remove(&mut self, key: &str) {
        self.section.shift_remove(key);
    }

    /// Adds to `Labels`, `ExposedPorts` or `Volumes`.
    pub fn add(&mut self, key: &'static str, name: String, value: Value) -> Result<(), Error> {
        let map = self.section.entry(key).or_insert(Value::Null);
        if map.is_null() {
            *map = Value::Object(Map::new());
        }
        match map {
            Value::Object(map) => map.insert(name, value),
            _ => return Err(wrong(&format!("`config.{key}` is no object"))),
        };
        Ok(())
    }

    /// `MAINTAINER`, which is no part of the section.
    pub fn set_author(&mut self, name: &str) {
        self.whole.insert("author".into(), name.into());
    }

    /// The whole again.
    pub fn end(mut self) -> Value {
        let env = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let env: Vec<String> = env.collect();
        self.set("Env", env);
        self.whole.insert("config".into(), self.section.into());
        self.whole.into()
    }
}

fn wrong(problem: &str) -> Error {
    Error::Base {
        problem: problem.into(),
    }
}

fn list(section: &Map<String, Value>, key: &str) -> Result<Vec<String>, Error> {
    let items = match section.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter(),
        Some(_) => return Err(wrong(&format!("`config.{key}` is no list"))),
    };
    let texts = items.map(|item| item.as_str().map(str::to_owned));
    let texts: Option<Vec<String>> = texts.collect();
    texts.ok_or_else(|| wrong(&format!("`config.{key}` has something that is no text")))
}

/// The ports of `80`, `80/udp` or `80-90/tcp`, as a config names them. Nothing where it is
/// something else; Docker knows more.
pub(super) fn ports(text: &str) -> Option<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return None;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, last): (u16, u16) = match (is_number(first), is_number(last)) {
        (true, true) => (first.parse().ok()?, last.parse().ok()?),
        _ => return None,
    };
    (first <= last).then(|| {
        let ports = first..=last;
        ports.map(|port| format!("{port}/{protocol}")).collect()
    })
}

/// Whether every engine knows this signal.
pub(super) fn is_signal(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS.contains(&name)
        || text
            .parse::<u8>()
            .is_ok_and(|number| (1..=64).contains(&number))
}
