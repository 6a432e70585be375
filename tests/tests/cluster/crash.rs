//! Crashes: the operator is killed at the worst moments while items change. Each start continues exactly
//! after the checkpoint, and no record is lost.

mod history;
mod scenario;

use anyhow::{Result, ensure};
use scenario::Scenario;
use stream_notifier_tests::proxy::{ProxiedRequest, ProxyResponse};

use crate::fixture::{Checkpoint, WAIT_TIMEOUT, is_later};

#[tokio::test]
async fn loses_no_record_whenever_the_operator_is_killed() -> Result<()> {
    let mut scenario = Scenario::start().await?;

    // Before the first checkpoint: the client has the message, but the operator gets no response.
    let held = scenario.env.proxy.hold_response(ProxiedRequest::is_post_to_connection);
    let operator = scenario.start_operator().await?;
    let (written, delivered) =
        tokio::join!(scenario.update_items(20), scenario.wait_more_messages(1));
    written.and(delivered)?;
    operator.kill().await?;
    held.release();
    let stored = scenario.record_kill().await?;
    ensure!(stored.position()? == "latest", "{stored:?}");

    // Between a response and its checkpoint, while items still change.
    let mut behind = 0;
    for _ in 0..2 {
        let before = scenario.stored_position()?;
        let operator = scenario.start_operator().await?;
        scenario.update_items(5).await?;
        let what = "a later position";
        let is_past = |now: &str| is_later(now, &before);
        scenario.wait_checkpoint(what, |now| now.position().is_ok_and(is_past)).await?;
        let crash = async {
            scenario.wait_more_messages(3).await?;
            operator.kill().await
        };
        let (written, killed) = tokio::join!(scenario.update_items(35), crash);
        written.and(killed.map(drop))?;
        let stored = scenario.record_kill().await?;
        ensure!(is_past(stored.position()?), "{stored:?} after {before}");
        if is_later(&scenario.last_delivered()?, stored.position()?) {
            behind += 1;
        }
    }
    ensure!(behind > 0, "at least one kill must come between a post and its checkpoint");

    // While a post fails, the checkpoint stays before its record.
    let operator = scenario.start_operator().await?;
    scenario.update_items(1).await?;
    scenario.wait_last_message().await?;
    let delivered = scenario.last_delivered()?;
    let response = ProxyResponse::gateway_error(500, "InternalServerError", "")?;
    let failing = scenario.env.proxy.respond(response, ProxiedRequest::is_post_to_connection);
    scenario.update_items(9).await?;
    failing.wait_matched(1, WAIT_TIMEOUT).await?;
    let has_delivered =
        |now: &Checkpoint| now.position().is_ok_and(|now| !is_later(&delivered, now));
    let stored = scenario
        .wait_checkpoint("the position of the last delivered record", has_delivered)
        .await?;
    ensure!(stored.position()? == delivered, "{stored:?} after {delivered}");
    operator.kill().await?;
    failing.release();
    let stored = scenario.record_kill().await?;
    ensure!(stored.position()? == delivered, "{stored:?} after {delivered}");

    // Between the claim and the first read.
    let (before, epoch) = (scenario.stored_position()?, scenario.epoch());
    let held = scenario.env.proxy.hold(|request| request.is("GetShardIterator"));
    let operator = scenario.env.start_operator()?;
    scenario.wait_checkpoint("a claim", |now| now.epoch > epoch).await?;
    operator.kill().await?;
    held.release();
    let stored = scenario.record_kill().await?;
    ensure!(stored.position()? == before, "{stored:?} after {before}");

    // On SIGTERM, the operator finishes the posts in flight. No message is repeated.
    let operator = scenario.start_operator().await?;
    let stop = async {
        scenario.wait_more_messages(10).await?;
        operator.stop().await
    };
    let (written, stopped) = tokio::join!(scenario.update_items(60), stop);
    written.and(stopped)?;
    let stored = scenario.record_stop().await?;
    ensure!(stored.position()? == scenario.last_delivered()?, "{stored:?}");

    let operator = scenario.start_operator().await?;
    scenario.update_items(30).await?;
    scenario.wait_last_message().await?;
    operator.stop().await?;
    let stored = scenario.record_stop().await?;
    ensure!(stored.position()? == scenario.last_delivered()?, "{stored:?}");
    scenario.verify(200).await
}
