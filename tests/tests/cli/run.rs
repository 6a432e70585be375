//! `stream-notifier run` without an API server: it logs the failure and exits on SIGTERM. With a wrong
//! configuration, it exits at once.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::operator::Operator;
use stream_notifier_tests::port::free_port;
use stream_notifier_tests::process::Exit;
use stream_notifier_tests::scratch::Scratch;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The kubeconfig of an API server that does not run.
fn kubeconfig(scratch: &Scratch, user: Value) -> Result<PathBuf> {
    let server = format!("https://127.0.0.1:{}", free_port()?);
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user}],
        "current-context": "c",
    });
    scratch.write("kubeconfig", &kubeconfig.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_on_sigterm_without_an_api_server() -> Result<()> {
    let scratch = Scratch::new("run")?;
    let operator = Operator::start(
        ["run", "--bind-address", "127.0.0.1:0"],
        [("AWS_EC2_METADATA_DISABLED", "true")],
        Some(&kubeconfig(&scratch, json!({}))?),
    )?;
    operator.wait_for_line(TIMEOUT, "a failed watch", |line| line.contains("watch failed")).await?;
    assert_eq!(operator.terminate(TIMEOUT).await?, Exit::Code(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_what_to_change_in_a_wrong_configuration() -> Result<()> {
    let scratch = Scratch::new("run")?;
    let oidc = json!({"auth-provider": {"name": "oidc", "config": {"id-token": "secret"}}});
    let (proxy, excluded) = (("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "a,"));
    let bundle = ("AWS_CA_BUNDLE", "/no/such/file");
    for (flag, variables, user, expected) in [
        ("--namespaces=Dev", vec![], json!({}), "\"Dev\" is not a namespace name"),
        ("--operator-identity-namespaces=a,*", vec![], json!({}), "\"*\" is not a namespace name"),
        ("--log-format=json", vec![bundle], json!({}), "set AWS_CA_BUNDLE to a readable PEM file"),
        ("--log-format=json", vec![], oidc, "auth provider oidc"),
        ("--log-format=json", vec![proxy, excluded], json!({}), "cannot parse NO_PROXY"),
    ] {
        let arguments = ["run", "--bind-address", "127.0.0.1:0", flag];
        let kubeconfig = kubeconfig(&scratch, user)?;
        let operator = Operator::start(arguments, variables, Some(&kubeconfig))?;
        let exit = operator.process().wait_exit(TIMEOUT).await?;
        let log = operator.log();
        ensure!(exit != Exit::Code(0) && log.contains(expected), "{expected}: {exit}: {log}");
        ensure!(!log.contains("secret"), "{log}");
    }
    Ok(())
}
