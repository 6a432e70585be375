//! Dead letters: sent for each dropped record before the checkpoint passes it. A failing queue is reported
//! and never blocks delivery.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::ministack::queue_arn;
use stream_notifier_tests::proxy::{ProxiedRequest, ProxyResponse};
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::websocket::Received;

use super::{NAME, PK, SK, start_env};
use crate::fixture::{
    Checkpoint, RunningOperator, TABLE, TestEnv, WAIT_TIMEOUT, condition, is_later,
};

const QUEUE: &str = "lost";

/// A notifier whose message has the attribute `Large`, with this `delivery`.
fn manifest(env: &TestEnv, name: &str, delivery: Value) -> Value {
    let mut manifest = env.manifest(name);
    manifest["spec"]["message"]["large"] = json!("new.?Large.orValue('')");
    manifest["spec"]["delivery"] = delivery;
    manifest
}

fn item(sk: &str, value: u32) -> Value {
    json!({"PK": {"S": PK}, "SK": {"S": sk}, "TargetAttribute": {"N": value.to_string()}})
}

/// An item with an attribute of every type, whose message is longer than API Gateway accepts.
fn large_item(sk: &str, value: u32) -> Value {
    let mut large = item(sk, value);
    large["Large"] = json!({"S": "x".repeat(200_000)});
    large["Number"] = json!({"N": "-12345678901234567890.123456789012345678"});
    large["Binary"] = json!({"B": "AP/+"});
    large["Sets"] =
        json!({"L": [{"SS": ["a", "b"]}, {"NS": ["1", "2.5"]}, {"BS": ["AA==", "AQ=="]}]});
    large["Map"] =
        json!({"M": {"on": {"BOOL": true}, "no": {"NULL": true}, "text": {"S": "\u{e9}\n"}}});
    large
}

/// Waits until the checkpoint has passed the record with this value.
async fn wait_passed(env: &TestEnv, name: &str, value: u32) -> Result<()> {
    let number = env.sequence_number_of(value).await?;
    let is_past = |now: &Checkpoint| {
        now.position().is_ok_and(|after| after == number || is_later(after, &number))
    };
    env.wait_checkpoint(name, "the record to be passed", is_past).await.map(drop)
}

/// The dead letters in a queue, by sequence number.
async fn take_dead_letters(env: &TestEnv, queue: &str) -> Result<Vec<Value>> {
    let bodies = env.ministack.take_messages(queue).await?;
    let mut dead_letters =
        bodies.iter().map(|body| serde_json::from_str(body)).collect::<Result<Vec<Value>, _>>()?;
    dead_letters.sort_by_key(|dead_letter| number(dead_letter).to_owned());
    Ok(dead_letters)
}

fn number(dead_letter: &Value) -> &str {
    dead_letter["record"]["dynamodb"]["SequenceNumber"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn sends_a_dead_letter_for_each_dropped_record() -> Result<()> {
    let (env, first, operator) = start_env().await?;
    let second = env.api.connect("SK=hoge").await?;
    let _down = env.api.connect("SK=down").await?;
    let arn = env.ministack.create_queue(QUEUE, &json!({})).await?;
    let short = json!({"MaximumMessageSize": "4096"});
    let short = env.ministack.create_queue("short", &short).await?;
    for (key, value) in [("target_sk#down", 10), ("target_sk", 20)] {
        env.insert_item(PK, key, value).await?;
    }
    let delivery = |arn: &str| json!({"maxRecordAgeSeconds": 2, "deadLetterQueueArn": arn});
    env.apply_and_wait_ready(&manifest(&env, NAME, delivery(&arn))).await?;
    env.apply_and_wait_ready(&manifest(&env, "short", delivery(&short))).await?;
    // A FIFO queue needs more parameters.
    let ordered = env.ministack.create_queue("ordered.fifo", &json!({"FifoQueue": "true"})).await?;
    env.apply_and_wait_ready(&manifest(&env, "ordered", delivery(&ordered))).await?;
    let response = ProxyResponse::gateway_error(503, "ServiceUnavailableException", "not now")?;
    let is_down = |request: &ProxiedRequest| {
        request.is_post_to_connection() && request.json().is_ok_and(|body| body["sk"] == "down")
    };
    let _rule = env.proxy.respond(response, is_down);

    env.update_item(PK, SK, 1).await?;
    env.ministack.put_item(TABLE, &large_item(SK, 2)).await?;
    env.update_item(PK, "target_sk#down", 11).await?;
    // Its sort key has no part after `#`, so the record is invalid.
    env.update_item(PK, "target_sk", 21).await?;
    env.ministack.put_item(TABLE, &item(SK, 3)).await?;
    for client in [&first, &second] {
        let is_complete = |received: &[Received]| received.len() >= 6;
        let received =
            client.wait_until(WAIT_TIMEOUT, "the delivered messages", is_complete).await?;
        let values: Vec<_> = received.iter().filter_map(|it| it.json().ok()).collect();
        ensure!(values.iter().all(|it| it["value"] != "2"), "{values:?}");
    }
    wait_passed(&env, NAME, 3).await?;
    wait_passed(&env, "short", 3).await?;
    wait_passed(&env, "ordered", 3).await?;

    // A dead letter is in the queue before the checkpoint passes its record, so this needs no wait.
    let dropped = take_dead_letters(&env, QUEUE).await?;
    let records = env.ministack.records(&env.stream).await?;
    let expected = [
        (2, json!({"TooLarge": 2}), 2, large_item(SK, 2), item(SK, 1)),
        (11, json!({"Expired": 1}), 1, item("target_sk#down", 11), item("target_sk#down", 10)),
        (21, json!({"Invalid": 1}), 0, item("target_sk", 21), item("target_sk", 20)),
    ];
    ensure!(dropped.len() == expected.len(), "{dropped:#?}");
    for (dead_letter, (value, reasons, connections, new, old)) in dropped.iter().zip(&expected) {
        let notifier = json!({"namespace": env.namespace.name(), "name": NAME});
        ensure!(dead_letter["notifier"] == notifier, "{value}: {}", dead_letter["notifier"]);
        ensure!(dead_letter["reasons"] == *reasons, "{value}: {}", dead_letter["reasons"]);
        ensure!(
            dead_letter["connections"] == *connections,
            "{value}: {}",
            dead_letter["connections"]
        );
        ensure!(
            dead_letter["streamArn"] == env.stream && dead_letter["truncated"].is_null(),
            "{value}"
        );
        let record = &dead_letter["record"];
        ensure!(record["eventName"] == "MODIFY" && record["eventSource"] == "aws:dynamodb");
        let (images, keys) = (&record["dynamodb"], json!({"PK": new["PK"], "SK": new["SK"]}));
        ensure!(images["NewImage"] == *new, "{value}: {}", images["NewImage"]);
        ensure!(images["OldImage"] == *old, "{value}: {}", images["OldImage"]);
        ensure!(images["Keys"] == keys, "{value}: {}", images["Keys"]);
        ensure!(number(dead_letter) == env.sequence_number_of(*value).await?, "{value}");
        let is_it = |of: &&Value| of["dynamodb"]["SequenceNumber"] == images["SequenceNumber"];
        let read = records.iter().find(is_it).context("no such record")?;
        ensure!(record["eventID"] == read["eventID"], "{value}: {}", record["eventID"]);
    }
    let ordered = take_dead_letters(&env, "ordered.fifo").await?;
    ensure!(ordered.iter().map(number).eq(dropped.iter().map(number)), "{ordered:#?}");
    let shorter = take_dead_letters(&env, "short").await?;
    ensure!(shorter.iter().map(number).eq(dropped.iter().map(number)), "{shorter:#?}");
    let dynamodb = &dropped[0]["record"]["dynamodb"];
    let rest = json!({"Keys": dynamodb["Keys"], "SequenceNumber": dynamodb["SequenceNumber"]});
    ensure!(shorter[0]["record"]["dynamodb"] == rest, "{:#}", shorter[0]);
    ensure!(shorter[0]["truncated"] == true && shorter[1]["truncated"].is_null(), "{shorter:#?}");

    for (name, sent, truncated) in [(NAME, 3, 0), ("short", 2, 1), ("ordered", 3, 0)] {
        ensure!(dead_letter_count(&operator, name, "sent").await? == sent);
        ensure!(dead_letter_count(&operator, name, "truncated").await? == truncated);
    }
    operator.stop().await?;
    env.passed();
    Ok(())
}

async fn dead_letter_count(operator: &RunningOperator, name: &str, outcome: &str) -> Result<u64> {
    operator.counter("stream_notifier_dead_letters_total", name, outcome).await
}

#[tokio::test]
async fn posts_the_keys_instead_of_a_message_over_the_size_limit() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    let arn = env.ministack.create_queue(QUEUE, &json!({})).await?;
    let delivery = json!({"oversize": "KeysOnly", "deadLetterQueueArn": arn});
    env.apply_and_wait_ready(&manifest(&env, NAME, delivery)).await?;
    env.ministack.put_item(TABLE, &large_item(SK, 1)).await?;
    env.ministack.put_item(TABLE, &item(SK, 2)).await?;
    let is_complete = |received: &[Received]| received.len() >= 2;
    let received = client.wait_until(WAIT_TIMEOUT, "both", is_complete).await?;
    let keys = json!({"pk": PK, "sk": SK, "truncated": true});
    ensure!(received[0].json()? == keys, "{}", received[0].text);
    ensure!(received[1].json()?["value"] == "2", "{}", received[1].text);
    wait_passed(&env, NAME, 2).await?;
    ensure!(take_dead_letters(&env, QUEUE).await?.is_empty(), "no message was dropped");
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn sends_a_dead_letter_before_the_checkpoint_passes_its_record() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    let arn = env.ministack.create_queue(QUEUE, &json!({})).await?;
    env.apply_and_wait_ready(&manifest(&env, NAME, json!({"deadLetterQueueArn": arn}))).await?;
    let held = env.proxy.hold(|request| request.is("SendMessage"));
    env.update_item(PK, SK, 1).await?;
    env.ministack.put_item(TABLE, &large_item(SK, 2)).await?;
    env.ministack.put_item(TABLE, &item(SK, 3)).await?;
    held.wait_matched(1, WAIT_TIMEOUT).await?;
    let is_complete = |received: &[Received]| received.len() >= 2;
    client.wait_until(WAIT_TIMEOUT, "the delivered messages", is_complete).await?;
    operator.stop().await?;
    // The operator wrote its last checkpoint when it stopped.
    let after = env.checkpoint(NAME).await?.position()?.to_owned();
    ensure!(
        after == env.sequence_number_of(1).await?,
        "{after} is past the record of an unsent dead letter"
    );

    // The next operator reads the record again.
    held.release();
    env.ministack.take_messages(QUEUE).await?;
    let operator = env.start_operator_in_pod("next")?;
    wait_passed(&env, NAME, 3).await?;
    let numbers: Vec<_> =
        take_dead_letters(&env, QUEUE).await?.iter().map(|it| number(it).to_owned()).collect();
    ensure!(numbers.contains(&env.sequence_number_of(2).await?), "{numbers:?}");
    operator.stop().await?;
    env.passed();
    Ok(())
}

/// Waits until `Degraded` has this reason. Returns its message.
async fn wait_degraded(env: &TestEnv, name: &str, reason: &str) -> Result<String> {
    let what = format!("Degraded for {reason}");
    env.notifiers
        .wait_for(WAIT_TIMEOUT, name, &what, |notifier| {
            let degraded = condition(notifier, "Degraded").filter(|it| it["reason"] == reason)?;
            degraded["message"].as_str().map(str::to_owned)
        })
        .await
}

#[tokio::test]
async fn reports_a_failing_queue_and_continues_to_deliver() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    let locked = env.ministack.create_queue("locked", &json!({})).await?;
    let missing = queue_arn("missing");
    let response =
        ProxyResponse::sqs_error(403, "AccessDenied", "User: arn:aws:iam::1:user/secret is not")?;
    let denied = env.proxy.respond(response, |request| {
        let body = request.is("SendMessage").then(|| request.json().ok()).flatten();
        body.is_some_and(|body| {
            body["QueueUrl"].as_str().is_some_and(|url| url.ends_with("/locked"))
        })
    });
    let failing = [
        (
            "missing",
            &missing,
            "DeadLetterQueueNotFound",
            format!("dead letters cannot be sent to {missing}: queue not found; "),
        ),
        (
            "locked",
            &locked,
            "DeadLetterQueueAccessDenied",
            format!(
                "dead letters cannot be sent to {locked}: access denied; grant sqs:SendMessage"
            ),
        ),
    ];
    for (name, arn, ..) in &failing {
        env.apply_and_wait_ready(&manifest(&env, name, json!({"deadLetterQueueArn": arn}))).await?;
    }
    env.ministack.put_item(TABLE, &large_item(SK, 1)).await?;
    env.ministack.put_item(TABLE, &item(SK, 2)).await?;
    let is_complete = |received: &[Received]| received.len() >= 2;
    client.wait_until(WAIT_TIMEOUT, "the delivered messages", is_complete).await?;
    for (name, _, reason, begins) in &failing {
        let message = wait_degraded(&env, name, reason).await?;
        ensure!(message.starts_with(begins) && !message.contains("secret"), "{message}");
        // Delivery continues, so the notifier stays ready.
        env.wait_ready(name).await?;
    }
    ensure!(operator.readyz().await?.status.is_success());
    for (name, ..) in &failing {
        eventually(WAIT_TIMEOUT, "the dead letter to fail", async || {
            ensure!(dead_letter_count(&operator, name, "failed").await? == 1);
            Ok(())
        })
        .await?;
        wait_passed(&env, name, 2).await?;
    }

    // Once the queues work, the next dead letter is sent and the condition is removed.
    denied.release();
    env.ministack.create_queue("missing", &json!({})).await?;
    env.ministack.put_item(TABLE, &large_item(SK, 3)).await?;
    for (name, ..) in &failing {
        wait_passed(&env, name, 3).await?;
        let dead_letters = take_dead_letters(&env, name).await?;
        ensure!(dead_letters.len() == 1, "{dead_letters:#?}");
        let is_cleared = |notifier: &Value| condition(notifier, "Degraded").is_none().then_some(());
        env.notifiers.wait_for(WAIT_TIMEOUT, name, "no Degraded condition", is_cleared).await?;
    }
    operator.stop().await?;
    env.passed();
    Ok(())
}
