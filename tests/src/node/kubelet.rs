//! The Kubernetes programs of the node: kubelet, kube-scheduler and kube-proxy.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::NODE;
use super::containerd::Containerd;
use super::network::{BRIDGE_ADDRESS, pod_network};
use crate::control_plane::{ControlPlane, NodeIdentity};
use crate::process::{Process, Spec};
use crate::scratch::Scratch;
use crate::tools::tool;

pub(super) async fn start_kubelet(
    scratch: &Scratch,
    control_plane: &ControlPlane,
    identity: &NodeIdentity,
    containerd: &Containerd,
) -> Result<Process> {
    let folder = scratch.path().join("kubelet");
    std::fs::create_dir_all(&folder)?;
    let group = std::env::var("NODE_CGROUP").context("no parent group of the containers")?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": control_plane.authority()},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": containerd.endpoint(),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{group}"),
        // The machine may still have version 1 of cgroups.
        "failCgroupV1": false,
        "failSwapOn": false,
        "address": BRIDGE_ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "clusterDNS": ["10.96.0.10"],
        "resolvConf": "/dev/null",
        "podLogsDir": scratch.path().join("pods"),
        "evictionHard": {"memory.available": "100Mi"},
        "tlsCertFile": identity.certificate,
        "tlsPrivateKeyFile": identity.key,
    });
    let config = scratch.write("kubelet.json", &config.to_string())?;
    let spec = Spec::new(tool("kubelet").await?, scratch.path().join("kubelet.log")).arguments([
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", identity.kubeconfig.display()),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={BRIDGE_ADDRESS}"),
        format!("--root-dir={}", folder.display()),
        format!("--cert-dir={}", folder.display()),
    ]);
    Process::start("kubelet", spec)
}

pub(super) async fn start_scheduler(
    scratch: &Scratch,
    control_plane: &ControlPlane,
) -> Result<Process> {
    let kubeconfig = control_plane.kubeconfig().display();
    let log = scratch.path().join("kube-scheduler.log");
    let spec = Spec::new(tool("kube-scheduler").await?, log).arguments([
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ]);
    Process::start("kube-scheduler", spec)
}

pub(super) async fn start_proxy(
    scratch: &Scratch,
    control_plane: &ControlPlane,
) -> Result<Process> {
    let kubeconfig = control_plane.kubeconfig().display();
    let log = scratch.path().join("kube-proxy.log");
    let spec = Spec::new(tool("kube-proxy").await?, log).arguments([
        format!("--kubeconfig={kubeconfig}"),
        format!("--hostname-override={NODE}"),
        "--proxy-mode=iptables".to_owned(),
        format!("--cluster-cidr={}", pod_network()),
        // Connection tracking has settings for the whole machine. They stay as they are.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ]);
    Process::start("kube-proxy", spec)
}
