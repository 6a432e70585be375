//! Where reading begins while there is no checkpoint.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde_json::json;
use stream_notifier_tests::wait::eventually;

use crate::fixture::{LIMIT, World};

const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

#[tokio::test]
async fn each_notifier_begins_where_its_spec_says() -> Result<()> {
    let world = World::new().await?;
    world.insert(PK, SK, 0).await?;
    let client = world.api.connect("SK=hoge").await?;
    for value in 1..=3 {
        world.update(PK, SK, value).await?;
    }
    let since = passed(1).await?;
    for value in 4..=6 {
        world.update(PK, SK, value).await?;
    }
    // `Latest` begins a second early, because records carry whole seconds only.
    passed(2).await?;

    let operator = world.operator()?;
    let by_time = json!({"startingPosition": "AtTimestamp", "startingTimestamp": since});
    for (name, begin) in [
        ("latest", json!({})),
        ("trim-horizon", json!({"startingPosition": "TrimHorizon"})),
        ("at-timestamp", by_time),
    ] {
        let mut manifest = world.manifest(name);
        manifest["spec"]["message"]["from"] = json!(format!("{name:?}"));
        for (field, value) in begin.as_object().into_iter().flatten() {
            manifest["spec"][field] = value.clone();
        }
        world.apply(&manifest).await?;
    }
    world.update(PK, SK, 7).await?;

    let received =
        client.wait_until(LIMIT, "every message", |received| received.len() >= 12).await?;
    let mut told: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for message in received {
        let message = message.json()?;
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        told.entry(text("from")).or_default().push(text("value").parse()?);
    }
    let expected = [
        ("at-timestamp", vec![4, 5, 6, 7]),
        ("latest", vec![7]),
        ("trim-horizon", vec![1, 2, 3, 4, 5, 6, 7]),
    ];
    ensure!(told == expected.map(|(name, values)| (name.to_owned(), values)).into(), "{told:?}");
    operator.stop().await?;
    world.passed();
    Ok(())
}

/// Waits until so many seconds have begun since now, and gives the beginning of the last one.
async fn passed(seconds: i64) -> Result<Timestamp> {
    let then = Timestamp::from_second(Timestamp::now().as_second() + seconds)?;
    eventually(LIMIT, "a later second", async || {
        ensure!(Timestamp::now() >= then);
        Ok(then)
    })
    .await
}
