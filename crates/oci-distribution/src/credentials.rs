//! A user and a password.

use http_client::Redactor;
use secrecy::SecretString;

/// A user and a password.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password. Its `Debug` does not show it.
    pub password: SecretString,
    redactor: Redactor,
}

impl Credentials {
    /// Credentials of this user.
    pub fn new(user: String, password: String) -> Self {
        Self {
            redactor: Redactor::new([password.as_str()]).with_basic_auth(&user, &password),
            user,
            password: SecretString::from(password),
        }
    }

    /// What replaces the password in texts.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Replaces the password by `***`.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }
}
