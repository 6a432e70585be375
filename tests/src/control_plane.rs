//! Runs a real Kubernetes control plane without nodes: etcd, kube-apiserver, and the controllers
//! for namespaces, garbage collection and Pods of Deployments.

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

/// The controllers that the suites need. Others would only use CPU time.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,\
    serviceaccount-controller,root-ca-certificate-publisher-controller,\
    deployment-controller,replicaset-controller,statefulset-controller,job-controller";

pub struct ControlPlane {
    url: String,
    authority: PathBuf,
    kubectl: Kubectl,
    // In the order in which they are dropped.
    _controller_manager: Process,
    _api_server: Process,
    _etcd: Process,
    scratch: Scratch,
}

impl ControlPlane {
    /// The control plane of this test process, which starts with the first call.
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
        eventually(START_TIMEOUT, "kube-apiserver to be ready", async || {
            api_server.ensure_running()?;
            etcd.ensure_running()?;
            kubectl.run(&["get", "--raw", "/readyz"]).await
        })
        .await?;

        let controller_manager =
            start_controller_manager(&scratch, &certificates, &kubeconfig).await?;
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
            authority: certificates.authority,
            kubectl,
            _controller_manager: controller_manager,
            _api_server: api_server,
            _etcd: etcd,
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
        // It would reject Pods until kube-controller-manager has created their ServiceAccount.
        "--disable-admission-plugins=ServiceAccount".into(),
        format!("--service-account-issuer={url}/"),
        // The second audience is that of the tokens for AWS.
        format!("--api-audiences={url}/,sts.amazonaws.com"),
        flag("service-account-key-file", &certificates.token_public_key),
        flag("service-account-signing-key-file", &certificates.token_key),
        // No Service needs the address of this server.
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
