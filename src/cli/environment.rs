//! The environment variables. Clippy forbids reading them in other modules. Two libraries read some
//! themselves: gitoxide those of git, and reqwest those of proxies.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the room that the others are told to use"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::Error;
use super::arguments::AccessOptions;
use crate::cache::RemoteCacheSettings;
use crate::dotenv;
use crate::error::Error as AnyError;
use crate::ledger::Actor;
use crate::pipeline::{Access, EngineAccess, KubernetesAccess, ScriptEnvironment};
use crate::plan::{HostEnvironment, is_system};
use crate::registry::USER_AGENT;
use crate::target::local::LocalClient;
use oci_distribution::{Credentials, Trust};

const USER: &str = "CLI_CLOUD_USERNAME";
const PASSWORD: &str = "CLI_CLOUD_PASSWORD";
const REGISTRY: &str = "CLI_DOCKER_REGISTRY_URL";
const CONSOLE: &str = "CLI_CONSOLE_API_URL";
const NO_WAIT: &str = "CLI_CONSOLE_NO_WAIT";
const TOKEN: &str = "TURBO_TOKEN";
const SIGNATURE_KEY: &str = "TURBO_REMOTE_CACHE_SIGNATURE_KEY";

/// The environment of the process, and below it the `.env` of the project. An empty value counts
/// as not set.
pub struct Environment {
    file: BTreeMap<String, String>,
}

impl Environment {
    /// Reads `.env` in the project, if there is one.
    pub fn load(project: &Path) -> Result<Self, Error> {
        let path = project.join(".env");
        if !path.is_file() {
            return Ok(Self {
                file: BTreeMap::new(),
            });
        }
        let text = std::fs::read(&path).map_err(|source| Error::EnvFile { path, source })?;
        let file = dotenv::parse(&String::from_utf8_lossy(&text))
            .into_iter()
            .collect();
        Ok(Self { file })
    }

    fn get(&self, name: &str) -> Option<String> {
        let set = |value: &String| !value.is_empty();
        std::env::var(name)
            .ok()
            .filter(set)
            .or_else(|| self.file.get(name).cloned().filter(set))
    }

    /// The registry of the option or the environment.
    pub fn registry(&self, options: &AccessOptions) -> Option<String> {
        given(options.docker_registry_url.as_ref()).or_else(|| self.get(REGISTRY))
    }

    /// The console of the option or the environment.
    pub fn console(&self, options: &AccessOptions) -> Option<String> {
        given(options.console_api_url.as_ref()).or_else(|| self.get(CONSOLE))
    }

    /// The address of Docker and the credentials. `password` is that of the command line.
    pub fn access(&self, options: &AccessOptions, password: Option<String>) -> Access {
        let user = given(options.cloud_username.as_ref()).or_else(|| self.get(USER));
        let password = password.or_else(|| self.get(PASSWORD));
        let missing = [(user.is_none(), USER), (password.is_none(), PASSWORD)];
        Access {
            no_wait: options.no_wait || self.get(NO_WAIT).is_some(),
            docker: self.docker(),
            docker_config: self.docker_config(),
            kubernetes: self.kubernetes(),
            registry: None,
            trust: Trust {
                folders: self.certificates(),
                ..Trust::default()
            },
            missing: missing
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, name)| *name)
                .collect(),
            credentials: user
                .zip(password)
                .map(|(user, password)| Arc::new(Credentials::new(user, password))),
        }
    }

    /// The credentials, so that they are redacted in the output of scripts.
    pub fn secrets(&self) -> Access {
        Access {
            credentials: self.get(PASSWORD).map(|password| {
                let user = self.get(USER).unwrap_or_default();
                Arc::new(Credentials::new(user, password))
            }),
            ..Access::default()
        }
    }

    /// The config file of Docker, where `docker login` stores credentials.
    fn docker_config(&self) -> Option<PathBuf> {
        let folder = self.get("DOCKER_CONFIG").map(PathBuf::from);
        let home = || Some(Path::new(&self.get("HOME")?).join(".docker"));
        Some(folder.or_else(home)?.join("config.json"))
    }

    /// The kubeconfig of `KUBECONFIG`, or that of the user, and the cluster in which this program runs.
    fn kubernetes(&self) -> KubernetesAccess {
        let own = || Some(Path::new(&self.get("HOME")?).join(".kube/config"));
        let files = match self.get("KUBECONFIG") {
            Some(list) => std::env::split_paths(&list).collect(),
            None => own().into_iter().collect(),
        };
        let (host, port) = (
            self.get("KUBERNETES_SERVICE_HOST"),
            self.get("KUBERNETES_SERVICE_PORT"),
        );
        KubernetesAccess {
            files,
            in_cluster: host.zip(port).map(|(host, port)| {
                if host.contains(':') {
                    format!("https://[{host}]:{port}")
                } else {
                    format!("https://{host}:{port}")
                }
            }),
        }
    }

    /// The folders with certificates of registries: of the machine, and of the user.
    fn certificates(&self) -> Vec<PathBuf> {
        let set = |name: &str| self.get(name).map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        let own = config.map(|config| config.join("docker/certs.d"));
        let machine = PathBuf::from("/etc/docker/certs.d");
        std::iter::once(machine).chain(own).collect()
    }

    /// The folders of certificate authorities: that of mkcert, and our own. `None` without a home folder.
    pub fn certificate_authorities(&self) -> Option<(PathBuf, PathBuf)> {
        let set = |name: &str| self.get(name).map(PathBuf::from);
        let data = set("XDG_DATA_HOME").or_else(|| {
            let below = match std::env::consts::OS {
                "macos" => "Library/Application Support",
                _ => ".local/share",
            };
            Some(set("HOME")?.join(below))
        })?;
        let mkcert = set("CAROOT").unwrap_or_else(|| data.join("mkcert"));
        Some((mkcert, data.join("alokai")))
    }

    /// Where the Docker engine is, with the variables that Docker's own client reads.
    pub fn docker(&self) -> EngineAccess {
        let folder = || {
            let set = self.get("DOCKER_CERT_PATH").map(PathBuf::from);
            set.or_else(|| Some(PathBuf::from(self.get("HOME")?).join(".docker")))
        };
        EngineAccess {
            host: self.get("DOCKER_HOST"),
            certificates: self.get("DOCKER_TLS_VERIFY").and_then(|_| folder()),
        }
    }

    /// The variables for scripts: the environment, and below it `.env`. Credentials are left out.
    pub fn scripts(&self, loose: bool) -> ScriptEnvironment {
        let file = self
            .file
            .iter()
            .map(|(name, value)| (name.clone(), value.into()));
        let mut all: BTreeMap<String, OsString> = file.collect();
        let mut from_file: BTreeSet<String> = all.keys().cloned().collect();
        for (name, value) in std::env::vars_os() {
            // Variables whose names are not UTF-8 are left out.
            if let Ok(name) = name.into_string()
                && (!value.is_empty() || !all.contains_key(&name))
            {
                from_file.remove(&name);
                all.insert(name, value);
            }
        }
        for secret in [USER, PASSWORD, TOKEN, SIGNATURE_KEY] {
            all.remove(secret);
        }
        ScriptEnvironment {
            all,
            from_file,
            loose,
        }
    }

    /// Whether `TURBO_TOKEN` is set, but neither an address nor a team.
    pub fn has_lonely_token(&self) -> bool {
        self.get(TOKEN).is_some() && self.remote().is_none()
    }

    /// The remote cache of the `TURBO_` variables.
    pub fn remote(&self) -> Option<RemoteCacheSettings> {
        let seconds = self
            .get("TURBO_REMOTE_CACHE_TIMEOUT")
            .and_then(|text| text.parse().ok());
        let is_set = |name: &str| {
            self.get(name)
                .is_some_and(|value| value != "0" && value != "false")
        };
        let (team, team_id) = (self.get("TURBO_TEAM"), self.get("TURBO_TEAMID"));
        let api = self.get("TURBO_API");
        // The default address of turbo is a service that requires a team.
        let is_known = api.is_some() || team.is_some() || team_id.is_some();
        Some(RemoteCacheSettings {
            token: self.get(TOKEN).filter(|_| is_known)?.into(),
            user_agent: USER_AGENT.into(),
            api: api.unwrap_or_else(|| "https://vercel.com/api".into()),
            team,
            team_id,
            signature_key: self.get(SIGNATURE_KEY).map(Into::into),
            read_only: is_set("TURBO_REMOTE_CACHE_READ_ONLY"),
            timeout: Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(30)),
        })
    }
}

impl AccessOptions {
    /// The password of the command line or of standard input.
    pub fn password(&self) -> Result<Option<String>, Error> {
        if !self.cloud_password_stdin {
            return Ok(given(self.cloud_password.as_ref()));
        }
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .map_err(|_| Error::NoPassword)?;
        let password = line.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() {
            return Err(Error::NoPassword);
        }
        Ok(Some(password))
    }
}

/// A running `node --version`. Node starts more slowly than a plan is made, so both happen at
/// the same time.
pub struct NodeVersion(Child);

impl NodeVersion {
    /// Starts `node --version` in the project, since version managers look for files there, with
    /// the environment of scripts. `None` if Node is not installed.
    pub fn ask(project: &Path, scripts: &ScriptEnvironment) -> Option<Self> {
        let mut command = Command::new("node");
        command
            .current_dir(project)
            .env_clear()
            .envs(scripts.seen(&[]))
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().ok().map(Self)
    }

    fn version(self) -> Option<String> {
        let output = self.0.wait_with_output().ok()?;
        let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!version.is_empty()).then_some(version)
    }
}

/// The parts of keys that are not files: variables, platform, version of Node.
pub fn surroundings(
    scripts: &ScriptEnvironment,
    node: Option<NodeVersion>,
    sandbox: bool,
) -> HostEnvironment {
    let texts = scripts.all.iter();
    let texts = texts.filter_map(|(name, value)| Some((name.clone(), value.to_str()?.to_owned())));
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let node = node
        .and_then(NodeVersion::version)
        .unwrap_or_else(|| "none".into());
    // With `loose`, scripts see variables that are not in their keys.
    let mode = match (scripts.loose, sandbox) {
        (true, _) => "loose",
        // A script may ignore that a file was refused, and make another result.
        (false, true) => "sandbox",
        (false, false) => "strict",
    };
    let tools = [
        ("node".into(), node),
        ("platform".into(), platform),
        ("environment".into(), mode.into()),
    ];
    HostEnvironment {
        environment: texts.collect(),
        tools: tools.into(),
    }
}

fn given(flag: Option<&String>) -> Option<String> {
    flag.filter(|value| !value.is_empty()).cloned()
}

/// The folder to start from: `--cwd`, or the current folder.
pub fn start(cwd: Option<&Path>) -> Result<PathBuf, Error> {
    let path = match cwd {
        Some(path) => path.to_owned(),
        None => std::env::current_dir().map_err(|_| Error::Cwd { path: ".".into() })?,
    };
    match path.canonicalize() {
        Ok(real) if real.is_dir() => Ok(real),
        _ => Err(Error::Cwd { path }),
    }
}

/// The path of this program.
pub fn own_program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// The client of the background process that runs stores on this machine. Of the environment, it gets the
/// variables of the system only.
pub fn local_client(project: &Path) -> LocalClient {
    let system = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        is_system(&name).then_some((name, value))
    });
    let program = own_program().unwrap_or_else(|_| "alokai".into());
    LocalClient::new(project, program, system.collect())
}

static STARTED: OnceLock<Instant> = OnceLock::new();

/// The start of the program, which is the first call of this function.
pub fn started() -> Instant {
    *STARTED.get_or_init(Instant::now)
}

/// Whether SIGHUP is ignored, as under `nohup`. Known only on Linux.
pub fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is the first signal.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// Ends this program at once.
pub fn end_now() -> ! {
    std::process::exit(crate::error::Exit::Interrupted as i32)
}

/// Opens an address in the user's browser.
pub fn open_address(address: &str) -> std::io::Result<()> {
    use std::process::{Command, Stdio};
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let mut command = Command::new(program);
    let null = [Stdio::null(), Stdio::null(), Stdio::null()];
    let [input, output, errors] = null;
    let mut child = command
        .arg(address)
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .spawn()?;
    // The program ends when the browser has the address.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// A terminal.
    Terminal,
    /// Lines, for a pipe or a CI system without groups.
    Plain,
    /// GitHub Actions.
    GitHub,
}

/// Who runs this program, and where: by the variables of the CI system, or of the machine.
pub fn actor() -> Actor {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let first = |names: &[&str]| names.iter().find_map(|name| set(name));
    let users = [
        "GITHUB_ACTOR",
        "GITLAB_USER_LOGIN",
        "BUILDKITE_BUILD_CREATOR",
        "CIRCLE_USERNAME",
        "LOGNAME",
        "USER",
    ];
    let github = || {
        let (server, repository) = (set("GITHUB_SERVER_URL")?, set("GITHUB_REPOSITORY")?);
        let run = set("GITHUB_RUN_ID")?;
        Some(format!("{server}/{repository}/actions/runs/{run}"))
    };
    let addresses = [
        "CI_JOB_URL",
        "BUILDKITE_BUILD_URL",
        "CIRCLE_BUILD_URL",
        "BUILD_URL",
    ];
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Actor {
        user: first(&users).unwrap_or_else(system_user),
        host,
        run: github().or_else(|| first(&addresses)),
    }
}

/// The user's name by the system, for an environment without it, as in containers.
fn system_user() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| {
        let asked = std::process::Command::new("id").arg("-un").output();
        let name = asked
            .ok()
            .filter(|it| it.status.success())
            .map(|it| it.stdout);
        let name = String::from_utf8_lossy(&name.unwrap_or_default())
            .trim()
            .to_owned();
        if name.is_empty() {
            rustix::process::getuid().as_raw().to_string()
        } else {
            name
        }
    });
    name.clone()
}

/// How to show progress in this environment.
pub fn screen() -> Screen {
    let set = |name: &str| {
        std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
    };
    if set("GITHUB_ACTIONS") {
        Screen::GitHub
    } else if set("CI")
        || !std::io::stderr().is_terminal()
        || std::env::var("TERM").is_ok_and(|term| term == "dumb")
    {
        Screen::Plain
    } else {
        Screen::Terminal
    }
}

/// How to show a long text: colours and pager, as git chooses them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Display {
    /// Whether lines are coloured.
    pub colour: bool,
    /// The command of the pager.
    pub pager: Option<String>,
}

/// The choice of git: `GIT_PAGER`, `core.pager`, `PAGER`, or `less`.
pub fn display(setting: impl Fn(&str) -> Option<String>) -> Display {
    if !std::io::stdout().is_terminal() {
        return Display::default();
    }
    let variable = |name: &str| std::env::var(name).ok();
    let dumb = variable("TERM").is_some_and(|term| term == "dumb");
    let never = setting("color.diff")
        .or_else(|| setting("color.ui"))
        .is_some_and(|value| ["never", "false", "no", "off"].contains(&value.as_str()));
    let pager = variable("GIT_PAGER")
        .or_else(|| setting("core.pager"))
        .or_else(|| variable("PAGER"))
        .unwrap_or_else(|| "less".into());
    Display {
        colour: !dumb && !never && variable("NO_COLOR").is_none_or(|value| value.is_empty()),
        pager: (!dumb && !pager.is_empty() && pager != "cat").then_some(pager),
    }
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether standard input is a terminal.
pub fn reads_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether a person can read a question and answer it.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks a question. Only `y` and `yes` confirm it; the end of the input does not.
pub fn confirms(question: &str) -> bool {
    use std::io::Write;
    let _ = write!(std::io::stderr(), "{question}");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.is_ok() && ["y", "yes"].contains(&line.trim().to_lowercase().as_str())
}

/// The command of the user's editor: `VISUAL`, or `EDITOR`.
pub fn editor() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    variable("VISUAL").or_else(|| variable("EDITOR"))
}

/// Asks for a text, and returns it without spaces around it. `None` at the end of the input.
pub fn ask(question: &str) -> Option<String> {
    use std::io::Write;
    let _ = write!(std::io::stderr(), "{question}");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    match read {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim().to_owned()),
    }
}

/// The width of the terminal. Without a terminal it is 80, as for git.
pub fn columns() -> usize {
    let width = std::io::stdout()
        .is_terminal()
        .then(terminal_size::terminal_size)
        .flatten();
    width.map_or(80, |(width, _)| usize::from(width.0))
}

/// Runs a pager. `false` if the pager does not exist. `less` gets the same options as from git:
/// quit if the text fits the screen, show colours, leave the text on the screen.
pub fn page(pager: &str, text: &[u8]) -> bool {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut command = Command::new("sh");
    command.args(["-c", pager]).stdin(Stdio::piped());
    for (name, value) in [("LESS", "FRX"), ("LV", "-c")] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    if let Some(mut stdin) = child.stdin.take() {
        // The user may quit the pager before its end.
        let _ = stdin.write_all(text);
    }
    // 127 is the exit code of the shell for a command that does not exist.
    child.wait().is_ok_and(|status| status.code() != Some(127))
}

/// Prints an error to standard error: with colours on a terminal, plain elsewhere.
pub fn print_error(error: AnyError) {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let terminal = std::io::stderr().is_terminal();
    let _ = miette::set_hook(Box::new(move |_| {
        let mut options = miette::MietteHandlerOpts::new()
            .color(terminal && !no_color)
            .break_words(false);
        if !terminal {
            // Lines of logs are not wrapped, so that grep finds whole messages.
            options = options.width(400).unicode(false);
        }
        Box::new(options.build())
    }));
    let text = format!("{:?}", miette::Report::new(error));
    // miette begins each related error with the line `Error: <code>`, also where it has no code.
    let lines = text.split_inclusive('\n');
    let text: String = lines.filter(|line| line.trim_end() != "Error:").collect();
    tell(&text);
}

/// Writes to standard error. Errors are ignored: nobody could read them.
pub fn tell(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
