//! Secrets in texts that came from outside.

use std::cmp::Reverse;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};

/// The fewest characters of a line of a secret that is replaced by itself.
const SHORTEST_LINE: usize = 6;

/// The fewest characters of a line of a secret that is replaced where it is a whole line.
const SHORTEST_WHOLE_LINE: usize = 3;

/// Replaces secrets in a text by `***`, in every encoding in which they may appear.
#[derive(Clone, Default)]
pub struct Redactor {
    /// The longest first, so that no part of a secret is left.
    encodings: Vec<SecretString>,
    /// Short lines of secrets, which are replaced only where they are a whole line.
    lines: Vec<SecretString>,
}

impl Redactor {
    /// Replaces these secrets, also where they are encoded for JSON, a URL or a header. Of a secret with
    /// several lines, each line with at least six characters is replaced too, because output is read line by
    /// line. A line with three to five characters is replaced where the output has it as a whole line.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
        let secrets: Vec<&str> = secrets.collect();
        let mut redactor = Self::default();
        let several = secrets.iter().filter(|secret| secret.contains('\n'));
        let short = several.flat_map(|secret| secret.lines().map(str::trim));
        let short = short.filter(|line| (SHORTEST_WHOLE_LINE..SHORTEST_LINE).contains(&line.len()));
        redactor.lines = short.map(SecretString::from).collect();
        redactor.add(secrets.into_iter().flat_map(|secret| {
            let lines = secret.lines().map(str::trim);
            let lines = lines.filter(|line| secret.contains('\n') && line.len() >= SHORTEST_LINE);
            [secret].into_iter().chain(lines).flat_map(encodings)
        }));
        redactor
    }

    /// Also replaces the value of basic authentication. An empty password is not a secret.
    #[must_use]
    pub fn with_basic_auth(mut self, user: &str, password: &str) -> Self {
        if !password.is_empty() {
            self.add([BASE64.encode(format!("{user}:{password}"))]);
        }
        self
    }

    fn add(&mut self, texts: impl IntoIterator<Item = String>) {
        self.encodings
            .extend(texts.into_iter().map(SecretString::from));
        self.encodings
            .sort_by_key(|encoding| Reverse(encoding.expose_secret().len()));
    }

    /// The text with `***` for each secret.
    pub fn redact(&self, text: &str) -> String {
        let text = self
            .encodings
            .iter()
            .fold(text.to_owned(), |text, encoding| {
                text.replace(encoding.expose_secret(), "***")
            });
        if self.lines.is_empty() {
            return text;
        }
        let lines = text.split_inclusive('\n').map(|line| {
            let own = line.trim();
            let mut secrets = self.lines.iter();
            if secrets.any(|secret| secret.expose_secret() == own) {
                line.replace(own, "***")
            } else {
                line.to_owned()
            }
        });
        lines.collect()
    }

    /// The start of a secret that a split of the text at this byte would cut into two pieces.
    pub fn split_secret(&self, text: &[u8], at: usize) -> Option<usize> {
        let starts = self.encodings.iter().filter_map(|encoding| {
            let secret = encoding.expose_secret().as_bytes();
            let first = (at + 1).saturating_sub(secret.len());
            (first..at).find(|start| text[*start..].starts_with(secret))
        });
        starts.min()
    }

    /// Length in bytes of the longest text that [`Self::redact`] replaces.
    pub fn longest(&self) -> usize {
        let longest = self.encodings.first();
        longest.map_or(0, |encoding| encoding.expose_secret().len())
    }
}

/// The secret as it is, in JSON, in single quotes as Node prints it, in a URL, and in base64.
fn encodings(secret: &str) -> [String; 6] {
    let json = serde_json::Value::from(secret).to_string();
    let percent: String = secret
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    [
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        json[1..json.len() - 1].replace("\\\"", "\""),
        percent.to_lowercase(),
        percent,
        BASE64.encode(secret),
    ]
}

#[cfg(test)]
mod tests {
    use super::Redactor;

    #[test]
    fn a_secret_is_replaced_in_every_encoding() {
        let secret = "sec\"ret/x y";
        let redactor = Redactor::new([secret, ""]).with_basic_auth("u", secret);
        for text in [
            "sec\"ret/x y",
            r#"{"p":"sec\"ret/x y"}"#,
            "sec%22ret%2Fx%20y",
            "sec%22ret%2fx%20y",
            "c2VjInJldC94IHk=",
            "Basic dTpzZWMicmV0L3ggeQ==",
        ] {
            let redacted = redactor.redact(text);
            assert!(
                redacted.contains("***") && !redacted.contains("ret") && !redacted.contains("Mic"),
                "{redacted}"
            );
        }
        assert_eq!(redactor.longest(), "dTpzZWMicmV0L3ggeQ==".len());
        let several = Redactor::new(["-----\nab1cd\nlonger-line\n}"]);
        let printed = "pin ab1cd\n  ab1cd\nx longer-line\n}\n";
        assert_eq!(several.redact(printed), "pin ab1cd\n  ***\nx ***\n}\n");
        assert_eq!(several.redact("(-----\nab1cd\nlonger-line\n})"), "(***)");
        let nothing = Redactor::new([""]).with_basic_auth("u", "");
        assert_eq!(nothing.redact("text"), "text");
    }
}
