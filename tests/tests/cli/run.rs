//! `stream-notifier run` without an API server: it logs the failure and exits on SIGTERM.

use std::time::Duration;

use anyhow::Result;
use stream_notifier_tests::operator::Operator;
use stream_notifier_tests::port::free_port;
use stream_notifier_tests::process::Exit;
use stream_notifier_tests::scratch::Scratch;

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn exits_on_sigterm_without_an_api_server() -> Result<()> {
    let scratch = Scratch::new("run")?;
    let server = format!("https://127.0.0.1:{}", free_port()?);
    let kubeconfig = scratch.write(
        "kubeconfig",
        &format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: '{server}'}}}}], contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{}}}}]}}"
        ),
    )?;
    let operator = Operator::start(
        ["run", "--bind-address", "127.0.0.1:0"],
        [("AWS_EC2_METADATA_DISABLED", "true")],
        Some(&kubeconfig),
    )?;
    operator
        .wait_for_line(TIMEOUT, "a failed watch", |line| line.contains("watch failed"))
        .await?;
    assert_eq!(operator.terminate(TIMEOUT).await?, Exit::Code(0));
    Ok(())
}
