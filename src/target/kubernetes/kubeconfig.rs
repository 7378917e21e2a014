//! The kubeconfig: which cluster a context names, and how to log in.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;

use super::error::Error;
use crate::pipeline::KubernetesAccess;

/// Where Kubernetes puts the login of a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A cluster, and how to log in.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The address of its API server.
    pub server: Url,
    /// The certificate authorities in PEM. None means those of the system.
    pub authorities: Option<Vec<u8>>,
    /// Whether the certificate of the server is not checked.
    pub insecure: bool,
    /// The namespace of the context.
    pub namespace: Option<String>,
    /// The certificate and the key of the user in PEM.
    pub identity: Option<SecretString>,
    /// The token of the user.
    pub login: ApiLogin,
}

/// Where the token of a user comes from.
#[derive(Debug, Clone)]
pub enum ApiLogin {
    /// There is no token.
    None,
    /// A fixed token.
    Token(SecretString),
    /// A file, which another program renews.
    File(PathBuf),
    /// A program, which returns a token or a certificate.
    Plugin(LoginPlugin),
}

/// A program that returns a login.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginPlugin {
    /// The version of the answer, such as `client.authentication.k8s.io/v1`.
    pub api_version: String,
    /// The program. A path with a folder is relative to the kubeconfig.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Variables that are set for it.
    #[serde(default)]
    pub env: Option<Vec<PluginVariable>>,
}

/// A variable of a program.
#[derive(Debug, Clone, Deserialize)]
pub struct PluginVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct ConfigFile {
    current_context: Option<String>,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<UserEntry>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct UserEntry {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<LoginPlugin>,
    auth_provider: Option<serde_json::Value>,
    username: Option<String>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct ContextEntry {
    cluster: String,
    user: Option<String>,
    namespace: Option<String>,
}

/// An entry, and the folder to which its paths are relative.
type Placed<'a, T> = (&'a Path, T);

/// The cluster of a context, or of the current context. Without a kubeconfig, it is the cluster in which
/// this program runs.
pub fn cluster(access: &KubernetesAccess, context: Option<&str>) -> Result<Cluster, Error> {
    let mut files = Vec::new();
    for path in access.files.iter().filter(|path| path.exists()) {
        files.push((path.parent().unwrap_or(Path::new("")), read_config(path)?));
    }
    if files.is_empty() {
        let server = access.in_cluster.as_ref();
        let server = server.filter(|_| Path::new(SERVICE_ACCOUNT).is_dir());
        let server = server.ok_or_else(|| Error::NoCluster {
            files: access.files.clone(),
        })?;
        return in_cluster(server, Path::new(SERVICE_ACCOUNT));
    }
    let files: Vec<Placed<&ConfigFile>> = files.iter().map(|(folder, it)| (*folder, it)).collect();
    let current = || {
        let mut files = files.iter();
        files.find_map(|(_, file)| file.current_context.as_deref().filter(|it| !it.is_empty()))
    };
    let name = context.or_else(current).ok_or_else(|| Error::Config {
        reason: "it has no current context".into(),
        help: "set `deploy.kubernetes.context`, or run `kubectl config use-context <name>`".into(),
    })?;
    named_cluster(&files, name)
}

fn read_config(path: &Path) -> Result<ConfigFile, Error> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    // A parser's message may show lines with secrets, so only the place is told.
    serde_saphyr::from_str::<Option<ConfigFile>>(&text)
        .map(Option::unwrap_or_default)
        .map_err(|error| Error::File {
            path: path.to_owned(),
            reason: match error.location() {
                Some(place) => format!(
                    "line {}, column {} is not valid in a kubeconfig",
                    place.line(),
                    place.column()
                ),
                None => "it is not a valid kubeconfig".into(),
            },
        })
}

fn missing(what: &str, name: &str) -> Error {
    Error::Config {
        reason: format!("it has no {what} `{}`", name.escape_debug()),
        help:
            "`kubectl config view` shows what it has; `deploy.kubernetes.context` names the context"
                .into(),
    }
}

fn named_cluster(files: &[Placed<&ConfigFile>], name: &str) -> Result<Cluster, Error> {
    let contexts = files
        .iter()
        .flat_map(|(_, file)| file.contexts.iter().flatten());
    let context = contexts
        .filter(|it| it.name == name)
        .map(|it| &it.context)
        .next();
    let context = context.ok_or_else(|| missing("context", name))?;
    let cluster = files.iter().find_map(|(folder, file)| {
        let mut clusters = file.clusters.iter().flatten();
        let found = clusters.find(|it| it.name == context.cluster)?;
        Some((*folder, &found.cluster))
    });
    let (folder, entry) = cluster.ok_or_else(|| missing("cluster", &context.cluster))?;
    let wanted = context.user.as_deref().filter(|user| !user.is_empty());
    let user = wanted.map(|wanted| {
        let found = files.iter().find_map(|(folder, file)| {
            let mut users = file.users.iter().flatten();
            let found = users.find(|it| it.name == wanted)?;
            Some((*folder, found.user.as_ref()))
        });
        found.ok_or_else(|| missing("user", wanted))
    });
    let unsupported = |key: &str, help: &str| Error::Config {
        reason: format!("`{key}` of the context `{name}` is not supported"),
        help: help.to_owned(),
    };
    if entry.tls_server_name.is_some() {
        let help = "use an address for which the certificate of the server is valid";
        return Err(unsupported("tls-server-name", help));
    }
    if entry.proxy_url.is_some() {
        let help = "set `HTTPS_PROXY` to the address of the proxy";
        return Err(unsupported("proxy-url", help));
    }
    let server = Url::parse(&entry.server).map_err(|error| Error::Config {
        reason: format!(
            "`{}` is not a valid address of a server: {error}",
            entry.server.escape_debug()
        ),
        help: "write an address such as `https://10.0.0.1:6443`".into(),
    })?;
    let authorities = match &entry.certificate_authority_data {
        Some(data) => Some(decode("certificate-authority-data", data)?),
        None => read_some(folder, entry.certificate_authority.as_deref())?,
    };
    let mut cluster = Cluster {
        server,
        authorities,
        insecure: entry.insecure_skip_tls_verify,
        namespace: context.namespace.clone().filter(|it| !it.is_empty()),
        identity: None,
        login: ApiLogin::None,
    };
    if let Some((folder, Some(user))) = user.transpose()? {
        if user.auth_provider.is_some() {
            let help = "use a program (`exec`), as newer versions of the cloud's tools write it";
            return Err(unsupported("auth-provider", help));
        }
        if user.username.is_some() {
            let help = "use a token, a client certificate or a program (`exec`)";
            return Err(unsupported("username", help));
        }
        cluster.identity = identity(folder, user)?;
        cluster.login = login(folder, user);
    }
    Ok(cluster)
}

fn login(folder: &Path, user: &UserEntry) -> ApiLogin {
    if let Some(plugin) = &user.exec {
        let mut plugin = plugin.clone();
        if plugin.command.contains('/') {
            plugin.command = folder.join(&plugin.command).to_string_lossy().into_owned();
        }
        return ApiLogin::Plugin(plugin);
    }
    match (&user.token_file, &user.token) {
        (Some(file), _) => ApiLogin::File(folder.join(file)),
        (None, Some(token)) => ApiLogin::Token(token.clone().into()),
        (None, None) => ApiLogin::None,
    }
}

fn identity(folder: &Path, user: &UserEntry) -> Result<Option<SecretString>, Error> {
    let certificate = match &user.client_certificate_data {
        Some(data) => Some(decode("client-certificate-data", data)?),
        None => read_some(folder, user.client_certificate.as_deref())?,
    };
    let key = match &user.client_key_data {
        Some(data) => Some(decode("client-key-data", data)?),
        None => read_some(folder, user.client_key.as_deref())?,
    };
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Ok(None);
    };
    let both = [certificate, b"\n".to_vec(), key].concat();
    Ok(Some(String::from_utf8_lossy(&both).into_owned().into()))
}

fn decode(key: &str, data: &str) -> Result<Vec<u8>, Error> {
    let data: String = data.split_whitespace().collect();
    STANDARD.decode(data).map_err(|_| Error::Config {
        reason: format!("`{key}` is not valid base64"),
        help: "write the kubeconfig again with the tool that made it".into(),
    })
}

fn read_some(folder: &Path, path: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    path.map(|path| read(&folder.join(path))).transpose()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The cluster in which this program runs, with the login of its pod.
fn in_cluster(server: &str, folder: &Path) -> Result<Cluster, Error> {
    let namespace = String::from_utf8_lossy(&read(&folder.join("namespace"))?)
        .trim()
        .to_owned();
    Ok(Cluster {
        server: Url::parse(server).map_err(|error| Error::Config {
            reason: format!("`{}`: {error}", server.escape_debug()),
            help: "`KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` name the server".into(),
        })?,
        authorities: Some(read(&folder.join("ca.crt"))?),
        insecure: false,
        namespace: Some(namespace).filter(|it| !it.is_empty()),
        identity: None,
        login: ApiLogin::File(folder.join("token")),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use secrecy::ExposeSecret;

    use super::{ApiLogin, cluster, in_cluster};
    use crate::pipeline::KubernetesAccess;

    const FIRST: &str = "
apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority: ca.crt}
contexts:
- name: token
  context: {cluster: c, user: t, namespace: shops}
- name: certificate
  context: {cluster: c, user: certificate}
- name: program
  context: {cluster: c, user: program}
- name: lost
  context: {cluster: gone, user: t}
current-context: token
";

    const SECOND: &str = "
clusters: []
current-context: certificate
users:
- name: t
  user: {token: first-token}
- name: certificate
  user: {client-certificate-data: Q0VSVA==, client-key: key.pem}
- name: program
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: ./login
      args: [get-token]
      env: null
      interactiveMode: Never
";

    fn access(folder: &Path) -> KubernetesAccess {
        for (name, text) in [
            ("first", FIRST),
            ("second", SECOND),
            ("ca.crt", "AUTHORITY"),
            ("key.pem", "KEY"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let files = ["missing", "first", "second"].map(|name| folder.join(name));
        KubernetesAccess {
            files: files.to_vec(),
            in_cluster: None,
        }
    }

    #[test]
    fn a_context_names_cluster_user_and_namespace_across_files() {
        let folder = tempfile::tempdir().unwrap();
        let access = access(folder.path());
        let found = cluster(&access, None).unwrap();
        assert_eq!(found.server.as_str(), "https://10.0.0.1:6443/");
        assert_eq!(found.namespace.as_deref(), Some("shops"));
        assert_eq!(found.authorities.as_deref(), Some(&b"AUTHORITY"[..]));
        assert!(matches!(&found.login, ApiLogin::Token(it) if it.expose_secret() == "first-token"));

        let found = cluster(&access, Some("certificate")).unwrap();
        assert_eq!(found.identity.unwrap().expose_secret(), "CERT\nKEY");
        assert_eq!(found.namespace, None);

        let found = cluster(&access, Some("program")).unwrap();
        let ApiLogin::Plugin(plugin) = found.login else {
            panic!("{:?}", found.login);
        };
        assert_eq!(Path::new(&plugin.command), folder.path().join("./login"));
        assert_eq!(plugin.args.unwrap(), ["get-token"]);
    }

    #[test]
    fn what_is_missing_is_named_and_no_line_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let access = access(folder.path());
        let message = |context| cluster(&access, Some(context)).unwrap_err().to_string();
        assert!(message("other").contains("context `other`"));
        assert!(message("lost").contains("cluster `gone`"));

        std::fs::write(folder.path().join("first"), "users: [{token: secret").unwrap();
        let error = cluster(&access, None).unwrap_err().to_string();
        assert!(error.contains("first"), "{error}");
        assert!(!error.contains("secret"), "{error}");

        let nowhere = KubernetesAccess::default();
        assert!(cluster(&nowhere, None).is_err());
    }

    #[test]
    fn a_pod_has_the_login_of_its_service_account() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("namespace", "shops\n"), ("ca.crt", "A"), ("token", "t")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let found = in_cluster("https://10.96.0.1:443", folder.path()).unwrap();
        assert_eq!(found.namespace.as_deref(), Some("shops"));
        assert!(matches!(found.login, ApiLogin::File(_)));
    }
}
