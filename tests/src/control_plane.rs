//! A real Kubernetes control plane without nodes: etcd, kube-apiserver and the controllers that
//! delete namespaces, collect what has lost its owner, and make Pods of Deployments.

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

/// How long a server may take to start; five seconds are usual, on a machine that is not busy.
const START: Duration = Duration::from_secs(120);

/// The controllers a suite needs. The others would only take processor time.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,\
    serviceaccount-controller,root-ca-certificate-publisher-controller,\
    deployment-controller,replicaset-controller,statefulset-controller,job-controller";

pub struct ControlPlane {
    url: String,
    authority: PathBuf,
    kubectl: Kubectl,
    // In the order in which they end.
    _controller_manager: Process,
    _api_server: Process,
    _etcd: Process,
    scratch: Scratch,
}

impl ControlPlane {
    /// The one of this test process, started by whoever asks first. It ends with the process.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    pub async fn start() -> Result<Self> {
        let scratch = Scratch::new("control-plane")?;
        let certificates = Certificates::create(&scratch)?;

        let (etcd, etcd_url) = start_etcd(&scratch).await?;
        let (api_server, url) = start_api_server(&scratch, &certificates, &etcd_url).await?;
        let user = json!({
            "client-certificate": certificates.administrator.certificate,
            "client-key": certificates.administrator.key,
        });
        let kubeconfig = kubeconfig(&url, &certificates.authority, None, user);
        let kubeconfig = scratch.write("administrator.kubeconfig", &kubeconfig)?;
        let kubectl = Kubectl::new(tool("kubectl").await?, &kubeconfig);
        eventually(START, "kube-apiserver to be ready", async || {
            api_server.ensure_running()?;
            etcd.ensure_running()?;
            kubectl.run(&["get", "--raw", "/readyz"]).await
        })
        .await?;

        let controller_manager =
            start_controller_manager(&scratch, &certificates, &kubeconfig).await?;
        // The first thing that every namespace needs from it.
        eventually(START, "kube-controller-manager to be at work", async || {
            controller_manager.ensure_running()?;
            kubectl.get(&["serviceaccount", "default", "--namespace", "default"]).await
        })
        .await?;

        Ok(Self {
            url,
            authority: certificates.authority,
            kubectl,
            _controller_manager: controller_manager,
            _api_server: api_server,
            _etcd: etcd,
            scratch,
        })
    }

    /// kubectl with every right.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Helm with every right.
    pub async fn helm(&self) -> Result<Helm> {
        Ok(Helm::new(tool("helm").await?, self.kubeconfig()))
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> &Path {
        self.kubectl.kubeconfig()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate of the authority that signed the server's.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// A new namespace, for one test.
    pub async fn namespace(&self) -> Result<Namespace> {
        Namespace::create(&self.kubectl).await
    }

    /// kubectl, and by that a kubeconfig, with the rights of a ServiceAccount and with a token as a
    /// Pod has it.
    pub async fn as_service_account(&self, namespace: &str, name: &str) -> Result<Kubectl> {
        let token = self.kubectl.run(&["create", "token", name, "--namespace", namespace]).await?;
        let user = json!({"token": token.trim()});
        let kubeconfig = kubeconfig(&self.url, &self.authority, Some(namespace), user);
        let kubeconfig =
            self.scratch.write(&format!("{namespace}.{name}.kubeconfig"), &kubeconfig)?;
        Ok(Kubectl::new(tool("kubectl").await?, kubeconfig))
    }
}

/// JSON is YAML, and needs no quoting rules of its own.
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
        // Nothing here has to survive a power cut.
        "--unsafe-no-fsync=true".into(),
        "--log-level=warn".into(),
    ]);
    Ok((Process::start("etcd", spec)?, url))
}

async fn start_api_server(
    scratch: &Scratch,
    certificates: &Certificates,
    etcd: &str,
) -> Result<(Process, String)> {
    let port = free_port()?;
    let url = format!("https://127.0.0.1:{port}");
    let log = scratch.path().join("kube-apiserver.log");
    let spec = Spec::new(tool("kube-apiserver").await?, log).arguments([
        format!("--etcd-servers={etcd}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", scratch.path().display()),
        flag("tls-cert-file", &certificates.server.certificate),
        flag("tls-private-key-file", &certificates.server.key),
        flag("client-ca-file", &certificates.authority),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        "--allow-privileged=true".into(),
        // It would hold back Pods until kube-controller-manager has made their ServiceAccount.
        "--disable-admission-plugins=ServiceAccount".into(),
        format!("--service-account-issuer={url}/"),
        // The second one is the audience of the tokens that AWS takes.
        format!("--api-audiences={url}/,sts.amazonaws.com"),
        flag("service-account-key-file", &certificates.token_public_key),
        flag("service-account-signing-key-file", &certificates.token_key),
        // There is no Service to keep up to date with the address of this one server.
        "--endpoint-reconciler-type=none".into(),
    ]);
    Ok((Process::start("kube-apiserver", spec)?, url))
}

async fn start_controller_manager(
    scratch: &Scratch,
    certificates: &Certificates,
    kubeconfig: &Path,
) -> Result<Process> {
    let log = scratch.path().join("kube-controller-manager.log");
    let spec = Spec::new(tool("kube-controller-manager").await?, log).arguments([
        flag("kubeconfig", kubeconfig),
        flag("authentication-kubeconfig", kubeconfig),
        flag("authorization-kubeconfig", kubeconfig),
        format!("--controllers={CONTROLLERS}"),
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
