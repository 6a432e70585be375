//! The release of the chart, as a user installs it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::kubectl::Kubectl;
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::web_socket_api::gateway_endpoint;

use crate::aws::Aws;
use crate::cluster::{Cluster, Image};

/// Ends a wait whose condition never becomes true.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Name and namespace of the release.
const RELEASE: &str = "stream-notifier";

pub struct Release<'a> {
    cluster: &'a Cluster,
    aws: &'a Aws,
    /// The namespace of the notifiers.
    notifiers: &'a str,
    pub kubectl: Kubectl,
}

impl<'a> Release<'a> {
    /// Creates the namespaces of the release and of the notifiers, with the Pod Security Standard
    /// *restricted*.
    pub async fn new(cluster: &'a Cluster, aws: &'a Aws, notifiers: &'a str) -> Result<Self> {
        for name in [RELEASE, notifiers] {
            let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
            let namespace = json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            });
            // Fails if it exists: the tests delete their namespaces, and never one of a user.
            let create = ["create", "--filename=-"];
            cluster.kubectl.run_with(&create, &namespace.to_string()).await?;
        }
        let kubectl = cluster.kubectl.in_namespace(RELEASE);
        Ok(Self { cluster, aws, notifiers, kubectl })
    }

    /// Installs the chart with its default values, the image, the emulated AWS, and the namespace that
    /// may use its identity.
    pub async fn install(cluster: &'a Cluster, aws: &'a Aws, notifiers: &'a str) -> Result<Self> {
        let release = Self::new(cluster, aws, notifiers).await?;
        release.install_and_wait().await?;
        Ok(release)
    }

    /// Installs the chart, and waits until the Pod is ready.
    pub async fn install_and_wait(&self) -> Result<()> {
        let started = Instant::now();
        self.helm("install", &self.cluster.image, &["--wait"]).await?;
        println!("helm install --wait: {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Installs the chart with more values, and does not wait for the Pod.
    pub async fn install_without_wait(&self, values: &Value) -> Result<()> {
        let values = values.as_object().context("the values are an object")?.iter();
        let values: Vec<String> =
            values.map(|(name, value)| format!("--set-json={name}={value}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.helm("install", &self.cluster.image, &values).await
    }

    pub async fn upgrade(&self, image: &Image) -> Result<()> {
        self.helm("upgrade", image, &["--wait"]).await
    }

    async fn helm(&self, command: &str, image: &Image, options: &[&str]) -> Result<()> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/stream-notifier");
        let chart = chart.to_str().context("the path is not text")?;
        let (repository, tag) = image.name.split_once(':').context("the image has no tag")?;
        let endpoint = self.aws.ministack.endpoint();
        let values = json!({
            "image.repository": repository,
            "image.tag": tag,
            "aws": {
                "region": stream_notifier_tests::ministack::REGION,
                "endpointUrl": endpoint,
                "gatewayEndpoint": gateway_endpoint(endpoint),
                "operatorIdentity": {"namespaces": [self.notifiers]},
            },
            // The emulator accepts any credentials. On AWS, the Pod has a role.
            "extraEnv": [
                {"name": "AWS_ACCESS_KEY_ID", "value": "test"},
                {"name": "AWS_SECRET_ACCESS_KEY", "value": "test"},
            ],
        });
        let values = values.as_object().context("the values are an object")?.iter();
        let values: Vec<String> =
            values.map(|(name, value)| format!("--set-json={name}={value}")).collect();
        let timeout = format!("--timeout={}s", WAIT_TIMEOUT.as_secs());
        let mut arguments = vec![command, RELEASE, chart, "--namespace", RELEASE, &timeout];
        arguments.extend(values.iter().map(String::as_str));
        arguments.extend(options);
        self.cluster.helm.run(&arguments).await.map(drop)
    }

    /// Uninstalls the release, and waits until its Pod is deleted.
    pub async fn uninstall(&self) -> Result<()> {
        self.cluster.helm.run(&["uninstall", RELEASE, "--namespace", RELEASE, "--wait"]).await?;
        eventually(WAIT_TIMEOUT, "the Pod's deletion", async || {
            let pods = self.kubectl.get(&["pods"]).await?;
            ensure!(pods["items"] == json!([]), "{pods}");
            Ok(())
        })
        .await
    }

    /// Deletes the namespaces that the test created.
    pub async fn delete_namespaces(&self) -> Result<()> {
        let delete = ["delete", "namespace", RELEASE, self.notifiers];
        self.cluster.kubectl.run(&delete).await.map(drop)
    }

    /// The only Pod of the release that is not being deleted.
    pub async fn pod(&self) -> Result<Value> {
        let pods = self.kubectl.get(&["pods"]).await?;
        let pods = pods["items"].as_array().context("no list of Pods")?;
        let mut running = pods.iter().filter(|it| it["metadata"]["deletionTimestamp"].is_null());
        let pod = running.next().context("no Pod")?;
        ensure!(running.next().is_none(), "more than one Pod runs");
        Ok(pod.clone())
    }

    /// The user name of the operator's ServiceAccount.
    pub async fn account(&self) -> Result<String> {
        let pod = self.pod().await?;
        let account = pod["spec"]["serviceAccountName"].as_str().context("no ServiceAccount")?;
        Ok(format!("system:serviceaccount:{RELEASE}:{account}"))
    }

    /// The role of the operator.
    pub async fn cluster_role(&self) -> Result<Value> {
        self.cluster.kubectl.get(&["clusterrole", RELEASE]).await
    }

    /// Waits until a Pod other than this one is ready.
    pub async fn wait_successor(&self, uid: &Value) -> Result<Value> {
        eventually(WAIT_TIMEOUT, "a new Pod to be ready", async || {
            let pod = self.pod().await?;
            let conditions = pod["status"]["conditions"].as_array().context("no conditions")?;
            let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
            ensure!(pod["metadata"]["uid"] != *uid, "the Pod still runs");
            ensure!(conditions.iter().any(is_ready), "{conditions:?}");
            Ok(pod)
        })
        .await
    }

    /// Applies a notifier, and waits until it is ready.
    pub async fn apply_notifier(&self, notifier: &Value) -> Result<()> {
        let kubectl = self.cluster.kubectl.in_namespace(self.notifiers);
        kubectl.apply(&notifier.to_string()).await?;
        let name = notifier["metadata"]["name"].as_str().context("no name")?;
        let timeout = format!("--timeout={}s", WAIT_TIMEOUT.as_secs());
        let resource = format!("streamnotifier/{name}");
        kubectl.run(&["wait", "--for=condition=Ready", &timeout, &resource]).await.map(drop)
    }
}
