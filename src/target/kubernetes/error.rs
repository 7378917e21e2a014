//! Errors of the target `kubernetes`.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::ledger::RecordId;
use crate::pipeline::DeployFault;
use crate::store::StoreId;

/// Why a step in a Kubernetes cluster failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// There is no kubeconfig, and this program does not run in a cluster.
    #[error("no cluster is configured: {}", searched(files))]
    #[diagnostic(
        code(alokai::kubernetes::no_cluster),
        help("set `KUBECONFIG` to a kubeconfig file, or write `~/.kube/config`")
    )]
    NoCluster {
        /// The files that were searched.
        files: Vec<PathBuf>,
    },
    /// A file of the configuration cannot be read.
    #[error("`{}` cannot be read: {reason}", path.display())]
    #[diagnostic(
        code(alokai::kubernetes::file),
        help("check that the file exists and that you have permission to read it")
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The kubeconfig is not usable.
    #[error("the kubeconfig cannot be used: {reason}")]
    #[diagnostic(code(alokai::kubernetes::config), help("{help}"))]
    Config {
        /// The cause, with the name of the entry.
        reason: String,
        /// What to do.
        help: String,
    },
    /// The program that returns a login failed.
    #[error("the program `{program}` of the kubeconfig did not return a login: {reason}")]
    #[diagnostic(
        code(alokai::kubernetes::plugin),
        help("run `kubectl get namespaces` with this context, which starts the same program")
    )]
    Plugin {
        /// The program.
        program: String,
        /// What it printed, or why it could not be started.
        reason: String,
    },
    /// The API server does not answer.
    #[error("the API server `{server}` cannot be reached: {reason}")]
    #[diagnostic(
        code(alokai::kubernetes::unreachable),
        help("check the context (`kubectl config current-context`) and the network")
    )]
    Unreachable {
        /// Its address.
        server: String,
        /// The cause.
        reason: String,
    },
    /// The API server does not accept the login.
    #[error("the API server `{server}` does not accept the login: {message}")]
    #[diagnostic(
        code(alokai::kubernetes::login),
        help("renew the login of the context; `kubectl get namespaces` shows the same error")
    )]
    Login {
        /// Its address.
        server: String,
        /// Its message.
        message: String,
    },
    /// The user has no permission.
    #[error("no permission to {doing}: {message}")]
    #[diagnostic(
        code(alokai::kubernetes::forbidden),
        help(
            "the page \"Releases in Kubernetes\" of the docs lists the permissions that are needed"
        )
    )]
    Forbidden {
        /// What was to be done.
        doing: String,
        /// The message of the API server.
        message: String,
    },
    /// The API server refused a request.
    #[error("the API server cannot {doing} ({status}): {message}")]
    #[diagnostic(
        code(alokai::kubernetes::refused),
        help("see the message of the API server for the reason")
    )]
    Refused {
        /// What was to be done.
        doing: String,
        /// The HTTP status.
        status: u16,
        /// Its message.
        message: String,
    },
    /// The namespace does not exist.
    #[error("the namespace `{namespace}` does not exist")]
    #[diagnostic(
        code(alokai::kubernetes::no_namespace),
        help(
            "create it with `kubectl create namespace {namespace}`, or set `deploy.kubernetes.namespace`"
        )
    )]
    NoNamespace {
        /// The namespace.
        namespace: String,
    },
    /// The cluster does not have the Gateway API.
    #[error("the cluster does not have the Gateway API (`gateway.networking.k8s.io/v1`)")]
    #[diagnostic(
        code(alokai::kubernetes::no_gateway_api),
        help(
            "install its resource definitions, or use `deploy.kubernetes.ingress` instead of `deploy.kubernetes.gateway`"
        )
    )]
    NoGatewayApi,
    /// Another program has set a field that has to be changed.
    #[error("{object} was changed by another program:{}", lines(conflicts))]
    #[diagnostic(
        code(alokai::kubernetes::conflict),
        help(
            "alokai does not overwrite these fields; undo the change, or make the other program give the fields up (`kubectl get --show-managed-fields`)"
        )
    )]
    Conflict {
        /// The object.
        object: String,
        /// The messages of the API server: manager and field.
        conflicts: Vec<String>,
    },
    /// An object with a name that is needed belongs to something else.
    #[error("{object} exists, and it does not belong to this store")]
    #[diagnostic(
        code(alokai::kubernetes::foreign),
        help(
            "remove or rename the object, or set `deploy.kubernetes.namespace` to another namespace"
        )
    )]
    Foreign {
        /// The object.
        object: String,
    },
    /// The image is in a folder.
    #[error("the image `{reference}` is not in a registry, so a cluster cannot pull it")]
    #[diagnostic(
        code(alokai::kubernetes::layout),
        help("push to a registry: set `registry.url` or `--docker-registry-url`")
    )]
    Layout {
        /// The image.
        reference: String,
    },
    /// A store that has no project name.
    #[error("`{store}` is not a deployable store of this project")]
    #[diagnostic(
        code(alokai::kubernetes::unknown_store),
        help("add `stores.{store}.deployment` to `alokai.config.json`")
    )]
    UnknownStore {
        /// The store.
        store: StoreId,
    },
    /// A release that does not run.
    #[error("{what} of release {release} of `{store}` does not run")]
    #[diagnostic(
        code(alokai::kubernetes::not_staged),
        help("run the command again: it starts the release before the switch")
    )]
    NotStaged {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
        /// The part that does not run.
        what: String,
    },
    /// The release gets the traffic.
    #[error("release {release} of `{store}` gets the traffic and is not stopped")]
    #[diagnostic(
        code(alokai::kubernetes::active),
        help("make another release live first; `alokai store status` shows what is live")
    )]
    Active {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
    },
    /// Settings that the cluster does not have.
    #[error("the settings of version {version} of `{store}` are not in the Secret `{secret}`")]
    #[diagnostic(
        code(alokai::kubernetes::settings_missing),
        help(
            "set them again with `alokai store settings set --store {store}`, or roll back with `--current-settings`"
        )
    )]
    SettingsMissing {
        /// The store.
        store: StoreId,
        /// The version.
        version: String,
        /// The Secret.
        secret: String,
    },
    /// The claim that the config names does not exist.
    #[error("the PersistentVolumeClaim `{claim}` does not exist")]
    #[diagnostic(
        code(alokai::kubernetes::no_claim),
        help(
            "create it, or leave out `deploy.kubernetes.storage.claim`: alokai then makes a claim for each store"
        )
    )]
    NoClaim {
        /// The claim.
        claim: String,
    },
    /// The claim that the config names does not have the access mode of the config.
    #[error(
        "the PersistentVolumeClaim `{claim}` does not have the access mode {wanted}: it has {modes}"
    )]
    #[diagnostic(
        code(alokai::kubernetes::claim_mode),
        help("set `deploy.kubernetes.storage.accessMode` to the access mode of the claim")
    )]
    ClaimMode {
        /// The claim.
        claim: String,
        /// Its access modes.
        modes: String,
        /// The access mode of the config.
        wanted: &'static str,
    },
    /// An existing claim differs from the config, and the cluster refuses to change it.
    #[error("the PersistentVolumeClaim `{claim}` cannot be changed to match the config: {message}")]
    #[diagnostic(
        code(alokai::kubernetes::fixed_claim),
        help(
            "undo the change in `deploy.kubernetes.storage`; for another class or access mode, create a claim, copy the data, and name the claim in `deploy.kubernetes.storage.claim`"
        )
    )]
    FixedClaim {
        /// The claim.
        claim: String,
        /// The message of the API server.
        message: String,
    },
    /// A Secret of a running app does not exist.
    #[error(
        "the Secret `{secret}` does not exist, so its values cannot be replaced in the output of `{app}`"
    )]
    #[diagnostic(
        code(alokai::kubernetes::secret_missing),
        help("deploy the store again; `kubectl logs` shows the output with all values")
    )]
    SecretMissing {
        /// The Secret.
        secret: String,
        /// The app.
        app: String,
    },
    /// The output of a pod ended too early.
    #[error("the connection was lost while the output of {pod} was read: {reason}")]
    #[diagnostic(
        code(alokai::kubernetes::lost),
        help("run the command again; `--since` leaves out what was shown before")
    )]
    Lost {
        /// The pod.
        pod: String,
        /// The cause.
        reason: String,
    },
    /// The secrets of a pod are not known.
    #[error(
        "the Deployment of `{app}` does not exist any more, so the secrets in the output of {pod} are not known"
    )]
    #[diagnostic(
        code(alokai::kubernetes::pod_left),
        help(
            "run the command again when the cluster has deleted the pod; `alokai store status` shows which releases run"
        )
    )]
    PodLeft {
        /// The app.
        app: String,
        /// The pod.
        pod: String,
    },
    /// No release of the store gets the traffic, so no page can be shown.
    #[error(
        "no release of `{store}` gets the traffic, so there is no address for a maintenance page"
    )]
    #[diagnostic(
        code(alokai::kubernetes::nothing_live),
        help("deploy the store first: `alokai store deploy --store {store}`")
    )]
    NothingLive {
        /// The store.
        store: StoreId,
    },
    /// The pods of the maintenance page are not ready.
    #[error("the maintenance page of `{store}` cannot be served: {reason}")]
    #[diagnostic(
        code(alokai::kubernetes::page),
        help(
            "check that the image `{image}` of the live release has `node`, and see `kubectl describe pods`; the traffic was not switched"
        )
    )]
    Page {
        /// The store.
        store: StoreId,
        /// The image.
        image: String,
        /// The cause.
        reason: String,
    },
    /// The probe of an app cannot be offered on this machine.
    #[error("no port of this machine can be opened for the probe of `{app}`: {reason}")]
    #[diagnostic(
        code(alokai::kubernetes::probe),
        help("check the limits of open files and the loopback interface of this machine")
    )]
    Probe {
        /// The app.
        app: String,
        /// The cause.
        reason: String,
    },
}

fn searched(files: &[PathBuf]) -> String {
    if files.is_empty() {
        return "neither `KUBECONFIG` nor a home folder is set".into();
    }
    let names: Vec<_> = files
        .iter()
        .map(|it| format!("`{}`", it.display()))
        .collect();
    let does = if names.len() == 1 { "does" } else { "do" };
    format!("{} {does} not exist", names.join(", "))
}

fn lines(conflicts: &[String]) -> String {
    let lines = conflicts.iter().map(|conflict| format!("\n  {conflict}"));
    lines.collect()
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::Unreachable { .. } | Self::Login { .. } | Self::Plugin { .. } => {
                DeployFault::Unreachable
            }
            Self::NoCluster { .. }
            | Self::File { .. }
            | Self::Config { .. }
            | Self::NoNamespace { .. }
            | Self::NoGatewayApi
            | Self::Layout { .. }
            | Self::NoClaim { .. }
            | Self::ClaimMode { .. }
            | Self::FixedClaim { .. }
            | Self::NothingLive { .. }
            | Self::UnknownStore { .. } => DeployFault::Input,
            _ => DeployFault::Work,
        }
    }
}
