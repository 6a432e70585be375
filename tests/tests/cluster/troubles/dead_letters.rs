//! A change that somebody is not told of is a letter in the dead-letter queue before it counts as done;
//! a queue that fails is told, and holds nothing up for ever.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::ministack::queue_arn;
use stream_notifier_tests::proxy::{Recorded, Reply};
use stream_notifier_tests::websocket::Received;

use super::{NAME, PK, SK, begin};
use crate::fixture::{Checkpoint, LIMIT, Running, TABLE, World, condition, is_later};

const QUEUE: &str = "lost";

/// A letter is given up after a minute.
const LONGEST_TRY: Duration = Duration::from_secs(120);

/// A notifier whose message has the attribute `Large`, with this `delivery`.
fn manifest(world: &World, name: &str, delivery: Value) -> Value {
    let mut manifest = world.manifest(name);
    manifest["spec"]["message"]["large"] = json!("new.?Large.orValue('')");
    manifest["spec"]["delivery"] = delivery;
    manifest
}

fn item(sk: &str, value: u32) -> Value {
    json!({"PK": {"S": PK}, "SK": {"S": sk}, "TargetAttribute": {"N": value.to_string()}})
}

/// One whose message is longer than API Gateway takes, with an attribute of every type.
fn large(sk: &str, value: u32) -> Value {
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

/// Waits until the checkpoint has passed the change with this value.
async fn passed(world: &World, name: &str, value: u32) -> Result<()> {
    let number = world.number_of(value).await?;
    let is_past = |now: &Checkpoint| {
        now.after().is_ok_and(|after| after == number || is_later(after, &number))
    };
    world.checkpointed(name, "the change to be passed", is_past).await.map(drop)
}

/// The letters that a queue has, by their sequence numbers.
async fn letters(world: &World, queue: &str) -> Result<Vec<Value>> {
    let bodies = world.ministack.take_messages(queue).await?;
    let mut letters =
        bodies.iter().map(|body| serde_json::from_str(body)).collect::<Result<Vec<Value>, _>>()?;
    letters.sort_by_key(|letter| number(letter).to_owned());
    Ok(letters)
}

fn number(letter: &Value) -> &str {
    letter["record"]["dynamodb"]["SequenceNumber"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn each_lost_change_is_a_letter() -> Result<()> {
    let (world, first, operator) = begin().await?;
    let second = world.api.connect("SK=hoge").await?;
    let _down = world.api.connect("SK=down").await?;
    let arn = world.ministack.create_queue(QUEUE, &json!({})).await?;
    let short = json!({"MaximumMessageSize": "4096"});
    let short = world.ministack.create_queue("short", &short).await?;
    for (key, value) in [("target_sk#down", 10), ("target_sk", 20)] {
        world.insert(PK, key, value).await?;
    }
    let delivery = |arn: &str| json!({"maxRecordAgeSeconds": 2, "deadLetterQueueArn": arn});
    world.apply(&manifest(&world, NAME, delivery(&arn))).await?;
    world.apply(&manifest(&world, "short", delivery(&short))).await?;
    // One that keeps order asks for more than the letter.
    let ordered =
        world.ministack.create_queue("ordered.fifo", &json!({"FifoQueue": "true"})).await?;
    world.apply(&manifest(&world, "ordered", delivery(&ordered))).await?;
    let reply = Reply::gateway_error(503, "ServiceUnavailableException", "not now")?;
    let is_down = |request: &Recorded| {
        request.is_post_to_connection() && request.json().is_ok_and(|body| body["sk"] == "down")
    };
    let _rule = world.proxy.answer(reply, is_down);

    world.update(PK, SK, 1).await?;
    world.ministack.put_item(TABLE, &large(SK, 2)).await?;
    world.update(PK, "target_sk#down", 11).await?;
    // Its key has no part to look up.
    world.update(PK, "target_sk", 21).await?;
    world.ministack.put_item(TABLE, &item(SK, 3)).await?;
    for client in [&first, &second] {
        let has = |received: &[Received]| received.len() >= 6;
        let received = client.wait_until(LIMIT, "what is not lost", has).await?;
        let values: Vec<_> = received.iter().filter_map(|it| it.json().ok()).collect();
        ensure!(values.iter().all(|it| it["value"] != "2"), "{values:?}");
    }
    passed(&world, NAME, 3).await?;
    passed(&world, "short", 3).await?;
    passed(&world, "ordered", 3).await?;

    // Nothing is waited for any more: a letter is there before its change is passed.
    let lost = letters(&world, QUEUE).await?;
    let records = world.ministack.records(&world.stream).await?;
    let wanted = [
        (2, json!({"TooLarge": 2}), 2, large(SK, 2), item(SK, 1)),
        (11, json!({"Expired": 1}), 1, item("target_sk#down", 11), item("target_sk#down", 10)),
        (21, json!({"Invalid": 1}), 0, item("target_sk", 21), item("target_sk", 20)),
    ];
    ensure!(lost.len() == wanted.len(), "{lost:#?}");
    for (letter, (value, reasons, connections, new, old)) in lost.iter().zip(&wanted) {
        let notifier = json!({"namespace": world.namespace.name(), "name": NAME});
        ensure!(letter["notifier"] == notifier, "{value}: {}", letter["notifier"]);
        ensure!(letter["reasons"] == *reasons, "{value}: {}", letter["reasons"]);
        ensure!(letter["connections"] == *connections, "{value}: {}", letter["connections"]);
        ensure!(letter["streamArn"] == world.stream && letter["truncated"].is_null(), "{value}");
        let record = &letter["record"];
        ensure!(record["eventName"] == "MODIFY" && record["eventSource"] == "aws:dynamodb");
        let (images, keys) = (&record["dynamodb"], json!({"PK": new["PK"], "SK": new["SK"]}));
        ensure!(images["NewImage"] == *new, "{value}: {}", images["NewImage"]);
        ensure!(images["OldImage"] == *old, "{value}: {}", images["OldImage"]);
        ensure!(images["Keys"] == keys, "{value}: {}", images["Keys"]);
        ensure!(number(letter) == world.number_of(*value).await?, "{value}");
        let is_it = |of: &&Value| of["dynamodb"]["SequenceNumber"] == images["SequenceNumber"];
        let read = records.iter().find(is_it).context("no such record")?;
        ensure!(record["eventID"] == read["eventID"], "{value}: {}", record["eventID"]);
    }
    let ordered = letters(&world, "ordered.fifo").await?;
    ensure!(ordered.iter().map(number).eq(lost.iter().map(number)), "{ordered:#?}");
    let shorter = letters(&world, "short").await?;
    ensure!(shorter.iter().map(number).eq(lost.iter().map(number)), "{shorter:#?}");
    let dynamodb = &lost[0]["record"]["dynamodb"];
    let rest = json!({"Keys": dynamodb["Keys"], "SequenceNumber": dynamodb["SequenceNumber"]});
    ensure!(shorter[0]["record"]["dynamodb"] == rest, "{:#}", shorter[0]);
    ensure!(shorter[0]["truncated"] == true && shorter[1]["truncated"].is_null(), "{shorter:#?}");

    for (name, sent, truncated) in [(NAME, 3, 0), ("short", 2, 1), ("ordered", 3, 0)] {
        ensure!(counted(&operator, name, "sent").await? == sent);
        ensure!(counted(&operator, name, "truncated").await? == truncated);
    }
    operator.stop().await?;
    world.passed();
    Ok(())
}

async fn counted(operator: &Running, name: &str, kind: &str) -> Result<u64> {
    operator.metric("stream_notifier_dead_letters_total", name, kind).await
}

#[tokio::test]
async fn instead_of_a_message_that_is_too_large_the_keys_are_told() -> Result<()> {
    let (world, client, operator) = begin().await?;
    let arn = world.ministack.create_queue(QUEUE, &json!({})).await?;
    let delivery = json!({"oversize": "KeysOnly", "deadLetterQueueArn": arn});
    world.apply(&manifest(&world, NAME, delivery)).await?;
    world.ministack.put_item(TABLE, &large(SK, 1)).await?;
    world.ministack.put_item(TABLE, &item(SK, 2)).await?;
    let has = |received: &[Received]| received.len() >= 2;
    let received = client.wait_until(LIMIT, "both", has).await?;
    let keys = json!({"pk": PK, "sk": SK, "truncated": true});
    ensure!(received[0].json()? == keys, "{}", received[0].text);
    ensure!(received[1].json()?["value"] == "2", "{}", received[1].text);
    passed(&world, NAME, 2).await?;
    ensure!(letters(&world, QUEUE).await?.is_empty(), "nobody missed anything");
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_letter_is_sent_before_its_change_is_passed() -> Result<()> {
    let (world, client, operator) = begin().await?;
    let arn = world.ministack.create_queue(QUEUE, &json!({})).await?;
    world.apply(&manifest(&world, NAME, json!({"deadLetterQueueArn": arn}))).await?;
    let held = world.proxy.hold(|request| request.is("SendMessage"));
    world.update(PK, SK, 1).await?;
    world.ministack.put_item(TABLE, &large(SK, 2)).await?;
    world.ministack.put_item(TABLE, &item(SK, 3)).await?;
    held.caught(1, LIMIT).await?;
    let has = |received: &[Received]| received.len() >= 2;
    client.wait_until(LIMIT, "what is not lost", has).await?;
    operator.stop().await?;
    // Its last act was to write down what is done.
    let after = world.checkpoint(NAME).await?.after()?.to_owned();
    ensure!(after == world.number_of(1).await?, "{after} is behind the letter");

    // The next operator finds the change again.
    held.release();
    world.ministack.take_messages(QUEUE).await?;
    let operator = world.operator_named("next")?;
    passed(&world, NAME, 3).await?;
    let numbers: Vec<_> =
        letters(&world, QUEUE).await?.iter().map(|it| number(it).to_owned()).collect();
    ensure!(numbers.contains(&world.number_of(2).await?), "{numbers:?}");
    operator.stop().await?;
    world.passed();
    Ok(())
}

/// Waits until `Degraded` has this reason: its message.
async fn degraded(world: &World, name: &str, reason: &str) -> Result<String> {
    let what = format!("Degraded for {reason}");
    world
        .notifiers
        .wait_for(LIMIT, name, &what, |notifier| {
            let degraded = condition(notifier, "Degraded").filter(|it| it["reason"] == reason)?;
            degraded["message"].as_str().map(str::to_owned)
        })
        .await
}

#[tokio::test]
async fn a_queue_that_fails_is_told_and_holds_nothing_up_for_ever() -> Result<()> {
    let (world, client, operator) = begin().await?;
    let locked = world.ministack.create_queue("locked", &json!({})).await?;
    let missing = queue_arn("missing");
    let reply = Reply::sqs_error(403, "AccessDenied", "User: arn:aws:iam::1:user/secret is not")?;
    let denied = world.proxy.answer(reply, |request| {
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
        world.apply(&manifest(&world, name, json!({"deadLetterQueueArn": arn}))).await?;
    }
    world.ministack.put_item(TABLE, &large(SK, 1)).await?;
    world.ministack.put_item(TABLE, &item(SK, 2)).await?;
    let has = |received: &[Received]| received.len() >= 2;
    client.wait_until(LIMIT, "what is not lost", has).await?;
    for (name, _, reason, begins) in &failing {
        let said = degraded(&world, name, reason).await?;
        ensure!(said.starts_with(begins) && !said.contains("secret"), "{said}");
        // Every change goes out that can.
        world.ready(name).await?;
    }
    ensure!(operator.readyz().await?.status.is_success());
    for (name, ..) in &failing {
        stream_notifier_tests::wait::eventually(
            LONGEST_TRY,
            "the letter to be given up",
            async || {
                ensure!(counted(&operator, name, "failed").await? == 1);
                Ok(())
            },
        )
        .await?;
        passed(&world, name, 2).await?;
    }

    // Mended, the next letter arrives, and there is no trace of what was wrong.
    denied.release();
    world.ministack.create_queue("missing", &json!({})).await?;
    world.ministack.put_item(TABLE, &large(SK, 3)).await?;
    for (name, ..) in &failing {
        passed(&world, name, 3).await?;
        let letters = letters(&world, name).await?;
        ensure!(letters.len() == 1, "{letters:#?}");
        let is_well = |notifier: &Value| condition(notifier, "Degraded").is_none().then_some(());
        world.notifiers.wait_for(LIMIT, name, "nothing to mend", is_well).await?;
    }
    operator.stop().await?;
    world.passed();
    Ok(())
}
