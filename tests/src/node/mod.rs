//! Runs a real Kubernetes cluster with one node: the control plane, containerd, kubelet and kube-proxy.
//!
//! Needs root, and the namespaces of `tests/node/isolated.sh`, which hide the node from the machine and
//! remove everything that it leaves.

mod containerd;
mod kubelet;
mod network;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::containerd::Containerd;
use self::network::{BRIDGE_ADDRESS, create_bridge};
use crate::control_plane::ControlPlane;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wait::eventually;

/// Name of the only node.
const NODE: &str = "node";

const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A cluster with one node.
pub struct Node {
    pub control_plane: ControlPlane,
    containerd: Containerd,
    // In the order in which they are dropped.
    _proxy: Process,
    _kubelet: Process,
    _scheduler: Process,
    _scratch: Scratch,
}

impl Node {
    /// Starts the cluster with these image archives, and waits until the node is ready.
    pub async fn start(images: &[&Path]) -> Result<Self> {
        ensure!(is_isolated(), "the node needs the namespaces of tests/node/isolated.sh");
        let scratch = Scratch::new("node")?;
        create_bridge().await?;
        let containerd = Containerd::start(&scratch).await?;
        for image in images {
            containerd.import(image).await?;
        }
        let control_plane = ControlPlane::start_for_node(BRIDGE_ADDRESS).await?;
        let identity = control_plane.node_identity(NODE, BRIDGE_ADDRESS)?;
        let kubelet =
            kubelet::start_kubelet(&scratch, &control_plane, &identity, &containerd).await?;
        let scheduler = kubelet::start_scheduler(&scratch, &control_plane).await?;
        let proxy = kubelet::start_proxy(&scratch, &control_plane).await?;
        eventually(START_TIMEOUT, "the node to be ready", async || {
            kubelet.ensure_running()?;
            let node = control_plane.kubectl().get(&["node", NODE]).await?;
            let conditions = node["status"]["conditions"].as_array().context("no conditions")?;
            let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
            ensure!(conditions.iter().any(is_ready), "{conditions:?}");
            Ok(())
        })
        .await?;
        Ok(Self {
            control_plane,
            containerd,
            _proxy: proxy,
            _kubelet: kubelet,
            _scheduler: scheduler,
            _scratch: scratch,
        })
    }

    /// The address at which Pods reach servers of the test.
    pub fn address(&self) -> IpAddr {
        BRIDGE_ADDRESS
    }

    /// Sends a signal such as `SIGKILL` to the first process of a container.
    pub async fn signal_container(&self, id: &str, signal: &str) -> Result<()> {
        self.containerd.signal(id, signal).await
    }
}

/// Whether this process runs in the namespaces of `tests/node/isolated.sh`.
fn is_isolated() -> bool {
    std::env::var_os("NODE_CGROUP").is_some()
}
