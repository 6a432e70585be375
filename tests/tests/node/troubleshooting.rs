//! The commands of NOTES.txt and docs/troubleshooting.md show why a Pod does not start and why a notifier
//! does not read.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::namespace::Namespace;
use stream_notifier_tests::wait::eventually;

use crate::aws::Aws;
use crate::cluster::Cluster;
use crate::release::{Release, WAIT_TIMEOUT};

/// The namespace of the notifiers that may use the operator's identity.
const NAMESPACE: &str = "stream-notifier-listed";

/// The commands of the page, for the namespace of the release.
const DESCRIBE: &[&str] = &["describe", "pods"];
const FAILED_CREATE: &[&str] = &["get", "events", "--field-selector", "reason=FailedCreate"];
const LOGS: &[&str] = &["logs", "deployment/stream-notifier", "--previous"];

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_documents_show_each_cause() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let aws = Aws::start(cluster.address).await?;
    let release = Release::new(cluster, &aws, NAMESPACE).await?;
    let causes: [(&str, Value, &[&str], &str); 5] = [
        ("a missing image", json!({"image.tag": "missing"}), DESCRIBE, "ImagePullBackOff"),
        (
            "a missing Secret",
            json!({"extraEnvFrom": [{"secretRef": {"name": "missing"}}]}),
            DESCRIBE,
            "secret \"missing\" not found",
        ),
        (
            "no fitting node",
            json!({"nodeSelector": {"disk": "fast"}}),
            DESCRIBE,
            "FailedScheduling",
        ),
        (
            "a Pod that may run as root",
            json!({"podSecurityContext": {"runAsNonRoot": false}}),
            FAILED_CREATE,
            "violates PodSecurity",
        ),
        ("a wrong flag", json!({"extraArgs": ["--no-such-flag"]}), LOGS, "--no-such-flag"),
    ];
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let page = std::fs::read_to_string(page)?;
    for (cause, values, command, expected) in causes {
        let line = format!("kubectl --namespace stream-notifier {}\n", command.join(" "));
        ensure!(page.contains(&line), "docs/troubleshooting.md lacks {line}");
        release.install_without_wait(&values).await?;
        eventually(
            WAIT_TIMEOUT,
            format!("`kubectl {}` to show {cause}", command.join(" ")),
            async || {
                let output = release.kubectl.run(command).await?;
                ensure!(output.contains(expected), "{output}");
                Ok(())
            },
        )
        .await?;
        release.uninstall().await?;
    }

    // The operator runs, and the notifier does not.
    release.install_and_wait().await?;
    let unlisted = Namespace::create(&cluster.kubectl).await?;
    unlisted.apply(&aws.notifier("target-attribute").to_string()).await?;
    let describe = ["describe", "streamnotifier", "target-attribute"];
    eventually(WAIT_TIMEOUT, "`kubectl describe` to show the missing identity", async || {
        let output = unlisted.run(&describe).await?;
        ensure!(output.contains("IdentityNotAllowed"), "{output}");
        ensure!(output.contains("aws.operatorIdentity.namespaces"), "{output}");
        Ok(())
    })
    .await?;
    release.uninstall().await?;
    unlisted.passed();
    release.delete_namespaces().await
}
