//! The container runtime of the node.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::START_TIMEOUT;
use super::network::cni_config;
use crate::command;
use crate::process::{Process, Spec};
use crate::scratch::Scratch;
use crate::tools::tool;
use crate::wait::eventually;

/// The image of the container that holds the network namespace of each Pod.
const PAUSE_IMAGE: &str = "docker.io/library/pause:1";

/// Where the CNI plugins of Linux distributions are.
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

pub(super) struct Containerd {
    socket: PathBuf,
    ctr: PathBuf,
    _process: Process,
}

impl Containerd {
    pub async fn start(scratch: &Scratch) -> Result<Self> {
        let folder = scratch.path().join("containerd");
        std::fs::create_dir_all(folder.join("cni"))?;
        std::fs::write(folder.join("cni/10-pods.conflist"), cni_config())?;
        let socket = folder.join("containerd.sock");
        let config = scratch.write("containerd.toml", &config(&folder)?)?;
        let binary = tool("containerd").await?;
        // containerd looks for its shim in PATH.
        let shim = tool("containerd-shim-runc-v2").await?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", shim.parent().unwrap_or(Path::new("/")).display());
        let spec = Spec::new(binary, scratch.path().join("containerd.log"))
            .arguments(["--config", &config.display().to_string()])
            .environment([("PATH", path)]);
        let process = Process::start("containerd", spec)?;
        let containerd = Self { socket, ctr: tool("ctr").await?, _process: process };
        eventually(START_TIMEOUT, "containerd to respond", async || {
            containerd._process.ensure_running()?;
            containerd.run(&["version"]).await
        })
        .await?;
        containerd.import(&tool("pause-image").await?).await?;
        Ok(containerd)
    }

    /// The endpoint for kubelet.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Imports the images of an archive.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("the path is not text")?;
        self.run(&["--namespace=k8s.io", "images", "import", archive]).await.map(drop)
    }

    /// Sends a signal to the first process of a container.
    pub async fn signal(&self, container: &str, signal: &str) -> Result<()> {
        let signal = format!("--signal={signal}");
        let kill = ["--namespace=k8s.io", "tasks", "kill", &signal, container];
        self.run(&kill).await.map(drop)
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut ctr = command::command(&self.ctr, Path::new("/"));
        ctr.arg("--address").arg(&self.socket).args(arguments);
        command::run(ctr, "").await
    }
}

fn config(folder: &Path) -> Result<String> {
    let cni = CNI_FOLDERS.iter().find(|folder| Path::new(folder).join("bridge").exists()).context(
        "the CNI plugins are missing; on Debian: apt install containernetworking-plugins",
    )?;
    let folder = folder.display();
    Ok(format!(
        r#"version = 3
root = "{folder}/root"
state = "{folder}/state"

[grpc]
address = "{folder}/containerd.sock"

[ttrpc]
address = "{folder}/containerd.ttrpc.sock"

[plugins.'io.containerd.internal.v1.opt']
path = "{folder}/opt"

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE, runc cannot lower the score.
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{cni}"]
conf_dir = "{folder}/cni"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    ))
}
