//! Values that the chart rejects, with a message that names the value.

use anyhow::{Result, ensure};
use stream_notifier_tests::chart::{chart_path, find_object};

use super::{Chart, container};

#[tokio::test]
async fn rejects_unknown_and_invalid_values() -> Result<()> {
    let chart = Chart::new().await?;
    chart.helm.run(&["lint", "--strict", &chart_path()]).await?;

    for (flag, part) in [
        // Unknown, misspelt or from another version of the chart.
        ("--set=watchNamespace=dev", "watchNamespace"),
        ("--set=gatewayEndpoint=http://localhost", "gatewayEndpoint"),
        ("--set=replicas=2", "replicas"),
        ("--set=image.name=other", "name"),
        ("--set=aws.operatorIdentity.namespace=dev", "namespace"),
        ("--set=proxy.http_proxy=http://proxy", "http_proxy"),
        ("--set=networkPolicy.enable=true", "enable"),
        ("--set=metrics.service.type=NodePort", "type"),
        ("--set=livenessProbe.httpGet.path=/readyz", "httpGet"),
        ("--set=resources.limit.memory=1Gi", "limit"),
        // Invalid.
        ("--set=image.repository=stream-notifier@sha256:0", "repository"),
        ("--set=image.repository=stream-notifier:1.0", "repository"),
        ("--set=image.tag=1.0@sha256:0", "tag"),
        ("--set=image.digest=0123456789abcdef", "digest"),
        ("--set=image.pullPolicy=Sometimes", "pullPolicy"),
        (
            "--set=fullnameOverride=a234567890123456789012345678901234567890123456789012345678901234",
            "fullnameOverride",
        ),
        ("--set=namespaces=dev", "namespaces"),
        ("--set=namespaces={Dev}", "namespaces"),
        ("--set=namespaces={dev,dev}", "namespaces"),
        ("--set=aws.operatorIdentity.namespaces=*", "operatorIdentity"),
        ("--set=aws.operatorIdentity.namespaces={*,dev}", "operatorIdentity"),
        ("--set=aws.region=Ireland", "region"),
        ("--set=aws.endpointUrl=localhost:4566", "endpointUrl"),
        ("--set=proxy.httpsProxy=proxy:3128", "httpsProxy"),
        ("--set=caBundle.key=", "key"),
        ("--set=allowedWebSocketDomains={https://ws.example.com}", "allowedWebSocketDomains"),
        ("--set=logLevel=inof", "logLevel"),
        ("--set=logLevel=stream_notifier", "logLevel"),
        ("--set=logFormat=xml", "logFormat"),
        ("--set=getRecordsPerSecond=0", "getRecordsPerSecond"),
        ("--set=postsPerSecond=0", "postsPerSecond"),
        ("--set=commonLabels.replicas=1", "commonLabels"),
        ("--set=podLabels.team=a b", "podLabels"),
        ("--set=terminationGracePeriodSeconds=29", "terminationGracePeriodSeconds"),
        ("--set=strategy.type=Replace", "strategy"),
        ("--set=metrics.service.port=65536", "port"),
        ("--set=readinessProbe.periodSeconds=0", "readinessProbe"),
        ("--kube-version=1.32.9", "kubeVersion"),
    ] {
        let error = chart.rejection(&[flag]).await?;
        ensure!(error.contains(part), "{flag}: {error}");
    }
    // The version of a managed cluster.
    chart.render(&["--kube-version=v1.33.1-eks-0a1b2c3"]).await.map(drop)
}

#[tokio::test]
async fn rejects_arguments_and_variables_that_the_chart_sets() -> Result<()> {
    let chart = Chart::new().await?;
    let port = "the probes use port 8080, and a Pod has its own ports";
    for (flags, message) in [
        (
            &["--set=extraArgs={--bind-address=0.0.0.0:9090}"][..],
            &format!("extraArgs: remove --bind-address=0.0.0.0:9090; {port}")[..],
        ),
        (
            &["--set=extraEnv[0].name=STREAM_NOTIFIER_BIND_ADDRESS"],
            &format!("extraEnv: remove STREAM_NOTIFIER_BIND_ADDRESS; {port}"),
        ),
        (
            &["--set=extraArgs={--log-format=text}"],
            "extraArgs: remove --log-format=text; set the value logFormat instead",
        ),
        (
            &["--set=extraArgs={--namespaces,dev}"],
            "extraArgs: remove --namespaces; set the value namespaces instead",
        ),
        (
            &["--set=extraArgs={--operator-identity-namespaces=*}"],
            "extraArgs: remove --operator-identity-namespaces=*; \
             set the value aws.operatorIdentity.namespaces instead",
        ),
        (
            &["--set=extraEnv[0].name=STREAM_NOTIFIER_POSTS_PER_SECOND"],
            "extraEnv: remove STREAM_NOTIFIER_POSTS_PER_SECOND; set the value postsPerSecond instead",
        ),
        (
            &["--set=aws.region=eu-west-1,extraEnv[0].name=AWS_REGION"],
            "extraEnv: remove AWS_REGION; it is set already, by another value or entry",
        ),
        (
            &["--set=extraEnv[0].name=A,extraEnv[1].name=A"],
            "extraEnv: remove A; it is set already, by another value or entry",
        ),
    ] {
        let error = chart.rejection(flags).await?;
        ensure!(error.contains(message), "{flags:?}: {error}");
    }
    Ok(())
}

/// A flag that the chart passes must not be an extra argument, because the operator rejects a flag that
/// occurs twice.
#[tokio::test]
async fn rejects_every_argument_that_it_passes() -> Result<()> {
    let chart = Chart::new().await?;
    let set = "--set=namespaces={dev},aws.operatorIdentity.namespaces={dev},\
        allowedWebSocketDomains={ws.example.com},aws.gatewayEndpoint=http://localhost";
    let rendered = chart.render(&[set]).await?;
    let deployment = find_object(&rendered, "Deployment")?;
    let arguments = container(deployment)["args"].as_array().cloned().unwrap_or_default();
    let flags: Vec<_> = arguments.iter().filter_map(|it| it.as_str()?.split('=').next()).collect();
    ensure!(flags.len() == 8, "the chart passes only {flags:?}");
    for flag in &flags[1..] {
        let error = chart.rejection(&[&format!("--set=extraArgs={{{flag}=1}}")]).await?;
        ensure!(error.contains(&format!("extraArgs: remove {flag}=1")), "{error}");
    }
    Ok(())
}
