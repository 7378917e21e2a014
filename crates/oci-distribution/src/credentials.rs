//! User and password, and every way in which others may write the password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};

/// User and password of the cloud: one pair for registry and console.
#[derive(Clone)]
pub struct Credentials {
    /// `CLI_CLOUD_USERNAME`.
    pub user: String,
    /// `CLI_CLOUD_PASSWORD`; has no `Debug` that shows it.
    pub password: SecretString,
    /// The password as others write it, longest first.
    spellings: Vec<SecretString>,
}

impl Credentials {
    /// Takes them as they were given.
    pub fn new(user: String, password: String) -> Self {
        let mut spellings = Vec::new();
        if !password.is_empty() {
            let json = serde_json::Value::from(password.as_str()).to_string();
            let percent: String = password
                .bytes()
                .map(|byte| match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                        char::from(byte).to_string()
                    }
                    other => format!("%{other:02X}"),
                })
                .collect();
            spellings = vec![
                password.clone(),
                json[1..json.len() - 1].to_owned(),
                percent.to_lowercase(),
                percent,
                BASE64.encode(&password),
                // Basic authentication.
                BASE64.encode(format!("{user}:{password}")),
            ];
            spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
            spellings.dedup();
        }
        Self {
            user,
            password: SecretString::from(password),
            spellings: spellings.into_iter().map(SecretString::from).collect(),
        }
    }

    /// Puts `***` where the password stands, also as JSON, an address or a header would have it.
    pub fn redact(&self, text: &str) -> String {
        self.spellings
            .iter()
            .fold(text.to_owned(), |text, spelling| {
                text.replace(spelling.expose_secret(), "***")
            })
    }

    /// Bytes of the longest text that [`Self::redact`] looks for.
    pub fn longest(&self) -> usize {
        self.spellings
            .first()
            .map_or(0, |spelling| spelling.expose_secret().len())
    }
}

#[cfg(test)]
mod tests {
    use super::Credentials;

    #[test]
    fn the_password_is_found_in_every_spelling() {
        let credentials = Credentials::new("u".into(), "sec\"ret/x y".into());
        for text in [
            "sec\"ret/x y",
            r#"{"p":"sec\"ret/x y"}"#,
            "sec%22ret%2Fx%20y",
            "sec%22ret%2fx%20y",
            "Basic dTpzZWMicmV0L3ggeQ==",
        ] {
            let redacted = credentials.redact(text);
            assert!(
                redacted.contains("***") && !redacted.contains("ret"),
                "{redacted}"
            );
        }
        assert_eq!(
            Credentials::new("u".into(), String::new()).redact("text"),
            "text"
        );
    }
}
