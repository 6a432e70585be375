//! The position at which reading begins without a checkpoint.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde_json::json;
use stream_notifier_tests::wait::eventually;

use crate::fixture::{TestEnv, WAIT_TIMEOUT};

const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

#[tokio::test]
async fn starts_each_notifier_at_the_position_of_its_spec() -> Result<()> {
    let env = TestEnv::new().await?;
    env.insert_item(PK, SK, 0).await?;
    let client = env.api.connect("SK=hoge").await?;
    for value in 1..=3 {
        env.update_item(PK, SK, value).await?;
    }
    let since = wait_seconds(1).await?;
    for value in 4..=6 {
        env.update_item(PK, SK, value).await?;
    }
    // `Latest` begins one second earlier, because the creation time of a record has whole seconds.
    wait_seconds(2).await?;

    let operator = env.start_operator()?;
    let by_time = json!({"startingPosition": "AtTimestamp", "startingTimestamp": since});
    for (name, position) in [
        ("latest", json!({})),
        ("trim-horizon", json!({"startingPosition": "TrimHorizon"})),
        ("at-timestamp", by_time),
    ] {
        let mut manifest = env.manifest(name);
        manifest["spec"]["message"]["from"] = json!(format!("{name:?}"));
        for (field, value) in position.as_object().into_iter().flatten() {
            manifest["spec"][field] = value.clone();
        }
        env.apply_and_wait_ready(&manifest).await?;
    }
    env.update_item(PK, SK, 7).await?;

    let received =
        client.wait_until(WAIT_TIMEOUT, "every message", |received| received.len() >= 12).await?;
    let mut values: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for message in received {
        let message = message.json()?;
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        values.entry(text("from")).or_default().push(text("value").parse()?);
    }
    let expected = [
        ("at-timestamp", vec![4, 5, 6, 7]),
        ("latest", vec![7]),
        ("trim-horizon", vec![1, 2, 3, 4, 5, 6, 7]),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(name, values)| (name.to_owned(), values)).into();
    ensure!(values == expected, "{values:?}");
    operator.stop().await?;
    env.passed();
    Ok(())
}

/// Waits until this number of seconds have begun. Returns the beginning of the last one.
async fn wait_seconds(seconds: i64) -> Result<Timestamp> {
    let then = Timestamp::from_second(Timestamp::now().as_second() + seconds)?;
    eventually(WAIT_TIMEOUT, "a later second", async || {
        ensure!(Timestamp::now() >= then);
        Ok(then)
    })
    .await
}
