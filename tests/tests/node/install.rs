//! A user installs the chart and receives the first messages.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::websocket::WebSocketClient;
use stream_notifier_tests::wscat::Wscat;

use crate::aws::Aws;
use crate::cluster::Cluster;
use crate::release::{Release, WAIT_TIMEOUT};

/// The namespace of the notifier.
const NAMESPACE: &str = "stream-notifier-example";

fn message(value: &str) -> Value {
    json!({"pk": "fuga", "sk": "hoge", "value": value})
}

async fn wait_values(client: &WebSocketClient, values: &[&str]) -> Result<()> {
    let is_complete = |received: &[_]| received.len() >= values.len();
    let received = client.wait_until(WAIT_TIMEOUT, &format!("{values:?}"), is_complete).await?;
    let received = received.iter().map(|message| message.json()).collect::<Result<Vec<_>>>()?;
    let expected: Vec<Value> = values.iter().map(|value| message(value)).collect();
    ensure!(received == expected, "{received:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn delivers_the_example_of_the_readme() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let aws = Aws::start(cluster.address).await?;
    aws.set("hoge", 80).await?;
    let release = Release::install(cluster, &aws, NAMESPACE).await?;
    release.apply_notifier(&aws.notifier("target-attribute")).await?;

    let client = aws.api.connect("SK=hoge").await?;
    let other = aws.api.connect("SK=other").await?;
    let wscat = Wscat::connect(&format!("{}?SK=hoge", aws.api.url())).await?;
    aws.wait_connections(3).await?;
    aws.set("hoge", 90).await?;
    aws.set("other", 1).await?;
    aws.set("hoge", 91).await?;
    wait_values(&client, &["90", "91"]).await?;
    wscat.wait_for(WAIT_TIMEOUT, &[message("90"), message("91")]).await?;
    ensure!(other.messages().is_empty(), "{:?}", other.texts());

    check_restricted(&release.pod().await?)?;
    release.uninstall().await?;
    let kubectl = &cluster.kubectl;
    kubectl.get(&["crd", "streamnotifiers.streamnotifier.dev"]).await?;
    kubectl.get(&["streamnotifier", "target-attribute", "--namespace", NAMESPACE]).await?;
    release.delete_namespaces().await
}

/// The namespace enforces *restricted*. This checks what the standard leaves open.
fn check_restricted(pod: &Value) -> Result<()> {
    let [container] = pod["spec"]["containers"].as_array().context("no containers")?.as_slice()
    else {
        anyhow::bail!("the Pod must have one container");
    };
    ensure!(container["securityContext"]["readOnlyRootFilesystem"] == true, "{container}");
    ensure!(pod["spec"]["securityContext"]["runAsUser"].is_null(), "the image sets the user");
    Ok(())
}
