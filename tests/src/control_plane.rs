//! Runs a real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager. Without a
//! node, it has only the controllers for namespaces, garbage collection and Pods of Deployments.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::certificates::Certificates;
use crate::helm::Helm;
use crate::kubectl::Kubectl;
use crate::namespace::Namespace;
use crate::port::free_port;
use crate::process::{Process, Spec};
use crate::scratch::Scratch;
use crate::tools::tool;
use crate::wait::eventually;

/// The time for which a server may start. It is usually 5 s on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The controllers that the suites without a node need. Others would only use CPU time.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,\
    serviceaccount-controller,root-ca-certificate-publisher-controller,\
    deployment-controller,replicaset-controller,statefulset-controller,job-controller";

/// Requests that the API server records: those of every ServiceAccount outside of `kube-system`.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"}
    ]
}"#;

/// The network of the Services.
const SERVICE_NETWORK: &str = "10.96.0.0/16";

/// The address of the API server in [`SERVICE_NETWORK`].
const SERVICE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

const AUDIT_LOG: &str = "audit.log";

/// The files with which a kubelet authenticates and serves.
pub(crate) struct NodeIdentity {
    pub kubeconfig: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

pub struct ControlPlane {
    url: String,
    authority: PathBuf,
    certificates: Certificates,
    kubectl: Kubectl,
    // In the order in which they are dropped.
    _controller_manager: Process,
    api_server: Process,
    etcd: Process,
    scratch: Scratch,
}

impl ControlPlane {
    /// The control plane of this test process, which starts with the first call.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts a control plane without nodes.
    pub async fn start() -> Result<Self> {
        Self::start_with(IpAddr::V4(Ipv4Addr::LOCALHOST), false).await
    }

    /// Starts a control plane whose API server listens on an address that Pods can reach.
    pub(crate) async fn start_for_node(address: IpAddr) -> Result<Self> {
        Self::start_with(address, true).await
    }

    async fn start_with(address: IpAddr, has_node: bool) -> Result<Self> {
        let scratch = Scratch::new("control-plane")?;
        let certificates = Certificates::create(&scratch, &[address, SERVICE_ADDRESS])?;

        let (etcd, etcd_url) = start_etcd(&scratch).await?;
        let api_server = ApiServer { scratch: &scratch, certificates: &certificates, address };
        let (api_server, url) = api_server.start(&etcd_url, has_node).await?;
        let user = json!({
            "client-certificate": certificates.administrator.certificate,
            "client-key": certificates.administrator.key,
        });
        let kubeconfig = kubeconfig(&url, &certificates.authority, None, user);
        let kubeconfig = scratch.write("administrator.kubeconfig", &kubeconfig)?;
        let kubectl = Kubectl::new(tool("kubectl").await?, &kubeconfig);
        eventually(START_TIMEOUT, "kube-apiserver to be ready", async || {
            api_server.ensure_running()?;
            etcd.ensure_running()?;
            kubectl.run(&["get", "--raw", "/readyz"]).await
        })
        .await?;

        let controller_manager =
            start_controller_manager(&scratch, &certificates, &kubeconfig, has_node).await?;
        // Every namespace needs this object first.
        eventually(
            START_TIMEOUT,
            "kube-controller-manager to create a ServiceAccount",
            async || {
                controller_manager.ensure_running()?;
                kubectl.get(&["serviceaccount", "default", "--namespace", "default"]).await
            },
        )
        .await?;

        Ok(Self {
            url,
            authority: certificates.authority.clone(),
            certificates,
            kubectl,
            _controller_manager: controller_manager,
            api_server,
            etcd,
            scratch,
        })
    }

    /// kubectl as an administrator.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Helm as an administrator.
    pub async fn helm(&self) -> Result<Helm> {
        Ok(Helm::new(tool("helm").await?, self.kubeconfig()))
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> &Path {
        self.kubectl.kubeconfig()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The identity of a node, which the authorizer for nodes and NodeRestriction recognize.
    pub(crate) fn node_identity(&self, name: &str, address: IpAddr) -> Result<NodeIdentity> {
        let identity = self.certificates.node(&self.scratch, name, address)?;
        let user = json!({"client-certificate": identity.certificate, "client-key": identity.key});
        let kubeconfig = kubeconfig(&self.url, &self.authority, None, user);
        let kubeconfig = self.scratch.write(&format!("{name}.kubeconfig"), &kubeconfig)?;
        Ok(NodeIdentity { kubeconfig, certificate: identity.certificate, key: identity.key })
    }

    /// The requests of ServiceAccounts that the API server has recorded, one JSON object per line.
    pub fn audit_log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.scratch.path().join(AUDIT_LOG))?)
    }

    /// The processes that a test may pause.
    pub fn api_server(&self) -> &Process {
        &self.api_server
    }

    pub fn etcd(&self) -> &Process {
        &self.etcd
    }

    /// The certificate of the authority that signed the server's certificate.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// Creates a namespace for one test.
    pub async fn namespace(&self) -> Result<Namespace> {
        Namespace::create(&self.kubectl).await
    }

    /// Creates kubectl, with a kubeconfig, for a ServiceAccount, with a token like that of a Pod.
    pub async fn as_service_account(&self, namespace: &str, name: &str) -> Result<Kubectl> {
        let token = self.kubectl.run(&["create", "token", name, "--namespace", namespace]).await?;
        let user = json!({"token": token.trim()});
        let kubeconfig = kubeconfig(&self.url, &self.authority, Some(namespace), user);
        let kubeconfig =
            self.scratch.write(&format!("{namespace}.{name}.kubeconfig"), &kubeconfig)?;
        Ok(Kubectl::new(tool("kubectl").await?, kubeconfig))
    }
}

/// Returns a kubeconfig in JSON, which is also YAML.
fn kubeconfig(
    url: &str,
    authority: &Path,
    namespace: Option<&str>,
    user: serde_json::Value,
) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "tests",
            "cluster": {"server": url, "certificate-authority": authority},
        }],
        "users": [{"name": "tests", "user": user}],
        "contexts": [{
            "name": "tests",
            "context": {
                "cluster": "tests",
                "user": "tests",
                "namespace": namespace.unwrap_or("default"),
            },
        }],
        "current-context": "tests",
    })
    .to_string()
}

async fn start_etcd(scratch: &Scratch) -> Result<(Process, String)> {
    let url = format!("http://127.0.0.1:{}", free_port()?);
    let peers = format!("http://127.0.0.1:{}", free_port()?);
    let spec = Spec::new(tool("etcd").await?, scratch.path().join("etcd.log")).arguments([
        format!("--data-dir={}", scratch.path().join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // The data does not have to survive a power failure.
        "--unsafe-no-fsync=true".into(),
        "--log-level=warn".into(),
    ]);
    Ok((Process::start("etcd", spec)?, url))
}

struct ApiServer<'a> {
    scratch: &'a Scratch,
    certificates: &'a Certificates,
    address: IpAddr,
}

impl ApiServer<'_> {
    async fn start(&self, etcd: &str, has_node: bool) -> Result<(Process, String)> {
        let port = free_port()?;
        let url = format!("https://{}:{port}", self.address);
        let log = self.scratch.path().join("kube-apiserver.log");
        let spec = Spec::new(tool("kube-apiserver").await?, log)
            .arguments(self.arguments(etcd, port, &url))
            .arguments(if has_node {
                self.arguments_with_node()?
            } else {
                Self::arguments_alone()
            });
        Ok((Process::start("kube-apiserver", spec)?, url))
    }

    fn arguments(&self, etcd: &str, port: u16, url: &str) -> Vec<String> {
        let certificates = self.certificates;
        vec![
            format!("--etcd-servers={etcd}"),
            format!("--bind-address={}", self.address),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", self.scratch.path().display()),
            flag("tls-cert-file", &certificates.server.certificate),
            flag("tls-private-key-file", &certificates.server.key),
            flag("client-ca-file", &certificates.authority),
            format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
            "--allow-privileged=true".into(),
            format!("--service-account-issuer={url}/"),
            // The second audience is that of the tokens for AWS.
            format!("--api-audiences={url}/,sts.amazonaws.com"),
            flag("service-account-key-file", &certificates.token_public_key),
            flag("service-account-signing-key-file", &certificates.token_key),
        ]
    }

    fn arguments_alone() -> Vec<String> {
        vec![
            "--authorization-mode=RBAC".into(),
            // It would reject Pods until kube-controller-manager has created their ServiceAccount.
            "--disable-admission-plugins=ServiceAccount".into(),
            // No Service needs the address of this server.
            "--endpoint-reconciler-type=none".into(),
        ]
    }

    fn arguments_with_node(&self) -> Result<Vec<String>> {
        let administrator = &self.certificates.administrator;
        let policy = self.scratch.write("audit-policy.json", AUDIT_POLICY)?;
        Ok(vec![
            "--authorization-mode=Node,RBAC".into(),
            // As on OpenShift, nobody may set an owner that blocks deletion without the permission to
            // delete that owner.
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement"
                .into(),
            format!("--advertise-address={}", self.address),
            // For `kubectl logs` and `kubectl exec`.
            "--kubelet-preferred-address-types=InternalIP".into(),
            flag("kubelet-client-certificate", &administrator.certificate),
            flag("kubelet-client-key", &administrator.key),
            flag("audit-policy-file", &policy),
            flag("audit-log-path", &self.scratch.path().join(AUDIT_LOG)),
        ])
    }
}

async fn start_controller_manager(
    scratch: &Scratch,
    certificates: &Certificates,
    kubeconfig: &Path,
    has_node: bool,
) -> Result<Process> {
    let controllers = if has_node { "*" } else { CONTROLLERS };
    let log = scratch.path().join("kube-controller-manager.log");
    let spec = Spec::new(tool("kube-controller-manager").await?, log).arguments([
        flag("kubeconfig", kubeconfig),
        flag("authentication-kubeconfig", kubeconfig),
        flag("authorization-kubeconfig", kubeconfig),
        format!("--controllers={controllers}"),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        flag("service-account-private-key-file", &certificates.token_key),
        flag("root-ca-file", &certificates.authority),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={}", free_port()?),
        format!("--cert-dir={}", scratch.path().display()),
    ]);
    Process::start("kube-controller-manager", spec)
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}
