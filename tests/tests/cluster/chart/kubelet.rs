//! A simulated kubelet: it runs the Pod of a release as a local process.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::http;
use stream_notifier_tests::namespace::Namespace;
use stream_notifier_tests::operator::Operator;
use stream_notifier_tests::port::free_port;
use stream_notifier_tests::process::Exit;
use stream_notifier_tests::wait::eventually;

use super::{list, name, text};
use crate::fixture::WAIT_TIMEOUT;

/// The part of a kubelet that the Pod of the chart needs.
pub struct Kubelet<'a> {
    control_plane: &'a ControlPlane,
    namespace: &'a Namespace,
    node: String,
}

/// A running Pod.
pub struct Pod {
    name: String,
    pub account: String,
    probes: Vec<String>,
    pub url: String,
    grace_period: Duration,
    operator: Operator,
}

impl<'a> Kubelet<'a> {
    pub async fn start(control_plane: &'a ControlPlane, namespace: &'a Namespace) -> Result<Self> {
        let node = format!("node-of-{}", namespace.name());
        let manifest = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
        let create = ["create", "-f", "-"];
        let kubectl = control_plane.kubectl();
        kubectl.run_with(&create, &manifest.to_string()).await?;
        Ok(Self { control_plane, namespace, node })
    }

    /// Runs the Pod of the Deployment of a release: the operator's binary instead of the image, with the
    /// arguments, environment and ServiceAccount of the Pod.
    pub async fn run_pod(&self, release: &str) -> Result<Pod> {
        let selector = format!("--selector=app.kubernetes.io/instance={release}");
        let pod = eventually(WAIT_TIMEOUT, "the Deployment's Pod", async || {
            let pods = self.namespace.get(&["pods", &selector]).await?;
            match pods["items"].as_array().map(Vec::as_slice) {
                Some([pod]) if pod["metadata"]["deletionTimestamp"].is_null() => Ok(pod.clone()),
                _ => bail!("the Deployment must have one Pod: {pods}"),
            }
        })
        .await?;
        let (name, spec) = (name(&pod)?.to_owned(), &pod["spec"]);
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.node},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", self.namespace.name());
        let bind = ["create", "--raw", &path, "-f", "-"];
        let kubectl = self.control_plane.kubectl();
        kubectl.run_with(&bind, &binding.to_string()).await?;

        let [container] = &list(&spec["containers"])?[..] else {
            bail!("the Pod must have one container: {spec}");
        };
        ensure!(
            container["command"].is_null(),
            "the chart must not replace the command of the image"
        );
        ensure!(spec["automountServiceAccountToken"] == true);
        let account = text(&spec["serviceAccountName"])?;
        let identity =
            self.control_plane.as_service_account(self.namespace.name(), &account).await?;
        let arguments = list(&container["args"])?;
        let arguments = arguments.iter().map(text).collect::<Result<Vec<_>>>()?;
        // A real Pod has its own address, where port 8080 is free.
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut environment = vec![
            ("HOSTNAME".to_owned(), name.clone()),
            ("STREAM_NOTIFIER_BIND_ADDRESS".to_owned(), address.clone()),
        ];
        for variable in list(&container["env"])? {
            environment.push((text(&variable["name"])?, text(&variable["value"])?));
        }
        let operator = Operator::start(arguments, environment, Some(identity.kubeconfig()))?;

        let ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
        ensure!(container["ports"] == ports, "{}", container["ports"]);
        let mut probes = Vec::new();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let probe = &container[probe]["httpGet"];
            ensure!(probe["port"] == "http", "{probe}");
            probes.push(text(&probe["path"])?);
        }
        let grace_period = spec["terminationGracePeriodSeconds"].as_u64();
        ensure!(grace_period >= Some(30), "the last posts and checkpoint take up to 28 s");
        let grace_period = Duration::from_secs(grace_period.unwrap_or_default());
        let url = format!("http://{address}");
        let pod = Pod { name, account, probes, url, grace_period, operator };
        pod.wait_probes().await?;
        self.report_running(&pod, container).await?;
        Ok(pod)
    }

    /// Writes the status of a running Pod.
    async fn report_running(&self, pod: &Pod, container: &Value) -> Result<()> {
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .map(|kind| json!({"type": kind, "status": "True"}));
        let status = json!({"status": {
            "phase": "Running",
            "conditions": conditions,
            "containerStatuses": [{
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": {"running": {}},
            }],
        }});
        let status = status.to_string();
        let patch =
            ["patch", "pod", &pod.name, "--subresource=status", "--type=merge", "-p", &status];
        self.namespace.run(&patch).await.map(drop)
    }

    /// Waits for the deletion of the Pod, stops its process and removes the Pod.
    pub async fn end_pod(&self, pod: Pod) -> Result<()> {
        eventually(WAIT_TIMEOUT, "the Pod's deletion", async || {
            let found = self.namespace.get(&["pod", &pod.name]).await?;
            ensure!(found["metadata"]["deletionTimestamp"].is_string());
            Ok(())
        })
        .await?;
        let exit = pod.operator.terminate(pod.grace_period).await?;
        ensure!(exit == Exit::Code(0), "the operator {exit}");
        let delete = ["delete", "pod", &pod.name, "--grace-period=0", "--force"];
        self.namespace.run(&delete).await.map(drop)
    }

    pub async fn delete_node(self) -> Result<()> {
        let kubectl = self.control_plane.kubectl();
        kubectl.run(&["delete", "node", &self.node]).await.map(drop)
    }
}

impl Pod {
    /// Waits until all its probes succeed.
    pub async fn wait_probes(&self) -> Result<()> {
        eventually(WAIT_TIMEOUT, "the Pod's probes", async || {
            self.operator.process().ensure_running()?;
            for path in &self.probes {
                http::get(&format!("{}{path}", self.url)).await?.success()?;
            }
            Ok(())
        })
        .await
    }
}
