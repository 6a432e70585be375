//! What goes wrong around the operator is told by name, loses nothing, and ends without a restart.

mod dead_letters;
mod denied;
mod gap;
mod lifecycle;
mod missing;
mod replaced;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use stream_notifier_tests::websocket::{Received, WebSocketClient};

use crate::fixture::{LIMIT, Running, World, repository};

const NAME: &str = "troubled";
const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

/// A world with an item, one who watches it, and an operator.
async fn begin() -> Result<(World, WebSocketClient, Running)> {
    let world = World::new().await?;
    world.insert(PK, SK, 0).await?;
    let client = world.api.connect("SK=hoge").await?;
    let operator = world.operator()?;
    Ok((world, client, operator))
}

/// Changes the item once for each value.
async fn write(world: &World, values: impl IntoIterator<Item = u32>) -> Result<()> {
    for value in values {
        world.update(PK, SK, value).await?;
    }
    Ok(())
}

/// What a client was told, in its order.
fn values(received: &[Received]) -> Vec<u32> {
    let value = |message: &Received| message.json().ok()?["value"].as_str()?.parse().ok();
    received.iter().filter_map(value).collect()
}

/// Waits until the client was told of these values, each once and in this order.
async fn told(client: &WebSocketClient, wanted: &[u32]) -> Result<()> {
    let what = format!("{wanted:?}");
    let received =
        client.wait_until(LIMIT, &what, |received| received.len() >= wanted.len()).await?;
    let values = values(&received);
    ensure!(values == wanted, "{values:?} instead of {wanted:?}");
    Ok(())
}

/// Every reason of a condition or an Event that the sources have a name for is explained in docs/conditions.md, and no other.
#[test]
fn every_reason_is_explained() -> Result<()> {
    let mut reasons = BTreeSet::new();
    named_reasons(&repository()?.join("operator/src"), &mut reasons)?;
    let page = fs::read_to_string(repository()?.join("docs/conditions.md"))?;
    let section = page.split("\n## ").find(|section| section.starts_with("Conditions\n"));
    let rows = section.unwrap_or_default().lines().filter_map(|line| line.strip_prefix("| `"));
    let mut explained: BTreeSet<_> =
        rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect();
    // The heads of the tables.
    explained.retain(|reason| !["Ready", "Degraded"].contains(&&**reason));
    let wrong: Vec<_> = explained.symmetric_difference(&reasons).collect();
    ensure!(wrong.is_empty(), "explained and not there, or there and not explained: {wrong:?}");
    Ok(())
}

/// The words of more than a letter, written as reasons are, of the files that make conditions: those
/// with a field `reason`.
fn named_reasons(folder: &Path, reasons: &mut BTreeSet<String>) -> Result<()> {
    let types = ["Ready", "Reconciling", "Stalled", "Degraded", "True", "False", "Unknown"];
    let is_reason = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.chars().all(|c| c.is_ascii_alphabetic())
            && word.chars().any(|c| c.is_ascii_lowercase())
            && !types.contains(&word)
    };
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            named_reasons(&path, reasons)?;
            continue;
        }
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        if text.contains("Trouble {") || text.contains("Readiness {") {
            let quoted = text.split('"').skip(1).step_by(2);
            reasons.extend(quoted.filter(|word| is_reason(word)).map(str::to_owned));
        }
    }
    Ok(())
}
