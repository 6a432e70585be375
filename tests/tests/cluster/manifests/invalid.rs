//! Specs that only the operator finds invalid: a condition names the field, and other notifiers continue.

use anyhow::{Result, ensure};
use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::{Value, json};

use crate::fixture::{Checkpoint, TestEnv, WAIT_TIMEOUT};

/// The name of a notifier, the edit that makes it invalid, and the prefix and a part of the message.
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
async fn reports_invalid_specs_without_delaying_other_notifiers() -> Result<()> {
    let env = TestEnv::new().await?;
    env.insert_item("target_pk#fuga", "target_sk#hoge", 1).await?;
    let client = env.api.connect("SK=hoge").await?;
    let operator = env.start_operator()?;

    let invalid = INVALID.iter().map(|(name, edit, ..)| {
        let mut invalid = env.manifest(name);
        edit(&mut invalid);
        invalid
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": invalid.collect::<Vec<_>>()});
    env.namespace.apply(&list.to_string()).await?;
    for (name, _, prefix, part) in INVALID {
        let message = env.wait_stalled(name, "Invalid").await?;
        ensure!(
            message.starts_with(prefix) && message.contains(part) && !message.contains('\n'),
            "{name}: {message}"
        );
    }

    // A valid notifier with the longest allowed name.
    let longest = "a".repeat(200);
    env.apply_and_wait_ready(&env.manifest(&longest)).await?;
    env.update_item("target_pk#fuga", "target_sk#hoge", 2).await?;
    client.wait_until(WAIT_TIMEOUT, "a message", |received| !received.is_empty()).await?;
    let is_past_start = |now: &Checkpoint| now.position().is_ok_and(|after| after != "latest");
    env.wait_checkpoint(&longest, "a position", is_past_start).await?;

    // Once fixed, it has no condition except `Ready`.
    env.apply_and_wait_ready(&env.manifest("unparsable")).await?;
    let (status, _) = env.wait_ready_reason("unparsable", "Reading").await?;
    ensure!(status == "True");
    let fixed = env.notifiers.latest("unparsable")?.unwrap_or_default();
    ensure!(
        fixed["status"]["conditions"].as_array().is_some_and(|conditions| conditions.len() == 1),
        "{fixed:#}"
    );
    // An invalid edit stops a notifier that worked.
    env.patch("unparsable", json!({"attribute": "A", "message": {"value": "1 +"}})).await?;
    env.wait_stalled("unparsable", "Invalid").await?;

    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn reports_the_field_whose_image_the_stream_lacks() -> Result<()> {
    let env = TestEnv::with_view_type(StreamViewType::KeysOnly).await?;
    env.insert_item("target_pk#fuga", "target_sk#hoge", 1).await?;
    let client = env.api.connect("SK=hoge").await?;
    let operator = env.start_operator()?;
    let keys_only = |name: &str| {
        let mut manifest = env.manifest(name);
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
    for (manifest, field, view_types) in [
        (by_attribute, "attribute", "NEW_AND_OLD_IMAGES"),
        (by_message, "message.before", "OLD_IMAGE or NEW_AND_OLD_IMAGES"),
        (by_lookup, "connections.value", "NEW_IMAGE or NEW_AND_OLD_IMAGES"),
    ] {
        env.apply_spec(&manifest).await?;
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        let message = env.wait_stalled(name, "ViewTypeMismatch").await?;
        ensure!(
            message.starts_with(&format!("{field}: "))
                && message.contains("KEYS_ONLY")
                && message.contains(view_types),
            "{message}"
        );
    }
    env.apply_and_wait_ready(&keys_only("good")).await?;
    env.update_item("target_pk#fuga", "target_sk#hoge", 2).await?;
    let received =
        client.wait_until(WAIT_TIMEOUT, "a message", |received| !received.is_empty()).await?;
    ensure!(received[0].json()? == json!({"sk": "target_sk#hoge"}), "{received:?}");
    operator.stop().await?;
    env.passed();
    Ok(())
}
