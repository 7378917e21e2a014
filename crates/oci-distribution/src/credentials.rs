//! A user and a password, and every encoding in which the password may appear in a text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};

/// A user and a password.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password. Its `Debug` does not show it.
    pub password: SecretString,
    /// The password in each encoding, longest first.
    encodings: Vec<SecretString>,
}

impl Credentials {
    /// Credentials of this user.
    pub fn new(user: String, password: String) -> Self {
        let mut encodings = Vec::new();
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
            encodings = vec![
                password.clone(),
                json[1..json.len() - 1].to_owned(),
                percent.to_lowercase(),
                percent,
                BASE64.encode(&password),
                // Basic authentication.
                BASE64.encode(format!("{user}:{password}")),
            ];
            encodings.sort_by_key(|encoding| std::cmp::Reverse(encoding.len()));
            encodings.dedup();
        }
        Self {
            user,
            password: SecretString::from(password),
            encodings: encodings.into_iter().map(SecretString::from).collect(),
        }
    }

    /// Replaces the password by `***`, also where it is encoded for JSON, a URL or a header.
    pub fn redact(&self, text: &str) -> String {
        self.encodings
            .iter()
            .fold(text.to_owned(), |text, encoding| {
                text.replace(encoding.expose_secret(), "***")
            })
    }

    /// Length in bytes of the longest text that [`Self::redact`] replaces.
    pub fn longest(&self) -> usize {
        self.encodings
            .first()
            .map_or(0, |encoding| encoding.expose_secret().len())
    }
}

#[cfg(test)]
mod tests {
    use super::Credentials;

    #[test]
    fn the_password_is_replaced_in_every_encoding() {
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
