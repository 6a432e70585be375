//! What a client is told is a walk along the stream, with a step back after each kill: to the change
//! right after the checkpoint, and no further.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::fixture::World;

/// How an operator ended.
pub struct Life {
    pub killed: bool,
    /// The position in the checkpoint.
    pub left: String,
    /// How many messages the client had then.
    pub told: usize,
}

/// The sequence number of every change, in the stream's order, and the message that tells of it: by
/// the stream itself, not by what the operator makes of it.
pub async fn changes(world: &World) -> Result<Vec<(String, Value)>> {
    let records = world.ministack.records(&world.stream).await?;
    let change = |record: &Value| {
        let record = &record["dynamodb"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let number = text(&record["SequenceNumber"])?;
        let pk = text(&record["Keys"]["PK"]["S"])?;
        let value = text(&record["NewImage"]["TargetAttribute"]["N"])?;
        let message = json!({
            "pk": pk.strip_prefix("target_pk#")?,
            "sk": "hoge",
            "value": value,
            "number": number,
        });
        Some((number, message))
    };
    let changes = records.iter().map(change).collect::<Option<_>>();
    changes.context("a record lacks something")
}

pub fn verify(changes: &[(String, Value)], lives: &[Life], messages: &[Value]) -> Result<()> {
    // The first change is at 1; 0 is where nothing was read yet.
    let places: BTreeMap<&str, usize> = std::iter::once("latest")
        .chain(changes.iter().map(|(number, _)| number.as_str()))
        .zip(0..)
        .collect();
    let place = |number: &str| places.get(number).copied().context("an unknown number");
    let mut at = 0;
    let mut furthest = 0;
    let mut lives = lives.iter().peekable();
    let mut step_back = None;
    for (n, message) in messages.iter().enumerate() {
        while let Some(life) = lives.next_if(|life| life.told <= n) {
            let next = place(&life.left)? + 1;
            step_back = life.killed.then_some(next);
        }
        let next = place(message["number"].as_str().context("no number")?)?;
        let (_, expected) = &changes[next - 1];
        ensure!(message == expected, "{message} instead of {expected}");
        ensure!(
            next == at + 1 || step_back.take() == Some(next),
            "message {n} is about change {next}, the one before it about {at}"
        );
        at = next;
        furthest = furthest.max(at);
    }
    ensure!(furthest == changes.len(), "only {furthest} changes arrived");
    Ok(())
}
