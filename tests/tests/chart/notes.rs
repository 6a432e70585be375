//! The notes that Helm prints after an installation.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stream_notifier_tests::chart::chart_path;

use super::Chart;

impl Chart {
    async fn notes(&self, set: &str) -> Result<String> {
        let install = ["install", "release", &chart_path(), "--namespace=operators"];
        let dry = ["--dry-run=client", "--output=json", "--set", set];
        let release = self.helm.run(&[&install[..], &dry].concat()).await?;
        let release: Value = serde_json::from_str(&release)?;
        let notes = release["info"]["notes"].as_str().context("the release has no notes")?;
        // Lines can break anywhere.
        Ok(notes.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

#[tokio::test]
async fn names_the_next_commands() -> Result<()> {
    let notes = Chart::new().await?.notes("namespaceOverride=other").await?;
    for command in [
        "kubectl --namespace other rollout status deployment/release-stream-notifier",
        "kubectl --namespace other get events",
        "kubectl --namespace other describe pod --selector=app.kubernetes.io/instance=release",
        "kubectl --namespace NAMESPACE describe streamnotifier NAME",
        "kubectl get streamnotifiers --all-namespaces",
    ] {
        ensure!(notes.contains(command), "{command} is missing:\n{notes}");
    }
    Ok(())
}

#[tokio::test]
async fn reports_what_is_missing_or_insecure() -> Result<()> {
    let chart = Chart::new().await?;
    let action = "ACTION REQUIRED: no StreamNotifier can read a stream yet";
    let everyone = "Anyone who can create a StreamNotifier in any namespace can send the data";
    let no_role = "This release sets no IAM role";
    let keeps = "keeps the CustomResourceDefinition and every StreamNotifier";
    let deletes = "WARNING: crds.keep is false";
    for (set, present, absent) in [
        ("logFormat=json", vec![action, no_role, keeps, "in all namespaces"], vec!["WARNING"]),
        (
            "namespaces={a,b}",
            vec!["StreamNotifiers in a, b use", "in the namespaces a, b"],
            vec![action],
        ),
        (
            "namespaces={a,b},aws.operatorIdentity.namespaces={a}",
            vec!["StreamNotifiers in a use the operator's AWS identity"],
            vec![action, everyone],
        ),
        ("aws.operatorIdentity.namespaces={*}", vec![everyone], vec![action]),
        (
            r"serviceAccount.annotations.eks\.amazonaws\.com/role-arn=arn",
            vec![action],
            vec![no_role],
        ),
        (
            "allowedWebSocketDomains={ws.example.com}",
            vec!["the custom domains ws.example.com"],
            vec![],
        ),
        (
            "aws.endpointUrl=http://a",
            vec!["WARNING: requests go to http://a instead of AWS"],
            vec![],
        ),
        (
            "rbac.create=false",
            vec!["until the ServiceAccount operators/release-stream-notifier"],
            vec![],
        ),
        ("crds.enabled=false", vec!["crds.enabled is false"], vec![keeps, deletes]),
        ("crds.keep=false", vec![deletes], vec![keeps]),
    ] {
        let notes = chart.notes(set).await?;
        for part in present {
            ensure!(notes.contains(part), "{set}: {part} is missing:\n{notes}");
        }
        for part in absent {
            ensure!(!notes.contains(part), "{set}: {part} is wrong:\n{notes}");
        }
    }
    Ok(())
}
