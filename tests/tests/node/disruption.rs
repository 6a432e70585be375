//! Disruptions under load: no message is lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::node::Node;
use stream_notifier_tests::process::{Process, Signal};
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::websocket::WebSocketClient;
use tokio::time::{Instant, sleep};

use crate::audit::check_audit_log;
use crate::aws::Aws;
use crate::cluster::Cluster;
use crate::load::{Load, check_delivery, key};
use crate::release::{Release, WAIT_TIMEOUT};

/// The namespace of the notifier.
const NAMESPACE: &str = "stream-notifier-load";

/// The time for which `make chaos` pauses a process. It is longer than any lease or timeout of a cluster.
const PAUSE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn loses_no_message_during_disruptions() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let aws = Arc::new(Aws::start(cluster.address).await?);
    let release = Release::install(cluster, &aws, NAMESPACE).await?;
    release.apply_notifier(&aws.notifier("target-attribute")).await?;
    let mut load = Disruptions::new(cluster, &release, &aws, 1).await?;
    load.run("Pod deleted", async |it| it.delete_pod().await).await?;
    load.run("container killed", async |it| it.kill_container().await).await?;
    load.run("helm upgrade", async |it| it.upgrade().await).await?;
    if let Some(node) = &cluster.node {
        load.use_every_permission().await?;
        check_audit_log(&release, || node.control_plane.audit_log()).await?;
    }
    release.uninstall().await?;
    release.delete_namespaces().await
}

/// `make chaos`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn loses_no_message_in_chaos() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let node = cluster.node.as_ref().context("make chaos needs a node on this machine")?;
    let aws = Arc::new(Aws::start(cluster.address).await?);
    let release = Release::install(cluster, &aws, NAMESPACE).await?;
    release.apply_notifier(&aws.notifier("target-attribute")).await?;
    let mut load = Disruptions::new(cluster, &release, &aws, 50).await?;
    load.run("Pod deleted", async |it| it.delete_pod().await).await?;
    load.run("container killed", async |it| it.kill_container().await).await?;
    load.run("helm upgrade", async |it| it.upgrade().await).await?;
    load.run("Pod evicted", async |it| it.evict_pod().await).await?;
    load.run("API server paused", async |_| pause(node.control_plane.api_server()).await).await?;
    load.run("etcd paused", async |_| pause(node.control_plane.etcd()).await).await?;
    load.run("operator paused", async |it| it.pause_operator(node).await).await?;
    release.uninstall().await?;
    release.delete_namespaces().await
}

async fn pause(process: &Process) -> Result<()> {
    process.signal(Signal::STOP)?;
    sleep(PAUSE).await;
    process.signal(Signal::CONT)
}

struct Disruptions<'a> {
    cluster: &'a Cluster,
    release: &'a Release<'a>,
    aws: &'a Arc<Aws>,
    clients: Vec<WebSocketClient>,
    next_value: usize,
}

impl<'a> Disruptions<'a> {
    async fn new(
        cluster: &'a Cluster,
        release: &'a Release<'a>,
        aws: &'a Arc<Aws>,
        clients: usize,
    ) -> Result<Self> {
        let mut connected = Vec::new();
        for client in 0..clients {
            // Creates the item, which sends no message.
            aws.set(&key(client), 0).await?;
            connected.push(aws.api.connect(&format!("SK={}", key(client))).await?);
        }
        Ok(Self { cluster, release, aws, clients: connected, next_value: 1 })
    }

    /// Runs a disruption under load. The load begins two seconds before it, and ends two seconds after
    /// it.
    async fn run(&mut self, name: &str, disrupt: impl AsyncFn(&Self) -> Result<()>) -> Result<()> {
        let first = self.next_value;
        let load = Load::start(self.aws.clone(), self.clients.len(), first);
        load.wait_for_changes(80).await?;
        let started = Instant::now();
        disrupt(self).await.with_context(|| name.to_owned())?;
        let took = started.elapsed();
        load.wait_for_changes(80).await?;
        let last = load.stop().await?;
        self.next_value = last + 1;
        let delivery =
            check_delivery(&self.clients, first..=last).await.with_context(|| name.to_owned())?;
        for client in &self.clients {
            while client.take(|_| Some(())).is_some() {}
        }
        println!(
            "{name}: {} changes, nothing lost, {} repeats, longest silence {:.1} s, took {:.1} s",
            last - first + 1,
            delivery.repeats,
            delivery.longest_silence.as_secs_f64(),
            took.as_secs_f64()
        );
        Ok(())
    }

    /// Has the operator record one Event twice, at most once a minute.
    async fn use_every_permission(&self) -> Result<()> {
        for value in 1.. {
            self.aws.set_invalid(value).await?;
            let events = self
                .cluster
                .kubectl
                .get(&["events.events.k8s.io", &format!("--namespace={NAMESPACE}")])
                .await?;
            let events = events["items"].as_array().context("no Events")?;
            let is_repeated =
                |it: &Value| it["reason"] == "InvalidRecord" && it["series"].is_object();
            if events.iter().any(is_repeated) {
                break;
            }
            ensure!(value < 300, "the Event has not been repeated: {events:?}");
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    async fn delete_pod(&self) -> Result<()> {
        let pod = self.release.pod().await?;
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        self.release.kubectl.run(&["delete", "pod", name]).await?;
        self.release.wait_successor(&pod["metadata"]["uid"]).await.map(drop)
    }

    /// Evicts the Pod, as `kubectl drain` does.
    async fn evict_pod(&self) -> Result<()> {
        let pod = self.release.pod().await?;
        let (name, namespace) = (&pod["metadata"]["name"], &pod["metadata"]["namespace"]);
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", text(namespace), text(name));
        let create = ["create", "--raw", &path, "--filename=-"];
        self.release.kubectl.run_with(&create, &eviction.to_string()).await?;
        self.release.wait_successor(&pod["metadata"]["uid"]).await.map(drop)
    }

    /// Stops the operator's process for a while, as a machine that is out of CPU time does.
    async fn pause_operator(&self, node: &Node) -> Result<()> {
        let pod = self.release.pod().await?;
        let id = container_id(&pod)?;
        node.signal_container(id, "SIGSTOP").await?;
        sleep(PAUSE).await;
        node.signal_container(id, "SIGCONT").await
    }

    async fn kill_container(&self) -> Result<()> {
        let Some(node) = &self.cluster.node else {
            // Only the node can kill a process of an image without a shell.
            println!("container killed: not possible on another cluster");
            return Ok(());
        };
        let pod = self.release.pod().await?;
        let container = container_status(&pod)?;
        node.signal_container(container_id(&pod)?, "SIGKILL").await?;
        let restarts = container["restartCount"].as_u64().context("no restart count")?;
        eventually(WAIT_TIMEOUT, "the container to restart", async || {
            let pod = self.release.pod().await?;
            let container = container_status(&pod)?;
            ensure!(container["restartCount"].as_u64() > Some(restarts), "{container}");
            ensure!(container["ready"] == true, "{container}");
            Ok(())
        })
        .await
    }

    async fn upgrade(&self) -> Result<()> {
        let pod = self.release.pod().await?;
        self.release.upgrade(&self.cluster.next_image).await?;
        let pod = self.release.wait_successor(&pod["metadata"]["uid"]).await?;
        let image = &container_status(&pod)?["image"];
        let expected = &self.cluster.next_image.name;
        ensure!(image.as_str().is_some_and(|image| image.ends_with(expected)), "{image}");
        Ok(())
    }
}

fn container_id(pod: &Value) -> Result<&str> {
    let id = container_status(pod)?["containerID"].as_str().context("no container id")?;
    Ok(id.trim_start_matches("containerd://"))
}

fn container_status(pod: &Value) -> Result<&Value> {
    pod["status"]["containerStatuses"].get(0).context("the Pod has no container")
}
