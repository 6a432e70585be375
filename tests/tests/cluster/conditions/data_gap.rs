//! Shard iterators that the emulator rejects: an expired one loses no record, and trimmed records are
//! reported as a data gap.

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_notifier_tests::ministack::{expired, trimmed};
use stream_notifier_tests::proxy::{ProxiedRequest, first};
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::websocket::WebSocketClient;

use super::{NAME, start_env, update_items, wait_values};
use crate::fixture::{TestEnv, WAIT_TIMEOUT, condition};

fn is_get_records(request: &ProxiedRequest) -> bool {
    request.is("GetRecords")
}

#[tokio::test]
async fn neither_loses_nor_repeats_records_after_an_expired_iterator() -> Result<()> {
    // The stream has no record yet, and the first one must match.
    let env = TestEnv::new().await?;
    let client = env.api.connect("SK=hoge").await?;
    let operator = env.start_operator()?;
    let mut manifest = env.manifest(NAME);
    manifest["spec"]["events"] = json!(["Insert", "Modify"]);
    env.apply_and_wait_ready(&manifest).await?;
    for values in [1..=3, 4..=6] {
        let last_read = *values.start() - 1;
        let before = env.proxy.requests().len();
        let rule = env.proxy.rewrite(expired, is_get_records);
        update_items(&env, values.clone()).await?;
        rule.wait_matched(2, WAIT_TIMEOUT).await?;
        rule.release();
        wait_values(&client, &(1..=*values.end()).collect::<Vec<_>>()).await?;

        let since = env.proxy.requests().split_off(before);
        let is_rejected = |it: &&ProxiedRequest| {
            it.is("GetRecords") && it.status == Some(StatusCode::BAD_REQUEST)
        };
        ensure!(
            since.iter().filter(is_rejected).count() >= 2,
            "the emulator must reject expired iterators: {since:?}"
        );
        let request = since.iter().find(|it| it.is("GetShardIterator")).context("no request")?;
        let number = request.json()?["SequenceNumber"].take();
        let expected = match last_read {
            // Before the first record, reading starts again where it began.
            0 => Value::Null,
            value => json!(env.sequence_number_of(value).await?),
        };
        ensure!(number == expected, "{number} instead of {expected}");
    }
    env.wait_ready(NAME).await?;
    ensure!(operator.data_gaps(NAME).await? == 0);
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn reports_trimmed_records_and_continues() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    update_items(&env, 1..=3).await?;
    wait_values(&client, &[1, 2, 3]).await?;

    env.proxy.rewrite(trimmed, first(1, is_get_records));
    let gap = wait_gap(&env).await?;
    ensure!(gap["status"] == "True" && gap["reason"] == "RecordsLost", "{gap}");
    let message = gap["message"].as_str().unwrap_or_default();
    ensure!(message.contains(&env.stream) && message.contains("onGap"), "{message}");
    // The emulator still has all records, so reading continues at the first one.
    wait_values(&client, &[1, 2, 3, 1, 2, 3]).await?;
    env.wait_ready(NAME).await?;
    ensure!(operator.data_gaps(NAME).await? == 1);
    let event = wait_event(&env, |_| true).await?;
    ensure!(event["type"] == "Warning" && event["note"] == message, "{event:#}");
    ensure!(event["reportingController"] == "stream-notifier", "{event:#}");
    let described = env.namespace.run(&["describe", "streamnotifier", NAME]).await?;
    ensure!(described.contains("Warning  DataGap"), "{described}");

    // The next gap increases the count of the same Event.
    env.proxy.rewrite(trimmed, first(1, is_get_records));
    wait_values(&client, &[1, 2, 3, 1, 2, 3, 1, 2, 3]).await?;
    wait_event(&env, |event| event["series"]["count"] == 2).await?;
    ensure!(operator.data_gaps(NAME).await? == 2);

    // The condition stays for 24 hours, also after a restart, or until the spec changes.
    let before = wait_gap(&env).await?;
    operator.stop().await?;
    let epoch = env.checkpoint(NAME).await?.epoch;
    let operator = env.start_operator()?;
    env.wait_checkpoint(NAME, "a claim", |now| now.epoch > epoch).await?;
    update_items(&env, [4]).await?;
    wait_values(&client, &[1, 2, 3, 1, 2, 3, 1, 2, 3, 4]).await?;
    env.wait_ready_reason(NAME, "Reading").await?;
    ensure!(wait_gap(&env).await? == before);
    env.patch(NAME, json!({"pollIntervalMilliseconds": 500})).await?;
    env.wait_ready_reason(NAME, "Reading").await?;
    let newest = env.notifiers.latest(NAME)?.context("no notifier")?;
    let has_gap = newest["status"].to_string().contains("DataGap");
    ensure!(!has_gap, "{newest:#}");
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn stops_at_a_data_gap_until_the_user_decides() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    // A rejected Event has no other effect.
    let events = [
        "get",
        "role",
        "stream-notifier",
        "--output=jsonpath={.rules[?(@.apiGroups[0]=='events.k8s.io')].verbs}",
    ];
    ensure!(env.namespace.run(&events).await? == r#"["create","patch"]"#);
    let forbid = r#"[{"op": "remove", "path": "/rules/3"}]"#;
    let role = ["patch", "role", "stream-notifier", "--type=json", "--patch", forbid];
    env.namespace.run(&role).await?;
    ensure!(env.namespace.run(&events).await?.is_empty());
    let mut manifest = env.manifest(NAME);
    manifest["spec"]["onGap"] = json!("Stop");
    env.apply_and_wait_ready(&manifest).await?;
    update_items(&env, 1..=3).await?;
    wait_values(&client, &[1, 2, 3]).await?;
    let third = env.sequence_number_of(3).await?;

    let rejection = env.proxy.rewrite(trimmed, is_get_records);
    rejection.wait_matched(1, WAIT_TIMEOUT).await?;
    update_items(&env, 4..=6).await?;
    let message = env.wait_stalled(NAME, "DataGap").await?;
    let parts = ["onGap", "Continue", "suspend", "checkpoint", &*env.stream];
    ensure!(parts.iter().all(|it| message.contains(it)), "{message}");
    wait_gap(&env).await?;
    let is_rejected_event = |line: &str| line.contains("Event not stored");
    operator
        .wait_for_line(WAIT_TIMEOUT, "that the Event could not be stored", is_rejected_event)
        .await?;
    ensure!(
        !operator.log().contains("reconcile failed"),
        "a rejected Event must not fail the reconcile"
    );
    let ready = operator.readyz().await?;
    let line = format!("{}/{NAME}: DataGap", env.namespace.name());
    ensure!(!ready.status.is_success() && ready.text().trim() == line, "{}", ready.text());

    // The notifier reads no more records, and its checkpoint stays before the gap. Another notifier shows
    // that there are records.
    rejection.release();
    let before = env.proxy.requests().len();
    let mut witness = env.manifest("witness");
    witness["spec"]["startingPosition"] = json!("TrimHorizon");
    witness["spec"]["message"] = json!({"witnessed": "string(new.TargetAttribute)"});
    env.apply_and_wait_ready(&witness).await?;
    client
        .wait_until(WAIT_TIMEOUT, "six messages of the witness", |received| received.len() == 9)
        .await?;
    env.namespace.run(&["delete", "streamnotifier", "witness"]).await?;
    ensure!(own_values(&client)? == [1, 2, 3], "{:?}", client.texts());
    ensure!(env.checkpoint(NAME).await?.position()? == third);
    let requests = &env.proxy.requests()[before..];
    let iterators = requests.iter().filter(|it| it.is("GetShardIterator"));
    ensure!(
        iterators.filter(|it| it.json().is_ok_and(|it| it["SequenceNumber"] == third)).count() == 0
    );

    // A restart finds the same gap.
    let rejection = env.proxy.rewrite(trimmed, is_get_records);
    operator.stop().await?;
    let operator = env.start_operator()?;
    rejection.wait_matched(1, WAIT_TIMEOUT).await?;
    env.wait_stalled(NAME, "DataGap").await?;
    ensure!(env.checkpoint(NAME).await?.position()? == third);
    rejection.release();

    env.proxy.rewrite(trimmed, first(1, is_get_records));
    env.patch(NAME, json!({"onGap": "Continue"})).await?;
    env.wait_ready_reason(NAME, "Reading").await?;
    client.wait_until(WAIT_TIMEOUT, "all records", |received| received.len() == 9 + 6).await?;
    ensure!(own_values(&client)? == [1, 2, 3, 1, 2, 3, 4, 5, 6], "{:?}", client.texts());
    wait_gap(&env).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}

/// The values in the messages of the notifier itself, without those of the witness.
fn own_values(client: &WebSocketClient) -> Result<Vec<u32>> {
    let mut values = Vec::new();
    for message in client.messages() {
        if let Some(value) = message.json()?["value"].as_str() {
            values.push(value.parse()?);
        }
    }
    Ok(values)
}

/// Waits for the condition `DataGap` of the newest spec.
async fn wait_gap(env: &TestEnv) -> Result<Value> {
    let find = |notifier: &Value| condition(notifier, "DataGap").cloned();
    env.notifiers.wait_for(WAIT_TIMEOUT, NAME, "DataGap", find).await
}

/// Waits until the only Event of the notifier meets a condition.
async fn wait_event(env: &TestEnv, is_expected: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(WAIT_TIMEOUT, "an Event", async || {
        let events = env.namespace.get(&["events.events.k8s.io"]).await?;
        let events = events["items"].as_array().context("no list")?;
        let own: Vec<_> = events
            .iter()
            .filter(|event| event["regarding"]["name"] == NAME && event["reason"] == "DataGap")
            .collect();
        ensure!(own.len() == 1 && is_expected(own[0]), "{events:#?}");
        Ok(own[0].clone())
    })
    .await
}
