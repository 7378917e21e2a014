//! The image's config while instructions change it. Unknown keys are kept.

use serde_json::{Map, Value};

use super::error::Error;

/// Docker's `PATH` for an image that sets none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names of signals, without `SIG`.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// An image's config. Its `config` section is separate, since most instructions change it.
pub(super) struct ImageConfig {
    whole: Map<String, Value>,
    section: Map<String, Value>,
    /// `Env`, in its order.
    env: Vec<(String, String)>,
}

impl ImageConfig {
    /// The config of a base image; `null` for `scratch`.
    pub fn new(base: &Value) -> Result<Self, Error> {
        let object = |value: Option<&Value>, what: &str| match value {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(_) => Err(wrong(what)),
        };
        let whole = object(Some(base), "it is not an object")?;
        let section = object(whole.get("config"), "`config` is not an object")?;
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

    /// Sets a variable, or replaces its value.
    pub fn set_variable(&mut self, name: &str, value: String) {
        match self.env.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.env.push((name.into(), value)),
        }
    }

    /// The base image's `ONBUILD` instructions.
    pub fn triggers(&self) -> Result<Vec<String>, Error> {
        list(&self.section, "OnBuild")
    }

    /// The words before a command in shell form.
    pub fn shell(&self) -> Result<Vec<String>, Error> {
        let shell = list(&self.section, "Shell")?;
        if shell.is_empty() {
            return Ok(vec!["/bin/sh".into(), "-c".into()]);
        }
        Ok(shell)
    }

    /// `WorkingDir`; empty if it is not set.
    pub fn workdir(&self) -> &str {
        self.text("WorkingDir")
    }

    /// `User`; empty if it is not set.
    pub fn user(&self) -> &str {
        self.text("User")
    }

    fn text(&self, key: &str) -> &str {
        let text = self.section.get(key).and_then(Value::as_str);
        text.unwrap_or_default()
    }

    /// Sets a key of the `config` section.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.section.insert(key.into(), value.into());
    }

    /// Removes a key of the `config` section.
    pub fn remove(&mut self, key: &str) {
        self.section.shift_remove(key);
    }

    /// Adds an entry to `Labels`, `ExposedPorts` or `Volumes`.
    pub fn add(&mut self, key: &'static str, name: String, value: Value) -> Result<(), Error> {
        let map = self.section.entry(key).or_insert(Value::Null);
        if map.is_null() {
            *map = Value::Object(Map::new());
        }
        match map {
            Value::Object(map) => map.insert(name, value),
            _ => return Err(wrong(&format!("`config.{key}` is not an object"))),
        };
        Ok(())
    }

    /// `MAINTAINER`: `author` is not in the `config` section.
    pub fn set_author(&mut self, name: &str) {
        self.whole.insert("author".into(), name.into());
    }

    /// The whole config.
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
    Error::BaseConfig {
        problem: problem.into(),
    }
}

fn list(section: &Map<String, Value>, key: &str) -> Result<Vec<String>, Error> {
    let items = match section.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter(),
        Some(_) => return Err(wrong(&format!("`config.{key}` is not a list"))),
    };
    let texts = items.map(|item| item.as_str().map(str::to_owned));
    let texts: Option<Vec<String>> = texts.collect();
    texts.ok_or_else(|| wrong(&format!("`config.{key}` has an item that is not a string")))
}

/// The ports of `80`, `80/udp` or `80-90/tcp` in the form of a config. `None` for another form;
/// Docker accepts more forms.
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

/// Whether every engine accepts this signal.
pub(super) fn is_signal(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS.contains(&name)
        || text
            .parse::<u8>()
            .is_ok_and(|number| (1..=64).contains(&number))
}
