//! `HEALTHCHECK`: its options, with durations as Go writes them.

use serde_json::{Map, Value};

use super::step::ContainerCommand;

/// The shortest that Docker takes, in nanoseconds.
const SHORTEST: u64 = 1_000_000;

/// How the engine asks a container whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HealthCheck {
    /// What it runs; nothing where it shall not ask, whatever the base image says.
    pub command: Option<ContainerCommand>,
    /// `Interval`, `Timeout`, `StartPeriod` in nanoseconds, and `Retries`; those that are given.
    pub options: Vec<(&'static str, u64)>,
}

impl HealthCheck {
    /// From its options, as written.
    pub fn new<'a>(
        command: Option<ContainerCommand>,
        options: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let mut health = Self {
            command,
            options: Vec::new(),
        };
        for (name, value) in options {
            let key = match name {
                "interval" => "Interval",
                "timeout" => "Timeout",
                "start-period" => "StartPeriod",
                "retries" => "Retries",
                _ => return Err(format!("`--{name}` is not known to every engine")),
            };
            if health.command.is_none() || health.options.iter().any(|(other, _)| *other == key) {
                return Err(format!("`--{name}` has no place here"));
            }
            let value = match key {
                _ if value.is_empty() => continue,
                "Retries" => value
                    .parse::<u64>()
                    .ok()
                    .filter(|count| (1..=i32::MAX as u64).contains(count)),
                _ => duration(value).filter(|long| *long >= SHORTEST),
            };
            let value =
                value.ok_or_else(|| format!("`--{name}` has no value that Docker takes"))?;
            health.options.push((key, value));
        }
        Ok(health)
    }

    /// As an image's config has it.
    pub fn value(&self) -> Value {
        let test: Vec<String> = match &self.command {
            None => vec!["NONE".into()],
            Some(ContainerCommand::Shell(line)) => vec!["CMD-SHELL".into(), line.clone()],
            Some(ContainerCommand::Exec(words)) => {
                std::iter::once("CMD".into()).chain(words.clone()).collect()
            }
        };
        let mut value = Map::new();
        value.insert("Test".into(), test.into());
        for (key, number) in &self.options {
            value.insert((*key).into(), (*number).into());
        }
        value.into()
    }
}

/// Nanoseconds of `1m30s`, `1.5h`, `500ms`.
pub(super) fn duration(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    match rest {
        "" => return None,
        "0" => return Some(0),
        _ => {}
    }
    let mut sum: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit: u128 = match &after[..end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        if !whole.is_empty() {
            sum += u128::from(whole.parse::<u64>().ok()?) * unit;
        }
        // Digits beyond these are less than a nanosecond of the longest unit.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
            sum += u128::from(fraction.parse::<u64>().ok()?) * unit / scale;
        }
        rest = &after[end..];
    }
    // The engine counts in signed 64 bits.
    i64::try_from(sum)
        .ok()
        .and_then(|sum| u64::try_from(sum).ok())
}

/// The digits at the beginning, and the rest.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}
