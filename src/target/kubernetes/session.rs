//! The login at an API server: the HTTP client with its certificates, and the token.

use std::process::Stdio;
use std::time::Duration;

use http_client::{HttpOptions, build};
use jiff::Timestamp;
use reqwest::{Certificate, Client, Identity};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use super::error::Error;
use super::kubeconfig::{ApiLogin, Cluster, LoginPlugin};
use crate::registry::USER_AGENT;

/// How long a token of a file is used before the file is read again.
const FILE_LIFE: Duration = Duration::from_mins(1);

/// The time limit of a program that returns a login. It may ask the user's browser.
const PLUGIN_LIMIT: Duration = Duration::from_mins(2);

/// Bytes of a program's errors that an error shows.
const SHOWN: usize = 2000;

/// A login that is used for a while.
#[derive(Clone)]
pub struct ApiSession {
    /// The client, with the certificates.
    pub client: Client,
    /// The token.
    pub token: Option<SecretString>,
    /// When the login has to be made again. None means never.
    until: Option<Timestamp>,
}

/// What a login gives.
#[derive(Default)]
struct Credential {
    token: Option<SecretString>,
    identity: Option<SecretString>,
    until: Option<Timestamp>,
}

/// The answer of a program.
#[derive(Deserialize)]
struct ExecCredential {
    #[serde(default)]
    status: Option<ExecStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecStatus {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<Timestamp>,
}

impl ApiSession {
    /// Logs in.
    pub async fn open(cluster: &Cluster) -> Result<Self, Error> {
        let credential = match &cluster.login {
            ApiLogin::None => Credential::default(),
            ApiLogin::Token(token) => Credential {
                token: Some(token.clone()),
                ..Credential::default()
            },
            ApiLogin::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                let text = read.map_err(|error| Error::File {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
                Credential {
                    token: Some(text.trim().to_owned().into()),
                    until: Some(Timestamp::now() + FILE_LIFE),
                    ..Credential::default()
                }
            }
            ApiLogin::Plugin(plugin) => ask(plugin).await?,
        };
        let identity = credential.identity.or_else(|| cluster.identity.clone());
        Ok(Self {
            client: client(cluster, identity.as_ref())?,
            token: credential.token,
            until: credential.until,
        })
    }

    /// Whether the login is still valid for a request.
    pub fn is_valid(&self) -> bool {
        let margin = Duration::from_secs(10);
        self.until
            .is_none_or(|until| Timestamp::now() + margin < until)
    }
}

fn client(cluster: &Cluster, identity: Option<&SecretString>) -> Result<Client, Error> {
    let unusable = |what: &str| {
        let reason = format!("{what} cannot be used");
        // A message of the TLS library could show a part of the key.
        move |_: reqwest::Error| Error::Config {
            reason: reason.clone(),
            help: "write the kubeconfig again with the tool that made it".into(),
        }
    };
    let authorities = cluster.authorities.as_deref();
    let certificates = authorities.map(Certificate::from_pem_bundle).transpose();
    let identity = identity.map(|pem| Identity::from_pem(pem.expose_secret().as_bytes()));
    let options = HttpOptions {
        certificates: certificates
            .map_err(unusable("the certificate authority"))?
            .unwrap_or_default(),
        // As kubectl does: the authority of a cluster is the only one that may vouch for it.
        only_certificates: authorities.is_some(),
        any_certificate: cluster.insecure,
        identity: identity
            .transpose()
            .map_err(unusable("the client certificate"))?,
        ..HttpOptions::new(USER_AGENT)
    };
    build(&cluster.server, options).map_err(unusable("its certificates"))
}

/// Starts a program of the kubeconfig, which prints a login.
async fn ask(plugin: &LoginPlugin) -> Result<Credential, Error> {
    let failed = |reason: String| Error::Plugin {
        program: plugin.command.clone(),
        reason,
    };
    let request = json!({
        "apiVersion": plugin.api_version,
        "kind": "ExecCredential",
        "spec": { "interactive": false },
    });
    let mut command = Command::new(&plugin.command);
    command
        .args(plugin.args.iter().flatten())
        .env("KUBERNETES_EXEC_INFO", request.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for variable in plugin.env.iter().flatten() {
        command.env(&variable.name, &variable.value);
    }
    let output = tokio::time::timeout(PLUGIN_LIMIT, command.output()).await;
    let output = output
        .map_err(|_| failed(format!("no answer within {} s", PLUGIN_LIMIT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().chars().take(SHOWN).collect();
        return Err(failed(format!("{}: {said}", output.status)));
    }
    // A parser's message could show the token.
    let invalid = || failed("its output is not an `ExecCredential`".into());
    let answer: ExecCredential = serde_json::from_slice(&output.stdout).map_err(|_| invalid())?;
    let status = answer.status.ok_or_else(invalid)?;
    let both = status.client_certificate_data.zip(status.client_key_data);
    let credential = Credential {
        token: status.token.map(Into::into),
        identity: both.map(|(certificate, key)| format!("{certificate}\n{key}").into()),
        until: status.expiration_timestamp,
    };
    if credential.token.is_none() && credential.identity.is_none() {
        return Err(invalid());
    }
    Ok(credential)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::ask;
    use crate::target::kubernetes::kubeconfig::{LoginPlugin, PluginVariable};

    fn plugin(folder: &std::path::Path, script: &str) -> LoginPlugin {
        let path = folder.join("login");
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        LoginPlugin {
            api_version: "client.authentication.k8s.io/v1".into(),
            command: path.to_string_lossy().into_owned(),
            args: Some(vec!["shop".into()]),
            env: Some(vec![PluginVariable {
                name: "REGION".into(),
                value: "eu".into(),
            }]),
        }
    }

    #[tokio::test]
    async fn a_program_returns_a_token_and_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"case $KUBERNETES_EXEC_INFO in *client.authentication.k8s.io/v1*) ;; *) exit 1 ;; esac
printf '{"kind":"ExecCredential","status":{"token":"%s-%s","expirationTimestamp":"2100-01-01T00:00:00Z"}}' "$1" "$REGION""#;
        let credential = ask(&plugin(folder.path(), script)).await.unwrap();
        assert_eq!(credential.token.unwrap().expose_secret(), "shop-eu");
        assert!(credential.until.is_some());
    }

    #[tokio::test]
    async fn a_program_that_fails_is_shown_and_its_output_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo the session has ended >&2; echo hidden; exit 4";
        let error = ask(&plugin(folder.path(), script)).await.err().unwrap();
        let text = error.to_string();
        assert!(text.contains("the session has ended"), "{text}");
        assert!(!text.contains("hidden"), "{text}");

        let error = ask(&plugin(folder.path(), "echo hidden")).await;
        let text = error.err().unwrap().to_string();
        assert!(text.contains("ExecCredential"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
