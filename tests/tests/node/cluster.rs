//! The cluster of the tests: one node on this machine, or the cluster of `KUBECONFIG`.

use std::env;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use stream_notifier_tests::helm::Helm;
use stream_notifier_tests::kubectl::Kubectl;
use stream_notifier_tests::node::Node;
use stream_notifier_tests::tools::tool;
use tokio::sync::OnceCell;

/// An image, and the archive from which a cluster loads it.
pub struct Image {
    pub name: String,
    archive: PathBuf,
}

impl Image {
    fn from_environment(prefix: &str) -> Result<Self> {
        let variable = |suffix: &str| {
            let name = format!("{prefix}{suffix}");
            env::var(&name).with_context(|| format!("{name} is not set; run `make test-node`"))
        };
        Ok(Self { name: variable("")?, archive: variable("_ARCHIVE")?.into() })
    }
}

pub struct Cluster {
    pub kubectl: Kubectl,
    pub helm: Helm,
    /// The address at which Pods reach servers of the test.
    pub address: IpAddr,
    pub image: Image,
    pub next_image: Image,
    /// The node, if it runs on this machine.
    pub node: Option<Node>,
}

impl Cluster {
    /// The cluster of this test run, which starts with the first call.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    async fn start() -> Result<Self> {
        let image = Image::from_environment("NODE_IMAGE")?;
        let next_image = Image::from_environment("NODE_NEXT_IMAGE")?;
        match env::var_os("KUBECONFIG") {
            Some(kubeconfig) => Self::connect(Path::new(&kubeconfig), image, next_image).await,
            None => Self::start_node(image, next_image).await,
        }
    }

    async fn start_node(image: Image, next_image: Image) -> Result<Self> {
        let node = Node::start(&[&image.archive, &next_image.archive]).await?;
        Ok(Self {
            kubectl: node.control_plane.kubectl().clone(),
            helm: node.control_plane.helm().await?,
            address: node.address(),
            image,
            next_image,
            node: Some(node),
        })
    }

    async fn connect(kubeconfig: &Path, image: Image, next_image: Image) -> Result<Self> {
        let address = env::var("NODE_ADDRESS").context(
            "NODE_ADDRESS is not set; set it to the address at which Pods reach this machine",
        )?;
        let load = env::var("NODE_LOAD_IMAGE")
            .context("NODE_LOAD_IMAGE is not set; set it to a command that loads an archive")?;
        for image in [&image, &next_image] {
            let mut words = load.split_whitespace();
            let program = words.next().context("NODE_LOAD_IMAGE is empty")?;
            let status = Command::new(program).args(words).arg(&image.archive).status()?;
            ensure!(status.success(), "{load} failed for {}", image.archive.display());
        }
        Ok(Self {
            kubectl: Kubectl::new(tool("kubectl").await?, kubeconfig),
            helm: Helm::new(tool("helm").await?, kubeconfig),
            address: address.parse().context("NODE_ADDRESS is not an IP address")?,
            image,
            next_image,
            node: None,
        })
    }
}
