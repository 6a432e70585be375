//! `run` where there is nothing to run on: it says what is the matter, and stops when it is told.

use std::time::Duration;

use anyhow::Result;
use stream_notifier_tests::operator::Operator;
use stream_notifier_tests::port::free_port;
use stream_notifier_tests::process::Exit;
use stream_notifier_tests::scratch::Scratch;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_ends_although_the_api_server_was_never_reached() -> Result<()> {
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
    operator.wait_for_line(LIMIT, "its failure", |line| line.contains("reconcile failed")).await?;
    assert_eq!(operator.terminate(LIMIT).await?, Exit::Code(0));
    Ok(())
}
