//! What only the operator can know is told in the conditions, and a good notifier goes on beside it.

use anyhow::{Result, ensure};
use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::{Value, json};

use crate::fixture::{LIMIT, World};

/// A name, what is wrong, and the words that the condition's message begins with and has in it.
type Case = (&'static str, fn(&mut Value), &'static str, &'static str);

fn message(it: &mut Value, value: impl Into<String>) {
    it["spec"]["message"]["value"] = json!(value.into());
}

const INVALID: &[Case] = &[
    ("unparsable", |it| message(it, "new.TargetAttribute +"), "message.value: ", ""),
    ("unfinished", |it| message(it, "'90"), "message.value: ", ""),
    (
        "nested-calls",
        |it| message(it, format!("{}1{}", "string(".repeat(120), ")".repeat(120))),
        "message.value: ",
        "deep",
    ),
    (
        "nested-fields",
        |it| message(it, format!("keys{}", ".a".repeat(500))),
        "message.value: ",
        "deep",
    ),
    (
        "nested-lists",
        |it| message(it, format!("{}{}", "[".repeat(500), "]".repeat(500))),
        "message.value: ",
        "deep",
    ),
    ("nested-open", |it| message(it, "[".repeat(1000)), "message.value: ", ""),
    (
        "unknown-variable",
        |it| message(it, "newImage.TargetAttribute"),
        "message.value: ",
        "newImage",
    ),
    (
        "lookup",
        |it| it["spec"]["connections"]["value"] = json!("keys.SK.split("),
        "connections.value: ",
        "",
    ),
    ("filter", |it| it["spec"]["filter"] = json!("new.a ="), "filter: ", ""),
    ("filter-of-nothing", |it| it["spec"]["filter"] = json!("news.Price > 1"), "filter: ", "news"),
    (
        "pattern",
        |it| it["spec"]["keyFilters"][0] = json!({"key": "PK", "matches": "target("}),
        "keyFilters[PK].matches: ",
        "is not a pattern in RE2 syntax",
    ),
    (
        "never",
        |it| it["spec"]["events"] = json!(["Remove"]),
        "attribute: ",
        "a removed item has no new value",
    ),
    (
        "not-allowed",
        |it| it["spec"]["webSocket"]["domain"] = json!("ws.example.com"),
        "webSocket.domain: ",
        "--allowed-websocket-domains",
    ),
];

#[tokio::test]
async fn what_cannot_work_is_told_and_holds_up_nobody() -> Result<()> {
    let world = World::new().await?;
    world.insert("target_pk#fuga", "target_sk#hoge", 1).await?;
    let client = world.api.connect("SK=hoge").await?;
    let operator = world.operator()?;

    let bad = INVALID.iter().map(|(name, spoil, ..)| {
        let mut bad = world.manifest(name);
        spoil(&mut bad);
        bad
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": bad.collect::<Vec<_>>()});
    world.namespace.apply(&list.to_string()).await?;
    for (name, _, begins, has) in INVALID {
        let said = world.stalled(name, "Invalid").await?;
        ensure!(
            said.starts_with(begins) && said.contains(has) && !said.contains('\n'),
            "{name}: {said}"
        );
    }

    // Its name is the longest that may be.
    let longest = "a".repeat(200);
    world.apply(&world.manifest(&longest)).await?;
    world.update("target_pk#fuga", "target_sk#hoge", 2).await?;
    client.wait_until(LIMIT, "a message", |received| !received.is_empty()).await?;
    let moved = |now: &crate::fixture::Checkpoint| now.after().is_ok_and(|after| after != "latest");
    world.checkpointed(&longest, "a position", moved).await?;

    // Mended, it works, and there is no trace of what was wrong.
    world.apply(&world.manifest("unparsable")).await?;
    let (status, _) = world.reason("unparsable", "Reading").await?;
    ensure!(status == "True");
    let mended = world.notifiers.newest("unparsable")?.unwrap_or_default();
    ensure!(
        mended["status"]["conditions"].as_array().is_some_and(|conditions| conditions.len() == 1),
        "{mended:#}"
    );
    // And one that worked is stopped when it is spoilt.
    world.patch("unparsable", json!({"attribute": "A", "message": {"value": "1 +"}})).await?;
    world.stalled("unparsable", "Invalid").await?;

    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_stream_without_the_images_that_a_field_needs_is_told() -> Result<()> {
    let world = World::with_view(StreamViewType::KeysOnly).await?;
    world.insert("target_pk#fuga", "target_sk#hoge", 1).await?;
    let client = world.api.connect("SK=hoge").await?;
    let operator = world.operator()?;
    let keys_only = |name: &str| {
        let mut manifest = world.manifest(name);
        manifest["spec"]["message"] = json!({"sk": "keys.SK"});
        manifest["spec"].as_object_mut().map(|spec| spec.remove("attribute"));
        manifest
    };
    let mut by_attribute = keys_only("attribute");
    by_attribute["spec"]["attribute"] = json!("TargetAttribute");
    let mut by_message = keys_only("message");
    by_message["spec"]["message"]["before"] = json!("string(old.TargetAttribute)");
    let mut by_lookup = keys_only("lookup");
    by_lookup["spec"]["connections"]["value"] = json!("new.room");
    for (manifest, field, wanted) in [
        (by_attribute, "attribute", "NEW_AND_OLD_IMAGES"),
        (by_message, "message.before", "OLD_IMAGE or NEW_AND_OLD_IMAGES"),
        (by_lookup, "connections.value", "NEW_IMAGE or NEW_AND_OLD_IMAGES"),
    ] {
        world.submit(&manifest).await?;
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        let said = world.stalled(name, "ViewTypeMismatch").await?;
        ensure!(
            said.starts_with(&format!("{field}: "))
                && said.contains("KEYS_ONLY")
                && said.contains(wanted),
            "{said}"
        );
    }
    world.apply(&keys_only("good")).await?;
    world.update("target_pk#fuga", "target_sk#hoge", 2).await?;
    let received = client.wait_until(LIMIT, "a message", |received| !received.is_empty()).await?;
    ensure!(received[0].json()? == json!({"sk": "target_sk#hoge"}), "{received:?}");
    operator.stop().await?;
    world.passed();
    Ok(())
}
