//! Checks the messages of a client against the stream: they follow the records in order, and after each
//! kill they continue right after the checkpoint.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::fixture::TestEnv;

/// The end of an operator process.
pub struct OperatorRun {
    pub was_killed: bool,
    /// The position in the checkpoint.
    pub position: String,
    /// The number of messages that the client had at that moment.
    pub messages: usize,
}

/// Sequence number and expected message of every record, in the order of the stream.
pub async fn records(env: &TestEnv) -> Result<Vec<(String, Value)>> {
    let records = env.ministack.records(&env.stream).await?;
    let expected = |record: &Value| {
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
    let records = records.iter().map(expected).collect::<Option<_>>();
    records.context("a record lacks a field")
}

pub fn verify(records: &[(String, Value)], runs: &[OperatorRun], messages: &[Value]) -> Result<()> {
    // The first record has the index 1. The index 0 is the position before it.
    let indices: BTreeMap<&str, usize> = std::iter::once("latest")
        .chain(records.iter().map(|(number, _)| number.as_str()))
        .zip(0..)
        .collect();
    let index_of =
        |number: &str| indices.get(number).copied().context("an unknown sequence number");
    let mut last = 0;
    let mut max = 0;
    let mut runs = runs.iter().peekable();
    let mut restart = None;
    for (n, message) in messages.iter().enumerate() {
        while let Some(run) = runs.next_if(|run| run.messages <= n) {
            let next = index_of(&run.position)? + 1;
            restart = run.was_killed.then_some(next);
        }
        let next = index_of(message["number"].as_str().context("no sequence number")?)?;
        let (_, expected) = &records[next - 1];
        ensure!(message == expected, "{message} instead of {expected}");
        ensure!(
            next == last + 1 || restart.take() == Some(next),
            "message {n} is about record {next}, the message before it about {last}"
        );
        last = next;
        max = max.max(last);
    }
    ensure!(max == records.len(), "only {max} records were delivered");
    Ok(())
}
