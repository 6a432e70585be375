//! Missing credentials: the condition names the cause, and the operator continues once it is fixed.

use anyhow::{Context, Result, ensure};
use stream_notifier_tests::scratch::Scratch;

use super::{NAME, PK, SK, wait_values};
use crate::fixture::{TestEnv, WAIT_TIMEOUT, condition};

/// Waits until `NoCredentials` names a cause. Returns the message.
async fn wait_cause(env: &TestEnv, cause: &str) -> Result<String> {
    env.notifiers
        .wait_for(WAIT_TIMEOUT, NAME, cause, |notifier| {
            let stalled = condition(notifier, "Stalled")?;
            let message = stalled["message"].as_str()?;
            (stalled["reason"] == "NoCredentials" && message.contains(cause))
                .then(|| message.to_owned())
        })
        .await
}

#[tokio::test]
async fn names_why_a_profile_has_no_credentials_until_it_is_fixed() -> Result<()> {
    let env = TestEnv::new().await?;
    env.insert_item(PK, SK, 0).await?;
    let client = env.api.connect("SK=hoge").await?;
    let scratch = Scratch::new("profile")?;
    let file = scratch.write("config", "[profile other]\nregion = eu-west-1\n")?;
    let profile = [
        ("AWS_CONFIG_FILE", file.to_str().context("a path in UTF-8")?),
        ("AWS_PROFILE", "p"),
        // The environment takes precedence over a profile.
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
    ];
    let operator = env.start_operator_with(env.proxy.endpoint(), &profile)?;
    env.apply_spec(&env.manifest(NAME)).await?;
    wait_cause(&env, "profile `p` was not defined").await?;

    let process = |command: &str| {
        scratch.write("config", &format!("[profile p]\ncredential_process = {command}\n"))
    };
    process("sh -c 'echo secret >&2; exit 3'")?;
    let message = wait_cause(&env, "exit status: 3").await?;
    ensure!(!message.contains("secret"), "{message}");

    process(r#"echo '{"Version":1,"AccessKeyId":"test","SecretAccessKey":"test"}'"#)?;
    env.wait_ready(NAME).await?;
    env.update_item(PK, SK, 1).await?;
    wait_values(&client, &[1]).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}
