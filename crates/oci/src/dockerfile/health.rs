//! `HEALTHCHECK` and its options, with durations in Go's format.

use serde_json::{Map, Value};

use super::instruction::ContainerCommand;

/// The shortest duration that Docker accepts, in nanoseconds.
const SHORTEST: u64 = 1_000_000;

/// A health check of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HealthCheck {
    /// The command; `None` for `HEALTHCHECK NONE`, which disables the base image's check.
    pub command: Option<ContainerCommand>,
    /// The options that are set: `Interval`, `Timeout` and `StartPeriod` in nanoseconds, `Retries`.
    pub options: Vec<(&'static str, u64)>,
}

impl HealthCheck {
    /// A health check with options as they are written.
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
                _ => return Err(format!("not every engine supports `--{name}`")),
            };
            if health.command.is_none() || health.options.iter().any(|(other, _)| *other == key) {
                return Err(format!("`--{name}` is not allowed here"));
            }
            let value = match key {
                _ if value.is_empty() => continue,
                "Retries" => value
                    .parse::<u64>()
                    .ok()
                    .filter(|count| (1..=i32::MAX as u64).contains(count)),
                _ => duration(value).filter(|long| *long >= SHORTEST),
            };
            let value = value.ok_or_else(|| format!("the value of `--{name}` is not valid"))?;
            health.options.push((key, value));
        }
        Ok(health)
    }

    /// The value of `Healthcheck` in an image's config.
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

/// Parses a duration such as `1m30s`, `1.5h` or `500ms` to nanoseconds.
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
        // Further digits are less than a nanosecond even for hours.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
            sum += u128::from(fraction.parse::<u64>().ok()?) * unit / scale;
        }
        rest = &after[end..];
    }
    // The engine stores durations as signed 64-bit numbers.
    i64::try_from(sum)
        .ok()
        .and_then(|sum| u64::try_from(sum).ok())
}

/// Splits the leading digits from the rest.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}
