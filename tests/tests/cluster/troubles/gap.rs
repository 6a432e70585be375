//! Iterators that the emulator itself refuses: an expired one loses nothing, trimmed data is a loss,
//! and no loss is silent.

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_notifier_tests::ministack::{expired, trimmed};
use stream_notifier_tests::proxy::{Recorded, first};
use stream_notifier_tests::wait::eventually;

use super::{NAME, begin, told, write};
use crate::fixture::{LIMIT, World, condition};

fn is_get_records(request: &Recorded) -> bool {
    request.is("GetRecords")
}

#[tokio::test]
async fn an_expired_iterator_loses_and_repeats_nothing() -> Result<()> {
    // No record yet, and the first one counts.
    let world = World::new().await?;
    let client = world.api.connect("SK=hoge").await?;
    let operator = world.operator()?;
    let mut manifest = world.manifest(NAME);
    manifest["spec"]["events"] = json!(["Insert", "Modify"]);
    world.apply(&manifest).await?;
    for values in [1..=3, 4..=6] {
        let last_read = *values.start() - 1;
        let before = world.proxy.requests().len();
        let rule = world.proxy.rewrite(expired, is_get_records);
        write(&world, values.clone()).await?;
        rule.caught(2, LIMIT).await?;
        rule.release();
        told(&client, &(1..=*values.end()).collect::<Vec<_>>()).await?;

        let since = world.proxy.requests().split_off(before);
        let refused =
            |it: &&Recorded| it.is("GetRecords") && it.answered == Some(StatusCode::BAD_REQUEST);
        ensure!(since.iter().filter(refused).count() >= 2, "the emulator took them: {since:?}");
        let asked = since.iter().find(|it| it.is("GetShardIterator")).context("none was asked")?;
        let number = asked.json()?["SequenceNumber"].take();
        let expected = match last_read {
            // Before the first record: what came since reading began.
            0 => Value::Null,
            value => json!(world.number_of(value).await?),
        };
        ensure!(number == expected, "{number} instead of {expected}");
    }
    world.ready(NAME).await?;
    ensure!(operator.gaps(NAME).await? == 0);
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn trimmed_data_is_told_and_reading_goes_on() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest(NAME)).await?;
    write(&world, 1..=3).await?;
    told(&client, &[1, 2, 3]).await?;

    world.proxy.rewrite(trimmed, first(1, is_get_records));
    let gap = gap(&world).await?;
    ensure!(gap["status"] == "True" && gap["reason"] == "RecordsLost", "{gap}");
    let said = gap["message"].as_str().unwrap_or_default();
    ensure!(said.contains(&world.stream) && said.contains("onGap"), "{said}");
    // The emulator has trimmed nothing: the oldest change left is the first.
    told(&client, &[1, 2, 3, 1, 2, 3]).await?;
    world.ready(NAME).await?;
    ensure!(operator.gaps(NAME).await? == 1);
    let event = event(&world, |_| true).await?;
    ensure!(event["type"] == "Warning" && event["note"] == said, "{event:#}");
    ensure!(event["reportingController"] == "stream-notifier", "{event:#}");
    let described = world.namespace.run(&["describe", "streamnotifier", NAME]).await?;
    ensure!(described.contains("Warning  DataGap"), "{described}");

    // The next one is the same Event once more.
    world.proxy.rewrite(trimmed, first(1, is_get_records));
    told(&client, &[1, 2, 3, 1, 2, 3, 1, 2, 3]).await?;
    self::event(&world, |event| event["series"]["count"] == 2).await?;
    ensure!(operator.gaps(NAME).await? == 2);

    // It stays for a day, also over a restart, and until somebody changes the spec.
    let known = self::gap(&world).await?;
    operator.stop().await?;
    let epoch = world.checkpoint(NAME).await?.epoch;
    let operator = world.operator()?;
    world.checkpointed(NAME, "a claim", |now| now.epoch > epoch).await?;
    write(&world, [4]).await?;
    told(&client, &[1, 2, 3, 1, 2, 3, 1, 2, 3, 4]).await?;
    world.reason(NAME, "Reading").await?;
    ensure!(self::gap(&world).await? == known);
    world.patch(NAME, json!({"pollIntervalMilliseconds": 500})).await?;
    world.reason(NAME, "Reading").await?;
    let newest = world.notifiers.newest(NAME)?.context("no notifier")?;
    let is_there = newest["status"].to_string().contains("DataGap");
    ensure!(!is_there, "{newest:#}");
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn told_to_stop_at_a_gap_it_waits_for_a_decision() -> Result<()> {
    let (world, client, operator) = begin().await?;
    // An Event that cannot be stored is missed, and that is all.
    let events = [
        "get",
        "role",
        "stream-notifier",
        "--output=jsonpath={.rules[?(@.apiGroups[0]=='events.k8s.io')].verbs}",
    ];
    ensure!(world.namespace.run(&events).await? == r#"["create","patch"]"#);
    let forbid = r#"[{"op": "remove", "path": "/rules/3"}]"#;
    let role = ["patch", "role", "stream-notifier", "--type=json", "--patch", forbid];
    world.namespace.run(&role).await?;
    ensure!(world.namespace.run(&events).await?.is_empty());
    let mut manifest = world.manifest(NAME);
    manifest["spec"]["onGap"] = json!("Stop");
    world.apply(&manifest).await?;
    write(&world, 1..=3).await?;
    told(&client, &[1, 2, 3]).await?;
    let third = world.number_of(3).await?;

    let refused = world.proxy.rewrite(trimmed, is_get_records);
    refused.caught(1, LIMIT).await?;
    write(&world, 4..=6).await?;
    let said = world.stalled(NAME, "DataGap").await?;
    let to_do = ["onGap", "Continue", "suspend", "checkpoint", &*world.stream];
    ensure!(to_do.iter().all(|it| said.contains(it)), "{said}");
    gap(&world).await?;
    let missed = |line: &str| line.contains("the Event of a notifier could not be stored");
    operator.wait_for_line(LIMIT, "that the Event could not be stored", missed).await?;
    ensure!(!operator.log().contains("reconcile failed"), "it failed a reconcile");
    let ready = operator.readyz().await?;
    let line = format!("{}/{NAME}: DataGap", world.namespace.name());
    ensure!(!ready.status.is_success() && ready.text().trim() == line, "{}", ready.text());

    // Nothing more is read, and the checkpoint stays before the gap; another notifier shows that
    // there is something to read.
    refused.release();
    let quiet = world.proxy.requests().len();
    let mut witness = world.manifest("witness");
    witness["spec"]["startingPosition"] = json!("TrimHorizon");
    witness["spec"]["message"] = json!({"witnessed": "string(new.TargetAttribute)"});
    world.apply(&witness).await?;
    client.wait_until(LIMIT, "six messages of the witness", |received| received.len() == 9).await?;
    world.namespace.run(&["delete", "streamnotifier", "witness"]).await?;
    ensure!(values_told(&client)? == [1, 2, 3], "{:?}", client.texts());
    ensure!(world.checkpoint(NAME).await?.after()? == third);
    let asked = &world.proxy.requests()[quiet..];
    let of_it = asked.iter().filter(|it| it.is("GetShardIterator"));
    ensure!(
        of_it.filter(|it| it.json().is_ok_and(|it| it["SequenceNumber"] == third)).count() == 0
    );

    // A restart decides nothing: there is the gap again.
    let refused = world.proxy.rewrite(trimmed, is_get_records);
    operator.stop().await?;
    let operator = world.operator()?;
    refused.caught(1, LIMIT).await?;
    world.stalled(NAME, "DataGap").await?;
    ensure!(world.checkpoint(NAME).await?.after()? == third);
    refused.release();

    world.proxy.rewrite(trimmed, first(1, is_get_records));
    world.patch(NAME, json!({"onGap": "Continue"})).await?;
    world.reason(NAME, "Reading").await?;
    client.wait_until(LIMIT, "all changes", |received| received.len() == 9 + 6).await?;
    ensure!(values_told(&client)? == [1, 2, 3, 1, 2, 3, 4, 5, 6], "{:?}", client.texts());
    gap(&world).await?;
    operator.stop().await?;
    world.passed();
    Ok(())
}

/// What the notifier itself has told, beside a witness.
fn values_told(client: &stream_notifier_tests::websocket::WebSocketClient) -> Result<Vec<u32>> {
    let mut values = Vec::new();
    for message in client.messages() {
        if let Some(value) = message.json()?["value"].as_str() {
            values.push(value.parse()?);
        }
    }
    Ok(values)
}

/// Waits for the condition `DataGap` about the newest spec.
async fn gap(world: &World) -> Result<Value> {
    let find = |notifier: &Value| condition(notifier, "DataGap").cloned();
    world.notifiers.wait_for(LIMIT, NAME, "DataGap", find).await
}

/// Waits for the one Event about the notifier to be like this.
async fn event(world: &World, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(LIMIT, "an Event", async || {
        let events = world.namespace.get(&["events.events.k8s.io"]).await?;
        let events = events["items"].as_array().context("no list")?;
        let of_it: Vec<_> = events
            .iter()
            .filter(|event| event["regarding"]["name"] == NAME && event["reason"] == "DataGap")
            .collect();
        ensure!(of_it.len() == 1 && is_it(of_it[0]), "{events:#?}");
        Ok(of_it[0].clone())
    })
    .await
}
